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
from optuna_trlhpo.agent.layer_policy import (
    LayerPolicy,
    PolicyTransformer,
    n_layer_features,
    n_space_features,
    padded,
)
from optuna_trlhpo.agent.transformer import Block, sinusoids
from optuna_trlhpo.layers import TABLE_I, Vocabulary
from optuna_trlhpo.layers.kinds import CNN

POLICY = "policy."
"""Prefix of the names of the policy's tensors."""
EMBEDDING = 8
"""E, the size of an embedding."""
VOCABULARIES = (TABLE_I, CNN)
"""Vocabularies that a file may have a prior for. The names of a prior's tensors begin with the name of its
vocabulary, which is empty for Table I."""
_CONFIG = AgentConfig(width=32, heads=4, blocks=2, expansion=2)


class LayerTransformer(nn.Module):
    """Transformer that embeds networks, given by the features of their layers.

    Args:
        vocabulary: Kinds of layer, which determine the number of features.
    """

    def __init__(self, vocabulary: Vocabulary = TABLE_I) -> None:
        super().__init__()
        self.inputs = nn.Linear(n_layer_features(vocabulary), _CONFIG.width)
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
        vocabulary: Kinds of layer of the networks.

    Attributes:
        vocabulary: Kinds of layer of the networks.
        policy: Actor that was trained on the same tasks; None in a file without one.
        means: ``[E + 1]`` means of the linear weights, in deviations; the last belongs to a constant.
        unit: Change in the logarithm of the error that equals a score of 1, on a task like those in training.
    """

    def __init__(self, tensors: Mapping[str, Tensor], vocabulary: Vocabulary = TABLE_I) -> None:
        self.vocabulary = vocabulary
        tensors = dict(tensors)
        of_policy = {name: tensors.pop(name) for name in list(tensors) if name.startswith(POLICY)}
        self.policy = LayerPolicy(_without(POLICY, of_policy), vocabulary) if of_policy else None
        mean, deviation = tensors.pop("mean"), tensors.pop("deviation")
        self.unit = float(tensors.pop("unit"))
        self._deviation = deviation.double().numpy()
        self.means = np.append((mean / deviation).double().numpy(), 0.0)
        with (
            making_modules(),
            torch.random.fork_rng(devices=[]),
        ):  # the initial weights are overwritten, but creating them draws random numbers
            self._transformer = LayerTransformer(vocabulary).eval()
        self._transformer.load_state_dict(tensors)
        self._transformer.double()  # see `_DIGITS`

    @cpu_threads(1)
    @torch.inference_mode()
    def __call__(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """``[N, E + 1]`` features of networks, each given by its layers ``[S, O]``; the last is 1."""
        layers, filled = padded(features)
        embedded, _ = self._transformer(layers.double(), filled)
        rounded = embedded.numpy().round(_DIGITS)
        return np.pad(rounded * self._deviation, [(0, 0), (0, 1)], constant_values=1.0)


def load_priors(path: Path | None = None) -> tuple[LayerPrior, ...]:
    """Load the priors of the package, or those in ``path``, each for another vocabulary.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file does not hold priors for layers. The message names the file, the fault and the
            allowed values.
    """
    if path is None:
        content = (resources.files(__package__) / "layer-prior.safetensors").read_bytes()
        return tuple(LayerPrior(own, v) for v, own in _by_vocabulary(load(content)).items())
    content = path.read_bytes()
    try:
        parts = _by_vocabulary(load(content))
    except Exception as error:  # any error that a file of another kind may cause
        raise ValueError(
            f"{path} is not a prior for layers: it must be a safetensors file ({error})"
        ) from error
    for vocabulary, tensors in parts.items():
        others = [other for other in parts if other != vocabulary]
        if fault := _fault_of(tensors, vocabulary, beside=bool(others)):
            raise ValueError(f"{path} is not a prior for layers: {fault}")
    return tuple(LayerPrior(tensors, vocabulary) for vocabulary, tensors in parts.items())


def prefix_of(vocabulary: Vocabulary) -> str:
    """Return what the names of the tensors for a vocabulary begin with in a file.

    Examples:
        >>> prefix_of(TABLE_I), prefix_of(CNN)
        ('', 'cnn.')
    """
    return f"{vocabulary.name}." if vocabulary.name else ""


def _by_vocabulary(tensors: Mapping[str, Tensor]) -> dict[Vocabulary, dict[str, Tensor]]:
    """Tensors of each vocabulary that has some, without the prefix; those that remain are of Table I."""
    rest, parts = dict(tensors), {}
    for vocabulary in VOCABULARIES[1:]:
        prefix = prefix_of(vocabulary)
        own = {name: rest.pop(name) for name in list(rest) if name.startswith(prefix)}
        if own:
            parts[vocabulary] = _without(prefix, own)
    return {TABLE_I: rest, **parts} if rest or not parts else parts


def _fault_of(tensors: Mapping[str, Tensor], vocabulary: Vocabulary, *, beside: bool) -> str:
    """Description of the first fault of these tensors as a prior; empty if there is none.

    ``beside`` says whether the file has another prior, so that this one may be missing.
    """
    with making_modules(), torch.random.fork_rng(devices=[]):
        shapes = {name: it.shape for name, it in LayerTransformer(vocabulary).state_dict().items()}
        of_policy = PolicyTransformer(vocabulary).state_dict()
    if any(name.startswith(POLICY) for name in tensors):
        shapes |= {POLICY + name: it.shape for name, it in of_policy.items()}
    shapes |= {name: torch.Size([EMBEDDING]) for name in ("mean", "deviation")} | {"unit": torch.Size([])}
    prefix = prefix_of(vocabulary)
    layers = f"kinds.{vocabulary.name.upper()}" if vocabulary.name else "Table I"
    wanted = f"the prior for the layers of {layers} has {len(shapes)}"
    if beside and not shapes.keys() & tensors.keys():
        return f"the tensor {prefix + min(tensors)!r} is unknown"
    if missing := sorted(shapes.keys() - tensors.keys()):
        return f"the tensor {prefix + missing[0]!r} is missing; {wanted} tensors"
    if unknown := sorted(tensors.keys() - shapes.keys()):
        return f"the tensor {prefix + unknown[0]!r} is unknown; {wanted} others"
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            return f"the tensor {prefix + name!r} has shape {list(tensor.shape)}; it must be {list(shape)}"
        if tensor.dtype != torch.float32:
            return f"the tensor {prefix + name!r} has dtype {tensor.dtype}; it must be {torch.float32}"
        if not tensor.isfinite().all():
            worst = tensor[~tensor.isfinite()][0]
            return f"the tensor {prefix + name!r} has the value {worst:g}; its values must be finite"
    deviation, unit = tensors["deviation"], tensors["unit"]
    if not (deviation > 0).all():
        return f"'{prefix}deviation' has the value {deviation.min():g}; its values must be positive"
    if not (tensors["mean"] / deviation).isfinite().all():
        least = f"'{prefix}deviation' has the value {deviation.min():g}"
        return f"{least}; '{prefix}mean' divided by it must be finite"
    if not unit > 0:
        return f"'{prefix}unit' is {unit:g}; it must be positive"
    prior, n = LayerPrior(tensors, vocabulary), n_layer_features(vocabulary)
    found = prior([np.zeros((1, n)), np.ones((2, n))])
    if not (np.abs(found) <= torch.finfo(torch.float32).max).all():
        what = "the features that it computes for a network must be finite"
        return f"the weights of the prior for the layers of {layers} are too large: {what}"
    if prior.policy is not None:
        logits = prior.policy(np.ones(n_space_features(vocabulary)), [np.ones((2, n))])
        if not all(np.isfinite(array).all() for array in logits):
            what = "the logits that its policy computes must be finite"
            return f"the weights of the prior for the layers of {layers} are too large: {what}"
    return ""


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
