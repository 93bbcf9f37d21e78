"""``mnist-layers-box``: the networks of ``mnist-layers`` as points of a fixed box.

The parameters and their ranges are the same in every trial. So GP and CMA-ES model all of them, where on
``mnist-layers`` they sample most parameters independently, because ranges change under one name.

==================  =====================================================================================
``depth``           number of layers, an integer; in the terminal form only
``layer1_action0``  kind of the first layer, a number in [0, 1]
``layer1_action1``  its first hyper-parameter, and so on: four numbers for each of the six layers, whether
                    or not the network has this layer
==================  =====================================================================================

`LayerSpace.decode` converts the numbers to a network. Each number is rounded to the nearest choice that is
allowed there, so every point of the box is a network of the space.
"""

from __future__ import annotations

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.mnist_layers import MnistLayersVariant
from optuna_trlhpo.benchmarks.problems.problem import Form, Train
from optuna_trlhpo.layers import ACTION_SLOTS, Network, describe


class BoxLayers(MnistLayersVariant):
    """``mnist-layers`` in a fixed box, in both forms.

    In the terminal form, the network of the suggested depth is trained once. In the progressive form, every
    prefix of the network is trained and reported, until one of the paper's stop rules applies; the value is
    the best accuracy of the trial.
    """

    name = "mnist-layers-box"

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial in one of the forms."""
        depth = self.space.max_layers
        if form == "terminal":
            depth = trial.suggest_int("depth", 1, depth)
        network = self.space.decode(self._actions(trial)[:depth])
        if form == "terminal":
            return train(describe(network))
        return self._layer_by_layer(network, trial, train)

    def _actions(self, trial: Trial) -> np.ndarray:
        names = [
            [f"layer{k + 1}_action{i}" for i in range(ACTION_SLOTS)] for k in range(self.space.max_layers)
        ]
        return np.array([[trial.suggest_float(name, 0, 1) for name in row] for row in names])

    def _layer_by_layer(self, network: Network, trial: Trial, train: Train) -> float:
        assert self.space.min_accuracy is not None and self.space.min_improvement is not None
        best = previous = 0.0
        for k in range(len(network)):
            accuracy = train(describe(network[: k + 1]))
            trial.report(accuracy, step=k)
            best = max(best, accuracy)
            if accuracy < self.space.min_accuracy or accuracy - previous < self.space.min_improvement:
                break
            previous = accuracy
        return best
