"""Figures of `optuna_trlhpo.visualization`, reduced in size for optuna-dashboard.

The dashboard sends all figures of a study to the page every few seconds. It stores them in the study in
pieces of two thousand characters.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo import visualization

FIGURES = {
    "trlhpo-architecture": "plot_architecture",
    "trlhpo-layer-rewards": "plot_layer_rewards",
    "trlhpo-layer-affinity": "plot_layer_affinity",
    "trlhpo-importances": "plot_importances",
    "trlhpo-search-tree": "plot_search_tree",
    "trlhpo-pareto-layers": "plot_pareto_layers",
    "trlhpo-agent": "plot_agent",
    "trlhpo-attention": "plot_attention",
    "trlhpo-attention-affinity": "plot_attention_affinity",
}
"""Mapping of graph object ids in the dashboard to functions of `optuna_trlhpo.visualization`."""

MOST_CHARACTERS = 80_000
"""Maximum size of a figure.

A larger figure is reduced in this order: rounded numbers, no hover texts, fewer points.
"""

_DIGITS = 5
_FEWEST = 50
"""Minimum number of points of a reduced trace."""


def figure_of(study: Study, name: str, best: Sequence[FrozenTrial]) -> str | None:
    """Return a figure as Plotly JSON, or None if the study has no data for it.

    Counts, tests and texts always refer to the whole study, even if only some of the points are drawn.

    Args:
        study: Any study.
        name: Name of a function of `optuna_trlhpo.visualization`.
        best: Best trials, best first. The architecture of the first one is drawn.
    """
    how = {"trial": best[0]} if best and name == "plot_architecture" else {}
    with _quiet():
        figure = getattr(visualization, name)(study, **how)
    if not figure.data:
        return None
    # The dashboard shows a figure at half the width of the page, with a height of 450 pixels.
    margin = {"l": 60, "r": 20, "t": 110 if figure.layout.updatemenus else 60, "b": 50}
    figure.update_layout(width=None, height=None, font_size=10, margin=margin)
    figure.update_annotations(font_size=10)
    text = str(figure.to_json())
    return text if len(text) <= MOST_CHARACTERS else _smaller(json.loads(text))


def _smaller(figure: dict[str, Any]) -> str:
    figure = _rounded(figure)
    traces: list[dict[str, Any]] = figure["data"]
    if len(_written(figure)) > MOST_CHARACTERS:
        for trace in traces:
            if trace["type"] in ("scatter", "box") and "text" in trace:
                del trace["text"]
                template = trace.get("hovertemplate", "").replace("%{text}", "").removeprefix("<br>")
                trace["hovertemplate"] = template
                if template == "<extra></extra>":
                    trace["hoverinfo"] = "skip"
    whole, title = copy.deepcopy(traces), figure["layout"]["title"]
    share, text, before = 1.0, _written(figure), title["text"]
    while len(text) > MOST_CHARACTERS and share > 1e-3:
        share *= 0.95 * MOST_CHARACTERS / len(text)
        traces[:] = [_thinned(trace, share) for trace in whole]
        drawn, all_points = _count(traces), _count(whole)
        title["text"] = f"{before}<br>({drawn:,} of {all_points:,} points are drawn, all are counted)"
        text = _written(figure)
    return text


def _written(figure: dict[str, Any]) -> str:
    import plotly.io

    # The encoding of the dashboard, which needs six characters for each HTML special character.
    return str(plotly.io.json.to_json_plotly(figure))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _count(traces: Sequence[dict[str, Any]]) -> int:
    """Count the points of scatter plots."""
    return sum(len(trace["x"]) for trace in traces if "markers" in trace.get("mode", ""))


def _thinned(trace: dict[str, Any], share: float) -> dict[str, Any]:
    """Return the trace with about this fraction of its points, evenly spaced.

    The points of a box plot are spaced by rank from the lowest to the highest, which preserves the quartiles.
    Lines are not changed.
    """
    n = len(trace.get("y", ()))
    if "markers" in trace.get("mode", ""):
        places = _spaced(range(n), share, _FEWEST)
    elif trace["type"] == "box":
        groups: dict[Any, list[int]] = {}
        for i in range(n):
            groups.setdefault(trace["x"][i] if "x" in trace else 0, []).append(i)
        sorted_groups = (sorted(group, key=lambda i: trace["y"][i]) for group in groups.values())
        places = [i for group in sorted_groups for i in _spaced(group, share, _FEWEST)]
    else:
        return trace
    return _taken(trace, n, places) if len(places) < n else trace


def _spaced(places: Sequence[int], share: float, fewest: int) -> list[int]:
    """Select the first and the last place, and evenly spaced ones between them."""
    n, count = len(places), max(fewest, round(share * len(places)))
    return list(places) if count >= n else [places[k * (n - 1) // (count - 1)] for k in range(count)]


def _taken(value: Any, n: int, places: Sequence[int]) -> Any:
    """Select the places in all arrays of ``n`` elements: coordinates, colours, lengths of error bars."""
    if isinstance(value, dict):
        return {key: _taken(one, n, places) for key, one in value.items()}
    return [value[i] for i in places] if isinstance(value, list) and len(value) == n else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of figures without data in this thread, because these figures are omitted."""
    thread = threading.get_ident()

    def other(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno > logging.WARNING

    logger = logging.getLogger("optuna.trlhpo.visualization")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
