"""Any study as it is: what other people's objectives, storages and settings do to the sampler."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.trials.attributes import MARKS_ATTRIBUTE, report_marks
from tests.helpers import agent_with

NO_PRUNER = optuna.pruners.NopPruner()


def quadratic(trial):
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + (trial.suggest_float("y", 0, 1) - 0.2) ** 2


def optimized(objective, n_trials, *, seed=0, direction="minimize", catch=(), **arguments):
    study = optuna.create_study(direction=direction, sampler=TRLHPOSampler(seed=seed, **arguments))
    study.optimize(objective, n_trials=n_trials, catch=catch)
    return study


def median_best(objective, n_trials, **arguments):
    return statistics.median(
        optimized(objective, n_trials, seed=seed, **arguments).best_value for seed in (2000, 2001, 2002)
    )


# Numbers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("huge", [1e307, -1e307, 1.7e308, 1e200])
def test_a_huge_value_does_not_end_a_study(huge):
    study = optimized(lambda trial: huge if trial.number in (2, 9) else quadratic(trial), 16)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    again = optuna.create_study(sampler=TRLHPOSampler(seed=1))
    again.add_trials(study.trials)
    again.optimize(quadratic, n_trials=3)


@pytest.mark.slow
def test_a_huge_report_does_not_end_a_study():
    def objective(trial):
        x = trial.suggest_float("x_0", 0, 1)
        trial.report(1e307 if trial.number % 3 == 0 else x, step=0)
        y = trial.suggest_float("x_1", 0, 1)
        trial.report(x + y, step=1)
        return x + y

    study = optuna.create_study(sampler=TRLHPOSampler(seed=0), pruner=NO_PRUNER)
    study.optimize(objective, n_trials=14)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.slow
def test_a_report_that_is_no_number_is_passed_over():
    def objective(trial):
        x = trial.suggest_float("x_0", 0, 1)
        trial.report(math.nan if trial.number % 2 else x, step=0)
        y = trial.suggest_float("x_1", 0, 1)
        trial.report(x + y, step=1)
        return x + y

    sampler = TRLHPOSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=NO_PRUNER)
    study.optimize(objective, n_trials=16)
    (plan,) = [course.configuration.plan for course in sampler.agent.courses.values()]  # of the last trial
    assert plan is not None and math.isfinite(plan.mean)


@pytest.mark.slow
def test_a_penalty_for_what_is_invalid_hides_nothing():
    def penalised(penalty):
        def objective(trial):
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            return penalty if x > 0.5 or y > 0.5 else (x - 0.3) ** 2 + (y - 0.2) ** 2

        return objective

    assert median_best(penalised(1e6), 35) <= 20 * median_best(penalised(math.inf), 35) + 1e-4


@pytest.mark.slow
def test_values_of_large_grids_are_on_them():
    def objective(trial):
        k = trial.suggest_int("k", 0, 15_000_000, step=3)
        x = trial.suggest_float("x", 0, 100, step=1e-5)
        assert k % 3 == 0 and abs(x * 1e5 - round(x * 1e5)) < 1e-4
        return abs(k - 5e6) / 1e7 + x / 1e3

    optimized(objective, 30)


@pytest.mark.slow
def test_values_are_compared_with_the_range_that_is_asked_for_now():
    def within(high):
        return lambda t: (t.suggest_float("x", 0, high) - 3) ** 2 + (t.suggest_float("y", 0, high) - 2) ** 2

    best = []
    for seed in (2000, 2001, 2002):
        study = optimized(within(100), 25, seed=seed)
        study.optimize(within(5), n_trials=15)
        best.append(min(trial.value for trial in study.trials[25:]))
    assert statistics.median(best) < 2


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("num_of_units_l0", "num_of_units_l1"),
        ("fraction_of_1", "fraction_of_2"),
        ("p0", "p1000"),
        ("x1", "x01"),
        ("1x", "x1"),
        ("a" + 5000 * "1", "a" + 5000 * "2"),
    ],
)
def test_parameters_with_similar_names_are_two(names):
    def objective(trial):
        one, other = (trial.suggest_float(name, 0, 1) for name in names)
        return (one - 0.9) ** 2 + (other - 0.1) ** 2

    assert median_best(objective, 25) < 0.01


# Trials that fail, are pruned, or were never seen ----------------------------------------------------------


@pytest.mark.slow
def test_an_invalid_region_is_left():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x + y > 1:
            raise optuna.TrialPruned
        return x + y

    shares = []
    for seed in (2000, 2001, 2002):
        study = optimized(objective, 45, seed=seed, direction="maximize")
        late = study.trials[15:]
        shares.append(sum(trial.state == TrialState.PRUNED for trial in late) / len(late))
    assert statistics.median(shares) < 0.7


def test_a_configuration_that_failed_is_not_tried_again():
    def objective(trial):
        width, depth = trial.suggest_int("width", 1, 12), trial.suggest_int("depth", 1, 12)
        if width * depth > 12:
            raise MemoryError
        return width * depth

    study = optimized(objective, 30, direction="maximize", catch=(MemoryError,))
    params = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(params)) == 30 and study.best_value == 12
    failed = [trial.state == TrialState.FAIL for trial in study.trials]
    assert sum(failed[15:]) < sum(failed[:15])


@pytest.mark.slow
def test_a_cost_so_far_is_no_estimate_of_the_whole():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        cost = 0.0
        for step in range(5):
            cost += (x - 0.8) ** 2 / 5
            trial.report(cost, step)
            if step < 4 and x < 0.5:
                raise optuna.TrialPruned
        return cost

    study = optuna.create_study(sampler=TRLHPOSampler(seed=0), pruner=NO_PRUNER)
    study.optimize(objective, n_trials=30)
    assert study.best_value < 0.001
    assert sum(trial.state == TrialState.PRUNED for trial in study.trials[15:]) <= 5


@pytest.mark.slow
def test_a_sum_that_grows_with_each_parameter_is_not_the_worth_of_a_beginning():
    def objective(trial):
        loss = 0.0
        for i in range(4):
            loss += (trial.suggest_float(f"x{i}", 0, 1) - 0.5) ** 2
            trial.report(loss, i)
        return loss

    sampler = TRLHPOSampler(seed=0)
    study = optuna.create_study(sampler=sampler, pruner=NO_PRUNER)
    study.optimize(objective, n_trials=40)
    assert not sampler.agent.configurations.search.memory.reports_are_values
    assert study.best_value < 0.05


def layers(trial):
    best = 0.0
    for i in range(3):
        value = 0.5 + 0.1 * trial.suggest_int(f"units_{i}", 1, 4) / (i + 1)
        trial.report(value, i)
        best = max(best, value)
    return best


def values_of_prefixes(study):
    """What the agent has learned of each trial: parameters, and their outcomes."""
    trial = study.ask()
    trial.suggest_int("units_0", 1, 4)
    entries = study.sampler.agent.configurations.search.memory.entries
    return [*zip(entries.n.tolist(), entries.outcome[:, 0].tolist(), strict=True)]


def test_names_tell_what_an_enqueued_trial_has_reported():
    study = optuna.create_study(
        direction="maximize", sampler=TRLHPOSampler(seed=0, n_startup_trials=3), pruner=NO_PRUNER
    )
    study.optimize(layers, n_trials=4)
    before = len(values_of_prefixes(study))
    study.enqueue_trial({"units_0": 3, "units_1": 4, "units_2": 4})
    study.optimize(layers, n_trials=1)
    found = np.array(values_of_prefixes(study)[before:])
    np.testing.assert_allclose(found, [(1, 0.8), (2, 0.7), (3, 0.5 + 0.4 / 3)])


def test_where_nobody_knows_nothing_false_is_learned():
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    space: dict[str, optuna.distributions.BaseDistribution] = {
        f"units_{i}": optuna.distributions.IntDistribution(1, 4) for i in range(3)
    }
    for value in (0.8, 0.765):  # the best, then the last
        study.add_trial(
            optuna.create_trial(
                params=dict.fromkeys(space, 2),
                distributions=space,
                value=value,
                intermediate_values={0: 0.723, 1: 0.8, 2: 0.765},
            )
        )
    assert values_of_prefixes(study) == [(3, 0.765)]


def test_reports_are_noted_in_little_room():
    def objective(trial):
        for i in range(200):
            trial.suggest_float(f"x{i}", 0, 1)
            trial.report(float(i), i)
        return 0.0

    sizes = []
    study = optuna.create_study(sampler=TRLHPOSampler(seed=0), pruner=NO_PRUNER)
    write = study._storage.set_trial_system_attr

    def counted(trial_id: int, key: str, value: Any) -> None:
        sizes.append(len(json.dumps(value)))
        write(trial_id, key, value)

    study._storage.set_trial_system_attr = counted  # type: ignore[method-assign]
    study.optimize(objective, n_trials=1)
    assert len(report_marks(study.trials[0])) == 199  # the last report has no parameter behind it
    assert MARKS_ATTRIBUTE in study.trials[0].system_attrs and sum(sizes) < 12_000


# What happens around the sampler ---------------------------------------------------------------------------


def interrupt(*arguments, **settings):
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "optuna_trlhpo.agent.gaussian_process.torch.linalg.cholesky",
        "optuna_trlhpo.agent.configurations.memory.ConfigurationMemory.add",
        "optuna_trlhpo.search_space.model.SpaceModel.learn",
        "optuna_trlhpo.agent.configurations.planner.ConfigurationPlanner.plan",
        "optuna_trlhpo.sampler.TRLHPOSampler._agent_type",
    ],
)
def test_a_study_goes_on_after_ctrl_c(monkeypatch, place):
    sampler = TRLHPOSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(quadratic, n_trials=0 if place.endswith("_agent_type") else 12)
    with monkeypatch.context() as patched:
        patched.setattr(place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            study.optimize(quadratic, n_trials=1)
    study.optimize(quadratic, n_trials=12)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials[-12:])
    n_whole = sum(len(trial.params) == 2 for trial in study.trials[:-1])
    study.ask().suggest_float("x", 0, 1)
    assert len(sampler.agent.configurations.search.memory) >= n_whole


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def within_device() -> torch.device:
    return torch.device("meta")


SPACE = LayerSpace(input_shape=(1, 8, 8), max_layers=3)


def grown(trial):
    best = 0.0
    for network in SPACE.grow(trial):
        trial.report(0.5 + 0.1 * len(network), step=len(network) - 1)
        best = 0.5 + 0.1 * len(network)
    return best


@pytest.mark.slow
@pytest.mark.parametrize(
    "state", [torch.no_grad, torch.inference_mode, default_dtype, default_device, within_device]
)
@pytest.mark.parametrize(
    ("agent", "objective"),
    [
        *(("posterior", grown), ("posterior", quadratic), ("paper", grown)),
        pytest.param("transformer", grown, marks=pytest.mark.slow),
        pytest.param("transformer", quadratic, marks=pytest.mark.slow),
    ],
)
def test_the_state_of_torch_changes_nothing(state, agent, objective):
    def run():
        small: dict[str, Any] = dict(width=16, heads=2, blocks=1)
        if agent == "paper":
            sampler = TRLHPOSampler.paper(seed=0, agent=AgentConfig.paper(updates=1, **small))
        else:
            config = agent_with(
                agent,
                of_ensembles=dict(n_critics=2),
                of_transformers=small,
                n_candidates=8,
                fit_steps=1,
            )
            sampler = TRLHPOSampler(seed=0, n_startup_trials=3, agent=config)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=NO_PRUNER)
        study.optimize(objective, n_trials=5)
        return [trial.params for trial in study.trials]

    expected = run()
    with state():
        assert run() == expected


def test_the_number_of_threads_is_restored_whoever_leaves_last():
    before = torch.get_num_threads()
    study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
    study.optimize(quadratic, n_trials=24, n_jobs=4)
    assert torch.get_num_threads() == before


def _go_on(url):
    study = optuna.load_study(study_name="shared", storage=url, sampler=TRLHPOSampler(seed=1))
    study.optimize(quadratic, n_trials=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_worker_goes_on(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="shared", storage=url, sampler=TRLHPOSampler(seed=0))
    study.optimize(quadratic, n_trials=10)
    worker = multiprocessing.get_context("fork").Process(target=_go_on, args=(url,))
    worker.start()
    worker.join(60)
    if worker.is_alive():
        worker.kill()
    assert worker.exitcode == 0 and len(study.trials) == 12


def test_trials_that_are_never_told_do_not_slow_the_others(monkeypatch):
    sampler = TRLHPOSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(60):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
    study.optimize(quadratic, n_trials=12)
    lengths = []
    search = sampler.agent.configurations.search
    plan = search.plan

    def watched(*arguments, **settings):
        lengths.append(len(arguments[5]))
        return plan(*arguments, **settings)

    monkeypatch.setattr(search, "plan", watched)
    study.optimize(quadratic, n_trials=2)
    assert lengths and max(lengths) <= 32


@pytest.mark.slow
def test_repeats_come_where_nothing_else_is_left_or_they_are_wanted(caplog):
    def objective(trial):
        return trial.suggest_int("a", 0, 2) + trial.suggest_int("b", 0, 1)

    optuna.logging.enable_propagation()
    try:
        with caplog.at_level("WARNING", logger="optuna"):
            study = optimized(objective, 20)
    finally:
        optuna.logging.disable_propagation()
    assert len({tuple(trial.params.values()) for trial in study.trials[:6]}) == 6
    assert "All configurations have been tried" in caplog.text
    noisy = optimized(
        lambda trial: objective(trial) + np.random.default_rng(trial.number).normal(), 20, repeat=True
    )
    assert len({tuple(trial.params.values()) for trial in noisy.trials[:14]}) < 7


# Choices ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_may_be_of_any_kind():
    nan = math.nan

    def objective(trial):
        sizes = trial.suggest_categorical("sizes", [[1, 2], [3], {"k": 1}, None, nan, (4, 5)])
        n = trial.suggest_int("n", 1, 3)
        if isinstance(sizes, list):
            trial.suggest_categorical("more", [(1, 2), [3]])
        return n + sum(trial.suggest_categorical(f"flag_{i}", [[1], [0]])[0] for i in range(n))

    study = optimized(objective, 25)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len({repr(sorted(trial.params.items())) for trial in study.trials}) == 25


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_parameter_with_one_value_may_come_late(seed):
    """A sampler is not asked for it, and meets it as one that stands before the next."""

    def objective(trial):
        loss = 0.0
        for i in range(trial.suggest_int("depth", 1, 4)):
            if trial.suggest_categorical(f"op_{i}", ["conv", "pool"]) == "conv":
                loss += trial.suggest_int(f"width_{i}", 1, 8)
            elif trial.number >= 12:
                trial.suggest_int(f"window_{i}", 1, 3)
                trial.suggest_int(f"pad_{i}", 2, 2)
        return loss

    study = optimized(objective, 24, seed=seed)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
