"""Twenty small objectives as users write them for Optuna, with loops, branches, flags and grids.

A sampler knows only the names and ranges of their parameters. All objectives are deterministic and take
microseconds, so a measurement reflects the sampler alone: `repeats` counts how often it proposes a
configuration again.

A *configuration* is the set of all parameters of a trial with their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import Trial

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Pipeline:
    """User-defined objective with its description.

    Attributes:
        name: Name on the command line and in tables.
        what: Description in one line.
        play: The objective.
        direction: Whether to minimize or to maximize the value.
        configurations: Number of configurations. None: more than a study can try.
        pruner: Factory of the pruner of a study.
        catch: Exceptions of the objective that do not end the study.
        grows: Whether it reports values before the last parameter. A sampler can then revise its plan.

    Examples:
        >>> PIPELINES["grid-50"].configurations
        50
    """

    name: str
    what: str
    play: Callable[[Trial], float]
    direction: Direction
    configurations: int | None = None
    pruner: Callable[[], BasePruner] = NopPruner
    catch: tuple[type[Exception], ...] = ()
    grows: bool = False


PIPELINES: dict[str, Pipeline] = {}
"""Pipelines by name."""


def _pipeline(
    direction: Direction,
    configurations: int | None = None,
    *,
    pruner: Callable[[], BasePruner] = NopPruner,
    catch: tuple[type[Exception], ...] = (),
    grows: bool = False,
) -> Callable[[Callable[[Trial], float]], Callable[[Trial], float]]:
    """Create a decorator that registers a function as a pipeline.

    The pipeline has the name of the function with dashes. The first line of the docstring describes it.
    """

    def add(play: Callable[[Trial], float]) -> Callable[[Trial], float]:
        name, what = play.__name__.replace("_", "-"), (play.__doc__ or "").splitlines()[0]
        PIPELINES[name] = Pipeline(name, what, play, direction, configurations, pruner, catch, grows)
        return play

    return add


def _off(value: float, best: float, scale: float) -> float:
    """Return the squared distance between a value and the best one, in units of ``scale``."""
    return ((value - best) / scale) ** 2


# Loops --------------------------------------------------------------------------------------------------


@_pipeline("minimize")
def depth_first(trial: Trial) -> float:
    """Depth, then the width of each layer."""
    depth = trial.suggest_int("n_layers", 1, 5)
    widths = [trial.suggest_int(f"n_units_l{i}", 8, 128, step=8) for i in range(depth)]
    return 0.2 * abs(depth - 3) + sum(_off(math.log2(w), 6.5 - i, 2) for i, w in enumerate(widths)) / depth


@_pipeline("maximize", 648)
def depth_last(trial: Trial) -> float:
    """Four widths, then the depth, which is the number of widths in use."""
    widths = [trial.suggest_categorical(f"width_{i}", [16, 32, 64]) for i in range(4)]
    activation = trial.suggest_categorical("activation", ["relu", "tanh"])
    depth = trial.suggest_int("depth", 1, 4)
    size = sum(math.log2(width) for width in widths[:depth])
    return 0.9 - 0.01 * _off(size, 15, 3) + 0.01 * (activation == "relu")


@_pipeline("minimize")
def two_loops(trial: Trial) -> float:
    """Convolutions, then dense layers, each after their number, which can be 0 for dense layers."""
    n_conv = trial.suggest_int("n_conv", 1, 3)
    filters = [trial.suggest_categorical(f"filters_{i}", [8, 16, 32, 64]) for i in range(n_conv)]
    kernels = [trial.suggest_int(f"kernel_{i}", 3, 7, step=2) for i in range(n_conv)]
    n_dense = trial.suggest_int("n_dense", 0, 2)
    units = [trial.suggest_int(f"dense_{i}", 32, 256, step=32) for i in range(n_dense)]
    loss = 1 / n_conv + sum(_off(math.log2(f), 4 + i, 4) for i, f in enumerate(filters))
    return loss + 0.1 * sum(k > 3 for k in kernels) + sum(_off(u, 128, 200) for u in units) - 0.2 * n_dense


@_pipeline("maximize")
def nested_loops(trial: Trial) -> float:
    """Blocks within stages, with two indices in each name."""
    score = 0.0
    for stage in range(1, trial.suggest_int("n_stages", 1, 3) + 1):
        for block in range(1, trial.suggest_int(f"stage{stage}_n_blocks", 1, 3) + 1):
            width = trial.suggest_int(f"stage{stage}_block{block}_width", 16, 64, step=16)
            kind = trial.suggest_categorical(f"stage{stage}_block{block}_kind", ["plain", "residual"])
            score += 0.1 * (kind == "residual") - 0.02 * _off(width, 16 * stage, 16) - 0.01 * block
    return score


# Branches -----------------------------------------------------------------------------------------------


@_pipeline("minimize")
def flags(trial: Trial) -> float:
    """Flags as integers, booleans and strings, some with their own parameters."""
    loss = 1.0
    if trial.suggest_int("augment", 0, 1):
        loss += -0.2 + _off(trial.suggest_int("angle", 0, 30, step=5), 10, 30)
    if trial.suggest_categorical("batch_norm", [True, False]):
        loss -= 0.1
    if trial.suggest_categorical("schedule", ["yes", "no"]) == "yes":
        loss += -0.1 + _off(trial.suggest_int("warmup", 1, 5), 3, 8)
    for i in range(3):
        if trial.suggest_categorical(f"layer_{i}_skip", ["on", "off"]) == "on":
            loss += 0.05 * (i - 1)
        if trial.suggest_int(f"layer_{i}_has_dropout", 0, 1) == 1:
            loss += _off(trial.suggest_float(f"layer_{i}_dropout", 0.1, 0.5, step=0.1), 0.2, 2) - 0.02
    return loss


@_pipeline("maximize", 182)
def nested_branches(trial: Trial) -> float:
    """Branch within a branch."""
    score = -_off(trial.suggest_int("log_c", -3, 3), 1, 8)
    kernel = trial.suggest_categorical("kernel", ["linear", "rbf", "poly"])
    if kernel == "rbf":
        score += 0.3
        if trial.suggest_categorical("gamma", ["scale", "own"]) == "own":
            score += 0.1 - _off(trial.suggest_int("log_gamma", -4, 1), -2, 6)
    elif kernel == "poly":
        score -= _off(trial.suggest_int("degree", 2, 4), 3, 3)
        if trial.suggest_categorical("shifted", [False, True]):
            score += 0.2 - _off(trial.suggest_float("coef0", 0.0, 1.0, step=0.25), 0.5, 2)
    return score


@_pipeline("maximize")
def choice_of_model(trial: Trial) -> float:
    """Choice of a model, each with its own parameters."""
    model = trial.suggest_categorical("classifier", ["svc", "forest", "neighbours"])
    if model == "svc":
        c = trial.suggest_float("svc_c", 1e-5, 1e5, log=True)
        gamma = trial.suggest_float("svc_gamma", 1e-5, 1e1, log=True)
        return 0.97 - 0.02 * _off(math.log10(c), 1, 3) - 0.02 * _off(math.log10(gamma), -2, 1.5)
    if model == "forest":
        trees = trial.suggest_int("forest_n_estimators", 10, 200, step=10)
        depth = trial.suggest_int("forest_max_depth", 2, 32, log=True)
        return 0.95 - 0.2 / trees - 0.01 * _off(math.log2(depth), 3.5, 1)
    neighbours = trial.suggest_int("n_neighbors", 1, 30)
    weights = trial.suggest_categorical("weights", ["uniform", "distance"])
    return 0.93 - 0.01 * _off(neighbours, 7, 10) + 0.01 * (weights == "distance")


_MASKS = {"start": ["conv"], "image": ["conv", "pool", "fc"], "small": ["conv", "fc"], "flat": ["fc"]}


@_pipeline("minimize")
def masked_names(trial: Trial) -> float:
    """Choices that depend on the layers before; the names of the parameters contain the choices."""
    size, state, loss = 16, "start", 1.0
    for i in range(trial.suggest_int("n_blocks", 1, 5)):
        operations = _MASKS[state]
        operation = trial.suggest_categorical(f"op_{'_'.join(operations)}_{i}", operations)
        if operation == "conv":
            width = trial.suggest_int(f"filters_{i}", 8, 64, step=8)
            loss += -0.2 / (i + 1) + _off(math.log2(width), 4 + i / 2, 6)
        elif operation == "pool":
            size //= trial.suggest_int(f"window_{i}", 2, 4)
            loss += 0.1 * abs(i - 1) - 0.1
        else:
            loss += _off(trial.suggest_int(f"units_{i}", 16, 128, step=16), 64, 200) - 0.02
        flat = operation == "fc" or state == "flat"
        state = "flat" if flat else "image" if size > 3 else "small"
    return loss + 0.02 * size


# Ranges that depend on values ---------------------------------------------------------------------------


@_pipeline("maximize", 494)
def falling_ranges(trial: Trial) -> float:
    """Layers that are at most as wide as the layer before."""
    widest, score = 8, 0.0
    depth = trial.suggest_int("depth", 1, 4)
    for i in range(depth):
        widest = trial.suggest_int(f"units_{i}", 1, widest)
        score -= _off(widest, 6 - i, 3)
    return score / depth - 0.1 * abs(depth - 3)


@_pipeline("minimize", 2414)
def rising_ranges(trial: Trial) -> float:
    """Number with another number as its lower bound; their difference determines the choices."""
    least = trial.suggest_int("least", 2, 11)
    most = trial.suggest_int("most", least, 12)
    start = trial.suggest_float("start", round(0.1 * least, 1), 2.0, step=0.1)
    if most - least > 4:
        rule = trial.suggest_categorical("rule_wide", ["gini", "entropy", "log"])
    else:
        rule = trial.suggest_categorical("rule_narrow", ["gini", "entropy"])
    return _off(least, 4, 5) + _off(most, 9, 5) + _off(start, 1.2, 2) + 0.1 * (rule != "entropy")


# Grids --------------------------------------------------------------------------------------------------


@_pipeline("minimize", 50)
def grid_50(trial: Trial) -> float:
    """Grid of 5 x 10 points."""
    x, y = trial.suggest_int("x", 0, 4), trial.suggest_int("y", 0, 9)
    return _off(x, 3, 5) + _off(y, 2, 10) + 0.1 * ((x * y) % 3)


@_pipeline("maximize", 200)
def grid_200(trial: Trial) -> float:
    """Grid of 4 x 5 x 10 points: an integer, a category, a float with a step."""
    n = trial.suggest_int("n", 1, 4)
    word = trial.suggest_categorical("word", ["a", "b", "c", "d", "e"])
    rate = trial.suggest_float("rate", 0.0, 0.9, step=0.1)
    return -_off(n, 2, 4) - _off(rate, 0.3, 1) + 0.1 * (word in "bd")


@_pipeline("minimize", 1000)
def grid_1000(trial: Trial) -> float:
    """Grid of 10 x 10 x 10 points."""
    x, y, z = (trial.suggest_int(name, 0, 9) for name in "xyz")
    return _off(x, 7, 10) + _off(y, 2, 10) + _off(z, x, 10)


@_pipeline("minimize", 5000)
def grid_5000(trial: Trial) -> float:
    """Grid of 5 x 10 x 10 x 10 points: a category and numbers with steps."""
    optimiser = trial.suggest_categorical("optimiser", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
    rate = trial.suggest_float("rate", -5.0, -0.5, step=0.5)
    decay = trial.suggest_float("decay", 0.0, 0.45, step=0.05)
    width = trial.suggest_int("width", 32, 320, step=32)
    best = -3.0 if optimiser.startswith("adam") else -1.5
    return _off(rate, best, 2) + _off(decay, 0.1, 0.5) + _off(width, 192, 300) + 0.1 * (optimiser == "sgd")


@_pipeline("minimize", 1536)
def logs_and_steps(trial: Trial) -> float:
    """Integer on a logarithmic scale, and floats with steps."""
    batch = trial.suggest_int("batch_size", 1, 64, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.5, step=0.1)
    momentum = trial.suggest_float("momentum", 0.5, 0.95, step=0.15)
    return _off(math.log2(batch), 4, 3) + _off(dropout, 0.2, 0.5) + _off(momentum, 0.8, 0.5)


@_pipeline("maximize", 25)
def soon_exhausted(trial: Trial) -> float:
    """Few configurations, which a study exhausts."""
    method = trial.suggest_categorical("method", ["mean", "quantile", "model"])
    if method == "quantile":
        degree = trial.suggest_int("degree", 1, 6)
        return -_off(degree, 4, 5) + 0.1 * trial.suggest_categorical("clip", [True, False])
    if method == "model":
        shape = trial.suggest_categorical("shape", ["flat", "round", "tall"])
        return 0.2 * (shape == "round") - _off(trial.suggest_int("size", 1, 4), 3, 6)
    return -0.5


# Reports, pruned and failed trials ----------------------------------------------------------------------


@_pipeline("maximize", grows=True)
def layers_reported(trial: Trial) -> float:
    """Growth layer by layer, with a report after each, until a layer brings no improvement."""
    best, accuracy = 0.0, 0.5
    for i in range(5):
        width = trial.suggest_int(f"layer{i}_width", 16, 64, step=16)
        activation = trial.suggest_categorical(f"layer{i}_activation", ["relu", "tanh"])
        accuracy += (0.2 - 0.05 * _off(width, 48 - 8 * i, 24) + 0.02 * (activation == "relu")) * 0.6**i - 0.02
        trial.report(accuracy, step=i)
        if accuracy < best + 0.001:
            break
        best = accuracy
    return best


@_pipeline("minimize", 120, pruner=lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=2))
def epochs_reported(trial: Trial) -> float:
    """All parameters first, then a report after each epoch, with a pruner."""
    units = trial.suggest_int("units", 16, 128, step=16)
    log_rate = trial.suggest_int("log_rate", -5, -1)
    optimiser = trial.suggest_categorical("optimiser", ["sgd", "adam", "rmsprop"])
    floor = 0.1 + _off(units, 96, 200) + _off(log_rate, -2 if optimiser == "sgd" else -3, 5)
    loss = 1.0
    for epoch in range(8):
        loss = floor + (1 - floor) * 0.6 ** (epoch + 1)
        trial.report(loss, step=epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


@_pipeline("maximize", 288)
def invalid_region(trial: Trial) -> float:
    """Invalid first parameters, at which the trial is pruned."""
    size = 12
    for i in range(2):
        kernel = trial.suggest_int(f"kernel_{i}", 3, 9, step=2)
        stride = trial.suggest_int(f"stride_{i}", 1, 3)
        if kernel > size:
            raise optuna.TrialPruned
        size = (size - kernel) // stride + 1
    width = trial.suggest_int("width", 8, 32, step=8)
    return 0.9 - 0.1 * _off(size, 4, 4) - 0.1 * _off(width, 24, 32)


@_pipeline("minimize", 192, catch=(MemoryError,))
def failures(trial: Trial) -> float:
    """Large networks that fail for lack of memory."""
    depth = trial.suggest_int("depth", 1, 4)
    width = trial.suggest_int("width", 16, 256, step=16)
    batch = trial.suggest_categorical("batch", [32, 64, 128])
    if depth * width * batch > 60_000:
        raise MemoryError("out of memory")
    return _off(depth, 3, 4) + _off(width, 160, 300) + 0.1 * (batch == 32)
