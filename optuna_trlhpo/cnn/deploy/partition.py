"""Where to cut a network between a device and a server.

A cut behind layer k leaves the first k layers on the device and the rest, classifier included, on the server;
what leaves layer k crosses. Behind 0 layers everything is left to the server, and the input crosses; behind
the classifier the device does it all, and nothing crosses.

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
    """What the device has for its part of a network; None: no limit.

    Args:
        macs: Multiply-accumulates.
        parameters: Weights and biases.
        latency: Seconds, as measured on this machine: divide what the device may take by how many times
            slower it is.
        crossing_bytes: That may be sent for one input.

    Raises:
        ValueError: If a limit is negative, or no number.

    Example:
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
    """One place to cut a network, and what lies on either side.

    Attributes:
        after: The layer behind which it lies, ``"input"`` or ``"classifier"``.
        layers: That the device keeps, the classifier not counted.
        crossing_bytes: That are sent for one input.
        device_macs: Of the device's part.
        server_macs: Of the server's part.
        device_parameters: Of the device's part.
        device_latency: Seconds, the sum of its layers'; None: not measured.
        server_latency: See ``device_latency``.
        accuracy_alone: Of the network that the device's layers are with a classifier of their own, 0-1, as
            the trial trained it: what an answer without the server is worth. None: the trial did not train
            it.
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
        """Whether the device's part is within the budget."""
        pairs = (
            (self.device_macs, budget.macs),
            (self.device_parameters, budget.parameters),
            (self.device_latency, budget.latency),
            (self.crossing_bytes, budget.crossing_bytes),
        )
        return all(limit is None or (value is not None and value <= limit) for value, limit in pairs)


class Partition(NamedTuple):
    """Where a network is cut; its text is a table of all places, the chosen one marked.

    Attributes:
        cut: The one chosen.
        cuts: All that there are, from the input to the classifier.
        device: The ONNX file of the device's part; None if none was asked for, or there is no such part.
        server: See ``device``.
        setting: What the latencies hold for.
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
    """Every place where a network can be cut.

    Args:
        cost: Layer by layer, the classifier last, as `measure_cost` gives it.
        input_shape: Without the batch axis; an input is of 32-bit numbers.
        accuracies: Of the network of the first k layers, by k, where known; 0-1.
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
    """Of the cuts within the budget the one that sends the fewest bytes; of equals the one that leaves the
    device the least to do.

    Raises:
        ValueError: If there is none; it names the cut with the fewest bytes of those the device can bear.
    """
    fitting = [cut for cut in found if cut.fits(budget)]
    if not fitting:
        able = [cut for cut in found if cut.fits(Budget(budget.macs, budget.parameters, budget.latency))]
        least = min(able, key=lambda cut: cut.crossing_bytes)
        raise ValueError(
            f"no cut is within {budget}: behind {least.after!r}, the best that the device can bear, "
            f"{least.crossing_bytes} bytes cross"
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
    """Write ``device.onnx`` and ``server.onnx``: run one after the other they are the network.

    Args:
        network: As `build_network` makes it, trained.
        cut: Where.
        modules: How many modules of ``network`` each layer has, ``[S]``.
        shapes: Of the input and behind each layer, without the batch axis, ``[S + 1]``.
        folder: Made if there is none.
        metadata: What else goes into both files.

    Returns:
        The two files; None for a part that there is not.
    """
    if cut.crossing_bytes == 0:
        at, shape = len(network), shapes[-1]
    else:
        at, shape = sum(modules[: cut.layers]), shapes[cut.layers]
    notes = {**metadata, "cut_behind": cut.after}
    device, server = folder / "device.onnx", folder / "server.onnx"
    for file in (device, server):
        file.unlink(missing_ok=True)  # one of an earlier cut would not fit the other of this
    if at > 0:
        output = "logits" if at == len(network) else "features"
        export_network(network[:at], device, shapes[0], output=output, metadata={**notes, "part": "device"})
    if at < len(network):
        # What the device has seen to is not the server's.
        own = {key: value for key, value in notes.items() if key not in ("input", "mean", "std") or at == 0}
        export_network(network[at:], server, shape, metadata={**own, "part": "server"})
    return (device if at > 0 else None), (server if at < len(network) else None)


def _seconds(parts: Sequence[PartCost]) -> float | None:
    medians = [part.latency.median for part in parts if part.latency is not None]
    return sum(medians) if len(medians) == len(parts) else None


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3f} ms"
