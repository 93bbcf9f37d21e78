"""`plot_layer_affinity`: which neighbouring layers harm and which help (figure 2 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from optuna.study import Study

from optuna_trlhpo.visualization._plotly import NEGATIVE, POSITIVE, empty_figure, import_plotly
from optuna_trlhpo.visualization._statistics import wilson
from optuna_trlhpo.visualization._study import read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Layer Affinity"


class Pair(NamedTuple):
    """Two kinds of neighbouring layers, and how many different networks end in them.

    Attributes:
        name: ``"Conv - FCL"``.
        negative: Networks whose last layer made them worse.
        positive: Better.
        n: All, those that it changed in nothing included.
        low: The lower end of the 95 % interval of the share of negative ones.
        high: The upper end.
    """

    name: str
    negative: int
    positive: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of negative ones."""
        return self.negative / self.n


class LayerAffinityInfo(NamedTuple):
    pairs: list[Pair]
    """The most negative rewards first."""
    overall: float
    """The share of negative rewards among all pairs."""
    note: str


def get_layer_affinity_info(study: Study, objective: int) -> LayerAffinityInfo:
    layered = read_layers(study, objective)
    rewards: dict[tuple, list[float]] = {}  # a network counts once, however many trials had it
    for one in layered.rewards():
        if one.position > 1:
            rewards.setdefault(one.network, []).append(one.reward)
    collected: dict[str, list[float]] = {}
    for network, of_network in rewards.items():
        name = f"{network[-2].kind} - {network[-1].kind}"
        collected.setdefault(name, []).append(sum(of_network) / len(of_network))
    pairs = [_pair(name, of_pair) for name, of_pair in collected.items()]
    pairs.sort(key=lambda pair: (-pair.negative, -pair.share, pair.name))
    n = sum(pair.n for pair in pairs)
    note = layered.note
    if not note and not pairs:
        note = (
            "No pair of neighbouring layers has a reward: of no network in the study is there a value both "
            "with its last layer and without it."
        )
    return LayerAffinityInfo(pairs, sum(pair.negative for pair in pairs) / max(n, 1), note)


def _pair(name: str, rewards: list[float]) -> Pair:
    negative, n = sum(reward < 0 for reward in rewards), len(rewards)
    return Pair(name, negative, sum(reward > 0 for reward in rewards), n, *wilson(negative, n))


def plot_layer_affinity(study: Study, *, objective: int = 0) -> go.Figure:
    """Which pairs of neighbouring layers end in a negative or a positive reward: figure 2 of the paper, with
    how often each pair came, and intervals.

    On the left, as in the paper, how many networks end in a pair whose second layer made them worse, or
    better. What is tried often is also often negative, so on the right stands the share of negative rewards
    of each pair, with its 95 % interval (Wilson), and dotted the share of all pairs. A network counts once,
    however many trials had it.

    Args:
        study: As in `plot_layer_rewards`.
        objective: Which of its objectives, from 0.

    Returns:
        A figure; without data it says why.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If there is no such objective.

    Example:
        >>> import optuna
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_layer_affinity(study).layout.title.text
        'Layer Affinity'
    """
    import_plotly()
    info = get_layer_affinity_info(study, objective)
    return _get_plot(info) if not info.note else empty_figure(TITLE, info.note)


def _beside(share: float) -> str:
    """Where a text stands so that it is not cut off."""
    return "top left" if share > 0.85 else "top right" if share < 0.15 else "top center"


def layer_affinity_findings(study: Study, *, objective: int = 0) -> list[str]:
    """What `plot_layer_affinity` shows, as lines of text: a line for each pair.

    Example:
        >>> import optuna
        >>> layer_affinity_findings(optuna.create_study())
        ['The study has no finished trial.']
    """
    info = get_layer_affinity_info(study, objective)
    if info.note:
        return [info.note]
    n, negative = sum(pair.n for pair in info.pairs), sum(pair.negative for pair in info.pairs)
    lines = [f"{negative} of {n} layers behind another ({info.overall:.0%}) had a negative reward:"]
    lines += [
        f"{pair.name}: {pair.negative} of {pair.n} negative, {pair.share:.0%} (95 % interval "
        f"{pair.low:.0%} to {pair.high:.0%}), {pair.negative / max(negative, 1):.0%} of all negative ones"
        for pair in info.pairs
    ]
    return lines


def _get_plot(info: LayerAffinityInfo) -> go.Figure:
    go = import_plotly()
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=("Networks that end in the pair", "Share of negative rewards"),
    )
    names = [pair.name for pair in info.pairs]
    for label, colour, counts in (
        ("negative", NEGATIVE, [pair.negative for pair in info.pairs]),
        ("positive", POSITIVE, [pair.positive for pair in info.pairs]),
    ):
        bar = go.Bar(x=counts, y=names, orientation="h", name=label, marker={"color": colour}, text=counts)
        figure.add_trace(bar, row=1, col=1)
    share = go.Scatter(
        x=[pair.share for pair in info.pairs],
        y=names,
        mode="markers+text",
        text=[f"{pair.negative} of {pair.n}" for pair in info.pairs],
        textposition=[_beside(pair.share) for pair in info.pairs],
        marker={"color": NEGATIVE, "size": 8},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [pair.high - pair.share for pair in info.pairs],
            "arrayminus": [pair.share - pair.low for pair in info.pairs],
        },
        name="share, 95 % interval",
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.add_trace(share, row=1, col=2)
    figure.add_vline(x=info.overall, line={"width": 1, "dash": "dot"}, row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(title="Networks", row=1, col=1)
    figure.update_xaxes(title="Share", tickformat=".0%", range=[-0.02, 1.02], row=1, col=2)
    return figure.update_layout(title=TITLE, barmode="group")
