"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_trlhpo.benchmarks.harness.studies import positive, select
from optuna_trlhpo.benchmarks.layer_prior import pretraining, training_table
from optuna_trlhpo.benchmarks.overhead import sampler as overhead
from optuna_trlhpo.benchmarks.search import confirmation, idiom_ranks, pareto, real_training, repeats
from optuna_trlhpo.benchmarks.training import engine, engine_search, train_less

if TYPE_CHECKING:
    from optuna_trlhpo.benchmarks.harness.rows import Row
    from optuna_trlhpo.benchmarks.search.protocols import Share

# What a command needs is imported when it is called: `overhead` does without the extra 'bench'.
_ROWS = Path("benchmark-rows")


_COMMANDS: tuple[tuple[str, Any, str], ...] = (
    ("overhead", overhead, "what the sampler itself costs, as a study grows"),
    ("train", training_table, "train networks for a table such as that of mnist-layers"),
    ("pretrain", pretraining, "make a prior for layers from the tables of tasks"),
    ("real", real_training, "train networks for real, and test what was found"),
    ("confirm", confirmation, "what confirming the leaders is worth"),
    ("pareto", pareto, "fronts of error against MACs"),
    ("engine", engine, "time the training loop against that of a PyTorch tutorial"),
    ("train-less", train_less, "what training less saves, and what it costs in ranking"),
    ("engine-search", engine_search, "a whole search with and without what spares trainings"),
    ("repeats", repeats, "how often samplers propose what has been tried"),
    ("idioms", idiom_ranks, "what samplers find in objectives such as Optuna's examples have"),
)
"""Those that a module of their own knows."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m optuna_trlhpo.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_report(commands)
    _add_ablate(commands)
    _add_transfer(commands)
    _add_figures(commands)
    for name, module, what in _COMMANDS:
        module.add_arguments(commands.add_parser(name, help=what))
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
    _add_selection(command, problems=("*",), samplers=("*",))
    _add_studies(command, out=_ROWS, seeds=100, budget=200)
    _add_protocol(
        command, "run what `report --protocol NAME` judges by: the seeds and the budget are that protocol's"
    )
    command.set_defaults(handle=_run)


def _run(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS
    from optuna_trlhpo.benchmarks.problems import tables
    from optuna_trlhpo.benchmarks.search import runner
    from optuna_trlhpo.benchmarks.search.protocols import PROTOCOLS, Share

    problems = select("problem", arguments.problems, tables.problems())
    if arguments.protocol is not None:
        asked = [share.problems for share in PROTOCOLS[arguments.protocol]]
        problems = [name for name in problems if any(name in names for names in asked)]
    samplers = select("sampler", arguments.samplers, SAMPLERS)
    problems = _at_hand(problems, arguments)  # a wrong argument is told before a file that is missing
    if arguments.protocol is None:
        _print_setting(arguments)
        shares = [Share(tuple(problems), tuple(samplers), arguments.seeds, arguments.budget)]
    else:
        _print_setting(arguments, protocol=arguments.protocol)
        shares = _narrowed(PROTOCOLS[arguments.protocol], problems, samplers)
    rows = runner.run_protocol(
        shares, out=arguments.out, jobs=arguments.jobs, data_root=arguments.data_root, progress=True
    )
    return _told(rows, arguments.out)


def _at_hand(problems: Iterable[str], arguments: argparse.Namespace) -> list[str]:
    """Of problems that a pattern stands for, those whose files are there; the others are told."""
    from optuna_trlhpo.benchmarks.problems import tables

    found, missing = [], []
    for name in problems:
        try:
            tables.load(name, arguments.data_root)
        except FileNotFoundError as error:
            if name in arguments.problems:
                raise
            missing.append(f"{name} is left out: {error}")
        else:
            found.append(name)
    if not found:
        raise FileNotFoundError("; ".join(missing) or "the protocol has none of these problems")
    print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr)
    return found


def _narrowed(shares: Iterable[Share], problems: Iterable[str], samplers: Iterable[str]) -> list[Share]:
    return [
        replace(
            share,
            problems=tuple(name for name in share.problems if name in problems),
            samplers=tuple(name for name in share.samplers if name in samplers),
        )
        for share in shares
    ]


def _print_setting(arguments: argparse.Namespace, protocol: str | None = None) -> None:
    from optuna_trlhpo.benchmarks.harness.rows import versions

    studies = f"seeds 0 to {arguments.seeds - 1}, {arguments.budget} trainings"
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.jobs} used; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + f"; {studies if protocol is None else f'the {protocol} protocol'}",
        flush=True,
    )


def _told(rows: Sequence[Row], out: Path) -> int:
    """Say what was run; 1 if some of it failed."""
    failed = [row for row in rows if "error" in row]
    print(f"{len(rows)} studies run, {len(failed)} of them failed; their rows are in {out}")
    for row in failed:
        print(f"  {row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}")
    return int(bool(failed))


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "report",
        help="make tables and figures of what was run",
        description="Print the rows in OUT as tables in Markdown: mean regret, tests, ranks over problems. "
        "The last lines are `PROBLEM @N ratio R p P rank K of M`, one for each problem: after N trainings, R "
        "is the mean regret of --reference over that of the best sampler of Optuna, P the p of Wilcoxon's "
        "test against that one, K its rank by mean regret among M samplers. N is 50, where most is asked "
        "for, or the smallest budget in the rows of the problem, if that is less.",
    )
    _add_selection(command, problems=("*",), samplers=("*",))
    _add_out(command, _ROWS)
    command.add_argument(
        "--reference",
        default="trlhpo",
        metavar="NAME",
        help="the sampler that others are compared with (default: %(default)s)",
    )
    command.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables there instead of printing them"
    )
    command.add_argument("--figures", type=Path, metavar="DIR", help="write regret curves there, PROBLEM.svg")
    _add_protocol(
        command,
        "judge all rows in OUT by what the sampler is to reach, say what falls short and by how much, and "
        "exit with 0 only if nothing does, and no row of the protocol is missing",
    )
    command.set_defaults(handle=_report)


def _report(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.harness.rows import check_names
    from optuna_trlhpo.benchmarks.search import criteria, curves, report
    from optuna_trlhpo.benchmarks.search.protocols import PROTOCOLS
    from optuna_trlhpo.benchmarks.search.results import Results

    everything = Results(_read_rows(arguments.out))
    rows = everything.rows + everything.failed
    for what in ("problem", "sampler"):
        chosen = select(what, getattr(arguments, f"{what}s"), dict.fromkeys(row[what] for row in rows))
        rows = [row for row in rows if row[what] in chosen]
    check_names("reference", [arguments.reference], dict.fromkeys(row["sampler"] for row in rows))
    results = Results(rows)
    judgements: list[criteria.Judgement] = []
    if arguments.protocol is not None:
        judgements = criteria.judge(everything, PROTOCOLS[arguments.protocol])
    figures = None
    if arguments.figures is not None:
        figures = curves.write_figures(results, arguments.figures)
        print(f"wrote {len(figures)} figures to {arguments.figures}", file=sys.stderr)
    if arguments.markdown is None:
        print(report.markdown(results, arguments.reference, judgements=judgements))
    else:
        base = arguments.markdown.parent
        links = None
        if figures is not None:
            links = {name: Path(os.path.relpath(path, base)).as_posix() for name, path in figures.items()}
        text = report.markdown(results, arguments.reference, judgements=judgements, figures=links)
        _write(arguments.markdown, text)
        if judgements:
            print(report.shortfall(judgements), end="\n\n")
    print(*report.headlines(results, arguments.reference), sep="\n")
    return int(arguments.protocol is not None and not criteria.all_hold(judgements))


def _read_rows(out: Path) -> list[Row]:
    from optuna_trlhpo.benchmarks.harness.rows import read_rows

    rows = read_rows(out)
    if not rows:
        raise FileNotFoundError(f"no rows in {out}; `run` makes them")
    return rows


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


def _add_ablate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "ablate",
        help="switch each part of the agent off in turn",
        description="Run the whole agent, and the agent without each of its parts where that makes a "
        "difference, each problem in its progressive form if it has one. Rows are kept, and not made again, "
        "as by `run`. At the end a table of all rows in OUT tells what each part is worth.",
    )
    problems = ("macro-progressive", "nb201-cifar10", "mnist-layers")
    _add_selection(command, problems=problems, variants=("*",))
    _add_studies(command, out=_ROWS / "ablation", seeds=20, budget=100)
    command.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    command.set_defaults(handle=_ablate)


def _ablate(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.problems import tables
    from optuna_trlhpo.benchmarks.search import ablation
    from optuna_trlhpo.benchmarks.search.results import Results

    problems = select("problem", arguments.problems, tables.problems())
    variants = select("variant", arguments.variants, ablation.VARIANTS)
    _print_setting(arguments)
    rows = ablation.run(
        problems,
        variants,
        seeds=arguments.seeds,
        budget=arguments.budget,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    status = _told(rows, arguments.out)
    text = ablation.markdown(Results(_read_rows(arguments.out)))
    print(text)
    if arguments.markdown is not None:
        _write(arguments.markdown, text)
    return status


def _add_transfer(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "transfer",
        help="what an earlier study saves",
        description="Run the sampler cold, and warm-started with an earlier study: of another dataset, of "
        "smaller images, or a misleading one. Rows are kept, and not made again, as by `run`. At the end a "
        "table of all rows in OUT tells how many trainings each earlier study saves.",
    )
    _add_selection(command, problems=("*",))
    _add_studies(command, out=_ROWS / "transfer", seeds=20, budget=60)
    command.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    command.set_defaults(handle=_transfer)


def _transfer(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import transfer
    from optuna_trlhpo.benchmarks.search.results import Results

    problems = select("problem", arguments.problems, transfer.EARLIER)
    _print_setting(arguments)
    rows = transfer.run(
        problems,
        seeds=arguments.seeds,
        budget=arguments.budget,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    status = _told(rows, arguments.out)
    text = transfer.markdown(Results(_read_rows(arguments.out)))
    print(text)
    if arguments.markdown is not None:
        _write(arguments.markdown, text)
    return status


def _add_figures(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("figures", help="how long the figures of a long study take")
    command.add_argument("--trials", type=positive, default=1000, metavar="N")
    command.set_defaults(handle=_figures)


def _figures(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.overhead import figures

    figures.main(arguments.trials)
    return 0


def _add_selection(command: argparse.ArgumentParser, **defaults: tuple[str, ...]) -> None:
    for what, default in defaults.items():
        names = "all" if default == ("*",) else ", ".join(default)
        command.add_argument(
            f"--{what}",
            nargs="+",
            default=default,
            metavar="NAME",
            help=f"names, or patterns in which * stands for anything (default: {names})",
        )


def _add_studies(command: argparse.ArgumentParser, *, out: Path, seeds: int, budget: int) -> None:
    """Which studies are run, and how."""
    for name, kind, default, what in (
        ("seeds", "N", seeds, "studies of each kind"),
        ("budget", "N", budget, "trainings of a study"),
        ("jobs", "N", 1, "processes, of one thread each"),
    ):
        command.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar=kind,
            help=f"{what} (default: %(default)s)",
        )
    command.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="holds the folder nas-bench-macro (default: the environment variable TRLHPO_DATA_ROOT, else "
        "../shared/data, else data)",
    )
    _add_out(command, out)


def _add_out(command: argparse.ArgumentParser, default: Path) -> None:
    command.add_argument(
        "--out",
        type=Path,
        default=default,
        metavar="DIR",
        help="the folder of the rows (default: %(default)s)",
    )


def _add_protocol(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--protocol",
        choices=("short", "full", "foreign"),
        help=f"{what}; `short` is laid out for half an hour on two cores, `full` for hours on "
        "sixteen, `foreign` is mnist-layers-foreign alone",
    )


if __name__ == "__main__":
    sys.exit(main())
