"""Checks of the arguments and studies of `CNNObjective`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection

from optuna_trlhpo._checks import check_integer, check_positive_integer, check_positive_number
from optuna_trlhpo.cnn.goals import Counts
from optuna_trlhpo.cnn.training.loop import PRECISIONS, SCHEDULES


def checked_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the objectives, or raise a ``ValueError`` if one is unknown."""
    allowed = ("accuracy", *Counts._fields, "latency")
    several = isinstance(objectives, Sequence) and not isinstance(objectives, str)
    names = tuple(map(str, objectives)) if several else (str(objectives),)
    if "accuracy" not in names or len(set(names)) < len(names) or not set(names) <= set(allowed):
        raise ValueError(
            f"objectives is {objectives!r}; it must be accuracy, alone or with some of "
            f"{', '.join(allowed[1:])}"
        )
    return names


def check_training(
    *,
    epochs: Any,
    batch_size: Any,
    learning_rate: Any,
    schedule: Any,
    precision: Any,
    threads: Any,
    seed: Any,
) -> None:
    """Raise a ``ValueError`` if an argument of the training is invalid."""
    check_positive_integer("epochs", epochs)
    check_positive_integer("batch_size", batch_size)
    if threads != "auto":
        check_positive_integer("threads", threads)
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    check_positive_number("learning_rate", learning_rate)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")
    check_integer("seed", seed)


def check_training_less(
    *, inherit: bool, inherited_epochs: Any, early_stop: Any, epochs: int, objectives: Sequence[str]
) -> None:
    """Raise a ``ValueError`` if an argument of inheritance or early stopping is invalid or incompatible."""
    if inherited_epochs is not None:
        check_positive_integer("inherited_epochs", inherited_epochs)
        if not inherit:
            raise ValueError(
                f"inherited_epochs is {inherited_epochs}; it must be None unless inherit is True"
            )
    if inherit and len(objectives) > 1:
        raise ValueError(
            "inherit is True; with several objectives it must be False, because each network is trained once"
        )
    if early_stop is None:
        return
    if not isinstance(early_stop, BasePruner):
        raise ValueError(f"early_stop is {early_stop!r}; it must be an Optuna pruner, or None")
    if max(epochs, inherited_epochs or 1) == 1:
        raise ValueError(
            "epochs is 1; early_stop needs at least 2, because it never stops a training after the last epoch"
        )


def check_directions(study: Study, objectives: tuple[str, ...] = ("accuracy",)) -> None:
    """Raise a ``ValueError`` unless the study has the directions of the objectives."""
    if not isinstance(study, Study):
        raise ValueError(f"study is a {type(study).__name__}; it must be an Optuna study")
    wanted = [
        StudyDirection.MAXIMIZE if name == "accuracy" else StudyDirection.MINIMIZE for name in objectives
    ]
    if study.directions == wanted:
        return
    if len(wanted) == 1:
        raise ValueError(
            "the study does not maximise one value; the objective returns an accuracy, so create the "
            'study with direction="maximize"'
        )
    directions = [direction.name.lower() for direction in wanted]
    raise ValueError(
        f"the directions of the study are not those of the objectives {', '.join(objectives)}; create it "
        f"with directions={directions}"
    )
