"""The trials of an earlier study, for `warm_start`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.trials.attributes import report_marks
from optuna_trlhpo.trials.episode import Episode, read_episode
from optuna_trlhpo.trials.rewards import signed_outcomes


class EarlierStudy:
    """The finished trials of a study at the time it was passed.

    Raises:
        ValueError: If it has no trial to learn from.
    """

    def __init__(self, study: Study) -> None:
        self.name = study.study_name
        self.directions = tuple(study.directions)
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        self.trials = study.get_trials(deepcopy=True, states=states)
        if not any(self._outcomes(trial) is not None for trial in self.trials):
            raise ValueError(f"warm_start: the study {self.name!r} has no finished trial to learn from")

    def episodes(self) -> Iterator[tuple[int, Episode, np.ndarray]]:
        """Yield number, episode and signed outcomes of each trial to learn from."""
        for trial in self.trials:
            outcomes = self._outcomes(trial)
            if outcomes is not None:
                yield trial.number, read_episode(trial, report_marks(trial)), outcomes

    def _outcomes(self, trial: FrozenTrial) -> np.ndarray | None:
        return signed_outcomes(trial, read_episode(trial, report_marks(trial)), self.directions)
