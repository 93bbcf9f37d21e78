"""Candidates: what is settled stays, tails fit their category, values lie in the middle of their bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_trlhpo._agent.proposals import Candidates, Memory, propose

KIND, FILTERS, STRIDE, NEURONS, RATE, FREE = range(6)
# The last entry is that of no name.
N_VALUES = np.array([3, 16, 3, 63, 0, 5, 0])
CATEGORICAL = np.array([True, False, False, False, False, False, False])
KINDS = np.array([0.5, 1.5, 2.5]) / 3
# A step of kind 0 has filters and a stride, of kind 1 neurons, a rate and one more, and kind 2 has nothing.
TAILS = {0: [FILTERS, STRIDE, -1], 1: [NEURONS, RATE, FREE], 2: [-1, -1, -1]}


def middle(rng: np.random.Generator, name: int) -> float:
    n = N_VALUES[name]
    return (rng.integers(n) + 0.5) / n if n else rng.random()


def memory_of(kinds: Any, values: Any = None, seed: int = 0, dtype: Any = np.float64) -> Memory:
    """Remembered steps of these kinds; float32 is what the agent's memory stores."""
    rng = np.random.default_rng(seed)
    names = np.array([[KIND, *TAILS[kind]] for kind in kinds])
    actions = np.array(
        [
            [KINDS[kind], *(middle(rng, name) if name >= 0 else np.nan for name in TAILS[kind])]
            for kind in kinds
        ]
    )
    values = rng.random(len(names)) if values is None else np.asarray(values, dtype=float)
    return Memory(actions.astype(dtype).astype(np.float64), names, N_VALUES[names], values)


def candidates(memory: Memory, *, n: int = 400, slot: int = 0, seed: int = 0, **changes: Any) -> Candidates:
    arguments: dict[str, Any] = dict(
        n=n,
        slot=slot,
        settled=np.zeros(slot),
        settled_names=np.zeros(slot, dtype=np.int64),
        n_values=int(N_VALUES[memory.names[0, slot]]),
        categorical=CATEGORICAL,
        actor=np.array([0.4, 0.33, 0.71, 0.52]),
    )
    return propose(np.random.default_rng(seed), memory, **(arguments | changes))


def kind_of(found: Candidates) -> np.ndarray:
    return np.minimum((found.actions[:, 0] * 3).astype(int), 2)


def test_shapes_and_ranges() -> None:
    for n in (1, 2, 3, 5, 64):
        found = candidates(memory_of([0, 1, 2, 0]), n=n)
        assert found.actions.shape == found.names.shape == (n, 4)
        filled = found.names >= 0
        assert np.array_equal(np.isnan(found.actions), ~filled)
        assert ((0 <= found.actions[filled]) & (found.actions[filled] <= 1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tail_belongs_to_its_category(dtype: Any) -> None:
    found = candidates(memory_of([0] * 10 + [1] * 5 + [2] * 3, dtype=dtype))
    kinds = kind_of(found)
    assert set(kinds) == {0, 1, 2}
    for kind, names in zip(kinds, found.names, strict=True):
        assert names.tolist() == [KIND, *TAILS[kind]]


def test_a_category_that_nobody_had_has_no_tail() -> None:
    found = candidates(memory_of([0] * 10))
    kinds = kind_of(found)
    assert {0, 1, 2} == set(kinds)  # the others come by chance, and from the actor
    for kind, names in zip(kinds, found.names, strict=True):
        assert names.tolist() == [KIND, *(TAILS[0] if kind == 0 else [-1, -1, -1])]
    assert np.isnan(found.actions[kinds != 0, 1:]).all()


def test_values_lie_in_the_middle_of_their_bins() -> None:
    memory = memory_of([0] * 5 + [1] * 5)
    found = candidates(memory, n=1_000)
    for name in (KIND, FILTERS, STRIDE, NEURONS, FREE):
        values = found.actions[found.names == name] * N_VALUES[name] - 0.5
        np.testing.assert_allclose(values, values.round(), atol=1e-9)
        assert len(np.unique(values.round())) > min(N_VALUES[name] // 2, 20)  # and not always the same
    rates = found.actions[found.names == RATE]
    assert len(np.unique(rates)) > 100  # continuous ones are anywhere


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_what_is_settled_is_not_touched(slot: int) -> None:
    settled = np.array([KINDS[1], 0.123456, 0.654321])[:slot]
    settled_names = np.array([KIND, NEURONS, RATE])[:slot]
    found = candidates(memory_of([1] * 10), slot=slot, settled=settled, settled_names=settled_names)
    assert (found.actions[:, :slot] == settled).all()
    assert (found.names == [KIND, NEURONS, RATE, FREE]).all()
    assert (found.actions[:, slot:].std(axis=0) > 0.05).all()


def test_the_actor_is_among_them() -> None:
    actor = np.array([0.5, 0.801, 0.123, 0.9])
    found = candidates(memory_of([1] * 10), n=64, actor=actor)
    # 0.801 * 63 = 50.4 -> 50.5 / 63; a rate is as it is; 0.9 * 5 = 4.5 -> 4.5 / 5
    wanted = [0.5, 50.5 / 63, 0.123, 0.9]
    assert np.isclose(found.actions, wanted).all(axis=1).sum() >= 4
    # Another category than any remembered step's: its first number alone is the actor's.
    found = candidates(memory_of([1] * 10), n=64, actor=np.array([0.1, 0.8, 0.1, 0.9]))
    assert np.isclose(found.actions[-4:, 0], KINDS[0]).all() and np.isnan(found.actions[-4:, 1:]).all()


def test_half_of_them_lie_near_the_best() -> None:
    """Elites have a rate of 0.9, all others of 0.1; the others are many more."""
    memory = memory_of([1] * 416, values=[1.0] * 16 + [0.0] * 400)
    memory.actions[:16, 2], memory.actions[16:, 2] = 0.9, 0.1
    found = candidates(memory, n=400)
    near = np.abs(found.actions[:, 2] - 0.9) < 0.3
    far = np.abs(found.actions[:, 2] - 0.1) < 0.3
    assert near[:200].mean() > 0.75
    assert far[200:300].mean() > 0.75
    rates = found.actions[300:396, 2]  # the rest by chance, where the kind is still one that has a rate
    rates = rates[~np.isnan(rates)]
    assert len(np.unique(rates)) == len(rates) > 20 and rates.std() > 0.2


def test_the_best_keep_their_tails_as_they_are_stored() -> None:
    """The same with actions that have been float32, for the kinds whose bins have no exact middle."""
    memory = memory_of([0] * 416, values=[1.0] * 16 + [0.0] * 400, dtype=np.float32)
    memory.actions[:16, 1], memory.actions[16:, 1] = np.float32(15.5 / 16), np.float32(0.5 / 16)
    found = candidates(memory, n=400)
    assert (found.actions[:200, 1] > 0.6).mean() > 0.75


def test_better_elites_are_parents_more_often() -> None:
    """16 elites, of which the first is the best: with the smaller of two ranks its share is 1 - (15/16)^2."""
    memory = memory_of([1] * 16, values=-np.arange(16.0))
    memory.actions[:, 1] = (4 * np.arange(16) + 0.5) / 63
    neurons = candidates(memory, n=8_000).actions[:4_000, 1]
    kept = np.array([np.isclose(neurons, (4 * i + 0.5) / 63).sum() for i in range(16)])
    shares = kept / kept.sum()
    np.testing.assert_allclose(shares[[0, 8, 15]], [31 / 256, 15 / 256, 1 / 256], atol=0.03)
    assert shares[0] > shares[8] > shares[15]


def test_continuous_values_are_never_just_repeated() -> None:
    """Nor do they pile up at the ends, where the best often lie."""
    memory = memory_of([1] * 20)
    memory.actions[:10, 2], memory.actions[10:, 2] = 1.0, 0.0
    rates = candidates(memory, n=800).actions[:600, 2]
    assert not np.isin(rates, [0.0, 1.0]).any()
    assert 0.3 < np.mean((rates < 0.05) | (rates > 0.95)) < 0.8  # small steps and large ones alike


def test_equal_generators_equal_candidates() -> None:
    memory = memory_of([0, 1, 2] * 10)
    one, two, other = (candidates(memory, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.actions, two.actions)
    assert not np.array_equal(one.actions, other.actions, equal_nan=True)


def test_the_memory_is_left_alone() -> None:
    memory = memory_of([0, 1, 2] * 10)
    before = Memory(*(array.copy() for array in memory))
    candidates(memory)
    for array, copy in zip(memory, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_one_remembered_step_is_enough() -> None:
    found = candidates(memory_of([1]), n=64)
    assert (found.names[:, 0] == KIND).all() and len(found.actions) == 64


def test_bins_are_those_of_the_present_range() -> None:
    """Remembered neurons were one of 63; now there are five of them to choose from."""
    found = candidates(
        memory_of([1] * 20), slot=1, settled=KINDS[1:2], settled_names=np.array([KIND]), n_values=5
    )
    np.testing.assert_allclose(np.unique(found.actions[:, 1]), [0.1, 0.3, 0.5, 0.7, 0.9])
    tail = found.actions[:, 3] * N_VALUES[FREE] - 0.5  # what comes behind keeps its own
    np.testing.assert_allclose(tail, tail.round(), atol=1e-9)
