"""Public names of the vocabularies beyond Table I and their kinds of layer (defined in `layers`)."""

from optuna_trlhpo.layers.kinds import (
    CNN,
    LSTM,
    MLP,
    AvgPool,
    BatchNorm,
    Dropout,
    GlobalPool,
    Recurrent,
    Residual,
    SameConv,
    SeparableConv,
)
from optuna_trlhpo.layers.sequences import CNN1D, SeparableSequenceConv, SequenceConv

__all__ = [
    "CNN",
    "CNN1D",
    "LSTM",
    "MLP",
    "AvgPool",
    "BatchNorm",
    "Dropout",
    "GlobalPool",
    "Recurrent",
    "Residual",
    "SameConv",
    "SeparableConv",
    "SeparableSequenceConv",
    "SequenceConv",
]
