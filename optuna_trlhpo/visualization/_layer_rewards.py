"""`plot_layer_rewards`: the reward of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from optuna.study import Study

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import describe
from optuna_trlhpo.visualization._plotly import DOTTED, colours_of, draw_figure, import_plotly, panels
from optuna_trlhpo.visualization._study import NO_PAIR_OF_VALUES, Reward, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Layer Rewards"


class LayerRewardsInfo(NamedTuple):
    """Data of `plot_layer_rewards`."""

    rewards: list[Reward]
    value_name: str
    note: str

    def of_kind(self, kind: str) -> list[Reward]:
        """Return the rewards of layers of one kind."""
        return [one for one in self.rewards if one.layer.kind == kind]

    @property
    def zoom(self) -> tuple[float, float] | None:
        """Range of most rewards of later layers, if the rewards of first layers are much larger, or None.

        First layers are compared with a network without layers, so their rewards can dominate the axis.
        """
        later = [one.reward for one in self.rewards if one.position > 1]
        first = [one.reward for one in self.rewards if one.position == 1]
        if not later or not first:
            return None
        low, high = np.quantile(later, [0.02, 0.98]).tolist()
        margin = 0.2 * (high - low) or 0.01
        return (low - margin, high + margin) if np.median(first) > high + 2 * (high - low) else None

    @property
    def kinds(self) -> list[str]:
        """Kinds of layer in the order of their first appearance."""
        return list(dict.fromkeys(one.layer.kind for one in self.rewards))


def get_layer_rewards_info(study: Study, objective: int) -> LayerRewardsInfo:
    layered = read_layers(study, objective)
    rewards = list(layered.rewards())
    note = layered.note
    if not note and not rewards:
        note = f"No layer has a reward: {NO_PAIR_OF_VALUES}"
    return LayerRewardsInfo(rewards, layered.value_name, note)


def plot_layer_rewards(study: Study, *, objective: int = 0) -> go.Figure:
    """Plot the reward of each layer over trials and by position.

    The reward of a layer is the value of the network that ends with it, less the value of the network before
    it (section IV of the paper). A positive reward is an improvement, also in a study that minimises. Values
    are reports, or the values of trials without reports. Values of networks from other trials are used, too.
    The reward of the first layer is its accuracy if the values are accuracies, or if they are minimised and
    have "error" in their name (``study.set_metric_names``). Otherwise the first layer has no reward.

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
        >>> plot_layer_rewards(study).layout.title.text
        'Layer Rewards'
    """
    return draw_figure(TITLE, lambda: get_layer_rewards_info(study, objective), _get_plot)


def _get_plot(info: LayerRewardsInfo) -> go.Figure:
    go = import_plotly()
    figure = panels(("Over trials", "By position"), shared_yaxes=True, column_widths=[0.6, 0.4])
    colours = colours_of(info.kinds)
    for kind in info.kinds:
        own = info.of_kind(kind)
        rewards = [one.reward for one in own]
        common = {"name": kind, "legendgroup": kind, "marker": {"color": colours[kind], "size": 5}}
        networks = [in_plotly(describe(one.network)) for one in own]
        places = [f"Trial {one.number}, layer {one.position}" for one in own]
        texts = [f"{place}<br>{network}" for place, network in zip(places, networks, strict=True)]
        figure.add_trace(
            go.Scatter(
                x=[one.number for one in own],
                y=rewards,
                text=texts,
                hovertemplate="%{text}<br>gain %{y:+.4g}<extra></extra>",
                mode="markers",
                **common,
            ),
            row=1,
            col=1,
        )
        figure.add_trace(
            go.Box(x=[one.position for one in own], y=rewards, offsetgroup=kind, showlegend=False, **common),
            row=1,
            col=2,
        )
    figure.add_hline(y=0, line=DOTTED)
    figure.update_layout(boxmode="group")
    if info.zoom is not None:
        figure.update_yaxes(range=info.zoom)
        low, high = info.zoom
        outside = [k for k in info.kinds if not any(low <= it.reward <= high for it in info.of_kind(k))]
        hidden, how = f", all of {', '.join(outside)}" if outside else "", "double-click to show all"
        figure.update_layout(
            title={"subtitle": {"text": f"First layers and outliers are out of range{hidden}; {how}."}}
        )
    figure.update_xaxes(title="Trial", row=1, col=1).update_xaxes(title="Position", dtick=1, row=1, col=2)
    return figure.update_yaxes(title=f"Gain ({in_plotly(info.value_name)})", row=1, col=1)
