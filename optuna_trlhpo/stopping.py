"""A callback that ends a study when no worthwhile gain is expected any more."""

from __future__ import annotations

import itertools
import math

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo._checks import check_positive_integer, check_positive_number
from optuna_trlhpo.trials.agent_record import read_agent

_logger = optuna.logging.get_logger("optuna.trlhpo.stopping")


class StopWithoutGain:
    """Callback for `Study.optimize` that stops a study when no worthwhile gain is expected any more.

    `TRLHPOSampler` stores with each trial that it plans the gain that it expects of it: the expected
    improvement over the best value, in the unit of the objective. The study stops when each of the latest
    planned trials promised less than ``min_gain``. The gain is that of one more trial, and many more bring
    more. It is the critic's estimate and no bound: what no trial has hinted at is not part of it.

    The callback keeps no state. It may be used in several processes, and in a study that goes on.

    Args:
        min_gain: Smallest gain that is worth a trial, in the unit of the objective: 0.001 is a tenth of a
            percentage point of accuracy.
        n_planned: Number of latest planned trials that must all promise less.
        min_trials: Number of finished trials before which the study is not stopped.

    Raises:
        ValueError: For an argument out of range; in a study with several objectives, when it is called.

    Examples:
        >>> from optuna_trlhpo import StopWithoutGain, TRLHPOSampler
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
        >>> study.optimize(
        ...     lambda trial: trial.suggest_float("x", -1, 1) ** 2,
        ...     n_trials=100,
        ...     callbacks=[StopWithoutGain(min_gain=0.001)],
        ... )
        >>> len(study.trials) < 100
        True
    """

    def __init__(self, min_gain: float, *, n_planned: int = 10, min_trials: int = 20) -> None:
        check_positive_number("min_gain", min_gain)
        check_positive_integer("n_planned", n_planned)
        check_positive_integer("min_trials", min_trials)
        self._min_gain, self._n_planned, self._min_trials = float(min_gain), n_planned, min_trials
        self._has_warned = False

    def __repr__(self) -> str:
        return (
            f"StopWithoutGain({self._min_gain!r}, n_planned={self._n_planned}, min_trials={self._min_trials})"
        )

    def expected_gain(self, study: Study) -> float:
        """Return the largest gain that one of the latest planned trials promised.

        It is in the unit of the objective. Infinite before ``min_trials`` trials have finished, or fewer than
        ``n_planned`` of them were planned.

        Raises:
            ValueError: If the study has several objectives.
        """
        if len(study.directions) > 1:
            raise ValueError(
                f"the study has {len(study.directions)} objectives; StopWithoutGain needs a study with one"
            )
        finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        if len(finished) < self._min_trials:
            return math.inf
        records = (read_agent(trial) for trial in reversed(finished))
        gains = (record.gain for record in records if record is not None and record.gain is not None)
        latest = list(itertools.islice(gains, self._n_planned))
        if not latest and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                f"None of the {len(finished)} finished trials has an expected gain, so StopWithoutGain does "
                "not stop the study. TRLHPOSampler stores it, TRLHPOSampler.paper() and others do not."
            )
        return max(latest) if len(latest) == self._n_planned else math.inf

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Stop the study if no worthwhile gain is expected."""
        gain = self.expected_gain(study)
        if gain < self._min_gain:
            _logger.info(
                f"The study is stopped: the last {self._n_planned} planned trials promised a gain of at most "
                f"{gain:.2g}, less than {self._min_gain:g}."
            )
            study.stop()
