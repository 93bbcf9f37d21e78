"""Kinds of layer beyond Table I, their vocabularies, and kinds of one's own."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn.deploy.cost import count_parameters
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.layers import (
    FCL,
    TABLE_I,
    Conv,
    Hyperparameter,
    Layer,
    MaxPool,
    Shape,
    Vocabulary,
    describe,
    network_in,
    parse,
)
from optuna_trlhpo.layers import vocabulary as module
from optuna_trlhpo.layers.blocks import SeededDropout, seed_dropout
from optuna_trlhpo.layers.counting import count_macs
from optuna_trlhpo.layers.kinds import CNN, LSTM, MLP, Residual
from optuna_trlhpo.layers.sequences import CNN1D
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.descriptors import NETWORK_DESCRIPTOR
from optuna_trlhpo.space.limits import Position, allowed_values, every_layer, fitting
from optuna_trlhpo.trials.episode import steps_of

INPUTS = {
    "cnn": (CNN, (2, 13, 11)),
    "mlp": (MLP, (20,)),
    "lstm": (LSTM, (10, 3)),
    "sequences": (CNN1D, (15, 3)),
}


@pytest.fixture(params=INPUTS)
def space(request: pytest.FixtureRequest) -> LayerSpace:
    vocabulary, shape = INPUTS[request.param]
    return LayerSpace(input_shape=shape, num_classes=5, max_macs=1e6, vocabulary=vocabulary)


@pytest.fixture
def forgetting() -> Iterator[None]:
    """Vocabularies that are made meanwhile are forgotten."""
    registries: list[dict[str, Any]] = [module.vocabularies, module.layer_kinds, module.layer_prefixes]
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)
    module.hyperparameter_named.cache_clear()


def drawn(space: LayerSpace, n: int = 80) -> list[tuple[Layer, ...]]:
    rng = np.random.default_rng(0)
    return [space.draw(rng) for _ in range(n)]


def test_every_form_of_a_network_is_the_inverse_of_the_others(space: LayerSpace) -> None:
    for network in drawn(space):
        space.check(network)
        assert space.decode(space.encode(network)) == network
        assert parse(describe(network)) == network
        assert space.from_params(space.to_params(network)) == network
        network_descriptor = space.network_descriptor(space.encode(network))
        assert (
            network_descriptor is not None
            and network_descriptor.shape == (NETWORK_DESCRIPTOR,)
            and np.isfinite(network_descriptor).all()
        )
        features = space.layer_features(space.encode(network))
        assert (features is not None) == (len(space.input_shape) == 3)  # they are defined for images
    kinds = {layer.kind for network in drawn(space) for layer in network}
    assert kinds == set(space.vocabulary.kind.values)


@pytest.mark.slow
def test_modules_do_what_the_shape_rule_and_the_costs_say(space: LayerSpace) -> None:
    for network in drawn(space, 40):
        shape: Shape = space.input_shape
        for layer in network:
            body = nn.Sequential(*layer.modules(shape)).eval()
            out = layer.output_shape(shape)
            assert out is not None and body(torch.zeros(2, *shape)).shape == (2, *out), str(layer)
            assert layer.parameters(shape) == count_parameters(body)
            assert layer.macs(shape) == count_macs(body, shape), str(layer)
            shape = out


def test_macs_of_an_lstm_by_hand() -> None:
    # Four gates of 8 units from 3 features and 8 states, 10 steps, both directions.
    assert parse("LSTM(8,2)")[0].macs((10, 3)) == 2 * 10 * 4 * 8 * (3 + 8)


def test_a_cap_on_macs_holds(space: LayerSpace) -> None:
    assert max(space.macs(network) for network in drawn(space)) <= 1e6
    with pytest.raises(ValueError, match=r"max_macs is 3; the cheapest first layer with a classifier takes"):
        LayerSpace(input_shape=space.input_shape, max_macs=3, vocabulary=space.vocabulary)


def test_a_residual_block_has_a_way_past_its_convolutions() -> None:
    (block,) = Residual(8, 3, 1).modules((8, 6, 6))
    block.eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    images = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(block(images), images)


def test_dropout_drops_its_share_and_by_its_own_seed() -> None:
    layer = SeededDropout(0.3)
    inputs = torch.ones(50, 40)
    assert layer.eval()(inputs) is inputs
    layer.train()
    before = torch.random.get_rng_state()
    outputs = []
    for seed in (1, 1, 2):
        seed_dropout(layer, seed)
        outputs.append(copy.deepcopy(layer)(inputs))
    assert outputs[0].equal(outputs[1]) and not outputs[0].equal(outputs[2])
    assert before.equal(torch.random.get_rng_state())
    assert (outputs[0] == 0).float().mean() == pytest.approx(0.3, abs=0.04)
    assert outputs[0].max() == pytest.approx(1 / 0.7)
    channels = SeededDropout(0.5, channels=True).train()(torch.ones(4, 8, 3, 3))
    assert ((channels == 0).all(dim=(2, 3)) | (channels == 2).all(dim=(2, 3))).all()


def test_the_networks_of_a_vocabulary_learn(space: LayerSpace) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(30, *space.input_shape)
    labels = torch.arange(30) % 2
    inputs[labels == 1] += 1
    network = build_network(drawn(space)[3], space.input_shape, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(inputs), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def value_of(network: tuple[Layer, ...]) -> float:
    """Better the more dropout there is, and the less deep it is."""
    return 0.6 + 0.1 * sum(layer.kind == "Dropout" for layer in network) - 0.02 * len(network)


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    [pytest.param(name, marks=[pytest.mark.slow] if name != "mlp" else []) for name in INPUTS],
    indirect=True,
)
def test_the_sampler_searches_any_vocabulary(space: LayerSpace) -> None:
    def objective(trial: optuna.Trial) -> float:
        for network in space.grow(trial):
            trial.report(value_of(network), step=len(network) - 1)
        return value_of(network)

    space.min_accuracy = space.min_improvement = None
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    study.optimize(objective, n_trials=40)
    by_chance = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    by_chance.optimize(objective, n_trials=40)
    last, all_by_chance = (
        [trial.values[0] for trial in trials] for trials in (study.trials[-8:], by_chance.trials)
    )
    assert np.mean(last) > np.mean(all_by_chance) + 0.05
    names = {name for trial in study.trials for name in trial.params if "kind" in name}
    assert all(f"_{space.vocabulary.name}_kind" in name for name in names)


def test_a_pickled_space_is_the_same_and_its_vocabulary_is_known_there(
    space: LayerSpace, forgetting: None
) -> None:
    data = pickle.dumps(space)
    module.vocabularies.pop(space.vocabulary.name)
    assert pickle.loads(data) == space
    assert module.vocabularies[space.vocabulary.name] == space.vocabulary
    assert pickle.loads(pickle.dumps(LayerSpace())).vocabulary == TABLE_I


# A kind of one's own


@dataclass(frozen=True)
class Squash(Layer):
    kind, prefix = "Squash", "squash"
    hyperparameters = (Hyperparameter("filters", (8, 16, 24)),)
    filters: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return (self.filters, *shape[1:]) if len(shape) == 3 else None

    def modules(self, shape: Shape) -> list[nn.Module]:
        return [nn.Conv2d(shape[0], self.filters, 1), nn.Tanh()]


@pytest.mark.slow
def test_one_class_is_a_kind_of_layer(forgetting: None) -> None:
    mine = Vocabulary("own", (*TABLE_I.kinds, Squash), first=(Conv, Squash))
    space = LayerSpace(input_shape=(3, 8, 8), max_macs=1e5, vocabulary=mine)
    network = parse("Squash(16) > Conv(8,3,1) > Squash(24) > FCL(16,relu,bias)")
    assert space.decode(space.encode(network)) == network
    assert space.macs(network) == count_macs(build_network(network, (3, 8, 8), 10), (3, 8, 8))
    assert space.to_params(network)["layer3_squash_filters"] == 24
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    for _ in range(12):
        trial = study.ask()
        layers = space.suggest(trial)
        study.tell(trial, sum(layer.kind == "Squash" for layer in layers))
    assert any("squash" in name for trial in study.trials for name in trial.params)


def test_a_class_that_is_defined_anew_takes_its_own_place(forgetting: None) -> None:
    def define() -> type[Layer]:
        @dataclass(frozen=True)
        class Mine(Squash):
            kind, prefix = "Mine", "mine"

        return Mine

    for _ in range(2):
        cls = define()
        Vocabulary("again", (Conv, cls), first=(Conv,))
        assert type(parse("Mine(8)")[0]) is cls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(name="Mine2"), "the name of the vocabulary is 'Mine2'; it must consist of letters from a to z"),
        (dict(name="mlp"), "a vocabulary named 'mlp' exists with other kinds: FCL, BatchNorm, Dropout"),
        (dict(first=()), "it must contain at least one kind, all from the vocabulary"),
        (dict(first=(FCL,)), "it must contain at least one kind, all from the vocabulary"),
        (
            dict(kind="Conv"),
            "Bad has kind 'Conv' and prefix 'bad', of which at least one is already used by Conv",
        ),
        (dict(prefix="conv"), "of which at least one is already used by Conv"),
        (dict(prefix="a_b"), "prefix must consist of letters from a to z"),
        (dict(kind="a b"), "kind must be one word"),
        (
            dict(hyperparameters=(Hyperparameter("kind", (1, 2)),)),
            "a hyper-parameter of Bad is named 'kind'; its name must consist of letters",
        ),
        (
            dict(hyperparameters=Squash.hyperparameters * 4),
            "Bad has 4 hyper-parameters; at most 3 are allowed",
        ),
        (
            dict(hyperparameters=(Hyperparameter("width", (8, 16)),)),
            r"Bad must be a dataclass, @dataclass\(frozen=True\), whose fields are .* in order: width$",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_a_vocabulary(forgetting: None, change: dict[str, Any], message: str) -> None:
    own = {"kind": "Bad", "prefix": "bad", "hyperparameters": Squash.hyperparameters}
    cls = type("Bad", (Squash,), {name: change.get(name, value) for name, value in own.items()})
    before = dict(module.layer_kinds)
    with pytest.raises(ValueError, match=message):
        Vocabulary(change.get("name", "bad"), (Conv, cls), first=change.get("first", (Conv,)))
    assert module.layer_kinds == before


class Bare(Layer):
    kind, prefix, hyperparameters = "Bare", "bare", ()


@dataclass
class Thawed(Layer):
    kind, prefix, hyperparameters = "Thawed", "thawed", Squash.hyperparameters
    filters: int


class Nameless(Layer):
    pass


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, r"Bare must be a dataclass, @dataclass\(frozen=True\), .* hyper-parameters in order: none$"),
        (Thawed, r"Thawed must be a dataclass, @dataclass\(frozen=True\), .* in order: filters$"),
        (Nameless, "Nameless has no kind; a kind of layer must define kind, prefix and hyperparameters"),
        (nn.Conv2d, "<class 'torch.nn.* is not a kind of layer; it must be a subclass of Layer"),
        ("Conv", "'Conv' is not a kind of layer"),
    ],
    ids=str,
)
def test_what_cannot_be_a_kind(forgetting: None, cls: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary("bad", (Conv, cls), first=(Conv,))
    assert "bad" not in module.vocabularies


def test_a_hyperparameter_may_have_one_value(forgetting: None) -> None:
    @dataclass(frozen=True)
    class One(Squash):
        kind, prefix, hyperparameters = "One", "one", (Hyperparameter("filters", (8,)),)

    space = LayerSpace(
        input_shape=(1, 8, 8), vocabulary=Vocabulary("single", (Conv, One), first=(Conv,)), min_accuracy=None
    )
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    for _ in range(12):
        trial = study.ask()
        layers = space.suggest(trial)
        assert space.from_params(trial.params) == layers == space.decode(space.encode(layers))
        study.tell(trial, sum(layer == One(8) for layer in layers))
    assert study.best_value > 0


@pytest.mark.parametrize(
    ("vocabulary", "shape", "message"),
    [
        (CNN, (20,), "it must be three positive integers"),
        (LSTM, (20,), "it must be two positive integers, (steps, features)"),
        (MLP, (20, 3), "it must be one positive integer in a tuple, (features,)"),
    ],
    ids=str,
)
def test_an_input_of_the_wrong_axes_is_named(vocabulary: Vocabulary, shape: Shape, message: str) -> None:
    with pytest.raises(ValueError, match="input_shape is") as caught:
        LayerSpace(input_shape=shape, vocabulary=vocabulary)
    assert message in str(caught.value)


def test_a_vocabulary_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="vocabulary is 'cnn'; it must be a Vocabulary, such as TABLE_I"):
        LayerSpace(vocabulary="cnn")  # type: ignore[arg-type]


def test_limits_that_exclude_one_another_are_named_where_networks_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = LayerSpace(max_parameters=30_000, max_layers=1)
    monkeypatch.setattr(LayerSpace, "fits", lambda *_: False)
    with pytest.raises(ValueError, match="none of 1,000 random networks was within all limits of LayerSpace"):
        space.draw(np.random.default_rng(0))


# Labelled values under limits


@dataclass(frozen=True)
class Wide(Layer):
    """Its cost, and with its padding whether it stands at all, hang on labelled values."""

    kind, prefix = "Wide", "wide"
    hyperparameters = (
        Hyperparameter("width", (4, 8, 128), ("4x", "8x", "broad")),
        Hyperparameter("padding", ("valid", "same"), ("valid", "same")),
    )
    width: int
    padding: str

    def output_shape(self, shape: Shape) -> Shape | None:
        less = 0 if self.padding == "same" else 2
        if len(shape) != 3 or min(shape[1:]) <= less:
            return None
        return (self.width, *(size - less for size in shape[1:]))

    def modules(self, shape: Shape) -> list[nn.Module]:
        return [nn.Conv2d(shape[0], self.width, 3, padding=self.padding)]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, TRLHPOSampler])
def test_limits_hold_where_a_labelled_value_decides(sampler: Any, forgetting: None) -> None:
    mine = Vocabulary("labelled", (Conv, Wide), first=(Conv, Wide))
    limits: dict[str, Any] = dict(max_macs=30_000, max_activation_bytes=4_000)
    space = LayerSpace(input_shape=(1, 8, 8), vocabulary=mine, min_accuracy=None, **limits)
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        for layers in space.grow(trial):
            assert space.macs(layers) <= 30_000 and space.activation_bytes(layers) <= 4_000
            trial.report(value := 0.5 + 0.05 * len(layers), step=len(layers) - 1)
            trial.set_user_attr("layers", describe(layers))
        return value

    study.optimize(objective, n_trials=30)
    masks = {name.partition("_of_")[2] for trial in study.trials for name in trial.params if "wide" in name}
    assert {"4x_8x", "same"} <= masks
    for trial in study.trials:
        layers = parse(trial.user_attrs["layers"])
        grown = network_in(trial.params)
        assert grown[: len(layers)] == layers and space.from_params(trial.params) == grown
        assert [len(step) for step in steps_of(list(trial.params), [])] == [
            1 + len(layer.hyperparameters) for layer in grown
        ]
    params = space.to_params(parse("Wide(8x,same)"))
    assert params["layer1_wide_width_of_4x_8x"] == 8
    with pytest.raises(ValueError, match="width 128 is not allowed there .4x, 8x.$"):
        space.check(parse("Wide(broad,same)"))


def test_a_bias_that_does_not_fit_is_masked() -> None:
    space = LayerSpace(input_shape=(1, 8, 8), max_layers=2, max_parameters=80 + (72 * 36 // 9) * 16 + 170)
    network = parse("Conv(8,3,1) > FCL(16,relu,nobias)")
    assert space.parameters(network) == space.max_parameters
    assert space.to_params(network)["layer2_fcl_bias_of_nobias"] is False
    assert space.decode(space.encode(parse("Conv(8,3,1) > FCL(16,relu,bias)"))) == network
    assert "layer2_fcl_bias" in space.to_params(parse("Conv(8,3,2) > FCL(16,relu,bias)"))


@pytest.mark.parametrize("limit", ["max_macs", "max_parameters", "max_activation_bytes"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_last_guard_lets_no_network_beyond_a_limit_pass(
    limit: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fits_without_limits(cls: type[Layer], position: Position) -> np.ndarray:
        inf = math.inf
        free = position._replace(macs_left=inf, sizes_left=(), activations=inf)
        return fitting(cls, free)  # type: ignore[arg-type]  # a class is hashable

    monkeypatch.setattr("optuna_trlhpo.space.limits.fitting", fits_without_limits)
    # What is allowed so must not be remembered for others.
    monkeypatch.setattr("optuna_trlhpo.space.grammar.allowed_values", allowed_values.__wrapped__)
    space = LayerSpace(input_shape=(1, 8, 8), max_layers=1, **{limit: 1})  # type: ignore[arg-type]
    network = parse("Conv(8,3,1)")
    units = {"max_macs": "MACs", "max_parameters": "parameters", "max_activation_bytes": "bytes of activat"}
    with pytest.raises(ValueError, match=rf"has [\d,]+ {units[limit]}.*; at most 1 are allowed"):
        space.check(network)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned, match=rf"has [\d,]+ {units[limit]}.* too many, and cannot grow"):
        _ = space.suggest(trial) if whole else list(space.grow(trial))
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert study.trials[0].constraints[limit] > 0


# What a limit of parameters leaves room for


@dataclass(frozen=True)
class FewConv(Conv):
    kind, prefix = "FewConv", "fewconv"
    hyperparameters = (
        Hyperparameter("filters", (8, 16)),
        Hyperparameter("kernel", (3,)),
        Hyperparameter("stride", (1, 3)),
    )


@dataclass(frozen=True)
class FewPool(MaxPool):
    kind, prefix = "FewPool", "fewpool"
    hyperparameters = (
        Hyperparameter("kernel", (2, 8)),
        Hyperparameter("stride", (1, 3)),
        Hyperparameter("padding", (0,)),
    )


@dataclass(frozen=True)
class FewFCL(FCL):
    kind, prefix = "FewFCL", "fewfcl"
    hyperparameters = (
        Hyperparameter("neurons", (16, 24)),
        Hyperparameter("activation", ("none",), ("none",)),
        Hyperparameter("bias", (False, True), ("nobias", "bias")),
    )


def every_network(kinds: tuple[type[Layer], ...], shape: Shape, depth: int) -> Iterator[tuple[Layer, ...]]:
    """All up to some depth, that of no layer too, by nothing but the shape rules."""
    yield ()
    for layer in every_layer(kinds) if depth else ():
        if (out := layer.output_shape(shape)) is not None:
            for rest in every_network(kinds, out, depth - 1):
                yield (layer, *rest)


def suggested(space: LayerSpace, layers: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, ...]]:
    """Whatever may be suggested."""
    for cls in space.kinds(layers):
        chosen: list[tuple[Any, ...]] = [()]
        for _ in cls.hyperparameters:
            chosen = [(*c, value) for c in chosen for value in space.allowed(layers, cls, *c)]
        for values in chosen:
            yield (*layers, cls(*values))
            yield from suggested(space, (*layers, cls(*values)))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_all_that_can_come_within_max_parameters_is_suggested_and_nothing_else(
    depth: int, forgetting: None
) -> None:
    few = Vocabulary("few", (FewConv, FewPool, FewFCL), first=(FewConv,))
    shape = (3, 26, 26)
    unlimited = LayerSpace(input_shape=shape, max_layers=depth, vocabulary=few)
    networks = [it for it in every_network(few.kinds, shape, depth) if it and isinstance(it[0], FewConv)]
    parameters = {network: unlimited.parameters(network) for network in networks}
    least = min(parameters.values())
    with pytest.raises(
        ValueError,
        match=f"^max_parameters is {least - 1:,}; the .* of this space takes {least:,} parameters$",
    ):
        LayerSpace(input_shape=shape, max_layers=depth, vocabulary=few, max_parameters=least - 1)
    for limit in (least, 2 * least, least + 3_000):
        space = LayerSpace(input_shape=shape, max_layers=depth, vocabulary=few, max_parameters=limit)
        within = [network for network in networks if parameters[network] <= limit]
        assert set(suggested(space)) == {it[:k] for it in within for k in range(1, len(it) + 1)}
        rng = np.random.default_rng(0)
        assert all(space.draw(rng) in within for _ in range(20))


@pytest.mark.slow
def test_parameters_are_looked_ahead_for_more_than_one_layer() -> None:
    network = parse("Conv(8,3,3) > MaxPool(8,3,0) > MaxPool(8,3,0)")
    space = LayerSpace(input_shape=(3, 96, 96), max_parameters=314)
    assert space.parameters(network) == 314
    assert space.from_params(space.to_params(network)) == network
    with pytest.raises(ValueError, match="the cheapest network of this space takes 314 parameters"):
        LayerSpace(input_shape=(3, 96, 96), max_parameters=313)


def test_macs_are_limited_from_the_first_layer_on() -> None:
    assert (
        LayerSpace().macs(parse("Conv(8,3,3) > MaxPool(8,3,0)"))
        < 9_000
        < LayerSpace().macs(parse("Conv(8,3,3)"))
    )
    with pytest.raises(
        ValueError, match="is 9,000; the cheapest first layer with a classifier takes 12,312 MACs"
    ):
        LayerSpace(max_macs=9_000)
