"""A model of a define-by-run search space: which parameter comes next, with which distribution.

The model learns from trials. For each template of parameter names it records what followed, relative to the
numbers in the name: behind ``units_2`` came ``units_3``, or ``lr``, or nothing. Where this varies, a decision
tree predicts it from the values so far. What is learned at layer 2 thus applies to layer 7, and a loop over
``n`` layers is one split, on how many of ``n`` are left. The distribution of the next parameter is learned in
the same way; a bound may also be the value of another parameter, plus or times a constant.

Where the values so far match nothing that was seen, the answer is "unknown".
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from optuna_trlhpo.search_space.question import Feature, PathPosition, Question, range_label
from optuna_trlhpo.trials.parameter_names import Name, parse_name
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.values import value_key

_MOST_FEATURES = 60
_MOST_PAIRED = 6
"""Number of integers whose pairwise differences are features, too."""
_FURTHER = 20
"""Largest number of parameters by which a predicted path may exceed the longest one seen."""
_MOST_CHANGES = 2
"""A distribution that has changed more often than this is considered to depend on values."""
_MOST_REMEMBERED = 200
"""Length of path prefixes for which the parameter that followed is remembered exactly."""


class Next(NamedTuple):
    """The next parameter."""

    name: str
    distribution: BaseDistribution
    sure: bool
    """Whether the distribution was seen by the model, or follows from a relation."""


class _End:
    def __repr__(self) -> str:
        return "END"

    def __reduce__(self) -> str:
        return "END"  # a copy is the same object


END = _End()
"""Answer of `SpaceModel.next` if a trial asks for no further parameter."""


class SpaceModel:
    """Learns from paths, and predicts the next parameter.

    Examples:
        >>> from optuna.distributions import IntDistribution
        >>> model, depth, units = SpaceModel(), IntDistribution(1, 8), IntDistribution(4, 64)
        >>> for n in (1, 2, 5):
        ...     path = Path()
        ...     path.push("depth", depth, n)
        ...     for i in range(n):
        ...         path.push(f"units_{i}", units, 8)
        ...     model.learn(path, ended=True)
        >>> path = Path()
        >>> path.push("depth", depth, 7)  # never seen
        >>> [model.roll(path, lambda name, distribution: 8).names[-1], len(path)]
        ['units_6', 1]
    """

    def __init__(self) -> None:
        self._following: dict[str | None, Question] = {}
        self._ranges: dict[str, Question] = {}
        self._order: tuple[str, ...] | None = None  # order of all completed paths, if it is the same
        self._distributions: dict[str, BaseDistribution] = {}  # latest distribution by name
        self._changes: Counter[str] = Counter()  # number of changes of the distribution, by name
        self._dependent: set[str] = set()  # templates whose distributions depend on values
        self._n_ended = 0
        self._kinds: dict[str, bool] = {}  # by name, whether it is an integer or categorical
        self._longest = 0
        # What was requested behind a path, by the path's digest; None: nothing.
        self._seen: dict[bytes, tuple[str, BaseDistribution] | None] = {}

    @property
    def flat(self) -> Sequence[str] | None:
        """The names, in order, if every trial asks for the same ones whatever their values; else None."""
        return self._order if self._n_ended and not self._dependent else None

    def latest(self, name: str) -> BaseDistribution:
        """Return the latest distribution of ``name``."""
        return self._distributions[name]

    @property
    def n_ended(self) -> int:
        """Number of completed trials that were learned."""
        return self._n_ended

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> SpaceModel:
        """Return a model of completed trials."""
        model = cls()
        for trial in trials:
            model.learn(Path.of_trial(trial), ended=True)
        return model

    def learn(self, path: Path, *, ended: bool) -> None:
        """Learn from a trial. ``ended`` says whether it asked for all of its parameters."""
        for position in range(len(path)):
            self._note(path, position)
        asked = [*zip(path.names, path.distributions, strict=True), *([None] if ended else [])]
        self._seen.update(zip(_digests(path), asked, strict=False))
        names = tuple(path.names)
        self._longest = max(self._longest, len(path))
        if ended:
            self._ask_next(path.names[-1] if names else None, path, len(path)).add(
                PathPosition(path, len(path), _places_of(path, len(path))), (END,), (END,)
            )
            if self._n_ended == 0 and self._order is None:
                self._order = names
            elif self._order != names:
                self._order = None
            self._n_ended += 1
        elif self._order is not None and names != self._order[: len(names)]:
            self._order = None

    def settle(self) -> None:
        """Grow all decision trees that are to be grown anew.

        A tree is kept while it predicts all further examples, so the model depends on when trees are grown:
        after each trial, and after each correction, whether or not anything is asked in between.
        """
        for question in (*self._following.values(), *self._ranges.values()):
            question.settle()

    def correct(self, path: Path, name: str, distribution: BaseDistribution) -> None:
        """Learn immediately that ``name`` was requested behind ``path``, which is still growing."""
        seen = path.copy()
        seen.push(name, distribution, None)
        for position, known in enumerate(path.names):
            if known not in self._distributions:  # the sampler was not asked: it has one value, or is fixed
                self._note(seen, position)
        self._note(seen, len(path))
        if len(digests := _digests(path)) > len(path):
            self._seen[digests[-1]] = name, distribution
        if self._order is not None and tuple(seen.names) != self._order[: len(seen)]:
            self._order = None
        self.settle()

    def _note(self, path: Path, position: int) -> None:
        name, distribution = path.names[position], path.distributions[position]
        parsed = parse_name(name)
        if self._distributions.setdefault(name, distribution) != distribution:
            self._distributions[name] = distribution
            self._changes[name] += 1
            if self._changes[name] > _MOST_CHANGES:
                self._dependent.add(parsed.template)
        discrete = isinstance(distribution, CategoricalDistribution | IntDistribution)
        self._kinds[name] = discrete and not (isinstance(distribution, IntDistribution) and distribution.log)
        last = path.names[position - 1] if position else None
        before = PathPosition(path, position, _places_of(path, position))
        self._ask_next(last, path, position).add(
            before, _relative(before.places, parsed), ("absolute", *parsed)
        )
        label = range_label(distribution)
        if parsed.template not in self._ranges:
            self._ranges[parsed.template] = Question(self.features)
        self._ranges[parsed.template].add(PathPosition(path, position, parsed.places), label, label)

    def _ask_next(self, last: str | None, path: Path, position: int) -> Question:
        key = None if last is None else parse_name(last).template
        if key not in self._following:
            self._following[key] = Question(self.features)
        return self._following[key]

    def next(self, path: Path) -> Next | _End | None:
        """Return what is requested behind ``path``: a parameter, `END`, or None if unknown."""
        order = self.flat
        if order is not None:  # without any branch, the order determines everything
            n = len(path)
            if n > len(order) or (n and path.names[-1] != order[n - 1]):
                return None
            return END if n == len(order) else Next(order[n], self._distributions[order[n]], True)
        if len(path) > self._longest + _FURTHER:
            return None  # a loop whose end was never seen
        last = path.names[-1] if len(path) else None
        question = self._following.get(None if last is None else parse_name(last).template)
        if question is None:
            return None
        place = PathPosition(path, len(path), _places_of(path, len(path)))
        label = question.answer(place)
        if label is None:
            return None
        if label == (END,):
            return END
        name = _resolve(label, place.places)
        if name is None or name.text in path.values:
            return None
        ranges = self._ranges.get(name.template)
        if ranges is None:
            return None
        here = PathPosition(path, len(path), name.places)
        if self._changes[name.text] and name.template not in self._dependent:  # the code has changed
            return Next(name.text, self._distributions[name.text], True)
        found = ranges.answer_range(here)
        return None if found is None else Next(name.text, *found)

    def chance(self, path: Path, start: int, *, ended: bool) -> float:
        """Return the probability, in [0, 1], that an objective asks for ``path``, given its beginning.

        What was seen behind the same values is certain, and any other parameter there is ruled out.
        Everything else has the relative frequency among the examples in the same leaf of the decision tree.

        Args:
            path: Parameters, as planned.
            start: Number of parameters that are fixed already.
            ended: Whether nothing may follow the path.
        """
        if self.flat is not None:
            return 1.0
        chance, digests = 1.0, _digests(path)
        for position in range(start, len(path) + ended):
            asked = path.names[position] if position < len(path) else None
            if position < len(digests) and digests[position] in self._seen:
                expected = None if asked is None else (asked, path.distributions[position])
                seen = self._seen[digests[position]]
                if seen == expected:
                    continue
                if (seen and seen[0]) != asked:
                    return 0.0
            question = self._following.get(
                None if position == 0 else parse_name(path.names[position - 1]).template
            )
            if question is None:
                continue
            place = PathPosition(path, position, _places_of(path, position))
            if asked is None:
                chance *= question.chance(place, lambda label: label == (END,))
                continue
            parsed = parse_name(asked)
            chance *= question.chance(place, functools.partial(_leads_to, place.places, parsed))
            ranges = self._ranges.get(parsed.template)
            if ranges is not None and parsed.template in self._dependent:
                here = PathPosition(path, position, parsed.places)
                chance *= ranges.chance_in_range(here, path.values[asked])
        return chance

    def roll(self, path: Path, choose: Any) -> Path:
        """Extend ``path`` as far as it is known; ``choose(name, distribution)`` gives the values."""
        path = path.copy()
        while isinstance(following := self.next(path), Next):
            value = choose(following.name, following.distribution)
            path.push(following.name, following.distribution, value)
        return path

    def play(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of ``values`` that a trial would ask for, in its order.

        Examples:
            >>> model, path = SpaceModel(), Path()
            >>> path.push("x", IntDistribution(0, 3), 1)
            >>> model.learn(path, ended=True)
            >>> model.play({"y": 2, "x": 3})
            {'x': 3}
        """
        path = Path()
        while isinstance(following := self.next(path), Next) and following.name in values:
            path.push(following.name, following.distribution, values[following.name])
        return path.values

    def in_order(self, params: Mapping[str, Any], distributions: Mapping[str, Any]) -> list[str]:
        """Return the names of ``params`` in the order in which the objective would ask for them.

        Names that the model does not expect come last, in natural order.
        """
        path = Path()
        while True:
            following = self.next(path)
            if not isinstance(following, Next) or following.name not in params:
                break
            path.push(following.name, distributions[following.name], params[following.name])
        rest = [name for name in params if name not in path.values]
        return [*path.names, *sorted(rest, key=lambda name: (parse_name(name).places, name))]

    def counters(self) -> dict[str, str]:
        """Return the template of the integer that counts a loop, by that of the loop's last parameter."""
        found = {}
        for last, question in self._following.items():
            asked = [f for f in question.asked() if f[0] == "left"]
            if last is not None and asked:
                found[last] = asked[0][1]
        return found

    def is_dependent(self, name: str) -> bool:
        """Return whether the distribution of ``name`` depends on values."""
        return parse_name(name).template in self._dependent

    # Features of a position ---------------------------------------------------------------------------

    def features(self, places: Sequence[PathPosition]) -> list[Feature]:
        """Return candidate features: integers and categories first, relative before absolute positions."""
        n_places = len(places[0].places)
        names: dict[str, None] = {}
        for place in places[:50]:
            names.update(dict.fromkeys(place.path.names[: place.position]))
        templates = {(parsed := parse_name(name)).template: len(parsed.places) for name in names}
        discrete = {parse_name(name).template for name in names if self._kinds.get(name)}
        order = [*(t for t in templates if t in discrete), *(t for t in templates if t not in discrete)]
        found: list[Feature] = []
        for template in order:
            m = templates[template]
            if template in discrete and m < n_places:
                found += [("left", template, j) for j in range(m, n_places)]
        found += [("place", j) for j in range(n_places)]
        for template in order:
            m = templates[template]
            if m == 0:
                found.append(("value", template, ()))
            elif m <= n_places:
                found += [("near", template, offset) for offset in (0, -1, 1)]
        single = [t for t in order if t in discrete and templates[t] == 0][:_MOST_PAIRED]
        found += [("minus", one, other) for one, other in itertools.combinations(single, 2)]
        absolute = [name for name in names if parse_name(name).places and self._kinds.get(name)]
        if len(absolute) <= _MOST_FEATURES:
            found += [("value", parse_name(name).template, parse_name(name).places) for name in absolute]
        return found[: 4 * _MOST_FEATURES]


def _digests(path: Path) -> list[bytes]:
    """Return digests of the first 0, 1, ... parameters of a path with their values."""
    running = hashlib.blake2b(digest_size=8)
    found = [running.digest()]
    for name in path.names[:_MOST_REMEMBERED]:
        running.update(repr((name, value_key(path.values[name]))).encode("utf-8", "surrogatepass"))
        found.append(running.digest())
    return found


def _places_of(path: Path, position: int) -> tuple[int, ...]:
    return parse_name(path.names[position - 1]).places if position else ()


def _relative(last: tuple[int, ...], name: Name) -> tuple[Any, ...]:
    """Return a name relative to ``last``, the places of the name before it: the change of each place."""
    moves = tuple(
        ("by", place - last[j]) if j < len(last) else ("at", place) for j, place in enumerate(name.places)
    )
    # Where an outer index changes, the inner loops restart.
    for j, (how, much) in enumerate(moves):
        if how == "by" and much != 0:
            moves = (*moves[: j + 1], *(("at", place) for place in name.places[j + 1 :]))
            break
    return ("relative", name.template, moves)


def _resolve(label: Any, last: tuple[int, ...]) -> Name | None:
    if label[0] == "absolute":
        return Name(*label[1:])
    _, template, moves = label
    places = []
    for j, (how, much) in enumerate(moves):
        if how == "by" and j >= len(last):
            return None
        places.append(last[j] + much if how == "by" else much)
    return Name(template, tuple(places)) if min(places, default=0) >= 0 else None


def _leads_to(last: tuple[int, ...], name: Name, label: Any) -> bool:
    return label != (END,) and _resolve(label, last) == name
