"""Arguments of the commands ``train`` and ``pretrain``. It is imported without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import positive, seed_number
from optuna_trlhpo.benchmarks.problems.tasks import TASKS


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    parser.description = (
        "Train networks on a task and append what comes of each to ROWS, a file of JSON lines. A command "
        "that was broken off goes on where it was. Workers need a file and a seed each. Without --networks "
        "nothing is trained; with --table what all ROWS hold is written as a compact table."
    )
    parser.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="trained for: the first")
    parser.add_argument("--task", choices=sorted(TASKS), default="mnist", help="default: %(default)s")
    parser.add_argument("--networks", type=positive, metavar="N", help="rows that the file is to have")
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--data-root", default="data", metavar="DIR", help="holds MNIST (default: %(default)s)"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="a .csv.gz file to write")
    parser.set_defaults(handle=_train)


def _train(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.layer_prior import training_table

    return training_table.handle(arguments)


def add_pretrain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pretrain``."""
    parser.description = (
        "Train the prior for layers on the tables that come with the package, and write it to a file that "
        "`TRLHPOSampler(layer_prior=FILE)` takes."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file to write")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="names, or patterns in which * stands for anything (default: all that have a table)",
    )
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="default: %(default)s")
    parser.set_defaults(handle=_pretrain)


def _pretrain(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.layer_prior import pretraining

    return pretraining.handle(arguments)
