"""Operations of `CNNObjective` on the best network of a finished trial: refit, cost and partition.

A study stores the architecture of a network, but no weights. Notation: see `optuna_trlhpo.cnn.objective`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from optuna.trial import BaseTrial, FrozenTrial
from torch import nn

from optuna_trlhpo._texts import brief
from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.deploy.cost import (
    Cost,
    count_parameters,
    measure_cost,
    measure_latency,
    measure_quantised,
)
from optuna_trlhpo.cnn.deploy.partition import Budget, Partition, choose, cuts, write_parts
from optuna_trlhpo.cnn.model import classifier_modules, layer_modules
from optuna_trlhpo.cnn.results import Confirmed, Refit
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.cnn.training.augmentation import Transform
from optuna_trlhpo.cnn.training.global_generator import global_generator
from optuna_trlhpo.cnn.training.loop import predict_correct
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import Network, Shape
from optuna_trlhpo.layers.model_size import number_bytes
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.attributes import ARCHITECTURE_ATTRIBUTE, read_architecture
from optuna_trlhpo.trials.training_record import accuracies

_NOT_ITS_NETWORK = (
    "network has another architecture than the trial; it must be a network that refit returned for it"
)


SECONDS_OF_LATENCY = 0.1
"""Duration of a latency measurement before a network is trained."""


def network_of(trial: BaseTrial | Confirmed) -> tuple[str, Network]:
    """Return the architecture of the best network, as text and as layers.

    Raises:
        ValueError: If ``trial`` is not a trial, or its user attribute ``architecture`` is not a network.
    """
    if isinstance(trial, Confirmed):
        return trial.architecture, trial.layers
    if not isinstance(trial, BaseTrial):
        raise ValueError(f"trial is {trial!r}; it must be a trial, or a row of the result of confirm")
    found = read_architecture(trial)
    if found is None:
        given = trial.user_attrs.get(ARCHITECTURE_ATTRIBUTE)
        raise ValueError(
            f"the trial has the user attributes {sorted(trial.user_attrs)}; it must have 'architecture', "
            "which CNNObjective sets when it has trained a network"
            if given is None
            else f"the trial's user attribute 'architecture' is {brief(given)}; it must be a network "
            "in the notation of CNNObjective, such as 'Conv(8,3,1) > FCL(16,relu,bias)'"
        )
    return found


def refit(
    trial: BaseTrial | Confirmed,
    trainer: Trainer,
    space: LayerSpace,
    *,
    epochs: int,
    seed: int,
    augment: str | Transform | None,
) -> Refit:
    """Train the best network of a trial again and test it; see `CNNObjective.refit`."""
    architecture, layers = network_of(trial)
    data = trainer.data
    start = time.perf_counter()
    images = torch.cat([data.train_images, data.validation_images])
    labels = torch.cat([data.train_labels, data.validation_labels])
    with TIMING_LOCK.training(), cpu_threads(trainer.threads):
        network = trainer.train(layers, images, labels, epochs=epochs, seed=seed, augment=augment)
    seconds = time.perf_counter() - start
    test_accuracy = None
    if data.test_images is not None and data.test_labels is not None:
        with cpu_threads(trainer.threads):
            correct = predict_correct(network, data.test_images, data.test_labels)
        test_accuracy = float(correct.cpu().double().mean())  # not every GPU has 64 bits
    return Refit(
        network=network.eval(),
        architecture=architecture,
        layers=layers,
        parameters=count_parameters(network),
        macs=space.macs(layers),
        test_accuracy=test_accuracy,
        seconds=seconds,
    )


def untrained(layers: Network, trainer: Trainer, space: LayerSpace) -> dict[str, nn.Module]:
    """Build the untrained modules of each layer and of the classifier, on the device of the data."""
    shapes: tuple[Shape, ...] = (space.input_shape, *space.shapes(layers))
    with global_generator():
        modules: dict[str, nn.Module] = {
            f"{k} {layer}": nn.Sequential(
                *layer_modules(layer, shape, conv_activation=trainer.conv_activation)
            )
            for k, (layer, shape) in enumerate(zip(layers, shapes, strict=False), start=1)
        }
        modules["classifier"] = nn.Sequential(*classifier_modules(shapes[-1], space.num_classes))
    return {name: module.to(trainer.data.device) for name, module in modules.items()}


def latency_of(layers: Network, trainer: Trainer, space: LayerSpace) -> float:
    """Measure the median latency for one image, in seconds."""
    network = nn.Sequential(*untrained(layers, trainer, space).values())
    return measure_latency(network, space.input_shape, seconds=SECONDS_OF_LATENCY).median


def cost(
    layers: Network,
    trainer: Trainer,
    space: LayerSpace,
    *,
    latency: bool,
    quantize: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **how: Any,
) -> Cost:
    """Compute the cost of an untrained network, layer by layer.

    With ``quantize`` the network is also written as a file with the ``metadata``, and measured. The keyword
    arguments ``how`` are passed to `measure_cost`.
    """
    modules = untrained(layers, trainer, space)
    with TIMING_LOCK.measuring() if latency else contextlib.nullcontext():
        counted = measure_cost(modules, space.input_shape, latency=latency, **how)
        if quantize is None:
            return counted
        network = nn.Sequential(*(module for part in modules.values() for module in part.children()))
        _draw_normalisations(network)
        quantised = measure_quantised(
            network,
            space.input_shape,
            quantize=quantize,
            peak_activations=counted.peak_activation_bytes // number_bytes(None),
            metadata=metadata or {},
            latency=latency,
            **how,
        )
        return counted._replace(quantised=quantised)


def _draw_normalisations(network: nn.Module) -> None:
    """Draw the numbers of normalisations, as training would change them.

    A file leaves out what does nothing, and holds equal tensors once.
    """
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            tensors = (module.weight, module.bias, module.running_mean, module.running_var)
            for tensor in (it for it in tensors if it is not None):
                with torch.no_grad():
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))


def check_is_network_of(
    trial: BaseTrial | Confirmed, network: Any, trainer: Trainer, space: LayerSpace
) -> None:
    """Raise a ``ValueError`` unless the parameters of ``network`` have the shapes of the trial's network."""
    _, layers = network_of(trial)
    modules = untrained(layers, trainer, space).values()
    own = [parameter.shape for module in modules for parameter in module.parameters()]
    if not isinstance(network, nn.Module) or [it.shape for it in network.parameters()] != own:
        raise ValueError(_NOT_ITS_NETWORK)


def partition(
    trial: BaseTrial | Confirmed,
    trained: Callable[[], nn.Module],
    budget: Budget,
    trainer: Trainer,
    space: LayerSpace,
    *,
    folder: str | Path | None,
    latency: bool,
) -> Partition:
    """Choose where to cut a network; see `CNNObjective.partition`.

    ``trained`` is called for the trained network only if the parts are to be written.
    """
    _, layers = network_of(trial)
    counted = cost(layers, trainer, space, latency=latency)
    known = accuracies(trial) if isinstance(trial, FrozenTrial) else {}
    found = cuts(counted, space.input_shape, known)
    cut = choose(found, budget)
    if folder is None:
        return Partition(cut, found, None, None, counted.setting)
    shapes: tuple[Shape, ...] = (space.input_shape, *space.shapes(layers))
    modules = [
        len(layer_modules(layer, shape, conv_activation=trainer.conv_activation))
        for layer, shape in zip(layers, shapes, strict=False)
    ]
    network = trained()
    if not isinstance(network, nn.Sequential) or len(network) <= sum(modules):
        raise ValueError(_NOT_ITS_NETWORK)
    files = write_parts(network, cut, modules, shapes, Path(folder), metadata=metadata(trial, trainer.data))
    return Partition(cut, found, *files, counted.setting)


def metadata(trial: BaseTrial | Confirmed, data: ImageData) -> dict[str, Any]:
    """Return the metadata of an exported network: its architecture, data and input scaling."""
    return {
        "architecture": network_of(trial)[0],
        "data": data.name,
        "input": "(x - mean) / std, in the pixel scale of the data (0 to 1 where it came as uint8)",
        **({"classes": list(data.classes)} if data.classes else {}),
        "mean": [float(f"{value:.8g}") for value in data.mean],
        "std": [float(f"{value:.8g}") for value in data.std],
    }
