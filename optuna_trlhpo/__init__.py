"""An Optuna sampler that grows networks layer by layer."""

from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo.episode import report_performance
from optuna_trlhpo.growth import worth_growing, worth_training
from optuna_trlhpo.layers import FCL, Conv, Layer, MaxPool, describe, parse
from optuna_trlhpo.sampler import TRLHPOSampler
from optuna_trlhpo.space import LayerSpace

__version__ = "0.1.0"

__all__ = [
    "FCL",
    "AgentConfig",
    "Conv",
    "Layer",
    "LayerSpace",
    "MaxPool",
    "TRLHPOSampler",
    "describe",
    "parse",
    "report_performance",
    "worth_growing",
    "worth_training",
]
