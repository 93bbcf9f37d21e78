"""The original network of a `CompressObjective`: its data, its checks and its training."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from torch import nn

from optuna_trlhpo.cnn.compress.adapter import Adapter
from optuna_trlhpo.cnn.compress.costs import count_bytes, count_costs
from optuna_trlhpo.cnn.compress.results import RELATIVE, OriginalNetwork
from optuna_trlhpo.cnn.compress.scores import score_of
from optuna_trlhpo.cnn.compress.tracing import CONVOLUTIONS
from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.cnn.data.fitting import fitted
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK

if TYPE_CHECKING:
    from optuna_trlhpo.cnn.compress.objective import CompressObjective

ORIGINAL_ATTRIBUTE = "original"
"""User attribute of a study with the accuracy and the costs of the original network."""

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


def prepared_data(
    network: nn.Module | Adapter, data: Any, *, image_size: int | None, device: Any, **how: Any
) -> ImageData:
    """Return the data, with images of the size and number of channels that the network takes."""
    if isinstance(data, ImageData):
        given = {name: value for name, value in how.items() if name.endswith("_size") and value is not None}
        if given:
            name, value = next(iter(given.items()))
            raise ValueError(f"{name} is {value}; with an ImageData, which is split, it must be None")
        loaded = data
    else:
        loaded = load_data(data, device=device, **how)
    channels = None
    if isinstance(network, nn.Module):
        first = next((part for part in network.modules() if isinstance(part, CONVOLUTIONS)), None)
        channels = None if first is None else first.in_channels
    repeats = loaded.input_shape[0] == 1 and channels is not None
    return fitted(loaded, size=image_size, channels=channels if repeats else None)


def check_output(network: nn.Module, data: ImageData, batch_size: int) -> None:
    """Raise a ``ValueError`` unless the outputs of the network are logits for the labels of the data."""
    shadow = copy.deepcopy(network).to("meta").eval()
    kind = type(network).__name__
    try:
        with torch.no_grad():
            output = shadow(torch.empty(2, *data.input_shape, device="meta"))
            # Normalisation over a single number is an error, in the last step of an epoch.
            if len(data.train_labels) % batch_size == 1:
                shadow.train()(torch.empty(1, *data.input_shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the {kind} does not accept batches of the images of shape {data.input_shape}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    shape = tuple(output.shape[1:])
    pixels = tuple(data.train_labels.shape[1:])
    if not shape or shape[0] < data.num_classes or shape[1:] != pixels:
        wanted = ", ".join(["classes", *map(str, pixels)])
        raise ValueError(
            f"the {kind} has outputs of shape {shape}; for these labels it must be ({wanted}), with at least "
            f"{data.num_classes} classes"
        )


def note_original(study: Study, objective: CompressObjective) -> None:
    """Store with the study what its networks are compared with, and the names of its values."""
    original = objective.original
    noted = {
        "setting": objective.setting,
        "accuracy": original.accuracy,
        **{name: getattr(original, name) for name in RELATIVE},
    }
    before = study.user_attrs.get(ORIGINAL_ATTRIBUTE)
    # The times of the first process stay, so that others do not write them anew in every trial.
    if isinstance(before, dict) and before.get("setting") == objective.setting:
        return
    study.set_user_attr(ORIGINAL_ATTRIBUTE, noted)
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["goal"] if objective.goal is not None else list(objective.objectives))


def read_or_train(objective: CompressObjective, file: Path | None) -> OriginalNetwork:
    """Train and measure the original network, or read the trained one from a file and measure its latency."""
    values = objective.adapter.original()
    network = objective.adapter.build(values)
    kept = _read(file, objective.setting)
    if kept is not None:
        network.load_state_dict(kept["weights"])
        network.to(objective.data.device).eval()
        accuracy, seconds = kept["accuracy"], kept["train_seconds"]
    elif objective.trained:
        network.to(objective.data.device).eval()
        accuracy, seconds = objective.validated(network), None
    else:
        # From scratch, also where the networks of trials inherit.
        with TIMING_LOCK.training():
            network, seconds = objective.trainer.train(
                network, seed=objective.seed_of(values), from_scratch=True
            )
            accuracy = score_of(objective.trainer.validate(network))
        _logger.info(f"The original network has a validation accuracy of {accuracy:.4f} ({seconds:.0f} s).")
        _keep(file, objective.setting, network, accuracy, seconds)
    counts = count_costs(network, objective.data.input_shape)
    return OriginalNetwork(
        network=network,
        accuracy=accuracy,
        parameters=counts.parameters,
        macs=counts.macs,
        bytes=count_bytes(network),
        train_seconds=seconds,
        inference_seconds=objective.latency(network),
    )


def _keep(file: Path | None, setting: str, network: nn.Module, accuracy: float, seconds: float) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"setting": setting, "accuracy": accuracy, "train_seconds": seconds}
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    part = file.with_name(f"{file.name}.part")  # renamed when it is whole
    torch.save({**content, "weights": weights}, part)
    part.replace(file)


def _read(file: Path | None, setting: str) -> dict[str, Any] | None:
    """Return what a file holds, or None if there is none.

    Raises:
        ValueError: If the file is of another network or setting.
    """
    if file is None or not file.exists():
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        found = content["setting"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"original_file is {str(file)!r}, which is not a file of an original network"
        ) from error
    if found != setting:
        raise ValueError(
            f"original_file is {str(file)!r}, which holds a network of another setting; name another file"
        )
    assert isinstance(content, dict)
    return content
