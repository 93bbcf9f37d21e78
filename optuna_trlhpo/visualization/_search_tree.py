"""`plot_search_tree`: the tree of all prefixes that a study has tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from optuna.study import Study

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.visualization._plotly import GREY, LEGEND_ABOVE, NEGATIVE, draw_figure, import_plotly
from optuna_trlhpo.visualization._study import Layered, decimal, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Search Tree"


MOST_NODES = 300
"""Maximum number of nodes. A figure with more is not readable."""
BEST_DRAWN = 30
"""Number of the best networks that are always drawn with all their prefixes."""
_LARGEST = 22
"""Maximum marker size in pixels."""


class TreeBranch(NamedTuple):
    """A node of the tree: a network, whose parent is the network without its last layer.

    Attributes:
        network: Layers of the network. The root has none.
        parent: Index of the parent in the list. -1 for the root.
        y: Vertical position. Children are placed around their parent, with the best branch at the top.
        trials: Number of trials with this prefix.
        value: Value of the network. None if it has none.
        best: Best value of the network and its descendants. None if there is none.
        is_on_best: Whether the network is a prefix of the best network.
    """

    network: Network
    parent: int
    y: float
    trials: int
    value: float | None
    best: float | None
    is_on_best: bool


class SearchTreeInfo(NamedTuple):
    """Data of `plot_search_tree`."""

    nodes: list[TreeBranch]
    sign: float
    value_name: str
    note: str


def get_search_tree_info(study: Study, objective: int) -> SearchTreeInfo:
    layered = read_layers(study, objective)
    if layered.note:
        return SearchTreeInfo([], layered.sign, layered.value_name, layered.note)
    return SearchTreeInfo(_nodes(layered), layered.sign, layered.value_name, "")


def _nodes(layered: Layered) -> list[TreeBranch]:
    trials: dict[Network, int] = {}
    scores: dict[Network, float] = {}  # the best score of a network and its descendants
    for grown in layered.trials:
        for k in range(len(grown.layers) + 1):
            trials[grown.layers[:k]] = trials.get(grown.layers[:k], 0) + 1
    for network, value in layered.values.items():
        for k in range(len(network) + 1):
            scores[network[:k]] = max(scores.get(network[:k], -float("inf")), layered.sign * value)
    found = layered.best()
    best: Network = () if found is None else found[0].layers[: found[1]]
    children: dict[Network, list[Network]] = {}
    for network in trials:
        if network:
            children.setdefault(network[:-1], []).append(network)
    for own in children.values():
        own.sort(
            key=lambda network: (
                -scores.get(network, -float("inf")),
                best[: len(network)] != network,  # breaks ties
                str(network[-1]),
            )
        )
    heights = _heights(children)
    order = sorted(trials, key=lambda network: (len(network), heights[network]))
    place = {network: i for i, network in enumerate(order)}
    return [
        TreeBranch(
            network,
            place[network[:-1]] if network else -1,
            heights[network],
            trials[network],
            layered.values.get(network),
            None if network not in scores else layered.sign * scores[network],
            best[: len(network)] == network,
        )
        for network in order
    ]


def _heights(children: dict[Network, list[Network]]) -> dict[Network, float]:
    """Place the leaves below one another, and every other node in the middle of its children."""
    heights: dict[Network, float] = {}
    leaves = 0
    stack: list[tuple[Network, bool]] = [((), False)]
    while stack:
        network, is_done = stack.pop()
        own = children.get(network, [])
        if not own:
            heights[network] = float(leaves)
            leaves += 1
        elif is_done:
            heights[network] = (heights[own[0]] + heights[own[-1]]) / 2
        else:
            stack.append((network, True))
            stack.extend((child, False) for child in reversed(own))
    return heights


def plot_search_tree(study: Study, *, objective: int = 0) -> go.Figure:
    """Plot the tested networks as a tree, in which each grows from the one without its last layer.

    A node is a prefix. Its size shows how many trials share it, and its colour the best value of the prefix
    and its descendants. Branches are sorted with the best at the top, and the path to the best network is
    drawn thick. With more than 300 prefixes, only those of the best 30 networks and those that most trials
    share are drawn.

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
        >>> plot_search_tree(study).layout.title.text
        'Search Tree'
    """
    return draw_figure(TITLE, lambda: get_search_tree_info(study, objective), _get_plot)


def drawn_nodes(info: SearchTreeInfo) -> list[TreeBranch]:
    """Select at most `MOST_NODES` nodes whose parents are selected, too, and update their positions."""
    if len(info.nodes) <= MOST_NODES:
        return info.nodes
    valued = [node for node in info.nodes if node.value is not None]
    valued.sort(key=lambda node: -info.sign * (node.value or 0.0))
    first = [node.network for node in info.nodes if node.is_on_best]
    for node in valued[:BEST_DRAWN]:
        first += [node.network[:k] for k in range(len(node.network) + 1)]
    # A prefix is shared by at least as many trials as its descendants, so it comes first.
    shared = sorted(info.nodes, key=lambda node: (-node.trials, len(node.network)))
    order = dict.fromkeys([*first, *(node.network for node in shared)])
    kept = set(list(order)[:MOST_NODES])
    nodes = [node for node in info.nodes if node.network in kept]
    children: dict[Network, list[Network]] = {}
    for node in sorted(nodes, key=lambda node: node.y):
        if node.network:
            children.setdefault(node.network[:-1], []).append(node.network)
    place, heights = {node.network: i for i, node in enumerate(nodes)}, _heights(children)
    parents = [place[node.network[:-1]] if node.network else -1 for node in nodes]
    return [
        node._replace(parent=parent, y=heights[node.network])
        for node, parent in zip(nodes, parents, strict=True)
    ]


def _get_plot(info: SearchTreeInfo) -> go.Figure:
    go, nodes = import_plotly(), drawn_nodes(info)
    width = min(1.0, 100 / len(nodes))
    figure = go.Figure()
    thin = {"color": f"rgba(127,127,127,{0.2 + 0.3 * width:.2f})", "width": 0.5 + 0.5 * width}
    for on_best, line, name in (
        (False, thin, "grown from"),
        (True, {"color": NEGATIVE, "width": 3}, "the best network"),
    ):
        x: list[float | None] = []
        y: list[float | None] = []
        for node in nodes:
            if node.parent >= 0 and node.is_on_best == on_best:
                x += [len(node.network) - 1, len(node.network), None]
                y += [nodes[node.parent].y, node.y, None]
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip"))
    valued = [node for node in nodes if node.best is not None]
    others = [node for node in nodes if node.best is None]
    scale = {
        "color": [node.best for node in valued],
        "colorscale": "Blues" if info.sign > 0 else "Blues_r",
        "showscale": True,
        "colorbar": {"title": {"text": f"best {in_plotly(info.value_name)}", "side": "right"}},
    }
    no_value = {"color": GREY, "symbol": "x-thin-open"}
    for some, look, name in ((others, no_value, "no value"), (valued, scale, "network")):
        markers = go.Scatter(
            x=[len(node.network) for node in some],
            y=[node.y for node in some],
            mode="markers",
            marker={
                "size": [min(2 + 3 * width + 2.5 * node.trials**0.5, _LARGEST) for node in some],
                "line": {"width": 0.5, "color": "grey"},
                **look,
            },
            text=[_hover(node, info.value_name) for node in some],
            hovertemplate="%{text}<extra></extra>",
            name=name,
            showlegend=bool(some) and name == "no value",
        )
        figure.add_trace(markers)
    depth = max(len(node.network) for node in nodes)
    figure.update_xaxes(title="Layers", dtick=1, range=[-0.3, depth + 0.3])
    figure.update_yaxes(visible=False, autorange="reversed")
    if len(nodes) < len(info.nodes):
        subtitle = f"{len(nodes):,} of {len(info.nodes):,} prefixes: those most shared, and the best"
        figure.update_layout(title_subtitle_text=subtitle)
    return figure.update_layout(legend=LEGEND_ABOVE, height=600)


def _hover(node: TreeBranch, value_name: str) -> str:
    value_name = in_plotly(value_name)
    lines = [in_plotly(describe(node.network)) or "no layers"]
    lines += [f"in {node.trials:,} trial{'s' * (node.trials != 1)}"]
    lines += [f"{value_name} {decimal(node.value)}"] if node.value is not None else []
    lines += (
        [f"best in this branch {decimal(node.best)}"]
        if node.best is not None
        else ["no value in this branch"]
    )
    return "<br>".join(lines)
