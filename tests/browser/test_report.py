"""The report opens in a browser without a network: every figure is drawn, and nothing is wrong or fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.visualization import write_report

pytestmark = pytest.mark.browser

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
    assert page.locator(".js-plotly-plot").count() == page.locator(".figure").count() == 8
    assert "The best network" in page.inner_text("body")
    page.locator(".updatemenu-header").click()  # the menu of heads
    page.locator(".updatemenu-dropdown-button").nth(1).click()
    assert errors == []
