"""A checkpoint restores a sampler exactly, or is reported and ignored."""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna import Study
from optuna.artifacts import FileSystemArtifactStore
from optuna.samplers import RandomSampler

from optuna_trlhpo import AgentConfig, TRLHPOSampler
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES
from optuna_trlhpo.checkpoints.checkpoint_file import VERSION
from optuna_trlhpo.checkpoints.graph_writer import write_graph
from optuna_trlhpo.checkpoints.study_checkpoints import CHECKPOINTS_ATTRIBUTE, identifiers
from optuna_trlhpo.trials.attributes import write_to_study
from tests.sampler.test_restart import OBJECTIVES, study_of

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "no prior": dict(layer_prior=False),
    "thompson": dict(agent=AgentConfig(targets="rank", acquisition="thompson")),
    "perceptrons": dict(agent=AgentConfig(critic="perceptron", fit_steps=1)),
    "transformers": dict(agent=AgentConfig(critic="transformer", fit_steps=1, n_critics=2, blocks=1)),
    "seconds": dict(time_budget=1000.0, repeat=True),
}
FAST = ["loop", "own_growth"]


def make(**arguments: Any) -> TRLHPOSampler:
    return TRLHPOSampler(seed=3, warn_independent_sampling=False, **arguments)


def make_paper(**arguments: Any) -> TRLHPOSampler:
    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    return TRLHPOSampler.paper(seed=3, agent=agent, warn_independent_sampling=False, **arguments)


def played(
    play: Any, study: Study, make: Callable[[], TRLHPOSampler], sessions: list[int], folder: Path
) -> list[dict[str, Any]]:
    """Parameters of a study that is played in sessions, each by a sampler that loads a checkpoint."""
    store = FileSystemArtifactStore(folder)
    for number, n_trials in enumerate(sessions):
        study.sampler = sampler = make()
        assert sampler.load_checkpoint(study, store) == (number > 0)
        study.optimize(play, n_trials=n_trials, catch=RuntimeError)
        assert sampler.save_checkpoint(study, store)
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize("settings", [pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_restores_a_sampler_exactly(name: str, settings: str, tmp_path: Path) -> None:
    check(name, lambda: make(**SETTINGS[settings]), [10, 1, 3], tmp_path)


@pytest.mark.parametrize("name", FAST)
def test_it_restores_the_default_exactly(name: str, tmp_path: Path) -> None:
    check(name, make, [9, 4], tmp_path)


@pytest.mark.parametrize(
    "name",
    ["own_growth", *(pytest.param(n, marks=pytest.mark.slow) for n in ("grown", "loop", "two_values"))],
)
def test_it_restores_the_agent_of_the_paper_exactly(name: str, tmp_path: Path) -> None:
    check(name, make_paper, [5, 1, 3], tmp_path)


EARLIER = [
    pytest.param(which, name, marks=() if (which, name) == (make, "flat") else pytest.mark.slow)
    for which in (make, make_paper)
    for name in ("grown", "loop", "flat", "two_values")
]


@pytest.mark.parametrize(("which", "name"), EARLIER)
def test_it_restores_what_earlier_studies_told(name: str, which: Any, tmp_path: Path) -> None:
    earlier = study_of(OBJECTIVES[name], None)
    earlier.sampler = RandomSampler(seed=0)
    earlier.optimize(OBJECTIVES[name], n_trials=15)
    check(name, lambda: which(warm_start=[earlier]), [6, 1, 5], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_it_restores_the_pipelines_of_other_people(name: str, tmp_path: Path) -> None:
    pipeline = PIPELINES[name]

    def study() -> Study:
        return optuna.create_study(direction=pipeline.direction, pruner=pipeline.pruner())

    whole = study()
    whole.sampler = make()
    whole.optimize(pipeline.play, n_trials=24, catch=pipeline.catch)
    store, parts = FileSystemArtifactStore(tmp_path), study()
    for number, n_trials in enumerate([9, 1, 14]):
        parts.sampler = sampler = make()
        assert sampler.load_checkpoint(parts, store) == (number > 0)
        parts.optimize(pipeline.play, n_trials=n_trials, catch=pipeline.catch)
        sampler.save_checkpoint(parts, store)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]


def check(name: str, make: Callable[[], TRLHPOSampler], sessions: list[int], folder: Path) -> None:
    whole, parts = (study_of(OBJECTIVES[name], None) for _ in range(2))

    def play(trial: optuna.Trial) -> Any:
        trial.set_user_attr("seconds", 1 + trial.number % 5)  # real ones would differ in both studies
        return OBJECTIVES[name](trial)

    whole.sampler = make()
    whole.optimize(play, n_trials=sum(sessions), catch=RuntimeError)
    expected = [trial.params for trial in whole.get_trials()]
    assert played(play, parts, make, sessions, folder) == expected


# Checkpoints that are ignored ---------------------------------------------------------------------------


def flat(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) + trial.suggest_categorical("penalty", [0, 1, 2])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Study, FileSystemArtifactStore, Path]:
    """A study with a checkpoint, its store, and the file."""
    store = FileSystemArtifactStore(tmp_path)
    sampler = make()
    study = optuna.create_study(sampler=sampler)
    study.optimize(flat, n_trials=12)
    artifact_id = sampler.save_checkpoint(study, store)
    assert artifact_id is not None
    return study, store, tmp_path / artifact_id


def loads(study: Study, store: Any, sampler: TRLHPOSampler) -> tuple[bool, list[str]]:
    """Whether the sampler loads a checkpoint, and the warnings."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = optuna.logging.get_logger("optuna.trlhpo.sampler")
    logger.addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return sampler.load_checkpoint(study, store), messages
    finally:
        logger.removeHandler(handler)
        optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_a_study_without_a_checkpoint_is_no_warning(tmp_path: Path) -> None:
    study, store = optuna.create_study(sampler=make()), FileSystemArtifactStore(tmp_path)
    assert loads(study, store, make()) == (False, [])
    assert make().save_checkpoint(study, store) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sampler", "word"),
    [
        (TRLHPOSampler(seed=4), "another seed"),
        (make(repeat=True), "another repeat"),
        (make(n_startup_trials=3), "another n_startup_trials"),
        (make(agent=AgentConfig(n_candidates=99)), "another agent"),
        (make(layer_prior=False), "another layer_prior"),
        (make_paper(), "another n_startup_trials"),
    ],
    ids=["seed", "repeat", "startup", "agent", "prior", "paper"],
)
def test_one_of_another_sampler_is_reported(saved: Any, sampler: TRLHPOSampler, word: str) -> None:
    study, store, _ = saved
    loaded, messages = loads(study, store, sampler)
    assert not loaded and len(messages) == 1
    assert word in messages[0] and "learns from the trials" in messages[0]


def test_one_of_another_study_is_reported(saved: Any) -> None:
    study, store, path = saved
    other = optuna.create_study(sampler=RandomSampler(seed=0))
    other.optimize(flat, n_trials=12)
    write_to_study(other, CHECKPOINTS_ATTRIBUTE, [path.name])
    loaded, messages = loads(other, store, make())
    assert not loaded and "other trials" in messages[0]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "missing", "text", "version"])
def test_a_damaged_one_is_reported_and_the_study_goes_on(saved: Any, damage: str) -> None:
    study, store, path = saved
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 4
    elif damage == "version":
        content = bytearray(bytes(content).replace(f'"version":"{VERSION}"'.encode(), b'"version":"0"'))
    changed = {"cut": content[:-9], "empty": b"", "text": b"{}" * 50}.get(damage, content)
    path.unlink()
    if damage != "missing":
        path.write_bytes(changed)
    sampler = make()
    loaded, messages = loads(study, store, sampler)
    assert not loaded and len(messages) == 1, messages
    assert ("version is '0'" in messages[0]) == (damage == "version")
    expected = optuna.create_study(sampler=make())
    expected.optimize(flat, n_trials=14)
    study.sampler = sampler
    study.optimize(flat, n_trials=2)
    assert [t.params for t in study.trials] == [t.params for t in expected.trials]


def test_the_one_before_a_damaged_one_is_used(saved: Any) -> None:
    study, store, path = saved
    study.optimize(flat, n_trials=1)
    newest = study.sampler.save_checkpoint(study, store)
    (path.parent / newest).write_bytes(b"")
    loaded, messages = loads(study, store, make())
    assert loaded and "an earlier one is used" in messages[0]


def test_only_two_are_kept(saved: Any) -> None:
    study, store, path = saved
    for _ in range(3):
        study.optimize(flat, n_trials=1)
        study.sampler.save_checkpoint(study, store)
    assert len(list(path.parent.iterdir())) == 2 and not path.exists()


def test_choices_may_be_lists(tmp_path: Path) -> None:
    def lists(trial: optuna.Trial) -> float:
        some: Any = [[1, 2], [3, 4], "five"]
        return len(trial.suggest_categorical("c", some)) + trial.suggest_float("x", 0, 1)

    sessions = [9, 3]
    whole = optuna.create_study(sampler=make())
    whole.optimize(lists, n_trials=sum(sessions))
    found = played(lists, optuna.create_study(), make, sessions, tmp_path)
    assert found == [trial.params for trial in whole.trials]


def test_an_agent_that_fails_learns_anew(saved: Any) -> None:
    study, store, _ = saved
    sampler = make()
    assert sampler.load_checkpoint(study, store)
    sampler.agent.configurations.search.columns = None  # type: ignore[assignment]
    study.sampler = sampler
    study.optimize(flat, n_trials=2)
    expected = optuna.create_study(sampler=make())
    expected.optimize(flat, n_trials=14)
    assert [t.params for t in study.trials] == [t.params for t in expected.trials]


LAYOUTS = {"2": "80c09340eb400015"}
"""Digests of the attributes of the stored classes, by the version of the format."""


def test_another_state_has_another_version() -> None:
    layouts: set[tuple[str, ...]] = set()
    makers = [make, make_paper, lambda: make(**SETTINGS["transformers"]), lambda: make(time_budget=9.0)]
    for new, name in itertools.product(makers, ["loop", "own_growth"]):
        study = study_of(OBJECTIVES[name], None)
        study.sampler = sampler = new()
        study.optimize(OBJECTIVES[name], n_trials=9)
        graph = write_graph(sampler.agent, sampler.externals)
        layouts |= {(layout[0], *sorted(layout[1:])) for layout in graph.layouts}
    layouts = {layout for layout in layouts if not layout[0].endswith("Distribution")}
    digest = hashlib.sha256(repr(sorted(layouts)).encode()).hexdigest()[:16]
    assert LAYOUTS.get(VERSION) == digest, "raise VERSION in checkpoint_file, and store the digest here"


# A process that is killed --------------------------------------------------------------------------------

SAVING = """
import sys, optuna
from optuna_trlhpo import TRLHPOSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
folder = sys.argv[1]
store = optuna.artifacts.FileSystemArtifactStore(folder)
study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/s.db", sampler=TRLHPOSampler(seed=3))
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=10)
print("saving", flush=True)
while True:
    study.sampler.save_checkpoint(study, store)
"""


@pytest.mark.parametrize(
    "n_kills", [2, pytest.param(6, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.rare)]
)
def test_one_is_never_half_written(n_kills: int, tmp_path: Path) -> None:
    draw = random.Random(n_kills)
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
    for _ in range(n_kills):
        command = [sys.executable, "-c", SAVING, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(draw.uniform(0.02, 0.5))
            process.kill()
        loaded, messages = loads(study, FileSystemArtifactStore(tmp_path), TRLHPOSampler(seed=3))
        assert messages == [] and loaded == bool(identifiers(study))
    assert loaded
