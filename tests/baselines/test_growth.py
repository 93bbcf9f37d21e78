import itertools

import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.baselines import BeamGrowthSampler, GreedyGrowthSampler

LAYERS = 4


def progressive(values, *, layers=LAYERS, log=None):
    """An objective over layers of three choices; ``values(prefix)`` is what a prefix is worth."""

    def objective(trial):
        prefix = ""
        for k in range(layers):
            prefix += trial.suggest_categorical(f"layer{k}", ["a", "b", "c"])
            if log is not None and prefix not in log:
                log.append(prefix)
            trial.report(values(prefix), step=k)
        return values(prefix)

    return objective


def run(sampler, objective, n_trials, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def additive(prefix):
    return sum("abc".index(layer) * weight for layer, weight in zip(prefix, (1, 5, 2, 3), strict=False))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_greedy_growth_tries_all_of_a_layer_and_keeps_the_best(direction):
    log: list[str] = []
    sign = 1 if direction == "maximize" else -1
    objective = progressive(lambda prefix: sign * additive(prefix), log=log)
    study = run(GreedyGrowthSampler(seed=0), objective, 12, direction)
    for k in range(LAYERS):
        assert sorted(log[3 * k : 3 * k + 3]) == ["c" * k + last for last in "abc"]
    assert len(log) == 12 and study.best_value == sign * 22


def test_a_trial_ends_where_its_question_is_answered():
    study = run(GreedyGrowthSampler(seed=0), progressive(additive), 12)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.PRUNED] * 9 + [TrialState.COMPLETE] * 3
    assert [len(trial.intermediate_values) for trial in study.trials] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


def test_without_ending_trials_the_rest_is_the_best_that_is_known():
    study = run(GreedyGrowthSampler(end_trials=False, seed=0), progressive(additive), 9)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert sorted(trial.params["layer0"] for trial in study.trials[:3]) == ["a", "b", "c"]
    for trial in study.trials[3:]:
        # A prefix that is known goes on by its best known child, another one like the best trial.
        before = study.trials[: trial.number]
        assert trial.params["layer0"] == "c"
        assert all(trial.params != other.params for other in before)
    assert study.best_value == 22


def test_the_second_pass_keeps_two_prefixes_of_each_length():
    def deceptive(prefix):
        """Behind "b", the second best beginning, lies the best of all."""
        return additive(prefix) + (100 if prefix.startswith("ba") else 0)

    log: list[str] = []
    study = run(GreedyGrowthSampler(seed=0), progressive(deceptive, log=log), 30)
    assert all(prefix[0] == "c" for prefix in log[3:12])
    assert sorted(log[12:15]) == ["ba", "bb", "bc"]
    assert log.index("bacc") < 12 + 3 + 6 + 6 and study.best_value == additive("bacc") + 100


def test_a_beam_keeps_several():
    log: list[str] = []
    run(BeamGrowthSampler(width=2, seed=0), progressive(additive, log=log), 3 + 3 * 6)
    levels = [log[:3], log[3:9], log[9:15], log[15:]]
    assert sorted(levels[0]) == ["a", "b", "c"]
    for level, further in itertools.pairwise(levels):
        best = sorted(level, key=additive)[-2:]
        assert sorted(further) == sorted(a + b for a, b in itertools.product(best, "abc"))


def test_in_the_end_everything_is_tried_and_nothing_twice():
    log: list[str] = []
    study = run(GreedyGrowthSampler(seed=0), progressive(additive, layers=3, log=log), 3 + 9 + 27)
    assert len(log) == 3 + 9 + 27
    study.optimize(progressive(additive, layers=3), n_trials=3)
    assert len(study.trials) == 42


def test_the_most_children_of_a_layer():
    def objective(trial):
        value = 0.0
        for k in range(2):
            kind = trial.suggest_categorical(f"layer{k}_kind", ["conv", "pool"])
            if kind == "conv":
                value += trial.suggest_float(f"layer{k}_rate", 0, 1)
            value += trial.suggest_int(f"layer{k}_size", 1, 100) / 100
            trial.report(value, step=k)
        return value

    study = run(GreedyGrowthSampler(n_children=6, seed=0), objective, 12)
    assert [len(trial.intermediate_values) for trial in study.trials] == [1] * 6 + [2] * 6
    best = max(study.trials[:6], key=lambda trial: trial.value)
    for trial in study.trials[6:]:
        assert trial.params.items() >= best.params.items()
    study.optimize(objective, n_trials=6)  # twice as many in the second pass: six more beginnings first
    assert [len(trial.intermediate_values) for trial in study.trials[12:]] == [1] * 6


def test_several_parameters_of_a_layer_are_gone_through():
    """2 x 2 and 1 x 3 continuations, each once."""

    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        if kind == "a":
            value = trial.suggest_int("p", 0, 1) + trial.suggest_float("q", 0, 0.5, step=0.5)
        else:
            value = trial.suggest_categorical("r", [3, 4, 5])
        trial.report(value, step=0)
        trial.suggest_int("next", 0, 9)
        trial.report(value, step=1)
        return value

    study = run(GreedyGrowthSampler(seed=0), objective, 7 + 10)
    first = [str(trial.params) for trial in study.trials[:7]]
    assert len(set(first)) == 7
    assert sorted(trial.params["next"] for trial in study.trials[7:]) == list(range(10))
    assert all(trial.params["r"] == 5 for trial in study.trials[7:])


def test_a_prefix_that_ended_is_not_continued():
    """A stop rule of the objective's own: behind "c" nothing is asked."""

    def objective(trial):
        prefix = ""
        for k in range(3):
            prefix += trial.suggest_categorical(f"layer{k}", ["a", "b", "c"])
            trial.report(additive(prefix), step=k)
            if prefix[-1] == "c":
                break
        return additive(prefix)

    study = run(GreedyGrowthSampler(seed=0), objective, 9)
    prefixes = ["".join(trial.params.values()) for trial in study.trials]
    assert sorted(prefixes[:3]) == ["a", "b", "c"]  # "c" is the best, and complete
    assert sorted(prefixes[3:6]) == ["ba", "bb", "bc"]
    assert sorted(prefixes[6:]) == ["bba", "bbb", "bbc"]
    assert [p for p, t in zip(prefixes, study.trials, strict=True) if t.state == TrialState.COMPLETE][
        0
    ] == "c"


def test_an_objective_without_reports_is_searched_at_random_without_repeats():
    def objective(trial):
        return sum(trial.suggest_int(f"x{i}", 0, 2) for i in range(3))

    study = run(GreedyGrowthSampler(seed=0), objective, 27)
    assert len({str(trial.params) for trial in study.trials}) == 27
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_reports_of_epochs_are_no_prefixes():
    def objective(trial):
        x, y = trial.suggest_int("x", 0, 2), trial.suggest_int("y", 0, 2)
        for epoch in range(3):
            trial.report(x + y + epoch, step=epoch)
        return x + y

    study = run(BeamGrowthSampler(seed=0), objective, 9)
    assert len({str(trial.params) for trial in study.trials}) == 9
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_workers_try_different_children():
    study = run(GreedyGrowthSampler(seed=0), progressive(additive), 3)
    running = [study.ask() for _ in range(3)]
    for trial in running:
        trial.suggest_categorical("layer0", ["a", "b", "c"])
        trial.report(additive("c"), step=0)
        trial.suggest_categorical("layer1", ["a", "b", "c"])
    assert sorted(trial.params["layer1"] for trial in running) == ["a", "b", "c"]
    assert {trial.params["layer0"] for trial in running} == {"c"}


@pytest.mark.slow
def test_the_tree_is_read_from_a_database(tmp_path):
    for _ in range(4):
        study = optuna.create_study(
            storage=f"sqlite:///{tmp_path}/study.db",
            study_name="s",
            direction="maximize",
            sampler=GreedyGrowthSampler(seed=0),
            load_if_exists=True,
        )
        study.optimize(progressive(additive), n_trials=3)
    assert study.best_value == 22
    assert [len(trial.intermediate_values) for trial in study.trials] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


def test_a_failed_continuation_is_not_the_best():
    def objective(trial):
        prefix = ""
        for k in range(3):
            prefix += trial.suggest_categorical(f"layer{k}", ["a", "b", "c"])
            if prefix == "c":
                raise ValueError
            trial.report(additive(prefix), step=k)
        return additive(prefix)

    study = optuna.create_study(direction="maximize", sampler=GreedyGrowthSampler(seed=0))
    study.optimize(objective, n_trials=9, catch=(ValueError,))
    assert [trial.params["layer0"] for trial in study.trials[3:]] == ["b"] * 6


def test_a_layer_space():
    space = LayerSpace(max_layers=3, min_improvement=None, min_accuracy=None)

    def objective(trial):
        for layers in space.grow(trial):
            score = float(space.encode(layers).mean())
            trial.report(score, step=len(layers) - 1)
        return score

    study = run(GreedyGrowthSampler(n_children=4, seed=0), objective, 12)
    assert [len(trial.intermediate_values) for trial in study.trials] == [1] * 4 + [2] * 4 + [3] * 4
