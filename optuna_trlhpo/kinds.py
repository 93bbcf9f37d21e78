"""Public names of the vocabularies beyond Table I and their kinds of layer (defined in `layers.kinds`)."""

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

__all__ = [
    "CNN",
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
]
