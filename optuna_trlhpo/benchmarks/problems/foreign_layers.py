"""``mnist-layers-foreign``: the networks of ``mnist-layers`` in a hand-written Optuna objective.

The objective has its own parameter names, order and encodings. It never passes a `LayerSpace` to the trial:
a sampler learns which layers can follow each other only from the suggestions. The valid networks, their
values, the noise and the optimum are those of ``mnist-layers``.

====================  ===================================================================================
``n_blocks``          number of layers; the first suggestion, in the terminal form only
``op_conv_fc_pool_0`` kind of the layer. The name contains the choices, for Optuna requires the same choices
                      for all suggestions of a name. A single choice is not suggested
``width_0``           filters of a convolution; ``ksize_0`` and ``stride_0``: its kernel and stride. The
                      ranges depend on the image and on the MACs that are left
``window_0``          window of a pooling layer, then ``hop_0`` (stride) and ``pad_0`` (padding)
``act_0``             activation of a fully connected layer, then ``bias_0``, a boolean, and ``units_0``
====================  ===================================================================================
"""

from __future__ import annotations

import functools
from typing import Any

from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.mnist_layers import MnistLayersVariant
from optuna_trlhpo.benchmarks.problems.problem import Form, Train
from optuna_trlhpo.layers import ACTIVATIONS, FCL, Conv, Layer, MaxPool, Network, describe

_OPERATIONS: dict[str, type[Layer]] = {"conv": Conv, "fc": FCL, "pool": MaxPool}
_MOST_BLOCKS = 6
_LEAST_GAIN = 0.001
_LEAST_ACCURACY = 0.60


class ForeignLayers(MnistLayersVariant):
    """``mnist-layers`` without a `LayerSpace` in the objective, in both forms.

    In the terminal form, the depth comes first, then the layers, and the network is trained once. In the
    progressive form, every prefix is trained and reported. Growth ends when a layer adds less than .001 to
    the accuracy, when the accuracy is below .60, or when no layer can follow. The sampler suggests parameters
    and nothing else. The value is the best accuracy of the trial.
    """

    name = "mnist-layers-foreign"

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial in one of the forms."""
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
        """Suggest layer ``i``, which follows ``layers``."""
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
        activation = trial.suggest_categorical(f"act_{i}", ACTIVATIONS)  # activation and bias cost no MACs
        bias = trial.suggest_categorical(f"bias_{i}", [True, False])
        units = _whole_number(trial, f"units_{i}", allowed(FCL), step=8)
        return FCL(units, activation, bias)


def _whole_number(trial: Trial, name: str, allowed: tuple[Any, ...], *, step: int = 1) -> int:
    """Suggest one of ``allowed``, evenly spaced integers: `LayerSpace.allowed` returns no gaps."""
    return trial.suggest_int(name, allowed[0], allowed[-1], step=step)
