"""The prior for layers: what it tells of a network, and that empty places tell nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import optuna_trlhpo.agent
from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.agent.layer_policy import PolicyTransformer, n_layer_features, n_space_features
from optuna_trlhpo.agent.layer_prior import (
    EMBEDDING,
    POLICY,
    VOCABULARIES,
    LayerPrior,
    LayerTransformer,
    load_priors,
    padded,
    prefix_of,
)
from optuna_trlhpo.layers import TABLE_I
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.space import LayerSpace

LAYER_FEATURES = n_layer_features(TABLE_I)
MEAN, DEVIATION = torch.linspace(-1, 2, EMBEDDING), torch.linspace(0.5, 3, EMBEDDING)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Those of a transformer that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = LayerTransformer()
    return {**transformer.state_dict(), "mean": MEAN, "deviation": DEVIATION, "unit": torch.tensor(0.75)}


@pytest.fixture(scope="module")
def transformer(tensors: dict[str, Tensor]) -> LayerTransformer:
    made = LayerTransformer().eval()
    made.load_state_dict({name: tensors[name] for name in made.state_dict()})
    return made


def layer_features(n: int, space: LayerSpace | None = None, seed: int = 0) -> list[np.ndarray]:
    """Of random networks, deep and shallow."""
    space, rng = space or LayerSpace(), np.random.default_rng(seed)
    made = [
        space.layer_features(space.encode(space.draw(rng, depth=1 + k % space.max_layers))) for k in range(n)
    ]
    assert all(row is not None for row in made)
    return [row for row in made if row is not None]


def attention(transformer: LayerTransformer, some: Sequence[np.ndarray]) -> tuple[Tensor, list[Tensor]]:
    with torch.inference_mode():
        return transformer(*padded(some))


# Padding ----------------------------------------------------------------------------------------------


def test_rows_of_different_lengths() -> None:
    some = [np.full((1, LAYER_FEATURES), 0.5), np.full((3, LAYER_FEATURES), 0.25)]
    table, filled = padded(some)
    assert filled.tolist() == [[True, False, False], [True, True, True]]
    assert table.shape == (2, 3, LAYER_FEATURES) and table.dtype == torch.float32
    assert table[0].tolist() == [[0.5] * LAYER_FEATURES, [0.0] * LAYER_FEATURES, [0.0] * LAYER_FEATURES]
    assert (table[1] == 0.25).all()


def test_a_network_is_the_same_alone_and_beside_deeper_ones(tensors: dict[str, Tensor]) -> None:
    prior, some = LayerPrior(tensors), layer_features(12)
    together = prior(some)
    assert len({len(row) for row in some}) == 6
    for row, found in zip(some, together, strict=True):
        np.testing.assert_allclose(prior([row])[0], found, atol=1e-5)
    assert np.ptp(together[:, :-1], axis=0).min() > 1e-3  # they are not all alike


def test_empty_places_tell_nothing_whatever_is_in_them(transformer: LayerTransformer) -> None:
    table, filled = padded(layer_features(6))
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=table.shape)).float()
    with torch.inference_mode():
        clean, _ = transformer(table, filled)
        dirty, _ = transformer(torch.where(filled.unsqueeze(-1), table, noise), filled)
    torch.testing.assert_close(clean, dirty)


def test_no_layer_attends_to_an_empty_place(transformer: LayerTransformer) -> None:
    some = layer_features(6)
    _, weights = attention(transformer, some)
    assert len(weights) == 2
    for of_block in weights:
        assert of_block.shape[2:] == (6, 6)
        torch.testing.assert_close(of_block.sum(dim=-1), torch.ones_like(of_block[..., 0]))
        for row, of_network in zip(some, of_block, strict=True):
            n = len(row)
            assert (of_network[:, :n, n:] == 0).all() and (of_network[:, :n, :n] > 0).all()


def test_the_order_of_layers_matters(tensors: dict[str, Tensor]) -> None:
    prior, row = LayerPrior(tensors), layer_features(4)[3]
    assert np.abs(prior([row]) - prior([row[::-1].copy()])).max() > 1e-3


# What it tells ----------------------------------------------------------------------------------------


def test_features_and_their_means(tensors: dict[str, Tensor], transformer: LayerTransformer) -> None:
    """What a task like those seen scores is expected to be is the embedding times the mean weights."""
    prior, some = LayerPrior(tensors), layer_features(12)
    embedded = attention(transformer, some)[0].double().numpy()
    features = prior(some)
    assert features.shape == (12, EMBEDDING + 1) and features.dtype == np.float64
    np.testing.assert_allclose(features[:, :-1], embedded * DEVIATION.numpy(), atol=1e-5)
    assert (features[:, -1] == 1).all() and prior.means[-1] == 0  # a constant, of which nothing is expected
    np.testing.assert_allclose(features @ prior.means, embedded @ MEAN.numpy(), atol=1e-5)
    assert prior.unit == 0.75


def test_the_tensors_that_are_passed_are_left_alone(tensors: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    LayerPrior(tensors)(layer_features(3))
    assert tensors.keys() == before.keys()
    assert all(torch.equal(tensors[name], before[name]) for name in before)


def test_a_prior_of_ones_own(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "mine.safetensors")
    some = layer_features(3)
    (mine,) = load_priors(tmp_path / "mine.safetensors")
    np.testing.assert_array_equal(mine(some), LayerPrior(tensors)(some))
    assert not np.allclose(load_priors()[0](some), LayerPrior(tensors)(some))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        load_priors(tmp_path / "nowhere.safetensors")


def test_layers_are_described_by_as_many_numbers_as_files_tell_of() -> None:
    for vocabulary in VOCABULARIES:
        space = LayerSpace(vocabulary=vocabulary, max_parameters=9000)
        features = space.layer_features(space.encode(space.draw(np.random.default_rng(0))))
        assert features is not None and features.shape[1] == n_layer_features(vocabulary)
        assert space.space_features.shape == (n_space_features(vocabulary),)
        assert (0 <= features).all() and (features <= 1.01).all()
        assert (0 < space.space_features).all() and (space.space_features <= 1).all()


@pytest.fixture(scope="module")
def of_cnn() -> dict[str, Tensor]:
    """A prior with an actor for the layers of `CNN`, which has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformer, policy = LayerTransformer(CNN), PolicyTransformer(CNN)
    return {
        **transformer.state_dict(),
        **{POLICY + name: it for name, it in policy.state_dict().items()},
        **{"mean": MEAN.clone(), "deviation": DEVIATION.clone(), "unit": torch.tensor(0.5)},
    }


def in_file(of_cnn: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix_of(CNN) + name: it for name, it in of_cnn.items()}


def test_a_file_may_hold_a_prior_for_each_vocabulary(
    tensors: dict[str, Tensor], of_cnn: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(tensors | in_file(of_cnn), tmp_path / "both.safetensors")
    table, cnn = load_priors(tmp_path / "both.safetensors")
    assert table.vocabulary == TABLE_I and table.policy is None and table.unit == 0.75
    assert cnn.vocabulary == CNN and cnn.policy is not None and cnn.unit == 0.5
    save_file(in_file(of_cnn), tmp_path / "one.safetensors")
    (alone,) = load_priors(tmp_path / "one.safetensors")
    some = layer_features(6, LayerSpace(vocabulary=CNN))
    np.testing.assert_array_equal(alone(some), cnn(some))
    assert alone.vocabulary == CNN


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("cnn.mean", None, "the tensor 'cnn.mean' is missing; the prior for the layers of kinds.CNN has "),
        (
            "cnn.other",
            torch.zeros(1),
            "the tensor 'cnn.other' is unknown; the prior for the layers of ",
        ),
        ("cnn.unit", torch.tensor(0.0), "'cnn.unit' is 0; it must be positive"),
        ("cnn.policy.kind.bias", torch.zeros(4), "'cnn.policy.kind.bias' has shape [4]; it must be [11]"),
        ("cnn.inputs.weight", torch.zeros(32, 11), "has shape [32, 11]; it must be [32, 18]"),
    ],
)
def test_a_fault_in_either_prior_is_named(
    name: str,
    tensor: Tensor | None,
    fault: str,
    tensors: dict[str, Tensor],
    of_cnn: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file(changed(tensors | in_file(of_cnn), name, tensor), path)
    with pytest.raises(ValueError, match=re.escape(fault)):
        load_priors(path)


def test_a_stray_tensor_beside_one_prior_is_no_other_prior(of_cnn: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(in_file(of_cnn) | {"mean2": torch.zeros(3)}, tmp_path / "stray.safetensors")
    with pytest.raises(ValueError, match="the tensor 'mean2' is unknown"):
        load_priors(tmp_path / "stray.safetensors")


def changed(tensors: dict[str, Tensor], name: str, value: Tensor | None) -> dict[str, Tensor]:
    rest = {key: tensor for key, tensor in tensors.items() if key != name}
    return rest if value is None else rest | {name: value}


def with_one(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


NAN, INFINITE = float("nan"), float("inf")
WRONG: dict[str, tuple[str, Callable[[Tensor], Tensor | None], str]] = {
    "no mean": (
        "mean",
        lambda it: None,
        "the tensor 'mean' is missing; the prior for the layers of Table I has 35 tensors",
    ),
    "no weights": (
        "norm.bias",
        lambda it: None,
        "the tensor 'norm.bias' is missing; the prior for the layers of Table I has 35 tensors",
    ),
    "more": (
        "other",
        lambda it: torch.zeros(3),
        "the tensor 'other' is unknown; the prior for the layers of Table I has 35 others",
    ),
    "a longer mean": ("mean", lambda it: torch.zeros(9), "'mean' has shape [9]; it must be [8]"),
    "a mean alone": ("mean", lambda it: torch.tensor(0.5), "'mean' has shape []; it must be [8]"),
    "a table of means": ("mean", lambda it: it[None], "'mean' has shape [1, 8]; it must be [8]"),
    "one deviation": ("deviation", lambda it: it[:1].clone(), "'deviation' has shape [1]; it must be [8]"),
    "units": ("unit", lambda it: it[None], "'unit' has shape [1]; it must be []"),
    "features of 12": ("inputs.weight", lambda it: torch.zeros(32, 12), "[32, 12]; it must be [32, 11]"),
    "one axis": ("inputs.weight", lambda it: it[0].clone(), "has shape [11]; it must be [32, 11]"),
    "another width": ("norm.weight", lambda it: torch.ones(64), "has shape [64]; it must be [32]"),
    "doubles": ("mean", lambda it: it.double(), "'mean' has dtype torch.float64; it must be torch.float32"),
    "integers": (
        "unit",
        lambda it: torch.tensor(1),
        "'unit' has dtype torch.int64; it must be torch.float32",
    ),
    "halves": ("norm.bias", lambda it: it.half(), "has dtype torch.float16; it must be torch.float32"),
    "a NaN": ("norm.bias", lambda it: with_one(it, NAN), "has the value nan; its values must be finite"),
    "infinite": ("mean", lambda it: with_one(it, -INFINITE), "has the value -inf; its values must be finite"),
    "no deviation": ("deviation", lambda it: with_one(it, 0.0), "the value 0; its values must be positive"),
    "negative": ("deviation", lambda it: with_one(it, -0.5), "the value -0.5; its values must be positive"),
    "a NaN unit": ("unit", lambda it: torch.tensor(NAN), "the value nan; its values must be finite"),
    "tiny": ("deviation", lambda it: with_one(it, 1e-44), "'mean' divided by it must be finite"),
    "no unit": ("unit", lambda it: torch.tensor(0.0), "'unit' is 0; it must be positive"),
    "a negative unit": ("unit", lambda it: torch.tensor(-0.5), "'unit' is -0.5; it must be positive"),
    "huge": (
        "output.2.weight",
        lambda it: torch.full_like(it, 3e38),
        "the features that it computes for a network must be finite",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(
    case: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """When it is loaded, not at the first trial."""
    name, change, sentence = WRONG[case]
    path = tmp_path / "wrong.safetensors"
    save_file(changed(tensors, name, change(tensors.get(name, torch.zeros(1)))), path)
    expected = f"^{re.escape(str(path))} is not a prior for layers: .*{re.escape(sentence)}"
    with pytest.raises(ValueError, match=expected) as caught:
        load_priors(path)
    assert str(caught.value).count("\n") == 0
    with pytest.raises(ValueError, match=expected):
        TRLHPOSampler(layer_prior=path)


EMPTY = b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "  # a safetensors file without tensors


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04.", EMPTY, b"PK"])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"^{re.escape(str(path))} is not a prior for layers: (it must|the tensor)"
    ):
        load_priors(path)


def test_a_file_that_is_cut_off_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="it must be a safetensors file"):
        load_priors(path)


def test_loading_leaves_the_global_generator_alone(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    before = torch.get_rng_state()
    LayerPrior(tensors)
    save_file(tensors, tmp_path / "mine.safetensors")
    load_priors(tmp_path / "mine.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


# The one that comes with the package --------------------------------------------------------------------


def test_the_file_that_comes_with_the_package_is_small() -> None:
    file = resources.files(optuna_trlhpo.agent) / "layer-prior.safetensors"
    assert 0 < len(file.read_bytes()) < 1_000_000


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_the_prior_that_comes_with_the_package(shape: tuple[int, int, int]) -> None:
    prior = load_priors()[0]
    found = prior(layer_features(60, LayerSpace(input_shape=shape)))
    assert found.shape == (60, EMBEDDING + 1) and prior.means.shape == (EMBEDDING + 1,)
    assert np.isfinite(found).all() and np.isfinite(prior.means).all()
    assert np.isfinite(prior.unit) and prior.unit > 0
    # It tells networks apart, on the scale of scores: of about deviation 1.
    assert 0.1 < (found @ prior.means).std() < 10
