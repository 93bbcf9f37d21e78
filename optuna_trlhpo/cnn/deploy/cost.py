"""What a network costs: parameters, operations, memory, and on this machine time and energy; layer by layer,
so that it can be seen where to cut it.

Notation: MACs are multiply-accumulates, FLOPs floating-point operations (two for a MAC), both for one input.
Bytes are of 32-bit numbers unless the network has others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.text_table import aligned
from optuna_trlhpo.layers.counting import count_macs

_RAPL = Path("/sys/class/powercap")
"""Where Linux counts the energy of the processor, if one may read it."""
_SECONDS_OF_ENERGY = 0.5


def count_parameters(model: nn.Module) -> int:
    """All weights and biases.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


class Latency(NamedTuple):
    """Seconds of one pass through a network or a part of it.

    Attributes:
        median: Of many passes, after some to warm up.
        spread: The interquartile range.
    """

    median: float
    spread: float

    def __str__(self) -> str:
        return f"{1e3 * self.median:.3f} ± {1e3 * self.spread:.3f} ms"


class PartCost(NamedTuple):
    """What one layer of a network costs.

    Attributes:
        name: The layer's.
        output_shape: Behind it, without the batch axis.
        parameters: Weights and biases.
        macs: For one input.
        output_bytes: That leave it for one input: what crosses if the network is cut behind it.
        latency: Of the layer on its own; None: not measured.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    output_bytes: int
    latency: Latency | None


class Cost(NamedTuple):
    """What a network costs; its text is a table.

    Attributes:
        parts: Layer by layer, the classifier last.
        parameters: Weights and biases.
        macs: For one input.
        flops: For one input.
        peak_activation_bytes: The most that input and output of one layer take together, for one input: the
            memory beside the weights that inference needs at least, if activations are computed in place. It
            is what ``max_activation_bytes`` limits; what is between the operations of one layer is not in it.
        model_bytes: Of parameters and buffers.
        latency: Of the whole; None: not measured.
        joules: Of the whole, for one batch, where this machine can tell; it counts all that the device does
            meanwhile. None: it cannot.
        setting: What latency and energy hold for: device, threads, batch size.
    """

    parts: tuple[PartCost, ...]
    parameters: int
    macs: int
    flops: int
    peak_activation_bytes: int
    model_bytes: int
    latency: Latency | None
    joules: float | None
    setting: str

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "output", "parameters", "MACs", "bytes out", "latency")]
        for part in self.parts:
            shape = "x".join(map(str, part.output_shape))
            numbers = (part.parameters, part.macs, part.output_bytes)
            latency = "" if part.latency is None else str(part.latency)
            rows.append((part.name, shape, *(f"{number:,}" for number in numbers), latency))
        whole = "" if self.latency is None else str(self.latency)
        rows.append(("total", "", f"{self.parameters:,}", f"{self.macs:,}", "", whole))
        lines = [
            aligned(rows, left={0, 1}),
            f"{self.flops:,} FLOPs, {self.model_bytes:,} bytes of weights, at most "
            f"{self.peak_activation_bytes:,} bytes of activations at once",
        ]
        if self.latency is not None:
            energy = "" if self.joules is None else f", {1e3 * self.joules:.3g} mJ a batch"
            lines.append(f"latency on {self.setting}{energy}")
        return "\n".join(lines)


def measure_cost(
    parts: Mapping[str, nn.Module],
    input_shape: Sequence[int],
    *,
    latency: bool = True,
    batch_size: int = 1,
    threads: int = 1,
    seconds: float = 0.2,
) -> Cost:
    """Count and measure what a network costs.

    Args:
        parts: Its layers by name, in order; each takes what the one before gives.
        input_shape: Of one input, without the batch axis.
        latency: Whether to measure time and energy; they are those of the device the parts lie on.
        batch_size: Inputs in a measured pass.
        threads: Of the CPU.
        seconds: That each part, and the whole, is measured for.

    Raises:
        ValueError: If there are no parts, or a number is not positive.

    Example:
        >>> parts = {"conv": nn.Conv2d(1, 8, 3), "end": nn.Sequential(nn.Flatten(), nn.Linear(288, 10))}
        >>> cost = measure_cost(parts, (1, 8, 8), latency=False)
        >>> cost.macs, cost.model_bytes, cost.peak_activation_bytes, cost.parts[0].output_bytes
        (5472, 11880, 1408, 1152)
    """
    if not parts:
        raise ValueError("a network has at least one part, and there is none")
    for name, value in (("batch_size", batch_size), ("threads", threads), ("seconds", seconds)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; it must be positive")
    network = nn.Sequential(*parts.values())
    was_training = [module.training for module in parts.values()]
    network.eval()
    try:
        inputs = _inputs(network, input_shape, batch_size)
        device = inputs.device
        whole, joules, rows, peak = None, None, [], 0
        with torch.inference_mode():
            if latency:
                whole = _time(network, inputs, threads, seconds)
                joules = _energy(network, inputs, threads)
            for name, part in parts.items():
                timed = _time(part, inputs, threads, seconds) if latency else None
                macs = count_macs(part, inputs.shape[1:])
                before = inputs[0].numel() * inputs.element_size()
                inputs = part(inputs)
                size = inputs[0].numel() * inputs.element_size()
                peak = max(peak, before + size)
                shape = tuple(inputs.shape[1:])
                rows.append(PartCost(name, shape, count_parameters(part), macs, size, timed))
        macs = sum(row.macs for row in rows)
        return Cost(
            parts=tuple(rows),
            parameters=count_parameters(network),
            macs=macs,
            flops=2 * macs,
            peak_activation_bytes=peak,
            model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in _tensors(network)),
            latency=whole,
            joules=joules,
            setting=f"{_device_name(device)}, {threads} thread{'s' * (threads > 1)}, batch size {batch_size}",
        )
    finally:
        for module, training in zip(parts.values(), was_training, strict=True):
            module.train(training)


def measure_latency(
    network: nn.Module,
    input_shape: Sequence[int],
    *,
    batch_size: int = 1,
    threads: int = 1,
    seconds: float = 0.2,
) -> Latency:
    """How long one pass takes on the device of the network, which is put into evaluation mode.

    Args:
        network: Takes ``[B, *input_shape]``.
        input_shape: Of one input, without the batch axis.
        batch_size: Inputs in a measured pass.
        threads: Of the CPU.
        seconds: That are measured for.

    Example:
        >>> measure_latency(nn.Linear(3, 2), (3,), seconds=0.01).median > 0
        True
    """
    with torch.inference_mode():
        return _time(network.eval(), _inputs(network, input_shape, batch_size), threads, seconds)


def _inputs(network: nn.Module, input_shape: Sequence[int], batch_size: int) -> Tensor:
    some = next(network.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, *input_shape, generator=generator).to(some.device, some.dtype)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _time(part: nn.Module, inputs: Tensor, threads: int, seconds: float) -> Latency:
    timer = Timer("part(inputs)", globals={"part": part, "inputs": inputs}, num_threads=threads)
    measured = timer.blocked_autorange(min_run_time=seconds)  # warms up, and waits for a GPU
    return Latency(measured.median, measured.iqr)


def _energy(network: nn.Module, inputs: Tensor, threads: int) -> float | None:
    """Joules of one pass; None where nothing counts them."""
    on_gpu = inputs.device.type == "cuda"
    start = None if on_gpu else _joules_of_cpu()
    if start is None and (not on_gpu or _watts_of_gpu(inputs.device) is None):
        return None
    passes, watts, begun = 0, [], time.perf_counter()
    with cpu_threads(threads):
        while (seconds := time.perf_counter() - begun) < _SECONDS_OF_ENERGY:
            network(inputs)
            passes += 1
            if on_gpu:
                torch.cuda.synchronize(inputs.device)
                if seconds > _SECONDS_OF_ENERGY / 2:  # the sensor lags behind
                    watts.append(_watts_of_gpu(inputs.device) or 0.0)
    if on_gpu:
        return sum(watts) / len(watts) * seconds / passes if watts else None
    end = _joules_of_cpu()
    # A counter begins anew now and then.
    return None if start is None or end is None or end < start else (end - start) / passes


def _watts_of_gpu(device: torch.device) -> float | None:
    """What the GPU draws; None without NVIDIA's management library (the package nvidia-ml-py)."""
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ImportError, RuntimeError):
        return None


def _joules_of_cpu() -> float | None:
    """What the processors have used so far, by Linux's count."""
    try:
        counters = [int(path.read_text()) for path in sorted(_RAPL.glob("intel-rapl:[0-9]*/energy_uj"))]
    except OSError:
        return None
    return sum(counters) / 1e6 if counters else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "the CPU" if device.type == "cpu" else device.type
