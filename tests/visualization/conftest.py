"""Small studies, each made once: what every figure has to stand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import Trial

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.layers import Network
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE

SPACE = LayerSpace(max_layers=3, min_improvement=None, min_accuracy=None)
OF_OTHER_KINDS = LayerSpace(max_layers=3, min_improvement=None, min_accuracy=None, vocabulary=CNN)
SMALL: dict[str, Any] = dict(width=16, heads=2, blocks=1)


def accuracy_of(layers: Network, space: LayerSpace = SPACE) -> float:
    """Computed, not trained: always the same for the same network; some layers harm."""
    return 0.4 + 0.1 * len(layers) - 0.2 * float(abs(space.encode(layers)[:, :3].mean() - 0.45))


def grow(trial: Trial, space: LayerSpace = SPACE, sign: float = 1.0, scale: float = 1.0) -> float:
    value = 0.0
    for layers in space.grow(trial):
        accuracy = accuracy_of(layers, space) - 0.15 * (layers[-1].kind == "FCL") * (len(layers) > 1)
        value = scale * (accuracy if sign > 0 else 1 - accuracy)
        trial.report(value, step=len(layers) - 1)
    return value


def studied(objective: Callable, sampler: optuna.samplers.BaseSampler, n: int = 8, **create: Any) -> Study:
    settings: dict[str, Any] = {"direction": "maximize"} | create
    study = optuna.create_study(sampler=sampler, **settings)
    study.optimize(objective, n_trials=n, catch=(RuntimeError,))
    return study


def paper(**agent: object) -> TRLHPOSampler:
    config = AgentConfig.paper(**{**SMALL, **agent})
    return TRLHPOSampler.paper(seed=0, agent=config, warn_independent_sampling=False)


def with_transformer() -> TRLHPOSampler:
    agent = AgentConfig(critic="transformer", n_critics=2, fit_steps=1, n_candidates=10, **SMALL)
    return TRLHPOSampler(seed=0, agent=agent, layer_prior=False, n_startup_trials=2)


def fail(trial: Trial) -> float:
    trial.suggest_float("x", 0, 1)
    raise RuntimeError


def two_objectives(trial: Trial) -> tuple[float, float]:
    layers = SPACE.suggest(trial)
    return accuracy_of(layers), float(SPACE.macs(layers))


def suggest_whole(trial: Trial) -> float:
    layers = SPACE.suggest(trial)
    for epoch in range(5):  # a learning curve, not values of prefixes
        trial.report(0.1 * epoch, step=epoch)
    return accuracy_of(layers)


def _empty() -> Study:
    return optuna.create_study(direction="maximize")


def _one_running() -> Study:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    trial = study.ask()
    for layers in itertools.islice(SPACE.grow(trial), 2):
        trial.report(accuracy_of(layers), step=len(layers) - 1)
    return study


def _pruned() -> Study:
    def objective(trial: Trial) -> float:
        for layers in SPACE.grow(trial):
            trial.report(accuracy_of(layers), step=len(layers) - 1)
            if len(layers) == 2:
                raise optuna.TrialPruned()
        return 0.0

    return studied(objective, paper(), n=5)


def _infinite() -> Study:
    def objective(trial: Trial) -> float:
        value = 0.0
        for layers in LayerSpace(max_layers=2, min_improvement=None, min_accuracy=None).grow(trial):
            value = float("inf") if trial.number % 2 and len(layers) == 2 else accuracy_of(layers)
            trial.report(value, step=len(layers) - 1)
        return value

    return studied(objective, RandomSampler(seed=0), n=4)


def _added() -> Study:
    """Trials from elsewhere: no note of a space, none of an agent."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(studied(grow, RandomSampler(seed=0), n=3).trials)
    return study


def _somebody_elses() -> Study:
    """Attributes of our names that hold something else."""
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(SPACE_ATTRIBUTE, {"rooms": 4})
    for broken in (7, "text", [1], {"by": "actor", "attention": {"actor": "x:yz"}}, {"plans": [[1]]}):
        trial = optuna.create_trial(
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            value=0.5,
            system_attrs={AGENT_ATTRIBUTE: broken},
            user_attrs={"trainings": 3, "architecture": 5},
        )
        study.add_trial(trial)
    return study


def _plain(sampler: optuna.samplers.BaseSampler) -> Study:
    return studied(lambda trial: trial.suggest_float("x", 0, 1), sampler, n=3)


MAKERS: dict[str, Callable[[], Study]] = {
    "paper": lambda: studied(grow, paper(), n=12),
    "scores": lambda: studied(grow, paper(progressive_reward=False, n_critics=2), n=6),
    "transformer": lambda: studied(grow, with_transformer(), n=8),
    "default": lambda: studied(grow, TRLHPOSampler(seed=0), n=6),
    "random": lambda: studied(grow, RandomSampler(seed=0)),
    "tpe": lambda: studied(grow, TPESampler(seed=0)),
    "empty": _empty,
    "failed": lambda: studied(fail, TRLHPOSampler(seed=0), n=3),
    "one layer": lambda: studied(
        lambda trial: grow(trial, LayerSpace(max_layers=1, min_improvement=None)), paper(), n=3
    ),
    "several objectives": lambda: studied(
        two_objectives, RandomSampler(seed=0), direction=None, directions=["maximize", "minimize"]
    ),
    "several objectives, paper": lambda: studied(
        two_objectives, paper(), n=4, direction=None, directions=["maximize", "minimize"]
    ),
    "whole": lambda: studied(suggest_whole, paper(), n=5),
    "minimize": lambda: studied(lambda trial: grow(trial, sign=-1), paper(), direction="minimize", n=6),
    "no accuracy": lambda: studied(lambda trial: grow(trial, scale=300), paper(), n=5),
    "no layers": lambda: _plain(TRLHPOSampler(seed=0)),
    "no layers, paper": lambda: _plain(paper()),
    "pruned": _pruned,
    "running": _one_running,
    "infinite": _infinite,
    "added": _added,
    "somebody else's": _somebody_elses,
    "other kinds": lambda: studied(lambda trial: grow(trial, OF_OTHER_KINDS), RandomSampler(seed=1), n=4),
}


@pytest.fixture(scope="session")
def make() -> Callable[[str], Study]:
    """The study of that name; it may be read only."""
    made: dict[str, Study] = {}

    def get(name: str) -> Study:
        if name not in made:
            before = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            made[name] = MAKERS[name]()
            optuna.logging.set_verbosity(before)
        return made[name]

    return get


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    from matplotlib import pyplot

    pyplot.close("all")
