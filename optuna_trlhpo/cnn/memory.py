"""Recognition of errors that mean that memory ran out, on the device or on the host."""

from __future__ import annotations

import re

import torch

_MESSAGES = re.compile(
    # GPUs of any make: from PyTorch's allocator, or from the driver ("CUDA error: out of memory")
    r"out of memory"
    # the CPU allocator on POSIX systems and on others; operators of C++
    r"|can't allocate memory|not enough memory|bad_alloc"
    # cuBLAS, cuDNN, cuSOLVER, cuSPARSE and cuFFT, and their counterparts of AMD
    r"|alloc(?:ation)?_?failed"
    # Level Zero (XPU) and Metal (MPS)
    r"|out_of_(?:device|host)_memory|ErrorOutOfMemory"
    # cuDNN tries its algorithms one by one and passes over those whose workspace does not fit. Every layer of
    # this package has an algorithm, so this means that none fits.
    r"|unable to find an engine to execute this computation|unable to find a valid cuDNN algorithm",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means that memory ran out.

    `torch.OutOfMemoryError` comes from PyTorch's own allocator of a GPU alone. Drivers, libraries and the CPU
    allocator raise a plain ``RuntimeError``, and Python and NumPy a ``MemoryError``.

    Examples:
        >>> is_out_of_memory(RuntimeError("CUDA error: out of memory"))
        True
        >>> is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None
