"""Arguments of the commands ``overhead``, ``workers-cost`` and ``figures``. Imported without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import (
    add_choice,
    add_common_arguments,
    positive,
    seed_number,
)
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS


def add_overhead(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``overhead``."""
    parser.add_argument("--trials", type=positive, nargs="+", default=[100, 1000, 5000], metavar="N")
    parser.add_argument("--objective", choices=("layers", "depths"), default="layers")
    parser.add_argument("--restart", action="store_true", help="measure a new sampler with a checkpoint")
    parser.set_defaults(handle=_overhead)


def _overhead(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import restart, sampler

    return restart.handle(arguments) if arguments.restart else sampler.handle(arguments)


def add_workers_cost(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``workers-cost``."""
    parser.description = (
        "Simulate workers that share a study, in one thread, and measure what a trial costs one of them: "
        "calls to the storage, bytes, and seconds. Results go to OUT/PROBLEM/SAMPLER.jsonl; what is there is "
        "not measured again."
    )
    add_choice(parser, "samplers", SAMPLERS, default=("trlhpo-prior", "tpe"))
    for name, default, what in (
        ("workers", [1, 4, 16, 64], "numbers of workers"),
        ("trials", [200, 1000], "lengths of the study"),
        ("latencies", [1, 5, 20], "milliseconds that each call to the storage takes"),
    ):
        parser.add_argument(
            f"--{name}",
            type=positive,
            nargs="+",
            default=default,
            metavar="N",
            help=f"{what} (default: {' '.join(map(str, default))})",
        )
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="(default: %(default)s)")
    add_common_arguments(parser, out="benchmark-rows/workers-cost", jobs=False)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    parser.set_defaults(handle=_workers_cost)


def _workers_cost(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import workers_cost

    return workers_cost.handle(arguments)


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``figures``."""
    parser.add_argument("--trials", type=positive, default=1000, metavar="N")
    parser.set_defaults(handle=_figures)


def _figures(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import figures

    return figures.handle(arguments)
