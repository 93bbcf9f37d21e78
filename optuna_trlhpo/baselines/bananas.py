"""`BananasSampler`, with Thompson sampling from an ensemble of small networks that predict a trial's value.

Notation: B trials, C candidates, D features, H width of the networks, M members of the ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor
from torch.nn import functional as F

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._planned import History, PlannedSampler, RivalPlan
from optuna_trlhpo.search_space.model import SpaceModel

_MEMBERS = 5  # M, as in the paper
_HIDDEN = (64, 64)  # H
STEPS = 200  # of Adam, each on all trials
_LEARNING_RATE, _WEIGHT_DECAY = 1e-2, 1e-3
CANDIDATES = 300  # C
_PARENTS = 10
_RANDOM_SHARE = 0.2
"""Share of the candidates that are random; the others are mutations of the best ``_PARENTS`` trials."""
_MORE_MUTATIONS = 0.4
"""Share of the mutations that change one more parameter, and the same share of those another, and so on."""


class BananasSampler(PlannedSampler):
    """Bayesian optimisation with an ensemble of neural predictors.

    After some random trials five small networks are fitted to all trials. Of some hundred candidates, most of
    them mutations of the best ten trials, the best by independent Thompson sampling is tried: the value of
    each candidate is drawn from the normal distribution that the ensemble predicts for it. The networks are
    fitted again every ``update_interval`` trials.

    Source: White, Neiswanger, Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search", AAAI 2021. It differs from the paper, to suit any objective and few trials:

    1. A trial is encoded by its parameters, not by the paths of a cell: categorical ones one-hot, numbers on
       [-1, 1] (logarithmically where they are suggested so) with a 1 that indicates their presence.
    2. The target is the logarithm of a trial's distance to the best one, in units of the median distance and
       with a tenth of it added, standardised. It serves the purpose of the paper's loss, which gives errors
       among good networks more weight, whatever the unit and the direction of the values.
    3. The networks have two hidden layers of 64 units, not ten of 20, and are fitted in 200 steps.
    4. There are 10 trials before the first fit, and 5 between two fits; in the paper 10 and 10.

    In an objective with conditions, the parameters that a candidate will be asked for are also learned.
    Failed trials are ignored; pruned ones count with their last report.

    Args:
        n_startup_trials: Number of random trials at the start; at least 2.
        update_interval: Number of trials after which the networks are fitted again; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(sampler=BananasSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
        >>> study.best_value < 0.001
        True
    """

    def __init__(
        self, *, n_startup_trials: int = 10, update_interval: int = 5, seed: int | None = None
    ) -> None:
        super().__init__(seed=seed)
        check_integer("n_startup_trials", n_startup_trials, least=2)
        check_integer("update_interval", update_interval, least=1)
        self._n_startup_trials = n_startup_trials
        self._update_interval = update_interval
        self._fitted: tuple[Any, Predictor, SpaceModel] | None = None

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        rng = self._generator("plan", trial.number)
        scored = history.scored
        if len(scored) < self._n_startup_trials:
            return RivalPlan(history.random_plan(rng))
        n_new = (len(scored) - self._n_startup_trials) % self._update_interval
        predictor, structure = self._fit(history, scored[: len(scored) - n_new])
        candidates = self._candidates(history, scored, rng)
        predicted = predictor.predict([structure.play(values) for values in candidates])  # [M, C]
        noise = rng.standard_normal(len(candidates))
        drawn = predicted.mean(axis=0) + predicted.std(axis=0) * noise
        for i in np.argsort(-drawn, kind="stable"):
            if not history.repeats(candidates[i]):
                return RivalPlan(candidates[i])
        return RivalPlan(history.random_plan(rng))

    def _candidates(
        self, history: History, scored: Sequence[FrozenTrial], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        parents = sorted(scored, key=history.score, reverse=True)[:_PARENTS]
        n_random = round(_RANDOM_SHARE * CANDIDATES)
        candidates = [history.random_values(rng) for _ in range(n_random)]
        for _ in range(CANDIDATES - n_random):
            parent = parents[rng.integers(len(parents))]
            n_mutations = int(rng.geometric(1 - _MORE_MUTATIONS))
            candidates.append(history.mutation(parent, rng, n_mutations=n_mutations))
        return candidates

    def _fit(self, history: History, trials: Sequence[FrozenTrial]) -> tuple[Predictor, SpaceModel]:
        """Predictor and space model of ``trials``, functions of them and the seed; the last are kept."""
        key = [(trial.number, trial.datetime_start) for trial in trials]
        if self._fitted is None or self._fitted[0] != key:
            targets = targets_of([history.score(trial) for trial in trials])
            seed = int(self._generator("fit", len(trials)).integers(2**62))
            # A pruned trial does not show where it would have ended.
            complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
            self._fitted = key, Predictor(trials, targets, seed), SpaceModel.of(complete or trials)
        return self._fitted[1:]


def targets_of(scores: Sequence[float]) -> np.ndarray:
    """Targets ``[B]`` of the networks: larger for better trials, with finer differences among good ones.

    Examples:
        >>> targets_of([0.0, 0.9, 0.99, 1.0]).round(2).tolist()
        [-1.46, -0.33, 0.64, 1.16]
    """
    values = np.asarray(scores, dtype=float)
    finite = values[np.isfinite(values)]
    if len(finite) == 0 or finite.min() == finite.max():
        return np.zeros(len(values))
    values = np.clip(values, finite.min(), finite.max())
    distances = values.max() - values
    unit = np.median(distances) or distances.max()
    logs = -np.log(0.1 + distances / unit)
    return (logs - logs.mean()) / logs.std()


class Encoder:
    """Encoder of parameters as features ``[., D]``; absent parameters are all zeros.

    A parameter whose range differs between trials is scaled to the union of its ranges.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        distributions: dict[str, list[BaseDistribution]] = {}
        for trial in trials:
            for name, distribution in trial.distributions.items():
                own = distributions.setdefault(name, [])
                if distribution not in own:
                    own.append(distribution)
        self._columns: dict[str, _Column] = {}
        self.n_features = 0  # D
        for name, own in distributions.items():
            self._columns[name] = column = _Column(own, self.n_features)
            self.n_features += column.n_features

    def __call__(self, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Features ``[., D]`` of parameters."""
        features = np.zeros((len(params), self.n_features), dtype=np.float32)
        for row, its in zip(features, params, strict=True):
            for name, value in its.items():
                if name in self._columns:
                    self._columns[name].write(row, value)
        return features


class _Column:
    """Encoding of one parameter: its features and their values."""

    def __init__(self, distributions: Sequence[BaseDistribution], begin: int) -> None:
        self._begin = begin
        self._places: dict[Any, int] = {}
        numbers = [d for d in distributions if isinstance(d, IntDistribution | FloatDistribution)]
        for distribution in distributions:
            if isinstance(distribution, CategoricalDistribution):
                for choice in distribution.choices:
                    self._places.setdefault(choice, len(self._places))
        if self._places:
            self.n_features = len(self._places)
            return
        self.n_features = 2
        self._log = all(distribution.log for distribution in numbers)
        self._low = self._scaled(min(distribution.low for distribution in numbers))
        self._high = self._scaled(max(distribution.high for distribution in numbers))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else float(value)

    def write(self, row: np.ndarray, value: Any) -> None:
        if self._places:
            row[self._begin + self._places[value]] = 1
            return
        row[self._begin] = 1
        if self._high > self._low:
            position = (self._scaled(value) - self._low) / (self._high - self._low)
            row[self._begin + 1] = 2 * min(max(position, 0.0), 1.0) - 1


class Predictor:
    """M networks, fitted together; they differ only in their initial weights, as in the paper.

    Args:
        trials: B trials.
        targets: ``[B]`` targets of these trials.
        seed: Random seed of the initial weights.
    """

    def __init__(self, trials: Sequence[FrozenTrial], targets: np.ndarray, seed: int) -> None:
        self._encoder = Encoder(trials)
        inputs = torch.from_numpy(self._encoder([trial.params for trial in trials]))  # [B, D]
        wanted = torch.from_numpy(targets.astype(np.float32))  # [B]
        generator = torch.Generator().manual_seed(seed)
        sizes = (inputs.shape[1], *_HIDDEN, 1)
        self._weights: list[Tensor] = []
        self._biases: list[Tensor] = []
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            gain = 2.0 if n_out > 1 else 0.5
            weight = torch.randn(_MEMBERS, n_in, n_out, generator=generator) * math.sqrt(gain / max(n_in, 1))
            self._weights.append(weight.requires_grad_())
            self._biases.append(torch.zeros(_MEMBERS, 1, n_out).requires_grad_())
        parameters = [*self._weights, *self._biases]
        optimiser = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        with torch.enable_grad():
            for _ in range(STEPS):
                # Sum over the members, so that each has the gradient that it would have alone.
                loss = (self._forward(inputs) - wanted).square().mean(dim=1).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None

    def predict(self, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Predictions ``[M, C]`` of each member for each candidate."""
        predicted: np.ndarray = self._forward(torch.from_numpy(self._encoder(params))).numpy()
        return predicted

    def _forward(self, inputs: Tensor) -> Tensor:
        x = inputs.expand(_MEMBERS, *inputs.shape)  # [M, B, D]
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            x = F.relu(torch.baddbmm(bias, x, weight))  # [M, B, H]
        return torch.baddbmm(self._biases[-1], x, self._weights[-1]).squeeze(-1)  # [M, B]
