"""The twenty pipelines: that there are as many configurations as they say, and that repeats are counted."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES, Pipeline
from optuna_trlhpo.benchmarks.search import modes, repeats
from optuna_trlhpo.benchmarks.search.repeats import configuration, count_repeats, fidelity
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, AgentRecord, Forecast

MOST = 5000


class Continuous(Exception):
    """There is no end of values."""


class Walk:
    """Stands in for a trial, and takes the values whose places are given; behind these the first ones."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = list(places)
        self.sizes: list[int] = []
        self.params: dict[str, Any] = {}

    def _take(self, name: str, values: Sequence[Any]) -> Any:
        assert name not in self.params, f"{name} is asked for twice"
        if len(self.sizes) == len(self.places):
            self.places.append(0)
        self.params[name] = values[self.places[len(self.sizes)]]
        self.sizes.append(len(values))
        return self.params[name]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._take(name, range(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            raise Continuous
        return self._take(name, [low + i * step for i in range(round((high - low) / step) + 1)])

    def report(self, value: float, step: int) -> None:
        assert isinstance(value, float) and step >= 0

    def should_prune(self) -> bool:
        return False


def every_configuration(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """All of them, one after the other, by counting up the last place that can be counted up."""
    places: list[int] = []
    while True:
        walk = Walk(places)
        with contextlib.suppress(optuna.TrialPruned, *pipeline.catch):
            pipeline.play(walk)  # type: ignore[arg-type]
        yield walk.params
        places = walk.places[: len(walk.sizes)]
        while places and places[-1] + 1 == walk.sizes[len(places) - 1]:
            places.pop()
        if not places:
            return
        places[-1] += 1


def test_there_are_twenty() -> None:
    assert len(PIPELINES) == 20
    assert len({pipeline.what for pipeline in PIPELINES.values()}) == 20
    assert all(name == pipeline.name for name, pipeline in PIPELINES.items())


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=list(PIPELINES))
def test_there_are_as_many_configurations_as_it_says(pipeline: Pipeline) -> None:
    n = 0
    different = set()
    try:
        for params in every_configuration(pipeline):
            n += 1
            different.add(frozenset(params.items()))
            if n > MOST:
                break
    except Continuous:
        n = MOST + 1
    else:
        assert len(different) == n
    assert pipeline.configurations == (None if n > MOST else n)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=list(PIPELINES))
def test_any_sampler_plays_it(pipeline: Pipeline) -> None:
    runs = [modes.one(pipeline, RandomSampler, 2000, 60) for _ in range(2)]
    first, second = ([(trial.params, trial.state, trial.values) for trial in run] for run in runs)
    assert first == second
    states = {trial.state for trial in runs[0]}
    assert (TrialState.FAIL in states) == bool(pipeline.catch)
    values = {trial.value for trial in runs[0] if trial.state == TrialState.COMPLETE}
    assert len(values) >= 5


def trials_of(*values: float, step: float | None = None) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study()
    for value in values:
        distribution = FloatDistribution(0, 1, step=step)
        study.add_trial(create_trial(value=0.0, params={"x": value}, distributions={"x": distribution}))
    return study.trials


def test_repeats_by_hand() -> None:
    trials = trials_of(0.1, 0.2, 0.1, 0.3, 0.2, 0.1)
    assert count_repeats(trials) == 3
    assert count_repeats(trials, 4) == 3
    assert count_repeats(trials, 3) == 1  # the last two come when there is nothing else to try
    assert count_repeats(reversed(trials), 3) == 1  # the numbers tell which came first


def test_a_pruned_and_a_failed_trial_were_tried_and_a_waiting_one_was_not() -> None:
    study = optuna.create_study()
    for state in (TrialState.PRUNED, TrialState.FAIL, None):
        study.enqueue_trial({"x": 1})
        trial = study.ask()
        trial.suggest_int("x", 1, 3)
        if state is not None:
            study.tell(trial, state=state)
    study.enqueue_trial({"x": 1})
    assert [trial.state for trial in study.trials[2:]] == [TrialState.RUNNING, TrialState.WAITING]
    assert count_repeats(study.trials, 3) == 2


def test_another_number_of_parameters_is_another_configuration() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"depth": 1})
    study.enqueue_trial({"depth": 1, "width": 2})
    for n in (1, 2):
        trial = study.ask()
        for name in ("depth", "width")[:n]:
            trial.suggest_int(name, 1, 3)
        study.tell(trial, 0.0)
    assert count_repeats(study.trials) == 0


def test_steps_leave_no_noise_but_other_floats_are_as_they_are() -> None:
    assert len({configuration(trial) for trial in trials_of(0.3, 0.1 + 0.2, step=0.1)}) == 1
    assert len({configuration(trial) for trial in trials_of(0.3, 0.1 + 0.2)}) == 2


def test_fidelity_by_hand() -> None:
    def planned(n: int) -> dict[str, Any]:
        return {
            AGENT_ATTRIBUTE: AgentRecord("posterior", plans=(Forecast(0, 3, 0.5, 0.4, 0.6),) * n).to_json()
        }

    trials = [create_trial(value=0.0, system_attrs=planned(n)) for n in (1, 1, 3, 0)]
    trials.append(create_trial(value=0.0))
    for number, trial in enumerate(trials):
        trial.number = number
    assert fidelity(trials, after=0) == (3, 2)
    assert fidelity(trials, after=1) == (2, 1)
    assert fidelity(trials) == (0, 0)


@pytest.mark.parametrize("mode", ["one", "restart", "alternating", "grpc"])
@pytest.mark.parametrize("name", ["layers-reported", "invalid-region"])
def test_a_mode_plays_all_trials(mode: str, name: str) -> None:
    if mode == "grpc" and importlib.util.find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    trials = modes.MODES[mode](PIPELINES[name], RandomSampler, 2000, 7)
    assert [trial.number for trial in trials] == list(range(7))
    assert all(trial.state.is_finished() for trial in trials)
    params = [trial.params for trial in trials]
    alone = [trial.params for trial in modes.one(PIPELINES[name], RandomSampler, 2000, 7)]
    # The program that is started again draws what it drew before.
    expected = {"one": alone, "grpc": alone, "restart": [*alone[:3], *alone[:4]], "alternating": params}
    assert params == expected[mode]
    assert mode != "alternating" or params != alone


@pytest.mark.slow
def test_workers_play_all_trials_at_the_same_time() -> None:
    for name, mode in (("grid-1000", modes.workers_sqlite), ("failures", modes.workers_journal)):
        trials = mode(PIPELINES[name], RandomSampler, 2000, 8)
        assert sorted(trial.number for trial in trials) == list(range(8))
        assert all(trial.state.is_finished() for trial in trials)
        assert count_repeats(trials, PIPELINES[name].configurations) <= 2  # each has a seed of its own


def test_the_command(tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    command = ["repeats", "--pipelines", "grid-50", "soon*", "--modes", "one", "restart", "--samplers"]
    options = ["--trials", "30", "--seeds", "2", "--first-seed", "2000", "--out", str(tmp_path / "rows")]
    assert main([*command, "random", *options, "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert page.read_text() in printed
    rows = read_rows(tmp_path / "rows")
    assert len(rows) == 8 and {row["seed"] for row in rows} == {2000, 2001}
    restarted = [row for row in rows if row["form"] == "restart" and row["problem"] == "grid-50"]
    assert all(row["repeats"] >= 15 for row in restarted)  # the second half is the first one again
    n = sum(row["repeats"] for row in restarted)
    assert f"| grid-50 | restart | 50 | {n} of 60 |  |  |" in printed
    assert "| one | 2 | " in printed and "optuna" in printed
    assert main([*command, "random", *options]) == 0
    assert len(read_rows(tmp_path / "rows")) == 8  # nothing is run twice
    assert main([*command, "nobody", *options]) == 2
    assert "unknown sampler nobody" in capsys.readouterr().err
    assert main(["repeats", "--pipelines", "grid-7", *options]) == 2
    assert "unknown pipeline grid-7; there are depth-first, " in capsys.readouterr().err


@pytest.mark.slow
def test_ours_is_judged_by_its_plans(tmp_path) -> None:
    (row,) = repeats.run(["grid-1000"], ["trlhpo"], mode_names=["one"], seeds=[2000], trials=24, out=tmp_path)
    assert row["planned"] == 4 and 0 <= row["as_planned"] <= 4
    (row,) = repeats.run(
        ["layers-reported"], ["trlhpo"], mode_names=["one"], seeds=[2000], trials=22, out=tmp_path
    )
    assert row["planned"] == 0  # it reports on the way
    text = repeats.report(read_rows(tmp_path), trials=24)
    assert "% of 4 |" in text
    assert "no complete study of 25 trials" in repeats.report(read_rows(tmp_path), trials=25)
