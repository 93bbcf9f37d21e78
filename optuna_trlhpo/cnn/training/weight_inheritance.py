"""Weight inheritance: a network starts from the weights, and where possible the function, of its parent.

The weights and statistics of the common layers are copied. New layers start near the identity where their
shapes allow it, after Net2Net (Chen et al., 2016), and the classifier is propagated through them:

* A convolution with at least as many filters as channels passes its inputs through the centre of its kernel.
  Positions that it cuts off at the borders are lost.
* Pooling adds the classifier weight of each position to the nearest window.
* A fully connected layer with at least as many neurons as features passes the features through. A smaller
  layer computes the logits z: unchanged, or as both z and -z if its activation would cut them off, or as
  z + 5 if it has too few neurons for that.

Where this is impossible, the new layers and the classifier start from random weights. Reasons are too few
neurons or filters, an unsuitable activation or an unsupported kind of layer (such as a kernel that is not
square).

Notation: K classes; ``carried`` is a classifier with weights ``[K, *shape]`` on the current features, and K
biases.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo.layers import Network, Shape, describe
from optuna_trlhpo.layers.blocks import SeededDropout

_KEPT_BYTES = 256 * 2**20
"""Maximum size of the cached weights."""

_KEEP_NONNEGATIVE = (nn.ReLU, nn.LeakyReLU, nn.ELU)
"""Activations that leave non-negative inputs unchanged."""
_NONNEGATIVE = (nn.ReLU, nn.Sigmoid)
"""Activations with non-negative outputs."""
_TRANSPARENT = (nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, SeededDropout)
"""Modules whose outputs are non-negative if their inputs are."""
_SHIFT = 5.0
"""Shift of the logits where an activation cuts off negative values. Only very low logits are lost."""
_SMALL = 0.25
"""Scale of the logits for an activation that is nearly linear only around 0."""


class LineageStep(NamedTuple):
    """A network that was trained before a deeper one, and that the deeper one inherits from.

    Attributes:
        layers: Layers of the network.
        stopped: Number of epochs after which the training was stopped early. None if it was not.
    """

    layers: Network
    stopped: int | None = None

    def __str__(self) -> str:
        return f"{len(self.layers)}" if self.stopped is None else f"{len(self.layers)}!{self.stopped}"


Lineage = tuple[LineageStep, ...]
"""Sequence of networks, each of which inherited from the one before it."""


class WeightCache:
    """Trained networks by their lineage. The oldest are removed when they take too much memory."""

    def __init__(self, max_bytes: int = _KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._networks: OrderedDict[str, nn.Sequential] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, lineage: Lineage, network: nn.Sequential) -> None:
        """Store the last network of the lineage, which is trained."""
        with self._lock:
            self._networks[_key(lineage)] = network
            while sum(map(_bytes, self._networks.values())) > self._max_bytes:
                self._networks.popitem(last=False)

    def find(self, lineage: Lineage) -> nn.Sequential | None:
        """Return the last network of the lineage, or None if it is not in the cache."""
        return self._networks.get(_key(lineage))

    def __reduce__(self) -> tuple[type[WeightCache], tuple[int]]:
        return WeightCache, (self._max_bytes,)  # another process trains the networks that it needs


def _key(lineage: Lineage) -> str:
    return f"{describe(lineage[-1].layers)} {' '.join(map(str, lineage))}"


def _bytes(network: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


@torch.no_grad()
def inherit(network: nn.Sequential, parent: nn.Sequential, shape: Shape) -> bool:
    """Initialise ``network``, which begins with the layers of ``parent``, from the weights of ``parent``.

    Args:
        network: Untrained network from `build_network`.
        parent: Trained network from `build_network`.
        shape: Output shape of the last layer of ``parent``.

    Returns:
        Whether the classifier was inherited, too.

    Examples:
        >>> from optuna_trlhpo.cnn.model import build_network
        >>> from optuna_trlhpo.layers import parse
        >>> parent = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 3)
        >>> network = build_network(parse("Conv(8,3,1) > FCL(16,relu,bias)"), (1, 8, 8), 3)
        >>> inherit(network, parent, (8, 6, 6))
        True
        >>> image = torch.ones(1, 1, 8, 8)
        >>> torch.allclose(network(image), parent(image), atol=1e-5)
        True
    """
    body = parent[: -_classifier_length(shape)]
    for mine, theirs in zip(network, body, strict=False):
        mine.load_state_dict(theirs.state_dict())
    last, classifier = parent[-1], network[-1]
    assert isinstance(last, nn.Linear) and isinstance(classifier, nn.Linear)
    carried: _Carried | None = _Carried(last.weight.reshape(-1, *shape).clone(), last.bias.clone())
    modules = list(network)
    for k in range(len(body), len(modules) - 1):
        if carried is not None:
            carried = _carry(carried, modules, k)
    if carried is None or carried.weights.flatten(1).shape != classifier.weight.shape:
        return False
    classifier.weight.copy_(carried.weights.flatten(1))
    classifier.bias.copy_(carried.biases)
    return True


def _classifier_length(shape: Shape) -> int:
    """Return the number of modules of a classifier."""
    return 2 if len(shape) > 1 else 1


class _Windows(NamedTuple):
    kernel: int
    stride: int
    padding: int


def _windows(module: nn.MaxPool2d | nn.AvgPool2d | nn.Conv2d) -> _Windows | None:
    """Return the windows of a convolution or pooling, or None if they are not plain squares."""
    numbers = []
    for value in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1)):
        sides = set(value) if isinstance(value, tuple) else {value}
        if len(sides) > 1 or not all(isinstance(side, int) for side in sides):
            return None
        numbers += [int(side) for side in sides]
    kernel, stride, padding, dilation = numbers
    if dilation != 1 or getattr(module, "ceil_mode", False) or getattr(module, "return_indices", False):
        return None
    return _Windows(kernel, stride, padding)


class _Carried(NamedTuple):
    weights: Tensor
    biases: Tensor


def _carry(carried: _Carried, modules: list[nn.Module], k: int) -> _Carried | None:
    """Set module k near the identity and return the classifier behind it, or None if that is impossible."""
    module, weights = modules[k], carried.weights
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        windows = _windows(module)
        if windows is None or weights.ndim != 4:
            return None
        return carried._replace(weights=_moved(weights, *windows))
    if isinstance(module, nn.Conv2d) and _passes(modules, k) and module.groups == 1:
        channels, windows = module.in_channels, _windows(module)
        if windows is None or weights.ndim != 4 or weights.shape[1] != channels:
            return None
        if module.out_channels < channels or module.padding_mode != "zeros":
            return None
        kernel = windows.kernel
        module.weight[:channels] = 0
        for channel in range(channels):
            module.weight[channel, channel, kernel // 2, kernel // 2] = 1
        if module.bias is not None:
            module.bias[:channels] = 0
        moved = _moved(weights, *windows)
        return carried._replace(weights=_padded(moved, module.out_channels))
    if isinstance(module, nn.Linear) and weights.shape[1:] == (module.in_features,):
        if module.out_features >= module.in_features and _passes(modules, k):
            features = module.in_features
            module.weight[:features] = torch.eye(features, device=module.weight.device)
            if module.bias is not None:
                module.bias[:features] = 0
            return carried._replace(weights=_padded(weights, module.out_features))
        return _as_logits(carried, module, _activation_behind(modules, k))
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return carried._replace(weights=weights.flatten(1))
    # An activation is taken into account by the module before it.
    if isinstance(module, SeededDropout) or _is_activation(module):
        return carried
    return None


def _as_logits(carried: _Carried, module: nn.Linear, activation: nn.Module | None) -> _Carried | None:
    """Set the first neurons of a layer to compute the logits, and return the classifier behind it."""
    weights, biases = carried
    classes = len(biases)
    signs: tuple[int, ...]
    shift = 0.0
    if activation is None:
        scale, behind, signs = 1.0, 1.0, (1,)
    elif isinstance(activation, nn.Tanh | nn.Sigmoid):
        # The slope at 0 is 1 (tanh) or 1/4 (sigmoid). The sigmoid of 0 is 1/2, which shifts all logits alike.
        scale, signs = _SMALL, (1,)
        behind = (1 if isinstance(activation, nn.Tanh) else 4) / _SMALL
    elif isinstance(activation, nn.ReLU | nn.LeakyReLU | nn.GELU | nn.ELU):
        # f(z) - f(-z) is proportional to z, except for the ELU, where it increases with z.
        slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
        scale, behind, signs = 1.0, 1 / (1 + slope), (1, -1)
        if module.out_features < 2 * classes and module.bias is not None:
            behind, signs, shift = 1.0, (1,), _SHIFT  # the shift is the same for all logits
    else:
        return None
    if module.out_features < classes * len(signs):
        return None
    new = weights.new_zeros(classes, module.out_features)
    for part, sign in enumerate(signs):
        neurons = slice(part * classes, (part + 1) * classes)
        module.weight[neurons] = sign * scale * weights
        if module.bias is not None:
            module.bias[neurons] = sign * scale * biases + shift
        new[:, neurons] = sign * behind * torch.eye(classes, device=weights.device)
    return _Carried(new, biases if module.bias is None else torch.zeros_like(biases))


def _passes(modules: list[nn.Module], k: int) -> bool:
    """Return whether the activation behind module k, if any, leaves the inputs of the module unchanged."""
    activation = _activation_behind(modules, k)
    if activation is None:
        return True
    before = next((it for it in reversed(modules[:k]) if not isinstance(it, _TRANSPARENT)), None)
    return isinstance(activation, _KEEP_NONNEGATIVE) and isinstance(before, _NONNEGATIVE)


def _activation_behind(modules: list[nn.Module], k: int) -> nn.Module | None:
    return modules[k + 1] if _is_activation(modules[k + 1]) else None


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU | nn.LeakyReLU | nn.Tanh | nn.Sigmoid | nn.ELU | nn.GELU)


def _moved(weights: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Move the weights ``[K, C, H, W]`` of positions to the nearest windows, ``[K, C, H', W']``."""
    for axis in (2, 3):
        size = weights.shape[axis]
        windows = (size + 2 * padding - kernel) // stride + 1
        centres = (torch.arange(size, device=weights.device) + padding - (kernel - 1) / 2) / stride
        nearest = (centres + 0.5).floor().long().clamp(0, windows - 1)
        shape = list(weights.shape)
        shape[axis] = windows
        weights = weights.new_zeros(shape).index_add_(axis, nearest, weights)
    return weights


def _padded(weights: Tensor, channels: int) -> Tensor:
    """Pad the weights with zeros for additional channels, or features."""
    padded = weights.new_zeros(len(weights), channels, *weights.shape[2:])
    padded[:, : weights.shape[1]] = weights
    return padded
