"""`CNNObjective`: grows a CNN inside a trial, trains what is worth it and reports the accuracies.

Notation: S layers; accuracy is a share of images, 0-1; MACs are for one image, classifier included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, MedianPruner
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial
from torch import nn

from optuna_trlhpo.cnn import finished, leaders
from optuna_trlhpo.cnn.checks import (
    check_directions,
    check_positive_integer,
    check_positive_number,
    check_seed,
    check_share,
    check_training,
    check_training_less,
    checked_objectives,
)
from optuna_trlhpo.cnn.cost import Cost, measure_latency
from optuna_trlhpo.cnn.data import load_data
from optuna_trlhpo.cnn.export import Exported, check_format, export_network
from optuna_trlhpo.cnn.goals import Goal, count
from optuna_trlhpo.cnn.inheritance import Way
from optuna_trlhpo.cnn.latency import Latencies, cheapest_layer
from optuna_trlhpo.cnn.model import check_activation
from optuna_trlhpo.cnn.partition import Budget, Partition
from optuna_trlhpo.cnn.results import Confirmation, Confirmed, Refit, layer_table
from optuna_trlhpo.cnn.stopping import EarlyStop
from optuna_trlhpo.cnn.trained import Trained, TrainedNetworks, accuracies, note_training
from optuna_trlhpo.cnn.trainer import Trainer, layers_key, measured_threads
from optuna_trlhpo.episode import report_performance
from optuna_trlhpo.layers import TABLE_I, Network, Vocabulary, describe
from optuna_trlhpo.space import LayerSpace

PERFORMANCE_BATCHES, PERFORMANCE_BATCH_SIZE = 32, 16
"""The performance of a network, as the paper's agent sees it: its accuracy on 32 validation batches of 16."""

_DEFAULTS: dict[str, Any] = {"epochs": 5, "batch_size": 128, "learning_rate": 3e-3}
_DEFAULTS_OF: dict[str, dict[str, Any]] = {
    # With under a thousand images the usual five epochs of 128 would be 40 steps.
    "digits": {"epochs": 10, "batch_size": 64, "learning_rate": 5e-3},
}

TRAINING_ATTRIBUTE = "training"
"""The user attribute of a study that says how its networks were trained."""

_SECONDS_OF_LATENCY = 0.1
"""For which a network is measured before it is trained."""

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")  # outside the "optuna." tree INFO would be lost


class CNNObjective:
    """An Optuna objective that finds a small CNN for a dataset, layer by layer. Maximise it.

    Every network that `LayerSpace.grow` yields is trained from scratch on the training images and reported
    with its accuracy on all validation images. The value of a trial is the accuracy of its best prefix; the
    user attributes ``architecture``, ``parameters`` and ``macs`` say which that is. If a network does not fit
    in memory, the trial fails, with the attribute ``failed``, and the study goes on.

    One network gets one value in whichever trial, thread or process it is trained: the seed of a training is
    made of ``seed`` and the architecture. (Other hardware, and a GPU, may round differently.) So no network
    is trained twice: one that any trial of the study has trained with the same data and settings, in this
    process or another, before a restart or after, is looked up in the study (see `savings`).

    Args:
        data: ``"digits"`` (8x8, no file needed), ``"mnist"``, ``"fashion_mnist"``, ``"kmnist"``,
            ``"cifar10"``, arrays or a ``Dataset``; see `load_data`.
        data_root: Where torchvision's files lie or go.
        download: Whether torchvision may fetch what is missing.
        train_size: Training images; see `load_data` for the default.
        validation_size: Validation images; see `load_data` for the default.
        num_classes: Default: the highest label + 1.
        epochs: Passes over the training images for each network. Default: 5; 10 for digits.
        batch_size: Images in a training step. Default: 128; 64 for digits.
        learning_rate: Adam's, at its peak. Default: 0.003; 0.005 for digits.
        schedule: ``"one_cycle"`` (linear warm-up, linear decay) or ``"constant"``.
        conv_activation: What follows each convolution: none, relu, leakyrelu, tanh, sigmoid, elu or gelu.
        max_layers: The most layers of a network.
        min_improvement: Growth stops at a layer that adds less than this to what is reported, the accuracy
            or what the goal gives; None: never.
        min_accuracy: Growth stops below this accuracy; None: never.
        max_macs: The most MACs of a network for one image; None: no limit.
        max_parameters: The most weights and biases of a network; None: no limit.
        max_activation_bytes: The most that input and output of one layer may take together; None: no limit.
        max_latency: The most seconds that one image may take, on the device, with one thread of a CPU. It is
            measured once for each network, before it is trained and while no thread of this process trains
            (other processes disturb it); a trial whose first network is slower has the constraint
            ``latency`` and is pruned. None: no limit.
        goal: What a network is worth, by its accuracy and what it costs (see `goals`), where a cost is to be
            weighed and not only limited. None: its accuracy.
        objectives: With more than ``"accuracy"``, a network is suggested whole and trained once, and these
            are the values of a trial: ``"accuracy"``, to be maximised, and ``"macs"``, ``"parameters"``,
            ``"activation_bytes"``, ``"layers"`` and ``"latency"``, to be minimised.
        vocabulary: The kinds of layer: Table I, or another one, such as `kinds.CNN` for images, `kinds.MLP`
            for data ``(rows, labels)`` and `kinds.LSTM` for ``(sequences, labels)``.
        train_prefixes: Which networks are trained on the way to a deeper one: ``"all"``, every so many
            layers, or ``"auto"``, what the sampler holds worth a training; see `LayerSpace`.
        inherit: Whether a network takes over the weights of the network that was trained before it in its
            trial, keeping its function where that is possible, instead of starting from scratch. What it
            comes to then depends on which networks were trained on the way, and only networks of the same
            way are looked up. Networks are ranked less well for it (``make train-less`` measures how much).
            `confirm` and `refit` start from scratch.
        inherited_epochs: Passes for a network that inherits. Default: ``epochs``.
        early_stop: A pruner of Optuna, such as ``optuna.pruners.MedianPruner()``, that stops hopeless
            trainings: after each epoch it compares the accuracy on the first 1,000 validation images with
            those that networks of as many layers had. What is stopped is reported with the accuracy it has
            come to, and looked up like others; that depends on what was trained before. `confirm` and
            `refit` stop nothing. None: all are trained to the end.
        device: Default: the GPU if there is one.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in 16 bits, which may
            pay on a GPU (``make bench-engine`` measures where); weights stay in 32 bits.
        threads: Of the CPU, for one training; ``"auto"``: as many as pay, which is measured now. More than
            one helps only large networks, on idle cores; to use several cores, run several trials at once.
            With another number of threads values may be rounded otherwise.
        seed: Of the splits, the initial weights and the order of the images.

    Raises:
        ValueError: For an argument out of range, or data that cannot be used.
        FileNotFoundError: If the dataset's files are missing and ``download`` is off.

    Example::

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
        conv_activation: str = "relu",
        max_layers: int = 6,
        min_improvement: float | None = 0.001,
        min_accuracy: float | None = 0.60,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        max_latency: float | None = None,
        goal: Goal | None = None,
        objectives: Sequence[str] = ("accuracy",),
        vocabulary: Vocabulary = TABLE_I,
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
        # Of NumPy's integers neither PyTorch nor JSON will hear.
        self.epochs, self.batch_size = int(self.epochs), int(self.batch_size)
        self.learning_rate = float(self.learning_rate)
        check_activation("conv_activation", conv_activation)
        if max_latency is not None:
            check_positive_number("max_latency", max_latency)
        if goal is not None and not callable(goal):
            raise ValueError(
                f"goal is {goal!r}; it must be a function of an accuracy and its Counts, or None"
            )
        self.objectives = checked_objectives(objectives)
        if goal is not None and len(self.objectives) > 1:
            raise ValueError(
                "a goal makes one value of accuracy and cost; with it objectives must be accuracy"
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
            max_layers=max_layers,
            min_improvement=min_improvement,
            # What a goal reports is no accuracy; then it is seen to here.
            min_accuracy=min_accuracy if goal is None else None,
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_activation_bytes=max_activation_bytes,
            vocabulary=vocabulary,
            train_prefixes=train_prefixes,
        )
        if isinstance(threads, str):
            threads = measured_threads(
                self.data, self.space, batch_size=self.batch_size, conv_activation=conv_activation
            )
        self.threads: int = threads
        self._trainer = Trainer(
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
        )
        setting = self._trainer.search_setting
        self._trained = TrainedNetworks(setting, inherits=inherit, stopped=early_stop is not None)
        self._early_stop = None if early_stop is None else EarlyStop(early_stop, setting, self.data)
        self._latency = Latencies(self._measured_latency)
        if max_latency is not None:
            self._check_reachable(max_latency)
        self._batches = performance_batches(len(self.data.validation_labels), np.random.default_rng(seed))

    @classmethod
    def paper(cls, data: Any = "mnist", **overrides: Any) -> CNNObjective:
        """The paper's setting: batches of 16, 5 epochs, Adam at 0.001, convolutions without activation.

        Args:
            data: 20,000 training and 10,000 validation images for those of torchvision.
            overrides: Any argument of `CNNObjective`.
        """
        setting = {
            "epochs": 5,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "conv_activation": "none",
            "train_prefixes": "all",
        }
        return cls(data, **{**setting, **overrides})

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """Grow, train and report; what the best prefix is worth: its accuracy, unless there is a goal. With
        several objectives, train once; their values.

        A frozen or fixed trial is trained again as it is: ``objective(study.best_trial)``.

        Raises:
            optuna.TrialPruned: If the study's pruner says so, or no network is within the limits.
            ValueError: If the directions of the study are not those of the objectives, or a fixed trial holds
                no network.
        """
        if isinstance(trial, Trial):
            check_directions(trial.study, self.objectives)
            self._note_settings(trial.study)
        if len(self.objectives) > 1:
            return self._train_whole(trial)
        best: float | None = None
        way: Way = ()
        for layers in self.space.grow(trial):
            if self._is_too_slow(trial, layers, alone=best is None):
                break
            trained = self._look_up_or_train(trial, layers, way)
            if trained is None:
                return float("nan")  # to Optuna a failed trial, which stops no study
            if self._trainer.inherits:
                way = (*way, trained.ancestor(layers))
            worth = self._worth(trained.accuracy, layers)
            trial.report(worth, step=len(layers) - 1)
            if best is None or worth > best:
                best = worth
                self._note(trial, layers, trained.accuracy)
            if trial.should_prune():
                if worth < best:
                    break  # the layer is hopeless; the network before it is not, and is what the trial found
                raise optuna.TrialPruned()
            if self.goal is not None and self._min_accuracy is not None and isinstance(trial, Trial):
                if trained.accuracy < self._min_accuracy:
                    break
        if best is None:
            raise ValueError(
                "the trial has no parameter 'layer1_kind'; a fixed trial must hold a network, in the form "
                "that LayerSpace.to_params gives"
            )
        return best

    def _note_settings(self, study: Study) -> None:
        """Keep with the study, once, how its networks are trained: a reader of it may have nothing else."""
        settings = {
            "data": self.data.name,
            "training images": len(self.data.train_labels),
            "validation images": len(self.data.validation_labels),
            "epochs": self.epochs,
            "batch size": self.batch_size,
            "learning rate": float(self.learning_rate),
            "schedule": self.schedule,
            "precision": self._trainer.precision,
            "inherited epochs": self._trainer.inherited_epochs if self._trainer.inherits else None,
            "activation of convolutions": self.conv_activation,
            "objectives": list(self.objectives),
            "seed": int(self.seed),
        }
        if study.user_attrs.get(TRAINING_ATTRIBUTE) == settings:
            return
        study.set_user_attr(TRAINING_ATTRIBUTE, settings)
        if type(study.pruner) is MedianPruner and len(self.objectives) == 1:
            _logger.info(
                "The study's pruner, MedianPruner, is the one that Optuna takes if none is named. It ends "
                "every trial whose first network is below the median, and growth has stop rules of its own: "
                "consider create_study(pruner=optuna.pruners.NopPruner())."
            )

    def _train_whole(self, trial: BaseTrial) -> tuple[float, ...]:
        layers = self.space.suggest(trial)
        latency = self._latency(layers) if "latency" in self.objectives else math.nan
        self._is_too_slow(trial, layers, alone=True)
        trained = self._look_up_or_train(trial, layers)
        if trained is None:
            return (math.nan,) * len(self.objectives)
        self._note(trial, layers, trained.accuracy)
        known = {"accuracy": trained.accuracy, "latency": latency, **count(self.space, layers)._asdict()}
        return tuple(float(known[name]) for name in self.objectives)

    def _look_up_or_train(self, trial: BaseTrial, layers: Network, way: Way = ()) -> Trained | None:
        """What comes of the network, noted in the trial; None, and that is noted too, if memory ran out."""
        with self._trained.turn(layers, way):
            return self._look_up_or_train_in_turn(trial, layers, way)

    def _look_up_or_train_in_turn(self, trial: BaseTrial, layers: Network, way: Way) -> Trained | None:
        known = self._trained.find(trial.study, layers, way) if isinstance(trial, Trial) else None
        trained = self._train_and_judge(trial, layers, way) if known is None else known
        if trained is None:
            _logger.warning(
                f"Out of memory while training {describe(layers)} on {self.data.device}; the trial fails."
            )
            trial.set_user_attr("failed", f"out of memory while training {describe(layers)}")
            return None
        step = len(layers) - 1
        report_performance(trial, trained.performance, step)
        note_training(trial, self._trainer.search_setting, step, trained, looked_up=known is not None)
        return trained

    def _worth(self, accuracy: float, layers: Network) -> float:
        return accuracy if self.goal is None else float(self.goal(accuracy, count(self.space, layers)))

    def _note(self, trial: BaseTrial, layers: Network, accuracy: float) -> None:
        """The best network so far."""
        trial.set_user_attr("architecture", describe(layers))
        trial.set_user_attr("parameters", self.space.parameters(layers))
        trial.set_user_attr("macs", self.space.macs(layers))
        if self.goal is not None:  # else it is the report
            trial.set_user_attr("accuracy", accuracy)

    def _is_too_slow(self, trial: BaseTrial, layers: Network, *, alone: bool) -> bool:
        """Whether the network takes longer than it may; if it is the trial's only one, the trial ends."""
        if self.max_latency is None:
            return False
        excess = self._latency(layers) - self.max_latency
        if excess > 0 and alone:
            if isinstance(trial, Trial):
                trial.set_constraint("latency", excess)
            raise optuna.TrialPruned(f"{describe(layers)} takes {1e3 * excess:.3g} ms too long for an image")
        return excess > 0

    def _measured_latency(self, layers: Network) -> float:
        """Median seconds for one image."""
        network = nn.Sequential(*finished.untrained(layers, self._trainer, self.space).values())
        return measure_latency(network, self.space.input_shape, seconds=_SECONDS_OF_LATENCY).median

    def _check_reachable(self, max_latency: float) -> None:
        """Raise a ``ValueError`` if even the least network is too slow."""
        layers, seconds = cheapest_layer(self.space), math.inf
        for _ in range(3):  # once it may have been disturbed
            seconds = min(seconds, self._measured_latency(layers))
            if seconds <= max_latency:
                return
        raise ValueError(
            f"max_latency is {max_latency:g} s; the cheapest network of one layer, {describe(layers)}, takes "
            f"{seconds:.3g} s here"
        )

    def confirm(self, study: Study, *, top: int = 5, repeats: int = 3) -> Confirmation:
        """Train the leaders of a study again under new seeds, and rank them by their mean accuracy.

        The best observed network is often a lucky one: of many noisy values the highest is high by chance
        too. The leaders are the networks with the highest observed accuracies, or that the goal finds worth
        most, each the best prefix of a finished trial, equal architectures counted once; those beyond the
        objective's limits, if the study had others, are left out. Every repeat has initial weights and an
        order of the images of its own, fixed by the objective's seed; all else stays as in the search. The
        accuracy that the search observed is no part of the mean, for it was selected for being high.

        The means show what the luck of a training hid. The luck of being judged by these validation images
        is still in them; only the test images, in `refit`, are free of it.

        Each accuracy is kept in the study at once, in the user attribute ``confirmed_accuracies``: after an
        interruption or an error the next call goes on where this one stopped, and ``top=10`` after ``top=5``
        trains only what is new. An objective with other data, training settings or seed trains its own. A
        network that does not fit in memory is left out, with a warning; the next call tries it again.

        Args:
            study: Its finished trials are read; its direction is "maximize".
            top: How many networks to train; all of them if the study has fewer.
            repeats: Trainings of each.

        Returns:
            A list of `Confirmed`, the highest mean first; of equal means the fewest MACs. Its ``print`` is a
            table. `refit` takes its rows.

        Raises:
            ValueError: If ``top`` or ``repeats`` is not a positive integer, the study does not maximise one
                value, the objective has several, or the study holds no network of the objective's space.
        """
        if len(self.objectives) > 1:
            raise ValueError(
                f"objectives are {', '.join(self.objectives)}; confirm ranks networks by one value, and "
                "needs an objective of the accuracy alone; refit and cost take any of study.best_trials"
            )
        check_directions(study)
        check_positive_integer("top", top)
        check_positive_integer("repeats", repeats)
        return leaders.confirm(
            study,
            self._trainer,
            self.space,
            top=top,
            repeats=repeats,
            worth=self._worth,
            is_fast=lambda layers: self.max_latency is None or self._latency(layers) <= self.max_latency,
        )

    def refit(
        self, trial: BaseTrial | Confirmed, *, epochs: int | None = None, seed: int | None = None
    ) -> Refit:
        """Train the best network of a finished trial on training and validation images; test it once.

        Args:
            trial: Such as ``study.best_trial``, or a row of what `confirm` returns.
            epochs: Default: the objective's; more cost little now and usually help.
            seed: Default: the objective's.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``, or an argument is out of range.
        """
        epochs, seed = self.epochs if epochs is None else epochs, self.seed if seed is None else seed
        check_positive_integer("epochs", epochs)
        check_seed(seed)
        return finished.refit(trial, self._trainer, self.space, epochs=epochs, seed=seed)

    def cost(
        self, trial: BaseTrial | Confirmed, *, latency: bool = True, batch_size: int = 1, threads: int = 1
    ) -> Cost:
        """What the best network of a finished trial costs, layer by layer; its ``print`` is a table.

        Parameters, MACs, FLOPs, bytes of weights and of activations are counted; latency is measured on the
        objective's device, and energy where this machine can tell (see `Cost`).

        Args:
            trial: Such as ``study.best_trial``, or a row of what `confirm` returns.
            latency: Whether to measure latency and energy, which takes some seconds.
            batch_size: Images in a measured pass.
            threads: Of the CPU, for a measured pass.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``, or a number is not positive.
        """
        _, layers = finished.network_of(trial)
        return finished.cost(
            layers, self._trainer, self.space, latency=latency, batch_size=batch_size, threads=threads
        )

    def _trained_network(self, trial: BaseTrial | Confirmed, network: nn.Module | None) -> nn.Module:
        """``network`` if it can be the trial's; trained anew if there is none."""
        if network is None:
            return self.refit(trial).network
        finished.check_is_network_of(trial, network, self._trainer, self.space)
        return network

    def export(
        self, trial: BaseTrial | Confirmed, path: str | Path, *, network: nn.Module | None = None
    ) -> Exported:
        """Write the best network of a finished trial to a file that needs nothing of this package.

        A study keeps no weights: unless a trained network is given, `refit` trains it anew. It takes inputs
        that are standardised; mean and standard deviation, and the architecture, are in the file.

        Args:
            trial: Such as ``study.best_trial``, or a row of what `confirm` returns.
            path: Its ending says what is written: ``.onnx``, ``.pt2`` (`torch.export`) or ``.py`` (readable
                source, with its weights in ``.safetensors`` beside it); see `export_network`.
            network: Trained, such as ``refit(trial).network``.

        Raises:
            ValueError: For another ending, a trial without the user attribute ``architecture``, or a network
                of another architecture.
            ImportError: If ONNX is asked for and not installed.
            RuntimeError: If what was written gives other numbers than the network.

        Example::

            refit = objective.refit(study.best_trial, epochs=20)
            objective.export(study.best_trial, "digits.onnx", network=refit.network)
        """
        check_format(path)
        trained = self._trained_network(trial, network)
        metadata = finished.metadata(trial, self.data)
        return export_network(trained, path, self.space.input_shape, metadata=metadata)

    def partition(
        self,
        trial: BaseTrial | Confirmed,
        budget: Budget,
        *,
        folder: str | Path | None = None,
        network: nn.Module | None = None,
        latency: bool = True,
    ) -> Partition:
        """Where to cut the best network of a finished trial between a device and a server.

        Of the places where the device's part is within the budget, the one is chosen where the fewest bytes
        cross; of equals the one that leaves the device the least to do. ``print`` shows them all.

        Args:
            trial: Such as ``study.best_trial``, or a row of what `confirm` returns.
            budget: What the device has.
            folder: Where both parts are written, ``device.onnx`` and ``server.onnx``; the output of the first
                is the input of the second. None: nothing is written, and nothing is trained.
            network: Trained, such as ``refit(trial).network``; without one `refit` trains what is written.
            latency: Whether to measure it, on the objective's device, which takes some seconds.

        Raises:
            ValueError: If no place is within the budget, latency is limited and not measured, the trial has
                no user attribute ``architecture``, or the network is of another architecture.
            ImportError: If parts are to be written and ONNX is not installed.
        """
        if not isinstance(budget, Budget):
            raise ValueError(f"budget is {budget!r}; it must be a Budget, such as Budget(macs=1e6)")
        if budget.latency is not None and not latency:
            raise ValueError(f"the budget limits latency to {budget.latency!r} s; latency must be True")
        if folder is not None:
            check_format("device.onnx")
        return finished.partition(
            trial,
            lambda: self._trained_network(trial, network),
            budget,
            self._trainer,
            self.space,
            folder=folder,
            latency=latency,
        )

    def table(self, trial: FrozenTrial) -> str:
        """The best network of a finished trial, a row per layer: what it made of the image, gained and cost.

        The reward of a layer is the accuracy it added; a layer that was not trained on its own shows ``-``.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``.
        """
        _, layers = finished.network_of(trial)
        known = getattr(trial, "intermediate_values", {})
        if self.goal is not None:  # then the reports are what networks are worth
            known = {k - 1: accuracy for k, accuracy in accuracies(trial).items()}
        return layer_table(self.space, layers, known)

    # Private ------------------------------------------------------------------------------------------------

    def _train_and_judge(self, trial: BaseTrial, layers: Network, way: Way) -> Trained | None:
        """Train a network of the search; None if memory ran out."""
        start = time.perf_counter()
        watch = None
        if self._early_stop is not None and isinstance(trial, Trial):
            epochs = self._trainer.inherited_epochs if way else self.epochs
            watch = self._early_stop.watch(trial.study, trial, depth=len(layers), epochs=epochs)
        try:
            correct = self._trainer.validate(layers, seed=self.seed, way=way, watch=watch)
        finally:
            if watch is not None:
                watch.close()
        if correct is None:
            return None
        performance = [float(correct[batch].mean()) for batch in self._batches]
        trained = Trained(float(correct.mean()), performance, time.perf_counter() - start)
        return trained if watch is None else trained._replace(curve=tuple(watch.curve), stopped=watch.stopped)


def performance_batches(images: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of 32 batches of 16 of the validation images; of fewer than 512 the batches are smaller.

    With fewer than 32 images, batches of 16 are drawn with replacement.

    Example:
        >>> [len(batch) for batch in performance_batches(100, np.random.default_rng(0))][:6]
        [4, 4, 4, 4, 3, 3]
    """
    if images < PERFORMANCE_BATCHES:
        return list(rng.integers(images, size=(PERFORMANCE_BATCHES, PERFORMANCE_BATCH_SIZE)))
    chosen = rng.permutation(images)[: PERFORMANCE_BATCHES * PERFORMANCE_BATCH_SIZE]
    return np.array_split(chosen, PERFORMANCE_BATCHES)
