"""Command line of the benchmarks."""

from __future__ import annotations

import argparse

from optuna_trlhpo.benchmarks import overhead


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m optuna_trlhpo.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("overhead", help="what the sampler itself costs, as a study grows")
    command.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], metavar="N")
    arguments = parser.parse_args(argv)
    overhead.main(arguments.trials)


if __name__ == "__main__":
    main()
