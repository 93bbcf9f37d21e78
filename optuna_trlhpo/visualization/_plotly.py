"""Import of Plotly, and common elements of all figures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.visualization._study import logger

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREY = "#7f7f7f"
NEGATIVE, POSITIVE = "#EF553B", "#00CC96"
DOTTED = {"width": 1, "dash": "dot"}
"""Line of a reference, such as a reward of 0."""
LEGEND_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"}
"""Legend above the axes, on the right, for a figure whose right side has a colour bar."""
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


class Info(Protocol):
    """Data of a figure."""

    @property
    def note(self) -> str:
        """Why there is no data. Empty if there is data."""


_Info = TypeVar("_Info", bound=Info)


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


def draw_figure(title: str, get_info: Callable[[], _Info], draw: Callable[[_Info], go.Figure]) -> go.Figure:
    """Read the data of a figure and draw it, or an empty figure with the reason for the lack of data.

    Args:
        title: Title of the figure, unless ``draw`` sets another one.
        get_info: Function that reads the data. It is called only if Plotly is installed.
        draw: Function that draws the data.

    Raises:
        ImportError: If Plotly is not installed.
    """
    import_plotly()
    info = get_info()
    if info.note:
        return empty_figure(title, info.note)
    figure = draw(info)
    return figure if figure.layout.title.text else figure.update_layout(title_text=title)


def empty_figure(title: str, note: str) -> go.Figure:
    """Return a figure without data that shows the reason ``note``, and log it, as Optuna's figures do."""
    logger.warning(note)
    go = import_plotly()
    figure = go.Figure(layout={"title": title})
    text = "<br>".join(map(in_plotly, textwrap.wrap(note, 70)))
    figure.add_annotation(text=text, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def panels(
    titles: Sequence[str], *, rows: int = 1, columns: int = 2, shared_yaxes: bool = False, **layout: Any
) -> go.Figure:
    """Return a figure with ``[rows, columns]`` panels.

    Args:
        titles: Titles of the panels, row by row.
        rows: Number of rows.
        columns: Number of columns.
        shared_yaxes: Whether the panels of a row have one vertical axis, and so are close together.
        layout: More arguments of ``plotly.subplots.make_subplots``.
    """
    from plotly.subplots import make_subplots

    return make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        shared_yaxes=shared_yaxes,
        horizontal_spacing=0.03 if shared_yaxes else 0.1,
        **layout,
    )
