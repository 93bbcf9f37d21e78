"""The training settings of a study, stored in it for readers that have only the study."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.study import Study

if TYPE_CHECKING:
    from optuna_trlhpo.cnn.objective import CNNObjective

TRAINING_ATTRIBUTE = "training"
"""User attribute of a study with the training settings of its networks."""

# In Optuna's logger tree, because INFO messages of other loggers are not shown by default.
_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


def note_settings(study: Study, objective: CNNObjective) -> None:
    """Store the settings in the study, unless it has them, and warn of a pruner that stops growth."""
    settings = _settings_of(objective)
    if study.user_attrs.get(TRAINING_ATTRIBUTE) == settings:
        return
    study.set_user_attr(TRAINING_ATTRIBUTE, settings)
    if study.metric_names is None:
        # So that every figure says accuracy, Optuna's own and those of its dashboard too.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["goal"] if objective.goal is not None else list(objective.objectives))
    if type(study.pruner) is MedianPruner and len(study.directions) == 1:
        _logger.warning(
            "The study uses Optuna's default pruner, MedianPruner. It prunes every trial whose first "
            "network is below the median, although growing networks have their own stopping rules. "
            "Consider create_study(pruner=optuna.pruners.NopPruner())."
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _settings_of(objective: CNNObjective) -> dict[str, Any]:
    """Return the settings of the trainings by their names in words."""
    trainer, data = objective.trainer, objective.data
    return {
        "data": data.name,
        "training images": len(data.train_labels),
        "validation images": len(data.validation_labels),
        "epochs": objective.epochs,
        "batch size": objective.batch_size,
        "learning rate": float(objective.learning_rate),
        "schedule": objective.schedule,
        # The text of a function holds its address, which is another one in every process.
        "augmentation": getattr(trainer.augment, "__qualname__", None) or _text(trainer.augment),
        "precision": trainer.precision,
        "inherited epochs": trainer.inherited_epochs if trainer.inherits else None,
        "activation of convolutions": objective.conv_activation,
        "objectives": list(objective.objectives),
        "seed": int(objective.seed),
    }
