"""Time that the figures of a long study take."""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import plotly
from optuna.samplers import RandomSampler
from optuna.study import Study

from optuna_trlhpo import visualization
from optuna_trlhpo.benchmarks.harness.rows import this_machine
from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, AgentRecord

FIGURES = tuple(name for name in visualization.__all__ if name.startswith("plot_"))
_HEADS = 8
_DIFFERENT = 100
"""Number of different trials. A longer study repeats them with other noise."""


class Timed(NamedTuple):
    """Time of one figure."""

    name: str
    seconds: float
    """Median over repeats of the time to create the figure and its JSON."""


def study_of(n_trials: int, *, seed: int = 0) -> Study:
    """Create a study of random trials of six layers, with records like those of the paper's agent.

    Args:
        n_trials: Number of trials.
        seed: Random seed.

    Examples:
        >>> study = study_of(3)
        >>> len(study.trials[0].intermediate_values)
        6
    """
    source = optuna.create_study(direction="maximize", sampler=RandomSampler(seed))
    source.optimize(synthetic_layers(seed), n_trials=min(n_trials, _DIFFERENT))
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(SPACE_ATTRIBUTE, source.user_attrs[SPACE_ATTRIBUTE])
    rng = np.random.default_rng(seed)
    finished = source.get_trials(deepcopy=False)
    for number in range(n_trials):
        trial = finished[number % len(finished)]
        reports = {k: v + 0.05 * float(rng.normal()) for k, v in trial.intermediate_values.items()}
        study.add_trial(
            optuna.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=reports,
                value=reports[max(reports)],
                system_attrs={AGENT_ATTRIBUTE: _record(rng, len(reports)).to_json()},
            )
        )
    return study


def _record(rng: np.random.Generator, S: int) -> AgentRecord:
    def rows() -> list[np.ndarray]:
        return [rng.dirichlet(np.ones(k + 1), size=_HEADS) for k in range(1, S + 1)]

    return AgentRecord(
        "actor",
        q=tuple(rng.uniform(-1, 1, S).tolist()),
        exploration=0.5,
        losses=(0.1, -0.5),
        attention={"actor": rows(), "critic": rows()},
    )


def measure_figures(n_trials: int, *, repeats: int = 3) -> Iterator[Timed]:
    """Measure the time of each figure of a study of ``n_trials`` trials, and of the report."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = study_of(n_trials)
    for name in FIGURES:
        draw = functools.partial(_draw, name, study)
        draw()  # the first call imports packages
        yield Timed(name, _median(draw, repeats))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        yield Timed("write_report", _median(lambda: visualization.write_report(study, path), repeats))


def _draw(name: str, study: Study) -> str:
    return getattr(visualization, name)(study).to_json()


def _median(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main(n_trials: int) -> None:
    """Print the measurement as a table."""
    print(
        f"{this_machine()}; Python "
        f"{platform.python_version()}, optuna {optuna.__version__}, plotly {plotly.__version__}; "
        f"a study of {n_trials:,} trials of six layers"
    )
    for row in measure_figures(n_trials):
        print(f"{row.name:<26} {row.seconds:>6.2f} s")


def handle(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    main(arguments.trials)
    return 0
