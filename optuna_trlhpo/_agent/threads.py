"""What our own PyTorch code runs under, whatever the user's code has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_n_inside = 0
_n_before = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small are several times slower on many threads, above all where these have other work.

    The number of threads is one for the whole process. It is restored when the last caller of any thread
    leaves.
    """
    global _n_inside, _n_before
    with _lock:
        if _n_inside == 0:
            _n_before = torch.get_num_threads()
            if _n_before != 1:
                torch.set_num_threads(1)
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0 and _n_before != 1:
                torch.set_num_threads(_n_before)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """One thread, and gradients, though the study runs inside ``no_grad`` or ``inference_mode``.

    Default device and default dtype are not set here, for they are the whole process's: tensors are made with
    both.
    """
    with one_thread(), torch.inference_mode(False), torch.enable_grad():
        yield
