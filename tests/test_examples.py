"""Every example runs, with few trials, as a user runs it: as a script, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DATA_ROOT = Path(os.environ.get("TRLHPO_DATA_ROOT", ROOT.parent / "shared" / "data"))


def run(example: str, *args: str, cwd: Path) -> str:
    """What the example prints; the test fails with its errors if it does."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *args],
        cwd=cwd,
        # One thread: networks this small gain nothing from a second, and wait for it on a busy machine.
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def percentages(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"(\d+\.\d+)%", output)]


def test_every_example_is_tested_here() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in here] == []


@pytest.mark.slow
def test_quickstart_resumes(tmp_path: Path) -> None:
    first = run("quickstart.py", "--trials", "1", cwd=tmp_path)
    assert "0 of 1 trials are finished, 1 to go" in first
    second = run("quickstart.py", "--trials", "3", cwd=tmp_path)
    assert "1 of 3 trials are finished, 2 to go" in second
    third = run("quickstart.py", "--trials", "3", cwd=tmp_path)
    assert "all 3 trials are finished; for more: --trials 6" in third

    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{tmp_path / 'digits.db'}")
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 3
    for output in (first, second, third):
        assert len(percentages(output)) >= 2  # validation and test
        assert output.rstrip().endswith("optuna-dashboard sqlite:///digits.db --artifact-dir digits")
        assert "digits.onnx gives what PyTorch gives" in output
    assert percentages(second)[0] == percentages(third)[0] == pytest.approx(100 * study.best_value, abs=0.01)


@pytest.mark.slow
@pytest.mark.data
def test_mnist(tmp_path: Path) -> None:
    if not (DATA_ROOT / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {DATA_ROOT}; set TRLHPO_DATA_ROOT to the folder that holds it")
    small = ["--trials=1", "--train-size=1000", "--validation-size=1000", "--epochs=1", "--refit-epochs=1"]
    output = run("mnist.py", "--data-root", str(DATA_ROOT), "--max-macs=2e5", *small, cwd=tmp_path)
    assert output.startswith("Reduced setting: 1,000 training and 1,000 validation images, 1 epochs")
    assert "at most 200,000 MACs, 1 trials" in output
    assert "s on 60,000 images" in output
    assert percentages(output)[-1] > 50  # chance is 10
    assert list(tmp_path.iterdir()) == []  # the study stays in memory, the data where they are


@pytest.mark.slow
def test_custom_training_loop(tmp_path: Path) -> None:
    output = run("custom_training_loop.py", "--trials", "2", "--epochs", "2", cwd=tmp_path)
    assert percentages(output)[-1] > 50  # chance is 10
    assert "Conv(" in output


@pytest.mark.slow
def test_existing_pipeline(tmp_path: Path) -> None:
    output = run("existing_pipeline.py", "--trials", "3", "--epochs", "3", cwd=tmp_path)
    assert percentages(output)[-1] > 15  # chance is 10
    assert "'n_units_l0'" in output


@pytest.mark.slow
def test_edge_device(tmp_path: Path) -> None:
    small = ["--trials=2", "--device-macs=1000", "--folder=files"]
    output = run("edge_device.py", *small, cwd=tmp_path)
    names = {path.name for path in (tmp_path / "files").iterdir()}
    assert {"network.onnx", "network.pt2", "network.py", "network.safetensors"} <= names
    assert "ONNX: network.onnx, " in output and "cut behind input: " in output
    assert "server.onnx" in names and "device.onnx" not in names  # a thousand MACs are too few for any layer


@pytest.mark.slow
def test_paper_figures(tmp_path: Path) -> None:
    """Without MNIST, which the folder does not hold: the digits take its place, and it is said."""
    options = ["--trials", "4", "--data-root", str(tmp_path), "--agents", "random", "paper"]
    output = run("paper_figures.py", *options, cwd=tmp_path)
    assert "what is found is not about MNIST" in output and "images of digits" in output
    assert "random: 4 trials, best" in output and "paper: 4 trials, best" in output
    assert "had a negative gain" in output and "actor, attention to the last layer" in output
    written = {path.name for path in (tmp_path / "paper_figures").iterdir()}
    names = ("figure2-random", "figure2-paper", "figure3-paper")
    assert written == {f"{name}.{kind}" for name in names for kind in ("html", "svg")}
    again = run("paper_figures.py", *options, cwd=tmp_path)
    assert again == output  # nothing is searched twice, and the studies say the same


@pytest.mark.slow
def test_compress_compares_with_the_original(tmp_path: Path) -> None:
    output = run("compress.py", "--trials", "2", "--epochs", "1", "--canvases", "40", cwd=tmp_path)
    lines = output.splitlines()
    assert lines[0].startswith("Trial ") and "down.0.0.channels" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["original", "trial"] and "100.0 %" in lines[-2]
