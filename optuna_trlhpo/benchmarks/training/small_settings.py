"""Settings of `small_networks`: the data, the limits, and the arguments of all trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optuna_trlhpo.benchmarks.training.defaults import SMALL_SETTINGS
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.layers.kinds import MLP
from optuna_trlhpo.layers.sequences import CNN1D

_TEST_SHARE = 5
"""One in so many rows of a table without a test split is a test row."""


@dataclass(frozen=True)
class Setting:
    """The arguments of a search and of the trainings behind it.

    Attributes:
        data: Name of the data, as for `inputs_of`.
        limits: Limits of the networks, as arguments of `CNNObjective`.
        search: Sizes of the splits and number of epochs of the search, as arguments of `CNNObjective`.
        whole: Those of the longer trainings, with their learning rate.
        leaders: Number of networks that are trained for longer.
        refit_epochs: Number of epochs of a refit.
        augment: Augmentation of the longer trainings, as for `CNNObjective`.
        vocabulary: Layers of the networks. None: those for images.
    """

    data: str
    limits: dict[str, Any]
    search: dict[str, Any]
    whole: dict[str, Any]
    leaders: int
    refit_epochs: int
    augment: str | None = "characters"
    vocabulary: Vocabulary | None = None

    @property
    def text(self) -> str:
        """All arguments, as the field ``form`` of a row."""
        parts = {"limits": self.limits, "search": self.search, "leaders and refits": self.whole}
        texts = [
            f"{part}: {', '.join(f'{name} {value}' for name, value in own.items())}"
            for part, own in parts.items()
        ]
        if self.vocabulary is not None:
            texts.append(f"layers of {self.vocabulary.name}")
        return "; ".join([*texts, f"{self.leaders} leaders", f"{self.refit_epochs} epochs of a refit"])


def inputs_of(name: str) -> Any:
    """Return the data with this name, as `CNNObjective` takes them.

    ``"mnist1d"`` are the 4,000 and 1,000 sequences of 40 steps that MNIST-1D's generator makes by default
    (Greydanus and Kobak, 2024, arXiv 2011.14439). ``"cancer"`` are the 569 rows of 30 features of
    scikit-learn's breast cancer data, of which every fifth, after mixing, is a test row.

    Raises:
        ImportError: If the package with the data is missing.
    """
    if name == "mnist1d":
        try:
            from mnist1d.data import get_dataset_args, make_dataset
        except ImportError as error:
            raise ImportError(
                'mnist1d needs an optional extra: pip install "optuna-trlhpo[bench]"'
            ) from error
        made = make_dataset(get_dataset_args())
        x, x_test = (made[key].astype(np.float32)[..., None] for key in ("x", "x_test"))
        return x, made["y"], x_test, made["y_test"]
    if name == "cancer":
        from sklearn.datasets import load_breast_cancer

        rows, labels = load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(rows))
        tested = np.arange(len(rows)) % _TEST_SHARE == 0
        train, test = order[~tested], order[tested]
        rows = rows.astype(np.float32)
        return rows[train], labels[train], rows[test], labels[test]
    return name


_MNIST: dict[str, Any] = {
    "data": "mnist",
    "search": {"train_size": 10_000, "validation_size": 10_000, "epochs": 4},
    "whole": {"train_size": 50_000, "validation_size": 10_000, "epochs": 6, "learning_rate": 0.01},
    "leaders": 6,
    "refit_epochs": 30,
}
SETTINGS = {
    "mnist-8000": Setting(limits={"max_parameters": 8_000, "max_macs": 2e6}, **_MNIST),
    "mnist-33000": Setting(limits={"max_parameters": 33_000, "max_macs": 2e6}, **_MNIST),
    "digits-2000": Setting(
        data="digits",
        limits={"max_parameters": 2_000, "max_macs": 1e5},
        search={"epochs": 10},
        whole={"epochs": 40},
        leaders=6,
        refit_epochs=100,
    ),
    "mnist1d-8000": Setting(
        data="mnist1d",
        limits={"max_parameters": 8_000, "max_macs": 2e5},
        search={"train_size": 3_000, "validation_size": 1_000, "epochs": 20},
        whole={"train_size": 3_000, "validation_size": 1_000, "epochs": 80},
        leaders=6,
        refit_epochs=150,
        augment=None,
        vocabulary=CNN1D,
    ),
    "cancer-1000": Setting(
        data="cancer",
        limits={"max_parameters": 1_000},
        search={"epochs": 20},
        whole={"epochs": 60},
        leaders=6,
        refit_epochs=60,
        augment=None,
        vocabulary=MLP,
    ),
}
"""Settings by name. Their numbers were chosen on validation images alone."""
assert tuple(SETTINGS) == SMALL_SETTINGS
