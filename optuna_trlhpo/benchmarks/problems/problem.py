"""What a benchmark problem is, and the one place where its cost is counted.

Cost is the number of networks trained. A network is told apart by its *key*, a string. The first time that a
study asks for a network it is trained, which costs one; from then on its value is known and free. A sampler
sees one noisy value for each network; it is judged by the true value of the network that looked best so far.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import optuna
from optuna.trial import Trial

Form = Literal["progressive", "terminal"]
"""Progressive: a network grows layer by layer, and what it is worth is reported on the way. Terminal: all is
suggested first, and the network is trained once."""

Train = Callable[[str], float]
"""Trains the network of a key, or looks it up, and returns its observed value."""


class BudgetExhausted(optuna.TrialPruned):
    """No training is left.

    A pruned trial keeps what it reported, and Optuna ends the trial in good order; so the study ends cleanly
    and nothing is lost.
    """


class Problem(ABC):
    """A search space whose networks have a true value and noisy observed ones.

    Attributes:
        name: What it is called on the command line and in tables.
        forms: In which forms it can be played.
        direction: Whether large or small values are good.
        optimum: The best true value.
        unit: Of the regret.
    """

    name: str
    forms: tuple[Form, ...]
    direction: Literal["maximize", "minimize"] = "maximize"
    optimum: float
    unit: str = "points of accuracy"

    @abstractmethod
    def observe(self, network: str, rng: np.random.Generator) -> float:
        """One noisy value of a network: what one training comes to."""

    @abstractmethod
    def true_value(self, network: str) -> float:
        """What a network is worth without noise."""

    @abstractmethod
    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """One trial: suggest, train, report where the form is progressive, and return the trial's value."""

    def regret(self, network: str) -> float:
        """How much worse than the optimum a network truly is; for accuracies in [0, 1], in points of 100."""
        return 100 * abs(self.optimum - self.true_value(network))

    def regret_of_all(self, seed: int) -> float | None:
        """The regret of the network that looks best once all have been trained; None if they are too many.

        Values are noisy, so that network need not be the best one. A sampler that finds it has nothing left
        to find; with less regret it has been lucky not to find it.

        Args:
            seed: Of the noise, as in `objective`.
        """
        return None

    def objective(self, form: Form, seed: int, budget: int) -> Objective:
        """An objective for one study.

        Args:
            form: One of ``forms``.
            seed: Of the noise.
            budget: Trainings that the study may take; at least 1.

        Raises:
            ValueError: For a form that the problem does not have, or a budget below 1.
        """
        if form not in self.forms:
            raise ValueError(f"form is {form!r}; {self.name} has {' and '.join(map(repr, self.forms))}")
        return Objective(self, form, Evaluator(self, seed, budget))


class Evaluator:
    """Trains networks for one study, and counts.

    The value of a network depends on the seed and the network alone: not on the sampler, nor on when or how
    often it is asked for. Samplers compared on one seed thus see the same values.

    Attributes:
        trainings: Networks trained so far: the cost.
        hits: Lookups of networks that had been trained before.
        curve: Pairs ``[trainings, regret]``, one wherever the incumbent changes: from so many trainings on,
            this is the true regret of the network with the best observed value.
        seconds: CPU seconds that the problem itself has taken.

    Example:
        >>> class Coins(Problem):  # keys are numbers; every training adds noise in [0, 1)
        ...     name, forms, optimum = "coins", ("terminal",), 1.0
        ...     def true_value(self, network): return float(network) + 0.5
        ...     def observe(self, network, rng): return float(network) + rng.random()
        ...     def play(self, form, trial, train): return train(str(trial.suggest_float("x", 0, 1)))
        >>> evaluator = Evaluator(Coins(), seed=0, budget=2)
        >>> evaluator.train("0.2") == evaluator.train("0.2")
        True
        >>> evaluator.trainings, evaluator.hits, evaluator.curve
        (1, 1, [[1, 30.0]])
    """

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        if budget < 1:
            raise ValueError(f"budget is {budget}; it must be at least 1 training")
        self.trainings = 0
        self.hits = 0
        self.curve: list[list[float]] = []
        self.seconds = 0.0
        self._problem = problem
        self._seed = seed
        self._budget = budget
        self._values: dict[str, float] = {}
        self._best = -np.inf  # observed, larger is better

    @property
    def exhausted(self) -> bool:
        """Whether all trainings are used up."""
        return self.trainings >= self._budget

    def train(self, network: str) -> float:
        """The observed value of the network with this key.

        Raises:
            BudgetExhausted: If it has not been trained before, and no training is left.
        """
        if network in self._values:
            self.hits += 1
            return self._values[network]
        if self.exhausted:
            raise BudgetExhausted(f"all {self._budget} trainings are used up")
        start = time.process_time()
        value = float(self._problem.observe(network, noise_of(self._seed, network)))
        self._values[network] = value
        self.trainings += 1
        quality = value if self._problem.direction == "maximize" else -value
        if quality > self._best:
            self._best = quality
            regret = round(float(self._problem.regret(network)), 9)
            if not self.curve or regret != self.curve[-1][1]:
                self.curve.append([self.trainings, regret])
        self.seconds += time.process_time() - start
        return value


class Objective:
    """A problem in one of its forms, as an Optuna objective; it owns the evaluator that counts."""

    def __init__(self, problem: Problem, form: Form, evaluator: Evaluator) -> None:
        self.problem = problem
        self.form: Form = form
        self.evaluator = evaluator

    def __call__(self, trial: Trial) -> float:
        return self.problem.play(self.form, trial, self.evaluator.train)


def noise_of(seed: int, network: str) -> np.random.Generator:
    """The generator of the noise on a network's value, in all studies with that seed."""
    # Python's own hash of a string differs from process to process.
    digest = hashlib.blake2b(network.encode(), digest_size=8).digest()
    return np.random.default_rng((seed, int.from_bytes(digest, "big")))
