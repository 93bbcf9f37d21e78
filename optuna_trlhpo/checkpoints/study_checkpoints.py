"""Checkpoints of a study, which are artifacts of it.

The study names the latest ones in an attribute. It is written after the file: a checkpoint that is
half-written is not named, so nobody reads it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.artifacts import download_artifact, upload_artifact
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_trlhpo.agent.agent import Agent
from optuna_trlhpo.agent.configurations.running import PlannedTrial
from optuna_trlhpo.agent.network_agent import Course
from optuna_trlhpo.checkpoints.catalogue import Externals
from optuna_trlhpo.checkpoints.checkpoint_file import Checkpoint, read_file, write_file
from optuna_trlhpo.checkpoints.graph_reader import DamagedError, read_graph
from optuna_trlhpo.checkpoints.graph_writer import write_graph
from optuna_trlhpo.trials.attributes import read_from_study, write_to_study
from optuna_trlhpo.trials.running_trial import RunningTrial
from optuna_trlhpo.trials.values import value_key

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

CHECKPOINTS_ATTRIBUTE = "trlhpo:checkpoints"
"""Attribute of a study: the identifiers of its latest checkpoints, the newest first."""
FILE_NAME = "trlhpo-checkpoint.safetensors"
_KEPT = 2
"""Number of checkpoints that a study keeps."""


class Restored(NamedTuple):
    """What a checkpoint restores."""

    agent: Agent
    finished: list[FrozenTrial]
    """Trials that the agent has learned from."""


def describe(
    study: Study, agent: Agent, numbers: Sequence[int], about: dict[str, Any], externals: Externals
) -> Checkpoint:
    """Return the checkpoint of an agent.

    Args:
        study: Its study.
        agent: The agent.
        numbers: Numbers of the finished trials that it has observed.
        about: Settings of the sampler.
        externals: Objects of the sampler.

    Raises:
        TypeError: If the agent has learned of a category that is no number, text, boolean or None.
    """
    finished = finished_trials(study, numbers)
    with _collector_paused():
        graph = write_graph(agent, externals)
    return Checkpoint(
        about | {"trials": digest_of(study.directions, finished)}, np.array(numbers, dtype=np.int64), graph
    )


def keep(study: Study, store: Any, checkpoint: Checkpoint) -> str:
    """Upload a checkpoint, name it in the study, remove those that are too old, and return its identifier."""
    with tempfile.TemporaryDirectory() as folder, _collector_paused():
        path = Path(folder) / FILE_NAME
        write_file(path, checkpoint)
        artifact_id = upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
    kept = identifiers(study)
    write_to_study(study, CHECKPOINTS_ATTRIBUTE, [artifact_id, *kept][:_KEPT])
    for old in kept[_KEPT - 1 :]:
        with contextlib.suppress(Exception):  # another process has removed it, or the store is out of reach
            store.remove(old)
    return artifact_id


def identifiers(study: Study) -> list[str]:
    """Return the identifiers of the checkpoints of a study, the newest first."""
    stored = read_from_study(study, CHECKPOINTS_ATTRIBUTE)
    return [one for one in stored if isinstance(one, str)][:_KEPT] if isinstance(stored, list) else []


def restore(study: Study, store: Any, about: dict[str, Any], externals: Externals) -> Restored | None:
    """Return what the newest valid checkpoint of a study restores; None if there is none.

    What cannot be used is reported by one warning.

    Args:
        study: The study.
        store: The artifact store that has its checkpoints.
        about: Settings of the sampler, which those of the checkpoint must equal.
        externals: Objects of the sampler.
    """
    reasons, restored = [], None
    for artifact_id in identifiers(study):
        try:
            with _collector_paused():
                restored = _restore(study, store, artifact_id, about, externals)
            break
        except DamagedError as error:
            reasons.append(f"{artifact_id}: {error}")
    if reasons:
        instead = "an earlier one is used" if restored else "the sampler learns from the trials of the study"
        _logger.warning(f"A checkpoint is ignored, and {instead} ({'; '.join(reasons)}).")
    return restored


def _restore(
    study: Study, store: Any, artifact_id: str, about: dict[str, Any], externals: Externals
) -> Restored:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        try:
            download_artifact(artifact_store=store, file_path=str(path), artifact_id=artifact_id)
        except Exception as error:  # stores raise errors of their own
            raise DamagedError(f"the store cannot read it ({error!r})") from error
        checkpoint = read_file(path)
    different = [name for name in about if checkpoint.about.get(name) != about[name]]
    if different:
        raise DamagedError(f"it is of a sampler with another {', another '.join(different)}")
    numbers = checkpoint.trials.tolist()
    finished = finished_trials(study, numbers)
    if len(finished) != len(numbers) or checkpoint.about.get("trials") != digest_of(
        study.directions, finished
    ):
        raise DamagedError("it is of a study with other trials")
    agent = read_graph(checkpoint.graph, externals)
    running = getattr(agent, "courses", None)
    if not isinstance(agent, Agent) or not isinstance(running, dict):
        raise DamagedError("it holds no agent")
    agent.courses = {number: Course(PlannedTrial(RunningTrial(number))) for number in running}
    return Restored(agent, finished)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which takes most of the time where many objects are built at once."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def finished_trials(study: Study, numbers: Sequence[int]) -> list[FrozenTrial]:
    """Return the finished trials with these numbers."""
    wanted = set(numbers)
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.number in wanted and trial.state.is_finished()]


def digest_of(directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial]) -> str:
    """Return a short text that identifies the finished trials of a study."""
    digest = hashlib.sha256(repr([direction.name for direction in directions]).encode())
    for trial in trials:
        params = sorted((name, repr(value_key(value))) for name, value in trial.params.items())
        ends = trial.number, trial.state.name, str(trial.datetime_start), trial.values
        digest.update(repr((ends, params)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
