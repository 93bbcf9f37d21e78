"""Encoding of the steps of trials as the tensors that actor and critic read.

Notation: B trials, S steps, A action slots, K kinds of a step, P performance values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optuna_trlhpo.agent.actor import Noise
from optuna_trlhpo.agent.tokens import MOST_KINDS
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.layers.bins import bins_of
from optuna_trlhpo.trials.parameters import ParameterSpec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES

_RANK_BINS = (4, 8, 20)
assert sum(_RANK_BINS) == PERFORMANCE_VALUES
_RANK_CENTRES = np.concatenate([(np.arange(n) + 0.5) / n for n in _RANK_BINS])
_RANK_WIDTHS = np.concatenate([np.full(n, 1.0 / n) for n in _RANK_BINS])


def allowed_kinds(slots: Sequence[ParameterSpec]) -> np.ndarray:
    """``[K]`` 1 for the values that the first parameter may have, if it is a category of up to K; else 0."""
    first, allowed = slots[0], np.zeros(MOST_KINDS)
    if first.categorical and first.n_values <= MOST_KINDS:
        allowed[list(range(first.n_values) if first.allowed is None else first.allowed)] = 1
    return allowed


def kinds_of(actions: np.ndarray, n_values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """One-hot kinds ``[B, S, K]`` of steps, 0 where the first parameter is unknown or has no allowed kinds.

    Args:
        actions: ``[B, S]`` actions of the first parameters.
        n_values: ``[B, S]`` their numbers of values.
        allowed: ``[B, S, K]`` as of `allowed_kinds`.
    """
    kinds = np.zeros(allowed.shape)
    known = allowed.any(axis=-1) & ~np.isnan(actions)
    kinds[known] = np.eye(MOST_KINDS)[bins_of(actions[known], n_values[known]).astype(np.int64)]
    return kinds


def in_bins(ranks: np.ndarray) -> np.ndarray:
    """Ranks of any shape ``[...]`` as ``[..., P]``: overlapping bins, coarse and fine."""
    return np.maximum(1 - np.abs(ranks[..., None] - _RANK_CENTRES) / _RANK_WIDTHS, 0)


def make_noise(rng: np.random.Generator, B: int, S: int, *, scale: float = 1.0) -> Noise:
    """Draw noise for actions ``[B, S]`` of the actor."""
    gumbel, normal = rng.gumbel(size=(B, S, MOST_KINDS)), rng.standard_normal((B, S, ACTION_SLOTS))
    return Noise(as_tensor(scale * gumbel), as_tensor(scale * normal))


def as_tensor(array: np.ndarray) -> Tensor:
    """Array as a tensor of single precision."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
