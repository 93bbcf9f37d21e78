"""`LayerSpace`: masks and grammar, the four forms of a network, growth and its stop rules."""

from __future__ import annotations

import itertools
import math
import pickle
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from optuna_trlhpo.layers import FCL, TABLE_I, Conv, MaxPool, Network, describe, parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.descriptors import NETWORK_DESCRIPTOR
from optuna_trlhpo.space.sampler_hooks import worth_growing, worth_training

SPACES = {
    "mnist": LayerSpace(),
    "digits": LayerSpace(input_shape=(1, 8, 8)),
    "cifar": LayerSpace(input_shape=(3, 32, 32), num_classes=100),
    "oblong": LayerSpace(input_shape=(2, 5, 9), num_classes=2, max_layers=4),
    "capped": LayerSpace(max_macs=250_000),
    "tight": LayerSpace(input_shape=(1, 8, 8), max_macs=4_000),
    "narrowing": LayerSpace(input_shape=(1, 8, 8), narrowing=True),
    "capped narrowing": LayerSpace(input_shape=(3, 12, 10), max_macs=90_000, narrowing=True, max_layers=8),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


@st.composite
def networks(draw: st.DrawFn, space: LayerSpace) -> Network:
    """Any network that the space allows, layer by layer and value by value."""
    layers: Network = ()
    for _ in range(draw(st.integers(1, space.max_layers))):
        kinds = space.kinds(layers)
        if not kinds:
            break
        cls = draw(st.sampled_from(kinds))
        values: list[Any] = []
        for _ in cls.hyperparameters:
            values.append(draw(st.sampled_from(space.allowed(layers, cls, *values))))
        layers = (*layers, cls(*values))
    return layers


def random_networks(space: LayerSpace, n: int) -> list[Network]:
    rng = np.random.default_rng(0)
    return [space.decode(rng.random((space.max_layers, 4))) for _ in range(n)]


def assert_valid(space: LayerSpace, layers: Network) -> None:
    """The rules of the space, written once more and without its help."""
    assert 1 <= len(layers) <= space.max_layers
    assert isinstance(layers[0], Conv)
    shape, macs = space.input_shape, 0
    for before, layer in zip((None, *layers), layers, strict=False):
        if isinstance(before, FCL):
            assert isinstance(layer, FCL)
            assert not space.narrowing or layer.neurons <= before.neurons
        for hyperparameter, value in zip(layer.hyperparameters, vars(layer).values(), strict=True):
            assert value in hyperparameter.values and type(value) is type(hyperparameter.values[0])
        if isinstance(layer, FCL):
            macs += math.prod(shape) * layer.neurons
            shape = (layer.neurons,)
            continue
        after = layer.output_shape(shape)  # that this is what PyTorch makes of it, test_layers shows
        assert after is not None and min(after) >= 1
        if isinstance(layer, Conv):
            macs += math.prod(after) * shape[0] * layer.kernel**2
        shape = after
    assert space.max_macs is None or macs + math.prod(shape) * space.num_classes <= space.max_macs


@pytest.mark.slow
def test_a_space_reaches_the_whole_table_by_actions() -> None:
    """On 28x28 the first layer may be any convolution, and behind it any layer but for oversized padding."""
    space = LayerSpace()
    first = {
        space.decode(np.array([[0, *row]]))[0]
        for row in itertools.product(np.linspace(0, 1, 97), repeat=2)
        for row in [(*row, 0), (*row, 0.5), (*row, 1)]
    }
    assert first == {
        Conv(*values) for values in itertools.product(*(hp.values for hp in Conv.hyperparameters))
    }
    start = [0, 0, 0, 0]
    grid = itertools.product(np.linspace(0, 1, 22), np.linspace(0, 1, 7), np.linspace(0, 1, 9))
    pools = {space.decode(np.array([start, [0.5, *row]]))[1] for row in grid}
    assert pools == {
        MaxPool(k, s, p) for k in range(2, 9) for s in (1, 2, 3) for p in range(4) if p <= k // 2
    }
    grid = itertools.product(np.linspace(0, 1, 190), np.linspace(0, 1, 22), (0, 1))
    dense = {space.decode(np.array([start, [1, *row]]))[1] for row in grid}
    assert len(dense) == 63 * 7 * 2


def test_macs_of_a_network_by_hand() -> None:
    network = parse("Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)")
    # 32 * 24 * 24 * 25, nothing, 32 * 12 * 12 * 128, and the classifier's 128 * 10
    assert LayerSpace().macs(network) == 460_800 + 589_824 + 1_280
    assert LayerSpace(num_classes=3).macs(network[:2]) == 460_800 + 32 * 12 * 12 * 3
    assert LayerSpace().shapes(network) == ((32, 24, 24), (32, 12, 12), (128,))


# Four forms of one network ----------------------------------------------------------------------------


@pytest.mark.slow
@every_space
@given(data=st.data())
def test_the_four_forms_are_inverse_to_each_other(space: LayerSpace, data: st.DataObject) -> None:
    layers = data.draw(networks(space))
    assert_valid(space, layers)
    space.check(layers)

    text = describe(layers)
    assert parse(text) == layers
    assert parse(text.replace(" ", "")) == layers == parse(text.replace(",", " , ").replace(">", "  >  "))
    assert describe(parse(text)) == text

    params = space.to_params(layers)
    assert space.from_params(params) == layers
    assert len(params) == sum(1 + len(layer.hyperparameters) for layer in layers)

    actions = space.encode(layers)
    assert actions.shape == (len(layers), 4) and ((0 <= actions) & (actions <= 1)).all()
    assert space.decode(actions) == layers


@every_space
@given(data=st.data())
def test_any_actions_are_a_valid_network(space: LayerSpace, data: st.DataObject) -> None:
    number = st.floats(0, 1)
    rows = data.draw(st.lists(st.tuples(number, number, number, number), min_size=1, max_size=9))
    layers = space.decode(np.array(rows))
    assert_valid(space, layers)
    assert len(layers) <= len(rows)
    assert space.decode(space.encode(layers)) == layers


def test_parameters_by_hand() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    layers = parse("Conv(8,3,2) > MaxPool(2,1,0) > FCL(16,gelu,bias) > FCL(24,none,nobias)")
    assert space.to_params(layers) == {
        "layer1_kind": "Conv",
        "layer1_conv_filters": 8,
        "layer1_conv_kernel": 3,
        "layer1_conv_stride": 2,
        "layer2_kind": "MaxPool",
        "layer2_pool_kernel": 2,
        "layer2_pool_stride": 1,
        "layer2_pool_padding": 0,
        "layer3_kind_of_pool_fcl": "FCL",  # on 2x2 no convolution stands
        "layer3_fcl_neurons": 16,
        "layer3_fcl_activation": "gelu",
        "layer3_fcl_bias": True,
        "layer4_kind_of_fcl": "FCL",
        "layer4_fcl_neurons": 24,
        "layer4_fcl_activation": "none",
        "layer4_fcl_bias": False,
    }


def test_actions_by_hand() -> None:
    actions = LayerSpace().encode(parse("Conv(16,3,1) > MaxPool(8,2,3) > FCL(16,gelu,bias)"))
    expected = [
        [0.5 / 3, 1.5 / 16, 0.5 / 3, 0.5 / 3],
        [1.5 / 3, 6.5 / 7, 1.5 / 3, 3.5 / 4],
        [2.5 / 3, 0.5 / 63, 6.5 / 7, 1.5 / 2],
    ]
    np.testing.assert_allclose(actions, expected)


def test_foreign_parameters_are_passed_over() -> None:
    space, layers = LayerSpace(), parse("Conv(8,3,1) > FCL(16,relu,bias)")
    assert (
        space.from_params(space.to_params(layers) | {"lr": 0.1, "layer9_kind": "FCL", "layers": 3}) == layers
    )
    assert space.from_params({"lr": 0.1}) == ()


def test_what_is_not_allowed_becomes_the_nearest_that_is() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    wild = np.array([[1, 1, 1, 0], [0, 1, 0.5, 1]])
    # A first layer must be a Conv. It leaves 2x2, where no Conv stands: pooling is nearer than FCL.
    assert space.decode(wild) == (Conv(128, 7, 1), MaxPool(8, 2, 3))
    assert space.decode(np.array([[0, 0, 0, 0], [0.5, 1, 0, 1]]))[1] == MaxPool(8, 1, 3)
    # Padding is at most half the kernel.
    assert space.decode(np.array([[0, 0, 0, 0], [0.5, 0, 0, 1]]))[1] == MaxPool(2, 1, 1)


# Grammar and masks ------------------------------------------------------------------------------------


def test_grammar() -> None:
    space = LayerSpace()
    conv, pool, dense = Conv(8, 3, 1), MaxPool(2, 2, 0), FCL(64, "relu", True)
    assert space.kinds(()) == (Conv,)
    assert space.kinds((conv,)) == TABLE_I.kinds
    assert space.kinds((conv, pool)) == TABLE_I.kinds
    assert space.kinds((conv, dense)) == (FCL,)
    assert space.kinds((conv, dense, dense)) == (FCL,)
    assert space.kinds((conv,) * 6) == ()
    on_one_pixel = (Conv(8, 7, 3), Conv(8, 7, 1), MaxPool(2, 2, 0))
    assert space.shapes(on_one_pixel)[-1] == (8, 1, 1)
    assert space.kinds(on_one_pixel) == (FCL,)


def test_narrowing() -> None:
    layers = parse("Conv(8,3,1) > FCL(64,relu,bias)")
    assert LayerSpace(narrowing=True).allowed(layers, FCL) == (16, 24, 32, 40, 48, 56, 64)
    assert LayerSpace(narrowing=True).allowed(layers[:1], FCL)[-1] == 512
    assert LayerSpace(narrowing=False).allowed(layers, FCL)[-1] == 512


def test_a_value_is_allowed_only_where_the_rest_can_follow() -> None:
    """Classifier included, f filters on 8x8 cost, by kernel and stride, per filter:

    (3, 1) 36 * 19 = 684, (3, 2) 9 * 19 = 171, (3, 3) 4 * 19 = 76; (5, 1) 16 * 35 = 560, (5, 2) and (5, 3)
    4 * 35 = 140; (7, 1) 4 * 59 = 236, (7, 2) and (7, 3) 59.
    """
    space = LayerSpace(input_shape=(1, 8, 8), max_macs=59 * 24)
    assert space.allowed((), Conv) == (8, 16, 24)
    assert space.allowed((), Conv, 24) == (7,)
    assert space.allowed((), Conv, 24, 7) == (2, 3)
    assert space.allowed((), Conv, 8) == (3, 5, 7)  # 1416 / 8 = 177 per filter
    assert space.allowed((), Conv, 8, 3) == (2, 3)
    assert space.allowed((), Conv, 8, 5) == (2, 3)
    # 1416 / 16 = 88.5: kernels 3 and 7 fit and 5 does not. A range has no hole, so one stretch is offered.
    assert space.allowed((), Conv, 16) == (3,)


def test_check_names_the_layer() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    cases = {
        "FCL(16,relu,bias)": "layer 1, FCL(16,relu,bias), is not allowed there; allowed kinds: Conv",
        "Conv(8,3,1) > FCL(16,relu,bias) > MaxPool(2,1,0)": "layer 3, MaxPool(2,1,0), is not allowed there; "
        "allowed kinds: FCL",
        "Conv(8,3,1) > Conv(8,7,1)": "layer 2, Conv(8,7,1): kernel 7 is not allowed there (3 to 5)",
        "Conv(8,3,1) > MaxPool(3,1,2)": "layer 2, MaxPool(3,1,2): padding 2 is not allowed there (0 to 1)",
    }
    for text, sentence in cases.items():
        with pytest.raises(ValueError) as caught:
            space.check(parse(text))
        assert str(caught.value) == sentence
        with pytest.raises(ValueError):
            space.to_params(parse(text))
    with pytest.raises(ValueError, match="has 7 layers; at most 6 are allowed"):
        space.check([Conv(8, 3, 1), *6 * [FCL(16, "relu", True)]])
    with pytest.raises(ValueError, match=r"filters 9 is not allowed there \(8 to 128\)"):
        space.check([Conv(9, 3, 1)])


CAPS = [
    ((1, 28, 28), 10, 15_000),
    ((1, 28, 28), 10, 100_000),
    ((3, 32, 32), 100, 1_000_000),
    ((1, 8, 8), 10, 2_000),
]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "classes", "cap"), CAPS)
def test_max_macs_is_never_exceeded_and_leaves_room(
    shape: tuple[int, int, int], classes: int, cap: int
) -> None:
    space = LayerSpace(input_shape=shape, num_classes=classes, max_macs=cap)
    found = random_networks(space, 1_000)
    for layers in set(found):
        assert_valid(space, layers)
        for k in range(1, len(layers) + 1):  # what is yielded on the way counts too
            assert space.macs(layers[:k]) <= cap
    costs = [space.macs(layers) for layers in found]
    assert max(costs) > 0.8 * cap  # the cap is used
    assert len(set(found)) > 100
    # What it cuts is cut by the cap: the same actions without it cost more.
    free = LayerSpace(input_shape=shape, num_classes=classes)
    assert max(free.macs(layers) for layers in random_networks(free, 100)) > cap


# Any sampler can play ---------------------------------------------------------------------------------

SAMPLERS = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(seed=0),
    "tpe, grouped": lambda: optuna.samplers.TPESampler(seed=0, multivariate=True, group=True),
}


def play(space: LayerSpace, sampler: optuna.samplers.BaseSampler, n: int, how: str) -> optuna.Study:
    """A study of valid networks: larger costs are better, up to a point."""
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        value = 0.0
        if how == "suggest":
            layers = space.suggest(trial)
            assert_valid(space, layers)
            assert space.from_params(trial.params) == layers
            return math.log(space.macs(layers))
        for layers in space.grow(trial):
            assert_valid(space, layers)
            value = 1 - 1 / (1.5 + math.log(space.macs(layers)))
            trial.report(value, step=len(layers) - 1)
        assert space.from_params(trial.params) == layers
        return value

    study.optimize(objective, n_trials=n)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    return study


def assert_one_choice_set_per_name(study: optuna.Study) -> None:
    choices: dict[str, set[tuple[Any, ...]]] = {}
    for trial in study.trials:
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                choices.setdefault(name, set()).add(distribution.choices)
    assert choices and all(len(sets) == 1 for sets in choices.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["grow", "suggest"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["digits", "tight", "capped narrowing"])
def test_no_sampler_ever_plays_an_invalid_network(name: str, sampler: str, how: str) -> None:
    settings = {key: value for key, value in vars(SPACES[name]).items()}
    space = LayerSpace(**settings | {"min_improvement": None})
    study = play(space, SAMPLERS[sampler](), n=25, how=how)
    assert_one_choice_set_per_name(study)
    assert len({str(trial.params) for trial in study.trials}) > 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["grow", "suggest"])
@pytest.mark.parametrize("name", ["tight", "oblong", "capped narrowing"])
def test_a_name_never_has_two_sets_of_choices(name: str, how: str) -> None:
    settings = dict(vars(SPACES[name])) | {"min_improvement": None, "min_accuracy": None}
    study = play(LayerSpace(**settings), optuna.samplers.RandomSampler(seed=1), n=80, how=how)
    assert_one_choice_set_per_name(study)
    masked = {key for trial in study.trials for key in trial.params if "_of_" in key}
    assert masked  # some sets were masked, so there was something to go wrong


@every_space
def test_enqueued_parameters_play_back(space: LayerSpace) -> None:
    rng = np.random.default_rng(3)
    found = [space.decode(rng.random((space.max_layers, 4))) for _ in range(10)]
    settings = dict(vars(space)) | {"min_improvement": None, "min_accuracy": None}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for layers in found:
        study.enqueue_trial(space.to_params(layers))
    for layers in found:
        trial = study.ask()
        grown = next(g for g in LayerSpace(**settings).grow(trial) if len(g) == len(layers))
        assert grown == layers
        assert trial.params == space.to_params(layers)


# The stop rules ---------------------------------------------------------------------------------------


Direction = Literal["minimize", "maximize"]


def grown_depth(space: LayerSpace, reports: Sequence[float], direction: Direction = "maximize") -> int:
    """How many layers grow when these are reported, one after each."""
    trial = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    depth = 0
    for layers in space.grow(trial):
        assert len(layers) == depth + 1
        trial.report(reports[depth], step=depth)
        depth += 1
    return depth


# Reports, the depth they lead to under the paper's rules, and why.
PAPERS_RULES = [
    ([0.59], 1),  # below 0.60
    ([0.60, 0.59], 2),
    ([0.70, 0.70], 2),  # adds nothing
    ([0.70, 0.65], 2),  # loses
    ([0.70, 0.7009], 2),  # adds less than 0.001
    ([0.70, 0.7011, 0.7012], 3),  # adds enough once
    ([0.60, 0.61, 0.62, 0.63, 0.64, 0.65], 6),  # never stopped but by max_layers
    ([0.60, 0.61, 0.62, 0.63, 0.64, 0.01], 6),
    ([0.75, 0.80, 0.77], 3),  # what counts is the layer before, not the first
]


@pytest.mark.parametrize(("reports", "depth"), PAPERS_RULES)
def test_the_papers_stop_rules(reports: list[float], depth: int) -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    assert grown_depth(space, reports) == depth
    assert grown_depth(space, [1 - report for report in reports], "minimize") == depth


def test_each_stop_rule_can_be_changed_or_left_out() -> None:
    shape = (1, 8, 8)
    reports = [0.5, 0.5, 0.4, 0.7]
    assert grown_depth(LayerSpace(input_shape=shape, max_layers=4), reports) == 1
    assert grown_depth(LayerSpace(input_shape=shape, max_layers=4, min_accuracy=None), reports) == 2
    assert grown_depth(LayerSpace(input_shape=shape, max_layers=4, min_accuracy=0.45), reports) == 2
    no_gain = LayerSpace(input_shape=shape, max_layers=4, min_accuracy=0.45, min_improvement=None)
    assert grown_depth(no_gain, reports) == 3
    free = LayerSpace(input_shape=shape, max_layers=4, min_accuracy=None, min_improvement=None)
    assert grown_depth(free, reports) == 4
    assert grown_depth(LayerSpace(input_shape=shape, max_layers=1), [0.9]) == 1
    assert grown_depth(LayerSpace(input_shape=shape, min_improvement=0.2), [0.7, 0.85]) == 2
    assert grown_depth(LayerSpace(input_shape=shape, min_improvement=0.0), [0.7, 0.7, 0.69]) == 3


def test_growth_ends_where_nothing_fits() -> None:
    """Conv(8,7,2) on 8x8 costs 8 * 49 and 8 * 10 for the classifier; no layer can stand on it for less."""
    space = LayerSpace(input_shape=(1, 8, 8), max_macs=472, min_improvement=None, min_accuracy=None)
    assert grown_depth(space, [0.9] * 6) == 1
    assert len(space.suggest(FixedTrial({"n_layers": 6} | space.to_params([Conv(8, 7, 2)])))) == 1


def test_a_report_is_missing() -> None:
    trial = optuna.create_study(direction="maximize").ask()
    with pytest.raises(ValueError, match=r"^no report at step 0: call trial\.report\(.*LayerSpace\.suggest"):
        for _ in LayerSpace().grow(trial):
            pass
    assert len({name.split("_")[0] for name in trial.params}) == 1  # before the second layer


def test_a_report_at_the_wrong_step_is_missing_too() -> None:
    trial = optuna.create_study(direction="maximize").ask()
    with pytest.raises(ValueError, match="^no report at step 0"):
        for layers in LayerSpace().grow(trial):
            trial.report(0.9, step=len(layers))


def test_without_stop_rules_nothing_need_be_reported() -> None:
    trial = optuna.create_study(direction="maximize").ask()
    space = LayerSpace(min_improvement=None, min_accuracy=None, max_layers=3)
    assert [len(layers) for layers in space.grow(trial)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (math.nan, r"^the report at step 0 is nan; grow needs a finite number$"),
        (math.inf, r"^the report at step 0 is inf; grow needs a finite number$"),
        (-math.inf, r"^the report at step 0 is -inf; grow needs a finite number$"),
        (
            93.5,
            r"^the report at step 0 is 93\.5; with min_accuracy=0\.6, grow needs accuracies .* between 0 and",
        ),
        (-0.1, r"^the report at step 0 is -0\.1; .* set min_accuracy=None$"),
    ],
)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_report_that_is_no_accuracy(report: float, sentence: str, direction: Direction) -> None:
    with pytest.raises(ValueError, match=sentence):
        grown_depth(LayerSpace(), [report], direction)


@pytest.mark.parametrize("name", ["sqlite", "journal"])
def test_reports_are_read_from_any_storage(name: str, tmp_path: Any) -> None:
    if name == "sqlite":
        storage: Any = f"sqlite:///{tmp_path}/study.db"
    else:
        storage = optuna.storages.JournalStorage(JournalFileBackend(f"{tmp_path}/journal.log"))
    study = optuna.create_study(storage=storage, direction="maximize")
    before, trial, after = study.ask(), study.ask(), study.ask()
    for other in (before, after):
        other.report(0.1, step=0)  # another running trial's report is none of ours
    depth = 0
    for layers in LayerSpace(input_shape=(1, 8, 8)).grow(trial):
        depth = len(layers)
        trial.report([0.8, 0.9, 0.9][depth - 1], step=depth - 1)
    assert depth == 3


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_another_metric_grows_without_min_accuracy(direction: Direction, sign: int) -> None:
    """The sentence about percentages says: for another metric set min_accuracy=None."""
    losses = [2.3, 1.1, 0.6, 0.6]
    space = LayerSpace(input_shape=(1, 8, 8), min_accuracy=None)
    assert grown_depth(space, [sign * loss for loss in losses], direction) == 4


# Which networks are trained on the way to a deeper one ----------------------------------------------------


class Opinionated(optuna.samplers.RandomSampler):
    """Has a layer trained where it is told to, and ends a trial where it is told to."""

    def __init__(self, trained: Sequence[int] = (), last: int = 99) -> None:
        super().__init__(seed=0)
        self.trained, self.last = trained, last
        self.asked: list[tuple[int, int, int]] = []  # layers the trial has, what grow says of it, the most
        self.told: list[float] = []  # what was reported when it was asked whether to grow on

    def worth_training(self, study: optuna.Study, trial: FrozenTrial, *, depth: int, max_depth: int) -> bool:
        begun = {name.split("_")[0] for name in trial.params}
        self.asked.append((len(begun), depth, max_depth))
        return depth in self.trained

    def worth_growing(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.told.append(trial.intermediate_values[max(trial.intermediate_values)])
        return len(trial.intermediate_values) < self.last


def space_of(train_prefixes: int | str, max_layers: int = 6, **more: Any) -> LayerSpace:
    rules = dict(min_accuracy=None, min_improvement=None) | more
    return LayerSpace(train_prefixes=train_prefixes, max_layers=max_layers, **rules)


def trained_depths(
    space: LayerSpace, sampler: optuna.samplers.BaseSampler, reports: Sequence[float] = (0.7,) * 6
) -> list[int]:
    """How many layers each network has that is yielded; ``reports`` are by depth."""
    trial = optuna.create_study(direction="maximize", sampler=sampler).ask()
    depths = []
    for layers in space.grow(trial):
        depths.append(len(layers))
        trial.report(reports[len(layers) - 1], step=len(layers) - 1)
    return depths


@pytest.mark.parametrize("train_prefixes", ["auto", "all"])
def test_without_an_opinion_every_prefix_is_trained(train_prefixes: str) -> None:
    assert trained_depths(space_of(train_prefixes), SAMPLERS["random"]()) == [1, 2, 3, 4, 5, 6]
    assert trained_depths(space_of(train_prefixes), SAMPLERS["tpe"]()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("every", "depths"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (5, [5]), (9, [5])]
)
def test_every_so_many_layers_are_trained_and_the_deepest(every: int, depths: list[int]) -> None:
    assert trained_depths(space_of(every, max_layers=5), SAMPLERS["random"]()) == depths


def test_an_integer_of_numpys_is_an_integer() -> None:
    space = space_of(np.int64(2), max_layers=5)  # type: ignore[arg-type]
    assert trained_depths(space, SAMPLERS["random"]()) == [2, 4, 5]


@pytest.mark.parametrize("train_prefixes", ["all", 3])
def test_the_samplers_opinion_is_not_asked_for_unless_it_is_wanted(train_prefixes: int | str) -> None:
    sampler = Opinionated(trained=(2,), last=1)
    trained = trained_depths(space_of(train_prefixes), sampler)
    assert trained == ([3, 6] if train_prefixes == 3 else [1, 2, 3, 4, 5, 6])
    assert not sampler.asked and not sampler.told


def test_the_sampler_decides_what_is_trained() -> None:
    sampler = Opinionated(trained=(2, 3))
    assert trained_depths(space_of("auto"), sampler, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == [2, 3, 6]
    # It is asked when the layer is complete, of every network that could grow; the deepest is trained anyway.
    assert sampler.asked == [(depth, depth, 6) for depth in (1, 2, 3, 4, 5)]
    assert sampler.told == [0.2, 0.3]  # what was reported is there when it is asked whether to grow on


def test_the_sampler_decides_where_a_trial_ends() -> None:
    assert trained_depths(space_of("auto"), Opinionated(trained=range(9), last=3)) == [1, 2, 3]
    assert trained_depths(space_of("auto"), Opinionated(trained=(4, 5), last=1)) == [4]


def test_stop_rules_compare_the_networks_that_are_trained() -> None:
    rules: dict[str, Any] = dict(min_accuracy=0.6, min_improvement=0.05)
    reports = [0.1, 0.7, 0.72, 0.76, 0.77, 0.79]
    assert trained_depths(space_of(2, **rules), SAMPLERS["random"](), reports) == [2, 4, 6]
    assert trained_depths(space_of(3, **rules), SAMPLERS["random"](), reports) == [3, 6]
    assert trained_depths(space_of("all", **rules), SAMPLERS["random"](), reports) == [1]
    opinionated = Opinionated(trained=(2, 3, 4))
    assert trained_depths(space_of("auto", **rules), opinionated, reports) == [2, 3]
    assert len(opinionated.told) == 1  # where a rule ends the trial there is nothing to ask


def test_a_network_that_is_not_trained_needs_no_report() -> None:
    """And one that is does, at its own step."""
    trial = optuna.create_study(direction="maximize", sampler=SAMPLERS["random"]()).ask()
    with pytest.raises(ValueError, match="^no report at step 1"):
        for _ in space_of(2, min_accuracy=0.6).grow(trial):
            pass


def test_a_network_that_cannot_grow_is_trained() -> None:
    space = LayerSpace(
        input_shape=(1, 8, 8), max_macs=472, min_improvement=None, min_accuracy=None, train_prefixes=4
    )
    assert trained_depths(space, SAMPLERS["random"]()) == [1]


def test_other_loops_ask_as_growth_does() -> None:
    sampler = Opinionated(trained=(2,), last=1)
    study = optuna.create_study(sampler=sampler)
    trial = study.ask()
    trial.suggest_int("layer1_units", 1, 9)
    assert [worth_training(trial, depth=depth, max_depth=4) for depth in (1, 2, 3)] == [False, True, False]
    assert sampler.asked == [(1, depth, 4) for depth in (1, 2, 3)]
    trial.report(0.5, step=0)
    assert not worth_growing(trial)
    plain = optuna.create_study(sampler=SAMPLERS["random"]()).ask()
    assert worth_training(plain, depth=1, max_depth=4) and worth_growing(plain)


@pytest.mark.parametrize("train_prefixes", ["auto", "all", 2, 3])
@pytest.mark.parametrize("last", [2, 99])
def test_what_was_trained_is_trained_again_in_a_replay(train_prefixes: int | str, last: int) -> None:
    space = space_of(train_prefixes, max_layers=5)
    study = optuna.create_study(direction="maximize", sampler=Opinionated(trained=(2, 3), last=last))
    for _ in range(5):
        trial, played = study.ask(), []
        for layers in space.grow(trial):
            played.append(layers)
            trial.report(0.1 * len(layers), step=len(layers) - 1)
        study.tell(trial, 0.1 * len(layers))
        assert list(space.grow(study.trials[-1])) == played


def test_a_trial_without_reports_trains_all_in_a_replay() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    layers = parse("Conv(16,3,1) > MaxPool(2,2,0) > FCL(64,tanh,nobias)")
    params = space.to_params(layers)
    assert list(space.grow(FixedTrial(params))) == [layers[:1], layers[:2], layers]
    assert list(space_of(2, input_shape=(1, 8, 8)).grow(FixedTrial(params))) == [layers[:2], layers]


# What a network comes to ------------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_every_network_of_the_space_comes_to_something(space: LayerSpace, data: st.DataObject) -> None:
    layers = data.draw(networks(space))
    network_descriptor = space.network_descriptor(space.encode(layers))
    assert network_descriptor is not None and network_descriptor.shape == (NETWORK_DESCRIPTOR,)
    assert ((-0.01 <= network_descriptor) & (network_descriptor < 1.3)).all()
    outline = space.layer_features(space.encode(layers))
    assert outline is not None and outline.shape == (len(layers), 3 + 8)
    assert ((-0.01 <= outline) & (outline < 1.3)).all()


@pytest.mark.parametrize(
    "name", ["mnist", "digits", "oblong", "narrowing"]
)  # without a cap there are no holes
@given(data=st.data())
def test_what_is_not_of_the_space_comes_to_nothing(name: str, data: st.DataObject) -> None:
    space = SPACES[name]
    n = data.draw(st.integers(1, space.max_layers + 1))
    actions = np.array([[data.draw(st.floats(0, 1)) for _ in range(4)] for _ in range(n)])
    actions[0, 0] *= data.draw(st.sampled_from([0.3, 1.0]))  # most often a convolution
    layers = tuple(
        cls(*(hp.decode(action) for hp, action in zip(cls.hyperparameters, row[1:], strict=False)))
        for row in actions
        for cls in [TABLE_I.by_kind[TABLE_I.kind.decode(row[0])]]
    )
    try:
        space.check(layers)
    except ValueError:
        assert space.network_descriptor(actions) is None and space.layer_features(actions) is None
    else:
        assert space.network_descriptor(actions) is not None and space.layer_features(actions) is not None


def test_a_signature_by_hand() -> None:
    space = LayerSpace()
    layers = parse("Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)")
    wide = math.log(128 * 28 * 28)
    expected = [
        3 / 6,
        math.log(460_800 + 589_824 + 1_280) / math.log(1e9),
        math.log(128) / wide,
        math.log(128) / wide,  # the narrowest is the last
        math.log(32) / math.log(128),
        math.log(12) / math.log(28),
        math.log(32 * 12 * 12) / wide,
        math.log(24) / math.log(28),
    ]
    network_descriptor = space.network_descriptor(space.encode(layers))
    assert network_descriptor is not None
    np.testing.assert_allclose(network_descriptor, expected)
    narrow = space.network_descriptor(
        space.encode(parse("Conv(8,3,1) > FCL(16,relu,bias) > FCL(512,relu,bias)"))
    )
    assert narrow is not None
    np.testing.assert_allclose(narrow[2:4], np.log([512, 16]) / wide)


def test_an_unfinished_layer_comes_to_nothing() -> None:
    space = LayerSpace()
    actions = space.encode(parse("Conv(32,5,1) > FCL(128,relu,bias)"))
    assert space.network_descriptor(actions[:0]) is None
    actions[1, 2] = math.nan
    assert space.network_descriptor(actions) is None
    assert space.network_descriptor(actions[:1]) is not None
    pool = space.encode(parse("Conv(32,5,1) > MaxPool(2,2,0)"))
    assert space.network_descriptor(pool) is not None
    too_deep = space.encode(parse(" > ".join(["Conv(8,3,1)"] * 7)))
    assert space.network_descriptor(too_deep) is None and space.network_descriptor(too_deep[:6]) is not None
    for unknown in (actions[:0], actions, too_deep):
        assert space.layer_features(unknown) is None


def test_an_outline_by_hand() -> None:
    layers = parse("Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)")
    outline = LayerSpace().layer_features(LayerSpace().encode(layers))
    numbers = [32 * 24 * 24, 32 * 12 * 12, 128]
    macs = [460_800, 460_800, 460_800 + 589_824]  # without a classifier
    expected = np.array(
        [
            [1, 0, 0, 3.5 / 16, 1.5 / 3, 0.5 / 3],
            [0, 1, 0, 0.5 / 7, 1.5 / 3, 0.5 / 4],
            [0, 0, 1, 14.5 / 63, 1.5 / 7, 1.5 / 2],
        ]
    )
    assert outline is not None
    np.testing.assert_allclose(outline[:, :6], expected)
    np.testing.assert_allclose(outline[:, 6], [math.log(24, 28), math.log(12, 28), 0])
    np.testing.assert_allclose(outline[:, 7], np.log([32, 32, 128]) / math.log(128))
    np.testing.assert_allclose(outline[:, 8], np.log(numbers) / math.log(128 * 28 * 28))
    np.testing.assert_allclose(outline[:, 9], np.log(macs) / math.log(1e9))
    np.testing.assert_array_equal(outline[:, 10], 1)


def test_an_outline_means_the_same_in_every_space() -> None:
    """What leaves a layer is what counts, not how it compares with the image; the input has its own place."""
    small, large = LayerSpace(input_shape=(1, 8, 8)), LayerSpace(input_shape=(1, 12, 12), num_classes=100)
    same = (
        small.layer_features(small.encode(parse("Conv(16,3,1) > FCL(16,relu,bias)"))),
        large.layer_features(large.encode(parse("Conv(16,7,1) > FCL(16,relu,bias)"))),
    )
    assert same[0] is not None and same[1] is not None
    np.testing.assert_allclose(same[0][:, 6:9], same[1][:, 6:9])  # 16 x 6 x 6, then 16
    np.testing.assert_array_equal(same[0][:, 10], math.log(8, 28))
    np.testing.assert_array_equal(same[1][:, 10], math.log(12, 28))


# Random networks --------------------------------------------------------------------------------------


@every_space
def test_drawn_networks_are_of_the_space(space: LayerSpace) -> None:
    rng = np.random.default_rng(0)
    drawn = [space.draw(rng) for _ in range(100)]
    for layers in drawn:
        assert_valid(space, layers)
    assert len(set(drawn)) > 75
    if space.max_macs is None:
        assert {len(layers) for layers in drawn} == set(range(1, space.max_layers + 1))
    actions = space.encode(space.draw(rng))
    assert_valid(space, space.decode(actions))
    np.testing.assert_array_equal(space.encode(space.decode(actions)), actions)
    assert space.draw(np.random.default_rng(1)) == space.draw(np.random.default_rng(1))


@every_space
@given(depth=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_a_network_is_drawn_as_deep_as_it_is_asked_for(space: LayerSpace, depth: int, seed: int) -> None:
    layers = space.draw(np.random.default_rng(seed), depth=depth)
    assert_valid(space, layers)
    assert len(layers) == min(depth, space.max_layers) or (len(layers) < depth and not space.kinds(layers))
    assert space.max_macs is not None or len(layers) == min(depth, space.max_layers)


def test_a_layer_is_drawn_from_all_that_are_allowed() -> None:
    space, rng = LayerSpace(input_shape=(1, 8, 8)), np.random.default_rng(0)
    before = parse("Conv(8,3,1)")
    pools = {space.draw_layer(rng, before, MaxPool) for _ in range(1_500)}
    assert pools == {  # on 6x6
        MaxPool(kernel, stride, padding)
        for kernel, stride, padding in itertools.product(range(2, 9), (1, 2, 3), range(4))
        if padding <= kernel // 2 and kernel <= 6 + 2 * padding
    }


# Equality ---------------------------------------------------------------------------------------------


def test_spaces_of_the_same_networks_are_equal() -> None:
    made: dict[str, Any] = dict(input_shape=(1, 12, 12), num_classes=7, max_layers=3, max_macs=90_000)
    space = LayerSpace(**made)
    for same in (LayerSpace(**made), LayerSpace(**made | {"input_shape": [1, 12, 12]}), eval(repr(space))):
        assert same == space and hash(same) == hash(space)
    assert pickle.loads(pickle.dumps(space)) == space
    changes: list[dict[str, Any]] = [
        dict(input_shape=(1, 12, 13)),
        dict(num_classes=8),
        dict(max_layers=4),
        dict(min_improvement=None),
        dict(min_accuracy=None),
        dict(max_macs=None),
        dict(narrowing=True),
        dict(train_prefixes="all"),
        dict(train_prefixes=2),
    ]
    others = [LayerSpace(**made | change) for change in changes]
    assert len({space, *others, *others}) == 10
    assert space != made and space != "space"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dict(max_macs=1_000_000), dict(max_macs=1e6)),
        (dict(min_accuracy=None, min_improvement=0), dict(min_accuracy=None, min_improvement=0.0)),
        (dict(train_prefixes=2), dict(train_prefixes=np.int64(2))),
    ],
    ids=str,
)
def test_equal_spaces_have_equal_hashes(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert LayerSpace(**one) == LayerSpace(**other)
    assert hash(LayerSpace(**one)) == hash(LayerSpace(**other))


# Fixed and frozen trials ------------------------------------------------------------------------------


def test_fixed_and_frozen_trials_play_a_network_again() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    layers = parse("Conv(16,3,1) > MaxPool(2,2,0) > FCL(64,tanh,nobias)")
    params = space.to_params(layers)
    assert list(space.grow(FixedTrial(params))) == [layers[:1], layers[:2], layers]

    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(params)
    trial = study.ask()
    for grown, report in zip(space.grow(trial), [0.7, 0.8, 0.8], strict=True):
        trial.report(report, step=len(grown) - 1)
    study.tell(trial, 0.8)
    assert list(space.grow(study.best_trial)) == [layers[:1], layers[:2], layers]

    study = optuna.create_study()
    study.enqueue_trial({"n_layers": 3} | params)
    trial = study.ask()
    assert space.suggest(trial) == layers
    study.tell(trial, 0.1)
    assert space.suggest(study.best_trial) == layers == space.suggest(FixedTrial(study.best_params))


def test_a_fixed_trial_that_ends_within_a_layer_is_an_error() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    params = space.to_params(parse("Conv(16,3,1) > FCL(64,tanh,nobias)"))
    del params["layer2_fcl_bias"]
    with pytest.raises(ValueError, match="layer2_fcl_bias"):
        list(space.grow(FixedTrial(params)))


@pytest.mark.filterwarnings("ignore:The value:UserWarning")
def test_a_fixed_value_that_does_not_fit_is_an_error() -> None:
    """Optuna itself only warns."""
    space = LayerSpace(input_shape=(1, 8, 8))
    params = space.to_params(parse("Conv(16,3,1) > FCL(64,tanh,nobias)"))
    for wrong in ({"layer1_conv_kernel": 9}, {"layer2_fcl_neurons": 65}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* is {next(iter(wrong.values()))}"):
            list(space.grow(FixedTrial(params | wrong)))


def test_suggest_takes_several_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=SAMPLERS["random"]())
    space = LayerSpace(input_shape=(1, 8, 8), max_layers=3)
    depths = set()
    for _ in range(20):
        trial = study.ask()
        layers = space.suggest(trial)
        assert_valid(space, layers)
        assert len(layers) == trial.params["n_layers"]
        depths.add(len(layers))
        study.tell(trial, [space.macs(layers), 0.5])
    assert depths == {1, 2, 3}


# What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(input_shape=(28, 28)), r"^input_shape is \(28, 28\); it must be three positive integers"),
        (dict(input_shape=(1, 28, 0)), r"^input_shape is \(1, 28, 0\); it must be three positive integers"),
        (dict(input_shape=(1, 28.0, 28)), "it must be three positive integers"),
        (dict(input_shape=(True, 28, 28)), "it must be three positive integers"),
        (dict(input_shape=(-1, 28, 28)), "it must be three positive integers"),
        (
            dict(input_shape=(1, 28, 2)),
            r"^input_shape is \(1, 28, 2\); it is too small for every kind of first layer, Conv",
        ),
        (dict(input_shape=(1, 2, 28)), "too small for every kind of first layer, Conv"),
        (dict(num_classes=1), "^num_classes is 1; it must be an integer of at least 2$"),
        (dict(num_classes=0), "^num_classes is 0; "),
        (dict(num_classes=2.0), r"^num_classes is 2\.0; "),
        (dict(max_layers=0), "^max_layers is 0; it must be an integer of at least 1$"),
        (dict(max_layers=-1), "^max_layers is -1; "),
        (dict(max_layers=True), "^max_layers is True; "),
        (dict(min_improvement=-0.001), r"^min_improvement is -0\.001; it must be between 0 and 1, or None$"),
        (dict(min_improvement=math.nan), "^min_improvement is nan; "),
        (dict(min_accuracy=60), "^min_accuracy is 60; it must be between 0 and 1, or None$"),
        (dict(min_accuracy=-0.1), r"^min_accuracy is -0\.1; "),
        (dict(max_macs=0), "^max_macs is 0; it must be positive, or None for no limit$"),
        (dict(max_macs=-5), "^max_macs is -5; it must be positive"),
        (dict(max_macs=math.nan), "^max_macs is nan; it must be positive"),
        *[
            (
                dict(train_prefixes=value),
                f"^train_prefixes is {re.escape(repr(value))}; "
                "it must be 'auto', 'all' or a positive integer$",
            )
            for value in (0, -2, 2.0, True, None, "some", "2", (1, 3))
        ],
    ],
    ids=str,
)
def test_a_bad_argument(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LayerSpace(**arguments)


def cheapest(shape: tuple[int, int, int], classes: int) -> int:
    """The cost of the cheapest network, by trying all first layers: what follows may not make it cheaper."""
    costs = []
    for filters, kernel, stride in itertools.product(range(8, 129, 8), (3, 5, 7), (1, 2, 3)):
        after = Conv(filters, kernel, stride).output_shape(shape)
        if after is not None:
            costs.append(math.prod(after) * (shape[0] * kernel**2 + classes))
    return min(costs)


@pytest.mark.parametrize(
    ("shape", "classes"),
    [((1, 28, 28), 10), ((1, 8, 8), 10), ((3, 32, 32), 100), ((2, 5, 9), 2), ((1, 3, 3), 2)],
)
@pytest.mark.parametrize("narrowing", [False, True])
def test_a_cap_that_is_too_small_names_the_smallest(
    shape: tuple[int, int, int], classes: int, narrowing: bool
) -> None:
    smallest = cheapest(shape, classes)
    with pytest.raises(ValueError, match=rf"^max_macs is 1; .* takes {smallest:,} MACs$"):
        LayerSpace(input_shape=shape, num_classes=classes, max_macs=1, narrowing=narrowing)
    with pytest.raises(ValueError, match=f"takes {smallest:,} MACs"):
        LayerSpace(input_shape=shape, num_classes=classes, max_macs=smallest - 1, narrowing=narrowing)
    space = LayerSpace(input_shape=shape, num_classes=classes, max_macs=smallest, narrowing=narrowing)
    assert space.macs(space.decode(np.zeros((1, 4)))) == smallest


def test_parameters_that_are_wrong() -> None:
    space = LayerSpace(input_shape=(1, 8, 8))
    params = space.to_params(parse("Conv(8,3,1) > FCL(16,relu,bias)"))
    with pytest.raises(ValueError, match="^parameter 'layer1_conv_kernel' is 4; it must be one of 3 to 7$"):
        space.from_params(params | {"layer1_conv_kernel": 4})
    with pytest.raises(
        ValueError, match="^parameter 'layer2_kind' is 'LSTM'; it must be one of Conv, MaxPool, FCL$"
    ):
        space.from_params(params | {"layer2_kind": "LSTM"})
    del params["layer2_fcl_bias"]
    with pytest.raises(
        ValueError, match="^parameter 'layer2_fcl_bias' is missing; the parameters are layer2_fcl_activation"
    ):
        space.from_params(params)


@pytest.mark.parametrize(
    "actions",
    [np.zeros((2, 3)), np.zeros(4), [[0.5, 0.5, 0.5, 1.1]], [[-0.1, 0, 0, 0]], [[math.nan, 0, 0, 0]]],
)
def test_actions_that_are_wrong(actions: Any) -> None:
    with pytest.raises(ValueError, match=r"they must be \[layers, 4\] numbers in \[0, 1\]$"):
        LayerSpace().decode(actions)


def test_a_layer_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"^Conv\(8,7,1\) does not fit on shape \(8, 6, 6\)$"):
        LayerSpace(input_shape=(1, 8, 8)).shapes(parse("Conv(8,3,1) > Conv(8,7,1)"))


def test_repr_makes_the_space_again() -> None:
    space = SPACES["capped narrowing"]
    assert repr(eval(repr(space))) == repr(space)
