"""Tables of ``table2``: the published numbers, those measured, and the regret at equal trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.harness.studies import failures_text, latest, machines_text, mean_text, table
from optuna_trlhpo.benchmarks.reproduction.scales import PAPERS_AGENT, PUBLISHED, SCALES

_CHECKPOINTS = (25, 50, 100, 200, 400, 1000)

_Studies = Mapping[str, Mapping[int, Row]]
"""Rows by sampler and seed."""


class Phases(NamedTuple):
    """Accuracies, in percent, of the models that a sampler has made at the time of the paper's agent.

    Attributes:
        exploring: Those of the trials in which it explores. Empty if it has no such phase.
        exploiting: Those of all other trials.
    """

    exploring: list[float]
    exploiting: list[float]


def phases_of(studies: _Studies, sampler: str) -> Phases:
    """Return the models of all studies of a sampler until the paper's agent has ended its study of the seed.

    Seeds without a study of the paper's agent are left out.
    """
    phases = Phases([], [])
    for seed, row in studies[sampler].items():
        if seed not in studies.get(PAPERS_AGENT, {}):
            continue
        end = studies[PAPERS_AGENT][seed]["seconds"]
        for number, (value, seconds) in enumerate(row["models"]):
            if seconds <= end:
                phases[number >= (row["exploring"] or 0)].append(100 * value)
    return phases


def report(rows: Iterable[Row], problem: str, scale: str) -> str:
    """Format the rows of a scale as tables in Markdown.

    Args:
        rows: Rows of `table2.run`.
        problem: ``"mnist"`` or ``"digits"``.
        scale: Name in `scales.SCALES`.
    """
    rows, failed = latest(rows, {"problem": problem, "scale": scale})
    if not rows:
        return f"There is no complete study of {problem} at the scale {scale}.\n{failures_text(failed)}"
    studies: dict[str, dict[int, Row]] = {}
    for row in rows:
        studies.setdefault(row["sampler"], {})[row["seed"]] = row
    order = [*PUBLISHED, *(name for name in studies if name not in PUBLISHED)]
    studies = {name: studies[name] for name in order if name in studies}
    phases = {name: phases_of(studies, name) for name in studies}
    devices = sorted({row["device"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    return (
        f"## Table II on {problem}, scale {scale}\n\n{_setting(problem, scale)}\n\n"
        f"{_published_table(studies, phases)}\n\n{_PUBLISHED_NOTE}\n\n"
        f"{_phases_table(phases)}\n\n{_PHASES_NOTE}\n\n"
        f"{_regret_table(studies)}\n\n{_REGRET_NOTE}\n\n"
        f"Seeds {', '.join(map(str, seeds))}. Device {', '.join(devices)}. {machines_text(rows)}\n"
        f"{failures_text(failed)}"
    )


def _setting(problem: str, scale: str) -> str:
    it = SCALES[scale]
    macs = "no limit on the MACs" if it.max_macs is None else f"at most {it.max_macs:,.0f} MACs"
    if problem != "mnist":
        played = f"Digits, not MNIST; {macs}; {it.trainings:,} trainings a study."
        return f"{played} The paper's numbers are of MNIST."
    return (
        f"{it.train_size:,} training and {it.validation_size:,} validation images, {it.epochs} epochs, "
        f"{macs}, {it.trainings:,} trainings a study. The paper: 20,000 and 10,000 images, 5 epochs, no "
        "limit, one V100 for TRL-HPO, eight times as many GPUs for MetaQNN. Accuracies are in % of the "
        "validation images. The best of many is biased upwards by the selection."
    )


# Table II ----------------------------------------------------------------------------------------------

_PUBLISHED_NOTE = (
    "*best*: accuracy of the best network, mean ± standard deviation over seeds. *h to best*: hours of the "
    "search until it was found. *AccTime*: mean ± standard deviation over the models that the sampler has "
    f"made when {PAPERS_AGENT} ends its study of the same seed; those of its exploitation phase, if it has "
    "one. A model is the best network of a trial. *p*: Welch's t-test of these models against those of "
    f"{PAPERS_AGENT}, as the paper tests; models of one study depend on each other, so this p is too small."
)


def _published_table(studies: _Studies, phases: Mapping[str, Phases]) -> str:
    heads = ["sampler", "paper: best", "best", "difference", "paper: h", "h to best", "h of the search"]
    heads += ["paper: AccTime", "AccTime", "difference", "p"]
    lines = []
    for name, by in studies.items():
        paper, exploiting = PUBLISHED.get(name), phases[name].exploiting
        best = [100 * row["curve"][-1][1] for row in by.values()]
        line = [name, "" if paper is None else f"{paper.best} ({paper.name})", _spread(best)]
        line.append("" if paper is None else f"{np.mean(best) - paper.best:+.2f}")
        line.append("" if paper is None else paper.hours)
        line += [_hours([row[key] for row in by.values()]) for key in ("best_seconds", "seconds")]
        if paper is None:
            line.append("")
        else:
            line.append(f"{paper.acc_time}" + ("" if paper.deviation is None else f" ± {paper.deviation}"))
        line.append(_spread(exploiting))
        line.append(f"{np.mean(exploiting) - paper.acc_time:+.2f}" if paper and exploiting else "")
        line.append(_t_test(exploiting, phases[PAPERS_AGENT].exploiting) if PAPERS_AGENT in phases else "")
        if name == PAPERS_AGENT:
            line[-1] = ""
        lines.append(line)
    return table(heads, lines)


def _t_test(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the p of Welch's t-test, two-sided, or nothing if a side has fewer than two models."""
    from scipy import stats  # needs the extra 'bench'

    from optuna_trlhpo.benchmarks.search.results import p_text

    if min(len(ours), len(theirs)) < 2:
        return ""
    return p_text(float(stats.ttest_ind(ours, theirs, equal_var=False).pvalue))


def _spread(values: Sequence[float]) -> str:
    """Format mean ± standard deviation.

    Examples:
        >>> _spread([90.0, 92.0]), _spread([90.0]), _spread([])
        ('91.00 ± 1.41', '90.00', '')
    """
    if not values:
        return ""
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.2f}"


def _hours(seconds: Sequence[float]) -> str:
    return f"{np.mean(seconds) / 3600:.3g}"


# Phases ------------------------------------------------------------------------------------------------

_PHASES_NOTE = (
    f"The models until {PAPERS_AGENT} ends, of all seeds. The paper reports TRL-HPO in its exploitation "
    "phase, and the best model of MetaQNN in its exploration phase. Samplers without such phases have all "
    "models on the right."
)


def _phases_table(phases: Mapping[str, Phases]) -> str:
    heads = [
        "sampler",
        *(f"{name}: {what}" for name in Phases._fields for what in ("models", "mean", "best")),
    ]
    lines = []
    for name, both in phases.items():
        line = [name]
        for values in both:
            line += [str(len(values)), _spread(values), f"{max(values):.2f}"] if values else ["", "", ""]
        lines.append(line)
    return table(heads, lines)


# Equal trainings ---------------------------------------------------------------------------------------

_REGRET_NOTE = (
    "Regret after so many trainings: 100 % less the accuracy of the best network so far, mean ± standard "
    f"error over seeds. *p*: Wilcoxon's signed-rank test against {PAPERS_AGENT} after the last training, "
    "over the common seeds, after Holm. *s*: seconds of the clock in a study, of the trainings and of the "
    "sampler."
)


def _regret_table(studies: _Studies) -> str:
    from optuna_trlhpo.benchmarks.search.results import (
        Cell,
        holm,
        p_text,
        wilcoxon,
    )  # needs the extra 'bench'

    budget = min(row["budget"] for by in studies.values() for row in by.values())
    places = [at for at in _CHECKPOINTS if at < budget] + [budget]
    cells = {
        name: Cell(next(iter(by.values()))["form"], {seed: _regret(row, budget) for seed, row in by.items()})
        for name, by in studies.items()
    }
    rivals = [name for name in cells if name != PAPERS_AGENT] if PAPERS_AGENT in cells else []
    rivals = [name for name in rivals if cells[name].regrets.keys() & cells[PAPERS_AGENT].regrets.keys()]
    ps = holm([wilcoxon(cells[name], cells[PAPERS_AGENT]) for name in rivals])
    p_of = dict(zip(rivals, ps, strict=True))
    heads = ["sampler", "form", "seeds", *(f"@{at}" for at in places), "p", "trainings", "trials", "lookups"]
    heads += ["s of trainings", "s of the sampler"]
    lines = []
    for name, by in studies.items():
        line = [name, cells[name].form, str(len(by))]
        line += [mean_text([_regret(row, at) for row in by.values()]) for at in places]
        line.append(p_text(p_of[name]) if name in p_of else "")
        for count in ("trainings", "trials", "hits", "training_seconds"):
            line.append(f"{np.mean([row[count] for row in by.values()]):.0f}")
        line.append(f"{np.mean([row['seconds'] - row['training_seconds'] for row in by.values()]):.0f}")
        lines.append(line)
    return table(heads, lines)


def _regret(row: Row, trainings: int) -> float:
    return 100 * (1 - [accuracy for start, accuracy in row["curve"] if start <= trainings][-1])
