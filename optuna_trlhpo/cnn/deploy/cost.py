"""Cost of a network: parameters, operations, memory, and time and energy on this machine.

The costs are given layer by layer, to show where a network can be cut.

Notation: MACs are multiply-accumulates, FLOPs are floating-point operations (two per MAC), both for one
input. Sizes in bytes are for the number format of the network, which is 32 bits unless it uses another one.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.deploy.export import export_network
from optuna_trlhpo.cnn.deploy.running import runner
from optuna_trlhpo.cnn.text_table import aligned
from optuna_trlhpo.layers.counting import count_macs
from optuna_trlhpo.layers.model_size import number_bytes

RAPL = Path("/sys/class/powercap")
"""Linux folder with the energy counters of the processor. Reading them may require permissions."""
SECONDS_OF_ENERGY = 0.5


def count_parameters(model: nn.Module) -> int:
    """Count all weights and biases.

    Examples:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


class Latency(NamedTuple):
    """Latency in seconds of one pass through a network or a part of it.

    Attributes:
        median: Median of many passes, after a warm-up.
        spread: Interquartile range.
    """

    median: float
    spread: float

    def __str__(self) -> str:
        return f"{1e3 * self.median:.3f} ± {1e3 * self.spread:.3f} ms"


class PartCost(NamedTuple):
    """Cost of one layer of a network.

    Attributes:
        name: Name of the layer.
        output_shape: Shape of its output without the batch axis.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one input.
        output_bytes: Size of its output for one input, which is sent if the network is cut behind it.
        latency: Latency of the layer alone. None if not measured.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    output_bytes: int
    latency: Latency | None


class QuantisedCost(NamedTuple):
    """Cost of a network as a quantised ONNX file.

    Attributes:
        format: Number format, ``"int8"``.
        model_bytes: Size of the file. It is limited by ``max_model_bytes``.
        peak_activation_bytes: Maximum size of the input and output of one layer together, for one input. It
            is limited by ``max_activation_bytes``.
        latency: Latency of the file in onnxruntime on the CPU. None if not measured.
        float_model_bytes: Size of the file of 32-bit floats.
        float_latency: Latency of that file, measured in the same way.
    """

    format: str
    model_bytes: int
    peak_activation_bytes: int
    latency: Latency | None
    float_model_bytes: int
    float_latency: Latency | None

    def __str__(self) -> str:
        text = (
            f"{self.format}: a file of {self.model_bytes:,} bytes (of floats: {self.float_model_bytes:,}), "
            f"at most {self.peak_activation_bytes:,} bytes of activations at once"
        )
        if self.latency is None:
            return text
        return f"{text}\nlatency in onnxruntime {self.latency} (of floats: {self.float_latency})"


class Cost(NamedTuple):
    """Cost of a network. Its text is a table.

    Attributes:
        parts: Cost of each layer, the classifier last.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one input.
        flops: Floating-point operations for one input.
        peak_activation_bytes: Maximum size of the input and output of one layer together, for one input. It
            is the minimum memory of inference besides the weights, if activations are computed in place. It
            is limited by ``max_activation_bytes``, unless that is meant in int8. Intermediate results within
            a layer are not included.
        model_bytes: Size of parameters and buffers.
        latency: Latency of the whole network. None if not measured.
        joules: Energy of the whole network for one batch. It includes everything else that runs on the device
            meanwhile. None if this machine has no readable energy counter.
        setting: Setting of the measured latency and energy: device, threads, batch size.
        quantised: Cost of the network as a quantised file. None if it was not asked for.
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
    quantised: QuantisedCost | None = None

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "output", "parameters", "MACs", "bytes out", "latency")]
        for part in self.parts:
            shape = "x".join(map(str, part.output_shape))
            numbers = (part.parameters, part.macs, part.output_bytes)
            latency = "" if part.latency is None else str(part.latency)
            rows.append((part.name, shape, *(f"{number:,}" for number in numbers), latency))
        total = "" if self.latency is None else str(self.latency)
        rows.append(("total", "", f"{self.parameters:,}", f"{self.macs:,}", "", total))
        lines = [
            aligned(rows, left={0, 1}),
            f"{self.flops:,} FLOPs, {self.model_bytes:,} bytes of weights, at most "
            f"{self.peak_activation_bytes:,} bytes of activations at once",
        ]
        if self.latency is not None:
            energy = "" if self.joules is None else f", {1e3 * self.joules:.3g} mJ per batch"
            lines.append(f"latency on {self.setting}{energy}")
        if self.quantised is not None:
            lines.append(str(self.quantised))
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
    """Count and measure the cost of a network.

    Args:
        parts: Layers of the network by name, in order. Each takes the output of the one before.
        input_shape: Shape of one input without the batch axis.
        latency: Whether to measure time and energy, on the device of the parts.
        batch_size: Number of inputs in a measured pass.
        threads: Number of CPU threads.
        seconds: Duration of the measurement of each part, and of the whole network.

    Raises:
        ValueError: If there are no parts, or a number is not positive.

    Examples:
        >>> parts = {"conv": nn.Conv2d(1, 8, 3), "end": nn.Sequential(nn.Flatten(), nn.Linear(288, 10))}
        >>> cost = measure_cost(parts, (1, 8, 8), latency=False)
        >>> cost.macs, cost.model_bytes, cost.peak_activation_bytes, cost.parts[0].output_bytes
        (5472, 11880, 1408, 1152)
    """
    if not parts:
        raise ValueError("parts is empty; a network must have at least one part")
    for name, value in (("batch_size", batch_size), ("threads", threads), ("seconds", seconds)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; it must be positive")
    network = nn.Sequential(*parts.values())
    was_training = [module.training for module in parts.values()]
    network.eval()
    try:
        inputs = _inputs(network, input_shape, batch_size)
        device = inputs.device
        total, joules, rows, peak = None, None, [], 0
        with torch.inference_mode():
            if latency:
                total = _time(network, inputs, threads, seconds)
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
            latency=total,
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
    """Measure the latency of one pass on the device of the network, which is set to evaluation mode.

    Args:
        network: Network with inputs ``[B, *input_shape]``.
        input_shape: Shape of one input without the batch axis.
        batch_size: Number of inputs in a measured pass.
        threads: Number of CPU threads.
        seconds: Duration of the measurement.

    Examples:
        >>> measure_latency(nn.Linear(3, 2), (3,), seconds=0.01).median > 0
        True
    """
    with torch.inference_mode():
        return _time(network.eval(), _inputs(network, input_shape, batch_size), threads, seconds)


def measure_quantised(
    network: nn.Module,
    input_shape: Sequence[int],
    *,
    quantize: str,
    peak_activations: int,
    metadata: Mapping[str, Any],
    latency: bool,
    batch_size: int = 1,
    threads: int = 1,
    seconds: float = 0.2,
) -> QuantisedCost:
    """Measure a network as ONNX files of floats and of ``quantize``, which are written and thrown away.

    Args:
        network: Network, whose costs depend on its weights only where some are equal or do nothing.
        input_shape: Shape of one input without the batch axis.
        quantize: Number format, ``"int8"``.
        peak_activations: Maximum number of inputs and outputs of one layer together.
        metadata: Metadata of the file.
        latency: Whether to measure the latency of both files on the CPU.
        batch_size: Number of inputs in a measured pass.
        threads: Number of CPU threads.
        seconds: Duration of the measurement of each file.
    """
    inputs = _inputs(network, input_shape, max(batch_size, 32)).cpu()
    times: list[Latency | None] = [None, None]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("float.onnx", "quantised.onnx")]
        for k, (path, form) in enumerate(zip(paths, (None, quantize), strict=True)):
            export_network(
                network,
                path,
                input_shape,
                metadata=metadata,
                quantize=form,
                calibration=None if form is None else inputs,
            )
            if latency:
                times[k] = _time(runner(path, threads=threads), inputs[:batch_size], threads, seconds)
        sizes = [path.stat().st_size for path in paths]
    activations = number_bytes(quantize) * peak_activations
    return QuantisedCost(quantize, sizes[1], activations, times[1], sizes[0], times[0])


def _inputs(network: nn.Module, input_shape: Sequence[int], batch_size: int) -> Tensor:
    parameter = next(network.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, *input_shape, generator=generator).to(parameter.device, parameter.dtype)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _time(part: Callable[[Tensor], Tensor], inputs: Tensor, threads: int, seconds: float) -> Latency:
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    logger.setLevel(logging.ERROR)  # the import warns where there is no CUDA runtime
    try:
        from torch.utils.benchmark import Timer
    finally:
        logger.setLevel(before)

    timer = Timer("part(inputs)", globals={"part": part, "inputs": inputs}, num_threads=threads)
    measured = timer.blocked_autorange(min_run_time=seconds)  # includes a warm-up and GPU synchronisation
    return Latency(measured.median, measured.iqr)


def _energy(network: nn.Module, inputs: Tensor, threads: int) -> float | None:
    """Measure the energy of one pass in joules. Return None without an energy counter."""
    on_gpu = inputs.device.type == "cuda"
    start = None if on_gpu else joules_of_cpu()
    if start is None and (not on_gpu or _watts_of_gpu(inputs.device) is None):
        return None
    passes, watts, begun = 0, [], time.perf_counter()
    with cpu_threads(threads):
        while (seconds := time.perf_counter() - begun) < SECONDS_OF_ENERGY:
            network(inputs)
            passes += 1
            if on_gpu:
                torch.cuda.synchronize(inputs.device)
                if seconds > SECONDS_OF_ENERGY / 2:  # the power sensor lags behind
                    watts.append(_watts_of_gpu(inputs.device) or 0.0)
    if on_gpu:
        return sum(watts) / len(watts) * seconds / passes if watts else None
    end = joules_of_cpu()
    # The counters overflow from time to time and then restart at zero.
    return None if start is None or end is None or end < start else (end - start) / passes


def _watts_of_gpu(device: torch.device) -> float | None:
    """Return the power of the GPU, or None without NVIDIA's management library (package nvidia-ml-py)."""
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ImportError, RuntimeError):
        return None


def joules_of_cpu() -> float | None:
    """Return the energy that the processors have used so far, from Linux's counters, or None."""
    try:
        counters = [int(path.read_text()) for path in sorted(RAPL.glob("intel-rapl:[0-9]*/energy_uj"))]
    except OSError:
        return None
    return sum(counters) / 1e6 if counters else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "the CPU" if device.type == "cpu" else device.type
