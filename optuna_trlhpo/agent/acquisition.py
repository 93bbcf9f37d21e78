"""Acquisition functions, which give the value of one more evaluation of a candidate.

Notation: N networks with a value, C candidates, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.agent.surrogate import Surrogate

ASPIRATION = "aspiration"
"""Acquisition function of a choice that reports of the trial inform: the expected improvement over a level a
quarter of the way from the worst to the best. The best itself is no standard for it, for other trials had
other reports. Where a value above the level is expected, this is about the value that is expected; elsewhere,
what was hardly tried after such reports comes first."""
BELOW_ALL_GAINS = 1e9
"""Offset that puts the logarithm of an improvement below every gain."""
LOG_EI_MARGIN = math.log(10)
"""How far the logarithm of an expected improvement may be below the best for the gain to decide."""


@cpu_threads(1)
def acquire(
    kind: str,
    critic: Surrogate,
    z: np.ndarray,
    of_networks: np.ndarray,
    values: np.ndarray,
    rng: np.random.Generator,
    log_costs: np.ndarray | None = None,
) -> np.ndarray:
    """Values ``[C]`` of the acquisition function for candidates.

    Args:
        kind: "thompson", "expected_improvement", "incumbent_gain" or `ASPIRATION`.
        critic: Critic, conditioned on the networks.
        z: ``[C, F]`` features of the candidates.
        of_networks: ``[N]`` predictions of the critic for the networks with a value.
        values: ``[N]`` values of these networks.
        rng: Random generator.
        log_costs: ``[C]`` logarithms of the costs by which gains are divided, not of those of "thompson",
            which are no gains; None: costs are equal.
    """
    if kind == "thompson":
        return critic.sample(z, rng)
    mean, deviation = critic.predict(z)
    costs = np.zeros(len(z)) if log_costs is None else log_costs
    if kind == ASPIRATION:
        level = 0.25 * of_networks.max() + 0.75 * of_networks.min()
        return log_expected_improvement(mean, deviation, float(level)) - costs
    best = float(of_networks.max()) if len(of_networks) else 0.0
    improvement = log_expected_improvement(mean, deviation, best) - costs
    if kind == "expected_improvement" or not len(values):
        return improvement
    k = int(np.argmax(values))
    gain = incumbent_gain(mean, deviation, critic.noise, float(of_networks[k]), float(values[k]))
    if log_costs is not None:
        gain = np.where(gain > 0, gain * np.exp(-costs), gain)  # a loss is none the less for its cost
    # Compare gains only among candidates that promise improvement: a surely bad network has a gain of 0,
    # and would win against all good ones once each of these could also have a negative gain.
    return np.where(improvement > improvement.max() - LOG_EI_MARGIN, gain, improvement - BELOW_ALL_GAINS)


def incumbent_gain(
    mean: np.ndarray, deviation: np.ndarray, noise: float, best_mean: float, best_observed: float
) -> np.ndarray:
    """Expected gain in the true value of the incumbent from one noisy evaluation of each candidate.

    The incumbent is the network with the best observed value. A candidate, observed as y = f + noise,
    replaces it if y exceeds ``best_observed``, for better or worse: E[(f - best_mean) [y > best_observed]] is
    negative for a candidate that could replace it only by luck. Without noise it is the expected improvement.

    Args:
        mean: ``[C]`` mean of f.
        deviation: ``[C]`` standard deviation of f.
        noise: Standard deviation of a value's noise.
        best_mean: Expected true value of the incumbent.
        best_observed: Noisy value of the incumbent.

    Examples:
        >>> gain = incumbent_gain(np.zeros(2), np.array([1.0, 0.1]), 1.0, 0.0, 1.0)
        >>> bool(gain[0] > gain[1] > 0)
        True
    """
    total = np.sqrt(deviation**2 + noise**2)
    u = torch.from_numpy((mean - best_observed) / total)
    density = torch.exp(-0.5 * u.square() - 0.5 * math.log(2 * math.pi)).numpy()
    return (mean - best_mean) * torch.special.ndtr(u).numpy() + deviation**2 / total * density


def expected_gain(
    mean: float,
    deviation: float,
    of_known: np.ndarray,
    values_of: Callable[[np.ndarray], np.ndarray | None],
) -> float | None:
    """Expected improvement of one candidate over the best of what is known, in the unit of the objective.

    The best is that by prediction, and not by its observed value, which may be a lucky one.

    Args:
        mean: Expected score of the candidate.
        deviation: Its standard deviation.
        of_known: ``[N]`` predicted scores of all that has a value.
        values_of: Maps scores to values of the objective; to None with several objectives.

    Returns:
        A number of 0 or more; None where nothing has a value yet, or a score has no single value.

    Examples:
        >>> round(expected_gain(0.0, 1.0, np.array([-1.0, 0.0]), lambda scores: 10 * scores), 2)
        3.99
    """
    if not len(of_known):
        return None
    best = float(of_known.max())
    improvement = np.exp(log_expected_improvement(np.array([mean]), np.array([deviation]), best))
    values = values_of(best + np.append(improvement, 0.0))
    return None if values is None else abs(float(values[0] - values[1]))


def log_expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Logarithm of the expected improvement over ``best`` under a normal distribution (Mockus, 1975).

    Examples:
        >>> float(np.exp(log_expected_improvement(np.zeros(1), np.ones(1), 0.0))[0].round(3))
        0.399
    """
    u = torch.from_numpy((mean - best) / deviation)
    density = -0.5 * u.square() - 0.5 * math.log(2 * math.pi)  # logarithm of the density
    near = torch.log(density.exp() + u * torch.special.ndtr(u))
    # Below -1 the sum cancels; factoring the density out of both terms leaves erfcx (Ament et al., 2023).
    below = torch.special.erfcx(-u.clamp(max=-1) / math.sqrt(2)) * -u.clamp(max=-1) * math.sqrt(math.pi / 2)
    left = torch.where(u > -1e5, torch.log1p(-below), -2 * torch.log(-u.clamp(max=-1)))
    return torch.where(u > -1, near, density + left).numpy() + np.log(deviation)
