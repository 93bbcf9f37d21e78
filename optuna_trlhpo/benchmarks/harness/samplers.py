"""Samplers in the benchmarks, by name: ours, those of Optuna and OptunaHub, and the baselines.

The module is imported without PyTorch; a factory imports it with the sampler.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler

from optuna_trlhpo.agent.config import AgentConfig

if TYPE_CHECKING:
    from optuna_trlhpo.sampler import TRLHPOSampler

SamplerFactory = Callable[..., BaseSampler]
"""Factory of a sampler. It is called with the keyword ``seed`` and, if it has this parameter, ``budget``, the
number of trainings of the study. It must be picklable, because it is sent to other processes."""

_DIGITS_PRIOR = Path(__file__).parents[1] / "data" / "digits-prior.safetensors"
PRIOR = _DIGITS_PRIOR if _DIGITS_PRIOR.exists() else False
"""Prior for layers in the benchmarks. It is trained on digits alone, since ``mnist-layers`` uses MNIST."""

_REGISTRY = "ee680199100edbd95e0000eb20696c3ec5505973"
"""Commit of OptunaHub's registry, of 2026-08-21: its main branch changes."""


def ours(
    *,
    seed: int,
    layer_prior: Path | bool = PRIOR,
    sampler: type[TRLHPOSampler] | None = None,
    **settings: Any,
) -> BaseSampler:
    """Create our sampler.

    Args:
        seed: Random seed.
        layer_prior: File of the prior for layers, or whether to use the one of the package.
        sampler: Class of the sampler. None: `TRLHPOSampler`.
        settings: Fields of `AgentConfig`.
    """
    from optuna_trlhpo.sampler import TRLHPOSampler

    return (sampler or TRLHPOSampler)(
        seed=seed,
        agent=AgentConfig(**settings),
        layer_prior=layer_prior,
        warn_independent_sampling=False,
    )


def _paper(*, seed: int) -> BaseSampler:
    from optuna_trlhpo.sampler import TRLHPOSampler

    return TRLHPOSampler.paper(seed=seed, warn_independent_sampling=False)


def _baseline(name: str, *, seed: int) -> BaseSampler:
    module = importlib.import_module("optuna_trlhpo.baselines")
    if not hasattr(module, name):
        raise ImportError(f"optuna_trlhpo.baselines has no {name}")
    sampler: BaseSampler = getattr(module, name)(seed=seed)
    return sampler


def _smac(*, seed: int, budget: int) -> BaseSampler:
    from optuna_trlhpo.baselines import SMACSampler

    return SMACSampler(seed=seed, n_trials=budget)  # the size of its initial design depends on the budget


def _scheduled(name: str, *, seed: int, budget: int) -> BaseSampler:
    """Create a baseline that explores less towards the end of the budget."""
    baselines = importlib.import_module("optuna_trlhpo.baselines")
    sampler: BaseSampler = getattr(baselines, name)(seed=seed, n_trials=budget)
    return sampler


def _from_hub(package: str, name: str, *, seed: int) -> BaseSampler:
    """Create a sampler of OptunaHub, which downloads its package at the first use and keeps it.

    Raises:
        ImportError: If optunahub is not installed.
        RuntimeError: If the package cannot be loaded, or fails with the installed Optuna.
    """
    try:
        optunahub = importlib.import_module("optunahub")
    except ImportError as error:
        raise ImportError(
            f'{name} is a sampler of OptunaHub, which is an optional extra: pip install "optuna-trlhpo[hub]"'
        ) from error
    try:
        module = optunahub.load_module(f"samplers/{package}", ref=_REGISTRY)
    except Exception as error:  # of git, GitHub, the file system, or the package itself
        raise RuntimeError(
            f"{name} cannot be loaded from OptunaHub, which takes a network the first time: {_line(error)}"
        ) from error
    try:
        sampler: BaseSampler = getattr(module, name)(seed=seed)
    except Exception as error:  # the packages use private parts of Optuna
        raise RuntimeError(
            f"{name} of OptunaHub does not work with Optuna {optuna.__version__}: {_line(error)}"
        ) from error
    return sampler


def _line(error: Exception) -> str:
    """Return the kind and the first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


# All samplers have their default settings except for those named here and for warnings, which are off.
OPTUNA_SAMPLERS: dict[str, SamplerFactory] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,  # since Optuna 5 this is multivariate=True without groups
    "tpe-multivariate": functools.partial(optuna.samplers.TPESampler, multivariate=True, group=True),
    "tpe-univariate": functools.partial(optuna.samplers.TPESampler, multivariate=False),
    "gp": functools.partial(optuna.samplers.GPSampler, warn_independent_sampling=False),
    "cmaes": functools.partial(optuna.samplers.CmaEsSampler, warn_independent_sampling=False),
    "nsga2": optuna.samplers.NSGAIISampler,
}
BASELINES: dict[str, SamplerFactory] = {
    "regularized-evolution": functools.partial(_baseline, "RegularizedEvolutionSampler"),
    "local-search": functools.partial(_baseline, "LocalSearchSampler"),
    "greedy-growth": functools.partial(_baseline, "GreedyGrowthSampler"),
    "beam-growth": functools.partial(_baseline, "BeamGrowthSampler"),
    "bananas": functools.partial(_baseline, "BananasSampler"),
    "smac": _smac,
    "layerwise-q": functools.partial(_scheduled, "LayerwiseQSampler"),
    "metaqnn": functools.partial(_scheduled, "MetaQNNSampler"),
    "multi-agent": functools.partial(_baseline, "MultiAgentSampler"),
}
# hierarchical_tpe is missing: with Optuna 5.0.0 it cannot be created (docs/benchmarks.md).
HUB_SAMPLERS: dict[str, SamplerFactory] = {
    "tpe-union-multivariate": functools.partial(
        _from_hub, "tpe_union_multivariate", "TPEUnionMultivariateSampler"
    ),
}
OURS: dict[str, SamplerFactory] = {
    "trlhpo": functools.partial(ours, layer_prior=False),
    "trlhpo-prior": ours,
    "trlhpo-paper": _paper,
}
REFERENCE = "trlhpo"
"""Sampler that reports compare the others with."""
SAMPLERS: dict[str, SamplerFactory] = {**OURS, **OPTUNA_SAMPLERS, **BASELINES, **HUB_SAMPLERS}
if not PRIOR:
    del SAMPLERS["trlhpo-prior"]


def create_sampler(factory: SamplerFactory, *, seed: int, budget: int) -> BaseSampler:
    """Create a sampler for a study of ``budget`` trainings.

    Examples:
        >>> type(create_sampler(SAMPLERS["random"], seed=0, budget=10)).__name__
        'RandomSampler'
    """
    takes_budget = "budget" in inspect.signature(factory).parameters
    return factory(seed=seed, budget=budget) if takes_budget else factory(seed=seed)
