"""Arguments of the commands ``train`` and ``pretrain``. It is imported without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import positive, seed_number
from optuna_trlhpo.benchmarks.problems.tasks import TASKS


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    parser.description = (
        "Train networks on a task and append the result of each to ROWS, a file of JSON lines. The same "
        "command continues an interrupted one. Each parallel worker needs its own file and seed. Without "
        "--networks nothing is trained. With --table, the results in all ROWS are written as a compact table."
    )
    parser.add_argument(
        "rows",
        type=Path,
        nargs="+",
        metavar="ROWS",
        help="files of results; new ones are appended to the first",
    )
    parser.add_argument("--task", choices=sorted(TASKS), default="mnist", help="default: %(default)s")
    parser.add_argument(
        "--networks", type=positive, metavar="N", help="total number of results in the first file"
    )
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--data-root", default="data", metavar="DIR", help="folder that contains MNIST (default: %(default)s)"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="file to write, with the suffix .csv.gz")
    parser.set_defaults(handle=_train)


def _train(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.layer_prior import training_table

    return training_table.handle(arguments)


def add_pretrain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pretrain``."""
    parser.description = (
        "Train priors for layers on the tables of the package, one for the layers of Table I and one for "
        "those of kinds.CNN, and write them to a file for `TRLHPOSampler(layer_prior=FILE)`. If the file "
        "exists, a prior is kept for layers that no chosen task has."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write, with the suffix .safetensors")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="names or patterns, in which * matches anything (default: all tasks that have a table)",
    )
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="default: %(default)s")
    parser.set_defaults(handle=_pretrain)


def _pretrain(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.layer_prior import pretraining

    return pretraining.handle(arguments)
