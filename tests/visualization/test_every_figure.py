"""Every figure of every study is a figure or one clear sentence, and never an exception."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import optuna
import plotly.graph_objects as go
import pytest
from matplotlib.axes import Axes
from optuna.study import Study

from optuna_trlhpo import visualization
from optuna_trlhpo.benchmarks.overhead.figures import study_of
from tests.visualization.conftest import MAKERS

FIGURES = [name for name in visualization.__all__ if name.startswith("plot_")]
TWINS = visualization.matplotlib.__all__

NOTES = {
    ("empty", "*"): "The study has no finished trial.",
    ("failed", "*"): "All 3 finished trials of the study failed.",
    ("failed", "plot_attention"): "No trial of the study has attention",
    ("no layers", "plot_importances"): "",
    ("no layers", "plot_agent"): "No trial of the study was decided by the agent",
    ("no layers", "plot_attention"): "No trial of the study has attention",
    ("no layers", "*"): "No trial of the study has the layers of a LayerSpace.",
    ("no layers, paper", "plot_importances"): "",
    ("no layers, paper", "plot_agent"): "",
    ("no layers, paper", "plot_attention"): "",
    ("no layers, paper", "*"): "No trial of the study has the layers of a LayerSpace.",
    ("somebody else's", "plot_importances"): "Fewer than two complete trials",
    ("somebody else's", "plot_attention"): "No trial of the study has attention",
    ("somebody else's", "plot_agent"): "No trial of the study was decided by the agent of a TRLHPOSampler",
    ("somebody else's", "*"): "No trial of the study has the layers of a LayerSpace.",
    ("pruned", "plot_importances"): "Fewer than two complete trials have parameters and different values.",
    ("one layer", "plot_layer_affinity"): "No pair of neighbouring layers has a gain",
    ("several objectives", "plot_layer_affinity"): "No pair of neighbouring layers has a gain",
    ("several objectives", "plot_agent"): "No trial of the study was decided by the agent",
    ("several objectives", "plot_attention"): "No trial of the study has attention",
    ("several objectives", "plot_attention_affinity"): "No trial with layers has attention",
    ("several objectives, paper", "plot_layer_affinity"): "No pair of neighbouring layers has a gain",
    ("random", "plot_agent"): "No trial of the study was decided by the agent of a TRLHPOSampler",
    ("random", "plot_attention"): "No trial of the study has attention",
    ("random", "plot_attention_affinity"): "No trial with layers has attention",
    ("added", "plot_pareto_layers"): "pass the space",
}
"""What must be said. ``"*"``: of every figure not named. Where nothing is said here, and no other of the
study, there may be either; an empty text: there must be data."""
WITH_DATA = {
    "paper": FIGURES,
    "scores": FIGURES,
    "minimize": FIGURES,
    "no accuracy": FIGURES,
    "pruned": [name for name in FIGURES if name != "plot_importances"],
    "whole": ["plot_attention", "plot_agent", "plot_architecture", "plot_pareto_layers"],
    "transformer": ["plot_attention", "plot_attention_affinity", "plot_agent", "plot_search_tree"],
    "default": [
        "plot_attention",
        "plot_attention_affinity",
        "plot_agent",
        "plot_architecture",
        "plot_search_tree",
        "plot_pareto_layers",
    ],
    "one layer": ["plot_attention", "plot_attention_affinity", "plot_agent", "plot_layer_rewards"],
    "random": ["plot_layer_rewards", "plot_layer_affinity", "plot_search_tree", "plot_pareto_layers"],
    "tpe": ["plot_layer_rewards", "plot_layer_affinity", "plot_search_tree", "plot_architecture"],
    "several objectives": ["plot_architecture", "plot_search_tree", "plot_pareto_layers"],
    "several objectives, paper": ["plot_attention", "plot_agent", "plot_search_tree"],
    "running": ["plot_layer_rewards", "plot_search_tree", "plot_architecture"],
    "infinite": ["plot_layer_rewards", "plot_search_tree", "plot_pareto_layers"],
    "added": ["plot_layer_rewards", "plot_layer_affinity", "plot_search_tree", "plot_architecture"],
    "other kinds": ["plot_layer_rewards", "plot_search_tree", "plot_pareto_layers", "plot_architecture"],
}


def wanted(study: str, figure: str) -> str | None:
    if figure in WITH_DATA.get(study, []):
        return ""
    return NOTES.get((study, figure), NOTES.get((study, "*")))


def said_by(figure: go.Figure) -> str:
    """The sentence of an empty figure; of one with data nothing."""
    if figure.data:
        return ""
    (annotation,) = figure.layout.annotations
    return annotation.text.replace("<br>", " ")


@pytest.mark.parametrize("study", MAKERS)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_or_a_sentence(
    name: str, study: str, make: Callable[[str], Study], caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING, logger="optuna"):
        figure = getattr(visualization, name)(make(study))
    optuna.logging.disable_propagation()
    assert isinstance(figure, go.Figure)
    go.Figure(figure.to_dict())  # plotly checks it again
    figure.to_json()
    assert figure.layout.title.text
    said, must = said_by(figure), wanted(study, name)
    if must is not None:
        assert (must in said) if must else said == ""
    assert not said or said in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("study", MAKERS)
@pytest.mark.parametrize("name", TWINS)
def test_twins_say_and_show_the_same(name: str, study: str, make: Callable[[str], Study]) -> None:
    axes = getattr(visualization.matplotlib, name)(make(study))
    several = axes if isinstance(axes, list) else [axes]
    assert several and all(isinstance(ax, Axes) for ax in several)
    several[0].figure.canvas.draw()
    said = said_by(getattr(visualization, name)(make(study)))
    texts = [text.get_text() for text in several[0].texts]
    assert (said in texts) == bool(said)


def test_the_notes_are_of_studies_and_figures_that_exist() -> None:
    assert {study for study, _ in NOTES} | set(WITH_DATA) <= set(MAKERS)
    assert {figure for _, figure in NOTES} <= {"*", *FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_written(name: str, make: Callable[[str], Study]) -> None:
    study = make("paper")
    before = study.user_attrs, study.get_trials()
    getattr(visualization, name)(study)
    assert (study.user_attrs, study.get_trials()) == before


@pytest.mark.slow
def test_figures_of_a_long_study_come_soon() -> None:
    """Measured by ``python -m optuna_trlhpo.benchmarks figures``; here only that nothing is quadratic."""
    study = study_of(1000)
    for name in FIGURES:
        start = time.process_time()
        figure = getattr(visualization, name)(study)
        assert figure.data and time.process_time() - start < 10, name


@pytest.mark.parametrize("name", ["plot_attention", "plot_architecture"])
def test_a_trial_that_is_not_there(name: str, make: Callable[[str], Study]) -> None:
    with pytest.raises(ValueError, match="trial is 99; the study has the trials 0 to 11"):
        getattr(visualization, name)(make("paper"), 99)


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"plot_attention", "plot_architecture", "plot_agent"}))
def test_an_objective_that_is_not_there(name: str, make: Callable[[str], Study]) -> None:
    for wrong in (1, -1, "accuracy"):
        with pytest.raises(ValueError, match=f"objective is {wrong!r}; the study has 1"):
            getattr(visualization, name)(make("paper"), objective=wrong)


@pytest.mark.parametrize(
    ("module", "name"), [("plotly", name) for name in FIGURES] + [("matplotlib", name) for name in TWINS]
)
def test_without_the_package_the_extra_is_named(
    module: str, name: str, make: Callable[[str], Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    room = visualization if module == "plotly" else visualization.matplotlib
    with pytest.raises(ImportError, match=r"optuna-trlhpo\[visualization\]"):
        getattr(room, name)(make("paper"))
