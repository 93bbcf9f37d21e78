"""Reads the rows of the runner: tables, tests, figures, and whether what we promise holds.

The regret of a sampler at a checkpoint is that of its better form there, the one with the lower mean. Two
samplers are compared seed by seed, by Wilcoxon's signed-rank test (two-sided), over the seeds that both have.
Where one is compared with all others on a problem, the p are corrected after Holm; a corrected p of .05 or
more is called a tie.

A checkpoint is a number of trainings, or ``AREA``: the mean of the regret over all numbers of trainings from
1 up to the smallest budget of the problem's rows.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from optuna_trlhpo.benchmarks.runner import BASELINES, OPTUNA_SAMPLERS, Row
from optuna_trlhpo.benchmarks.tables import HPO_TABLES

if TYPE_CHECKING:
    import plotly.graph_objects as go

CHECKPOINTS = (25, 50, 100, 200, 300)
AREA = -1
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
                regrets = {row["seed"]: float(curve_of(row, budget).mean()) for row in rows}
            else:
                regrets = {row["seed"]: regret_at(row["curve"], at) for row in rows if row["budget"] >= at}
            if regrets:
                cells.append(Cell(form, regrets))
        return min(cells, key=lambda cell: cell.mean, default=None)

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

    def ranks(self, problems: Sequence[str], at: int) -> dict[str, list[float]]:
        """The rank by mean regret on each problem, of the samplers that have rows on all of them; 1 is best,
        equals share the mean of their ranks."""
        cells = [self.cells(problem, at) for problem in problems]
        if not cells:
            return {}
        everywhere = [sampler for sampler in cells[0] if all(sampler in row for row in cells)]
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


def wilcoxon(a: Cell, b: Cell) -> float:
    """Two-sided p of the paired differences; 1 where there are none."""
    shared = sorted(a.regrets.keys() & b.regrets.keys())
    differences = np.array([a.regrets[seed] - b.regrets[seed] for seed in shared])
    differences = differences.round(9)  # equal but for the last digit is equal
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


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


def markdown(results: Results, reference: str = REFERENCE) -> str:
    """Everything as text: two tables for each problem, the ranks over problems, versions, what failed."""
    parts = [_problem_tables(results, problem, reference) for problem in results.problems]
    if len(results.problems) > 1:
        parts.append(_rank_table(results))
    if len(results.rows):
        parts.append("Versions: " + "; ".join(sorted({_version_text(row) for row in results.rows})) + ".")
    if results.failed:
        lines = [f"{len(results.failed)} studies failed:", ""]
        lines += [
            f"- {row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}"
            for row in results.failed
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def headlines(results: Results, reference: str = REFERENCE) -> list[str]:
    """A line for each problem and checkpoint: ``PROBLEM @N ratio R p P rank K of M``.

    R is the mean regret over that of the best sampler of Optuna at that checkpoint, P Wilcoxon's p against
    that one, K the rank by mean regret among all M samplers.
    """
    lines = []
    for problem in results.problems:
        for at in results.checkpoints(problem):
            lead = None if at == AREA else _lead(results, problem, at, reference)
            if lead is not None:
                cells = results.cells(problem, at)
                rank = 1 + sum(cell.mean < cells[reference].mean for cell in cells.values())
                lines.append(
                    f"{problem} @{at} ratio {lead.ratio:.3f} p {_p(lead.p)} rank {rank} of {len(cells)}"
                )
    return lines


class _Lead(NamedTuple):
    """A sampler against the best of Optuna's."""

    ratio: float
    p: float


def _lead(results: Results, problem: str, at: int, sampler: str) -> _Lead | None:
    cells = results.cells(problem, at)
    rivals = [cell for name, cell in cells.items() if name in OPTUNA_SAMPLERS]  # best first
    if sampler not in cells or not rivals:
        return None
    ours, best = cells[sampler], rivals[0]
    if best.mean:
        ratio = ours.mean / best.mean
    else:
        ratio = float("inf") if ours.mean else 1.0
    return _Lead(ratio, wilcoxon(ours, best))


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
    heads = [_head(at) for at in checkpoints]
    unit = next(row["unit"] for row in results.rows if row["problem"] == problem)
    text = f"## {problem}\n\nMean regret in {unit}, with its 95 % bootstrap interval"
    if two_forms:
        text += "; (p) where the progressive form is the better one, (t) where the terminal one is"
    text += f". The area is the mean over 1 to {results.budget(problem)} trainings.\n\n"
    text += _table(["sampler", "seeds", *heads, "CPU s a study"], regrets)
    compared = [results.comparisons(problem, at, reference) for at in checkpoints]
    if any(compared):
        against = [
            [sampler, *(_comparison_text(column.get(sampler)) for column in compared)]
            for sampler in samplers
            if sampler != reference
        ]
        text += f"\n\nAgainst {reference}, with p after Holm:\n\n" + _table(["sampler", *heads], against)
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
    rows.append(["*Friedman's p*", *(_p(friedman(column)) for column in columns)])
    text = f"## Ranks\n\nMean rank over {len(results.problems)} problems: {', '.join(results.problems)}.\n\n"
    return text + _table(["sampler", *map(_head, checkpoints)], rows)


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
    return "" if comparison is None else f"{comparison.word}, {_p(comparison.corrected)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(at: int) -> str:
    return "area" if at == AREA else f"@{at}"


def _p(p: float) -> str:
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


def _version_text(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


# What we promise ---------------------------------------------------------------------------------------


_LEAST_SEEDS = 100
"""With fewer, "not significantly worse" would say little."""


@dataclass(frozen=True)
class _Ratio:
    """The mean regret is at most ``ratio`` of that of Optuna's best, with a p below ``p``."""

    problem: str
    at: int
    ratio: float
    p: float | None = None
    sampler: str = REFERENCE

    def verdict(self, results: Results) -> tuple[str, bool]:
        limit = f"at most {self.ratio:g}" + ("" if self.p is None else f" with p below {self.p:g}")
        text = f"{self.problem} @{self.at}: {self.sampler} {limit} of the regret of Optuna's best"
        absent = _absent(results, self.problem, self.at, (self.sampler, *OPTUNA_SAMPLERS))
        if absent:
            return f"{text}: {absent}", False
        lead = _lead(results, self.problem, self.at, self.sampler)
        assert lead is not None, "rows were there"
        holds = lead.ratio <= self.ratio and (self.p is None or lead.p < self.p)
        return f"{text}: {lead.ratio:.3f}, p {_p(lead.p)}", holds


@dataclass(frozen=True)
class _Against:
    """Each of some rivals is ``words`` at a checkpoint, such as "worse" or "tie"."""

    problem: str
    at: int
    whom: str
    rivals: tuple[str, ...]
    words: tuple[str, ...]

    def verdict(self, results: Results) -> tuple[str, bool]:
        text = f"{self.problem} @{self.at}: each of {self.whom} is {' or '.join(self.words)}"
        absent = _absent(results, self.problem, self.at, (REFERENCE, *self.rivals))
        if absent:
            return f"{text}: {absent}", False
        compared = results.comparisons(self.problem, self.at)
        wrong = [name for name in self.rivals if compared[name].word not in self.words]
        told = [f"{name} is {compared[name].word}, p {_p(compared[name].corrected)}" for name in wrong]
        return f"{text}: {', '.join(told) or 'yes'}", not wrong


@dataclass(frozen=True)
class _Rank:
    """The rank, averaged over problems and checkpoints, is no worse than a rival's."""

    problems: tuple[str, ...]
    checkpoints: tuple[int, ...]
    rival: str

    def verdict(self, results: Results) -> tuple[str, bool]:
        samplers = (REFERENCE, *OPTUNA_SAMPLERS, *BASELINES)
        places = ", ".join(map(_head, self.checkpoints))
        text = f"hpo-* {places}: mean rank no worse than that of {self.rival}"
        for problem in self.problems:
            for at in self.checkpoints:
                absent = _absent(results, problem, at, samplers)
                if absent:
                    return f"{text}: {problem} @{at}: {absent}", False
        columns = [results.ranks(self.problems, at) for at in self.checkpoints]
        ours, theirs = _mean_rank(columns, REFERENCE), _mean_rank(columns, self.rival)
        return f"{text}: {ours:.2f} and {theirs:.2f} among {len(columns[0])}", ours <= theirs


def _absent(results: Results, problem: str, at: int, samplers: Iterable[str]) -> str:
    """What is missing for a judgement; empty if nothing is."""
    cells = results.cells(problem, at) if problem in results.problems else {}
    few = {name: len(cells[name].regrets) if name in cells else 0 for name in samplers}
    few = {name: n for name, n in few.items() if n < _LEAST_SEEDS}
    return f"fewer than {_LEAST_SEEDS} seeds of {', '.join(few)}" if few else ""


_OPTUNA = ("Optuna's samplers", tuple(OPTUNA_SAMPLERS))
_RIVALS = ("the baselines", tuple(BASELINES))
_TERMINAL = ("macro", "nb201-cifar10", "nb201-cifar100", "nb201-imagenet")
_LAYERWISE = ("macro-progressive", "mnist-layers")
CRITERIA: tuple[_Ratio | _Against | _Rank, ...] = (
    _Ratio("macro-progressive", 50, 0.4, p=0.01),
    _Ratio("macro-progressive", 100, 0.6, p=0.01),
    _Ratio("macro-progressive", 200, 1.0),
    *(_Ratio("mnist-layers", at, 0.8, p=0.01) for at in (50, 100, 200)),
    *(_Ratio("mnist-layers", at, 0.6, sampler="trlhpo-prior") for at in (50, 100, 200)),
    *(_Against(name, at, *_OPTUNA, ("worse",)) for name in _TERMINAL for at in (25, 50)),
    *(_Against(name, at, *_OPTUNA, ("worse", "tie")) for name in _TERMINAL for at in (100, 200)),
    *(
        _Against(name, at, *_RIVALS, ("worse", "tie"))
        for name in (*_LAYERWISE, *_TERMINAL)
        for at in (50, 100, 200)
    ),
    _Rank(HPO_TABLES, (25, 50, 100), "tpe"),
)
"""What the sampler is to reach."""


def verdict(rows: Iterable[Row]) -> list[tuple[str, bool]]:
    """Each criterion as a line that says what was measured, and whether it holds.

    What there are too few rows for does not hold.
    """
    results = Results(rows)
    return [criterion.verdict(results) for criterion in CRITERIA]


# Figures -----------------------------------------------------------------------------------------------


def figure(results: Results, problem: str, reference: str = REFERENCE) -> go.Figure:
    """Mean regret over trainings with its 95 % interval, each sampler in the form with the smaller area."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    budget = results.budget(problem)
    cells = results.cells(problem, AREA)
    curves = {
        name: np.array(
            [
                curve_of(row, budget)
                for row in results.rows
                if (row["problem"], row["sampler"], row["form"]) == (problem, name, cell.form)
            ]
        )  # [seeds, budget]
        for name, cell in cells.items()
    }
    means = {name: values.mean(axis=0) for name, values in curves.items()}
    positive = np.concatenate([mean[mean > 0] for mean in means.values()])
    floor = positive.min() / 2 if len(positive) else 1.0  # the axis is logarithmic: 0 is drawn here
    drawn = go.Figure()
    for i, (name, cell) in enumerate(sorted(cells.items())):
        color = qualitative.Dark24[i % 24]
        low, high = interval(curves[name])
        shared: dict[str, Any] = {"x": np.arange(1, budget + 1), "legendgroup": name, "line_shape": "hv"}
        unnamed: dict[str, Any] = {**shared, "line_width": 0, "showlegend": False, "hoverinfo": "skip"}
        drawn.add_scatter(y=np.maximum(high, floor), **unnamed)
        drawn.add_scatter(
            y=np.maximum(low, floor),
            fill="tonexty",
            fillcolor=f"rgba({', '.join(str(int(color[j : j + 2], 16)) for j in (1, 3, 5))}, 0.12)",
            **unnamed,
        )
        drawn.add_scatter(
            y=np.maximum(means[name], floor),
            name=f"{name} ({cell.form})" if results.has_two_forms(problem) else name,
            line_color=color,
            line_width=4 if name == reference else 1.5,
            **shared,
        )
    unit = next(row["unit"] for row in results.rows if row["problem"] == problem)
    drawn.update_layout(
        title=problem,
        template="plotly_white",
        xaxis_title="networks trained",
        yaxis_title=f"regret in {unit}",
    )
    drawn.update_yaxes(type="log")
    return drawn


def write_figures(results: Results, folder: str | Path, reference: str = REFERENCE) -> list[Path]:
    """One HTML page with the curves of all problems and, where kaleido is installed, a PNG for each.

    Raises:
        ImportError: Without plotly.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {problem: figure(results, problem, reference) for problem in results.problems}
    page = folder / "curves.html"
    parts = [
        # The first one carries plotly's script for all, so that the page needs no network.
        drawn.to_html(full_html=False, include_plotlyjs=i == 0)
        for i, drawn in enumerate(figures.values())
    ]
    page.write_text(f"<!doctype html><meta charset='utf-8'><title>Regret</title>{''.join(parts)}\n")
    written = [page]
    if importlib.util.find_spec("kaleido"):
        for problem, drawn in figures.items():
            written.append(folder / f"{problem}.png")
            drawn.write_image(written[-1], width=900, height=600)
    return written
