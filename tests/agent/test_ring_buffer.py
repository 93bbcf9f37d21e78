"""The ring: what is kept, what is overwritten, how it grows, how it is drawn from."""

from __future__ import annotations

import numpy as np

from optuna_trlhpo.agent.ring_buffer import RingBuffer

NAN = np.nan


def replay_of(*lengths: int, capacity: int = 100) -> RingBuffer:
    """Episode i has i at each step; pairs have i and the step."""
    replay = RingBuffer(capacity=capacity, filling={"value": NAN, "pair": -1})
    for i, length in enumerate(lengths):
        pairs = np.stack([np.full(length, i), np.arange(length)], axis=1)
        replay.add({"value": np.full(length, float(i)), "pair": pairs})
    return replay


def test_an_episode_comes_back_padded() -> None:
    rows = replay_of(2, 1, 3).rows(np.array([1, 0, 1]))
    assert rows["length"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(
        rows["value"], [[1, NAN], [0, 0], [1, NAN]]
    )  # as long as the longest asked for
    assert rows["pair"].tolist() == [[[1, 0], [-1, -1]], [[0, 0], [0, 1]], [[1, 0], [-1, -1]]]
    assert rows["pair"].dtype == np.int64


def test_the_oldest_makes_room() -> None:
    replay = replay_of(1, 4, 2, 3, 1, capacity=3)  # 0 and 1 are overwritten by 3 and 4
    assert len(replay) == 3
    rows = replay.rows(np.arange(3))
    assert rows["length"].tolist() == [3, 1, 2]
    expected = [
        [3, 3, 3],
        [4, NAN, NAN],
        [2, 2, NAN],
    ]  # nothing is left of the longer episode that stood there
    np.testing.assert_array_equal(rows["value"], expected)


def test_a_long_run() -> None:
    lengths = [1 + i % 5 for i in range(500)]
    replay = replay_of(*lengths, capacity=150)
    assert len(replay) == 150
    rows = replay.rows(np.arange(150))
    kept = rows["value"][:, 0].astype(int)
    assert sorted(kept) == list(range(350, 500))
    assert rows["length"].tolist() == [lengths[i] for i in kept]
    for i, values, pairs in zip(kept, rows["value"], rows["pair"], strict=True):
        n = lengths[i]
        assert (values[:n] == i).all() and np.isnan(values[n:]).all()
        assert pairs[:n].tolist() == [[i, k] for k in range(n)] and (pairs[n:] == -1).all()


def test_longer_episodes_later_leave_the_earlier_ones_as_they_were() -> None:
    replay = replay_of(2)
    before = replay.rows(np.array([0]))["value"].copy()
    for length in (5, 3, 40):
        replay.add({"value": np.zeros(length), "pair": np.zeros((length, 2), dtype=int)})
    np.testing.assert_array_equal(replay.rows(np.array([0]))["value"], before)
    rows = replay.rows(np.array([0, 3]))
    assert rows["value"].shape == (2, 40) and rows["length"].tolist() == [2, 40]
    assert np.isnan(rows["value"][0, 2:]).all()


def test_growth_beyond_the_first_room() -> None:
    replay = replay_of(*[1] * 200, capacity=1_000)
    np.testing.assert_array_equal(replay.rows(np.arange(200))["value"][:, 0], np.arange(200.0))


def test_some_arrays_alone() -> None:
    assert set(replay_of(1, 2).rows(np.array([0]), "pair")) == {"length", "pair"}
    assert set(replay_of(1, 2).rows(np.array([0]))) == {"length", "pair", "value"}


def test_what_is_given_back_is_a_copy() -> None:
    replay = replay_of(2, 2)
    replay.rows(np.array([0, 1]))["value"][:] = 99
    assert replay.rows(np.array([0]))["value"][0, 0] == 0


def test_sampling_is_even_and_repeatable() -> None:
    replay = replay_of(*[1] * 8, capacity=5)
    drawn = replay.sample(np.random.default_rng(0), 10_000)
    counts = np.bincount(drawn, minlength=5)
    assert len(counts) == 5 and (np.abs(counts - 2_000) < 200).all()  # 5 standard deviations
    np.testing.assert_array_equal(drawn, replay.sample(np.random.default_rng(0), 10_000))
    only = replay_of(3)
    assert (only.sample(np.random.default_rng(0), 50) == 0).all()
