"""Every block of Python in the README and the documentation runs as it stands, page by page.

The blocks of a page share their names, as a reader has them who types one after the other. So that this takes
minutes and not hours, a study has at most `TRIALS` trials, a benchmark two seeds, and a refit two epochs.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_trlhpo.benchmarks.search import runner
from optuna_trlhpo.cnn import CNNObjective
from tests.test_docs import FENCED, PAGES, ROOT

TRIALS = 3
YOURS: dict[str, Any] = {"train_and_validate": lambda layers: 0.9 - 0.1 / (1 + len(layers))}
"""Functions that a page says are the reader's."""

WITH_CODE = [page for page in PAGES if FENCED.search(page.read_text(encoding="utf-8"))]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    optimize, refit, run = optuna.Study.optimize, CNNObjective.refit, runner.run

    def few(self: optuna.Study, func: Any, n_trials: int | None = None, **how: Any) -> None:
        optimize(self, func, min(n_trials or TRIALS, TRIALS), **how)

    def brief(self: CNNObjective, trial: Any, *, epochs: int | None = None, **how: Any) -> Any:
        return refit(self, trial, epochs=min(epochs or 2, 2), **how)

    def small(*args: Any, seeds: Any, budget: int, **how: Any) -> Any:
        return run(*args, seeds=list(seeds)[:2], budget=min(budget, 5), **how)

    monkeypatch.setattr(optuna.Study, "optimize", few)
    monkeypatch.setattr(CNNObjective, "refit", brief)
    monkeypatch.setattr(runner, "run", small)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    # As a module of its own, in which dataclasses and pickles find their classes.
    module = types.ModuleType("a_page")
    monkeypatch.setitem(sys.modules, "a_page", module)
    vars(module).update({name: value for name, value in YOURS.items() if name in text})
    for block in FENCED.finditer(text):
        line = text[: block.start()].count("\n") + 1
        try:
            exec(compile("\n" * line + block[1], str(page), "exec"), vars(module))
        except Exception as error:
            where = f"{page.relative_to(ROOT)}, the block at line {line}"
            pytest.fail(f"{where}: {type(error).__name__}: {error}")


def test_no_block_hides_behind_another_fence() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = len(re.findall(r"```\s*(?:python|py|pycon)\b", text))
        assert found == len(FENCED.findall(text)), page
