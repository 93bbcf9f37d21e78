"""Training: it learns, in the stated order and number of steps, and twice the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optuna_trlhpo.layers.kinds  # noqa: F401 - makes its layers known to parse
from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training.cuda_graphs import CapturedSteps
from optuna_trlhpo.cnn.training.fast_layout import FastOrder, in_fast_order, place
from optuna_trlhpo.cnn.training.graph_capture import own_stream
from optuna_trlhpo.cnn.training.loop import learning_rate_factor, predict_correct, train
from optuna_trlhpo.layers import parse


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


def network(text: str) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(parse(text), (1, 12, 12), 3)


def test_an_epochs_end_may_end_the_training() -> None:
    images, labels = two_blobs()
    model = classifier()
    epochs: list[int] = []
    after = copy.deepcopy(model)
    setting = {"batch_size": 16, "learning_rate": 0.01, "schedule": "constant"}

    def stop_after_two(epoch: int) -> bool:
        epochs.append(epoch)
        return epoch == 2

    train(
        model,
        images,
        labels,
        epochs=9,
        generator=generator(),
        after_epoch=stop_after_two,
        **setting,  # type: ignore[arg-type]
    )
    assert epochs == [1, 2]
    train(after, images, labels, epochs=2, generator=generator(), **setting)  # type: ignore[arg-type]
    torch.testing.assert_close(model.state_dict(), after.state_dict())


def gradients_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU])
def test_pooling_before_the_activation_changes_nothing(activation: type[nn.Module]) -> None:
    model = network("Conv(8,3,1) > MaxPool(3,2,1) > FCL(16,relu,bias)")
    model[1] = activation()
    fast = in_fast_order(model)
    assert isinstance(fast, nn.Sequential)
    assert [type(part) for part in fast][:3] == [nn.Conv2d, nn.MaxPool2d, nn.Flatten]
    assert isinstance(fast[3], activation)
    assert [type(part) for part in model][:3] == [nn.Conv2d, activation, nn.MaxPool2d]  # it is left as it is
    images, labels = torch.randn(20, 1, 12, 12, generator=generator()), torch.arange(20) % 3
    gradients = []
    for it in (model, fast):
        it.zero_grad()
        F.cross_entropy(it(images), labels).backward()
        gradients.append(gradients_of(model))
    torch.testing.assert_close(fast(images), model(images), rtol=0, atol=0)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("pool", "passes"), [("MaxPool(7,1,3)", 2), ("MaxPool(6,1,0)", 2), ("MaxPool(5,1,0)", 1)]
)
def test_pooling_in_two_passes_changes_nothing(pool: str, passes: int) -> None:
    model = network(f"Conv(8,3,1) > {pool}")
    fast = in_fast_order(model)
    assert len([part for part in fast.modules() if isinstance(part, nn.MaxPool2d)]) == passes
    images, labels = torch.randn(20, 1, 12, 12, generator=generator()), torch.arange(20) % 3
    gradients = []
    for it in (model, fast):
        it.zero_grad()
        F.cross_entropy(it(images), labels).backward()
        gradients.append(gradients_of(model))
    torch.testing.assert_close(fast(images), model(images), rtol=0, atol=0)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("Conv(8,3,1) > MaxPool(2,2,0)", True),
        ("Conv(8,3,1) > MaxPool(7,1,3) > FCL(16,relu,bias)", True),
        ("Conv(8,3,1) > MaxPool(2,2,0) > BatchNorm() > FCL(16,relu,bias)", True),
        ("Conv(8,3,1)", False),
        ("Residual(8,3,1)", False),
    ],
)
def test_flattening_by_pixel_changes_nothing(text: str, turned: bool) -> None:
    model = place(network(text), torch.device("cpu"))
    model.eval()
    images = torch.randn(20, 1, 12, 12, generator=generator())
    expected, weights = model(images), copy.deepcopy(model.state_dict())
    fast = FastOrder(model)
    with fast.by_pixel():
        torch.testing.assert_close(fast.model(images), expected)
        same = all(weights[name].equal(value) for name, value in model.state_dict().items())
        assert same != turned
    with pytest.raises(KeyError), fast.by_pixel():
        raise KeyError
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)


def test_an_epoch_ends_with_all_weights_in_place() -> None:
    images, labels = torch.randn(60, 1, 12, 12, generator=generator()), torch.arange(60) % 3
    model = place(network("Conv(8,3,1) > MaxPool(2,2,0)"), torch.device("cpu"))
    seen = []

    def judge(_: int) -> None:
        with torch.no_grad():
            right = model.eval()(images).argmax(dim=1) == labels  # by the model as it is written
        seen.append(right.equal(predict_correct(model, images, labels)))

    setting = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "generator": generator()}
    train(model, images, labels, after_epoch=judge, **setting)  # type: ignore[arg-type]
    assert seen == [True] * 3


def test_what_is_not_increasing_stays_before_the_pooling() -> None:
    parts = nn.Sequential(
        nn.GELU(), nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(2), nn.Flatten()
    )
    fast = in_fast_order(parts)
    assert isinstance(fast, nn.Sequential)
    assert [type(part) for part in fast] == [type(part) for part in parts]


@pytest.mark.parametrize(
    ("text", "by_pixel"),
    [
        ("Conv(8,3,1) > Conv(8,3,1)", False),
        ("Conv(8,3,1) > BatchNorm() > Conv(8,3,1)", False),
        ("Conv(8,3,1) > MaxPool(2,2,0) > Conv(8,3,1)", True),
        ("Conv(8,3,1) > AvgPool(2,2,0) > Conv(8,3,1)", True),
        ("Residual(8,3,1)", True),
    ],
)
def test_weights_lie_as_is_fastest(text: str, by_pixel: bool) -> None:
    model = place(network(text), torch.device("cpu"))
    kernels = [part.weight for part in model.modules() if isinstance(part, nn.Conv2d)]
    kernel = next(it for it in kernels if it.shape[1] > 1 and it.shape[2] > 1)  # else both layouts are one
    assert kernel.is_contiguous(memory_format=torch.channels_last) == by_pixel
    assert kernel.is_contiguous() != by_pixel


def test_half_precision_learns_too_and_keeps_weights_whole() -> None:
    images, labels = two_blobs()
    model = classifier()
    setting = {"epochs": 10, "batch_size": 16, "learning_rate": 0.05, "generator": generator()}
    train(model, images, labels, precision="bfloat16", **setting)  # type: ignore[arg-type]
    assert predict_correct(model, images, labels).float().mean() > 0.95
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_the_gpu() -> None:
    images, labels = (t.cuda() for t in two_blobs())
    model = classifier().cuda()
    g = generator(0, "cuda")
    train(model, images, labels, epochs=10, batch_size=16, learning_rate=0.05, generator=g)
    correct = predict_correct(model, images, labels)
    assert correct.is_cuda and correct.float().mean() > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("text", ["Conv(8,3,1) > MaxPool(2,2,0)", "Conv(8,3,1) > BatchNorm()"])
def test_a_captured_training_ends_where_the_plain_one_does(text: str) -> None:
    images, labels = torch.randn(72, 1, 12, 12).cuda(), (torch.arange(72) % 3).cuda()
    captured, plain = network(text).cuda(), network(text).cuda()
    setting = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    train(captured, images, labels, generator=generator(0, "cuda"), **setting)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CapturedSteps, "try_to_capture", lambda *_: None)
        train(plain, images, labels, generator=generator(0, "cuda"), **setting)  # type: ignore[arg-type]
    torch.testing.assert_close(captured.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    assert all(parameter.grad is None for parameter in captured.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_cannot_be_captured_is_trained_step_by_step() -> None:
    images, labels = torch.randn(64, 1, 12, 12).cuda(), (torch.arange(64) % 3).cuda()
    for text, captured in (("Conv(8,3,1)", True), ("Conv(8,3,1) > Dropout(20)", False)):
        model = network(text).cuda()

        def loss(batch: torch.Tensor, model: nn.Module = model) -> torch.Tensor:
            return F.cross_entropy(model(images[batch]), labels[batch])

        before = [parameter.clone() for parameter in model.parameters()]
        with own_stream(images.device):  # the default stream cannot be captured
            steps = CapturedSteps(model, loss, 16)
            for batch in torch.arange(64, device="cuda").split(16):
                steps(batch, 0.01)
        assert (steps.graph is not None) == captured == (steps.reason == "")
        assert not any(a.equal(b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "parts",
    [
        [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(8, 4, 1), nn.Tanh())],
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d((7, 3), stride=1), nn.AvgPool2d(2)],
        [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.MaxPool2d(6, stride=1, dilation=2), nn.ReLU()],
        [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.MaxPool2d(6, stride=1, padding=(1, 2)), nn.ReLU()],
    ],
    ids=["a sequence", "oblong", "dilated", "padded oblong"],
)
def test_modules_of_anybodys_compute_the_same_in_fast_order(parts: list[nn.Module]) -> None:
    images = torch.randn(5, 1, 14, 14, generator=generator())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(*parts)
        model = nn.Sequential(*body, nn.Flatten(), nn.Linear(body(images).flatten(1).shape[1], 3))
    place(model, torch.device("cpu"))
    fast = FastOrder(model)
    expected = model(images)
    with fast.by_pixel():
        assert torch.allclose(fast.model(images), expected, atol=1e-5)
