"""Training steps on a GPU, captured once as a CUDA graph and then replayed, or run eagerly if that fails.

A step of a small network consists of dozens of kernels that take less time than their launches. A graph
launches all of them at once. The caller, `optuna_trlhpo.cnn.training.loop.train`, defines the step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import optuna
import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.training import graph_capture
from optuna_trlhpo.layers.blocks import SeededDropout

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")

_WARM_UP = 3
"""Number of steps before a capture. PyTorch requires them, because libraries choose their kernels in them."""


class CapturedSteps:
    """Training steps with Adam that are replayed from a graph for full batches.

    Smaller batches run eagerly, and so do all batches of a model that cannot be captured. A capture does not
    change the weights, the buffers and the optimiser.

    Args:
        model: Model on a GPU. The steps must be taken within `graph_capture.own_stream`.
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
        """Record a step as a graph if it can be, and else the reason why not.

        Raises:
            RuntimeError: If memory runs out in an eager step.
        """
        if any(isinstance(part, SeededDropout) for part in self._model.modules()):
            self.reason = "it draws from its own random generator"
            return
        self._batch.copy_(batch)
        before = copy.deepcopy(self._model.state_dict())
        moments = copy.deepcopy(self._optimizer.state_dict()["state"])
        with graph_capture.undisturbed():
            # Errors of these steps are raised: an eager step would fail in the same way.
            for _ in range(_WARM_UP):
                self._step(self._batch)
            self._optimizer.zero_grad()  # so that the graph has gradients of its own
            try:
                self.graph = graph_capture.capture(self._record, self._rate.device)
            except Exception as error:  # from CUDA, or from an operation that cannot be captured
                # Also if memory ran out: a graph needs memory of its own, and eager steps may do with less.
                self.reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if self.graph is None:
            _logger.info(f"A training is not captured as a CUDA graph and is slower for it: {self.reason}")
            self._optimizer.zero_grad()
        else:
            self._gradients = [parameter.grad for parameter in self._model.parameters()]
        self._model.load_state_dict(before)  # in place, because the graph refers to these tensors
        self._restore(moments)

    def _record(self) -> None:
        self._loss_of(self._batch).backward()
        self._optimizer.step()

    def _restore(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Restore the state of the optimiser in place. State that the capture created is set to zero."""
        parameters = list(self._model.parameters())
        for k, parameter in enumerate(parameters):
            for name, value in self._optimizer.state.get(parameter, {}).items():
                if k in moments:
                    value.copy_(moments[k][name])
                else:
                    value.zero_()
