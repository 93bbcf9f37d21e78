"""What `CNNObjective` hands back: a network trained anew, or the leaders of a study ranked again.

Notation as in `objective`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from optuna_trlhpo.cnn.text_table import aligned
from optuna_trlhpo.layers import Network


@dataclass(frozen=True, eq=False)
class Refit:
    """A trial's best network, trained anew on training and validation images together.

    Attributes:
        network: Trained, in evaluation mode, on the objective's device; standardised images to logits.
        architecture: As `describe` writes it.
        layers: The same as layers, without the classifier.
        parameters: All weights and biases.
        macs: For one image.
        test_accuracy: On the test images, read this once; None if the data has none.
        seconds: What the training took.
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
    """A network that was trained again under other seeds; accuracies are on the validation images, 0-1.

    Attributes:
        architecture: As `describe` writes it.
        layers: The same as layers, without the classifier.
        trial: The number of the trial that observed the most of this network.
        observed: What that trial observed. It was selected for being high and is no part of ``mean``.
        mean: Of ``accuracies``.
        standard_error: Of ``mean``, by the spread of ``accuracies``: how far other trainings would move it,
            and not how far other validation images would. None for a single training.
        accuracies: One of each training.
        parameters: All weights and biases.
        macs: For one image.
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
    """The networks that `CNNObjective.confirm` trained again, best mean first; ``print`` shows a table."""

    def __str__(self) -> str:
        rows = [("trial", "observed", "mean", "std. error", "parameters", "MACs", "network")]
        for row in self:
            error = "-" if row.standard_error is None else f"{row.standard_error:.4f}"
            accuracies = f"{row.observed:.4f}", f"{row.mean:.4f}", error
            costs = f"{row.parameters:,}", f"{row.macs:,}"
            rows.append((str(row.trial), *accuracies, *costs, row.architecture))
        return aligned(rows, left={6})
