"""What a growing trial asks of its study, where another worker has ended it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from optuna_trlhpo import LayerSpace, TRLHPOSampler, worth_growing, worth_training
from optuna_trlhpo.space.sampler_hooks import frozen

ENDED = "^trial 0 has already finished, in another worker or by study.tell, and cannot continue$"
SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "ours": lambda: TRLHPOSampler(seed=0),
    "the paper's": lambda: TRLHPOSampler.paper(seed=0),
}


def ask(sampler: str, url: str | None = None) -> Trial:
    return optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](), storage=url).ask()


def end(trial: Trial, state: TrialState = TrialState.FAIL) -> None:
    """As `optuna.storages.fail_stale_trials` of another process does."""
    trial.study.tell(trial.number, 0.5 if state == TrialState.COMPLETE else None, state=state)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("rule", [None, 0.001])
@pytest.mark.parametrize("train_prefixes", ["auto", "all"])
def test_growth_ends_with_optunas_own_error(sampler: str, rule: float | None, train_prefixes: Any) -> None:
    """Where it looks for the report, where it asks the sampler, or where it suggests the next layer."""
    rules: dict[str, Any] = dict(min_improvement=rule, min_accuracy=rule)
    space = LayerSpace(input_shape=(1, 12, 12), max_layers=9, train_prefixes=train_prefixes, **rules)
    trial = ask(sampler)
    growing = space.grow(trial)
    layers = next(growing)
    trial.report(0.9, step=len(layers) - 1)
    end(trial)
    with pytest.raises(UpdateFinishedTrialError, match="(?i)^trial ?#?0 has already finished"):
        next(growing)


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.COMPLETE, TrialState.PRUNED])
@pytest.mark.parametrize("url", [None, "sqlite:///{}/study.db"])
def test_whoever_asks_is_told_in_one_sentence(state: TrialState, url: str | None, tmp_path: Path) -> None:
    trial = ask("ours", url and url.format(tmp_path))
    trial.suggest_float("x", 0, 1)
    assert frozen(trial).params == trial.params
    end(trial, state)
    asking: tuple[Callable[[], object], ...] = (
        lambda: frozen(trial),
        lambda: worth_training(trial, depth=1, max_depth=3),
        lambda: worth_growing(trial),
    )
    for ask_again in asking:
        with pytest.raises(UpdateFinishedTrialError, match=ENDED):
            ask_again()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_whole_network_ends_so_too(sampler: str) -> None:
    trial = ask(sampler)
    end(trial)
    with pytest.raises(UpdateFinishedTrialError):
        LayerSpace().suggest(trial)
