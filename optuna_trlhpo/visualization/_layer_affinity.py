"""`plot_layer_affinity`: rewards of pairs of neighbouring layers (figure 2 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from optuna.study import Study

from optuna_trlhpo.visualization._plotly import DOTTED, NEGATIVE, POSITIVE, draw_figure, import_plotly, panels
from optuna_trlhpo.visualization._statistics import wilson
from optuna_trlhpo.visualization._study import NO_PAIR_OF_VALUES, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Layer Affinity"


class Pair(NamedTuple):
    """A pair of kinds of neighbouring layers, and the number of different networks that end with it.

    Attributes:
        name: Name of the pair, such as ``"Conv - FCL"``.
        negative: Number of networks whose last layer made them worse.
        positive: Number of networks whose last layer made them better.
        n: Number of all networks, including those without a change.
        low: Lower end of the 95 % interval of the fraction of negative rewards.
        high: Upper end of this interval.
    """

    name: str
    negative: int
    positive: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Fraction of networks with a negative reward."""
        return self.negative / self.n


class LayerAffinityInfo(NamedTuple):
    """Data of `plot_layer_affinity`."""

    pairs: list[Pair]
    """Pairs in descending order of the number of negative rewards."""
    overall: float
    """Fraction of negative rewards among all pairs."""
    note: str


def get_layer_affinity_info(study: Study, objective: int) -> LayerAffinityInfo:
    layered = read_layers(study, objective)
    rewards: dict[tuple, list[float]] = {}  # by network, because each network counts once
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
        note = f"No pair of neighbouring layers has a gain: {NO_PAIR_OF_VALUES}"
    return LayerAffinityInfo(pairs, sum(pair.negative for pair in pairs) / max(n, 1), note)


def _pair(name: str, rewards: list[float]) -> Pair:
    negative, n = sum(reward < 0 for reward in rewards), len(rewards)
    return Pair(name, negative, sum(reward > 0 for reward in rewards), n, *wilson(negative, n))


def plot_layer_affinity(study: Study, *, objective: int = 0) -> go.Figure:
    """Plot the numbers of negative and positive rewards of each pair of neighbouring layers.

    This is figure 2 of the paper with the frequency of each pair and intervals. The left panel shows, as in
    the paper, how many networks end with a pair whose second layer made them worse or better. A pair that is
    tried often also has many negative rewards. So the right panel shows the fraction of negative rewards of
    each pair with its 95 % interval (Wilson), and the fraction over all pairs as a dotted line. A network
    counts once, however many trials contain it.

    Args:
        study: A study of any sampler on a `LayerSpace`.
        objective: Index of the objective, from 0.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the objective does not exist.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_layer_affinity(study).layout.title.text
        'Layer Affinity'
    """
    return draw_figure(TITLE, lambda: get_layer_affinity_info(study, objective), _get_plot)


def _beside(share: float) -> str:
    """Return the position of a label at which it is not clipped."""
    return "top left" if share > 0.85 else "top right" if share < 0.15 else "top center"


def layer_affinity_findings(study: Study, *, objective: int = 0) -> list[str]:
    """Return the content of `plot_layer_affinity` as text, with one line for each pair.

    Examples:
        >>> import optuna
        >>> layer_affinity_findings(optuna.create_study())
        ['The study has no finished trial.']
    """
    info = get_layer_affinity_info(study, objective)
    if info.note:
        return [info.note]
    n, negative = sum(pair.n for pair in info.pairs), sum(pair.negative for pair in info.pairs)
    lines = [f"{negative} of {n} layers after another layer ({info.overall:.0%}) had a negative gain:"]
    lines += [
        f"{pair.name}: {pair.negative} of {pair.n} negative, {pair.share:.0%} (95 % interval "
        f"{pair.low:.0%} to {pair.high:.0%}), {pair.negative / max(negative, 1):.0%} of all negative ones"
        for pair in info.pairs
    ]
    return lines


def _get_plot(info: LayerAffinityInfo) -> go.Figure:
    go = import_plotly()
    figure = panels(("Networks that end in the pair", "Fraction of negative gains"), shared_yaxes=True)
    names = [pair.name for pair in info.pairs]
    for label, colour, counts in (
        ("negative", NEGATIVE, [pair.negative for pair in info.pairs]),
        ("positive", POSITIVE, [pair.positive for pair in info.pairs]),
    ):
        bar = go.Bar(x=counts, y=names, orientation="h", name=label, marker={"color": colour}, text=counts)
        bar.update(textangle=0)
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
        name="fraction, 95 % interval",
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.add_trace(share, row=1, col=2)
    figure.add_vline(x=info.overall, line=DOTTED, row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    most = max(max(pair.negative, pair.positive) for pair in info.pairs)
    figure.update_xaxes(title="Networks", dtick=1 if most < 10 else None, row=1, col=1)
    figure.update_xaxes(title="Fraction", tickformat=".0%", range=[-0.02, 1.02], row=1, col=2)
    return figure.update_layout(barmode="group")
