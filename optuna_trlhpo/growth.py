"""What a growing trial asks of the study's sampler: whether a training pays, or another layer."""

from __future__ import annotations

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_trlhpo.hooks import offered


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
        optuna.exceptions.UpdateFinishedTrialError: If the study has the trial as finished, as it has one that
            another worker has failed, or told, meanwhile. Optuna's ``suggest_*`` and ``report`` raise it too.
    """
    # A running trial can be asked for its parameters but not for its reports; the study can.
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if other.number == trial.number:
            return other
    raise UpdateFinishedTrialError(
        f"trial {trial.number} has already finished, by another worker or study.tell, and cannot go on here"
    )
