"""Default values of the commands of this folder, without the code that they belong to."""

from __future__ import annotations

from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS

REAL_SAMPLERS = tuple(name for name in ("trlhpo", "trlhpo-prior", "tpe", "random") if name in SAMPLERS)
REFITS = 3
"""Refits of the network that a study of ``real`` has found."""

CONFIRMED_PROBLEMS = ("mnist-layers", "macro", "nb201-cifar10")
CONFIRMED_SAMPLERS = ("trlhpo", "tpe", "random")
TOTALS = (50, 100, 200)
"""Trainings in all, of ``confirm``."""
TOP, REPEATS = 5, 3
"""Leaders that ``confirm`` trains again, and trainings of each."""

PARETO_SAMPLERS = ("trlhpo", "trlhpo-prior", "nsga2", "tpe", "random")
PARETO_SEEDS, PARETO_BUDGET = 10, 100

REPEATS_SAMPLERS = ("trlhpo", "tpe", "random")
REPEATS_SEEDS, REPEATS_TRIALS = 3, 100

POLICY_SEEDS, POLICY_TRIALS = 6, 500

REPORTS_SEEDS, REPORTS_TRIALS = 7, 150

IDIOMS_SAMPLERS = ("trlhpo", "tpe", "tpe-multivariate", "random")
IDIOMS_SEEDS, IDIOMS_TRIALS = 20, 50

WEIGHED = "trlhpo-seconds"
"""Our sampler with a budget in seconds."""
SECONDS_SAMPLERS = (WEIGHED, "trlhpo", "tpe", "random")
_NB201 = ("nb201-cifar10", "nb201-cifar100", "nb201-imagenet")
_HPOLIB = tuple(
    f"hpo-{name}"
    for name in ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
)
SECONDS_PROBLEMS = ("mnist-layers", "mnist-layers-foreign", *_NB201, *_HPOLIB)
"""Problems that know the seconds of a training. HPOBench is left out: there the longest training takes a
hundred thousand times as long as the shortest, so that a study is one training, or thousands."""
SECONDS_SEEDS, SECONDS_BUDGET = 10, 50

STOPPING_PROBLEMS = ("mnist-layers", "mnist-layers-foreign", "macro", "macro-progressive", *_NB201)
"""Problems whose regrets are in points of accuracy."""
STOPPING_SEEDS, STOPPING_BUDGET = 10, 200

PARALLEL_PROBLEMS = ("mnist-layers", "mnist-layers-foreign", "nb201-cifar10")
PARALLEL_SAMPLERS = ("trlhpo", "tpe-constant-liar")
PARALLEL_WORKERS = (1, 8)
PARALLEL_SEEDS, PARALLEL_BUDGET = 20, 96
