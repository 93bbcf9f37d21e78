"""`plot_attention_affinity`: relation of attention to the importance of layers (figure 3 of the paper)."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from optuna.study import Study

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.trials.agent_record import read_agent
from optuna_trlhpo.visualization._attention import WHICH_HAVE, WHOSE, layer_steps
from optuna_trlhpo.visualization._plotly import DOTTED, NEGATIVE, POSITIVE, draw_figure, import_plotly, panels
from optuna_trlhpo.visualization._statistics import Tested, difference_within, spearman_within
from optuna_trlhpo.visualization._study import Layered, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Attention Affinity"
_WIDTH = 48
"""Number of characters of a line in the title of a panel."""
_BEST_SHARE = 0.1
"""Fraction of the networks with a value that are considered the best."""


class Attended(NamedTuple):
    """A layer in a network, and its attention there.

    Attributes:
        network: All layers that could be attended to.
        position: Position of the layer, 1 for the first.
        row: Number of weights in the row: of the layers, of the other suggested parameters, and of the query.
        share: Mean weight over the heads, and over the trials with the network.
        cost: Cost of removing the layer: the value of the network less the value of the network without it,
            positive if the removal is harmful. NaN if the study does not have both values.
        is_best: Whether the layer is the last one of one of the best networks or of a prefix of it, and its
            reward is not negative.
        is_negative: Whether the layer is the last one of the network and has a negative reward.
    """

    network: Network
    position: int
    row: int
    share: float
    cost: float
    is_best: bool
    is_negative: bool

    @property
    def lift(self) -> float:
        """Weight relative to uniform attention, for which it is 1."""
        return self.share * self.row

    @property
    def place(self) -> tuple[int, int, int]:
        """Properties that the weight depends on for every layer: row length, depth and position."""
        return self.row, len(self.network), self.position


class AffinityOf(NamedTuple):
    """Results for the actor or for the critic."""

    whose: str
    layers: list[Attended]
    difference: Tested
    """Difference of the mean weights of the best and the negative layers."""
    agreement: Tested
    """Rank correlation of lift and cost."""

    @property
    def best(self) -> list[Attended]:
        """Last layers of the best networks and of their prefixes."""
        return [one for one in self.layers if one.is_best]

    @property
    def negative(self) -> list[Attended]:
        """Last layers with a negative reward."""
        return [one for one in self.layers if one.is_negative]

    @property
    def removed(self) -> list[Attended]:
        """Layers with a known cost of removal."""
        return [one for one in self.layers if not math.isnan(one.cost)]


class AttentionAffinityInfo(NamedTuple):
    """Data of `plot_attention_affinity`."""

    found: list[AffinityOf]
    note: str


def get_attention_affinity_info(study: Study, objective: int) -> AttentionAffinityInfo:
    layered = read_layers(study, objective)
    if layered.note:
        return AttentionAffinityInfo([], layered.note)
    shares = _shares(study, layered)
    if not any(shares.values()):
        return AttentionAffinityInfo([], f"No trial with layers has attention; {WHICH_HAVE}.")
    best = _on_the_way_to_the_best(layered)
    found = []
    for whose in WHOSE:
        layers = [
            _attended(layered, network, position, row, float(np.mean(collected)), best)
            for (network, position, row), collected in shares[whose].items()
        ]
        if layers:
            found.append(_compared(whose, layers))
    return AttentionAffinityInfo(found, "")


def _shares(study: Study, layered: Layered) -> dict[str, dict[tuple[Network, int, int], list[float]]]:
    """Return the weights, averaged over the heads, by network, position of the layer and row length."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    shares: dict[str, dict[tuple[Network, int, int], list[float]]] = {whose: {} for whose in WHOSE}
    for grown in layered.trials:
        note = read_agent(trials[grown.number])
        if note is None:
            continue
        at = layer_steps(trials[grown.number])
        for whose in WHOSE:
            rows = note.attention.get(whose, ())
            for depth, step in enumerate(at, start=1):
                if step >= len(rows):
                    break
                mean = rows[step].mean(axis=0)  # row k has the weights of the first k steps
                for position in range(1, depth + 1):
                    place = grown.layers[:depth], position, len(mean)
                    shares[whose].setdefault(place, []).append(float(mean[at[position - 1]]))
    return shares


def _on_the_way_to_the_best(layered: Layered) -> set[Network]:
    order = sorted(layered.values, key=lambda network: -layered.sign * layered.values[network])
    best = order[: max(1, round(_BEST_SHARE * len(order)))]
    return {network[:k] for network in best for k in range(1, len(network) + 1)}


def _attended(
    layered: Layered, network: Network, position: int, row: int, share: float, best: set[Network]
) -> Attended:
    value = layered.values.get(network)
    without = layered.values.get(network[: position - 1] + network[position:])
    cost = math.nan if value is None or without is None else layered.sign * (value - without)
    is_last = position == len(network)
    is_negative = is_last and cost < 0  # for the last layer, the cost of removal is the reward
    is_best = is_last and network in best and not is_negative
    return Attended(network, position, row, share, cost, is_best, is_negative)


def _compared(whose: str, layers: list[Attended]) -> AffinityOf:
    either = [one for one in layers if one.is_best or one.is_negative]
    difference = difference_within(
        np.array([one.share for one in either]),
        np.array([one.is_best for one in either], dtype=bool),
        [one.place for one in either],
    )
    removed = [one for one in layers if not math.isnan(one.cost)]
    agreement = spearman_within(
        np.array([one.lift for one in removed]),
        np.array([one.cost for one in removed]),
        [one.place for one in removed],
    )
    return AffinityOf(whose, layers, difference, agreement)


def sentence_of_difference(found: AffinityOf) -> str:
    """Return the result of the comparison of the paper's figure 3 as a sentence."""
    d, n, m = found.difference, len(found.best), len(found.negative)
    if math.isnan(d.statistic):
        return f"{n} layers of the best and {m} with a negative gain: no comparison is possible"
    by_place = "" if math.isnan(d.p) else f", of which {d.expected:+.3f} due to position alone; p = {_p(d.p)}"
    return f"best ({n}) minus negative ({m}): {d.statistic:+.3f}{by_place}"


def sentence_of_agreement(found: AffinityOf) -> str:
    """Return the correlation of attention with the cost of removing a layer as a sentence."""
    a = found.agreement
    if math.isnan(a.statistic):
        return f"{a.n} comparable layers with a known cost of removal: too few for a test"
    return (
        f"Spearman's correlation within positions {a.statistic:+.2f} (n = {a.n}, permutation p = {_p(a.p)})"
    )


def attention_affinity_findings(study: Study, *, objective: int = 0) -> list[str]:
    """Return the content of `plot_attention_affinity` as lines of text.

    Examples:
        >>> import optuna
        >>> attention_affinity_findings(optuna.create_study())
        ['The study has no finished trial.']
    """
    info = get_attention_affinity_info(study, objective)
    if info.note:
        return [info.note]
    lines = []
    for found in info.found:
        lifts = np.array([one.lift for one in found.layers])
        low, high = np.quantile(lifts, [0.05, 0.95])
        lines += [
            f"{found.whose}: 90 % of weights lie between {low:.2f} and {high:.2f} times uniform attention",
            f"{found.whose}, attention to the last layer: {sentence_of_difference(found)}",
            f"{found.whose}, attention and the cost of removal: {sentence_of_agreement(found)}",
        ]
    return lines


def _p(p: float) -> str:
    return "not defined" if math.isnan(p) else f"{p:.3f}"


def plot_attention_affinity(study: Study, *, objective: int = 0) -> go.Figure:
    """Plot attention against the importance of layers: figure 3 of the paper, and a test of its claim.

    The left panel shows the attention to a layer immediately after it was added, for layers on the path to
    one of the best 10 % of the networks and for layers with a negative reward. The paper interprets the
    difference as evidence that attention distinguishes good layers from bad ones. But a weight also depends
    on the place of the layer (the longer the row, the smaller each weight). So the title gives the part of
    the difference that is due to the place alone, and the p-value of a permutation test that exchanges layers
    of the same place.

    The right panel tests whether attention agrees with the cost of removing the layer. The cost is the value
    of a network less the value of the network without the layer, where the study has both. This is mostly the
    last layer, because the network without it is the prefix. Attention is shown relative to uniform
    attention. The statistic is Spearman's rank correlation within places (equal row length, depth and
    position), with the p-value of a permutation test within places. A network counts once, with the mean over
    the trials that contain it.

    Args:
        study: A study of a `TRLHPOSampler` with attention on a `LayerSpace`.
        objective: Index of the objective, from 0.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the objective does not exist.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo import TRLHPOSampler
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> sampler = TRLHPOSampler.paper(seed=0, warn_independent_sampling=False)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_attention_affinity(study).layout.title.text
        'Attention Affinity'
    """
    return draw_figure(TITLE, lambda: get_attention_affinity_info(study, objective), _get_plot)


def _title(head: str, finding: str) -> str:
    """Return the title of a panel, narrow enough for two panels side by side."""
    return "<br>".join([head, *textwrap.wrap(finding, _WIDTH)])


def _get_plot(info: AttentionAffinityInfo) -> go.Figure:
    go = import_plotly()
    titles = []
    for found in info.found:
        name = found.whose.capitalize()
        titles += [
            _title(f"<b>{name}</b>, attention to the layer added last", sentence_of_difference(found)),
            _title(f"<b>{name}</b>, attention and the cost of removal", sentence_of_agreement(found)),
        ]
    figure = panels(titles, rows=len(info.found), vertical_spacing=0.2)
    for row, found in enumerate(info.found, start=1):
        for label, colour, layers in (
            ("best", POSITIVE, found.best),
            ("negative gain", NEGATIVE, found.negative),
        ):
            box = go.Box(
                y=[one.share for one in layers],
                name=label,
                marker={"color": colour},
                boxpoints="all",
                jitter=0.5,
                text=[in_plotly(describe(one.network)) for one in layers],
                hovertemplate="%{text}<br>%{y:.3f} to the last layer<extra></extra>",
                showlegend=False,
            )
            figure.add_trace(box, row=row, col=1)
        removed = found.removed
        points = go.Scatter(
            x=[one.lift for one in removed],
            y=[one.cost for one in removed],
            mode="markers",
            marker={
                "size": 6,
                "color": [one.position for one in removed],
                "coloraxis": "coloraxis",
            },
            text=[f"layer {one.position} of<br>{in_plotly(describe(one.network))}" for one in removed],
            hovertemplate="%{text}<br>attention %{x:.2f}, cost of removal %{y:+.4g}<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(points, row=row, col=2)
        figure.update_yaxes(title="Attention to the layer", row=row, col=1)
        figure.update_yaxes(title="Cost of removing the layer", row=row, col=2)
        figure.update_xaxes(title="Attention relative to uniform attention", row=row, col=2)
        figure.add_hline(y=0, line=DOTTED, row=row, col=2)
    figure.update_annotations(font={"size": 12})
    figure.update_coloraxes(
        colorscale="Viridis",
        colorbar={"title": {"text": "position", "side": "right"}, "tickformat": "d", "dtick": 1},
    )
    return figure.update_layout(height=400 * len(info.found) + 80, margin={"t": 120})
