"""Arguments of the commands that run samplers on problems. It is imported without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_trlhpo.benchmarks.harness.command_line import (
    ROWS,
    add_choice,
    add_common_arguments,
    add_out,
    add_protocol,
    add_samplers,
    add_seeds,
    add_selection,
    add_studies,
    positive,
)
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS
from optuna_trlhpo.benchmarks.problems.idioms import IDIOMS
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES
from optuna_trlhpo.benchmarks.search import defaults, modes


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.description = (
        "Run each sampler on each problem, in each of its forms and with each seed, and append "
        "what comes of it to OUT/PROBLEM/SAMPLER.jsonl. What is there is not run again: a command that was "
        "broken off is taken up by the same command. Delete a file to have its studies run anew. Cost is the "
        "number of networks trained; one that the study has trained before is free."
    )
    add_selection(parser, problems=("*",), samplers=("*",))
    add_studies(parser, out=ROWS, seeds=100, budget=200)
    add_protocol(
        parser, "run what `report --protocol NAME` judges by: the seeds and the budget are that protocol's"
    )
    parser.set_defaults(handle=_run)


def _run(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import runner

    return runner.handle(arguments)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report``."""
    parser.description = (
        "Print the rows in OUT as tables in Markdown: mean regret, tests, ranks over problems. "
        "The last lines are `PROBLEM @N ratio R p P rank K of M`, one for each problem: after N trainings, R "
        "is the mean regret of --reference over that of the best sampler of Optuna, P the p of Wilcoxon's "
        "test against that one, K its rank by mean regret among M samplers. N is 50, where most is asked "
        "for, or the smallest budget in the rows of the problem, if that is less."
    )
    add_selection(parser, problems=("*",), samplers=("*",))
    add_out(parser, ROWS)
    parser.add_argument(
        "--reference",
        default="trlhpo",
        metavar="NAME",
        help="the sampler that others are compared with (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables there instead of printing them"
    )
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write regret curves there, PROBLEM.svg")
    add_protocol(
        parser,
        "judge all rows in OUT by what the sampler is to reach, say what falls short and by how much, and "
        "exit with 0 only if nothing does, and no row of the protocol is missing",
    )
    parser.set_defaults(handle=_report)


def _report(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import report

    return report.handle(arguments)


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ablate``."""
    parser.description = (
        "Run the whole agent, and the agent without each of its parts where that makes a "
        "difference, each problem in its progressive form if it has one. Rows are kept, and not made again, "
        "as by `run`. At the end a table of all rows in OUT tells what each part is worth."
    )
    problems = ("macro-progressive", "nb201-cifar10", "mnist-layers")
    add_selection(parser, problems=problems, variants=("*",))
    add_studies(parser, out=ROWS / "ablation", seeds=20, budget=100)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.set_defaults(handle=_ablate)


def _ablate(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import ablation

    return ablation.handle(arguments)


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``transfer``."""
    parser.description = (
        "Run the sampler cold, and warm-started with an earlier study: of another dataset, of "
        "smaller images, or a misleading one. Rows are kept, and not made again, as by `run`. At the end a "
        "table of all rows in OUT tells how many trainings each earlier study saves."
    )
    add_selection(parser, problems=("*",))
    add_studies(parser, out=ROWS / "transfer", seeds=20, budget=60)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.set_defaults(handle=_transfer)


def _transfer(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import transfer

    return transfer.handle(arguments)


def add_real(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``real``."""
    parser.add_argument(
        "--task", default="mnist", metavar="NAME", help="one of those with test images (default: %(default)s)"
    )
    add_samplers(parser, defaults.REAL_SAMPLERS)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--budget", type=int, default=100, metavar="N", help="trainings of a study (default: %(default)s)"
    )
    parser.add_argument(
        "--form",
        choices=["progressive", "terminal"],
        help="of all samplers named (default: progressive for those that live on reports, else terminal)",
    )
    parser.add_argument(
        "--refits",
        type=int,
        default=defaults.REFITS,
        metavar="N",
        help="of what a study found (default: %(default)s)",
    )
    add_common_arguments(parser, out="real-training-rows", holds="MNIST")
    parser.set_defaults(handle=_real)


def _real(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import real_training

    return real_training.handle(arguments)


def add_confirm(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``confirm``."""
    parser.add_argument(
        "--problems",
        nargs="+",
        default=list(defaults.CONFIRMED_PROBLEMS),
        metavar="NAME",
        help="default: " + ", ".join(defaults.CONFIRMED_PROBLEMS),
    )
    add_samplers(parser, defaults.CONFIRMED_SAMPLERS)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--totals",
        type=int,
        nargs="+",
        default=list(defaults.TOTALS),
        metavar="T",
        help="trainings in all (default: " + ", ".join(map(str, defaults.TOTALS)) + ")",
    )
    for name, default, what in (
        ("top", defaults.TOP, "networks to confirm"),
        ("repeats", defaults.REPEATS, "trainings of each"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    parser.add_argument(
        "--form",
        choices=["progressive", "terminal"],
        help="where a problem has it (default: progressive for those that live on reports, else terminal)",
    )
    add_common_arguments(parser, out="confirmation-rows", holds="nas-bench-macro")
    parser.set_defaults(handle=_confirm)


def _confirm(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import confirmation

    return confirmation.handle(arguments)


def add_pareto(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pareto``."""
    add_samplers(parser, defaults.PARETO_SAMPLERS)
    parser.add_argument(
        "--seeds", type=int, default=defaults.PARETO_SEEDS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=defaults.PARETO_BUDGET,
        metavar="N",
        help="trainings of a study (default: %(default)s)",
    )
    add_common_arguments(parser, out="pareto-rows")
    parser.set_defaults(handle=_pareto)


def _pareto(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import pareto

    return pareto.handle(arguments)


def add_repeats(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``repeats``."""
    add_choice(parser, "pipelines", PIPELINES)
    add_choice(parser, "modes", modes.MODES)
    add_choice(parser, "samplers", SAMPLERS, defaults.REPEATS_SAMPLERS)
    _add_trials(parser, defaults.REPEATS_TRIALS)
    add_seeds(parser, defaults.REPEATS_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/repeats")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.set_defaults(handle=_repeats)


def _repeats(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import repeats

    return repeats.handle(arguments)


def add_idioms(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``idioms``."""
    add_choice(parser, "idioms", IDIOMS)
    add_choice(parser, "samplers", SAMPLERS, defaults.IDIOMS_SAMPLERS)
    _add_trials(parser, defaults.IDIOMS_TRIALS)
    add_seeds(parser, defaults.IDIOMS_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/idioms")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.set_defaults(handle=_idioms)


def _idioms(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import idiom_ranks

    return idiom_ranks.handle(arguments)


def _add_trials(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--trials", type=positive, default=default, metavar="N", help="of a study (default: %(default)s)"
    )
