"""Plans: what they answer, what they never repeat, and what they are made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from optuna.study import StudyDirection

from optuna_trlhpo.agent.acquisition import acquire, incumbent_gain
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.gaussian_process import GaussianProcess
from optuna_trlhpo.agent.planner import Planner
from optuna_trlhpo.agent.prior_knowledge import GrowthContext, PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import DecisionPoint, Networks, Plan, network_key
from optuna_trlhpo.agent.time_budget import TimeBudget
from optuna_trlhpo.layers import TABLE_I, Network
from optuna_trlhpo.trials.episode import Episode, Request
from optuna_trlhpo.trials.parameters import ParameterSpec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES

NAN = np.nan
NO_REPORTS = np.empty(0)
NO_WEIGHTS = np.zeros(0)

Filled = tuple[ParameterSpec, float]


def kind(k: int, n: int = 3) -> ParameterSpec:
    return ParameterSpec("layer_kind", k, n, True)


def units(k: int) -> ParameterSpec:
    return ParameterSpec("layer_units", k, 0, False)


def category(value: int, n: int = 3) -> float:
    return (value + 0.5) / n


def layer(k: int, value: int, width: float) -> list[Filled]:
    return [(kind(k), category(value)), (units(k), width)]


def episode(*steps: Sequence[Filled], reports: Sequence[float] | None = None) -> Episode:
    actions = np.full((len(steps), 4), NAN)
    for k, slots in enumerate(steps):
        actions[k, : len(slots)] = [action for _, action in slots]
    return Episode(
        slots=tuple(tuple(slot for slot, _ in slots) for slots in steps),
        actions=actions,
        reports=np.full(len(steps), NAN) if reports is None else np.array(reports, dtype=float),
        performance=np.full((len(steps), PERFORMANCE_VALUES), NAN),
        last_reported=-1,
    )


def outcomes(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def experience(**settings: Any) -> Replay:
    return Replay(AgentConfig(**settings), [StudyDirection.MAXIMIZE], seed=0)


class Learned(Planner):
    """Planner that learns before it plans, as an agent lets it after each trial."""

    def plan(
        self,
        point: DecisionPoint,
        own: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[Plan],
        running: DecisionPoint | None = None,
        elsewhere: tuple[Networks, np.ndarray] | None = None,
    ) -> Plan | None:
        self.learn(self._replay.n_added, weights, np.random.default_rng(0))
        return super().plan(point, own, weights, rng, pending, running, elsewhere)


def search_of(memory: Replay, **settings: Any) -> Planner:
    return Learned(
        AgentConfig(**settings),
        memory,
        0,
        PriorKnowledge(memory.names, memory.n_weights, 0, (), ()),
        TimeBudget(),
    )


def anything(memory: Replay) -> DecisionPoint:
    return memory.decision_point(Request(episode(), (), np.empty(0)))


def asked(
    memory: Replay, before: Episode, *slots: ParameterSpec, actions: Sequence[float] = ()
) -> DecisionPoint:
    return memory.decision_point(Request(before, slots, np.array(actions, dtype=float)))


def plan(
    search: Planner,
    point: DecisionPoint,
    *,
    own: np.ndarray = NO_REPORTS,
    seed: int = 0,
    pending: Sequence[Plan] = (),
) -> Plan:
    found = search.plan(point, own, NO_WEIGHTS, np.random.default_rng(seed), pending)
    assert found is not None
    return found


def layers(n: int = 12, seed: int = 0) -> Replay:
    """Trials of one to three layers, better the nearer their widths are to 0.7; each layer has a value."""
    memory, rng = experience(), np.random.default_rng(seed)
    for number in range(n):
        depth = 1 + number % 3
        widths = rng.random(depth)
        values = [0.8 - 0.1 * float(np.abs(widths[: k + 1] - 0.7).mean()) + 0.02 * k for k in range(depth)]
        steps = [layer(k, int(rng.integers(3)), width) for k, width in enumerate(widths)]
        memory.add(number, episode(*steps, reports=[*values[:-1], NAN]), outcomes(*values))
    return memory


def choices(n: int, known: Sequence[int], *, categorical: bool = False) -> Replay:
    """One parameter of n values; what was found of ``known`` falls with the value."""
    memory, slot = experience(), ParameterSpec("choice", 0, n, categorical)
    for number, value in enumerate(known):
        memory.add(number, episode([(slot, category(value, n))]), outcomes(-float(value)))
    return memory


def choice_of(found: Plan, n: int) -> int:
    return int(found.actions[0, 0] * n)


# What a plan answers -----------------------------------------------------------------------------------


def test_a_plan_answers_what_it_was_made_for() -> None:
    memory = layers()
    search = search_of(memory)
    before = episode(layer(0, 1, 0.6), reports=[0.8])
    for point in (
        anything(memory),
        asked(memory, episode(), kind(0)),
        asked(memory, episode(), kind(0), units(0), actions=[category(2)]),
        asked(memory, before, kind(1)),
        asked(memory, before, kind(1), units(1), actions=[category(0)]),
    ):
        found = plan(search, point)
        assert found.answers(point)
        step, slot = point.step, point.slot
        np.testing.assert_array_equal(found.actions[:step], point.actions[:step])
        np.testing.assert_array_equal(found.actions[step, :slot], point.actions[step, :slot])
        assert np.isfinite(found.score)


def test_a_plan_answers_all_that_it_asked_for_itself() -> None:
    """Parameter by parameter, as a trial is played."""
    memory = layers()
    found = plan(search_of(memory), asked(memory, episode(), kind(0)))
    steps: list[list[Filled]] = []
    for k in range(len(found.names)):
        slots: list[Filled] = []
        for i, slot in enumerate((kind(k), units(k))):
            request = asked(
                memory, episode(*steps), *(s for s, _ in slots), slot, actions=[action for _, action in slots]
            )
            assert found.answers(request)
            slots.append((slot, float(found.actions[k, i])))
        steps.append(slots)
    assert not found.answers(asked(memory, episode(*steps), kind(len(steps))))  # it ends there


def test_a_plan_answers_nothing_else() -> None:
    memory = layers()
    search = search_of(memory)
    mine = episode(layer(0, 1, 0.6))
    found = plan(search, asked(memory, mine, kind(1)))
    assert found.answers(asked(memory, mine, kind(1)))
    others = [
        asked(memory, episode(layer(0, 2, 0.6)), kind(1)),  # another kind before
        asked(memory, episode(layer(0, 1, 0.61)), kind(1)),  # another width before
        asked(memory, episode([(kind(0), category(1))]), kind(1)),  # less before
        asked(memory, episode([*layer(0, 1, 0.6), (units(9), 0.5)]), kind(1)),  # more before
        asked(memory, mine, units(1)),  # something else
        asked(memory, mine, kind(2)),  # the same of another layer
        asked(memory, mine, kind(1), units(1), actions=[category((int(found.actions[1, 0] * 3) + 1) % 3)]),
        asked(memory, mine, kind(1), units(1), ParameterSpec("never_seen", 1, 0, False), actions=[0.5, 0.5]),
    ]
    assert [found.answers(other) for other in others] == [False] * len(others)


def test_nothing_is_planned_for_what_nobody_knows() -> None:
    memory = layers()
    unknown = asked(memory, episode(layer(0, 1, 0.6)), ParameterSpec("never_seen", 1, 0, False))
    assert unknown.names[1, 0] == -1  # asked for as if anything would do
    search = search_of(memory)
    known_elsewhere = asked(memory, episode(layer(0, 1, 0.6)), units(1))  # never the first of its step
    assert search.plan(known_elsewhere, NO_REPORTS, NO_WEIGHTS, np.random.default_rng(0), []) is None


# What is never planned ---------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.parametrize("missing", [0, 5, 11])
def test_no_plan_repeats_a_network_that_has_a_value(
    missing: int, categorical: bool, acquisition: str
) -> None:
    """Of 12 choices 11 have a value: the twelfth is planned, the best or the worst as it may be."""
    memory = choices(12, [value for value in range(12) if value != missing], categorical=categorical)
    search = search_of(memory, acquisition=acquisition)
    assert choice_of(plan(search, anything(memory)), 12) == missing


def test_pairs_that_were_never_seen_are_planned() -> None:
    """Of the nine pairs of two choices all but one have a value."""
    memory, missing = experience(), (2, 1)
    pairs = [(a, b) for a in range(3) for b in range(3) if (a, b) != missing]
    for number, (a, b) in enumerate(pairs):
        steps = (
            [(ParameterSpec("first", 0, 3, True), category(a))],
            [(ParameterSpec("second", 0, 3, True), category(b))],
        )
        memory.add(number, episode(*steps), outcomes(NAN, float(a + b)))
    found = plan(search_of(memory), anything(memory))
    assert (found.actions[:, 0] * 3).astype(int).tolist() == [2, 1]


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_plans_of_layers_are_new(acquisition: str) -> None:
    memory = layers()
    search = search_of(memory, acquisition=acquisition)
    for seed in range(5):
        found = plan(search, anything(memory), seed=seed)
        assert not memory.has_value(found.key)
        assert found.key == network_key(found.names, found.indices, found.actions)
        assert np.isfinite(found.actions[found.names >= 0]).all()


def test_where_all_have_a_value_the_best_is_planned_again() -> None:
    memory = choices(4, [2, 0, 3, 1])
    assert choice_of(plan(search_of(memory), anything(memory)), 4) == 0


def test_a_refused_plan_never_comes_again() -> None:
    n = 8
    memory = choices(n, [7, 6, 7])
    search, refused = search_of(memory), []
    for seed in range(6):
        found = plan(search, anything(memory), seed=seed)
        refused.append(choice_of(found, n))
        found.actions[0, 0] = 0.99  # what the objective made of it does not matter
        search.exclude([found.digest])
    assert sorted(refused) == [0, 1, 2, 3, 4, 5]
    # When all were refused or have a value, something is planned nevertheless.
    assert plan(search, anything(memory)) is not None


# What is known of other trials, and of the running one --------------------------------------------------


def test_plans_of_other_trials_push_away() -> None:
    """Six workers ask one after the other: they go further apart than if they knew nothing of each other."""
    memory, rng = experience(), np.random.default_rng(4)
    for number in range(4):
        x, y = rng.random(2)
        steps = [(ParameterSpec("x", 0, 0, False), x)], [(ParameterSpec("y", 0, 0, False), y)]
        memory.add(number, episode(*steps), outcomes(NAN, -((x - 0.45) ** 2) - (y - 0.45) ** 2))
    search = search_of(memory)

    def spread(plans: Sequence[Plan]) -> float:
        places = np.array([found.actions[:, 0] for found in plans])
        return float(
            np.median(np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(6, 1)])
        )

    pending: list[Plan] = []
    for seed in range(6):
        pending.append(plan(search, anything(memory), seed=seed, pending=pending))
    alone = [plan(search, anything(memory), seed=seed) for seed in range(6)]
    assert spread(pending) > 5 * spread(alone)


def test_what_another_trial_tries_is_not_tried() -> None:
    memory = choices(9, [4, 8, 6])
    search = search_of(memory)
    pending: list[Plan] = []
    for seed in range(6):
        pending.append(plan(search, anything(memory), seed=seed, pending=pending))
    assert len({choice_of(found, 9) for found in pending} | {4, 8, 6}) == 9


def predicted(search: Planner, memory: Replay, *steps: Sequence[Filled]) -> tuple[float, float]:
    """What the critic expects of a network, after the last plan."""
    point = memory.decision_point(Request(episode(*steps), (), np.empty(0)))
    network = Networks.empty(1, len(steps))._replace(
        actions=point.actions[None, : len(steps)],
        names=point.names[None, : len(steps)],
        indices=point.indices[None, : len(steps)],
        n_values=point.n_values[None, : len(steps)],
    )
    mean, deviation = search.critic.surrogate.predict(search.critic.features(network))
    return float(mean[0]), float(deviation[0])


@pytest.mark.parametrize("report", [0.5, 0.95])
def test_the_reports_of_the_running_trial_are_conditioned_on(report: float) -> None:
    memory = layers(24)
    mine, deeper = layer(0, 1, 0.05), [layer(0, 1, 0.05), layer(1, 1, 0.5)]
    point = asked(memory, episode(mine, reports=[report]), kind(1))
    search = search_of(memory)
    plan(search, point, own=np.array([NAN]))
    before, unknown = predicted(search, memory, mine)
    deeper_before, _ = predicted(search, memory, *deeper)
    plan(search, point, own=np.array([report]))
    after, known = predicted(search, memory, mine)
    deeper_after, _ = predicted(search, memory, *deeper)
    score = memory.score_report(report)
    assert abs(after - score) < 0.7 * abs(before - score) and known < unknown
    assert np.sign(deeper_after - deeper_before) == np.sign(after - before)
    # Nothing of it stays when another trial is planned.
    plan(search, anything(memory))
    assert predicted(search, memory, mine) == pytest.approx((before, unknown))


@pytest.mark.parametrize("are_values", [False, True])
def test_what_a_report_says_of_this_trial_alone_decides_what_follows(are_values: bool) -> None:
    """A report of the first layer decides which kind is right at the second, whether it is a value or not."""
    memory, rng = experience(), np.random.default_rng(0)
    for number in range(90):
        right, way = number % 3, int(rng.integers(3))
        report = 0.5 + 0.1 * right + 0.01 * rng.standard_normal()
        steps = [(kind(0), category(0))], [(ParameterSpec("way", 1, 3, True), category(way))]
        between = report if are_values else NAN
        memory.add(number, episode(*steps, reports=[report, NAN]), outcomes(between, float(way == right)))
    search = search_of(memory)
    for right in range(3):
        point = asked(
            memory,
            episode([(kind(0), category(0))], reports=[0.5 + 0.1 * right]),
            ParameterSpec("way", 1, 3, True),
        )
        found = plan(search, point, own=np.array([0.5 + 0.1 * right]))
        assert int(found.actions[1, 0] * 3) == right


def test_the_running_network_is_not_one_that_could_be_tried() -> None:
    """All networks have a value but two; one of these, the best of all, is running."""
    one, other = ParameterSpec("first", 0, 3, True), ParameterSpec("second", 0, 3, True)
    memory, value = experience(), 0.5
    pairs = [(a, b) for a in range(3) for b in range(3) if (a, b) != (1, 1)]
    for number, (a, b) in enumerate(pairs):
        shallow = NAN if a == 2 else value  # the first step alone has a value too, but for one
        steps = [(one, category(a))], [(other, category(b))]
        memory.add(number, episode(*steps, reports=[shallow, NAN]), outcomes(shallow, value + 0.01 * a))
    best = [(one, category(2))]
    running = memory.decision_point(Request(episode(best, reports=[0.9]), (), np.empty(0)))
    search, own = search_of(memory), np.array([0.9])
    for seed in range(3):
        found = search.plan(anything(memory), own, NO_WEIGHTS, np.random.default_rng(seed), [], running)
        assert found is not None and (found.actions[:, 0] * 3).astype(int).tolist() == [1, 1]
    # What it was worth is known all the same.
    assert predicted(search, memory, best)[0] > predicted(search, memory, [(one, category(0))])[0] + 0.5


def test_a_deeper_network_is_planned_behind_the_deepest() -> None:
    memory = layers()
    before = episode(*(layer(k, 1, 0.7) for k in range(3)), reports=[0.8, 0.8, 0.8])
    found = plan(search_of(memory), asked(memory, before, kind(3)), own=before.reports)
    assert len(found.names) > 3 and found.indices[3, 0] == 3


# What the space says ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """A space that tells layers by the sum of their widths, up to a limit, and so many of them."""

    limit: float
    max_layers: int = 3
    kind_base_name = "layer_kind"
    has_layer_features = True
    vocabulary = TABLE_I

    def network_descriptor(self, layers: np.ndarray) -> np.ndarray | None:
        assert not np.isnan(layers[:, 0]).any()
        total = float(layers[:, 1].sum())
        fits = 0 < len(layers) <= self.max_layers and total <= self.limit
        return np.array([total / 3]) if fits else None

    def layer_features(self, layers: np.ndarray) -> np.ndarray | None:
        raise AssertionError("only a prior asks for it")

    @property
    def space_features(self) -> np.ndarray:
        return np.zeros(2)

    def draw_from(self, policy: Any, n: int, rng: np.random.Generator) -> list[np.ndarray]:
        raise AssertionError("only a prior asks for it")

    def draw(self, rng: np.random.Generator) -> Network:
        raise AssertionError("only a prior and a random trial ask for it")

    def every_network(self, rng: np.random.Generator) -> Iterator[Network]:
        return iter(())

    def encode(self, layers: Network) -> np.ndarray:
        raise AssertionError("only a prior and a random trial ask for it")

    def to_params(self, layers: Network) -> dict[str, Any]:
        raise AssertionError("only a random trial asks for it")


def planned_sizes(search: Planner, memory: Replay, space: Sizes) -> list[float]:
    search.knowledge.enter(GrowthContext(space, depth_first=False))
    found = [
        search.plan(anything(memory), NO_REPORTS, NO_WEIGHTS, np.random.default_rng(seed), [])
        for seed in range(4)
    ]
    return [float(np.nansum(one.actions[:, 1])) for one in found if one is not None]


@pytest.mark.parametrize("limit", [0.5, 1.2, 3.0])
def test_every_plan_is_of_the_space(limit: float) -> None:
    memory = layers(24)
    found = planned_sizes(search_of(memory), memory, Sizes(limit))
    assert len(found) == 4 and max(found) <= limit


@pytest.mark.slow
def test_a_space_that_changes_is_followed() -> None:
    memory = layers(24)
    search = search_of(memory)
    assert max(planned_sizes(search, memory, Sizes(3.0))) > 0.5
    for _ in range(3):
        assert max(planned_sizes(search, memory, Sizes(0.5))) <= 0.5


def test_networks_that_the_space_does_not_have_are_remembered_without_a_signature() -> None:
    """All finished trials are of three layers, of which the space has no more than two."""
    memory = experience()
    for number in range(6):
        steps = [layer(k, number % 3, 0.1 + 0.1 * k + 0.05 * number) for k in range(3)]
        memory.add(number, episode(*steps, reports=[0.5, 0.6, NAN]), outcomes(0.5 + 0.01 * number, 0.6, 0.7))
    found = planned_sizes(search_of(memory), memory, Sizes(3.0, max_layers=2))
    assert len(found) == 4


# What is drawn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_equal_generators_equal_plans(acquisition: str) -> None:
    plans = []
    for seed in (0, 0, 1):
        memory = layers()
        found = plan(search_of(memory, acquisition=acquisition), anything(memory), seed=seed)
        plans.append((found.key, found.score))
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.slow
def test_luck_is_no_gain() -> None:
    """Of networks that all came to much the same, with noise, the two acquisitions want different ones."""
    memory, noise = experience(), np.random.default_rng(0)
    for number in range(30):
        steps = [layer(k, number % 3, float(noise.random())) for k in range(3)]
        memory.add(number, episode(*steps), outcomes(NAN, NAN, 0.8 + 0.02 * noise.standard_normal()))
    chosen = []
    for acquisition in ("incumbent_gain", "expected_improvement"):
        search = search_of(memory, acquisition=acquisition)
        chosen.append([plan(search, anything(memory), seed=seed).key for seed in range(5)])
    assert chosen[0] != chosen[1]


def test_what_is_surely_bad_is_not_planned_for_it_harms_nothing() -> None:
    """A network that may be better could also take the incumbent's place by luck, a bad one could not."""

    class Critic(GaussianProcess):
        noise = 1.0

        def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return x[:, 0], np.full(len(x), 0.3)

    critic = Critic(n_parts=1)
    candidates, known = np.array([[0.4], [-9.0]]), np.array([1.0, 0.0])
    mean, deviation = critic.predict(candidates)
    gains = incumbent_gain(mean, deviation, 1.0, 0.9, 2.0)
    assert gains[0] < gains[1], "gain alone would choose the bad one"
    rng = np.random.default_rng(0)
    scores = acquire("incumbent_gain", critic, candidates, known - 0.1, known + 1.0, rng)
    assert scores[0] > scores[1]


def test_many_variations_are_better_than_few() -> None:
    scores = []
    for settings in (dict(n_candidates=2, n_generations=1), dict(n_candidates=100, n_generations=3)):
        memory = layers(24)
        search = search_of(memory, **settings)
        scores.append(np.mean([plan(search, anything(memory), seed=seed).score for seed in range(5)]))
    assert scores[1] > scores[0] + 0.1


def test_plans_lie_where_values_are_good() -> None:
    memory = layers(60)
    search = search_of(memory)
    widths = []
    for seed in range(4):
        found = plan(search, anything(memory), seed=seed)
        widths += found.actions[: len(found.names), 1].tolist()
    assert abs(np.mean(widths) - 0.7) < 0.15


def test_several_objectives_are_planned_for_by_their_weights() -> None:
    """x and 1 - x: with nearly all weight on one of them it is that one which is planned for."""
    memory = Replay(AgentConfig(), [StudyDirection.MAXIMIZE] * 2, seed=0)
    for number in range(10):
        x = (number + 0.5) / 10
        memory.add(number, episode([(ParameterSpec("x", 0, 0, False), x)]), np.array([[x, 1 - x]]))
    search = search_of(memory)
    found = [
        search.plan(anything(memory), NO_REPORTS, np.array(weights), np.random.default_rng(0), [])
        for weights in ([0.95, 0.05], [0.05, 0.95])
    ]
    assert found[0] is not None and found[1] is not None
    assert found[0].actions[0, 0] > 0.8 and found[1].actions[0, 0] < 0.2
