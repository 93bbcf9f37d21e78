"""Which parameter a define-by-run objective asks for next, with which distribution: learned from its trials.

The model looks at the last parameter that was asked for. It keeps, for each template of names, what followed
it, relative to its places: behind ``units_2`` came ``units_3``, or ``lr``, or nothing. Where that differs, a
decision tree tells from the values so far. So what is learned at layer 2 holds at layer 7. A loop that
asks for ``n`` layers is one split: on how many of ``n`` are left. The distribution of the next parameter is
learned alike; a bound may also be the value of another parameter, plus or times a constant.

Where the values so far decide nothing that was seen, the answer is "unknown".
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from optuna_trlhpo.decision_tree import ABSENT, Node, grow_tree, is_number
from optuna_trlhpo.parameters import Name, parse_name, text_of, value_key

_MOST_EXAMPLES = 300
"""Examples that a tree is grown from, of each of its labels."""
_MOST_FEATURES = 60
_MOST_PAIRED = 6
"""Integers whose differences are features, too."""
_SURE = 0.8
"""The least share of a leaf's examples that agree, for the leaf to be an answer."""
_FURTHER = 20
"""A path may be expected to have so many more parameters than the longest that was seen."""
_MOST_CHANGES = 2
"""A distribution that has changed more often than this depends on values."""
_MOST_REMEMBERED = 200
"""First parameters of a path behind which it is remembered what was asked for."""
_FEW = 3
"""Different bounds that make a relation to another parameter credible."""


class Next(NamedTuple):
    """The parameter that comes next."""

    name: str
    distribution: BaseDistribution
    sure: bool
    """Whether the distribution is one that the model has seen, or that follows from a relation."""


class _End:
    def __repr__(self) -> str:
        return "END"

    def __reduce__(self) -> str:
        return "END"  # a copy is the same object


END = _End()
"""What `SpaceModel.next` answers where a trial asks for nothing more."""


class Path:
    """Parameters of a trial, in the order in which they were asked for.

    Example:
        >>> path = Path()
        >>> path.push("depth", IntDistribution(1, 4), 2)
        >>> path.names, path.values["depth"]
        (['depth'], 2)
    """

    __slots__ = ("names", "values", "distributions", "positions")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.values: dict[str, Any] = {}
        self.distributions: list[BaseDistribution] = []
        self.positions: dict[str, int] = {}

    @classmethod
    def of(cls, names: Iterable[str], params: Mapping[str, Any], distributions: Mapping[str, Any]) -> Path:
        """The path of a trial with these parameters."""
        path = cls()
        for name in names:
            path.push(name, distributions[name], params[name])
        return path

    @classmethod
    def of_trial(cls, trial: FrozenTrial) -> Path:
        """The path of a trial that lists its parameters in their order."""
        return cls.of(trial.params, trial.params, trial.distributions)

    def push(self, name: str, distribution: BaseDistribution, value: Any) -> None:
        """Append a parameter."""
        self.positions[name] = len(self.names)
        self.names.append(name)
        self.values[name] = value
        self.distributions.append(distribution)

    def copy(self) -> Path:
        """A path of its own with the same parameters."""
        other = Path()
        other.names, other.values = self.names.copy(), self.values.copy()
        other.distributions, other.positions = self.distributions.copy(), self.positions.copy()
        return other

    def __len__(self) -> int:
        return len(self.names)


class _Place(NamedTuple):
    """A point of a path: before the parameter number ``position`` was asked for."""

    path: Path
    position: int
    places: tuple[int, ...]
    """Of the last name; of the name itself where a distribution is asked about."""


class SpaceModel:
    """Learns paths; tells what comes next.

    Example:
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
        self._following: dict[str | None, _Question] = {}
        self._ranges: dict[str, _Question] = {}
        self._order: tuple[str, ...] | None = None  # of all paths that ended, while it is one order
        self._distributions: dict[str, BaseDistribution] = {}  # by name, the latest
        self._changes: Counter[str] = Counter()  # by name, how often its distribution was another one
        self._dependent: set[str] = set()  # templates whose distributions follow from values
        self._n_ended = 0
        self._kinds: dict[str, bool] = {}  # by name, whether its values are integers or have no order
        self._longest = 0
        # By the digest of a path, what was asked for behind it; None: nothing.
        self._seen: dict[bytes, tuple[str, BaseDistribution] | None] = {}

    @property
    def flat(self) -> Sequence[str] | None:
        """The names, in order, where every trial asks for the same ones, whatever their values."""
        return self._order if self._n_ended and not self._dependent else None

    def latest(self, name: str) -> BaseDistribution:
        """The distribution that ``name`` had last."""
        return self._distributions[name]

    @property
    def n_ended(self) -> int:
        """How many whole trials were learned."""
        return self._n_ended

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> SpaceModel:
        """A model of trials that asked for all that they would."""
        model = cls()
        for trial in trials:
            model.learn(Path.of_trial(trial), ended=True)
        return model

    def learn(self, path: Path, *, ended: bool) -> None:
        """Learn a trial; ``ended`` tells whether it asked for all that it would."""
        for position in range(len(path)):
            self._note(path, position)
        asked = [*zip(path.names, path.distributions, strict=True), *([None] if ended else [])]
        self._seen.update(zip(_digests(path), asked, strict=False))
        names = tuple(path.names)
        self._longest = max(self._longest, len(path))
        if ended:
            self._ask_next(path.names[-1] if names else None, path, len(path)).add(
                _Place(path, len(path), _places_of(path, len(path))), (END,), (END,)
            )
            if self._n_ended == 0 and self._order is None:
                self._order = names
            elif self._order != names:
                self._order = None
            self._n_ended += 1
        elif self._order is not None and names != self._order[: len(names)]:
            self._order = None

    def correct(self, path: Path, name: str, distribution: BaseDistribution) -> None:
        """Learn at once that ``name`` is asked for behind ``path``, which still grows."""
        seen = path.copy()
        seen.push(name, distribution, None)
        for position, known in enumerate(path.names):
            if known not in self._distributions:  # nobody was asked for it: it has but one value, or is fixed
                self._note(seen, position)
        self._note(seen, len(path))
        if len(digests := _digests(path)) > len(path):
            self._seen[digests[-1]] = name, distribution
        if self._order is not None and tuple(seen.names) != self._order[: len(seen)]:
            self._order = None

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
        before = _Place(path, position, _places_of(path, position))
        self._ask_next(last, path, position).add(
            before, _relative(before.places, parsed), ("absolute", *parsed)
        )
        label = _range_label(distribution)
        if parsed.template not in self._ranges:
            self._ranges[parsed.template] = _Question(self)
        self._ranges[parsed.template].add(_Place(path, position, parsed.places), label, label)

    def _ask_next(self, last: str | None, path: Path, position: int) -> _Question:
        key = None if last is None else parse_name(last).template
        if key not in self._following:
            self._following[key] = _Question(self)
        return self._following[key]

    def next(self, path: Path) -> Next | _End | None:
        """What is asked for behind ``path``: a parameter, `END`, or None where that is not known."""
        order = self.flat
        if order is not None:  # without a branch anywhere, the order is all there is to know
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
        place = _Place(path, len(path), _places_of(path, len(path)))
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
        here = _Place(path, len(path), name.places)
        if self._changes[name.text] and name.template not in self._dependent:  # the code has changed
            return Next(name.text, self._distributions[name.text], True)
        found = ranges.answer_range(here)
        return None if found is None else Next(name.text, *found)

    def chance(self, path: Path, start: int, *, ended: bool) -> float:
        """How likely an objective asks for all of ``path`` behind its first ``start`` parameters, in [0, 1].

        What was seen behind the same values is certain. All else is as likely as it was among the examples
        that the trees found alike.

        Args:
            path: Parameters, as planned.
            start: Parameters that are settled.
            ended: Whether nothing may follow.
        """
        if self.flat is not None:
            return 1.0
        chance, digests = 1.0, _digests(path)
        for position in range(start, len(path) + ended):
            asked = path.names[position] if position < len(path) else None
            if position < len(digests) and digests[position] in self._seen:
                expected = None if asked is None else (asked, path.distributions[position])
                if self._seen[digests[position]] == expected:
                    continue
            question = self._following.get(
                None if position == 0 else parse_name(path.names[position - 1]).template
            )
            if question is None:
                continue
            place = _Place(path, position, _places_of(path, position))
            if asked is None:
                chance *= question.chance(place, lambda label: label == (END,))
                continue
            parsed = parse_name(asked)
            chance *= question.chance(place, functools.partial(_leads_to, place.places, parsed))
            ranges = self._ranges.get(parsed.template)
            if ranges is not None and parsed.template in self._dependent:
                here = _Place(path, position, parsed.places)
                chance *= ranges.chance_in_range(here, path.values[asked])
        return chance

    def roll(self, path: Path, choose: Any) -> Path:
        """``path`` grown to its end, or as far as is known; ``choose(name, distribution)`` gives values."""
        path = path.copy()
        while isinstance(following := self.next(path), Next):
            value = choose(following.name, following.distribution)
            path.push(following.name, following.distribution, value)
        return path

    def play(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial would make of ``values``: those that it would ask for, in its order.

        Example:
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
        """The names of ``params`` in the order in which the objective would ask for them.

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
        """By the template of the last parameter of a place, that of the integer which counts the places."""
        found = {}
        for last, question in self._following.items():
            asked = [f for f in question.asked() if f[0] == "left"]
            if last is not None and asked:
                found[last] = asked[0][1]
        return found

    def is_dependent(self, name: str) -> bool:
        """Whether the distribution of ``name`` follows from values."""
        return parse_name(name).template in self._dependent

    # Features of a place ------------------------------------------------------------------------------

    def features(self, places: Sequence[_Place]) -> list[tuple[Any, ...]]:
        """What may decide: integers and categories first, relative to the place before absolute ones."""
        n_places = len(places[0].places)
        names: dict[str, None] = {}
        for place in places[:50]:
            names.update(dict.fromkeys(place.path.names[: place.position]))
        templates = {(parsed := parse_name(name)).template: len(parsed.places) for name in names}
        discrete = {parse_name(name).template for name in names if self._kinds.get(name)}
        order = [*(t for t in templates if t in discrete), *(t for t in templates if t not in discrete)]
        found: list[tuple[Any, ...]] = []
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


def _read(place: _Place, feature: tuple[Any, ...]) -> Any:
    """The value of a feature at a place."""
    kind = feature[0]
    if kind == "place":
        return place.places[feature[1]]
    if kind == "minus":
        one, other = (_read(place, ("value", template, ())) for template in feature[1:])
        return one - other if is_number(one) and is_number(other) else ABSENT
    template, path = feature[1], place.path
    if kind == "value":
        text = text_of(template, feature[2])
    else:
        m = template.count("\0")
        near = place.places[:m]
        if kind == "near":
            if m > len(place.places):
                return ABSENT
            near = (*near[:-1], near[-1] + feature[2])
        text = text_of(template, near)
    if path.positions.get(text, place.position) >= place.position:
        return ABSENT
    value = path.values[text]
    if kind == "left":
        return value - place.places[feature[2]] if is_number(value) else ABSENT
    return value


class _Choices(tuple[Any, ...]):
    """Choices that can be told apart, and hashed, whatever they are."""

    def __hash__(self) -> int:
        return hash(tuple(map(value_key, self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Choices) and [*map(value_key, self)] == [*map(value_key, other)]

    def __ne__(self, other: object) -> bool:
        return not self == other


class _Question:
    """What one tree answers: what follows a template, or the distribution of one.

    Examples are kept for each label, the latest ones; while there is one label alone, there is nothing to
    decide.
    """

    def __init__(self, model: SpaceModel) -> None:
        self._model = model
        self._relative: dict[Any, list[_Place]] = defaultdict(list)
        self._absolute: dict[Any, Any] = {}  # by number of the example, its absolute label
        self._latest: Any = None  # label
        self._tree: tuple[Node, bool] | None = None  # and whether its labels are absolute
        self._relations: Mapping[str, Any] | None = None

    def add(self, place: _Place, relative: Any, absolute: Any) -> None:
        if self._tree is not None:
            leaf = self._decide(place)
            if leaf is None or leaf.label != (absolute if self._tree[1] else relative) or leaf.share < 1:
                self._tree = None
        self._relations = None
        kept = self._relative[relative]
        kept.append(place)
        self._absolute[id(place)] = absolute
        if len(kept) > _MOST_EXAMPLES:
            self._absolute.pop(id(kept[0]), None)
            del kept[0]
        self._latest = relative

    def answer(self, place: _Place) -> Any:
        """The label at a place; None where it is not known."""
        if len(self._relative) == 1:
            return next(iter(self._relative))
        leaf = self._decide(place)
        return leaf.label if leaf is not None and leaf.share >= _SURE else None

    def chance(self, place: _Place, agrees: Callable[[Any], bool]) -> float:
        """How likely a label that ``agrees`` is the right one."""
        if len(self._relative) == 1:
            return float(agrees(next(iter(self._relative))))
        return self._root().chance(place, _read, agrees)

    def chance_in_range(self, place: _Place, value: Any) -> float:
        """How likely the distribution holds ``value``."""
        related = self._related(place) if len(self._relative) > 1 else None
        if related is not None:
            return float(_holds(_range_label(related), value))
        return self.chance(place, lambda label: _holds(label, value))

    def asked(self) -> list[tuple[Any, ...]]:
        """The features that decide, those that decide first before others."""
        if len(self._relative) == 1:
            return []
        if self._tree is None:
            self._tree = self._grow()
        found, nodes = [], [self._tree[0]]
        while nodes:
            node = nodes.pop(0)
            if node.feature is not None:
                found.append(node.feature)
                nodes += [n for n in (node.low, node.high, *node.branches.values()) if n is not None]
        return found

    def _decide(self, place: _Place) -> Node | None:
        return self._root().decide(place, _read)

    def _root(self) -> Node:
        if self._tree is None:
            self._tree = self._grow()
        return self._tree[0]

    def _grow(self) -> tuple[Node, bool]:
        places = [place for kept in self._relative.values() for place in kept]
        relative = [label for label, kept in self._relative.items() for _ in kept]
        features = self._model.features(places)
        tree = grow_tree(places, relative, features, _read)
        if _is_pure(tree):
            return tree, False
        absolute = [self._absolute[id(place)] for place in places]
        if len(set(absolute)) < len(set(relative)):
            other = grow_tree(places, absolute, features, _read)
            if _is_pure(other):
                return other, True
        return tree, False

    # Distributions ------------------------------------------------------------------------------------

    def answer_range(self, place: _Place) -> tuple[BaseDistribution, bool] | None:
        """The distribution at a place, and whether that is sure."""
        if len(self._relative) == 1:
            return _distribution_of(next(iter(self._relative))), True
        related = self._related(place)
        if related is not None:
            return related, True
        leaf = self._decide(place)
        if leaf is None:
            return _distribution_of(self._latest), False
        label: Any = leaf.label
        return _distribution_of(label), leaf.share >= _SURE

    def _related(self, place: _Place) -> BaseDistribution | None:
        """The distribution, where its bounds are the values of other parameters."""
        if self._relations is None:
            self._relations = self._find_relations()
        if not self._relations:
            return None
        label = dict(self._relations)
        kind, step, log = label.pop("fixed")
        bounds = {}
        for bound, (feature, how, constant, otherwise) in label.items():
            value = ABSENT if feature is None else _read(place, feature)
            if value is ABSENT:
                if otherwise is None:
                    return None
                bounds[bound] = otherwise
                continue
            if not is_number(value):
                return None
            bounds[bound] = value + constant if how == "plus" else value * constant
        low, high = bounds["low"], bounds["high"]
        if not (math.isfinite(low) and math.isfinite(high) and low <= high) or log and low <= 0:
            return None
        if kind == "int":
            low, high = int(round(low)), int(round(high))
            if log and low < 1:
                return None
            return IntDistribution(low, low + (high - low) // step * step, log=log, step=step)
        if step is not None:
            high = _end_of_grid(low, high, step)
        return FloatDistribution(float(low), float(high), log=log, step=step)

    def _find_relations(self) -> Mapping[str, Any]:
        labels = list(self._relative)
        if labels[0][0] == "categorical" or len({(kind, step, log) for kind, _, _, step, log in labels}) > 1:
            return {}
        kind, _, _, step, log = labels[0]
        places = [place for kept in self._relative.values() for place in kept[-20:]]
        features = [f for f in self._model.features(places) if f[0] in ("value", "near")]
        found: dict[str, Any] = {"fixed": (kind, step, log)}
        for bound, column in (("low", 1), ("high", 2)):
            values = [label[column] for label, kept in self._relative.items() for _ in kept[-20:]]
            if bound == "high" and step and max(values) - min(values) < step:
                values = [max(values)] * len(values)  # Optuna moves it onto the grid that starts at "low"
            if len(set(values)) == 1:
                found[bound] = None, "", 0, values[0]
                continue
            if len(set(values)) < _FEW:
                return {}
            relation = _relation(places, values, features)
            if relation is None:
                return {}
            found[bound] = relation
        return found


def _relation(places: Sequence[_Place], values: Sequence[float], features: Sequence[Any]) -> Any:
    """A parameter whose value is the bound, but for one constant; and the bound where it is absent."""
    for feature in features:
        read = [_read(place, feature) for place in places]
        otherwise = {value for value, other in zip(values, read, strict=True) if other is ABSENT}
        pairs = [(value, other) for value, other in zip(values, read, strict=True) if other is not ABSENT]
        if (
            len(otherwise) > 1
            or not all(is_number(other) for _, other in pairs)
            or len({other for _, other in pairs}) < _FEW
        ):
            continue
        rest = otherwise.pop() if otherwise else None
        differences = [value - other for value, other in pairs]
        if max(differences) - min(differences) <= 1e-9 * (1 + abs(differences[0])):
            constant = differences[0] if isinstance(differences[0], int) else round(differences[0], 12)
            return feature, "plus", constant, rest
        if all(other for _, other in pairs):
            ratios = [value / other for value, other in pairs]
            if max(ratios) - min(ratios) <= 1e-9 * abs(ratios[0]):
                return feature, "times", float(f"{ratios[0]:.12g}"), rest
    return None


def _end_of_grid(low: float, high: float, step: float) -> float:
    """The last value of a grid, as Optuna computes it: in decimal numbers."""
    first, by = Decimal(str(low)), Decimal(str(step))
    return float(first + (Decimal(str(high)) - first) // by * by)


def _digests(path: Path) -> list[bytes]:
    """Of the first 0, 1, ... parameters of a path, what tells them and their values from others."""
    running = hashlib.blake2b(digest_size=8)
    found = [running.digest()]
    for name in path.names[:_MOST_REMEMBERED]:
        running.update(repr((name, value_key(path.values[name]))).encode("utf-8", "surrogatepass"))
        found.append(running.digest())
    return found


def _is_pure(node: Node) -> bool:
    if node.feature is None:
        return node.share == 1
    children = [child for child in (node.low, node.high, *node.branches.values()) if child is not None]
    return all(map(_is_pure, children))


def _places_of(path: Path, position: int) -> tuple[int, ...]:
    return parse_name(path.names[position - 1]).places if position else ()


def _relative(last: tuple[int, ...], name: Name) -> tuple[Any, ...]:
    """The name behind a name with the places ``last``: what each place adds to that of the last one."""
    moves = tuple(
        ("by", place - last[j]) if j < len(last) else ("at", place) for j, place in enumerate(name.places)
    )
    # Behind a place that has moved, an inner loop begins anew.
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


def _range_label(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return "categorical", _Choices(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    return kind, distribution.low, distribution.high, distribution.step, distribution.log


def _holds(label: Any, value: Any) -> bool:
    """Whether the distribution that has this label holds a value."""
    if label[0] == "categorical":
        return value_key(value) in map(value_key, label[1])
    return is_number(value) and label[1] <= value <= label[2]


def _distribution_of(label: tuple[Any, ...]) -> BaseDistribution:
    if label[0] == "categorical":
        return CategoricalDistribution(tuple(label[1]))
    kind, low, high, step, log = label
    if kind == "int":
        return IntDistribution(low, high, log=log, step=step)
    return FloatDistribution(low, high, log=log, step=step)
