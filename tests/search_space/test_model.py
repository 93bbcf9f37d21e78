"""The model of a space: what comes next, for every kind of dependence."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from optuna_trlhpo.search_space.decision_tree import ABSENT
from optuna_trlhpo.search_space.model import END, Next, SpaceModel
from optuna_trlhpo.trials.path import Path

Objective = Callable[[Trial], None]


def integer_depth(trial: Trial) -> None:
    for i in range(trial.suggest_int("depth", 1, 6)):
        trial.suggest_int(f"w{i}", 1, 8)
        trial.suggest_int(f"k{i}", 1, 3)
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)


def kinds(trial: Trial) -> None:
    for i in range(trial.suggest_int("n_layers", 1, 5)):
        kind = trial.suggest_categorical(f"kind{i}", ["conv", "pool", "fc"])
        if kind == "conv":
            trial.suggest_int(f"filters{i}", 8, 64)
            trial.suggest_int(f"kernel{i}", 3, 7, step=2)
        elif kind == "pool":
            trial.suggest_int(f"pool{i}", 2, 4)
        else:
            trial.suggest_int(f"units{i}", 8, 64)
    trial.suggest_categorical("optimizer", ["a", "b"])


def dependent_ranges(trial: Trial) -> None:
    a = trial.suggest_int("a", 1, 10)
    b = trial.suggest_int("b", 1, a)
    trial.suggest_int("c", b, 20)
    width = 10
    for i in range(3):
        width = trial.suggest_int(f"x{i}", 1, width)


def powers(trial: Trial) -> None:
    n = trial.suggest_int("log_n", 1, 4)
    for i in range(n):
        trial.suggest_int(f"v{i}", 1, 2**n)


def nested_loops(trial: Trial) -> None:
    for b in range(trial.suggest_int("n_blocks", 1, 3)):
        for c in range(trial.suggest_int(f"n_convs_{b}", 1, 3)):
            trial.suggest_int(f"f_{b}_{c}", 8, 64)
        if trial.suggest_categorical(f"pool_{b}", [True, False]):
            trial.suggest_int(f"pool_size_{b}", 2, 3)
    trial.suggest_float("lr", 0, 1)


def switches(trial: Trial) -> None:
    for i in range(5):
        trial.suggest_int(f"u{i}", 1, 9)
        if i == 4 or not trial.suggest_int(f"more{i}", 0, 1):
            break


def two_loops(trial: Trial) -> None:
    for i in range(trial.suggest_int("n_conv", 0, 3)):
        trial.suggest_int(f"c{i}", 1, 9)
    for i in range(trial.suggest_int("n_fc", 1, 3)):
        trial.suggest_int(f"d{i}", 1, 9)


def depth_last(trial: Trial) -> None:
    for i in range(3):
        trial.suggest_int(f"w{i}", 1, 9)
    for i in range(trial.suggest_int("extra", 0, 3)):
        trial.suggest_int(f"e{i + 1}", 1, 9)


def flags(trial: Trial) -> None:
    if trial.suggest_categorical("augment", [True, False]):
        trial.suggest_float("rotation", 0, 30)
        if trial.suggest_categorical("mix", ["yes", "no"]) == "yes":
            trial.suggest_float("alpha", 0, 1)
    if trial.suggest_int("normalise", 0, 1):
        trial.suggest_float("momentum", 0, 1)
    trial.suggest_float("decay", 0, 1)


def models(trial: Trial) -> None:
    model = trial.suggest_categorical("model", ["svc", "forest"])
    if model == "svc":
        kernel = trial.suggest_categorical("kernel", ["rbf", "poly", "linear"])
        if kernel == "poly":
            trial.suggest_int("degree", 2, 5)
        if kernel != "linear":
            trial.suggest_float("gamma", 1e-3, 1, log=True)
    else:
        trial.suggest_int("trees", 10, 100)


def difference(trial: Trial) -> None:
    low, high = trial.suggest_int("low", 1, 9), trial.suggest_int("high", 1, 12)
    trial.suggest_int("near" if high - low < 3 else "far", 1, 4)


KINDS: list[Objective] = [
    *(integer_depth, kinds, dependent_ranges, powers, nested_loops, switches, two_loops, depth_last),
    *(flags, models),
]


def random_paths(objective: Objective, n: int, seed: int) -> list[Path]:
    def play(trial: Trial) -> float:
        objective(trial)
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    study.optimize(play, n_trials=n)
    return [Path.of(trial.params, trial.params, trial.distributions) for trial in study.trials]


def is_foretold(model: SpaceModel, path: Path) -> bool:
    """Whether the model knows each parameter of a path, with its distribution, and its end."""
    so_far = Path()
    for name, distribution in zip(path.names, path.distributions, strict=True):
        following = model.next(so_far)
        if not isinstance(following, Next) or following[:2] != (name, distribution):
            return False
        so_far.push(name, distribution, path.values[name])
    return model.next(so_far) is END


@pytest.mark.parametrize("objective", KINDS)
def test_after_twenty_trials_what_comes_next_is_known(objective: Objective) -> None:
    paths = random_paths(objective, 120, seed=2000)
    model = SpaceModel()
    for path in paths[:20]:
        model.learn(path, ended=True)
    foretold = [is_foretold(model, path) for path in paths[20:]]
    assert sum(foretold) >= 0.95 * len(foretold)


def test_that_a_difference_decides_is_found_out_later() -> None:
    paths = random_paths(difference, 200, seed=2001)
    model = SpaceModel()
    for path in paths[:100]:
        model.learn(path, ended=True)
    assert sum(is_foretold(model, path) for path in paths[100:]) >= 95


@pytest.mark.parametrize("objective", [*KINDS, difference])
def test_what_was_seen_is_known_exactly(objective: Objective) -> None:
    paths = random_paths(objective, 30, seed=2001)
    model = SpaceModel()
    for path in paths:
        model.learn(path, ended=True)
    assert all(is_foretold(model, path) for path in paths)


def test_what_was_never_met_is_unknown() -> None:
    model = SpaceModel()
    assert model.next(Path()) is None
    path = Path()
    path.push("x", IntDistribution(0, 3), 1)
    model.learn(path, ended=False)
    assert model.next(path) is None  # the trial was broken off: nobody knows what would have come
    model.learn(path, ended=True)
    assert model.next(path) is END


def test_what_is_asked_instead_is_learned_at_once() -> None:
    one, other = CategoricalDistribution(["a", "b"]), FloatDistribution(0, 1)
    model, path = SpaceModel(), Path()
    path.push("kind", one, "a")
    model.learn(path, ended=True)
    running = Path()
    running.push("kind", one, "b")
    assert model.next(running) is END
    model.correct(running, "rate", other)
    following = model.next(running)
    assert isinstance(following, Next) and following[:2] == ("rate", other)
    assert model.next(path) is END


def test_a_range_that_the_user_changes_is_the_latest() -> None:
    model = SpaceModel()
    for high in (100, 100, 100, 5):
        path = Path()
        path.push("x", IntDistribution(0, high), 3)
        model.learn(path, ended=True)
    following = model.next(Path())
    assert isinstance(following, Next) and following.distribution == IntDistribution(0, 5)


def test_a_loop_whose_end_was_never_seen_is_followed_only_so_far() -> None:
    model, path = SpaceModel(), Path()
    for i in range(4):
        path.push(f"x{i}", IntDistribution(0, 3), 1)
    model.learn(path, ended=False)
    assert len(model.roll(Path(), lambda name, distribution: 1)) < 100


def test_the_order_of_parameters_is_derived() -> None:
    paths = random_paths(nested_loops, 40, seed=2002)
    model = SpaceModel()
    for path in paths[:30]:
        model.learn(path, ended=True)
    for path in paths[30:]:
        params = {name: path.values[name] for name in sorted(path.names)}
        distributions = dict(zip(path.names, path.distributions, strict=True))
        assert model.in_order(params, distributions) == path.names


def test_a_copy_of_a_model_knows_the_same() -> None:
    paths = random_paths(kinds, 40, seed=2003)
    model = SpaceModel()
    for path in paths:
        model.learn(path, ended=True)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert all(is_foretold(copied, path) for path in paths)
    assert pickle.loads(pickle.dumps((END, ABSENT))) == (END, ABSENT)


def test_what_was_seen_is_certain_and_what_is_like_it_is_likely() -> None:
    def path_of(depth: int, units: Sequence[int]) -> Path:
        path = Path()
        path.push("depth", IntDistribution(1, 6), depth)
        for i, u in enumerate(units):
            path.push(f"units_{i}", IntDistribution(1, 8), u)
        return path

    model, rng = SpaceModel(), np.random.default_rng(0)
    for _ in range(40):  # as many layers as the depth says, or fewer, where the first layers are wide
        depth = int(rng.integers(1, 7))
        units: list[int] = []
        while len(units) < depth and sum(units) < 20:
            units.append(int(rng.integers(1, 9)))
        model.learn(path_of(depth, units), ended=True)
    model.learn(path_of(6, [8, 8, 7]), ended=True)
    assert model.chance(path_of(6, [8, 8, 7]), 0, ended=True) == 1.0
    whole = model.chance(path_of(3, [2, 3, 4]), 0, ended=True)
    too_short = model.chance(path_of(6, [2, 3, 4]), 0, ended=True)
    assert too_short < 0.5 < whole <= 1.0


def test_a_value_out_of_range_is_unlikely() -> None:
    model, path = SpaceModel(), Path()
    for left, most in ((1, 9), (2, 8), (3, 5), (4, 2), (5, 2), (1, 7), (2, 7), (6, 1)):
        path = Path()
        path.push("left", IntDistribution(1, 9), left)
        path.push("units", IntDistribution(1, most), 1)
        model.learn(path, ended=True)

    def chance(units: int) -> float:
        path = Path()
        path.push("left", IntDistribution(1, 9), 7)  # never seen
        path.push("units", IntDistribution(1, 9), units)
        return model.chance(path, 1, ended=True)

    assert chance(9) < chance(2) < chance(1)


def test_a_parameter_that_nobody_was_asked_for_is_learned_with_the_next_one() -> None:
    """One with a single value is never asked of a sampler, nor one that is fixed."""
    depth, only, rate = IntDistribution(1, 3), IntDistribution(2, 2), FloatDistribution(0, 1)
    model = SpaceModel()
    for n in (1, 2, 3):
        path = Path()
        path.push("depth", depth, n)
        for i in range(n):
            path.push(f"rate_{i}", rate, 0.5)
        model.learn(path, ended=True)
    running = Path()
    running.push("depth", depth, 2)
    running.push("only_0", only, 2)
    model.correct(running, "rate_0", rate)
    following = model.next(running)
    assert isinstance(following, Next) and following[:2] == ("rate_0", rate)
    running.push("rate_0", rate, 0.5)
    running.push("only_1", only, 2)
    model.correct(running, "bias_1", rate)  # trees are grown, with what was not asked for among the features
    assert model.counters() is not None and model.next(running) is not None


def test_choices_of_which_some_are_numbers_are_no_scale() -> None:
    """All that were seen are numbers; then comes a word."""
    rate, units = CategoricalDistribution([0.5, 1, 8, "auto"]), IntDistribution(1, 4)
    model = SpaceModel()
    for value in (0.5, 1, 8, 0.5, 8):
        path = Path()
        path.push("rate", rate, value)
        if value == 8:
            path.push("units", units, 2)
        model.learn(path, ended=True)
    path = Path()
    path.push("rate", rate, "auto")
    assert model.next(path) is None
    assert 0 <= model.chance(path, 0, ended=True) <= 1


def test_a_range_that_no_distribution_can_have_is_never_told() -> None:
    """The lowest value was always 3 less than another one; behind 3 it would be 0, on a logarithmic scale."""
    first, model = IntDistribution(1, 20), SpaceModel()

    def after(value: int) -> Next:
        path = Path()
        path.push("other", first, value)
        following = model.next(path)
        assert isinstance(following, Next)
        return following

    for value in (5, 9, 12, 17, 20, 7):
        path = Path()
        path.push("other", first, value)
        path.push("low", IntDistribution(value - 3, 40, log=True), value - 3)
        model.learn(path, ended=True)
    assert after(16).distribution == IntDistribution(13, 40, log=True)
    assert after(3).distribution == IntDistribution(2, 40, log=True)  # one that was seen


def test_one_template_may_have_categories_and_numbers() -> None:
    word, number = CategoricalDistribution(["a", "b"]), FloatDistribution(0, 1)
    model = SpaceModel()
    for n in (2, 3, 4, 5):
        path = Path()
        path.push("n", IntDistribution(1, 9), n)
        for i in range(n):
            path.push(f"p{i}", *((word, "a") if i % 2 else (number, 0.5)))
        model.learn(path, ended=True)
    path = Path()
    path.push("n", IntDistribution(1, 9), 4)
    whole = model.roll(path, lambda name, d: 0.5 if d == number else "a")
    assert whole.names == ["n", "p0", "p1", "p2", "p3"]


@pytest.mark.parametrize("choices", [(1.0, math.inf), (-math.inf, math.inf), (math.nan, 2.0, 3.0)])
def test_numbers_without_end_are_no_scale(choices: tuple[float, ...]) -> None:
    clip, units = CategoricalDistribution(choices), IntDistribution(1, 4)
    model = SpaceModel()
    for value in (*choices, *choices):
        path = Path()
        path.push("clip", clip, value)
        if value == choices[-1]:
            path.push("units", units, 2)
        model.learn(path, ended=True)
    for value in choices:
        path = Path()
        path.push("clip", clip, value)
        following = model.next(path)
        assert isinstance(following, Next) == (value == choices[-1])
