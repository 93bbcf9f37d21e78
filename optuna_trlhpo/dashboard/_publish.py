"""`publish`, and the callback that calls it while a study runs.

The study records what was published in `PUBLISHED_ATTRIBUTE`. So nothing is written twice, which matters for
append-only storages, and content of other authors is not changed.
"""

from __future__ import annotations

import functools
import json
import mimetypes
import tempfile
import threading
import time
import types
import uuid
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.dashboard._diagram import architecture_svg
from optuna_trlhpo.dashboard._figures import FIGURES, figure_of
from optuna_trlhpo.dashboard._markdown import leaders, merged, study_note, trial_note
from optuna_trlhpo.trials.attributes import is_integer, read_from_study, write_to_study
from optuna_trlhpo.visualization._architecture import ArchitectureInfo, get_architecture_info

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

    from optuna_trlhpo.cnn import CNNObjective

PUBLISHED_ATTRIBUTE = "trlhpo:published"

SHARE = 0.1
"""Maximum fraction of the time that a callback takes."""

_EXTRA = 'install them with pip install "optuna-trlhpo[dashboard]"'

_logger = optuna.logging.get_logger("optuna.trlhpo.dashboard")


def publish(
    study: Study,
    *,
    top: int = 3,
    artifact_store: ArtifactStore | None = None,
    objective: CNNObjective | None = None,
) -> None:
    """Publish the results of a study in optuna-dashboard.

    - The note of the study shows the best network as a table with its costs, the best trials, and a summary
      of the constraints, which the dashboard itself does not show.
    - The figures of `optuna_trlhpo.visualization` appear among the study's graphs. Figures without data are
      omitted.
    - Each of the best trials gets a note, and with a store a diagram of its network (``.svg``).

    The function can be called repeatedly. Notes and figures are updated, files in the store are kept, and
    unchanged content is not written again. Text that users write into a note is kept. For a study without
    layers, the notes show its parameters. Figures of large studies have no hover texts, and those of even
    larger studies show only some of the points. Counts and tests always cover all trials.

    Args:
        study: A study of any sampler, finished or running.
        top: Number of trials that get a note and files.
        artifact_store: Store for the files, as for `optuna.artifacts.upload_artifact`. Start the dashboard
            with its folder: ``optuna-dashboard <storage> --artifact-dir <folder>``. None writes no files.
        objective: Objective of the study, to publish the networks of the best trials as ONNX, too. A study
            stores no weights, so each of these networks is trained again, once (see `CNNObjective.refit`).

    Raises:
        ImportError: If optuna-dashboard or Plotly is not installed; with an objective, if ONNX is not.
        ValueError: If ``top`` is negative, or there is an objective and no store.
        Exception: The first error in the creation or storage of a file. Everything else is still published.

    Examples:
        ```python
        store = optuna.artifacts.FileSystemArtifactStore("artifacts")
        publish(study, artifact_store=store, objective=objective)
        ```
    """
    _check(study, top)
    if objective is not None and artifact_store is None:
        raise ValueError("objective is given without artifact_store; the exported networks are stored there")
    dashboard, plotly = _import_dashboard()
    published, best = _Published(study), leaders(study)
    leading = _architecture(study, best[0]) if best else None
    _save_note(dashboard, study, None, study_note(study, leading))
    for trial in best[:top]:
        _save_note(dashboard, study, trial, trial_note(study, trial, _architecture(study, trial)))
    trials = study.get_trials(deepcopy=False)
    for number in published.replace_noted([trial.number for trial in best[:top]]):
        if number < len(trials):
            _save_note(dashboard, study, trials[number], "")
    try:
        for identity, name in FIGURES.items():
            figure = figure_of(study, name, best)
            if figure is not None and published.is_new(identity, figure):
                drawn = plotly.io.from_json(figure)
                dashboard.save_plotly_graph_object(study, drawn, graph_object_id=identity)
    finally:
        published.save()
    if artifact_store is not None:
        _upload_all(study, best[:top], artifact_store, objective)


class PublishCallback:
    """Callback that calls `publish` while a study runs: ``study.optimize(..., callbacks=[callback])``.

    It publishes after every trial whose number, counted from 1, is a multiple of ``every``. With several
    workers, one of them publishes. Calls are skipped if publishing would take more than a tenth of the time.
    So call `publish` at the end, which can also publish networks (they must be trained again for that). The
    callback never fails a study: errors are logged as warnings.

    Args:
        every: Number of trials between two publications.
        top: Number of trials that get a note and files, as for `publish`.
        artifact_store: Store for the files, as for `publish`.

    Raises:
        ImportError: If optuna-dashboard or Plotly is not installed.
        ValueError: If ``every`` is not positive or ``top`` is negative.

    Examples:
        ```python
        study.optimize(objective, n_trials=100, callbacks=[PublishCallback(every=20)])
        ```
    """

    def __init__(self, *, every: int = 10, top: int = 3, artifact_store: ArtifactStore | None = None) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"every is {every!r}; it must be a positive integer")
        check_integer("top", top)
        _import_dashboard()
        self.every = every
        self.top = top
        self.artifact_store = artifact_store
        self._publishing = threading.Lock()
        self._not_before = 0.0

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        start = time.monotonic()
        if (trial.number + 1) % self.every or start < self._not_before:
            return
        # If another thread is publishing already, this trial is included the next time.
        if not self._publishing.acquire(blocking=False):
            return
        try:
            publish(study, top=self.top, artifact_store=self.artifact_store)
        except Exception as error:  # no error may stop the study
            _logger.warning(f"The study was not published after trial {trial.number}: {error!r}")
        finally:
            end = time.monotonic()
            self._not_before = end + (1 / SHARE - 1) * (end - start)
            self._publishing.release()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_publishing", "_not_before")  # state of this process
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _publishing=threading.Lock(), _not_before=0.0)


class _Published:
    """Record of the published content: fingerprints of figures, and trials with notes."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._before = read_from_study(study, PUBLISHED_ATTRIBUTE)
        before = self._before if isinstance(self._before, dict) else {}  # otherwise written by other code
        figures, noted = before.get("figures"), before.get("noted")
        self._figures = dict(figures) if isinstance(figures, dict) else {}
        self._noted = [it for it in noted if is_integer(it, least=0)] if isinstance(noted, list) else []

    def is_new(self, identity: str, figure: str) -> bool:
        """Return whether this figure was not published under this id yet, and record it."""
        fingerprint = zlib.crc32(figure.encode())
        if self._figures.get(identity) == fingerprint:
            return False
        self._figures[identity] = fingerprint
        return True

    def replace_noted(self, numbers: list[int]) -> list[int]:
        """Record the trials with notes, and return those that no longer have one."""
        before, self._noted = self._noted, numbers
        return [number for number in before if number not in numbers]

    def save(self) -> None:
        """Write the record to the study if it has changed."""
        now = {"figures": self._figures, "noted": self._noted}
        if now != self._before:
            write_to_study(self._study, PUBLISHED_ATTRIBUTE, now)


def _architecture(study: Study, trial: FrozenTrial) -> ArchitectureInfo | None:
    architecture = get_architecture_info(study, trial)
    return None if architecture.note else architecture


def _save_note(dashboard: Any, study: Study, trial: FrozenTrial | None, own: str) -> None:
    target = study if trial is None else _running(study, trial)
    try:
        before = dashboard.get_note(target)
    except Exception as error:  # a note that the dashboard cannot read is not overwritten
        whose = "the study" if trial is None else f"trial {trial.number}"
        _logger.warning(f"The note of {whose} is damaged and was not changed: {error!r}")
        return
    note = merged(before, own)
    if note != before:
        dashboard.save_note(target, note)


def _upload_all(
    study: Study, trials: Sequence[FrozenTrial], store: ArtifactStore, objective: CNNObjective | None
) -> None:
    """Upload the files of each trial. An error in one trial does not affect the others."""
    errors = []
    for trial in trials:
        try:
            _upload(study, trial, store, objective)
        except Exception as error:  # stores and networks may raise any exception
            _logger.warning(f"The files of trial {trial.number} were not published: {error!r}")
            errors.append(error)
    if errors:
        raise errors[0]


def _upload(study: Study, trial: FrozenTrial, store: ArtifactStore, objective: CNNObjective | None) -> None:
    def draw(path: Path) -> None:
        assert architecture is not None
        path.write_text(architecture_svg(architecture), encoding="utf-8")

    architecture = _architecture(study, trial)
    if architecture is not None:
        _attach(study, trial, f"trial-{trial.number}.svg", draw, store)
    if objective is not None:
        export = functools.partial(objective.export, trial)
        _attach(study, trial, f"trial-{trial.number}.onnx", export, store)


# Uses of private APIs. Optuna's `upload_artifact` and the dashboard's `save_note` accept only running trials:
# the first writes to the trial, which a storage rejects after its end, and the second reads attributes that
# only `Trial` has. But the best trials are known only after they have finished.


def _running(study: Study, trial: FrozenTrial) -> Any:
    """Return an object with the attributes of a running trial that the dashboard needs for notes."""
    return types.SimpleNamespace(study=study, storage=study._storage, _trial_id=trial._trial_id)


def _attach(
    study: Study, trial: FrozenTrial, name: str, make: Callable[[Path], object], store: ArtifactStore
) -> None:
    """Create and store a file, unless the store has it, and link it to the trial in the dashboard.

    The link is an attribute of the study, as in the first versions of the dashboard.
    """
    prefix = f"dashboard:artifacts:{trial._trial_id}:"
    attached = _attached(study, prefix, name)
    if attached is not None and _holds(store, attached):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        make(path)
        # Looked up again, because another process may have attached the file meanwhile.
        attached = attached or _attached(study, prefix, name)
        identity = attached or str(uuid.uuid4())
        with path.open("rb") as file:
            store.write(identity, file)
    if attached is None:
        meta = {
            "artifact_id": identity,
            "filename": name,
            "mimetype": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "encoding": None,
        }
        write_to_study(study, prefix + identity, json.dumps(meta))


def _attached(study: Study, prefix: str, name: str) -> str | None:
    """Return the id of the file with this name that is linked to a trial, or None if there is none."""
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if key.startswith(prefix) and _meta(value).get("filename") == name:
            return key.removeprefix(prefix)
    return None


def _meta(value: Any) -> dict[str, Any]:
    """Return the dashboard's metadata of a file. It is empty for a deleted file, whose value is "null"."""
    try:
        meta = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):  # damaged, or written by other code
        return {}
    return meta if isinstance(meta, dict) else {}


def _holds(store: ArtifactStore, identity: str) -> bool:
    try:
        with store.open_reader(identity):
            return True
    except ArtifactNotFound:
        return False


# Checks and imports ----------------------------------------------------------------------------------------


def _check(study: Study, top: int) -> None:
    if not isinstance(study, Study):
        raise ValueError(f"study is a {type(study).__name__}; it must be an Optuna study")
    check_integer("top", top)


def _import_dashboard() -> tuple[Any, Any]:
    try:
        import optuna_dashboard
        import plotly.io
    except ImportError as error:
        raise ImportError(f"publishing needs optuna-dashboard and plotly; {_EXTRA}") from error
    return optuna_dashboard, plotly
