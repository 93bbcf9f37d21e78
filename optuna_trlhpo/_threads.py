"""Context managers that isolate the package's PyTorch code from the settings of the user's code."""

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
    """Run PyTorch on one thread within the context.

    Networks this small are several times slower on many threads, above all where the cores have other work.
    The number of threads is global to the process. It is restored when the last caller, in any thread,
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
def cpu_threads(threads: int) -> Iterator[None]:
    """Within, PyTorch computes with so many threads of the CPU for the calling thread; afterwards as before.

    Networks this small gain next to nothing from a second thread, and where the cores are shared they lose
    tenfold: the threads wait for one another at every operation. With one thread, rounding does not depend
    on the number of cores either.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Run PyTorch on one thread and the CPU, with gradients enabled.

    This holds even if the study runs inside ``no_grad`` or ``inference_mode``, or with another default
    device. The default dtype is left alone, since it is global to the process: tensors are created with an
    explicit dtype, and modules inside `making_modules`.
    """
    with one_thread(), torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
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
