"""Context managers that isolate the package's PyTorch code from the settings of the user's code."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_own = threading.local()
"""``depth``: number of contexts of `cpu_threads` that the calling thread is in."""
_n_contexts = 0
"""Number of contexts of all threads."""
_n_outside = 1
"""Number of threads of PyTorch before the first of these contexts."""


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Run PyTorch on this number of CPU threads within the context.

    Networks this small are several times slower on many threads, above all where the cores have other work,
    because the threads wait for one another at every operation. With one thread, rounding does not depend on
    the number of cores either.

    PyTorch has a number for each calling thread, and a new thread begins with the number that any thread has
    set last. So a thread that enters while others are inside may see their number: it restores the number of
    before all of them.
    """
    global _n_contexts, _n_outside
    with _lock:
        depth = getattr(_own, "depth", 0)
        before = torch.get_num_threads() if depth or not _n_contexts else _n_outside
        if not _n_contexts:
            _n_outside = before
        _n_contexts += 1
        _own.depth = depth + 1
        _set_threads(threads)
    try:
        yield
    finally:
        with _lock:
            _n_contexts -= 1
            _own.depth = depth
            _set_threads(before)


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Run PyTorch on one thread and the CPU, with gradients enabled.

    This holds even if the study runs inside ``no_grad`` or ``inference_mode``, or with another default
    device. The default dtype is left alone, since it is global to the process: tensors are created with an
    explicit dtype, and modules inside `making_modules`.
    """
    with cpu_threads(1), torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
        # `get_default_device` of torch 2.6 and 2.7 overlooks `with torch.device(...)`, and fails after
        # `set_default_device(None)`.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def making_modules() -> Iterator[None]:
    """Create modules with 32-bit parameters, whatever the default dtype is."""
    before = torch.get_default_dtype()
    if before != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        if before != torch.float32:
            torch.set_default_dtype(before)
