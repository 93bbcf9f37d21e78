"""`plot_importances`: which parameters decide whether a trial is good."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.visualization._plain_names import with_plain_names
from optuna_trlhpo.visualization._plotly import draw_figure, import_plotly
from optuna_trlhpo.visualization._study import NO_FINISHED_TRIAL, all_failed, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Parameter Importances"
_LEAST = 2
"""Number of different values below which importances say nothing."""


class ImportancesInfo(NamedTuple):
    """Data of `plot_importances`."""

    importances: dict[str, float]
    n_left_out: int
    value_name: str
    note: str


def get_importances_info(study: Study, objective: int, top: int) -> ImportancesInfo:
    value_name = read_layers(study, objective).value_name
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(f"top is {top!r}; it must be a positive integer")
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE and trial.params]
    values = {trial.values[objective] for trial in complete}
    note = ""
    if not finished:
        note = NO_FINISHED_TRIAL
    elif failed := all_failed(finished):
        note = failed
    elif len([value for value in values if math.isfinite(value)]) < _LEAST:
        note = "Fewer than two complete trials have parameters and different values."
    if note:
        return ImportancesInfo({}, 0, value_name, note)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that few trials have
        found = optuna.importance.get_param_importances(
            with_plain_names(study), target=lambda trial: trial.values[objective]
        )
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return ImportancesInfo(dict(ordered[:top]), max(len(found) - top, 0), value_name, "")


def plot_importances(study: Study, *, objective: int = 0, top: int = 15) -> go.Figure:
    """Plot how much each parameter decides whether a trial is among the good ones.

    The importances are those of Optuna (PED-ANOVA; Watanabe et al., 2023), after the names of a layer's
    choice have been merged (`with_plain_names`): ``layer2_kind`` and ``layer2_kind_of_pool_fcl`` are one bar.

    Args:
        study: A study of any sampler and objective.
        objective: Index of the objective, from 0.
        top: Number of parameters that are shown, the most important ones.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the objective does not exist, or ``top`` is no positive integer.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(synthetic_layers(), n_trials=20)
        >>> len(plot_importances(study, top=5).data[0].y)
        5
    """
    return draw_figure(TITLE, lambda: get_importances_info(study, objective, top), _get_plot)


def _get_plot(info: ImportancesInfo) -> go.Figure:
    go = import_plotly()
    names = list(reversed(info.importances))
    shares = [info.importances[name] for name in names]
    figure = go.Figure(
        go.Bar(
            x=shares,
            y=[in_plotly(name) for name in names],
            orientation="h",
            text=[f"{share:.2f}" for share in shares],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}<br>importance %{x:.3f}<extra></extra>",
        )
    )
    if info.n_left_out:
        figure.update_layout(
            title={"text": TITLE, "subtitle": {"text": f"{info.n_left_out} further parameters matter less"}}
        )
    figure.update_xaxes(title=f"Share of the importance for {in_plotly(info.value_name)}", rangemode="tozero")
    figure.update_yaxes(automargin=True, type="category")
    return figure.update_layout(height=max(300, 120 + 24 * len(names)))
