"""Study files that version 0.1.0 wrote open, go on, are drawn and published.

Each has a study `layers`, of a `LayerSpace`, and one `foreign`, of a pipeline with names of its own, ten
trials each, both by `TRLHPOSampler`. One file is SQLite's, one a journal, both from before modules moved.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from optuna_trlhpo.dashboard import publish
from optuna_trlhpo.visualization import plot_agent, plot_search_tree, write_report

HERE = Path(__file__).parent
SPACE = LayerSpace(input_shape=(1, 28, 28), max_layers=4, min_accuracy=None, min_improvement=None)


def grow(trial: optuna.Trial) -> float:
    accuracy = 0.0
    for layers in SPACE.grow(trial):
        accuracy = float(SPACE.encode(layers)[:, 1].mean())
        trial.report(accuracy, step=len(layers) - 1)
    return accuracy


def foreign(trial: optuna.Trial) -> float:
    widths = [
        trial.suggest_int(f"units_l{i}", 4, 64, log=True) for i in range(trial.suggest_int("depth", 1, 4))
    ]
    return float(sum(widths))


@pytest.fixture(params=["db", "log"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    """A copy of the file."""
    file = tmp_path / f"study.{request.param}"
    file.write_bytes(gzip.decompress((HERE / f"study-0.1.0.{request.param}.gz").read_bytes()))
    if request.param == "db":
        return RDBStorage(f"sqlite:///{file}")
    return JournalStorage(JournalFileBackend(str(file)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layers", "foreign"])
def test_an_old_study_goes_on_and_shows_itself(storage: BaseStorage, tmp_path: Path, name: str) -> None:
    sampler = TRLHPOSampler(seed=0, n_startup_trials=4, warn_independent_sampling=False)
    study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    assert len(study.trials) == 10
    study.optimize(grow if name == "layers" else foreign, n_trials=2)
    assert [trial.state.name for trial in study.trials[10:]] == ["COMPLETE"] * 2
    assert all("trlhpo:agent" in trial.system_attrs for trial in study.trials[10:])
    publish(study)
    write_report(study, tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(plot_agent(study).data) > 0
    if name == "layers":
        assert len(plot_search_tree(study).data) > 0
