"""Whatever is damaged (checkpoints, pickles, studies, notes, networks as text) ends in a documented error.

No code is executed and nothing hangs. `make fuzz` has many more examples than the tests have.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from optuna.artifacts import FileSystemArtifactStore
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, TRLHPOSampler, describe, parse
from optuna_trlhpo.checkpoints.checkpoint_file import Checkpoint, read_file, write_file
from optuna_trlhpo.checkpoints.graph_writer import Graph
from optuna_trlhpo.checkpoints.study_checkpoints import CHECKPOINTS_ATTRIBUTE
from optuna_trlhpo.layers.vocabulary import layer_kinds
from optuna_trlhpo.trials.attributes import write_to_study

FACTOR = int(os.environ.get("TRLHPO_FUZZ", "1"))
SECONDS = int(os.environ.get("TRLHPO_FUZZ_SECONDS", "60"))
"""Time after which a single example counts as hanging."""
MEGABYTES = 500
"""Memory by which reading a checkpoint of less than 1 MB may grow the process."""


def examples(n: int) -> settings:
    return settings(
        max_examples=n * FACTOR,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


# Guards -------------------------------------------------------------------------------------------------

EXECUTING = {"pickle.find_class", "exec", "compile", "os.system", "subprocess.Popen", "marshal.loads"}
watched: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if watched and event in EXECUTING:
        watched[-1].append(event)


sys.addaudithook(_audit)


@contextlib.contextmanager
def guarded(*, code: bool = False) -> Iterator[None]:
    """Fail where the block takes too long, or executes code although it may not."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise BaseException(f"it hangs: not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    watched.append([])
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        events = watched.pop()
    assert code or events == []


# Checkpoints --------------------------------------------------------------------------------------------


def flat(trial: optuna.Trial) -> float:
    n = trial.suggest_int("n", 1, 3)
    return sum(trial.suggest_float(f"x{i}", 0, 1) for i in range(n)) + trial.suggest_categorical("c", [0, 2])


def make(kind: str) -> TRLHPOSampler:
    agent = AgentConfig(n_candidates=10, n_generations=1, fit_steps=1)
    if kind == "transformers":
        agent = AgentConfig(
            critic="transformer", n_candidates=10, fit_steps=1, n_critics=2, blocks=1, width=8, heads=2
        )
    if kind == "paper":
        agent = AgentConfig.paper(width=8, heads=2, blocks=1, n_critics=1)
        return TRLHPOSampler.paper(seed=1, agent=agent, warn_independent_sampling=False)
    return TRLHPOSampler(
        seed=1, agent=agent, n_startup_trials=2, layer_prior=False, warn_independent_sampling=False
    )


KINDS = ("default", "transformers", "paper")


class Saved:
    """A study, and its checkpoint in a folder of its own."""

    def __init__(self, kind: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._folder = tempfile.TemporaryDirectory()
        self.store = FileSystemArtifactStore(self._folder.name)
        self.sampler = make(kind)
        self.study = optuna.create_study(sampler=self.sampler)
        self.study.optimize(flat, n_trials=6)
        artifact_id = self.sampler.save_checkpoint(self.study, self.store)
        assert artifact_id is not None
        self.path = Path(self._folder.name) / artifact_id
        self.content = self.path.read_bytes()
        self.checkpoint = read_file(self.path)

    def table(self) -> list[Any]:
        graph = self.checkpoint.graph
        table: list[Any] = json.loads(json.dumps([graph.layouts, graph.nodes, graph.root]))
        return table

    def loads(self) -> bool:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with guarded():
            loaded = self.sampler.load_checkpoint(self.study, self.store)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
        return loaded

    def goes_on(self) -> None:
        """Play on with what was loaded: at the latest then the sampler learns anew."""
        study = optuna.create_study(sampler=self.sampler)
        study.add_trials(self.study.trials)
        write_to_study(study, CHECKPOINTS_ATTRIBUTE, [self.path.name])
        assert self.sampler.load_checkpoint(study, self.store)
        with guarded(code=True):
            study.optimize(flat, n_trials=1)
        assert study.trials[-1].state == TrialState.COMPLETE


SAVED: dict[str, Saved] = {}


def saved(kind: str) -> Saved:
    if kind not in SAVED:
        SAVED[kind] = Saved(kind)
    return SAVED[kind]


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "drop", "double", "zero"]), st.floats(0, 1), st.integers(0, 7)),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    some = bytearray(content)
    for how, where, bit in changes:
        at = min(int(where * len(some)), len(some) - 1)
        if at < 0:
            break
        if how == "flip":
            some[at] ^= 1 << bit
        elif how == "cut":
            del some[at:]
        elif how == "drop":
            del some[at : at + 1 + bit]
        elif how == "double":
            some[at:at] = some[at : at + 1 + 9 * bit]
        else:
            some[at : at + 8] = bytes(len(some[at : at + 8]))
    return bytes(some)


@given(kind=st.sampled_from(KINDS), changes=CHANGES)
@examples(40)
def test_a_file_with_damaged_bytes_is_ignored(kind: str, changes: list[tuple[str, float, int]]) -> None:
    one = saved(kind)
    content = damaged(one.content, changes)
    one.path.write_bytes(content)
    assert one.loads() == (content == one.content)


GARBAGE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**9, 10**18, 10**400, -(10**18), 2.0**63, 1e308, float("nan"), float("inf")]),
    st.sampled_from(
        ["", "l", "o", "r", "x", "config", "Agent", "__class__", "learn", "SpaceModel", "os.system"]
    ),
    st.lists(st.integers(-1, 400), max_size=3),
    st.sampled_from(
        [[], {}, [[]], {"a": 1}, [None], [[0]], ["t", 1], ["o", 0], ["b", 10**12], ["a", "bool", [0]]]
    ),
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "replace", "delete", "insert", "exchange"]),
        st.floats(0, 1),
        st.floats(0, 1),
        GARBAGE,
    ),
    min_size=1,
    max_size=3,
)


def edited(table: list[Any], edits: list[tuple[str, float, float, Any]]) -> list[Any]:
    """The table with parts replaced: nodes, layouts, their items, and the root."""
    for how, where, inside, garbage in edits:
        rows = table[1] if where > 0.1 else table[0]
        place = int(where * (len(rows) - 1))
        row = rows[place]
        items, at = (
            (row, int(inside * len(row))) if isinstance(row, list) and inside < 0.95 else (rows, place)
        )
        if not items:
            continue
        at = min(at, len(items) - 1)
        if how == "delete":
            del items[at]
        elif how == "insert":
            items.insert(at, garbage)
        elif how == "exchange":
            items[at], items[-1] = items[-1], items[at]
        else:
            items[at] = garbage
    return table


@given(kind=st.sampled_from(KINDS), edits=EDITS)
@examples(60)
def test_a_table_with_a_right_checksum_may_hold_anything(
    kind: str, edits: list[tuple[str, float, float, Any]]
) -> None:
    one = saved(kind)
    table = edited(one.table(), edits)
    layouts, nodes, root = table
    graph = Graph(layouts, nodes, root, one.checkpoint.graph.numbers)
    checkpoint = one.checkpoint._replace(graph=graph)
    try:
        write_file(one.path, checkpoint)
    except ValueError:  # JSON has no integer of 400 digits as Python writes it
        return
    if one.loads():
        one.goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [10**18, 1e300, -1, float("nan")])
def test_each_number_of_a_table_may_be_any(kind: str, number: float) -> None:
    one = saved(kind)
    places = [
        (row, item)
        for row, node in enumerate(one.checkpoint.graph.nodes)
        for item, value in enumerate(node)
        if node[0] == "o" and item > 1 and type(value) in (int, float)
    ]
    for row, item in places[:: max(1, len(places) // (20 * FACTOR))]:
        layouts, nodes, root = one.table()
        nodes[row][item] = number
        graph = Graph(layouts, nodes, root, one.checkpoint.graph.numbers)
        write_file(one.path, one.checkpoint._replace(graph=graph))
        if one.loads():
            one.goes_on()


@given(about=st.dictionaries(st.sampled_from(["seed", "trials", "agent"]), GARBAGE), numbers=st.data())
@examples(15)
def test_other_settings_and_trials_are_ignored(about: dict[str, Any], numbers: Any) -> None:
    one = saved("default")
    trials = one.checkpoint.trials.copy()
    trials[numbers.draw(st.integers(0, len(trials) - 1))] += numbers.draw(st.sampled_from([0, 1, -9, 2**62]))
    with contextlib.suppress(ValueError):
        write_file(one.path, Checkpoint(one.checkpoint.about | about, trials, one.checkpoint.graph))
        one.loads()


def nested(depth: int, width: int) -> list[Any]:
    return [["t", *[[k - 1] if k else k] * width] for k in range(depth)]


@pytest.mark.parametrize(
    "nodes",
    [
        [*nested(40, 2), ["e", [39]]],  # 2^40 items to be hashed
        [*nested(5000, 1), ["e", [4999]]],
        [["l", [0]], ["t", [0]], ["e", [1]]],
        [["l"], *(["n", "Choices", [0]] for _ in range(2)), ["e", [1], [2]]],
        [["b", 10**18]],
        [["a", "float64", [10**9, 10**9], False]],
        [["a", "float64", [0, 10**18, 10**18], False]],
        [["a", "float64", [-1, -1], False]],
        [["a", "object", [1], False]],
        [["p", "Agent", 1]],
        [["m", [0]]],
        [["r", "DDPG", 1, 2, 3, 4]],
        [
            ["x", "config"],
            ["d", "dict", "n_slots", 10**12, "n_performance", 1, "n_weights", 0, "seed", 0],
            ["b", 0],
        ]
        + [["r", "DDPG", [0], [1], 1, [2]]],
        [["s", "Explored", 3]],
        [["l"] * 3] * 3,
    ],
    ids=lambda nodes: repr(nodes)[:40],
)
def test_what_would_take_all_time_or_memory_is_refused(nodes: list[Any]) -> None:
    one = saved("default")
    numbers = {kind: found[:0] for kind, found in one.checkpoint.graph.numbers.items()}
    graph = Graph(one.checkpoint.graph.layouts, nodes, [len(nodes) - 1], numbers)
    write_file(one.path, one.checkpoint._replace(graph=graph))
    assert not one.loads()


@given(stored=st.recursive(GARBAGE, st.lists, max_leaves=5))
@examples(20)
def test_the_attribute_that_names_checkpoints_may_hold_anything(stored: Any) -> None:
    one = saved("default")
    other = optuna.create_study()
    write_to_study(other, CHECKPOINTS_ATTRIBUTE, stored)
    with guarded():
        assert not one.sampler.load_checkpoint(other, one.store)


# Pickles ------------------------------------------------------------------------------------------------


@given(kind=st.sampled_from(KINDS), where=st.floats(0, 1, exclude_max=True))
@examples(15)
def test_a_pickle_that_was_cut_off_raises_an_error_of_pickle(kind: str, where: float) -> None:
    content = pickle.dumps(saved(kind).sampler)
    with guarded(code=True), pytest.raises((EOFError, pickle.UnpicklingError)):
        pickle.loads(content[: int(where * len(content))])


# Studies ------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(GARBAGE.filter(lambda value: value != 10**400), st.lists, max_leaves=6)
NOTES = ("trlhpo:seen", "trlhpo:order", "trlhpo:plan", "trlhpo:agent", "fixed_params", "retry_history")
DISTRIBUTIONS: st.SearchStrategy[BaseDistribution] = st.one_of(
    st.builds(FloatDistribution, st.just(1e-9), st.sampled_from([1.0, 1e300])),
    st.builds(FloatDistribution, st.just(0.25), st.just(8.0), log=st.just(True)),
    st.builds(FloatDistribution, st.just(0.0), st.just(1.0), step=st.sampled_from([0.25, 2.0**-40])),
    st.builds(IntDistribution, st.integers(-3, 3), st.sampled_from([3, 50, 2**62])),
    st.builds(IntDistribution, st.just(1), st.just(999), log=st.just(True)),
    st.builds(
        CategoricalDistribution,
        st.lists(
            st.sampled_from([None, True, 1, 0.0, float("nan"), "", "a", "\ud800"]), min_size=1, max_size=4
        ),
    ),
)
NAMES = ("n", "x0", "x1", "c", "layer1_kind", "x99999999999999999999")


@st.composite
def finished(draw: st.DrawFn) -> optuna.trial.FrozenTrial:
    """A trial whose distributions and notes have nothing to do with the objective."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    distributions = {name: draw(DISTRIBUTIONS) for name in names}
    params: dict[str, Any] = {}
    for name, of in distributions.items():
        if isinstance(of, CategoricalDistribution):
            params[name] = of.choices[draw(st.integers(0, len(of.choices) - 1))]
        else:
            assert isinstance(of, FloatDistribution | IntDistribution)
            params[name] = draw(st.sampled_from([of.low, of.high]))
    state = draw(st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
    return optuna.create_trial(
        state=state,
        value=None
        if state != TrialState.COMPLETE
        else draw(st.sampled_from([0.0, 1.5, -1e308, float("inf")])),
        params=params,
        distributions=distributions,
        intermediate_values=draw(
            st.dictionaries(st.integers(0, 4), st.sampled_from([0.5, float("nan"), -1e308]), max_size=3)
        ),
        system_attrs=draw(st.dictionaries(st.sampled_from(NOTES), JSON_VALUES, max_size=3)),
    )


@given(
    kind=st.sampled_from(KINDS),
    trials=st.lists(finished(), min_size=1, max_size=6),
    notes=st.dictionaries(
        st.sampled_from(["trlhpo:sampler", "layer_space", "trlhpo:published"]), JSON_VALUES
    ),
)
@examples(8)
def test_a_study_of_other_trials_and_notes_is_played_on(
    kind: str, trials: list[optuna.trial.FrozenTrial], notes: dict[str, Any]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study: Study = optuna.create_study(sampler=make(kind))
    for name, value in notes.items():
        write_to_study(study, name, value)
    study.add_trials(trials)
    with guarded(code=True):
        study.optimize(flat, n_trials=2)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials[-2:])


# Networks as text ---------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *layer_kinds,
        "(",
        ")",
        ",",
        " > ",
        ">",
        "32",
        "1",
        "relu",
        "bias",
        "-1",
        "1e9",
        "9" * 5000,
        "\0",
        "²",
        "٣",
        " ",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))
NETWORK = "Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)"


@given(text=st.one_of(TEXTS, CHANGES.map(lambda some: damaged(NETWORK.encode(), some).decode("latin-1"))))
@examples(150)
def test_a_text_is_a_network_or_an_error(text: str) -> None:
    with guarded(code=True):
        try:
            network = parse(text)
        except ValueError as error:
            assert len(str(error)) < 5 * len(text) + 2000
        else:
            assert parse(describe(network)) == network
