"""Protocols: the samplers, problems, seeds and budgets of the comparisons."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_trlhpo.benchmarks.harness.samplers import BASELINES, OPTUNA_SAMPLERS
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form


@dataclass(frozen=True)
class Share:
    """Part of a protocol, a set of studies.

    Attributes:
        problems: Names in `tables.problems`.
        samplers: Names in `samplers.SAMPLERS`.
        seeds: Number of studies of each kind; their seeds are 0, 1, ...
        budget: Number of trainings of a study.
        forms: Forms of the studies, if a problem has them.
    """

    problems: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: int
    budget: int
    forms: tuple[Form, ...] = ("progressive", "terminal")


SEQUENCES = ("macro-progressive", "mnist-layers")
TERMINAL = ("macro", "nb201-cifar10", "nb201-cifar100", "nb201-imagenet")
_JUDGED = SEQUENCES + TERMINAL
_COSTLY = ("gp", "tpe-univariate", "bananas", "smac")  # seconds per study, or more
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
    # On mnist-layers, our samplers have one form only, which can make them look worse, but not better.
    "short": (
        Share(("mnist-layers",), ("trlhpo", "trlhpo-prior"), seeds=10, budget=200, forms=("progressive",)),
        Share(("macro-progressive", *TERMINAL), ("trlhpo",), seeds=10, budget=200),
        Share(_JUDGED, _CHEAP, seeds=10, budget=200),
        Share(_JUDGED, ("gp", "bananas"), seeds=8, budget=100),
        Share(_JUDGED, ("tpe-univariate",), seeds=10, budget=50),  # later it repeats itself, and is slow
        Share(tables.HPO_TABLES, ("trlhpo", "tpe", "random", "cmaes", "nsga2"), seeds=2, budget=50),
    ),
    "foreign": _FOREIGN,
}
"""Protocols that judge the sampler: the full one, a short one for half an hour on two cores, and one for
user-defined pipelines."""
