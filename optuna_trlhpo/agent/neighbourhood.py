"""What to try next: variations of the best networks, ranked by what the critic expects of them.

Notation: N remembered networks, S steps, A action slots.

A plan is a whole network that begins with what the running trial has settled. Which parameters there are
depends on others (a pooling layer has no neurons), so plans are put together from pieces of remembered
networks: their values are varied, a category that changes brings what followed it elsewhere, steps are
replaced, inserted and taken out where the same parameters come step after step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from optuna_trlhpo.agent.sequences import Candidate, DecisionPoint, Networks
from optuna_trlhpo.layers.bins import bin_of, middle_of

_SMALLEST, _LARGEST = 0.005, 0.25
"""How far a value in [0, 1] is nudged, as a standard deviation."""
_N_BEST = 10
_BEST_SHARE = 0.5
_RESTRUCTURED = 0.3
"""Share of the variations in which a step is replaced, inserted, appended or taken out."""


class Neighbourhood:
    """Puts candidates together.

    Args:
        networks: Remembered ones.
        scores: ``[N]`` how good they are held to be; the best are varied.
        settled: What may not be changed.
        categorical: Whether a stem's values have no order, by its number.
        repeated: Whether a stem comes step after step, by its number.
        complete: Whether a candidate of so many steps would be one that gets a value.
        contains: Tells of the actions of layers whether they may stand so; None where it is not known.
        layer: The stem that a layer begins with.
        depth: The stem of the number of layers, where that is asked for first.
        settle: Gives for a stem, an index and an action the action that stands for the same value.
    """

    def __init__(
        self,
        networks: Networks,
        scores: np.ndarray,
        settled: DecisionPoint,
        categorical: np.ndarray,
        repeated: np.ndarray,
        complete: Callable[[int], bool],
        settle: Callable[[int, int, float], float],
        contains: Callable[[np.ndarray], bool] | None = None,
        layer: int = -1,
        depth: int = -2,
    ) -> None:
        self._contains, self._layer, self._depth = contains, layer, depth
        self._settle = settle
        self._settled = settled
        self._categorical = categorical
        self._repeated = repeated
        self._complete = complete
        lengths = networks.lengths
        drafts = [
            Candidate(a[:n], m[:n], i[:n], v[:n])
            for a, m, i, v, n in zip(*networks[:4], lengths.tolist(), strict=True)
        ]
        self._alone = self._never_followed(networks.names, len(categorical))
        self._followed = {pair for draft in drafts for pair in self._successions(draft)}
        self._is_free = self._same_everywhere(networks)
        step, slot = settled.step, settled.slot
        asked, index = settled.names[step, slot], settled.indices[step, slot]
        fitting = [
            k
            for k, draft in enumerate(drafts)
            if len(draft) > step
            and (asked < 0 or (draft.names[step, slot] == asked and draft.indices[step, slot] == index))
        ]
        self._all = drafts
        self._nowhere: set[tuple[int, int, int, int | None]] = set()  # categories that no network has
        order = sorted(fitting, key=lambda k: -scores[k])
        self._parents = [self._joined(drafts[k].steps(step)) for k in order]
        if not self._parents:  # the step never came at this place
            self._parents = [
                self._joined(draft.steps(k, None, self._shift(draft, k)))
                for draft in drafts
                for k in range(len(draft))
                if draft.names[k, slot] == asked
            ]

    @staticmethod
    def _never_followed(names: np.ndarray, n: int) -> np.ndarray:
        """``[n]`` whether a stem is always the last of its step."""
        alone = np.ones(n, dtype=bool)
        alone[names[:, :, :-1][names[:, :, 1:] >= 0]] = False
        return alone

    @staticmethod
    def _same_everywhere(networks: Networks) -> bool:
        """Whether a step has the same parameters in every network that has it, whatever goes before."""
        parameters = np.concatenate(
            [networks.names, networks.indices, networks.n_values], axis=2
        )  # [N, S, 3A]
        there = networks.names[:, :, :1] >= 0
        return bool((~there | (parameters == np.where(there, parameters, -1).max(axis=0))).all())

    def _shift(self, draft: Candidate, k: int) -> int:
        s = self._settled
        return int(s.indices[s.step, s.slot] - draft.indices[k, s.slot])

    def _joined(self, tail: Candidate) -> Candidate:
        """What is settled, and behind it what is free of ``tail``."""
        s = self._settled
        before = Candidate(s.actions[: s.step], s.names[: s.step], s.indices[: s.step], s.n_values[: s.step])
        draft = before.then(tail.copy())
        draft.actions[s.step, : s.slot] = s.actions[s.step, : s.slot]
        if s.names[s.step, s.slot] >= 0:
            pairs = ((draft.names, s.names), (draft.indices, s.indices), (draft.n_values, s.n_values))
            for mine, settled in pairs:
                mine[s.step, : s.slot + 1] = settled[s.step, : s.slot + 1]
        self._fit(draft, s.step, s.slot)
        return draft

    def _fit(self, draft: Candidate, k: int, i: int) -> None:
        n = draft.n_values[k, i]
        if n > 0:
            draft.actions[k, i] = middle_of(bin_of(draft.actions[k, i], n), n)
        elif draft.names[k, i] >= 0:
            name, index = int(draft.names[k, i]), int(draft.indices[k, i])
            draft.actions[k, i] = self._settle(name, index, float(draft.actions[k, i]))

    def parents(self) -> list[Candidate]:
        """Networks that begin with what is settled, the best first."""
        return self._parents

    def mutate(self, parents: list[Candidate], rng: np.random.Generator, n: int) -> list[Candidate]:
        """``n`` variations of ``parents``, better ones more often; fewer where some are of no use."""
        out = []
        for _ in range(n):
            # Half of them from the few best, the others from anywhere: what is best so far is soon explored.
            some = parents[:_N_BEST] if rng.random() < _BEST_SHARE else parents
            draft = some[int(len(some) * rng.random() ** 2)].copy()
            if rng.random() < _RESTRUCTURED:
                draft = self._restructure(draft, rng)
            times = 1
            while rng.random() < 0.35:
                times += 1
            for _ in range(times):
                draft = self._change(draft, rng)
            if self._is_possible(draft):
                out.append(draft)
        return out

    def resample(self, rng: np.random.Generator, n: int) -> list[Candidate]:
        """Up to ``n`` remembered networks, whose steps are exchanged and values drawn anew."""
        out = []
        for _ in range(n):
            draft = self._parents[rng.integers(len(self._parents))].copy()
            for k in range(self._settled.step + 1, len(draft)):
                if self._repeated[draft.names[k, 0]] and rng.random() < 0.5:
                    draft = self._replace(draft, k, rng)
            for k, i in self._free(draft):
                if k < len(draft) and draft.names[k, i] >= 0:
                    draft = self._change(draft, rng, (k, i), anew=True)
            if self._is_possible(draft):
                out.append(draft)
        return out

    def _is_possible(self, draft: Candidate) -> bool:
        """As far as can be told: of a length that was seen, and no step behind one that it never followed,
        unless all parameters come whatever goes before."""
        if not self._complete(len(draft)):
            return False
        if not self._has_its_depth(draft):
            return False
        if self._contains is not None:
            return self._contains(draft.actions[draft.names[:, 0] == self._layer])
        return self._is_free or self._followed.issuperset(self._successions(draft, self._settled.step))

    def _has_its_depth(self, draft: Candidate) -> bool:
        """Whether a network has as many layers as it says; where it need not say so yet, it will."""
        for k in np.flatnonzero(draft.names[:, 0] == self._depth).tolist():
            n = int(draft.n_values[k, 0])
            action = ((draft.names[:, 0] == self._layer).sum() - 0.5) / max(n, 1)
            if (k, 0) >= (self._settled.step, self._settled.slot):
                draft.actions[k, 0] = action
            elif abs(draft.actions[k, 0] - action) > 1e-6:
                return False
        return True

    def _successions(self, draft: Candidate, first: int = 0) -> Iterator[tuple[int, int, int, int]]:
        """Which kind of step, from the step ``first`` on, stands behind which; the first stands behind
        none."""
        before = (-1, -1)
        for k in range(max(first - 1, 0), len(draft)):
            name, n = int(draft.names[k, 0]), int(draft.n_values[k, 0])
            in_turn = self._categorical[name] and self._repeated[name]
            category = int(draft.actions[k, 0] * n) if in_turn else -1
            if k >= first:
                yield (*before, name, category)
            before = name, category

    def _free(self, draft: Candidate) -> list[tuple[int, int]]:
        s = self._settled
        places = zip(*np.nonzero(draft.names >= 0), strict=True)
        return [(int(k), int(i)) for k, i in places if (k, i) >= (s.step, s.slot)]

    def _change(
        self,
        draft: Candidate,
        rng: np.random.Generator,
        place: tuple[int, int] | None = None,
        anew: bool = False,
    ) -> Candidate:
        """Another value somewhere."""
        if place is None:
            free = self._free(draft)
            if not free:
                return draft
            place = free[rng.integers(len(free))]
        k, i = place
        stem, n, old = draft.names[k, i], draft.n_values[k, i], draft.actions[k, i]
        if self._categorical[stem] or anew or rng.random() < 0.2:
            draft.actions[k, i] = rng.random()
        else:
            size = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
            if n:
                size = max(size, 0.7 / n)
            draft.actions[k, i] = _reflect(old + size * rng.standard_normal())
        self._fit(draft, k, i)
        if self._categorical[stem] and abs(draft.actions[k, i] - old) > 1e-6:
            draft = self._adapt(draft, k, i, rng)
        return draft

    def _adapt(self, draft: Candidate, k: int, i: int, rng: np.random.Generator) -> Candidate:
        """Let what follows a changed category be what follows it elsewhere, if that is not the same."""
        stem, action = draft.names[k, i], draft.actions[k, i]
        alone = i + 1 == draft.names.shape[1] or draft.names[k, i + 1] < 0
        if alone and self._repeated[draft.names[k, 0]] and self._alone[stem]:
            return draft
        place = self._place_of(i, int(stem), float(action), None if self._repeated[stem] else k, rng)
        if place is not None:
            return self._graft(draft, k, i, *place)
        # No network that is remembered has this category: what it brings is seen when it is asked for.
        draft.names[k, i + 1 :] = draft.indices[k, i + 1 :] = -1
        draft.actions[k, i + 1 :], draft.n_values[k, i + 1 :] = np.nan, 0
        return draft

    def _place_of(
        self, i: int, stem: int, action: float, k: int | None, rng: np.random.Generator
    ) -> tuple[Candidate, int] | None:
        """Some network that has the category at slot ``i`` of a step, and that step; of step ``k`` if that is
        not None. None where no network has it."""
        key = i, stem, round(1e6 * action), k
        if key in self._nowhere:
            return None
        for attempt in rng.permutation(len(self._all)):  # mostly one of the first has it
            donor = self._all[attempt]
            for at in range(len(donor)) if k is None else (k,):
                if (
                    at < len(donor)
                    and donor.names[at, i] == stem
                    and abs(donor.actions[at, i] - action) < 1e-6
                ):
                    return donor, at
        self._nowhere.add(key)
        return None

    def _graft(self, draft: Candidate, k: int, i: int, donor: Candidate, at: int) -> Candidate:
        shift = int(draft.indices[k, i] - donor.indices[at, i])
        if not np.array_equal(draft.names[k, i + 1 :], donor.names[at, i + 1 :]):
            moved = donor.steps(at, at + 1, shift)
            for name in draft.__slots__:
                getattr(draft, name)[k, i + 1 :] = getattr(moved, name)[0, i + 1 :]
        if self._repeated[draft.names[k, 0]]:
            return draft
        # Parameters that come once: those that followed there follow here, with the values they had here.
        rest, here = donor.steps(at + 1).copy(), draft.steps(k + 1)
        known = {
            (m, j): a for m, j, a in zip(here.names.flat, here.indices.flat, here.actions.flat, strict=True)
        }
        for place in zip(*np.nonzero(rest.names >= 0), strict=True):
            value = known.get((rest.names[place], rest.indices[place]))
            if value is not None:
                rest.actions[place] = value
        return draft.steps(0, k + 1).then(rest)

    def _restructure(self, draft: Candidate, rng: np.random.Generator) -> Candidate:
        """Another step in place of one, one more, or one less; only among steps that come again and again."""
        asked = self._settled.names[self._settled.step, self._settled.slot] >= 0
        first = self._settled.step + 1 if asked else self._settled.step
        places = [k for k in range(first, len(draft)) if self._repeated[draft.names[k, 0]]]
        way = rng.integers(4)
        if way == 3:
            return self._insert(draft, len(draft), rng)
        if not places:
            return draft
        k = places[rng.integers(len(places))]
        if way == 0:
            return self._replace(draft, k, rng)
        if way == 1:
            return self._insert(draft, k, rng)
        shorter = draft.steps(0, k).then(draft.steps(k + 1, None, -1))
        return shorter if len(shorter) > self._settled.step else draft

    def _replace(self, draft: Candidate, k: int, rng: np.random.Generator) -> Candidate:
        step = self._some_step(rng, int(draft.indices[k, 0]))
        if step is None:
            return draft
        return draft.steps(0, k).then(step).then(draft.steps(k + 1))

    def _insert(self, draft: Candidate, k: int, rng: np.random.Generator) -> Candidate:
        if k == 0:
            return draft
        step = self._some_step(rng, int(draft.indices[k - 1, 0]) + 1)
        if step is None or not self._repeated[draft.names[k - 1, 0]]:
            return draft
        return draft.steps(0, k).then(step).then(draft.steps(k, None, 1))

    def _some_step(self, rng: np.random.Generator, index: int) -> Candidate | None:
        donor = self._all[rng.integers(len(self._all))]
        at = int(rng.integers(len(donor)))
        if not self._repeated[donor.names[at, 0]]:
            return None
        return donor.steps(at, at + 1, index - int(donor.indices[at, 0])).copy()


def _reflect(action: float) -> float:
    """Into [0, 1], as off a wall: clipping would pile values up at the ends."""
    return min(max(1 - abs(1 - abs(action)), 0.0), 1.0)
