"""`SMACSampler`; `make test-smac` runs what needs the extra."""

import itertools
import pickle
import sys
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from optuna_trlhpo.baselines import SMACSampler
from tests.helpers import value_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SPACE = {
    "x": FloatDistribution(-1, 1),
    "q": FloatDistribution(0, 1, step=0.1),
    "n": IntDistribution(1, 100, log=True),
    "m": IntDistribution(0, 9, step=3),
    "kind": CategoricalDistribution(["a", None, True]),
    "alone": IntDistribution(3, 3),
}


def objective(trial):
    kind = trial.suggest_categorical("kind", ["a", None, True])
    value = trial.suggest_float("x", -1, 1) ** 2 + trial.suggest_float("q", 0, 1, step=0.1)
    value += np.log(trial.suggest_int("n", 1, 100, log=True)) + trial.suggest_int("m", 0, 9, step=3)
    if kind is None:
        value += trial.suggest_float("only", 0, 1)
    return value + (kind == "a")


def runs_of(sampler):
    """What SMAC was told, in the order in which it was asked for."""
    assert sampler.session is not None
    return sampler.session.facade.runhistory.values()


def test_without_smac_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "smac", None)
    with pytest.raises(ImportError, match=r"pip install 'optuna-trlhpo\[smac\]'"):
        SMACSampler()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n_trials is 0; it must be an integer of at least 1"):
        SMACSampler(n_trials=0)
    with pytest.raises(ValueError, match="retrain_after is 0; it must be an integer of at least 1"):
        SMACSampler(retrain_after=0)
    with pytest.raises(ValueError, match="search_space is .*; it must map parameter names to distributions"):
        SMACSampler(search_space={"x": (0, 1)})  # type: ignore[dict-item]


@pytest.mark.smac
@pytest.mark.parametrize("space", [None, SPACE])
def test_it_asks_and_tells(space):
    sampler = SMACSampler(search_space=space, n_trials=16, retrain_after=8, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=16)
    told = runs_of(sampler)
    open_ones = [value for value in told if value.status.name == "RUNNING"]
    assert len(told) == 16 and len(open_ones) == 1  # it is told of the last trial when it is asked again
    costs = [value.cost for value in told if value.status.name == "SUCCESS"]
    assert sorted(costs) == pytest.approx(sorted(value_of(trial) for trial in study.trials[:-1]))


@pytest.mark.smac
def test_it_finds_an_optimum():
    study = optuna.create_study(sampler=SMACSampler(n_trials=40, retrain_after=4, seed=0))
    study.optimize(
        lambda trial: (trial.suggest_float("x", -1, 1) - 0.3) ** 2 + trial.suggest_int("n", 0, 9), n_trials=32
    )
    assert study.best_value < 0.003 and study.best_params["n"] == 0


@pytest.mark.smac
def test_a_maximised_value_is_a_cost():
    sampler = SMACSampler(n_trials=8, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    told = runs_of(sampler)
    costs = [value.cost for value in told if value.status.name == "SUCCESS"]
    assert sorted(-cost for cost in costs) == sorted(value_of(trial) for trial in study.trials[:-1])


@pytest.mark.smac
def test_failed_pruned_and_fixed_trials():
    def fails(trial):
        value = objective(trial)
        if trial.number % 3 == 0:
            raise ValueError
        if trial.number % 3 == 1:
            trial.report(float("nan") if trial.number == 1 else value, step=0)
            raise optuna.TrialPruned
        return float("inf") if trial.number == 5 else value

    def told():
        values = runs_of(sampler)
        return [(value.status.name, value.cost) for value in values][:-1]  # the last trial is still open

    def expected(number, n_before):
        """What fails, and what has no finite value, crashed at the cost of the worst that was known then."""
        worths = [trial.value if trial.value is not None else np.nan for trial in study.trials]
        if np.isfinite(worths[number]):
            return "SUCCESS", pytest.approx(worths[number])
        return "CRASHED", pytest.approx(max(w for w in worths[: max(number + 1, n_before)] if np.isfinite(w)))

    sampler = SMACSampler(search_space=SPACE, n_trials=12, retrain_after=8, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"x": 0.25})
    study.optimize(fails, n_trials=12, catch=(ValueError,))
    # Of the first three it is told at once, when one of them has a value. What it had asked for in the first
    # one never came to be: it stands where it was asked, and what came instead behind all that is open then.
    of_trials = [expected(number, 3) for number in range(11)]
    assert told() == [of_trials[0], *of_trials[1:3], of_trials[0], *of_trials[3:]]
    assert [status for status, _ in of_trials].count("SUCCESS") == 5  # trials 2, 4, 7, 8 and 10
    study.sampler = optuna.samplers.PartialFixedSampler({"kind": "a"}, sampler)
    study.optimize(fails, n_trials=4, catch=(ValueError,))
    assert {trial.params["kind"] for trial in study.trials[12:]} == {"a"}
    assert told() == [expected(number, 12) for number in range(15)]  # anew, for one parameter less


@pytest.mark.smac
def test_equal_seeds_pickles_and_resumed_studies():
    def run(seed, *parts):
        study = optuna.create_study(sampler=SMACSampler(n_trials=8, retrain_after=8, seed=seed))
        for n_trials in parts:
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=n_trials)
            study.sampler = pickle.loads(pickle.dumps(study.sampler))
        return [trial.params["x"] for trial in study.trials]

    assert run(0, 5) == run(0, 5) != run(1, 5)
    parts = run(0, 4, 4)
    assert len(set(parts)) == 8


@pytest.mark.smac
def test_a_space_that_is_used_up_goes_on_at_random():
    study = optuna.create_study(sampler=SMACSampler(n_trials=8, seed=0))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 3), n_trials=8)
    assert {trial.params["x"] for trial in study.trials} == {0, 1, 2, 3}
    assert len(study.trials) == 8


@pytest.mark.smac
def test_threads(monkeypatch):
    get_trials, calls = optuna.Study.get_trials, itertools.count()

    def slow(*arguments, **named):
        found = get_trials(*arguments, **named)
        time.sleep(next(calls) % 3 * 0.05)  # in which other threads may get on
        return found

    monkeypatch.setattr(optuna.Study, "get_trials", slow)
    sampler = SMACSampler(search_space=SPACE, n_trials=12, retrain_after=8, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=8, n_jobs=3)
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    told = runs_of(sampler)
    costs = [value.cost for value in told if value.status.name == "SUCCESS"]
    assert len(told) == 8 == len({str(trial.params) for trial in study.trials})  # of one session
    assert len(costs) >= 5 and {round(cost, 6) for cost in costs} <= {
        round(value_of(trial), 6) for trial in study.trials
    }
