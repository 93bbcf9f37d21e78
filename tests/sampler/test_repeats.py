"""Nothing is proposed twice while something is untried, and what is planned comes as it was planned."""

from __future__ import annotations

import functools
import importlib.util

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.benchmarks.harness.samplers import OURS
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES
from optuna_trlhpo.benchmarks.search import modes
from optuna_trlhpo.benchmarks.search.repeats import count_repeats, fidelity

N_TRIALS = 40


@functools.cache
def trials_of(name: str, mode: str = "one") -> list[FrozenTrial]:
    return modes.MODES[mode](PIPELINES[name], OURS["trlhpo"], 2000, N_TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "depth-first",
        pytest.param("two-loops", marks=pytest.mark.slow),
        pytest.param("masked-names", marks=pytest.mark.slow),
        "falling-ranges",
        "rising-ranges",
        "grid-50",
        "soon-exhausted",
        "epochs-reported",
        "invalid-region",
        "failures",
    ],
)
def test_nothing_is_repeated_while_something_is_untried(name: str) -> None:
    assert count_repeats(trials_of(name), PIPELINES[name].configurations) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["restart", "alternating", "grpc"])
@pytest.mark.parametrize("name", ["masked-names", "soon-exhausted"])
def test_nor_after_a_restart_or_by_another_sampler_or_over_grpc(mode: str, name: str) -> None:
    if mode == "grpc" and importlib.util.find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    assert count_repeats(trials_of(name, mode), PIPELINES[name].configurations) == 0


@pytest.mark.parametrize("name", ["depth-first", "rising-ranges"])
def test_plans_come_as_they_were_planned(name: str) -> None:
    planned, as_planned = fidelity(trials_of(name))
    assert planned >= 10
    assert as_planned >= 0.9 * planned


@pytest.mark.parametrize("n_startup_trials", [0, 100])
def test_where_another_trial_will_try_what_is_left_no_trial_begins(n_startup_trials):
    a, b = IntDistribution(0, 1), IntDistribution(0, 2)
    for seed in range(2000, 2008):
        study = optuna.create_study(sampler=TRLHPOSampler(seed=seed, n_startup_trials=n_startup_trials))
        for values in ((0, 0), (0, 1), (1, 0)):
            study.add_trial(
                optuna.create_trial(
                    params=dict(zip("ab", values, strict=True)),
                    distributions={"a": a, "b": b},
                    value=values[0],
                )
            )
        other = optuna.create_study(storage=study._storage, study_name=study.study_name, load_if_exists=True)
        other.enqueue_trial({"a": 0})
        assert other.ask().suggest_int("a", 0, 1) == 0
        assert study.ask().suggest_int("a", 0, 1) == 1
