"""Prior for layers, known before the first training: a transformer that was trained on other tasks.

Notation: N networks, S layers, O features of a layer (`LayerSpace.layer_features`), W width, E numbers of an
embedding, T tasks.

The transformer was trained on tables of networks, of several tasks at once. It embeds a network in E numbers,
and the score of the network on task t is a linear function of the embedding, with weights specific to that
task. So the embedding holds what transfers between tasks, and the weights hold what does not. For a new task
only the mean and the spread of the weights over the training tasks are known. This defines a prior
distribution of functions, and it is the linear part of the `gaussian_process`: each number of the embedding,
times the deviation of its weight, is a feature whose weight has deviation 1, and a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads, making_modules
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.layer_policy import N_SPACE_FEATURES, LayerPolicy, PolicyTransformer
from optuna_trlhpo.agent.transformer import Block, sinusoids

POLICY = "policy."
"""Prefix of the names of the policy's tensors."""
EMBEDDING = 8
"""E, the size of an embedding."""
N_LAYER_FEATURES = 11
"""O, the number of features of the layers in prior files."""
_CONFIG = AgentConfig(width=32, heads=4, blocks=2, expansion=2)


class LayerTransformer(nn.Module):
    """Transformer that embeds networks, given by the features of their layers."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(n_features, _CONFIG.width)
        self.blocks = nn.ModuleList(Block(_CONFIG) for _ in range(_CONFIG.blocks))
        self.norm = nn.LayerNorm(_CONFIG.width)
        self.output = nn.Sequential(
            nn.Linear(2 * _CONFIG.width, _CONFIG.width), nn.GELU(), nn.Linear(_CONFIG.width, EMBEDDING)
        )

    def forward(self, features: Tensor, filled: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embeddings ``[N, E]`` and attention weights ``[N, H, S, S]`` of each block.

        Args:
            features: ``[N, S, O]`` features of the layers.
            filled: ``[N, S]`` True where there is a layer.
        """
        N, S, _ = features.shape
        x = self.inputs(features) + sinusoids(torch.arange(S), _CONFIG.width)
        visible = filled.unsqueeze(1) | torch.eye(S, dtype=torch.bool)  # an empty position attends to itself
        weights = []
        for block in self.blocks:
            x, w = block(x, visible)
            weights.append(w)
        x = self.norm(x)
        n = filled.sum(dim=1)
        mean = (x * filled.unsqueeze(-1)).sum(dim=1) / n.unsqueeze(-1)
        last = x[torch.arange(N), n - 1]
        return self.output(torch.cat([mean, last], dim=-1)), weights


_DIGITS = 6
"""Digits behind the point of an embedding. The last digits of a result depend on which networks are embedded
together, and what a sampler proposes must not depend on that."""


class LayerPrior:
    """Prior expectations of a `LayerTransformer` that was trained on other tasks.

    Args:
        tensors: Weights of the transformer; ``mean`` and ``deviation`` ``[E]`` of a task's linear weights;
            ``unit``, the change in the logarithm of the error that equals a score of 1; and the weights of a
            `LayerPolicy`, if there is one, under names that begin with `POLICY`.

    Attributes:
        policy: Actor that was trained on the same tasks; None in a file without one.
        means: ``[E + 1]`` means of the linear weights, in deviations; the last belongs to a constant.
        unit: Change in the logarithm of the error that equals a score of 1, on a task like those in training.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        of_policy = {name: tensors.pop(name) for name in list(tensors) if name.startswith(POLICY)}
        self.policy = LayerPolicy(_without_prefix(of_policy)) if of_policy else None
        mean, deviation = tensors.pop("mean"), tensors.pop("deviation")
        self.unit = float(tensors.pop("unit"))
        self._deviation = deviation.double().numpy()
        self.means = np.append((mean / deviation).double().numpy(), 0.0)
        with (
            making_modules(),
            torch.random.fork_rng(devices=[]),
        ):  # the initial weights are overwritten, but creating them draws random numbers
            self._transformer = LayerTransformer(tensors["inputs.weight"].shape[1]).eval()
        self._transformer.load_state_dict(tensors)
        self._transformer.double()  # see `_DIGITS`

    @classmethod
    def load(cls, path: Path | None = None) -> LayerPrior:
        """Load the prior of the package, or the one in ``path``.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is not a prior for layers. The message names the file, the fault and the
                allowed values.
        """
        if path is None:
            return cls(load((resources.files(__package__) / "layer-prior.safetensors").read_bytes()))
        content = path.read_bytes()
        try:
            tensors = load(content)
        except Exception as error:  # any error that a file of another kind may cause
            raise ValueError(
                f"{path} is not a prior for layers: it must be a safetensors file ({error})"
            ) from error
        fault = _fault_of(tensors)
        if fault:
            raise ValueError(f"{path} is not a prior for layers: {fault}")
        return cls(tensors)

    @cpu_threads(1)
    @torch.inference_mode()
    def __call__(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """``[N, E + 1]`` features of networks, each given by its layers ``[S, O]``; the last is 1."""
        layers, filled = padded(features)
        embedded, _ = self._transformer(layers.double(), filled)
        rounded = embedded.numpy().round(_DIGITS)
        return np.pad(rounded * self._deviation, [(0, 0), (0, 1)], constant_values=1.0)


def _fault_of(tensors: Mapping[str, Tensor]) -> str:
    """Description of the first fault of these tensors as a prior; empty if there is none."""
    with making_modules(), torch.random.fork_rng(devices=[]):
        shapes = {name: it.shape for name, it in LayerTransformer(N_LAYER_FEATURES).state_dict().items()}
        of_policy = PolicyTransformer(N_LAYER_FEATURES).state_dict()
    if any(name.startswith(POLICY) for name in tensors):
        shapes |= {POLICY + name: it.shape for name, it in of_policy.items()}
    shapes |= {name: torch.Size([EMBEDDING]) for name in ("mean", "deviation")} | {"unit": torch.Size([])}
    if missing := sorted(shapes.keys() - tensors.keys()):
        return (
            f"the tensor {missing[0]!r} is missing; a file that `pretrain` writes has {len(shapes)} tensors"
        )
    if unknown := sorted(tensors.keys() - shapes.keys()):
        return f"the tensor {unknown[0]!r} is unknown; a file that `pretrain` writes has {len(shapes)} others"
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            return f"the tensor {name!r} has shape {list(tensor.shape)}; it must be {list(shape)}"
        if tensor.dtype != torch.float32:
            return f"the tensor {name!r} has dtype {tensor.dtype}; it must be {torch.float32}"
        if not tensor.isfinite().all():
            worst = tensor[~tensor.isfinite()][0]
            return f"the tensor {name!r} has the value {worst:g}; its values must be finite"
    deviation, unit = tensors["deviation"], tensors["unit"]
    if not (deviation > 0).all():
        return f"'deviation' has the value {deviation.min():g}; its values must be positive"
    if not (tensors["mean"] / deviation).isfinite().all():
        return f"'deviation' has the value {deviation.min():g}; 'mean' divided by it must be finite"
    if not unit > 0:
        return f"'unit' is {unit:g}; it must be positive"
    prior = LayerPrior(dict(tensors))
    found = prior([np.zeros((1, N_LAYER_FEATURES)), np.ones((2, N_LAYER_FEATURES))])
    if not (np.abs(found) <= torch.finfo(torch.float32).max).all():
        return "its weights are too large: the features that it computes for a network must be finite"
    if prior.policy is not None:
        logits = prior.policy(np.ones(N_SPACE_FEATURES), [np.ones((2, N_LAYER_FEATURES))])
        if not all(np.isfinite(array).all() for array in logits):
            return "its weights are too large: the logits that its policy computes must be finite"
    return ""


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(POLICY): tensor for name, tensor in tensors.items()}


def padded(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad features of different lengths to ``[N, S, O]``, with a mask of the layers ``[N, S]``."""
    lengths = [len(layers) for layers in features]
    S = max(lengths)
    rows = np.zeros((len(features), S, features[0].shape[1]), dtype=np.float32)
    for row, layers in zip(rows, features, strict=True):
        row[: len(layers)] = layers
    return torch.from_numpy(rows), torch.arange(S) < torch.tensor(lengths)[:, None]
