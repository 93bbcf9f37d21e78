"""The packages for OptunaHub load from the checkout and pass the checks of its registry."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

frontmatter = pytest.importorskip("frontmatter")
optunahub = pytest.importorskip("optunahub")

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = ROOT / "examples" / "hub" / "package"
PACKAGES = ("samplers/trlhpo", "benchmarks/mnist_layers")


def load(package: str):
    return optunahub.load_local_module(package, registry_root=str(REGISTRY))


def test_sampler_is_ours() -> None:
    module = load("samplers/trlhpo")
    assert module.TRLHPOSampler is importlib.import_module("optuna_trlhpo").TRLHPOSampler
    study = optuna.create_study(sampler=module.TRLHPOSampler(seed=0))
    study.optimize(lambda trial: (trial.suggest_float("x", -5, 5) - 2) ** 2, n_trials=15)
    assert study.best_value < 1


@pytest.mark.slow
@pytest.mark.every_case
def test_benchmark_in_both_forms() -> None:
    problem = load("benchmarks/mnist_layers").Problem(seed=0)
    study = optuna.create_study(
        directions=problem.directions,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    study.optimize(problem, n_trials=5)
    assert 0 < study.best_value < 1 and study.trials[0].intermediate_values
    box = optuna.create_study(directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        trial = box.ask(problem.search_space)
        box.tell(trial, problem.evaluate(trial.params))
    assert 0 < box.best_value < 1
    exact = load("benchmarks/mnist_layers").Problem()
    params = {name: 2 if name == "depth" else 0.4 for name in exact.search_space}
    assert exact.evaluate(params) == exact.evaluate(params) <= exact.optimum + 1e-9


@pytest.mark.parametrize("package", PACKAGES)
def test_checks_of_the_registry(package: str) -> None:
    """As its script ``header_confirm.py`` and its guide say: a header in full, a licence, no binary files."""
    folder = REGISTRY / package
    header = frontmatter.load(str(folder / "README.md"))
    for key in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert header[key], key
    assert header["license"] == "MIT License" and "<" not in header.content
    assert {"sampler", "benchmark"} & set(header["tags"])
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    for file in folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            file.read_text(encoding="utf-8")


def test_style_of_the_registry() -> None:
    rules = "line-length = 110\n[lint]\nextend-select = ['I']\n[lint.isort]\nknown-third-party = ['optuna']\n"
    rules += "lines-after-imports = 2\nforce-single-line = true\nforce-sort-within-sections = true\n"
    rules += "order-by-type = false\n"
    config = REGISTRY / "ruff.toml"
    assert config.read_text(encoding="utf-8") == rules.replace("110", "99")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", str(config), str(REGISTRY)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
