"""Partition of a network between a device and a server.

A cut behind layer k places the first k layers on the device and the rest, classifier included, on the server.
The output of layer k is sent from the device to the server. With k = 0 everything runs on the server, and the
input is sent. With a cut behind the classifier everything runs on the device, and nothing is sent.

Notation: S layers; bytes, MACs and seconds are for one input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from optuna_trlhpo.cnn.deploy.cost import Cost, PartCost
from optuna_trlhpo.cnn.deploy.export import export_network
from optuna_trlhpo.cnn.text_table import aligned
from optuna_trlhpo.layers import Shape


@dataclass(frozen=True)
class Budget:
    """Limits of the device for its part of a network. None means no limit.

    Args:
        macs: Maximum number of multiply-accumulates.
        parameters: Maximum number of weights and biases.
        latency: Maximum latency in seconds, as measured on this machine. Divide the limit of the device by
            its slowdown relative to this machine.
        crossing_bytes: Maximum number of bytes that are sent for one input.

    Raises:
        ValueError: If a limit is negative or not a number.

    Examples:
        >>> Budget(macs=2e6, crossing_bytes=1_000)
        Budget(macs=2000000.0, parameters=None, latency=None, crossing_bytes=1000)
    """

    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    crossing_bytes: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if limit is not None and not (is_number and limit >= 0):
                raise ValueError(
                    f"{name} is {limit!r}; it must be a number of at least 0, or None for no limit"
                )


class Cut(NamedTuple):
    """A possible cut of a network, and the costs of both parts.

    Attributes:
        after: Name of the layer before the cut, or ``"input"`` or ``"classifier"``.
        layers: Number of layers on the device, the classifier not counted.
        crossing_bytes: Number of bytes that are sent for one input.
        device_macs: MACs of the device part.
        server_macs: MACs of the server part.
        device_parameters: Number of weights and biases of the device part.
        device_latency: Latency of the device part in seconds, the sum over its layers. None if not measured.
        server_latency: Latency of the server part; see ``device_latency``.
        accuracy_alone: Accuracy, 0-1, of the device's layers with a classifier of their own, as the trial
            trained this network. It is the accuracy without a server. None if the trial did not train it.
    """

    after: str
    layers: int
    crossing_bytes: int
    device_macs: int
    server_macs: int
    device_parameters: int
    device_latency: float | None
    server_latency: float | None
    accuracy_alone: float | None

    def fits(self, budget: Budget) -> bool:
        """Return whether the device part is within the budget."""
        pairs = (
            (self.device_macs, budget.macs),
            (self.device_parameters, budget.parameters),
            (self.device_latency, budget.latency),
            (self.crossing_bytes, budget.crossing_bytes),
        )
        return all(limit is None or (value is not None and value <= limit) for value, limit in pairs)


class Partition(NamedTuple):
    """The chosen cut of a network. Its text is a table of all cuts with the chosen one marked.

    Attributes:
        cut: The chosen cut.
        cuts: All possible cuts, from the input to the classifier.
        device: ONNX file of the device part. None if no file was requested, or the part is empty.
        server: ONNX file of the server part; see ``device``.
        setting: Description of the machine and setting of the latencies.
    """

    cut: Cut
    cuts: tuple[Cut, ...]
    device: Path | None
    server: Path | None
    setting: str

    def __str__(self) -> str:
        head = (
            "",
            "cut behind",
            "bytes across",
            "MACs",
            "on server",
            "parameters",
            "latency",
            "on server",
            "alone",
        )
        rows: list[tuple[str, ...]] = [head]
        for cut in self.cuts:
            alone = "-" if cut.accuracy_alone is None else f"{cut.accuracy_alone:.4f}"
            counts = (cut.crossing_bytes, cut.device_macs, cut.server_macs, cut.device_parameters)
            latencies = [_milliseconds(it) for it in (cut.device_latency, cut.server_latency)]
            mark = ">" if cut == self.cut else ""
            rows.append((mark, cut.after, *(f"{number:,}" for number in counts), *latencies, alone))
        lines = [aligned(rows, left={0, 1})]
        if self.cut.device_latency is not None:
            lines.append(f"latency of each part on {self.setting}")
        return "\n".join(lines)


def cuts(cost: Cost, input_shape: Sequence[int], accuracies: Mapping[int, float]) -> tuple[Cut, ...]:
    """Return all possible cuts of a network.

    Args:
        cost: Cost of each layer, the classifier last, from `measure_cost`.
        input_shape: Shape of one input without the batch axis. An input consists of 32-bit numbers.
        accuracies: Accuracies, 0-1, of the networks of the first k layers, by k, where known.
    """
    parts, measured = cost.parts, cost.latency is not None
    found = []
    for k in range(len(parts) + 1):
        device, server = parts[:k], parts[k:]
        if not server:
            crossing = 0
        else:
            crossing = device[-1].output_bytes if device else 4 * math.prod(input_shape)
        found.append(
            Cut(
                after=device[-1].name if device else "input",
                layers=min(k, len(parts) - 1),
                crossing_bytes=crossing,
                device_macs=sum(part.macs for part in device),
                server_macs=sum(part.macs for part in server),
                device_parameters=sum(part.parameters for part in device),
                device_latency=_seconds(device) if measured else None,
                server_latency=_seconds(server) if measured else None,
                accuracy_alone=accuracies.get(min(k, len(parts) - 1)) if k else None,
            )
        )
    return tuple(found)


def choose(found: Sequence[Cut], budget: Budget) -> Cut:
    """Choose the cut within the budget that sends the fewest bytes.

    Ties are resolved in favour of the smallest device part.

    Raises:
        ValueError: If there is none. The message names the cut with the fewest bytes among those that are
            within the budget except for these bytes.
    """
    fitting = [cut for cut in found if cut.fits(budget)]
    if not fitting:
        able = [cut for cut in found if cut.fits(Budget(budget.macs, budget.parameters, budget.latency))]
        least = min(able, key=lambda cut: cut.crossing_bytes)
        raise ValueError(
            f"no cut is within {budget}: of the cuts that the device can compute, the best one, after "
            f"{least.after!r}, transfers {least.crossing_bytes} bytes"
        )
    return min(fitting, key=lambda cut: (cut.crossing_bytes, cut.device_macs, cut.device_parameters))


def write_parts(
    network: nn.Sequential,
    cut: Cut,
    modules: Sequence[int],
    shapes: Sequence[Shape],
    folder: Path,
    *,
    metadata: Mapping[str, Any],
) -> tuple[Path | None, Path | None]:
    """Write ``device.onnx`` and ``server.onnx``, which together compute the network.

    Args:
        network: Trained network from `build_network`.
        cut: Where to cut it.
        modules: Number of modules of ``network`` for each layer, ``[S]``.
        shapes: Shapes of the input and of the output of each layer, without the batch axis, ``[S + 1]``.
        folder: Output folder, created if it does not exist.
        metadata: Additional metadata of both files.

    Returns:
        The paths of the device part and the server part. None for an empty part.
    """
    if cut.crossing_bytes == 0:
        at, shape = len(network), shapes[-1]
    else:
        at, shape = sum(modules[: cut.layers]), shapes[cut.layers]
    notes = {**metadata, "cut_behind": cut.after}
    device, server = folder / "device.onnx", folder / "server.onnx"
    for file in (device, server):
        file.unlink(missing_ok=True)  # a file of an earlier cut would not match the other part of this cut
    if at > 0:
        output = "logits" if at == len(network) else "features"
        export_network(network[:at], device, shapes[0], output=output, metadata={**notes, "part": "device"})
    if at < len(network):
        # The device standardises the inputs, so these entries do not apply to the server part.
        own = {key: value for key, value in notes.items() if key not in ("input", "mean", "std") or at == 0}
        export_network(network[at:], server, shape, metadata={**own, "part": "server"})
    return (device if at > 0 else None), (server if at < len(network) else None)


def _seconds(parts: Sequence[PartCost]) -> float | None:
    medians = [part.latency.median for part in parts if part.latency is not None]
    return sum(medians) if len(medians) == len(parts) else None


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3f} ms"
