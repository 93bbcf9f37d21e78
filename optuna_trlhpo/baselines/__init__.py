"""Rivals of `TRLHPOSampler`: search algorithms of the literature as Optuna samplers, for any objective.

>>> import optuna
>>> study = optuna.create_study(sampler=LocalSearchSampler(seed=0))
>>> study.optimize(lambda trial: trial.suggest_int("x", -4, 4) ** 2, n_trials=15)
>>> study.best_value
0.0
"""

from optuna_trlhpo.baselines.bananas import BananasSampler
from optuna_trlhpo.baselines.beam_growth import BeamGrowthSampler
from optuna_trlhpo.baselines.evolution import RegularizedEvolutionSampler
from optuna_trlhpo.baselines.greedy_growth import GreedyGrowthSampler
from optuna_trlhpo.baselines.local_search import LocalSearchSampler
from optuna_trlhpo.baselines.smac import SMACSampler

__all__ = [
    "BananasSampler",
    "BeamGrowthSampler",
    "GreedyGrowthSampler",
    "LocalSearchSampler",
    "RegularizedEvolutionSampler",
    "SMACSampler",
]
