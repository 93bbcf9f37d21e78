"""The rivals by name, small enough to act within a few trials."""

import pytest

from optuna_trlhpo.baselines import (
    BananasSampler,
    BeamGrowthSampler,
    GreedyGrowthSampler,
    LayerwiseQSampler,
    LocalSearchSampler,
    MetaQNNSampler,
    MultiAgentSampler,
    RegularizedEvolutionSampler,
)

MAKERS = {
    "bananas": lambda **more: BananasSampler(n_startup_trials=3, **more),
    "beam-growth": lambda **more: BeamGrowthSampler(width=2, **more),
    "evolution": lambda **more: RegularizedEvolutionSampler(population_size=3, tournament_size=2, **more),
    "greedy-growth": lambda **more: GreedyGrowthSampler(n_children=2, **more),
    "greedy-growth-to-the-end": lambda **more: GreedyGrowthSampler(end_trials=False, **more),
    "layerwise-q": lambda **more: LayerwiseQSampler(n_trials=20, n_replays=8, **more),
    "local-search": lambda **more: LocalSearchSampler(n_startup_trials=2, **more),
    "local-search-whole": lambda **more: LocalSearchSampler(
        n_startup_trials=1, whole_neighbourhood=True, **more
    ),
    "metaqnn": lambda **more: MetaQNNSampler(n_trials=20, n_replays=8, **more),
    "multi-agent": lambda **more: MultiAgentSampler(n_startup_trials=2, **more),
}

SEVERAL_OBJECTIVES = ("layerwise-q",)
"""Rivals that support several objectives."""


@pytest.fixture(params=[name for name in MAKERS if name not in SEVERAL_OBJECTIVES])
def make_single(request):
    return MAKERS[request.param]


@pytest.fixture(params=list(MAKERS))
def make(request, monkeypatch):
    if request.param == "bananas":  # here it need not be good
        monkeypatch.setattr("optuna_trlhpo.baselines.bananas.STEPS", 10)
        monkeypatch.setattr("optuna_trlhpo.baselines.bananas.CANDIDATES", 50)
    return MAKERS[request.param]
