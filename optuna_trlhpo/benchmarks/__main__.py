"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from optuna_trlhpo.benchmarks.layer_prior import commands as layer_prior
from optuna_trlhpo.benchmarks.overhead import commands as overhead
from optuna_trlhpo.benchmarks.reproduction import commands as reproduction
from optuna_trlhpo.benchmarks.search import commands as search
from optuna_trlhpo.benchmarks.training import commands as training

_COMMANDS: tuple[tuple[str, Callable[[argparse.ArgumentParser], None], str], ...] = (
    ("run", search.add_run, "run samplers on problems"),
    ("report", search.add_report, "format the rows as tables and figures"),
    ("ablate", search.add_ablate, "compare the agent with and without each of its parts"),
    ("transfer", search.add_transfer, "measure the trainings that an earlier study saves"),
    ("figures", overhead.add_figures, "measure the time of the figures of a long study"),
    ("overhead", overhead.add_overhead, "measure the time of the sampler as a study grows"),
    ("workers-cost", overhead.add_workers_cost, "measure what a trial costs each of many workers"),
    ("train", layer_prior.add_train, "train networks for a table such as that of mnist-layers"),
    ("pretrain", layer_prior.add_pretrain, "train a prior for layers on the tables of tasks"),
    ("real", search.add_real, "compare samplers with real trainings"),
    ("table2", reproduction.add_table2, "repeat Table II of the paper with real trainings"),
    ("confirm", search.add_confirm, "measure the benefit of confirming the leaders"),
    ("pareto", search.add_pareto, "compare Pareto fronts of error and MACs"),
    ("engine", training.add_engine, "time the training loop against that of a PyTorch tutorial"),
    ("train-less", training.add_train_less, "measure savings and costs of reduced training"),
    ("engine-search", training.add_engine_search, "compare whole searches with and without reduced training"),
    ("small", training.add_small, "search networks for small devices, and test them as floats and as int8"),
    ("compress", training.add_compress, "make known networks smaller and faster without loss of accuracy"),
    ("repeats", search.add_repeats, "count repeated configurations"),
    ("reports", search.add_reports, "measure whether reports inform later choices of the same trial"),
    ("seconds", search.add_seconds, "measure what a budget in seconds is worth"),
    (
        "stopping",
        search.add_stopping,
        "measure the regret of studies that stop without expected gain",
    ),
    ("parallel", search.add_parallel, "measure what it costs that workers decide at the same time"),
    ("policy", search.add_policy, "measure how the policy of the paper's agent improves"),
    ("idioms", search.add_idioms, "compare samplers on objectives like Optuna's examples"),
)
"""Name of each command, the function that adds its arguments and the default ``handle``, and its help."""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    The code of a command is imported when it runs. So the help does without PyTorch, and each command needs
    only its own extra packages.

    Returns:
        Exit code: 0 if the command succeeded, else 1 or 2.
    """
    parser = argparse.ArgumentParser(prog="python -m optuna_trlhpo.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, add_arguments, summary in _COMMANDS:
        add_arguments(commands.add_parser(name, help=summary))
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.handle(arguments)
        return code
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"{parser.prog} {arguments.command}: {error}", file=sys.stderr)
    except ImportError as error:
        print(
            f"{parser.prog} {arguments.command}: {error} (what benchmarks need comes with "
            '`pip install "optuna-trlhpo[bench]"`)',
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from here", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
