"""The space of networks, and how a trial grows one."""

from optuna_trlhpo.space.layer_space import LayerSpace

__all__ = ["LayerSpace"]
