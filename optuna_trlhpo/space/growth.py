"""How a trial grows a network: layer by layer with the stop rules of the paper, or whole.

`LayerSpace.grow` and `LayerSpace.suggest` say what a user sees.
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
from optuna.trial import BaseTrial, Trial

from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space.encoding import suggest_layer
from optuna_trlhpo.space.grammar import UNITS, Grammar
from optuna_trlhpo.space.sampler_hooks import entering, frozen, worth_growing, worth_training

_logger = get_logger("optuna.trlhpo.space")

SPACE_ATTRIBUTE = "layer_space"
"""The user attribute of a study under which the settings of its space are kept."""


class StopRules(NamedTuple):
    """When a network stops growing, and which networks are trained on the way; see `LayerSpace`."""

    min_improvement: float | None
    min_accuracy: float | None
    train_prefixes: int | str


def grow(grammar: Grammar, rules: StopRules, trial: BaseTrial) -> Iterator[Network]:
    """Yield a deeper network each time round; see `LayerSpace.grow`."""
    layers: Network = ()
    previous = -math.inf
    skipped = grown = False
    while grammar.kinds(layers):
        try:
            layers = (*layers, suggest_layer(grammar, trial, layers))
        except ValueError:
            # A fixed or frozen trial ends where its parameters end.
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
    """The depth, then the layers; see `LayerSpace.suggest`."""
    layers: Network = ()
    depth = trial.suggest_int("n_layers", 1, grammar.max_layers)
    while (len(layers) < depth or not grammar.fits(layers)) and grammar.kinds(layers):
        layers = (*layers, suggest_layer(grammar, trial, layers))
    if not grammar.fits(layers):
        _prune_infeasible(grammar, trial, layers)
    return layers


def announce_space(
    trial: BaseTrial, space: Any, settings: Mapping[str, Any], *, depth_first: bool
) -> AbstractContextManager[None]:
    """Within, a sampler that wants to know is told which networks there are.

    The study gets the settings of the space, too, so that its networks can be described from the study alone.

    Args:
        trial: A trial; nobody is told of one that does not run.
        space: The `LayerSpace`.
        settings: Of the space.
        depth_first: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
    """
    if not isinstance(trial, Trial):
        return contextlib.nullcontext()
    if trial.study.user_attrs.get(SPACE_ATTRIBUTE) != settings:
        try:
            trial.study.set_user_attr(SPACE_ATTRIBUTE, settings)
        except Exception as error:  # no trial should fail for a note
            _logger.warning(f"The space was not noted in the study: {error!r}")
    return entering(trial, space, whole=depth_first)


def _is_trained(rules: StopRules, trial: BaseTrial, depth: int, max_depth: int) -> bool:
    """Whether a network that may grow on is trained at ``depth``."""
    if isinstance(rules.train_prefixes, int | np.integer):
        return depth % rules.train_prefixes == 0
    if rules.train_prefixes == "all":
        return True
    if isinstance(trial, Trial):
        return worth_training(trial, depth=depth, max_depth=max_depth)
    reports = getattr(trial, "intermediate_values", {})  # what was trained then is trained again
    return not reports or depth - 1 in reports


def _prune_infeasible(grammar: Grammar, trial: BaseTrial, layers: Network) -> NoReturn:
    """End a trial that has no network to train."""
    excess = grammar.excess(layers)
    for name, much in excess.items() if isinstance(trial, Trial) else ():
        trial.set_constraint(name, much)
    told = " and ".join(f"{much:,.0f} {UNITS[name]}" for name, much in excess.items())
    raise TrialPruned(f"{describe(layers)} has {told} too many, and cannot grow on")


def _reported_accuracy(rules: StopRules, trial: Trial, step: int) -> float:
    reports = frozen(trial).intermediate_values
    if step not in reports:
        if len(trial.study.directions) > 1:
            raise ValueError(
                "grow needs reports, which Optuna takes in studies with one objective only; with several "
                "use LayerSpace.suggest"
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
