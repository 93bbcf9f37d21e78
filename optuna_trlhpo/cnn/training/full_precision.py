"""Convolutions of a GPU in all 32 bits, while a network is trained or evaluated.

By default PyTorch lets cuDNN round the inputs of convolutions and recurrent layers to TF32, with 10 bits of
mantissa instead of 23.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch

_USERS = threading.Lock()
_users = 0
_restore: Callable[[], None] | None = None


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Forbid TF32 in cuDNN within the context. On other devices than a GPU of CUDA nothing is done.

    The setting is one of the process. So the first thread that enters changes it, and the last one that
    leaves restores it. Matrix products are left alone: in them TF32 is off unless the user turns it on.
    """
    global _users, _restore
    if device.type != "cuda":
        yield
        return
    with _USERS:
        if _users == 0:
            _restore = _forbid_tf32()
        _users += 1
    try:
        yield
    finally:
        with _USERS:
            _users -= 1
            if _users == 0 and _restore is not None:
                _restore()
                _restore = None


def _forbid_tf32() -> Callable[[], None]:
    """Turn TF32 off in cuDNN, and return a function that restores the settings."""
    cudnn = torch.backends.cudnn
    # Since PyTorch 2.9 each operation has a setting of its own, beside the older one for both.
    operations = [it for it in (getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)) if it is not None]
    before = [operation.fp32_precision for operation in operations]
    allowed: bool | None = None
    with contextlib.suppress(RuntimeError):  # raised if the user has used the newer settings
        allowed = cudnn.allow_tf32
    # The older setting is changed too. Otherwise whoever reads it meanwhile, such as
    # torch.backends.cudnn.flags, would get an error, because the two disagree.
    cudnn.allow_tf32 = False
    for operation in operations:
        if operation.fp32_precision == "tf32":  # inherited from torch.backends.fp32_precision
            operation.fp32_precision = "ieee"

    def restore() -> None:
        if allowed is not None:
            cudnn.allow_tf32 = allowed
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision

    return restore
