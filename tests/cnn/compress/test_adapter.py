"""Networks with other widths: right sizes, right weights, and a clear error where that is impossible."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.compress.adapter import IntegerRange, NarrowingAdapter
from tests.cnn.compress.modules import MODULES, Mixed, inception, vgg

SHAPE = (1, 8, 8)


def drawn(adapter: NarrowingAdapter, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    return {name: int(rng.choice(range(it.low, it.high + 1, it.step))) for name, it in adapter.ranges.items()}


def trained(make) -> nn.Module:
    """With statistics and offsets as after a training."""
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                part.running_mean.normal_()
                part.weight.normal_()
                part.bias.normal_()
    return module


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_network_of_any_widths_runs_and_learns(make) -> None:
    adapter = NarrowingAdapter(make(), SHAPE)
    images = torch.randn(3, *SHAPE)
    for seed in range(5):
        network = adapter.build(drawn(adapter, seed))
        network(images).square().mean().backward()
        assert all(it.grad is not None and it.grad.shape == it.shape for it in network.parameters())
        assert network.eval()(images).shape == make().eval()(images).shape


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_original_comes_back(make) -> None:
    module = trained(make)
    adapter = NarrowingAdapter(module, SHAPE)
    images = torch.randn(3, *SHAPE)
    assert torch.equal(adapter.build(adapter.original()).eval()(images), module(images))


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_filters_that_do_nothing_are_left_out_and_nothing_changes(make) -> None:
    """Filters of zeros are the least important ones, so without them the function is the same.

    It is wrong if one feature is taken for another anywhere: behind a concatenation, flattening, or a sum.
    """
    module = trained(make)
    adapter = NarrowingAdapter(module, SHAPE, kernels=False)
    values = adapter.original()
    dead: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for name, allowed in adapter.ranges.items():
        values[name] = max(allowed.low, allowed.high - 2)
        dead[name] = torch.randperm(allowed.high, generator=generator)[: allowed.high - values[name]]

    for name, filters in dead.items():
        for tied in TIED.get((make.__name__, name), [name.removesuffix(".channels")]):
            silence(module, tied, filters)
    images = torch.randn(3, *SHAPE)
    network = adapter.inherit(module, values).eval()
    before = sum(it.numel() for it in module.parameters())
    assert sum(it.numel() for it in network.parameters()) < before
    torch.testing.assert_close(network(images), module(images))


# Layers with one width together, by module and parameter.
TIED = {
    ("Residual", "stem.channels"): ["stem", "first.conv2"],
    ("Residual", "second.conv2.channels"): ["second.conv2", "second.downsample.0"],
    ("Mixed", "stem.channels"): ["stem", "twice", "depthwise", "gate"],
}


def silence(module: nn.Module, name: str, filters: Tensor) -> None:
    """Let filters of a layer, and of the normalisation behind it, give zeros."""
    parts = dict(module.named_modules())
    part = parts[name]
    names = list(parts)
    behind = parts[names[(names.index(name) + 1) % len(names)]]
    with torch.no_grad():
        assert isinstance(part.weight, Tensor)
        weight = part.weight.transpose(0, 1) if isinstance(part, nn.ConvTranspose2d) else part.weight
        weight[filters] = 0
        if isinstance(part.bias, Tensor):
            part.bias[filters] = 0
        if isinstance(behind, nn.BatchNorm2d):
            behind.weight[filters] = behind.bias[filters] = 0


def test_widths_are_named_after_layers_and_tied_ones_come_once() -> None:
    assert list(NarrowingAdapter(MODULES["residual"](), SHAPE).ranges) == [
        *("stem.channels", "stem.kernel", "first.conv1.channels", "first.conv1.kernel", "first.conv2.kernel"),
        *("second.conv1.channels", "second.conv1.kernel", "second.conv2.channels", "second.conv2.kernel"),
    ]
    ranges = NarrowingAdapter(Mixed(), SHAPE, min_share=0.5).ranges
    assert ranges["stem.channels"] == IntegerRange(3, 6, log=True)
    assert ranges["depthwise.kernel"] == IntegerRange(1, 3, step=2)
    assert "gate.channels" not in ranges and "end.channels" not in ranges


def test_all_widths_are_scaled_at_once() -> None:
    adapter = NarrowingAdapter(vgg(), SHAPE)
    assert adapter.scaled(1) == adapter.original()
    assert adapter.scaled(0.5) == {
        **{"features.0.channels": 2, "features.0.kernel": 3, "features.4.channels": 3},
        **{"features.4.kernel": 3, "features.7.channels": 3, "features.7.kernel": 3},
        "classifier.0.channels": 4,
    }
    assert set(adapter.scaled(0.001).values()) == {1, 3}


def test_smaller_kernels_keep_their_centres() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 5, padding=4, dilation=2, padding_mode="reflect"))
    adapter = NarrowingAdapter(nn.Sequential(*module, nn.Flatten(), nn.Linear(128, 3)), SHAPE)
    inner = adapter.build({"0.channels": 2, "0.kernel": 3})[0]  # type: ignore[index]
    with torch.no_grad():
        part = adapter.build(adapter.original())[0]  # type: ignore[index]
        weight = part.weight
        assert torch.equal(inner.weight, weight[:, :, 1:4, 1:4])
        weight[:, :, [0, 4]] = 0
        weight[:, :, :, [0, 4]] = 0
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(inner(images), part(images))


def test_layers_that_are_kept_stay() -> None:
    module = inception()
    adapter = NarrowingAdapter(module, SHAPE, keep=["2.*", "0"])
    assert {name.partition(".")[0] for name in adapter.ranges} == {"4"}
    lowest = adapter.build({name: it.low for name, it in adapter.ranges.items()})
    assert str(lowest[2]) == str(module[2])  # type: ignore[index]
    with pytest.raises(ValueError, match="keep contains 'x', which no layer matches; there are 0, 2.branch1"):
        NarrowingAdapter(module, SHAPE, keep=["x"])


class Grouped(nn.Module):
    """Operations that fix widths: groups of convolutions, normalisation in groups, a product by pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Conv2d(1, 4, 3, padding=1)
        self.stem = nn.Conv2d(4, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.hidden = nn.Conv2d(8, 4, 1)
        self.end = nn.Linear(4 * 64, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.grouped(self.stem(self.free(images))))
        logits: Tensor = self.end(self.hidden(features).reshape(-1, 256))
        return logits


def test_what_is_unknown_keeps_the_widths_that_reach_it() -> None:
    adapter = NarrowingAdapter(Grouped(), SHAPE)
    assert [name for name in adapter.ranges if name.endswith("channels")] == ["free.channels"]
    adapter.build({name: it.low for name, it in adapter.ranges.items()})(torch.randn(2, *SHAPE))


def test_a_copy_is_narrowed() -> None:
    module = vgg()
    before = copy.deepcopy(module.state_dict())
    adapter = NarrowingAdapter(module, SHAPE)
    adapter.build({name: it.low for name, it in adapter.ranges.items()})
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.end = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.end(images.flatten(1))
        return logits, logits


class Resized(nn.Module):
    """The size of the output depends on the width of a layer, divided by ``share``."""

    def __init__(self, share: int) -> None:
        super().__init__()
        self.share = share
        self.hidden = nn.Conv2d(1, 8 * share, 1)
        self.end = nn.Conv2d(8 * share, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.hidden(images)
        logits: Tensor = self.end(F.interpolate(features, size=(8, features.size(1) // self.share)))
        return logits


def shared() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64))
    module[2].weight = module[1].weight
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Branching(), "the Branching cannot be traced by torch.fx .*; pass an Adapter"),
        (TwoOutputs(), "the TwoOutputs does not return one tensor"),
        (Resized(8), "the Resized does not run with other widths .*keep"),
        (
            Resized(1),
            r"the Resized has outputs of shape \(3, 8, 1\) with other widths and \(3, 8, 8\) without",
        ),
        (shared(), "the layers '1' and '2' share a parameter"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"the Sequential does not accept inputs of shape \(1, 8, 8\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "no layer of the Sequential may change"),
        ("vgg11", "module is 'vgg11'; it must be a torch.nn.Module"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_module_that_cannot_be_narrowed_is_an_error(module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NarrowingAdapter(module, SHAPE)


@pytest.mark.parametrize("share", [0, 1.5, "x", True])
def test_a_share_out_of_range_is_an_error(share) -> None:
    with pytest.raises(ValueError, match="it must be above 0 and at most 1"):
        NarrowingAdapter(vgg(), SHAPE, min_share=share)
