"""PyTorch's global random generator, which all threads share, borrowed for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_BORROWED = threading.Lock()


@contextlib.contextmanager
def global_generator(seed: int | None = None) -> Iterator[None]:
    """Let one thread draw from the global generator, seeded if a ``seed`` is given, and restore it then.

    Example:
        >>> with global_generator(seed=0):
        ...     first = torch.rand(1)
        >>> with global_generator(seed=0):
        ...     bool(first == torch.rand(1))
        True
    """
    with _BORROWED, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
