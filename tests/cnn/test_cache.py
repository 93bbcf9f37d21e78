"""No network is trained twice: what a study has trained is looked up in it."""

from __future__ import annotations

import copy
import linecache
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from torch import nn

from optuna_trlhpo.cnn import CNNObjective, savings
from optuna_trlhpo.cnn.training import trainer
from optuna_trlhpo.cnn.training.trainer import layers_key
from optuna_trlhpo.layers import Conv, Layer, Vocabulary, parse
from optuna_trlhpo.trials.training_record import TRAININGS_ATTRIBUTE, own_trainings
from tests.cnn.test_objective import THREE, make, make_params, run, stripes

TWO_AND_ANOTHER = "Conv(8,3,1) > MaxPool(2,2,0) > FCL(24,relu,bias)"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of modules of every network that is trained from now on."""
    sizes, train = [], trainer.train

    def noting(model: Any, *args: Any, **kwargs: Any) -> None:
        sizes.append(len(model))
        train(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "train", noting)
    return sizes


def add(study: optuna.Study, objective: CNNObjective, network: str) -> optuna.trial.FrozenTrial:
    study.enqueue_trial(make_params(network))
    study.optimize(objective, n_trials=1)
    return study.trials[-1]


def shared(first: optuna.trial.FrozenTrial, other: optuna.trial.FrozenTrial, steps: int) -> None:
    """The first steps of both have the same values, the 32 performance values too."""
    for step in range(steps):
        assert first.intermediate_values[step] == other.intermediate_values[step]
    batches = [trial.user_attrs["batch_accuracies"].split()[:steps] for trial in (first, other)]
    assert batches[0] == batches[1]


def test_a_network_is_trained_once_in_a_study(trained: list[int]) -> None:
    objective = make()
    study = run(objective, network=THREE)
    assert len(trained) == 3
    again = add(study, objective, THREE)
    assert len(trained) == 3 and again.value == study.trials[0].value
    shared(study.trials[0], again, 3)
    other = add(study, objective, TWO_AND_ANOTHER)
    assert len(trained) == 4
    shared(study.trials[0], other, 2)
    assert add(study, objective, TWO_AND_ANOTHER).value == other.value and len(trained) == 4


def test_what_was_saved_is_told(trained: list[int]) -> None:
    objective = make()
    study = run(objective, network=THREE)
    first = savings(study)
    assert (first.trained, first.looked_up, first.hit_rate, first.seconds_saved) == (3, 0, 0, 0)
    add(study, objective, TWO_AND_ANOTHER)
    second = savings(study)
    assert (second.trained, second.looked_up) == (4, 2) and second.seconds > first.seconds > 0
    # Of the three networks of the first trial, two are saved.
    entries = [entry.split(":") for entry in study.trials[0].user_attrs[TRAININGS_ATTRIBUTE].split()[1:]]
    assert second.seconds_saved == pytest.approx(sum(float(seconds) for *_, seconds in entries[:2]))
    assert "2 of 6 (33 %) looked up" in str(second)


@pytest.mark.parametrize("inherits", [False, True])
def test_what_a_retry_has_taken_over_is_no_training_of_its_own(trained: list[int], inherits: bool) -> None:
    objective, again = make(), RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=inherits)
    study = run(objective, network=THREE)
    for expected in range(1, 3):  # a retry, and a retry of the retry
        dead = copy.deepcopy(study.trials[-1])
        dead.state, dead.values = optuna.trial.TrialState.FAIL, None
        again(study, dead)
        study.optimize(objective, n_trials=1)
        assert savings(study).trained == len(trained) == 3
        assert len(study.trials) == expected + 1
        assert study.trials[-1].values == study.trials[0].values
    told = [sum(not one.looked_up for one in own) for own in own_trainings(study.trials)]
    assert told == [3, 0, 0]


def test_another_process_finds_it_after_a_restart(trained: list[int], tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    run(make(), network=THREE, storage=storage, study_name="s")
    study = optuna.load_study(study_name="s", storage=storage)
    shared(study.trials[0], add(study, make(), THREE), 3)
    assert len(trained) == 3


def test_what_was_trained_before_a_trial_was_killed_is_kept(
    trained: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage, train = f"sqlite:///{tmp_path}/study.db", trainer.train

    def third_is_killed(model: Any, *args: Any, **kwargs: Any) -> None:
        if len(trained) == 2:
            raise KeyboardInterrupt
        train(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "train", third_is_killed)
    with pytest.raises(KeyboardInterrupt):
        run(make(), network=THREE, storage=storage, study_name="s")
    monkeypatch.setattr(trainer, "train", train)
    study = optuna.load_study(study_name="s", storage=storage)
    add(study, make(), THREE)
    assert len(trained) == 3
    shared(study.trials[0], study.trials[1], 2)


def test_a_running_trial_is_read_however_far_it_has_come(
    trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(make_params(THREE))
    running = study.ask()

    class Halfway(Exception):
        pass

    suggest_int = running.suggest_int

    def stop(name: str, *_: Any, **__: Any) -> int:
        if name.startswith("layer2_pool"):
            raise Halfway
        return suggest_int(name, *_, **__)

    monkeypatch.setattr(running, "suggest_int", stop)
    with pytest.raises(Halfway):
        objective(running)
    assert len(trained) == 1 and "layer2_kind" in study.trials[0].params
    add(study, objective, "Conv(8,3,1) > Conv(8,3,1)")
    assert len(trained) == 3  # two layers more of the second trial
    first, second = study.trials
    shared(first, second, 1)


@pytest.mark.parametrize("other", [{"epochs": 1}, {"seed": 1}, {"batch_size": 8}, {"n": 160}])
def test_another_setting_trains_its_own(other: dict[str, Any], trained: list[int]) -> None:
    study = run(make(), network=THREE)
    add(study, make(**other), THREE)
    assert len(trained) == 6
    add(study, make(), THREE)
    assert len(trained) == 6


def test_a_network_of_another_study_is_not_looked_up(trained: list[int]) -> None:
    objective = make()
    run(objective, network=THREE)
    run(objective, network=THREE)
    assert len(trained) == 6


def test_a_frozen_trial_is_trained_again(trained: list[int]) -> None:
    objective = make()
    study = run(objective, network=THREE)
    assert objective(study.best_trial) == study.best_value
    assert len(trained) > 3


def test_an_attribute_of_somebody_else_is_passed_over(trained: list[int]) -> None:
    study = run(make(), network=THREE)
    study.add_trial(
        optuna.create_trial(value=0.5, params={}, distributions={}, user_attrs={TRAININGS_ATTRIBUTE: [1, 2]})
    )
    add(study, make(), THREE)
    assert len(trained) == 3 and savings(study).trained == 3


@pytest.mark.parametrize("narrower", [{"max_layers": 1}, {"max_macs": 4e3}, {"max_parameters": 400}], ids=str)
def test_a_narrower_space_finds_each_network_with_its_own_value(
    narrower: dict[str, Any], trained: list[int]
) -> None:
    study = run(make(), network=THREE)
    wide = "Conv(64,3,1) > MaxPool(2,2,0) > FCL(128,relu,bias)"
    add(study, make(), wide)
    before = len(trained)
    objective = make(**narrower)
    layers = parse("Conv(8,3,1)" if "max_parameters" not in narrower else "Conv(8,3,1) > MaxPool(2,2,0)")
    found = objective.evaluation.cache.find(study, layers)
    assert found is not None
    assert found.accuracy == study.trials[0].intermediate_values[len(layers) - 1]
    study.optimize(objective, n_trials=4)
    assert len(trained) > before and len(study.trials) == 6


def test_studies_of_one_name_are_told_apart(trained: list[int], tmp_path: Path) -> None:
    objective = make(early_stop=optuna.pruners.NopPruner())
    for name in ("a", "b"):
        run(objective, network=THREE, storage=f"sqlite:///{tmp_path}/{name}.db", study_name="same")
    assert len(trained) == 6


def test_two_threads_do_not_train_the_same_network(trained: list[int]) -> None:
    objective = make(n=900)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(4):
        study.enqueue_trial(make_params(THREE))
    study.optimize(objective, n_trials=4, n_jobs=4)
    assert len(trained) == 3 and savings(study).looked_up == 9


def test_what_was_found_stays_here_when_an_objective_goes_to_another_process() -> None:
    objective = make(inherit=True)
    before = pickle.dumps(objective.evaluation.cache)
    study = run(objective, network=THREE)
    assert pickle.dumps(objective.evaluation.cache) == before
    cache = pickle.loads(pickle.dumps(objective)).evaluation.cache
    assert cache.find(study, parse("Conv(8,3,1)")) is not None
    assert cache.find(study, parse(THREE)) is None  # it inherits: a network that begins afresh is another one


def test_other_images_of_the_same_mean_train_their_own(trained: list[int]) -> None:
    images, labels = stripes(180)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    small: dict[str, Any] = {"epochs": 1, "max_layers": 1, "device": "cpu"}
    settings = []
    for pixels in (images, images[:, ::-1].copy(), images):
        objective = CNNObjective((pixels, labels), **small)
        add(study, objective, "Conv(8,3,1)")
        settings.append(objective.trainer.setting)
    assert len(trained) == 2 and settings[0] == settings[2] != settings[1]


CELL = """
@dataclass(frozen=True)
class Act(Layer):
    kind, prefix, hyperparameters = "Act", "act", ()

    def output_shape(self, shape):
        return shape

    def modules(self, shape):
        return [nn.{activation}()]
"""


def kind_of_a_notebook(activation: str) -> type[Layer]:
    """As IPython runs a cell: its source is known by a name that is no file."""
    source, name = CELL.format(activation=activation), f"<cell {activation}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {"dataclass": dataclass, "Layer": Layer, "nn": nn, "__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    return names["Act"]  # type: ignore[return-value]


def test_a_kind_that_is_defined_anew_has_a_setting_of_its_own() -> None:
    tanh, again, sigmoid = (kind_of_a_notebook(name) for name in ("Tanh", "Tanh", "Sigmoid"))
    assert layers_key([Conv, tanh]) == layers_key([again]) != layers_key([sigmoid])
    assert layers_key([Conv]) == ""
    settings = [
        make(vocabulary=Vocabulary("acts", (Conv, kind), first=(Conv,))).trainer.setting
        for kind in (tanh, again, sigmoid)
    ]
    assert settings[0] == settings[1] != settings[2]
