"""Memory that the process has freed, and the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes


def return_free_memory() -> None:
    """Return freed memory to the operating system, where the C library is glibc.

    Small objects that stay, between large ones that are freed, keep it from doing so itself, and most of the
    memory of a process is free in the end. It takes some milliseconds.

    Examples:
        >>> return_free_memory()
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)
