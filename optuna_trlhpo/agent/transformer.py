"""Transformer networks of actor and critic.

Notation
    B  batch              S  steps of the state        Q  queries
    A  action slots (4)   P  performance values (32)   N  length of the code of a name
    K  objectives         W  width of a token          H  heads            M  members of the critic

A state is a sequence of known layers, each with its action and its performance. A *query* asks about the next
layer: a critic's query holds the action to be evaluated, an actor's query only the name of the parameter that
is asked for. A query at position k attends to the state's steps before k and to itself; a step attends to
itself and to those before it. So one pass answers for every prefix of a sequence, or ranks many candidates
for one state. Slots that are still empty are masked (they get no attention at all).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig


class Attention(nn.Module):
    """Multi-head self-attention, with one softmax per head over the visible positions."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.n_heads = config.heads
        self.inputs = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[B, T, W]`` and attention ``[B, H, T, T]`` under the mask ``visible`` ``[B, T, T]``."""
        B, T, W = x.shape
        q, k, v = self.inputs(x).view(B, T, 3, self.n_heads, W // self.n_heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(W // self.n_heads)  # [B, H, T, T]
        weights = scores.masked_fill(~visible.unsqueeze(1), -math.inf).softmax(dim=-1)
        heads = (weights @ v).transpose(1, 2).reshape(B, T, W)
        return self.output(heads), weights


class Block(nn.Module):
    """Attention and a feed-forward part, each with a normalisation before it and a residual connection."""

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
        """Outputs ``[B, T, W]`` and attention ``[B, H, T, T]`` under the mask ``visible`` ``[B, T, T]``."""
        attended, weights = self.attention(self.attention_norm(x), visible)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), weights


class Transformer(nn.Module):
    """Transformer that answers queries about a state.

    It returns tokens ``[B, Q, W]`` and attention weights ``[B, H, S + Q, S + Q]`` of each block.
    """

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.query = nn.Parameter(torch.randn(config.width) * 0.02)

    def forward(self, state: Tensor, query: Tensor, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Answers to ``query`` ``[B, Q, W]`` about ``state`` ``[B, S, W]``.

        ``position`` ``[Q]`` is the step that each query asks about. Steps of the state at or after it are
        invisible to the query, so padding needs no mask.
        """
        S, device = state.shape[1], state.device
        positions = torch.cat([torch.arange(S, device=device), position])  # [T]
        is_query = torch.arange(len(positions), device=device) >= S
        # Row i may attend to column j at the steps before it, and at itself.
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


def start_small(layer: nn.Module) -> None:
    """Initialise a last layer so that its outputs are about 0 (Lillicrap et al., 2015, section 7)."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -3e-3, 3e-3)
