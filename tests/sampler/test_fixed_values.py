"""Values that are fixed behind free ones: what can still be chosen does not repeat itself."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import Trial, TrialState

from tests.sampler.test_odd_pipelines import distinct, sampler


def flat(trial):
    value = -((trial.suggest_int("a", 0, 9) - 7) ** 2)
    value += {"x": 1, "y": 2, "z": 0}[trial.suggest_categorical("b", ["x", "y", "z"])]
    return value + trial.suggest_int("c", 0, 3)


def tree(trial):
    value = 0.0
    for i in range(trial.suggest_int("n", 1, 2)):
        value += trial.suggest_int(f"w{i}", 0, 4)
        if trial.suggest_categorical(f"f{i}", [True, False]):
            value -= trial.suggest_float(f"d{i}", 0, 1)
    return value


NO_FLAG = {"f0": False, "f1": False}
FIXED: dict[str, tuple[Callable[[Trial], float], dict[str, Any], int]] = {
    "a choice in the middle": (flat, {"b": "y"}, 40),
    "all but one": (flat, {"b": "y", "c": 1}, 10),
    "the first": (flat, {"a": 3}, 12),
    "the last": (flat, {"c": 2}, 30),
    "a float for an integer": (flat, {"b": "x", "c": 2.0}, 10),
    "what decides": (tree, NO_FLAG, 5 + 25),
    "a part of a loop": (tree, {"w1": 2, **NO_FLAG}, 5 + 5),
}


def fixed_by(way, objective, fixed, n, seed=0):
    own = sampler(seed=seed)
    study = optuna.create_study(sampler=PartialFixedSampler(fixed, own) if way == "wrapper" else own)
    for _ in range(n if way == "queue" else 0):
        study.enqueue_trial(fixed)
    study.optimize(objective, n_trials=n)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wrapper", "queue"])
@pytest.mark.parametrize("case", FIXED)
def test_what_is_left_to_choose_comes_once(case, way):
    objective, fixed, n = FIXED[case]
    study = fixed_by(way, objective, fixed, n)
    assert distinct(study.trials) == n
    assert all(
        trial.params.get(name, value) == value for trial in study.trials for name, value in fixed.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wrapper", "queue"])
def test_a_fixed_number_without_a_grid(way):
    study = fixed_by(way, tree, {"d0": 0.5, "d1": 0.25}, 40)
    assert distinct(study.trials) >= 39  # what is fixed shows only when it has come


@pytest.mark.slow
def test_what_is_fixed_no_longer_is_free_at_once():
    study = fixed_by("wrapper", flat, {"b": "y"}, 40)
    study.sampler = study.sampler._base_sampler
    study.optimize(flat, n_trials=80)
    assert distinct(study.trials) == 120


@pytest.mark.slow
def test_what_was_enqueued_once_stays_free():
    study = optuna.create_study(sampler=sampler())
    for a in range(5):
        study.enqueue_trial({"a": a, "b": "y", "c": 0})
    study.optimize(flat, n_trials=120)
    assert distinct(study.trials) == 120


class _Shared(BaseSampler):
    """Leaves one parameter to another sampler."""

    def __init__(self, own, other):
        self._own, self._other = own, other

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        of = self._other if name == "b" else self._own
        return of.sample_independent(study, trial, name, distribution)


@pytest.mark.slow
def test_what_another_sampler_decides_is_not_fixed():
    study = optuna.create_study(sampler=_Shared(sampler(), RandomSampler(seed=0)))
    study.optimize(flat, n_trials=40)
    assert len({trial.params["b"] for trial in study.trials}) == 3
    assert distinct(study.trials) >= 36


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["text", None, [1], {"a": 1}, float("inf"), float("nan"), 10**400, 99, -1.5]
)
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_values_that_cannot_be_end_no_other_trial(name, value):
    study = optuna.create_study(sampler=sampler())
    study.optimize(flat, n_trials=6)
    study.enqueue_trial({name: value})
    study.optimize(flat, n_trials=1, catch=(Exception,))
    study.optimize(flat, n_trials=6)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials[7:])


def test_all_that_can_be_chosen_is_said_to_be_tried(caplog):
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level("WARNING", logger="optuna"):
            study = fixed_by("wrapper", flat, {"b": "y", "c": 1}, 12)
    finally:
        optuna.logging.disable_propagation()
    assert distinct(study.trials) == 10
    assert "All configurations have been tried" in caplog.text
