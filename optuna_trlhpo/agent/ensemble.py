"""Critic that is an ensemble of trained networks, whose members disagree where little is known.

Notation: N networks with a known value, C candidates, B rows of a batch, F features of a network, T tokens,
W width of a token, M members.

Members differ in their initial weights, in a frozen random network that is added to each (Osband et al.,
"Randomized prior functions", 2018), and in the networks that each learns from (bootstrap). The average of
their predictions is the mean, their spread the deviation (Lakshminarayanan et al., "Deep ensembles", 2017).

It has the methods of `GaussianProcess`. But a Gaussian process is conditioned anew, and an ensemble is
trained further from its current weights: new features get weights of their own, and no other weight changes
for them. The members of perceptrons share nothing. Those of a transformer share its body, and so they
disagree less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads, making_modules
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.gaussian_process import Features
from optuna_trlhpo.agent.transformer import Block

BODIES = ("perceptron", "transformer")
_HIDDEN = 256, 64
"""Hidden units of a perceptron's layers. A wide first layer gives smoother functions."""
_START = 0.1
"""Scale of a perceptron's last weights, small so that an untrained one hardly changes the expectation."""
_MEMBER_SHARE = 0.7
"""Share of the networks that each member learns from."""
_NOISE = 0.5
"""Noise of the values before anything is learned."""
_LEAST_DEVIATION = 1e-4
_BODY, _PRIOR, _MEMBERS, _BATCHES = range(4)
"""Streams of random numbers."""


class Ensemble:
    """Ensemble whose members each predict the value of a network.

    Args:
        config: Settings of the agent. Used are ``n_critics`` (M), ``prior_scale``, ``critic_learning_rate``
            and, by the transformer, ``width``, ``heads``, ``blocks`` and ``expansion``.
        body: "perceptron", which reads all features at once, or "transformer", which reads parameters.
        seed: Random seed.

    Attributes:
        body: What the members learn with.
        prior: Random function that is added to it, and never trained.

    Raises:
        ValueError: If ``body`` is unknown.

    Examples:
        >>> features = Features(*np.zeros((3, 1), dtype=np.int64), base=np.zeros(1), mean=np.zeros(1))
        >>> ensemble = Ensemble(AgentConfig())
        >>> ensemble.fit(np.array([[0.0], [1.0], [2.0]]), np.array([-1.0, 0.0, 1.0]), features, steps=30)
        >>> mean, deviation = ensemble.predict(np.array([[1.5], [9.0]]))
        >>> bool(0 < mean[0] < 1), bool(deviation[1] > deviation[0])
        (True, True)
    """

    UPDATES_PER_STEP = 5
    """Updates per step of `fit`: one update achieves less than one step of learning a kernel."""

    def __init__(self, config: AgentConfig, *, body: str = "perceptron", seed: int = 0) -> None:
        if body not in BODIES:
            raise ValueError(f"body is {body!r}; it must be one of {', '.join(BODIES)}")
        self._config = config
        self._seed = seed
        self.body: Perceptrons | ParameterTransformer
        if body == "perceptron":
            self.body = Perceptrons(config.n_critics, gain=_START, seed=(seed, _BODY))
        else:
            self.body = ParameterTransformer(config, seed=(seed, _BODY))
        self.prior = Perceptrons(config.n_critics, gain=1.0, seed=(seed, _PRIOR))  # never trained
        self._batches = np.random.default_rng((seed, _BATCHES))
        self._scale = self._mean = torch.zeros(0)
        self._noise = _NOISE
        self._known = np.zeros((0, 0))
        self._features: Features | None = None  # of the last fit

    def __reduce__(self) -> tuple[Any, ...]:  # weights as safetensors: reading them executes no code
        weights = {f"body.{key}": tensor for key, tensor in self.body.state_dict().items()}
        weights |= {f"prior.{key}": tensor for key, tensor in self.prior.state_dict().items()}
        state = self._features, self._known, self._noise, dict(self._batches.bit_generator.state)
        body = "perceptron" if isinstance(self.body, Perceptrons) else "transformer"
        return Ensemble.restored, (self._config, body, self._seed, *state, save(weights))

    @classmethod
    def restored(
        cls,
        config: AgentConfig,
        body: str,
        seed: int,
        features: Features | None,
        known: np.ndarray,
        noise: float,
        batches: Mapping[str, Any],
        weights: bytes,
    ) -> Ensemble:
        """Ensemble as it was after its last fit.

        Args:
            config: Settings of the agent.
            body: As in the class.
            seed: As in the class.
            features: Features of the last fit; None before the first one.
            known: ``[N, F]`` networks of the last fit.
            noise: Noise that it has learned.
            batches: State of the generator of batches.
            weights: Weights in the format of safetensors.

        Raises:
            ValueError: If they are not those of such an ensemble.
        """
        stored = load(weights)
        ensemble = cls(config, body=body, seed=seed)
        ensemble._batches.bit_generator.state = batches
        if features is not None:
            ensemble._prepare(known, features, most=max(map(len, stored.values()), default=0))
        ensemble._noise = noise
        for name, module in (("body", ensemble.body), ("prior", ensemble.prior)):
            mine = {key.removeprefix(f"{name}."): stored[key] for key in stored if key.startswith(f"{name}.")}
            module.load_state_dict(mine)
        return ensemble

    def _prepare(self, x: np.ndarray, features: Features, *, most: int | None = None) -> None:
        """Grow the networks to the features; ``most`` is the largest number of them, columns and groups."""
        if most is not None:
            largest = [int(numbers.max(initial=-1)) for numbers in features[1:3]]
            if max(len(features.column), *largest) > most or min(map(int, features.column), default=0) < 0:
                raise ValueError(f"features are numbered up to {max(largest)}; at most {most} are known")
        self._known, self._features = x, features
        self._scale = torch.from_numpy(np.exp(0.5 * features.base)).float()
        self._mean = torch.from_numpy(features.mean).float()
        self.body.grow(features)
        self.prior.grow(features)

    @cpu_threads(1)
    def fit(self, x: np.ndarray, y: np.ndarray, features: Features, *, steps: int) -> None:
        """Learn for ``steps`` from networks ``x`` ``[N, F]`` with values ``y`` ``[N]``.

        The values have about mean 0 and deviation 1. Without steps nothing is learned. The number of a row
        determines the members that learn from it. The meaning of columns and groups must not change between
        calls, but there may be more of them.
        """
        self._prepare(x, features)
        if steps and len(x):
            self._learn(self._scaled(x), torch.from_numpy(y).float(), steps)

    def fitted(self) -> np.ndarray:
        """Means ``[N]`` of the members' predictions for the networks of the last fit."""
        return self.values(self._known).mean(axis=1)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[C]`` of the members' predictions for ``x`` ``[C, F]``."""
        values = self.values(x)
        deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
        return values.mean(axis=1), np.maximum(deviation, _LEAST_DEVIATION)

    def sample(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Predictions ``[C]`` of one random member for ``x`` ``[C, F]`` (Thompson sampling)."""
        return self.values(x)[:, rng.integers(self._config.n_critics)]

    @cpu_threads(1)
    @torch.no_grad()
    def attention(self, x: np.ndarray) -> np.ndarray | None:
        """Attention weights of the members as they judge ``x`` ``[C, F]``: ``[C, H, 1 + columns]``.

        They are the weights of the query token and of each parameter, 0 for a parameter that a network does
        not have. H counts the heads of all blocks, one block after the other. None for a body without
        attention.
        """
        if not isinstance(self.body, ParameterTransformer):
            return None
        return self.body.attention(self._scaled(x)).double().numpy()

    @property
    def evidence(self) -> None:
        """None: only a `gaussian_process.GaussianProcess` has it."""

    def leave_one_out(self) -> None:
        """None: only a `gaussian_process.GaussianProcess` has it."""

    @property
    def noise(self) -> float:
        """Standard deviation of the values from the members' predictions, at the end of the last fit."""
        return self._noise

    @cpu_threads(1)
    @torch.no_grad()
    def values(self, x: np.ndarray) -> np.ndarray:
        """Predictions ``[C, M]`` of the members."""
        z = self._scaled(x)
        return (self.body(z) + self._given(z)).double().numpy()

    def _scaled(self, x: np.ndarray) -> Tensor:
        """Features in units in which they are expected to matter equally, as in a kernel."""
        return torch.from_numpy(x).float() * self._scale

    def _given(self, z: Tensor) -> Tensor:
        """``[C, M]`` part that is not learned: the mean expected beforehand, and a random function."""
        return (z @ self._mean).unsqueeze(-1) + self._config.prior_scale * self.prior(z)

    def _learn(self, z: Tensor, y: Tensor, steps: int) -> None:
        with torch.no_grad():
            targets = y.unsqueeze(-1) - self._given(z)  # [N, M]
        mask = torch.from_numpy(self.members(len(z))).float()
        # The rate falls to 0 in each call, so that the weights have converged wherever learning ends.
        n_updates, rate = steps * self.UPDATES_PER_STEP, self._config.critic_learning_rate
        optimizer = torch.optim.AdamW(
            self.body.parameters(), lr=rate, weight_decay=self.body.weight_decay, fused=True
        )
        for update in range(n_updates):
            optimizer.param_groups[0]["lr"] = rate * (1 - update / n_updates)
            rows = torch.from_numpy(self._batches.permutation(len(z))[: self.body.batch_size])
            errors = (self.body(z[rows]) - targets[rows]).square()  # [B, M]
            loss = (mask[rows] * errors).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            errors = (self.body(z) - targets).square()
        self._noise = max(math.sqrt(float((mask * errors).sum() / mask.sum())), _LEAST_DEVIATION)

    def members(self, n: int) -> np.ndarray:
        """``[N, M]`` whether a member learns from a row, whatever the number of rows that follow."""
        drawn = np.random.default_rng((self._seed, _MEMBERS)).random((n, self._config.n_critics))
        return (drawn < _MEMBER_SHARE) | (drawn == drawn.min(axis=1, keepdims=True))  # at least one per row


class Perceptrons(nn.Module):
    """M perceptrons, evaluated together: ``[B, F]`` to ``[B, M]``.

    Args:
        n_members: M.
        gain: Scale of the last weights; with 1 the outputs have a deviation of about 1.
        seed: Random seed of the weights.
    """

    batch_size = 128
    weight_decay = 0.0

    def __init__(self, n_members: int, *, gain: float, seed: Sequence[int]) -> None:
        super().__init__()
        first, second = _HIDDEN
        rng = np.random.default_rng((*seed, 0))
        self.inputs = Rows((n_members, first), seed=(*seed, 1))  # a row is a feature
        self.inputs_bias = _drawn(rng, (n_members, first))
        self.hidden = _drawn(rng, (n_members, first, second), std=1 / math.sqrt(first))
        self.hidden_bias = nn.Parameter(torch.zeros(n_members, 1, second, dtype=torch.float32))
        self.output = _drawn(rng, (n_members, second, 1), std=gain / math.sqrt(second))
        self.output_bias = nn.Parameter(torch.zeros(n_members, dtype=torch.float32))

    def grow(self, features: Features) -> None:
        """Add weights for features that are new."""
        self.inputs.grow(len(features.column))

    def forward(self, x: Tensor) -> Tensor:
        h = (x @ self.inputs.weight.flatten(1)).view(len(x), *self.inputs_bias.shape)  # [B, M, first]
        h = torch.tanh(h + self.inputs_bias).transpose(0, 1)  # [M, B, first]
        h = torch.tanh(torch.baddbmm(self.hidden_bias, h, self.hidden))  # [M, B, second]
        return (h @ self.output).squeeze(-1).T + self.output_bias


class ParameterTransformer(nn.Module):
    """Transformer over the parameters of a network: ``[B, F]`` to ``[B, M]``.

    A token is a parameter (a column): the sum of its features, each times a learned vector, of an embedding
    of its name (its group) and of an embedding of its column. A network has tokens only for the parameters
    that it has. One more token is the query; M heads predict values from its output.
    """

    batch_size = 32
    weight_decay = 0.3  # without it, the first few networks keep too much influence
    features: Tensor  # [columns, K] features of each column, K as the largest has; F where there are fewer
    groups: Tensor  # [columns]

    def __init__(self, config: AgentConfig, *, seed: Sequence[int]) -> None:
        super().__init__()
        M, W = config.n_critics, config.width
        rng = np.random.default_rng((*seed, 0))
        self.feature, self.column, self.group = (Rows((W,), seed=(*seed, k)) for k in (1, 2, 3))
        self.query = _drawn(rng, (W,))
        with making_modules(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
            self.norm = nn.LayerNorm(W)
            self.head = nn.Sequential(nn.Linear(W, M * W), nn.GELU())
        self.output = _drawn(rng, (M, W), std=1 / math.sqrt(W))
        self.output_bias = nn.Parameter(torch.zeros(M, dtype=torch.float32))

    def grow(self, features: Features) -> None:
        """Add weights for features, columns and groups that are new."""
        F, counts = len(features.column), np.bincount(features.column)
        self.groups = torch.zeros(len(counts), dtype=torch.int64)
        self.groups[features.column] = torch.from_numpy(features.group)
        self.features = torch.full((len(counts), int(counts.max(initial=0))), F)
        for column in range(len(counts)):
            self.features[column, : counts[column]] = torch.from_numpy(
                np.flatnonzero(features.column == column)
            )
        self.feature.grow(F)
        self.column.grow(len(counts))
        self.group.grow(int(features.group.max(initial=-1)) + 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens, there, _ = self.tokens_of(x)
        answer, _ = self._ask(tokens, there)
        h = self.head(self.norm(answer)).view(len(x), *self.output.shape)  # [B, M, W]
        return (h * self.output).sum(dim=-1) + self.output_bias

    def attention(self, x: Tensor) -> Tensor:
        """Attention weights of the query, as in `Ensemble.attention`."""
        tokens, there, which = self.tokens_of(x)
        _, weights = self._ask(tokens, there)
        asking = torch.cat([block[:, :, 0] for block in weights], dim=1)  # [B, blocks * H, 1 + T]
        of_columns = asking.new_zeros(*asking.shape[:2], len(self.groups))
        of_columns.scatter_(2, which.unsqueeze(1).expand_as(asking[..., 1:]), asking[..., 1:])
        return torch.cat([asking[..., :1], of_columns], dim=2)

    def _ask(self, tokens: Tensor, there: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Output of the query token, ``[B, W]``, and weights ``[B, H, 1 + T, 1 + T]`` of each block."""
        tokens = torch.cat([self.query.expand(len(tokens), 1, -1), tokens], dim=1)  # [B, 1 + T, W]
        visible = nn.functional.pad(there, (1, 0), value=True).unsqueeze(1)  # [B, 1, 1 + T], same for all
        weights = []
        for block in self.blocks:
            tokens, w = block(tokens, visible)
            weights.append(w)
        return tokens[:, 0], weights

    def tokens_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``[B, T, W]``, whether each is present ``[B, T]``, and their columns ``[B, T]``.

        T is the largest number of tokens in a row, far below the number of columns: time grows with T
        squared.
        """
        values = nn.functional.pad(x, (0, 1))[:, self.features]  # [B, columns, K]
        vectors = nn.functional.pad(self.feature.weight, (0, 0, 0, 1))[self.features]  # [columns, K, W]
        tokens = torch.bmm(values.transpose(0, 1), vectors).transpose(0, 1)  # [B, columns, W]
        tokens = tokens + self.column.weight + self.group.weight[self.groups]
        present = (values != 0).any(dim=-1)  # [B, columns]
        there, which = present.int().sort(dim=1, descending=True, stable=True)
        T = int(there.sum(dim=1).max()) if len(x) else 0
        which = which[:, :T]
        chosen = tokens.gather(1, which.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        return chosen, there[:, :T].bool(), which


class Rows(nn.Module):
    """Learned matrix that grows by rows; the initial values of a row do not depend on when it is added.

    Args:
        shape: Shape of a row.
        seed: Random seed of the initial values, which have deviation 1.
    """

    def __init__(self, shape: tuple[int, ...], *, seed: Sequence[int]) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(torch.zeros(0, *shape, dtype=torch.float32))

    def grow(self, n: int) -> None:
        """Add rows until there are ``n``."""
        more = n - len(self.weight)
        if more > 0:
            drawn = _drawn(self._rng, (more, *self.weight.shape[1:]))
            self.weight = nn.Parameter(torch.cat([self.weight.detach(), drawn.detach()]))


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], std: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(std * rng.standard_normal(shape)).float())
