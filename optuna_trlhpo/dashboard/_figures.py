"""The figures of `visualization` as optuna-dashboard can bear them: small.

The dashboard sends all figures of a study to the page every few seconds, and keeps them in the study in
pieces of two thousand characters.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo import visualization

FIGURES = {
    "trlhpo-architecture": "plot_architecture",
    "trlhpo-layer-rewards": "plot_layer_rewards",
    "trlhpo-layer-affinity": "plot_layer_affinity",
    "trlhpo-search-tree": "plot_search_tree",
    "trlhpo-pareto-layers": "plot_pareto_layers",
    "trlhpo-agent": "plot_agent",
    "trlhpo-attention": "plot_attention",
    "trlhpo-attention-affinity": "plot_attention_affinity",
}
"""Which figure of `visualization` is published under which id of a graph object."""

MOST_CHARACTERS = 80_000
"""Of a figure. Where it would be larger, it is of fewer trials: the best, and some of the others."""

_LEAST_TRIALS = 10


def figure_of(study: Study, name: str, best: Sequence[FrozenTrial]) -> str | None:
    """A figure as JSON of plotly; None where the study has no data for it.

    Args:
        study: Any.
        name: A function of `visualization`.
        best: The best trials, the best first: at least half of those that are shown if not all can be.
    """
    trials = study.get_trials(deepcopy=False)
    count, shown = len(trials), study
    while True:
        figure = _draw(shown, name)
        if figure is None:
            return None
        if shown is not study:
            title = figure.layout.title.text or ""
            figure.update_layout(title_text=f"{title}<br>({len(shown.trials):,} of {len(trials):,} trials)")
        text = str(figure.to_json())
        if len(text) <= MOST_CHARACTERS or count <= _LEAST_TRIALS:
            return text
        # Figures grow with their trials, more or less: a little fewer than that would have it.
        count = max(_LEAST_TRIALS, int(0.9 * min(count, len(shown.trials)) * MOST_CHARACTERS / len(text)))
        shown = _Excerpt(study, _some(trials, [trial.number for trial in best[: count // 2]], count))


def _draw(study: Study, name: str) -> Any:
    with _quiet():
        figure = getattr(visualization, name)(study)
    if not figure.data:
        return None
    # The room that the dashboard has: half the width of the page, and 450 pixels.
    figure.update_layout(width=None, height=None, font_size=10, margin={"l": 60, "r": 20, "t": 60, "b": 50})
    figure.update_annotations(font_size=10)
    return figure


class _Excerpt(Study):
    """A study of which some trials are seen, as Optuna's own samplers see a bracket of Hyperband's."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._shown = trials

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


def _some(trials: Sequence[FrozenTrial], kept: Sequence[int], count: int) -> list[FrozenTrial]:
    """Those whose numbers are to be kept, and others evenly spaced, ``count`` in all, in order."""
    others = [trial for trial in trials if trial.number not in kept]
    wanted = max(count - len(kept), 1)
    spaced = [others[len(others) * k // wanted] for k in range(wanted)] if others else []
    numbers = {*kept, *(trial.number for trial in spaced)}
    return [trial for trial in trials if trial.number in numbers]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of figures that have no data, in this thread: they are left out."""
    thread = threading.get_ident()

    def other(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno > logging.WARNING

    logger = logging.getLogger("optuna.trlhpo.visualization")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
