"""What is noted in a study: small, read back as it was, and nothing of what others wrote."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from optuna_trlhpo.trials.agent_record import (
    AGENT_ATTRIBUTE,
    MOST_CHARACTERS,
    AgentRecord,
    Forecast,
    read_agent,
)
from optuna_trlhpo.trials.attributes import read_from_study, write_to_study
from optuna_trlhpo.trials.training_record import Training, read_trainings, write_training


def rows_of(S: int, H: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(k + 1), size=H) for k in range(1, S + 1)]


def read_back(note: AgentRecord) -> AgentRecord | None:
    stored = json.loads(json.dumps(note.to_json()))
    return read_agent(optuna.create_trial(value=0, system_attrs={AGENT_ATTRIBUTE: stored}))


def test_a_note_is_read_back_within_its_rounding() -> None:
    rows = rows_of(6, 8)
    note = AgentRecord(
        "actor",
        q=(0.12345678, -0.5),
        spread=(0.1, 0.0),
        bootstrapped=False,
        exploration=0.25,
        losses=(1e-7, None),
        attention={"actor": rows, "critic": rows[:2]},
    )
    back = read_back(note)
    assert back is not None
    assert (back.by, back.bootstrapped, back.exploration, back.losses) == ("actor", False, 0.25, (1e-7, None))
    assert back.q == (0.1235, -0.5) and back.spread == (0.1, 0.0)
    assert [len(back.attention[whose]) for whose in ("actor", "critic")] == [6, 2]
    for mine, theirs in zip(back.attention["actor"], rows, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.5 / 4095 + 1e-12)
        np.testing.assert_allclose(mine.sum(axis=1), 1, atol=len(theirs[0]) / 2 / 4095 + 1e-12)


def test_plans_are_read_back_and_those_that_json_cannot_hold_are_left_out() -> None:
    good, bad = Forecast(0, 3, 0.9, 0.8, 0.95), Forecast(1, 3, float("nan"), 0.0, 1.0)
    back = read_back(AgentRecord("posterior", plans=(good, bad)))
    assert back is not None and back.plans == (good,)


@pytest.mark.parametrize(("S", "heads"), [(6, 8), (12, 1), (24, None)])
def test_a_note_is_small_however_many_layers(S: int, heads: int | None) -> None:
    """The heads, else their mean, else nothing."""
    rows = rows_of(S, 8)
    note = AgentRecord("actor", q=(0.1234,) * S, attention={"actor": rows, "critic": rows})
    assert len(json.dumps(note.to_json())) <= MOST_CHARACTERS
    back = read_back(note)
    assert back is not None
    if heads is None:
        assert back.attention == {}
        return
    mine, theirs = back.attention["critic"][-1], rows[-1]
    assert mine.shape == (heads, S + 1)
    expected = theirs if heads == 8 else theirs.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(mine, expected, atol=1e-3)


def test_thousands_of_steps_are_no_large_note() -> None:
    plans = tuple(Forecast(k, k + 1, 0.5, 0.4, 0.6) for k in range(1000))
    note = AgentRecord("actor", plans=plans, q=(0.5,) * 1000, spread=(0.1,) * 1000)
    assert len(json.dumps(note.to_json())) <= 2 * MOST_CHARACTERS


@pytest.mark.parametrize(
    "stored",
    [
        None,
        7,
        "text",
        [],
        {},
        {"by": "x", "q": 1},
        {"by": "x", "losses": []},
        *({"by": "x", "attention": {"critic": text}} for text in ("2:12", "2:", "0:fff", "-1:fff", "")),
    ],
)
def test_what_somebody_else_wrote_is_nothing(stored: object) -> None:
    attributes = {} if stored is None else {AGENT_ATTRIBUTE: stored}
    assert read_agent(optuna.create_trial(value=0, system_attrs=attributes)) is None


def test_attention_of_nobody_known_is_left_out() -> None:
    stored = {"by": "actor", "attention": {"nobody": "1:800800", "actor": "1:800800"}}
    note = read_agent(optuna.create_trial(value=0, system_attrs={AGENT_ATTRIBUTE: stored}))
    assert note is not None and list(note.attention) == ["actor"]


def test_trainings_are_read_back() -> None:
    text = "key"
    stopped = Training(2, 0.65, 0.9, False, (0.41, 0.63), True)
    trainings = [Training(0, 0.5, 1.25, False), Training(1, 0.75, 2.0, True), stopped]
    for training in trainings:
        text = write_training(text, training)
    assert text == "key 0:0.5:1.25 1:0.75:=2 2:0.65:0.9:0.41/0.63!"
    trial = optuna.create_trial(value=0, user_attrs={"trainings": text})
    assert read_trainings(trial) == ("key", trainings)


@pytest.mark.parametrize("storage", ["memory", "sqlite", "journal"])
def test_a_study_keeps_what_is_written(storage: str, tmp_path: object) -> None:
    if storage == "journal":
        where: Any = JournalStorage(JournalFileBackend(f"{tmp_path}/journal.log"))
    else:
        where = None if storage == "memory" else f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=where)
    assert read_from_study(study, "trlhpo:sampler") is None
    write_to_study(study, "trlhpo:sampler", {"seed": 3})
    assert read_from_study(study, "trlhpo:sampler") == {"seed": 3}
