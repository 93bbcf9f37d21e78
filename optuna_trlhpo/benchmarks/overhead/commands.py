"""Arguments of the commands ``overhead`` and ``figures``. It is imported without PyTorch."""

from __future__ import annotations

import argparse

from optuna_trlhpo.benchmarks.harness.command_line import positive


def add_overhead(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``overhead``."""
    parser.add_argument("--trials", type=positive, nargs="+", default=[100, 1000, 5000], metavar="N")
    parser.add_argument("--restart", action="store_true", help="measure a new sampler with a checkpoint")
    parser.set_defaults(handle=_overhead)


def _overhead(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import restart, sampler

    return restart.handle(arguments) if arguments.restart else sampler.handle(arguments)


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``figures``."""
    parser.add_argument("--trials", type=positive, default=1000, metavar="N")
    parser.set_defaults(handle=_figures)


def _figures(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import figures

    return figures.handle(arguments)
