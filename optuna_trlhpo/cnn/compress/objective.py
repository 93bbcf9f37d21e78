"""`CompressObjective`: narrows an existing network inside a trial, trains it and measures what it costs."""

from __future__ import annotations

import copy
import math
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial
from torch import nn

from optuna_trlhpo._checks import check_positive_integer, check_positive_number
from optuna_trlhpo.cnn.checks import (
    check_directions,
    check_training,
    check_training_less,
    checked_objectives,
)
from optuna_trlhpo.cnn.compress import choosing
from optuna_trlhpo.cnn.compress.adapter import Adapter, NarrowingAdapter
from optuna_trlhpo.cnn.compress.costs import count_bytes, count_costs
from optuna_trlhpo.cnn.compress.original import check_output, note_original, prepared_data, read_or_train
from optuna_trlhpo.cnn.compress.results import CompressionTest, OriginalNetwork
from optuna_trlhpo.cnn.compress.scores import score_of
from optuna_trlhpo.cnn.compress.training import ModuleTrainer
from optuna_trlhpo.cnn.compress.trial_records import check_limits, check_values, look_up, note_costs
from optuna_trlhpo.cnn.deploy.cost import measure_latency
from optuna_trlhpo.cnn.goals import Counts, Goal
from optuna_trlhpo.cnn.memory import is_out_of_memory
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.cnn.training.augmentation import Transform, check_augment
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.graph_capture import free_cached_memory

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


class CompressObjective:
    """An Optuna objective that makes an existing network smaller and faster. Maximise it.

    A trial suggests a width for each convolution and linear layer, and a kernel for each convolution, as
    plain integers, such as ``features.0.channels`` and ``features.0.kernel``. The network is built with them
    and trained; its accuracy on all validation images is reported after each epoch and returned. The user
    attributes ``accuracy``, ``parameters``, ``macs``, ``bytes``, ``train_seconds`` and ``inference_seconds``
    hold what was measured, and ``relative`` the costs relative to those of the original network in the same
    training. For label maps, the accuracy is the mean intersection over union (mean IoU) of the classes.

    If a trial of the study has trained the same network in the same setting, its results are looked up, and
    the attribute ``looked_up`` names it. If a network does not fit in memory, the trial fails with the user
    attribute ``failed``.

    Args:
        network: The original network, such as ``torchvision.models.googlenet(num_classes=10,
            aux_logits=False)``: a module that `NarrowingAdapter` can read, or an `Adapter`. It is copied.
        data: Data as `CNNObjective` takes them, or an `ImageData`, such as from `segmentation_data` and
            `digits_on_canvas`. Grey images are repeated for a network that takes several channels.
        image_size: Height and width that images are enlarged and padded to. None leaves them.
        min_share: Smallest width of a layer as a share of its original width, in (0, 1].
        kernels: Whether kernels may shrink.
        keep: Patterns of the names of layers that stay as they are, such as ``"classifier.*"``.
        trained: Whether the network comes with trained weights, so that it is measured and not trained.
        inherit: Whether networks start from the filters of the trained original with the largest L1 norms,
            instead of new weights. They are then trained on.
        inherited_epochs: Number of epochs of a network that inherits. Default: ``epochs``.
        original_file: File that keeps the trained original network, so that it is trained only once in
            several processes or after a restart. None keeps none.
        data_root: Directory of torchvision's files.
        download: Whether torchvision may download missing files.
        train_size: Number of training images; see `load_data`.
        validation_size: Number of validation images; see `load_data`.
        epochs: Passes over the training images, also for the original network.
        batch_size: Number of images in a training step.
        learning_rate: Peak learning rate of Adam.
        schedule: ``"one_cycle"`` or ``"constant"``.
        augment: Random transformations of the training images; see `CNNObjective`. Not for label maps.
        max_macs: Maximum MACs for one image. A network beyond a limit is not trained: its trial violates the
            constraint of this name and is pruned. None means no limit; so for the others.
        max_parameters: Maximum number of weights and biases.
        max_activation_bytes: Maximum size of the input and output of one layer together, in bytes.
        max_latency: Maximum latency of one pass in seconds.
        max_loss: Accuracy that a network may lose against the original. More violates the constraint
            ``accuracy``, by which samplers and ``study.best_trial`` know such trials. None means any.
        goal: Value of a network as a function of its accuracy and its costs; see `goals`. None means that
            the value is the accuracy.
        objectives: Names of the values of a trial: ``"accuracy"``, to be maximised, and ``"macs"``,
            ``"parameters"``, ``"activation_bytes"``, ``"layers"`` and ``"latency"``, to be minimised.
        inference_batch: Number of images in a pass whose latency is measured.
        device: Device of the data and networks. Default: the GPU if there is one.
        precision: ``"float32"`` or ``"bfloat16"``; see `CNNObjective`.
        threads: Number of CPU threads of one training and of inference.
        seed: Random seed of the splits and the trainings.

    Raises:
        ValueError: For an argument out of range, a network that cannot be read, or data that do not suit it.
        FileNotFoundError: If the dataset's files are missing and ``download`` is off.

    Examples:
        ```python
        from torchvision.models import googlenet

        from optuna_trlhpo.cnn import CompressObjective, goals

        network = googlenet(num_classes=10, aux_logits=False)
        objective = CompressObjective(
            network, "mnist", image_size=32, goal=goals.weighted_product("parameters", 5.6e6, exponent=-0.01)
        )
        study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
        study.optimize(objective, n_trials=50)
        print(objective.compare(objective.smallest(study)))
        ```

    Attributes:
        adapter: The `Adapter` that builds networks.
        data: The `ImageData` that networks are trained on.
    """

    def __init__(
        self,
        network: nn.Module | Adapter,
        data: Any,
        *,
        image_size: int | None = None,
        min_share: float = 1 / 16,
        kernels: bool = True,
        keep: Iterable[str] = (),
        trained: bool = False,
        inherit: bool = False,
        inherited_epochs: int | None = None,
        original_file: str | Path | None = None,
        data_root: str | Path = "data",
        download: bool = False,
        train_size: int | None = None,
        validation_size: int | None = None,
        epochs: int = 5,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        schedule: str = "one_cycle",
        augment: str | Transform | None = None,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        max_latency: float | None = None,
        max_loss: float | None = None,
        goal: Goal | None = None,
        objectives: Sequence[str] = ("accuracy",),
        inference_batch: int = 1,
        device: str | torch.device | None = None,
        precision: str = "float32",
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        check_training(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule=schedule,
            precision=precision,
            threads=threads,
            seed=seed,
        )
        check_positive_integer("threads", threads)
        check_positive_integer("inference_batch", inference_batch)
        self.objectives = checked_objectives(objectives)
        check_training_less(
            inherit=inherit,
            inherited_epochs=inherited_epochs,
            early_stop=None,
            epochs=epochs,
            objectives=("accuracy",),
        )
        check_values(goal, self.objectives, max_loss)
        self.limits: dict[str, float] = {
            name: limit
            for name, limit in (
                ("macs", max_macs),
                ("parameters", max_parameters),
                ("activation_bytes", max_activation_bytes),
                ("latency", max_latency),
            )
            if limit is not None
        }
        for name, limit in self.limits.items():
            check_positive_number(f"max_{name}", limit)
        self.goal, self.max_loss, self.seed = goal, max_loss, int(seed)
        self.inherit, self._inherited_epochs = inherit, inherited_epochs
        self._inference_batch = int(inference_batch)
        self.data = prepared_data(
            network,
            data,
            image_size=image_size,
            data_root=data_root,
            download=download,
            train_size=train_size,
            validation_size=validation_size,
            seed=seed,
            device=device,
        )
        check_augment(augment, 1 if self.data.train_labels.ndim > 1 else 3)
        if isinstance(network, Adapter):
            self.adapter: Adapter = network
        else:
            self.adapter = NarrowingAdapter(
                network, self.data.input_shape, min_share=min_share, kernels=kernels, keep=keep
            )
        self.trained = trained
        self.trainer = ModuleTrainer(
            data=self.data,
            epochs=int(epochs),
            batch_size=int(batch_size),
            learning_rate=float(learning_rate),
            schedule=schedule,
            precision=precision,
            threads=int(threads),
            augment=augment,
        )
        built = self.adapter.build(self.adapter.original())
        check_output(built, self.data, self.trainer.batch_size)
        given = [float(it.double().sum()) for it in built.state_dict().values()] if trained else []
        start = (inherit, inherited_epochs, given, str(built))
        self.setting = f"{zlib.crc32(f'{self.trainer.key} {self.seed} {start}'.encode()):08x}"
        self._file = None if original_file is None else Path(original_file)
        self._original: OriginalNetwork | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<CompressObjective on {self.data.name!r}, {len(self.adapter.ranges)} parameters>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def original(self) -> OriginalNetwork:
        """The original network: trained at first use, or read from ``original_file``."""
        with self._lock:
            if self._original is None:
                self._original = read_or_train(self, self._file)
            return self._original

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """Build and train the network of a trial, and return its value or values.

        Raises:
            optuna.TrialPruned: If the study's pruner decides so, or the network is beyond a limit.
            ValueError: If the directions of the study differ from those of the objectives.
        """
        if isinstance(trial, Trial):
            check_directions(trial.study, self.objectives)
        original = self.original
        if isinstance(trial, Trial):
            note_original(trial.study, self)
        values = {name: allowed.suggest(trial, name) for name, allowed in self.adapter.ranges.items()}
        network = self.build(values)
        counts = count_costs(network, self.data.input_shape)
        costs: dict[str, float] = {
            "parameters": counts.parameters,
            "macs": counts.macs,
            "bytes": count_bytes(network),
            "inference_seconds": self.latency(network),
        }
        note_costs(trial, costs, original)
        latency = costs["inference_seconds"]
        check_limits(trial, {**counts._asdict(), "latency": latency}, self.limits)
        known = look_up(trial, self.setting)
        if known is not None:
            accuracy, costs["train_seconds"] = self._repeated(trial, known)
        else:
            outcome = self._train(trial, network, values, counts)
            if outcome is None:
                return (math.nan,) * len(self.objectives) if len(self.objectives) > 1 else math.nan
            accuracy, costs["train_seconds"] = outcome
        note_costs(trial, costs, original)
        trial.set_user_attr("accuracy", accuracy)
        trial.set_user_attr("setting", self.setting)
        if self.max_loss is not None and isinstance(trial, Trial):
            # Rounded, because a loss of exactly max_loss is allowed.
            trial.set_constraint("accuracy", round(original.accuracy - self.max_loss - accuracy, 9))
        if len(self.objectives) == 1:
            return self._value_of(accuracy, counts)
        results = {"accuracy": accuracy, "latency": latency, **counts._asdict()}
        return tuple(float(results[name]) for name in self.objectives)

    def build(self, values: Mapping[str, int] | FrozenTrial) -> nn.Module:
        """Return the untrained network of a trial or of values, which inherits if ``inherit`` is on.

        Raises:
            ValueError: If a value is missing or out of range.
        """
        values = values.params if isinstance(values, FrozenTrial) else values
        self.adapter.check(values)
        if self.inherit:
            return self.adapter.inherit(self.original.network, values)
        return self.adapter.build(values)

    def latency(self, network: nn.Module) -> float:
        """Return the median latency of one pass of a network in seconds, measured while nothing trains."""
        with TIMING_LOCK.measuring():
            measured = measure_latency(
                place(copy.deepcopy(network), self.data.device, self.trainer.precision),
                self.data.input_shape,
                batch_size=self._inference_batch,
                threads=self.trainer.threads,
            )
        return measured.median

    def smallest(self, study: Study, **how: Any) -> FrozenTrial:
        """Return the trial with the smallest network that is as accurate as the original, trained again.

        See `optuna_trlhpo.cnn.compress.choosing.smallest` for the arguments.
        """
        return choosing.smallest(self, study, **how)

    def compare(self, trials: FrozenTrial | Iterable[FrozenTrial], *, repeats: int = 3) -> CompressionTest:
        """Train networks and the original again, and compare them on the test images, which are read here.

        See `optuna_trlhpo.cnn.compress.choosing.compare`.
        """
        return choosing.compare(
            self, [trials] if isinstance(trials, FrozenTrial) else trials, repeats=repeats
        )

    # One trial --------------------------------------------------------------------------------------------

    def _value_of(self, accuracy: float, counts: Counts) -> float:
        return accuracy if self.goal is None else float(self.goal(accuracy, counts))

    def _repeated(self, trial: BaseTrial, known: FrozenTrial) -> tuple[float, float]:
        """Report what the other trial has, and return its accuracy and the seconds of its training."""
        trial.set_user_attr("looked_up", known.number)
        if len(self.objectives) == 1:
            for step, value in known.intermediate_values.items():
                trial.report(value, step)
        return known.user_attrs["accuracy"], known.user_attrs["train_seconds"]

    def _train(
        self, trial: BaseTrial, network: nn.Module, values: Mapping[str, int], counts: Counts
    ) -> tuple[float, float] | None:
        """Train a network and report it. Return its accuracy and the seconds, or None if memory ran out."""
        scores: list[float] = []
        pruned = False

        def after_epoch(score: float) -> bool:
            nonlocal pruned
            scores.append(score)
            if len(self.objectives) == 1:
                trial.report(self._value_of(score, counts), step=len(scores) - 1)
                pruned = trial.should_prune()
            return pruned

        try:
            with TIMING_LOCK.training():
                _, seconds = self.trainer.train(
                    network,
                    seed=self.seed_of(values),
                    from_scratch=not self.inherit,
                    epochs=self._inherited_epochs if self.inherit else None,
                    after_epoch=after_epoch,
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _logger.warning(f"Out of memory while training on {self.data.device}; the trial fails.")
            trial.set_user_attr("failed", "out of memory while training the network")
            scores = []
        if not scores:
            # Outside the except clause, because the traceback refers to the tensors that are to be freed.
            free_cached_memory(self.data.device)
            return None
        if pruned:
            raise optuna.TrialPruned()
        return scores[-1], seconds

    def seed_of(self, values: Mapping[str, int], repeat: str = "") -> str:
        """Return the seed of the training of a network; trainings with another ``repeat`` have others."""
        return f"{self.seed} {repeat} {sorted(values.items())}"

    def train_again(
        self, values: Mapping[str, int], repeat: str, original: nn.Module
    ) -> tuple[nn.Module, float]:
        """Train a network with another seed; if it inherits, from this trained original network."""
        network = self.adapter.inherit(original, values) if self.inherit else self.adapter.build(values)
        return self.trainer.train(
            network,
            seed=self.seed_of(values, repeat),
            from_scratch=not self.inherit,
            epochs=self._inherited_epochs if self.inherit else None,
        )

    def validated(self, network: nn.Module) -> float:
        """Return the score of a trained network on the validation images."""
        return score_of(self.trainer.validate(network))
