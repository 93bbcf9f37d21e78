"""Training steps on a GPU, captured once as a CUDA graph and then replayed, or run eagerly if that fails.

A step of a small network consists of dozens of kernels that take less time than their launches. A graph
launches all of them at once. The caller, `optuna_trlhpo.cnn.training.loop.train`, defines the step.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from optuna_trlhpo.layers.blocks import SeededDropout

_WARM_UP = 3
"""Number of steps before a capture. PyTorch requires them, because libraries choose their kernels in them."""

_CAPTURING = threading.Lock()
"""Lock that allows one capture at a time. Other threads may compute meanwhile."""


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the computations of the calling thread on a separate GPU stream, which overlaps with other threads.

    The stream is synchronised at the end of the context. On a CPU nothing is done.
    """
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()


class CapturedSteps:
    """Training steps with Adam that are replayed from a graph for full batches.

    Smaller batches run eagerly, and so do all batches of a model that cannot be captured. A capture does not
    change the weights, the buffers and the optimiser.

    Args:
        model: Model on a GPU.
        loss_of: Returns the loss on the images with the given indices, ``[B]`` on that GPU.
        batch_size: Size of a full batch.

    Attributes:
        graph: The captured graph. None if the steps run eagerly.
        reason: Why there is no graph. Empty if there is one.
    """

    def __init__(self, model: nn.Module, loss_of: Callable[[Tensor], Tensor], batch_size: int) -> None:
        device = next(model.parameters()).device
        self._model, self._loss_of = model, loss_of
        self._rate = torch.ones((), device=device)
        self._optimizer = torch.optim.Adam(model.parameters(), lr=self._rate, fused=True, capturable=True)
        self._batch = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._gradients: list[Tensor | None] = []  # kept alive, because the graph writes to their memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.reason = ""
        self._tried = False

    def __call__(self, batch: Tensor, rate: float) -> None:
        """Take a step on the images with the indices ``batch`` at the learning rate ``rate``."""
        self._rate.fill_(rate)
        if len(batch) != len(self._batch):
            self._step(batch)
            return
        if not self._tried:
            self._tried = True
            self.try_to_capture(batch)
        if self.graph is None:
            self._step(batch)
        else:
            self._batch.copy_(batch)
            self.graph.replay()

    def _step(self, batch: Tensor) -> None:
        self._optimizer.zero_grad()
        self._loss_of(batch).backward()
        self._optimizer.step()

    def try_to_capture(self, batch: Tensor) -> None:
        """Record a step as a graph if it can be, and else the reason why not."""
        if any(isinstance(part, SeededDropout) for part in self._model.modules()):
            self.reason = "it draws from its own random generator"
            return
        self._batch.copy_(batch)
        before = copy.deepcopy(self._model.state_dict())
        moments = copy.deepcopy(self._optimizer.state_dict()["state"])
        graph = torch.cuda.CUDAGraph()
        try:
            with _CAPTURING:
                for _ in range(_WARM_UP):
                    self._step(self._batch)
                self._optimizer.zero_grad()
                # Other threads may allocate while this one captures.
                with torch.cuda.graph(
                    graph,
                    stream=torch.cuda.current_stream(self._rate.device),
                    capture_error_mode="thread_local",
                ):
                    self._loss_of(self._batch).backward()
                    self._optimizer.step()
            self._gradients = [parameter.grad for parameter in self._model.parameters()]
            self.graph = graph
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # from CUDA, or from an operation that cannot be captured
            self.reason = str(error).splitlines()[0]
        self._model.load_state_dict(before)  # in place, because the graph refers to these tensors
        self._restore(moments)

    def _restore(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Restore the state of the optimiser in place. State that the capture created is set to zero."""
        parameters = list(self._model.parameters())
        for k, parameter in enumerate(parameters):
            for name, value in self._optimizer.state.get(parameter, {}).items():
                if k in moments:
                    value.copy_(moments[k][name])
                else:
                    value.zero_()
