"""A study of small networks that are meant for int8."""

from __future__ import annotations

import optuna
import pytest
from torch import nn

from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.layers import (
    kinds,
)
from tests.cnn.test_objective import make, run


def disturbed(network: nn.Module) -> nn.Module:
    """With statistics as after a training."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean += 0.1
    return network


@pytest.fixture(scope="module")
def found() -> tuple[CNNObjective, optuna.Study]:
    """A study of small networks for stripes."""
    objective = make(vocabulary=kinds.CNN, max_layers=4, quantize="int8", max_model_bytes=20_000, epochs=4)
    return objective, run(objective, n_trials=4, pruner=optuna.pruners.NopPruner())
