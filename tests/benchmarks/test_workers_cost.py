"""What a trial costs each of many workers: counted calls and bytes, simulated workers, and the tables."""

from __future__ import annotations

import time
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows
from optuna_trlhpo.benchmarks.overhead import workers_cost
from optuna_trlhpo.benchmarks.overhead.remote_storage import RemoteStorage, size_of_trial
from optuna_trlhpo.benchmarks.overhead.workers_cost import TimedSampler
from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers


def two_clients() -> tuple[RemoteStorage, optuna.Study, optuna.Study]:
    """A client with its study, and the study of another one."""
    backend = InMemoryStorage()
    other = optuna.create_study(study_name="one", storage=backend, sampler=RandomSampler(0))
    client = RemoteStorage(backend)
    return client, optuna.load_study(study_name="one", storage=client, sampler=RandomSampler(1)), other


def quadratic(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", -1, 1) ** 2


def test_calls_are_counted_by_method():
    client, study, _ = two_clients()
    client.reset()
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.suggest_float("y", 0, 1)
    trial.report(0.5, step=0)
    study.tell(trial, 1.0)
    of_writing = {name: n for name, n in client.calls.items() if not name.startswith("get_")}
    assert of_writing == {
        "create_new_trial": 1,
        "set_trial_param": 2,
        "set_trial_intermediate_value": 1,
        "set_trial_state_values": 1,
    }


def test_names_and_directions_are_asked_for_once():
    client, study, _ = two_clients()
    assert {(study.study_name, study.direction) for _ in range(3)} == {
        ("one", optuna.study.StudyDirection.MINIMIZE)
    }
    assert client.calls["get_study_name_from_id"] <= 1 and client.calls["get_study_directions"] <= 1


def test_a_finished_trial_is_received_once_and_a_running_one_each_time():
    client, study, other = two_clients()
    other.optimize(quadratic, n_trials=1)
    running = other.ask()
    running.suggest_float("x", -1, 1)
    finished_size, running_size = (size_of_trial(trial) for trial in other.trials)
    client.reset()
    sizes = []
    for _ in range(3):
        study.get_trials(deepcopy=False)
        sizes.append(client.read)
    assert sizes == [finished_size + k * running_size for k in (1, 2, 3)]
    assert client.calls == {"get_all_trials": 3}


def test_states_are_chosen_by_the_client():
    """A client reads all new trials, whichever states are asked for, as Optuna's do."""
    client, study, other = two_clients()
    other.optimize(quadratic, n_trials=2)
    other.ask()
    chosen = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    assert [trial.number for trial in chosen] == [2]
    assert client.read == sum(size_of_trial(trial) for trial in other.trials)


def test_a_known_trial_is_no_call():
    client, study, other = two_clients()
    other.optimize(quadratic, n_trials=1)
    study.get_trials(deepcopy=False)
    client.get_trial(other.trials[0]._trial_id)
    assert client.calls["get_trial"] == 0


class SleepingStorage(InMemoryStorage):
    """A storage that really takes its time when all trials are read."""

    SECONDS = 0.03

    def get_all_trials(self, *arguments: Any, **named: Any) -> list[FrozenTrial]:
        time.sleep(self.SECONDS)
        return super().get_all_trials(*arguments, **named)


def test_the_latency_of_the_report_is_that_of_a_storage_that_waits():
    """The report adds calls times latency to the time of the processor; here a sampler really waits."""
    client = RemoteStorage(SleepingStorage())
    timed = TimedSampler(optuna.samplers.TPESampler(seed=0, n_startup_trials=2), client)
    study = optuna.create_study(storage=client, sampler=timed)
    study.optimize(quadratic, n_trials=2)
    client.reset()
    timed.reset()
    begin = time.perf_counter()
    study.optimize(quadratic, n_trials=5)
    elapsed = time.perf_counter() - begin
    assert timed.calls >= 1  # it reads the trials
    waited = client.calls["get_all_trials"] * SleepingStorage.SECONDS
    assert waited <= elapsed
    assert timed.seconds < elapsed - 0.9 * timed.calls * SleepingStorage.SECONDS  # which it does not contain


def test_the_timed_sampler_plays_as_the_other_one_alone():
    def played(sampler: optuna.samplers.BaseSampler) -> list[FrozenTrial]:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(synthetic_layers(0), n_trials=3)
        return study.trials

    from optuna_trlhpo import TRLHPOSampler

    timed = TimedSampler(TRLHPOSampler(seed=0))
    alone, wrapped = played(TRLHPOSampler(seed=0)), played(timed)
    assert [trial.params for trial in alone] == [trial.params for trial in wrapped]
    # The hooks of the space reach the sampler: it does not train every prefix.
    assert [trial.intermediate_values for trial in alone] == [trial.intermediate_values for trial in wrapped]
    assert timed.seconds > 0


def row_of(sampler: str, workers: int, **fields: Any) -> Row:
    return {
        **dict(problem="synthetic-layers", form="progressive", sampler=sampler, seed=0, trials=200),
        **dict(workers=workers, calls={"get_all_trials": 10.0, "set_trial_param": 20.0}),
        **dict(written=4000.0, read=50_000.0 * workers, stored=800.0, suggestion=0.01, suggestion_calls=0.5),
        **dict(spent=0.5, joining=9.0, measured=8, versions={"optuna": "5.0.0"}, machine="one"),
        **fields,
    }


def test_the_tables():
    names = "problem", "form", "sampler", "seed", "trials", "workers"
    failure = {name: row_of("tpe", 16)[name] for name in names} | {"error": "E: no"}
    mended = {name: row_of("tpe", 4)[name] for name in names} | {"error": "E: mended"}
    rows = [
        row_of("trlhpo", 4, joining=800.0),
        row_of("trlhpo", 4),  # the latest counts
        mended,
        row_of("tpe", 4, suggestion=0.0012),
        failure,
        row_of("tpe", 4, seed=1, joining=700.0),
    ]
    text = workers_cost.report(rows, latencies=[1, 20])
    assert "| trlhpo | 200 | 4 | 30 | 10 | 0.8 | 4.0 | 200.0 |" in text
    assert "| trlhpo | 200 | 4 | 10.0 / 10.5 / 20.0 | 0.50 / 0.53 / 1.10 | 9.0 |" in text
    assert "| tpe | 200 | 4 | 1.2 / 1.7 / 11.2 |" in text
    assert "where each call to the storage takes 0 / 1 / 20 ms" in text
    assert "failed: synthetic-layers (progressive), tpe, seed 0: E: no" in text and "mended" not in text
    assert workers_cost.report([], latencies=[1]).startswith("There is no complete simulation.")


def test_a_simulation_is_run_once(tmp_path, capsys):
    options = ["--samplers", "random", "--trials", "4", "8", "--workers", "1", "9", "--latencies", "3"]
    command = ["workers-cost", *options, "--out", str(tmp_path / "rows")]
    page = tmp_path / "page.md"
    assert main([*command, "--markdown", str(page)]) == 0
    rows = read_rows(tmp_path / "rows")
    assert [(row["trials"], row["workers"]) for row in rows] == [(4, 1), (4, 9), (8, 1), (8, 9)]
    for row in rows:
        # A layer has up to five parameters, and each is written once; every prefix is trained and reported.
        assert row["calls"]["create_new_trial"] == 1
        assert 6 <= row["calls"]["set_trial_param"] <= 30
        assert row["calls"]["set_trial_intermediate_value"] == 6
        assert row["spent"] > row["suggestion"] > 0
        assert row["measured"] == 12
    assert rows[1]["read"] > 2 * rows[0]["read"]  # the running trials of nine workers are read again
    assert main(command) == 0
    assert len(read_rows(tmp_path / "rows")) == 4
    printed = capsys.readouterr().out
    assert "| random | 8 | 9 |" in printed and "| random | 8 | 9 |" in page.read_text()
    assert "takes 0 / 3 ms" in printed


@pytest.mark.slow
def test_our_sampler_is_measured(tmp_path):
    (row,) = workers_cost.run(samplers=["trlhpo"], workers=[2], trials=[4], out=tmp_path)
    assert row["joining"] > 0 and row["suggestion"] > 0
    assert row["stored"] > 100  # its record of the trial


def test_wrong_numbers_and_names_are_refused(tmp_path):
    good: dict[str, Any] = dict(samplers=["random"], workers=[1], trials=[4], out=tmp_path)
    with pytest.raises(ValueError, match="nothing"):
        workers_cost.run(**{**good, "samplers": ["nothing"]})
    for name in ("workers", "trials"):
        with pytest.raises(ValueError, match=name):
            workers_cost.run(**{**good, name: [1, 0]})
