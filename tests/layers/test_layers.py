"""Layers: Table I, shapes and costs by hand and by PyTorch, and how they are written."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from optuna_trlhpo.layers import (
    FCL,
    TABLE_I,
    Conv,
    Hyperparameter,
    Layer,
    MaxPool,
    describe,
    hyperparameter_of,
    network_in,
    parse,
    vocabulary_named,
)


def torch_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """What PyTorch makes of ``shape``; None where it refuses."""
    module: nn.Module
    if isinstance(layer, Conv):
        module = nn.Conv2d(shape[0], layer.filters, layer.kernel, layer.stride, device="meta")
    else:
        assert isinstance(layer, MaxPool)
        module = nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
    try:
        return tuple(module(torch.empty(1, *shape, device="meta")).shape[1:])
    except RuntimeError:
        return None


# Table I ----------------------------------------------------------------------------------------------

WHOLE_TABLE: dict[tuple[type[Layer], str], list[Any]] = {
    (Conv, "filters"): [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128],
    (Conv, "kernel"): [3, 5, 7],
    (Conv, "stride"): [1, 2, 3],
    (MaxPool, "kernel"): [2, 3, 4, 5, 6, 7, 8],
    (MaxPool, "stride"): [1, 2, 3],
    (MaxPool, "padding"): [0, 1, 2, 3],
    (FCL, "neurons"): [16 + 8 * i for i in range(63)],
    (FCL, "activation"): ["none", "relu", "leakyrelu", "tanh", "sigmoid", "elu", "gelu"],
    (FCL, "bias"): [False, True],
}


def hyperparameter(cls: type[Layer], name: str) -> Hyperparameter:
    return next(hp for hp in cls.hyperparameters if hp.name == name)


def test_table_i_has_these_hyperparameters_and_no_others() -> None:
    assert [(cls, hp.name) for cls in TABLE_I.kinds for hp in cls.hyperparameters] == list(WHOLE_TABLE)
    assert [cls.kind for cls in TABLE_I.kinds] == ["Conv", "MaxPool", "FCL"]
    assert WHOLE_TABLE[FCL, "neurons"][-1] == 512


@pytest.mark.parametrize(("cls", "name"), WHOLE_TABLE, ids=lambda x: x if isinstance(x, str) else x.kind)
def test_every_value_is_reached_from_a_bin_of_equal_width(cls: type[Layer], name: str) -> None:
    hp, values = hyperparameter(cls, name), WHOLE_TABLE[cls, name]
    assert list(hp.values) == values
    n = 100 * len(values)
    decoded = [hp.decode((i + 0.5) / n) for i in range(n)]
    assert decoded == [value for value in values for _ in range(100)]  # in order, 1 / len(values) each
    assert (hp.decode(0.0), hp.decode(1.0)) == (values[0], values[-1])
    assert [hp.decode(hp.encode(value)) for value in values] == values
    assert hp.encode(values[0]) == pytest.approx(0.5 / len(values))
    assert hp.encode(values[-1]) == pytest.approx(1 - 0.5 / len(values))


@pytest.mark.parametrize(("cls", "name"), WHOLE_TABLE, ids=lambda x: x if isinstance(x, str) else x.kind)
def test_text_of_every_value(cls: type[Layer], name: str) -> None:
    hp = hyperparameter(cls, name)
    texts = [hp.write(value) for value in hp.values]
    assert [hp.read(text) for text in texts] == list(hp.values)
    assert len(set(texts)) == len(texts)


def test_nearest_takes_the_closest_that_is_allowed() -> None:
    hp = Hyperparameter("kernel", (2, 3, 4, 5, 6, 7, 8))
    assert hp.nearest(1.0, [2, 3, 4]) == 4
    assert hp.nearest(0.0, [5, 6]) == 5
    assert hp.nearest(hp.encode(3), [2, 3, 4]) == 3


# Shapes and costs by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "before", "after", "macs"),
    [
        # (28 - 5) / 1 + 1 = 24; each of 32 * 24 * 24 outputs takes 1 * 5 * 5 products
        (Conv(32, 5, 1), (1, 28, 28), (32, 24, 24), 460_800),
        # (10 - 3) // 2 + 1 = 4, (7 - 3) // 2 + 1 = 3
        (Conv(8, 3, 2), (16, 10, 7), (8, 4, 3), 8 * 4 * 3 * 16 * 9),
        (Conv(128, 7, 3), (3, 7, 7), (128, 1, 1), 128 * 3 * 49),
        (Conv(8, 5, 1), (1, 4, 9), None, None),
        (Conv(8, 3, 1), (64,), None, None),
        (MaxPool(2, 2, 0), (32, 24, 24), (32, 12, 12), 0),
        (MaxPool(3, 2, 1), (4, 5, 9), (4, 3, 5), 0),  # (5 + 2 - 3) // 2 + 1 = 3, (9 + 2 - 3) // 2 + 1 = 5
        (MaxPool(8, 1, 3), (4, 2, 2), (4, 1, 1), 0),
        (MaxPool(3, 1, 2), (4, 9, 9), None, None),  # padding 2 is more than half of 3
        (MaxPool(8, 1, 0), (4, 7, 9), None, None),
        (MaxPool(2, 1, 1), (4, 1, 9), None, None),  # a single pixel
        (MaxPool(2, 2, 0), (64,), None, None),
        (FCL(128, "relu", True), (32, 12, 12), (128,), 32 * 144 * 128),
        (FCL(16, "none", False), (128,), (16,), 2048),
    ],
    ids=str,
)
def test_shape_and_macs(
    layer: Layer, before: tuple[int, ...], after: tuple[int, ...] | None, macs: int | None
) -> None:
    assert layer.output_shape(before) == after
    if macs is not None:
        assert layer.macs(before) == macs


ANY_LAYER = st.sampled_from([Conv, MaxPool]).flatmap(
    lambda cls: st.builds(cls, *(st.sampled_from(hp.values) for hp in cls.hyperparameters))
)


@pytest.mark.slow
@given(layer=ANY_LAYER, shape=st.tuples(st.integers(1, 16), st.integers(1, 20), st.integers(1, 20)))
def test_the_shape_rule_is_that_of_pytorch(layer: Layer, shape: tuple[int, int, int]) -> None:
    ours = layer.output_shape(shape)
    if isinstance(layer, MaxPool) and min(shape[1:]) == 1:
        assert ours is None  # ours alone: on a single pixel pooling could only copy or pad
    else:
        assert ours == torch_shape(layer, shape)


# Parameters and hyper-parameters ----------------------------------------------------------------------


def test_hyperparameter_of() -> None:
    kinds = CategoricalDistribution(["Conv", "MaxPool", "FCL"])
    masked = CategoricalDistribution(["FCL"])
    only = hyperparameter_of("layer1_kind", CategoricalDistribution(["Conv"]))
    assert only is not None and only.values == kinds.choices
    assert hyperparameter_of("layer2_kind", kinds) is hyperparameter_of("layer3_kind_of_fcl", masked)
    for cls, name in WHOLE_TABLE:
        hp = hyperparameter(cls, name)
        if hp.labels:
            distribution: Any = CategoricalDistribution(list(hp.values))
        else:
            distribution = IntDistribution(hp.values[0], hp.values[-1], step=hp.values[1] - hp.values[0])
        assert hyperparameter_of(f"layer12_{cls.prefix}_{name}", distribution) is hp
        assert hyperparameter_of(f"layer0_{cls.prefix}_{name}", distribution) is None
        assert hyperparameter_of(f"{cls.prefix}_{name}", distribution) is None
        assert hyperparameter_of(f"layer1_{cls.prefix}_{name}_x", distribution) is None


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("layer1_conv_filters", IntDistribution(8, 256, step=8)),
        ("layer1_conv_filters", IntDistribution(8, 128, log=True)),
        ("layer1_conv_filters", FloatDistribution(8, 128)),
        ("layer1_conv_kernel", IntDistribution(2, 7)),
        ("layer1_conv_colour", IntDistribution(3, 7, step=2)),
        ("layer1_rnn_kernel", IntDistribution(3, 7, step=2)),
        ("layer1_kind", CategoricalDistribution(["Conv", "LSTM"])),
        ("layer1_fcl_activation", CategoricalDistribution(["relu", "swish"])),
        ("layer1_conv_kernel", IntDistribution(3, 7)),  # 4 is no kernel of Table I
        ("layer1_fcl_neurons", IntDistribution(16, 512)),
    ],
)
def test_a_parameter_that_merely_has_such_a_name(name: str, distribution: Any) -> None:
    assert hyperparameter_of(name, distribution) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "Dense(10)",
            r"^'Dense\(10\)' is not a layer; it must be one of Conv\(filters,kernel,stride\), MaxPool\(",
        ),
        ("Conv", "^'Conv' is not a layer; it must be one of"),
        ("conv(8,3,1)", "is not a layer"),
        ("Conv(8,3)", r"^'Conv\(8,3\)' has 2 values; it must have the form Conv\(filters,kernel,stride\)$"),
        ("Conv(8,3,1,0)", "has 4 values"),
        ("Conv(8,4,1)", r"^in 'Conv\(8,4,1\)', kernel '4' is not one of 3, 5, 7$"),
        ("Conv(9,3,1)", r"^in 'Conv\(9,3,1\)', filters '9' is not one of 8, 16, \.\.\., 128$"),
        (
            "Conv(8,3,1) > FCL(20,relu,bias)",
            r"^in 'FCL\(20,relu,bias\)', neurons '20' is not one of 16, 24, \.\.\., 512$",
        ),
        (
            "FCL(16,swish,bias)",
            "activation 'swish' is not one of none, relu, leakyrelu, tanh, sigmoid, elu, gelu$",
        ),
        ("FCL(16,relu,True)", "bias 'True' is not one of nobias, bias$"),
        ("Conv(8,3,1) MaxPool(2,2,0)", "is not|has"),
    ],
)
def test_a_parse_error_names_the_layer_and_what_is_allowed(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(text)


# The layers that parameters tell of -------------------------------------------------------------------


def test_layers_are_read_whatever_the_mask_and_the_vocabulary() -> None:
    params = {
        "lr": 0.1,
        "layer1_cnn_kind": "Conv",
        "layer1_conv_filters": 8,
        "layer1_conv_kernel": 3,
        "layer1_conv_stride": 1,
        "layer2_kind_of_pool_fcl": "FCL",
        "layer2_fcl_neurons": 16,
        "layer2_fcl_activation": "relu",
        "layer2_fcl_bias": True,
    }
    assert network_in(params) == parse("Conv(8,3,1) > FCL(16,relu,bias)")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"x": 1},
        {"layer1_kind": "Conv", "layer1_conv_filters": 8},  # half asked for
        {"layer1_kind": "Unheard"},
        {"layer1_kind": 3},
        {"layer2_kind": "FCL", "layer2_fcl_neurons": 16},
    ],
)
def test_what_is_no_layer_is_none(params: dict[str, Any]) -> None:
    assert network_in(params) == ()


def test_vocabularies_by_their_names() -> None:
    assert pickle.loads(pickle.dumps(TABLE_I)) == TABLE_I
    assert vocabulary_named("") is TABLE_I
    with pytest.raises(ValueError, match="unknown vocabulary 'unheard'; import the module that defines it"):
        vocabulary_named("unheard")


@pytest.mark.parametrize(
    "values", [(8, 16, 64), (0.1, 0.2, 0.3), (7, 5, 3), (3, 3), (False, True), ("a", "b")]
)
def test_values_without_labels_ascend_in_equal_steps(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        Hyperparameter("width", values)
    assert str(caught.value) == (
        f"the values of width are {values}; without labels they must be integers in ascending order and "
        "with equal steps"
    )


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c"), ("a", "a"), ("a", "b,c"), ("a", ""), ("a", 2)])
def test_labels_tell_values_apart(labels: tuple[Any, ...]) -> None:
    with pytest.raises(
        ValueError, match="the labels of width are .*; they must be 2 different strings, one for"
    ):
        Hyperparameter("width", (0.1, 0.5), labels)


def test_a_hyperparameter_has_values() -> None:
    with pytest.raises(ValueError, match="width has no values; it must have at least one"):
        Hyperparameter("width", ())


@pytest.mark.parametrize(
    ("changed", "depth"),
    [
        ({"layer2_fcl_activation": "swish"}, 1),
        ({"layer2_fcl_neurons": 17}, 1),
        ({"layer2_fcl_neurons": "16"}, 1),
        ({"layer2_fcl_bias": None}, 1),
        ({"layer1_conv_filters": 8.5}, 0),
        ({"layer1_kind": "Conv3D"}, 0),
        ({f"layer{'9' * 5000}_kind": "Conv"}, 2),
        ({"layer1_conv_filters": 8.0}, 2),
    ],
    ids=lambda it: repr(it)[:40],
)
def test_parameters_that_somebody_else_calls_layers(changed: dict[str, object], depth: int) -> None:
    """They are drawn, counted and written like others; what is no layer is passed over."""
    whole = parse("Conv(8,3,1) > FCL(16,relu,bias)")
    params: dict[str, object] = {
        **{"layer1_kind": "Conv", "layer1_conv_filters": 8, "layer1_conv_kernel": 3, "layer1_conv_stride": 1},
        **{"layer2_kind": "FCL", "layer2_fcl_neurons": 16, "layer2_fcl_activation": "relu"},
        "layer2_fcl_bias": True,
    }
    network = network_in(params | changed)
    assert network == whole[:depth] and describe(network) == describe(whole[:depth])
