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

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig


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
        x = torch.cat([state, query + self.query], dim=1) + sinusoids(positions, state.shape[-1])
        weights = []
        for block in self.blocks:
            x, w = block(x, visible)
            weights.append(w)
        return self.norm(x[:, S:]), weights


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """``[T, W]`` positional encoding (Vaswani et al., 2017, section 3.5)."""
    frequencies = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
        * (-math.log(10_000.0) / width)
    )
    angles = positions.unsqueeze(-1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
