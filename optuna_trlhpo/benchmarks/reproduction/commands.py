"""Arguments of the command ``table2``. Imported without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import (
    add_common_arguments,
    add_samplers,
    positive,
    seed_number,
)
from optuna_trlhpo.benchmarks.reproduction.scales import SCALES, TABLE2_SAMPLERS


def add_table2(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``table2``."""
    parser.description = (
        "Repeat Table II of the paper: each sampler searches networks of CNNObjective.paper() on MNIST, or "
        "on scikit-learn's digits where MNIST is missing. The published numbers are printed beside. Each "
        "study is stored in OUT/studies, so the same command continues an interrupted study."
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="minutes",
        help="; ".join(
            f"{name}: {it.train_size:,} images, {it.epochs} epochs, {it.trainings:,} trainings a study, "
            f"{it.seeds} seeds"
            for name, it in SCALES.items()
        )
        + " (default: %(default)s)",
    )
    add_samplers(parser, TABLE2_SAMPLERS)
    parser.add_argument(
        "--seeds", type=positive, metavar="N", help="studies of each sampler (default: those of the scale)"
    )
    parser.add_argument(
        "--first-seed", type=seed_number, default=0, metavar="N", help="(default: %(default)s)"
    )
    add_common_arguments(parser, out="benchmark-rows/table2", holds="MNIST")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    parser.set_defaults(handle=_table2)


def _table2(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.reproduction import table2

    return table2.handle(arguments)
