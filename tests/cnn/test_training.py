"""Training: it learns, in the stated order and number of steps, and twice the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.training import cpu_threads, learning_rate_factor, predict_correct, train


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def two_blobs(n: int = 64) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    images = torch.randn(n, 1, 4, 4, generator=generator()) + 2.0 * labels[:, None, None, None]
    return images, labels


def classifier() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def test_it_learns_what_can_be_learnt() -> None:
    images, labels = two_blobs()
    model = classifier()
    train(model, images, labels, epochs=10, batch_size=16, learning_rate=0.05, generator=generator())
    assert predict_correct(model, images, labels).float().mean() > 0.95


def test_equal_generators_give_equal_weights_and_others_do_not() -> None:
    images, labels = two_blobs()
    models = [classifier() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, images, labels, epochs=2, batch_size=10, learning_rate=0.01, generator=generator(seed))
    first, again, other = (model[1].weight for model in models)  # type: ignore[index]
    assert first.equal(again)
    assert not first.equal(other)


def test_one_full_batch_step_is_one_step_of_adam() -> None:
    images, labels = two_blobs()
    model = classifier()
    expected = copy.deepcopy(model)
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    F.cross_entropy(expected(images), labels).backward()
    optimizer.step()
    train(
        model,
        images,
        labels,
        epochs=1,
        batch_size=len(images),
        learning_rate=0.01,
        schedule="constant",
        generator=generator(),
    )
    torch.testing.assert_close(model.state_dict(), expected.state_dict())


class _Diary(nn.Module):
    """Notes the images of every batch; an image is its own number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.batches: list[list[int]] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.flatten().int().tolist())
        self.modes.append(self.training)
        return images.reshape(-1, 1) * self.scale


def test_every_image_comes_once_an_epoch_in_a_fresh_order() -> None:
    images, labels, model = (
        torch.arange(10.0).reshape(10, 1, 1, 1),
        torch.zeros(10, dtype=torch.long),
        _Diary(),
    )
    train(model, images, labels, epochs=2, batch_size=4, learning_rate=0.01, generator=generator())
    assert [len(batch) for batch in model.batches] == [4, 4, 2, 4, 4, 2]
    first, second = sum(model.batches[:3], []), sum(model.batches[3:], [])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != sorted(first)
    assert all(model.modes)


def test_prediction_keeps_the_order_over_several_batches() -> None:
    n = 2300
    images, model = torch.arange(float(n)).reshape(n, 1, 1, 1) - 1000, _Diary()
    with torch.no_grad():
        model.scale.copy_(torch.tensor([0.0, 1.0]))  # class 1 for positive images
    correct = predict_correct(model, images, torch.ones(n, dtype=torch.long))
    assert correct.dtype == torch.bool and correct.tolist() == [i > 1000 for i in range(n)]
    assert len(model.batches) > 3 and not any(model.modes)


def test_the_learning_rate_by_hand() -> None:
    # 8 steps, a quarter of them to climb: 1/2, 1; then (8 - step) / 6.
    factors = [learning_rate_factor("one_cycle", step, 8) for step in range(8)]
    assert factors == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert [learning_rate_factor("constant", step, 3) for step in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999])
def test_the_learning_rate_stays_in_range(steps: int) -> None:
    factors = [learning_rate_factor("one_cycle", step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_threads_are_set_within_and_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_the_gpu() -> None:
    images, labels = (t.cuda() for t in two_blobs())
    model = classifier().cuda()
    g = generator(0, "cuda")
    train(model, images, labels, epochs=10, batch_size=16, learning_rate=0.05, generator=g)
    correct = predict_correct(model, images, labels)
    assert correct.is_cuda and correct.float().mean() > 0.95
