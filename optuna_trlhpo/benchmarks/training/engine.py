"""Comparison with the training loop of a PyTorch tutorial: ``python -m optuna_trlhpo.benchmarks engine``.

Both loops train the same networks of Table I for one epoch, with the same initial weights and batch size.
Then they classify a fifth as many images. The loops alternate, and the fastest round of each counts.

*Loop of the tutorial*: a ``Dataset`` that applies ``ToTensor`` and ``Normalize`` to each image, a
``DataLoader`` that shuffles, Adam with default settings, ``loss.item()`` in every step, and evaluation with
another ``DataLoader``. *Our loop*: `cnn.training.loop.train` and `predict_correct` on tensors on the device.
The time excludes the transfer to the device, which happens once in a study, and a warm-up on two batches.

*Limit*: the highest number of 32-bit floating-point operations per second that the device reaches with this
number of threads, for the product of two large square matrices or a 3x3 convolution from 128 to 128 channels.
Like our loop, both compute without TF32; the loop of the tutorial has PyTorch's default settings, which allow
TF32 in convolutions on recent NVIDIA GPUs. The *share* of a network is the number of operations per second in
its training, relative to the limit. `torch.utils.flop_counter` counts the operations of the forward and
backward pass. The share excludes evaluation.

*Gain of the layout*: speed of our training relative to training with the other memory layout of the weights,
channels last or contiguous.

With one CPU thread, times are CPU times of the process, which are robust to other processes. Otherwise they
are wall-clock times.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.benchmarks.training import defaults
from optuna_trlhpo.benchmarks.training.plain_loop import (
    BATCH_SIZE,
    LEARNING_RATE,
    load_pixels,
    plain_loop,
    standardised,
)
from optuna_trlhpo.cnn.deploy.cost import count_parameters
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training.fast_layout import fastest_layout, place
from optuna_trlhpo.cnn.training.full_precision import full_precision
from optuna_trlhpo.cnn.training.loop import PRECISIONS, predict_correct, train
from optuna_trlhpo.layers import parse

NETWORKS = (
    "Conv(8,3,3)",
    "Conv(16,3,2) > FCL(64,relu,bias)",
    "Conv(16,5,1) > MaxPool(2,2,0) > Conv(32,3,1) > MaxPool(2,2,0) > FCL(64,relu,bias)",
    "Conv(32,3,1) > MaxPool(2,2,0) > Conv(64,3,1) > MaxPool(2,2,0) > FCL(128,relu,bias)",
    "Conv(64,5,1) > Conv(128,5,1) > MaxPool(2,2,0) > FCL(256,relu,bias)",
)
"""Networks, in ascending order of the operations of a training step."""
_EVALUATED_SHARE = 5
_AT_ONCE = 4
"""Number of networks that a GPU trains at the same time, in threads."""


class Timing(NamedTuple):
    """Measurements of one network.

    Attributes:
        network: Network in the form of `describe`.
        parameters: Number of weights and biases.
        flops: Floating-point operations of the training on one image.
        plain: Images per second of the tutorial's loop, including evaluated images.
        ours: Images per second of our loop, including evaluated images.
        rate: FLOP/s of our training.
        precision: Precision of our training.
        other_layout: Images per second of our training in the layout that `place` does not choose. None on a
            GPU.
        trained: Images per second of our training, without evaluation.
        at_once: Images per second of several networks that train at once. None on a CPU.
    """

    network: str
    parameters: int
    flops: int
    plain: float
    ours: float
    rate: float
    precision: str
    other_layout: float | None
    trained: float
    at_once: float | None

    @property
    def speedup(self) -> float:
        """Speed of our loop relative to the tutorial's."""
        return self.ours / self.plain


def measure_limit(device: torch.device, clock: Callable[[], float]) -> dict[str, float]:
    """Measure the FLOP/s of the operations whose maximum is the limit."""
    gpu = device.type == "cuda"
    size, batch = (8192, 256) if gpu else (1024, 32)
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    images = torch.randn(batch, 128, 28, 28, device=device).to(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, device=device).to(memory_format=torch.channels_last)
    operations = {
        "matrix product": (lambda: torch.mm(a, b), 2 * size**3),
        "convolution": (lambda: F.conv2d(images, kernel), 2 * batch * 128 * 128 * 9 * 26 * 26),
    }
    rates = {}
    for name, (operation, flops) in operations.items():
        with torch.no_grad(), full_precision(device):
            operation()
            rates[name] = flops / min(_seconds(operation, device, clock) for _ in range(10))
    return rates


def training_flops(model: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of the training on one image, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() // len(images)


def measure(
    network: str,
    *,
    device: torch.device,
    images: int,
    clock: Callable[[], float],
    data_root: str | Path | None = None,
    rounds: int = defaults.ENGINE_ROUNDS,
) -> Timing:
    """Time both loops on one network.

    Args:
        network: Network in the form of `describe`.
        device: Device of both loops.
        images: Number of training images.
        clock: Clock that returns seconds.
        data_root: Folder that contains MNIST; see `load_pixels`.
        rounds: Number of rounds; the fastest counts.
    """
    evaluated = max(images // _EVALUATED_SHARE, 1)
    pixels, labels, _ = load_pixels(images + evaluated, data_root)
    train_part, test_part = (pixels[:images], labels[:images]), (pixels[images:], labels[images:])
    resident, truth = standardised(pixels, device), labels.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        initial = build_network(parse(network), (1, 28, 28), 10)
    flops = training_flops(copy.deepcopy(initial), resident[:8].cpu())

    def ours(n: int, model: nn.Module, precision: str) -> None:
        train(
            model,
            resident[:n],
            truth[:n],
            epochs=1,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            precision=precision,
            generator=torch.Generator(device).manual_seed(0),
        )

    def plain(n: int, model: nn.Module) -> None:
        few = (test_part[0][:n], test_part[1][:n])
        plain_loop(model, (train_part[0][:n], train_part[1][:n]), few)

    def together(precision: str) -> None:
        models = [place(copy.deepcopy(initial), device, precision) for _ in range(_AT_ONCE)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda model: ours(images, model, precision), models))

    precisions = PRECISIONS if device.type == "cuda" else PRECISIONS[:1]
    plain(2 * BATCH_SIZE, copy.deepcopy(initial).to(device))
    for precision in precisions:
        ours(2 * BATCH_SIZE, place(copy.deepcopy(initial), device, precision), precision)

    def timed(work: Callable[..., object], *arguments: Any) -> float:
        return _seconds(lambda: work(*arguments), device, clock)

    plain_seconds: list[float] = []
    training: dict[str, list[float]] = {precision: [] for precision in precisions}
    evaluation: list[float] = []
    other_layout: list[float] = []
    for _ in range(rounds):
        plain_seconds.append(timed(plain, images, copy.deepcopy(initial).to(device)))
        for precision in precisions:
            model = place(copy.deepcopy(initial), device, precision)
            training[precision].append(timed(ours, images, model, precision))
        if device.type == "cpu":
            other_layout.append(timed(ours, images, _in_other_layout(initial), "float32"))
        evaluation.append(timed(predict_correct, model, resident[images:], truth[images:]))
    precision = min(precisions, key=lambda name: min(training[name]))
    at_once = None
    if device.type == "cuda":
        at_once = _AT_ONCE * images / min(timed(together, precision) for _ in range(rounds))
    total = images + evaluated
    fastest = min(training[precision])
    return Timing(
        network=network,
        parameters=count_parameters(initial),
        flops=flops,
        plain=total / min(plain_seconds),
        ours=total / (fastest + min(evaluation)),
        rate=flops * images / fastest,
        precision=precision,
        other_layout=images / min(other_layout) if other_layout else None,
        trained=images / fastest,
        at_once=at_once,
    )


def _in_other_layout(model: nn.Module) -> nn.Module:
    usual = fastest_layout(model, torch.device("cpu")) == torch.contiguous_format
    layout = torch.channels_last if usual else torch.contiguous_format
    return copy.deepcopy(model).to(memory_format=layout)


def _seconds(work: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def run(
    *,
    device: torch.device,
    threads: int = 1,
    images: int = 4096,
    rounds: int = defaults.ENGINE_ROUNDS,
    data_root: str | Path | None = None,
) -> str:
    """Time both loops on all `NETWORKS`.

    Args:
        device: Device of both loops.
        threads: Number of CPU threads of both loops.
        images: Number of training images. Networks with more than 100 million operations per image train on a
            quarter of them.
        rounds: Number of rounds; the fastest counts.
        data_root: Folder that contains MNIST; see `load_pixels`.

    Returns:
        Table in Markdown, with a summary in the last line.
    """
    clock = time.process_time if device.type == "cpu" and threads == 1 else time.perf_counter
    with cpu_threads(threads):
        limits = measure_limit(device, clock)
        limit = max(limits.values())
        timings = []
        for network in NETWORKS:
            n = images if _is_small(network) else max(images // 4, BATCH_SIZE)
            timings.append(
                measure(network, device=device, images=n, clock=clock, data_root=data_root, rounds=rounds)
            )
    heads = ["network", "parameters", "MFLOP per image", "tutorial images/s", "engine images/s", "speedup"]
    heads += ["GFLOP/s", "share of the limit"]
    if device.type == "cuda":
        heads += ["precision", f"{_AT_ONCE} in parallel, images/s"]
    else:
        heads += ["layout speedup"]
    lines = []
    for it in timings:
        line = [it.network, f"{it.parameters:,}", f"{it.flops / 1e6:.2f}", f"{it.plain:,.0f}"]
        line += [f"{it.ours:,.0f}", f"{it.speedup:.2f}", f"{it.rate / 1e9:.1f}", f"{it.rate / limit:.2f}"]
        if it.at_once is not None:
            line += [it.precision, f"{it.at_once:,.0f}"]
        if it.other_layout is not None:
            line += [f"{it.trained / it.other_layout:.2f}"]
        lines.append(line)
    what = load_pixels(1, data_root)[2]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    measured = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in limits.items())
    mean = statistics.geometric_mean(it.speedup for it in timings)
    from optuna_trlhpo.benchmarks.harness.studies import table

    return (
        f"{name}, {os.cpu_count()} cores, {threads} used; Python {platform.python_version()}, torch "
        f"{torch.__version__}; {what}, batch size {BATCH_SIZE}, fastest of {rounds} rounds\n\n"
        f"{table(heads, lines)}\n\n"
        f"Limit: {limit / 1e9:.0f} GFLOP/s ({measured})\n"
        f"engine {device.type} speedup {mean:.2f} limit-share {timings[-1].rate / limit:.2f}"
    )


def _is_small(network: str) -> bool:
    with torch.device("meta"):
        return training_flops(build_network(parse(network), (1, 28, 28), 10), torch.empty(1, 1, 28, 28)) < 1e8


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def handle(arguments: argparse.Namespace) -> int:
    """Time both loops and print a table for each device."""
    from optuna_trlhpo.benchmarks.harness.studies import check_positive
    from optuna_trlhpo.cnn.data.datasets import resolve_device

    check_positive(threads=arguments.threads, images=arguments.images, rounds=arguments.rounds)
    names = arguments.devices or ["cpu", *["cuda"] * torch.cuda.is_available()]
    for device in [resolve_device(name) for name in names]:
        print(
            run(
                device=device,
                threads=arguments.threads,
                images=arguments.images,
                rounds=arguments.rounds,
                data_root=arguments.data_root,
            ),
            flush=True,
        )
    return 0
