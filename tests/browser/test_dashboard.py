"""optuna-dashboard, in a browser, on a study that `make demo`'s own code has made and published."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore

from optuna_trlhpo.dashboard import publish
from optuna_trlhpo.visualization import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOT = ROOT / "docs" / "images" / "dashboard.png"
REPORT = SCREENSHOT.with_name("report.png")
TRIALS = 100
WAIT = 60_000
"""Milliseconds, for a busy machine."""


class Served(NamedTuple):
    url: str
    best: optuna.trial.FrozenTrial
    last: int
    """The number of a trial that is not among the best."""
    report: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("demo")
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples" / "quickstart.py")
    assert spec is not None and spec.loader is not None
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    storage = f"sqlite:///{folder / 'digits.db'}"
    study, objective = quickstart.search(storage, TRIALS, epochs=2)  # the demo trains longer, to be better
    artifacts = folder / "files"
    artifacts.mkdir()
    report = write_report(study, folder / "report.html")
    publish(study, artifact_store=FileSystemArtifactStore(str(artifacts)), objective=objective)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    where = ["--host", "127.0.0.1", "--port", str(port), "--artifact-dir", str(artifacts)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([str(program), storage, *where], stdout=log, stderr=log, env={**os.environ})
        try:
            wait_for(f"http://127.0.0.1:{port}/api/studies", server)
            best = study.best_trial
            last = min(study.trials, key=lambda trial: trial.value if trial.value is not None else 1.0)
            url = f"http://127.0.0.1:{port}/dashboard/studies/{study._study_id}"
            yield Served(url, best, last.number, report)
        finally:
            server.terminate()
            server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        assert server.poll() is None, "the dashboard has ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the dashboard did not answer within a minute")


def test_the_study_opens_with_its_figures(served: Served, page: Page) -> None:
    page.goto(served.url)
    # As of a user: the title of each figure, drawn.
    for identity, title in {
        "trlhpo-architecture": f"Architecture of Trial {served.best.number}",
        "trlhpo-layer-rewards": "Layer Rewards",
        "trlhpo-layer-affinity": "Layer Affinity",
        "trlhpo-importances": "Parameter Importances",
        "trlhpo-search-tree": "Search Tree",
        "trlhpo-pareto-layers": "Pareto Front of Layers",
        "trlhpo-agent": "Agent",
    }.items():
        figure = page.locator(f'[id="user-defined-plot:{identity}"]')
        figure.get_by_text(title).first.wait_for(timeout=WAIT)
        assert figure.locator("svg.main-svg").count() > 0
    # Data and not only axes.
    rewards = page.locator('[id="user-defined-plot:trlhpo-layer-rewards"]')
    assert rewards.locator(".scatterlayer .point").count() >= 10
    page.get_by_text("Hyperparameter Importance").first.wait_for(timeout=WAIT)
    figure = page.locator('[id="user-defined-plot:trlhpo-architecture"]')
    figure.scroll_into_view_if_needed(timeout=WAIT)
    page.wait_for_timeout(1_000)  # until it has come to rest
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT)
    assert SCREENSHOT.stat().st_size < 300_000


def test_the_note_of_the_study(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/note")
    page.get_by_text(f"The best trial: {served.best.number}, accuracy {served.best.value:.4f}").wait_for(
        timeout=WAIT
    )
    tables = page.locator("table")
    assert tables.count() == 2
    first_layer = served.best.user_attrs["architecture"].split(" > ")[0]
    assert first_layer in tables.first.inner_text()
    assert f"{served.best.user_attrs['macs']:,}" in tables.first.inner_text()
    text = page.locator("body").inner_text()
    assert f"{TRIALS} trials:" in text
    assert "optuna-trlhpo begins" not in text and "|" not in text  # all of it was understood


def test_the_best_trial_has_a_note_and_files(served: Served, page: Page) -> None:
    number = served.best.number
    page.goto(f"{served.url}/trials?numbers={number}")
    page.get_by_text(f"accuracy {served.best.value:.4f}").wait_for(timeout=WAIT)
    assert served.best.user_attrs["architecture"] in page.locator("body").inner_text()
    for name in (f"trial-{number}.svg", f"trial-{number}.onnx"):
        page.get_by_text(name).first.wait_for(timeout=WAIT)
    picture = page.locator('img[src*="/artifacts/"]').first
    picture.wait_for(timeout=WAIT)
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())


def test_other_trials_have_none(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/trials?numbers={served.last}")
    page.get_by_text(re.compile(rf"^Trial {served.last} \(")).first.wait_for(timeout=WAIT)
    assert page.locator("table").count() == 0
    assert page.get_by_text(re.compile(r"\.onnx")).count() == 0


def test_the_table_of_trials(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/smartSelection")
    table = page.locator("table").first
    table.wait_for(timeout=WAIT)
    head = table.locator("thead").inner_text()
    assert all(
        f"Attribute {name}" in " ".join(head.split()) for name in ("architecture", "macs", "parameters")
    )
    first = table.locator("tbody tr").first.inner_text()
    assert re.search(
        r"(^|\t)\w*(Conv|Residual)\(\d+,\d,\d\)( > \w+\([\w,]*\))*(\t|$)", first, flags=re.MULTILINE
    )


def test_the_report_of_the_study(served: Served, page: Page) -> None:
    page.set_viewport_size({"width": 1200, "height": 1150})
    page.goto(served.report.as_uri())
    page.wait_for_selector("body[data-drawn=true]", timeout=WAIT)
    page.get_by_role("heading", name="Architecture of Trial").evaluate("it => it.scrollIntoView()")
    page.wait_for_timeout(500)  # until it has come to rest
    page.screenshot(path=REPORT)
    assert REPORT.stat().st_size < 300_000
