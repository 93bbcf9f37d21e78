"""Seeded studies suggest and report what they did when the record was made: code that moves changes nothing.

    python tests/behaviour/test_unchanged.py     # writes studies.json beside this file

Make the record anew where a change is meant to change what is suggested, and say so in the commit.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, Trial

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.baselines import (
    BananasSampler,
    BeamGrowthSampler,
    GreedyGrowthSampler,
    LocalSearchSampler,
    RegularizedEvolutionSampler,
)

RECORD = Path(__file__).with_name("studies.json")
N_TRIALS = 40
DIGITS = 6
"""Significant digits of a number that count: the last ones hang on the processor."""

SPACE = LayerSpace(input_shape=(1, 28, 28), max_layers=4, min_accuracy=None, min_improvement=None)
BOUNDED = LayerSpace(input_shape=(1, 28, 28), max_layers=4, max_macs=2e6, max_parameters=50_000)


def value_of(actions: np.ndarray) -> float:
    """A smooth accuracy of the layers ``[S, 4]``: deeper is better, and each step has a best place."""
    best = np.linspace(0.2, 0.8, actions.shape[1])
    fits = np.exp(-4 * ((actions - best) ** 2).mean(axis=1))
    return float(1 - np.prod(1 - 0.6 * fits))


def growing(space: LayerSpace) -> Callable[[Trial], float]:
    """Layer by layer, with a report after each."""

    def objective(trial: Trial) -> float:
        accuracy = 0.0
        for layers in space.grow(trial):
            accuracy = value_of(space.encode(layers))
            trial.report(accuracy, step=len(layers) - 1)
        return accuracy

    return objective


def whole(trial: Trial) -> float:
    """The depth first, one value at the end."""
    return value_of(SPACE.encode(SPACE.suggest(trial)))


def foreign(trial: Trial) -> float:
    """A pipeline with names of its own: an integer depth, a flag, a branch, a logarithmic range."""
    depth = trial.suggest_int("depth", 1, 4)
    value = 0.0
    for i in range(depth):
        width = trial.suggest_int(f"units_l{i}", 4, 64, log=True)
        kernel = trial.suggest_categorical(f"kernel_l{i}", [1, 3, 5])
        value += math.log(width) / 4 - abs(kernel - 3) / 4
    if trial.suggest_categorical("regularise", [False, True]):
        value -= abs(trial.suggest_float("dropout", 0, 0.5) - 0.2)
    rate = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    return value - abs(math.log10(rate) + 3) / 2 - 0.3 * depth


def reporting(trial: Trial) -> float:
    """A pipeline with names of its own that reports each step; some trials end as pruned."""
    value = 0.0
    for i in range(3):
        x = trial.suggest_float(f"x{i}", 0, 1)
        value += 1 - (x - 0.2 * (i + 1)) ** 2
        trial.report(value, step=i)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def two_values(trial: Trial) -> tuple[float, float]:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_int("y", 0, 9)
    return x**2 + y / 9, (x - 1) ** 2 + (y - 5) ** 2 / 25


def two_values_of_layers(trial: Trial) -> tuple[float, float]:
    layers = SPACE.suggest(trial)
    return value_of(SPACE.encode(layers)), float(SPACE.macs(layers))


def played(
    objective: Callable[[Trial], Any],
    sampler: optuna.samplers.BaseSampler,
    *,
    directions: Sequence[Literal["minimize", "maximize"]],
) -> optuna.Study:
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    study.optimize(objective, n_trials=N_TRIALS)
    return study


def ours(**settings: Any) -> TRLHPOSampler:
    return TRLHPOSampler(seed=7, warn_independent_sampling=False, **settings)


def transformer(**settings: Any) -> TRLHPOSampler:
    """The default agent with the other critics."""
    return ours(agent=AgentConfig(**settings))


def earlier() -> optuna.Study:
    return played(growing(SPACE), optuna.samplers.RandomSampler(seed=1), directions=("maximize",))


def earlier_foreign() -> optuna.Study:
    return played(foreign, optuna.samplers.RandomSampler(seed=1), directions=("maximize",))


def paper() -> TRLHPOSampler:
    return TRLHPOSampler.paper(seed=7, warn_independent_sampling=False)


_MAX: tuple[Literal["maximize"]] = ("maximize",)
STUDIES: dict[str, Callable[[], optuna.Study]] = {
    "layers": lambda: played(growing(SPACE), ours(layer_prior=False), directions=_MAX),
    "layers-prior": lambda: played(growing(SPACE), ours(), directions=_MAX),
    "layers-bounded": lambda: played(growing(BOUNDED), ours(), directions=_MAX),
    "layers-whole": lambda: played(whole, ours(layer_prior=False), directions=_MAX),
    "layers-whole-prior": lambda: played(whole, ours(), directions=_MAX),
    "layers-paper": lambda: played(growing(SPACE), paper(), directions=_MAX),
    "layers-warm": lambda: played(growing(SPACE), ours(warm_start=[earlier()]), directions=_MAX),
    "layers-two": lambda: played(two_values_of_layers, ours(), directions=("maximize", "minimize")),
    "foreign": lambda: played(foreign, ours(), directions=_MAX),
    "foreign-warm": lambda: played(foreign, ours(warm_start=[earlier_foreign()]), directions=_MAX),
    "foreign-paper": lambda: played(foreign, paper(), directions=_MAX),
    "foreign-repeat": lambda: played(foreign, ours(repeat=True, n_startup_trials=3), directions=_MAX),
    "reporting": lambda: played(reporting, ours(), directions=_MAX),
    "two-values": lambda: played(two_values, ours(), directions=("minimize", "minimize")),
    "bananas": lambda: played(growing(SPACE), BananasSampler(seed=7), directions=_MAX),
    "bananas-foreign": lambda: played(foreign, BananasSampler(seed=7), directions=_MAX),
    "evolution": lambda: played(growing(SPACE), RegularizedEvolutionSampler(seed=7), directions=_MAX),
    "evolution-foreign": lambda: played(foreign, RegularizedEvolutionSampler(seed=7), directions=_MAX),
    "local-search": lambda: played(growing(SPACE), LocalSearchSampler(seed=7), directions=_MAX),
    "local-search-foreign": lambda: played(foreign, LocalSearchSampler(seed=7), directions=_MAX),
    "beam-growth": lambda: played(growing(SPACE), BeamGrowthSampler(seed=7), directions=_MAX),
    "greedy-growth": lambda: played(growing(SPACE), GreedyGrowthSampler(seed=7), directions=_MAX),
    **{
        f"critic-{critic}": lambda critic=critic: played(  # type: ignore[misc]
            growing(SPACE), transformer(critic=critic), directions=_MAX
        )
        for critic in ("perceptron", "transformer")
    },
}


def machine() -> dict[str, str]:
    """What the last digits of a computation hang on. Processors with equal instructions may still differ."""
    return {
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {processor_model()}",
        "torch": str(torch.__version__).split("+")[0],
        "numpy": np.__version__,
        "optuna": optuna.__version__,
    }


def processor_model() -> str:
    """Family, model and stepping, where the system tells them."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    found = {name.strip(): value.strip() for name, value in pairs}
    return "-".join(found.get(name, "") for name in ("cpu family", "model", "stepping"))


def digest(trial: FrozenTrial) -> str:
    """Parameters in their order, reports, values and state, as twelve characters."""

    def plain(value: Any) -> Any:
        return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

    told = {
        "params": [(name, plain(value)) for name, value in trial.params.items()],
        "reports": [(step, plain(value)) for step, value in trial.intermediate_values.items()],
        "values": None if trial.values is None else [plain(value) for value in trial.values],
        "state": trial.state.name,
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_seeded_studies_are_as_recorded(name: str) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    if machine() != recorded["machine"]:
        pytest.skip(f"recorded with {recorded['machine']}, this is {machine()}")
    assert [digest(trial) for trial in STUDIES[name]().trials] == recorded["studies"][name].split()


def record() -> dict[str, Any]:
    studies = {name: " ".join(map(digest, play().trials)) for name, play in STUDIES.items()}
    return {"machine": machine(), "studies": studies}


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    RECORD.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
