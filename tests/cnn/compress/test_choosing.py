"""The choice by validation images, the comparison by test images, and the intervals of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import create_trial
from torch import nn

from optuna_trlhpo.cnn import CompressObjective
from optuna_trlhpo.cnn.compress import choosing, scores
from optuna_trlhpo.cnn.compress.scores import interval, score_of, score_table
from tests.cnn.compress.test_objective import make, run


@pytest.fixture(scope="module")
def searched() -> tuple[CompressObjective, optuna.Study]:
    objective = make(epochs=1, n=90)
    return objective, run(objective, 4)


# Scores ---------------------------------------------------------------------------------------------------


class Answers(nn.Module):
    def __init__(self, answers: list[Any], num_classes: int) -> None:
        super().__init__()
        answer = torch.nn.functional.one_hot(torch.tensor(answers), num_classes).float()
        self.answers = nn.Parameter(answer.movedim(-1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answers[images.long().flatten()]


def test_the_score_of_labels_is_the_share_of_right_ones() -> None:
    table = score_table(Answers([0, 1, 1, 0], 2), torch.arange(4.0)[:, None], torch.tensor([0, 1, 0, 0]), 2)
    assert table[:, 0, 0].tolist() == [1, 1, 0, 1] and score_of(table) == 0.75


def test_the_score_of_label_maps_is_the_mean_over_the_classes_that_occur() -> None:
    """By hand: class 0 has 2 of 4 pixels, class 1 has 2 of 6, class 2 has 1 of 1, class 3 does not occur."""
    truth = torch.tensor([[[0, 0, 1, 1]], [[0, 1, 1, 2]]])
    answers = [[[0, 1, 1, 0]], [[0, 1, 1, 2]]]
    table = score_table(Answers(answers, 4), torch.arange(2.0)[:, None], truth, 4)
    assert table.sum(axis=0).tolist() == [[2, 3, 1, 0], [4, 5, 1, 0]]
    assert score_of(table) == pytest.approx((2 / 4 + 3 / 5 + 1) / 3)


def test_an_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        table = np.ones((150, 2, 1))
        table[:, 0, 0] = rng.random(150) < 0.8
        low, high = interval([table], seed=k)
        covered += low <= 0.8 <= high
    assert 180 <= covered <= 198


def test_a_difference_on_the_same_images_is_known_more_exactly() -> None:
    rng = np.random.default_rng(0)
    better = np.ones((400, 2, 1))
    better[:, 0, 0] = rng.random(400) < 0.7
    worse = better.copy()
    worse[np.flatnonzero(better[:, 0, 0])[:20], 0] = 0
    low, high = interval([worse], [better])
    assert low < -0.05 < high < -0.02
    apart = interval([worse]), interval([better])
    assert high - low < 0.6 * (apart[0][1] - apart[0][0])


# Choice ---------------------------------------------------------------------------------------------------


def test_the_smallest_network_that_keeps_its_accuracy_is_chosen(
    searched: tuple[CompressObjective, optuna.Study],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    objective, study = searched
    by_size = sorted(study.trials, key=lambda it: it.user_attrs["parameters"])
    seen: list[tuple[int, str]] = []
    accurate = {trial.number: 0.685 for trial in by_size[1:]} | {by_size[0].number: 0.67}
    monkeypatch.setattr(choosing, "standard_error", lambda table: 0.02)

    def train_again(self: Any, values: Any, repeat: str, original: nn.Module) -> Any:
        number = next(it.number for it in study.trials if it.params == values)
        seen.append((number, repeat))
        return nn.Linear(number + 1, 1), 0.0

    def validated(self: Any, network: nn.Module) -> float:
        return accurate[network.in_features - 1] if isinstance(network, nn.Linear) else 0.7

    monkeypatch.setattr(CompressObjective, "train_again", train_again)
    monkeypatch.setattr(CompressObjective, "validated", validated)
    # So that all trials are candidates.
    monkeypatch.setattr(CompressObjective, "original", dataclasses.replace(objective.original, accuracy=0.0))
    assert objective.smallest(study, repeats=2).number == by_size[1].number
    wanted = [(trial.number, f"validation {k}") for trial in by_size[:2] for k in range(2)]
    assert seen == wanted
    assert objective.smallest(study, max_loss=0.02).number == by_size[0].number
    assert "No candidate has the accuracy" not in caplog.text
    assert objective.smallest(study, candidates=1).number == by_size[0].number  # the best of those tried
    assert "No candidate has the accuracy of the original, at least 0.6800" in caplog.text
    fastest = min(study.trials, key=lambda it: it.user_attrs["inference_seconds"])
    chosen = objective.smallest(study, max_loss=0.1, cost="inference_seconds")
    assert chosen.number == fastest.number


def test_trials_of_another_setting_are_no_candidates(
    searched: tuple[CompressObjective, optuna.Study],
) -> None:
    objective, study = searched
    with pytest.raises(ValueError, match="has no complete trial of this network, data and training"):
        make(epochs=1, n=90, seed=3).smallest(study)
    empty = optuna.create_study(direction="maximize")
    trial = create_trial(
        params=study.trials[0].params, distributions=study.trials[0].distributions, value=1.0
    )
    empty.add_trial(trial)
    with pytest.raises(ValueError, match="has no complete trial"):
        objective.smallest(empty)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cost": "size"}, "cost is 'size'; it must be one of parameters, macs, bytes"),
        ({"max_loss": 2}, "max_loss is 2"),
        ({"candidates": 0}, "candidates is 0"),
        ({"repeats": 0}, "repeats is 0"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_the_choice_is_an_error(
    searched: tuple[CompressObjective, optuna.Study], wrong: dict[str, Any], message: str
) -> None:
    objective, study = searched
    with pytest.raises(ValueError, match=message):
        objective.smallest(study, **wrong)


# Comparison -----------------------------------------------------------------------------------------------


def test_networks_are_compared_on_the_test_images(searched: tuple[CompressObjective, optuna.Study]) -> None:
    objective, study = searched
    tested = objective.compare(study.trials[:2], repeats=2)
    assert [row.name for row in tested] == ["original", "trial 0", "trial 1"]
    data = objective.data
    assert data.test_images is not None and data.test_labels is not None
    for row in tested:
        assert len(row.scores) == len(row.networks) == 2
        with torch.no_grad():
            right = [
                float((it(data.test_images).argmax(1) == data.test_labels).float().mean())
                for it in row.networks
            ]
        assert row.scores == pytest.approx(right, abs=1e-6)
        assert row.accuracy == pytest.approx(np.mean(right))
        assert row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]
        assert row.gain == pytest.approx(row.accuracy - tested[0].accuracy)
        assert row.gain_interval[0] <= row.gain <= row.gain_interval[1]
        assert row.parameters == sum(it.numel() for it in row.networks[0].parameters())
        assert row.train_seconds is not None and row.train_seconds > 0
    first, second = (it.get_parameter("0.weight") for it in tested[1].networks)
    assert not torch.equal(first, second)
    lines = str(tested).splitlines()
    assert len(lines) == 5 and "100.0 %" in lines[2] and f"{tested[1].parameters:,}" in lines[3]


def test_the_test_images_are_read_nowhere_else() -> None:
    objective = make(epochs=1, n=60)
    images = objective.data.test_images
    assert images is not None
    images.fill_(float("nan"))
    study = run(objective, 1)
    objective.smallest(study, repeats=1)
    before = study.trials[0].user_attrs["accuracy"]
    assert 0 <= before <= 1


def test_a_network_that_inherits_is_compared_with_the_original_it_comes_from() -> None:
    objective = make(epochs=1, n=60, inherit=True)
    trial = run(objective, 1).trials[0]
    assert len(objective.compare(trial, repeats=2)[1].scores) == 2
    ready = make(objective.original.network, trained=True, epochs=1, n=60, inherit=True)
    tested = ready.compare(run(ready, 1).trials, repeats=2)
    assert len(tested[0].scores) == 1 and tested[0].train_seconds is None and len(tested[1].scores) == 2
    assert "-" in str(tested).splitlines()[2].split()


def test_a_comparison_needs_test_images_and_trials(
    searched: tuple[CompressObjective, optuna.Study],
) -> None:
    objective, study = searched
    with pytest.raises(ValueError, match="trials is empty"):
        objective.compare([])
    with pytest.raises(ValueError, match="repeats is 0"):
        objective.compare(study.trials, repeats=0)
    images, labels = np.zeros((20, 8, 8), dtype=np.float32), np.arange(20) % 2
    untested = make(data=(images, labels))
    with pytest.raises(ValueError, match="have no test split"):
        untested.compare(study.trials)
