"""The examples of several workers: two at a time on every storage that is here, and the files of clusters."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tests.test_examples import EXAMPLES, ROOT, percentages, run
from tests.workers.servers import free_port, served

FOLDER = EXAMPLES / "distributed"
STUDY = "digits-distributed"


def needs(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def finished(storage: str | BaseStorage) -> list[FrozenTrial]:
    trials = optuna.load_study(study_name=STUDY, storage=storage).trials
    assert len({tuple(trial.params.items()) for trial in trials}) == len(trials)  # no work is done twice
    return [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def start(program: str, *args: str, cwd: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / program), *args]
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def started(program: str, *args: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(program, *args, cwd=cwd)
    try:
        yield process
    finally:
        process.terminate()  # and not killed, or the workers of local.py would go on
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        process.wait()


def wait_for_trials(storage: str, number: int, seconds: float = 60) -> None:
    """Wait until so many trials have begun and have a parameter."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # there is no study yet
            trials = optuna.load_study(study_name=STUDY, storage=storage).trials
            if sum(bool(trial.params) for trial in trials) >= number:
                return
        time.sleep(0.05)
    raise AssertionError(f"{number} trials did not begin")


# Storages -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_share_a_journal_file(tmp_path: Path) -> None:
    output = run("distributed/local.py", "--workers", "2", "--trials", "4", cwd=tmp_path)
    assert "worker 0 on " in output and "worker 1 on " in output
    assert 4 <= len(finished(journal(tmp_path / "digits.log"))) <= 5  # of those at the end, one was running
    assert percentages(output)[-1] > 30  # chance is 10
    again = run("distributed/local.py", "--workers", "2", "--trials", "4", cwd=tmp_path)
    assert again.count(" 0 trials of ") == 2


@pytest.mark.slow
def test_two_workers_share_a_database_and_a_seed(tmp_path: Path) -> None:
    """With equal seeds they propose different networks: a trial draws by its number."""
    options = ["--storage", "sqlite:///digits.db", "--seed", "0"]
    run("distributed/local.py", "--workers", "2", "--trials", "4", *options, cwd=tmp_path)
    assert 4 <= len(finished(f"sqlite:///{tmp_path}/digits.db")) <= 5


@pytest.mark.slow
def test_two_workers_share_a_proxy(tmp_path: Path) -> None:
    needs("grpc", "google.protobuf")
    port = str(free_port())
    with started("grpc_server.py", "--port", port, "--threads", "4", cwd=tmp_path) as server:
        assert server.stdout is not None
        assert f"at grpc://localhost:{port}" in server.stdout.readline()
        options = ["--storage", f"grpc://localhost:{port}", "--trials", "3"]
        run("distributed/local.py", "--workers", "2", *options, cwd=tmp_path)
    assert 3 <= len(finished(f"sqlite:///{tmp_path}/digits.db")) <= 4


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The URL of a new PostgreSQL server."""
    with served("postgresql", tmp_path / "server") as server:
        yield server.place


@pytest.mark.slow
def test_workers_that_start_at_once_share_postgresql(tmp_path: Path, postgres: str) -> None:
    """They find no tables: those that lose the race to make them try again."""
    options = ["--workers", "3", "--trials", "4", "--heartbeat", "30"]
    run("distributed/local.py", *options, "--storage", postgres, cwd=tmp_path)
    assert 4 <= len(finished(postgres)) <= 6


# The end of a worker ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_finish_their_trials_before_they_stop(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/digits.db"
    with started("local.py", "--storage", storage, "--trials", "1000", cwd=tmp_path) as process:
        wait_for_trials(storage, 2)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "worker 0 on " in output and "worker 1 on " in output
    assert {trial.state for trial in optuna.load_study(study_name=STUDY, storage=storage).trials} == {
        TrialState.COMPLETE
    }


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_tried_again(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/digits.db"
    options = ["--storage", storage, "--heartbeat", "1"]
    with started("worker.py", *options, "--trials", "1", cwd=tmp_path) as process:
        wait_for_trials(storage, 1)
        process.kill()
    time.sleep(4)  # it counts as dead after three heartbeats
    run("distributed/worker.py", *options, "--trials", "1", cwd=tmp_path)
    killed, retry = optuna.load_study(study_name=STUDY, storage=storage).trials
    assert (killed.state, retry.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(retry) == 0
    assert killed.params.items() <= retry.params.items()


@pytest.mark.parametrize("storage", ["digits.log", "grpc://localhost:13000"])
def test_only_databases_keep_heartbeats(storage: str, worker: Any) -> None:
    with pytest.raises(ValueError, match="keeps no heartbeats"):
        worker.open_storage(storage, 60)


# Clusters -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dask(tmp_path: Path) -> None:
    needs("distributed", "optuna_integration")
    output = run("distributed/dask_workers.py", "--trials", "3", "--device", "cpu", cwd=tmp_path)
    assert "task 0: " in output and "task 1: " in output and "the best of " in output
    assert percentages(output)[-1] > 30


@pytest.mark.slow
def test_ray(tmp_path: Path) -> None:
    needs("ray")
    output = run("distributed/ray_workers.py", "--trials", "3", cwd=tmp_path)
    assert "task 0: " in output and "task 1: " in output
    assert 3 <= len(finished(journal(tmp_path / "digits.log"))) <= 4


@pytest.mark.slow
def test_the_script_of_slurm_starts_a_worker(tmp_path: Path) -> None:
    """Without Slurm, in whose place the test sets the number of the task and the folder."""
    for name in ("worker.py", "slurm_array.sbatch"):
        shutil.copy(FOLDER / name, tmp_path)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "TRIALS": "1", "PYTHONPATH": path, "PATH": programs}
    output = subprocess.check_output(
        ["bash", "slurm_array.sbatch"], cwd=tmp_path, env={**os.environ, **slurm}, text=True
    )
    assert "worker 3 on " in output
    assert len(finished(journal(tmp_path / "digits.log"))) == 1


def test_the_script_of_slurm_can_be_read() -> None:
    script = FOLDER / "slurm_array.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text(encoding="utf-8").splitlines()
    # Slurm reads no option behind the first command.
    first = next(k for k, line in enumerate(lines) if line and not line.startswith("#"))
    options = [k for k, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options and max(options) < first
    assert all(lines[k].split()[1].startswith("--") for k in options)


def test_the_job_of_kubernetes_is_valid() -> None:
    (job,) = yaml.safe_load_all((FOLDER / "kubernetes_job.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completionMode"] == "Indexed"  # without it there is no JOB_COMPLETION_INDEX
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    needs("kubernetes_validate")
    import kubernetes_validate

    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_the_arguments_of_the_job_are_those_of_the_worker(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = yaml.safe_load((FOLDER / "kubernetes_job.yaml").read_text(encoding="utf-8"))
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    opened: list[tuple[str, int]] = []

    def opening(text: str, heartbeat: int) -> None:
        opened.append((text, heartbeat))
        raise ValueError("far enough")

    monkeypatch.setattr(worker, "open_storage", opening)
    with pytest.raises(SystemExit):
        worker.main(arguments)
    assert opened == [("$(STORAGE)", 60)]


def test_the_containers_are_readable() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["postgres"]["environment"]["POSTGRES_DB"] == "optuna"
    assert set(compose["volumes"]) == {"postgres-data"}
    docker = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert "examples/distributed/Dockerfile" in docker and 'ENTRYPOINT ["python", "worker.py"]' in docker


# Numbers and GPUs ---------------------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("worker", FOLDER / "worker.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = signal.getsignal(signal.SIGTERM)
    spec.loader.exec_module(module)
    yield module
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("n_gpus", "workers_per_gpu", "devices"),
    [
        (0, 1, ["cpu", "cpu", "cpu", "cpu"]),
        (1, 1, ["cuda:0", "cuda:0", "cuda:0", "cuda:0"]),
        (4, 1, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (2, 2, ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        (2, 1, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
    ],
)
def test_workers_share_the_gpus(
    worker: Any, monkeypatch: pytest.MonkeyPatch, n_gpus: int, workers_per_gpu: int, devices: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    assert [worker.device_for(index, workers_per_gpu) for index in range(4)] == devices


@pytest.mark.parametrize(
    ("variables", "index"),
    [({}, 0), ({"SLURM_ARRAY_TASK_ID": "7"}, 7), ({"JOB_COMPLETION_INDEX": "2"}, 2)],
)
def test_the_number_of_a_worker(
    worker: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], index: int
) -> None:
    for name in worker.INDEX_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert worker.default_index() == index


def test_every_program_is_tested_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in FOLDER.iterdir() if path.is_file() and path.name not in here] == []
