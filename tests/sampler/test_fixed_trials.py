"""Trials whose parameters were fixed beforehand: the network that they name is trained, and no prefix."""

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, worth_growing, worth_training
from optuna_trlhpo.layers import parse
from optuna_trlhpo.space.encoding import suggest_layer
from optuna_trlhpo.space.sampler_hooks import frozen
from optuna_trlhpo.trials.fixed_network import FixedNetwork, fixed_network

AGENT = AgentConfig(n_candidates=40, n_generations=2, fit_steps=2, random_interval=0)
SPACE = LayerSpace(input_shape=(1, 16, 16), max_layers=6, min_accuracy=None, min_improvement=None)
FOUR = parse("Conv(8,3,1) > Conv(8,3,1) > MaxPool(2,2,0) > FCL(16,relu,bias)")
SIX = parse(
    "Conv(8,3,1) > Conv(8,3,1) > Conv(8,3,1) > MaxPool(2,2,0) > FCL(16,relu,bias) > FCL(16,relu,bias)"
)


def sampler_of(prior=True):
    return TRLHPOSampler(seed=0, agent=AGENT, n_startup_trials=2, layer_prior=prior)


def study_of(sampler=None, **create):
    sampler = sampler_of() if sampler is None else sampler
    pruner = create.pop("pruner", optuna.pruners.NopPruner())
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, **create)


def grow(trial, space=SPACE):
    for layers in space.grow(trial):
        trial.report(0.5 + 0.05 * len(layers), step=len(layers) - 1)
    return 0.5 + 0.05 * len(layers)


def depths_of(trial):
    return [step + 1 for step in trial.intermediate_values]


@pytest.mark.slow
@pytest.mark.parametrize("n_before", [0, 5])  # while nothing is known, and later
@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("layers", [FOUR, SIX], ids=len)
def test_an_enqueued_network_is_trained_and_no_prefix_of_it(n_before, prior, layers):
    study = study_of(sampler_of(prior))
    study.optimize(grow, n_trials=n_before)
    study.enqueue_trial(SPACE.to_params(layers))
    study.optimize(grow, n_trials=1)
    trained = depths_of(study.trials[-1])
    assert SPACE.from_params(study.trials[-1].params)[: len(layers)] == layers
    assert trained[0] == len(layers)
    # Where it may grow on a plan says how far, and where nothing is known yet, chance.
    assert len(trained) <= 2 or not (prior or n_before)


@pytest.mark.slow
@pytest.mark.parametrize("pruner", [optuna.pruners.NopPruner, optuna.pruners.HyperbandPruner])
def test_in_brackets_and_behind_other_parameters(pruner):
    def objective(trial):
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)  # which the sampler answers, with a plan
        return grow(trial) - rate

    study = study_of(pruner=pruner())
    study.optimize(objective, n_trials=4)
    study.enqueue_trial(SPACE.to_params(SIX))
    study.optimize(objective, n_trials=1)
    assert depths_of(study.trials[-1]) == [6]


def test_what_does_not_name_a_network_decides_nothing():
    study = study_of()
    study.enqueue_trial({f"layer{k}_conv_stride": 1 for k in (1, 2, 3)} | {"rate": 1})
    study.optimize(grow, n_trials=2)
    fixed, free = study.trials
    assert len(fixed.intermediate_values) <= 2 and len(free.intermediate_values) <= 2


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.RandomSampler(seed=0), TRLHPOSampler.paper(seed=0)], ids=["random", "paper"]
)
def test_who_has_every_prefix_trained_has_it_here_too(sampler):
    study = study_of(sampler)
    study.enqueue_trial(SPACE.to_params(SIX))
    study.optimize(grow, n_trials=1)
    assert depths_of(study.trials[0]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("train_prefixes", ["all", 2])
def test_the_space_says_otherwise(train_prefixes):
    space = LayerSpace(
        input_shape=(1, 16, 16), min_accuracy=None, min_improvement=None, train_prefixes=train_prefixes
    )
    study = study_of()
    study.enqueue_trial(SPACE.to_params(SIX))
    study.optimize(lambda trial: grow(trial, space), n_trials=1)
    assert depths_of(study.trials[0]) == ([1, 2, 3, 4, 5, 6] if train_prefixes == "all" else [2, 4, 6])


# Retries --------------------------------------------------------------------------------------------------


def fail(study, layers, reported):
    """As a worker does that dies, after it has reported networks of so many layers."""
    study.enqueue_trial(SPACE.to_params(layers))
    trial = study.ask()
    for depth in range(1, len(layers) + 1):
        suggest_layer(SPACE, trial, layers[: depth - 1])
        if depth in reported:
            trial.report(0.5 + 0.05 * depth, step=depth - 1)
    study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", {})  # it was not enqueued, really
    study.tell(trial, state=optuna.trial.TrialState.FAIL)


@pytest.mark.parametrize("inherits", [False, True])
@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_a_retry_of_a_trial_with_reports_trains_what_that_was_training(inherits, storage, tmp_path):
    study = study_of(storage=None if storage == "memory" else f"sqlite:///{tmp_path}/study.db")
    fail(study, FOUR, reported=[2])
    retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=inherits)
    retry(study, study.trials[-1])
    study.optimize(grow, n_trials=1)
    trial = study.trials[-1]
    assert SPACE.from_params(trial.params) == FOUR  # it does not grow on, either
    assert depths_of(trial) == ([2, 4] if inherits else [4])


def test_a_retry_of_a_retry_too():
    study, retry = study_of(), RetryHeartbeatStaleTrialCallback()
    fail(study, FOUR, reported=[2])
    retry(study, study.trials[-1])
    trial = study.ask()  # which dies before it has reported anything
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    retry(study, study.trials[-1])
    study.optimize(grow, n_trials=1)
    assert study.trials[-1].number == 2 and depths_of(study.trials[-1]) == [4]


def test_a_retry_of_a_trial_without_reports_may_grow_on():
    study = study_of()
    fail(study, FOUR, reported=[])
    RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
    study.optimize(grow, n_trials=1)
    trained = depths_of(study.trials[-1])
    assert trained[0] == 4 and len(trained) <= 2


# Loops of one's own ---------------------------------------------------------------------------------------


def test_loops_that_grow_something_else_ask_it_too():
    trained = []

    def objective(trial):
        for depth in range(1, 6):
            trial.suggest_categorical(f"op{depth - 1}", ["a", "b", "c"])
            if depth == 5 or worth_training(trial, depth=depth, max_depth=5):
                trained.append(depth)
                trial.report(0.1 * depth, step=depth - 1)
                if not worth_growing(trial):
                    break
        return 0.1 * depth

    study = study_of()
    study.enqueue_trial({f"op{k}": "a" for k in range(5)} | {"rate": 0.1})
    study.optimize(objective, n_trials=1)
    assert trained == [5]


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({}, None),
        ({"rate": 0.1, "momentum": 0.9}, None),
        ({"op0": "a", "op1": "b"}, 2),
        ({"op_a": 1, "units_l0": 8, "units_l1": 8, "dropout_l0": 0.1}, 2),
        ({"layer1_kind": 1, "layer2_kind_of_conv_fcl": 1, "layer3_kind": 1}, 3),
        ({"block1_layer1": 1, "block1_layer2": 1}, 1),
        (None, None),
        ([1, 2], None),
        ("text", None),
    ],
)
def test_how_deep_the_network_is_that_is_named(fixed, expected):
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    study.add_trial(
        optuna.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs={"fixed_params": fixed})
    )
    trial = frozen(study.ask()) if isinstance(fixed, dict) else study.trials[0]
    assert fixed_network(study, trial) == (None if expected is None else FixedNetwork(expected, False))


@pytest.mark.parametrize("history", [None, 3, "text", [], [99], [None, {}], [[0]]])
def test_a_history_that_somebody_else_wrote_names_nothing(history):
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    trial = optuna.create_trial(
        state=optuna.trial.TrialState.WAITING, system_attrs={"retry_history": history}
    )
    study.add_trial(trial)
    assert fixed_network(study, study.trials[0]) is None
