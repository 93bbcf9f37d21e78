"""``mnist-layers-foreign``: the networks of ``mnist-layers``, played as a pipeline of one's own would.

Code written by hand for Optuna, with names, order and encodings of its own: a trial never meets a
`LayerSpace`, and a sampler learns of what may follow what only by what it is asked. What may stand where is
the same (the space is asked beside the trial), so are the networks, their values, the noise and the optimum.

====================  ===================================================================================
``n_blocks``          how many layers, in the terminal form, where it is asked first
``op_conv_fc_pool_0`` the kind; the name tells the choices, for Optuna wants one set of them for a name.
                      Where there is but one choice nothing is asked
``width_0``           filters of a convolution, ``ksize_0`` and ``stride_0`` its kernel and stride; the ranges
                      depend on the image and on the MACs that are left
``window_0``          of a pooling, then ``hop_0`` and ``pad_0``
``act_0``             of a fully connected layer, then ``bias_0``, a boolean, and ``units_0``
====================  ===================================================================================
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.mnist_layers import MnistLayers
from optuna_trlhpo.benchmarks.problems.problem import Form, Problem, Train
from optuna_trlhpo.layers import ACTIVATIONS, FCL, Conv, Layer, MaxPool, Network, describe

_OPERATIONS: dict[str, type[Layer]] = {"conv": Conv, "fc": FCL, "pool": MaxPool}
_MOST_BLOCKS = 6
_LEAST_GAIN = 0.001
_LEAST_ACCURACY = 0.60


class ForeignLayers(Problem):
    """``mnist-layers`` without a `LayerSpace` in the objective, in both forms.

    Terminal: the depth first, then the layers; the network is trained once. Progressive: layer by layer;
    every prefix is trained and reported, until one adds less than .001 or is below .60, or none may follow.
    The sampler is asked for parameters and nothing else. The value is the best accuracy of the trial.

    Args:
        inner: Says which networks there are and what they are worth; None: made here, in some seconds.
    """

    name = "mnist-layers-foreign"
    forms: tuple[Form, ...] = ("progressive", "terminal")

    def __init__(self, inner: MnistLayers | None = None) -> None:
        self._inner = MnistLayers() if inner is None else inner
        self.space = self._inner.space
        self.optimum = self._inner.optimum

    def observe(self, network: str, rng: np.random.Generator) -> float:
        return self._inner.observe(network, rng)

    def true_value(self, network: str) -> float:
        return self._inner.true_value(network)

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        if form == "terminal":
            return train(describe(self._whole(trial)))
        return self._layer_by_layer(trial, train)

    def _whole(self, trial: Trial) -> Network:
        layers: Network = ()
        n_blocks = trial.suggest_int("n_blocks", 1, _MOST_BLOCKS)
        for i in range(n_blocks):
            if not self.space.kinds(layers):
                break
            layers = (*layers, self._block(trial, i, layers))
        return layers

    def _layer_by_layer(self, trial: Trial, train: Train) -> float:
        layers: Network = ()
        best = previous = 0.0
        for i in range(_MOST_BLOCKS):
            if not self.space.kinds(layers):
                break
            layers = (*layers, self._block(trial, i, layers))
            accuracy = train(describe(layers))
            trial.report(accuracy, step=i)
            best = max(best, accuracy)
            if accuracy < _LEAST_ACCURACY or accuracy - previous < _LEAST_GAIN:
                break
            previous = accuracy
        return best

    def _block(self, trial: Trial, i: int, layers: Network) -> Layer:
        """The layer at place ``i``, behind ``layers``."""
        kinds = self.space.kinds(layers)
        choices = [name for name, kind in _OPERATIONS.items() if kind in kinds]
        operation = choices[0]
        if len(choices) > 1:
            operation = trial.suggest_categorical(f"op_{'_'.join(choices)}_{i}", choices)
        allowed = functools.partial(self.space.allowed, layers)
        if operation == "conv":
            width = _whole_number(trial, f"width_{i}", allowed(Conv), step=8)
            kernel = _whole_number(trial, f"ksize_{i}", allowed(Conv, width), step=2)
            stride = _whole_number(trial, f"stride_{i}", allowed(Conv, width, kernel))
            return Conv(width, kernel, stride)
        if operation == "pool":
            window = _whole_number(trial, f"window_{i}", allowed(MaxPool))
            hop = _whole_number(trial, f"hop_{i}", allowed(MaxPool, window))
            padding = _whole_number(trial, f"pad_{i}", allowed(MaxPool, window, hop))
            return MaxPool(window, hop, padding)
        activation = trial.suggest_categorical(f"act_{i}", ACTIVATIONS)  # these two cost no MACs
        bias = trial.suggest_categorical(f"bias_{i}", [True, False])
        units = _whole_number(trial, f"units_{i}", allowed(FCL), step=8)
        return FCL(units, activation, bias)


def _whole_number(trial: Trial, name: str, allowed: tuple[Any, ...], *, step: int = 1) -> int:
    """One of ``allowed``, numbers in equal steps: where there are holes, the longest run of them."""
    return trial.suggest_int(name, allowed[0], allowed[-1], step=step)
