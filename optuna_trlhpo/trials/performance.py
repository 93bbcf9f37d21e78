"""Accuracies of a network on several batches, reported beside its accuracy (paper, section IV)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from optuna.trial import BaseTrial, FrozenTrial

PERFORMANCE_VALUES = 32
"""P: number of validation batches whose accuracies describe a network (section IV of the paper)."""

_PERFORMANCE_ATTRIBUTE = "batch_accuracies"


def report_performance(trial: BaseTrial, accuracies: Sequence[float], step: int) -> None:
    """Pass the accuracies on 32 validation batches to the sampler, beside ``trial.report(accuracy, step)``.

    They describe *how* a network performs, and are a part of the state of the paper's agent (section IV). The
    reported accuracy alone is the objective. They are stored as one short text, a user attribute of the
    trial, with a resolution of 1/255.

    Args:
        trial: The running trial.
        accuracies: 32 numbers in [0, 1].
        step: The step of the report.

    Raises:
        ValueError: If there are not 32 numbers in [0, 1].
    """
    values = np.asarray(accuracies, dtype=float)
    if values.shape != (PERFORMANCE_VALUES,) or not ((0 <= values) & (values <= 1)).all():
        raise ValueError(
            f"accuracies have shape {values.shape} and range {np.min(values, initial=np.inf):g} to "
            f"{np.max(values, initial=-np.inf):g}; they must be {PERFORMANCE_VALUES} numbers in [0, 1]"
        )
    digits = np.rint(values * 255).astype(np.uint8).tobytes().hex()
    before = trial.user_attrs.get(_PERFORMANCE_ATTRIBUTE, "")
    trial.set_user_attr(_PERFORMANCE_ATTRIBUTE, f"{before} {step}:{digits}".strip())


def read_performance(trial: FrozenTrial) -> dict[int, np.ndarray]:
    """Return the accuracies that `report_performance` has stored, ``[32]`` for each step.

    Others may have written the attribute. Whatever has another format is ignored.
    """
    text = trial.user_attrs.get(_PERFORMANCE_ATTRIBUTE)
    if not isinstance(text, str):
        return {}
    entries = re.findall(rf"(?<!\S)([0-9]{{1,9}}):([0-9a-f]{{{2 * PERFORMANCE_VALUES}}})(?!\S)", text)
    return {int(k): np.frombuffer(bytes.fromhex(digits), np.uint8) / 255 for k, digits in entries}
