import re

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


@pytest.mark.parametrize(
    ("cls", "name", "least"),
    [
        (BananasSampler, "n_startup_trials", 2),
        (BananasSampler, "update_interval", 1),
        (BeamGrowthSampler, "width", 1),
        (BeamGrowthSampler, "n_children", 1),
        (GreedyGrowthSampler, "n_children", 1),
        (LayerwiseQSampler, "n_replays", 1),
        (LayerwiseQSampler, "n_bins", 1),
        (LocalSearchSampler, "n_startup_trials", 1),
        (LocalSearchSampler, "n_restart_trials", 1),
        (LocalSearchSampler, "n_numeric_neighbours", 1),
        (MetaQNNSampler, "n_replays", 1),
        (MetaQNNSampler, "n_bins", 1),
        (MultiAgentSampler, "n_startup_trials", 1),
        (MultiAgentSampler, "n_tries", 1),
        (MultiAgentSampler, "n_bins", 1),
        (RegularizedEvolutionSampler, "population_size", 1),
        (RegularizedEvolutionSampler, "tournament_size", 1),
    ],
)
def test_bad_arguments_are_named(cls, name, least):
    cls(**{name: least})
    for value in (least - 1, 2.5, None, True):
        sentence = f"{name} is {value!r}; it must be an integer of at least {least}"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            cls(**{name: value})
