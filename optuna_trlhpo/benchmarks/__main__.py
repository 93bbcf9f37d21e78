"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from optuna_trlhpo.benchmarks.tasks import TASKS

if TYPE_CHECKING:
    from optuna_trlhpo.benchmarks.runner import Row

# What a command needs is imported when it is called: `overhead` does without the extra 'bench'.


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m optuna_trlhpo.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_report(commands)
    _add_overhead(commands)
    _add_train(commands)
    arguments = parser.parse_args(argv)
    try:
        return arguments.handle(arguments)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"{parser.prog} {arguments.command}: {error}", file=sys.stderr)
    except ImportError as error:
        print(
            f"{parser.prog} {arguments.command}: {error} (what benchmarks need comes with "
            '`pip install "optuna-trlhpo[bench]"`)',
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\nbroken off; the same command goes on from here", file=sys.stderr)
    return 2


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "run",
        help="run samplers on problems",
        description="Run each sampler on each problem, in each of its forms and with each seed, and append "
        "what comes of it to OUT/PROBLEM/SAMPLER.jsonl. What is there is not run again: a command that was "
        "broken off is taken up by the same command. Delete a file to have its studies run anew. Cost is the "
        "number of networks trained; one that the study has trained before is free.",
    )
    _add_selection(command)
    command.add_argument(
        "--seeds",
        type=_positive,
        default=100,
        metavar="N",
        help="studies of each kind (default: %(default)s)",
    )
    command.add_argument(
        "--budget",
        type=_positive,
        default=200,
        metavar="N",
        help="trainings of a study (default: %(default)s)",
    )
    command.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="processes, of one thread each (default: 1)"
    )
    command.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="holds the folder nas-bench-macro (default: the environment variable TRLHPO_DATA_ROOT, else "
        "../shared/data, else data)",
    )
    _add_headline(command)
    command.set_defaults(handle=_run)


def _run(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks import runner, tables

    problems = _select("problem", arguments.problems, tables.problems())
    samplers = _select("sampler", arguments.samplers, runner.SAMPLERS)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.jobs} used; "
        + ", ".join(f"{name} {version}" for name, version in runner.versions().items())
        + f"; seeds 0 to {arguments.seeds - 1}, {arguments.budget} trainings",
        flush=True,
    )
    rows = runner.run(
        problems,
        samplers,
        seeds=range(arguments.seeds),
        budget=arguments.budget,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    failed = [row for row in rows if "error" in row]
    print(f"{len(rows)} studies run, {len(failed)} of them failed; their rows are in {arguments.out}")
    for row in failed:
        print(f"  {row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}")
    if arguments.headline:
        return max(_print_headline(runner.read_rows(arguments.out)), bool(failed))
    return int(bool(failed))


def _print_headline(rows: Sequence[Row]) -> int:
    from optuna_trlhpo.benchmarks import report

    print(*report.headlines(report.Results(rows)), sep="\n")
    verdict = report.verdict(rows)
    for line, holds in verdict:
        print(f"{'holds' if holds else 'FAILS'}  {line}")
    return int(not all(holds for _, holds in verdict))


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "report",
        help="make tables and figures of what was run",
        description="Print the rows in OUT as tables in Markdown: mean regret, tests, ranks over problems.",
    )
    _add_selection(command)
    command.add_argument(
        "--reference",
        default="trlhpo",
        metavar="NAME",
        help="the sampler that others are compared with (default: %(default)s)",
    )
    command.add_argument(
        "--figures", type=Path, metavar="DIR", help="also write regret curves there (needs plotly)"
    )
    _add_headline(command)
    command.set_defaults(handle=_report)


def _report(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks import report, runner

    rows = runner.read_rows(arguments.out)
    if not rows:
        raise FileNotFoundError(f"no rows in {arguments.out}; `run` makes them")
    everything = rows
    for what in ("problem", "sampler"):
        names = dict.fromkeys(row[what] for row in rows)
        chosen = _select(what, getattr(arguments, f"{what}s"), names)
        rows = [row for row in rows if row[what] in chosen]
    runner.check_names("reference", [arguments.reference], dict.fromkeys(row["sampler"] for row in rows))
    results = report.Results(rows)
    print(report.markdown(results, arguments.reference))
    if not arguments.headline:
        print(*report.headlines(results, arguments.reference), sep="\n")
    if arguments.figures is not None:
        for path in report.write_figures(results, arguments.figures, arguments.reference):
            print(f"wrote {path}", file=sys.stderr)
    return _print_headline(everything) if arguments.headline else 0


def _add_overhead(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("overhead", help="what the sampler itself costs, as a study grows")
    command.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], metavar="N")
    command.set_defaults(handle=_overhead)


def _overhead(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks import overhead

    overhead.main(arguments.trials)
    return 0


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "train",
        help="train networks of Table I for a table such as that of mnist-layers",
        description="Train networks on a task and append what comes of each to ROWS, a file of JSON lines. A "
        "command that was broken off goes on where it was. Workers need a file and a seed each. Without "
        "--networks nothing is trained; with --table what all ROWS hold is written as a compact table.",
    )
    command.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="trained for: the first")
    command.add_argument("--task", choices=sorted(TASKS), default="mnist", help="default: %(default)s")
    command.add_argument("--networks", type=_positive, metavar="N", help="rows that the file is to have")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    command.add_argument(
        "--data-root", default="data", metavar="DIR", help="holds MNIST (default: %(default)s)"
    )
    command.add_argument("--table", type=Path, metavar="FILE", help="a .csv.gz file to write")
    command.set_defaults(handle=_train)


def _train(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.mnist_layers import write_table
    from optuna_trlhpo.benchmarks.training_table import read_rows, train_table

    first = arguments.rows[0]
    if arguments.networks:
        done = len(read_rows(first))
        trained = train_table(
            arguments.task,
            first,
            n_networks=arguments.networks,
            data_root=arguments.data_root,
            seed=arguments.seed,
        )
        for _ in tqdm(trained, initial=done, total=arguments.networks, unit="network"):
            pass
    if arguments.table:
        rows = {(row["architecture"], row["seed"]): row for path in arguments.rows for row in read_rows(path)}
        write_table(rows.values(), arguments.table)
        print(f"{len(rows):,} trainings in {arguments.table}")
    return 0


def _add_selection(command: argparse.ArgumentParser) -> None:
    for what in ("problems", "samplers"):
        command.add_argument(
            f"--{what}",
            nargs="+",
            default=["*"],
            metavar="NAME",
            help="by name, or by pattern such as 'nb201-*' (default: all)",
        )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-rows"),
        metavar="DIR",
        help="the folder of the rows (default: %(default)s)",
    )


def _add_headline(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--headline",
        action="store_true",
        help="at the end, judge all rows in OUT by what the sampler is to reach; exit with 0 only if it does",
    )


def _select(what: str, patterns: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """The names that match any of the patterns, in the order of ``allowed``."""
    allowed = list(allowed)
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {name for name in allowed if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(f"unknown {what} {pattern}; there are {', '.join(allowed)}")
        chosen |= matching
    return [name for name in allowed if name in chosen]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
