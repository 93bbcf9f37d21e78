"""Growth of a network in a trial: layer by layer with the paper's stopping rules, or as a whole.

`LayerSpace.grow` and `LayerSpace.suggest` are the public interface.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

import numpy as np
from optuna import TrialPruned
from optuna.logging import get_logger
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space.encoding import suggest_layer
from optuna_trlhpo.space.grammar import UNITS, Grammar
from optuna_trlhpo.space.sampler_hooks import entering, frozen, worth_growing, worth_training

_logger = get_logger("optuna.trlhpo.space")

DEPTH_NAME = "n_layers"
"""First parameter that `suggest` asks for."""
SPACE_ATTRIBUTE = "layer_space"
"""User attribute of a study that stores the settings of its space."""


class StopRules(NamedTuple):
    """When a network stops growing, and which prefixes are trained; see `LayerSpace`."""

    min_improvement: float | None
    min_accuracy: float | None
    train_prefixes: int | str


def grow(grammar: Grammar, rules: StopRules, trial: BaseTrial) -> Iterator[Network]:
    """Yield ever deeper networks; see `LayerSpace.grow`."""
    layers: Network = ()
    previous = -math.inf
    skipped = grown = False
    while grammar.kinds(layers):
        try:
            layers = (*layers, suggest_layer(grammar, trial, layers))
        except ValueError:
            # A fixed or frozen trial ends with its parameters.
            begun = any(name.startswith(f"layer{len(layers) + 1}_") for name in trial.params)
            if isinstance(trial, Trial) or begun:
                raise
            if skipped and grammar.fits(layers):
                yield layers
            return
        final = not grammar.kinds(layers)
        if final and not grammar.fits(layers):
            if not grown:
                _prune_infeasible(grammar, trial, layers)
            return
        skipped = not final and not (
            grammar.fits(layers) and _is_trained(rules, trial, len(layers), grammar.max_layers)
        )
        if skipped:
            continue
        grown = True
        yield layers
        if final or not isinstance(trial, Trial):
            continue
        if rules.min_improvement is not None or rules.min_accuracy is not None:
            accuracy = _reported_accuracy(rules, trial, step=len(layers) - 1)
            if rules.min_accuracy is not None and accuracy < rules.min_accuracy:
                return
            if rules.min_improvement is not None and accuracy - previous < rules.min_improvement:
                return
            previous = accuracy
        if rules.train_prefixes == "auto" and not worth_growing(trial):
            return


def suggest(grammar: Grammar, trial: BaseTrial) -> Network:
    """Ask for the depth, then for the layers; see `LayerSpace.suggest`."""
    layers: Network = ()
    depth = trial.suggest_int(DEPTH_NAME, 1, grammar.max_layers)
    while (len(layers) < depth or not grammar.fits(layers)) and grammar.kinds(layers):
        layers = (*layers, suggest_layer(grammar, trial, layers))
    if not grammar.fits(layers):
        _prune_infeasible(grammar, trial, layers)
    return layers


def announce_space(
    trial: BaseTrial, space: Any, settings: Mapping[str, Any], *, depth_first: bool
) -> AbstractContextManager[None]:
    """Return a context in which the sampler of a running trial knows its space.

    The settings of the space are also stored in the study, so that its networks can be described from the
    study alone.

    Args:
        trial: A trial. Nothing is announced for one that is not running.
        space: The `LayerSpace`.
        settings: Settings of the space.
        depth_first: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
    """
    if not isinstance(trial, Trial):
        return contextlib.nullcontext()
    before = trial.study.user_attrs.get(SPACE_ATTRIBUTE)
    if before != settings:
        _warn_of_other_layers(before, settings)
        try:
            trial.study.set_user_attr(SPACE_ATTRIBUTE, settings)
        except Exception as error:  # the settings are not worth failing a trial
            _logger.warning(f"The settings of the space were not stored in the study: {error!r}")
    return entering(trial, space, depth_first=depth_first)


def _warn_of_other_layers(before: Any, settings: Mapping[str, Any]) -> None:
    """Warn if a study was begun with another vocabulary: its networks say nothing of this space."""
    old, new = (it.get("vocabulary") if isinstance(it, Mapping) else None for it in (before, settings))
    if old != new and isinstance(old, str):
        old, new = (f"vocabulary {name!r}" if name else "Table I" for name in (old, new))
        _logger.warning(
            f"The study was begun with the layers of {old} and goes on with those of {new}; to go on with "
            "its own, pass the vocabulary of before."
        )


def _is_trained(rules: StopRules, trial: BaseTrial, depth: int, max_depth: int) -> bool:
    """Return whether to train a network of ``depth`` layers that can still grow."""
    if isinstance(rules.train_prefixes, int | np.integer):
        return depth % rules.train_prefixes == 0
    if rules.train_prefixes == "all":
        return True
    if isinstance(trial, Trial):
        return worth_training(trial, depth=depth, max_depth=max_depth)
    reports = getattr(trial, "intermediate_values", {})  # a replayed trial trains the same networks again
    return not reports or depth - 1 in reports


def _prune_infeasible(grammar: Grammar, trial: BaseTrial, layers: Network) -> NoReturn:
    """End a trial that has no network to train."""
    excess = grammar.excess(layers)
    for name, much in excess.items() if isinstance(trial, Trial) else ():
        trial.set_constraint(name, much)
    listed = " and ".join(f"{much:,.0f} {UNITS[name]}" for name, much in excess.items())
    raise TrialPruned(f"{describe(layers)} has {listed} too many, and cannot grow further")


def _reported_accuracy(rules: StopRules, trial: Trial, step: int) -> float:
    reports = frozen(trial).intermediate_values
    if step not in reports:
        if len(trial.study.directions) > 1:
            raise ValueError(
                "grow needs reports, which Optuna supports only in studies with one objective; use "
                "LayerSpace.suggest for several objectives"
            )
        raise ValueError(
            f"no report at step {step}: call trial.report(accuracy, step=len(layers) - 1) after training "
            "each network that grow yields, or use LayerSpace.suggest, which needs no report"
        )
    value = reports[step]
    if not math.isfinite(value):
        raise ValueError(f"the report at step {step} is {value}; grow needs a finite number")
    if rules.min_accuracy is not None and not 0 <= value <= 1:
        raise ValueError(
            f"the report at step {step} is {value:g}; with min_accuracy={rules.min_accuracy:g}, grow "
            "needs accuracies (or error rates) between 0 and 1; for another metric set min_accuracy=None"
        )
    if trial.study.direction == StudyDirection.MINIMIZE:
        return 1 - value
    return value


def best_of_trial(network: Network, trial: FrozenTrial, direction: StudyDirection) -> Network:
    """Return the best network that a trial had on its way to ``network``; see `LayerSpace.best_network`."""
    reports = {step: value for step, value in trial.intermediate_values.items() if not math.isnan(value)}
    is_whole = DEPTH_NAME in trial.params  # suggested at once, so reports are not of its prefixes
    if is_whole or not reports or not all(0 <= step < len(network) for step in reports):
        return network
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    # Where the objective returns the report of one network, that is the one, even if others reported more.
    # The value of a pruned trial is its last report, whatever that is.
    is_chosen = trial.state == TrialState.COMPLETE
    own = [step for step, value in reports.items() if is_chosen and value == trial.value]
    step = min(own) if own else max(reports, key=lambda step: (sign * reports[step], -step))
    return network[: step + 1]
