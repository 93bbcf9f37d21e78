"""Ten objectives in the idioms of Optuna's public examples, fast enough for thousands of studies.

The parameters are suggested as in those examples. A training either fits a model of scikit-learn to a few
hundred digits, or evaluates a formula with a typical response: the best learning rate depends on the
optimiser, capacity first helps and then hurts, and there are plateaus where nothing is learned.

Observed values differ from true values. Formulas have noise that depends only on the seed of the study and on
the parameters, so samplers that are compared with one seed see the same values. The observed value of a model
comes from half of the images that determine its true value; the seed selects the half.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.problem import noise_of


class Observer:
    """Observer that turns true values into the observed values of one study, and stores the true values.

    Attributes:
        truths: True value of the last training of each trial, by the number of the trial.

    Args:
        seed: Random seed of the noise.
    """

    def __init__(self, seed: int) -> None:
        self.truths: dict[int, float] = {}
        self._seed = seed

    def noisy(self, trial: Trial, truth: float, noise: float) -> float:
        """Return a true value with Gaussian noise, which is equal for equal parameters.

        Args:
            trial: The trial.
            truth: True value.
            noise: Standard deviation of the noise.
        """
        self.truths[trial.number] = truth
        key = repr(sorted(trial.params.items()))
        return truth + noise * float(noise_of(self._seed, key).standard_normal())

    def validated(self, trial: Trial, correct: np.ndarray) -> float:
        """Return the accuracy on half of the images, and store the accuracy on all as the true value.

        The half is the same throughout the study.

        Args:
            trial: The trial.
            correct: ``[images]`` whether each image was classified correctly.
        """
        self.truths[trial.number] = float(np.mean(correct))
        half = noise_of(self._seed, "validation").permutation(len(correct))[: len(correct) // 2]
        return float(np.mean(correct[half]))


@dataclass(frozen=True)
class Idiom:
    """Objective with its description.

    Attributes:
        name: Name on the command line and in tables.
        what: Description in one line.
        play: Function that runs a trial and returns its observed value.
        direction: Whether to minimize or to maximize the value.
        unit: Unit of the value.
        pruner: Factory of the pruner of a study.
    """

    name: str
    what: str
    play: Callable[[Trial, Observer], float]
    direction: Literal["minimize", "maximize"]
    unit: str
    pruner: Callable[[], BasePruner] = NopPruner


IDIOMS: dict[str, Idiom] = {}
"""Idioms by name."""


def _idiom(
    direction: Literal["minimize", "maximize"], unit: str, pruner: Callable[[], BasePruner] = NopPruner
) -> Callable[[Callable[[Trial, Observer], float]], Callable[[Trial, Observer], float]]:
    """Create a decorator that registers a function as an idiom.

    The idiom has the name of the function with dashes. The first line of the docstring describes it.
    """

    def add(play: Callable[[Trial, Observer], float]) -> Callable[[Trial, Observer], float]:
        name, what = play.__name__.replace("_", "-"), (play.__doc__ or "").splitlines()[0]
        IDIOMS[name] = Idiom(name, what, play, direction, unit, pruner)
        return play

    return add


def _off(value: float, best: float, scale: float) -> float:
    """Return the squared distance between a value and the best one, in units of ``scale``."""
    return ((value - best) / scale) ** 2


def _saturated(loss: float) -> float:
    """Saturate a quadratic loss, which then has a plateau at 1 far from its minimum."""
    return 1 - math.exp(-loss)


# Networks -----------------------------------------------------------------------------------------------


@_idiom("maximize", "accuracy")
def mlp(trial: Trial, watch: Observer) -> float:
    """Perceptron: layers, each with units and dropout, then the optimiser and its learning rate."""
    n_layers = trial.suggest_int("n_layers", 1, 3)
    capacity = overfit = bottleneck = 0.0
    before = 9.6  # log2 of 784 inputs
    for i in range(n_layers):
        units = math.log2(trial.suggest_int(f"n_units_l{i}", 4, 128, log=True))
        dropout = trial.suggest_float(f"dropout_l{i}", 0.2, 0.5)
        overfit += _off(dropout, 0.2 + 0.04 * max(units - 3, 0), 0.3) / n_layers
        bottleneck += max(0.0, before - units - 3) / 6
        capacity += units
        before = units
    optimiser = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
    rate = math.log10(trial.suggest_float("lr", 1e-5, 1e-1, log=True))
    best, width = {"Adam": (-2.8, 0.9), "RMSprop": (-3.2, 0.7), "SGD": (-1.2, 0.8)}[optimiser]
    loss = _off(capacity, 12, 9) + 0.3 * overfit + 0.5 * bottleneck + 0.6 * _off(rate, best, width)
    loss += 0.05 * (optimiser != "Adam") + 0.1 * (n_layers == 3)
    return watch.noisy(trial, 0.98 - 0.88 * _saturated(loss / 4), 0.004)


@_idiom("maximize", "accuracy")
def cnn(trial: Trial, watch: Observer) -> float:
    """Convolutional network with optional blocks, each with its own parameters."""
    n_conv = trial.suggest_int("n_conv_layers", 1, 4)
    size, loss = 28.0, 0.0
    for i in range(n_conv):
        filters = trial.suggest_int(f"conv{i}_filters", 16, 128, step=16)
        kernel = trial.suggest_categorical(f"conv{i}_kernel", [3, 5, 7])
        loss += _off(math.log2(filters), min(5 + 0.7 * i, 6.5), 3) / n_conv + 0.03 * (kernel == 7)
        if trial.suggest_categorical(f"conv{i}_batchnorm", [True, False]):
            loss -= 0.08 / n_conv
        if trial.suggest_categorical(f"conv{i}_pool", [True, False]):
            size /= trial.suggest_int(f"conv{i}_pool_size", 2, 3)
    if trial.suggest_categorical("head", ["dense", "average"]) == "dense":
        units = trial.suggest_int("dense_units", 32, 512, log=True)
        dropout = trial.suggest_float("dense_dropout", 0.0, 0.6)
        loss += 0.2 * _off(math.log2(units), 7, 2) + 0.3 * _off(dropout, 0.3, 0.4) - 0.1
    rate = math.log10(trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))
    loss += 0.3 * abs(n_conv - 3) + 0.2 * _off(math.log2(size), 2.3, 1) + 0.5 * _off(rate, -2.7, 0.6)
    return watch.noisy(trial, 0.99 - 0.89 * _saturated(max(loss, 0) / 5), 0.003)


@_idiom("maximize", "accuracy", lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=3))
def cnn_epochs(trial: Trial, watch: Observer) -> float:
    """Small network with a report after each of ten epochs, and pruning."""
    n_layers = trial.suggest_int("n_layers", 1, 3)
    units = [trial.suggest_int(f"n_units_l{i}", 4, 128) for i in range(n_layers)]
    dropouts = [trial.suggest_float(f"dropout_l{i}", 0.2, 0.5) for i in range(n_layers)]
    optimiser = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
    rate = math.log10(trial.suggest_float("lr", 1e-5, 1e-1, log=True))
    best = {"Adam": -2.6, "RMSprop": -3.0, "SGD": -1.1}[optimiser]
    narrowest = math.log2(min(units))
    loss = 0.4 * _off(narrowest, 7, 3) + 0.2 * abs(n_layers - 2) + 0.1 * sum(dropouts) / n_layers
    loss += 0.3 * max(0.0, rate - best) ** 2  # too fast: training does not converge
    speed = 0.8 * 10 ** (min(0.0, rate - best) / 2)  # too slow: training needs more than ten epochs
    end = 0.975 - 0.875 * _saturated(loss / 3)
    truth = 0.1
    for epoch in range(10):
        truth = end - (end - 0.1) * math.exp(-speed * (epoch + 1))
        observed = watch.noisy(trial, truth, 0.004)
        trial.report(observed, step=epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return observed


# Models of scikit-learn ---------------------------------------------------------------------------------


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load 300 images for training and 800 for validation, with pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    train, rest = order[:300], order[300:1100]
    return images[train] / 16, labels[train], images[rest] / 16, labels[rest]


@_idiom("maximize", "accuracy")
def svc_or_forest(trial: Trial, watch: Observer) -> float:
    """Support vector machine or random forest on digits, each with its own parameters."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC

    images, labels, others, truth = _digits()
    model: Any
    if trial.suggest_categorical("classifier", ["SVC", "RandomForest"]) == "SVC":
        c = trial.suggest_float("svc_c", 1e-5, 1e5, log=True)
        gamma = trial.suggest_float("svc_gamma", 1e-6, 1e1, log=True)
        model = SVC(C=c, gamma=gamma)
    else:
        depth = trial.suggest_int("rf_max_depth", 2, 32, log=True)
        features = trial.suggest_float("rf_max_features", 0.05, 1.0)
        model = RandomForestClassifier(8, max_depth=depth, max_features=features, random_state=0)
    return watch.validated(trial, model.fit(images, labels).predict(others) == truth)


@_idiom("maximize", "accuracy", lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=3))
def sgd_epochs(trial: Trial, watch: Observer) -> float:
    """Linear classifier on digits by gradient descent, with a report after each epoch, and pruning."""
    from sklearn.linear_model import SGDClassifier

    images, labels, others, truth = _digits()
    rule = trial.suggest_categorical("learning_rate", ["constant", "invscaling", "optimal"])
    settings: dict[str, Any] = {
        "loss": trial.suggest_categorical("loss", ["hinge", "log_loss", "modified_huber"]),
        "penalty": trial.suggest_categorical("penalty", ["l2", "l1", "elasticnet"]),
        "alpha": trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        "learning_rate": rule,
    }
    if settings["penalty"] == "elasticnet":
        settings["l1_ratio"] = trial.suggest_float("l1_ratio", 0.0, 1.0)
    if rule != "optimal":
        settings["eta0"] = trial.suggest_float("eta0", 1e-4, 1e1, log=True)
    model = SGDClassifier(random_state=0, **settings)
    for epoch in range(8):
        model.partial_fit(images, labels, classes=np.arange(10))
        observed = watch.validated(trial, model.predict(others) == truth)
        trial.report(observed, step=epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return observed


# Tables -------------------------------------------------------------------------------------------------


@_idiom("maximize", "accuracy")
def boosting(trial: Trial, watch: Observer) -> float:
    """Gradient boosting with a choice of the booster, and parameters of some boosters only."""
    booster = trial.suggest_categorical("booster", ["gbtree", "gblinear", "dart"])
    l2 = math.log10(trial.suggest_float("lambda", 1e-8, 1.0, log=True))
    l1 = math.log10(trial.suggest_float("alpha", 1e-8, 1.0, log=True))
    loss = 0.05 * _off(l2, -2, 3) + 0.05 * _off(l1, -4, 4)
    if booster == "gblinear":
        return watch.noisy(trial, 0.92 - 0.2 * _saturated(loss), 0.003)
    depth = trial.suggest_int("max_depth", 1, 9)
    eta = math.log10(trial.suggest_float("eta", 1e-8, 1.0, log=True))
    gamma = math.log10(trial.suggest_float("gamma", 1e-8, 1.0, log=True))
    lossguide = trial.suggest_categorical("grow_policy", ["depthwise", "lossguide"]) == "lossguide"
    # A low learning rate needs deep trees; a far too low one learns nothing.
    loss += 0.1 * _off(depth, 4 - eta, 3) + 0.5 * max(0.0, -1.3 - eta) + 0.4 * max(0.0, eta + 0.5)
    loss += 0.05 * _off(gamma, -3, 3) - 0.02 * lossguide
    if booster == "dart":
        sample = trial.suggest_categorical("sample_type", ["uniform", "weighted"])
        normal = trial.suggest_categorical("normalize_type", ["tree", "forest"])
        drop = math.log10(trial.suggest_float("rate_drop", 1e-8, 1.0, log=True))
        skip = math.log10(trial.suggest_float("skip_drop", 1e-8, 1.0, log=True))
        loss += 0.1 * max(0.0, drop + 1.5) ** 2 * (skip < -0.5) + 0.02 * _off(drop, -2, 2) - 0.04
        loss += 0.02 * (sample == "uniform") + 0.02 * (normal == "tree")
    return watch.noisy(trial, 0.975 - 0.35 * _saturated(max(loss, 0.0)), 0.003)


@_idiom("minimize", "logarithmic loss")
def flat_boosting(trial: Trial, watch: Observer) -> float:
    """Gradient boosting with a flat list of parameters of all types."""
    kind = trial.suggest_categorical("boosting_type", ["gbdt", "goss", "dart"])
    l1 = math.log10(trial.suggest_float("lambda_l1", 1e-8, 10.0, log=True))
    l2 = math.log10(trial.suggest_float("lambda_l2", 1e-8, 10.0, log=True))
    leaves = math.log2(trial.suggest_int("num_leaves", 2, 256))
    features = trial.suggest_float("feature_fraction", 0.4, 1.0)
    bagging = trial.suggest_float("bagging_fraction", 0.4, 1.0)
    every = trial.suggest_int("bagging_freq", 1, 7)
    least = trial.suggest_int("min_child_samples", 5, 100)
    rate = math.log10(trial.suggest_float("learning_rate", 0.005, 0.3, log=True))
    loss = 0.1 * _off(leaves, 4 - 1.5 * (rate + 1.3), 2) + 0.08 * _off(math.log2(least), 4.5, 1.5)
    loss += 0.05 * _off(features, 0.65, 0.25) + 0.05 * _off(bagging, 0.85, 0.25) * (kind != "goss")
    loss += 0.03 * _off(l2, -1, 3) + 0.02 * _off(l1, -3, 4) + 0.1 * _off(rate, -1.3, 0.6)
    loss += {"gbdt": 0.0, "goss": 0.03, "dart": 0.06}[kind] + 0.002 * every
    return watch.noisy(trial, 0.09 + 0.25 * _saturated(loss), 0.004)


@_idiom("maximize", "accuracy")
def preprocessing(trial: Trial, watch: Observer) -> float:
    """Preprocessing by categories and flags: imputation, scaling, encoding, selection, then a model."""
    fill = trial.suggest_categorical("imputer", ["mean", "median", "most_frequent", "constant"])
    scale = trial.suggest_categorical("scaler", ["none", "standard", "minmax", "robust", "quantile"])
    encode = trial.suggest_categorical("encoder", ["onehot", "ordinal", "target", "hash"])
    score = {"mean": 0.0, "median": 0.01, "most_frequent": -0.005, "constant": -0.015}[fill]
    score += {"onehot": 0.01, "ordinal": -0.01, "target": 0.02, "hash": -0.02}[encode]
    model = trial.suggest_categorical("model", ["logistic", "neighbours", "tree"])
    # A tree is nearly insensitive to scaling, nearest neighbours are most sensitive.
    care = {"logistic": 1.0, "neighbours": 2.0, "tree": 0.1}[model]
    score += (
        care * {"none": -0.03, "standard": 0.0, "minmax": -0.005, "robust": 0.01, "quantile": 0.005}[scale]
    )
    if trial.suggest_categorical("use_pca", [True, False]):
        parts = trial.suggest_int("pca_components", 2, 30)
        score += 0.005 * care - 0.02 * _off(parts, 15, 12) - 0.02 * (model == "tree")
    if trial.suggest_int("select", 0, 1):
        score += 0.01 - 0.02 * _off(trial.suggest_float("select_share", 0.1, 1.0), 0.6, 0.4)
    if trial.suggest_categorical("balance", ["none", "over", "under"]) == "over":
        score += 0.01 * (encode != "hash")
    if model == "logistic":
        c = math.log10(trial.suggest_float("logistic_c", 1e-4, 1e4, log=True))
        score += 0.01 - 0.01 * _off(c, 0.5, 1.5)
    elif model == "neighbours":
        score += 0.015 - 0.01 * _off(trial.suggest_int("neighbours_k", 1, 50), 9, 10)
    else:
        score += -0.01 * _off(trial.suggest_int("tree_depth", 1, 20), 7, 5)
        score += 0.005 * (trial.suggest_categorical("tree_criterion", ["gini", "entropy"]) == "entropy")
    return watch.noisy(trial, 0.85 + score, 0.004)


# Others -------------------------------------------------------------------------------------------------


@_idiom("minimize", "value")
def quadratic(trial: Trial, watch: Observer) -> float:
    """Optuna's first example, a quadratic function, with an integer besides the float."""
    x, y = trial.suggest_float("x", -100, 100), trial.suggest_int("y", -10, 10)
    return watch.noisy(trial, (x - 2) ** 2 / 100 + (y + 3) ** 2 / 10, 0.0)


@_idiom("maximize", "return of an episode")
def reinforcement(trial: Trial, watch: Observer) -> float:
    """Reinforcement learning: logarithms of complements of 1, powers of two, named architectures."""
    discount = math.log10(trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True))
    trace = math.log10(trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.2, log=True))
    steps = 2 ** trial.suggest_int("exponent_n_steps", 3, 10)
    rate = math.log10(trial.suggest_float("lr", 1e-5, 1.0, log=True))
    entropy = math.log10(trial.suggest_float("ent_coef", 1e-8, 0.1, log=True))
    norm = math.log10(trial.suggest_float("max_grad_norm", 0.3, 5.0, log=True))
    architecture = trial.suggest_categorical("net_arch", ["tiny", "small", "wide"])
    activation = trial.suggest_categorical("activation_fn", ["tanh", "relu"])
    orthogonal = trial.suggest_categorical("ortho_init", [False, True])
    loss = 0.4 * _off(discount, -1.9, 0.7) + 0.2 * _off(trace, -1.3, 0.8) + 0.05 * max(0.0, entropy + 3) ** 2
    loss += 0.3 * _off(math.log2(steps), 7 + rate + 3, 2.5)  # a higher rate needs longer rollouts
    loss += _off(rate, -3, 0.8) + 0.1 * norm**2 + 0.1 * (activation == "relu") * (not orthogonal)
    loss += {"tiny": 0.15, "small": 0.0, "wide": 0.1}[architecture] + 0.1 * (not orthogonal)
    truth = 20 + 480 * math.exp(-loss)  # return of 20 far from the optimum, where the pole falls at once
    return watch.noisy(trial, truth, 4 + 0.05 * truth)
