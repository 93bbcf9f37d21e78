"""Networks that inherit: what is kept of the one before, what is looked up, what is trained again."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FixedTrial
from torch import nn

import optuna_trlhpo.layers.kinds  # noqa: F401 - makes its layers known to parse
from optuna_trlhpo import layers
from optuna_trlhpo.cnn.model import build_network, output_shape_of
from optuna_trlhpo.cnn.training import trainer
from optuna_trlhpo.cnn.training.weight_inheritance import LineageStep, WeightCache, inherit
from optuna_trlhpo.layers import parse
from tests.cnn.test_cache import add, shared, trained  # noqa: F401 - a fixture
from tests.cnn.test_objective import THREE, make, make_params, run

SHAPE, CLASSES = (1, 12, 12), 3


def network(text: str, seed: int = 0, **kwargs: Any) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build_network(parse(text), SHAPE, CLASSES, **kwargs)
        for parameter in built.parameters():  # biases are told from zeros
            parameter.data += 0.1 * torch.randn(parameter.shape)
        return built.eval()


def images(n: int = 40) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def grown(before: str, behind: str, **kwargs: Any) -> tuple[nn.Sequential, nn.Sequential, bool]:
    parent, child = network(before, **kwargs), network(f"{before} > {behind}", seed=1, **kwargs)
    return parent, child, inherit(child, parent, output_shape_of(parse(before), SHAPE))


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("Conv(8,3,1)", "FCL(16,none,nobias)"),
        ("Conv(8,3,1)", "FCL(16,relu,bias)"),
        ("Conv(8,3,1) > MaxPool(2,2,0)", "FCL(16,relu,nobias)"),
        ("Conv(8,3,1)", "FCL(24,leakyrelu,bias)"),
        ("Conv(8,3,1)", "FCL(24,gelu,bias)"),
        ("Conv(8,3,1) > FCL(16,relu,bias)", "FCL(24,relu,bias)"),
        ("Conv(8,3,1) > FCL(16,tanh,bias)", "FCL(16,none,bias)"),
        ("Conv(8,3,1)", "FCL(24,relu,bias) > FCL(32,relu,nobias)"),
        ("Conv(8,3,1)", "Dropout(20) > FCL(16,gelu,bias)"),
    ],
)
def test_the_function_is_kept(before: str, behind: str) -> None:
    parent, child, carried = grown(before, behind)
    assert carried
    torch.testing.assert_close(child(images()), parent(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "leakyrelu", "gelu", "elu"])
def test_logits_fit_into_few_neurons(activation: str) -> None:
    narrow = [nn.Linear(8, 10), nn.Linear(8, 16), nn.Linear(16, 10)]
    parent = nn.Sequential(nn.Identity(), nn.ReLU(), narrow[0])
    child = nn.Sequential(nn.Identity(), nn.ReLU(), narrow[1], *layers.activation(activation), narrow[2])
    assert inherit(child, parent, (8,))
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    mine, theirs = (it(features).log_softmax(dim=1) for it in (child, parent))
    torch.testing.assert_close(mine, theirs, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu"])
def test_bent_logits_keep_their_order(activation: str) -> None:
    parent, child, carried = grown("Conv(8,3,1)", f"FCL(16,{activation},bias)")
    assert carried
    assert child(images()).argsort(dim=1).equal(parent(images()).argsort(dim=1))


def test_a_convolution_passes_on_the_middle() -> None:
    parent, child, carried = grown("Conv(8,3,1)", "Conv(16,3,1)")
    assert carried
    features = parent[:2](images())
    torch.testing.assert_close(child[:4](images())[:, :8], features[:, :, 1:-1, 1:-1])
    # Weights of the border, which is lost, are added to those of the nearest position.
    weights = parent[-1].get_parameter("weight").reshape(CLASSES, 8, 10, 10).clone()
    padded = child[-1].get_parameter("weight").reshape(CLASSES, 16, 8, 8)
    assert padded[:, 8:].abs().max() == 0
    torch.testing.assert_close(padded[:, :8].sum((2, 3)), weights.sum((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[:, :8, 1:-1, 1:-1], weights[:, :, 2:-2, 2:-2])


@pytest.mark.parametrize(
    "behind", ["MaxPool(2,2,0)", "MaxPool(3,2,1)", "AvgPool(2,2,0)", "MaxPool(2,3,0)", "Conv(8,5,2)"]
)
def test_even_features_give_the_same_logits(behind: str) -> None:
    parent, child, carried = grown("Conv(8,3,1)", behind)
    assert carried
    flat = torch.ones(1, *SHAPE)  # every position has the same features, so nothing is lost with one of them
    torch.testing.assert_close(child(flat), parent(flat), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("before", "behind", "kwargs"),
    [
        ("Conv(16,3,1)", "Conv(8,3,1)", {}),  # too few filters
        ("Conv(8,3,1)", "Conv(8,3,1)", {"conv_activation": "tanh"}),
        ("Conv(8,3,1)", "BatchNorm()", {}),
        ("Conv(8,3,1)", "Residual(8,3,1)", {}),
    ],
)
def test_what_cannot_be_kept_begins_afresh(before: str, behind: str, kwargs: dict[str, Any]) -> None:
    untouched = network(f"{before} > {behind}", seed=1, **kwargs)
    parent, child, carried = grown(before, behind, **kwargs)
    assert not carried
    for name in ("weight", "bias"):
        assert child[0].get_parameter(name).equal(parent[0].get_parameter(name))
    assert child[-1].get_parameter("weight").equal(untouched[-1].get_parameter("weight"))


def test_statistics_are_inherited_too() -> None:
    parent = network("Conv(8,3,1) > BatchNorm()")
    parent.train()(images())
    child = network("Conv(8,3,1) > BatchNorm() > FCL(16,relu,bias)", seed=1)
    assert inherit(child, parent, (8, 10, 10))
    torch.testing.assert_close(child(images()), parent.eval()(images()), rtol=1e-4, atol=1e-4)


def test_a_weight_cache_forgets_the_oldest() -> None:
    parts = [network("Conv(8,3,1)", seed) for seed in range(3)]
    size = sum(4 * parameter.numel() for parameter in parts[0].parameters())
    lineages = [(LineageStep(parse(f"Conv({8 * k},3,1)")),) for k in (1, 2, 3)]
    weight_cache = WeightCache(max_bytes=2 * size)
    for lineage, part in zip(lineages, parts, strict=True):
        weight_cache.keep(lineage, part)
    assert [weight_cache.find(lineage) for lineage in lineages] == [None, *parts[1:]]
    assert weight_cache.find((lineages[1][0]._replace(stopped=1),)) is None
    assert pickle.loads(pickle.dumps(weight_cache)).find(lineages[1]) is None


# In a study


def test_a_network_begins_where_the_one_before_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended, train = [], [], trainer.train

    def noting(model: Any, *args: Any, **kwargs: Any) -> None:
        begun.append((model[0].weight.clone(), kwargs["epochs"]))
        train(model, *args, **kwargs)
        ended.append(model[0].weight.clone())

    monkeypatch.setattr(trainer, "train", noting)
    run(make(inherit=True, inherited_epochs=1), network=THREE)
    weights, epochs = zip(*begun, strict=True)
    assert epochs == (2, 1, 1)
    assert weights[1].equal(ended[0]) and weights[2].equal(ended[1]) and not weights[1].equal(ended[1])


def test_inheriting_pays() -> None:
    kept = "Conv(8,3,1) > FCL(16,relu,bias)"

    def accuracy(seed: int, **kwargs: Any) -> float:
        study = run(make(seed=seed, max_layers=2, **kwargs), network=kept)
        return study.trials[0].intermediate_values[1]

    for seed in range(3):
        inherited = accuracy(seed, epochs=4, inherit=True, inherited_epochs=1)
        assert inherited > accuracy(seed, epochs=1) + 0.05


def test_one_way_has_one_value() -> None:
    objective = make(inherit=True)
    trial = run(objective, network=THREE).trials[0]
    again = [trial.intermediate_values] * 3
    copied = pickle.loads(pickle.dumps(objective))  # without anybody's weights
    studies = [run(it, network=THREE) for it in (objective, copied, make(inherit=True))]
    assert [study.trials[0].intermediate_values for study in studies] == again
    assert copied(FixedTrial(make_params(THREE))) == trial.value


def test_what_was_looked_up_can_be_inherited_from(trained: list[int], tmp_path: Path) -> None:  # noqa: F811
    storage = f"sqlite:///{tmp_path}/study.db"
    other = "Conv(8,3,1) > MaxPool(2,2,0) > FCL(24,relu,bias)"
    expected = run(make(inherit=True), network=other).trials[0].intermediate_values
    run(make(inherit=True), network=THREE, storage=storage, study_name="s")
    trained.clear()
    study = optuna.load_study(study_name="s", storage=storage)
    grandchild = add(study, make(inherit=True), other)  # by an objective that has trained nothing yet
    shared(study.trials[0], grandchild, 2)
    assert grandchild.intermediate_values == expected
    assert len(trained) == 3  # the two that were looked up, for their weights, and the new one
    trained.clear()
    again = make(inherit=True)
    add(study, again, other)
    assert trained == []


def test_a_search_goes_on_from_its_own_networks_after_a_confirmation() -> None:
    other = "Conv(8,3,1) > FCL(24,relu,bias) > FCL(16,relu,bias)"
    expected = run(make(inherit=True), network=other).trials[0].intermediate_values
    objective = make(inherit=True)
    study = run(objective, network=THREE)
    study.add_trial(optuna.create_trial(value=1.0, user_attrs={"architecture": "Conv(8,3,1)"}))
    objective.confirm(study, top=1, repeats=1)
    assert add(study, objective, other).intermediate_values == expected


def test_only_the_same_way_is_looked_up(trained: list[int]) -> None:  # noqa: F811
    study = run(make(inherit=True), network=THREE)
    assert len(trained) == 3
    sparse = add(study, make(inherit=True, train_prefixes=2), THREE)
    assert list(sparse.intermediate_values) == [1, 2]
    assert len(trained) == 5  # the second from scratch, the third from the second
    add(study, make(inherit=True, train_prefixes=2), THREE)
    add(study, make(inherit=True), THREE)
    assert len(trained) == 5
    add(study, make(), THREE)  # inherits nothing
    assert len(trained) == 8
    add(study, make(inherit=True, inherited_epochs=1), THREE)
    assert len(trained) == 11


def test_without_inheritance_the_way_does_not_matter(trained: list[int]) -> None:  # noqa: F811
    study = run(make(), network=THREE)
    sparse = add(study, make(train_prefixes=2), THREE)
    assert list(sparse.intermediate_values) == [1, 2] and len(trained) == 3


def test_leaders_and_refits_start_from_scratch() -> None:
    study = run(make(inherit=True), network=THREE)
    plain = run(make(), network=THREE)
    for it in (study, plain):
        it.trials[0].user_attrs["architecture"] = THREE
    rows = [make(inherit=flag).confirm(study, top=1, repeats=1)[0].accuracies for flag in (True, False)]
    assert rows[0] == rows[1]
    refits = [make(inherit=flag).refit(study.best_trial).test_accuracy for flag in (True, False)]
    assert refits[0] == refits[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inherited_epochs": 0, "inherit": True}, "inherited_epochs is 0; it must be a positive integer"),
        ({"inherited_epochs": 1}, "inherited_epochs is 1; it must be None unless inherit is True"),
        ({"inherit": True, "objectives": ("accuracy", "macs")}, "inherit is True; with several objectives"),
        ({"train_prefixes": 0}, "train_prefixes is 0"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("body", "carried"),
    [
        ([nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU()], False),
        ([nn.Conv2d(8, 8, (3, 1)), nn.ReLU()], False),
        ([nn.Conv2d(8, 8, 3, dilation=2), nn.ReLU()], False),
        ([nn.Conv2d(8, 8, 3, padding=(1, 0)), nn.ReLU()], False),
        ([nn.MaxPool2d((2, 1))], False),
        ([nn.AvgPool2d(3, ceil_mode=True)], False),
        ([nn.Flatten(2), nn.Linear(100, 20)], False),
        ([nn.Linear(10, 12)], False),
        ([nn.Conv2d(8, 8, (3, 3), padding=1), nn.ReLU()], True),
    ],
    ids=str,
)
def test_modules_of_anybodys_are_carried_through_or_begin_at_random(
    body: list[nn.Module], carried: bool
) -> None:
    shape = (8, 10, 10)
    front = [nn.Conv2d(1, 8, 3), nn.ReLU()]
    parent = nn.Sequential(*front, nn.Flatten(), nn.Linear(800, CLASSES))
    features = nn.Sequential(*body)(torch.zeros(1, *shape)).numel()
    child = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), *body, nn.Flatten(), nn.Linear(features, CLASSES))
    assert inherit(child, parent, shape) is carried
    assert torch.equal(child[0].weight, parent[0].weight)  # type: ignore[arg-type]
    if carried:
        assert torch.allclose(child(images()), parent(images()), atol=1e-5)
