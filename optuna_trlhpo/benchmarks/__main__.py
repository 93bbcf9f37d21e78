"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from optuna_trlhpo.benchmarks.layer_prior import commands as layer_prior
from optuna_trlhpo.benchmarks.overhead import commands as overhead
from optuna_trlhpo.benchmarks.search import commands as search
from optuna_trlhpo.benchmarks.training import commands as training

_COMMANDS: tuple[tuple[str, Callable[[argparse.ArgumentParser], None], str], ...] = (
    ("run", search.add_run, "run samplers on problems"),
    ("report", search.add_report, "make tables and figures of what was run"),
    ("ablate", search.add_ablate, "switch each part of the agent off in turn"),
    ("transfer", search.add_transfer, "what an earlier study saves"),
    ("figures", overhead.add_figures, "how long the figures of a long study take"),
    ("overhead", overhead.add_overhead, "what the sampler itself costs, as a study grows"),
    ("train", layer_prior.add_train, "train networks for a table such as that of mnist-layers"),
    ("pretrain", layer_prior.add_pretrain, "make a prior for layers from the tables of tasks"),
    ("real", search.add_real, "train networks for real, and test what was found"),
    ("confirm", search.add_confirm, "what confirming the leaders is worth"),
    ("pareto", search.add_pareto, "fronts of error against MACs"),
    ("engine", training.add_engine, "time the training loop against that of a PyTorch tutorial"),
    ("train-less", training.add_train_less, "what training less saves, and what it costs in ranking"),
    ("engine-search", training.add_engine_search, "a whole search with and without what spares trainings"),
    ("repeats", search.add_repeats, "how often samplers propose what has been tried"),
    ("idioms", search.add_idioms, "what samplers find in objectives such as Optuna's examples have"),
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
        print("\nbroken off; the same command goes on from here", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
