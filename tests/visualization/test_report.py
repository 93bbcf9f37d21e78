"""The report: one page that holds all it shows, for every kind of study."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from optuna.study import Study

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.benchmarks.overhead.figures import study_of
from optuna_trlhpo.layers import describe, network_in
from optuna_trlhpo.visualization import write_report
from tests.visualization.conftest import MAKERS, grow, studied


class Page(HTMLParser):
    """Text, and what would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str | None] = []
        self.scripts: dict[str | None, str] = {}
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value != "data:,"]
        self._script = dict(attrs).get("id", "") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = data


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_one_page_of_every_study(name: str, make: Callable[[str], Study], tmp_path: Path) -> None:
    path = write_report(make(name), tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html" and path.stat().st_size < 5e6
    page = Page(path.read_text(encoding="utf-8"))
    assert page.fetched == []
    figures = json.loads(unpacked(page.scripts["data"]))
    ids = re.findall(r'class="figure" id="(\w+)"', path.read_text(encoding="utf-8"))
    assert [figure["id"] for figure in figures] == ids
    assert all(figure["figure"]["data"] for figure in figures)
    assert "$" not in page.text  # nothing of the template is left


def test_what_the_page_says(make: Callable[[str], Study], tmp_path: Path) -> None:
    study = make("paper")
    page = Page(write_report(study, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.scripts["plotly"] and "Plotly" in unpacked(page.scripts["plotly"])
    for said in (
        "12 complete",
        "MACs",
        "classifier",
        "max layers",
        "TRLHPOSampler",
        "Table I",
        "agent: heads",
        optuna.__version__,
    ):
        assert said in page.text
    assert f"{study.best_value:.4f}" in page.text
    assert len(json.loads(unpacked(page.scripts["data"]))) == 10


def test_names_are_text_and_no_html(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="<script>alert(1)</script> $title & more")
    study.set_user_attr("<b>", "</table>")
    html = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html and "<b>" not in html
    assert "<script>alert(1)</script> $title & more" in Page(html).text


def test_several_objectives_have_a_table_of_trade_offs(make: Callable[[str], Study], tmp_path: Path) -> None:
    study = make("several objectives")
    page = Page(write_report(study, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Pareto-optimal trials" in page.text and "the best by Objective Value 0" in page.text
    assert all(f"{trial.values[1]:.6g}" in page.text for trial in study.best_trials)


def test_what_violates_a_constraint_is_not_called_the_best(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("number", float(trial.number - 1))
        return grow(trial) + trial.number  # better and better, and only the first two are allowed

    study = studied(objective, optuna.samplers.RandomSampler(seed=0), n=3)
    page = Page(write_report(study, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "number: 2 of 3 trials satisfy all" in page.text
    forbidden = describe(network_in(study.trials[2].params))
    assert forbidden not in page.text and "Trial 2" not in page.text


@pytest.mark.slow
def test_a_long_study_is_a_small_page(tmp_path: Path) -> None:
    assert write_report(study_of(1000), tmp_path / "report.html").stat().st_size < 5e6


def test_settings_are_in_words_and_sections_are_not_empty(tmp_path: Path) -> None:
    space = LayerSpace(max_layers=3, max_macs=1_234_567, min_accuracy=None)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: sum(0.1 for _ in space.suggest(trial)), n_trials=3)
    study.set_user_attr("confirmed_accuracies", {"a": {"Conv(8,3,1)": [0.5, 0.6]}, "b": 3, "c": {"x": "y"}})

    class Again:
        architecture, test_accuracy, seconds = "Conv(16,3,1)", 0.987, 12.0

    text = write_report(study, tmp_path / "a.html", refit=Again()).read_text(encoding="utf-8")
    body = text[text.index("<body>") : text.index("<script")]
    assert "1,234,567" in body and "max macs" in body and "Table I" in body
    assert (
        "null" not in body
        and "{}" not in body
        and "_" not in body[body.index("<h3>Space") : body.index("<h2>Versions")]
    )
    for left_out in ("<h2>Agent", "<h2>Attention"):  # a random sampler has neither
        assert left_out not in body
    assert "<h2>Optimisation History" in body and "<h2>Trained again" in body
    assert "0.5500" in body and "0.5000 to 0.6000" in body and "test accuracy 98.70%" in body
    assert "Trained again" not in write_report(study_without_attributes(), tmp_path / "b.html").read_text()


def study_without_attributes() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def test_what_a_zoom_hides_is_said(tmp_path: Path) -> None:
    space = LayerSpace(max_layers=4, min_improvement=None, min_accuracy=None)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        accuracy = 0.0
        for layers in space.grow(trial):
            accuracy = 0.9 + 0.001 * len(layers)
            trial.report(accuracy, step=len(layers) - 1)
        return accuracy

    study.optimize(objective, n_trials=12)
    text = write_report(study, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "First layers and outliers are out of range" in text
