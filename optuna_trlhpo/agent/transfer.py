"""Transfer learning from earlier studies of networks, for `warm_start`.

An earlier study is learned once. The prediction of its model for a network is one more feature of the network
for the critic of the running study, which learns how far to trust it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.features import N_PARTS, FeatureMap
from optuna_trlhpo.agent.gaussian_process import GaussianProcess
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import Networks
from optuna_trlhpo.trials.earlier_study import EarlierStudy

_N_BEST = 100
"""Number of networks that are candidates unchanged."""
_STEPS = 80
"""Number of steps in which the kernel is learned."""
TRANSFER_WEIGHT_STD = 0.5
"""Deviation of the slope between the scores of an earlier study and those of the running one, around 1:
where the earlier study misleads, its weight must fall to 0 or below within a few trials."""
TRANSFER_OFFSET_STD = 10.0
"""Deviation of the offset between the scores of two studies: scores are relative to a study's own median."""


class NetworkSource:
    """Earlier study of networks, with a model that has learned it.

    Args:
        config: Settings of the agent.
        study: The earlier study.
        directions: Directions of the running study; the earlier study must have as many.
        seed: Random seed of the sampler.
        names: Table of names, shared with the running study.

    Attributes:
        replay: Its trials.
        networks: ``[N]`` networks of the earlier study with a value.
        best: The best of these networks.
        unit: Unit of its scores, if these are of errors; see `OutcomeTransform`.

    Raises:
        ValueError: If the studies have different numbers of objectives.
    """

    def __init__(
        self,
        config: AgentConfig,
        study: EarlierStudy,
        directions: Sequence[StudyDirection],
        seed: int,
        names: NameTable,
    ) -> None:
        K = len(directions)
        if len(study.directions) != K:
            raise ValueError(
                f"warm_start: the number of objectives of study {study.name!r} is {len(study.directions)}; "
                f"it must equal that of the optimised study, {K}"
            )
        self.replay = replay = Replay(config, study.directions, seed, names)
        for number, episode, outcomes in study.episodes():
            replay.add(number, episode, outcomes)
        weights = np.ones(K) if K > 1 else np.zeros(0)
        rng = np.random.default_rng(seed)
        self.networks, self._values = replay.networks(rng, weights)
        self.unit = replay.score_unit
        self.best = self.networks.rows(np.argsort(-self._values, kind="stable")[:_N_BEST])

    def learn(self, networks: Networks, categorical: np.ndarray, means: np.ndarray) -> None:
        """Learn the values of ``networks``, which are ``self.networks`` with their prior features."""
        self._features, self._posterior = FeatureMap(), GaussianProcess(n_parts=N_PARTS)
        self._features.learn(networks, categorical, means)
        x = self._features(networks)
        self._posterior.fit(x, self._values, self._features.features, steps=_STEPS)

    def expect(self, networks: Networks) -> np.ndarray:
        """``[N]`` expected score of each network in the earlier study."""
        return self._posterior.predict(self._features(networks))[0]
