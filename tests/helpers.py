"""What a finished trial surely has, for tests that made it so; another trial fails the test."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from optuna_trlhpo.trials.agent_record import AgentRecord, read_agent


def value_of(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def agent_note_of(trial: FrozenTrial) -> AgentRecord:
    note = read_agent(trial)
    assert note is not None
    return note
