"""Hooks between a `LayerSpace` and the sampler of a running trial, even if that sampler is wrapped.

``study.sampler`` may be a wrapper, such as `optuna.samplers.PartialFixedSampler`, that forwards calls to
another sampler. Wrappers forward Optuna's interface only. A sampler with further hooks therefore registers
itself with `serve`, from the methods that are forwarded, and callers of the hooks look it up here.

Hooks that a sampler may have:

=====================  ====================================================================================
``enter_space``        ``(study, number, space, *, depth_first)``: registers the space from which a trial
                       grows layers
``worth_training``     ``(study, trial, *, depth, max_depth)``: returns whether to train a network
``worth_growing``      ``(study, trial)``: returns whether to train a deeper network
=====================  ====================================================================================
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

_Key = tuple[str, int, datetime | None]  # two storages may each have a study of this name

# Single dictionary operations need no lock, and a lock held during a fork would stay locked in the child.
_serving: weakref.WeakValueDictionary[_Key, BaseSampler] = weakref.WeakValueDictionary()
entered: dict[_Key, tuple[Any, bool]] = {}  # the space of each trial, and ``depth_first``


def serve(study: Study, trial: FrozenTrial, sampler: BaseSampler) -> None:
    """Register the sampler of a running trial. The last one registered counts.

    The sampler calls this from `before_trial` and from `sample_independent`: a wrapper may forward only the
    latter, or the former to several samplers. A newly registered sampler learns which space the trial is in.

    Args:
        study: The study, as it was passed to the sampler.
        trial: The trial, as it was passed to the sampler.
        sampler: The sampler. Only a weak reference is kept.
    """
    key = study.study_name, trial.number, trial.datetime_start
    if _serving.get(key) is sampler:
        return
    _serving[key] = sampler
    enter = getattr(sampler, "enter_space", None)
    if enter is not None and key in entered:
        space, depth_first = entered[key]
        enter(study, trial.number, space, depth_first=depth_first)


def release(study: Study, trial: FrozenTrial) -> None:
    """Unregister the sampler of a trial. Samplers call this from `after_trial`."""
    _serving.pop((study.study_name, trial.number, trial.datetime_start), None)


def offered(trial: Trial, name: str) -> Callable[..., Any] | None:
    """Return the hook with this name of the study's sampler, else of the sampler that serves the trial.

    None if neither has it.

    Examples:
        >>> import optuna
        >>> offered(optuna.create_study(sampler=optuna.samplers.RandomSampler()).ask(), "worth_training")
    """
    for sampler in (trial.study.sampler, _serving.get(_key(trial))):
        method = getattr(sampler, name, None)
        if method is not None:
            return method
    return None


@contextmanager
def entering(trial: Trial, space: Any, *, depth_first: bool) -> Iterator[None]:
    """Announce, within the context, that the trial grows layers of ``space``.

    Every sampler that serves the trial is informed.

    Args:
        trial: A running trial.
        space: A `LayerSpace`.
        depth_first: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
    """
    key, enter = _key(trial), offered(trial, "enter_space")
    entered[key] = space, depth_first
    try:
        if enter is not None:
            enter(trial.study, trial.number, space, depth_first=depth_first)
        yield
    finally:
        entered.pop(key, None)


def _key(trial: Trial) -> _Key:
    return trial.study.study_name, trial.number, trial.datetime_start


def worth_training(trial: Trial, *, depth: int, max_depth: int) -> bool:
    """Return whether to train the network that ``trial`` has grown to, on the way to a deeper one.

    The study's sampler decides, if it or the sampler that it wraps can (as `TRLHPOSampler` can); with any
    other sampler every network is trained. This is for custom objectives that grow something step by step;
    `LayerSpace.grow` calls it itself. A network that is not trained is not reported.

    Args:
        trial: A running trial.
        depth: Number of layers, or steps, of the network.
        max_depth: Largest number that it can have.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If another worker has finished the trial meanwhile.

    Examples:
        >>> import optuna
        >>> worth_training(optuna.create_study().ask(), depth=1, max_depth=8)
        True
    """
    ask = offered(trial, "worth_training")
    return True if ask is None else ask(trial.study, frozen(trial), depth=depth, max_depth=max_depth)


def worth_growing(trial: Trial) -> bool:
    """Return whether ``trial`` should grow deeper after its last report; if not, it had better end here.

    The study's sampler decides, as in `worth_training`.
    """
    ask = offered(trial, "worth_growing")
    return True if ask is None else ask(trial.study, frozen(trial))


def frozen(trial: Trial) -> FrozenTrial:
    """Return the study's copy of a running trial, with its reports.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial has finished meanwhile: another worker failed
            it, or passed its value to `study.tell`. Optuna's ``suggest_*`` and ``report`` raise this error
            too.
    """
    # A running trial gives access to its parameters but not to its reports; the study does.
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if other.number == trial.number:
            return other
    raise UpdateFinishedTrialError(
        f"trial {trial.number} has already finished, in another worker or by study.tell, and cannot continue"
    )
