"""Import of Plotly, and common elements of all figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.visualization._study import logger

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREY = "#7f7f7f"
NEGATIVE, POSITIVE = "#EF553B", "#00CC96"
_COLOURS = (
    "#636EFA",
    "#FFA15A",
    "#00CC96",
    "#AB63FA",
    "#19D3F3",
    "#FF6692",
    "#B6E880",
    "#FF97FF",
    "#FECB52",
    "#EF553B",
)


def import_plotly() -> Any:
    """Import and return ``plotly.graph_objects``.

    Raises:
        ImportError: If Plotly is not installed. The message says how to install it.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError(
            'figures need plotly; install it with: pip install "optuna-trlhpo[visualization]"'
        ) from error
    return go


def colours_of(kinds: Iterable[str]) -> dict[str, str]:
    """Return a colour for each kind of layer. The three kinds of Table I always have the same colours."""
    known = ["Conv", "FCL", "MaxPool"]
    order = known + sorted(set(kinds) - set(known))
    return {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(order)}


def empty_figure(title: str, note: str) -> go.Figure:
    """Return a figure without data that shows the reason ``note``, and log it, as Optuna's figures do."""
    logger.warning(note)
    go = import_plotly()
    figure = go.Figure(layout={"title": title})
    text = "<br>".join(map(in_plotly, textwrap.wrap(note, 70)))
    figure.add_annotation(text=text, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)
