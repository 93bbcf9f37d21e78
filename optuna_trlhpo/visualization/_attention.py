"""`plot_attention`: what the agent attended to in one trial.

Notation as in `notes`: rows k = 1 to S, heads H.
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
from optuna_trlhpo.visualization._plotly import empty_figure, import_plotly
from optuna_trlhpo.visualization._study import SHOWN, feasible, find_trial

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Attention"
WHOSE = ("actor", "critic")

WHICH_HAVE = (
    "the agent of TRLHPOSampler.paper() has attention, and so has that of "
    'TRLHPOSampler(agent=AgentConfig(critic="transformer"))'
)


class AttentionInfo(NamedTuple):
    """Attention in one trial.

    Attributes:
        number: The trial's.
        weights: By "actor" and "critic" ``[H, S, S + 1]``: in row k - 1 the weights of steps 1 to k, and last
            that of what was asked about; NaN where there was nothing to attend to.
        steps: What the S steps are called.
        asked: What was asked in each row.
        itself: What the last column is called.
        note: Why there is nothing; else empty.
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
        asked = [*(f"choosing {name}" for name in names[1:]), "choosing what comes next"]
    else:
        asked = [f"judging the network up to {name}" for name in names]
    weights = {whose: _padded(note.attention[whose], S) for whose in WHOSE if whose in note.attention}
    itself = "the question itself" if note.by == "actor" else "the question and the whole"
    return AttentionInfo(chosen.number, weights, names, asked, itself, "")


def step_names(trial: FrozenTrial) -> list[str]:
    """What the steps of a trial are called: layers by themselves, others by their parameters."""
    names = [", ".join(step) for step in steps_of(list(trial.params), report_marks(trial))]
    layers = network_in(trial.params)
    for k, (step, layer) in enumerate(zip(layer_steps(trial), layers, strict=False), start=1):
        names[step] = f"{k} {layer}"
    return names


def layer_steps(trial: FrozenTrial) -> list[int]:
    """Which steps of a trial, counted from 0, hold layers 1, 2 and so on; the others hold what else was
    suggested, such as a learning rate."""
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
    """Of several objectives the latest."""
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
        return "The study has no finished trial."
    by = {note.by for trial in trials if (note := read_agent(trial)) is not None}
    return f"No trial of the study has attention{_of_critic(by)}; {WHICH_HAVE}."


def _why_none_in(trial: FrozenTrial, note: AgentRecord | None) -> str:
    by = set() if note is None else {note.by}
    return f"Trial {trial.number} has no attention{_of_critic(by)}; {WHICH_HAVE}."


def _of_critic(by: set[str]) -> str:
    if by - {"actor", "transformer"}:
        return f": what ranked its plans is a {min(by - {'actor', 'transformer'})}, which has none"
    return ""


def plot_attention(study: Study, trial: FrozenTrial | int | None = None) -> go.Figure:
    """Which earlier layers actor and critic attended to when each layer of a trial was chosen.

    A row is a choice, a column a layer that was there; the last column is the attention that stayed with the
    question itself. A row sums to 1. What was not there yet is masked, gets none, and is left blank. Shown is
    the mean of all heads; the menu has each of them, those of the first block first.

    Where a critic ranks plans (``AgentConfig(critic="transformer")``), a row is the network up to a layer as
    it was judged, and the last column holds also what is known of the network as a whole.

    Args:
        study: A study that a `TRLHPOSampler` with attention has played.
        trial: A trial of it, or its number; None: the best that has attention, of several objectives the
            latest.

    Returns:
        A figure; without data it says why.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If there is no such trial.

    Example:
        >>> import optuna
        >>> from optuna_trlhpo import TRLHPOSampler
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> sampler = TRLHPOSampler.paper(seed=0, warn_independent_sampling=False)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_attention(study, trial=2).layout.title.text
        'Attention in Trial 2'
    """
    import_plotly()
    info = get_attention_info(study, trial)
    return _get_plot(info) if not info.note else empty_figure(TITLE, info.note)


def _get_plot(info: AttentionInfo) -> go.Figure:
    go = import_plotly()
    from plotly.subplots import make_subplots

    whose = list(info.weights)
    figure = make_subplots(
        rows=1,
        cols=len(whose),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[name.capitalize() for name in whose],
    )
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
            colorbar={"title": "weight"},
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
        # On the left, for on the right plotly has its own; above the names of the panels.
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.08, "yanchor": "bottom"}],
        margin={"t": 130},
        plot_bgcolor="white",  # so that what is masked is no small weight
    )
    # Names that are numbers, or dates, are names.
    figure.update_yaxes(
        type="category", autorange="reversed", automargin=True, showgrid=False, zeroline=False
    )
    return figure.update_xaxes(type="category", automargin=True, showgrid=False, zeroline=False)


def _cells(weights: np.ndarray) -> list[list[float | None]]:
    """JSON knows no NaN."""
    return [[None if np.isnan(w) else round(float(w), 4) for w in row] for row in weights]
