"""Vocabularies beyond Table I and their kinds of layer, as users import them (code: `layers.kinds`)."""

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
