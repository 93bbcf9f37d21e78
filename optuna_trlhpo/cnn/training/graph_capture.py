"""Capture of CUDA graphs beside other threads, and what must not happen meanwhile.

While a graph is captured, PyTorch's allocator and the default generator of the GPU are in a special state. So
one thread captures at a time, and no thread of this package empties the cache of the allocator or draws from
the default generator then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch

from optuna_trlhpo.cnn.training.global_generator import global_generator

_CAPTURING = threading.Lock()
"""Lock that allows one capture at a time. Other threads may compute meanwhile."""

_STREAMS = 32
"""Number of different streams of a GPU that PyTorch hands out, in turn."""

_IN_USE: set[torch.cuda.Stream] = set()
_CHANGED = threading.Condition()

_ABANDONED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed in a PyTorch that does not clean up behind it.

Its allocator of pinned memory may go on asking them whether a stream is theirs, so they are not destroyed.
"""


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the computations of the calling thread on a GPU stream of its own, which overlaps with others.

    The stream is synchronised at the end of the context. On a CPU nothing is done.
    """
    if device.type != "cuda":
        yield
        return
    stream = _reserved_stream(device)
    try:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield
    finally:
        try:
            stream.synchronize()
        finally:
            with _CHANGED:
                _IN_USE.discard(stream)
                _CHANGED.notify_all()  # they may wait for streams of different GPUs


def _reserved_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no other thread uses, and wait for one if there is none."""
    # PyTorch hands out the same streams again and again. What another thread launched on a stream that is
    # captured would become part of the graph.
    with _CHANGED:
        while True:
            for _ in range(_STREAMS):
                stream = torch.cuda.Stream(device)
                if stream not in _IN_USE:
                    _IN_USE.add(stream)
                    return stream
            _CHANGED.wait()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let the calling thread capture graphs: no other thread captures, empties the cache or augments."""
    with _CAPTURING, global_generator():
        yield


def free_cached_memory(device: torch.device) -> None:
    """Return unused memory of PyTorch's allocator to the device. Never raises a ``RuntimeError``."""
    if device.type == "cpu":
        return
    empty_cache = getattr(torch.get_device_module(device), "empty_cache", None)
    # It fails while anyone captures a graph, also code outside this package.
    with _CAPTURING, contextlib.suppress(RuntimeError):
        if empty_cache is not None:
            empty_cache()


def capture(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Record the computations of ``step`` on the current stream as a graph, within `undisturbed`.

    If that fails, the allocator and the generator are usable as before.

    Raises:
        BaseException: What ``step`` raised, or else what PyTorch raised at the beginning or the end.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    stream = torch.cuda.current_stream(device)
    first: BaseException | None = None
    try:
        try:
            # "thread_local": other threads may allocate and wait for their streams while this one captures.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                try:
                    step()
                except BaseException as error:
                    first = error
                    raise
        except BaseException:
            _clean_up(graph, pool, device)
            if first is None:
                raise
        # The end of a capture that has failed raises an error of its own, which would hide the reason, and
        # also a keyboard interrupt. Raised here, the first error does not have that one as its context, which
        # would be a circle of references to the tensors of the step.
        if first is not None:
            raise first
        return graph
    finally:
        first = None  # for the same reason


def _clean_up(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device) -> None:
    """End the recording of allocations for a capture that has failed, unless PyTorch has ended it."""
    with contextlib.suppress(RuntimeError):
        graph.reset()  # which is enough for the newest releases of PyTorch
    # In others the allocator goes on recording after a capture that was invalid at its end (mended by
    # pytorch/pytorch#180395) or failed at its beginning. Then torch.cuda.empty_cache, with which every
    # capture begins, would fail for good. PyTorch has no public function that ends it, and before 2.8 the
    # private one has the second name.
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
    end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    if end is None:
        return
    try:
        end(device.index, pool)
    except RuntimeError:
        return  # it is not recording
    torch._C._cuda_releasePool(device.index, pool)
    _ABANDONED.append(graph)
    # Such a PyTorch also left the default generator in a state in which it refuses to draw.
    generator = torch.cuda.default_generators[device.index]
    generator.graphsafe_set_state(generator.clone_state())
