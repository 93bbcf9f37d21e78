from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
import optunahub


try:
    from optuna_trlhpo.benchmarks.problems.mnist_layers import MnistLayers
except ImportError as error:
    raise ImportError(
        'mnist_layers needs optuna-trlhpo; install it with: pip install "optuna-trlhpo[bench]"'
    ) from error
from optuna_trlhpo import describe


_ACTIONS = 4


class Problem(optunahub.benchmarks.BaseProblem):
    """CNNs for MNIST of up to six layers, judged by a surrogate of 5,012 really trained networks.

    Called with a trial, a network grows layer by layer under conditional parameters, and the accuracy of each
    prefix is reported. `evaluate` takes the same networks as points of a fixed box.

    Args:
        seed: Seed of the noise of a training. None gives accuracies without noise.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._problem = MnistLayers()
        self.space = self._problem.space
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._box: dict[str, BaseDistribution] = {
            "depth": IntDistribution(1, self.space.max_layers)
        }
        for k in range(self.space.max_layers):
            for i in range(_ACTIONS):
                self._box[f"layer{k + 1}_action{i}"] = FloatDistribution(0.0, 1.0)

    @property
    def search_space(self) -> dict[str, BaseDistribution]:
        """Depth, and four numbers from 0 to 1 for each layer: its kind and its hyperparameters."""
        return self._box.copy()

    @property
    def directions(self) -> list[StudyDirection]:
        """The accuracy is maximized."""
        return [StudyDirection.MAXIMIZE]

    @property
    def optimum(self) -> float:
        """Accuracy of the best network, without noise."""
        return self._problem.optimum

    def __call__(self, trial: optuna.Trial) -> float:
        """Grow a network in the trial, report its prefixes, and return the best accuracy."""
        best = 0.0
        for layers in self.space.grow(trial):
            accuracy = self._accuracy(describe(layers))
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)
        return best

    def evaluate(self, params: dict[str, Any]) -> float:
        """Return the accuracy of the network that a point of the box encodes."""
        rows = [
            [params[f"layer{k + 1}_action{i}"] for i in range(_ACTIONS)]
            for k in range(params["depth"])
        ]
        return self._accuracy(describe(self.space.decode(np.array(rows))))

    def _accuracy(self, network: str) -> float:
        if self._rng is None:
            return self._problem.true_value(network)
        return self._problem.observe(network, self._rng)
