"""Candidates for the next network: variations of the best networks, which a critic then ranks.

Notation: N remembered networks, S steps, A action slots.

A plan is a whole network that begins with the fixed steps of the running trial. Parameters depend on one
another (a pooling layer has no neurons), so plans are recombined from parts of remembered networks. Their
values are varied; a changed category takes along the parameters that follow it in another network; and where
the same parameters repeat step after step, steps are replaced, inserted and removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from optuna_trlhpo.agent.sequences import INCUMBENT, NEIGHBOURS, Candidate, DecisionPoint, Networks
from optuna_trlhpo.layers.bins import bin_of, middle_of, reflect
from optuna_trlhpo.trials.agent_record import CHANCE

_SMALLEST, _LARGEST = 0.005, 0.25
"""Smallest and largest standard deviation by which a value in [0, 1] is perturbed."""
_N_BEST = 10
_BEST_SHARE = 0.5
_RESTRUCTURED = 0.3
"""Share of the variations in which a step is replaced, inserted, appended or removed."""


class Neighbourhood:
    """Generator of candidates.

    Args:
        networks: Remembered networks.
        scores: ``[N]`` expected scores of the networks; the best are varied.
        point: Decision point of the running trial, which must not be changed.
        categorical: Whether the values of a base name have no order, by its number.
        repeated: Whether a base name repeats step after step, by its number.
        complete: Returns whether a candidate with this number of steps would get a value.
        settle: Returns the canonical action of the same value, for a base name, an index and an action.
        contains: Returns whether the actions of layers are a network of the space; None where unknown.
        layer: Base name that a layer begins with.
        depth: Base name of the number of layers, where that is asked for first.
        origins: Proposer of each network, see `Candidate`; None: all have been tried.
    """

    def __init__(
        self,
        networks: Networks,
        scores: np.ndarray,
        point: DecisionPoint,
        categorical: np.ndarray,
        repeated: np.ndarray,
        complete: Callable[[int], bool],
        settle: Callable[[int, int, float], float],
        contains: Callable[[np.ndarray], bool] | None = None,
        layer: int = -1,
        depth: int = -2,
        origins: Sequence[str] | None = None,
    ) -> None:
        self._contains, self._layer, self._depth = contains, layer, depth
        self._settle = settle
        self._point = point
        self._categorical = categorical
        self._repeated = repeated
        self._complete = complete
        lengths = networks.lengths
        origins = [INCUMBENT] * len(lengths) if origins is None else origins
        candidates = [
            Candidate(a[:n], m[:n], i[:n], v[:n], origin)
            for a, m, i, v, n, origin in zip(*networks[:4], lengths.tolist(), origins, strict=True)
        ]
        self._alone = self._never_followed(networks.names, len(categorical))
        if contains is None:  # else the space knows what may follow what
            self._followed = {pair for candidate in candidates for pair in self._successions(candidate)}
            self._is_free = self._same_everywhere(networks)
        step, slot = point.step, point.slot
        asked, index = point.names[step, slot], point.indices[step, slot]
        fitting = [
            k
            for k, candidate in enumerate(candidates)
            if len(candidate) > step
            and (
                asked < 0 or (candidate.names[step, slot] == asked and candidate.indices[step, slot] == index)
            )
        ]
        self._all = candidates
        self._nowhere: set[tuple[int, int, int, int | None]] = set()  # categories in no network
        order = sorted(fitting, key=lambda k: -scores[k])
        self._parents = [self._joined(candidates[k].steps(step)) for k in order]
        if not self._parents:  # no network has this parameter at this step
            self._parents = [
                self._joined(candidate.steps(k, None, self._shift(candidate, k)))
                for candidate in candidates
                for k in range(len(candidate))
                if candidate.names[k, slot] == asked
            ]

    @staticmethod
    def _never_followed(names: np.ndarray, n: int) -> np.ndarray:
        """``[n]`` whether a base name is always the last of its step."""
        alone = np.ones(n, dtype=bool)
        alone[names[:, :, :-1][names[:, :, 1:] >= 0]] = False
        return alone

    @staticmethod
    def _same_everywhere(networks: Networks) -> bool:
        """Return whether a step has the same parameters in every network, whatever comes before it."""
        parameters = np.concatenate(
            [networks.names, networks.indices, networks.n_values], axis=2
        )  # [N, S, 3A]
        there = networks.names[:, :, :1] >= 0
        return bool((~there | (parameters == np.where(there, parameters, -1).max(axis=0))).all())

    def _shift(self, candidate: Candidate, k: int) -> int:
        s = self._point
        return int(s.indices[s.step, s.slot] - candidate.indices[k, s.slot])

    def _joined(self, tail: Candidate) -> Candidate:
        """Fixed steps, followed by the free steps of ``tail``."""
        s = self._point
        before = Candidate(s.actions[: s.step], s.names[: s.step], s.indices[: s.step], s.n_values[: s.step])
        candidate = before.then(tail)
        candidate.origin = tail.origin
        candidate.actions[s.step, : s.slot] = s.actions[s.step, : s.slot]
        if s.names[s.step, s.slot] >= 0:
            pairs = (
                (candidate.names, s.names),
                (candidate.indices, s.indices),
                (candidate.n_values, s.n_values),
            )
            for mine, fixed in pairs:
                mine[s.step, : s.slot + 1] = fixed[s.step, : s.slot + 1]
        self._fit(candidate, s.step, s.slot)
        return candidate

    def _fit(self, candidate: Candidate, k: int, i: int) -> None:
        n = candidate.n_values[k, i]
        if n > 0:
            candidate.actions[k, i] = middle_of(bin_of(candidate.actions[k, i], n), n)
        elif candidate.names[k, i] >= 0:
            name, index = int(candidate.names[k, i]), int(candidate.indices[k, i])
            candidate.actions[k, i] = self._settle(name, index, float(candidate.actions[k, i]))

    def parents(self) -> list[Candidate]:
        """Networks that begin with the fixed steps, the best first."""
        return self._parents

    def mutate(self, parents: list[Candidate], rng: np.random.Generator, n: int) -> list[Candidate]:
        """Up to ``n`` variations of ``parents``, of better ones more often; impossible ones are dropped."""
        out = []
        for _ in range(n):
            # Half of them from the few best, the others from all: the surroundings of the best soon are.
            some = parents[:_N_BEST] if rng.random() < _BEST_SHARE else parents
            candidate = some[int(len(some) * rng.random() ** 2)].copy()
            if rng.random() < _RESTRUCTURED:
                candidate = self._restructure(candidate, rng)
            times = 1
            while rng.random() < 0.35:
                times += 1
            origin = NEIGHBOURS.get(candidate.origin, candidate.origin)
            for _ in range(times):
                candidate = self._change(candidate, rng)
            candidate.origin = origin
            if self._is_possible(candidate):
                out.append(candidate)
        return out

    def resample(self, rng: np.random.Generator, n: int) -> list[Candidate]:
        """Up to ``n`` remembered networks with exchanged steps and values drawn anew."""
        out = []
        for _ in range(n):
            candidate = self._parents[rng.integers(len(self._parents))].copy()
            for k in range(self._point.step + 1, len(candidate)):
                if self._repeated[candidate.names[k, 0]] and rng.random() < 0.5:
                    candidate = self._replace(candidate, k, rng)
            for place in self._free(candidate).tolist():
                k, i = divmod(place, candidate.names.shape[1])
                if k < len(candidate) and candidate.names[k, i] >= 0:
                    candidate = self._change(candidate, rng, (k, i), anew=True)
            candidate.origin = CHANCE
            if self._is_possible(candidate):
                out.append(candidate)
        return out

    def _is_possible(self, candidate: Candidate) -> bool:
        """Return whether a network is possible, as far as known.

        Its length must have occurred, and each step must have followed the step before it, unless all
        parameters occur whatever comes before.
        """
        if not self._complete(len(candidate)):
            return False
        if not self._has_its_depth(candidate):
            return False
        if self._contains is not None:
            return self._contains(candidate.actions[candidate.names[:, 0] == self._layer])
        return self._is_free or self._followed.issuperset(self._successions(candidate, self._point.step))

    def _has_its_depth(self, candidate: Candidate) -> bool:
        """Return whether the depth agrees with the number of layers; a depth that is still free is set."""
        for k in np.flatnonzero(candidate.names[:, 0] == self._depth).tolist():
            n = int(candidate.n_values[k, 0])
            action = ((candidate.names[:, 0] == self._layer).sum() - 0.5) / max(n, 1)
            if (k, 0) >= (self._point.step, self._point.slot):
                candidate.actions[k, 0] = action
            elif abs(candidate.actions[k, 0] - action) > 1e-6:
                return False
        return True

    def _successions(self, candidate: Candidate, first: int = 0) -> Iterator[tuple[int, int, int, int]]:
        """Kinds of consecutive steps, from the step ``first`` on; the first step follows none."""
        before = (-1, -1)
        for k in range(max(first - 1, 0), len(candidate)):
            name, n = int(candidate.names[k, 0]), int(candidate.n_values[k, 0])
            in_turn = self._categorical[name] and self._repeated[name]
            category = int(candidate.actions[k, 0] * n) if in_turn else -1
            if k >= first:
                yield (*before, name, category)
            before = name, category

    def _free(self, candidate: Candidate) -> np.ndarray:
        """Places ``k A + i`` of the free parameters."""
        places = np.flatnonzero(candidate.names >= 0)
        first = self._point.step * candidate.names.shape[1] + self._point.slot
        return places[np.searchsorted(places, first) :]

    def _change(
        self,
        candidate: Candidate,
        rng: np.random.Generator,
        place: tuple[int, int] | None = None,
        anew: bool = False,
    ) -> Candidate:
        """Change one value, at ``place`` or at a random free place."""
        if place is None:
            free = self._free(candidate)
            if not len(free):
                return candidate
            place = divmod(int(free[int(len(free) * rng.random())]), candidate.names.shape[1])
        k, i = place
        base_name, n, old = candidate.names[k, i], candidate.n_values[k, i], candidate.actions[k, i]
        if self._categorical[base_name] or anew or rng.random() < 0.2:
            candidate.actions[k, i] = rng.random()
        else:
            size = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
            if n:
                size = max(size, 0.7 / n)
            candidate.actions[k, i] = reflect(old + size * rng.standard_normal())
        self._fit(candidate, k, i)
        if self._categorical[base_name] and abs(candidate.actions[k, i] - old) > 1e-6:
            candidate = self._adapt(candidate, k, i, rng)
        return candidate

    def _adapt(self, candidate: Candidate, k: int, i: int, rng: np.random.Generator) -> Candidate:
        """Replace what follows a changed category by what follows it in another network, if that differs."""
        base_name, action = candidate.names[k, i], candidate.actions[k, i]
        alone = i + 1 == candidate.names.shape[1] or candidate.names[k, i + 1] < 0
        if alone and self._repeated[candidate.names[k, 0]] and self._alone[base_name]:
            return candidate
        place = self._place_of(
            i, int(base_name), float(action), None if self._repeated[base_name] else k, rng
        )
        if place is not None:
            return self._graft(candidate, k, i, *place)
        # No remembered network has this category: its parameters are unknown until they are asked for.
        candidate.names[k, i + 1 :] = candidate.indices[k, i + 1 :] = -1
        candidate.actions[k, i + 1 :], candidate.n_values[k, i + 1 :] = np.nan, 0
        return candidate

    def _place_of(
        self, i: int, base_name: int, action: float, k: int | None, rng: np.random.Generator
    ) -> tuple[Candidate, int] | None:
        """Random network that has the category at slot ``i`` of a step, and that step; None if none has it.

        If ``k`` is not None, it must be step ``k``.
        """
        key = i, base_name, round(1e6 * action), k
        if key in self._nowhere:
            return None
        first = int(len(self._all) * rng.random())
        for attempt in range(len(self._all)):  # usually one of the first few has it
            template = self._all[first - attempt]
            for at in range(len(template)) if k is None else (k,):
                if (
                    at < len(template)
                    and template.names[at, i] == base_name
                    and abs(template.actions[at, i] - action) < 1e-6
                ):
                    return template, at
        self._nowhere.add(key)
        return None

    def _graft(self, candidate: Candidate, k: int, i: int, template: Candidate, at: int) -> Candidate:
        shift = int(candidate.indices[k, i] - template.indices[at, i])
        if not np.array_equal(candidate.names[k, i + 1 :], template.names[at, i + 1 :]):
            moved = template.steps(at, at + 1, shift)
            for name in candidate.ARRAYS:
                getattr(candidate, name)[k, i + 1 :] = getattr(moved, name)[0, i + 1 :]
        if self._repeated[candidate.names[k, 0]]:
            return candidate
        # Parameters that do not repeat: take over those that follow there, and keep the values they had here.
        rest, here = template.steps(at + 1).copy(), candidate.steps(k + 1)
        known = {
            (m, j): a for m, j, a in zip(here.names.flat, here.indices.flat, here.actions.flat, strict=True)
        }
        for place in zip(*np.nonzero(rest.names >= 0), strict=True):
            value = known.get((rest.names[place], rest.indices[place]))
            if value is not None:
                rest.actions[place] = value
        return candidate.steps(0, k + 1).then(rest)

    def _restructure(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Replace, insert, append or remove one step, among steps that repeat."""
        asked = self._point.names[self._point.step, self._point.slot] >= 0
        first = self._point.step + 1 if asked else self._point.step
        places = [k for k in range(first, len(candidate)) if self._repeated[candidate.names[k, 0]]]
        operation = rng.integers(4)
        if operation == 3:
            return self._insert(candidate, len(candidate), rng)
        if not places:
            return candidate
        k = places[rng.integers(len(places))]
        if operation == 0:
            return self._replace(candidate, k, rng)
        if operation == 1:
            return self._insert(candidate, k, rng)
        shorter = candidate.steps(0, k).then(candidate.steps(k + 1, None, -1))
        return shorter if len(shorter) > self._point.step else candidate

    def _replace(self, candidate: Candidate, k: int, rng: np.random.Generator) -> Candidate:
        step = self._some_step(rng, int(candidate.indices[k, 0]))
        if step is None:
            return candidate
        for name in candidate.ARRAYS:  # in place: a candidate is a copy
            getattr(candidate, name)[k] = getattr(step, name)[0]
        return candidate

    def _insert(self, candidate: Candidate, k: int, rng: np.random.Generator) -> Candidate:
        if k == 0:
            return candidate
        step = self._some_step(rng, int(candidate.indices[k - 1, 0]) + 1)
        if step is None or not self._repeated[candidate.names[k - 1, 0]]:
            return candidate
        return candidate.steps(0, k).then(step, candidate.steps(k, None, 1))

    def _some_step(self, rng: np.random.Generator, index: int) -> Candidate | None:
        template = self._all[rng.integers(len(self._all))]
        at = int(rng.integers(len(template)))
        if not self._repeated[template.names[at, 0]]:
            return None
        return template.steps(at, at + 1, index - int(template.indices[at, 0])).copy()
