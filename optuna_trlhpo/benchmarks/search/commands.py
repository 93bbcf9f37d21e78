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
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SAMPLERS
from optuna_trlhpo.benchmarks.problems.idioms import IDIOMS
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES
from optuna_trlhpo.benchmarks.search import defaults, modes


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.description = (
        "Run each sampler on each problem, in each of its forms and with each seed, and append the results "
        "to OUT/PROBLEM/SAMPLER.jsonl. Studies with results are not run again, so the same command continues "
        "an interrupted one. Delete a file to run its studies again. The cost is the number of trained "
        "networks; a network that the study has trained before is free."
    )
    add_selection(parser, problems=("*",), samplers=("*",))
    add_studies(parser, out=ROWS, seeds=100, budget=200)
    add_protocol(
        parser, "run all studies of a protocol, with its seeds and budget, for `report --protocol NAME`"
    )
    parser.set_defaults(handle=_run)


def _run(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import runner

    return runner.handle(arguments)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report``."""
    parser.description = (
        "Print the results in OUT as Markdown tables: mean regret, tests, and ranks over the problems. "
        "The last lines are `PROBLEM @N ratio R p P rank K of M`, one for each problem. After N trainings, R "
        "is the ratio of the mean regret of --reference to that of the best sampler of Optuna, P is the "
        "p-value of Wilcoxon's signed-rank test between the two, and K is the rank of --reference by mean "
        "regret among M samplers. N is 50, or the smallest budget in the results of the problem if that is "
        "less."
    )
    add_selection(parser, problems=("*",), samplers=("*",))
    add_out(parser, ROWS)
    parser.add_argument(
        "--reference",
        default="trlhpo",
        metavar="NAME",
        help="sampler that the others are compared with (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables to this file instead of printing them"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="write the regret curves to this folder, as PROBLEM.svg"
    )
    add_protocol(
        parser,
        "check all results in OUT against the criteria for the sampler, list the criteria that fail and by "
        "how much, and exit with 0 only if none fails and no result of the protocol is missing",
    )
    parser.set_defaults(handle=_report)


def _report(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import report

    return report.handle(arguments)


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ablate``."""
    parser.description = (
        "Ablation study: run the full agent, and the agent without each of its parts where that makes a "
        "difference, on the progressive form of each problem if it has one. Studies with results are not run "
        "again, as in `run`. At the end, a table of all results in OUT shows the effect of each part."
    )
    problems = ("macro-progressive", "nb201-cifar10", "mnist-layers")
    add_selection(parser, problems=problems, variants=("*",))
    add_studies(parser, out=ROWS / "ablation", seeds=20, budget=100)
    parser.add_argument(
        "--form",
        choices=("progressive", "terminal"),
        help="form of the problems that have it (default: progressive, where every layer can be trained)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_ablate)


def _ablate(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import ablation

    return ablation.handle(arguments)


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``transfer``."""
    parser.description = (
        "Run the sampler without an earlier study, and warm-started with one: of another dataset, of smaller "
        "images, or a misleading one. Studies with results are not run again, as in `run`. At the end, a "
        "table of all results in OUT shows how many trainings each earlier study saves."
    )
    add_selection(parser, problems=("*",))
    add_studies(parser, out=ROWS / "transfer", seeds=20, budget=60)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_transfer)


def _transfer(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import transfer

    return transfer.handle(arguments)


def add_real(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``real``."""
    parser.add_argument(
        "--task", default="mnist", metavar="NAME", help="task with test images (default: %(default)s)"
    )
    add_samplers(parser, defaults.REAL_SAMPLERS)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--budget",
        type=int,
        default=100,
        metavar="N",
        help="number of trainings per study (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=["progressive", "terminal"],
        help="form of the problem for all samplers (default: progressive for samplers that need reports, "
        "else terminal)",
    )
    parser.add_argument(
        "--refits",
        type=int,
        default=defaults.REFITS,
        metavar="N",
        help="number of retrainings of each study's result (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        choices=sorted(SAMPLERS),
        default=REFERENCE,
        metavar="NAME",
        help="sampler with which the table compares the others (default: %(default)s)",
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
        help="total number of trainings (default: " + ", ".join(map(str, defaults.TOTALS)) + ")",
    )
    for name, default, what in (
        ("top", defaults.TOP, "number of networks to confirm"),
        ("repeats", defaults.REPEATS, "number of trainings per network"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    parser.add_argument(
        "--form",
        choices=["progressive", "terminal"],
        help="form of each problem that has it (default: progressive for samplers that need reports, else "
        "terminal)",
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
        help="number of trainings per study (default: %(default)s)",
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
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
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
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    parser.set_defaults(handle=_idioms)


def _idioms(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import idiom_ranks

    return idiom_ranks.handle(arguments)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy``."""
    _add_trials(parser, defaults.POLICY_TRIALS)
    add_seeds(parser, defaults.POLICY_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/policy")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_policy)


def _policy(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import policy

    return policy.handle(arguments)


def add_reports(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reports``."""
    parser.description = (
        "Run problems in which a report inside the trial reveals the right choice at the next parameter, "
        "with our sampler, TPE and random search. Studies with results are not run again."
    )
    _add_trials(parser, defaults.REPORTS_TRIALS)
    add_seeds(parser, defaults.REPORTS_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/reports")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_reports)


def _reports(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import reports

    return reports.handle(arguments)


def add_seconds(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``seconds``."""
    parser.description = (
        "Run studies of a number of seconds on tables that tell how long each network was trained, with our "
        "sampler that knows the budget or does not, TPE and random search. Studies with results are not run "
        "again."
    )
    add_samplers(parser, defaults.SECONDS_SAMPLERS)
    add_choice(parser, "problems", defaults.SECONDS_PROBLEMS)
    _add_budget(parser, defaults.SECONDS_BUDGET, "seconds of a study, in trainings of median length")
    add_seeds(parser, defaults.SECONDS_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/seconds")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_seconds)


def _seconds(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import seconds

    return seconds.handle(arguments)


def add_stopping(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stopping``."""
    parser.description = (
        "Run studies to their end, and record what StopWithoutGain sees after each trial. The table tells "
        "when it stops a study, and the regret then. Studies with results are not run again."
    )
    add_choice(parser, "problems", defaults.STOPPING_PROBLEMS)
    _add_budget(parser, defaults.STOPPING_BUDGET, "trainings of a study")
    add_seeds(parser, defaults.STOPPING_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/stopping", holds="the folder nas-bench-macro")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_stopping)


def _stopping(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import stopping

    return stopping.handle(arguments)


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``parallel``."""
    parser.description = (
        "Run studies that several workers share, which decide at the same time, and studies of one worker, "
        "by our sampler and TPE with its constant liar. Studies with results are not run again."
    )
    add_samplers(parser, defaults.PARALLEL_SAMPLERS)
    add_choice(parser, "problems", defaults.PARALLEL_PROBLEMS)
    parser.add_argument(
        "--workers",
        type=positive,
        nargs="+",
        default=list(defaults.PARALLEL_WORKERS),
        metavar="N",
        help="numbers of workers (default: 1 8)",
    )
    _add_budget(parser, defaults.PARALLEL_BUDGET, "trainings of a study, of all workers together")
    add_seeds(parser, defaults.PARALLEL_SEEDS)
    add_common_arguments(parser, out="benchmark-rows/parallel", holds="the folder nas-bench-macro")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(handle=_parallel)


def _parallel(arguments: argparse.Namespace) -> int:
    from optuna_trlhpo.benchmarks.search import parallel

    return parallel.handle(arguments)


def _add_budget(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    parser.add_argument(
        "--budget", type=positive, default=default, metavar="N", help=f"{what} (default: %(default)s)"
    )


def _add_trials(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--trials",
        type=positive,
        default=default,
        metavar="N",
        help="number of trials per study (default: %(default)s)",
    )
