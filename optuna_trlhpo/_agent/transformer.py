"""The networks of actor and critic.

Notation
    B  batch              S  steps of the state        Q  queries
    A  action slots (4)   P  performance values (32)   N  numbers that code a name
    K  objectives         W  width of a token          H  heads            M  members of the critic

A state is a sequence of layers that are known, each with its action and its performance. A *query* asks
about the layer that comes next: the critic's holds the action in question, the actor's holds only the name
of what is asked for. A query at position k sees the state's steps before k, and itself; a step sees itself
and those before it. So one pass answers for every prefix of a sequence, and one pass ranks many candidates
for one state. Slots that are still empty are masked (they get no attention at all).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo._agent.config import AgentConfig

NAME_CODE = 16
"""N: numbers that stand for a name."""
_BINS = 8


class Steps(NamedTuple):
    """Layers, or candidates for one. Positions that hold nothing are 0."""

    actions: Tensor  # [B, S, A] in [0, 1]
    filled: Tensor  # [B, S, A] 1 where there is an action, else 0
    names: Tensor  # [B, S, A, N] codes of the parameters' names
    performance: Tensor  # [B, S, P]
    measured: Tensor  # [B, S] 1 where the performance is known, else 0
    weights: Tensor  # [B, S, K] what this trial weighs the objectives by; K = 0 where there is one alone

    def unmeasured(self) -> Steps:
        """The same, before anything was trained: what a critic is asked about."""
        return self._replace(
            performance=torch.zeros_like(self.performance), measured=torch.zeros_like(self.measured)
        )

    def unfilled(self) -> Steps:
        """Only the name of the first parameter: what an actor is asked for."""
        first = torch.zeros_like(self.filled)
        first[..., 0] = 1
        return self.unmeasured()._replace(
            actions=torch.zeros_like(self.actions),
            filled=torch.zeros_like(self.filled),
            names=self.names * first.unsqueeze(-1),
        )

    def at(self, start: int, stop: int) -> Steps:
        return Steps(*(tensor[:, start:stop] for tensor in self))


class FrozenIMR(nn.Module):
    """Intermediate model representation: tanh(W1 action + W2 performance), random and never trained
    (section IV)."""

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.n_features = n_slots + n_performance + n_weights
        self.linear = nn.Linear(self.n_features, config.width, bias=False)  # W1 and W2 side by side
        self.requires_grad_(False)

    def forward(self, steps: Steps) -> Tensor:
        return torch.tanh(self.linear(self.features(steps)))  # [B, S, W]

    def features(self, steps: Steps) -> Tensor:
        return torch.cat([steps.actions * steps.filled, steps.performance, steps.weights], dim=-1)


class LearnedIMR(nn.Module):
    """Intermediate model representation that is learned, and knows what each slot is called.

    A slot is its action, that action's place among eight overlapping bins (so that a choice among a few can
    be told from its neighbours, and still has a gradient), and its name.
    """

    centres: Tensor

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.n_features = n_slots * (2 + _BINS + NAME_CODE) + n_performance + 1 + n_weights
        self.layers = nn.Sequential(
            nn.Linear(self.n_features, 2 * config.width), nn.GELU(), nn.Linear(2 * config.width, config.width)
        )
        self.register_buffer("centres", (torch.arange(_BINS) + 0.5) / _BINS)

    def forward(self, steps: Steps) -> Tensor:
        return self.layers(self.features(steps))  # [B, S, W]

    def features(self, steps: Steps) -> Tensor:
        bins = torch.relu(1 - _BINS * (steps.actions.unsqueeze(-1) - self.centres).abs())  # [B, S, A, bins]
        filled = steps.filled.unsqueeze(-1)
        slots = torch.cat([filled, filled * steps.actions.unsqueeze(-1), filled * bins, steps.names], dim=-1)
        parts = [slots.flatten(-2), steps.performance, steps.measured.unsqueeze(-1), steps.weights]
        return torch.cat(parts, dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention; one softmax per head, over what may be attended to."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.n_heads = config.heads
        self.inputs = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        B, T, W = x.shape
        q, k, v = self.inputs(x).view(B, T, 3, self.n_heads, W // self.n_heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(W // self.n_heads)  # [B, H, T, T]
        weights = scores.masked_fill(~visible.unsqueeze(1), -math.inf).softmax(dim=-1)
        heads = (weights @ v).transpose(1, 2).reshape(B, T, W)
        return self.output(heads), weights


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a normalisation and added to what came in."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.expansion * config.width),
            nn.GELU(),
            nn.Linear(config.expansion * config.width, config.width),
        )

    def forward(self, x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        attended, weights = self.attention(self.attention_norm(x), visible)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), weights


class Transformer(nn.Module):
    """Answers queries about a state: tokens ``[B, Q, W]`` and attention weights ``[B, H, S + Q, S + Q]``
    per block."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.query = nn.Parameter(torch.randn(config.width) * 0.02)

    def forward(self, state: Tensor, query: Tensor, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``state`` ``[B, S, W]``, ``query`` ``[B, Q, W]``, ``position`` ``[Q]``: the step each query asks
        about.

        Steps of the state at or behind a query's position are invisible to it, so padding needs no mask.
        """
        S, device = state.shape[1], state.device
        positions = torch.cat([torch.arange(S, device=device), position])  # [T]
        is_query = torch.arange(len(positions), device=device) >= S
        # Row i may look at column j: at steps before it, and at itself.
        earlier = (positions[None, :] < positions[:, None]) & ~is_query[None, :]
        visible = (earlier | torch.eye(len(positions), dtype=torch.bool, device=device)).unsqueeze(0)
        x = torch.cat([state, query + self.query], dim=1) + _sinusoids(positions, state.shape[-1])
        weights = []
        for block in self.blocks:
            x, w = block(x, visible)
            weights.append(w)
        return self.norm(x[:, S:]), weights


def _sinusoids(positions: Tensor, width: int) -> Tensor:
    """``[T, W]`` positional encoding (Vaswani et al., 2017, section 3.5)."""
    frequencies = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
        * (-math.log(10_000.0) / width)
    )
    angles = positions.unsqueeze(-1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class Actor(nn.Module):
    """mu(state): the next layer's action, in [0, 1] (section IV)."""

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.imr = _make_imr(config, n_slots, n_performance, n_weights)
        self.body = Transformer(config)
        self.head = nn.Linear(config.width, n_slots)

    def forward(self, state: Steps, query: Steps, position: Tensor) -> Tensor:
        return self.explain(state, query, position)[0]  # [B, Q, A]

    def explain(self, state: Steps, query: Steps, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same, and the attention weights ``[B, H, S + Q, S + Q]`` of each block."""
        answer, weights = self.body(self.imr(state), self.imr(query.unfilled()), position)
        return torch.sigmoid(self.head(answer)), weights


class Critic(nn.Module):
    """Q(state, action) in [-1, 1] (section IV), by M members that share a body."""

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.imr = _make_imr(config, n_slots, n_performance, n_weights)
        self.body = Transformer(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.n_critics)
        )
        self.prior_scale = config.prior_scale
        if config.prior_scale:
            self.prior = nn.Sequential(
                nn.Linear(self.imr.n_features, config.width),
                nn.Tanh(),
                nn.Linear(config.width, config.n_critics),
            )
            for layer, gain in ((self.prior[0], 2.0), (self.prior[2], 1.0)):  # values that differ by about 1
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
            self.prior.requires_grad_(False)

    def forward(self, state: Steps, query: Steps, position: Tensor) -> Tensor:
        return self.explain(state, query, position)[0]  # [B, Q, M]

    def explain(self, state: Steps, query: Steps, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same, and the attention weights ``[B, H, S + Q, S + Q]`` of each block."""
        query = query.unmeasured()
        answer, weights = self.body(self.imr(state), self.imr(query), position)
        value = self.head(answer)
        if self.prior_scale:
            value = value + self.prior_scale * self.prior(self.imr.features(query))
        return torch.tanh(value), weights


def _make_imr(
    config: AgentConfig, n_slots: int, n_performance: int, n_weights: int
) -> FrozenIMR | LearnedIMR:
    cls = LearnedIMR if config.learned_imr else FrozenIMR
    return cls(config, n_slots=n_slots, n_performance=n_performance, n_weights=n_weights)
