"""Report of the results as text: tables, headlines and failed criteria."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from optuna_trlhpo.benchmarks.harness.command_line import read_existing_rows, select, write_text
from optuna_trlhpo.benchmarks.harness.rows import check_names, failure_text
from optuna_trlhpo.benchmarks.harness.samplers import OURS
from optuna_trlhpo.benchmarks.harness.studies import table
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search import criteria, curves, protocols
from optuna_trlhpo.benchmarks.search.criteria import Judgement
from optuna_trlhpo.benchmarks.search.results import (
    AREA,
    CHECKPOINTS,
    REFERENCE,
    Cell,
    Comparison,
    Results,
    friedman,
    interval,
    lead_of,
    mean_or_inf,
    p_text,
)

HEADLINE_AT = 50
"""Checkpoint of a headline, the one with the strictest criteria."""


def markdown(
    results: Results,
    reference: str = REFERENCE,
    *,
    judgements: Sequence[Judgement] = (),
    figures: Mapping[str, str] | None = None,
) -> str:
    """Format the whole report: criteria, two tables for each problem, ranks, versions and failed studies.

    Args:
        results: Results to report.
        reference: Name of the reference sampler.
        judgements: Judgements of `judge`, which have a section of their own.
        figures: Link to the figure of each problem, by the name of the problem.
    """
    parts = [
        "# Results\n\nThe regret is the true regret of the network with the best observed value so far. The "
        "cost is the number of networks trained; a network that the study has trained before is free. p "
        "values are those of Wilcoxon's two-sided signed-rank test over paired seeds."
    ]
    if judgements:
        parts.append(shortfall(judgements))
    for problem in results.problems:
        parts.append(_problem_tables(results, problem, reference))
        if figures is not None:
            parts.append(f"![Regret of each sampler on {problem}]({figures[problem]})")
    if len(results.problems) > 1:
        parts.append(_rank_table(results))
    if len(results.rows):
        parts.append(f"Versions: {versions_text(results)}.")
    if results.failed:
        lines = [f"{len(results.failed)} studies failed:", ""]
        lines += [f"- {failure_text(row)}" for row in results.failed]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def headlines(results: Results, reference: str = REFERENCE) -> list[str]:
    """Format a line for each problem: ``PROBLEM @N ratio R p P rank K of M``.

    N is ``HEADLINE_AT``, or the smallest budget of the problem's rows if that is less. R is the ratio between
    the mean regrets of the reference and of Optuna's best sampler, P is the p of Wilcoxon's test between
    these two, and K is the rank by mean regret among all M samplers. Our samplers other than the reference do
    not count.

    Args:
        results: Results to report.
        reference: Name of the reference sampler.
    """
    lines = []
    for problem in results.problems:
        at = min(HEADLINE_AT, results.budget(problem))
        lead = lead_of(results, problem, at, reference)
        if lead is not None:
            cells = results.cells(problem, at)
            cells = {name: cell for name, cell in cells.items() if name == reference or name not in OURS}
            rank = 1 + sum(cell.mean < cells[reference].mean for cell in cells.values())
            lines.append(
                f"{problem} @{at} ratio {lead.ratio:.3f} p {p_text(lead.p)} rank {rank} of {len(cells)}"
            )
    return lines


def _problem_tables(results: Results, problem: str, reference: str) -> str:
    checkpoints = results.checkpoints(problem)
    columns = {at: results.cells(problem, at) for at in checkpoints}
    two_forms = results.has_two_forms(problem)
    samplers = sorted(results.samplers(problem), key=lambda name: mean_or_inf(columns[AREA].get(name)))
    regrets = []
    for sampler in samplers:
        studies = [row for row in results.rows if (row["problem"], row["sampler"]) == (problem, sampler)]
        seconds = np.mean([row["seconds"] for row in studies])
        texts = [_cell_text(columns[at].get(sampler), two_forms) for at in checkpoints]
        seeds = len({row["seed"] for row in studies})
        regrets.append([sampler, str(seeds), *texts, f"{seconds:.1f}"])
    heads = [head(at) for at in checkpoints]
    unit = next(row["unit"] for row in results.rows if row["problem"] == problem)
    text = f"## {problem}\n\nMean regret in {unit}, with its 95 % bootstrap interval"
    if two_forms:
        text += ". (p) or (t) marks the better form, progressive or terminal"
    text += f". The area is the mean over 1 to {results.budget(problem)} trainings."
    text += f"{_all_text(results, problem, reference)}\n\n"
    text += table(["sampler", "seeds", *heads, "CPU s per study"], regrets)
    compared = [results.comparisons(problem, at, reference) for at in checkpoints]
    if any(compared):
        against = [
            [sampler, *(_comparison_text(column.get(sampler)) for column in compared)]
            for sampler in samplers
            if sampler != reference
        ]
        text += f"\n\nAgainst {reference}, with Holm-corrected p:\n\n" + table(["sampler", *heads], against)
    return text


def _all_text(results: Results, problem: str, reference: str) -> str:
    """Format the regret after training all networks, if it is known."""
    rows = [row for row in results.rows if row["problem"] == problem]
    seeds = {row["seed"] for row in rows if row["sampler"] == reference} or {row["seed"] for row in rows}
    try:
        known = tables.load(problem)
    except (KeyError, FileNotFoundError, ImportError):  # rows can be reported without the problem's data
        return ""
    regrets = [regret for seed in sorted(seeds) if (regret := known.regret_of_all(seed)) is not None]
    if not regrets:
        return ""
    low, high = interval(np.array(regrets))
    return (
        f" Even after training every network once, the regret would be {np.mean(regrets):.3f} [{low:.3f}, "
        f"{high:.3f}], because values are noisy and the best observed network need not be the best one."
    )


def _rank_table(results: Results) -> str:
    checkpoints = [
        at for at in (*CHECKPOINTS, AREA) if all(at in results.checkpoints(p) for p in results.problems)
    ]
    columns = [results.ranks(results.problems, at) for at in checkpoints]
    samplers = sorted({name for column in columns for name in column}, key=lambda n: _mean_rank(columns, n))
    if not samplers:
        return "No sampler has rows on all problems, so there are no mean ranks."
    rows = [
        [sampler, *(f"{np.mean(column[sampler]):.2f}" if sampler in column else "" for column in columns)]
        for sampler in samplers
    ]
    rows.append(["*Friedman's p*", *(p_text(friedman(column)) for column in columns)])
    text = f"## Ranks\n\nMean rank over {len(results.problems)} problems: {', '.join(results.problems)}.\n\n"
    return text + table(["sampler", *map(head, checkpoints)], rows)


def _mean_rank(columns: Sequence[Mapping[str, Sequence[float]]], sampler: str) -> float:
    return float(np.mean([np.mean(column[sampler]) for column in columns if sampler in column]))


def _cell_text(cell: Cell | None, two_forms: bool) -> str:
    if cell is None:
        return ""
    low, high = interval(np.array(list(cell.regrets.values())))
    form = f" ({cell.form[0]})" if two_forms else ""
    return f"{cell.mean:.3f} [{low:.3f}, {high:.3f}]{form}"


def _comparison_text(comparison: Comparison | None) -> str:
    return "" if comparison is None else f"{comparison.word}, {p_text(comparison.corrected)}"


def section(results: Results, problem: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a section with a table of the regrets on a problem that all samplers have in one form."""
    form, unit = next((row["form"], row["unit"]) for row in results.rows if row["problem"] == problem)
    return f"## {problem}\n\nIn its {form} form; regret in {unit}.\n\n{table(heads, rows)}"


def head(at: int) -> str:
    """Return the column head of a checkpoint."""
    return "area" if at == AREA else f"@{at}"


def shortfall(judgements: Sequence[Judgement]) -> str:
    """Format a section on the criteria, the failed ones first."""
    rows = sorted(judgements, key=lambda judgement: judgement.holds)
    text = f"## Criteria\n\n{sum(row.holds for row in rows)} of {len(rows)} criteria hold."
    if len(rows) < len(criteria.CRITERIA):
        text += f" {len(criteria.CRITERIA) - len(rows)} more are judged by other protocols."
    return f"{text}\n\n" + table(["criterion", "measured", "shortfall"], rows)


def versions_text(results: Results) -> str:
    """Format the versions of the packages in the rows."""
    texts = {", ".join(f"{name} {v}" for name, v in row["versions"].items()) for row in results.rows}
    return "; ".join(sorted(texts))


def handle(arguments: argparse.Namespace) -> int:
    """Print or write the report. Return 1 if a protocol's criteria do not all hold."""
    everything = Results(read_existing_rows(arguments.out))
    rows = everything.rows + everything.failed
    for what in ("problem", "sampler"):
        chosen = select(what, getattr(arguments, f"{what}s"), dict.fromkeys(row[what] for row in rows))
        rows = [row for row in rows if row[what] in chosen]
    check_names("reference", [arguments.reference], dict.fromkeys(row["sampler"] for row in rows))
    results = Results(rows)
    judgements: list[Judgement] = []
    if arguments.protocol is not None:
        judgements = criteria.judge(everything, protocols.PROTOCOLS[arguments.protocol])
    figures = None
    if arguments.figures is not None:
        figures = curves.write_figures(results, arguments.figures)
        print(f"wrote {len(figures)} figures to {arguments.figures}", file=sys.stderr)
    if arguments.markdown is None:
        print(markdown(results, arguments.reference, judgements=judgements))
    else:
        base = arguments.markdown.parent
        links = None
        if figures is not None:
            links = {name: Path(os.path.relpath(path, base)).as_posix() for name, path in figures.items()}
        text = markdown(results, arguments.reference, judgements=judgements, figures=links)
        write_text(arguments.markdown, text)
        if judgements:
            print(shortfall(judgements), end="\n\n")
    print(*headlines(results, arguments.reference), sep="\n")
    return int(arguments.protocol is not None and not criteria.all_hold(judgements))
