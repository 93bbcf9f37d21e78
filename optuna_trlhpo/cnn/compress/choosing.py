"""Choice of a compressed network by the validation images, and its comparison by the test images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optuna_trlhpo._checks import check_positive_integer, is_number
from optuna_trlhpo.cnn.compress.costs import count_bytes, count_costs
from optuna_trlhpo.cnn.compress.results import RELATIVE, CompressionTest, tested_network
from optuna_trlhpo.cnn.compress.scores import standard_error
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK

if TYPE_CHECKING:
    from optuna_trlhpo.cnn.compress.objective import CompressObjective

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")


def smallest(
    objective: CompressObjective,
    study: Study,
    *,
    max_loss: float = 0.0,
    cost: str = "parameters",
    candidates: int = 5,
    repeats: int = 2,
) -> FrozenTrial:
    """Return the trial with the cheapest network that loses at most ``max_loss`` on the validation images.

    A search that picks the cheapest network that was accurate once picks a lucky one. So the cheapest
    networks that were accurate enough in their trials are candidates: they are trained again with new seeds,
    and so is the original network. The cheapest candidate whose mean accuracy is enough then is the result,
    and if there is none, the most accurate one, with a warning in the log. The test images are not read.

    Enough is the accuracy of the original, less ``max_loss`` and less one standard error, since the
    validation images do not tell closer ones apart (the one-standard-error rule; Hastie, Tibshirani and
    Friedman, 2009, "The elements of statistical learning", section 7.10).

    Args:
        objective: Objective of the study.
        study: Study whose complete trials are read.
        max_loss: Accuracy that the network may lose.
        cost: What is to be small: ``"parameters"``, ``"macs"``, ``"bytes"``, ``"train_seconds"`` or
            ``"inference_seconds"``.
        candidates: Maximum number of networks to train again.
        repeats: Number of trainings of each.

    Raises:
        ValueError: If an argument is out of range, or the study has no complete trial of this setting.
    """
    if cost not in RELATIVE:
        raise ValueError(f"cost is {cost!r}; it must be one of {', '.join(RELATIVE)}")
    if not (is_number(max_loss) and 0 <= max_loss <= 1):
        raise ValueError(f"max_loss is {max_loss!r}; it must be between 0 and 1")
    check_positive_integer("candidates", candidates)
    check_positive_integer("repeats", repeats)
    found: dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        noted = trial.user_attrs
        if noted.get("setting") == objective.setting and {"accuracy", cost} <= noted.keys():
            found.setdefault(objective.seed_of(trial.params), trial)
    if not found:
        raise ValueError(
            f"study {study.study_name!r} has no complete trial of this network, data and training"
        )
    trials = sorted(found.values(), key=lambda it: it.user_attrs[cost])
    allowed = max_loss + standard_error(objective.trainer.validate(objective.original.network))
    least = objective.original.accuracy - allowed
    able = [trial for trial in trials if trial.user_attrs["accuracy"] >= least]
    if not able:
        able = sorted(trials, key=lambda it: -it.user_attrs["accuracy"])

    originals = _originals(objective, repeats, "validation")
    least = float(np.mean([objective.validated(network) for network, _ in originals])) - allowed
    means: list[tuple[float, FrozenTrial]] = []
    for trial in able[:candidates]:
        scores = []
        for repeat, (original, _) in enumerate(originals):
            with TIMING_LOCK.training():
                network, _ = objective.train_again(trial.params, f"validation {repeat}", original)
            scores.append(objective.validated(network))
        means.append((float(np.mean(scores)), trial))
        _logger.info(
            f"Trial {trial.number}: {means[-1][0]:.4f} in {repeats} trainings (observed "
            f"{trial.user_attrs['accuracy']:.4f}; at least {least:.4f} is needed)"
        )
        # Rounded, so that floating-point errors of a mean do not decide.
        if round(means[-1][0] - least, 9) >= 0:
            return trial
    best, trial = max(means, key=lambda it: it[0])
    _logger.warning(
        f"No candidate has the accuracy of the original, at least {least:.4f}; trial {trial.number}, the "
        f"most accurate one with {best:.4f}, is the result."
    )
    return trial


def compare(
    objective: CompressObjective, trials: Iterable[FrozenTrial], *, repeats: int = 3
) -> CompressionTest:
    """Train networks and the original with new seeds, and compare them on the test images.

    The test images are read here and nowhere else, so compare once, when the choice is made. Networks
    are trained in turn while nothing else in this process trains, so that times can be compared. A network
    that inherits does so from the original of its repeat, whose training its own time does not include.

    Args:
        objective: Objective of the trials.
        trials: Trials of the networks.
        repeats: Number of trainings of each network.

    Returns:
        The original network, and then those of the trials in their order.

    Raises:
        ValueError: If there is no trial, ``repeats`` is out of range, or the data have no test split.
    """
    check_positive_integer("repeats", repeats)
    trials = list(trials)
    if not trials:
        raise ValueError("trials is empty; it must contain a trial to compare with the original network")
    trainer = objective.trainer
    if trainer.data.test_images is None:
        raise ValueError(f"the data {trainer.data.name!r} have no test split, which the comparison needs")
    networks: list[list[nn.Module]] = [[] for _ in trials]
    seconds: list[list[float]] = [[] for _ in trials]
    originals: list[tuple[nn.Module, float | None]] = []
    for repeat in range(repeats):
        originals.append(_original(objective, f"test {repeat}"))
        for place, trial in enumerate(trials):
            with TIMING_LOCK.measuring():
                network, own = objective.train_again(trial.params, f"test {repeat}", originals[-1][0])
            networks[place].append(network)
            seconds[place].append(own)
    if objective.trained:
        del originals[1:]  # they are the same
    base = [trainer.test(network) for network, _ in originals]
    rows = [
        ("original", objective.adapter.original(), [it for it, _ in originals], base),
        *(
            (f"trial {trial.number}", trial.params, own, [trainer.test(it) for it in own])
            for trial, own in zip(trials, networks, strict=True)
        ),
    ]
    times = [[own for _, own in originals if own is not None], *seconds]
    return CompressionTest(
        tested_network(
            *(name, values, own, tables, base),
            costs=_costs(own[0], objective),
            seconds=spent,
            measure=objective.latency,
        )
        for (name, values, own, tables), spent in zip(rows, times, strict=True)
    )


def _originals(
    objective: CompressObjective, repeats: int, purpose: str
) -> list[tuple[nn.Module, float | None]]:
    return [_original(objective, f"{purpose} {repeat}") for repeat in range(repeats)]


def _original(objective: CompressObjective, repeat: str) -> tuple[nn.Module, float | None]:
    """Train the original network with another seed, unless it came trained."""
    if objective.trained:
        return objective.original.network, None
    values = objective.adapter.original()
    with TIMING_LOCK.measuring():
        return objective.trainer.train(
            objective.adapter.build(values), seed=objective.seed_of(values, repeat), from_scratch=True
        )


def _costs(network: nn.Module, objective: CompressObjective) -> dict[str, int]:
    counts = count_costs(network, objective.data.input_shape)
    return {"parameters": counts.parameters, "macs": counts.macs, "bytes": count_bytes(network)}
