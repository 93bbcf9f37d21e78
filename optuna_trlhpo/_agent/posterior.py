"""What the critic knows: a Gaussian process over networks, an exact posterior from few trials.

Notation: N networks with a known value, C candidates, F features of a network, G groups of features.

The kernel is a sum of parts, each a Matern-5/2 function of a weighted distance over some of the features::

    k(x, x') = c + sum_p a_p M(sum_{f in p} w_g(f) (x_f - x'_f)^2)

The weight w of a feature is that of its group times its own, both learned, the first with the wider prior:
what is known of a parameter in one layer says something about the same parameter in another. All that is
learned is found at the maximum of the posterior density, from where the last fit ended.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_JITTER = 1e-3
"""The least variance of noise, of targets with variance 1."""
_LEARNING_RATE = 0.1


class Features(NamedTuple):
    """What the columns of a feature matrix are."""

    part: np.ndarray  # [F] which part of the kernel, 0 to P - 1
    column: np.ndarray  # [F] features of one parameter share a column
    group: np.ndarray  # [F] parameters of one stem share a group
    base: np.ndarray  # [F] logarithm of the weight that is expected before anything is known


class Posterior:
    """A Gaussian process with learned weights.

    Args:
        n_parts: P, parts of the kernel.

    Example:
        >>> features = Features(*np.zeros((3, 1), dtype=np.int64), base=np.zeros(1))
        >>> posterior = Posterior(n_parts=1)
        >>> posterior.fit(np.array([[0.0], [1.0], [2.0]]), np.array([-1.0, 0.0, 1.0]), features, steps=30)
        >>> mean, deviation = posterior.predict(np.array([[1.5], [9.0]]))
        >>> bool(0 < mean[0] < 1), bool(deviation[1] > deviation[0])
        (True, True)
    """

    def __init__(self, *, n_parts: int) -> None:
        self._n_parts = n_parts
        # Logarithms: of the variances of the parts, of a constant, of the noise.
        self._variances = torch.zeros(n_parts + 2, dtype=torch.float64)
        self._variances0 = torch.tensor([0.0] * n_parts + [math.log(0.1), -1.5], dtype=torch.float64)
        self._variances = self._variances0.clone()
        self._columns = torch.zeros(0, dtype=torch.float64)
        self._groups = torch.zeros(0, dtype=torch.float64)

    def fit(self, x: np.ndarray, y: np.ndarray, features: Features, *, steps: int) -> None:
        """Condition on networks ``x`` ``[N, F]`` with values ``y`` ``[N]``, after ``steps`` of learning.

        What columns and groups are called may not change between calls; there may be more of them.
        """
        self._part = [torch.from_numpy(np.flatnonzero(features.part == p)) for p in range(self._n_parts)]
        self._column = torch.from_numpy(features.column)
        self._group = torch.from_numpy(features.group)
        self._base = torch.from_numpy(features.base)
        self._columns = _longer(self._columns, int(features.column.max()) + 1)
        self._groups = _longer(self._groups, int(features.group.max()) + 1)
        self._x, targets = torch.from_numpy(x), torch.from_numpy(y).unsqueeze(-1)
        if steps:
            self._learn(targets, steps)
        with torch.no_grad():
            self._scale = self._scales(self._columns, self._groups)
            covariance = self._covariance(self._x, self._x, self._scale, self._variances)
            self._factor = torch.linalg.cholesky(covariance + self._noise(self._variances, len(x)))
            self._weights = torch.cholesky_solve(targets, self._factor)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[C]`` of the values of ``x`` ``[C, F]``, without noise."""
        with torch.no_grad():
            across = self._covariance(torch.from_numpy(x), self._x, self._scale, self._variances)
            mean = (across @ self._weights).squeeze(-1)
            explained = torch.linalg.solve_triangular(self._factor, across.T, upper=False).square().sum(dim=0)
            variance = self._variances[:-1].exp().sum() - explained
        return mean.numpy(), variance.clamp(min=1e-9).sqrt().numpy()

    def sample(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One function drawn from the posterior, at ``x`` ``[C, F]``: ``[C]`` (Thompson sampling)."""
        with torch.no_grad():
            z = torch.from_numpy(x)
            across = self._covariance(z, self._x, self._scale, self._variances)
            half = torch.linalg.solve_triangular(self._factor, across.T, upper=False)
            covariance = self._covariance(z, z, self._scale, self._variances) - half.T @ half
            factor = torch.linalg.cholesky(covariance + 1e-5 * torch.eye(len(z), dtype=torch.float64))
            mean = (across @ self._weights).squeeze(-1)
            return (mean + factor @ torch.from_numpy(rng.standard_normal(len(z)))).numpy()

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on a value."""
        return math.sqrt(math.exp(float(self._variances[-1])) + _JITTER)

    def _learn(self, targets: Tensor, steps: int) -> None:
        learned = [self._columns, self._groups, self._variances]
        for tensor in learned:
            tensor.requires_grad_(True)
        optimizer = torch.optim.Adam(learned, lr=_LEARNING_RATE)
        for _ in range(steps):
            scale = self._scales(self._columns, self._groups)
            covariance = self._covariance(self._x, self._x, scale, self._variances)
            factor = torch.linalg.cholesky(covariance + self._noise(self._variances, len(targets)))
            fit = (targets * torch.cholesky_solve(targets, factor)).sum()
            # Normal priors: of standard deviation 1 on groups and variances, of 0.5 on columns.
            prior = (
                (self._groups**2).sum()
                + 4 * (self._columns**2).sum()
                + ((self._variances - self._variances0) ** 2).sum()
            )
            loss = 0.5 * fit + factor.diagonal().log().sum() + 0.5 * prior
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for tensor in learned:
            tensor.requires_grad_(False)

    def _scales(self, columns: Tensor, groups: Tensor) -> Tensor:
        """``[F]`` square roots of the weights."""
        return (0.5 * (self._base + columns[self._column] + groups[self._group])).exp()

    def _covariance(self, x: Tensor, z: Tensor, scale: Tensor, variances: Tensor) -> Tensor:
        a, b = x * scale, z * scale
        covariance = variances[-2].exp()
        for p, part in enumerate(self._part):
            if len(part):
                covariance = covariance + variances[p].exp() * _matern(a[:, part], b[:, part])
            else:
                covariance = covariance + variances[p].exp()
        return covariance

    @staticmethod
    def _noise(variances: Tensor, n: int) -> Tensor:
        return (variances[-1].exp() + _JITTER) * torch.eye(n, dtype=torch.float64)


def _matern(a: Tensor, b: Tensor) -> Tensor:
    squared = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * a @ b.T
    distance = (5 * squared.clamp(min=1e-12)).sqrt()
    return (1 + distance + distance.square() / 3) * (-distance).exp()


def _longer(values: Tensor, n: int) -> Tensor:
    return torch.cat([values, values.new_zeros(max(n - len(values), 0))])
