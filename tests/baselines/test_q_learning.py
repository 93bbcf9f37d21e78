"""What the samplers with Q-tables share: actions, positions, rewards, schedules, and what a study teaches."""

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.baselines import LayerwiseQSampler, MetaQNNSampler, MultiAgentSampler
from optuna_trlhpo.baselines.q_learning.actions import action_of, actions_of, value_of
from optuna_trlhpo.baselines.q_learning.position import TrialPosition
from optuna_trlhpo.baselines.q_learning.q_sampler import EpsilonSchedule
from optuna_trlhpo.baselines.q_learning.q_table import greedy_action
from optuna_trlhpo.baselines.q_learning.rewards import accuracies_or_ranks, global_rewards, violations_of

MAKERS = {
    "layerwise-q": lambda **more: LayerwiseQSampler(n_trials=20, n_replays=8, **more),
    "metaqnn": lambda **more: MetaQNNSampler(n_trials=20, n_replays=8, **more),
    "multi-agent": lambda **more: MultiAgentSampler(n_startup_trials=2, **more),
}


@pytest.fixture(params=list(MAKERS))
def make(request):
    return MAKERS[request.param]


@pytest.mark.parametrize(
    ("distribution", "n"),
    [
        (CategoricalDistribution(["a", None, 3, True, "b", "c"]), 6),
        (IntDistribution(0, 3), 4),
        (IntDistribution(0, 9), 4),
        (IntDistribution(8, 128, step=8), 4),
        (IntDistribution(1, 10**6, log=True), 4),
        (IntDistribution(1, 3, log=True), 3),
        (FloatDistribution(-1, 1), 4),
        (FloatDistribution(1e-5, 1e-1, log=True), 4),
        (FloatDistribution(0, 0.5, step=0.25), 3),
        (FloatDistribution(0, 1, step=1e-6), 4),
    ],
)
def test_an_action_has_values_and_each_value_one_action(distribution, n):
    rng = np.random.default_rng(0)
    actions = actions_of("x", distribution, 4)
    assert actions == tuple(range(n))
    for action in actions:
        for _ in range(20):
            value = value_of("x", distribution, action, 4, rng)
            assert action_of("x", distribution, value, 4) == action
            assert not hasattr(value, "dtype")


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_choices_may_be_of_any_kind():
    distribution = CategoricalDistribution([[1], {"a": 2}])  # type: ignore[list-item]
    assert actions_of("x", distribution, 4) == (0, 1)
    assert value_of("x", distribution, 1, 4, np.random.default_rng(0)) == {"a": 2}


def test_values_are_drawn_from_all_of_a_bin():
    rng = np.random.default_rng(0)
    values = {value_of("x", IntDistribution(0, 9), 3, 4, rng) for _ in range(50)}
    assert values == {7, 8, 9}
    small, large = (value_of("x", FloatDistribution(1e-5, 1e-1, log=True), k, 4, rng) for k in (0, 3))
    assert 1e-5 <= small <= 1e-4 and 1e-2 <= large <= 1e-1


def test_what_is_left_of_a_layer_has_the_actions_of_its_full_range():
    assert actions_of("layer2_conv_kernel", IntDistribution(5, 7, step=2), 4) == (1, 2)
    assert actions_of("layer2_kind_of_pool_fcl", CategoricalDistribution(["MaxPool", "FCL"]), 4) == (1, 2)


def test_parameters_without_a_choice_are_no_decision():
    position = TrialPosition(n_bins=4)
    position.push("a", IntDistribution(3, 3), 3)
    position.push("b_1", CategoricalDistribution(["x", "y"]), "y")
    position.push("c_1", CategoricalDistribution(["x"]), "x")
    position.push("d_1", IntDistribution(0, 3), 2)
    assert [step.choices for step in position.steps] == [[("b_1", 1), ("d_1", 2)]]
    assert position.step_so_far("e_1") == (("b_1", 1), ("d_1", 2)) and position.step_before("e_1") == ()
    assert position.step_so_far("e_2") == () and position.step_before("e_2") == (("b_1", 1), ("d_1", 2))


def test_rewards_of_one_objective():
    yes = np.array([True, True, True, True])
    nan = np.nan
    assert accuracies_or_ranks(np.array([-0.1, nan, -1.0, 0.0]), yes).tolist() == [0.9, 0.0, 0.0, 1.0]
    # One value that is no accuracy makes all of them ranks.
    assert accuracies_or_ranks(np.array([0.9, nan, 0.5, 1.5]), yes).tolist() == [0.625, 0.0, 0.375, 0.875]
    assert accuracies_or_ranks(np.array([nan, nan]), yes[:2]).tolist() == [0.0, 0.0]
    assert accuracies_or_ranks(np.array([np.inf, -np.inf]), yes[:2]).tolist() == [0.75, 0.25]


def test_rewards_of_any_objectives_and_constraints():
    outcomes = np.array([[5.0], [7.0], [9.0], [9.5], [np.nan]])
    violations = violations_of([{}, {"a": 0.0}, {"a": 4.0}, {"a": 2.0, "b": 1e-9}, {}])
    # Of the infeasible ones the second violates one constraint by a half of the worst, another by all of it.
    assert global_rewards(outcomes, violations, np.ones(1)).tolist() == [0.7, 0.9, 0.5, 0.3, 0.1]
    assert violations_of([{"a": np.nan}, {"a": -np.inf}]).tolist() == [[np.inf], [0.0]]
    unknown = global_rewards(outcomes[:2], violations_of([{"a": np.nan}, {"a": 5.0}]), np.ones(1))
    assert unknown.tolist() == [0.25, 0.75]


def test_a_weight_makes_an_objective_count_more():
    outcomes = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    none = np.zeros((3, 0))
    assert np.argmax(global_rewards(outcomes, none, np.array([1.0, 1.0]))) == 1
    assert np.argmax(global_rewards(outcomes, none, np.array([9.0, 1.0]))) == 2
    assert np.argmax(global_rewards(outcomes, none, np.array([1.0, 9.0]))) == 0


def test_a_schedule_is_scaled_or_stands_as_it_is():
    phases = ((1.0, 1500), (0.5, 500))
    assert [EpsilonSchedule(phases, None)(n) for n in (0, 1499, 1500, 9999)] == [1.0, 1.0, 0.5, 0.5]
    assert [EpsilonSchedule(phases, 40)(n) for n in (0, 29, 30, 9999)] == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    "phases",
    [(), ((1.5, 3),), ((0.5, 0),), ((0.5, np.inf),), ((0.5,),), 0.5, (("a", 1),), ((True, 1),)],
)
def test_a_bad_schedule_is_named(phases):
    with pytest.raises(ValueError, match="epsilon_schedule is .*; it must be pairs of a probability"):
        EpsilonSchedule(phases, None)


def test_ties_are_drawn_at_random():
    rng = np.random.default_rng(0)
    assert {greedy_action([0.5, 0.7, 0.7], (3, 5, 7), rng) for _ in range(20)} == {5, 7}
    assert {greedy_action([0.8, 0.7, 0.7], (3, 5, 7), rng) for _ in range(20)} == {3}


@pytest.mark.parametrize("sampler", [MetaQNNSampler, LayerwiseQSampler])
def test_epsilon_decides_for_a_whole_layer(sampler):
    """Half of the layers are greedy in all their parameters, the others in none, but by chance."""
    names = [f"layer{k}_{part}" for k in (1, 2, 3) for part in ("kind_of_a_b", "size", "rate")]
    half = sampler(epsilon_schedule=((0.5, 1),), seed=0)
    study = optuna.create_study(direction="maximize", sampler=half)
    choices: dict[str, BaseDistribution] = {name: CategoricalDistribution(range(100)) for name in names}
    for best, value in ((7, 1.0), (8, 0.0)):
        params = dict.fromkeys(names, best)
        study.add_trial(optuna.create_trial(params=params, distributions=choices, value=value))
    greedy = []
    for _ in range(40):
        trial = study.ask()
        chosen = [trial.suggest_categorical(name, range(100)) == 7 for name in names]
        greedy.append(chosen[:3])  # behind another first layer the greedy choice is not known
    n_greedy = [sum(it) for it in greedy]
    assert set(n_greedy) <= {0, 1, 3} and 10 < n_greedy.count(3) < 30 and n_greedy.count(1) <= 3


# What a study teaches ----------------------------------------------------------------------------------

SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    kinds = [trial.suggest_categorical(f"layer{k}", ["a", "b", "c"]) for k in (1, 2, 3)]
    trial.suggest_int("only", 2, 2)
    if trial.number % 7 == 3:
        raise ValueError
    if trial.number % 7 == 5:
        raise optuna.TrialPruned
    if trial.number % 7 == 6:
        trial.set_constraint("size", 1.0)
    return x + kinds.count("b")


def layers(trial):
    network = SPACE.suggest(trial)
    return float(SPACE.encode(network).mean())


@pytest.mark.parametrize(
    ("played", "parts", "url"),
    [
        (objective, (9, 1, 14), None),
        (layers, (9, 1, 14), None),
        (objective, (6, 1, 5), "sqlite:///{}/study.db"),
    ],
)
def test_a_new_sampler_on_a_stored_study_goes_on_as_an_uninterrupted_one(make, played, parts, url, tmp_path):
    storage = url.format(tmp_path) if url else optuna.storages.InMemoryStorage()
    whole = optuna.create_study(direction="maximize", sampler=make(seed=0))
    whole.optimize(played, n_trials=sum(parts), catch=(ValueError,))
    for n_trials in parts:
        study = optuna.create_study(
            storage=storage, study_name="s", direction="maximize", sampler=make(seed=0), load_if_exists=True
        )
        study.optimize(played, n_trials=n_trials, catch=(ValueError,))
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_trials_are_learned_in_the_order_in_which_they_finished(make):
    """Several workers finish trials in another order: who saw it, and who did not, propose the same."""

    def kind(trial):
        return trial.suggest_categorical("layer1", ["a", "b", "c"])

    sampler, storage = make(seed=3), optuna.storages.InMemoryStorage()
    study = optuna.create_study(direction="maximize", storage=storage, study_name="s", sampler=sampler)
    value = {"a": 0.2, "b": 0.9, "c": 0.5}
    for _ in range(8):
        first, second = study.ask(), study.ask()
        kinds = kind(first), kind(second)
        study.tell(second, value[kinds[1]])
        third = study.ask()
        study.tell(third, value[kind(third)])
        study.tell(first, value[kinds[0]])
    optuna.copy_study(from_study_name="s", from_storage=storage, to_storage=storage, to_study_name="copy")
    copied = optuna.load_study(storage=storage, study_name="copy", sampler=make(seed=3))
    assert [kind(study.ask()) for _ in range(12)] == [kind(copied.ask()) for _ in range(12)]


def test_a_storage_that_loses_the_order_of_parameters_is_told_of_it(make, monkeypatch):
    from optuna_trlhpo.baselines.q_learning import q_sampler
    from optuna_trlhpo.trials.order import noted_order

    monkeypatch.setattr(q_sampler, "keeps_order", lambda study: False)
    study = optuna.create_study(direction="maximize", sampler=make(seed=0))
    study.optimize(objective, n_trials=3)
    assert [noted_order(trial) for trial in study.trials] == [["x", "layer1", "layer2", "layer3", "only"]] * 3
