"""Matplotlib versions of some figures, for print, as in `optuna.visualization.matplotlib`.

They show the same content as the Plotly figures of the same names, accept the same arguments and return the
axes from left to right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.study import Study

from optuna_trlhpo._texts import in_matplotlib
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.visualization import (
    _agent,
    _attention_affinity,
    _layer_affinity,
    _layer_rewards,
    _pareto_layers,
)
from optuna_trlhpo.visualization._plotly import NEGATIVE, POSITIVE, colours_of
from optuna_trlhpo.visualization._study import logger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_agent",
    "plot_attention_affinity",
    "plot_layer_affinity",
    "plot_layer_rewards",
    "plot_pareto_layers",
]

_STYLE = "ggplot"  # the style of Optuna's figures
_DOTTED: dict[str, Any] = {"color": "grey", "linewidth": 0.8, "linestyle": ":"}
"""Line of a reference, such as a reward of 0."""


def _import_pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            'these figures need matplotlib; install it with: pip install "optuna-trlhpo[visualization]"'
        ) from error
    return pyplot


def _panels(title: str, note: str, rows: int = 1, columns: int = 1, **layout: Any) -> np.ndarray:
    """Create the axes ``[rows, columns]``, or a single one with the note if there is a note."""
    plt = _import_pyplot()
    if note:
        rows = columns = 1
        logger.warning(note)
    with plt.style.context(_STYLE):
        size = {"figsize": (1 + 5 * columns, 0.6 + 4 * rows)} if rows * columns > 1 else {}
        figure, axes = plt.subplots(
            rows, columns, squeeze=False, layout="constrained", **{**size, **({} if note else layout)}
        )
    figure.suptitle(title)
    if note:
        text = in_matplotlib(note)
        axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes[0, 0].transAxes)
        axes[0, 0].set_axis_off()
    return axes


def plot_layer_rewards(study: Study, *, objective: int = 0) -> list[Axes]:
    """Plot the layer rewards; see `optuna_trlhpo.visualization.plot_layer_rewards`."""
    info = _layer_rewards.get_layer_rewards_info(study, objective)
    axes = _panels(_layer_rewards.TITLE, info.note, columns=2, sharey=True)[0]
    if info.note:
        return list(axes)
    colours, kinds = colours_of(info.kinds), info.kinds
    for i, kind in enumerate(kinds):
        own = info.of_kind(kind)
        rewards = [one.reward for one in own]
        axes[0].plot([one.number for one in own], rewards, ".", color=colours[kind], label=kind)
        positions = sorted({one.position for one in own})
        axes[1].boxplot(
            [[one.reward for one in own if one.position == position] for position in positions],
            positions=[position + 0.8 * ((i + 0.5) / len(kinds) - 0.5) for position in positions],
            widths=0.7 / len(kinds),
            manage_ticks=False,
            boxprops={"color": colours[kind]},
            medianprops={"color": colours[kind]},
        )
    axes[0].set(title="Over trials", xlabel="Trial", ylabel=f"Gain ({in_matplotlib(info.value_name)})")
    axes[1].set(title="By position", xlabel="Position")
    axes[1].set_xticks(range(1, 1 + max(one.position for one in info.rewards)))
    axes[0].legend()
    for ax in axes:
        ax.axhline(0, **_DOTTED)
    return list(axes)


def plot_layer_affinity(study: Study, *, objective: int = 0) -> list[Axes]:
    """Plot the layer affinity; see `optuna_trlhpo.visualization.plot_layer_affinity`."""
    info = _layer_affinity.get_layer_affinity_info(study, objective)
    axes = _panels(_layer_affinity.TITLE, info.note, columns=2, sharey=True)[0]
    if info.note:
        return list(axes)
    y = np.arange(len(info.pairs))
    for shift, label, colour, counts in (
        (-0.2, "negative gain", NEGATIVE, [pair.negative for pair in info.pairs]),
        (0.2, "positive gain", POSITIVE, [pair.positive for pair in info.pairs]),
    ):
        axes[0].barh(y + shift, counts, height=0.38, color=colour, label=label)
    axes[0].set_yticks(y, [pair.name for pair in info.pairs])
    axes[0].set(title="Networks that end in the pair", xlabel="Networks")
    axes[0].invert_yaxis()
    axes[0].legend()
    shares = np.array([pair.share for pair in info.pairs])
    ends = [
        np.maximum([pair.share - pair.low for pair in info.pairs], 0),
        np.maximum([pair.high - pair.share for pair in info.pairs], 0),
    ]
    axes[1].errorbar(shares, y, xerr=ends, fmt="o", color=NEGATIVE, capsize=3)
    for place, pair in enumerate(info.pairs):
        axes[1].annotate(
            f"{pair.negative} of {pair.n}",
            (pair.share, place),
            (0, 7),
            textcoords="offset points",
            ha="right" if pair.share > 0.85 else "left" if pair.share < 0.15 else "center",
        )
    axes[1].axvline(info.overall, **_DOTTED)
    axes[1].set(title="Fraction of negative gains, 95 % interval", xlabel="Fraction", xlim=(-0.03, 1.03))
    return list(axes)


def plot_attention_affinity(study: Study, *, objective: int = 0) -> list[Axes]:
    """Plot the attention affinity; see `optuna_trlhpo.visualization.plot_attention_affinity`.

    The axes are returned row by row.
    """
    info = _attention_affinity.get_attention_affinity_info(study, objective)
    panels = _panels(_attention_affinity.TITLE, info.note, rows=max(len(info.found), 1), columns=2)
    if info.note:
        return list(panels[0])
    for (left, right), found in zip(panels, info.found, strict=True):
        name = found.whose.capitalize()
        groups = [("best", POSITIVE, found.best), ("negative gain", NEGATIVE, found.negative)]
        for place, (_, colour, layers) in enumerate(groups):
            shares = [one.share for one in layers]
            # Spread horizontally by their order, so that equal values do not overlap.
            spread = place + 0.25 * (np.arange(len(shares)) % 11 - 5) / 5
            left.plot(spread, shares, ".", color=colour, alpha=0.6, markersize=4)
            if shares:
                left.boxplot([shares], positions=[place], widths=0.6, showfliers=False)
        left.set_xticks([0, 1], [label for label, *_ in groups])
        left.set_ylabel("Attention to the layer")
        finding = _attention_affinity.sentence_of_difference(found)
        left.set_title(f"{name}, attention to the layer added last\n{finding}", fontsize=9)
        removed = found.removed
        points = right.scatter(
            [one.lift for one in removed],
            [one.cost for one in removed],
            c=[one.position for one in removed],
            cmap="viridis",
            s=12,
        )
        right.axhline(0, **_DOTTED)
        right.set(xlabel="Attention relative to uniform attention", ylabel="Cost of removing the layer")
        finding = _attention_affinity.sentence_of_agreement(found)
        right.set_title(f"{name}, attention and the cost of removal\n{finding}", fontsize=9)
        if removed:
            right.figure.colorbar(points, ax=right, label="position")
    return list(panels.flat)


def plot_pareto_layers(
    study: Study, *, cost: str = "macs", objective: int = 0, space: LayerSpace | None = None
) -> Axes:
    """Plot the Pareto front of layers; see `optuna_trlhpo.visualization.plot_pareto_layers`."""
    info = _pareto_layers.get_pareto_layers_info(study, cost, objective, space)
    ax = _panels(_pareto_layers.TITLE, info.note)[0, 0]
    if info.note:
        return ax
    front = info.front
    ax.step(
        [point.cost for point in front],
        [point.value for point in front],
        where="post",
        color=NEGATIVE,
        label="front",
    )
    points = ax.scatter(
        [point.cost for point in info.points],
        [point.value for point in info.points],
        c=[len(point.network) for point in info.points],
        cmap="viridis",
        s=16,
        edgecolors="grey",
        linewidths=0.4,
        zorder=3,
    )
    ax.figure.colorbar(points, ax=ax, label="layers")
    ax.set(xlabel=info.cost_name, ylabel=in_matplotlib(info.value_name))
    ax.set_xscale("linear" if cost == "layers" else "log")
    ax.legend()
    return ax


def plot_agent(study: Study) -> list[Axes]:
    """Plot the diagnostics of the agent; see `optuna_trlhpo.visualization.plot_agent`."""
    info = _agent.get_agent_info(study)
    series, calibration = _agent.series_panels(info), info.calibration
    n = len(series) + bool(calibration.trials)
    rows = max((n + 1) // 2, 1)
    axes = list(_panels(_agent.TITLE, info.note, rows=rows, columns=min(max(n, 1), 2)).flat)
    if info.note:
        return axes
    for ax, (title, several) in zip(axes, series, strict=False):
        for one in several:
            ax.plot(one.trials, one.values, ".-", label=one.name)
        ax.set(title=title, xlabel="Trial", ylabel=_agent.UNITS[title])
        ax.legend()
    if calibration.trials:
        ax, expected = axes[len(series)], np.array(calibration.expected)
        ends = np.maximum([expected - calibration.low, np.array(calibration.high) - expected], 0)
        ax.errorbar(expected, calibration.realised, xerr=ends, fmt=".", elinewidth=0.5)
        both = [*calibration.expected, *calibration.realised]
        ax.plot([min(both), max(both)], [min(both), max(both)], ":", color="grey")
        ax.set_title(_agent.foresight_title(calibration).replace("<br>", "\n"), fontsize=9)
        ax.set(xlabel="Expected", ylabel="Realised")
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]
