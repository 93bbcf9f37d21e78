"""`LayerSpace`: the networks that can be grown layer by layer, and how a trial plays them.

The same network has four forms, each the inverse of the others on every valid network:

===========  ==========================================================================================
layers       ``(Conv(32, 5, 1), MaxPool(2, 2, 0), FCL(128, "relu", True))``
text         ``"Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)"``
parameters   ``{"layer1_kind": "Conv", "layer1_conv_filters": 32, "layer1_conv_kernel": 5, ...}``
actions      ``[S, 4]`` floats in [0, 1]: the layer's kind, then up to three hyper-parameters
===========  ==========================================================================================

Notation as in `layers`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import numpy as np
from optuna import TrialPruned
from optuna.logging import get_logger
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, Trial

from optuna_trlhpo.growth import frozen, worth_growing, worth_training
from optuna_trlhpo.hooks import entering
from optuna_trlhpo.layers import (
    ACTION_SLOTS,
    TABLE_I,
    Layer,
    Network,
    Shape,
    Vocabulary,
    describe,
    vocabulary_named,
)
from optuna_trlhpo.outlines import outline_of, signature_of
from optuna_trlhpo.params import Recorder, Replay
from optuna_trlhpo.places import (
    BYTES,
    Place,
    allowed_values,
    classifier_parameters,
    every_layer,
    least_parameters,
    next_place,
    shape_behind,
)
from optuna_trlhpo.texts import brief

_logger = get_logger("optuna.trlhpo.space")

SPACE_ATTRIBUTE = "layer_space"
"""The user attribute of a study under which the settings of its space are kept."""
_MOST = {"max_layers": 100, "num_classes": 10**6, "input_shape": 10**6}
"""That settings are believed, which may be damaged; of other integers 10**15."""
_DRAWS = 1000
"""After so many random networks beyond a limit there is held to be none within it."""
_INPUTS = {
    3: "three positive integers, (channels, height, width), such as (1, 28, 28)",
    2: "two positive integers, (steps, features), such as (50, 3)",
    1: "one positive integer in a tuple, (features,), such as (20,)",
}
"""By their axes, the inputs of a vocabulary."""


class LayerSpace:
    """The networks that can be grown layer by layer: Table I of the paper, its grammar and its stop rules.

    Only what is valid at that point is ever suggested, so any Optuna sampler can play: the first layer is a
    convolution; behind a fully connected layer come only fully connected ones; kernels fit the image; padding
    is at most half the kernel; no network exceeds ``max_macs``. With another vocabulary other kinds of layer
    are grown, each where its shape rule lets it stand.

    Args:
        input_shape: ``(channels, height, width)`` of one image; of other inputs as the vocabulary wants it.
        num_classes: Outputs of the classifier behind the last layer.
        max_layers: The most layers of a network; 6 in the paper.
        min_improvement: `grow` stops at a layer that adds less accuracy than this; 0.001 in the paper. None:
            never.
        min_accuracy: `grow` stops below this accuracy; 0.60 in the paper. None: never.
        max_macs: The most MACs of a network, classifier included, for one image; on the way to a deeper
            network, too. None: no limit.
        max_parameters: The most weights and biases of a network, classifier included. On the way to a deeper
            network the classifier may take more: such a network is not trained. None: no limit.
        max_activation_bytes: The most that input and output of one layer, or of the classifier, may take
            together, for one image; on the way to a deeper network, too. None: no limit.
        train_prefixes: Which networks `grow` yields on the way to a deeper one: "all"; every so many layers;
            or "auto", those that the study's sampler holds worth a training, which it decides network by
            network if it is a `TRLHPOSampler`, and all of them if it has no opinion.
        narrowing: Whether a fully connected layer may not be wider than the one before it.
        vocabulary: The kinds of layer: Table I of the paper, one of `kinds`, or one of your own.

    Raises:
        ValueError: For an argument out of range, or a space without a single network.

    Example:
        >>> from optuna_trlhpo.layers import parse
        >>> space = LayerSpace(input_shape=(1, 28, 28), num_classes=10)
        >>> network = parse("Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)")
        >>> space.shapes(network)
        ((32, 24, 24), (32, 12, 12), (128,))
        >>> space.from_params(space.to_params(network)) == network
        True
        >>> space.decode(space.encode(network)) == network
        True
    """

    def __init__(
        self,
        *,
        input_shape: Shape = (1, 28, 28),
        num_classes: int = 10,
        max_layers: int = 6,
        min_improvement: float | None = 0.001,
        min_accuracy: float | None = 0.60,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        narrowing: bool = False,
        train_prefixes: int | str = "auto",
        vocabulary: Vocabulary = TABLE_I,
    ) -> None:
        if not isinstance(vocabulary, Vocabulary):
            raise ValueError(f"vocabulary is {vocabulary!r}; it must be a Vocabulary, such as TABLE_I")
        self.vocabulary = vocabulary
        if (
            not isinstance(input_shape, Sequence)
            or len(input_shape) != vocabulary.axes
            or not all(_is_positive_integer(size) for size in input_shape)
        ):
            raise ValueError(f"input_shape is {input_shape!r}; it must be {_INPUTS[vocabulary.axes]}")
        for name, value, least in (("num_classes", num_classes, 2), ("max_layers", max_layers, 1)):
            if not _is_positive_integer(value) or value < least:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
        for name, limit in (("min_improvement", min_improvement), ("min_accuracy", min_accuracy)):
            if limit is not None and not (_is_number(limit) and 0 <= limit <= 1):
                raise ValueError(f"{name} is {limit!r}; it must be between 0 and 1, or None")
        limits = dict(
            max_macs=max_macs, max_parameters=max_parameters, max_activation_bytes=max_activation_bytes
        )
        for name, limit in limits.items():
            if limit is not None and not (_is_number(limit) and limit > 0):
                raise ValueError(f"{name} is {limit!r}; it must be positive, or None for no limit")
        if train_prefixes not in ("auto", "all") and not _is_positive_integer(train_prefixes):
            raise ValueError(
                f"train_prefixes is {train_prefixes!r}; it must be 'auto', 'all' or a positive integer"
            )
        self.train_prefixes = train_prefixes
        self.input_shape = tuple(int(size) for size in input_shape)
        self.num_classes = num_classes
        self.max_layers = max_layers
        self.min_improvement = min_improvement
        self.min_accuracy = min_accuracy
        self.max_macs = max_macs
        self.max_parameters = max_parameters
        self.max_activation_bytes = max_activation_bytes
        self.narrowing = narrowing
        if not self.kinds(()):
            self._refuse()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerSpace) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.input_shape, self.num_classes, self.max_layers))

    def __repr__(self) -> str:
        settings = {name: value for name, value in vars(self).items() if value != TABLE_I}
        return f"LayerSpace({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that the space was made with, as JSON can hold them; `from_settings` is the inverse.

        Example:
            >>> space = LayerSpace(max_layers=3)
            >>> LayerSpace.from_settings(space.settings) == space
            True
        """
        own = {name: _plain(getattr(self, name)) for name in _SETTINGS}
        return own | {"input_shape": list(self.input_shape), "vocabulary": self.vocabulary.name}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> LayerSpace:
        """The space that has these `settings`.

        Raises:
            ValueError: If they are not settings of a space, or nobody has made its vocabulary.
        """
        names = {*_SETTINGS, "input_shape", "vocabulary"}
        if not isinstance(settings, Mapping) or set(settings) != names:
            raise ValueError(
                f"settings are {brief(settings)}; they must have the keys {', '.join(sorted(names))}"
            )
        shape, vocabulary = settings["input_shape"], settings["vocabulary"]
        if not isinstance(shape, list | tuple) or not isinstance(vocabulary, str):
            raise ValueError(
                f"input_shape is {brief(shape)} and vocabulary {brief(vocabulary)}; they must "
                "be a list and a text"
            )
        if not isinstance(settings["narrowing"], bool):
            raise ValueError(f"narrowing is {brief(settings['narrowing'])}; it must be True or False")
        others = {name: settings[name] for name in _SETTINGS}
        for name, size in [*others.items(), *(("input_shape", size) for size in shape)]:
            most = _MOST.get(name, 10**15)
            if isinstance(size, int) and size > most:
                raise ValueError(f"{name} is beyond {most:,}, the most that is believed of a study")
        return cls(input_shape=tuple(shape), vocabulary=vocabulary_named(vocabulary), **others)

    # What may come next -------------------------------------------------------------------------------

    def kinds(self, layers: Sequence[Layer]) -> tuple[type[Layer], ...]:
        """The kinds that may follow ``layers``; none where the network cannot grow."""
        if len(layers) >= self.max_layers:
            return ()
        grammar = self.vocabulary.kinds if layers else self.vocabulary.first
        return tuple(cls for cls in grammar if self._may_stand(layers, cls))

    def _may_stand(self, layers: Sequence[Layer], cls: type[Layer]) -> bool:
        """Whether some layer of the kind may come next."""
        if cls.hyperparameters:
            return bool(self.allowed(layers, cls))
        return self._place(layers).fits(cls())

    def allowed(self, layers: Sequence[Layer], cls: type[Layer], *chosen: Any) -> tuple[Any, ...]:
        """The values that the next hyper-parameter may take, behind ``layers`` and the values ``chosen``."""
        # mypy does not see that a class is hashable.
        return allowed_values(cls, chosen, self._place(layers))  # type: ignore[arg-type]

    def _place(self, layers: Sequence[Layer]) -> Place:
        """Behind ``layers``."""
        start = Place(
            self.vocabulary,
            self.input_shape,
            self.num_classes,
            _or_inf(self.max_macs),
            _or_inf(self.max_parameters),
            _or_inf(self.max_activation_bytes),
            layers_left=0 if self.max_parameters is None else self.max_layers - 1,
            narrowing=self.narrowing,
        )
        return functools.reduce(Place.behind, layers, start)

    def shapes(self, layers: Sequence[Layer]) -> tuple[Shape, ...]:
        """The shape behind each layer."""
        behind = itertools.accumulate(
            layers, lambda shape, layer: shape_behind(layer, shape), initial=self.input_shape
        )
        return tuple(behind)[1:]

    def macs(self, layers: Sequence[Layer]) -> int:
        """MACs of the network for one image, classifier included."""
        shapes = (self.input_shape, *self.shapes(layers))
        body = sum(layer.macs(shape) for layer, shape in zip(layers, shapes, strict=False))
        return body + math.prod(shapes[-1]) * self.num_classes

    def fits(self, layers: Sequence[Layer]) -> bool:
        """Whether the network, as it stands, is within all limits. On the way to a deeper one a network may
        exceed ``max_parameters``, and no other."""
        return not self._excess(layers)

    def _excess(self, layers: Sequence[Layer]) -> dict[str, float]:
        """By how much the network exceeds the limits that it does exceed."""
        counts = {
            "max_macs": self.macs,
            "max_parameters": self.parameters,
            "max_activation_bytes": self.activation_bytes,
        }
        limits = {name: limit for name in counts if (limit := getattr(self, name)) is not None}
        excess = {name: counts[name](layers) - limit for name, limit in limits.items()}
        return {name: much for name, much in excess.items() if much > 0}

    def parameters(self, layers: Sequence[Layer]) -> int:
        """Weights and biases of the network, classifier included."""
        shapes = (self.input_shape, *self.shapes(layers))
        body = sum(layer.parameters(shape) for layer, shape in zip(layers, shapes, strict=False))
        return body + classifier_parameters(shapes[-1], self.num_classes)

    def activation_bytes(self, layers: Sequence[Layer]) -> int:
        """The most that input and output of one layer, or of the classifier, take together for one input, in
        numbers of 32 bits."""
        sizes = [math.prod(shape) for shape in (self.input_shape, *self.shapes(layers))]
        return BYTES * max(a + b for a, b in itertools.pairwise([*sizes, self.num_classes]))

    def check(self, layers: Sequence[Layer]) -> None:
        """Raise a ``ValueError`` that names the first layer that may not stand where it stands."""
        if len(layers) > self.max_layers:
            raise ValueError(
                f"{describe(layers)!r} has {len(layers)} layers; at most {self.max_layers} are allowed"
            )
        for k, layer in enumerate(layers):
            before, cls, values = layers[:k], type(layer), layer.values
            kinds = self.kinds(before)
            if cls not in kinds:
                names = ", ".join(kind.kind for kind in kinds) or "none"
                raise ValueError(f"layer {k + 1}, {layer}, is not allowed there; allowed kinds: {names}")
            for i, (hp, value) in enumerate(zip(cls.hyperparameters, values, strict=True)):
                allowed = self.allowed(before, cls, *values[:i])
                if value not in allowed:
                    span = f"{allowed[0]} to {allowed[-1]}" if allowed else "none"
                    if hp.labels:
                        span = ", ".join(map(hp.write, allowed))
                    raise ValueError(
                        f"layer {k + 1}, {layer}: {hp.name} {value!r} is not allowed there ({span})"
                    )
        for name, excess in self._excess(layers).items() if layers else ():
            limit = getattr(self, name)
            raise ValueError(
                f"{describe(layers)!r} has {limit + excess:,.0f} {_UNITS[name]}; at most {limit:,.0f} are "
                "allowed"
            )

    # Playing with Optuna ------------------------------------------------------------------------------

    def grow(self, trial: BaseTrial) -> Iterator[Network]:
        """Yield a deeper network each time round, until the paper's rules stop it.

        Train what is yielded and report its validation accuracy, ``trial.report(accuracy, step=len(layers) -
        1)``, before the next round. Networks that are not worth a training on the way to a deeper one are not
        yielded (``train_prefixes``), nor are those beyond a limit. Growth stops where the sampler sees no
        gain in a deeper network, at ``max_layers``, at a layer that adds less than ``min_improvement``, and
        below ``min_accuracy``. In a study that minimises, the report is read as an error rate, 1 - accuracy.

        Raises:
            ValueError: If a yielded network that may grow further was not reported, or its report is not a
                number, or not in [0, 1] while ``min_accuracy`` is set.
            optuna.TrialPruned: If several limits together left no network to train, which is rare; the trial
                has a constraint of the name of each limit that is broken then, and is infeasible.
            optuna.exceptions.UpdateFinishedTrialError: If another worker has finished the trial meanwhile, as
                Optuna does with a trial whose heartbeat is missed.

        Example:
            >>> import optuna
            >>> space, study = LayerSpace(max_layers=2), optuna.create_study(direction="maximize")
            >>> trial = study.ask()
            >>> for layers in space.grow(trial):
            ...     trial.report(0.7 + 0.1 * len(layers), step=len(layers) - 1)
            >>> len(layers)
            2
        """
        with self._introduced(trial, whole=False):
            yield from self._grow(trial)

    def _grow(self, trial: BaseTrial) -> Iterator[Network]:
        layers: Network = ()
        previous = -math.inf
        skipped = grown = False
        while self.kinds(layers):
            try:
                layers = (*layers, self._suggest_layer(trial, layers))
            except ValueError:
                # A fixed or frozen trial ends where its parameters end.
                begun = any(name.startswith(f"layer{len(layers) + 1}_") for name in trial.params)
                if isinstance(trial, Trial) or begun:
                    raise
                if skipped and self.fits(layers):
                    yield layers
                return
            final = not self.kinds(layers)
            if final and not self.fits(layers):
                if not grown:
                    self._give_up(trial, layers)
                return
            skipped = not final and not (self.fits(layers) and self._is_trained(trial, len(layers)))
            if skipped:
                continue
            grown = True
            yield layers
            if final or not isinstance(trial, Trial):
                continue
            if self.min_improvement is not None or self.min_accuracy is not None:
                accuracy = self._reported_accuracy(trial, step=len(layers) - 1)
                if self.min_accuracy is not None and accuracy < self.min_accuracy:
                    return
                if self.min_improvement is not None and accuracy - previous < self.min_improvement:
                    return
                previous = accuracy
            if self.train_prefixes == "auto" and not worth_growing(trial):
                return

    def _introduced(self, trial: BaseTrial, *, whole: bool) -> AbstractContextManager[None]:
        """Within, a sampler that wants to know is told which networks there are.

        It is noted in the study, too: so what its networks come to can be worked out from the study alone.
        """
        if not isinstance(trial, Trial):
            return contextlib.nullcontext()
        if trial.study.user_attrs.get(SPACE_ATTRIBUTE) != self.settings:
            try:
                trial.study.set_user_attr(SPACE_ATTRIBUTE, self.settings)
            except Exception as error:  # no trial should fail for a note
                _logger.warning(f"The space was not noted in the study: {error!r}")
        return entering(trial, self, whole=whole)

    def _is_trained(self, trial: BaseTrial, depth: int) -> bool:
        """Whether a network that may grow on is trained at ``depth``."""
        if isinstance(self.train_prefixes, int | np.integer):
            return depth % self.train_prefixes == 0
        if self.train_prefixes == "all":
            return True
        if isinstance(trial, Trial):
            return worth_training(trial, depth=depth, max_depth=self.max_layers)
        reports = getattr(trial, "intermediate_values", {})  # what was trained then is trained again
        return not reports or depth - 1 in reports

    def suggest(self, trial: BaseTrial) -> Network:
        """A whole network at once: its depth first (``n_layers``), then its layers; nothing need be reported.

        For objectives that train only the finished network, and for studies with several objectives, where
        Optuna does not take reports. A network that cannot grow any further ends before its depth, and one
        that is beyond ``max_parameters`` there grows on until it is not.

        Raises:
            optuna.TrialPruned: As in `grow`.
        """
        with self._introduced(trial, whole=True):
            return self._suggest(trial)

    def _suggest(self, trial: BaseTrial) -> Network:
        layers: Network = ()
        depth = trial.suggest_int("n_layers", 1, self.max_layers)
        while (len(layers) < depth or not self.fits(layers)) and self.kinds(layers):
            layers = (*layers, self._suggest_layer(trial, layers))
        if not self.fits(layers):
            self._give_up(trial, layers)
        return layers

    def _give_up(self, trial: BaseTrial, layers: Network) -> NoReturn:
        """End a trial that has no network to train."""
        excess = self._excess(layers)
        for name, much in excess.items() if isinstance(trial, Trial) else ():
            trial.set_constraint(name, much)
        told = " and ".join(f"{much:,.0f} {_UNITS[name]}" for name, much in excess.items())
        raise TrialPruned(f"{describe(layers)} has {told} too many, and cannot grow on")

    def _suggest_layer(self, trial: BaseTrial, layers: Network) -> Layer:
        k, kinds = len(layers) + 1, self.kinds(layers)
        # Optuna forbids one name to have two sets of choices, so a masked set has a name of its own.
        vocabulary = self.vocabulary
        whole = kinds == (vocabulary.kinds if k > 1 else vocabulary.first)
        mask = "" if whole else "_of_" + "_".join(cls.prefix for cls in kinds)
        name = f"layer{k}_{vocabulary.kind_field}{mask}"
        cls = vocabulary.by_kind[vocabulary.kind.suggest(trial, name, [cls.kind for cls in kinds])]
        values: list[Any] = []
        for hp in cls.hyperparameters:
            allowed = self.allowed(layers, cls, *values)
            whole = not hp.labels or allowed == hp.values
            mask = "" if whole else "_of_" + "_".join(map(hp.write, allowed))
            values.append(hp.suggest(trial, f"layer{k}_{cls.prefix}_{hp.name}{mask}", allowed))
        return cls(*values)

    def _reported_accuracy(self, trial: Trial, step: int) -> float:
        reports = frozen(trial).intermediate_values
        if step not in reports:
            if len(trial.study.directions) > 1:
                raise ValueError(
                    "grow needs reports, which Optuna takes in studies with one objective only; with several "
                    "use LayerSpace.suggest"
                )
            raise ValueError(
                f"no report at step {step}: call trial.report(accuracy, step=len(layers) - 1) after training "
                "each network that grow yields, or use LayerSpace.suggest, which needs no report"
            )
        value = reports[step]
        if not math.isfinite(value):
            raise ValueError(f"the report at step {step} is {value}; grow needs a finite number")
        if self.min_accuracy is not None and not 0 <= value <= 1:
            raise ValueError(
                f"the report at step {step} is {value:g}; with min_accuracy={self.min_accuracy:g}, grow "
                "needs accuracies (or error rates) between 0 and 1; for another metric set min_accuracy=None"
            )
        if trial.study.direction == StudyDirection.MINIMIZE:
            return 1 - value
        return value

    # The other forms of a network ---------------------------------------------------------------------

    def to_params(self, layers: Sequence[Layer]) -> dict[str, Any]:
        """The parameters of a trial that grows ``layers``, for ``study.enqueue_trial``."""
        self.check(layers)
        params: dict[str, Any] = {}
        for k, layer in enumerate(layers):
            recorder = Recorder(layer)
            self._suggest_layer(recorder, tuple(layers[:k]))  # type: ignore[arg-type]
            params |= recorder.params
        return params

    def from_params(self, params: Mapping[str, Any]) -> Network:
        """The network that a trial's ``params`` stand for; parameters of other names are passed over."""
        layers: Network = ()
        for k in range(1, self.max_layers + 1):
            mine = {name: value for name, value in params.items() if name.startswith(f"layer{k}_")}
            if not mine or not self.kinds(layers):
                break
            replayed = Replay(mine)
            layers = (*layers, self._suggest_layer(replayed, layers))  # type: ignore[arg-type]
        return layers

    def encode(self, layers: Sequence[Layer]) -> np.ndarray:
        """Actions ``[S, 4]`` in [0, 1]; a kind with fewer than three hyper-parameters leaves zeros."""
        actions = np.zeros((len(layers), ACTION_SLOTS))
        for row, layer in zip(actions, layers, strict=True):
            row[0] = self.vocabulary.kind.encode(layer.kind)
            values = layer.values
            row[1 : 1 + len(values)] = [
                hp.encode(value) for hp, value in zip(layer.hyperparameters, values, strict=True)
            ]
        return actions

    def decode(self, actions: np.ndarray) -> Network:
        """The network of ``actions`` ``[S, 4]``; what is not allowed becomes the nearest that is.

        Raises:
            ValueError: If the actions are not ``[S, 4]`` numbers in [0, 1].
        """
        actions = np.asarray(actions, dtype=float)
        if (
            actions.ndim != 2
            or actions.shape[1] != ACTION_SLOTS
            or not ((0 <= actions) & (actions <= 1)).all()
        ):
            raise ValueError(
                f"actions have shape {actions.shape}; they must be [layers, {ACTION_SLOTS}] numbers in [0, 1]"
            )
        layers: Network = ()
        for row in actions:
            kinds = self.kinds(layers)
            if not kinds:
                break
            kind = self.vocabulary.kind.nearest(row[0], [cls.kind for cls in kinds])
            cls = self.vocabulary.by_kind[kind]
            values: list[Any] = []
            for hp, action in zip(cls.hyperparameters, row[1:], strict=False):
                values.append(hp.nearest(action, self.allowed(layers, cls, *values)))
            layers = (*layers, cls(*values))
        return layers

    def signature(self, actions: np.ndarray) -> np.ndarray | None:
        """What a network comes to, in `SIGNATURE` numbers of about [0, 1]; None if it is not of this space.

        Depth, logarithms of the MACs, of the numbers that leave the network and of the fewest that pass
        anywhere; of the last convolution or pooling the channels, the height and the numbers that leave it;
        and the height behind the first layer. Networks of different layers that come to the same behave much
        alike.

        Args:
            actions: ``[S, 4]``, as `encode` gives them; nothing is made to fit, unlike in `decode`.

        Example:
            >>> space = LayerSpace(max_macs=1e6)
            >>> space.signature(np.array([[0.1, 0.1, 0.1, 0.1]])).round(2).tolist()
            [0.17, 0.59, 0.81, 0.81, 0.57, 0.98, 0.81, 0.98]
            >>> space.signature(np.array([[0.9, 0.1, 0.1, 0.1]])) is None  # no network begins with an FCL
            True
        """
        walked = self._walk(actions)
        if walked is None:
            return None
        _, shapes, macs = walked
        return signature_of(
            self.input_shape, shapes, macs[-1], num_classes=self.num_classes, max_layers=self.max_layers
        )

    @property
    def kind_stem(self) -> str:
        """The name of the choice of a kind, without the number of the layer."""
        return f"layer_{self.vocabulary.kind_field}"

    @property
    def has_outlines(self) -> bool:
        """Whether `outline` can tell what its layers are: those of Table I."""
        return self.vocabulary == TABLE_I

    def outline(self, actions: np.ndarray) -> np.ndarray | None:
        """What each layer of Table I is and makes of the image, ``[S, OUTLINE]`` numbers of about [0, 1];
        None as in `signature`, and in a space of another vocabulary.

        Its kind (three numbers), its hyper-parameters (three, 0 where it has fewer); logarithms of the height
        and the channels of what leaves it, of how many numbers that are, and of the MACs up to it; and the
        height of the input. Unlike a signature they mean the same in spaces of different images.

        Args:
            actions: ``[S, 4]``, as `encode` gives them.

        Example:
            >>> LayerSpace().outline(np.array([[0.1, 0.1, 0.1, 0.1]])).round(2).tolist()
            [[1.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.98, 0.57, 0.81, 0.55, 1.0]]
        """
        walked = self._walk(actions) if self.has_outlines else None
        if walked is None:
            return None
        layers, shapes, macs = walked
        return outline_of(self.input_shape, layers, actions, shapes, macs, vocabulary=self.vocabulary)

    def _walk(self, actions: np.ndarray) -> tuple[Network, list[Shape], list[int]] | None:
        """The layers that ``actions`` stand for, the shape behind each and the MACs up to it; None if one may
        not stand where it stands."""
        if not 0 < len(actions) <= self.max_layers:
            return None
        layers: Network = ()
        shapes: list[Shape] = []
        macs: list[int] = []
        place = self._place(())
        for row in actions.tolist():
            layer = self.vocabulary.layer_of(tuple(row))
            if layer is None or not (layers or type(layer) in self.vocabulary.first):
                return None
            behind = next_place(place, layer)
            if behind is None:
                return None
            layers = (*layers, layer)
            shapes.append(behind.shape)
            macs.append(layer.macs(place.shape) + (macs[-1] if macs else 0))
            place = behind
        # Of the limits `Place.fits` leaves one open.
        return (layers, shapes, macs) if self.max_parameters is None or self.fits(layers) else None

    def draw(self, rng: np.random.Generator, *, depth: int | None = None) -> Network:
        """A random network; of ``depth`` layers, or of a random number of them, if so many fit.

        Raises:
            ValueError: If limits that can be met one by one can hardly be met together.

        Example:
            >>> len(LayerSpace().draw(np.random.default_rng(0), depth=2))
            2
        """
        depth = int(rng.integers(1, self.max_layers + 1)) if depth is None else depth
        for _ in range(_DRAWS):  # several limits together may leave nothing to grow on with
            layers: Network = ()
            while (len(layers) < depth or not self.fits(layers)) and (kinds := self.kinds(layers)):
                layers = (*layers, self.draw_layer(rng, layers, kinds[rng.integers(len(kinds))]))
            if self.fits(layers):
                return layers
        raise ValueError(f"none of {_DRAWS:,} random networks was within all limits of {self!r}")

    def draw_actions(self, rng: np.random.Generator) -> np.ndarray:
        """``[S, 4]`` actions of a random network."""
        return self.encode(self.draw(rng))

    def draw_layer(self, rng: np.random.Generator, before: Network, cls: type[Layer]) -> Layer:
        """A random layer of the kind ``cls`` behind the layers ``before``."""
        values: list[Any] = []
        for _ in cls.hyperparameters:
            allowed = self.allowed(before, cls, *values)
            values.append(allowed[rng.integers(len(allowed))])
        return cls(*values)

    def _refuse(self) -> None:
        """Raise a ``ValueError`` that says which limit no network meets, and the least that would do."""
        shape, classes = self.input_shape, self.num_classes
        firsts = [
            (layer, out)
            for layer in every_layer(self.vocabulary.first)
            if (out := layer.output_shape(shape)) is not None
        ]
        if not firsts:
            names = " or ".join(cls.kind for cls in self.vocabulary.first)
            raise ValueError(
                f"input_shape is {shape}; it is too small for any {names}, with which every network begins"
            )
        least = {
            "max_macs": min(layer.macs(shape) + math.prod(out) * classes for layer, out in firsts),
            "max_parameters": min(
                layer.parameters(shape) + least_parameters(self.vocabulary, out, classes, self.max_layers - 1)
                for layer, out in firsts
            ),
            "max_activation_bytes": min(
                BYTES * max(math.prod(shape) + math.prod(out), math.prod(out) + classes) for _, out in firsts
            ),
        }
        limits = {name: limit for name in least if (limit := getattr(self, name)) is not None}
        broken = [name for name, limit in limits.items() if least[name] > limit]
        if broken:
            name = broken[0]
            # To parameters a network is held when it is trained, to the others at each layer on the way.
            what = "network of this space" if name == "max_parameters" else "first layer with a classifier"
            raise ValueError(
                f"{name} is {limits[name]:,.0f}; the cheapest {what} takes {least[name]:,} {_UNITS[name]}"
            )
        told = " and ".join(f"{name} {limit:,.0f}" for name, limit in limits.items())
        raise ValueError(f"no network of this space meets {told} at once")


_UNITS = {
    "max_macs": "MACs",
    "max_parameters": "parameters",
    "max_activation_bytes": "bytes of activations",
}
"""Of the limits."""
_SETTINGS = (
    "num_classes",
    "max_layers",
    "min_improvement",
    "min_accuracy",
    "max_macs",
    "max_parameters",
    "max_activation_bytes",
    "narrowing",
    "train_prefixes",
)


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
