"""Common parts of greedy and beam growth: the tree of prefixes that a study has tried, and its search.

A *prefix* is the sequence of parameters, in the order in which they were suggested, that a trial had when it
reported; its *score* is that report. The parameters between two reports are a *layer*. The tree has a node
for every parameter value, not only for every layer: so the continuations of a prefix can be enumerated
without repetition even where a layer has several, conditional, parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._planned import History, PlannedSampler, RivalPlan, note_of
from optuna_trlhpo.baselines._values import all_values, is_valid, n_values, random_value
from optuna_trlhpo.trials.episode import new_mark

_COUNTABLE = 1000
"""With more values than this, a new value is found by at most ``_DRAWS`` further random draws."""
_DRAWS = 20


@dataclass(eq=False)
class GrownNetwork:
    """Node of the tree: the trials that begin with the same ``n_params`` parameters."""

    n_params: int
    example: FrozenTrial | None = None  # one of the trials; None at the root
    children: dict[tuple[str, Any], GrownNetwork] = field(default_factory=dict)  # by the next name and value
    distribution: BaseDistribution | None = None  # of the next parameter
    is_prefix: bool = False
    is_leaf: bool = False  # no continuation to try: the trial ended or failed, or is being tried
    scores: list[float] = field(default_factory=list)
    n_attempts: int = 0  # number of trials that were planned to continue it, whatever their outcome

    @property
    def score(self) -> float:
        """Mean score of the prefix; minus infinity without a report."""
        return float(np.mean(self.scores)) if self.scores else -math.inf

    @property
    def is_spent(self) -> bool:
        """Whether all continuations, up to the end of the layer, have been tried."""
        if self.is_leaf:
            return True
        if self.distribution is None or len(self.children) < n_values(self.distribution):
            return False
        return all(child.is_prefix or child.is_spent for child in self.children.values())

    def continuations(self) -> Iterator[GrownNetwork]:
        """Nodes that are one layer deeper."""
        for child in self.children.values():
            if child.is_prefix or child.is_leaf:
                yield child
            else:
                yield from child.continuations()


class Tree:
    """Tree of all prefixes of the trials of a study."""

    def __init__(self, history: History) -> None:
        self.root = GrownNetwork(n_params=0, is_prefix=True)
        trials = history.finished + history.running
        for trial in trials:
            self._add(history, trial)
        params = {trial.number: trial.params for trial in history.finished}
        for trial in trials:
            number, n_params = note_of(trial).get("grows", (None, 0))
            # At the root every attempt becomes a child; elsewhere a trial may not get as far as its prefix.
            if number in params:
                node = self.find(dict(itertools.islice(params[number].items(), n_params)))
                if node is not None:
                    node.n_attempts += 1

    def find(self, params: dict[str, Any]) -> GrownNetwork | None:
        """Node of the trials that begin with ``params``; None if there is none."""
        node: GrownNetwork | None = self.root
        for item in params.items():
            node = None if node is None else node.children.get(item)
        return node

    def _add(self, history: History, trial: FrozenTrial) -> None:
        scores = _scores_of(history, trial)
        node = self.root
        for n, (name, value) in enumerate(trial.params.items(), start=1):
            node.distribution = trial.distributions[name]
            if (name, value) not in node.children:
                node.children[name, value] = GrownNetwork(n_params=n, example=trial)
            node = node.children[name, value]
            if n in scores:
                node.is_prefix = True
                node.scores.append(scores[n])
        if trial.state == TrialState.RUNNING:
            node.is_leaf |= not (node.children or node.is_prefix)
        elif node is not self.root and not note_of(trial).get("cut"):
            node.is_leaf = True

    def to_grow(self, width: int, n_children: int) -> GrownNetwork | None:
        """Prefix whose continuation is to be tried next; None if nothing is left.

        Pass k keeps k * ``width`` prefixes of each length and tries k * ``n_children`` continuations of each.
        All earlier trials count, so a pass adds only new continuations.
        """
        for k in itertools.count(1):
            complete = True
            beam = [self.root]
            while beam:
                for node in beam:
                    if not node.is_spent:
                        if max(node.n_attempts, sum(1 for _ in node.continuations())) < k * n_children:
                            return node
                        complete = False
                behind = [child for node in beam for child in node.continuations()]
                behind = [child for child in behind if child.is_prefix and not child.is_leaf]
                behind.sort(key=lambda child: -child.score)
                complete &= len(behind) <= k * width
                beam = behind[: k * width]
            if complete:
                return None
        raise AssertionError


def _scores_of(history: History, trial: FrozenTrial) -> dict[int, float]:
    """Map from a number of parameters to the score of this prefix."""
    marks: Sequence[Sequence[int]] = note_of(trial).get("seen", [])
    reports = trial.intermediate_values
    scores = {n: history.signed(reports[step]) for n, step in marks if step in reports}
    if trial.state.is_finished():
        # The position of reports after the last parameter is unknown. A single one belongs to the last layer;
        # several are the epochs of a training.
        late = [step for step in reports if step > max((step for _, step in marks), default=-1)]
        score = history.signed(reports[late[0]]) if len(late) == 1 else history.score(trial)
        scores.setdefault(len(trial.params), score)
    return scores


@dataclass
class GrowthPlan(RivalPlan):
    """Plan whose ``values`` are the prefix to be continued."""

    tree: Tree | None = None
    best: dict[str, Any] = field(default_factory=dict)  # parameters of the best trial
    n_asked: int = 0  # number of parameters at the last call, including the one asked for


class GrowthSampler(PlannedSampler):
    """Beam search over prefixes, with the arguments of `BeamGrowthSampler`."""

    def __init__(self, *, width: int, n_children: int, end_trials: bool, seed: int | None) -> None:
        super().__init__(seed=seed)
        check_integer("width", width, least=1)
        check_integer("n_children", n_children, least=1)
        self._width = width
        self._n_children = n_children
        self._end_trials = bool(end_trials)

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        tree = Tree(history)
        best = max(history.scored, key=history.score, default=None)
        plan = GrowthPlan(tree=tree, best=dict(best.params) if best is not None else {})
        node = tree.to_grow(self._width, self._n_children)
        if node is not None and node.example is not None:
            plan.values = dict(itertools.islice(node.example.params.items(), node.n_params))
            plan.note = {"grows": [node.example.number, node.n_params]}
        return plan

    def _answer(
        self, study: Study, trial: FrozenTrial, plan: RivalPlan, name: str, distribution: BaseDistribution
    ) -> Any:
        assert isinstance(plan, GrowthPlan) and plan.tree is not None
        n_reported = self._note_reports(study, trial, plan, name)
        if len(trial.params) < len(plan.values):
            return super()._answer(study, trial, plan, name, distribution)
        rng = self._generator("value", trial.number, name)
        node = plan.tree.find(trial.params)
        if n_reported <= len(plan.values):
            return _new_value(node, name, distribution, rng)
        if self._end_trials:
            plan.note["cut"] = True
            self._write_note(study, trial, plan)
            raise optuna.TrialPruned("the planned network of this trial has been evaluated")
        return _best_value(node, plan.best, name, distribution, rng)

    def _note_reports(self, study: Study, trial: FrozenTrial, plan: GrowthPlan, name: str) -> int:
        """Note the position of a new report, and return the number of parameters at the last report.

        Optuna does not store the order of reports and parameters, so it can only be observed now.
        """
        marks = plan.note.setdefault("seen", [])
        mark = new_mark(trial, name, plan.n_asked, marks)
        plan.n_asked = len(trial.params) + 1
        if mark is not None:
            marks.append(list(mark))
            self._write_note(study, trial, plan)
        return max((n for n, _ in marks), default=0)


def _new_value(
    node: GrownNetwork | None, name: str, distribution: BaseDistribution, rng: np.random.Generator
) -> Any:
    """Draw a value whose continuations have not all been tried; any value, if there is none."""

    def is_new(value: Any) -> bool:
        child = None if node is None else node.children.get((name, value))
        return child is None or not (child.is_prefix or child.is_spent)

    if n_values(distribution) <= _COUNTABLE:
        values = list(all_values(distribution))
        values = [value for value in values if is_new(value)] or values
        return values[rng.integers(len(values))]
    value = random_value(distribution, rng)
    for _ in range(_DRAWS):
        if is_new(value):
            break
        value = random_value(distribution, rng)
    return value


def _best_value(
    node: GrownNetwork | None,
    best: dict[str, Any],
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    """Value of the best known continuation, or else of the best trial."""
    known = [] if node is None else sorted(node.children.items(), key=lambda item: -_best_score(item[1]))
    values = [value for (other, value), _ in known if other == name]
    for value in [*values, *([best[name]] if name in best else [])]:
        if is_valid(distribution, value):
            return value
    return random_value(distribution, rng)


def _best_score(node: GrownNetwork) -> float:
    if node.is_prefix:
        return node.score
    return max((_best_score(child) for child in node.children.values()), default=-math.inf)
