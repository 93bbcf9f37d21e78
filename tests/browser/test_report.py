"""The report opens in a browser without a network: every figure is drawn, and nothing is wrong or fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.visualization import write_report

pytestmark = pytest.mark.browser

OVERLAPS = """
() => {
  const found = [];
  for (const figure of document.querySelectorAll(".js-plotly-plot")) {
    // The box around a slanted text is wider than the text.
    const slanted = (it) => /rotate\\((?!0|-?90)/.test(it.getAttribute("transform") || "");
    const texts = [...figure.querySelectorAll("text")].filter(
      (it) => it.textContent.trim() && !it.closest(".hoverlayer") && !slanted(it)
    );
    const boxes = texts.map((it) => it.getBoundingClientRect());
    for (let i = 0; i < texts.length; i++) {
      for (let k = i + 1; k < texts.length; k++) {
        const [a, b] = [boxes[i], boxes[k]];
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        const least = Math.min(a.width * a.height, b.width * b.height);
        if (width > 2 && height > 2 && width * height > 0.15 * least) {
          found.push(`${figure.id}: "${texts[i].textContent}" and "${texts[k].textContent}"`);
        }
      }
    }
  }
  return found;
}
"""
"""Pairs of texts of a figure that cover each other by more than a sixth of the smaller one."""

TURNED = """
() => [...document.querySelectorAll(".js-plotly-plot .bartext")]
  .filter((it) => /rotate\\((?!0)/.test(it.getAttribute("transform") || ""))
  .map((it) => it.textContent)
"""
"""Numbers on bars that are not upright."""

SPACE = LayerSpace(max_layers=3, min_improvement=None, min_accuracy=None)


def grow(trial: optuna.Trial) -> float:
    accuracy = 0.0
    for layers in SPACE.grow(trial):
        accuracy = 0.4 + 0.15 * len(layers) - 0.3 * float(SPACE.encode(layers)[-1].mean())
        trial.report(accuracy, step=len(layers) - 1)
    return accuracy


def test_the_report_opens_without_a_network(page: Any, tmp_path: Path) -> None:
    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    sampler = TRLHPOSampler.paper(seed=0, agent=agent, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(grow, n_trials=12)
    path = write_report(study, tmp_path / "report.html")
    assert path.stat().st_size < 5e6

    said, errors, asked = [], [], []
    page.context.set_offline(True)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn=true]", timeout=30_000)
    page.context.set_offline(False)

    assert (said, errors) == ([], [])
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == [path.as_uri()]
    assert page.locator(".js-plotly-plot .main-svg").count() >= 8
    assert page.locator(".js-plotly-plot").count() == page.locator(".figure").count() == 10
    assert "The best network" in page.inner_text("body")
    page.locator(".updatemenu-header").click()  # the menu of heads
    page.locator(".updatemenu-dropdown-button").nth(1).click()
    assert errors == []


def default_study() -> optuna.Study:
    sampler = TRLHPOSampler(seed=0)
    study = optuna.create_study(study_name="digits", direction="maximize", sampler=sampler)
    study.set_metric_names(["accuracy"])
    study.optimize(grow, n_trials=40)
    return study


def paper_study() -> optuna.Study:
    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    sampler = TRLHPOSampler.paper(seed=0, agent=agent, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(grow, n_trials=30)
    return study


def random_study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(grow, n_trials=100)
    return study


@pytest.mark.parametrize("make", [default_study, paper_study, random_study], ids=lambda it: it.__name__)
def test_no_texts_overlap_and_no_section_is_empty(page: Any, tmp_path: Path, make: Any) -> None:
    path = write_report(make(), tmp_path / "report.html")
    for width in (1400, 800):
        page.set_viewport_size({"width": width, "height": 1000})
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn=true]", timeout=30_000)
        page.wait_for_timeout(500)  # until it has come to rest
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate(TURNED) == []
    empty = page.locator(".js-plotly-plot").evaluate_all(
        "all => all.filter(it => !it.data || !it.data.some(trace => trace.x || trace.z)).map(it => it.id)"
    )
    assert empty == []
    heads = page.locator("h2").evaluate_all(
        "all => all.filter(it => !it.nextElementSibling || it.nextElementSibling.tagName === 'H2')"
    )
    assert heads == []
