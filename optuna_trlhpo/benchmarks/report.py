"""Reads the rows of the runner: tables, tests, figures, and whether what the sampler is to reach is reached.

The regret of a sampler at a checkpoint is that of its better form there, the one with the lower mean. Two
samplers are compared seed by seed, by Wilcoxon's signed-rank test (two-sided), over the seeds that both have.
Where one is compared with all others on a problem, the p are corrected after Holm; a corrected p of .05 or
more is called a tie.

A checkpoint is a number of trainings, or ``AREA``: the mean of the regret over all numbers of trainings from
1 up to the smallest budget of the problem's rows.

What the sampler is to reach (``CRITERIA``) is judged by a protocol, which says how many seeds of which
samplers there must be at least. What else was run counts too, so that a rival cannot be left out once it is
there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from scipy import stats

from optuna_trlhpo.benchmarks.runner import (
    BASELINES,
    OPTUNA_SAMPLERS,
    OURS,
    SEQUENCES,
    TERMINAL,
    Row,
    Share,
)
from optuna_trlhpo.benchmarks.tables import HPO_TABLES

CHECKPOINTS = (25, 50, 100, 200, 300)
AREA = -1
HEADLINE_AT = 50
"""The checkpoint of a headline: no later one asks for more."""
REFERENCE = "trlhpo"
SIGNIFICANT = 0.05

_RESAMPLES = 2000


@dataclass(frozen=True)
class Cell:
    """A sampler at a checkpoint: its better form, and the regret of each seed in that form."""

    form: str
    regrets: Mapping[int, float]

    @functools.cached_property
    def mean(self) -> float:
        return float(np.mean(list(self.regrets.values())))


@dataclass(frozen=True)
class Comparison:
    """How a rival does against a reference.

    Attributes:
        p: Wilcoxon's, two-sided.
        corrected: The same after Holm, over all rivals of the reference.
        seeds: Those that both have.
        word: ``"better"``, ``"worse"`` or ``"tie"``, of the rival.
    """

    p: float
    corrected: float
    seeds: int
    word: str


class Results:
    """The rows as regrets by problem, sampler, form and seed.

    Of several rows for one study the one with the largest budget counts, and of equals the last.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        best: dict[tuple[str, str, str, int], Row] = {}
        failed: dict[tuple[str, str, str, int], Row] = {}
        for row in rows:
            key = (row["problem"], row["sampler"], row["form"], row["seed"])
            if "error" in row:
                failed[key] = row
            elif key not in best or row["budget"] >= best[key]["budget"]:
                best[key] = row
        self.rows = list(best.values())
        self.failed = [row for key, row in failed.items() if key not in best]
        """Studies of which there is an error and nothing else."""
        self._by_form: dict[tuple[str, str], dict[str, list[Row]]] = {}
        for row in self.rows:
            forms = self._by_form.setdefault((row["problem"], row["sampler"]), {})
            forms.setdefault(row["form"], []).append(row)
        self._cells: dict[tuple[str, str, int], Cell | None] = {}

    @functools.cached_property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(row["problem"] for row in self.rows))

    def samplers(self, problem: str) -> list[str]:
        return [sampler for other, sampler in self._by_form if other == problem]

    def budget(self, problem: str) -> int:
        """The smallest budget of the problem's rows."""
        return min(row["budget"] for row in self.rows if row["problem"] == problem)

    def has_two_forms(self, problem: str) -> bool:
        return len({row["form"] for row in self.rows if row["problem"] == problem}) > 1

    def checkpoints(self, problem: str) -> list[int]:
        """Those within the problem's largest budget, and the area."""
        most = max(row["budget"] for row in self.rows if row["problem"] == problem)
        return [*(at for at in CHECKPOINTS if at <= most), AREA]

    def cell(self, problem: str, sampler: str, at: int) -> Cell | None:
        """A sampler at a checkpoint; None if no row goes that far."""
        key = (problem, sampler, at)
        if key not in self._cells:
            self._cells[key] = self._better_form(*key)
        return self._cells[key]

    def _better_form(self, problem: str, sampler: str, at: int) -> Cell | None:
        cells = []
        for form, rows in self._by_form.get((problem, sampler), {}).items():
            if at == AREA:
                budget = self.budget(problem)
                areas = self.curves(problem, sampler, form, budget).mean(axis=1)
                regrets = {row["seed"]: float(area) for row, area in zip(rows, areas, strict=True)}
            else:
                regrets = {row["seed"]: regret_at(row["curve"], at) for row in rows if row["budget"] >= at}
            if regrets:
                cells.append(Cell(form, regrets))
        return min(cells, key=lambda cell: cell.mean, default=None)

    def curves(self, problem: str, sampler: str, form: str, budget: int | None = None) -> np.ndarray:
        """``[seeds, budget]`` the regret after 1, 2, ... trainings; None: up to the smallest budget of these
        rows."""
        rows = self._by_form[problem, sampler][form]
        end = min(row["budget"] for row in rows) if budget is None else budget
        return np.array([curve_of(row, end) for row in rows])

    def cells(self, problem: str, at: int) -> dict[str, Cell]:
        """All samplers that go that far, best first."""
        found = {sampler: self.cell(problem, sampler, at) for sampler in self.samplers(problem)}
        cells = {sampler: cell for sampler, cell in found.items() if cell is not None}
        return dict(sorted(cells.items(), key=lambda item: item[1].mean))

    def comparisons(self, problem: str, at: int, reference: str = REFERENCE) -> dict[str, Comparison]:
        """All other samplers against ``reference``; empty if it has no rows."""
        cells = self.cells(problem, at)
        ours = cells.pop(reference, None)
        if ours is None:
            return {}
        ps = [wilcoxon(cell, ours) for cell in cells.values()]
        found = {}
        for (sampler, cell), p, corrected in zip(cells.items(), ps, holm(ps), strict=True):
            shared = cell.regrets.keys() & ours.regrets.keys()
            lead = sum(ours.regrets[seed] - cell.regrets[seed] for seed in shared)
            word = "tie" if corrected >= SIGNIFICANT else "better" if lead > 0 else "worse"
            found[sampler] = Comparison(p, corrected, len(shared), word)
        return found

    def ranks(self, problems: Sequence[str], at: int, without: Iterable[str] = ()) -> dict[str, list[float]]:
        """The rank by mean regret on each problem, of the samplers that have rows on all of them; 1 is best,
        equals share the mean of their ranks."""
        cells = [self.cells(problem, at) for problem in problems]
        if not cells:
            return {}
        everywhere = [
            sampler for sampler in cells[0] if sampler not in without and all(sampler in row for row in cells)
        ]
        means = [[row[sampler].mean for sampler in everywhere] for row in cells]
        ranks = np.array([stats.rankdata(row) for row in means])  # [problems, samplers]
        return {sampler: ranks[:, i].tolist() for i, sampler in enumerate(everywhere)}


# Statistics --------------------------------------------------------------------------------------------


def regret_at(curve: Sequence[Sequence[float]], trainings: int) -> float:
    """The regret after so many trainings; NaN before the first.

    Example:
        >>> [regret_at([[1, 9.0], [3, 4.0]], n) for n in (1, 2, 3, 50)]
        [9.0, 9.0, 4.0, 4.0]
    """
    return next((float(regret) for start, regret in reversed(curve) if start <= trainings), float("nan"))


def curve_of(row: Row, budget: int) -> np.ndarray:
    """``[budget]`` the regret after 1, 2, ... trainings."""
    starts = [int(start) for start, _ in row["curve"] if start <= budget]
    regrets = [regret for _, regret in row["curve"]][: len(starts)]
    return np.repeat(regrets, np.diff([*starts, budget + 1]))


def ratio(a: Cell, b: Cell) -> float:
    """The mean of ``a`` over that of ``b``; 1 if both are 0."""
    if b.mean:
        return a.mean / b.mean
    return float("inf") if a.mean else 1.0


def wilcoxon(a: Cell, b: Cell) -> float:
    """Exact two-sided p of the signed-rank test over the seeds that both have; 1 where there are none.

    Pairs that are equal are left out, and differences of one size share the mean of their ranks. That happens
    often where regrets are few, and there SciPy's test is slow for up to 13 pairs and not exact for more.
    """
    shared = sorted(a.regrets.keys() & b.regrets.keys())
    differences = np.array([a.regrets[seed] - b.regrets[seed] for seed in shared])
    differences = differences.round(9)  # equal but for the last digit is equal
    differences = differences[differences != 0]
    ranks = (2 * stats.rankdata(np.abs(differences))).astype(int)  # twice, for so they are whole numbers
    chances = np.ones(1)  # of each sum of the ranks of positive differences, if signs are fair coins
    for rank in ranks:
        chances = (np.pad(chances, (rank, 0)) + np.pad(chances, (0, rank))) / 2
    observed = ranks[differences > 0].sum()
    return min(1.0, 2 * float(min(chances[: observed + 1].sum(), chances[observed:].sum())))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: the smallest p times their number, the next times one less, never decreasing.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(ps)
    running = 0.0
    for i, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        running = max(running, min(1.0, (len(ps) - i) * ps[place]))
        corrected[place] = running
    return corrected


def interval(values: np.ndarray) -> np.ndarray:
    """The 95 % bootstrap interval of the mean over the first axis: ``[n, ...]`` to ``[2, ...]``."""
    n = len(values)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    return np.percentile(np.tensordot(weights, values, axes=1), [2.5, 97.5], axis=0)


# Tables ------------------------------------------------------------------------------------------------


def markdown(
    results: Results,
    reference: str = REFERENCE,
    *,
    judgements: Sequence[Judgement] = (),
    figures: Mapping[str, str] | None = None,
) -> str:
    """Everything as text: what falls short, two tables for each problem, ranks, versions, what failed.

    Args:
        results: The rows.
        reference: Whom the others are compared with.
        judgements: Of `judge`; a section tells of them.
        figures: Where to find the figure of a problem, by its name.
    """
    parts = [
        "# Results\n\nRegret is the true one of the network with the best observed value so far. Cost is the "
        "number of networks trained; one that the study has trained before is free. p is that of Wilcoxon's "
        "signed-rank test over paired seeds, two-sided."
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
        lines += [
            f"- {row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}"
            for row in results.failed
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def headlines(results: Results, reference: str = REFERENCE) -> list[str]:
    """A line for each problem: ``PROBLEM @N ratio R p P rank K of M``.

    N is ``HEADLINE_AT`` or the smallest budget of the problem's rows, if that is less. R is the mean regret
    over that of the best sampler of Optuna, P Wilcoxon's p against that one, K the rank by mean regret among
    all M samplers; other settings of ours do not count.
    """
    lines = []
    for problem in results.problems:
        at = min(HEADLINE_AT, results.budget(problem))
        lead = _lead(results, problem, at, reference)
        if lead is not None:
            cells = results.cells(problem, at)
            cells = {name: cell for name, cell in cells.items() if name == reference or name not in OURS}
            rank = 1 + sum(cell.mean < cells[reference].mean for cell in cells.values())
            lines.append(
                f"{problem} @{at} ratio {lead.ratio:.3f} p {p_text(lead.p)} rank {rank} of {len(cells)}"
            )
    return lines


class _Lead(NamedTuple):
    """A sampler against the best of Optuna's."""

    rival: str
    ratio: float
    p: float


def _lead(results: Results, problem: str, at: int, sampler: str) -> _Lead | None:
    cells = results.cells(problem, at)
    best = next((name for name in cells if name in OPTUNA_SAMPLERS), None)  # they come best first
    if sampler not in cells or best is None:
        return None
    return _Lead(best, ratio(cells[sampler], cells[best]), wilcoxon(cells[sampler], cells[best]))


def _problem_tables(results: Results, problem: str, reference: str) -> str:
    checkpoints = results.checkpoints(problem)
    columns = {at: results.cells(problem, at) for at in checkpoints}
    two_forms = results.has_two_forms(problem)
    samplers = sorted(results.samplers(problem), key=lambda name: _mean_or_inf(columns[AREA].get(name)))
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
        text += "; (p) where the progressive form is the better one, (t) where the terminal one is"
    text += f". The area is the mean over 1 to {results.budget(problem)} trainings.\n\n"
    text += table(["sampler", "seeds", *heads, "CPU s a study"], regrets)
    compared = [results.comparisons(problem, at, reference) for at in checkpoints]
    if any(compared):
        against = [
            [sampler, *(_comparison_text(column.get(sampler)) for column in compared)]
            for sampler in samplers
            if sampler != reference
        ]
        text += f"\n\nAgainst {reference}, with p after Holm:\n\n" + table(["sampler", *heads], against)
    return text


def _rank_table(results: Results) -> str:
    checkpoints = [
        at for at in (*CHECKPOINTS, AREA) if all(at in results.checkpoints(p) for p in results.problems)
    ]
    columns = [results.ranks(results.problems, at) for at in checkpoints]
    samplers = sorted({name for column in columns for name in column}, key=lambda n: _mean_rank(columns, n))
    if not samplers:
        return "No sampler has rows on all problems, so there are no ranks over them."
    rows = [
        [sampler, *(f"{np.mean(column[sampler]):.2f}" if sampler in column else "" for column in columns)]
        for sampler in samplers
    ]
    rows.append(["*Friedman's p*", *(p_text(friedman(column)) for column in columns)])
    text = f"## Ranks\n\nMean rank over {len(results.problems)} problems: {', '.join(results.problems)}.\n\n"
    return text + table(["sampler", *map(head, checkpoints)], rows)


def friedman(ranks: Mapping[str, Sequence[float]]) -> float:
    """p of the hypothesis that all samplers are equally good.

    NaN for fewer than three samplers or fewer than two problems.
    """
    if len(ranks) < 3 or len(next(iter(ranks.values()))) < 2:
        return float("nan")
    return float(stats.friedmanchisquare(*ranks.values()).pvalue)


def _mean_rank(columns: Sequence[Mapping[str, Sequence[float]]], sampler: str) -> float:
    return float(np.mean([np.mean(column[sampler]) for column in columns if sampler in column]))


def _mean_or_inf(cell: Cell | None) -> float:
    return float("inf") if cell is None else cell.mean


def _cell_text(cell: Cell | None, two_forms: bool) -> str:
    if cell is None:
        return ""
    low, high = interval(np.array(list(cell.regrets.values())))
    form = f" ({cell.form[0]})" if two_forms else ""
    return f"{cell.mean:.3f} [{low:.3f}, {high:.3f}]{form}"


def _comparison_text(comparison: Comparison | None) -> str:
    return "" if comparison is None else f"{comparison.word}, {p_text(comparison.corrected)}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def head(at: int) -> str:
    return "area" if at == AREA else f"@{at}"


def p_text(p: float) -> str:
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


def versions_text(results: Results) -> str:
    texts = {", ".join(f"{name} {v}" for name, v in row["versions"].items()) for row in results.rows}
    return "; ".join(sorted(texts))


# What is to be reached ---------------------------------------------------------------------------------


class Judgement(NamedTuple):
    """Whether a criterion holds.

    Attributes:
        criterion: What is to be reached.
        measured: What was measured.
        short: By how much it falls short, or what is missing; empty if it holds.
    """

    criterion: str
    measured: str
    short: str

    @property
    def holds(self) -> bool:
        return not self.short


@dataclass(frozen=True)
class _Ratio:
    """The mean regret is at most ``ratio`` of that of Optuna's best, with a p below ``p``."""

    problem: str
    at: int
    ratio: float
    p: float | None = None
    sampler: str = REFERENCE

    whom = tuple(OPTUNA_SAMPLERS)

    def __str__(self) -> str:
        limit = f"at most {self.ratio:g}" + ("" if self.p is None else f" with p below {self.p:g}")
        return f"{self.problem} @{self.at}: {self.sampler} {limit} of the regret of Optuna's best"

    def judge(self, results: Results) -> Judgement:
        lead = _lead(results, self.problem, self.at, self.sampler)
        assert lead is not None, "rows were there"
        short = []
        if lead.ratio > self.ratio:
            short.append(f"{lead.ratio - self.ratio:.3f} too much")
        if self.p is not None and not lead.p < self.p:
            short.append(f"p {p_text(lead.p)}")
        return Judgement(str(self), f"{lead.ratio:.3f} of {lead.rival}, p {p_text(lead.p)}", ", ".join(short))


@dataclass(frozen=True)
class _Against:
    """Each of some rivals is ``words`` at a checkpoint, such as "worse" or "tie"."""

    problem: str
    at: int
    name: str
    whom: tuple[str, ...]
    words: tuple[str, ...]

    sampler = REFERENCE

    def __str__(self) -> str:
        return f"{self.problem} @{self.at}: each of {self.name} is {' or '.join(self.words)}"

    def judge(self, results: Results) -> Judgement:
        compared = results.comparisons(self.problem, self.at)
        cells = results.cells(self.problem, self.at)
        there = [name for name in cells if name in self.whom]  # the best first
        wrong = [name for name in there if compared[name].word not in self.words]
        told = [
            f"{name} is {compared[name].word}, p {p_text(compared[name].corrected)}, "
            f"ratio {ratio(cells[self.sampler], cells[name]):.3f}"
            for name in wrong
        ]
        right = f"{len(there) - len(wrong)} of {len(there)} are"
        return Judgement(str(self), right, "; ".join(told))


@dataclass(frozen=True)
class _Within:
    """The mean regret that Optuna's best has at ``at`` is reached within fewer trainings."""

    problem: str
    at: int
    within: int
    sampler: str

    whom = tuple(OPTUNA_SAMPLERS)

    def __str__(self) -> str:
        return (
            f"{self.problem} @{self.at}: {self.sampler} reaches the regret of Optuna's best within "
            f"{self.within} trainings"
        )

    def judge(self, results: Results) -> Judgement:
        cells = results.cells(self.problem, self.at)
        best = next(name for name in cells if name in OPTUNA_SAMPLERS)
        took = next((n for n in range(1, self.at + 1) if self._mean(results, n) <= cells[best].mean), None)
        goal = f"{cells[best].mean:.3f} of {best}"
        if took is None:
            return Judgement(str(self), f"{goal} not reached", f"not even after {self.at}")
        return Judgement(
            str(self),
            f"{goal} reached after {took}",
            "" if took <= self.within else f"{took - self.within} trainings too many",
        )

    def _mean(self, results: Results, at: int) -> float:
        return _mean_or_inf(results.cell(self.problem, self.sampler, at))


@dataclass(frozen=True)
class _Rank:
    """The mean rank over problems is no worse than a rival's."""

    problems: tuple[str, ...]
    at: int
    rival: str

    sampler = REFERENCE

    @property
    def whom(self) -> tuple[str, ...]:
        return (self.rival,)

    def __str__(self) -> str:
        return f"hpo-* @{self.at}: mean rank no worse than that of {self.rival}"

    def judge(self, results: Results) -> Judgement:
        ranks = results.ranks(self.problems, self.at, OURS.keys() - {self.sampler})
        ours, theirs = np.mean(ranks[self.sampler]), np.mean(ranks[self.rival])
        short = f"{ours - theirs:.2f} too much" if ours > theirs else ""
        return Judgement(str(self), f"{ours:.2f} and {theirs:.2f} among {len(ranks)}", short)


_Criterion = _Ratio | _Against | _Within | _Rank
_OPTUNA = ("Optuna's samplers", tuple(OPTUNA_SAMPLERS))
_BASELINES = ("the baselines", tuple(BASELINES))
CRITERIA: tuple[_Criterion, ...] = (
    _Ratio("macro-progressive", 50, 0.4, p=0.01),
    _Ratio("macro-progressive", 100, 0.6, p=0.01),
    _Ratio("macro-progressive", 200, 1.0),
    *(_Ratio("mnist-layers", at, 0.8, p=0.01) for at in (50, 100, 200)),
    *(_Ratio("mnist-layers", at, 0.6, p=0.01, sampler="trlhpo-prior") for at in (50, 100, 200)),
    _Within("mnist-layers", 100, 30, "trlhpo-prior"),
    *(_Against(name, at, *_OPTUNA, ("worse",)) for name in TERMINAL for at in (25, 50)),
    *(_Against(name, at, *_OPTUNA, ("worse", "tie")) for name in TERMINAL for at in (100, 200)),
    *(
        _Against(name, at, *_BASELINES, ("worse", "tie"))
        for name in (*SEQUENCES, *TERMINAL)
        for at in (50, 100, 200)
    ),
    *(_Rank(HPO_TABLES, at, "tpe") for at in (25, 50, 100)),
)
"""What the sampler is to reach."""


def judge(results: Results, protocol: Sequence[Share]) -> list[Judgement]:
    """What is to be reached, one by one, by the rows that a protocol asks for.

    Where there are fewer rows than that, a criterion does not hold. Criteria at checkpoints that the protocol
    does not come to are left out.
    """
    judgements = []
    for criterion in CRITERIA:
        problems = criterion.problems if isinstance(criterion, _Rank) else (criterion.problem,)
        asked = [_asked(protocol, problem, criterion.at) for problem in problems]
        if not all(criterion.sampler in seeds and seeds.keys() & criterion.whom for seeds in asked):
            continue
        missing = [
            f"{name} on {problem} ({there} of {seeds[name]} seeds)"
            for problem, seeds in zip(problems, asked, strict=True)
            for name in (criterion.sampler, *criterion.whom)
            if name in seeds and (there := _n_seeds(results, problem, name, criterion.at)) < seeds[name]
        ]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            judgements.append(Judgement(str(criterion), "", f"not run: {', '.join(missing[:3])}{more}"))
        else:
            judgements.append(criterion.judge(results))
    return judgements


def all_hold(judgements: Sequence[Judgement]) -> bool:
    """Whether everything that was to be judged is reached; nothing is if nothing was judged."""
    return bool(judgements) and all(judgement.holds for judgement in judgements)


def shortfall(judgements: Sequence[Judgement]) -> str:
    """A section on what is to be reached; what falls short comes first."""
    rows = sorted(judgements, key=lambda judgement: judgement.holds)
    text = f"## What is to be reached\n\n{sum(row.holds for row in rows)} of {len(rows)} criteria hold."
    if len(rows) < len(CRITERIA):
        text += f" {len(CRITERIA) - len(rows)} more are judged by a longer protocol."
    return f"{text}\n\n" + table(["criterion", "measured", "falls short"], rows)


def _asked(protocol: Sequence[Share], problem: str, at: int) -> dict[str, int]:
    """The seeds that there must be of each sampler."""
    shares = [share for share in protocol if problem in share.problems and share.budget >= at]
    return {name: share.seeds for share in shares for name in share.samplers}


def _n_seeds(results: Results, problem: str, sampler: str, at: int) -> int:
    cell = results.cell(problem, sampler, at)
    return 0 if cell is None else len(cell.regrets)


# Figures -----------------------------------------------------------------------------------------------


_WIDTH, _HEIGHT = 860, 480
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 40, 640, 430  # of the axes; the legend is to the right of them
_LINE = 20  # from one line of the legend to the next
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_OUR_COLORS = ("#000000", "#b00020", "#8c564b")
_SETTLED = 5
"""The vertical axis ends at the regret after so many trainings: what came before is chance."""


class _Axes(NamedTuple):
    """From trainings, 1 to ``budget``, and regrets, ``low`` to ``high`` on a logarithmic scale, to pixels."""

    budget: int
    low: float
    high: float

    def x(self, trainings: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (trainings - 1) / max(self.budget - 1, 1)

    def y(self, regret: float) -> float:
        share = math.log(max(regret, self.low) / self.low) / math.log(self.high / self.low)
        return _BOTTOM - (_BOTTOM - _TOP) * share

    def steps(self, values: np.ndarray) -> list[str]:
        """The corners of a curve that holds each value up to the next."""
        corners = []
        for n, (before, value) in enumerate(zip([values[0], *values], values, strict=False), start=1):
            if n == 1 or before != value:
                corners += [(n, before), (n, value)]
        corners.append((len(values), values[-1]))
        return [f"{self.x(n):.1f},{self.y(value):.1f}" for n, value in corners]

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def figure(results: Results, problem: str) -> str:
    """The mean regret over trainings as an SVG image: each sampler in the form with the smaller area, as far
    as all its seeds go.

    Ours are drawn thick, Optuna's samplers solid, the baselines dashed; ours and the best of either group
    with their 95 % interval. A regret of 0 lies on the lower edge. The legend has the order of the areas.
    """
    cells = results.cells(problem, AREA)  # best first
    curves = {name: results.curves(problem, name, cell.form) for name, cell in cells.items()}
    means = {name: values.mean(axis=0) for name, values in curves.items()}
    low = min((mean[mean > 0].min() for mean in means.values() if mean.any()), default=0.1) / 1.2
    high = max(mean[:_SETTLED][-1] for mean in means.values()) * 1.1
    axes = _Axes(max(map(len, means.values())), low, max(high, 2 * low))
    unit = next(row["unit"] for row in results.rows if row["problem"] == problem)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<clipPath id="axes"><rect x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" '
        f'height="{_BOTTOM - _TOP + 2}"/></clipPath>',
        f'<text x="{_LEFT}" y="24" font-size="16">{escape(problem)}: mean regret in {escape(unit)}</text>',
        f'<text x="{(_LEFT + _RIGHT) // 2}" y="{_HEIGHT - 10}" text-anchor="middle">networks trained</text>',
        *_grid(axes),
    ]
    leaders = [next((name for name in cells if name in group), "") for group in (OPTUNA_SAMPLERS, BASELINES)]
    for name in reversed(cells):  # the best on top
        color, width, dashes = _style(name)
        if name in leaders or name in OURS:
            lower, upper = interval(curves[name])
            corners = " ".join([*axes.steps(upper), *reversed(axes.steps(lower))])
            parts.append(
                f'<polygon points="{corners}" fill="{color}" fill-opacity="0.12" clip-path="url(#axes)"/>'
            )
        parts.append(
            f'<polyline points="{" ".join(axes.steps(means[name]))}" fill="none" stroke="{color}" '
            f'stroke-width="{width}" stroke-dasharray="{dashes}" clip-path="url(#axes)"/>'
        )
    for i, (name, cell) in enumerate(cells.items()):
        color, width, dashes = _style(name)
        label = f"{name} ({cell.form[0]})" if results.has_two_forms(problem) else name
        y = _TOP + 10 + i * _LINE
        parts.append(
            f'<path d="M{_RIGHT + 16} {y}h28" stroke="{color}" stroke-width="{width}" '
            f'stroke-dasharray="{dashes}"/><text x="{_RIGHT + 52}" y="{y + 4}">{escape(label)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _grid(axes: _Axes) -> list[str]:
    across = [
        f'<path d="M{_LEFT} {axes.y(tick):.1f}H{_RIGHT}" stroke="#dddddd"/>'
        f'<text x="{_LEFT - 8}" y="{axes.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in axes.ticks()
    ]
    down = [
        f'<path d="M{axes.x(at):.1f} {_TOP}V{_BOTTOM}" stroke="#dddddd"/>'
        f'<text x="{axes.x(at):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{at}</text>'
        for at in (1, *(at for at in CHECKPOINTS if at <= axes.budget))
    ]
    return across + down


def _style(sampler: str) -> tuple[str, float, str]:
    """Colour, width and dashes of a curve."""
    for group, colors, width, dashes in (
        (OURS, _OUR_COLORS, 2.5, "none"),
        (OPTUNA_SAMPLERS, _COLORS, 1.5, "none"),
        (BASELINES, _COLORS, 1.5, "6 3"),
    ):
        if sampler in group:
            return colors[list(group).index(sampler) % len(colors)], width, dashes
    return _COLORS[-1], 1.5, "2 2"


def write_figures(results: Results, folder: str | Path) -> dict[str, Path]:
    """``figure`` of each problem as ``folder/PROBLEM.svg``; the paths by problem."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {problem: folder / f"{problem}.svg" for problem in results.problems}
    for problem, path in written.items():
        path.write_text(figure(results, problem), encoding="utf-8")
    return written
