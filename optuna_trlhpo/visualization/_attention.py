"""`plot_attention`: attention of the agent in one trial.

Notation as in `AgentRecord`: S steps, with rows k = 1 to S; H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import network_in
from optuna_trlhpo.trials.agent_record import AgentRecord, read_agent
from optuna_trlhpo.trials.attributes import report_marks
from optuna_trlhpo.trials.episode import steps_of
from optuna_trlhpo.visualization._plotly import draw_figure, import_plotly, panels
from optuna_trlhpo.visualization._study import NO_FINISHED_TRIAL, SHOWN, feasible, find_trial

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Attention"
WHOSE = ("actor", "critic")

WHICH_HAVE = (
    "only a TRLHPOSampler with its pretrained actor, where a LayerSpace of Table I or of kinds.CNN is grown, "
    'TRLHPOSampler.paper() and TRLHPOSampler(agent=AgentConfig(critic="transformer")) have attention'
)


class AttentionInfo(NamedTuple):
    """Attention in one trial.

    Attributes:
        number: Number of the trial.
        weights: Attention weights ``[H, S, S + 1]`` of "actor" and "critic". Row k - 1 has the weights of
            steps 1 to k, and in the last column the weight of the query itself. Masked weights are NaN.
        steps: Names of the S steps.
        asked: Name of the query of each row.
        itself: Name of the last column.
        note: Why there is no data. Empty if there is data.
    """

    number: int
    weights: dict[str, np.ndarray]
    steps: list[str]
    asked: list[str]
    itself: str
    note: str


def get_attention_info(study: Study, trial: FrozenTrial | int | None) -> AttentionInfo:
    chosen = find_trial(study, trial)
    if chosen is None:
        chosen = _best_with_attention(study)
    if chosen is None:
        return AttentionInfo(-1, {}, [], [], "", _why_none(study))
    note = read_agent(chosen)
    if note is None or not note.attention:
        return AttentionInfo(chosen.number, {}, [], [], "", _why_none_in(chosen, note))
    S = min(len(rows) for rows in note.attention.values())
    names = step_names(chosen)[:S]
    S = len(names)
    if note.by == "actor":
        asked = [*(f"choosing {name}" for name in names[1:]), "choosing the next step"]
    else:
        asked = [f"judging the network up to {name}" for name in names]
    weights = {whose: _padded(note.attention[whose], S) for whose in WHOSE if whose in note.attention}
    itself = "the query" if note.by == "actor" else "the query and the whole network"
    return AttentionInfo(chosen.number, weights, names, asked, itself, "")


def step_names(trial: FrozenTrial) -> list[str]:
    """Return the names of the steps of a trial: the layer, or the parameters of a step without a layer."""
    names = [", ".join(step) for step in steps_of(list(trial.params), report_marks(trial))]
    layers = network_in(trial.params)
    for k, (step, layer) in enumerate(zip(layer_steps(trial), layers, strict=False), start=1):
        names[step] = f"{k} {layer}"
    return names


def layer_steps(trial: FrozenTrial) -> list[int]:
    """Return the indices of the steps of a trial that suggested layers 1, 2 and so on, counted from 0.

    The other steps suggested other parameters, such as a learning rate.
    """
    steps = steps_of(list(trial.params), report_marks(trial))
    holding = [
        k
        for k, step in enumerate(steps)
        if "kind" in step[0].partition("_of_")[0].split("_") and step[0].startswith("layer")
    ]
    return holding[: len(network_in(trial.params))]


def _padded(rows: Any, S: int) -> np.ndarray:
    weights = np.full((len(rows[0]), S, S + 1), np.nan)
    for k, row in enumerate(rows[:S], start=1):
        weights[:, k - 1, :k], weights[:, k - 1, S] = row[:, :k], row[:, k]
    return weights


def _best_with_attention(study: Study) -> FrozenTrial | None:
    """Return the best trial with attention, or the latest one if the study has several objectives."""
    trials = study.get_trials(deepcopy=False, states=SHOWN)
    having = [trial for trial in trials if (note := read_agent(trial)) is not None and note.attention]
    if len(study.directions) > 1 or not having:
        return having[-1] if having else None
    sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
    valued = [
        (sign * trial.value, -trial.number, trial)
        for trial in having
        if trial.value is not None and feasible(trial)
    ]
    return max(valued, default=(0.0, 0, having[-1]))[2]


def _why_none(study: Study) -> str:
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state.is_finished() for trial in trials):
        return NO_FINISHED_TRIAL
    by = {note.by for trial in trials if (note := read_agent(trial)) is not None}
    return f"No trial of the study has attention{_of_critic(by)}; {WHICH_HAVE}."


def _why_none_in(trial: FrozenTrial, note: AgentRecord | None) -> str:
    by = set() if note is None else {note.by}
    return f"Trial {trial.number} has no attention{_of_critic(by)}; {WHICH_HAVE}."


def _of_critic(by: set[str]) -> str:
    if by - {"actor", "transformer"}:
        return f": its plans were ranked by a {min(by - {'actor', 'transformer'})}, which has none"
    return ""


def plot_attention(study: Study, trial: FrozenTrial | int | None = None) -> go.Figure:
    """Plot the attention of actor and critic to the earlier layers at each choice in a trial.

    A row is a choice, and a column an earlier layer. The last column is the attention to the query itself. A
    row sums to 1. Later layers are masked, have no attention, and are left blank. The figure shows the mean
    of all heads. The menu selects a single head, in the order of the blocks.

    If a critic ranks plans (``AgentConfig(critic="transformer")``), a row is the evaluation of the network up
    to a layer. The last column then includes the features of the whole network.

    Args:
        study: A study of a `TRLHPOSampler` with attention.
        trial: A trial of the study, or its number. None selects the best trial with attention, or the latest
            one if the study has several objectives.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the trial does not exist.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo import TRLHPOSampler
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> sampler = TRLHPOSampler.paper(seed=0, warn_independent_sampling=False)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_attention(study, trial=2).layout.title.text
        'Attention in Trial 2'
    """
    return draw_figure(TITLE, lambda: get_attention_info(study, trial), _get_plot)


def _get_plot(info: AttentionInfo) -> go.Figure:
    go = import_plotly()
    whose = list(info.weights)
    figure = panels([name.capitalize() for name in whose], columns=len(whose), shared_yaxes=True)
    columns = [*map(in_plotly, info.steps), info.itself]
    means = [_cells(info.weights[name].mean(axis=0)) for name in whose]
    for i, mean in enumerate(means, start=1):
        heatmap = go.Heatmap(
            z=mean,
            x=columns,
            y=[in_plotly(asked) for asked in info.asked],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            xgap=2,
            ygap=2,
            showscale=i == len(whose),
            colorbar={"title": {"text": "weight", "side": "right"}},
            texttemplate="%{z:.2f}",
            hovertemplate="%{y}:<br>%{z:.3f} to %{x}<extra></extra>",
            hoverongaps=False,
        )
        figure.add_trace(heatmap, row=1, col=i)
    H = max(len(weights) for weights in info.weights.values())
    buttons = [{"label": "mean of heads", "method": "restyle", "args": [{"z": means}]}]
    for head in range(H if H > 1 else 0):
        cells = [_cells(weights[min(head, len(weights) - 1)]) for weights in info.weights.values()]
        buttons.append({"label": f"head {head + 1}", "method": "restyle", "args": [{"z": cells}]})
    figure.update_layout(
        title=f"Attention in Trial {info.number}",
        # Above the names of the panels, and on the left, because Plotly's own buttons are on the right.
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.08, "yanchor": "bottom"}],
        margin={"t": 130},
        plot_bgcolor="white",  # distinguishes masked cells from small weights
    )
    # Category axes, because Plotly would otherwise interpret names such as numbers or dates.
    figure.update_yaxes(
        type="category", autorange="reversed", automargin=True, showgrid=False, zeroline=False
    )
    return figure.update_xaxes(type="category", automargin=True, showgrid=False, zeroline=False)


def _cells(weights: np.ndarray) -> list[list[float | None]]:
    """Round the weights and replace NaN by None, because JSON has no NaN."""
    return [[None if np.isnan(w) else round(float(w), 4) for w in row] for row in weights]
