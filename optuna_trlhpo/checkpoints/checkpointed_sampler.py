"""The methods of a sampler that save and load checkpoints."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study

from optuna_trlhpo._threads import isolated
from optuna_trlhpo.agent.agent import Agent
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.layer_prior import LayerPrior
from optuna_trlhpo.checkpoints.catalogue import Externals
from optuna_trlhpo.checkpoints.study_checkpoints import describe, digest_of, keep, restore
from optuna_trlhpo.trials.earlier_study import EarlierStudy
from optuna_trlhpo.trials.study_reader import StudyReader
from optuna_trlhpo.trials.values import still_holds

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class CheckpointedSampler(BaseSampler):
    """Sampler whose agent can be saved as an artifact of the study."""

    agent: Agent
    _config: AgentConfig
    _repeat: bool
    _earlier: Sequence[EarlierStudy]
    _priors: Sequence[LayerPrior]
    _lock: threading.RLock
    _reader: StudyReader
    _is_broken: bool
    _is_restored = False  # whether the agent was read from a checkpoint

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the sampler as stored with a study."""
        raise NotImplementedError

    @property
    def externals(self) -> Externals:
        """Objects of the sampler that a checkpoint refers to."""
        return Externals(self._config, self._priors)

    @property
    def _identity(self) -> dict[str, Any]:
        """Settings that those of a checkpoint must equal, as JSON represents them."""
        more = {
            "agent": asdict(self._config),
            "repeat": self._repeat,
            "warm_start": [digest_of(study.directions, study.trials) for study in self._earlier],
            "layer_prior": [hashlib.sha256(prior.means.tobytes()).hexdigest() for prior in self._priors],
        }
        settings: dict[str, Any] = json.loads(json.dumps(self.settings | more))
        return settings

    def _allowed(self, distribution: BaseDistribution, value: Any) -> Any:
        """Return a proposed value; an error where the agent of a checkpoint proposes what is not allowed."""
        if self._is_restored and not still_holds(distribution, value):
            raise ValueError(f"it proposes {value!r}, which is not in {distribution!r}")
        return value

    def save_checkpoint(self, study: Study, store: Any) -> str | None:
        """Save what the sampler has learned as an artifact of the study.

        Without it nothing is lost: a new sampler learns from the trials of the study, which takes the longer
        the more there are. The file holds no code. A study keeps the two newest checkpoints.

        Args:
            study: The study that the sampler serves.
            store: An artifact store of `optuna.artifacts`.

        Returns:
            The identifier of the artifact; None while the sampler has learned nothing of the study.

        Raises:
            TypeError: If a category of the study is no number, text, boolean or None.

        Examples:
            >>> import tempfile
            >>> import optuna
            >>> from optuna_trlhpo import TRLHPOSampler
            >>> store = optuna.artifacts.FileSystemArtifactStore(tempfile.mkdtemp())
            >>> study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
            >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
            >>> artifact_id = study.sampler.save_checkpoint(study, store)
            >>> study.sampler = TRLHPOSampler(seed=0)
            >>> study.sampler.load_checkpoint(study, store)
            True
        """
        with self._lock, isolated():
            numbers = None if self._is_broken else self._reader.finished_numbers(study)
            if numbers is None:
                return None
            checkpoint = describe(study, self.agent, numbers, self._identity, self.externals)
        return keep(study, store, checkpoint)

    def load_checkpoint(self, study: Study, store: Any) -> bool:
        """Go on from the newest checkpoint of the study, and learn only from the trials since then.

        A checkpoint is ignored, with a warning, if it is damaged, or of another version, of other settings or
        another seed, or of a study with other trials. The sampler then learns from the trials of the study.

        Args:
            study: The study.
            store: The artifact store that `save_checkpoint` got.

        Returns:
            Whether a checkpoint was loaded.

        Examples:
            See `save_checkpoint`.
        """
        with self._lock, isolated():
            restored = restore(study, store, self._identity, self.externals)
            if restored is None:
                return False
            self.agent = restored.agent
            self._reader.resume(study, restored.finished)
            self._is_broken, self._is_restored = False, True
        return True


def learned_anew_on_error(
    method: Callable[Concatenate[Any, _P], _R],
) -> Callable[Concatenate[Any, _P], _R]:
    """Let a method of a `CheckpointedSampler` learn from the study where the agent of a checkpoint fails.

    A checkpoint with a right checksum may still have been written by somebody else.
    """

    @functools.wraps(method)
    def call(self: Any, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            if not self._is_restored:
                raise
            _logger.warning(f"The agent of a checkpoint failed, and learns from the study anew: {error!r}")
            self._is_restored = False
            self._reader.forget()
        return method(self, *args, **kwargs)

    return call
