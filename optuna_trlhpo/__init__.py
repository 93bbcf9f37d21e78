"""An Optuna sampler that grows networks layer by layer.

PyTorch is imported on the first access to the sampler: importing the package alone does not need it.
"""

from typing import TYPE_CHECKING, Any

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.layers import FCL, Conv, Layer, MaxPool, describe, parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.sampler_hooks import worth_growing, worth_training
from optuna_trlhpo.stopping import StopWithoutGain
from optuna_trlhpo.trials.performance import report_performance

if TYPE_CHECKING:
    from optuna_trlhpo.sampler import TRLHPOSampler

__version__ = "0.1.0"

__all__ = [
    "FCL",
    "AgentConfig",
    "Conv",
    "Layer",
    "LayerSpace",
    "MaxPool",
    "StopWithoutGain",
    "TRLHPOSampler",
    "describe",
    "parse",
    "report_performance",
    "worth_growing",
    "worth_training",
]


def __getattr__(name: str) -> Any:
    if name == "TRLHPOSampler":
        from optuna_trlhpo.sampler import TRLHPOSampler

        globals()[name] = TRLHPOSampler
        return TRLHPOSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
