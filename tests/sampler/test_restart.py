"""A new sampler on a stored study proposes what an uninterrupted one proposes."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna import Study, Trial
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.study import StudyDirection

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, worth_training
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES
from optuna_trlhpo.kinds import CNN

SPACE = LayerSpace(max_layers=4, min_accuracy=None, min_improvement=None)
SMALL = LayerSpace(
    input_shape=(1, 16, 16),
    max_parameters=6000,
    max_activation_bytes=20_000,
    min_accuracy=None,
    min_improvement=None,
    vocabulary=CNN,
)
N_TRIALS = 26
Play = Callable[[Trial], Any]


def grown(trial: Trial, space: LayerSpace = SPACE) -> float:
    score = 0.0
    for layers in space.grow(trial):
        score += float(space.encode(layers)[-1].mean()) / 3
        trial.report(score, step=len(layers) - 1)
    return score


def suggested(trial: Trial) -> float:
    layers = SPACE.suggest(trial)
    return sum(float(row.mean()) / (k + 3) for k, row in enumerate(SPACE.encode(layers)))


def small_device(trial: Trial) -> float:
    """Layers that have no hyper-parameters among others, within limits."""
    return grown(trial, SMALL)


def loop(trial: Trial) -> float:
    n = trial.suggest_int("depth", 1, 4)
    sizes = [trial.suggest_int(f"w{i}", 1, 8) * trial.suggest_int(f"k{i}", 1, 3) for i in range(n)]
    return sum(sizes) / n


def flat(trial: Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + trial.suggest_categorical("penalty", [0, 1, 2])


def two_values(trial: Trial) -> tuple[float, float]:
    x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 5)
    return x * n, (1 - x) ** 2 + n / 5


def signpost(trial: Trial) -> float:
    way = random.Random(trial.number).randrange(3)
    trial.suggest_int("before", 0, 2)
    trial.report(way, step=0)
    return -float(trial.suggest_categorical("way", ["0", "1", "2"]) == str(way))


def interrupted(trial: Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    if x > 0.8:
        raise optuna.TrialPruned
    y = trial.suggest_int("y", 0, 9)
    if y == 3:
        raise RuntimeError
    return x + y


def renamed(trial: Trial) -> float:
    """Change what is asked for half way, as edited code does."""
    x = trial.suggest_float("x", 0, 1)
    y = trial.suggest_int("steps" if trial.number < 12 else "rounds", 1, 9 if trial.number < 18 else 20)
    return x * y


def own_rules(trial: Trial) -> float:
    """Ask for what no space model can predict."""
    x = trial.suggest_int("x", 0, 20)
    values = [trial.suggest_int(f"u{i}", 0, 5) for i in range(1 + x * 7 % 3)]
    return x + sum(values)


def rate_and_layers(trial: Trial) -> float:
    return trial.suggest_float("rate", 1e-4, 1, log=True) + suggested(trial)


def rate_and_growth(trial: Trial) -> float:
    return trial.suggest_float("rate", 1e-4, 1, log=True) + grown(trial)


def sometimes_layers(trial: Trial) -> float:
    if trial.suggest_categorical("model", ["network", "forest"]) == "forest":
        return trial.suggest_float("share", 0, 1)
    return grown(trial)


def own_growth(trial: Trial) -> float:
    size = 0.0
    for k in range(3):
        size += trial.suggest_int(f"units_{k}", 1, 8) / 8
        if k == 2 or worth_training(trial, depth=k + 1, max_depth=3):
            trial.report(size / (k + 1) ** 1.5, k)
    return -size / 3**1.5


def reopened(trial: Trial) -> float:
    """Ask for one more parameter when all configurations have been tried."""
    a = trial.suggest_int("a", 0, 3)
    return a + (trial.suggest_float("late", 0, 1) if trial.number >= 4 else 0)


def fails_once(trial: Trial) -> float:
    a = trial.suggest_int("a", 0, 2)
    if trial.number == 3:
        trial.suggest_int("extra", 0, 1)
        raise RuntimeError
    return a


OBJECTIVES: dict[str, Play] = {
    play.__name__: play
    for play in (
        *(grown, suggested, small_device, loop, flat, two_values, signpost, interrupted, renamed, own_rules),
        *(rate_and_layers, rate_and_growth, sometimes_layers, own_growth, reopened, fails_once),
    )
}


def study_of(play: Play, storage: str | None) -> Study:
    directions = [StudyDirection.MINIMIZE] * (2 if play is two_values else 1)
    return optuna.create_study(directions=directions, storage=storage)


def run(
    play: Play,
    make: Callable[[], BaseSampler],
    sessions: list[int],
    *,
    storage: str | None = None,
    again: Callable[[BaseSampler], BaseSampler] | None = None,
    prepare: Callable[[Study], None] = lambda study: None,
) -> list[dict[str, Any]]:
    """Parameters of a study that is played in sessions, between which the sampler is replaced."""
    study = study_of(play, storage)
    study.sampler = make()
    prepare(study)
    for n_trials in sessions:
        study.optimize(play, n_trials=n_trials, catch=RuntimeError)
        study.sampler = make() if again is None else again(study.sampler)
    return [trial.params for trial in study.get_trials()]


def make(**arguments: Any) -> TRLHPOSampler:
    return TRLHPOSampler(seed=3, warn_independent_sampling=False, **arguments)


@pytest.mark.parametrize("name", ["loop", "flat", "own_growth", "reopened", "fails_once"])
def test_a_new_sampler_continues_as_the_uninterrupted_one(name: str) -> None:
    play = OBJECTIVES[name]
    assert run(play, make, [11, 1, 14]) == run(play, make, [N_TRIALS])


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_new_samplers_after_each_trial_continue_as_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    play, storage = OBJECTIVES[name], f"sqlite:///{tmp_path}/study.db"
    assert run(play, make, [1] * 18, storage=storage) == run(play, make, [18])


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_so_they_do_on_pipelines_of_other_people(name: str) -> None:
    pipeline = PIPELINES[name]

    def played(sessions: list[int]) -> list[dict[str, Any]]:
        study = optuna.create_study(direction=pipeline.direction, pruner=pipeline.pruner())
        for n_trials in sessions:
            study.sampler = make()
            study.optimize(pipeline.play, n_trials=n_trials, catch=pipeline.catch)
        return [trial.params for trial in study.get_trials()]

    assert played([9, 1, 8, 12]) == played([30])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grown", "rate_and_layers", "loop", "own_rules"])
@pytest.mark.parametrize(
    "arguments",
    [
        dict(layer_prior=False),
        dict(agent=AgentConfig(targets="rank", acquisition="thompson")),
        dict(agent=AgentConfig(critic="perceptron", fit_steps=1)),
        dict(agent=AgentConfig(critic="transformer", fit_steps=1, n_critics=2, blocks=1)),
    ],
    ids=["no prior", "thompson", "perceptrons", "transformers"],
)
def test_so_they_do_with_other_settings(name: str, arguments: dict[str, Any]) -> None:
    play = OBJECTIVES[name]
    runs = [run(play, lambda: make(**arguments), sessions) for sessions in ([10, 1, 3], [14])]
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grown", "loop", "flat"])
def test_so_they_do_with_an_earlier_study(name: str) -> None:
    play = OBJECTIVES[name]
    earlier = study_of(play, None)
    earlier.sampler = optuna.samplers.RandomSampler(seed=0)
    earlier.optimize(play, n_trials=15)
    runs = [run(play, lambda: make(warm_start=[earlier]), sessions) for sessions in ([6, 1, 11], [18])]
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_so_they_do_where_another_sampler_fixes_values() -> None:
    def wrapped() -> BaseSampler:
        return PartialFixedSampler({"w0": 5, "k1": 2}, make())

    assert run(loop, wrapped, [1] * N_TRIALS) == run(loop, wrapped, [N_TRIALS])


@pytest.mark.slow
def test_so_they_do_where_it_fixes_many() -> None:
    names = [a + b for a in "abcdefg" for b in "uvwxyz"]

    def many(trial: Trial) -> float:
        return sum(k * trial.suggest_float(name, 0, 1) for k, name in enumerate(names))

    def wrapped() -> BaseSampler:
        return PartialFixedSampler(dict.fromkeys(names[6:], 0.5), make())

    assert run(many, wrapped, [1] * 12) == run(many, wrapped, [12])


@pytest.mark.slow
def test_so_they_do_where_parameters_appear_late() -> None:
    def late(trial: Trial) -> float:
        x = float(trial.suggest_int("a", 0, 50))
        x += sum(trial.suggest_categorical(f"c{j}", ["q", "r"]) == "q" for j in range(int(x) % 3))
        if trial.number >= 6:
            x += trial.suggest_float("late", 0, 1)
        return x

    def transformers() -> BaseSampler:
        return make(agent=AgentConfig(critic="transformer", fit_steps=1, n_critics=2, blocks=1))

    assert run(late, transformers, [9, 4]) == run(late, transformers, [13])


@pytest.mark.parametrize("layer_prior", [False, True])
def test_layers_are_learned_where_another_parameter_comes_first(layer_prior: bool) -> None:
    """The space is known only when the trial asks for the first layer."""
    sampler = make(layer_prior=layer_prior)
    optuna.create_study(sampler=sampler).optimize(rate_and_layers, n_trials=15)
    planner = sampler.agent.networks.planner
    assert len(planner.critic.features) and len(planner.critic.values) >= 13


@pytest.mark.slow
def test_so_they_do_with_enqueued_trials() -> None:
    def enqueue(study: Study) -> None:
        for width in (2, 7):
            study.enqueue_trial({"depth": 2, "w0": width})

    runs = [run(loop, make, sessions, prepare=enqueue) for sessions in ([1] * N_TRIALS, [N_TRIALS])]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["loop", pytest.param("grown", marks=pytest.mark.slow)])
def test_a_pickled_sampler_continues_as_the_uninterrupted_one(name: str) -> None:
    play = OBJECTIVES[name]

    def pickled(sampler: BaseSampler) -> BaseSampler:
        again: BaseSampler = pickle.loads(pickle.dumps(sampler))
        return again

    assert run(play, make, [12, 3, 11], again=pickled) == run(play, make, [N_TRIALS])


@pytest.mark.slow
def test_a_long_study_continues_where_critics_no_longer_learn_after_each_trial() -> None:
    sessions = [70, 1, 1, 1, 30, 17]
    whole, parts = (run(loop, make, some) for some in ([sum(sessions)], sessions))
    different = [*itertools.compress(range(len(whole)), map(dict.__ne__, whole, parts))]
    assert not different
