"""What can be done with the networks of a finished study: confirm, refit, cost, export, cut, show."""

from __future__ import annotations

from pathlib import Path

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial
from torch import nn

from optuna_trlhpo._checks import check_integer, check_positive_integer
from optuna_trlhpo.cnn import best_network, confirmation
from optuna_trlhpo.cnn.checks import (
    check_directions,
)
from optuna_trlhpo.cnn.data import ImageData
from optuna_trlhpo.cnn.deploy.cost import Cost
from optuna_trlhpo.cnn.deploy.export import Exported, check_format, export_network
from optuna_trlhpo.cnn.deploy.latency import Latencies
from optuna_trlhpo.cnn.deploy.partition import Budget, Partition
from optuna_trlhpo.cnn.goals import Goal, count
from optuna_trlhpo.cnn.results import Confirmation, Confirmed, Refit
from optuna_trlhpo.cnn.text_table import layer_table
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import Network
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.training_record import accuracies


class FoundNetworks:
    """The part of `CNNObjective` that works on finished trials.

    Attributes:
        data: Images and labels.
        space: The networks there are.
        epochs: Of a training.
        seed: Random seed.
        objectives: Names of what the objective returns.
        max_latency: Seconds for one image, at most; None: no limit.
        trainer: Trains networks.
        goal: Makes one value of accuracy and cost; None: the value is the accuracy.
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
        return confirmation.confirm(
            study,
            self.trainer,
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
        check_integer("seed", seed)
        return best_network.refit(trial, self.trainer, self.space, epochs=epochs, seed=seed)

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
        _, layers = best_network.network_of(trial)
        return best_network.cost(
            layers, self.trainer, self.space, latency=latency, batch_size=batch_size, threads=threads
        )

    def _trained_network(self, trial: BaseTrial | Confirmed, network: nn.Module | None) -> nn.Module:
        """``network`` if it can be the trial's; trained anew if there is none."""
        if network is None:
            return self.refit(trial).network
        best_network.check_is_network_of(trial, network, self.trainer, self.space)
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
        metadata = best_network.metadata(trial, self.data)
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
        """The best network of a finished trial, a row per layer: what it made of the image, gained and cost.

        The reward of a layer is the accuracy it added; a layer that was not trained on its own shows ``-``.

        Raises:
            ValueError: If the trial has no user attribute ``architecture``.
        """
        _, layers = best_network.network_of(trial)
        known = getattr(trial, "intermediate_values", {})
        if self.goal is not None:  # then the reports are what networks are worth
            known = {k - 1: accuracy for k, accuracy in accuracies(trial).items()}
        return layer_table(self.space, layers, known)

    def _worth(self, accuracy: float, layers: Network) -> float:
        return accuracy if self.goal is None else float(self.goal(accuracy, count(self.space, layers)))
