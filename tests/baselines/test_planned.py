import weakref

import optuna
import pytest

from optuna_trlhpo.baselines._planned import History, PlannedSampler, RivalPlan, note_of


class Fixed(PlannedSampler):
    """Plans the same for every trial."""

    def __init__(self, values, note=None):
        super().__init__(seed=0)
        self.values, self.note = values, note or {}
        self.made: list[weakref.ref[RivalPlan]] = []

    def _make_plan(self, history, trial):
        plan = RivalPlan(dict(self.values), dict(self.note))
        self.made.append(weakref.ref(plan))
        return plan

    def n_kept(self):
        """How many plans are still held."""
        return sum(plan() is not None for plan in self.made)


def test_a_trial_follows_its_plan_where_it_fits():
    study = optuna.create_study(sampler=Fixed({"a": 3, "b": "y", "unused": 1, "c": 0.7}, {"climb": 5}))

    def objective(trial):
        trial.suggest_int("a", 0, 10)
        trial.suggest_categorical("b", ["x", "y"])
        trial.suggest_float("c", 0, 0.5)  # out of range: drawn
        trial.suggest_float("d", 0, 1)  # not planned: drawn
        return 0.0

    study.optimize(objective, n_trials=2)
    first, second = study.trials
    for trial in study.trials:
        assert trial.params["a"] == 3 and trial.params["b"] == "y"
        assert note_of(trial) == {"climb": 5}
    assert first.params["c"] != second.params["c"] and first.params["d"] != second.params["d"]


def test_plans_of_trials_that_ended_are_forgotten():
    sampler = Fixed({})
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert len(sampler.made) == 3 and sampler.n_kept() == 0
    study.ask().suggest_float("x", 0, 1)
    assert sampler.n_kept() == 1


@pytest.fixture
def history():
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial):
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            trial.suggest_int("n", 0, 1)
        if trial.number == 3:
            raise ValueError
        return trial.number

    study.enqueue_trial({"kind": "a", "n": 0})
    study.enqueue_trial({"kind": "b"})
    study.optimize(objective, n_trials=2)
    study.ask().suggest_categorical("kind", ["a", "b"])  # runs
    study.optimize(objective, n_trials=1, catch=(ValueError,))
    return History(study, study._storage.get_trial(study.ask()._trial_id))


def test_history(history):
    assert [trial.number for trial in history.finished] == [0, 1, 3]
    assert [trial.number for trial in history.running] == [2]
    assert [trial.number for trial in history.scored] == [0, 1]
    assert [history.score(trial) for trial in history.finished] == [0, -1, -float("inf")]
    assert set(history.space) == {"kind", "n"}


def test_a_repeat_is_what_would_come_out_the_same(history):
    assert history.repeats({"kind": "a", "n": 0})
    assert history.repeats({"kind": "b", "n": 1})  # with "b" nobody asks for n
    tried = [trial.params for trial in history.finished + history.running]
    assert history.repeats({"kind": "a", "n": 1}) == any(p == {"kind": "a", "n": 1} for p in tried)
