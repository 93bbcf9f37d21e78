"""What is remembered of trials, and the tensors made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import Networks, network_key
from optuna_trlhpo.agent.tokens import MOST_KINDS, NAME_CODE
from optuna_trlhpo.agent.transitions import Transitions
from optuna_trlhpo.trials.episode import Episode, Request
from optuna_trlhpo.trials.outcome_transforms import HIGHEST_SCORE, OutcomeTransform, normal_scores
from optuna_trlhpo.trials.parameters import ParameterSpec, parameter_spec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
NAN = np.nan
X, Y, C = ParameterSpec("x", 0, 0, False), ParameterSpec("y", 0, 5, False), ParameterSpec("c", 0, 3, True)
NO_WEIGHTS = np.zeros(0)


def experience(directions: Sequence[StudyDirection] = (MAXIMIZE,), **settings: Any) -> Replay:
    return Replay(AgentConfig(**settings), directions, seed=0)


def tensors(memory: Replay) -> Transitions:
    return Transitions(memory)


def paper(**settings: Any) -> Replay:
    return Replay(AgentConfig.paper(**settings), [MAXIMIZE], seed=0)


def episode(
    *actions: float, reports: Sequence[float] | None = None, slot: ParameterSpec = X, performance: Any = NAN
) -> Episode:
    """One step for each of ``actions``, of one slot each."""
    n = len(actions)
    table = np.full((n, 4), NAN)
    table[:, 0] = actions
    return Episode(
        slots=((slot,),) * n,
        actions=table,
        reports=np.full(n, NAN) if reports is None else np.array(reports, dtype=float),
        performance=np.zeros((n, PERFORMANCE_VALUES)) + np.reshape(performance, (-1, 1)),
        last_reported=-1,
    )


def outcomes(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


# Names ------------------------------------------------------------------------------------------------


def test_unknown_names() -> None:
    memory = experience()
    assert not memory.knows([X])
    memory.add(0, episode(0.5), outcomes(0.9))
    assert memory.knows([X]) and not memory.knows([Y])
    assert memory.knows([ParameterSpec("x", 0, 9, X.categorical)])  # how many values there are may change
    assert not memory.knows([ParameterSpec("x", 0, 9, not X.categorical)])
    assert not memory.knows([Y, X])  # x stood first, never second
    assert memory.names.numbers([X, Y]).tolist() == [0, -1, -1, -1]
    state = tensors(memory).state(episode(0.5, slot=Y), NO_WEIGHTS)
    assert not state.names.any() and state.filled[0, 0].tolist() == [1, 0, 0, 0]


def test_numbers_and_what_is_known_by_them() -> None:
    memory = experience()
    for number, slot in enumerate([C, Y, X]):
        memory.add(number, episode(0.5, slot=slot), outcomes(0.5))
    assert memory.names.numbers([X, C, Y]).tolist() == [2, 0, 1, -1]
    assert memory.names.categorical.tolist() == [True, False, False, False]  # the last is that of no name
    memory.add(3, episode(0.5, slot=ParameterSpec("y", 0, 9, False)), outcomes(0.5))  # a range that has grown
    found = memory.trials(np.random.default_rng(0), 9)
    assert sorted(found.n_values[found.names == 1]) == [5, 9]  # each is remembered with its own


def test_parameters_that_differ_in_digits_and_kind_are_two() -> None:
    memory = experience()
    memory.add(0, episode(0.5, slot=ParameterSpec("x", 0, 0, False)), outcomes(0.5))
    memory.add(1, episode(0.5, slot=ParameterSpec("x", 0, 3, True)), outcomes(0.5))
    assert memory.names.numbers(
        [ParameterSpec("x", 0, 0, False), ParameterSpec("x", 0, 3, True)]
    ).tolist() == [0, 1, -1, -1]


def codes(*base_names: str) -> list[list[float]]:
    """The codes of these names, learned in this order."""
    memory = experience()
    for number, base_name in enumerate(base_names):
        memory.add(number, episode(0.5, slot=ParameterSpec(base_name, 0, 0, False)), outcomes(0.5))
    found = [
        Transitions(memory)
        .state(episode(0.5, slot=ParameterSpec(base_name, 0, 0, False)), NO_WEIGHTS)
        .names[0, 0]
        for base_name in base_names
    ]
    assert all(code.shape == (4, NAME_CODE) and not code[1:].any() for code in found)
    return [code[0].tolist() for code in found]


def test_codes_depend_on_the_name_alone() -> None:
    a, b = codes("lr", "n_units_l")
    assert codes("n_units_l", "x", "lr") == [b, codes("x")[0], a]
    assert np.abs(np.subtract(a, b)).max() > 0.5
    assert 0.5 < np.std(a + b) < 1.5


def test_codes_are_the_same_in_every_process() -> None:
    """Written down once: a hash that Python salts anew in each process would not give them again."""
    assert codes("lr")[0][:3] == pytest.approx([0.443313, -0.113065, -0.709744], abs=1e-6)
    assert codes("n_units_l")[0][:3] == pytest.approx([-1.008633, -2.185004, 0.13254], abs=1e-6)


# States -----------------------------------------------------------------------------------------------


def test_the_shapes_of_a_state() -> None:
    memory = experience()
    memory.add(0, episode(0.1, 0.2), outcomes(NAN, 0.9))
    for n in (0, 1, 3):
        state = tensors(memory).state(episode(*[0.5] * n), NO_WEIGHTS)
        shapes = [tuple(tensor.shape) for tensor in state]
        assert shapes == [(1, n, 4), (1, n, 4), (1, n, 4, NAME_CODE), (1, n, 32), (1, n), (1, n, 0)] + 2 * [
            (1, n, MOST_KINDS)
        ]
        assert all(tensor.dtype == torch.float32 and not tensor.isnan().any() for tensor in state)
    several = experience([MAXIMIZE, MINIMIZE])
    assert tensors(several).state(episode(0.5, 0.5), np.array([0.3, 0.7])).weights[0].tolist() == [
        pytest.approx([0.3, 0.7]),
        pytest.approx([0.3, 0.7]),
    ]


def test_a_query_holds_the_name_and_the_kinds_that_are_allowed() -> None:
    memory = experience()
    memory.add(0, episode(0.1), outcomes(0.9))
    free = tensors(memory).query([X], np.zeros(0), NO_WEIGHTS)
    assert not free.actions.any() and not free.filled.any() and not free.allowed.any()
    assert not free.performance.any() and not free.measured.any()
    assert free.names[0, 0, 0].any() and not free.names[0, 0, 1:].any()
    kind = ParameterSpec("kind", 1, 3, True, allowed=(1, 2))
    assert (
        tensors(memory).query([kind], np.zeros(0), NO_WEIGHTS).allowed[0, 0].tolist() == [0, 1, 1] + [0] * 5
    )
    settled = tensors(memory).query(
        [kind, X], np.array([0.9]), NO_WEIGHTS
    )  # the kind is known: it alone is allowed
    assert settled.allowed[0, 0].tolist() == [0, 0, 1] + [0] * 5
    many = ParameterSpec("kind", 1, MOST_KINDS + 1, True)
    assert not tensors(memory).query([many], np.zeros(0), NO_WEIGHTS).allowed.any()  # a number like any other


def test_the_first_category_of_a_step_is_one_of_a_few() -> None:
    memory = experience()
    memory.add(0, episode(0.9, slot=ParameterSpec("kind", 0, 3, True, allowed=(0, 2))), outcomes(0.9))
    steps = tensors(memory).batch(np.random.default_rng(0)).steps
    assert steps.kinds[0, 0].tolist() == [0, 0, 1] + [0] * 5
    assert steps.allowed[0, 0].tolist() == [1, 0, 1] + [0] * 5
    assert steps.filled[0, 0, 0] == steps.actions[0, 0, 0] == 0
    state = tensors(memory).state(episode(0.1, slot=ParameterSpec("kind", 0, 3, True)), NO_WEIGHTS)
    assert state.kinds[0, 0].tolist() == [1] + [0] * 7


def seen(memory: Replay, report: float, step: int, n: int = 2) -> float:
    """How the agent sees a report at ``step``: the mean of the finest bins, by their light."""
    reports = [NAN] * n
    reports[step] = report
    state = tensors(memory).state(episode(*[0.5] * n, reports=reports), NO_WEIGHTS)
    assert state.measured[0].tolist() == [float(k == step) for k in range(n)]
    lit = state.performance[0, step].numpy()
    assert [lit[:4].sum(), lit[4:12].sum(), lit[12:].sum()] == pytest.approx([1, 1, 1], abs=0.51)
    fine = lit[12:]
    return float((fine * (np.arange(20) + 0.5)).sum() / fine.sum() / 20)


@pytest.mark.parametrize(("direction", "sign"), [(MAXIMIZE, 1), (MINIMIZE, -1)])
def test_a_report_is_seen_by_its_rank_at_its_step(direction: StudyDirection, sign: int) -> None:
    memory = experience([direction])
    for i in range(5):  # at step 0 reports are 10 to 14, at step 1 they are 100 to 104
        run = episode(0.5, 0.5, reports=[sign * (10 + i), sign * (100 + i)])
        memory.add(i, run, outcomes(10 + i, 100 + i))
    # Rank of 11 among 10 .. 14: (1 + 0.5) / 5
    assert seen(memory, sign * 11, step=0) == pytest.approx(0.3)
    assert seen(memory, sign * 103, step=1) == pytest.approx(0.7)
    assert seen(memory, sign * 12, step=0) == pytest.approx(0.5)
    # 50 is better than all at step 0, and worse than all at step 1.
    assert seen(memory, sign * 50, step=0) > 0.95 and seen(memory, sign * 50, step=1) < 0.05
    # A step deeper than any that reported has nothing to be ranked by.
    deep = tensors(memory).state(episode(0.5, 0.5, 0.5, reports=[NAN, NAN, sign * 1.0]), NO_WEIGHTS)
    assert not deep.performance[0, 2].any()


def test_the_papers_state_holds_the_accuracies_themselves() -> None:
    memory = paper()
    memory.add(0, episode(0.5, reports=[0.7]), outcomes(0.7))
    state = tensors(memory).state(episode(0.1, 0.2, 0.3, reports=[0.6, 0.8, NAN]), NO_WEIGHTS)
    np.testing.assert_allclose(state.performance[0], np.repeat([[0.6], [0.8], [0]], 32, axis=1), atol=1e-6)
    assert state.measured[0].tolist() == [1, 1, 0]
    given = tensors(memory).state(episode(0.1, 0.2, reports=[0.6, 0.8], performance=[0.25, NAN]), NO_WEIGHTS)
    np.testing.assert_allclose(given.performance[0, :, 0], [0.25, 0.8], atol=1e-6)


# Batches ----------------------------------------------------------------------------------------------


def filled(memory: Replay, n: int = 20) -> Replay:
    """Episodes of one to three steps; the deeper, the better."""
    for i in range(n):
        depth = 1 + i % 3
        reports = 0.3 + 0.1 * np.arange(depth) + 0.005 * i
        memory.add(i, episode(*[(i + 0.5) / n] * depth, reports=[*reports[:-1], NAN]), outcomes(*reports))
    return memory


@pytest.mark.parametrize("make", [experience, paper])
def test_the_shapes_of_a_batch(make: Any) -> None:
    memory = filled(make(n_candidates=0, n_critics=3, batch_size=64))
    batch = tensors(memory).batch(np.random.default_rng(0))
    B, S = 64, 3
    assert batch.steps.actions.shape == (B, S, 4) and batch.steps.names.shape == (B, S, 4, NAME_CODE)
    for tensor in (batch.learned, batch.returns, batch.rewards, batch.done):
        assert tensor.shape == (B, S) and not tensor.isnan().any()
    assert batch.mask.shape == (B, 3) and (batch.mask.sum(dim=1) >= 1).all()
    lengths = batch.steps.filled[..., 0].sum(dim=1)
    assert torch.equal(batch.done.sum(dim=1), torch.ones(B))
    assert torch.equal(batch.done.argmax(dim=1), lengths.long() - 1)
    step = torch.arange(S)
    if make is paper:  # one transition of each
        assert (batch.learned.sum(dim=1) == 1).all() and not batch.returns.any()
        assert (batch.learned.argmax(dim=1) < lengths).all()
        assert len(set(batch.learned.argmax(dim=1).tolist())) == 3
    else:
        assert torch.equal(batch.learned, (step < lengths.unsqueeze(1)).float()) and not batch.rewards.any()
    again = tensors(memory).batch(np.random.default_rng(0))
    for one, other in ((batch.steps, again.steps), (batch.noise, again.noise), (batch[1:-1], again[1:-1])):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_long_trials_make_smaller_batches() -> None:
    """An update takes about the same time whatever the trials: at most 256 steps."""
    memory = experience(n_candidates=0, batch_size=32)
    for depth, n in [(8, 32), (10, 25), (300, 1)]:
        memory.add(depth, episode(*[0.5] * depth), outcomes(*[0.5] * depth))
        assert len(tensors(memory).batch(np.random.default_rng(0)).mask) == n


def test_the_papers_rewards_by_hand() -> None:
    """The gain of each step; that of the first is over the mean of what the first steps brought."""
    memory = paper()
    memory.add(0, episode(0.5, 0.5, 0.5, reports=[0.7, 0.9, NAN]), outcomes(0.7, 0.9, 0.8))
    rewards = tensors(memory).batch(np.random.default_rng(0)).rewards
    np.testing.assert_allclose(rewards, np.tile([0.0, 0.2, -0.1], (16, 1)), atol=1e-6)
    memory.add(1, episode(0.5), outcomes(0.3))
    rewards = tensors(memory).batch(np.random.default_rng(0)).rewards
    assert {round(float(reward), 3) for reward in rewards[:, 0]} == {0.2, -0.2}


def test_returns_by_hand() -> None:
    """Outcomes 1, 2, 3, 4: the best at or behind each step, its rank among outcomes, in normal scores."""
    memory = experience(n_candidates=0, batch_size=200)
    for i, values in enumerate([(1,), (2, NAN), (3, 1), (NAN, 4)]):
        memory.add(i, episode(*[(i + 0.5) / 4] * len(values)), outcomes(*values))
    batch = tensors(memory).batch(np.random.default_rng(0))
    which = (batch.steps.actions[:, 0, 0] * 4).long()
    assert set(which.tolist()) == {0, 1, 2, 3}
    ranks = {0: [0.125], 1: [0.375], 2: [0.625, 0.125], 3: [0.875, 0.875]}  # (below + half of the ties) / 4
    for i, returns in zip(which.tolist(), batch.returns.numpy(), strict=True):
        scores = normal_scores(np.array(ranks[i])) / HIGHEST_SCORE  # the critic's range is [-1, 1]
        np.testing.assert_allclose(returns[: len(ranks[i])], scores, atol=1e-6)


def test_members_see_different_trials_the_same_ones_every_time() -> None:
    memory = filled(experience(n_candidates=0, batch_size=64, n_critics=4), n=60)

    def masks(seed: int) -> dict[float, list[float]]:
        rng = np.random.default_rng(seed)
        batches = [tensors(memory).batch(rng) for _ in range(12)]
        keys = torch.cat([batch.steps.actions[:, 0, 0] for batch in batches]).tolist()
        return dict(zip(keys, torch.cat([batch.mask for batch in batches]).tolist(), strict=True))

    one, two = masks(0), masks(1)
    assert len(one) == 60 and one == two
    share = np.mean(list(one.values()))
    assert 0.6 < share < 0.85 and len({tuple(mask) for mask in one.values()}) > 5


def test_ranks_are_taken_by_what_is_known_now() -> None:
    """A trial that was the best stays so only until a better one is known."""
    memory = experience(n_candidates=0, batch_size=40)
    memory.add(0, episode(0.25), outcomes(1.0))
    assert tensors(memory).batch(np.random.default_rng(0)).returns[0, 0] == pytest.approx(0, abs=1e-6)
    for i in range(1, 4):
        memory.add(i, episode(0.75), outcomes(2.0))
    batch = tensors(memory).batch(np.random.default_rng(1))
    first = batch.steps.actions[:, 0, 0] == 0.25
    assert first.any() and (batch.returns[first, 0] < -0.3).all()


# Networks ---------------------------------------------------------------------------------------------


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows_of(networks: Networks) -> list[list[float]]:
    """The first actions of each network, step by step, without what is empty."""
    return [
        [float(action) for action, name in zip(actions[:, 0], names[:, 0], strict=True) if name >= 0]
        for actions, names in zip(networks.actions, networks.names, strict=True)
    ]


def place(slot: ParameterSpec, index: int) -> ParameterSpec:
    return replace(slot, index=index)


def grown(*actions: float, reports: Sequence[float] | None = None) -> Episode:
    """Like `episode`, with an index that counts the steps, as names of layers have."""
    one = episode(*actions, reports=reports)
    return replace(one, slots=tuple((place(X, k),) for k in range(len(actions))))


def test_every_prefix_with_a_value_is_a_network() -> None:
    memory = experience()
    two = Episode(((C, X), (Y,)), np.array([[0.5, 0.25, NAN, NAN], [0.7, NAN, NAN, NAN]]), np.full(2, NAN),
                  np.full((2, 32), NAN), -1)  # fmt: skip
    memory.add(0, two, outcomes(1.0, 2.0))
    memory.add(1, episode(0.9, 0.8, slot=Y), outcomes(NAN, 3.0))
    networks, values = memory.networks(rng(), NO_WEIGHTS)
    c, x, y = memory.names.numbers([C, X, Y])[:3]
    assert networks.names.tolist() == [
        [[c, x, -1, -1], [-1] * 4],
        [[c, x, -1, -1], [y, -1, -1, -1]],
        [[y, -1, -1, -1], [y, -1, -1, -1]],
    ]
    np.testing.assert_allclose(networks.actions[0], [[0.5, 0.25, NAN, NAN], [NAN] * 4])
    np.testing.assert_allclose(networks.actions[1], two.actions)
    assert networks.n_values.tolist()[1] == [[3, 0, 0, 0], [5, 0, 0, 0]]
    assert networks.indices.tolist()[1] == [[0, 0, -1, -1], [0, -1, -1, -1]]
    assert networks.lengths.tolist() == [1, 2, 2]
    assert (np.diff(values) > 0).all()
    # Pieces for plans are cut from whole trials, whatever has a value.
    assert memory.trials(rng(), 9).lengths.tolist() == [2, 2]
    assert memory.trials(rng(), 1).names.shape[0] == 1


def test_values_are_scores_of_the_outcomes_known_now() -> None:
    memory = experience()
    for i, value in enumerate([3.0, -100.0, 1.0, 2.0]):
        memory.add(i, episode(0.1 + 0.2 * i), outcomes(value))
    _, values = memory.networks(rng(), NO_WEIGHTS)
    np.testing.assert_allclose(
        values, OutcomeTransform(np.array([3.0, -100.0, 1.0, 2.0]))(np.array([3.0, -100, 1, 2]))
    )
    assert memory.score_report(2.0) == pytest.approx(values[3])
    memory.add(4, episode(0.95), outcomes(50.0))
    _, later = memory.networks(rng(), NO_WEIGHTS)
    assert later[0] < values[0]
    # In a study that minimises it is what was reported, not its outcome, that is scored.
    mirrored = experience([MINIMIZE])
    for i, value in enumerate([3.0, -100.0, 1.0, 2.0]):
        mirrored.add(i, episode(0.1 + 0.2 * i), outcomes(value))
    mirrored.networks(rng(), NO_WEIGHTS)
    assert mirrored.score_report(-2.0) == pytest.approx(values[3])


def test_scores_in_a_unit_that_is_known_beforehand() -> None:
    memory, accuracies = experience(), np.array([0.7, 0.9, 0.8, 0.95])
    for i, value in enumerate(accuracies):
        memory.add(i, episode(0.1 + 0.2 * i), outcomes(value))
    for unit in (None, 0.25):
        _, values = memory.networks(rng(), NO_WEIGHTS, unit=unit)
        np.testing.assert_allclose(values, OutcomeTransform(accuracies, unit)(accuracies))
        assert memory.score_report(0.8) == pytest.approx(values[2])


def test_scores_by_rank() -> None:
    memory, found = experience(targets="rank"), [0.7, 0.9, 0.8, -5.0]
    for i, value in enumerate(found):
        memory.add(i, episode(0.1 + 0.2 * i), outcomes(value))
    _, values = memory.networks(rng(), NO_WEIGHTS, unit=0.25)
    np.testing.assert_allclose(values, normal_scores(np.array([3, 7, 5, 1]) / 8))
    # A report is ranked among them, itself included.
    assert memory.score_report(0.85) == pytest.approx(float(normal_scores(np.array([7 / 10]))[0]))
    assert experience(targets="rank").networks(rng(), NO_WEIGHTS)[1].shape == (0,)


def test_a_network_that_is_trained_again_with_the_same_value_counts_once() -> None:
    """A prefix that is reused brings nothing new; another value of it does."""
    memory = experience()
    memory.add(0, grown(0.1, 0.2, reports=[0.5, NAN]), outcomes(0.5, 0.6))
    memory.add(1, grown(0.1, 0.3, reports=[0.5, NAN]), outcomes(0.5, 0.7))
    memory.add(2, grown(0.1, 0.4, reports=[0.55, NAN]), outcomes(0.55, 0.8))
    networks, values = memory.networks(rng(), NO_WEIGHTS)
    assert rows_of(networks) == [[0.1], [0.1, 0.2], [0.1, 0.3], [0.1], [0.1, 0.4]]
    assert values[0] < values[3]
    assert memory.trials(rng(), 9).lengths.tolist() == [2, 2, 2]


def test_what_has_a_value() -> None:
    memory = experience()
    memory.add(0, grown(0.1, 0.2, 0.3), outcomes(0.5, NAN, 0.6))
    networks = memory.trials(rng(), 1)

    def key(n: int, actions: np.ndarray = networks.actions) -> bytes:
        return network_key(networks.names[0, :n], networks.indices[0, :n], actions[0, :n])

    assert [memory.has_value(key(n)) for n in (1, 2, 3)] == [True, False, True]
    assert not memory.has_value(key(3, networks.actions + 0.1))
    assert not memory.has_value(network_key(networks.names[0], networks.indices[0] + 1, networks.actions[0]))


def test_the_best_and_the_latest_are_always_among_the_networks() -> None:
    """Of 2,000 trials a few hundred are learned from; the best and the latest are never missed."""
    memory = experience()
    values = rng().permutation(2_000)
    for i, value in enumerate(values):
        memory.add(i, episode((i + 0.5) / 2_000), outcomes(float(value)))
    chosen = []
    for seed in range(3):
        networks, scores = memory.networks(rng(seed), NO_WEIGHTS)
        numbers = (networks.actions[:, 0, 0] * 2_000).astype(int)
        assert len(set(numbers)) == len(numbers) <= 400
        assert set(np.argsort(-values)[:100]) | set(range(1_900, 2_000)) <= set(numbers)
        assert (np.argsort(scores) == np.argsort(values[numbers])).all()
        chosen.append(numbers.tolist())
        assert len(memory.trials(rng(seed), 50).names) == 50
    assert chosen[0] != chosen[1]
    assert chosen[0] == (memory.networks(rng(0), NO_WEIGHTS)[0].actions[:, 0, 0] * 2_000).astype(int).tolist()


def test_a_name_that_is_forgotten_is_not_known() -> None:
    memory = experience(replay_capacity=3)
    memory.add(0, episode(0.5, slot=Y), outcomes(1.0))
    assert memory.knows([Y])
    for i in range(1, 4):
        memory.add(i, episode(0.5 + 0.1 * i), outcomes(float(i)))
    assert not memory.knows([Y]) and memory.knows([X])
    y = memory.names.numbers([Y])[0]
    assert not (memory.networks(rng(), NO_WEIGHTS)[0].names == y).any()
    assert not (memory.trials(rng(), 9).names == y).any()


def test_a_logarithmic_integer_is_settled() -> None:
    uneven = parameter_spec("n", IntDistribution(1, 64, log=True))
    memory = experience()
    memory.add(0, episode(0.5, slot=uneven), outcomes(1.0))
    n = int(memory.names.numbers([uneven])[0])
    for action in (0.0, 0.3, 0.31, 0.77, 1.0):
        assert memory.names.settle(n, 0, action) == uneven.settle(action)
    assert memory.names.settle(n, 1, 0.3) == 0.3 and memory.names.settle(n + 1, 0, 0.3) == 0.3


# What a running trial is, in numbers ------------------------------------------------------------------


def test_a_request_in_numbers() -> None:
    memory = experience()
    memory.add(0, grown(0.1, 0.2, reports=[0.5, NAN]), outcomes(0.5, 0.9))
    memory.add(1, episode(0.5, slot=C), outcomes(0.9))
    x, c = memory.names.numbers([X, C])[:2]
    before = grown(0.3, 0.4, reports=[0.5, NAN])
    point = memory.decision_point(
        Request(before, (place(C, 2), place(X, 2), place(Y, 2)), np.array([0.5, 0.25]))
    )
    assert (point.step, point.slot) == (2, 2)
    assert point.names.tolist() == [[x, -1, -1, -1], [x, -1, -1, -1], [c, x, -1, -1]]  # nobody had a y
    assert point.indices.tolist() == [[0, -1, -1, -1], [1, -1, -1, -1], [2, 2, 2, -1]]
    assert point.n_values.tolist() == [[0] * 4, [0] * 4, [3, 0, 5, 0]]
    np.testing.assert_allclose(point.actions[:, 0], [0.3, 0.4, 0.5])
    np.testing.assert_allclose(point.actions[2], [0.5, 0.25, NAN, NAN])
    # A request without slots asks for anything.
    anything = memory.decision_point(Request(before.first(0), (), np.empty(0)))
    assert (anything.step, anything.slot) == (0, 0) and (anything.names == -1).all()


def are_values(memory: Replay) -> bool:
    """Asked anew each time: mypy would take what an earlier assertion said for granted."""
    return memory.reports_are_values


def test_what_reports_are_follows_the_last_trial_that_had_any() -> None:
    """Where they are values they are networks; elsewhere they tell something of what is to come."""
    memory = experience()
    assert are_values(memory)  # until one reports something else
    for i in range(3):
        memory.add(i, grown(0.1 * i, 0.2, reports=[10.0 + i, NAN]), outcomes(NAN, 0.5))
    assert not are_values(memory)
    # A report with another outcome is never among the networks' values.
    networks, _ = memory.networks(rng(), NO_WEIGHTS)
    assert networks.lengths.tolist() == [2, 2, 2]
    memory.add(3, grown(0.9, 0.2, reports=[0.7, NAN]), outcomes(0.7, 0.8))
    assert are_values(memory)
    memory.add(4, grown(0.8, 0.2), outcomes(NAN, 0.8))  # nothing was reported: nothing is learned of it
    assert are_values(memory)


def test_what_was_reported_between_steps_is_read_with_its_prefix() -> None:
    memory = experience([MINIMIZE])
    assert [len(array) for array in memory.reported()[0:1]] == [0]
    memory.add(0, grown(0.1, 0.2, 0.3, reports=[10.0, 20.0, NAN]), outcomes(NAN, NAN, 0.5))
    memory.add(1, grown(0.4), outcomes(0.4))
    memory.add(2, grown(0.5, 0.6, reports=[0.3, NAN]), outcomes(0.3, 0.6))
    networks, _ = memory.networks(rng(), NO_WEIGHTS)
    of_network, prefixes, trial, step, reports = memory.reported()
    assert of_network.tolist() == [0, 1, 2, 2] and networks.lengths.tolist() == [3, 1, 1, 2]
    assert rows_of(prefixes) == [[0.1], [0.1, 0.2], [0.5]]
    assert trial.tolist() == [0, 0, 2] and step.tolist() == [0, 1, 0]
    assert reports.tolist() == [-10.0, -20.0, -0.3]  # more is better
    assert memory.signed(np.array([3.0])).tolist() == [-3.0]


def test_networks_of_several_objectives_follow_the_weights() -> None:
    """A front of 400 trials, i in one objective and -i in the other: each weighting has its own best."""
    memory = experience([MAXIMIZE, MINIMIZE])
    for i in range(400):
        memory.add(i, episode(i / 400), np.array([[float(i), -float(i)]]))
    for weights, best in [([0.98, 0.02], 399), ([0.02, 0.98], 0), ([0.5, 0.5], 200)]:
        networks, values = memory.networks(rng(), np.array(weights))
        top = np.round(networks.actions[np.argsort(-values)[:10], 0, 0] * 400)
        assert np.abs(top - best).max() < 15
    # And the weights of an update are drawn anew for each trial, positive.
    drawn = memory.draw_weights(np.random.default_rng(0), 50)
    assert drawn.shape == (50, 2) and (drawn > 0).all() and drawn[:, 0].std() > 0.1
    assert memory.n_weights == 2 and experience().n_weights == 0
    assert experience().draw_weights(np.random.default_rng(0), 5).shape == (5, 0)


def test_dominated_trials_are_worth_less() -> None:
    memory = experience([MAXIMIZE, MAXIMIZE], n_candidates=0, batch_size=64)
    for i, pair in enumerate([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]):
        memory.add(i, episode((i + 0.5) / 3), np.array([pair]))
    batch = tensors(memory).batch(np.random.default_rng(0))
    which = (batch.steps.actions[:, 0, 0] * 3).long()
    best_of_0, worst_of_1 = batch.returns[which == 0, 0].max(), batch.returns[which == 1, 0].min()
    assert best_of_0 < worst_of_1
    assert batch.returns[which == 1, 0].max() < batch.returns[which == 2, 0].min()
    assert batch.steps.weights.shape == (64, 1, 2)


# Scores and values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["log_error", "rank"])
@pytest.mark.parametrize("direction", [MAXIMIZE, MINIMIZE])
def test_a_value_is_found_again_by_its_score(direction: StudyDirection, targets: str) -> None:
    memory = experience([direction], targets=targets)
    assert memory.values_of(np.zeros(1)) is None  # nothing has a value yet
    sign = 1 if direction == MAXIMIZE else -1
    values = np.linspace(2.0, 4.0, 21)
    for number, value in enumerate(values):
        memory.add(number, episode(number / 21), sign * outcomes(value))
    memory.networks(np.random.default_rng(0), NO_WEIGHTS)
    scores = np.array([memory.score_report(value) for value in values])
    found = memory.values_of(scores)
    assert found is not None
    np.testing.assert_allclose(found[2:-2], values[2:-2], atol=0.11 if targets == "rank" else 1e-9)


def test_several_objectives_have_no_single_value() -> None:
    memory = experience([MAXIMIZE, MINIMIZE])
    memory.add(0, episode(0.5), np.array([[1.0, -2.0]]))
    assert memory.values_of(np.zeros(1)) is None


# Repeats ----------------------------------------------------------------------------------------------


def test_a_repeated_value_is_news_after_another_report() -> None:
    """Two trials with equal actions and equal values, and different reports after the first step."""
    memory = experience()
    for number, report in enumerate([0.2, 0.7]):
        memory.add(number, episode(0.1, 0.9, reports=[report, NAN]), outcomes(NAN, 1.0))
    memory.add(2, episode(0.1, 0.5, reports=[0.4, NAN]), outcomes(NAN, 0.0))
    assert len(memory.networks(rng(), NO_WEIGHTS)[1]) == 2
    networks, values = memory.networks(rng(), NO_WEIGHTS, repeats=True)
    assert networks.actions[:, 1, 0].tolist() == [0.9, 0.9, 0.5]
    assert values[0] == values[1] > values[2]
    # Without a report before it, a repeated value is no news.
    plain = experience()
    for number in range(2):
        plain.add(number, episode(0.1, 0.9), outcomes(NAN, 1.0))
    assert len(plain.networks(rng(), NO_WEIGHTS, repeats=True)[1]) == 1
