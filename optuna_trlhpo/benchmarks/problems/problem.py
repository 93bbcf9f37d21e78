"""Base class of the benchmark problems, and the evaluator that counts their cost.

The cost of a study is the number of networks trained. A string, the *key*, identifies a network. The first
request for a network trains it, at a cost of one. From then on its value is known, and further requests are
free. A sampler sees one noisy value of each network. The measure is the true value of the incumbent, the
network with the best observed value so far.
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import optuna
from optuna.trial import Trial

Form = Literal["progressive", "terminal"]
"""Form of a problem. In the progressive form a network grows layer by layer, and the trial reports a value
after each layer. In the terminal form the trial suggests all parameters first and trains the network once."""

Train = Callable[[str], float]
"""Function that trains the network with a key, or looks it up, and returns its observed value."""


class BudgetExhausted(optuna.TrialPruned):
    """Error for a study that has used up its budget.

    It is a `TrialPruned`: Optuna then ends the trial regularly and keeps its reports.
    """


class Problem(ABC):
    """Search space whose networks have a true value and noisy observed values.

    Attributes:
        name: Name on the command line and in tables.
        forms: Available forms.
        direction: Whether to maximize or to minimize the value.
        optimum: Best true value.
        unit: Unit of the regret.
    """

    name: str
    forms: tuple[Form, ...]
    direction: Literal["maximize", "minimize"] = "maximize"
    optimum: float
    unit: str = "points of accuracy"

    @abstractmethod
    def observe(self, network: str, rng: np.random.Generator) -> float:
        """Return a noisy value of a network, the result of one training."""

    @abstractmethod
    def true_value(self, network: str) -> float:
        """Return the value of a network without noise."""

    @abstractmethod
    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial: suggest, train, report in the progressive form, and return the value."""

    def regret(self, network: str) -> float:
        """Return the difference between the optimum and the true value of a network.

        Here, the values are accuracies in [0, 1], and the regret is in percentage points.
        """
        return 100 * abs(self.optimum - self.true_value(network))

    def seconds(self, network: str) -> float:
        """Return the seconds of one training of a network; NaN where the problem does not know them."""
        return math.nan

    def median_seconds(self) -> float:
        """Return the median of the seconds over the networks; NaN where the problem does not know them."""
        return math.nan

    def regret_of_all(self, seed: int) -> float | None:
        """Return the regret of the incumbent after all networks have been trained.

        Values are noisy, so this incumbent need not be the best network. A sampler that has found it can find
        nothing better. A smaller regret is luck: the sampler has missed the incumbent.

        Args:
            seed: Random seed of the noise, as in `objective`.

        Returns:
            The regret, or None if there are too many networks.
        """
        return None

    def objective(self, form: Form, seed: int, budget: int) -> Objective:
        """Create the objective of one study.

        Args:
            form: One of ``forms``.
            seed: Random seed of the noise.
            budget: Maximum number of trainings; at least 1.

        Raises:
            ValueError: For a form that the problem does not have, or a budget below 1.
        """
        if form not in self.forms:
            raise ValueError(f"form is {form!r}; {self.name} has {' and '.join(map(repr, self.forms))}")
        return Objective(self, form, Evaluator(self, seed, budget))


class Evaluator:
    """Evaluator that trains the networks of one study and counts the trainings.

    The value of a network depends only on the seed and the network, not on the sampler or on the time and
    number of requests. So samplers that are compared with one seed see the same values.

    Attributes:
        trainings: Number of networks trained so far, the cost.
        hits: Number of lookups of networks that had been trained before.
        curve: Pairs ``[trainings, regret]``, one for each change of the incumbent: the true regret of the
            network with the best observed value from this number of trainings on.
        seconds: CPU seconds spent in the problem itself.
        cost: Seconds that the trainings would have taken; NaN where the problem does not know them.

    Examples:
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
        self.cost = 0.0
        self._problem = problem
        self._seed = seed
        self._budget = budget
        self._values: dict[str, float] = {}
        self._best = -np.inf  # best observed value, signed so that larger is better

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.trainings >= self._budget

    def train(self, network: str) -> float:
        """Return the observed value of the network with this key.

        Raises:
            BudgetExhausted: If the network has not been trained before and no training is left.
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
        self.cost += self._problem.seconds(network)
        quality = value if self._problem.direction == "maximize" else -value
        if quality > self._best:
            self._best = quality
            regret = round(float(self._problem.regret(network)), 9)
            if not self.curve or regret != self.curve[-1][1]:
                self.curve.append([self.trainings, regret])
        self.seconds += time.process_time() - start
        return value


class Objective:
    """Optuna objective of a problem in one of its forms. It owns the evaluator."""

    def __init__(self, problem: Problem, form: Form, evaluator: Evaluator) -> None:
        self.problem = problem
        self.form: Form = form
        self.evaluator = evaluator

    def __call__(self, trial: Trial) -> float:
        """Run one trial and return its value."""
        return self.problem.play(self.form, trial, self.evaluator.train)


def noise_of(seed: int, network: str) -> np.random.Generator:
    """Return the random generator of the noise on a network's value, equal in all studies with one seed."""
    # Python's hash of a string differs between processes.
    digest = hashlib.blake2b(network.encode(), digest_size=8).digest()
    return np.random.default_rng((seed, int.from_bytes(digest, "big")))
