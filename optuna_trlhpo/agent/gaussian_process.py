"""Gaussian process over networks, which gives the critic an exact posterior from few trials.

Notation: N networks with a known value, C candidates, F features of a network, G groups of features.

The kernel is a sum of parts, each a Matern-5/2 function of a weighted distance over some of the features::

    k(x, x') = c + sum_p a_p M(sum_{f in p} w_f (x_f - x'_f)^2) + a_l sum_{f in l} w_f x_f x'_f

The features of the part l are expectations from elsewhere. They act linearly, and their weights have a mean m
other than 0, so the prior mean of the process is not 0 either::

    m(x) = sqrt(a_l) sum_{f in l} m_f sqrt(w_f) x_f

The trust in such expectations, a_l, is learned like all other parameters.

The weight w of a feature is the weight of its group times its own, both learned, the first with the wider
prior: the effect of a parameter in one layer is informative about the same parameter in another. All learned
parameters are the maximum of the posterior density, found from the result of the last fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from optuna_trlhpo._threads import cpu_threads

JITTER = 1e-3
"""Smallest variance of noise, for targets with variance 1."""
_LEARNING_RATE = 0.1
NOISE_OF_TRAINING = -1.5
"""Expected logarithm of the variance of noise where networks are trained; scores have variance 1."""
LINEAR = -1
"""Number of the linear part of the kernel."""


class Features(NamedTuple):
    """Properties of the columns of a feature matrix."""

    part: np.ndarray  # [F] part of the kernel, 0 to P - 1 or LINEAR
    column: np.ndarray  # [F] features of one parameter share a column
    group: np.ndarray  # [F] parameters of one base name share a group
    base: np.ndarray  # [F] logarithm of the weight that is expected before any data
    mean: np.ndarray  # [F] m, for linear features


class GaussianProcess:
    """Gaussian process with learned weights.

    Args:
        n_parts: P, number of parts of the kernel without the linear one.
        noise: Expected logarithm of the variance of the noise before any data.

    Attributes:
        log_variances: ``[P + 3]`` logarithms of variances: of each part, of the linear part, of the constant,
            and of the noise.
        column_weights: Logarithms of the weights of the columns, relative to those of their groups.
        group_weights: Logarithms of the weights of the groups.
        scale: ``[F]`` square roots of the weights of the features, after a fit.

    Examples:
        >>> features = Features(*np.zeros((3, 1), dtype=np.int64), base=np.zeros(1), mean=np.zeros(1))
        >>> posterior = GaussianProcess(n_parts=1)
        >>> posterior.fit(np.array([[0.0], [1.0], [2.0]]), np.array([-1.0, 0.0, 1.0]), features, steps=30)
        >>> mean, deviation = posterior.predict(np.array([[1.5], [9.0]]))
        >>> bool(0 < mean[0] < 1), bool(deviation[1] > deviation[0])
        (True, True)
    """

    def __init__(self, *, n_parts: int, noise: float = NOISE_OF_TRAINING) -> None:
        self._n_parts = n_parts
        expected = [0.0] * (n_parts + 1) + [math.log(0.1), noise]
        self._log_variances0 = torch.tensor(expected, dtype=torch.float64)
        self.log_variances = self._log_variances0.clone()
        self.column_weights = torch.zeros(0, dtype=torch.float64)
        self.group_weights = torch.zeros(0, dtype=torch.float64)

    @cpu_threads(1)
    def fit(self, x: np.ndarray, y: np.ndarray, features: Features, *, steps: int) -> None:
        """Condition on networks ``x`` ``[N, F]`` with values ``y`` ``[N]``, after ``steps`` of learning.

        The meaning of columns and groups must not change between calls, but there may be more of them.
        """
        parts = (*range(self._n_parts), LINEAR)
        self._part = [torch.from_numpy(np.flatnonzero(features.part == p)) for p in parts]
        self._mean = torch.from_numpy(features.mean)
        self._column = torch.from_numpy(features.column)
        self._group = torch.from_numpy(features.group)
        self._base = torch.from_numpy(features.base)
        self.column_weights = _longer(self.column_weights, int(features.column.max()) + 1)
        self.group_weights = _longer(self.group_weights, int(features.group.max()) + 1)
        self._x, targets = torch.from_numpy(x), torch.from_numpy(y).unsqueeze(-1)
        if steps:
            self._learn(targets, steps)
        with torch.no_grad():
            self.scale = self._scales(self.column_weights, self.group_weights)
            covariance = self._covariance(self._x, self._x, self.scale, self.log_variances)
            self._factor = torch.linalg.cholesky(covariance + self._noise(self.log_variances, len(x)))
            self._targets = targets
            self._residual = targets - self._expected(self._x, self.scale, self.log_variances)
            self._weights = torch.cholesky_solve(self._residual, self._factor)

    def fitted(self) -> np.ndarray:
        """Means ``[N]`` of the predictions for the networks of the last fit: their values less the noise."""
        noise = math.exp(float(self.log_variances[-1])) + JITTER
        return (self._targets - noise * self._weights).squeeze(-1).numpy()

    @cpu_threads(1)
    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[C]`` of the values of ``x`` ``[C, F]``, without noise."""
        with torch.no_grad():
            z = torch.from_numpy(x)
            across = self._covariance(z, self._x, self.scale, self.log_variances)
            mean = (across @ self._weights + self._expected(z, self.scale, self.log_variances)).squeeze(-1)
            explained = torch.linalg.solve_triangular(self._factor, across.T, upper=False).square().sum(dim=0)
            linear = (z * self.scale)[:, self._part[-1]].square().sum(dim=1)
            variances = self.log_variances.exp()
            prior_variance = variances[: self._n_parts].sum() + variances[-2] + variances[-3] * linear
            variance = prior_variance - explained
        return mean.numpy(), variance.clamp(min=1e-9).sqrt().numpy()

    @cpu_threads(1)
    def sample(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Values ``[C]`` at ``x`` ``[C, F]`` of one function drawn from the posterior (Thompson sampling)."""
        with torch.no_grad():
            z = torch.from_numpy(x)
            across = self._covariance(z, self._x, self.scale, self.log_variances)
            half = torch.linalg.solve_triangular(self._factor, across.T, upper=False)
            covariance = self._covariance(z, z, self.scale, self.log_variances) - half.T @ half
            factor = torch.linalg.cholesky(covariance + 1e-5 * torch.eye(len(z), dtype=torch.float64))
            mean = (across @ self._weights + self._expected(z, self.scale, self.log_variances)).squeeze(-1)
            return (mean + factor @ torch.from_numpy(rng.standard_normal(len(z)))).numpy()

    def attention(self, x: np.ndarray) -> None:
        """None: only an `ensemble.Ensemble` of transformers has attention."""

    @property
    def evidence(self) -> float:
        """Logarithm of the density of the values and of the learned parameters, but for constants."""
        fit = float((self._residual * self._weights).sum())
        return -0.5 * fit - float(self._factor.diagonal().log().sum()) - 0.5 * float(self._penalty())

    def leave_one_out(self) -> np.ndarray:
        """Errors ``[N]`` of the predictions of each value from all others, in deviations.

        After Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, section 5.4.2.
        """
        precision = torch.cholesky_inverse(self._factor).diagonal()
        return (self._weights.squeeze(-1) / precision.sqrt()).numpy()

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on a value."""
        return math.sqrt(math.exp(float(self.log_variances[-1])) + JITTER)

    def _learn(self, targets: Tensor, steps: int) -> None:
        """Take steps of Adam (Kingma and Ba, 2015), written out: importing that of PyTorch takes seconds."""
        learned = [self.column_weights, self.group_weights, self.log_variances]
        moments = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in learned]
        for step in range(1, steps + 1):
            for tensor, gradient, (first, second) in zip(
                learned, self.gradients(targets), moments, strict=True
            ):
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient.square(), 0.001)
                size = (second / (1 - 0.999**step)).sqrt() + 1e-8
                tensor -= _LEARNING_RATE / (1 - 0.9**step) * first / size

    def gradients(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the negative `evidence`, for values ``[N, 1]``, as of the last fit.

        They are those by the weights of columns and groups, and by the variances, and are written out because
        differentiating the kernel automatically takes three times as long. After Rasmussen and Williams,
        2006, equation 5.9: that by the covariance is (K^-1 - K^-1 y y^T K^-1) / 2.
        """
        scale = self._scales(self.column_weights, self.group_weights)
        variances, a = self.log_variances.exp(), self._x * scale
        *parts, linear = self._part
        covariance = torch.full((len(a), len(a)), float(variances[-2]), dtype=torch.float64)
        kernels, slopes = [], []  # of each part: its kernel, and its derivative by the squared distance
        for p, part in enumerate(parts):
            kernel, slope = _matern_with_slope(a[:, part])
            covariance += variances[p] * kernel
            kernels.append(kernel)
            slopes.append(slope)
        b = a[:, linear]
        products = b @ b.T
        covariance += variances[-3] * products
        covariance.diagonal().add_(variances[-1] + JITTER)
        factor = torch.linalg.cholesky(covariance)
        expected = self._expected(self._x, scale, self.log_variances)
        weights = torch.cholesky_solve(targets - expected, factor)  # [N, 1]
        by_covariance = (torch.cholesky_inverse(factor) - weights @ weights.T) / 2

        by_variances = self.log_variances - self._log_variances0
        by_scale = torch.zeros_like(scale)  # by the logarithms of the weights of the features
        for p, part in enumerate(parts):
            by_variances[p] += variances[p] * (by_covariance * kernels[p]).sum()
            by_distance = variances[p] * by_covariance * slopes[p]
            z = a[:, part]
            by_scale[part] = 2 * (by_distance.sum(dim=0) @ z.square() - (z * (by_distance @ z)).sum(dim=0))
        by_variances[-3] += variances[-3] * (by_covariance * products).sum()
        by_variances[-3] -= (weights * expected).sum() / 2
        by_variances[-2] += variances[-2] * by_covariance.sum()
        by_variances[-1] += variances[-1] * by_covariance.trace()
        by_scale[linear] = variances[-3] * (b * (by_covariance @ b)).sum(dim=0)
        slope_of_mean = (0.5 * self.log_variances[-3]).exp() * self._mean[linear]
        by_scale[linear] -= (weights * b).sum(dim=0) * slope_of_mean / 2

        by_columns = (4 * self.column_weights).index_add(0, self._column, by_scale)
        by_groups = self.group_weights.index_add(0, self._group, by_scale)
        return by_columns, by_groups, by_variances

    def _penalty(self) -> Tensor:
        """Normal priors, with standard deviation 1 for groups and variances, and 0.5 for columns."""
        return (
            (self.group_weights**2).sum()
            + 4 * (self.column_weights**2).sum()
            + ((self.log_variances - self._log_variances0) ** 2).sum()
        )

    def _scales(self, columns: Tensor, groups: Tensor) -> Tensor:
        """``[F]`` square roots of the weights."""
        return (0.5 * (self._base + columns[self._column] + groups[self._group])).exp()

    def _covariance(self, x: Tensor, z: Tensor, scale: Tensor, variances: Tensor) -> Tensor:
        a, b = x * scale, z * scale
        covariance = variances[-2].exp()
        *parts, linear = self._part
        for p, part in enumerate(parts):
            if len(part):
                covariance = covariance + variances[p].exp() * _matern(a[:, part], b[:, part])
            else:
                covariance = covariance + variances[p].exp()
        if len(linear):
            covariance = covariance + variances[-3].exp() * a[:, linear] @ b[:, linear].T
        return covariance * x.new_ones(len(x), len(z))

    def _expected(self, x: Tensor, scale: Tensor, variances: Tensor) -> Tensor:
        """Prior mean m(x), ``[N, 1]``."""
        linear = self._part[-1]
        mean = (x * scale)[:, linear] @ self._mean[linear]
        return ((0.5 * variances[-3]).exp() * mean).unsqueeze(-1)

    @staticmethod
    def _noise(variances: Tensor, n: int) -> Tensor:
        return (variances[-1].exp() + JITTER) * torch.eye(n, dtype=torch.float64)


def _matern(a: Tensor, b: Tensor) -> Tensor:
    squared = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * a @ b.T
    distance = (5 * squared.clamp(min=1e-12)).sqrt()
    return (1 + distance + distance.square() / 3) * (-distance).exp()


def _matern_with_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel ``[N, N]`` among rows ``[N, F]``, and its derivative by the squared distance."""
    if not a.shape[1]:
        return a.new_ones(len(a), len(a)), a.new_zeros(len(a), len(a))
    squares = a.square().sum(dim=1)
    distance = (squares[:, None] + squares - 2 * a @ a.T).clamp_(min=1e-12).mul_(5).sqrt_()
    decay = (-distance).exp_()
    slope = (1 + distance) * decay
    kernel = torch.addcmul(slope, distance.square_(), decay, value=1 / 3)
    return kernel, slope.mul_(-5 / 6)


def _longer(values: Tensor, n: int) -> Tensor:
    return torch.cat([values, values.new_zeros(max(n - len(values), 0))])
