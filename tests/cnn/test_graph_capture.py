"""Captures of CUDA graphs, without a GPU: against PyTorch as its sources describe it, and by a fake graph."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.training import graph_capture, loop
from optuna_trlhpo.cnn.training.cuda_graphs import CapturedSteps
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.global_generator import global_generator
from optuna_trlhpo.cnn.training.graph_capture import capture, free_cached_memory, own_stream, undisturbed
from optuna_trlhpo.cnn.training.loop import train
from tests.cnn.test_objective import make, run
from tests.cnn.test_training import generator, network

GPU = torch.device("cuda:0")
INVALID = "CUDA error: operation failed due to a previous error during capture"

# Releases of PyTorch: what they clean up behind a capture that fails.
NOTHING, AFTER_THE_END, EVERYTHING = "before 2.12", "2.12", "2.14"


class FakeCuda:
    """The captures and the allocator of PyTorch.

    Attributes:
        release: What it cleans up behind a failed capture.
        fails_at: "begin", "end" or "".
        invalid: Whether what was captured is invalid, so that the end raises an error, too.
        recording: Pools that the allocator records allocations for.
        held: Pools that are not released.
        calls: Names of the calls, in order.
    """

    def __init__(self, release: str) -> None:
        self.release = release
        self.fails_at, self.invalid = "", False
        self.recording: set[tuple[int, int]] = set()
        self.held: list[tuple[int, int]] = []
        self.calls: list[str] = []
        self.numbers = itertools.count(1)

    def graph_pool_handle(self) -> tuple[int, int]:
        return 0, next(self.numbers)

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")
        if self.recording:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    def end_allocate_to_pool(self, device: int, pool: tuple[int, int]) -> None:
        assert device == GPU.index
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove(pool)

    def release_pool(self, device: int, pool: tuple[int, int]) -> None:
        assert device == GPU.index and pool not in self.recording
        self.held.remove(pool)

    @contextlib.contextmanager
    def graph(
        self, graph: FakeGraph, *, pool: tuple[int, int], stream: str, capture_error_mode: str
    ) -> Iterator[None]:
        assert (stream, capture_error_mode) == ("stream", "thread_local")
        self.empty_cache()
        graph.begin(pool)
        try:
            yield
        finally:  # as torch.cuda.graph: it ends whatever happened
            graph.end()


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.pool, self.ended = cuda, (0, 0), False

    def begin(self, pool: tuple[int, int]) -> None:
        self.pool = pool
        self.cuda.recording.add(pool)
        self.cuda.held.append(pool)
        if self.cuda.fails_at == "begin":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def end(self) -> None:
        failed = self.cuda.fails_at == "end" or self.cuda.invalid
        if not failed or self.cuda.release != NOTHING:
            self.cuda.recording.discard(self.pool)
        if failed:
            raise RuntimeError(INVALID)
        self.ended = True

    def reset(self) -> None:
        self.cuda.calls.append("reset")
        if self.ended or self.cuda.release == EVERYTHING:
            self.cuda.recording.discard(self.pool)
            if self.pool in self.cuda.held:
                self.cuda.held.remove(self.pool)


class FakeGenerator:
    """The default generator of a GPU."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def clone_state(self) -> str:
        return "clone"

    def graphsafe_set_state(self, state: str) -> None:
        self.states.append(state)


@pytest.fixture(params=[NOTHING, AFTER_THE_END, EVERYTHING])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda(request.param)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(fake))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", fake.graph_pool_handle)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "stream")
    monkeypatch.setattr(torch.cuda, "graph", fake.graph)
    monkeypatch.setattr(torch.cuda, "empty_cache", fake.empty_cache)
    monkeypatch.setattr(torch.cuda, "default_generators", (FakeGenerator(),))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end_allocate_to_pool, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", fake.release_pool, raising=False)
    return fake


def nothing() -> None:
    pass


def fails(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_a_failed_capture_leaves_nothing_behind(cuda: FakeCuda, where: str) -> None:
    cuda.fails_at = where if where != "middle" else ""
    cuda.invalid = where == "middle"
    step = fails(ValueError("no")) if where == "middle" else nothing
    with undisturbed(), pytest.raises(ValueError if where == "middle" else RuntimeError):
        capture(step, GPU)
    assert cuda.recording == set()
    cuda.empty_cache()  # raises no error: the study goes on
    # PyTorch 2.12 keeps the memory, which is nobody's any more; nothing can be done about it from outside.
    assert len(cuda.held) == (cuda.release == AFTER_THE_END and where != "begin")
    cuda.fails_at, cuda.invalid = "", False
    with undisturbed():
        graph = capture(nothing, GPU)
    assert graph.ended  # type: ignore[attr-defined]
    assert cuda.recording == set() and len(cuda.held) == 1 + (
        cuda.release == AFTER_THE_END and where != "begin"
    )


def test_a_generator_that_is_stuck_is_replaced(cuda: FakeCuda) -> None:
    cuda.fails_at = "end"
    with undisturbed(), pytest.raises(RuntimeError):
        capture(nothing, GPU)
    (of_gpu,) = torch.cuda.default_generators
    assert of_gpu.states == (["clone"] if cuda.release == NOTHING else [])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(), torch.OutOfMemoryError("out of memory"), ValueError("no")],
)
@pytest.mark.parametrize("invalid", [True, False])
def test_what_the_step_raised_is_not_hidden_by_the_end(
    cuda: FakeCuda, error: BaseException, invalid: bool
) -> None:
    cuda.invalid = invalid
    with undisturbed(), pytest.raises(type(error)) as caught:
        capture(fails(error), GPU)
    assert caught.value is error
    assert cuda.recording == set()


def test_a_failed_capture_frees_the_tensors_of_the_step(cuda: FakeCuda) -> None:
    cuda.invalid = True
    seen: list[weakref.ref[Tensor]] = []

    def step() -> None:
        tensor = torch.ones(2)
        seen.append(weakref.ref(tensor))
        raise RuntimeError("an operation that cannot be captured")

    gc.disable()  # a circle of references would have to wait for it, and memory on a GPU must not
    try:
        with undisturbed(), contextlib.suppress(RuntimeError):
            capture(step, GPU)
        assert seen[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
def test_the_private_function_is_found_by_either_name(
    name: str, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    monkeypatch.setattr(torch._C, name, cuda.end_allocate_to_pool, raising=False)
    cuda.fails_at = "end"
    with undisturbed(), pytest.raises(RuntimeError, match=INVALID):
        capture(nothing, GPU)
    assert cuda.recording == set()


@pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch is built without CUDA")
def test_pytorch_still_has_the_private_functions() -> None:
    assert hasattr(torch._C, "_cuda_endAllocateToPool") or hasattr(
        torch._C, "_cuda_endAllocateCurrentStreamToPool"
    )
    assert hasattr(torch._C, "_cuda_releasePool")


# Other threads


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def draw() -> None:
    with global_generator(seed=0):
        torch.rand(1)


def capture_too() -> None:
    with undisturbed():
        pass


@pytest.mark.parametrize("work", [lambda: free_cached_memory(GPU), draw, capture_too])
def test_nothing_that_would_disturb_a_capture_runs_beside_it(
    work: Callable[[], object], cuda: FakeCuda
) -> None:
    with undisturbed():
        thread = in_thread(work)
        thread.join(0.1)
        assert thread.is_alive() and cuda.calls == []
    thread.join(10)
    assert not thread.is_alive()


def test_an_interrupted_capture_lets_others_capture(cuda: FakeCuda) -> None:
    with pytest.raises(KeyboardInterrupt), undisturbed():
        capture(fails(KeyboardInterrupt()), GPU)
    thread = in_thread(capture_too)
    thread.join(10)
    assert not thread.is_alive()


def test_freeing_memory_raises_no_error(cuda: FakeCuda) -> None:
    cuda.recording.add((0, 99))  # code outside the package captures a graph
    free_cached_memory(GPU)
    assert cuda.calls == ["empty_cache"]
    free_cached_memory(torch.device("cpu"))
    assert cuda.calls == ["empty_cache"]


class FakeStream:
    """One of the 32 streams that PyTorch hands out in turn."""

    numbers = itertools.cycle(range(32))
    waits: bool = True

    def __init__(self, device: torch.device) -> None:
        self.number = next(FakeStream.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FakeStream) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[FakeStream]:
    """Streams that were current, in order."""
    used: list[FakeStream] = []

    @contextlib.contextmanager
    def current(stream: FakeStream) -> Iterator[None]:
        used.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "default")
    return used


def test_no_two_trainings_share_a_stream(streams: list[FakeStream]) -> None:
    with own_stream(GPU):  # a long training, beside many short ones
        for _ in range(100):
            with own_stream(GPU):
                pass
    assert streams[0] not in streams[1:]
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(own_stream(GPU))
        assert len(set(streams[-32:])) == 32

        def another() -> None:
            with own_stream(GPU):
                pass

        thread = in_thread(another)
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()


def test_a_stream_is_given_back_after_an_error(
    streams: list[FakeStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(40):
        with pytest.raises(KeyError), own_stream(GPU):
            raise KeyError
    monkeypatch.setattr(FakeStream, "synchronize", lambda _: fails(RuntimeError("CUDA error"))())
    for _ in range(40):
        with pytest.raises(RuntimeError, match="CUDA error"), own_stream(GPU):
            pass


# Steps, by a graph that computes its step again when it is replayed

IMAGES, LABELS = torch.randn(72, 1, 12, 12, generator=generator()), torch.arange(72) % 3


class Replayed:
    """A captured graph."""

    def __init__(self, step: Callable[[], None], model: nn.Module) -> None:
        self.step, self.model, self.replays = step, model, 0

    def replay(self) -> None:
        self.replays += 1
        self.model.zero_grad()  # a graph writes to its gradients, and adds to none
        self.step()


class Backend:
    """Captures that are replayed, or that fail.

    Args:
        fails_at: "begin", "middle", "end", "replay" or "".
        error: What is raised there.
    """

    def __init__(self, fails_at: str = "", error: BaseException | None = None) -> None:
        self.fails_at, self.error = fails_at, error or RuntimeError("an operation\nthat cannot be captured")
        self.model: nn.Module = nn.Identity()
        self.graphs: list[Replayed] = []

    def __call__(self, step: Callable[[], None], device: torch.device) -> Replayed:
        assert all(parameter.grad is None for parameter in self.model.parameters())
        if self.fails_at == "begin":
            raise self.error
        step()  # changes weights, buffers and moments: they must be restored
        if self.fails_at in ("middle", "end"):
            raise self.error
        graph = Replayed(step, self.model)
        if self.fails_at == "replay":
            graph.replay = fails(self.error)  # type: ignore[method-assign]
        self.graphs.append(graph)
        return graph


def trained(backend: Backend, text: str, precision: str = "float32") -> nn.Module:
    """Train a network on the CPU by `CapturedSteps`, with batches of 16 and a last one of 8."""
    model = place(network(text), torch.device("cpu"))
    backend.model = model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_capture, "capture", backend)
        patch.setattr(loop, "EagerSteps", lambda model, loss_of: CapturedSteps(model, loss_of, 16))
        train(
            model,
            IMAGES,
            LABELS,
            epochs=2,
            batch_size=16,
            learning_rate=0.01,
            precision=precision,
            generator=generator(),
        )
    return model


NETWORKS = ["Conv(8,3,1) > MaxPool(2,2,0)", "Conv(8,3,1) > BatchNorm()", "Residual(8,3,1)"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fails_at", ["begin", "middle", "end"])
@pytest.mark.parametrize("text", NETWORKS)
def test_captured_and_eager_steps_end_at_the_same_weights(text: str, fails_at: str, precision: str) -> None:
    backend = Backend()
    captured = trained(backend, text, precision)
    assert [graph.replays for graph in backend.graphs] == [8]  # 2 epochs of 4 full batches
    eager = trained(Backend(fails_at), text, precision)
    torch.testing.assert_close(captured.state_dict(), eager.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("text", NETWORKS)
def test_they_end_where_plain_steps_do(text: str) -> None:
    plain = place(network(text), torch.device("cpu"))
    train(plain, IMAGES, LABELS, epochs=2, batch_size=16, learning_rate=0.01, generator=generator())
    torch.testing.assert_close(
        trained(Backend(), text).state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("backend", [Backend(), Backend("end")])
def test_no_gradient_is_left(backend: Backend) -> None:
    model = trained(backend, NETWORKS[0])
    assert all(parameter.grad is None for parameter in model.parameters())


def steps_of(model: nn.Module, loss_of: Callable[[Tensor], Tensor] | None = None) -> CapturedSteps:
    def usual(batch: Tensor) -> Tensor:
        return F.cross_entropy(model(IMAGES[batch]), LABELS[batch])

    return CapturedSteps(model, loss_of or usual, 16)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("an operation\nthat cannot be captured"), "RuntimeError: an operation"),
        (torch.OutOfMemoryError("CUDA out of memory."), "OutOfMemoryError: CUDA out of memory."),
        (TypeError("no"), "TypeError: no"),
    ],
)
def test_the_reason_of_a_failed_capture_is_logged(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "info", messages.append)
    monkeypatch.setattr(graph_capture, "capture", Backend("middle", error))
    steps = steps_of(network("Conv(8,3,1)"))
    for _ in range(3):
        steps(torch.arange(16), 0.01)
    assert steps.graph is None and steps.reason == reason
    (message,) = messages  # once: it is not tried again
    assert message == f"A training is not captured as a CUDA graph and is slower for it: {reason}"


def test_dropout_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "capture", fails(AssertionError()))
    steps = steps_of(network("Conv(8,3,1) > Dropout(20)"))
    steps(torch.arange(16), 0.01)
    assert steps.graph is None and steps.reason == "it draws from its own random generator"


@pytest.mark.parametrize("fails_at", ["begin", "middle", "end"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_reason(
    fails_at: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_capture, "capture", Backend(fails_at, error()))
    with pytest.raises(error):
        steps_of(network("Conv(8,3,1)"))(torch.arange(16), 0.01)
    thread = in_thread(capture_too)  # the lock is free
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("failing_step", [1, 3])
def test_errors_of_the_warm_up_are_raised(failing_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "capture", Backend())
    calls: list[int] = []

    def loss_of(batch: Tensor) -> Tensor:
        calls.append(len(calls) + 1)
        if len(calls) == failing_step:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return F.cross_entropy(model(IMAGES[batch]), LABELS[batch])

    model = network("Conv(8,3,1)")
    with pytest.raises(torch.OutOfMemoryError):
        steps_of(model, loss_of)(torch.arange(16), 0.01)
    thread = in_thread(capture_too)
    thread.join(10)
    assert not thread.is_alive()


def test_an_error_of_a_replay_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend("replay", RuntimeError("CUDA error: out of memory"))
    monkeypatch.setattr(graph_capture, "capture", backend)
    with pytest.raises(RuntimeError, match="out of memory"):
        steps_of(network("Conv(8,3,1)"))(torch.arange(16), 0.01)


def test_a_capture_after_eager_steps_keeps_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small batch first: the capture must not set the moments of Adam to zero."""
    models = [network("Conv(8,3,1)") for _ in range(2)]
    for model, backend in zip(models, (Backend(), Backend("begin")), strict=True):
        backend.model = model
        monkeypatch.setattr(graph_capture, "capture", backend)
        steps = steps_of(model)
        for batch in (torch.arange(8), torch.arange(16), torch.arange(8), torch.arange(16)):
            steps(batch, 0.01)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("fails_at", "failed"), [("middle", 0), ("replay", 1)])
def test_a_study_goes_on_and_so_does_the_next(
    fails_at: str, failed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first capture fails, in memory that has run out."""
    backends = iter([Backend(fails_at, RuntimeError("CUDA error: out of memory"))])
    good: list[Replayed] = []

    def captured(model: nn.Module, loss_of: Callable[[Tensor], Tensor]) -> CapturedSteps:
        backend = next(backends, Backend())
        backend.model, backend.graphs = model, good
        steps = CapturedSteps(model, loss_of, 16)
        monkeypatch.setattr(graph_capture, "capture", backend)
        return steps

    monkeypatch.setattr(loop, "EagerSteps", captured)
    study = run(make(), 2)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == failed and len(states) == 2
    before = len(good)
    assert run(make()).best_value >= 0 and len(good) > before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_failed_capture_leaves_nothing_behind() -> None:
    model = network("Conv(8,3,1)").cuda()
    images, labels = IMAGES.cuda(), LABELS.cuda()

    def loss_of(batch: Tensor, waits: bool) -> Tensor:
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        if waits and torch.cuda.is_current_stream_capturing():
            loss.item()  # waits for the device, which a capture forbids
        return loss

    for waits in (True, False, True, False):
        with own_stream(images.device):
            steps = CapturedSteps(model, lambda batch, waits=waits: loss_of(batch, waits), 16)  # type: ignore[misc]
            for batch in torch.arange(64, device="cuda").split(16):
                steps(batch, 0.01)
        assert (steps.graph is None) == waits == bool(steps.reason)
        torch.cuda.empty_cache()
        torch.rand(3, device="cuda")
