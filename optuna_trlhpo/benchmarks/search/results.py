"""Regrets in the rows of the runner, and statistical comparisons of samplers.

The regret of a sampler at a checkpoint is that of its better form, the one with the lower mean at this
checkpoint. Wilcoxon's signed-rank test (two-sided) compares two samplers over their common seeds. For the
comparisons of one sampler with all others on a problem, the p are corrected after Holm. A corrected p of .05
or more is a tie.

A checkpoint is a number of trainings, or ``AREA``: the mean regret over all numbers of trainings from 1 to
the smallest budget of the problem's rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.harness.samplers import OPTUNA_SAMPLERS, REFERENCE

CHECKPOINTS = (25, 50, 100, 200, 300)
AREA = -1
SIGNIFICANT = 0.05

_RESAMPLES = 2000


@dataclass(frozen=True)
class Cell:
    """Result of a sampler at a checkpoint: its better form, and the regret of each seed in this form."""

    form: str
    regrets: Mapping[int, float]

    @functools.cached_property
    def mean(self) -> float:
        """Mean regret."""
        return float(np.mean(list(self.regrets.values())))


@dataclass(frozen=True)
class Comparison:
    """Comparison of a rival with a reference.

    Attributes:
        p: Two-sided p of Wilcoxon's test.
        corrected: The p after Holm's correction over all rivals of the reference.
        seeds: Number of common seeds.
        word: Result for the rival: ``"better"``, ``"worse"`` or ``"tie"``.
    """

    p: float
    corrected: float
    seeds: int
    word: str


class Results:
    """Regrets by problem, sampler, form and seed.

    If a study has several rows, the last one with the largest budget counts.
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
        """Studies that have only failed."""
        self._by_form: dict[tuple[str, str], dict[str, list[Row]]] = {}
        for row in self.rows:
            forms = self._by_form.setdefault((row["problem"], row["sampler"]), {})
            forms.setdefault(row["form"], []).append(row)
        self._cells: dict[tuple[str, str, int], Cell | None] = {}

    @functools.cached_property
    def problems(self) -> list[str]:
        """Names of the problems, in the order of the rows."""
        return list(dict.fromkeys(row["problem"] for row in self.rows))

    def samplers(self, problem: str) -> list[str]:
        """Return the names of the samplers on a problem."""
        return [sampler for other, sampler in self._by_form if other == problem]

    def budget(self, problem: str) -> int:
        """Return the smallest budget of the problem's rows."""
        return min(row["budget"] for row in self.rows if row["problem"] == problem)

    def has_two_forms(self, problem: str) -> bool:
        """Return whether a problem has rows in both forms."""
        return len({row["form"] for row in self.rows if row["problem"] == problem}) > 1

    def checkpoints(self, problem: str) -> list[int]:
        """Return the checkpoints within the problem's largest budget, and the area."""
        most = max(row["budget"] for row in self.rows if row["problem"] == problem)
        return [*(at for at in CHECKPOINTS if at <= most), AREA]

    def cell(self, problem: str, sampler: str, at: int) -> Cell | None:
        """Return the result of a sampler at a checkpoint, or None if no row reaches it."""
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
        """Return the regret after 1, 2, ... trainings as an array ``[seeds, budget]``.

        Args:
            problem: Name of the problem.
            sampler: Name of the sampler.
            form: Form of the problem.
            budget: Number of trainings. None: the smallest budget of these rows.
        """
        rows = self._by_form[problem, sampler][form]
        end = min(row["budget"] for row in rows) if budget is None else budget
        return np.array([curve_of(row, end) for row in rows])

    def cells(self, problem: str, at: int) -> dict[str, Cell]:
        """Return the results of all samplers that reach a checkpoint, the best first."""
        found = {sampler: self.cell(problem, sampler, at) for sampler in self.samplers(problem)}
        cells = {sampler: cell for sampler, cell in found.items() if cell is not None}
        return dict(sorted(cells.items(), key=lambda item: item[1].mean))

    def comparisons(self, problem: str, at: int, reference: str = REFERENCE) -> dict[str, Comparison]:
        """Compare all other samplers with ``reference``. The result is empty if it has no rows."""
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
        """Rank the samplers with rows on all problems by their mean regret on each problem.

        The best rank is 1, and equal regrets share the mean of their ranks.

        Args:
            problems: Names of the problems.
            at: Checkpoint.
            without: Names of samplers to exclude.

        Returns:
            Ranks of each sampler, in the order of the problems.
        """
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
    """Return the regret after a number of trainings, or NaN before the first one.

    Examples:
        >>> [regret_at([[1, 9.0], [3, 4.0]], n) for n in (1, 2, 3, 50)]
        [9.0, 9.0, 4.0, 4.0]
    """
    return next((float(regret) for start, regret in reversed(curve) if start <= trainings), float("nan"))


def curve_of(row: Row, budget: int) -> np.ndarray:
    """Return the regret after 1, 2, ... trainings as an array ``[budget]``."""
    starts = [int(start) for start, _ in row["curve"] if start <= budget]
    regrets = [regret for _, regret in row["curve"]][: len(starts)]
    return np.repeat(regrets, np.diff([*starts, budget + 1]))


def ratio(a: Cell, b: Cell) -> float:
    """Return the ratio of the means of ``a`` and ``b``, or 1 if both are 0."""
    if b.mean:
        return a.mean / b.mean
    return float("inf") if a.mean else 1.0


def wilcoxon(a: Cell, b: Cell) -> float:
    """Compute the exact two-sided p of the signed-rank test over the common seeds, or 1 without any.

    The test omits equal pairs, and differences of equal size share the mean of their ranks. Both are frequent
    if there are few different regrets. In this case SciPy's test is slow for up to 13 pairs, and not exact
    for more.
    """
    shared = sorted(a.regrets.keys() & b.regrets.keys())
    differences = np.array([a.regrets[seed] - b.regrets[seed] for seed in shared])
    differences = differences.round(9)  # ignore rounding errors
    differences = differences[differences != 0]
    ranks = (2 * stats.rankdata(np.abs(differences))).astype(int)  # doubled, so that they are integers
    chances = np.ones(1)  # distribution of the rank sum of positive differences under the null hypothesis
    for rank in ranks:
        chances = (np.pad(chances, (rank, 0)) + np.pad(chances, (0, rank))) / 2
    observed = ranks[differences > 0].sum()
    return min(1.0, 2 * float(min(chances[: observed + 1].sum(), chances[observed:].sum())))


def holm(ps: Sequence[float]) -> list[float]:
    """Apply Holm's correction: multiply the k-th smallest of n p by n - k + 1, and keep the order.

    Examples:
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
    """Compute the 95 % bootstrap interval of the mean over the first axis: ``[n, ...]`` to ``[2, ...]``."""
    n = len(values)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    return np.percentile(np.tensordot(weights, values, axes=1), [2.5, 97.5], axis=0)


def friedman(ranks: Mapping[str, Sequence[float]]) -> float:
    """Compute the p of Friedman's test that all samplers are equally good.

    The p is NaN for fewer than three samplers or fewer than two problems.
    """
    if len(ranks) < 3 or len(next(iter(ranks.values()))) < 2:
        return float("nan")
    return float(stats.friedmanchisquare(*ranks.values()).pvalue)


class Lead(NamedTuple):
    """Comparison of a sampler with the best sampler of Optuna."""

    rival: str
    ratio: float
    p: float


def lead_of(results: Results, problem: str, at: int, sampler: str) -> Lead | None:
    """Compare a sampler with the best sampler of Optuna, or return None if one of them has no rows."""
    cells = results.cells(problem, at)
    best = next((name for name in cells if name in OPTUNA_SAMPLERS), None)  # in ascending order of the regret
    if sampler not in cells or best is None:
        return None
    return Lead(best, ratio(cells[sampler], cells[best]), wilcoxon(cells[sampler], cells[best]))


def mean_or_inf(cell: Cell | None) -> float:
    """Return the mean regret, or infinity without a result."""
    return float("inf") if cell is None else cell.mean


def p_text(p: float) -> str:
    """Format a p with three digits."""
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"
