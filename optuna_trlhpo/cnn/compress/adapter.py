"""Adapters: how a network is built with other widths and kernels.

`NarrowingAdapter` serves every module that `torch.fx` can trace, such as VGG, GoogLeNet, ResNet and U-Net.
`Adapter` is the interface for other modules.
"""

from __future__ import annotations

import copy
import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from optuna.trial import BaseTrial
from torch import nn

from optuna_trlhpo._checks import is_integer, is_number
from optuna_trlhpo.cnn.compress.narrowing import narrow, with_kernel
from optuna_trlhpo.cnn.compress.tracing import CONVOLUTIONS, TracedLayer, trace


class IntegerRange(NamedTuple):
    """Integers that a parameter of a network may have.

    Attributes:
        low: Smallest value.
        high: Largest value, that of the original network.
        step: Distance between values.
        log: Whether samplers see the logarithm. The step must then be 1.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Return a value that the trial suggests under the name."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def nearest(self, value: float) -> int:
        """Return the nearest integer of the range.

        Examples:
            >>> IntegerRange(1, 7, step=2).nearest(4.1), IntegerRange(4, 64, log=True).nearest(0.3)
            (5, 4)
        """
        return min(range(self.low, self.high + 1, self.step), key=lambda it: abs(it - value))


class Adapter(ABC):
    """How a network is built from a few integers. Subclass it for a module that cannot be traced.

    Attributes:
        ranges: Parameters of the network, with the integers that each may have.

    Examples:
        >>> class Perceptron(Adapter):
        ...     ranges = {"units": IntegerRange(2, 64, log=True)}
        ...
        ...     def build(self, values):
        ...         units = values["units"]
        ...         return nn.Sequential(nn.Flatten(), nn.Linear(64, units), nn.ReLU(), nn.Linear(units, 10))
        >>> adapter = Perceptron()
        >>> adapter.original()
        {'units': 64}
    """

    ranges: Mapping[str, IntegerRange]

    @abstractmethod
    def build(self, values: Mapping[str, int]) -> nn.Module:
        """Return a network with these values, one for each of `ranges`, on the CPU.

        It maps ``[B, *input_shape]`` to logits ``[B, classes]``, or ``[B, classes, H, W]`` for label maps.
        """

    def inherit(self, original: nn.Module, values: Mapping[str, int]) -> nn.Module:
        """Return a network with these values and weights of the trained original.

        Raises:
            ValueError: If the adapter does not support it.
        """
        raise ValueError(f"inherit is True; {type(self).__name__} has no method inherit, so it must be False")

    def original(self) -> dict[str, int]:
        """Return the values of the original network, the highest ones."""
        return {name: allowed.high for name, allowed in self.ranges.items()}

    def scaled(self, share: float) -> dict[str, int]:
        """Return values with this share of each of the original ones, as far as the ranges allow.

        Such networks, which have one width multiplier (MobileNets, Howard et al., 2017, arXiv:1704.04861,
        section 3.3), are a good start of a search: ``study.enqueue_trial(objective.adapter.scaled(0.25))``.
        """
        return {name: allowed.nearest(share * allowed.high) for name, allowed in self.ranges.items()}

    def check(self, values: Mapping[str, object]) -> None:
        """Raise a ``ValueError`` unless there is a value in its range for each parameter."""
        for name, allowed in self.ranges.items():
            value = values.get(name)
            if not (is_integer(value) and value in range(allowed.low, allowed.high + 1, allowed.step)):
                raise ValueError(
                    f"{name} is {value!r}; it must be an integer from {allowed.low} to {allowed.high}"
                    + (f" in steps of {allowed.step}" if allowed.step > 1 else "")
                )


class NarrowingAdapter(Adapter):
    """Adapter that narrows the layers of a module and shrinks its kernels.

    Every convolution and linear layer has a width, ``NAME.channels``, unless its outputs are outputs of the
    network or reach an operation that fixes their number. Layers whose outputs are added or multiplied have
    one width together, under the name of the first. All layers behind follow: those that take their inputs
    from a concatenation or from flattened pixels, normalisations and depthwise convolutions. A convolution
    that keeps the size of its input, but for its stride, has a kernel, ``NAME.kernel``, with the odd sizes up
    to its own.

    Args:
        module: The original network. It is copied.
        input_shape: Shape of one input, without the batch axis.
        min_share: Smallest width of a layer as a share of its original width, in (0, 1].
        kernels: Whether kernels may shrink.
        keep: Patterns, such as ``"features.0"`` or ``"classifier.*"``, of the names of layers that stay.

    Raises:
        ValueError: If the module cannot be traced, no layer may change, or an argument is out of range.

    Examples:
        >>> hidden = nn.Conv2d(1, 32, 3, padding=1)
        >>> module = nn.Sequential(hidden, nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10))
        >>> adapter = NarrowingAdapter(module, (1, 8, 8))
        >>> adapter.ranges["0.channels"], adapter.original()
        (IntegerRange(low=2, high=32, step=1, log=True), {'0.channels': 32, '0.kernel': 3})
        >>> adapter.build({"0.channels": 5, "0.kernel": 1})
        Sequential(
          (0): Conv2d(1, 5, kernel_size=(1, 1), stride=(1, 1))
          (1): ReLU()
          (2): Flatten(start_dim=1, end_dim=-1)
          (3): Linear(in_features=320, out_features=10, bias=True)
        )
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        *,
        min_share: float = 1 / 16,
        kernels: bool = True,
        keep: Iterable[str] = (),
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module is {module!r}; it must be a torch.nn.Module")
        if not (is_number(min_share) and 0 < min_share <= 1):
            raise ValueError(f"min_share is {min_share!r}; it must be above 0 and at most 1")
        keep = [keep] if isinstance(keep, str) else list(keep)
        self._module = copy.deepcopy(module).cpu()
        self._traced = trace(self._module, input_shape)
        _check_patterns(keep, self._traced.layers)
        groups = self._traced.groups
        for layer in self._traced.layers:
            if not layer.follows and _matches(layer.name, keep):
                groups.freeze(layer.outputs)
        self._widths: dict[int, str] = {}
        ranges = {}
        for group, name in groups.free().items():
            size = groups.sizes[group]
            low = max(1, round(min_share * size))
            if low < size:
                self._widths[group] = f"{name}.channels"
                ranges[f"{name}.channels"] = IntegerRange(low, size, log=True)
        for layer in self._traced.layers:
            part = self._module.get_submodule(layer.name)
            if kernels and _keeps_size(part) and not _matches(layer.name, keep):
                ranges[f"{layer.name}.kernel"] = IntegerRange(1, _kernel(part), step=2)
        if not ranges:
            raise ValueError(f"no layer of the {type(module).__name__} may change its width or kernel")
        places = {layer.name: place for place, layer in enumerate(self._traced.layers)}
        self.ranges = dict(sorted(ranges.items(), key=lambda it: places[it[0].rpartition(".")[0]]))
        self._check(input_shape)

    def build(self, values: Mapping[str, int]) -> nn.Module:
        """Return the module with these widths and kernels, and with weights of the original."""
        return self.inherit(self._module, values)

    def scaled(self, share: float) -> dict[str, int]:
        """Return this share of each width, with the original kernels; see `Adapter.scaled`."""
        kernels = {name: it.high for name, it in self.ranges.items() if name.endswith(".kernel")}
        return {**super().scaled(share), **kernels}

    def inherit(self, original: nn.Module, values: Mapping[str, int]) -> nn.Module:
        """Return a network with these values and weights of the trained original.

        Each group of layers keeps the filters with the largest L1 norms (Li et al., 2017, "Pruning filters
        for efficient ConvNets", section 3.1), in their order, and kernels keep their centres.
        """
        network = copy.deepcopy(original).cpu()
        for name, allowed in self.ranges.items():
            if name.endswith(".kernel") and values[name] < allowed.high:
                with_kernel(network.get_submodule(name.removesuffix(".kernel")), values[name])
        widths = {group: values[name] for group, name in self._widths.items()}
        narrow(network, self._traced, {group: n for group, n in widths.items() if n < self._size(group)})
        return network

    def _size(self, group: int) -> int:
        return self._traced.groups.sizes[group]

    def _check(self, input_shape: Sequence[int]) -> None:
        """Raise a ``ValueError`` if the module does not run with other widths, or has another output."""
        smallest = self.build({name: allowed.low for name, allowed in self.ranges.items()}).to("meta").eval()
        kind = type(self._module).__name__
        try:
            with torch.no_grad():
                shape = tuple(smallest(torch.empty(2, *input_shape, device="meta")).shape[1:])
        except Exception as error:  # of any kind, from the module's own code
            raise ValueError(
                f"the {kind} does not run with other widths ({str(error).strip().splitlines()[0]}); name the "
                "layers whose widths its code depends on in keep, or pass an Adapter"
            ) from error
        if shape != self._traced.output_shape:
            raise ValueError(
                f"the {kind} has outputs of shape {shape} with other widths and {self._traced.output_shape} "
                "without; name the layers whose widths its code depends on in keep, or pass an Adapter"
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(keep: Sequence[str], layers: Sequence[TracedLayer]) -> None:
    names = [layer.name for layer in layers]
    for pattern in keep:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"keep contains {pattern!r}, which no layer matches; there are {', '.join(names)}"
            )


def _kernel(part: nn.Module) -> int:
    assert isinstance(part, CONVOLUTIONS)
    return int(part.kernel_size[0])


def _keeps_size(part: nn.Module) -> bool:
    """Return whether the module is a convolution whose size of output does not depend on its odd kernel."""
    if not isinstance(part, CONVOLUTIONS) or len(set(part.kernel_size)) > 1:
        return False
    kernel = _kernel(part)
    if kernel == 1 or kernel % 2 == 0:
        return False
    if isinstance(part.padding, str):
        return part.padding == "same"
    return all(
        padding == dilation * (kernel // 2)
        for padding, dilation in zip(part.padding, part.dilation, strict=True)
    )
