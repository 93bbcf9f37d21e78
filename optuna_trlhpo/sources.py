"""What is known from earlier studies: `warm_start`.

An earlier study is learned once. What its critic expects of a network is one more thing that the critic of
the running study knows about the network; how far it is to be trusted is learned there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.features import N_PARTS, FeatureMap, Networks
from optuna_trlhpo._agent.posterior import Posterior
from optuna_trlhpo.episode import read_episode
from optuna_trlhpo.experience import Experience
from optuna_trlhpo.names import Names
from optuna_trlhpo.notes import seen_in
from optuna_trlhpo.reward import worths_of

_N_BEST = 100
_STEPS = 80


class EarlierStudy:
    """The finished trials of a study, as they were when it was passed.

    Raises:
        ValueError: If it has no trial that something can be learned from.
    """

    def __init__(self, study: Study) -> None:
        self.name = study.study_name
        self.directions = tuple(study.directions)
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        self.trials = study.get_trials(deepcopy=True, states=states)
        if not any(self._worths(trial) is not None for trial in self.trials):
            raise ValueError(f"warm_start: the study {self.name!r} has no finished trial to learn from")

    def _worths(self, trial: FrozenTrial) -> np.ndarray | None:
        return worths_of(trial, read_episode(trial, seen_in(trial)), self.directions)

    def experience(self, config: AgentConfig, seed: int, names: Names) -> Experience:
        """What an agent would remember that had seen the study."""
        experience = Experience(config, self.directions, seed, names)
        for trial in self.trials:
            worths = self._worths(trial)
            if worths is not None:
                experience.add(trial.number, read_episode(trial, seen_in(trial)), worths)
        return experience


class Source:
    """An earlier study that has been learned.

    Args:
        config: The agent's settings.
        study: The earlier study.
        directions: Of the study that is running; there must be as many.
        seed: The sampler's.
        names: Shared with the running study.

    Attributes:
        networks: ``[N]`` its networks with a value.
        best: The best of them.
        unit: Of its scores, where they are of errors; see `Scores`.

    Raises:
        ValueError: If the studies have different numbers of objectives.
    """

    def __init__(
        self,
        config: AgentConfig,
        study: EarlierStudy,
        directions: Sequence[StudyDirection],
        seed: int,
        names: Names,
    ) -> None:
        K = len(directions)
        if len(study.directions) != K:
            raise ValueError(
                f"warm_start: the number of objectives of study {study.name!r} is {len(study.directions)}; "
                f"it must be that of the study that is optimised, {K}"
            )
        experience = study.experience(config, seed, names)
        weights = np.ones(K) if K > 1 else np.zeros(0)
        rng = np.random.default_rng(seed)
        self.networks, self._values = experience.networks(rng, weights)
        self.unit = experience.unit
        self.best = self.networks.rows(np.argsort(-self._values, kind="stable")[:_N_BEST])

    def learn(self, networks: Networks, categorical: np.ndarray, means: np.ndarray) -> None:
        """Learn ``networks``, which are ``self.networks`` with all that is known of them."""
        self._features, self._posterior = FeatureMap(), Posterior(n_parts=N_PARTS)
        self._features.learn(networks, categorical, means)
        x = self._features(networks)
        self._posterior.fit(x, self._values, self._features.features, steps=_STEPS)

    def expect(self, networks: Networks) -> np.ndarray:
        """``[N]`` the score that is expected of each network, in the earlier study."""
        return self._posterior.predict(self._features(networks))[0]
