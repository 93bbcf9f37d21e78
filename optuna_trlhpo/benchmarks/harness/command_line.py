"""Arguments and messages that the commands share. It is imported without PyTorch."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.rows import Row, failure_text, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.problems.tables import DATA_ROOT_VARIABLE

ROWS = Path("benchmark-rows")
"""Default folder of the rows."""

_USUAL_ROOTS = f"default: the environment variable {DATA_ROOT_VARIABLE}, else ../shared/data, else data"

# Values of arguments -------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Parse a positive number.

    Raises:
        argparse.ArgumentTypeError: If the number is below 1.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def seed_number(text: str) -> int:
    """Parse a random seed.

    Raises:
        argparse.ArgumentTypeError: If the number is negative.
    """
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a seed; seeds are 0 and more")
    return number


def select(what: str, patterns: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Return the names that match any of the patterns, in the order of ``allowed``.

    Raises:
        ValueError: For a pattern that matches nothing.
    """
    allowed = list(allowed)
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {name for name in allowed if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(f"unknown {what} {pattern}; there are {', '.join(allowed)}")
        chosen |= matching
    return [name for name in allowed if name in chosen]


# Arguments -----------------------------------------------------------------------------------------------


def add_selection(parser: argparse.ArgumentParser, **defaults: tuple[str, ...]) -> None:
    """Add an option for each keyword that takes names or patterns; the keyword's value is its default."""
    for what, default in defaults.items():
        names = "all" if default == ("*",) else ", ".join(default)
        parser.add_argument(
            f"--{what}",
            nargs="+",
            default=default,
            metavar="NAME",
            help=f"names, or patterns in which * stands for anything (default: {names})",
        )


def add_choice(
    parser: argparse.ArgumentParser, name: str, allowed: Iterable[str], default: Sequence[str] = ("*",)
) -> None:
    """Add an option that takes names or patterns, and list all ``allowed`` names in its help."""
    parser.add_argument(
        f"--{name}",
        nargs="+",
        default=list(default),
        metavar="NAME",
        help=f"names, or patterns in which * stands for anything, out of {', '.join(allowed)} "
        f"(default: {' '.join(default)})",
    )


def add_samplers(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Add the names of samplers, none of which may be given."""
    parser.add_argument(
        "--samplers",
        nargs="*",
        default=list(default),
        metavar="NAME",
        help="none: only report existing rows (default: " + ", ".join(default) + ")",
    )


def add_studies(parser: argparse.ArgumentParser, *, out: Path, seeds: int, budget: int) -> None:
    """Add the number of studies and their budget, the processes, and the folders of data and rows."""
    for name, kind, default, what in (
        ("seeds", "N", seeds, "studies of each kind"),
        ("budget", "N", budget, "trainings of a study"),
        ("jobs", "N", 1, "processes, of one thread each"),
    ):
        parser.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar=kind,
            help=f"{what} (default: %(default)s)",
        )
    _add_data_root(parser, "the folder nas-bench-macro")
    add_out(parser, out)


def add_common_arguments(
    parser: argparse.ArgumentParser, *, out: str, holds: str | None = None, jobs: bool = True
) -> None:
    """Add the folder of the rows and, where they apply, the number of processes and the folder of the data.

    Args:
        parser: Parser of the command.
        out: Default folder of the rows.
        holds: Contents of the folder of the data. None: no data are read.
        jobs: Whether the command can use several processes.
    """
    add_out(parser, Path(out))
    if jobs:
        parser.add_argument(
            "--jobs", type=int, default=1, metavar="N", help="processes, of one thread each (default: 1)"
        )
    if holds is not None:
        _add_data_root(parser, holds)


def _add_data_root(parser: argparse.ArgumentParser, holds: str) -> None:
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=f"holds {holds} ({_USUAL_ROOTS})")


def add_out(parser: argparse.ArgumentParser, default: Path) -> None:
    """Add the folder of the rows."""
    parser.add_argument(
        "--out",
        type=Path,
        default=default,
        metavar="DIR",
        help="the folder of the rows (default: %(default)s)",
    )


def add_seeds(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Add the number of seeds and the first seed."""
    parser.add_argument(
        "--seeds",
        type=positive,
        default=seeds,
        metavar="N",
        help="studies of each kind (default: %(default)s)",
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=0,
        metavar="N",
        help="the first seed; while a sampler is worked on it is 2000 or more, so that the seeds from 0 on, "
        "which are reported, have never been seen (default: %(default)s)",
    )


def add_protocol(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the choice of a protocol."""
    parser.add_argument(
        "--protocol",
        choices=("short", "full", "foreign"),
        help=f"{what}; `short` is laid out for half an hour on two cores, `full` for hours on "
        "sixteen, `foreign` is mnist-layers-foreign alone",
    )


# Messages and files --------------------------------------------------------------------------------------


def print_setting(arguments: argparse.Namespace, protocol: str | None = None) -> None:
    """Print the machine, the versions and the studies that are about to run."""
    studies = f"seeds 0 to {arguments.seeds - 1}, {arguments.budget} trainings"
    print(
        f"{this_machine()}, {arguments.jobs} used; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + f"; {studies if protocol is None else f'the {protocol} protocol'}",
        flush=True,
    )


def print_outcome(rows: Sequence[Row], out: Path) -> int:
    """Print how many studies ran and which of them failed.

    Returns:
        Exit code: 1 if a study failed, else 0.
    """
    failed = [row for row in rows if "error" in row]
    print(f"{len(rows)} studies run, {len(failed)} of them failed; their rows are in {out}")
    for row in failed:
        print(f"  {failure_text(row)}")
    return int(bool(failed))


def read_existing_rows(out: Path) -> list[Row]:
    """Read the rows of a folder.

    Raises:
        FileNotFoundError: If there are none.
    """
    rows = read_rows(out)
    if not rows:
        raise FileNotFoundError(f"no rows in {out}; `run` makes them")
    return rows


def write_text(path: Path, text: str) -> None:
    """Write a text to a file, create its folder if necessary, and print the path to standard error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


def print_report(text: str, path: Path | None) -> None:
    """Print a report, and write it to a file if a path is given."""
    print(text)
    if path is not None:
        write_text(path, text)
