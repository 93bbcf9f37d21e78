"""Results of `CNNObjective.refit` and `CNNObjective.confirm`.

Notation: see `optuna_trlhpo.cnn.objective`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from optuna_trlhpo.cnn.text_table import aligned
from optuna_trlhpo.layers import Network


@dataclass(frozen=True, eq=False)
class Refit:
    """The best network of a trial, trained again on training and validation images together.

    Attributes:
        network: Trained network, in evaluation mode, on the objective's device. It maps standardised images
            to logits.
        architecture: Architecture as text, in the format of `describe`.
        layers: Layers of the architecture, without the classifier.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one image.
        test_accuracy: Accuracy on the test images, which are used only here. None if the data has none.
        seconds: Duration of the training.
    """

    network: nn.Module
    architecture: str
    layers: Network
    parameters: int
    macs: int
    test_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Confirmed:
    """A network that was trained again with other seeds. Accuracies are on the validation images, 0-1.

    Attributes:
        architecture: Architecture as text, in the format of `describe`.
        layers: Layers of the architecture, without the classifier.
        trial: Number of the trial with the highest accuracy of this network.
        observed: Accuracy in that trial. The network was selected for it, so it does not enter ``mean``.
        mean: Mean of ``accuracies``.
        standard_error: Standard error of ``mean``, from the spread of ``accuracies``. It covers the
            randomness of training, but not the choice of the validation images. None for a single training.
        accuracies: Accuracy of each training.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one image.
    """

    architecture: str
    layers: Network
    trial: int
    observed: float
    mean: float
    standard_error: float | None
    accuracies: tuple[float, ...]
    parameters: int
    macs: int


class Confirmation(list[Confirmed]):
    """Networks that `CNNObjective.confirm` trained again, best mean first. ``print`` shows a table."""

    def __str__(self) -> str:
        rows = [("trial", "observed", "mean", "std. error", "parameters", "MACs", "network")]
        for row in self:
            error = "-" if row.standard_error is None else f"{row.standard_error:.4f}"
            accuracies = f"{row.observed:.4f}", f"{row.mean:.4f}", error
            costs = f"{row.parameters:,}", f"{row.macs:,}"
            rows.append((str(row.trial), *accuracies, *costs, row.architecture))
        return aligned(rows, left={6})
