"""Which sampler serves a running trial: how a `LayerSpace` reaches a sampler that others wrap.

``study.sampler`` may be a wrapper, such as `optuna.samplers.PartialFixedSampler`, that hands calls on to a
sampler within it. What wrappers hand on is Optuna's interface alone. So a sampler that wants to be told and
asked more than that registers itself, with `serve`, from the methods that are handed on; and whoever wants to
tell or ask looks it up here.

What a sampler may offer:

=====================  ==================================================================================
``enter_space``        ``(study, number, space, *, whole)``: is told which space a trial grows layers of
``worth_training``     ``(study, trial, *, depth, max_depth)``: says whether a network is worth a training
``worth_growing``      ``(study, trial)``: says whether a deeper network is worth another training
=====================  ==================================================================================
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

_Key = tuple[str, int, datetime | None]  # two studies of one name may be in two storages

# Single operations on dictionaries need no lock, and a lock would stay locked in a process that was forked.
_serving: weakref.WeakValueDictionary[_Key, BaseSampler] = weakref.WeakValueDictionary()
_entered: dict[_Key, tuple[Any, bool]] = {}  # spaces that trials are growing layers of, and whether whole


def serve(study: Study, trial: FrozenTrial, sampler: BaseSampler) -> None:
    """Register the sampler that is asked for the values of a running trial; the last one counts.

    To be called by that sampler, from `before_trial` and from `sample_independent`: of the two a wrapper may
    hand on only the latter, or the first to several samplers. A sampler that is new to the trial is told
    which space the trial is in.

    Args:
        study: As it was handed on.
        trial: As it was handed on.
        sampler: The caller. Only a weak reference is kept.
    """
    key = study.study_name, trial.number, trial.datetime_start
    if _serving.get(key) is sampler:
        return
    _serving[key] = sampler
    enter = getattr(sampler, "enter_space", None)
    if enter is not None and key in _entered:
        space, whole = _entered[key]
        enter(study, trial.number, space, whole=whole)


def release(study: Study, trial: FrozenTrial) -> None:
    """Forget which sampler served the trial; to be called from `after_trial`."""
    _serving.pop((study.study_name, trial.number, trial.datetime_start), None)


def offered(trial: Trial, name: str) -> Callable[..., Any] | None:
    """The method of that name of the study's sampler, else of the one that serves the trial; None if neither
    has one.

    Example:
        >>> import optuna
        >>> offered(optuna.create_study(sampler=optuna.samplers.RandomSampler()).ask(), "worth_training")
    """
    for sampler in (trial.study.sampler, _serving.get(_key(trial))):
        method = getattr(sampler, name, None)
        if method is not None:
            return method
    return None


@contextmanager
def entering(trial: Trial, space: Any, *, whole: bool) -> Iterator[None]:
    """Within, the trial grows layers of ``space``: every sampler that serves it there is told so.

    Args:
        trial: A running trial.
        space: A `LayerSpace`.
        whole: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
    """
    key, enter = _key(trial), offered(trial, "enter_space")
    _entered[key] = space, whole
    try:
        if enter is not None:
            enter(trial.study, trial.number, space, whole=whole)
        yield
    finally:
        _entered.pop(key, None)


def _key(trial: Trial) -> _Key:
    return trial.study.study_name, trial.number, trial.datetime_start


def worth_training(trial: Trial, *, depth: int, max_depth: int) -> bool:
    """Whether the network that ``trial`` has grown to is worth a training on the way to a deeper one.

    The study's sampler says so, if it is one that decides (`TRLHPOSampler` does) or hands its work on to one;
    with any other sampler every network is. For objectives of one's own that grow something step by step;
    `LayerSpace.grow` asks by itself. What is not trained is not reported.

    Args:
        trial: A running trial.
        depth: How many layers, or steps, it has.
        max_depth: How many it may get.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial has finished meanwhile, by another worker.

    Example:
        >>> import optuna
        >>> worth_training(optuna.create_study().ask(), depth=1, max_depth=8)
        True
    """
    ask = offered(trial, "worth_training")
    return True if ask is None else ask(trial.study, frozen(trial), depth=depth, max_depth=max_depth)


def worth_growing(trial: Trial) -> bool:
    """Whether ``trial`` should grow deeper after what it has reported; else it had better end here.

    See `worth_training`.
    """
    ask = offered(trial, "worth_growing")
    return True if ask is None else ask(trial.study, frozen(trial))


def frozen(trial: Trial) -> FrozenTrial:
    """What the study knows of a running trial, its reports too.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial has finished meanwhile: another worker failed
            it, or told its value. Optuna's ``suggest_*`` and ``report`` raise this error too.
    """
    # A running trial can be asked for its parameters but not for its reports; the study can.
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if other.number == trial.number:
            return other
    raise UpdateFinishedTrialError(
        f"trial {trial.number} has already finished, by another worker or study.tell, and cannot go on here"
    )
