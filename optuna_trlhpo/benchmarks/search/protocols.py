"""Which samplers play which problems, with which seeds and budgets."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_trlhpo.benchmarks.harness.samplers import BASELINES, OPTUNA_SAMPLERS
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form


@dataclass(frozen=True)
class Share:
    """Part of a protocol: which studies are run.

    Attributes:
        problems: Names out of `tables.problems`.
        samplers: Names out of `samplers.SAMPLERS`.
        seeds: Studies of each kind; their seeds are 0, 1, ...
        budget: Trainings of a study.
        forms: Those that are played, of those that a problem has.
    """

    problems: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: int
    budget: int
    forms: tuple[Form, ...] = ("progressive", "terminal")


SEQUENCES = ("macro-progressive", "mnist-layers")
TERMINAL = ("macro", "nb201-cifar10", "nb201-cifar100", "nb201-imagenet")
_JUDGED = SEQUENCES + TERMINAL
_COSTLY = ("gp", "tpe-univariate", "bananas", "smac")  # seconds for a study and more
_CHEAP = tuple(name for name in (*OPTUNA_SAMPLERS, *BASELINES) if name not in _COSTLY)
_FOREIGN = (
    Share(
        ("mnist-layers-foreign",),
        ("trlhpo", "random", "tpe", "tpe-multivariate", "tpe-univariate", "cmaes", "nsga2"),
        seeds=40,
        budget=200,
    ),
)
PROTOCOLS: dict[str, tuple[Share, ...]] = {
    "full": (
        Share(_JUDGED, ("trlhpo", "tpe-univariate", "bananas", *_CHEAP), seeds=100, budget=200),
        Share(("mnist-layers",), ("trlhpo-prior",), seeds=100, budget=200),
        Share(_JUDGED, ("gp", "smac", "trlhpo-paper"), seeds=20, budget=200),
        Share(tables.HPO_TABLES, ("trlhpo", *OPTUNA_SAMPLERS), seeds=30, budget=100),
        *_FOREIGN,
    ),
    # On mnist-layers ours is played in one form, so that it may look worse than it is, but not better.
    "short": (
        Share(("mnist-layers",), ("trlhpo", "trlhpo-prior"), seeds=10, budget=200, forms=("progressive",)),
        Share(("macro-progressive", *TERMINAL), ("trlhpo",), seeds=10, budget=200),
        Share(_JUDGED, _CHEAP, seeds=10, budget=200),
        Share(_JUDGED, ("gp", "bananas"), seeds=8, budget=100),
        Share(_JUDGED, ("tpe-univariate",), seeds=10, budget=50),  # later it only repeats itself, slowly
        Share(tables.HPO_TABLES, ("trlhpo", "tpe", "random", "cmaes", "nsga2"), seeds=2, budget=50),
    ),
    "foreign": _FOREIGN,
}
"""What is run to judge the sampler: all of it, what is meant to fit half an hour of two cores, or what a
pipeline of one's own comes to."""
