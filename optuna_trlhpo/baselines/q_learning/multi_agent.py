"""`MultiAgentSampler`, one Q-learning agent per hyper-parameter and a master that combines what they find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer, is_number
from optuna_trlhpo.baselines._planned import RivalPlan, note_of
from optuna_trlhpo.baselines.q_learning.actions import action_of, actions_of, value_of
from optuna_trlhpo.baselines.q_learning.position import TrialPosition
from optuna_trlhpo.baselines.q_learning.q_sampler import (
    Generators,
    LearnedPlan,
    Learner,
    LearningSampler,
    check_learning_rate,
)
from optuna_trlhpo.baselines.q_learning.q_table import QTable, greedy_action
from optuna_trlhpo.baselines.q_learning.rewards import global_rewards, outcomes_of, violations_of

DEFAULT_ORDER: tuple[tuple[str, ...], ...] = (
    ("kernel", "filter_size"),
    ("filters", "channels"),
    ("fc", "dense", "neurons", "units"),
)
"""Words in the names of parameters, turn by turn: filter size, then filters, then fully connected layers."""


class MultiAgentSampler(LearningSampler["MultiAgentLearner"]):
    """One agent per hyper-parameter and a master, after Neary, and Neary and Allan.

    1. Every parameter has a Q-learning agent. The *master* holds a configuration, the best one so far; after
       ``n_startup_trials`` random trials it begins with the best of these.
    2. The agents act in turns: those of filter sizes, then those of numbers of filters, then those of fully
       connected layers, then all others, and again. In a turn each of its agents makes ``n_tries``
       *experiments*: a trial with the master's configuration in which the agent's parameter is another.
       Experiments of a turn do not wait for each other, so several workers run them at once.
    3. An agent's state is the master's value, its action the value that it tries, and its reward the gain:
       the rank of its trial among all trials minus the rank of the master's. Then
       ``Q(s, a) += learning_rate * (gain + discount * max Q(s', .) - Q(s, a))``, where s' is the new value if
       the gain is positive, and the old one otherwise. Q-values start at 0. An agent takes a random action
       with the probability ``epsilon``, otherwise the one with the largest Q-value, and repeats no
       configuration.
    4. At the end of a turn the master combines: if several agents have found a gain, a trial has the best
       value of each of them.

    A parameter that the master's configuration lacks, as a conditional one, is drawn uniformly. If every
    agent has tried everything around the master's configuration, trials are random until one is better.

    Sources: Neary, "Automatic Hyperparameter Tuning in Deep Convolutional Neural Networks Using Asynchronous
    Reinforcement Learning", IEEE ICCC, 2018, whose text is not public; its successor Neary and Allan, "Plug
    and Play Deep Convolutional Neural Networks", SciTePress, 2019, which is public in part; and what Shaer et
    al. (arXiv 2403.12237) write of the former. Published are: an agent for each hyper-parameter; that agents
    learn asynchronously; a master that synchronises them and finds the best combination; and the
    hyper-parameters: filter sizes and numbers of filters of the convolutions, then fully connected layers.
    The states, actions, rewards and the update of the agents, the turns, how the master combines, and all
    numbers are ours. The successor begins with one convolution and appends others; here the number of layers
    is a hyper-parameter like any other.

    Failed and infeasible trials rank last; pruned ones count with their last report, or as failed if they
    have none.

    Args:
        n_startup_trials: Number of random trials at the start; at least 1.
        n_tries: Number of experiments of an agent in a turn; at least 1.
        order: Words in the names of parameters, turn by turn. An agent acts in the first turn of which its
            parameter's name contains a word, in lower case, and in the last turn if there is none.
        epsilon: Probability that an agent takes a random action; from 0 to 1.
        learning_rate: Learning rate of the Q-values; in (0, 1].
        discount: Discount of the best Q-value of the next state; from 0 to 1.
        n_bins: Number of actions of a number that has more values; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> def accuracy(trial):
        ...     kernel = trial.suggest_int("kernel", 3, 7, step=2)
        ...     filters = trial.suggest_int("filters", 8, 128, log=True)
        ...     neurons = trial.suggest_categorical("neurons", [16, 64, 256])
        ...     return 1 - 0.1 * abs(kernel - 5) - abs(filters - 32) / 500 - (neurons != 64) / 10
        >>> study = optuna.create_study(direction="maximize", sampler=MultiAgentSampler(seed=0))
        >>> study.optimize(accuracy, n_trials=50)
        >>> study.best_params["kernel"], study.best_params["neurons"], study.best_value > 0.99
        (5, 64, True)
    """

    def __init__(
        self,
        *,
        n_startup_trials: int = 5,
        n_tries: int = 1,
        order: Sequence[Sequence[str]] = DEFAULT_ORDER,
        epsilon: float = 0.1,
        learning_rate: float = 0.5,
        discount: float = 0.9,
        n_bins: int = 8,
        seed: int | None = None,
    ) -> None:
        super().__init__(n_bins=n_bins, seed=seed)
        check_integer("n_startup_trials", n_startup_trials, least=1)
        check_integer("n_tries", n_tries, least=1)
        _check_order(order)
        for name, share in (("epsilon", epsilon), ("discount", discount)):
            if not is_number(share) or not 0 <= share <= 1:
                raise ValueError(f"{name} is {share!r}; it must be between 0 and 1")
        check_learning_rate(learning_rate)
        self._n_startup_trials = n_startup_trials
        self._n_tries = n_tries
        self._order = tuple(tuple(word.lower() for word in words) for words in order)
        self._epsilon = float(epsilon)
        self._learning_rate = float(learning_rate)
        self._discount = float(discount)

    def _make_learner(self, study: Study) -> MultiAgentLearner:
        return MultiAgentLearner(
            QTable(initial=0.0, learning_rate=self._learning_rate),
            direction=study.direction,
            discount=self._discount,
            n_bins=self._n_bins,
        )

    def _new_plan(self, study: Study, trial: FrozenTrial) -> RivalPlan:
        plan = self._next_plan(study, trial)
        return LearnedPlan(plan.values, plan.note, TrialPosition(self._n_bins))

    def _next_plan(self, study: Study, trial: FrozenTrial) -> RivalPlan:
        learner = self._learner_of(study)
        running = [
            other
            for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if other.number != trial.number
        ]
        if learner.best is None or learner.n_valued + len(running) < self._n_startup_trials:
            return RivalPlan()
        experiments = learner.experiments + [it for it in map(experiment_of, running) if it is not None]
        turn = max((it.turn for it in experiments), default=0)
        now = [it for it in experiments if it.turn == turn]
        base = learner.trials.get(now[0].base) if now else learner.best
        if base is not None:
            plan = self._experiment(learner, trial, base, turn, now) or self._combination(
                learner, base, turn, now
            )
            if plan is not None:
                return plan
        for following in range(turn + 1, turn + 2 + len(self._order)):
            plan = self._experiment(learner, trial, learner.best, following, [])
            if plan is not None:
                return plan
        return RivalPlan()

    def _experiment(
        self,
        learner: MultiAgentLearner,
        trial: FrozenTrial,
        base: FrozenTrial,
        turn: int,
        now: Sequence[Experiment],
    ) -> RivalPlan | None:
        """Plan of the next experiment of a turn; None if its agents have made theirs, or have none left."""
        rng = self._generator("experiment", trial.number)
        groups = agents_in_turns(base, self._order)
        for agent in groups[turn % len(groups)] if groups else ():
            if sum(it.agent == agent for it in now) < self._n_tries:
                value = self._tried_value(learner, base, agent, rng)
                if value is not _NOTHING:
                    return _plan(base, {agent: value}, turn, agent)
        return None

    def _tried_value(
        self, learner: MultiAgentLearner, base: FrozenTrial, agent: str, rng: np.random.Generator
    ) -> Any:
        """Value that an agent tries; ``_NOTHING`` if all have been tried in this configuration."""
        distribution, state = base.distributions[agent], learner.action(base, agent)
        actions = actions_of(agent, distribution, self._n_bins)
        row = learner.table.row((agent, state), {*actions, state})
        left = list(actions)
        while left:
            is_random = rng.random() < self._epsilon
            action = left[int(rng.integers(len(left)))] if is_random else None
            if action is None:
                action = greedy_action([row[it] for it in left], left, rng)
            value = value_of(agent, distribution, action, self._n_bins, rng)
            if not learner.knows(base.params | {agent: value}):
                return value
            left.remove(action)
        return _NOTHING

    def _combination(
        self, learner: MultiAgentLearner, base: FrozenTrial, turn: int, now: Sequence[Experiment]
    ) -> RivalPlan | None:
        """Plan with the best value of each agent of a turn; None if fewer than two of them found a gain."""
        if any(not it.agent for it in now):
            return None
        values = learner.best_values(turn)
        if len(values) < 2 or learner.knows(base.params | values):
            return None
        return _plan(base, values, turn, "")


class Experiment(NamedTuple):
    """An experiment of an agent: the turn, the name of its parameter, and the number of the master's trial.

    The name is empty for a combination by the master.
    """

    turn: int
    agent: str
    base: int


def experiment_of(trial: FrozenTrial) -> Experiment | None:
    """Return the experiment that a trial is, or None."""
    note = note_of(trial)
    if not all(part in note for part in ("turn", "agent", "from")):
        return None
    return Experiment(note["turn"], note["agent"], note["from"])


def agents_in_turns(base: FrozenTrial, order: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the parameters of a configuration that have a choice, by the turns in which their agents act.

    Examples:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> names = ["n_layers", "conv1_filters", "conv1_kernel", "fc1_units", "conv2_filters", "lr"]
        >>> trial = optuna.create_trial(
        ...     params=dict.fromkeys(names, 1),
        ...     distributions=dict.fromkeys(names, IntDistribution(1, 9)),
        ...     value=0,
        ... )
        >>> agents_in_turns(trial, DEFAULT_ORDER)
        [['conv1_kernel'], ['conv1_filters', 'conv2_filters'], ['fc1_units'], ['n_layers', 'lr']]
    """
    groups: list[list[str]] = [[] for _ in range(len(order) + 1)]
    for name, distribution in base.distributions.items():
        if not distribution.single():
            matching = (k for k, words in enumerate(order) if any(word in name.lower() for word in words))
            groups[next(matching, len(order))].append(name)
    return [group for group in groups if group]


class MultiAgentLearner(Learner):
    """The agents' Q-tables, and the trials that the master chooses from.

    Args:
        table: The Q-table. A state is the name of a parameter and the action that is the master's value.
        direction: Direction of the study.
        discount: Discount of the best Q-value of the next state.
        n_bins: Number of actions of a number that has more values.

    Attributes:
        table: The Q-table.
        trials: Trials with parameters, by number.
        experiments: Experiments among them.
        best: The best trial, which is feasible; None if there is none.
        n_valued: Number of trials that have a value.
    """

    def __init__(self, table: QTable, *, direction: StudyDirection, discount: float, n_bins: int) -> None:
        super().__init__()
        self.table = table
        self.trials: dict[int, FrozenTrial] = {}
        self.experiments: list[Experiment] = []
        self.best: FrozenTrial | None = None
        self.n_valued = 0
        self._direction = direction
        self._discount = discount
        self._n_bins = n_bins
        self._outcomes: list[float] = []
        self._constraints: list[dict[str, float]] = []
        self._gains: dict[int, dict[str, tuple[float, Any]]] = {}  # by turn and agent: best gain, its value

    def action(self, trial: FrozenTrial, name: str) -> int:
        """Return the action that is the value of a trial's parameter."""
        return action_of(name, trial.distributions[name], trial.params[name], self._n_bins)

    def best_values(self, turn: int) -> dict[str, Any]:
        """Return the best value of each agent that has found a gain in a turn."""
        return {agent: value for agent, (gain, value) in self._gains.get(turn, {}).items() if gain > 0}

    def _learn(self, trial: FrozenTrial, generators: Generators) -> None:
        if not trial.params:
            return
        self.trials[trial.number] = trial
        outcome = float(outcomes_of(trial, [self._direction])[0])
        self.n_valued += not np.isnan(outcome)
        self._outcomes.append(outcome)
        self._constraints.append(dict(trial.constraints))
        violations = violations_of(self._constraints)
        rewards = global_rewards(np.array(self._outcomes)[:, None], violations, np.ones(1))
        feasible = ~np.isnan(self._outcomes) & ~violations.any(axis=1)
        if feasible.any():
            numbers = list(self.trials)
            self.best = self.trials[numbers[int(np.argmax(np.where(feasible, rewards, -1)))]]
        experiment = experiment_of(trial)
        if experiment is not None:
            self.experiments.append(experiment)
            if experiment.base in self.trials:
                at = list(self.trials).index(experiment.base)
                self._update(experiment, trial, gain=float(rewards[-1] - rewards[at]))

    def _update(self, experiment: Experiment, trial: FrozenTrial, gain: float) -> None:
        name, base = experiment.agent, self.trials[experiment.base]
        if name not in trial.params or name not in base.params:
            return
        best, _ = self._gains.setdefault(experiment.turn, {}).get(name, (0.0, None))
        if gain > best:
            self._gains[experiment.turn][name] = gain, trial.params[name]
        actions = actions_of(name, trial.distributions[name], self._n_bins)
        state, action = self.action(base, name), self.action(trial, name)
        after = action if gain > 0 else state
        row = self.table.row((name, state), {*actions, state, action})
        behind = self.table.row((name, after), {*actions, state, action})
        self.table.update(row, action, gain + self._discount * max(behind.values()))


_NOTHING = object()


def _plan(base: FrozenTrial, values: dict[str, Any], turn: int, agent: str) -> RivalPlan:
    note = {"turn": turn, "agent": agent, "from": base.number}
    return RivalPlan(base.params | values, note)


def _check_order(order: Any) -> None:
    are_lists = isinstance(order, list | tuple) and all(isinstance(words, list | tuple) for words in order)
    if not are_lists or not all(isinstance(word, str) and word for words in order for word in words):
        raise ValueError(
            f"order is {order!r}; it must have a list of words for each turn, such as "
            "[['kernel'], ['filters']]"
        )
