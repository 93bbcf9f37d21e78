"""`plot_agent`: diagnostics of the agent, such as losses, calibration, exploration and cache hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.trials.agent_record import ORIGINS, AgentRecord, read_agent
from optuna_trlhpo.trials.attributes import report_marks
from optuna_trlhpo.trials.episode import read_episode
from optuna_trlhpo.trials.outcome_transforms import HIGHEST_SCORE, EmpiricalCDF, normal_scores
from optuna_trlhpo.trials.rewards import returns_of, rewards_of, signed_outcomes
from optuna_trlhpo.trials.training_record import own_trainings
from optuna_trlhpo.visualization._plotly import DOTTED, GREY, draw_figure, import_plotly, panels
from optuna_trlhpo.visualization._study import NO_FINISHED_TRIAL, all_failed

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Agent"
_EQUAL = 1e-12
"""Range of numbers that count as equal."""


class Series(NamedTuple):
    """Named series of values over trials."""

    name: str
    trials: list[int]
    values: list[float]


class Foresight(NamedTuple):
    """Expected and realised values of networks, or of steps.

    Attributes:
        trials: Numbers of the trials.
        expected: Expected values.
        realised: Realised values.
        low: Expected values less a standard deviation.
        high: Expected values plus a standard deviation.
        unit: Name of the compared quantity.
        steps: Number of the step of each value; empty where the values are not of steps.
    """

    trials: list[int]
    expected: list[float]
    realised: list[float]
    low: list[float]
    high: list[float]
    unit: str
    steps: Sequence[int] = ()

    @property
    def correlation(self) -> float:
        """Pearson correlation of expected and realised values, within steps. NaN if it is undefined.

        Later steps have smaller returns, which any critic knows: over all steps together, the correlation
        would be high even if the critic told no action from another.
        """
        expected, realised = np.array(self.expected), np.array(self.realised)
        for step in set(self.steps):
            mine = np.array(self.steps) == step
            expected[mine] -= expected[mine].mean()
            realised[mine] -= realised[mine].mean()
        if len(self.trials) < 3 or np.ptp(expected) < _EQUAL or np.ptp(realised) < _EQUAL:
            return float("nan")
        return float(np.corrcoef(expected, realised)[0, 1])

    @property
    def covered(self) -> float:
        """Fraction of realised values between low and high. It is about 0.68 if the agent is calibrated."""
        triples = zip(self.low, self.realised, self.high, strict=True)
        return sum(low <= value <= high for low, value, high in triples) / max(len(self.trials), 1)


_NOTHING = Foresight([], [], [], [], [], "")


class AgentInfo(NamedTuple):
    """Diagnostics of the agent. Each of them is empty if the study has no data for it."""

    losses: list[Series]
    calibration: Foresight
    exploration: list[Series]
    origins: list[Series]
    spread: list[Series]
    cache: list[Series]
    note: str


def get_agent_info(study: Study) -> AgentInfo:
    """Collect the diagnostics of the agent from a study."""
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    records = {trial.number: record for trial in trials if (record := read_agent(trial)) is not None}
    cache = _cache(trials)
    info = AgentInfo(
        losses=_losses(records),
        calibration=_foresight(study, trials, records),
        exploration=_single("exploration noise", {n: record.exploration for n, record in records.items()}),
        origins=_origins(records),
        spread=_spread(records),
        cache=cache,
        note="",
    )
    if any((info.losses, info.calibration.trials, info.exploration, info.origins, info.spread, cache)):
        return info
    if not finished:
        return info._replace(note=NO_FINISHED_TRIAL)
    if note := all_failed(finished):
        return info._replace(note=note)
    if len(study.directions) > 1 and records:
        return info._replace(
            note="The agent decided trials, but it records no expected values in a study with "
            "several objectives."
        )
    return info._replace(
        note="No trial of the study was decided by the agent of a TRLHPOSampler: the study has another "
        "sampler, or only startup trials."
    )


def _losses(records: dict[int, AgentRecord]) -> list[Series]:
    of_critic = {n: record.losses[0] for n, record in records.items() if record.losses is not None}
    of_actor = {n: record.losses[1] for n, record in records.items() if record.losses is not None}
    return _single("critic loss", of_critic) + _single("actor loss", of_actor)


def _spread(records: dict[int, AgentRecord]) -> list[Series]:
    of_plans = {
        n: (record.plans[0].high - record.plans[0].low) / 2 for n, record in records.items() if record.plans
    }
    of_members = {n: float(np.mean(record.spread)) for n, record in records.items() if record.spread}
    return _single("standard deviation of the plan's value", of_plans) + _single(
        "spread of the critics", of_members
    )


def _single(name: str, values: dict[int, float] | dict[int, float | None]) -> list[Series]:
    known = {n: value for n, value in values.items() if value is not None}
    return [Series(name, list(known), list(known.values()))] if known else []


def _origins(records: dict[int, AgentRecord]) -> list[Series]:
    """Return the cumulative share of each proposer among the planned trials."""
    known = [(number, record.origin) for number, record in records.items() if record.origin is not None]
    numbers = [number for number, _ in known]
    series = []
    for origin in ORIGINS:
        share = np.cumsum([own == origin for _, own in known]) / np.arange(1, len(known) + 1)
        if share.any():
            series.append(Series(origin, numbers, share.tolist()))
    return series


def _cache(trials: list[FrozenTrial]) -> list[Series]:
    """Return the cumulative fraction of looked-up networks over the trials."""
    numbers, shares, hits, n = [], [], 0, 0
    for trial, trainings in zip(trials, own_trainings(trials), strict=True):
        hits, n = hits + sum(one.looked_up for one in trainings), n + len(trainings)
        if trainings:
            numbers.append(trial.number)
            shares.append(hits / n)
    return [Series("cache hit rate", numbers, shares)] if hits else []


def _foresight(study: Study, trials: list[FrozenTrial], records: dict[int, AgentRecord]) -> Foresight:
    if len(study.directions) > 1:
        return _NOTHING  # the weights of the objectives in a trial are not recorded
    outcomes = {}
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            found = signed_outcomes(trial, read_episode(trial, report_marks(trial)), study.directions)
            if found is not None:
                outcomes[trial.number] = found[:, 0]
    # Two agents may have worked on the study. Then the kind of expectation that more trials have is shown.
    with_q = sum(bool(record.q) for record in records.values())
    if with_q and with_q >= sum(bool(record.plans) for record in records.values()):
        return _of_actions(outcomes, records)
    return _of_plans(outcomes, records, -1.0 if study.direction.name == "MINIMIZE" else 1.0)


def _of_plans(outcomes: dict[int, np.ndarray], records: dict[int, AgentRecord], sign: float) -> Foresight:
    """Compare the expected value of each planned network with its value, if it has one."""
    found = []
    for number, record in records.items():
        own = outcomes.get(number)
        if own is None:
            continue
        last = {plan.steps: plan for plan in record.plans}  # the last plan of each length was carried out
        for plan in last.values():
            if plan.steps <= len(own) and np.isfinite(own[plan.steps - 1]):
                found.append((number, plan.value, sign * own[plan.steps - 1], plan.low, plan.high))
    if not found:
        return _NOTHING
    trials, expected, realised, low, high = (list(column) for column in zip(*found, strict=True))
    return Foresight(trials, expected, realised, low, high, "value of the plan")


def _of_actions(outcomes: dict[int, np.ndarray], records: dict[int, AgentRecord]) -> Foresight:
    """Compare Q of each step with its return, on the scale of the critic's training targets."""
    scale = EmpiricalCDF()
    for own in outcomes.values():
        if np.isfinite(own).any():
            scale.add(float(np.fmax.reduce(own)))
    numbers: list[int] = []
    expected: list[float] = []
    realised: list[float] = []
    deviations: list[float] = []
    steps: list[int] = []
    firsts = [scale.unit(own[~np.isnan(own)][:1]) for own in outcomes.values()]
    start = float(np.mean(np.concatenate(firsts))) if firsts and np.concatenate(firsts).size else 0.0
    for number, own in outcomes.items():
        record = records.get(number)
        if record is None or len(own) < len(record.q):
            continue
        if record.bootstrapped:  # the undiscounted sum of the rewards from the step on
            rewards = rewards_of(scale.unit(own[None]), start)[0]
            returns = np.cumsum(rewards[::-1])[::-1]
        else:
            returns = normal_scores(scale.rank(returns_of(own[None])[0])) / HIGHEST_SCORE
        S = len(record.q)
        numbers += [number] * S
        steps += range(S)
        expected += record.q
        realised += returns[:S].tolist()
        deviations += record.spread or (0.0,) * S
    low = [q - d for q, d in zip(expected, deviations, strict=True)]
    high = [q + d for q, d in zip(expected, deviations, strict=True)]
    return Foresight(numbers, expected, realised, low, high, "Q of a step", steps)


def plot_agent(study: Study) -> go.Figure:
    """Plot diagnostics of the agent over the trials. Panels without data are omitted.

    - Losses of critic and actor: means over the updates before a trial (the paper's agent).
    - Expected and realised values. For the paper's agent: Q of each executed step against its return, the sum
      of the rewards from that step on, and their correlation within steps. For a critic that ranks plans: the
      expected value of the planned network, with its standard deviation, against its realised value.
    - Exploration: the fraction of exploration noise on the actor.
    - Origin of the plans: the share of the planned trials so far whose network the pretrained actor proposed,
      that is a variation of such a network or of one that has been tried, or a random combination.
    - Spread: the disagreement of the members of the critic, or the standard deviation of the plan's value.
    - Cache: the fraction of networks that were looked up instead of trained (`CNNObjective`).

    Args:
        study: A study of a `TRLHPOSampler`, or of a `CNNObjective` with any sampler, which has cache hits.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo import TRLHPOSampler
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> sampler = TRLHPOSampler.paper(seed=0, warn_independent_sampling=False)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_agent(study).layout.title.text
        'Agent'
    """
    return draw_figure(TITLE, lambda: get_agent_info(study), _get_plot)


def series_panels(info: AgentInfo) -> list[tuple[str, list[Series]]]:
    """Return the title and series of each panel over trials that has data."""
    panels = [
        ("Losses", info.losses),
        ("Exploration", info.exploration),
        ("Origin of the plans", info.origins),
        ("Spread", info.spread),
        ("Cache", info.cache),
    ]
    return [(title, series) for title, series in panels if series]


UNITS = {
    "Losses": "Loss",
    "Exploration": "Factor of the noise",
    "Origin of the plans": "Share of the planned trials",
    "Spread": "Standard deviation",
    "Cache": "Share of the networks",
}
"""Unit of the vertical axis of each panel over trials."""


def foresight_title(calibration: Foresight) -> str:
    """Return the title of the panel of expected and realised values, with their correlation."""
    title = f"{calibration.unit.capitalize()}: expected and realised"
    if not np.isnan(calibration.correlation):
        title += f"<br>r = {calibration.correlation:.2f}"
        if any(np.asarray(calibration.high) > np.asarray(calibration.low)):
            title += f", {calibration.covered:.0%} within one standard deviation"
    return title


def _get_plot(info: AgentInfo) -> go.Figure:
    go = import_plotly()
    series, calibration = series_panels(info), info.calibration
    titles = [title for title, _ in series]
    if calibration.trials:
        titles.append(foresight_title(calibration))
    rows = (len(titles) + 1) // 2
    figure = panels(titles, rows=rows, vertical_spacing=0.35 / rows)
    figure.update_yaxes(rangemode="tozero").update_annotations(font={"size": 13})
    for i, (title, several) in enumerate(series):
        row, column = 1 + i // 2, 1 + i % 2
        for one in several:
            line = go.Scatter(x=one.trials, y=one.values, name=one.name, mode="lines+markers")
            figure.add_trace(line.update(marker={"size": 4}), row=row, col=column)
        figure.update_xaxes(title="Trial", row=row, col=column)
        figure.update_yaxes(title=UNITS[title], row=row, col=column)
    if calibration.trials:
        row, column = 1 + len(series) // 2, 1 + len(series) % 2
        _add_foresight(figure, calibration, row, column)
    return figure.update_layout(height=100 + 340 * rows)


def _add_foresight(figure: go.Figure, calibration: Foresight, row: int, column: int) -> None:
    go = import_plotly()
    has_spread = any(np.asarray(calibration.high) > np.asarray(calibration.low))
    pairs = zip(calibration.expected, calibration.low, calibration.high, strict=True)
    above, below = zip(*((high - e, e - low) for e, low, high in pairs), strict=True)
    points = go.Scatter(
        x=calibration.expected,
        y=calibration.realised,
        mode="markers",
        error_x=(
            {
                "type": "data",
                "symmetric": False,
                "array": above,
                "arrayminus": below,
                "thickness": 0.6,
                "color": GREY,
            }
            if has_spread
            else None
        ),
        marker={"size": 5},
        text=[f"Trial {number}" for number in calibration.trials],
        hovertemplate="%{text}<br>expected %{x:.4g}, realised %{y:.4g}<extra></extra>",
        name=calibration.unit,
    )
    figure.add_trace(points, row=row, col=column)
    ends = [
        min(*calibration.expected, *calibration.realised),
        max(*calibration.expected, *calibration.realised),
    ]
    equal = go.Scatter(x=ends, y=ends, mode="lines", line=DOTTED, name="equal")
    figure.add_trace(equal, row=row, col=column)
    figure.update_xaxes(title="Expected", row=row, col=column)
    figure.update_yaxes(title="Realised", rangemode="normal", row=row, col=column)
