"""`plot_pareto_layers`: value and cost of networks, prefixes included."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from optuna.study import Study

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.attributes import read_architecture, read_count
from optuna_trlhpo.visualization._plotly import LEGEND_ABOVE, NEGATIVE, draw_figure, import_plotly
from optuna_trlhpo.visualization._study import Layered, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Pareto Front of Layers"
COSTS = {
    "macs": "MACs per image",
    "parameters": "Parameters",
    "activation_bytes": "Activation memory (bytes)",
    "layers": "Layers",
}


class DepthPoint(NamedTuple):
    """A network with its value and cost."""

    network: Network
    value: float
    cost: float
    is_best: bool
    """Whether the network is on the Pareto front: no other one dominates it."""


class ParetoLayersInfo(NamedTuple):
    """Data of `plot_pareto_layers`."""

    points: list[DepthPoint]
    """Networks in ascending order of cost."""
    sign: float
    value_name: str
    cost_name: str
    note: str

    @property
    def front(self) -> list[DepthPoint]:
        return [point for point in self.points if point.is_best]


def get_pareto_layers_info(
    study: Study, cost: str, objective: int, space: LayerSpace | None = None
) -> ParetoLayersInfo:
    if cost not in COSTS:
        raise ValueError(f"cost is {cost!r}; it must be one of {', '.join(COSTS)}")
    layered = read_layers(study, objective)
    name = COSTS[cost]
    if layered.note:
        return ParetoLayersInfo([], layered.sign, layered.value_name, name, layered.note)
    space = layered.space if space is None else space
    costs = _counted(layered, cost, space) if space is not None or cost == "layers" else _noted(study, cost)
    # In ascending order of cost; at equal cost the best network comes first.
    order = sorted(
        (network for network in layered.values if network in costs),
        key=lambda network: (costs[network], -layered.sign * layered.values[network]),
    )
    points, best = [], -float("inf")
    for network in order:
        score = layered.sign * layered.values[network]
        points.append(DepthPoint(network, layered.values[network], costs[network], score > best))
        best = max(best, score)
    note = ""
    if not points:
        note = (
            "The study does not record its search space, so the costs of its networks are unknown; pass the "
            "space."
        )
    return ParetoLayersInfo(points, layered.sign, layered.value_name, name, note)


def _counted(layered: Layered, cost: str, space: LayerSpace | None) -> dict[Network, float]:
    costs: dict[Network, float] = {}
    for network in layered.values:
        if cost == "layers":
            costs[network] = len(network)
            continue
        assert space is not None
        try:
            costs[network] = getattr(space, cost)(network)
        except ValueError:  # the study changed its space
            continue
    return costs


def _noted(study: Study, cost: str) -> dict[Network, float]:
    """Return the costs that `CNNObjective` recorded for the best network of each trial."""
    costs: dict[Network, float] = {}
    for trial in study.get_trials(deepcopy=False):
        found, count = read_architecture(trial), read_count(trial, cost)
        if found is not None and count:  # a logarithmic axis cannot show 0
            costs[found[1]] = count
    return costs


def plot_pareto_layers(
    study: Study, *, cost: str = "macs", objective: int = 0, space: LayerSpace | None = None
) -> go.Figure:
    """Plot the value of networks against their cost. Each prefix with a value is a point.

    A line joins the networks of the Pareto front: no other network is cheaper and at least as good, or better
    and at most as expensive. Costs are computed in the space that is recorded in the study.

    Args:
        study: A study of any sampler on a `LayerSpace`.
        cost: "macs" (multiply-accumulates for one image), "parameters", "activation_bytes" (the maximum size
            of the input and output of one layer together) or "layers".
        objective: Index of the objective that is the value, from 0.
        space: Search space, for a study that does not record it.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the objective or the cost does not exist.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_pareto_layers(study, cost="parameters").layout.xaxis.title.text
        'Parameters'
    """
    return draw_figure(TITLE, lambda: get_pareto_layers_info(study, cost, objective, space), _get_plot)


def _get_plot(info: ParetoLayersInfo) -> go.Figure:
    go = import_plotly()
    points = go.Scatter(
        x=[point.cost for point in info.points],
        y=[point.value for point in info.points],
        mode="markers",
        marker={
            "size": 6,
            "color": [len(point.network) for point in info.points],
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": "layers", "side": "right"}, "dtick": 1},
            "line": {"width": 0.5, "color": "grey"},
        },
        text=[in_plotly(describe(point.network)) for point in info.points],
        hovertemplate="%{text}<br>%{y:.4g} at %{x:,}<extra></extra>",
        name="network",
    )
    front = info.front
    line = go.Scatter(
        x=[point.cost for point in front],
        y=[point.value for point in front],
        mode="lines",
        line={"color": NEGATIVE, "shape": "hv"},
        name="front",
        hoverinfo="skip",
    )
    figure = go.Figure([line, points])
    figure.update_xaxes(title=info.cost_name, type="linear" if info.cost_name == "Layers" else "log")
    return figure.update_yaxes(title=in_plotly(info.value_name)).update_layout(legend=LEGEND_ABOVE)
