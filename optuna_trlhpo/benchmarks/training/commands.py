"""Arguments of the commands of this folder. It is imported without PyTorch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import add_common_arguments
from optuna_trlhpo.benchmarks.problems.tables import DATA_ROOT_VARIABLE
from optuna_trlhpo.benchmarks.training import defaults


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``engine``."""
    parser.add_argument(
        "--devices", nargs="+", metavar="NAME", help="default: cpu, and cuda if there is a GPU"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="number of CPU threads for both loops (default: %(default)s)",
    )
    parser.add_argument("--images", type=int, default=4096, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rounds", type=int, default=defaults.ENGINE_ROUNDS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=os.environ.get(DATA_ROOT_VARIABLE),
        metavar="DIR",
        help=f"folder that contains MNIST (default: the environment variable {DATA_ROOT_VARIABLE}; if unset, "
        "random images are used)",
    )
    parser.set_defaults(handle=_engine)


def _engine(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.training import engine

    return engine.handle(arguments)


def add_train_less(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-less``."""
    parser.add_argument(
        "--ways",
        nargs="*",
        metavar="NAME",
        help="names of the methods; no name only reports existing results (default: all)",
    )
    parser.add_argument("--networks", type=int, default=60, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--images",
        type=int,
        default=defaults.TRAIN_IMAGES,
        metavar="N",
        help="number of training images; validation images are twice as many (default: %(default)s)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    add_common_arguments(parser, out="benchmark-rows/train-less", holds="MNIST", jobs=False)
    parser.set_defaults(handle=_train_less)


def _train_less(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.training import train_less

    return train_less.handle(arguments)


def add_engine_search(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``engine-search``."""
    parser.add_argument(
        "--arms",
        nargs="*",
        default=list(defaults.SEARCH_ARMS),
        metavar="NAME",
        help="names of the objectives; no name only reports existing results "
        f"(default: {' '.join(defaults.SEARCH_ARMS)})",
    )
    for name, default, what in (
        ("seeds", 5, "number of studies per objective"),
        ("trials", defaults.SEARCH_TRIALS, "number of trials per study"),
        ("images", defaults.SEARCH_IMAGES, "number of training images, and of validation images"),
        ("refits", defaults.SEARCH_REFITS, "number of retrainings of each study's result"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    add_common_arguments(parser, out="benchmark-rows/engine-search", holds="MNIST")
    parser.set_defaults(handle=_engine_search)


def _engine_search(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.training import engine_search

    return engine_search.handle(arguments)


def add_small(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``small``."""
    parser.add_argument(
        "--settings",
        nargs="+",
        default=list(defaults.SMALL_SETTINGS),
        metavar="NAME",
        help=f"data and limits (default: {' '.join(defaults.SMALL_SETTINGS)})",
    )
    _add_searches(
        parser,
        ("searches", 5, "number of searches per setting"),
        ("refits", 5, "number of retrainings of each result, each tested once"),
        minutes=60,
        what="duration of a search",
    )
    add_common_arguments(parser, out="benchmark-rows/small", holds="MNIST")
    parser.set_defaults(handle=_small)


def _add_searches(
    parser: argparse.ArgumentParser, *numbers: tuple[str, int, str], minutes: float, what: str
) -> None:
    """Add the arguments of searches that take minutes: the sampler, numbers, seed and duration."""
    parser.add_argument("--sampler", default="trlhpo", metavar="NAME", help="default: %(default)s")
    seed = ("first-seed", 0, "random seed of the first search; the others follow")
    for name, default, meaning in (*numbers, seed):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )
    parser.add_argument(
        "--minutes", type=float, default=minutes, metavar="M", help=f"{what} (default: %(default)s)"
    )


def _small(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.training import small_networks

    return small_networks.handle(arguments)


def add_compress(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compress``."""
    parser.add_argument(
        "--network",
        nargs="+",
        default=list(defaults.COMPRESSED_NETWORKS),
        choices=defaults.COMPRESSED_NETWORKS,
        metavar="NAME",
        help=f"networks to compress (default: {' '.join(defaults.COMPRESSED_NETWORKS)})",
    )
    _add_searches(
        parser,
        ("searches", 1, "number of searches per network"),
        ("repeats", 2, "number of retrainings for the choice, and for the test"),
        minutes=defaults.COMPRESSION_MINUTES,
        what="duration of a search, without the trainings before and after it",
    )
    add_common_arguments(parser, out="benchmark-rows/compression", holds="MNIST")
    parser.set_defaults(handle=_compress)


def _compress(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.training import compression

    return compression.handle(arguments)
