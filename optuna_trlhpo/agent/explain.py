"""Explanation of the agent's decisions in a running trial, as its `AgentRecord`. Nothing is learned here.

Notation as in `trials.agent_record`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from optuna.trial import FrozenTrial

from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.agent.configurations.planner import ConfigurationPlanner
from optuna_trlhpo.agent.ddpg import DDPG
from optuna_trlhpo.agent.planner import Planner
from optuna_trlhpo.agent.sequences import Plan
from optuna_trlhpo.agent.transitions import Transitions
from optuna_trlhpo.trials.agent_record import AgentRecord, Forecast
from optuna_trlhpo.trials.episode import ReportMarks, read_episode, steps_of
from optuna_trlhpo.trials.path import Path


def with_plan(note: AgentRecord, plan: Plan, n_fixed: int, search: Planner) -> AgentRecord:
    """Add the critic's expectation of a plan, and its attention weights, to a trial's record.

    Args:
        note: Record of the trial so far.
        plan: Last plan that ``search`` made.
        n_fixed: Number of steps that the trial had when the plan was made.
        search: Planner that made the plan.
    """
    values = search.values_of(plan.mean + plan.deviation * np.array([0.0, -1.0, 1.0]))
    plans = note.plans
    if values is not None:
        low, high = sorted(values[1:].tolist())
        plans = (*plans, Forecast(n_fixed, len(plan.names), float(values[0]), low, high))
    attention = {"actor": search.knowledge.attention(plan), "critic": search.attention(plan)}
    attention = {role: rows for role, rows in attention.items() if rows}
    return replace(_of_first_plan(note, plan), plans=plans, attention=attention)


def with_path_plan(
    note: AgentRecord, plan: ConfigurationPlan, path: Path, search: ConfigurationPlanner
) -> AgentRecord:
    """Add the critic's expectation of a configuration, as `with_plan` does for a network.

    Args:
        note: Record of the trial so far.
        plan: Last plan that ``search`` made.
        path: Parameters that the trial had when the plan was made.
        search: Planner that made the plan.
    """
    values = search.values_of(plan.mean + plan.deviation * np.array([0.0, -1.0, 1.0]))
    plans = note.plans
    if values is not None:
        low, high = sorted(values[1:].tolist())
        n_fixed, n_steps = len(steps_of(path.names, [])), len(steps_of(plan.path.names, []))
        plans = (*plans, Forecast(n_fixed, n_steps, float(values[0]), low, high))
    rows = search.attention(plan)
    attention = {"critic": rows} if rows else {}
    return replace(_of_first_plan(note, plan), plans=plans, attention=attention)


def _of_first_plan(note: AgentRecord, plan: Plan | ConfigurationPlan) -> AgentRecord:
    """Add to a record without a plan what it has of the first one alone."""
    return note if note.origin is not None else replace(note, origin=plan.origin, gain=plan.gain)


def with_episode(
    note: AgentRecord,
    trial: FrozenTrial,
    marks: ReportMarks,
    agent: DDPG,
    transitions: Transitions,
    weights: np.ndarray,
) -> AgentRecord:
    """Add the evaluation of a complete trial by actor and critic to its record.

    Args:
        note: Record of the trial so far.
        trial: The trial, at its end.
        marks: Number of parameters and step of each report.
        agent: Actor and critic.
        transitions: Memory of finished trials as tensors.
        weights: ``[K]`` the trial's weights of the objectives.
    """
    last = max(trial.intermediate_values, default=-1)
    if last > max((step for _, step in marks), default=-1):
        marks = [*marks, (len(trial.params), last)]  # of a step that would have come next
    episode = read_episode(trial, marks)
    if not len(episode):
        return note
    insight = agent.explain(transitions.state(episode, weights))
    return replace(
        note,
        q=tuple(insight.values.mean(axis=1).tolist()),
        spread=tuple(insight.values.std(axis=1).tolist()),
        bootstrapped=agent.config.progressive_reward,
        attention={"actor": insight.actor, "critic": insight.critic},
    )
