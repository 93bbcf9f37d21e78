"""What must hold of any define-by-run objective: random programs with loops, branches and dependent ranges.

A program is data: a tuple of statements, which `play` carries out on a trial. Hypothesis prints the one that
fails.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_trlhpo import TRLHPOSampler

N_STARTUP = 4
# Studies are dear, so there are few programs, and short studies; `make soak` has many, and longer ones. To
# make one smaller that fails takes minutes: add Phase.shrink.
N_PROGRAMS = int(os.environ.get("TRLHPO_PROGRAMS", "6"))
N_TRIALS = 12 if N_PROGRAMS <= 6 else 30
FEW = settings(max_examples=N_PROGRAMS, phases=(Phase.explicit, Phase.generate))

# Programs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """A whole number from ``low`` to ``low + (n - 1) * step``; no more than the latest value of ``most``, if
    that is a whole number, and no less than that of ``least``."""

    name: str
    low: int
    n: int
    step: int = 1
    log: bool = False
    most: str = ""
    least: str = ""


@dataclass(frozen=True)
class Real:
    """A real number, with a step or without."""

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Word:
    """One of some choices; where ``of`` is odd the last one is not offered, under another name."""

    name: str
    choices: tuple[Any, ...]
    of: str = ""


@dataclass(frozen=True)
class Loop:
    """The body as often as the latest value of ``times`` says, three times at most."""

    times: str
    body: tuple[Any, ...]


@dataclass(frozen=True)
class If:
    """One of two bodies: the first if the latest value of ``name`` is even or a word of an even place."""

    name: str
    body: tuple[Any, ...]
    other: tuple[Any, ...]


@dataclass(frozen=True)
class Report:
    """Reports what the trial is worth so far."""


@dataclass(frozen=True)
class Prune:
    """Ends the trial if the latest value of ``name`` is odd."""

    name: str


Program = tuple[Any, ...]

NUMBERS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, low=st.integers(0, 5), n=st.integers(1, 6), step=st.sampled_from([1, 1, 2, 8])),
    st.builds(dict, low=st.integers(1, 4), n=st.integers(2, 60), log=st.just(True)),
)
CHOICES = st.sampled_from(
    [("a", "b", "c"), (True, False), (None, "b"), (16, 32, 64, 128), ("only",), (0.5, 1, "x")]
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Up to a dozen statements, loops within loops, and branches."""
    count = itertools.count()
    named: list[str] = []

    def earlier() -> str:
        return draw(st.sampled_from(["", *named[-4:]]))

    def suggestion() -> Any:
        name = f"{draw(st.sampled_from(['units', 'op', 'rate', 'layer']))}{next(count)}"
        kind = draw(st.sampled_from(["whole", "whole", "bounded", "real", "word"]))
        made: Any
        if kind == "real":
            made = draw(
                st.sampled_from(
                    [
                        Real(name, -1.0, 2.0),
                        Real(name, 1e-5, 1e-1, log=True),
                        Real(name, 0.0, 0.5, step=0.1),
                        Real(name, 0.1, 0.95, step=0.17),
                    ]
                )
            )
        elif kind == "word":
            made = Word(name, draw(CHOICES), earlier())
        elif kind == "bounded":
            made = Whole(
                name, draw(st.integers(0, 3)), draw(st.integers(2, 9)), most=earlier(), least=earlier()
            )
        else:
            made = Whole(name, **draw(NUMBERS))
        named.append(name)
        return made

    def statement(depth: int) -> Any:
        kinds = ["suggest"] * 4 + ["report"] + ["prune"] * bool(named)
        if named and depth < 2:
            kinds += ["loop", "loop", "if", "if"]
        return of_kind(draw(st.sampled_from(kinds)), depth)

    def of_kind(kind: str, depth: int) -> Any:
        if kind == "suggest":
            return suggestion()
        if kind == "report":
            return Report()
        name = draw(st.sampled_from(named))
        if kind == "prune":
            return Prune(name)
        if kind == "loop":
            return Loop(name, block(depth + 1))
        return If(name, block(depth + 1), block(depth + 1))

    def block(depth: int) -> Program:
        return tuple(statement(depth) for _ in range(draw(st.integers(1, 3))))

    first = suggestion()
    nested = draw(st.sampled_from(["loop", "if"]))
    return (first, *block(0), of_kind(nested, 0), *block(0), suggestion())


def play(program: Program, trial: Trial) -> float:
    """Carry a program out; its value is a sum over what was suggested."""
    values: dict[str, Any] = {}  # the latest of each statement
    score = 0.0
    steps = itertools.count()

    def number_of(name: str) -> int:
        value = values.get(name, 0)
        return abs(int(value)) if isinstance(value, int | float) else len(str(value))

    def is_number(name: str) -> bool:
        return isinstance(values.get(name), int) and not isinstance(values[name], bool)

    def run(block: Program, place: str) -> None:
        nonlocal score
        for it in block:
            name = getattr(it, "name", "") + place
            if isinstance(it, Whole):
                low, high = it.low, it.low + (it.n - 1) * it.step
                low = max(low, values[it.least]) if is_number(it.least) else low
                high = max(low, min(high, values[it.most])) if is_number(it.most) else max(low, high)
                values[it.name] = trial.suggest_int(name, low, high, step=it.step, log=it.log)
                score -= abs(values[it.name] - it.low - 2) / (it.n * it.step)
            elif isinstance(it, Real):
                values[it.name] = trial.suggest_float(name, it.low, it.high, step=it.step, log=it.log)
                score -= abs(values[it.name] - it.low) / (it.high - it.low)
            elif isinstance(it, Word):
                choices = it.choices[:-1] if number_of(it.of) % 2 and len(it.choices) > 1 else it.choices
                name += f"_of_{len(choices)}"
                values[it.name] = trial.suggest_categorical(name, choices)
                score += 0.3 * choices.index(values[it.name])
            elif isinstance(it, Loop):
                for i in range(min(number_of(it.times), 3)):
                    run(it.body, f"{place}_{i}")
            elif isinstance(it, If):
                run(it.other if number_of(it.name) % 2 else it.body, place)
            elif isinstance(it, Report):
                trial.report(score, step=next(steps))
            elif isinstance(it, Prune) and number_of(it.name) % 2:
                raise optuna.TrialPruned

    run(program, "")
    return score


def study_of(program: Program, *, seed: int = 2000, storage: BaseStorage | None = None) -> list[FrozenTrial]:
    """The trials of a short study, most of which the agent plays."""
    sampler = TRLHPOSampler(
        seed=seed, n_startup_trials=N_STARTUP, layer_prior=False, warn_independent_sampling=False
    )
    study = optuna.create_study(direction="maximize", sampler=sampler, storage=storage)
    study.optimize(lambda trial: play(program, trial), n_trials=N_TRIALS)
    return study.trials


# Properties ---------------------------------------------------------------------------------------------


def check_values(trial: FrozenTrial) -> None:
    """Every value is in its distribution, on its grid, and of its type."""
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        assert distribution._contains(distribution.to_internal_repr(value)), (name, value, distribution)
        if isinstance(distribution, IntDistribution):
            assert type(value) is int
            assert distribution.low <= value <= distribution.high
            assert (value - distribution.low) % distribution.step == 0
        elif isinstance(distribution, FloatDistribution):
            assert type(value) is float and math.isfinite(value)
            assert distribution.low <= value <= distribution.high
            if distribution.step is not None:
                k = (value - distribution.low) / distribution.step
                assert abs(k - round(k)) < 1e-8, (name, value, distribution)
        else:
            assert isinstance(distribution, CategoricalDistribution)
            # 1 and True are equal, but not the same choice.
            assert any(value is choice or value == choice for choice in distribution.choices)
            assert type(value) in {type(choice) for choice in distribution.choices}


@pytest.mark.slow
@FEW
@given(programs())
def test_what_is_suggested_is_allowed_and_equal_seeds_give_equal_runs(program: Program) -> None:
    first, second = study_of(program), study_of(program)
    for trial in first:
        check_values(trial)
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert [list(trial.params.items()) for trial in first] == [list(trial.params.items()) for trial in second]
    assert [trial.values for trial in first] == [trial.values for trial in second]


@pytest.mark.slow
def test_programs_are_as_manifold_as_they_should_be() -> None:
    """Else the properties would be of too simple programs."""
    seen: set[type] = set()
    n_params: set[int] = set()
    branching = dependent = 0

    def walk(block: Program) -> None:
        nonlocal dependent
        for it in block:
            seen.add(type(it))
            dependent += bool(getattr(it, "most", "") or getattr(it, "least", "") or getattr(it, "of", ""))
            walk(getattr(it, "body", ()))
            walk(getattr(it, "other", ()))

    @settings(max_examples=50)
    @given(programs())
    def look(program: Program) -> None:
        nonlocal branching
        walk(program)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(2000))
        study.optimize(lambda trial: play(program, trial), n_trials=8)
        names = {tuple(trial.params) for trial in study.trials}
        branching += len(names) > 1
        n_params.update(map(len, names))

    look()
    assert seen == {Whole, Real, Word, Loop, If, Report, Prune}
    assert branching >= 10 and dependent >= 10 and len(n_params) >= 6


# Over a proxy -------------------------------------------------------------------------------------------

SERVER = """
import sys, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
optuna.storages.run_grpc_proxy_server(
    optuna.storages.InMemoryStorage(), host="127.0.0.1", port=int(sys.argv[1])
)
"""


@pytest.fixture(scope="module")
def proxy() -> Iterator[BaseStorage]:
    """A storage behind Optuna's gRPC server, which runs in another process as long as this module does."""
    if importlib.util.find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    from optuna.storages import GrpcStorageProxy

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER, str(port)])
    try:
        storage = GrpcStorageProxy(host="127.0.0.1", port=port)
        storage.wait_server_ready(timeout=60)
        yield storage
        storage.close()
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
@settings(FEW, max_examples=max(2, N_PROGRAMS // 3))
@given(program=programs())
def test_a_run_over_grpc_is_equal(proxy: BaseStorage, program: Program) -> None:
    here, there = study_of(program), study_of(program, storage=proxy)
    for trial in there:
        check_values(trial)
    for mine, theirs in zip(here, there, strict=True):
        note(f"trial {mine.number}")
        assert theirs.params == mine.params  # in which order a proxy gives them back is not said
        assert theirs.state == mine.state and theirs.values == mine.values
