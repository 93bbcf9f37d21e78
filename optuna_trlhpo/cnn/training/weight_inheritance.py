"""What a network learns from one that it has grown from: weights, and where possible the same function.

Of the layers that both have, weights and statistics are copied. New layers begin near the identity where
their shapes allow it, after Net2Net (Chen et al., 2016), and the classifier is carried through them:

* a convolution that has at least as many filters as channels passes the middle of its kernel on; what it cuts
  off at the borders is lost;
* pooling keeps each position's weight of the classifier at the window that is nearest;
* a fully connected layer with at least as many neurons as features passes them on, another one computes the
  logits: as they are, or where its activation would cut them off, both z and -z, or, where there are too few
  neurons for that, z + 5.

Where this cannot be, for want of neurons or filters or because of an activation or a kind of layer (a kernel
that is not square, say), the new layers and the classifier begin at random.

Notation: K classes; ``carried`` is a classifier, ``[K, *shape]`` weights on the features so far and K biases.
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
"""Of weights that wait for an heir."""

_KEEP_NONNEGATIVE = (nn.ReLU, nn.LeakyReLU, nn.ELU)
"""Activations that leave what is not negative as it is."""
_NONNEGATIVE = (nn.ReLU, nn.Sigmoid)
_TRANSPARENT = (nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, SeededDropout)
"""Modules behind which nothing is negative that was not before."""
_SHIFT = 5.0
"""Logits are shifted by this where an activation cuts off what is negative; only very low ones are lost."""
_SMALL = 0.25
"""Logits are scaled so for an activation that is nearly linear at 0 alone."""


class LineageStep(NamedTuple):
    """A network that was trained on the way to a deeper one.

    Attributes:
        layers: Of the network.
        stopped: After how many epochs it was stopped early; None: it was not.
    """

    layers: Network
    stopped: int | None = None

    def __str__(self) -> str:
        return f"{len(self.layers)}" if self.stopped is None else f"{len(self.layers)}!{self.stopped}"


Lineage = tuple[LineageStep, ...]
"""The networks that were trained before, each of which inherited from the one before it."""


class WeightCache:
    """Trained networks by the way that led to them; when they take too much memory, the oldest go."""

    def __init__(self, max_bytes: int = _KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._networks: OrderedDict[str, nn.Sequential] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, way: Lineage, network: nn.Sequential) -> None:
        """The last network of the way, trained."""
        with self._lock:
            self._networks[_key(way)] = network
            while sum(map(_bytes, self._networks.values())) > self._max_bytes:
                self._networks.popitem(last=False)

    def find(self, way: Lineage) -> nn.Sequential | None:
        """The last network of the way, if it is still here."""
        return self._networks.get(_key(way))

    def __reduce__(self) -> tuple[type[WeightCache], tuple[int]]:
        return WeightCache, (self._max_bytes,)  # another process trains what it needs


def _key(way: Lineage) -> str:
    return f"{describe(way[-1].layers)} {' '.join(map(str, way))}"


def _bytes(network: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


@torch.no_grad()
def inherit(network: nn.Sequential, parent: nn.Sequential, shape: Shape) -> bool:
    """Give ``network``, which begins with the layers of ``parent``, what that has learnt.

    Args:
        network: Of `build_network`, untrained.
        parent: Of `build_network`.
        shape: Behind the last layer of ``parent``.

    Returns:
        Whether the classifier was carried over, too.

    Example:
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
    """Modules of a classifier."""
    return 2 if len(shape) > 1 else 1


class _Windows(NamedTuple):
    kernel: int
    stride: int
    padding: int


def _windows(module: nn.MaxPool2d | nn.AvgPool2d | nn.Conv2d) -> _Windows | None:
    """Of a convolution or pooling; None if they are not plain squares."""
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
    """The classifier behind module k, which is set to pass on what it can; None: it cannot."""
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
    if isinstance(module, SeededDropout) or _is_activation(
        module
    ):  # the latter is seen to by what is before it
        return carried
    return None


def _as_logits(carried: _Carried, module: nn.Linear, activation: nn.Module | None) -> _Carried | None:
    """Have the first neurons of a layer compute the logits."""
    weights, biases = carried
    classes = len(biases)
    signs: tuple[int, ...]
    shift = 0.0
    if activation is None:
        scale, behind, signs = 1.0, 1.0, (1,)
    elif isinstance(activation, nn.Tanh | nn.Sigmoid):
        # The slope at 0 is 1, or 1/4; that the sigmoid of 0 is 1/2 moves all logits alike.
        scale, signs = _SMALL, (1,)
        behind = (1 if isinstance(activation, nn.Tanh) else 4) / _SMALL
    elif isinstance(activation, nn.ReLU | nn.LeakyReLU | nn.GELU | nn.ELU):
        # f(z) - f(-z) is z, but for the ELU, where it grows with z.
        slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
        scale, behind, signs = 1.0, 1 / (1 + slope), (1, -1)
        if module.out_features < 2 * classes and module.bias is not None:
            behind, signs, shift = 1.0, (1,), _SHIFT  # which moves all logits alike
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
    """Whether the activation behind module k, if there is one, leaves what is before that module as it is."""
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
    """Weights ``[K, C, H, W]`` of positions as weights of the nearest windows, ``[K, C, H', W']``."""
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
    """With zeros for further channels, or features."""
    padded = weights.new_zeros(len(weights), channels, *weights.shape[2:])
    padded[:, : weights.shape[1]] = weights
    return padded
