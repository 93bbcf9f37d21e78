"""Every way in which a trial can begin or end: what is learned from it, and what is not."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from optuna_trlhpo import LayerSpace
from tests.helpers import replay_of

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


def ask_both(trial):
    return trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)


def learned(sampler, study):
    """The last outcome of every trial that was learned from, after all that is finished was offered."""
    trial = study.ask()
    trial.suggest_float("asked_to_learn", 0, 1)
    study.tell(trial, state=TrialState.FAIL)
    n = len(replay_of(sampler))
    if n == 0:
        return []
    rows = replay_of(sampler).rows(np.arange(n))
    return [
        float(outcomes[length - 1, 0])
        for outcomes, length in zip(rows["outcomes"], rows["length"], strict=True)
    ]


@pytest.fixture
def sampler(make_sampler):
    return make_sampler()


@pytest.fixture
def study(sampler):
    return optuna.create_study(sampler=sampler, direction="maximize")


def test_enqueued_trials_are_played_and_learned(sampler, study):
    study.enqueue_trial({"x": 0.25, "y": 0.5})
    study.enqueue_trial({"x": 0.75})  # y is the sampler's
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=2)
    assert study.trials[0].params == {"x": 0.25, "y": 0.5}
    assert study.trials[1].params["x"] == 0.75
    assert learned(sampler, study) == [trial.value for trial in study.trials[:2]]


def test_an_agent_obeys_what_is_enqueued_and_plans_the_rest(sampler, study):
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=6)
    study.enqueue_trial({"x": 0.125})
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=1)
    assert study.trials[-1].params["x"] == 0.125
    assert 0 <= study.trials[-1].params["y"] <= 1


def test_an_enqueued_value_outside_table_one_fails_that_trial_alone(sampler, study):
    space = LayerSpace(max_layers=2)

    def objective(trial):
        for layers in space.grow(trial):
            trial.report(0.7 + 0.1 * len(layers), step=len(layers) - 1)
        return 0.9

    study.enqueue_trial({"layer1_conv_filters": 12})
    with (
        pytest.warns(UserWarning, match="out of range"),
        pytest.raises(ValueError, match="'layer1_conv_filters' is 12; it must be 8 to 128 in steps of 8"),
    ):
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=3)
    assert learned(sampler, study) == [0.9] * 3


def test_an_enqueued_value_outside_its_range_is_learned_as_the_nearest(sampler, study):
    study.enqueue_trial({"x": 7.0, "y": 0.5})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda trial: sum(ask_both(trial)), n_trials=1)
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=5)
    assert replay_of(sampler).rows(np.array([0]))["actions"][0, :, 0].tolist() == [1.0, 0.5]


def test_pruned_trials_are_learned_with_their_last_report(sampler, study):
    def objective(trial):
        ask_both(trial)
        trial.report(0.3, step=0)
        trial.report(0.2, step=1)
        raise optuna.TrialPruned

    study.optimize(objective, n_trials=2)
    assert learned(sampler, study) == [0.2, 0.2]


@pytest.mark.parametrize("report", [None, math.nan])
def test_pruned_trials_without_a_number_are_learned_as_the_worst(sampler, study, report):
    def objective(trial):
        ask_both(trial)
        if report is not None:
            trial.report(report, step=0)
        raise optuna.TrialPruned

    study.optimize(objective, n_trials=2)
    assert learned(sampler, study) == [-math.inf] * 2


def test_failed_and_nan_trials_are_not_learned_and_the_study_goes_on(sampler, study):
    def objective(trial):
        x, _ = ask_both(trial)
        trial.report(x, step=0)
        if trial.number % 3 == 0:
            raise RuntimeError("broken")
        return math.nan if trial.number % 3 == 1 else x

    study.optimize(objective, n_trials=9, catch=(RuntimeError,))
    assert learned(sampler, study) == [study.trials[k].value for k in (2, 5, 8)]


def test_infinite_values_are_learned_as_extremes(sampler, study):
    study.optimize(lambda trial: [math.inf, -math.inf, ask_both(trial)[0]][trial.number % 3], n_trials=3)
    study.optimize(lambda trial: math.inf if ask_both(trial)[0] > 0.5 else -math.inf, n_trials=12)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    values = learned(sampler, study)
    assert math.inf in values and -math.inf in values
    batch = sampler.agent.networks.transitions.batch(np.random.default_rng(0))
    assert batch.returns.isfinite().all()
    assert np.isfinite(
        sampler.agent.configurations.search.memory.known(np.random.default_rng(0), np.zeros(0)).values
    ).all()


def test_an_infinite_report_is_learned_as_an_extreme(sampler, study):
    def objective(trial):
        trial.suggest_float("width_0", 0, 1)
        trial.report(-math.inf, step=0)
        trial.suggest_float("width_1", 0, 1)
        trial.report(0.5, step=1)
        return 0.5

    study.optimize(objective, n_trials=8)
    assert len(learned(sampler, study)) == 8
    assert np.isfinite(
        sampler.agent.configurations.search.memory.known(np.random.default_rng(0), np.zeros(0)).values
    ).all()


def test_a_network_that_diverges_after_a_good_prefix_is_worth_nothing(sampler, study):
    def objective(trial):
        trial.suggest_float("width_0", 0, 1)
        trial.report(0.5, step=0)
        trial.suggest_float("width_1", 0, 1)
        trial.report(math.nan, step=1)
        return 0.5

    study.optimize(objective, n_trials=2)
    assert learned(sampler, study) == [-math.inf] * 2


def test_added_trials_are_learned(sampler, study):
    added = [
        optuna.create_trial(params={"x": x, "y": 0.5}, distributions=SPACE, value=x)
        for x in (0.1, 0.2, 0.3, 0.4)
    ]
    study.add_trials(added)
    assert learned(sampler, study) == [0.1, 0.2, 0.3, 0.4]
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=2)
    assert len(learned(sampler, study)) == 6


def test_added_layer_trials_are_learned_by_their_final_value_alone(sampler, study):
    """Nobody saw which report came before which parameter."""
    study.add_trial(
        optuna.create_trial(
            params={"w_0": 0.1, "w_1": 0.2},
            distributions={"w_0": SPACE["x"], "w_1": SPACE["x"]},
            value=0.7,
            intermediate_values={0: 0.6, 1: 0.7},
        )
    )
    assert learned(sampler, study) == [0.7]
    assert np.isnan(replay_of(sampler).rows(np.array([0]))["outcomes"][0, 0, 0])


def test_partially_fixed_parameters_are_learned_like_any(sampler, study):
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=4)
    study.sampler = optuna.samplers.PartialFixedSampler({"x": 0.5}, sampler)
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=4)
    assert all(trial.params["x"] == 0.5 for trial in study.trials[4:])
    assert len(learned(sampler, study)) == 8


def test_ask_and_tell(sampler, study):
    for _ in range(6):
        trial = study.ask()
        x, _ = ask_both(trial)
        study.tell(trial, x)
    pruned = study.ask()
    ask_both(pruned)
    pruned.report(0.125, step=0)
    study.tell(pruned, state=TrialState.PRUNED)
    failed = study.ask()
    ask_both(failed)
    study.tell(failed, state=TrialState.FAIL)
    failed_whole = -math.inf  # all that it would have asked for, and it failed
    assert learned(sampler, study) == [trial.value for trial in study.trials[:6]] + [0.125, failed_whole]


def test_a_trial_that_was_failed_from_outside_costs_nothing_learned(sampler, study):
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=6)
    late = study.ask()
    late.suggest_float("x", 0, 1)
    study.tell(late.number, state=TrialState.FAIL)  # as a heartbeat does, or the dashboard
    study.optimize(lambda trial: sum(ask_both(trial)), n_trials=1)
    agent = sampler.agent.networks.ddpg
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        late.suggest_float("y", 0, 1)
    assert sampler.agent.networks.ddpg is agent


def test_several_trials_asked_before_any_is_told(sampler, study):
    trials = [study.ask() for _ in range(8)]
    for trial in trials:
        trial.suggest_float("x", 0, 1)
    for trial in trials:
        trial.suggest_float("y", 0, 1)
        study.tell(trial, 1.0)
    assert len(learned(sampler, study)) == 8
    assert sampler.agent.courses.keys() == {8}  # only the one that was asked for to learn


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_hyperband_trials_are_learned_in_every_bracket(make_sampler, direction):
    sampler = make_sampler()
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    # A trial's bracket depends on the name of the study, which would else be drawn anew each time.
    study = optuna.create_study(sampler=sampler, pruner=pruner, direction=direction, study_name="brackets")

    def objective(trial):
        x, _ = ask_both(trial)
        for step in range(9):
            trial.report(x * (step + 1) / 9, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study.optimize(objective, n_trials=30)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    # What a bracket has not been asked about since is yet to come.
    assert 20 < len(replay_of(sampler)) <= 30


@pytest.mark.parametrize("storage", ["memory", "sqlite", "journal"])
def test_reports_are_seen_on_every_storage(make_sampler, storage, tmp_path):
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    made = {
        "memory": InMemoryStorage,
        "sqlite": lambda: RDBStorage(f"sqlite:///{tmp_path}/s.db"),
        "journal": lambda: JournalStorage(JournalFileBackend(str(tmp_path / "journal"))),
    }[storage]()
    sampler = make_sampler()
    study = optuna.create_study(storage=made, sampler=sampler, direction="maximize")

    def objective(trial):
        trial.suggest_float("w_0", 0, 1)
        trial.report(0.5, step=0)
        trial.suggest_float("w_1", 0, 1)
        trial.report(0.75, step=1)
        return 0.75

    study.optimize(objective, n_trials=5)
    assert learned(sampler, study) == [0.75] * 5
    rows = replay_of(sampler).rows(np.arange(5))
    np.testing.assert_allclose(rows["outcomes"][:, 0, 0], 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["default", "paper"])
def test_minimise_and_maximise_are_mirrored(make_sampler, configuration):
    from optuna_trlhpo import TRLHPOSampler

    def run(direction, sign):
        sampler = make_sampler() if configuration == "default" else TRLHPOSampler.paper(seed=0)
        study = optuna.create_study(direction=direction, sampler=sampler)

        def objective(trial):
            first = trial.suggest_float("w_0", 0, 1)
            trial.report(sign * first, step=0)
            second = trial.suggest_float("w_1", 0, 1)
            trial.report(sign * (first + second), step=1)
            return sign * (first + second)

        study.optimize(objective, n_trials=12)
        return [trial.params for trial in study.trials]

    assert run("maximize", 1) == run("minimize", -1)
