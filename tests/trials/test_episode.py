"""A trial as steps: values <-> actions, where a step ends, and what was reported when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from optuna_trlhpo.layers import parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.episode import continues_step, episode_of, read_episode, read_request
from optuna_trlhpo.trials.parameters import ParameterSpec, decode, encode, parameter_spec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES, report_performance

ACTION = st.floats(0, 1)


def finished(params: dict[str, Any], distributions: dict[str, BaseDistribution], **more: Any) -> FrozenTrial:
    return optuna.create_trial(params=params, distributions=distributions, value=0.5, **more)


def integers(*names: str) -> FrozenTrial:
    return finished({name: 1 for name in names}, {name: IntDistribution(0, 3) for name in names})


# Values and actions -----------------------------------------------------------------------------------


@st.composite
def int_distributions(draw: st.DrawFn) -> IntDistribution:
    if draw(st.booleans()):
        low = draw(st.integers(1, 1_000))
        return IntDistribution(low, low + draw(st.integers(0, 300)), log=True)
    low = draw(st.integers(-1_000, 1_000))
    step = draw(st.integers(1, 20))
    return IntDistribution(low, low + draw(st.integers(0, 60)) * step, step=step)


@st.composite
def float_distributions(draw: st.DrawFn) -> FloatDistribution:
    how = draw(st.sampled_from(["linear", "log", "step"]))
    if how == "log":
        low = draw(st.floats(1e-9, 1e3))
        return FloatDistribution(low, low * draw(st.floats(1.001, 1e6)), log=True)
    low = draw(st.floats(-1e6, 1e6))
    high = low + draw(st.floats(0, 1e6))
    if how == "step":
        step = draw(st.sampled_from([0.1, 0.25, 0.3, 1.0, 1e-3]))
        low = round(low / 1e4, 3)
        return FloatDistribution(low, round(low + draw(st.integers(1, 200)) * step, 3), step=step)
    return FloatDistribution(low, high)


CHOICES = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.text(max_size=3)),
    min_size=1,
    max_size=12,
    unique_by=lambda x: (type(x), x),
)


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


@given(distribution=int_distributions())
def test_every_integer_is_reached_and_comes_back(distribution: IntDistribution) -> None:
    values = range(distribution.low, distribution.high + 1, distribution.step)
    actions = [encode("x", distribution, value) for value in values]
    assert all(0 <= action <= 1 for action in actions) and actions == sorted(set(actions))
    decoded = [decode("x", distribution, action) for action in actions]
    assert decoded == list(values) and all(type(value) is int for value in decoded)
    assert (decode("x", distribution, 0.0), decode("x", distribution, 1.0)) == (values[0], values[-1])


def test_integers_have_equal_bins() -> None:
    distribution = IntDistribution(10, 50, step=10)
    found = [decode("x", distribution, (i + 0.5) / 500) for i in range(500)]
    assert found == [value for value in (10, 20, 30, 40, 50) for _ in range(100)]
    assert encode("x", distribution, 20) == pytest.approx(0.3)


def test_integers_on_a_log_scale() -> None:
    distribution = IntDistribution(1, 100, log=True)
    # Each integer owns the stretch between its halves: 10 from log(9.5 / 0.5) to log(10.5 / 0.5) of log(201).
    low, high = math.log(19) / math.log(201), math.log(21) / math.log(201)
    assert decode("x", distribution, low + 1e-9) == 10 == decode("x", distribution, high - 1e-9)
    assert (decode("x", distribution, low - 1e-9), decode("x", distribution, high + 1e-9)) == (9, 11)
    assert encode("x", distribution, 10) == pytest.approx(math.log(20) / math.log(201))


@given(distribution=float_distributions(), action=ACTION)
def test_floats_come_back(distribution: FloatDistribution, action: float) -> None:
    value = decode("x", distribution, action)
    assert isinstance(value, float)
    ends = decode("x", distribution, 0.0), decode("x", distribution, 1.0)
    assert ends == pytest.approx((distribution.low, distribution.high))
    assert distribution.low <= value <= distribution.high
    assert distribution._contains(distribution.to_internal_repr(value))  # on the grid, where there is one
    again = encode("x", distribution, value)
    assert 0 <= again <= 1
    span = distribution.high - distribution.low
    if distribution.step is not None:
        assert decode("x", distribution, again) == value
        assert abs(again - action) <= distribution.step / span
    elif distribution.low < distribution.high:
        assume(span > 1e-6 * abs(distribution.low))
        assert again == pytest.approx(action, abs=1e-6)
        assert decode("x", distribution, again) == pytest.approx(value)


def test_floats_by_hand() -> None:
    assert decode("x", FloatDistribution(-1, 3), 0.25) == 0.0
    assert encode("x", FloatDistribution(-1, 3), 2.0) == 0.75
    assert decode("x", FloatDistribution(1e-4, 1.0, log=True), 0.5) == pytest.approx(1e-2)
    assert encode("x", FloatDistribution(1e-4, 1.0, log=True), 0.1) == pytest.approx(0.75)
    stepped = FloatDistribution(0.0, 1.0, step=0.25)
    assert [decode("x", stepped, a) for a in (0.0, 0.19, 0.21, 0.5, 0.79, 0.81, 1.0)] == [
        0.0,
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
    ]
    assert encode("x", stepped, 0.75) == pytest.approx(0.7)
    tenths = FloatDistribution(0.0, 0.3, step=0.1)  # 0.3 / 0.1 is a little less than 3
    assert [decode("x", tenths, a) for a in (0.1, 0.3, 0.6, 0.8)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert encode("x", FloatDistribution(0.5, 0.5), 0.5) == 0.5
    assert decode("x", FloatDistribution(0.5, 0.5), 0.9) == 0.5
    assert encode("x", IntDistribution(7, 7), 7) == 0.5 and decode("x", IntDistribution(7, 7), 0.1) == 7


@given(choices=CHOICES)
def test_every_choice_is_reached_and_comes_back(choices: list[Any]) -> None:
    """Optuna tells choices apart by ==, so True and 1 are one choice to it: there the first comes back."""
    distribution = CategoricalDistribution(choices)
    for i, choice in enumerate(choices):
        assert same(decode("x", distribution, (i + 0.5) / len(choices)), choice)
        assert decode("x", distribution, encode("x", distribution, choice)) == choice
    distinct = [c for i, c in enumerate(choices) if c not in choices[:i]]
    for choice in distinct:
        assert same(decode("x", distribution, encode("x", distribution, choice)), choice)


def test_choices_of_mixed_kinds() -> None:
    distribution = CategoricalDistribution([None, True, "adam", 3, 2.5])
    actions = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert [decode("opt", distribution, a) for a in actions] == [None, True, "adam", 3, 2.5]
    assert [encode("opt", distribution, c) for c in distribution.choices] == pytest.approx(actions)
    assert decode("opt", distribution, 1.0) == 2.5


@given(distribution=st.one_of(int_distributions(), float_distributions()), action=ACTION)
def test_any_action_is_a_value_of_the_distribution(distribution: Any, action: float) -> None:
    assert distribution._contains(distribution.to_internal_repr(decode("x", distribution, action)))
    numpys: Any = np.float32(action)
    assert same(decode("x", distribution, numpys), decode("x", distribution, float(numpys)))


# Names of a LayerSpace --------------------------------------------------------------------------------


def test_masked_ranges_are_encoded_on_the_scale_of_the_whole() -> None:
    whole, masked = IntDistribution(3, 7, step=2), IntDistribution(3, 5, step=2)
    assert encode("layer2_conv_kernel", whole, 5) == encode("layer4_conv_kernel", masked, 5) == 0.5
    assert decode("layer2_conv_kernel", masked, 1.0) == 5
    assert decode("layer2_conv_kernel", whole, 1.0) == 7
    assert encode("kernel", masked, 5) == 0.75  # another name: its own scale
    kinds = CategoricalDistribution(["MaxPool", "FCL"])
    assert encode("layer3_kind_of_pool_fcl", kinds, "FCL") == pytest.approx(2.5 / 3)
    assert decode("layer3_kind_of_pool_fcl", kinds, 0.0) == "MaxPool"
    assert decode("layer3_kind_of_pool_fcl", kinds, 0.5) == "MaxPool"
    assert decode("layer3_kind_of_pool_fcl", kinds, 0.9) == "FCL"
    activations = CategoricalDistribution(["none", "relu", "leakyrelu", "tanh", "sigmoid", "elu", "gelu"])
    assert decode("layer3_fcl_activation", activations, 0.99) == "gelu"
    padding = IntDistribution(2, 3)
    assert [decode("layer2_pool_padding", padding, a) for a in (0.0, 0.6, 0.9)] == [2, 2, 3]


@given(action=ACTION, low=st.integers(0, 62), n=st.integers(0, 62))
def test_masked_ranges_are_kept(action: float, low: int, n: int) -> None:
    high = min(low + n, 62)
    distribution = IntDistribution(16 + 8 * low, 16 + 8 * high, step=8)
    value: Any = decode("layer3_fcl_neurons", distribution, action)
    assert distribution._contains(value)
    wanted = min(int(action * 63), 62)
    assert value == 16 + 8 * min(max(wanted, low), high)


def test_a_network_has_the_same_actions_as_its_space_gives_it() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    layers = parse("Conv(8,3,2) > MaxPool(2,1,0) > FCL(16,gelu,bias) > FCL(24,none,nobias)")
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"n_layers": 4} | space.to_params(layers))
    trial = study.ask()
    space.suggest(trial)
    study.tell(trial, 0.5)
    episode = read_episode(study.trials[0], marks=[])
    assert len(episode) == 5  # the depth is a step of its own
    np.testing.assert_allclose(episode.actions[1:], space.encode(layers))
    assert [slots[0].base_name for slots in episode.slots] == [
        "n_layers",
        *["layer_kind"] * 4,  # masked or not: the same question
    ]


SPACES = [
    LayerSpace(max_layers=4),
    LayerSpace(input_shape=(1, 8, 8)),  # soon too small for convolutions: sets of kinds are masked
    LayerSpace(input_shape=(3, 12, 10), max_macs=90_000, narrowing=True, max_layers=8),
]


@pytest.mark.parametrize("whole", [False, True], ids=["grow", "suggest"])
@pytest.mark.parametrize("space", SPACES, ids=["roomy", "small", "capped"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_layers_as_an_episode_are_those_of_a_trial_that_grows_them(
    space: LayerSpace, whole: bool, seed: int
) -> None:
    layers = space.draw(np.random.default_rng(seed))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.to_params(layers) | ({"n_layers": len(layers)} if whole else {}))
    trial, marks = study.ask(), []
    if whole:
        assert space.suggest(trial) == layers
    else:
        rules = dict(min_accuracy=None, min_improvement=None, train_prefixes="all")
        for grown in LayerSpace(**vars(space) | rules).grow(trial):
            trial.report(0.1 * len(grown), step=len(grown) - 1)
            if len(grown) == len(layers):
                break
            marks.append((len(trial.params), len(grown) - 1))
    study.tell(trial, 0.1 * len(layers))
    played = read_episode(study.trials[0], marks)
    rebuilt = episode_of(space.encode(layers), space.max_layers if whole else None)
    assert rebuilt.slots == played.slots
    np.testing.assert_allclose(rebuilt.actions, played.actions)
    np.testing.assert_array_equal(rebuilt.performance, played.performance)
    assert np.isnan(rebuilt.reports).all() and rebuilt.last_reported == -1
    assert len(rebuilt.reports) == len(rebuilt)


@pytest.mark.parametrize(
    ("name", "low", "high", "step"),
    [
        ("layer1_conv_kernel", 3, 7, 1),
        ("layer1_conv_filters", 8, 128, 1),
        ("layer1_fcl_neurons", 16, 512, 1),
        ("layer1_fcl_neurons", 16, 512, 16),  # all of them are of Table I, and not all of Table I is there
    ],
)
def test_a_users_own_parameter_of_such_a_name(name: str, low: int, high: int, step: int) -> None:
    distribution = IntDistribution(low, high, step=step)
    for action in np.linspace(0, 1, 50):
        decoded: Any = decode(name, distribution, action)
        assert distribution._contains(decoded)
    for value in range(low, high + 1, step):
        assert decode(name, distribution, encode(name, distribution, value)) == value


# Slots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "distribution", "slot"),
    [
        ("n_units_l0", IntDistribution(4, 128), ParameterSpec("n_units_l\0", 0, 125, False)),
        ("n_units_l12", IntDistribution(0, 100, step=25), ParameterSpec("n_units_l\0", 12, 5, False)),
        ("lr", FloatDistribution(1e-5, 1, log=True), ParameterSpec("lr", 0, 0, False)),
        ("seed", IntDistribution(1, 1_000_000), ParameterSpec("seed", 0, 1_000_000, False)),
        ("seed", IntDistribution(0, 1_000_000), ParameterSpec("seed", 0, 1_000_001, False)),
        ("seed", IntDistribution(0, 10**12), ParameterSpec("seed", 0, 0, False)),  # too many to tell apart
        ("units", IntDistribution(1, 9, log=True), ParameterSpec("units", 0, 0, False, (1, 9))),
        ("dropout", FloatDistribution(0, 0.5, step=0.1), ParameterSpec("dropout", 0, 6, False)),
        ("dropout", FloatDistribution(0, 0.5), ParameterSpec("dropout", 0, 0, False)),
        ("opt", CategoricalDistribution(["a", None]), ParameterSpec("opt", 0, 2, True)),
        # The last four numbers of a name are places, in groups of three digits; the others are part of it.
        ("l1_conv2", FloatDistribution(0, 1), ParameterSpec("l\0_conv\0", 1_002, 0, False)),
        ("a1b2c3d4e5", FloatDistribution(0, 1), ParameterSpec("a1b\0c\0d\0e\0", 2_003_004_005, 0, False)),
        ("run2024", FloatDistribution(0, 1), ParameterSpec("run\0", 2024, 0, False)),
        ("x01", FloatDistribution(0, 1), ParameterSpec("x01", 0, 0, False)),
        ("fraction_of_1", FloatDistribution(0, 1), ParameterSpec("fraction_of_\0", 1, 0, False)),
        ("p1000", FloatDistribution(0, 1), ParameterSpec("p\0", 1000, 0, False)),
        ("1x", FloatDistribution(0, 1), ParameterSpec("\0x", 1, 0, False)),
        ("x" + 5000 * "9", FloatDistribution(0, 1), ParameterSpec("x" + 5000 * "9", 0, 0, False)),
        # On the scale of Table I, whatever is masked.
        (
            "layer2_conv_kernel",
            IntDistribution(3, 5, step=2),
            ParameterSpec("layer_conv_kernel", 2, 3, False),
        ),
        ("layer2_kind_of_fcl", CategoricalDistribution(["FCL"]), ParameterSpec("layer_kind", 2, 3, True)),
        (
            "layer2_kind_of_fcl",
            CategoricalDistribution(["FCL", "GRU"]),
            ParameterSpec("layer\0_kind_of_fcl", 2, 2, True),
        ),
        (
            "layer2_fcl_bias",
            CategoricalDistribution([False, True]),
            ParameterSpec("layer_fcl_bias", 2, 2, True),
        ),
    ],
    ids=str,
)
def test_slot(name: str, distribution: BaseDistribution, slot: ParameterSpec) -> None:
    assert parameter_spec(name, distribution) == slot


@pytest.mark.parametrize(
    ("distribution", "action", "settled"),
    [
        (IntDistribution(1, 4), 0.3, 0.375),
        (IntDistribution(1, 4), 0.0, 0.125),
        (IntDistribution(1, 4), 1.0, 0.875),
        (CategoricalDistribution("abc"), 0.4, 0.5),
        (FloatDistribution(0, 1), 0.123, 0.123),
        (IntDistribution(1, 100, log=True), 0.5, math.log(7 / 0.5) / math.log(201)),  # 0.5 * sqrt(201) is 7.1
    ],
    ids=str,
)
def test_an_action_is_settled_in_the_middle_of_its_bin(
    distribution: BaseDistribution, action: float, settled: float
) -> None:
    assert parameter_spec("x", distribution).settle(action) == pytest.approx(settled)


@given(st.data(), ACTION)
def test_what_is_settled_is_what_is_remembered(data: st.DataObject, action: float) -> None:
    """The action of a value that was played is settled, so that networks can be compared by their actions."""
    low = data.draw(st.integers(1, 20))
    distribution = data.draw(
        st.sampled_from(
            [
                IntDistribution(low, low + 30),
                IntDistribution(low, low + 300, log=True),
                IntDistribution(low, low, log=True),
                FloatDistribution(0, low, step=0.25),
                CategoricalDistribution(list(range(low))),
            ]
        )
    )
    slot = parameter_spec("x", distribution)
    settled = slot.settle(action)
    assert settled == pytest.approx(encode("x", distribution, decode("x", distribution, action)), abs=1e-12)
    assert slot.settle(settled) == settled


# Steps ------------------------------------------------------------------------------------------------


def steps(names: Sequence[str], marks: Sequence[tuple[int, int]] = ()) -> list[int]:
    """How many parameters each step has."""
    return [len(slots) for slots in read_episode(integers(*names), marks).slots]


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["units_l0", "dropout_l0", "units_l1", "dropout_l1"], [2, 2]),
        (["lr", "momentum", "decay"], [1, 1, 1]),  # without digits each is a step of its own
        (["lr", "units_l0", "units_l1"], [1, 1, 1]),
        (["a0", "b0", "c0", "d0", "e0", "f0"], [4, 2]),  # four slots, then another step
        (["l0_conv1", "l0_kernel1", "l0_conv2", "l1_conv2"], [2, 1, 1]),  # all numbers of a name count
        (["units_l0", "lr", "dropout_l0"], [1, 1, 1]),  # only consecutive ones
        (["a1", "b01"], [1, 1]),
        (["a1", "b1", "c10"], [2, 1]),
        (["conv2d_size0", "conv2d_stride0"], [2]),
    ],
)
def test_where_a_step_ends(names: list[str], sizes: list[int]) -> None:
    assert steps(names) == sizes


def test_a_report_ends_a_step() -> None:
    names = ["a0", "b0", "c0", "a1"]
    assert steps(names) == [3, 1]
    assert steps(names, marks=[(1, 0)]) == [1, 2, 1]
    assert steps(names, marks=[(2, 0), (3, 5)]) == [2, 1, 1]
    assert steps(["x", "y"], marks=[(1, 0)]) == [1, 1]


def test_continues_step() -> None:
    assert continues_step("b0", ["a0"], reported=False)
    assert not continues_step("b0", ["a0"], reported=True)
    assert not continues_step("b", ["a"], reported=False)
    assert not continues_step("e0", ["a0", "b0", "c0", "d0"], reported=False)
    assert continues_step("d0", ["a0", "b0", "c0"], reported=False)


def test_what_was_reported_when() -> None:
    names = ["u0", "v0", "u1", "v1", "u2"]
    trial = finished(
        {name: i % 4 for i, name in enumerate(names)},
        {name: IntDistribution(0, 3) for name in names},
        intermediate_values={0: 0.5, 1: 0.6, 2: 0.9},
    )
    # After two parameters step 0 had been reported, after four step 1; step 2 came behind the last.
    episode = read_episode(trial, marks=[(2, 0), (4, 1)])
    np.testing.assert_array_equal(episode.reports, [0.5, 0.6, np.nan])
    assert episode.last_reported == 1
    expected = [[0.125, 0.375], [0.625, 0.875], [0.125, np.nan]]
    np.testing.assert_allclose(episode.actions[:, :2], expected)
    assert np.isnan(episode.actions[:, 2:]).all() and episode.actions.shape == (3, 4)
    assert episode.performance.shape == (3, PERFORMANCE_VALUES) and np.isnan(episode.performance).all()

    unmarked = read_episode(trial, marks=[])
    assert np.isnan(unmarked.reports).all() and unmarked.last_reported == -1
    # A step whose report is gone (a foreign note) is a step without a report.
    assert np.isnan(read_episode(trial, marks=[(2, 7)]).reports).all()


def test_a_trial_without_parameters_has_no_steps() -> None:
    episode = read_episode(finished({}, {}), marks=[])
    assert len(episode) == 0 and episode.actions.shape == (0, 4) and episode.performance.shape == (0, 32)


def test_the_first_steps_of_an_episode() -> None:
    trial = finished(
        {"a0": 1, "b0": 2, "a1": 3},
        {name: IntDistribution(1, 4) for name in ("a0", "b0", "a1")},
        intermediate_values={0: 0.5},
    )
    episode = read_episode(trial, marks=[(2, 0)])
    one = episode.first(1)
    assert len(one) == 1 and one.slots == episode.slots[:1]
    for name in ("actions", "reports", "performance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(episode, name)[:1])
    assert len(episode.first(0)) == 0 and episode.first(0).actions.shape == (0, 4)
    assert len(episode.first(9)) == 2


def test_a_request_within_a_step() -> None:
    trial = integers("a0", "b0", "a1")
    request = read_request(trial, [(2, 0)], "b1", FloatDistribution(0, 1))
    assert len(request.before) == 1
    assert request.slots == (ParameterSpec("a\0", 1, 4, False), ParameterSpec("b\0", 1, 0, False))
    np.testing.assert_allclose(request.actions, [0.375])


def test_a_request_for_the_first_of_a_step() -> None:
    trial = integers("a0", "b0")
    distribution = CategoricalDistribution(["x", "y"])
    for name, marks, n_before, n_fixed in [
        ("a1", [], 1, 0),
        ("c0", [], 0, 2),
        ("c0", [(2, 0)], 1, 0),
        ("c0", [(1, 0)], 1, 1),
    ]:
        request = read_request(trial, marks, name, distribution)
        assert (len(request.before), len(request.actions)) == (n_before, n_fixed)
        assert len(request.slots) == n_fixed + 1 and request.slots[-1].categorical


def test_the_first_request_of_all() -> None:
    request = read_request(finished({}, {}), [], "x", FloatDistribution(0, 1))
    assert len(request.before) == 0 and request.actions.shape == (0,) and len(request.slots) == 1


# Performance ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=32, max_size=32))
def test_performance_comes_back_within_its_resolution(accuracies: list[float]) -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask({"a0": IntDistribution(0, 3), "a1": IntDistribution(0, 3)})
    report_performance(trial, accuracies, step=3)
    trial.report(0.9, step=3)
    study.tell(trial, 0.9)
    episode = read_episode(study.trials[0], marks=[(1, 3)])
    assert np.abs(episode.performance[0] - accuracies).max() <= 0.5 / 255 + 1e-12
    assert np.isnan(episode.performance[1]).all()


def test_performance_of_several_steps() -> None:
    study = optuna.create_study(direction="maximize")
    names = ["a0", "a1", "a2", "a3"]
    trial = study.ask({name: IntDistribution(0, 3) for name in names})
    for step, level in [(0, 0.2), (10, 0.4), (1, 0.6), (1, 0.8)]:  # the last word on step 1 counts
        report_performance(trial, [level] * 32, step=step)
    study.tell(trial, 0.9)
    episode = read_episode(study.trials[0], marks=[(1, 0), (2, 1), (3, 10)])
    np.testing.assert_allclose(episode.performance[:, 0], [0.2, 0.8, 0.4, np.nan], atol=1 / 255)
    assert len(study.trials[0].user_attrs["batch_accuracies"]) < 4 * 70  # a short text


@pytest.mark.parametrize(
    "attribute",
    [0.93, None, [0.1] * 32, {"0": 1}, "fast", "0:zz", "0:" + "ff" * 31, "0:" + "ff" * 33, "x0:" + "ff" * 32],
)
def test_anybody_elses_attribute_is_ignored(attribute: Any) -> None:
    trial = finished(
        {"a0": 1, "a1": 1},
        {"a0": IntDistribution(0, 3), "a1": IntDistribution(0, 3)},
        user_attrs={"batch_accuracies": attribute},
        intermediate_values={0: 0.5},
    )
    episode = read_episode(trial, marks=[(1, 0)])
    assert np.isnan(episode.performance).all()
    assert episode.reports[0] == 0.5


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        (
            [0.5] * 31,
            r"^accuracies have shape \(31,\) and range 0\.5 to 0\.5; they must be 32 numbers in \[0, 1\]$",
        ),
        ([], r"shape \(0,\)"),
        (np.zeros((32, 1)), r"shape \(32, 1\)"),
        ([0.5] * 31 + [1.01], r"range 0\.5 to 1\.01"),
        ([0.5] * 31 + [-0.5], r"range -0\.5 to 0\.5"),
        ([0.5] * 31 + [math.nan], "range nan to nan"),
    ],
    ids=["31", "none", "column", "above", "below", "nan"],
)
def test_performance_that_is_refused(accuracies: Any, sentence: str) -> None:
    trial = optuna.create_study().ask()
    with pytest.raises(ValueError, match=sentence):
        report_performance(trial, accuracies, step=0)
    assert trial.user_attrs == {}
