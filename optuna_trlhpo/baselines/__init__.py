"""Baselines for `TRLHPOSampler`: search algorithms of the literature as Optuna samplers, for any objective.

>>> import optuna
>>> study = optuna.create_study(sampler=LocalSearchSampler(seed=0))
>>> study.optimize(lambda trial: trial.suggest_int("x", -4, 4) ** 2, n_trials=15)
>>> study.best_value
0.0
"""

from typing import TYPE_CHECKING, Any

from optuna_trlhpo.baselines.beam_growth import BeamGrowthSampler
from optuna_trlhpo.baselines.evolution import RegularizedEvolutionSampler
from optuna_trlhpo.baselines.greedy_growth import GreedyGrowthSampler
from optuna_trlhpo.baselines.local_search import LocalSearchSampler
from optuna_trlhpo.baselines.q_learning.layerwise import LayerwiseQSampler
from optuna_trlhpo.baselines.q_learning.metaqnn import MetaQNNSampler
from optuna_trlhpo.baselines.q_learning.metaqnn_space import MetaQNNSpace
from optuna_trlhpo.baselines.q_learning.multi_agent import MultiAgentSampler
from optuna_trlhpo.baselines.smac import SMACSampler

if TYPE_CHECKING:
    from optuna_trlhpo.baselines.bananas import BananasSampler

__all__ = [
    "BananasSampler",
    "BeamGrowthSampler",
    "GreedyGrowthSampler",
    "LayerwiseQSampler",
    "LocalSearchSampler",
    "MetaQNNSampler",
    "MetaQNNSpace",
    "MultiAgentSampler",
    "RegularizedEvolutionSampler",
    "SMACSampler",
]


def __getattr__(name: str) -> Any:
    if name == "BananasSampler":  # the only sampler here that needs PyTorch
        from optuna_trlhpo.baselines.bananas import BananasSampler

        globals()[name] = BananasSampler
        return BananasSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
