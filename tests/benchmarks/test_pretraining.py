"""Pretraining on tables of networks: for which spaces the actor learns, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from optuna_trlhpo.agent.layer_policy import LayerPolicy
from optuna_trlhpo.agent.layer_prior import load_priors
from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.layer_prior import pretraining
from optuna_trlhpo.benchmarks.layer_prior.policy_training import train_policy, vocabulary_of
from optuna_trlhpo.benchmarks.layer_prior.pretraining import pretrain, tasks_with_table
from optuna_trlhpo.benchmarks.problems.mnist_layers import TabulatedTraining
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.layers import TABLE_I, describe
from optuna_trlhpo.layers.kinds import CNN

TASK = "digits-16-cnn"


def table_of(name: str, n: int = 40) -> list[TabulatedTraining]:
    """Random networks within each limit of a task. The better, the more parameters they have."""
    rng, rows = np.random.default_rng(0), {}
    for space in TASKS[name].spaces:
        for _ in range(n):
            layers = space.draw(rng)
            size = space.parameters(layers)
            accuracy = 0.5 + 0.04 * np.log10(size)
            rows[describe(layers)] = TabulatedTraining(describe(layers), 0, float(accuracy), (), size, 1, 1.0)
    return list(rows.values())


def test_tables_of_different_layers_are_not_learned_together() -> None:
    assert vocabulary_of(["digits-16", "digits-28"]) == TABLE_I
    assert vocabulary_of([TASK, "mnist-cnn"]) == CNN
    for names in (["digits-16", TASK], []):
        with pytest.raises(ValueError, match=f"have {len(names)} vocabularies; they must have one"):
            vocabulary_of(names)


def test_tables_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="no table has 20 networks within the limits of its task"):
        train_policy({TASK: table_of(TASK, 2)}, epochs=1)


def test_tables_are_listed_by_their_layers() -> None:
    both = tasks_with_table()
    assert set(tasks_with_table(TABLE_I)) | set(tasks_with_table(CNN)) == set(both)
    assert all(TASKS[name].vocabulary == TABLE_I for name in tasks_with_table(TABLE_I))


@pytest.mark.slow
def test_the_actor_learns_that_good_networks_depend_on_the_limits() -> None:
    """The larger a network the better, so it proposes larger ones where there is no limit."""
    policy = LayerPolicy(train_policy({TASK: table_of(TASK, 80)}, epochs=60), CNN)
    sizes = []
    for space in TASKS[TASK].spaces:
        drawn = space.draw_from(policy, 60, np.random.default_rng(1))
        sizes.append(np.median([space.parameters(space.decode(actions)) for actions in drawn]))
    # A policy that takes every space for the smallest shows what the limits themselves do.
    blind = [
        np.median(
            [
                space.parameters(space.decode(actions))
                for actions in space.draw_from(
                    lambda _, layers: policy(TASKS[TASK].spaces[0].space_features, layers),
                    60,
                    np.random.default_rng(1),
                )
            ]
        )
        for space in TASKS[TASK].spaces
    ]
    assert sizes[-1] > 1.5 * blind[-1]


def test_a_file_that_cannot_be_extended_is_named_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        raise AssertionError("trained")

    monkeypatch.setattr(pretraining, "pretrain", never)
    for content in (b"", b"some text that is long enough"):
        path = tmp_path / "prior.safetensors"
        path.write_bytes(content)
        assert main(["pretrain", str(path), "--tasks", "digits-16"]) == 2
        assert f"{path} exists and is not a safetensors file" in capsys.readouterr().err
        assert path.read_bytes() == content


def test_a_prior_is_written_beside_that_for_other_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []

    def quick(tables: Any, **_: Any) -> dict[str, torch.Tensor]:
        trained.append(sorted(tables))
        return pretrain({name: table[:40] for name, table in tables.items()}, epochs=1)

    monkeypatch.setattr(pretraining, "pretrain", quick)
    monkeypatch.setattr(pretraining, "tasks_with_table", lambda: ["digits-16", TASK])
    monkeypatch.setattr(pretraining, "read_tasks", lambda names: {name: table_of(name, 30) for name in names})
    path = tmp_path / "new" / "prior.safetensors"
    assert main(["pretrain", str(path), "--tasks", "digits-16"]) == 0
    assert [prior.vocabulary for prior in load_priors(path)] == [TABLE_I]
    before = load(path.read_bytes())
    assert main(["pretrain", str(path), "--tasks", TASK]) == 0
    table, cnn = load_priors(path)
    assert (table.vocabulary, cnn.vocabulary) == (TABLE_I, CNN) and cnn.policy is not None
    after = load(path.read_bytes())
    assert all(torch.equal(after[name], it) for name, it in before.items())
    assert main(["pretrain", str(path), "--tasks", "digits-16"]) == 0
    assert load(path.read_bytes()).keys() == after.keys()
    assert trained == [["digits-16"], [TASK], ["digits-16"]]
