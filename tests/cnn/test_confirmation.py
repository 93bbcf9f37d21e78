"""Confirming the leaders of a study: who they are, what is trained, what is kept, how they are ranked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from optuna_trlhpo.cnn import CNNObjective, best_network
from optuna_trlhpo.cnn import confirmation as leaders_module
from optuna_trlhpo.cnn.goals import weighted_product
from optuna_trlhpo.cnn.results import Confirmation, Confirmed
from optuna_trlhpo.cnn.training import trainer
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import Network, describe, parse

A, B, C, D = "Conv(8,3,1)", "Conv(16,3,1) > MaxPool(2,2,0)", "Conv(16,5,1)", "Conv(24,3,1)"
HUGE = "Conv(8,7,1) > Conv(8,7,1)"  # the second does not fit on what the first leaves of 8x8
IMAGES = 10  # of the validation set: accuracies are tenths


def make(scale: float = 1, flip: int = 0, **kwargs: Any) -> CNNObjective:
    images = scale * np.random.default_rng(0).normal(size=(40, 8, 8)).astype(np.float32)
    labels = np.arange(40) % 2
    labels[:flip] = 1 - labels[:flip]
    small = {"epochs": 1, "batch_size": 16, "validation_size": IMAGES, "device": "cpu"}
    return CNNObjective((images, labels, images[:8], labels[:8]), **{**small, **kwargs})


@pytest.fixture(scope="module")
def objective() -> CNNObjective:
    return make()


def trial_of(architecture: str, *reports: float, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    return create_trial(
        state=state,
        value=max(reports) if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(reports)),
        user_attrs={"architecture": architecture},
    )


def study_of(*trials: FrozenTrial, storage: str | None = None) -> optuna.Study:
    study = optuna.create_study(direction="maximize", storage=storage)
    study.add_trials(trials)
    return study


def leaders() -> optuna.Study:
    return study_of(trial_of(A, 0.7), trial_of(B, 0.3, 0.8), trial_of(C, 0.9), trial_of(D, 0.6))


class Fake:
    """In the place of the training: the accuracies of each network in turn, and what was asked for."""

    def __init__(self, **tenths: list[int | None | BaseException]) -> None:
        networks = {"A": A, "B": B, "C": C, "D": D}
        self.tenths = {networks[name]: list(values) for name, values in tenths.items()}
        self.calls: list[str] = []
        self.seeds: list[int | str] = []

    def __call__(self, layers: Network, *, seed: int | str) -> np.ndarray | None:
        architecture = describe(layers)
        self.calls.append(architecture)
        self.seeds.append(seed)
        tenths = self.tenths[architecture].pop(0) if self.tenths else 5
        if isinstance(tenths, BaseException):
            raise tenths
        return None if tenths is None else np.arange(IMAGES) < tenths


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def install(**tenths: list[int | None | BaseException]) -> Fake:
        training = Fake(**tenths)
        monkeypatch.setattr(Trainer, "validate", lambda _, layers, *, seed: training(layers, seed=seed))
        return training

    return install


# The ranking


def test_the_ranking_by_hand(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    training = fake(A=[8, 9, 8], B=[8, 8, 8], C=[7, 9, 5])
    rows = objective.confirm(leaders(), top=3)
    assert training.calls == [C] * 3 + [B] * 3 + [A] * 3  # the highest observed first; D is the fourth
    assert [row.architecture for row in rows] == [A, B, C]
    first, second, third = rows
    assert first == Confirmed(
        architecture=A,
        layers=parse(A),
        trial=0,
        observed=0.7,
        mean=pytest.approx(2.5 / 3),  # type: ignore[arg-type]
        # Deviations -1/30, 2/30, -1/30: variance 6/900/2 = 1/300, and of the mean of three 1/900.
        standard_error=pytest.approx(1 / 30),  # type: ignore[arg-type]
        accuracies=(0.8, 0.9, 0.8),
        parameters=8 * 9 + 8 + 8 * 36 * 2 + 2,
        macs=36 * 8 * 9 + 8 * 36 * 2,
    )
    assert (second.trial, second.observed) == (1, 0.8)
    assert (second.mean, second.standard_error) == (pytest.approx(0.8), 0)
    # What C was leading by, 0.9, is not in its mean.
    assert (third.trial, third.observed, third.mean) == (2, 0.9, pytest.approx(0.7))
    assert third.standard_error == pytest.approx(0.2 / 3**0.5)


def test_equal_means_are_ranked_by_macs(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    fake(A=[7, 7, 7], B=[6, 7, 8], C=[7, 8, 6], D=[5, 7, 9])
    rows = objective.confirm(leaders())
    assert len({row.mean for row in rows}) > 1  # as floats; all are seven tenths
    assert [row.architecture for row in rows] == [A, B, C, D]
    assert [row.macs for row in rows] == [3168, 5472, 6912, 9504]


def test_the_table_by_hand(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    fake(C=[9, 9], B=[8, 9])
    rows = objective.confirm(leaders(), top=2, repeats=2)
    assert isinstance(rows, list)
    assert str(rows).splitlines() == [
        "trial  observed    mean  std. error  parameters   MACs  network",
        "-------------------------------------------------------------------------------------",
        "    2    0.9000  0.9000      0.0000         930  6,912  Conv(16,5,1)",
        "    1    0.8000  0.8500      0.0500         450  5,472  Conv(16,3,1) > MaxPool(2,2,0)",
    ]
    fake(C=[9])
    (row,) = once = objective.confirm(leaders(), top=1, repeats=1)
    assert row.standard_error is None
    assert str(once).splitlines()[2].split()[:4] == ["2", "0.9000", "0.9000", "-"]
    assert str(Confirmation()).startswith("trial  observed")


def test_leaders_are_distinct_and_judged_by_their_own_report(
    objective: CNNObjective, fake: Callable[..., Fake]
) -> None:
    fake()
    nameless = create_trial(value=0.99)
    rows = objective.confirm(
        study_of(
            nameless,
            trial_of(A, 0.6),
            trial_of(A, 0.8, 0.7),  # the same network again, better, and the best prefix of two layers
            trial_of(A, 0.8),
            trial_of(C, 0.7, 0.9, state=TrialState.PRUNED),  # 0.9 is what another network had
            trial_of(B, 0.4, 0.5, state=TrialState.FAIL),
            trial_of(D, float("nan"), state=TrialState.FAIL),
            create_trial(value=0.3, user_attrs={"architecture": D}),
        ),
        top=100,
        repeats=1,
    )
    found = {row.architecture: (row.trial, row.observed) for row in rows}
    assert found == {A: (2, 0.8), C: (4, 0.7), B: (5, 0.5), D: (7, 0.3)}


def test_a_running_trial_is_no_leader(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    fake()
    study = leaders()
    running = study.ask()
    running.set_user_attr("architecture", "Conv(32,3,1)")
    running.report(1.0, 0)
    assert [row.trial for row in objective.confirm(study, repeats=1)] == [0, 1, 2, 3]


# The trainings


def test_each_training_has_a_seed_of_its_own(
    objective: CNNObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float, int]] = []
    train = trainer.train

    def noting(model: Any, images: Any, labels: Any, **kwargs: Any) -> None:
        seed, weight = kwargs["generator"].initial_seed(), next(model.parameters()).flatten()[0].item()
        seen.append((seed, weight, len(images)))
        assert images is used.data.train_images and labels is used.data.train_labels
        train(model, images, labels, **kwargs)

    monkeypatch.setattr(trainer, "train", noting)
    used = objective
    objective(FixedTrial(objective.space.to_params(parse(A))))
    rows = objective.confirm(leaders(), top=4, repeats=3)
    assert len(seen) == 13 and len({seed for seed, _, _ in seen}) == len({w for _, w, _ in seen}) == 13
    # Equal for an equal objective, in whatever study and order; not for one of another seed.
    first = {row.architecture: row.accuracies for row in rows}
    used = make()
    again = used.confirm(study_of(trial_of(A, 0.7), trial_of(D, 0.9)), repeats=3)
    assert {row.architecture: row.accuracies for row in again} == {A: first[A], D: first[D]}
    assert {seed for seed, _, _ in seen[13:]} < {seed for seed, _, _ in seen[:13]}
    used = make(seed=1)
    used.confirm(leaders(), top=1, repeats=3)
    assert {seed for seed, _, _ in seen[-3:]}.isdisjoint(seed for seed, _, _ in seen[:-3])


def test_a_real_study_from_the_search_to_the_refit(objective: CNNObjective) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=3)
    generator = torch.random.get_rng_state()
    rows = objective.confirm(study, top=2, repeats=2)
    assert len(rows) == 2 and torch.random.get_rng_state().equal(generator)
    for row in rows:
        attributes = study.trials[row.trial].user_attrs
        assert row.observed == study.trials[row.trial].value
        named = attributes["architecture"], attributes["parameters"], attributes["macs"]
        assert (row.architecture, row.parameters, row.macs) == named
    refit, same = objective.refit(rows[0]), objective.refit(study.trials[rows[0].trial])
    assert (refit.architecture, refit.layers) == (rows[0].architecture, rows[0].layers)
    assert refit.test_accuracy is not None and refit.test_accuracy == same.test_accuracy


def test_progress_is_logged(
    objective: CNNObjective, fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "info", messages.append)
    fake(C=[9, 7], B=[8, 8])
    objective.confirm(leaders(), top=2, repeats=2)
    assert messages[1:3] == [
        f"Network 1 of 2, training 2 of 2: 0.7000 (trial 2 observed 0.9000), {C}",
        f"Network 2 of 2, training 1 of 2: 0.8000 (trial 1 observed 0.8000), {B}",
    ]


# What is kept


@pytest.mark.parametrize("stop", [RuntimeError("the disk is full"), KeyboardInterrupt()])
def test_an_interrupted_call_goes_on_where_it_stopped(
    stop: BaseException, objective: CNNObjective, fake: Callable[..., Fake], tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_of(*leaders().trials, storage=storage)
    training = fake(C=[7, 9, 5], B=[8, stop])
    with pytest.raises(type(stop)):
        objective.confirm(study, top=3)
    assert training.calls == [C, C, C, B, B]
    begun = training.seeds[:4]

    # In another process: the study from the disk, and an equal objective.
    study = optuna.load_study(study_name=study.study_name, storage=storage)
    training = fake(B=[9, 8], A=[8, 9, 8])
    rows = make().confirm(study, top=3)
    assert training.calls == [B, B, A, A, A]
    accuracies = {row.architecture: row.accuracies for row in rows}
    assert accuracies == {C: (0.7, 0.9, 0.5), B: (0.8, 0.9, 0.8), A: (0.8, 0.9, 0.8)}
    # B goes on with its second seed; networks may share the texts, for the training adds the architecture.
    assert begun[:3] == [*begun[3:], *training.seeds[:2]] == training.seeds[2:]


def test_nothing_is_trained_twice(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    study = leaders()
    training = fake(C=[9, 8, 7, 6], B=[8, 8, 8, 8], A=[7, 7, 7])
    objective.confirm(study, top=1)
    objective.confirm(study, top=2)
    assert training.calls == [C] * 3 + [B] * 3
    rows = objective.confirm(study, top=2, repeats=4)  # one more of each
    assert training.calls[6:] == [C, B]
    assert {row.architecture: row.accuracies[3:] for row in rows} == {C: (0.6,), B: (0.8,)}
    rows = objective.confirm(study, top=2, repeats=2)  # the first two of the four, which stay
    assert {row.architecture: row.mean for row in rows} == {C: pytest.approx(0.85), B: 0.8}
    study.add_trial(trial_of(A, 0.95))  # a new leader
    objective.confirm(study, top=3, repeats=3)
    assert training.calls[8:] == [A, A, A]
    (kept,) = study.user_attrs[leaders_module.CONFIRMED_ATTRIBUTE].values()
    assert kept == {C: [0.9, 0.8, 0.7, 0.6], B: [0.8] * 4, A: [0.7] * 3}
    assert json.loads(json.dumps(study.user_attrs)) == study.user_attrs


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 2},
        {"batch_size": 8},
        {"learning_rate": 0.1},
        {"schedule": "constant"},
        {"conv_activation": "none"},
        {"seed": 1},
        {"train_size": 20},
        {"scale": 2},
        {"flip": 2},
    ],
)
def test_another_setting_trains_its_own(
    other: dict[str, Any], objective: CNNObjective, fake: Callable[..., Fake]
) -> None:
    study, training = leaders(), fake()
    objective.confirm(study, top=1, repeats=1)
    make(**other).confirm(study, top=1, repeats=1)
    make(max_layers=3, min_accuracy=None, max_macs=1e6, threads=2).confirm(study, top=1, repeats=1)
    assert training.calls == [C, C]  # the third would train what the first has trained
    assert len(study.user_attrs[leaders_module.CONFIRMED_ATTRIBUTE]) == 2


def test_two_processes_do_not_undo_one_another(objective: CNNObjective, fake: Callable[..., Fake]) -> None:
    study = leaders()
    fake()

    def meanwhile(self: Trainer, layers: Network, *, seed: int | str) -> np.ndarray:
        if describe(layers) == C:
            leaders_module.keep_accuracies(study, self.setting, D, [0.3])
        return np.arange(IMAGES) < 9

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "validate", meanwhile)
        objective.confirm(study, top=1, repeats=1)
    assert leaders_module.kept_accuracies(study, objective.trainer.setting) == {D: [0.3], C: [0.9]}


def test_out_of_memory_leaves_a_network_out_until_the_next_call(
    objective: CNNObjective, fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "warning", messages.append)
    study = leaders()
    training = fake(C=[9, None], B=[8, 8, 8], A=[7, 7, 7])
    assert [row.architecture for row in objective.confirm(study, top=3)] == [B, A]
    assert training.calls == [C] * 2 + [B] * 3 + [A] * 3
    assert messages == [f"Out of memory while training {C} on cpu; confirm skips it."]
    training = fake(C=[8, 7])
    assert objective.confirm(study, top=3)[-1].accuracies == (0.7, 0.7, 0.7)
    assert training.calls == [C, C]
    fake(D=[None])
    assert objective.confirm(study_of(trial_of(D, 0.5))) == []


def test_memory_that_really_runs_out(objective: CNNObjective, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer, "train", no_memory)
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "warning", lambda _: None)
    assert objective.confirm(leaders()) == []


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top is 0; it must be a positive integer"),
        ({"top": True}, "top is True; it must be a positive integer"),
        ({"repeats": 2.5}, "repeats is 2.5; it must be a positive integer"),
        ({"study": trial_of(A, 0.5)}, "study is a FrozenTrial; it must be an Optuna study"),
        ({"study": optuna.create_study()}, 'create the study with direction="maximize"'),
        (
            {"study": optuna.create_study(directions=["maximize", "minimize"])},
            'create the study with direction="maximize"',
        ),
        (
            {"study": optuna.create_study(study_name="new", direction="maximize")},
            "study 'new' has no finished trial with an accuracy and the user attribute 'architecture'",
        ),
        (
            {"study": study_of(trial_of(HUGE, 0.4, 0.5))},
            r"belongs to the objective's space for inputs of shape 1x8x8: trial 0 has "
            r"'Conv\(8,7,1\) > Conv\(8,7,1\)', but layer 2, Conv\(8,7,1\)(.*); use the objective of",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    arguments: dict[str, Any], message: str, objective: CNNObjective, fake: Callable[..., Fake]
) -> None:
    training = fake()
    with pytest.raises(ValueError, match=message):
        objective.confirm(**{"study": leaders(), **arguments})
    assert training.calls == []


@pytest.mark.parametrize(
    ("limits", "left"),
    [({}, [C, B, A, D]), ({"max_layers": 1}, [C, A, D]), ({"max_macs": 6500}, [B, A])],
    ids=str,
)
def test_networks_beyond_the_limits_are_left_out(
    limits: dict[str, Any], left: list[str], fake: Callable[..., Fake]
) -> None:
    study = study_of(*leaders().trials, trial_of(HUGE, 0.3, 0.95))
    training, objective = fake(), make(**limits)
    objective.confirm(study, repeats=1)
    assert training.calls == left


def test_networks_that_are_too_slow_are_left_out(
    fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_network, "latency_of", lambda layers, *_: float(len(layers)))
    training, objective = fake(), make(max_latency=1.0)
    objective.confirm(leaders(), top=2, repeats=1)
    assert training.calls == [C, A]
    with pytest.raises(ValueError, match="no network of study .* is within the objective's max_latency"):
        objective.confirm(study_of(trial_of(B, 0.3, 0.8)))


def test_leaders_are_those_of_the_goal(fake: Callable[..., Fake]) -> None:
    """By accuracy it would be C, the largest but one."""
    training = fake()
    make(goal=weighted_product("macs", 1e4, exponent=-1.0)).confirm(leaders(), top=2, repeats=1)
    assert training.calls == [A, B]


def test_several_objectives_have_no_leaders(fake: Callable[..., Fake]) -> None:
    fake()
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ValueError, match="objectives are accuracy, macs; confirm ranks networks by one"):
        make(objectives=("accuracy", "macs")).confirm(study)
