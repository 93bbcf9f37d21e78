"""`LayerwiseQSampler`, one Q-learning agent per layer, with tables that link neighbouring layers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_trlhpo._checks import check_integer, is_number
from optuna_trlhpo.baselines.q_learning.position import TrialPosition
from optuna_trlhpo.baselines.q_learning.q_sampler import (
    EpsilonSchedule,
    Generators,
    PolicyLearner,
    QSampler,
    check_learning_rate,
)
from optuna_trlhpo.baselines.q_learning.q_table import Row, greedy_action
from optuna_trlhpo.baselines.q_learning.rewards import global_rewards, outcomes_of, violations_of
from optuna_trlhpo.layers import unmasked

DEFAULT_SCHEDULE = ((1.0, 20), (0.5, 20), (0.2, 20), (0.1, 40))
"""Probabilities that an agent acts at random, each with the number of different configurations."""
_INITIAL = 0.5
"""Value of what was never tried: the mean of ranks."""


class LayerwiseQSampler(QSampler):
    """One Q-learning agent per layer, after Iranfar et al., for any objectives and constraints.

    1. Each layer of the network has an agent, which chooses its hyper-parameters. A layer is a run of
       parameters with the same numbers in their names, such as ``layer2_filters`` and ``layer2_kernel``; a
       parameter without a number has an agent of its own.
    2. All agents get the same *global reward*: the rank in (0, 1) of the trial among all trials so far. A
       feasible trial ranks before an infeasible one, and that before a failed one.
    3. Each agent has two tables. Its *own* table has the value of each of its choices, whatever the other
       layers are. The *linked* table, which it shares with the layer before, has that value for each choice
       of the layer before.
    4. After each trial, this trial and some of all are replayed, the last choice first. The target of a
       choice mixes the global reward with what is expected behind it, by the same agent or by that of the
       next layer: ``(1 - link) * reward + link * max Q_next(choice, .)``. Both tables move towards it by
       ``learning_rate``.
    5. An agent acts at random with the probability epsilon, each agent for itself. Otherwise it takes the
       choice with the largest value in the linked table; for a choice that was never tried behind this layer
       before, its own table counts, and for one that was never tried at all 0.5.

    Source: Iranfar, Zapater, Atienza, "Multi-Agent Reinforcement Learning for Hyperparameter Optimization of
    Deep Convolutional Neural Networks", IEEE TCAD, 2021 (doi 10.1109/TCAD.2021.3077193). Only its abstract is
    public, which has: Q-learning with an agent for each layer, so that the space splits into independent
    ones; a global reward of any objectives and constraints; a form of the tables and an update rule by which
    agents communicate. Shaer et al. (arXiv 2403.12237, section II) add that consecutive layers share a
    Q-table. The form of the tables, the update rule, the reward, the schedule and all numbers are ours.

    In a study of several objectives the rank is that of the weighted Chebyshev distance from the best ranks.
    Constraints are those of ``trial.set_constraint``: a trial is infeasible if one is above 0. Pruned trials
    count with their last report, or as failed if they have none.

    Args:
        n_trials: Expected number of trials of the study, to which ``epsilon_schedule`` is scaled; the actual
            number may differ; at least 1. None: the schedule as it stands.
        weights: Positive weights of the objectives. None: all are equal.
        link: Weight of the next choice's expectation in the target of a choice; from 0, which leaves the
            agents on their own, to 1.
        epsilon_schedule: Pairs of a probability and the number of different configurations that it lasts.
            The last probability stays. ``((0.0, 1),)`` is the greedy policy.
        learning_rate: Learning rate of the tables; in (0, 1].
        n_replays: Number of earlier trials that are replayed after each trial; at least 1.
        n_bins: Number of actions of a number that has more values; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, if there is not one weight for each
            objective.

    Examples:
        >>> import optuna
        >>> def accuracy_and_bytes(trial):
        ...     filters = [trial.suggest_categorical(f"layer{k}_filters", [8, 16, 32]) for k in (1, 2)]
        ...     trial.set_constraint("bytes", sum(filters) - 40)
        ...     return min(filters) / 32, sum(filters)
        >>> sampler = LayerwiseQSampler(n_trials=60, weights=[4, 1], seed=0)
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        >>> study.optimize(accuracy_and_bytes, n_trials=60)
        >>> study.sampler = LayerwiseQSampler(weights=[4, 1], epsilon_schedule=((0.0, 1),), seed=0)  # greedy
        >>> study.optimize(accuracy_and_bytes, n_trials=1)
        >>> study.trials[-1].params
        {'layer1_filters': 16, 'layer2_filters': 16}
    """

    def __init__(
        self,
        *,
        n_trials: int | None = 100,
        weights: Sequence[float] | np.ndarray | None = None,
        link: float = 0.5,
        epsilon_schedule: Sequence[tuple[float, int]] = DEFAULT_SCHEDULE,
        learning_rate: float = 0.1,
        n_replays: int = 32,
        n_bins: int = 4,
        seed: int | None = None,
    ) -> None:
        super().__init__(n_bins=n_bins, seed=seed)
        self._schedule = EpsilonSchedule(epsilon_schedule, n_trials)
        _check_weights(weights)
        if not is_number(link) or not 0 <= link <= 1:
            raise ValueError(f"link is {link!r}; it must be between 0 and 1")
        check_learning_rate(learning_rate)
        check_integer("n_replays", n_replays, least=1)
        self._weights = None if weights is None else [float(weight) for weight in weights]
        self._link = float(link)
        self._learning_rate = float(learning_rate)
        self._n_replays = n_replays

    def _check_study(self, study: Study) -> None:
        n = len(study.directions)
        if self._weights is not None and len(self._weights) != n:
            objectives = "objective" if n == 1 else "objectives"
            raise ValueError(f"weights has {len(self._weights)} numbers; the study has {n} {objectives}")

    def _make_learner(self, study: Study) -> PolicyLearner:
        directions = list(study.directions)
        return LayerwiseLearner(
            LinkedTables(self._learning_rate),
            directions=directions,
            weights=np.ones(len(directions)) if self._weights is None else np.array(self._weights),
            link=self._link,
            n_replays=self._n_replays,
            n_bins=self._n_bins,
        )

    def _epsilon(self, n_models: int) -> float:
        return self._schedule(n_models)


class LinkedTables:
    """The tables of all agents: own ones, and those that link an agent with the one before.

    Args:
        learning_rate: Share of the difference to its target by which an update changes a value; in (0, 1].

    Examples:
        >>> tables = LinkedTables(learning_rate=0.5)
        >>> behind_a, behind_b = tables.cell("x", "a", 0, (0, 1)), tables.cell("x", "b", 0, (0, 1))
        >>> tables.update(behind_a, 1.0)
        >>> tables.values(behind_a), tables.values(behind_b)  # behind "b", its own table counts
        ([0.75, 0.5], [0.75, 0.5])
        >>> tables.update(behind_b, 0.0)  # .75 and .75 become .375
        >>> tables.values(behind_a), tables.values(behind_b)
        ([0.75, 0.5], [0.375, 0.5])
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._own: dict[Hashable, Row] = {}
        self._linked: dict[Hashable, Row] = {}

    def cell(self, own: Hashable, before: Hashable, action: int, actions: tuple[int, ...]) -> TableCell:
        """Return the place of a choice in both tables.

        Args:
            own: State in which the agent chooses, without the other agents.
            before: Choices of the agent before.
            action: The choice.
            actions: All choices in this state.
        """
        own_row = self._own.setdefault(own, {})
        return TableCell(own_row, self._linked.setdefault((own, before), {}), action, actions)

    def values(self, cell: TableCell) -> list[float]:
        """Return the value of each of the actions in the state of a choice."""
        linked, own = cell.linked, cell.own
        return [linked[a] if a in linked else own.get(a, _INITIAL) for a in cell.actions]

    def update(self, cell: TableCell, target: float) -> None:
        """Move the value of a choice towards its target, in both tables.

        A value of the linked table starts as that of the own one.
        """
        own = cell.own.get(cell.action, _INITIAL)
        linked = cell.linked.get(cell.action, own)
        cell.linked[cell.action] = linked + self._learning_rate * (target - linked)
        cell.own[cell.action] = own + self._learning_rate * (target - own)


class TableCell(NamedTuple):
    """The place of a choice in the tables: its row in each, the action, and all actions of its state."""

    own: Row
    linked: Row
    action: int
    actions: tuple[int, ...]


def replay_choices(tables: LinkedTables, choices: Sequence[TableCell], reward: float, link: float) -> None:
    """Update the values of all choices of a trial, the last one first.

    Args:
        tables: The tables.
        choices: The choices, layer after layer.
        reward: Global reward of the trial.
        link: Weight of the next choice's expectation in the target of a choice.

    Examples:
        >>> tables = LinkedTables(learning_rate=0.5)
        >>> first, last = (tables.cell(name, None, 0, (0, 1)) for name in ("first", "last"))
        >>> replay_choices(tables, [first, last], reward=1.0, link=0.5)
        >>> tables.values(last), tables.values(first)  # the target of the first is .5 * 1 + .5 * .75
        ([0.75, 0.5], [0.6875, 0.5])
    """
    target = reward
    for cell in reversed(choices):
        tables.update(cell, target)
        target = (1 - link) * reward + link * max(tables.values(cell))


class LayerwiseLearner(PolicyLearner):
    """Tables and replay memory of one study.

    Args:
        tables: The tables.
        directions: ``[K]`` directions of the study.
        weights: ``[K]`` positive weights of the objectives.
        link: Weight of the next choice's expectation in the target of a choice.
        n_replays: Number of earlier trials that are replayed after each trial.
        n_bins: Number of actions of a number that has more values.
    """

    def __init__(
        self,
        tables: LinkedTables,
        *,
        directions: Sequence[StudyDirection],
        weights: np.ndarray,
        link: float,
        n_replays: int,
        n_bins: int,
    ) -> None:
        super().__init__()
        self._tables = tables
        self._directions = directions
        self._weights = weights
        self._link = link
        self._n_replays = n_replays
        self._n_bins = n_bins
        self._memory: list[list[TableCell]] = []
        self._outcomes: list[np.ndarray] = []
        self._constraints: list[dict[str, float]] = []

    def choose(
        self, position: TrialPosition, name: str, distribution: BaseDistribution, rng: np.random.Generator
    ) -> int:
        """Return the action with the largest value."""
        actions = position.actions(name, distribution)
        own = unmasked(name), position.step_so_far(name)
        cell = self._tables.cell(own, position.step_before(name), actions[0], actions)
        return greedy_action(self._tables.values(cell), actions, rng)

    def _learn(self, trial: FrozenTrial, generators: Generators) -> None:
        choices = self._choices(trial)
        if not choices:
            return
        self._memory.append(choices)
        self._outcomes.append(outcomes_of(trial, self._directions))
        self._constraints.append(dict(trial.constraints))
        violations = violations_of(self._constraints)
        rewards = global_rewards(np.stack(self._outcomes), violations, self._weights).tolist()
        rng = generators("replay", trial.number)
        newest = len(self._memory) - 1
        for i in (newest, *rng.integers(len(self._memory), size=self._n_replays).tolist()):
            replay_choices(self._tables, self._memory[i], rewards[i], self._link)

    def _choices(self, trial: FrozenTrial) -> list[TableCell]:
        position = TrialPosition(self._n_bins)
        choices: list[TableCell] = []
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            own = unmasked(name), position.step_so_far(name)
            before = position.step_before(name)
            position.push(name, distribution, value)
            if not distribution.single():
                action, actions = position.steps[-1].choices[-1][1], position.actions(name, distribution)
                choices.append(self._tables.cell(own, before, action, actions))
        return choices


def _check_weights(weights: Any) -> None:
    if weights is None:
        return
    is_list = isinstance(weights, list | tuple | np.ndarray) and len(weights) > 0
    if not is_list or not all(is_number(weight) and 0 < weight < np.inf for weight in weights):
        raise ValueError(
            f"weights is {weights!r}; it must be one positive number for each objective, or None"
        )
