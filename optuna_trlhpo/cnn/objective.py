"""`CNNObjective`: grows a CNN inside a trial, trains every prefix and reports its accuracy.

Notation: S layers; accuracy is a share of images, 0-1; MACs are for one image, classifier included.
"""

from __future__ import annotations

import functools
import math
import statistics
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.study import Study, StudyDirection
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState
from torch import Tensor, nn

from optuna_trlhpo.cnn.blocks import seed_dropout
from optuna_trlhpo.cnn.cost import Cost, count_parameters, measure_cost
from optuna_trlhpo.cnn.data import load_data
from optuna_trlhpo.cnn.goals import Counts, Goal, count
from optuna_trlhpo.cnn.model import build_network, check_activation, classifier_modules, layer_modules
from optuna_trlhpo.cnn.results import Confirmation, Confirmed, Refit, aligned
from optuna_trlhpo.cnn.trained import Trained, TrainedNetworks, note_training
from optuna_trlhpo.cnn.training import SCHEDULES, cpu_threads, predict_correct, train
from optuna_trlhpo.episode import report_performance
from optuna_trlhpo.layers import TABLE_I, Network, Shape, Vocabulary, describe, parse
from optuna_trlhpo.space import LayerSpace

PERFORMANCE_BATCHES, PERFORMANCE_BATCH_SIZE = 32, 16
"""The performance of a network, as the paper's agent sees it: its accuracy on 32 validation batches of 16."""

_DEFAULTS: dict[str, Any] = {"epochs": 5, "batch_size": 128, "learning_rate": 3e-3}
_DEFAULTS_OF: dict[str, dict[str, Any]] = {
    # With under a thousand images the usual five epochs of 128 would be 40 steps.
    "digits": {"epochs": 10, "batch_size": 64, "learning_rate": 5e-3},
}

CONFIRMED_ATTRIBUTE = "confirmed_accuracies"
"""The user attribute of a study where `CNNObjective.confirm` keeps what it measured: setting -> architecture
-> accuracies in the order of the repeats."""

TRAINING_ATTRIBUTE = "training"
"""The user attribute of a study that says how its networks were trained."""

_SECONDS_OF_LATENCY = 0.1
"""For which a network is measured before it is trained."""

_INITIALISING = threading.Lock()

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
        min_improvement: Growth stops at a layer that adds less accuracy than this; None: never.
        min_accuracy: Growth stops below this accuracy; None: never.
        max_macs: The most MACs of a network for one image; None: no limit.
        max_parameters: The most weights and biases of a network; None: no limit.
        max_activation_bytes: The most that input and output of one layer may take together; None: no limit.
        max_latency: The most seconds that one image may take, on the device, with one thread of a CPU. It is
            measured before a network is trained; a trial whose first network is slower has the constraint
            ``latency`` and is pruned. None: no limit.
        goal: What a network is worth, by its accuracy and what it costs (see `goals`), where a cost is to be
            weighed and not only limited. None: its accuracy.
        objectives: With more than ``"accuracy"``, a network is suggested whole and trained once, and these
            are the values of a trial: ``"accuracy"``, to be maximised, and ``"macs"``, ``"parameters"``,
            ``"activation_bytes"``, ``"layers"`` and ``"latency"``, to be minimised.
        vocabulary: The kinds of layer: Table I, or another one, such as `kinds.CNN` for images, `kinds.MLP`
            for data ``(rows, labels)`` and `kinds.LSTM` for ``(sequences, labels)``.
        device: Default: the GPU if there is one.
        threads: Of the CPU, for one training. More than one helps only large networks, on idle cores; to use
            several cores, run several trials at once.
        seed: Of the splits, the initial weights and the order of the images.

    Raises:
        ValueError: For an argument out of range, or data that cannot be used.
        FileNotFoundError: If the dataset's files are missing and ``download`` is off.

    Example::

        objective = CNNObjective("digits")
        study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
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
        device: str | torch.device | None = None,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        defaults = _DEFAULTS_OF.get(data, _DEFAULTS) if isinstance(data, str) else _DEFAULTS
        self.epochs: int = defaults["epochs"] if epochs is None else epochs
        self.batch_size: int = defaults["batch_size"] if batch_size is None else batch_size
        self.learning_rate: float = defaults["learning_rate"] if learning_rate is None else learning_rate
        self.schedule = schedule
        self.conv_activation = conv_activation
        self.threads = threads
        self.seed = seed
        _check_positive_integer("epochs", self.epochs)
        _check_positive_integer("batch_size", self.batch_size)
        _check_positive_integer("threads", threads)
        # Of NumPy's integers neither PyTorch nor JSON will hear.
        self.epochs, self.batch_size = int(self.epochs), int(self.batch_size)
        if not (isinstance(self.learning_rate, int | float) and 0 < self.learning_rate < float("inf")):
            raise ValueError(f"learning_rate is {learning_rate!r}; it must be a positive number")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        check_activation("conv_activation", conv_activation)
        _check_seed(seed)
        if max_latency is not None and not max_latency > 0:
            raise ValueError(f"max_latency is {max_latency!r}; it must be positive, or None for no limit")
        if goal is not None and not callable(goal):
            raise ValueError(
                f"goal is {goal!r}; it must be a function of an accuracy and its Counts, or None"
            )
        self.objectives = _checked(objectives)
        if goal is not None and len(self.objectives) > 1:
            raise ValueError(
                "a goal makes one value of accuracy and cost; with it objectives must be accuracy"
            )
        self.goal = goal
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
            min_accuracy=min_accuracy,
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_activation_bytes=max_activation_bytes,
            vocabulary=vocabulary,
        )
        self._trained = TrainedNetworks(self.space, self._setting)
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
            _check_directions(trial.study, self.objectives)
            self._note_settings(trial.study)
        if len(self.objectives) > 1:
            return self._train_whole(trial)
        best: float | None = None
        for layers in self.space.grow(trial):
            if self._is_too_slow(trial, layers, alone=best is None):
                break
            trained = self._look_up_or_train(trial, layers)
            if trained is None:
                return float("nan")  # to Optuna a failed trial, which stops no study
            worth = self._worth(trained.accuracy, layers)
            trial.report(worth, step=len(layers) - 1)
            if best is None or worth > best:
                best = worth
                self._note(trial, layers, trained.accuracy)
            if trial.should_prune():
                if worth < best:
                    break  # the layer is hopeless; the network before it is not, and is what the trial found
                raise optuna.TrialPruned()
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
            "activation of convolutions": self.conv_activation,
            "objectives": list(self.objectives),
            "seed": int(self.seed),
        }
        if study.user_attrs.get(TRAINING_ATTRIBUTE) != settings:
            study.set_user_attr(TRAINING_ATTRIBUTE, settings)

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

    def _look_up_or_train(self, trial: BaseTrial, layers: Network) -> Trained | None:
        """What comes of the network, noted in the trial; None, and that is noted too, if memory ran out."""
        known = self._trained.find(trial.study, layers) if isinstance(trial, Trial) else None
        trained = self._train_and_judge(layers) if known is None else known
        if trained is None:
            self._warn_of_memory(layers, "the trial fails")
            trial.set_user_attr("failed", f"out of memory while training {describe(layers)}")
            return None
        step = len(layers) - 1
        report_performance(trial, trained.performance, step)
        note_training(trial, self._setting, step, trained, looked_up=known is not None)
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

    def _latency(self, layers: Network) -> float:
        """Median seconds for one image."""
        measured = self._cost(layers, latency=True, seconds=_SECONDS_OF_LATENCY, parts=False).latency
        assert measured is not None
        return measured.median

    def confirm(self, study: Study, *, top: int = 5, repeats: int = 3) -> Confirmation:
        """Train the leaders of a study again under new seeds, and rank them by their mean accuracy.

        The best observed network is often a lucky one: of many noisy values the highest is high by chance
        too. The leaders are the networks with the highest observed accuracies, each the best prefix of a
        finished trial, equal architectures counted once. Every repeat has initial weights and an order of
        the images of its own, fixed by the objective's seed; all else stays as in the search. The accuracy
        that the search observed is no part of the mean, for it was selected for being high.

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
                value or holds no network, or a network does not fit the objective's images.
        """
        _check_directions(study)
        _check_positive_integer("top", top)
        _check_positive_integer("repeats", repeats)
        leaders = _leaders(study)[:top]
        for trial, _ in leaders:
            self._check_fits(trial)
        setting = self._setting
        rows = Confirmation()
        for place, (trial, observed) in enumerate(leaders, start=1):
            architecture, layers = self._network_of(trial)
            accuracies = _kept_accuracies(study, setting).get(architecture, [])
            for repeat in range(len(accuracies), repeats):
                # A text, so that it is the seed of no trial and of no refit.
                correct = self._train_and_validate(layers, seed=f"{self.seed} confirm {repeat}")
                if correct is None:
                    self._warn_of_memory(layers, "confirm leaves it out")
                    break
                accuracies.append(float(correct.mean()))
                _keep_accuracies(study, setting, architecture, accuracies)
                _logger.info(
                    f"Network {place} of {len(leaders)}, training {repeat + 1} of {repeats}: "
                    f"{accuracies[-1]:.4f} (trial {trial.number} observed {observed:.4f}), {architecture}"
                )
            if len(accuracies) < repeats:
                continue
            accuracies = accuracies[:repeats]  # an earlier call may have had more
            spread = statistics.stdev(accuracies) if repeats > 1 else None
            rows.append(
                Confirmed(
                    architecture=architecture,
                    layers=layers,
                    trial=trial.number,
                    observed=observed,
                    mean=statistics.fmean(accuracies),
                    standard_error=None if spread is None else spread / math.sqrt(repeats),
                    accuracies=tuple(accuracies),
                    parameters=sum(self._parameters_per_part(layers)),
                    macs=self.space.macs(layers),
                )
            )
        # Rounded, lest the order of equal means be settled by how their sums are rounded.
        rows.sort(key=lambda row: (-round(self._worth(row.mean, row.layers), 9), row.macs, row.trial))
        return rows

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
        architecture, layers = self._network_of(trial)
        epochs, seed = self.epochs if epochs is None else epochs, self.seed if seed is None else seed
        _check_positive_integer("epochs", epochs)
        _check_seed(seed)
        data = self.data
        start = time.perf_counter()
        images = torch.cat([data.train_images, data.validation_images])
        labels = torch.cat([data.train_labels, data.validation_labels])
        with cpu_threads(self.threads):
            network = self._train(layers, images, labels, epochs=epochs, seed=seed)
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        seconds = time.perf_counter() - start
        test_accuracy = None
        if data.test_images is not None and data.test_labels is not None:
            with cpu_threads(self.threads):
                correct = predict_correct(network, data.test_images, data.test_labels)
            test_accuracy = float(correct.double().mean())
        return Refit(
            network=network.eval(),
            architecture=architecture,
            layers=layers,
            parameters=count_parameters(network),
            macs=self.space.macs(layers),
            test_accuracy=test_accuracy,
            seconds=seconds,
        )

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
        _, layers = self._network_of(trial)
        return self._cost(layers, latency=latency, batch_size=batch_size, threads=threads)

    def _cost(self, layers: Network, *, parts: bool = True, **how: Any) -> Cost:
        """See `measure_cost`; of an untrained network, layer by layer or only as a whole."""
        shapes: tuple[Shape, ...] = (self.space.input_shape, *self.space.shapes(layers))
        with _INITIALISING, torch.random.fork_rng(devices=[]):
            modules = {
                f"{k} {layer}": nn.Sequential(
                    *layer_modules(layer, shape, conv_activation=self.conv_activation)
                )
                for k, (layer, shape) in enumerate(zip(layers, shapes, strict=False), start=1)
            }
            modules["classifier"] = nn.Sequential(*classifier_modules(shapes[-1], self.space.num_classes))
        if not parts:
            modules = {"network": nn.Sequential(*modules.values())}
        on_device = {name: module.to(self.data.device) for name, module in modules.items()}
        return measure_cost(on_device, self.space.input_shape, **how)

    def table(self, trial: FrozenTrial) -> str:
        """The best network of a finished trial, a row per layer: what it made of the image, gained and cost.

        The reward of a layer is the accuracy it added; a layer that was not reported on its own shows ``-``.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``.
        """
        _, layers = self._network_of(trial)
        reports = getattr(trial, "intermediate_values", {})
        rows = [("layer", "output", "accuracy", "reward", "parameters", "MACs")]
        shapes: tuple[Shape, ...] = (self.space.input_shape, *self.space.shapes(layers))
        *parameters, classifier_parameters = self._parameters_per_part(layers)
        previous = 0.0
        for k, layer in enumerate(layers):
            scores = ("-", "-")
            if k in reports:
                scores = (f"{reports[k]:.4f}", f"{reports[k] - previous:+.4f}")
                previous = reports[k]
            macs = layer.macs(shapes[k])
            rows.append((str(layer), _shape_text(shapes[k + 1]), *scores, f"{parameters[k]:,}", f"{macs:,}"))
        classes, final = self.space.num_classes, f"{previous:.4f}" if previous else "-"
        macs = math.prod(shapes[-1]) * classes
        rows.append(("classifier", str(classes), "", "", f"{classifier_parameters:,}", f"{macs:,}"))
        total = sum(parameters) + classifier_parameters
        rows.append(("total", "", final, "", f"{total:,}", f"{self.space.macs(layers):,}"))
        return aligned(rows, left={0, 1})

    # Private ------------------------------------------------------------------------------------------------

    def _train_and_judge(self, layers: Network) -> Trained | None:
        """Train a network of the search; None if memory ran out."""
        start = time.perf_counter()
        correct = self._train_and_validate(layers, seed=self.seed)
        if correct is None:
            return None
        performance = [float(correct[batch].mean()) for batch in self._batches]
        return Trained(float(correct.mean()), performance, time.perf_counter() - start)

    def _train_and_validate(self, layers: Network, *, seed: int | str) -> np.ndarray | None:
        """Whether each validation image is classified correctly, bool ``[N]``; None if memory ran out."""
        data, epochs = self.data, self.epochs
        try:
            with cpu_threads(self.threads):
                network = self._train(layers, data.train_images, data.train_labels, epochs=epochs, seed=seed)
                correct = predict_correct(network, data.validation_images, data.validation_labels)
                return correct.cpu().numpy()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the except clause, whose traceback holds the tensors that are to be freed.
        if data.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _warn_of_memory(self, layers: Network, so: str) -> None:
        _logger.warning(f"Out of memory while training {describe(layers)} on {self.data.device}; {so}.")

    def _train(
        self, layers: Network, images: Tensor, labels: Tensor, *, epochs: int, seed: int | str
    ) -> nn.Module:
        training_seed = zlib.crc32(f"{seed} {describe(layers)}".encode())
        # Initialised on the CPU whatever the device, so that the initial weights are the same on all. Fork
        # and seed belong to the process, hence the lock: threads of one study (n_jobs) must not mix them.
        with _INITIALISING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training_seed)
            network = build_network(
                layers, self.data.input_shape, self.data.num_classes, conv_activation=self.conv_activation
            )
        seed_dropout(network, training_seed)
        # The CPU pools several times faster where the channels of a pixel lie side by side.
        on_cpu = self.data.device.type == "cpu"
        layout = torch.channels_last if on_cpu else torch.contiguous_format
        network.to(self.data.device, memory_format=layout)  # type: ignore[call-overload]
        train(
            network,
            images,
            labels,
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            generator=torch.Generator(self.data.device).manual_seed(training_seed),
        )
        return network

    def _parameters_per_part(self, layers: Network) -> list[int]:
        """Parameters of each layer, then of the classifier."""
        shapes: tuple[Shape, ...] = (self.space.input_shape, *self.space.shapes(layers))
        with torch.device("meta"):
            parts = [layer_modules(layer, shape) for layer, shape in zip(layers, shapes, strict=False)]
            parts.append(classifier_modules(shapes[-1], self.space.num_classes))
        return [count_parameters(nn.Sequential(*part)) for part in parts]

    @functools.cached_property
    def _setting(self) -> str:
        """A short key for all that an accuracy depends on besides the network and the repeat."""
        data = self.data
        labels = [
            zlib.crc32(part.cpu().numpy().tobytes()) for part in (data.train_labels, data.validation_labels)
        ]
        # Coarse, for another machine may round sums otherwise, and the mean of a centred channel is but that.
        pixels = [
            (round(mean / std, 2) + 0.0, f"{std:.2g}") for mean, std in zip(data.mean, data.std, strict=True)
        ]
        training = (self.epochs, self.batch_size, self.learning_rate, self.schedule, self.conv_activation)
        parts = (data.name, data.input_shape, data.num_classes, labels, pixels, *training, self.seed)
        return f"{zlib.crc32(' '.join(map(str, parts)).encode()):08x}"

    def _check_fits(self, trial: FrozenTrial) -> None:
        architecture, layers = self._network_of(trial)
        try:
            self.space.shapes(layers)
        except ValueError as error:
            raise ValueError(
                f"trial {trial.number} holds {architecture!r}, which takes no images of shape "
                f"{_shape_text(self.space.input_shape)} ({error}); confirm with the objective of the study"
            ) from None

    def _network_of(self, trial: BaseTrial | Confirmed) -> tuple[str, Network]:
        if isinstance(trial, Confirmed):
            return trial.architecture, trial.layers
        architecture = trial.user_attrs.get("architecture")
        if not isinstance(architecture, str):
            raise ValueError(
                f"the trial has the user attributes {sorted(trial.user_attrs)}; it must have 'architecture', "
                "as a trial has in which a CNNObjective has trained a network"
            )
        return architecture, parse(architecture)


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


def _leaders(study: Study) -> list[tuple[FrozenTrial, float]]:
    """Each network that is the best prefix of a finished trial, as the trial that observed the most of it and
    what it observed; the highest first, of equals the earliest.

    Raises:
        ValueError: If there is none.
    """
    leaders: dict[str, tuple[FrozenTrial, float]] = {}
    # A network counts whatever became of its trial in the end.
    finished = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for trial in study.get_trials(deepcopy=False, states=finished):
        architecture = trial.user_attrs.get("architecture")
        if not isinstance(architecture, str):
            continue
        # The report of that very prefix; a trial that was added from elsewhere may have its value alone.
        reported = trial.intermediate_values.get(len(parse(architecture)) - 1, trial.value)
        observed = trial.user_attrs.get("accuracy", reported)
        if observed is None or not math.isfinite(observed):
            continue
        if architecture not in leaders or observed > leaders[architecture][1]:
            leaders[architecture] = (trial, observed)
    if not leaders:
        raise ValueError(
            f"study {study.study_name!r} has no finished trial with an accuracy and the user attribute "
            "'architecture', as a trial has in which a CNNObjective has trained a network"
        )
    return sorted(leaders.values(), key=lambda leader: (-leader[1], leader[0].number))


def _kept_accuracies(study: Study, setting: str) -> dict[str, list[float]]:
    """Per network what `CNNObjective.confirm` has measured in this setting."""
    return study.user_attrs.get(CONFIRMED_ATTRIBUTE, {}).get(setting, {})


def _keep_accuracies(study: Study, setting: str, architecture: str, accuracies: list[float]) -> None:
    # Read again before each write, so that two processes do not undo one another's work.
    kept = study.user_attrs.get(CONFIRMED_ATTRIBUTE, {})
    kept.setdefault(setting, {})[architecture] = list(accuracies)  # a study in memory keeps what it is given
    study.set_user_attr(CONFIRMED_ATTRIBUTE, kept)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _checked(objectives: Sequence[str]) -> tuple[str, ...]:
    allowed = ("accuracy", *Counts._fields, "latency")
    names = tuple(objectives) if not isinstance(objectives, str) else (objectives,)
    if "accuracy" not in names or len(set(names)) < len(names) or not set(names) <= set(allowed):
        raise ValueError(
            f"objectives is {objectives!r}; it must be accuracy, alone or with some of "
            f"{', '.join(allowed[1:])}"
        )
    return names


def _check_directions(study: Study, objectives: tuple[str, ...] = ("accuracy",)) -> None:
    if not isinstance(study, Study):
        raise ValueError(f"study is a {type(study).__name__}; it must be a study of Optuna")
    wanted = [
        StudyDirection.MAXIMIZE if name == "accuracy" else StudyDirection.MINIMIZE for name in objectives
    ]
    if study.directions == wanted:
        return
    if len(wanted) == 1:
        raise ValueError(
            "the study does not maximise one value; CNNObjective returns an accuracy, so create the "
            'study with direction="maximize"'
        )
    directions = [direction.name.lower() for direction in wanted]
    raise ValueError(
        f"the directions of the study are not those of the objectives {', '.join(objectives)}; create it "
        f"with directions={directions}"
    )


def _check_positive_integer(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer of at least 0")


def _shape_text(shape: Shape) -> str:
    return "x".join(map(str, shape))
