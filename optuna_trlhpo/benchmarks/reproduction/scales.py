"""Scales of ``table2``, and the numbers that the paper publishes. It is imported without PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS


class Published(NamedTuple):
    """Row of Table II of the paper (Shaer, Nikan, Shami, 2024, arXiv 2403.12237, section V-A).

    Attributes:
        name: Name in the paper.
        best: Best accuracy, in percent.
        hours: Hours until the best network, a number or a range: of one V100 for TRL-HPO; MetaQNN had eight
            times as many GPUs.
        acc_time: Mean accuracy at the time of TRL-HPO, in percent.
        deviation: Its standard deviation. None where the paper has none.
    """

    name: str
    best: float
    hours: str
    acc_time: float
    deviation: float | None


PAPERS_AGENT = "trlhpo-paper"
"""Sampler that plays the part of TRL-HPO."""
PUBLISHED: dict[str, Published] = {
    PAPERS_AGENT: Published("TRL-HPO", 99.1, "99.3", 94.6, 3.8),
    "metaqnn": Published("MetaQNN", 99.5, "192-240", 88.5, 4.3),
    "multi-agent": Published("Neary", 95.8, "1.78", 95.8, None),
}
"""Rows of Table II, by the sampler here."""

_METAQNN_MODELS, _METAQNN_RANDOM = 2700, 1500
"""Models of MetaQNN's schedule in all, and with epsilon 1 (Baker et al., 2017, arXiv 1611.02167, table 2)."""
EXPLORING: dict[str, float] = {PAPERS_AGENT: 0.25, "metaqnn": _METAQNN_RANDOM / _METAQNN_MODELS}
"""Trials in which a sampler explores, before it exploits, as a share of the trainings of the study. The
other samplers have no such phases. The paper does not state that of TRL-HPO; here it is about half of its
trials."""

TABLE2_SAMPLERS = tuple(name for name in (*PUBLISHED, "trlhpo", "trlhpo-prior", "random") if name in SAMPLERS)


class Scale(NamedTuple):
    """Size of the comparison.

    Attributes:
        train_size: Number of training images of MNIST.
        validation_size: Number of validation images.
        epochs: Epochs of a training.
        max_macs: Largest number of MACs of a network, for one image. None for no limit, as in the paper.
        trainings: Trainings of a study.
        seeds: Studies of each sampler.
    """

    train_size: int
    validation_size: int
    epochs: int
    max_macs: float | None
    trainings: int
    seeds: int

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `CNNObjective.paper`."""
        names = ("train_size", "validation_size", "epochs", "max_macs")
        return {name: getattr(self, name) for name in names}


SCALES: dict[str, Scale] = {
    "minutes": Scale(2_000, 5_000, epochs=2, max_macs=5e5, trainings=100, seeds=3),
    "hours": Scale(5_000, 10_000, epochs=3, max_macs=1e6, trainings=200, seeds=3),
    "night": Scale(5_000, 10_000, epochs=3, max_macs=1e6, trainings=400, seeds=5),
    "paper": Scale(20_000, 10_000, epochs=5, max_macs=None, trainings=_METAQNN_MODELS, seeds=3),
}
"""Scales by name. ``paper`` has the images and epochs of the paper, and as many trainings as MetaQNN's
schedule has models; the paper does not state its own number."""
