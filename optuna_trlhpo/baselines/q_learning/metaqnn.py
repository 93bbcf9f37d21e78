"""`MetaQNNSampler`, Q-learning with experience replay over the choices of a network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

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
from optuna_trlhpo.baselines.q_learning.q_table import QTable, Row, greedy_action
from optuna_trlhpo.baselines.q_learning.representation import Representation, representation_of
from optuna_trlhpo.baselines.q_learning.rewards import accuracies_or_ranks, outcomes_of

PUBLISHED_SCHEDULE: tuple[tuple[float, int], ...] = (
    (1.0, 1500),
    *((epsilon, 100) for epsilon in (0.9, 0.8, 0.7)),
    *((epsilon, 150) for epsilon in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)),
)
"""Probabilities of a random layer, each with the number of different networks that it lasts (table 2)."""


class MetaQNNSampler(QSampler):
    """MetaQNN: tabular Q-learning with an epsilon-greedy policy and experience replay.

    1. A trial chooses its layers one after the other. Each is random with the probability epsilon, and
       otherwise the one with the largest Q-value, at random among equal ones (section 4.3).
    2. The reward is the value of the trial at its last choice, and 0 at all others.
    3. After each trial 128 trials are drawn from all so far, with replacement. For each of them every choice
       is updated, the last one first: ``Q(s, a) += 0.01 * (r + max Q(s', .) - Q(s, a))`` (equation 3 with
       gamma = 1). Q-values start at 0.5.
    4. Epsilon is 1 for 1,500 different networks, 0.9 to 0.7 for 100 each, and 0.6 to 0.1 for 150 each. By
       default this schedule is scaled to ``n_trials``.

    The *state* of a choice depends on the objective:

    ===================  =====================================================================================
    `MetaQNNSpace`       the published one: the depth; the layer before, with its kind and its filters, kernel
                         and stride, or neurons; the size of the image: at least 8, 4 to 7, or less
    `LayerSpace`         the same, with the choices of the present layer so far, and with all parameters that
                         belong to no layer, such as ``n_layers``
    any other objective  the name of the parameter and all choices so far
    ===================  =====================================================================================

    Source: Baker, Gupta, Naik, Raskar, "Designing Neural Network Architectures using Reinforcement Learning",
    ICLR 2017 (arXiv 1611.02167). It differs from the paper, to suit any objective:

    1. Outside `MetaQNNSpace` a layer is not one choice: its kind and its hyper-parameters are choices of
       their own, as the objective suggests them. Epsilon still decides for a whole layer: consecutive
       parameters with the same numbers in their names.
    2. Numbers with many values are divided into ``n_bins`` bins, and a value is drawn from its bin.
    3. Values in [0, 1], such as accuracies, are rewards, and so are 1 - value for errors in [0, 1] that are
       minimised. Of other objectives the reward is the rank among all trials so far, for Q-values start at
       0.5.
    4. Failed and infeasible trials, and those pruned without a report, have the reward 0; other pruned ones
       count with their last report.
    5. A network that is proposed again is a new trial. The authors' code does not train it again.

    Args:
        n_trials: Expected number of trials of the study, to which ``epsilon_schedule`` is scaled; the actual
            number may differ; at least 1. None: the schedule as it stands.
        epsilon_schedule: Pairs of a probability and the number of different configurations that it lasts.
            The last probability stays. The default is the published schedule; ``((0.0, 1),)`` is the greedy
            policy.
        learning_rate: Learning rate of the Q-values; in (0, 1].
        n_replays: Number of trials that are replayed after each trial; at least 1.
        initial_value: Initial Q-value; in [0, 1].
        n_bins: Number of actions of a number that has more values; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> def accuracy(trial):
        ...     kinds = [trial.suggest_categorical(f"layer{k}", ["a", "b"]) for k in (1, 2, 3)]
        ...     return kinds.count("b") / 3
        >>> study = optuna.create_study(direction="maximize", sampler=MetaQNNSampler(n_trials=40, seed=0))
        >>> study.optimize(accuracy, n_trials=40)
        >>> study.sampler = MetaQNNSampler(epsilon_schedule=((0.0, 1),), seed=0)  # its greedy policy
        >>> study.optimize(accuracy, n_trials=1)
        >>> study.trials[-1].params
        {'layer1': 'b', 'layer2': 'b', 'layer3': 'b'}
    """

    def __init__(
        self,
        *,
        n_trials: int | None = 100,
        epsilon_schedule: Sequence[tuple[float, int]] = PUBLISHED_SCHEDULE,
        learning_rate: float = 0.01,
        n_replays: int = 128,
        initial_value: float = 0.5,
        n_bins: int = 4,
        seed: int | None = None,
    ) -> None:
        super().__init__(n_bins=n_bins, seed=seed)
        self._schedule = EpsilonSchedule(epsilon_schedule, n_trials)
        check_learning_rate(learning_rate)
        check_integer("n_replays", n_replays, least=1)
        if not is_number(initial_value) or not 0 <= initial_value <= 1:
            raise ValueError(f"initial_value is {initial_value!r}; it must be between 0 and 1")
        self._learning_rate = float(learning_rate)
        self._n_replays = n_replays
        self._initial_value = float(initial_value)

    def _make_learner(self, study: Study) -> PolicyLearner:
        return MetaQNNLearner(
            QTable(initial=self._initial_value, learning_rate=self._learning_rate),
            direction=study.direction,
            representation=representation_of(study),
            n_replays=self._n_replays,
            n_bins=self._n_bins,
        )

    def _epsilon(self, n_models: int) -> float:
        return self._schedule(n_models)


class Transition(NamedTuple):
    """One choice of a trial: the row of its state, the action, and the actions that the state has."""

    row: Row
    action: int
    actions: tuple[int, ...]


class MetaQNNLearner(PolicyLearner):
    """Q-table and replay memory of one study.

    Args:
        table: The Q-table.
        direction: Direction of the study.
        representation: Makes states of positions.
        n_replays: Number of trials that are replayed after each trial.
        n_bins: Number of actions of a number that has more values.

    Attributes:
        table: The Q-table.
    """

    def __init__(
        self,
        table: QTable,
        *,
        direction: StudyDirection,
        representation: Representation,
        n_replays: int,
        n_bins: int,
    ) -> None:
        super().__init__()
        self.table = table
        self._direction = direction
        self._representation = representation
        self._n_replays = n_replays
        self._n_bins = n_bins
        self._memory: list[list[Transition]] = []
        self._outcomes: list[float] = []
        self._feasible: list[bool] = []

    def choose(
        self, position: TrialPosition, name: str, distribution: BaseDistribution, rng: np.random.Generator
    ) -> int:
        """Return the action with the largest Q-value."""
        actions = position.actions(name, distribution)
        row = self.table.rows.get(self._state(position, name, distribution), {})
        return greedy_action([row.get(action, self.table.initial) for action in actions], actions, rng)

    def _learn(self, trial: FrozenTrial, generators: Generators) -> None:
        transitions = self._transitions(trial)
        if not transitions:
            return
        self._memory.append(transitions)
        self._outcomes.append(float(outcomes_of(trial, [self._direction])[0]))
        self._feasible.append(all(value <= 0 for value in trial.constraints.values()))
        rewards = accuracies_or_ranks(np.array(self._outcomes), np.array(self._feasible)).tolist()
        rng = generators("replay", trial.number)
        for i in rng.integers(len(self._memory), size=self._n_replays).tolist():
            replay(self.table, self._memory[i], rewards[i])

    def _transitions(self, trial: FrozenTrial) -> list[Transition]:
        position, transitions = TrialPosition(self._n_bins), []
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            state = self._state(position, name, distribution)
            position.push(name, distribution, value)
            if not distribution.single():
                actions = position.actions(name, distribution)
                action = position.steps[-1].choices[-1][1]
                row = self.table.row(state, {*actions, action})
                transitions.append(Transition(row, action, actions))
        return transitions

    def _state(self, position: TrialPosition, name: str, distribution: BaseDistribution) -> Hashable:
        return self._representation.state(position, name, distribution)


def replay(table: QTable, transitions: Sequence[Transition], reward: float) -> None:
    """Update the Q-values of all choices of a trial, the last one first.

    Examples:
        >>> table = QTable(initial=0.5, learning_rate=0.5)
        >>> first, last = table.row("first", (0, 1)), table.row("last", (0, 1))
        >>> replay(table, [Transition(first, 0, (0, 1)), Transition(last, 1, (0, 1))], reward=1.0)
        >>> last, first
        ({0: 0.5, 1: 0.75}, {0: 0.625, 1: 0.5})
    """
    target = reward
    for row, action, actions in reversed(transitions):
        table.update(row, action, target)
        target = table.best(row, actions)
