"""Trees split where the gain ratio is greatest."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from optuna_trlhpo.search_space.decision_tree import ABSENT, grow_tree


def entropy(labels: list[int]) -> float:
    n = len(labels)
    return -sum(c / n * math.log(c / n) for c in Counter(labels).values())


def gain_ratio(parts: list[list[int]]) -> float:
    parts = [part for part in parts if part]
    whole = [label for part in parts for label in part]
    n = len(whole)
    gain = entropy(whole) - sum(len(part) / n * entropy(part) for part in parts)
    return gain / -sum(len(part) / n * math.log(len(part) / n) for part in parts)


@pytest.mark.parametrize("seed", range(20))
def test_the_first_split_has_the_greatest_gain_ratio(seed: int) -> None:
    """By the definition, over every threshold; a fifth of the examples lacks the number."""
    rng = np.random.default_rng(seed)
    values: list[Any] = [ABSENT if rng.random() < 0.2 else int(rng.integers(12)) for _ in range(40)]
    labels = rng.integers(3, size=40).tolist()
    tree = grow_tree(values, labels, ["x"], lambda value, feature: value)
    lacking = [label for value, label in zip(values, labels, strict=True) if value is ABSENT]

    def ratio_at(threshold: float) -> float:
        there = [(v, label) for v, label in zip(values, labels, strict=True) if v is not ABSENT]
        low = [label for v, label in there if v <= threshold]
        return gain_ratio([low, [label for v, label in there if v > threshold], lacking])

    numbers = sorted({value for value in values if value is not ABSENT})
    best = max(ratio_at(number) for number in numbers[:-1])
    assert tree.threshold is not None and ratio_at(tree.threshold) == pytest.approx(best)
