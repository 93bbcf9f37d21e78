"""A small decision tree for features that may be absent (Quinlan, C4.5, 1993).

Numbers are split at a threshold, everything else by value. A leaf gives the confidence of its label.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna_trlhpo.trials.values import value_key


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"  # a copy is the same object


ABSENT = _Absent()
"""Value of a feature that an example does not have."""
_HUGE = 1e300
_MOST_BRANCHES = 30
_MOST_DEPTH = 12
_WEIGHT_OF_ABOVE = 2.0
"""Weight of the parent's share, in examples, in `TreeNode.chance`."""

Label = Hashable
Read = Callable[[Any, Any], Any]
"""``read(example, feature)`` returns the feature's value, or `ABSENT`."""


@dataclass(frozen=True)
class TreeNode:
    """A node of a decision tree; a leaf if ``feature`` is None.

    Attributes:
        label: Most frequent label of the node's examples.
        share: Fraction of the examples with this label.
        counts: Number of examples of each label.
        feature: Feature that the node tests.
        threshold: Numbers up to this one go to ``low``. None: branches are chosen by value.
        low: Subtree for numbers up to the threshold.
        high: Subtree for larger numbers.
        branches: Subtrees by value, and for `ABSENT`.
    """

    label: Label
    share: float
    counts: Counter[Label]
    feature: Any = None
    threshold: float | None = None
    low: TreeNode | None = None
    high: TreeNode | None = None
    branches: dict[Any, TreeNode] = field(default_factory=dict)

    def decide(self, example: Any, read: Read) -> TreeNode | None:
        """Return the leaf of an example; None if it has a value that was never seen.

        Examples:
            >>> examples = [({"depth": d}, d > 2) for d in (1, 2, 3, 4)]
            >>> read = lambda example, feature: example.get(feature, ABSENT)
            >>> tree = grow_tree([e for e, _ in examples], [label for _, label in examples], ["depth"], read)
            >>> tree.decide({"depth": 9}, read).label
            True
        """
        node: TreeNode | None = self
        while node is not None and node.feature is not None:
            node = node._step(example, read)
        return node

    def chance(self, example: Any, read: Read, agrees: Callable[[Label], bool]) -> float:
        """Return the probability that an example has a label for which ``agrees`` is true.

        This is the share of such labels at the leaf, smoothed at each node by that of its parent (m-estimate;
        Cestnik, "Estimating probabilities", 1990).

        Examples:
            >>> examples = [({"depth": d}, d > 2) for d in (1, 2, 3, 4)]
            >>> read = lambda example, feature: example.get(feature, ABSENT)
            >>> tree = grow_tree([e for e, _ in examples], [label for _, label in examples], ["depth"], read)
            >>> tree.chance({"depth": 9}, read, lambda label: label)
            0.75
        """
        node: TreeNode | None = self
        share, weight = 0.0, 0.0
        while node is not None:
            agreeing = sum(n for label, n in node.counts.items() if agrees(label))
            share = (agreeing + weight * share) / (node.counts.total() + weight)
            weight = _WEIGHT_OF_ABOVE
            node = node._step(example, read) if node.feature is not None else None
        return share

    def _step(self, example: Any, read: Read) -> TreeNode | None:
        value = read(example, self.feature)
        if self.threshold is not None and is_number(value):
            return self.low if value <= self.threshold else self.high
        return self.branches.get(_plain(value))


def grow_tree(
    examples: Sequence[Any], labels: Sequence[Label], features: Sequence[Any], read: Read
) -> TreeNode:
    """Return the tree of the examples. Earlier ``features`` win ties."""
    columns = {feature: [read(example, feature) for example in examples] for feature in features}
    columns = {feature: values for feature, values in columns.items() if len(set(map(_plain, values))) > 1}
    return _grow(list(range(len(examples))), labels, columns, 0)


def _grow(rows: list[int], labels: Sequence[Label], columns: dict[Any, list[Any]], depth: int) -> TreeNode:
    counts = Counter(labels[row] for row in rows)
    label, n = counts.most_common(1)[0]
    leaf = TreeNode(label, n / len(rows), counts)
    if len(counts) == 1 or depth == _MOST_DEPTH:
        return leaf
    before = _entropy(counts)
    best: tuple[float, Any, float | None] = (1e-9, None, None)
    for feature, values in columns.items():
        found = _best_split(rows, labels, values, before)
        if found is not None and found[0] > best[0] + 1e-9:
            best = (found[0], feature, found[1])
    _, feature, threshold = best
    if feature is None:
        return leaf
    values = columns[feature]
    parts: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        value = values[row]
        if threshold is not None and value is not ABSENT:
            parts["low" if value <= threshold else "high"].append(row)
        else:
            parts[_plain(value)].append(row)
    grown = {key: _grow(part, labels, columns, depth + 1) for key, part in parts.items()}
    if threshold is None:
        return TreeNode(label, leaf.share, counts, feature, branches=grown)
    low, high = grown.pop("low"), grown.pop("high")
    return TreeNode(label, leaf.share, counts, feature, threshold, low, high, grown)


def _best_split(
    rows: list[int], labels: Sequence[Label], values: list[Any], before: float
) -> tuple[float, float | None] | None:
    """Return the gain ratio of the best split on one feature, and its threshold."""
    there = [row for row in rows if values[row] is not ABSENT]
    absent = Counter(labels[row] for row in rows if values[row] is ABSENT)
    n = len(rows)
    if there and all(is_number(values[row]) for row in there):
        there.sort(key=lambda row: values[row])
        low: Counter[Label] = Counter()
        high = Counter(labels[row] for row in there)
        m, n_absent = len(there), n - len(there)
        # Sums of c log c over the label counts c of each part, updated row by row.
        of_low, of_high, of_absent = 0.0, _sum_of(high), _sum_of(absent)
        best = None
        for k, (row, following) in enumerate(zip(there, there[1:], strict=False), start=1):
            label = labels[row]
            of_low += _x_log_x(low[label] + 1) - _x_log_x(low[label])
            of_high += _x_log_x(high[label] - 1) - _x_log_x(high[label])
            low[label] += 1
            high[label] -= 1
            # Split only where the value changes; a split between equal labels cannot be the best.
            if values[row] == values[following] or label == labels[following] and m > 60:
                continue
            ratio = _ratio(before, [k, m - k, n_absent], of_low + of_high + of_absent, n)
            if best is None or ratio > best[0] + 1e-12:  # not merely by rounding
                best = ratio, _between(values[row], values[following])
        if best is not None or not absent:
            return best
    table: dict[Any, Counter[Label]] = defaultdict(Counter)
    for row in rows:
        table[_plain(values[row])][labels[row]] += 1
    if not 1 < len(table) <= _MOST_BRANCHES:
        return None
    parts = table.values()
    return _ratio(before, [part.total() for part in parts], sum(map(_sum_of, parts)), n), None


def _between(low: float, high: float) -> float:
    """Return a threshold between two numbers.

    Between integers it is close to the lower one, because loops end where nothing is left.
    """
    if isinstance(low, int) and isinstance(high, int):
        return low + 0.5
    middle = low / 2 + high / 2
    return middle if low <= middle < high else low


def _ratio(before: float, sizes: Sequence[int], of_parts: float, n: int) -> float:
    """Return the gain ratio of a split (Quinlan, 1993).

    Args:
        before: Entropy of all labels.
        sizes: Number of examples of each part.
        of_parts: Sum of c log c over the label counts c of all parts.
        n: Number of examples.
    """
    of_sizes = sum(map(_x_log_x, sizes))
    after = (of_sizes - of_parts) / n
    split = math.log(n) - of_sizes / n
    return (before - after) / max(split, 1e-9)


def _entropy(counts: Counter[Label]) -> float:
    n = counts.total()
    return math.log(n) - _sum_of(counts) / n


def _sum_of(counts: Counter[Label]) -> float:
    return sum(map(_x_log_x, counts.values()))


@functools.cache
def _x_log_x(n: int) -> float:
    return n * math.log(n) if n else 0.0


def is_number(value: Any) -> bool:
    """Return whether a value is a number that a threshold can split."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _plain(value: Any) -> Any:
    """Return the value as a key: True is not 1, and NaN equals itself."""
    return value if value is ABSENT or is_number(value) else value_key(value)
