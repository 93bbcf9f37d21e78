"""`LayerSpace`: the networks that can be grown layer by layer, and how a trial chooses one.

A network has four equivalent forms, each of which can be converted to the others:

===========  ==========================================================================================
layers       ``(Conv(32, 5, 1), MaxPool(2, 2, 0), FCL(128, "relu", True))``
text         ``"Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)"``
parameters   ``{"layer1_kind": "Conv", "layer1_conv_filters": 32, "layer1_conv_kernel": 5, ...}``
actions      ``[S, 4]`` floats in [0, 1]: the layer's kind, then up to three hyper-parameters
===========  ==========================================================================================

Notation as in `layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo._checks import is_integer, is_number, plain
from optuna_trlhpo._texts import brief
from optuna_trlhpo.layers import TABLE_I, Layer, Network, Shape, Vocabulary, vocabulary_named
from optuna_trlhpo.space import encoding, growth
from optuna_trlhpo.space.descriptors import (
    layer_features_of,
    n_layer_features,
    network_descriptor_of,
    space_features_of,
    walk,
)
from optuna_trlhpo.space.grammar import Grammar
from optuna_trlhpo.space.policy import draw_networks

_MOST = {"max_layers": 100, "num_classes": 10**6, "input_shape": 10**6}
"""Upper bounds of stored settings, which may be damaged; 10**15 for other integers."""
_SETTINGS = (
    "num_classes",
    "max_layers",
    "min_improvement",
    "min_accuracy",
    "max_macs",
    "max_parameters",
    "max_activation_bytes",
    "max_model_bytes",
    "quantize",
    "narrowing",
    "train_prefixes",
)


_LATER_SETTINGS = {"max_model_bytes": None, "quantize": None}  # those that an older study lacks


class LayerSpace(Grammar):
    """The networks that can be grown layer by layer: Table I of the paper, its grammar and stopping rules.

    Only valid choices are ever suggested, so any Optuna sampler can be used: the first layer is a
    convolution; a fully connected layer is followed by fully connected layers only; kernels fit the image;
    padding is at most half the kernel; no network exceeds ``max_macs``. Another vocabulary has other kinds of
    layer, each allowed wherever its shape rule permits; normalisation and dropout do not follow themselves.

    Args:
        input_shape: Shape of one input, ``(channels, height, width)`` for images; other vocabularies have
            other inputs.
        num_classes: Number of outputs of the classifier behind the last layer.
        max_layers: Largest number of layers of a network; 6 in the paper.
        min_improvement: `grow` stops at a layer that improves the accuracy by less than this; 0.001 in the
            paper. None never stops.
        min_accuracy: `grow` stops below this accuracy; 0.60 in the paper. None never stops.
        max_macs: Largest number of MACs of a network, classifier included, for one image. It also applies to
            every prefix. None sets no limit.
        max_parameters: Largest number of weights and biases of a network, classifier included. A prefix may
            exceed it because of its classifier, and is then not trained. None sets no limit.
        max_activation_bytes: Largest size in bytes of the input and the output of one layer, or of the
            classifier, together, for one image. It also applies to every prefix. None sets no limit.
        max_model_bytes: Largest size of the ONNX file in bytes. A prefix may exceed it. None: no limit.
        quantize: Number format of both limits in bytes: ``"int8"``, or None for 32-bit floats.
        train_prefixes: The prefixes of a network that `grow` yields: "all"; an integer n for every n-th; or
            "auto" to let the study's sampler decide. A `TRLHPOSampler` decides for each prefix; with any
            other sampler all are yielded.
        narrowing: Whether a fully connected layer may not be wider than the one before it.
        vocabulary: The kinds of layer: Table I of the paper, one of `kinds`, or a custom one.

    Raises:
        ValueError: For an argument out of range, or a space without any network.

    Examples:
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
        max_model_bytes: int | None = None,
        quantize: str | None = None,
        narrowing: bool = False,
        train_prefixes: int | str = "auto",
        vocabulary: Vocabulary = TABLE_I,
    ) -> None:
        for name, limit in (("min_improvement", min_improvement), ("min_accuracy", min_accuracy)):
            if limit is not None and not (is_number(limit) and 0 <= limit <= 1):
                raise ValueError(f"{name} is {limit!r}; it must be between 0 and 1, or None")
        if train_prefixes not in ("auto", "all") and not is_integer(train_prefixes, least=1):
            raise ValueError(
                f"train_prefixes is {train_prefixes!r}; it must be 'auto', 'all' or a positive integer"
            )
        self.min_improvement = min_improvement
        self.min_accuracy = min_accuracy
        self.train_prefixes = train_prefixes
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            max_layers=max_layers,
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_activation_bytes=max_activation_bytes,
            max_model_bytes=max_model_bytes,
            quantize=quantize,
            narrowing=narrowing,
            vocabulary=vocabulary,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerSpace) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.input_shape, self.num_classes, self.max_layers))

    def __repr__(self) -> str:
        settings = {name: value for name, value in vars(self).items() if value != TABLE_I}
        return f"LayerSpace({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the space in a form that JSON can store. `from_settings` is the inverse.

        Examples:
            >>> space = LayerSpace(max_layers=3)
            >>> LayerSpace.from_settings(space.settings) == space
            True
        """
        own = {name: plain(getattr(self, name)) for name in _SETTINGS}
        return own | {"input_shape": list(self.input_shape), "vocabulary": self.vocabulary.name}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> LayerSpace:
        """Return the space with these `settings`.

        Raises:
            ValueError: If they are not settings of a space, or its vocabulary does not exist.
        """
        names = {*_SETTINGS, "input_shape", "vocabulary"}
        if not isinstance(settings, Mapping) or {*_LATER_SETTINGS, *settings} != names:
            raise ValueError(
                f"settings are {brief(settings)}; they must have the keys {', '.join(sorted(names))}"
            )
        settings = {**_LATER_SETTINGS, **settings}
        shape, vocabulary = settings["input_shape"], settings["vocabulary"]
        if not isinstance(shape, list | tuple) or not isinstance(vocabulary, str):
            raise ValueError(
                f"input_shape is {brief(shape)} and vocabulary {brief(vocabulary)}; they must "
                "be a list and a string"
            )
        if not isinstance(settings["narrowing"], bool):
            raise ValueError(f"narrowing is {brief(settings['narrowing'])}; it must be True or False")
        others = {name: settings[name] for name in _SETTINGS}
        for name, size in [*others.items(), *(("input_shape", size) for size in shape)]:
            most = _MOST.get(name, 10**15)
            if isinstance(size, int) and size > most:
                raise ValueError(
                    f"{name} is {brief(size)}; in the settings of a study it must be at most {most:,}"
                )
        return cls(input_shape=tuple(shape), vocabulary=vocabulary_named(vocabulary), **others)

    # Growing in a trial -------------------------------------------------------------------------------

    def grow(self, trial: BaseTrial) -> Iterator[Network]:
        """Yield ever deeper networks until the paper's stopping rules apply.

        Train each network and report its validation accuracy before the next iteration, with
        ``trial.report(accuracy, step=len(layers) - 1)``. Prefixes that are not worth training
        (``train_prefixes``) or exceed a limit are not yielded. Growth stops where the sampler expects no gain
        from a deeper network, at ``max_layers``, at a layer that improves the accuracy by less than
        ``min_improvement``, and below ``min_accuracy``. In a study that minimises, the report is interpreted
        as an error rate, 1 - accuracy.

        Raises:
            ValueError: If a yielded network that may grow further was not reported, or its report is not
                finite, or not in [0, 1] while ``min_accuracy`` is set.
            optuna.TrialPruned: If several limits together leave no network to train, which is rare. The trial
                then has a constraint named after each broken limit, and is infeasible.
            optuna.exceptions.UpdateFinishedTrialError: If another worker has finished the trial meanwhile, as
                Optuna does with a trial whose heartbeat is missed.

        Examples:
            >>> import optuna
            >>> space, study = LayerSpace(max_layers=2), optuna.create_study(direction="maximize")
            >>> trial = study.ask()
            >>> for layers in space.grow(trial):
            ...     trial.report(0.7 + 0.1 * len(layers), step=len(layers) - 1)
            >>> len(layers)
            2
        """
        rules = growth.StopRules(self.min_improvement, self.min_accuracy, self.train_prefixes)
        with growth.announce_space(trial, self, self.settings, depth_first=False):
            yield from growth.grow(self, rules, trial)

    def suggest(self, trial: BaseTrial) -> Network:
        """Ask for a whole network: first its depth (``n_layers``), then its layers. No reports are needed.

        This is for objectives that train only the final network, and for studies with several objectives, for
        which Optuna accepts no reports. A network that cannot grow further ends before its depth. One that
        exceeds ``max_parameters`` at its depth grows on until it does not.

        Raises:
            optuna.TrialPruned: As in `grow`.
        """
        with growth.announce_space(trial, self, self.settings, depth_first=True):
            return growth.suggest(self, trial)

    # Conversion of networks ----------------------------------------------------------------------------

    def to_params(self, layers: Sequence[Layer]) -> dict[str, Any]:
        """Return the parameters of a trial that grows ``layers``, for ``study.enqueue_trial``."""
        return encoding.to_params(self, layers)

    def from_params(self, params: Mapping[str, Any]) -> Network:
        """Return the network that a trial's ``params`` encode. Unrelated parameters are ignored."""
        return encoding.from_params(self, params)

    def best_network(self, study: Study, trial: FrozenTrial | None = None) -> Network:
        """Return the best network of a trial: the one with the value of the trial, or else the best report.

        A trial of `grow` has a network after each layer, and the last one is often not the best.

        Args:
            study: A study whose trials grow or suggest networks of this space.
            trial: One of its finished trials; None: ``study.best_trial``.

        Raises:
            ValueError: If the study has no complete trial; if it has several objectives and no ``trial`` is
                given; or if the trial has no layers of this space.

        Examples:
            >>> import optuna
            >>> space, study = LayerSpace(max_layers=3), optuna.create_study(direction="maximize")
            >>> def objective(trial):
            ...     accuracies = []
            ...     for layers, accuracy in zip(space.grow(trial), (0.7, 0.9, 0.8)):
            ...         trial.report(accuracy, step=len(layers) - 1)
            ...         accuracies.append(accuracy)
            ...     return max(accuracies)
            >>> study.optimize(objective, n_trials=1)
            >>> len(space.best_network(study)), len(space.from_params(study.best_params))
            (2, 3)
        """
        if trial is None:
            if len(study.directions) > 1:
                n = len(study.directions)
                raise ValueError(f"the study has {n} objectives; name a trial, such as one of best_trials")
            trial = study.best_trial
        network = self.from_params(trial.params)
        if not network:
            raise ValueError(f"trial {trial.number} has no layers; its parameters are {brief(trial.params)}")
        if len(study.directions) > 1:
            return network  # nothing can be reported there
        return growth.best_of_trial(network, trial, study.direction)

    def encode(self, layers: Sequence[Layer]) -> np.ndarray:
        """Return actions ``[S, 4]`` in [0, 1]. Unused hyper-parameters are 0."""
        return encoding.encode(self.vocabulary, layers)

    def decode(self, actions: np.ndarray) -> Network:
        """Return the network of ``actions`` ``[S, 4]``; each choice becomes the nearest allowed one.

        Raises:
            ValueError: If the actions are not ``[S, 4]`` numbers in [0, 1].
        """
        return encoding.decode(self, actions)

    @property
    def space_features(self) -> np.ndarray:
        """``[F]`` features of the space of about [0, 1]: logarithms of the input's width and of limits.

        In a space of Table I the only limit is ``max_macs``; in others, ``max_parameters`` and
        ``max_activation_bytes`` follow. Each is as high as can be where there is none.
        """
        return space_features_of(self)

    def draw_from(
        self,
        policy: Callable[[np.ndarray, Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]],
        n: int,
        rng: np.random.Generator,
    ) -> list[np.ndarray]:
        """Draw up to ``n`` networks of the space from a policy.

        Args:
            policy: Function of `space_features` and of N networks of S layers each, by their
                `layer_features`. It returns logits, as `space.policy` describes them.
            n: Number of networks.
            rng: Random generator.

        Returns:
            Actions ``[S, 4]`` of each network. The few that miss a limit of the space are left out.
        """

        def features_of(layers: Network) -> np.ndarray:
            found = self._layer_features(self.encode(layers), whole=False)
            return np.zeros((0, n_layer_features(self.vocabulary))) if found is None else found

        bound = functools.partial(policy, self.space_features)
        return [self.encode(layers) for layers in draw_networks(self, bound, features_of, n, rng)]

    def network_descriptor(self, actions: np.ndarray) -> np.ndarray | None:
        """Describe a network by `NETWORK_DESCRIPTOR` features of about [0, 1].

        None if the network is not in the space. The features are the depth; the logarithms of the MACs, of
        the output size and of the smallest size anywhere in the network; the channels, height and output size
        of the last convolution or pooling layer; and the height behind the first layer. Networks with equal
        descriptors behave much alike even if their layers differ.

        Args:
            actions: ``[S, 4]`` actions as returned by `encode`. Unlike in `decode`, none are corrected.

        Examples:
            >>> space = LayerSpace(max_macs=1e6)
            >>> space.network_descriptor(np.array([[0.1, 0.1, 0.1, 0.1]])).round(2).tolist()
            [0.17, 0.59, 0.81, 0.81, 0.57, 0.98, 0.81, 0.98]
            >>> space.network_descriptor(np.array([[0.9, 0.1, 0.1, 0.1]])) is None  # an FCL comes first
            True
        """
        walked = walk(self, actions)
        if walked is None:
            return None
        _, shapes, macs = walked
        return network_descriptor_of(
            self.input_shape, shapes, macs[-1], num_classes=self.num_classes, max_layers=self.max_layers
        )

    @property
    def kind_base_name(self) -> str:
        """Name of the parameter of a layer's kind, without the number of the layer."""
        return f"layer_{self.vocabulary.kind_field}"

    def layer_features(self, actions: np.ndarray) -> np.ndarray | None:
        """Describe each layer by ``[S, K + 8]`` features of about [0, 1], where K counts the kinds of layer.

        None if the network is not in the space, or the inputs of the space are no images.

        The features are the kind (K of them); the hyper-parameters (three, 0 where there are fewer); the
        logarithms of the height, the channels and the size of the output, and of the cumulative MACs; and the
        height of the input. Unlike a network descriptor they are comparable between spaces with images of
        different sizes.

        Args:
            actions: ``[S, 4]`` actions as returned by `encode`.

        Examples:
            >>> LayerSpace().layer_features(np.array([[0.1, 0.1, 0.1, 0.1]])).round(2).tolist()
            [[1.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.98, 0.57, 0.81, 0.55, 1.0]]
        """
        return self._layer_features(actions, whole=True)

    def _layer_features(self, actions: np.ndarray, *, whole: bool) -> np.ndarray | None:
        walked = walk(self, actions, whole=whole) if self.vocabulary.axes == 3 else None
        if walked is None:
            return None
        layers, shapes, macs = walked
        return layer_features_of(self.input_shape, layers, actions, shapes, macs, vocabulary=self.vocabulary)
