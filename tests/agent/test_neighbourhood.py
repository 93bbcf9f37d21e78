"""Plans: what may vary, what comes along with it, and what is never proposed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optuna_trlhpo.agent.acquisition import incumbent_gain, log_expected_improvement
from optuna_trlhpo.agent.neighbourhood import Neighbourhood
from optuna_trlhpo.agent.sequences import DecisionPoint, Networks, as_networks

Make = Callable[..., Networks]
Step = list[tuple[int, int, int, float]]

# Stems: the kind of a layer, and what layers of the kinds A and B have; an optimizer and what comes with it;
# two numbers.
KIND, UNITS, RATE, OPTIMIZER, MOMENTUM, BETA, X, Y, WIDTH, DEPTH = range(10)
CATEGORICAL = np.isin(np.arange(11), [KIND, OPTIMIZER])
REPEATED = np.isin(np.arange(11), [KIND, UNITS, RATE, WIDTH, DEPTH])
A, B, C = 1 / 6, 3 / 6, 5 / 6
NAN = np.nan


def layer(k: int, kind: float, value: float = 0.5) -> Step:
    """Kind A has units, of ten values; B has a rate; C has nothing."""
    more = {A: [(UNITS, k, 10, 0.05 + int(value * 9.99) / 10)], B: [(RATE, k, 0, value)], C: []}
    return [(KIND, k, 3, kind), *more[kind]]


def number(base_name: int, value: float, index: int = 0) -> Step:
    return [(base_name, index, 0, value)]


def asked(*steps: Step, slot: int = 0) -> DecisionPoint:
    """The last of ``steps`` is asked for its slot ``slot``; what is before it is fixed."""
    step = len(steps) - 1
    shape = (len(steps), 4)
    point = DecisionPoint(
        np.full(shape, NAN),
        np.full(shape, -1, dtype=np.int64),
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        step,
        slot,
    )
    for s, slots in enumerate(steps):
        for a, (base_name, index, n_values, action) in enumerate(slots[: slot + 1] if s == step else slots):
            point.names[s, a], point.indices[s, a], point.n_values[s, a] = base_name, index, n_values
            if (s, a) != (step, slot):
                point.actions[s, a] = action
    return point


ANYTHING = asked([])


def planner_of(networks: Networks, point: DecisionPoint = ANYTHING, **more: Any) -> Neighbourhood:
    lengths = set(networks.lengths.tolist())
    arguments: dict[str, Any] = dict(
        scores=-np.arange(len(networks.names), dtype=float),  # the first is the best
        categorical=CATEGORICAL,
        repeated=REPEATED,
        complete=lambda n: n > point.step and n in lengths,
        settle=lambda name, index, action: action,
    )
    return Neighbourhood(networks, point=point, **(arguments | more))


def candidates(planner: Neighbourhood, n: int = 300, seed: int = 0) -> Networks:
    """Variations of two generations, and networks at random."""
    rng = np.random.default_rng(seed)
    first = planner.mutate(planner.parents(), rng, n)
    found = first + planner.mutate(first, rng, n) + planner.resample(rng, n)
    assert found
    return as_networks(found, np.zeros(0))


def memory(networks_of: Make) -> Networks:
    """Layers in the order A* B* C: behind a C there is nothing, behind a B no A."""
    return networks_of(
        [layer(0, A, 0.1), layer(1, A, 0.7), layer(2, B, 0.3), layer(3, C)],
        [layer(0, A, 0.4), layer(1, B, 0.8)],
        [layer(0, A, 0.9), layer(1, B, 0.2), layer(2, B, 0.6), layer(3, C)],
        [layer(0, A, 0.3), layer(1, C)],
        [layer(0, B, 0.45), layer(1, C)],
    )


def optimizers(networks_of: Make) -> Networks:
    """Three parameters in a row, of which the second depends on the first."""
    return networks_of(
        [[(OPTIMIZER, 0, 3, A)], number(MOMENTUM, 0.9), number(X, 0.1)],
        [[(OPTIMIZER, 0, 3, B)], number(BETA, 0.2), number(X, 0.8)],
        [[(OPTIMIZER, 0, 3, C)], number(X, 0.4)],
    )


def kinds_of(networks: Networks, n: int) -> str:
    actions = networks.actions[n, networks.names[n, :, 0] == KIND, 0]
    return "".join("ABC"[int(action * 3)] for action in actions)


# What holds of every candidate -------------------------------------------------------------------------


POINTS = {
    "nothing": ANYTHING,
    "first": asked(layer(0, A)),
    "first units": asked(layer(0, A), slot=1),
    "second": asked(layer(0, A, 0.33), layer(1, A)),
    "second rate": asked(layer(0, A, 0.33), layer(1, B), slot=1),
    "third": asked(layer(0, B, 0.91), layer(1, B, 0.77), layer(2, B)),
}
every_point = pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())


@every_point
def test_what_is_fixed_is_never_changed(networks_of: Make, point: DecisionPoint) -> None:
    found = candidates(planner_of(memory(networks_of), point))
    step, slot = point.step, point.slot
    for mine, its in zip(found[:4], point[:4], strict=True):
        same = np.broadcast_to(its[:step], mine[:, :step].shape)
        np.testing.assert_array_equal(mine[:, :step], same)
        if point.names[step, slot] >= 0:
            n = slot if its is point.actions else slot + 1  # what is asked for has a name, and no value yet
            np.testing.assert_array_equal(
                mine[:, step, :n], np.broadcast_to(its[step, :n], mine[:, step, :n].shape)
            )
    # And what is free varies.
    assert len(np.unique(found.actions[:, step:].reshape(len(found.actions), -1), axis=0)) > 10


@every_point
def test_a_candidate_is_filled_where_it_has_names_and_empty_elsewhere(
    networks_of: Make, point: DecisionPoint
) -> None:
    found = candidates(planner_of(memory(networks_of), point))
    filled = found.names >= 0
    np.testing.assert_array_equal(filled, ~np.isnan(found.actions))
    np.testing.assert_array_equal(filled, found.indices >= 0)
    assert not found.n_values[~filled].any()
    assert ((0 <= found.actions[filled]) & (found.actions[filled] <= 1)).all()
    # No step is empty while one behind it is not.
    assert (filled[:, :, 0].sum(axis=1) == found.lengths).all()
    assert all(filled[n, :length, 0].all() for n, length in enumerate(found.lengths))


@every_point
def test_actions_are_those_of_values(networks_of: Make, point: DecisionPoint) -> None:
    found = candidates(planner_of(memory(networks_of), point))
    free = np.zeros(found.names.shape, dtype=bool)
    free[:, point.step :] = True
    free[:, point.step, : point.slot] = False
    counted = (found.n_values > 0) & free
    position = found.actions[counted] * found.n_values[counted] - 0.5
    np.testing.assert_allclose(position, np.round(position), atol=1e-9)


@every_point
def test_every_kind_brings_its_own_parameters(networks_of: Make, point: DecisionPoint) -> None:
    found = candidates(planner_of(memory(networks_of), point))
    seconds = {A: UNITS, B: RATE, C: -1}
    for actions, names in zip(found.actions, found.names, strict=True):
        for k in range(point.step + (point.slot > 0), len(names)):
            if names[k, 0] >= 0:
                kind = next(kind for kind in seconds if abs(actions[k, 0] - kind) < 1e-6)
                assert names[k].tolist() == [KIND, seconds[kind], -1, -1]


@every_point
def test_indices_count_the_layers(networks_of: Make, point: DecisionPoint) -> None:
    """Also where a step was inserted or taken out in front of others."""
    found = candidates(planner_of(memory(networks_of), point, complete=lambda n: n > point.step))
    assert len(set(found.lengths.tolist())) > 2
    filled = found.names >= 0
    steps = np.broadcast_to(np.arange(found.names.shape[1])[:, None], found.names.shape[1:])
    assert (found.indices == steps)[filled].all()


@every_point
def test_what_never_followed_is_not_proposed(networks_of: Make, point: DecisionPoint) -> None:
    found = candidates(planner_of(memory(networks_of), point))
    orders = {kinds_of(found, n) for n in range(len(found.names))}
    for order in orders:
        assert order == "".join(sorted(order)) and order.count("C") <= 1
    assert len(orders) > 1


def test_what_never_followed_is_proposed_where_everything_can_follow(networks_of: Make) -> None:
    """Each network has the same parameters, so nothing tells that a pair of categories could not be."""
    never = [[(KIND, k, 3, kind)] for k, kind in enumerate((A, A, B))]
    found = candidates(planner_of(networks_of(never, [[(KIND, k, 3, C)] for k in range(3)])))
    orders = {kinds_of(found, n) for n in range(len(found.names))}
    assert len(orders) > 20, "of 27, of which pairs that were seen, AA, AB and CC, make but five"


def test_a_space_says_which_layers_may_stand_so(networks_of: Make) -> None:
    """Then that counts, and not what was seen: an A behind a B, and no more than two B."""
    asked_for: list[np.ndarray] = []

    def contains(layers: np.ndarray) -> bool:
        asked_for.append(layers)
        return int((layers[:, 0] * 3).astype(int).tolist().count(1)) <= 2

    found = candidates(planner_of(memory(networks_of), contains=contains, layer=KIND), n=600)
    orders = {kinds_of(found, n) for n in range(len(found.names))}
    assert any("BA" in order for order in orders) and any("CC" in order for order in orders)
    assert max(order.count("B") for order in orders) == 2
    assert all(layers.shape[1] == 4 and not np.isnan(layers[:, 0]).any() for layers in asked_for)


def test_lengths_that_never_had_a_value_are_not_proposed(networks_of: Make) -> None:
    found = candidates(planner_of(memory(networks_of)))
    assert set(found.lengths.tolist()) == {2, 4}
    anything = planner_of(memory(networks_of), complete=lambda n: True)
    assert set(candidates(anything).lengths.tolist()) >= {1, 2, 3, 4, 5}


def test_equal_generators_equal_candidates(networks_of: Make) -> None:
    networks = memory(networks_of)
    one, two, other = (candidates(planner_of(networks), n=50, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.names.shape != other.names.shape or not np.array_equal(
        one.actions, other.actions, equal_nan=True
    )


def test_what_is_remembered_is_left_alone(networks_of: Make) -> None:
    networks, before = memory(networks_of), memory(networks_of)
    planner = planner_of(networks, asked(layer(0, A, 0.33), layer(1, A)))
    candidates(planner)
    for mine, same in zip(networks, before, strict=True):
        np.testing.assert_array_equal(mine, same)


# Parents ----------------------------------------------------------------------------------------------


def test_parents_are_the_best_that_fit_behind_what_is_fixed(networks_of: Make) -> None:
    point = asked(layer(0, B, 0.33), layer(1, B))
    networks = memory(networks_of)
    scores = np.array([0.0, 1.0, 3.0, 2.0, -5.0])
    parents = as_networks(planner_of(networks, point, scores=scores).parents(), np.zeros(0))
    assert [kinds_of(parents, n) for n in range(5)] == ["BBBC", "BC", "BB", "BABC", "BC"]
    np.testing.assert_allclose(parents.actions[0, 0, :2], [B, 0.33])
    np.testing.assert_allclose(parents.actions[0, 1, :2], [B, 0.2])


def test_a_step_that_never_stood_there_is_taken_from_elsewhere(networks_of: Make) -> None:
    """Four layers are the most that were seen; the fifth is asked for."""
    point = asked(layer(0, A), layer(1, A), layer(2, A), layer(3, A), layer(4, A))
    planner = planner_of(memory(networks_of), point, complete=lambda n: n > 4)
    parents = as_networks(planner.parents(), np.zeros(0))
    assert len(parents.names) > 0 and (parents.lengths > 4).all()
    filled = parents.names >= 0
    steps = np.broadcast_to(np.arange(parents.names.shape[1])[:, None], parents.names.shape[1:])
    assert (parents.indices == steps)[filled].all()
    assert set(kinds_of(candidates(planner), 0)) <= set("ABC")


def test_what_was_never_seen_has_no_parents(networks_of: Make) -> None:
    assert planner_of(memory(networks_of), asked(number(X, 0.5))).parents() == []


# Parameters that come once -----------------------------------------------------------------------------


def test_a_category_brings_the_tail_of_a_template(networks_of: Make) -> None:
    found = candidates(planner_of(optimizers(networks_of)))
    tails: dict[float, list[int]] = {A: [MOMENTUM], B: [BETA], C: []}
    seen = set()
    for actions, names, length in zip(found.actions, found.names, found.lengths, strict=True):
        base_names = names[:length, 0].tolist()
        assert base_names[0] == OPTIMIZER and base_names[-1] == X
        assert base_names[1:-1] == tails[min(tails, key=lambda category: abs(category - actions[0, 0]))]
        seen.add(tuple(base_names[1:-1]))
    assert len(seen) == 3


def test_what_a_category_does_not_touch_keeps_its_value(networks_of: Make) -> None:
    """The number behind the tail is that of the parent, not of the template, if it is not varied itself."""
    planner = planner_of(optimizers(networks_of))
    found = planner.mutate(planner.parents()[:1], np.random.default_rng(0), 400)  # momentum 0.9, X 0.1
    changed = [candidate.actions[:, 0] for candidate in found if candidate.names[1, 0] == BETA]
    assert len(changed) > 20
    x, beta = np.array([actions[2] for actions in changed]), np.array([actions[1] for actions in changed])
    assert (x == 0.1).mean() > 0.5 and (x == 0.8).sum() == 0
    assert (beta == 0.2).mean() > 0.5  # that of the template


def test_parameters_that_come_once_are_not_repeated(networks_of: Make) -> None:
    found = candidates(planner_of(optimizers(networks_of)))
    for names, length in zip(found.names, found.lengths, strict=True):
        base_names = names[:length, 0].tolist()
        assert len(base_names) == len(set(base_names))


def test_choices_that_have_nothing_to_do_with_each_other_are_combined(networks_of: Make) -> None:
    """Two parameters of three choices each, three of nine pairs were seen: each one is a candidate."""
    pairs = [(A, A), (B, B), (C, C)]
    networks = networks_of(*([[(OPTIMIZER, 0, 3, a)], [(KIND, 0, 3, b)]] for a, b in pairs))
    found = candidates(planner_of(networks, repeated=np.zeros(11, dtype=bool)))
    chosen = {tuple((actions[:2, 0] * 3).astype(int).tolist()) for actions in found.actions}
    assert chosen == {(a, b) for a in range(3) for b in range(3)}


def test_what_a_category_brings_that_was_never_seen_is_left_open(networks_of: Make) -> None:
    """Its step ends there, and nothing stays of what another category brought: equal candidates are equal."""
    networks = networks_of([[(OPTIMIZER, 0, 3, A), (MOMENTUM, 0, 10, 0.55)]])
    found = candidates(planner_of(networks))
    unseen = found.actions[:, 0, 0] > 0.2
    assert unseen.any() and (~unseen).any()
    assert (found.names[unseen, 0] == [OPTIMIZER, -1, -1, -1]).all()
    assert (found.indices[unseen, 0] == [0, -1, -1, -1]).all() and not found.n_values[unseen, 0, 1:].any()


def test_a_number_is_nudged_and_sometimes_drawn_anew(networks_of: Make) -> None:
    networks = networks_of([number(X, 0.5), number(Y, 0.01)])
    planner = planner_of(networks)
    found = planner.mutate(planner.parents(), np.random.default_rng(0), 2_000)
    actions = np.array([candidate.actions[:, 0] for candidate in found])
    moved = actions != [0.5, 0.01]
    assert moved.any(axis=1).all() and 0.3 < moved[:, 0].mean() < 0.9
    step = np.abs(actions[moved[:, 0], 0] - 0.5)
    assert (step < 0.02).mean() > 0.2 and (step > 0.3).mean() > 0.05
    # Off the wall, not stuck to it.
    assert (actions >= 0).all() and len(set(actions[moved[:, 1], 1].tolist())) == moved[:, 1].sum()
    assert (actions[:, 1] == 0).sum() == 0


def test_what_has_no_bins_of_equal_width_is_settled(networks_of: Make) -> None:
    networks = networks_of([number(X, 0.5), number(Y, 0.0)])
    planner = planner_of(
        networks, settle=lambda name, index, action: round(action, 1) if name == X else action
    )
    found = candidates(planner)
    np.testing.assert_allclose(found.actions[:, 0, 0], found.actions[:, 0, 0].round(1))
    assert np.abs(found.actions[:, 1, 0] - found.actions[:, 1, 0].round(1)).max() > 0.01


def test_every_number_of_few_values_is_reached(networks_of: Make) -> None:
    networks = networks_of([[(X, 0, 64, 0.5 / 64)]])
    found = candidates(planner_of(networks), n=600)
    assert len(set((found.actions[:, 0, 0] * 64).astype(int))) == 64


# Steps that come again and again, of several base names ------------------------------------------------


@pytest.mark.parametrize("base_name", [WIDTH, DEPTH])
def test_the_step_that_is_asked_for_is_not_replaced_by_another(networks_of: Make, base_name: int) -> None:
    """Widths and depths, each a step, in any order: what is asked for is answered."""
    networks = networks_of(
        [number(WIDTH, 0.1, 0), number(WIDTH, 0.3, 1), number(DEPTH, 0.2, 2), number(DEPTH, 0.6, 3)],
        [number(WIDTH, 0.7, 0), number(DEPTH, 0.5, 1), number(WIDTH, 0.6, 2), number(DEPTH, 0.4, 3)],
    )
    found = candidates(planner_of(networks, asked(number(WIDTH, 0.4, 0), number(base_name, 0.5, 1))))
    assert (found.names[:, 1, 0] == base_name).all() and (found.indices[:, 1, 0] == 1).all()


# As arrays --------------------------------------------------------------------------------------------


def test_context_belongs_to_the_first_steps_of_each(networks_of: Make) -> None:
    planner = planner_of(memory(networks_of))
    made = as_networks(planner.parents()[:2], np.array([0.25, NAN, 0.75]))
    np.testing.assert_array_equal(made.context, [[0.25, NAN, 0.75, NAN]] * 2)
    short = as_networks(planner.parents()[1:2], np.array([0.25, NAN, 0.75]))
    np.testing.assert_array_equal(short.context, [[0.25, NAN]])


# Expected improvement ----------------------------------------------------------------------------------


def exact(u: float) -> float:
    """log(phi(u) + u * Phi(u)); `math.erfc` is exact enough until u = -30."""
    density = math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    return math.log(density + u * 0.5 * math.erfc(-u / math.sqrt(2)))


def test_expected_improvement_by_hand() -> None:
    found = log_expected_improvement(np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, 0.001]), 0.0)
    # phi(0); 2 * (phi(0.5) + 0.5 * Phi(0.5)) = 2 * (0.352065 + 0.5 * 0.691462); 5, for that is certain
    np.testing.assert_allclose(np.exp(found), [0.398942, 1.395593, 5.0], rtol=1e-5)


def test_expected_improvement_is_exact() -> None:
    u = np.linspace(-25, 10, 141)
    found = log_expected_improvement(3 + 0.1 * u, np.full(len(u), 0.1), 3.0)
    reference = np.array([exact(value) for value in u.tolist()]) + math.log(0.1)
    np.testing.assert_allclose(found, reference, atol=1e-6)


def test_expected_improvement_far_below_the_best_is_still_in_order() -> None:
    u = np.concatenate([-np.logspace(6, 2, 2_000), np.linspace(-99, 10, 50_000)])
    found = log_expected_improvement(u, np.ones(len(u)), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


def test_where_nothing_is_expected_to_be_gained_what_is_less_certain_is_preferred() -> None:
    less = log_expected_improvement(np.full(50, -40.0), np.linspace(0.1, 30, 50), 0.0)
    assert np.isfinite(less).all() and (np.diff(less) > 0).all()


def test_without_noise_the_incumbents_gain_is_the_expected_improvement() -> None:
    mean, deviation = np.linspace(-2, 3, 11), np.geomspace(0.1, 3, 11)
    gain = incumbent_gain(mean, deviation, 0.0, 0.7, 0.7)
    np.testing.assert_allclose(gain, np.exp(log_expected_improvement(mean, deviation, 0.7)), atol=1e-9)


def test_the_incumbents_gain_by_drawing() -> None:
    """With noise a candidate may take the place of a better one by luck."""
    mean, deviation, noise, n = np.array([-1.0, 0.5, 1.5]), np.array([0.1, 0.5, 1.0]), 0.8, 400_000
    rng = np.random.default_rng(0)
    f = mean + deviation * rng.standard_normal((n, 3))
    taken = f + noise * rng.standard_normal((n, 3)) > 1.0
    gain = incumbent_gain(mean, deviation, noise, 0.6, 1.0)
    np.testing.assert_allclose(gain, ((f - 0.6) * taken).mean(axis=0), atol=0.005)
    assert gain[0] < 0 < gain[1] < gain[2]
