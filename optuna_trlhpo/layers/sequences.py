"""Convolutions over the steps of a sequence, and the vocabulary `CNN1D` that contains them.

Notation: shapes have no batch axis: ``(steps, features)`` for sequences, as in `layers.kinds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_trlhpo.layers.kinds import Dropout, GlobalPool
from optuna_trlhpo.layers.layer import Layer, Shape
from optuna_trlhpo.layers.model_size import bytes_of_layer, bytes_of_swaps
from optuna_trlhpo.layers.table1 import FCL, Conv
from optuna_trlhpo.layers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _OverSteps(Layer):
    """A convolution over the steps with "same" padding."""

    hyperparameters = Conv.hyperparameters

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output sequence; None if the input is not a sequence."""
        return (self._steps(shape), self.filters) if len(shape) == 2 else None

    def _steps(self, shape: Shape) -> int:
        """Return the number of steps of the output."""
        return (shape[0] - 1) // self.stride + 1


@dataclass(frozen=True)
class SequenceConv(_OverSteps):
    """A convolution over the steps with "same" padding, batch normalisation and ReLU."""

    kind = "Conv1d"
    prefix = "seqconv"

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the convolution, batch normalisation and ReLU, between exchanges of steps and features."""
        from torch import nn

        from optuna_trlhpo.layers.blocks import SwapAxes

        conv = nn.Conv1d(
            shape[1], self.filters, self.kernel, self.stride, padding=self.kernel // 2, bias=False
        )
        return [SwapAxes(), conv, nn.BatchNorm1d(self.filters), nn.ReLU(), SwapAxes()]

    def macs(self, shape: Shape) -> int:
        """Return the MACs of the convolution."""
        return self._steps(shape) * self.filters * shape[1] * self.kernel

    def parameters(self, shape: Shape) -> int:
        """Return the weights of the convolution, and two numbers per channel of the normalisation."""
        return self.filters * (shape[1] * self.kernel + 2)

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [self.filters], quantize) + bytes_of_swaps(quantize)


@dataclass(frozen=True)
class SeparableSequenceConv(_OverSteps):
    """A depthwise and a pointwise convolution over the steps, each with batch normalisation and ReLU.

    It is the layer of MobileNets (Howard et al., 2017) for sequences.
    """

    kind = "SeparableConv1d"
    prefix = "seqsepconv"

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the two convolutions, between exchanges of steps and features."""
        from torch import nn

        from optuna_trlhpo.layers.blocks import SwapAxes

        features, padding = shape[1], self.kernel // 2
        return [
            SwapAxes(),
            nn.Conv1d(
                features, features, self.kernel, self.stride, padding=padding, groups=features, bias=False
            ),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Conv1d(features, self.filters, 1, bias=False),
            nn.BatchNorm1d(self.filters),
            nn.ReLU(),
            SwapAxes(),
        ]

    def macs(self, shape: Shape) -> int:
        """Return the MACs of both convolutions."""
        return self._steps(shape) * shape[1] * (self.kernel + self.filters)

    def parameters(self, shape: Shape) -> int:
        """Return the parameters of both convolutions and both normalisations."""
        return shape[1] * (self.kernel + 2 + self.filters) + 2 * self.filters

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        convolutions = bytes_of_layer(self.parameters(shape), [shape[1], self.filters], quantize)
        return convolutions + bytes_of_swaps(quantize)


CNN1D = Vocabulary(
    "seqcnn",
    (SequenceConv, SeparableSequenceConv, Dropout, GlobalPool, FCL),
    first=(SequenceConv, SeparableSequenceConv),
    axes=2,
)
"""Convolutions over the steps, then fully connected layers, for sequences."""
