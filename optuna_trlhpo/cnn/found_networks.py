"""Operations on the networks of a finished study: confirm, refit, cost, export, partition, table."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial
from torch import nn

from optuna_trlhpo._checks import check_integer, check_positive_integer
from optuna_trlhpo.cnn import best_network, confirmation
from optuna_trlhpo.cnn.checks import check_directions
from optuna_trlhpo.cnn.data import ImageData
from optuna_trlhpo.cnn.deploy.cost import Cost
from optuna_trlhpo.cnn.deploy.export import QUANTISABLE, Exported, check_format, export_network
from optuna_trlhpo.cnn.deploy.latency import Latencies
from optuna_trlhpo.cnn.deploy.partition import Budget, Partition
from optuna_trlhpo.cnn.deploy.running import accuracy_of_file
from optuna_trlhpo.cnn.goals import Goal, count
from optuna_trlhpo.cnn.results import Confirmation, Confirmed, Refit
from optuna_trlhpo.cnn.text_table import layer_table
from optuna_trlhpo.cnn.training.augmentation import Transform, check_augment
from optuna_trlhpo.cnn.training.loop import predict_correct
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import Network
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.training_record import accuracies

_NOTABLE_LOSS = 0.001
"""Loss of accuracy by quantisation, as a share of the images, that is worth a warning."""

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


class FoundNetworks:
    """The part of `CNNObjective` that works on finished trials.

    Attributes:
        data: Images and labels.
        space: Search space of networks.
        epochs: Number of training epochs.
        seed: Random seed.
        objectives: Names of the values that the objective returns.
        max_latency: Maximum latency for one image in seconds. None means no limit.
        trainer: Trains the networks.
        goal: Combines accuracy and cost into one value. None means that the value is the accuracy.
    """

    data: ImageData
    space: LayerSpace
    epochs: int
    seed: int
    objectives: tuple[str, ...]
    max_latency: float | None
    goal: Goal | None
    trainer: Trainer
    _latency: Latencies

    def confirm(self, study: Study, *, top: int = 5, repeats: int = 3) -> Confirmation:
        """Train the leaders of a study again with new seeds, and rank them by their mean accuracy.

        The best observed network is often a lucky one: the maximum of many noisy values is biased upwards.
        The leaders are the networks with the highest observed accuracies, or with the highest values of the
        goal. Each is the best prefix of a finished trial, and equal architectures count once. Networks
        beyond the objective's limits are excluded, which matters if the study had other limits. Every repeat
        has its own initial weights and order of the images, both fixed by the objective's seed. Everything
        else is the same as in the search. The accuracy observed in the search does not enter the mean,
        because the network was selected for it.

        The means average out the randomness of training. They are still biased by selection on the
        validation images. Only the accuracy on the test images, from `refit`, is free of this bias.

        Each accuracy is stored in the study immediately, in the user attribute ``confirmed_accuracies``.
        After an interruption or an error, the next call continues where this one stopped, and ``top=10``
        after ``top=5`` trains only the new networks. An objective with other data, training settings or
        seed does not reuse these accuracies. A network that does not fit in memory is skipped with a
        warning, and the next call tries it again.

        Args:
            study: Study whose finished trials are read. Its direction is "maximize".
            top: Maximum number of networks to train.
            repeats: Number of trainings of each network.

        Returns:
            A list of `Confirmed`, in descending order of the mean; ties are ordered by ascending MACs.
            ``print`` shows it as a table. `refit` accepts its rows.

        Raises:
            ValueError: If ``top`` or ``repeats`` is not a positive integer, the study does not maximise one
                value, the objective has several, or the study holds no network of the objective's space.
        """
        if len(self.objectives) > 1:
            raise ValueError(
                f"objectives are {', '.join(self.objectives)}; confirm ranks networks by one value and needs "
                "accuracy as the only objective; refit and cost accept each of study.best_trials"
            )
        check_directions(study)
        check_positive_integer("top", top)
        check_positive_integer("repeats", repeats)
        return confirmation.confirm(
            study,
            self.trainer,
            self.space,
            top=top,
            repeats=repeats,
            value_of=self._value_of,
            is_fast=lambda layers: self.max_latency is None or self._latency(layers) <= self.max_latency,
        )

    def refit(
        self,
        trial: BaseTrial | Confirmed,
        *,
        epochs: int | None = None,
        seed: int | None = None,
        augment: str | Transform | None = "auto",
    ) -> Refit:
        """Train the best network of a finished trial on training and validation images, and test it once.

        Args:
            trial: A trial, such as ``study.best_trial``, or a row of the result of `confirm`.
            epochs: Number of epochs. Default: the objective's. More epochs usually help and cost little here.
            seed: Random seed. Default: the objective's.
            augment: Augmentation of the images; see `CNNObjective`. It pays in trainings of many epochs.
                ``"auto"``: the objective's.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``, or an argument is out of range.
        """
        epochs, seed = self.epochs if epochs is None else epochs, self.seed if seed is None else seed
        check_positive_integer("epochs", epochs)
        check_integer("seed", seed)
        if augment == "auto":
            augment = self.trainer.augment
        check_augment(augment, self.space.vocabulary.axes)
        return best_network.refit(trial, self.trainer, self.space, epochs=epochs, seed=seed, augment=augment)

    def cost(
        self,
        trial: BaseTrial | Confirmed,
        *,
        latency: bool = True,
        batch_size: int = 1,
        threads: int = 1,
        quantize: str | None = "auto",
    ) -> Cost:
        """Compute the cost of the best network of a finished trial, layer by layer.

        Parameters, MACs, FLOPs, and the bytes of weights and activations are counted. Latency is measured on
        the objective's device, and so is energy where the machine has a counter for it (see `Cost`).
        ``print`` shows the result as a table.

        Args:
            trial: A trial, such as ``study.best_trial``, or a row of the result of `confirm`.
            latency: Whether to measure latency and energy, which takes some seconds.
            batch_size: Number of images in a measured pass.
            threads: Number of CPU threads of a measured pass.
            quantize: ``"int8"`` for the size and latency of the int8 file too, which needs ONNX; None for
                32-bit floats alone; ``"auto"`` for the number format of the objective.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``, or an argument is out of range.
            ImportError: If ONNX is needed and not installed.
        """
        _, layers = best_network.network_of(trial)
        if quantize == "auto":
            quantize = self.space.quantize
        if quantize is not None:
            check_format("network.onnx", quantize)
        return best_network.cost(
            layers,
            self.trainer,
            self.space,
            latency=latency,
            batch_size=batch_size,
            threads=threads,
            quantize=quantize,
            metadata=best_network.metadata(trial, self.data),
        )

    def _trained_network(self, trial: BaseTrial | Confirmed, network: nn.Module | None) -> nn.Module:
        """Return ``network`` if it matches the trial's architecture, or train one if it is None."""
        if network is None:
            return self.refit(trial).network
        best_network.check_is_network_of(trial, network, self.trainer, self.space)
        return network

    def export(
        self,
        trial: BaseTrial | Confirmed,
        path: str | Path,
        *,
        network: nn.Module | None = None,
        quantize: str | None = "auto",
    ) -> Exported:
        """Write the best network of a finished trial to a file that can be used without this package.

        A study stores no weights, so `refit` trains the network unless a trained one is given. The network
        expects standardised inputs. The file contains their mean and standard deviation, and the
        architecture.

        Args:
            trial: A trial, such as ``study.best_trial``, or a row of the result of `confirm`.
            path: Path whose suffix selects the format: ``.onnx``, ``.pte`` (ExecuTorch), ``.pt2``
                (`torch.export`) or ``.py`` (readable source, with its weights in a ``.safetensors`` file
                beside it); see `export_network`.
            network: Trained network, such as ``refit(trial).network``.
            quantize: ``"int8"`` for 8-bit integers, in ONNX or ExecuTorch. The ranges of the
                activations are those on the validation images, and so are the two accuracies in the result. A
                loss of more than 0.001 is logged as a warning. None for 32-bit floats. ``"auto"`` for the
                number format of the objective in ONNX and ExecuTorch, and floats in other formats.

        Raises:
            ValueError: For another suffix, a trial without the user attribute ``architecture``, or a network
                of another architecture.
            ImportError: If the format is ONNX or ExecuTorch, which is not installed.
            RuntimeError: If the outputs of the written file differ from those of the network.

        Examples:
            ```python
            refit = objective.refit(study.best_trial, epochs=20)
            objective.export(study.best_trial, "digits.onnx", network=refit.network)
            objective.export(study.best_trial, "digits.pte", network=refit.network)
            ```
        """
        if quantize == "auto":
            quantize = self.space.quantize if Path(path).suffix in QUANTISABLE else None
        check_format(path, quantize)
        trained = self._trained_network(trial, network)
        images, labels = self.data.validation_images, self.data.validation_labels
        exported = export_network(
            trained,
            path,
            self.space.input_shape,
            metadata=best_network.metadata(trial, self.data),
            quantize=quantize,
            calibration=None if quantize is None else images,
        )
        most = self.space.max_model_bytes
        if most is not None and quantize == self.space.quantize and exported.bytes > most:
            _logger.warning(f"The file has {exported.bytes:,} bytes; max_model_bytes is {most:,.0f}.")
        if quantize is None:
            return exported
        accuracy = accuracy_of_file(path, images, labels)
        before = float(predict_correct(trained, images, labels).double().mean())
        if before - accuracy > _NOTABLE_LOSS:
            _logger.warning(
                f"The {quantize} network classifies {accuracy:.2%} of the validation images correctly, the "
                f"network of floats {before:.2%}."
            )
        return exported._replace(accuracy=accuracy, float_accuracy=before)

    def partition(
        self,
        trial: BaseTrial | Confirmed,
        budget: Budget,
        *,
        folder: str | Path | None = None,
        network: nn.Module | None = None,
        latency: bool = True,
    ) -> Partition:
        """Choose where to cut the best network of a finished trial between a device and a server.

        Only cuts whose device part is within the budget are considered. Among them, the cut with the fewest
        transferred bytes is chosen; ties are resolved in favour of the smallest device part. ``print`` shows
        all cuts.

        Args:
            trial: A trial, such as ``study.best_trial``, or a row of the result of `confirm`.
            budget: Resources of the device.
            folder: Folder for the two parts, ``device.onnx`` and ``server.onnx``. The output of the first is
                the input of the second. None writes nothing and trains nothing.
            network: Trained network, such as ``refit(trial).network``. None trains it with `refit` if parts
                are to be written.
            latency: Whether to measure latency on the objective's device, which takes some seconds.

        Raises:
            ValueError: If no cut is within the budget, the budget limits a latency that is not measured, the
                trial has no user attribute ``architecture``, or the network has another architecture.
            ImportError: If parts are to be written and ONNX is not installed.
        """
        if not isinstance(budget, Budget):
            raise ValueError(f"budget is {budget!r}; it must be a Budget, such as Budget(macs=1e6)")
        if budget.latency is not None and not latency:
            raise ValueError(f"the budget limits latency to {budget.latency!r} s; latency must be True")
        if folder is not None:
            check_format("device.onnx")
        return best_network.partition(
            trial,
            lambda: self._trained_network(trial, network),
            budget,
            self.trainer,
            self.space,
            folder=folder,
            latency=latency,
        )

    def table(self, trial: FrozenTrial) -> str:
        """Return a table of the best network of a finished trial, one row per layer.

        A row shows the output shape, accuracy, reward and cost of the layer. The reward is the accuracy that
        the layer added. A layer shows ``-`` if no network that ends with it was trained.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``.
        """
        _, layers = best_network.network_of(trial)
        known = getattr(trial, "intermediate_values", {})
        if self.goal is not None:  # then the reports are values of the goal
            known = {k - 1: accuracy for k, accuracy in accuracies(trial).items()}
        return layer_table(self.space, layers, known)

    def _value_of(self, accuracy: float, layers: Network) -> float:
        return accuracy if self.goal is None else float(self.goal(accuracy, count(self.space, layers)))
