"""Repeated training of the leaders of a study, for `CNNObjective.confirm`."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.cnn.results import Confirmation, Confirmed
from optuna_trlhpo.cnn.text_table import shape_text
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import Network, describe, parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.attributes import finite, read_architecture

CONFIRMED_ATTRIBUTE = "confirmed_accuracies"
"""User attribute of a study with the measured accuracies.

It maps setting -> architecture -> accuracies in the order of the repeats.
"""

# In Optuna's logger tree, because INFO messages of other loggers are not shown by default.
_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


def confirm(
    study: Study,
    trainer: Trainer,
    space: LayerSpace,
    *,
    top: int,
    repeats: int,
    value_of: Callable[[float, Network], float],
    is_fast: Callable[[Network], bool],
) -> Confirmation:
    """Train the leaders again and rank them; see `CNNObjective.confirm`.

    Args:
        study: Study whose finished trials are read.
        trainer: Trains the networks.
        space: Search space of the networks.
        top: Maximum number of networks to train.
        repeats: Number of trainings of each network.
        value_of: Returns the value of a network with some accuracy.
        is_fast: Returns whether a network is within the latency limit. Only the leaders are checked.
    """
    found = _leaders(study, space, value_of)
    leaders = list(itertools.islice((it for it in found if is_fast(parse(_text(it[0])))), top))
    if not leaders:
        raise ValueError(f"no network of study {study.study_name!r} is within the objective's max_latency")
    setting = trainer.setting
    rows = Confirmation()
    for place, (trial, observed) in enumerate(leaders, start=1):
        architecture = _text(trial)
        layers = parse(architecture)
        accuracies = kept_accuracies(study, setting).get(architecture, [])
        for repeat in range(len(accuracies), repeats):
            # The seed is a string, so that it differs from the seed of every trial and refit.
            correct = trainer.validate(layers, seed=f"{trainer.seed} confirm {repeat}")
            if correct is None:
                _logger.warning(
                    f"Out of memory while training {describe(layers)} on {trainer.data.device}; confirm "
                    "skips it."
                )
                break
            accuracies.append(float(correct.mean()))
            keep_accuracies(study, setting, architecture, accuracies)
            _logger.info(
                f"Network {place} of {len(leaders)}, training {repeat + 1} of {repeats}: "
                f"{accuracies[-1]:.4f} (trial {trial.number} observed {observed:.4f}), {architecture}"
            )
        if len(accuracies) < repeats:
            continue
        accuracies = accuracies[:repeats]  # an earlier call may have had more repeats
        spread = statistics.stdev(accuracies) if repeats > 1 else None
        rows.append(
            Confirmed(
                architecture=architecture,
                layers=layers,
                trial=trial.number,
                observed=observed,
                mean=statistics.fmean(accuracies),
                standard_error=None if spread is None else spread / math.sqrt(repeats),
                accuracies=tuple(accuracies),
                parameters=space.parameters(layers),
                macs=space.macs(layers),
            )
        )
    # Rounded, so that floating-point errors of the sums do not decide between equal means.
    rows.sort(key=lambda row: (-round(value_of(row.mean, row.layers), 9), row.macs, row.trial))
    return rows


def _leaders(
    study: Study, space: LayerSpace, value_of: Callable[[float, Network], float]
) -> list[tuple[FrozenTrial, float]]:
    """Return the best networks of the finished trials, in descending order of their value.

    Each network of the space that is the best prefix of a finished trial is represented by the trial with its
    highest observed accuracy, and by that accuracy. Ties are ordered by ascending trial number.

    Raises:
        ValueError: If there is none.
    """
    leaders: dict[str, tuple[FrozenTrial, float]] = {}
    # The final state of the trial does not matter: its network was trained either way.
    finished = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for trial in study.get_trials(deepcopy=False, states=finished):
        found = read_architecture(trial)
        if found is None:
            continue
        architecture, layers = found
        # The report of exactly this prefix; a trial added with `add_trial` may have a value alone.
        reported = trial.intermediate_values.get(len(layers) - 1, trial.value)
        accuracy = finite(trial.user_attrs.get("accuracy"))
        observed = finite(reported) if accuracy is None else accuracy
        if observed is None:
            continue
        if architecture not in leaders or observed > leaders[architecture][1]:
            leaders[architecture] = (trial, observed)
    if not leaders:
        raise ValueError(
            f"study {study.study_name!r} has no finished trial with an accuracy and the user attribute "
            "'architecture', which CNNObjective sets when it has trained a network"
        )
    beyond = {text: reason for text in leaders if (reason := _reason_against(text, space))}
    if len(beyond) == len(leaders):
        text, reason = next(iter(beyond.items()))
        raise ValueError(
            f"no network of study {study.study_name!r} belongs to the objective's space for inputs of shape "
            f"{shape_text(space.input_shape)}: trial {leaders[text][0].number} has {text!r}, but {reason}; "
            "use the objective of the study"
        )
    if beyond:
        _logger.info(f"confirm skips {len(beyond)} networks that are outside the objective's space.")
    values = {text: value_of(leaders[text][1], parse(text)) for text in leaders if text not in beyond}
    ranked = sorted(values, key=lambda text: (-values[text], leaders[text][0].number))
    return [leaders[text] for text in ranked]


def _text(trial: FrozenTrial) -> str:
    found = read_architecture(trial)
    assert found is not None, "a leader has a network"
    return found[0]


def _reason_against(architecture: str, space: LayerSpace) -> str:
    """Return why the space does not contain the network, or an empty string if it does."""
    try:
        space.check(parse(architecture))
    except ValueError as error:
        return str(error)
    return ""


def kept_accuracies(study: Study, setting: str) -> dict[str, list[float]]:
    """Return the stored accuracies of each network in this setting.

    The attribute may be damaged or written by other code, so invalid entries are ignored.
    """
    found = _dictionary(_dictionary(study.user_attrs.get(CONFIRMED_ATTRIBUTE)).get(setting))
    return {
        architecture: list(map(float, accuracies))
        for architecture, accuracies in found.items()
        if isinstance(accuracies, list) and all(map(_is_share, accuracies))
    }


def keep_accuracies(study: Study, setting: str, architecture: str, accuracies: list[float]) -> None:
    """Store the accuracies of a network in this setting with the study."""
    # Read again before each write, so that two processes do not overwrite each other's accuracies.
    kept = dict(_dictionary(study.user_attrs.get(CONFIRMED_ATTRIBUTE)))
    # Copied, because an in-memory study stores a reference to the list.
    kept[setting] = {**_dictionary(kept.get(setting)), architecture: list(accuracies)}
    study.set_user_attr(CONFIRMED_ATTRIBUTE, kept)


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_share(value: Any) -> bool:
    number = finite(value)
    return number is not None and 0 <= number <= 1
