"""Regret curves as SVG images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from optuna_trlhpo.benchmarks.harness.samplers import BASELINES, OPTUNA_SAMPLERS, OURS
from optuna_trlhpo.benchmarks.search.results import AREA, CHECKPOINTS, Results, interval

_WIDTH, _HEIGHT = 860, 480
LEFT, TOP, RIGHT, BOTTOM = 64, 40, 640, 430  # edges of the axes; the legend is on their right
_LINE = 20  # distance between lines of the legend
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_OUR_COLORS = ("#000000", "#b00020", "#8c564b")
_SETTLED = 5
"""Number of trainings whose regret is the end of the vertical axis. Earlier regrets are mostly random."""


class _Axes(NamedTuple):
    """Axes that map trainings and regrets to pixels.

    Trainings are from 1 to ``budget``. Regrets are from ``low`` to ``high`` on a logarithmic scale.
    """

    budget: int
    low: float
    high: float

    def x(self, trainings: float) -> float:
        """Return the horizontal position of a number of trainings."""
        return LEFT + (RIGHT - LEFT) * (trainings - 1) / max(self.budget - 1, 1)

    def y(self, regret: float) -> float:
        """Return the vertical position of a regret."""
        share = math.log(max(regret, self.low) / self.low) / math.log(self.high / self.low)
        return BOTTOM - (BOTTOM - TOP) * share

    def steps(self, values: np.ndarray) -> list[str]:
        """Return the corners of a step curve."""
        corners = []
        for n, (before, value) in enumerate(zip([values[0], *values], values, strict=False), start=1):
            if n == 1 or before != value:
                corners += [(n, before), (n, value)]
        corners.append((len(values), values[-1]))
        return [f"{self.x(n):.1f},{self.y(value):.1f}" for n, value in corners]

    def ticks(self) -> list[float]:
        """Return the ticks: 1, 2 and 5 times powers of ten."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def figure(results: Results, problem: str) -> str:
    """Draw the mean regret over trainings as an SVG image.

    Each sampler has the form with the smaller area, and its curve ends at the smallest budget of its seeds.
    Our samplers are thick lines, Optuna's samplers solid lines, and the baselines dashed lines. Our samplers
    and the best one of each group have their 95 % interval. A regret of 0 is on the lower edge. The legend is
    in the order of the areas.
    """
    cells = results.cells(problem, AREA)  # in ascending order of the area
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
        f'<clipPath id="axes"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" '
        f'height="{BOTTOM - TOP + 2}"/></clipPath>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(problem)}: mean regret in {escape(unit)}</text>',
        f'<text x="{(LEFT + RIGHT) // 2}" y="{_HEIGHT - 10}" text-anchor="middle">networks trained</text>',
        *_grid(axes),
    ]
    leaders = [next((name for name in cells if name in group), "") for group in (OPTUNA_SAMPLERS, BASELINES)]
    for name in reversed(cells):  # draw the best one on top
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
        y = TOP + 10 + i * _LINE
        parts.append(
            f'<path d="M{RIGHT + 16} {y}h28" stroke="{color}" stroke-width="{width}" '
            f'stroke-dasharray="{dashes}"/><text x="{RIGHT + 52}" y="{y + 4}">{escape(label)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _grid(axes: _Axes) -> list[str]:
    across = [
        f'<path d="M{LEFT} {axes.y(tick):.1f}H{RIGHT}" stroke="#dddddd"/>'
        f'<text x="{LEFT - 8}" y="{axes.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in axes.ticks()
    ]
    down = [
        f'<path d="M{axes.x(at):.1f} {TOP}V{BOTTOM}" stroke="#dddddd"/>'
        f'<text x="{axes.x(at):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{at}</text>'
        for at in (1, *(at for at in CHECKPOINTS if at <= axes.budget))
    ]
    return across + down


def _style(sampler: str) -> tuple[str, float, str]:
    """Return the colour, width and dashes of a curve."""
    for group, colors, width, dashes in (
        (OURS, _OUR_COLORS, 2.5, "none"),
        (OPTUNA_SAMPLERS, _COLORS, 1.5, "none"),
        (BASELINES, _COLORS, 1.5, "6 3"),
    ):
        if sampler in group:
            return colors[list(group).index(sampler) % len(colors)], width, dashes
    return _COLORS[-1], 1.5, "2 2"


def write_figures(results: Results, folder: str | Path) -> dict[str, Path]:
    """Write the `figure` of each problem to ``folder/PROBLEM.svg``, and return the paths by problem."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {problem: folder / f"{problem}.svg" for problem in results.problems}
    for problem, path in written.items():
        path.write_text(figure(results, problem), encoding="utf-8")
    return written
