"""PyTorch's global random generator, which all threads share, borrowed for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_BORROWED = threading.Lock()


@contextlib.contextmanager
def global_generator(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Let one thread draw from the global generator, seeded if a ``seed`` is given, and restore it then.

    If the ``device`` is a GPU, the same holds for its generator.

    Examples:
        >>> with global_generator(seed=0):
        ...     first = torch.rand(1)
        >>> with global_generator(seed=0):
        ...     bool(first == torch.rand(1))
        True
    """
    on_gpu = device is not None and device.type == "cuda"
    with _BORROWED, torch.random.fork_rng(devices=[device] if on_gpu else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
        yield
