"""The objective: what it reports, returns, repeats and survives."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FixedTrial, TrialState

from optuna_trlhpo.cnn import CNNObjective, Refit, build_network
from optuna_trlhpo.cnn.evaluation import performance_batches
from optuna_trlhpo.cnn.study_settings import TRAINING_ATTRIBUTE
from optuna_trlhpo.cnn.training import trainer
from optuna_trlhpo.cnn.training.loop import predict_correct
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import TABLE_I, describe, parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.visualization import write_report

THREE = "Conv(8,3,1) > MaxPool(2,2,0) > FCL(16,relu,bias)"


def stripes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of 8x8, never quite learnt; class 1 has horizontal stripes, class 0 vertical ones."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(seed).normal(scale=3, size=(n, 8, 8)).astype(np.float32)
    vertical = np.tile([1.0, -1.0], 32).reshape(8, 8).astype(np.float32)
    return noise + np.where(labels[:, None, None] == 1, vertical.T, vertical), labels


def make(n: int = 180, **kwargs: Any) -> CNNObjective:
    small = {
        "epochs": 2,
        "batch_size": 16,
        "max_layers": 3,
        "max_macs": 2e5,
        "device": "cpu",
        "vocabulary": TABLE_I,
    }
    unstopped = {"min_improvement": None, "min_accuracy": None}
    return CNNObjective((*stripes(n), *stripes(40, seed=1)), **{**small, **unstopped, **kwargs})


@pytest.fixture(scope="module")
def objective() -> CNNObjective:
    return make()


def run(
    objective: Callable[[optuna.Trial], float | Sequence[float]],
    n_trials: int = 1,
    network: str | None = None,
    **kwargs: Any,
) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=kwargs.pop("sampler", sampler), **kwargs)
    if network is not None:
        study.enqueue_trial(make_params(network))
    study.optimize(objective, n_trials=n_trials)
    return study


def make_params(network: str) -> dict[str, Any]:
    return LayerSpace(input_shape=(1, 8, 8), num_classes=2, max_layers=3, max_macs=2e5).to_params(
        parse(network)
    )


def with_accuracies(monkeypatch: pytest.MonkeyPatch, *shares: float) -> None:
    """From now on networks of 1, 2, ... layers are right on these shares of the validation images."""

    def fake(self: Trainer, layers: tuple[Any, ...], **_: Any) -> np.ndarray:
        n = len(self.data.validation_labels)
        return np.arange(n) < shares[len(layers) - 1] * n

    monkeypatch.setattr(Trainer, "validate", fake)


# A trial


def test_a_trial_trains_every_prefix_and_keeps_the_best(objective: CNNObjective) -> None:
    trial = run(objective, network=THREE).best_trial
    assert list(trial.intermediate_values) == [0, 1, 2]
    assert trial.value == max(trial.intermediate_values.values())
    assert trial.value > 0.8  # chance is 0.5
    best = parse(THREE)[: int(np.argmax(list(trial.intermediate_values.values()))) + 1]
    assert trial.user_attrs["architecture"] == describe(best)
    network = build_network(best, (1, 8, 8), 2)
    assert trial.user_attrs["parameters"] == sum(p.numel() for p in network.parameters())
    assert trial.user_attrs["macs"] == objective.space.macs(best)
    # Per step: the number, a colon, 32 bytes in hexadecimal.
    assert [len(entry) for entry in trial.user_attrs["batch_accuracies"].split()] == [2 + 64] * 3


def test_the_value_is_the_best_prefix_and_ties_go_to_the_smaller(
    objective: CNNObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_accuracies(monkeypatch, 0.5, 0.9, 0.9)
    trial = run(objective, network=THREE).best_trial
    assert trial.value == 0.9 and trial.intermediate_values == {0: 0.5, 1: 0.9, 2: 0.9}
    assert trial.user_attrs["architecture"] == "Conv(8,3,1) > MaxPool(2,2,0)"
    assert trial.user_attrs["parameters"] == 8 * 9 + 8 + 72 * 2 + 2
    assert trial.user_attrs["macs"] == 36 * 8 * 9 + 72 * 2


def test_growth_stops_by_the_papers_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.8, 0.8, 0.9)
    stopping = make(min_improvement=0.001, min_accuracy=0.6)
    assert list(run(stopping, network=THREE).best_trial.intermediate_values) == [0, 1]
    with_accuracies(monkeypatch, 0.5, 0.8, 0.9)
    assert list(run(stopping, network=THREE).best_trial.intermediate_values) == [0]


def test_a_pruned_trial_keeps_its_attributes(objective: CNNObjective) -> None:
    pruner = optuna.pruners.ThresholdPruner(lower=1.1)
    (trial,) = run(objective, network=THREE, pruner=pruner).trials
    assert trial.state == TrialState.PRUNED
    assert list(trial.intermediate_values) == [0]
    assert trial.user_attrs["architecture"] == "Conv(8,3,1)"


def test_the_whole_validation_set_is_the_score(objective: CNNObjective) -> None:
    trial = run(objective, network="Conv(8,3,1)").trials[0]
    score = trial.intermediate_values[0] * len(objective.data.validation_labels)
    assert score == pytest.approx(round(score), abs=1e-9)


# Repetition


def test_equal_seeds_give_equal_studies() -> None:
    def outcome(seed: int) -> list[Any]:
        trials = run(make(seed=seed), 3).trials
        attrs = [{name: t.user_attrs[name] for name in t.user_attrs if name != "trainings"} for t in trials]
        return [(t.params, t.intermediate_values, attr) for t, attr in zip(trials, attrs, strict=True)]

    first = outcome(0)
    assert first == outcome(0)
    assert first != outcome(1)


def test_one_network_has_one_value(objective: CNNObjective) -> None:
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    study = run(objective, 3)
    assert len({trial.value for trial in study.trials}) > 1  # so that equal values say something
    assert objective(study.best_trial) == study.best_value  # frozen
    assert objective(FixedTrial(study.best_params)) == study.best_value  # fixed
    copied = pickle.loads(pickle.dumps(objective))
    assert copied(study.best_trial) == study.best_value  # in another process
    assert torch.random.get_rng_state().equal(before) and torch.get_num_threads() == threads


def test_threads_do_not_disturb_one_another(objective: CNNObjective) -> None:
    texts = [f"Conv({filters},3,1)" for filters in range(8, 72, 8)]
    trials = [FixedTrial(make_params(text)) for text in texts]
    alone = [objective(trial) for trial in trials]
    assert len(set(alone)) > 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(objective, trials)) == alone


@pytest.mark.parametrize(("second", "chosen"), [(0.5, 2), (0.9, 1)])
def test_threads_that_pay_are_measured(second: float, chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def noting(*_: Any, **__: Any) -> None:
        used.append(torch.get_num_threads())

    # By a clock that goes as fast as the threads would be.
    monkeypatch.setattr(trainer, "train", noting)
    monkeypatch.setattr(
        trainer.time, "perf_counter", lambda: sum({1: 1.0, 2: second}[threads] for threads in used)
    )
    monkeypatch.setattr(trainer.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert make(threads="auto").threads == chosen
    assert set(used) == {1, 2}


def test_the_precision_is_part_of_the_setting(objective: CNNObjective) -> None:
    half = make(precision="bfloat16")
    assert half.trainer.setting != objective.trainer.setting == make().trainer.setting
    assert run(half, network="Conv(16,3,1)").best_value > 0.6


def test_a_study_with_two_jobs(objective: CNNObjective) -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=4, n_jobs=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_out_of_memory_fails_the_trial_and_not_the_study(
    error: RuntimeError, objective: CNNObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, train = [0], trainer.train
    messages: list[str] = []

    def second_fails(*args: Any, **kwargs: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise error
        train(*args, **kwargs)

    monkeypatch.setattr(trainer, "train", second_fails)
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "warning", messages.append)
    study = run(objective, 2, network="Conv(8,3,1) > Conv(8,3,1)")
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    said = "out of memory while training Conv(8,3,1) > Conv(8,3,1)"
    assert study.trials[0].user_attrs["failed"] == said
    (message,) = [message for message in messages if "MedianPruner" not in message]
    assert said in message.lower().replace("conv", "Conv")


def test_other_errors_are_not_hidden(objective: CNNObjective, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(trainer, "train", broken)
    with pytest.raises(RuntimeError, match="something else"):
        run(objective)


def test_the_logger_is_in_optunas_tree(objective: CNNObjective, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "warning", messages.append)
    run(objective, network="Conv(8,3,1)")
    assert len(messages) == 1 and "MedianPruner" in messages[0]


# Refit and table


def test_refit_trains_on_everything_and_tests_once(
    objective: CNNObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, train = [], trainer.train

    def noting(model: Any, images: Any, labels: Any, **kwargs: Any) -> None:
        seen.append((len(images), len(labels), kwargs["epochs"]))
        train(model, images, labels, **kwargs)

    trial = run(objective, network=THREE).best_trial
    monkeypatch.setattr(trainer, "train", noting)
    refit = objective.refit(trial, epochs=4)
    assert seen == [(180, 180, 4)]
    assert isinstance(refit, Refit) and not refit.network.training
    assert refit.architecture == trial.user_attrs["architecture"] == describe(refit.layers)
    assert (refit.parameters, refit.macs) == (trial.user_attrs["parameters"], trial.user_attrs["macs"])
    assert refit.test_accuracy is not None and refit.test_accuracy > 0.9 and refit.seconds > 0
    data = objective.data
    assert data.test_images is not None and data.test_labels is not None
    again = predict_correct(refit.network, data.test_images, data.test_labels).float().mean().item()
    assert refit.test_accuracy == pytest.approx(again)
    with pytest.raises(AttributeError):
        refit.seconds = 0.0  # type: ignore[misc]


def test_refit_repeats_itself_by_its_seed(objective: CNNObjective) -> None:
    trial = run(objective, network=THREE).best_trial
    first, again, other = (objective.refit(trial, seed=seed).network.state_dict() for seed in (None, 0, 1))
    assert all(first[key].equal(again[key]) for key in first)
    assert not all(first[key].equal(other[key]) for key in first)


def test_without_test_images_there_is_no_test_accuracy() -> None:
    objective = CNNObjective(stripes(60), epochs=1, device="cpu")
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"architecture": "Conv(8,3,1)"})
    assert objective.refit(trial).test_accuracy is None


@pytest.mark.slow
def test_the_cost_of_a_trial_is_that_of_its_network(objective: CNNObjective) -> None:
    trial = run(objective, network=THREE).best_trial
    cost = objective.cost(trial, latency=False)
    assert (cost.parameters, cost.macs) == (trial.user_attrs["parameters"], trial.user_attrs["macs"])
    names = [part.name for part in cost.parts]
    layers = trial.user_attrs["architecture"].split(" > ")
    assert names == [*(f"{k} {layer}" for k, layer in enumerate(layers, start=1)), "classifier"]
    assert objective.cost(trial).latency is not None


def test_the_table_by_hand(objective: CNNObjective) -> None:
    trial = optuna.trial.create_trial(
        value=0.91, user_attrs={"architecture": THREE}, intermediate_values={0: 0.8, 2: 0.91}
    )
    assert objective.table(trial).splitlines() == [
        "layer              output  accuracy     gain  parameters   MACs",
        "---------------------------------------------------------------",
        "Conv(8,3,1)        8x6x6     0.8000  +0.8000          80  2,592",
        "MaxPool(2,2,0)     8x3x3          -        -           0      0",
        "FCL(16,relu,bias)  16        0.9100  +0.1100       1,168  1,152",
        "classifier         2                                  34     32",
        "total                        0.9100                1,282  3,776",
    ]


def test_a_trial_without_a_network_is_named(objective: CNNObjective) -> None:
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"a": 1})
    for use in (objective.refit, objective.table):
        with pytest.raises(ValueError, match=r"user attributes \['a'\]; it must have 'architecture'"):
            use(trial)
    with pytest.raises(
        ValueError, match="no parameter 'layer1_kind'; a fixed trial must have the parameters of a network"
    ):
        objective(FixedTrial({"x": 1}))


# Performance


@pytest.mark.parametrize(("images", "sizes"), [(10_000, {16}), (512, {16}), (511, {15, 16}), (32, {1})])
def test_performance_batches_are_disjoint(images: int, sizes: set[int]) -> None:
    batches = performance_batches(images, np.random.default_rng(0))
    assert len(batches) == 32 and {len(batch) for batch in batches} == sizes
    chosen = np.concatenate(batches).tolist()
    assert len(set(chosen)) == len(chosen) == min(images, 512) and set(chosen) <= set(range(images))


def test_performance_of_a_tiny_validation_set() -> None:
    batches = performance_batches(5, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [16] * 32
    assert set(np.concatenate(batches).tolist()) == set(range(5))
    tiny = CNNObjective(stripes(12), epochs=1, max_layers=1, device="cpu")
    assert run(tiny).best_trial.user_attrs["batch_accuracies"].startswith("0:")


def test_performance_is_the_accuracy_on_the_fixed_batches(
    objective: CNNObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_accuracies(monkeypatch, 0.5)
    seen = []
    monkeypatch.setattr(
        "optuna_trlhpo.cnn.evaluation.report_performance", lambda _, values, step: seen.append((values, step))
    )
    objective(FixedTrial(make_params("Conv(8,3,1)")))
    ((values, step),) = seen
    # 60 validation images in batches of 2 and 1, of which the first 30 are correct.
    assert step == 0
    assert values == [float(np.mean(batch < 30)) for batch in objective.evaluation.batches]


# Arguments


def test_defaults_and_the_papers_setting() -> None:
    def setting(objective: CNNObjective) -> tuple[Any, ...]:
        o = objective
        return o.epochs, o.batch_size, o.learning_rate, o.schedule, o.conv_activation

    data = stripes(60)
    assert setting(CNNObjective(data, device="cpu")) == (5, 128, 3e-3, "one_cycle", "relu")
    assert setting(CNNObjective.paper(data, device="cpu")) == (5, 16, 1e-3, "constant", "none")
    paper = CNNObjective.paper(data, device="cpu")
    assert (
        paper.space.train_prefixes == "all"
        and paper.evaluation.early_stop is None
        and not paper.trainer.inherits
    )
    assert setting(CNNObjective.paper(data, epochs=1, device="cpu")) == (1, 16, 1e-3, "constant", "none")
    assert CNNObjective(data, device="cpu", max_layers=2, max_macs=9e4).space.max_macs == 9e4


def test_digits_within_seconds() -> None:
    pytest.importorskip("sklearn")
    objective = CNNObjective("digits", device="cpu", max_layers=2)
    assert (objective.epochs, objective.batch_size, objective.learning_rate) == (10, 64, 5e-3)
    params = objective.space.to_params(parse("Conv(32,3,1) > MaxPool(2,2,0)"))
    accuracy = objective(FixedTrial(params))
    assert isinstance(accuracy, float) and accuracy > 0.94


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be a positive integer"),
        ({"batch_size": 1.5}, "batch_size is 1.5; it must be a positive integer"),
        ({"threads": 0}, "threads is 0; it must be a positive integer"),
        ({"threads": "many"}, "threads is 'many'; it must be a positive integer"),
        ({"precision": "float16"}, "precision is 'float16'; it must be one of float32, bfloat16"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be a positive number"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; it must be one of one_cycle, constant"),
        ({"conv_activation": "swish"}, "conv_activation is 'swish'; it must be one of none, relu"),
        ({"device": "gpu"}, "device is 'gpu'; it must be 'cpu'"),
        ({"seed": -1}, "seed is -1; it must be an integer of at least 0"),
        ({"seed": None}, "seed is None; it must be an integer of at least 0"),
        ({"train_size": 0}, "train_size is 0"),
        ({"max_layers": 0}, "max_layers is 0"),
        ({"max_macs": 10}, "max_macs is 10; the cheapest first layer with a classifier takes"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**argument)


def test_images_too_small_for_a_convolution_are_named() -> None:
    with pytest.raises(ValueError, match=r"input_shape is \(1, 2, 2\)"):
        CNNObjective((np.zeros((20, 2, 2)), np.arange(20) % 2), device="cpu")


def test_refit_checks_its_arguments(objective: CNNObjective) -> None:
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"architecture": "Conv(8,3,1)"})
    with pytest.raises(ValueError, match="epochs is 0; it must be a positive integer"):
        objective.refit(trial, epochs=0)
    with pytest.raises(ValueError, match="seed is -1; it must be an integer of at least 0"):
        objective.refit(trial, seed=-1)


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_study_that_does_not_maximise_is_refused(
    objective: CNNObjective, directions: list[Literal["minimize", "maximize"]]
) -> None:
    study = optuna.create_study(directions=directions)
    with pytest.raises(ValueError, match='create the study with direction="maximize"'):
        study.optimize(objective, n_trials=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_the_default_where_there_is_one() -> None:
    objective = make(device=None)
    assert objective.data.device.type == "cuda"
    before = torch.cuda.get_rng_state()
    trial = run(objective, network=THREE).best_trial
    assert trial.value is not None and trial.value > 0.8
    assert torch.cuda.get_rng_state().equal(before)
    assert next(objective.refit(trial).network.parameters()).is_cuda


def test_the_study_says_how_its_networks_are_trained(tmp_path: Path) -> None:
    objective = make(epochs=np.int64(2), batch_size=np.int32(16), learning_rate=0.5)
    storage = f"sqlite:///{tmp_path}/study.db"  # which holds JSON alone
    study = optuna.create_study(direction="maximize", storage=storage)
    study.optimize(objective, n_trials=1)
    kept = study.user_attrs[TRAINING_ATTRIBUTE]
    assert (kept["epochs"], kept["batch size"], kept["learning rate"]) == (2, 16, 0.5)
    assert kept["training images"] + kept["validation images"] == 180
    page = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h3>Training</h3>" in page and "validation images" in page


def test_optunas_default_pruner_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    told = "The study uses Optuna's default pruner, MedianPruner."
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # as most people do
    counts = []
    try:
        for pruner in (optuna.pruners.NopPruner(), optuna.pruners.HyperbandPruner(), None):
            study = optuna.create_study(direction="maximize", pruner=pruner)
            study.optimize(make(epochs=1), n_trials=2)
            counts.append(capfd.readouterr().err.count(told))
    finally:
        optuna.logging.set_verbosity(verbosity)
    assert counts == [0, 0, 1]


@pytest.mark.parametrize("when", ["trained", "asked to prune"])
def test_a_trial_that_another_worker_ends_ends_with_optunas_own_error(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As plain pipelines do; a heartbeat is missed while a network is trained."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    train, prune = Trainer.validate, optuna.Trial.should_prune

    def end_while_trained(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if when == "trained":
            study.tell(trial.number, state=TrialState.FAIL)
        return train(self, *args, **kwargs)

    def end_while_asked(self: optuna.Trial) -> bool:
        if when == "asked to prune":
            study.tell(trial.number, state=TrialState.FAIL)
        return prune(self)

    monkeypatch.setattr(Trainer, "validate", end_while_trained)
    monkeypatch.setattr(optuna.Trial, "should_prune", end_while_asked)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        make()(trial)


def test_a_layer_behind_untrained_ones_has_no_gain(objective: CNNObjective) -> None:
    trial = optuna.trial.create_trial(
        value=0.91, user_attrs={"architecture": THREE}, intermediate_values={2: 0.91}
    )
    assert objective.table(trial).splitlines()[4].split()[2:4] == ["0.9100", "-"]
