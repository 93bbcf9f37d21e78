"""`CNNObjective`: grows a CNN inside a trial, trains its prefixes and reports their accuracies.

Notation: S layers; accuracy is a fraction of images, 0-1; MACs are for one image, classifier included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.pruners import BasePruner
from optuna.trial import BaseTrial, Trial

from optuna_trlhpo._checks import check_positive_number, check_share
from optuna_trlhpo.cnn import best_network
from optuna_trlhpo.cnn.checks import (
    check_directions,
    check_training,
    check_training_less,
    checked_objectives,
)
from optuna_trlhpo.cnn.data.datasets import load_data
from optuna_trlhpo.cnn.deploy.latency import Latencies, check_reachable
from optuna_trlhpo.cnn.evaluation import Evaluation
from optuna_trlhpo.cnn.found_networks import FoundNetworks
from optuna_trlhpo.cnn.goals import Goal, count
from optuna_trlhpo.cnn.model import check_activation
from optuna_trlhpo.cnn.study_settings import note_settings
from optuna_trlhpo.cnn.training.augmentation import Transform, check_augment
from optuna_trlhpo.cnn.training.trainer import Trainer, layers_key, measured_threads
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage
from optuna_trlhpo.layers import TABLE_I, Network, Vocabulary, describe
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.space import LayerSpace

_DEFAULTS: dict[str, Any] = {"epochs": 5, "batch_size": 128, "learning_rate": 3e-3}
_DEFAULTS_OF: dict[str, dict[str, Any]] = {
    # The training split has under a thousand images: five epochs in batches of 128 would be 40 steps.
    "digits": {"epochs": 10, "batch_size": 64, "learning_rate": 5e-3},
}


class CNNObjective(FoundNetworks):
    """An Optuna objective that grows a small CNN for a dataset, layer by layer. Maximise it.

    Every network that `LayerSpace.grow` yields is trained from scratch on the training images. Its accuracy
    on all validation images is reported. The value of a trial is the accuracy of its best prefix, which the
    user attributes ``architecture``, ``parameters`` and ``macs`` describe. If a network does not fit in
    memory, the trial fails with the user attribute ``failed``, and the study continues.

    A network has the same value in every trial, thread and process, because the seed of a training is derived
    from ``seed`` and the architecture. (Other hardware, and a GPU, may round differently.) So no network is
    trained twice. If any trial of the study has trained it with the same data and settings, in this process
    or another, before or after a restart, the result is looked up in the study (see `savings`).

    Args:
        data: ``"digits"`` (8x8, no file needed), ``"mnist"``, ``"fashion_mnist"``, ``"kmnist"``,
            ``"cifar10"``, arrays or a ``Dataset``; see `load_data`.
        data_root: Directory of torchvision's files.
        download: Whether torchvision may download missing files.
        train_size: Number of training images; see `load_data` for the default.
        validation_size: Number of validation images; see `load_data` for the default.
        num_classes: Number of classes. Default: the highest label + 1.
        epochs: Passes over the training images for each network. Default: 5; 10 for digits.
        batch_size: Number of images in a training step. Default: 128; 64 for digits.
        learning_rate: Peak learning rate of Adam. Default: 0.003; 0.005 for digits.
        schedule: ``"one_cycle"`` (linear warm-up, linear decay) or ``"constant"``.
        augment: Random transformations of the training images, new ones in each epoch: ``"characters"``
            (small rotations, shifts and scalings), ``"objects"`` (mirroring and shifts), or a function of
            images ``[N, C, H, W]`` in the pixel scale of the data, such as one of torchvision's ``v2``. It
            pays in trainings of many epochs, so rather in `refit` than in a search. None for none.
        conv_activation: Activation after each convolution: none, relu, leakyrelu, tanh, sigmoid, elu or gelu.
        max_layers: Maximum number of layers of a network. Default: 6; 8 where `kinds.CNN` is the default.
        min_improvement: Growth stops at a layer that adds less than this to the reported value, which is the
            accuracy or the value of the goal. None means never.
        min_accuracy: Growth stops below this accuracy. None means never.
        max_macs: Maximum MACs of a network for one image. None means no limit.
        max_parameters: Maximum number of weights and biases of a network. None means no limit.
        max_activation_bytes: Maximum size in bytes of the input and output of one layer together. None means
            no limit.
        max_model_bytes: Maximum size of the network's ONNX file in bytes. None means no limit.
        quantize: ``"int8"`` for networks that will be quantised to 8-bit integers. Both limits in bytes are
            then meant in int8, which `export` writes and `cost` measures. Trainings are in floats.
        max_latency: Maximum latency for one image in seconds, on the device, with one CPU thread. It is
            measured once for each network, before its training and while no thread of this process trains
            (other processes disturb it). A trial whose first network is slower violates the constraint
            ``latency`` and is pruned. None means no limit.
        goal: Value of a network as a function of its accuracy and its cost (see `goals`), for a cost that is
            to be weighed and not only limited. None means that the value is the accuracy.
        objectives: Names of the values of a trial: ``"accuracy"``, to be maximised, and ``"macs"``,
            ``"parameters"``, ``"activation_bytes"``, ``"layers"`` and ``"latency"``, to be minimised. With
            more than ``"accuracy"``, a network is suggested whole and trained once.
        vocabulary: The kinds of layer: `TABLE_I`, `kinds.CNN` for images, `kinds.MLP` for data ``(rows,
            labels)``, `kinds.CNN1D` or `kinds.LSTM` for ``(sequences, labels)``, or another one. Default:
            `kinds.CNN` within a limit (a ``max_`` argument but for the layers), `TABLE_I` without one.
        train_prefixes: Prefixes of a network to train: ``"all"``, an integer for every so many layers, or
            ``"auto"`` to let the sampler decide; see `LayerSpace`.
        inherit: Whether a network inherits the weights of the previous network of its trial, and where
            possible its function, instead of starting from scratch. Its accuracy then depends on which
            networks were trained before it, and only networks with the same lineage are looked up. Networks
            are ranked less accurately (``make train-less`` measures how much). `confirm` and `refit` start
            from scratch.
        inherited_epochs: Number of epochs of a network that inherits. Default: ``epochs``.
        early_stop: An Optuna pruner, such as ``optuna.pruners.MedianPruner()``, that stops hopeless
            trainings. After each epoch it compares the accuracy on the first 1,000 validation images with
            those of networks with the same number of layers. A stopped network is reported with the accuracy
            that it has reached, and looked up like others. This accuracy depends on the earlier trainings.
            `confirm` and `refit` never stop early. None trains every network to the end.
        device: Device of the data and networks. Default: the GPU if there is one.
        precision: ``"float32"`` (without TF32 in convolutions), or ``"bfloat16"`` for matrix products and
            convolutions in 16 bits, which may be faster on a GPU (``make bench-engine`` measures where).
            Weights stay in 32 bits.
        threads: Number of CPU threads of one training. ``"auto"`` measures now how many are worthwhile. More
            than one helps only large networks, on idle cores; to use several cores, run several trials at
            once. Another number of threads may change the rounding of values.
        seed: Random seed of the splits, the initial weights and the order of the images.

    Raises:
        ValueError: For an argument out of range, or data that cannot be used.
        FileNotFoundError: If the dataset's files are missing and ``download`` is off.

    Examples:
        ```python
        objective = CNNObjective("digits")
        study = optuna.create_study(
            direction="maximize",
            sampler=TRLHPOSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),  # growth has stop rules of its own
        )
        study.optimize(objective, n_trials=100, show_progress_bar=True)
        print(objective.table(study.best_trial))
        confirmed = objective.confirm(study)
        print(confirmed)
        print(objective.refit(confirmed[0]).test_accuracy)
        ```

    Attributes:
        space: The `LayerSpace` that trials grow in.
        data: The `ImageData` that networks are trained on.
    """

    def __init__(
        self,
        data: Any,
        *,
        data_root: str | Path = "data",
        download: bool = False,
        train_size: int | None = None,
        validation_size: int | None = None,
        num_classes: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        schedule: str = "one_cycle",
        augment: str | Transform | None = None,
        conv_activation: str = "relu",
        max_layers: int | None = None,
        min_improvement: float | None = 0.001,
        min_accuracy: float | None = 0.60,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        max_model_bytes: int | None = None,
        quantize: str | None = None,
        max_latency: float | None = None,
        goal: Goal | None = None,
        objectives: Sequence[str] = ("accuracy",),
        vocabulary: Vocabulary | None = None,
        train_prefixes: int | str = "auto",
        inherit: bool = False,
        inherited_epochs: int | None = None,
        early_stop: BasePruner | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        threads: int | str = 1,
        seed: int = 0,
    ) -> None:
        defaults = _DEFAULTS_OF.get(data, _DEFAULTS) if isinstance(data, str) else _DEFAULTS
        self.epochs: int = defaults["epochs"] if epochs is None else epochs
        self.batch_size: int = defaults["batch_size"] if batch_size is None else batch_size
        self.learning_rate: float = defaults["learning_rate"] if learning_rate is None else learning_rate
        self.schedule = schedule
        self.conv_activation = conv_activation
        self.seed = seed
        limits = (max_macs, max_parameters, max_activation_bytes, max_model_bytes, max_latency)
        if vocabulary is None and any(limit is not None for limit in limits):
            vocabulary, max_layers = CNN, 8 if max_layers is None else max_layers
        vocabulary = TABLE_I if vocabulary is None else vocabulary
        if not isinstance(vocabulary, Vocabulary):
            raise ValueError(f"vocabulary is {vocabulary!r}; it must be a Vocabulary, such as TABLE_I")
        check_training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=schedule,
            precision=precision,
            threads=threads,
            seed=seed,
        )
        # PyTorch and JSON reject NumPy integers.
        self.epochs, self.batch_size = int(self.epochs), int(self.batch_size)
        self.learning_rate = float(self.learning_rate)
        check_activation("conv_activation", conv_activation)
        check_augment(augment, vocabulary.axes)
        if max_latency is not None:
            check_positive_number("max_latency", max_latency)
        if goal is not None and not callable(goal):
            raise ValueError(
                f"goal is {goal!r}; it must be a function of an accuracy and its Counts, or None"
            )
        self.objectives = checked_objectives(objectives)
        if goal is not None and len(self.objectives) > 1:
            raise ValueError(
                f"objectives are {', '.join(self.objectives)}; with a goal, which combines accuracy and cost "
                "into one value, the only objective must be accuracy"
            )
        check_training_less(
            inherit=inherit,
            inherited_epochs=inherited_epochs,
            early_stop=early_stop,
            epochs=self.epochs,
            objectives=self.objectives,
        )
        check_share("min_accuracy", min_accuracy)
        self.goal = goal
        self._min_accuracy = min_accuracy
        self.max_latency = max_latency

        self.data = load_data(
            data,
            data_root=data_root,
            download=download,
            train_size=train_size,
            validation_size=validation_size,
            num_classes=num_classes,
            seed=seed,
            device=device,
            axes=vocabulary.axes,
        )
        self.space = LayerSpace(
            input_shape=self.data.input_shape,
            num_classes=self.data.num_classes,
            max_layers=6 if max_layers is None else max_layers,
            min_improvement=min_improvement,
            # With a goal the reports are not accuracies, so __call__ checks min_accuracy instead.
            min_accuracy=min_accuracy if goal is None else None,
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_activation_bytes=max_activation_bytes,
            max_model_bytes=max_model_bytes,
            quantize=quantize,
            vocabulary=vocabulary,
            train_prefixes=train_prefixes,
        )
        if isinstance(threads, str):
            threads = measured_threads(
                self.data, self.space, batch_size=self.batch_size, conv_activation=conv_activation
            )
        self.threads: int = threads
        self.trainer = Trainer(
            data=self.data,
            conv_activation=conv_activation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=schedule,
            precision=precision,
            threads=threads,
            seed=seed,
            inherits=inherit,
            inherited_epochs=self.epochs if inherited_epochs is None else inherited_epochs,
            code=layers_key(vocabulary.kinds),
            augment=augment,
        )
        self.evaluation = Evaluation(self.trainer, epochs=self.epochs, seed=seed, early_stop=early_stop)
        self._latency = Latencies(self._measured_latency)
        if max_latency is not None:
            check_reachable(max_latency, self._measured_latency, self.space)

    @classmethod
    def paper(cls, data: Any = "mnist", **overrides: Any) -> CNNObjective:
        """Return an objective with the paper's setting.

        The setting is Table I, batches of 16, 5 epochs, Adam at 0.001 and convolutions without activation.

        Args:
            data: See `CNNObjective`. For torchvision's datasets, 20,000 training and 10,000 validation images
                are used.
            overrides: Any arguments of `CNNObjective`.
        """
        setting = {
            "epochs": 5,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "conv_activation": "none",
            "train_prefixes": "all",
            "vocabulary": TABLE_I,
            "max_layers": 6,
        }
        return cls(data, **{**setting, **overrides})

    def __repr__(self) -> str:
        return f"<CNNObjective on {self.data.name!r}, {', '.join(self.objectives)}, {self.space!r}>"

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """Grow and train a network, report its prefixes, and return the value of the best one.

        The value is the accuracy, or the value of the goal if there is one. With several objectives, the
        network is trained once and their values are returned. The network of a frozen or fixed trial is
        trained again unchanged: ``objective(study.best_trial)``.

        Raises:
            optuna.TrialPruned: If the study's pruner decides so, or no network is within the limits.
            ValueError: If the directions of the study differ from those of the objectives, or a fixed trial
                has no network.
        """
        if isinstance(trial, Trial):
            check_directions(trial.study, self.objectives)
            note_settings(trial.study, self)
        if len(self.objectives) > 1:
            return self._train_once(trial)
        best: float | None = None
        lineage: Lineage = ()
        for layers in self.space.grow(trial):
            if self._is_too_slow(trial, layers, alone=best is None):
                break
            trained = self.evaluation(trial, layers, lineage)
            if trained is None:
                return float("nan")  # Optuna fails the trial and continues the study
            if self.trainer.inherits:
                lineage = (*lineage, trained.lineage_step(layers))
            value = self._value_of(trained.accuracy, layers)
            trial.report(value, step=len(layers) - 1)
            if best is None or value > best:
                best = value
                self._note(trial, layers, trained.accuracy)
            if trial.should_prune():
                if value < best:
                    break  # the layer is hopeless, but the network before it is the result of the trial
                raise optuna.TrialPruned()
            if self.goal is not None and self._min_accuracy is not None and isinstance(trial, Trial):
                if trained.accuracy < self._min_accuracy:
                    break
        if best is None:
            raise ValueError(
                "the trial has no parameter 'layer1_kind'; a fixed trial must have the parameters of "
                "a network, as LayerSpace.to_params returns them"
            )
        return best

    def _train_once(self, trial: BaseTrial) -> tuple[float, ...]:
        layers = self.space.suggest(trial)
        latency = self._latency(layers) if "latency" in self.objectives else math.nan
        self._is_too_slow(trial, layers, alone=True)
        trained = self.evaluation(trial, layers)
        if trained is None:
            return (math.nan,) * len(self.objectives)
        self._note(trial, layers, trained.accuracy)
        known = {"accuracy": trained.accuracy, "latency": latency, **count(self.space, layers)._asdict()}
        return tuple(float(known[name]) for name in self.objectives)

    def _note(self, trial: BaseTrial, layers: Network, accuracy: float) -> None:
        """Record the best network so far in its trial."""
        trial.set_user_attr("architecture", describe(layers))
        trial.set_user_attr("parameters", self.space.parameters(layers))
        trial.set_user_attr("macs", self.space.macs(layers))
        if self.goal is not None:  # otherwise the report is the accuracy
            trial.set_user_attr("accuracy", accuracy)

    def _is_too_slow(self, trial: BaseTrial, layers: Network, *, alone: bool) -> bool:
        """Return whether the network exceeds ``max_latency``. Prune the trial if it has no other network."""
        if self.max_latency is None:
            return False
        excess = self._latency(layers) - self.max_latency
        if excess > 0 and alone:
            if isinstance(trial, Trial):
                trial.set_constraint("latency", excess)
            raise optuna.TrialPruned(
                f"the latency of {describe(layers)} exceeds max_latency by {1e3 * excess:.3g} ms"
            )
        return excess > 0

    def _measured_latency(self, layers: Network) -> float:
        """Measure the median latency for one image, in seconds."""
        return best_network.latency_of(layers, self.trainer, self.space)
