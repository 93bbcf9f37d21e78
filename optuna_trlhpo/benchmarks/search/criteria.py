"""Criteria for the sampler (``CRITERIA``), and the check whether they hold.

A protocol determines the minimum number of seeds for each sampler. Additional rows count as well, so a rival
that has run cannot be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from optuna_trlhpo.benchmarks.harness.samplers import BASELINES, OPTUNA_SAMPLERS, OURS
from optuna_trlhpo.benchmarks.problems.tables import HPO_TABLES
from optuna_trlhpo.benchmarks.search.protocols import SEQUENCES, TERMINAL, Share
from optuna_trlhpo.benchmarks.search.results import REFERENCE, Results, lead_of, mean_or_inf, p_text, ratio


class Judgement(NamedTuple):
    """Judgement on a criterion.

    Attributes:
        criterion: Description of the criterion.
        measured: Measured value.
        short: Distance to the criterion, or missing rows. Empty if the criterion holds.
    """

    criterion: str
    measured: str
    short: str

    @property
    def holds(self) -> bool:
        """Whether the criterion holds."""
        return not self.short


@dataclass(frozen=True)
class Ratio:
    """Criterion that the mean regret is at most ``ratio`` of that of Optuna's best, with a p below ``p``."""

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
        """Return whether the rows meet the criterion."""
        lead = lead_of(results, self.problem, self.at, self.sampler)
        assert lead is not None, "rows were there"
        short = []
        if lead.ratio > self.ratio:
            short.append(f"{lead.ratio - self.ratio:.3f} too much")
        if self.p is not None and not lead.p < self.p:
            short.append(f"p {p_text(lead.p)}")
        return Judgement(str(self), f"{lead.ratio:.3f} of {lead.rival}, p {p_text(lead.p)}", ", ".join(short))


@dataclass(frozen=True)
class Against:
    """Criterion that the comparison with each rival at a checkpoint gives one of ``words``."""

    problem: str
    at: int
    name: str
    whom: tuple[str, ...]
    words: tuple[str, ...]

    sampler = REFERENCE

    def __str__(self) -> str:
        return f"{self.problem} @{self.at}: each of {self.name} is {' or '.join(self.words)}"

    def judge(self, results: Results) -> Judgement:
        """Return whether the rows meet the criterion."""
        compared = results.comparisons(self.problem, self.at)
        cells = results.cells(self.problem, self.at)
        there = [name for name in cells if name in self.whom]  # in ascending order of the regret
        wrong = [name for name in there if compared[name].word not in self.words]
        told = [
            f"{name} is {compared[name].word}, p {p_text(compared[name].corrected)}, "
            f"ratio {ratio(cells[self.sampler], cells[name]):.3f}"
            for name in wrong
        ]
        right = f"{len(there) - len(wrong)} of {len(there)} are"
        return Judgement(str(self), right, "; ".join(told))


@dataclass(frozen=True)
class Within:
    """Criterion that ``within`` trainings suffice for the mean regret of Optuna's best at ``at``."""

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
        """Return whether the rows meet the criterion."""
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
        return mean_or_inf(results.cell(self.problem, self.sampler, at))


@dataclass(frozen=True)
class Rank:
    """Criterion that the mean rank over problems is no worse than that of a rival."""

    problems: tuple[str, ...]
    at: int
    rival: str

    sampler = REFERENCE

    @property
    def whom(self) -> tuple[str, ...]:
        """Samplers that it compares with."""
        return (self.rival,)

    def __str__(self) -> str:
        return f"hpo-* @{self.at}: mean rank no worse than that of {self.rival}"

    def judge(self, results: Results) -> Judgement:
        """Return whether the rows meet the criterion."""
        ranks = results.ranks(self.problems, self.at, OURS.keys() - {self.sampler})
        ours, theirs = np.mean(ranks[self.sampler]), np.mean(ranks[self.rival])
        short = f"{ours - theirs:.2f} too much" if ours > theirs else ""
        return Judgement(str(self), f"{ours:.2f} and {theirs:.2f} among {len(ranks)}", short)


_Criterion = Ratio | Against | Within | Rank
_OPTUNA = ("Optuna's samplers", tuple(OPTUNA_SAMPLERS))
_BASELINES = ("the baselines", tuple(BASELINES))
CRITERIA: tuple[_Criterion, ...] = (
    Ratio("macro-progressive", 50, 0.4, p=0.01),
    Ratio("macro-progressive", 100, 0.6, p=0.01),
    Ratio("macro-progressive", 200, 1.0),
    *(Ratio("mnist-layers", at, 0.8, p=0.01) for at in (50, 100, 200)),
    *(Ratio("mnist-layers", at, 0.6, p=0.01, sampler="trlhpo-prior") for at in (50, 100, 200)),
    Within("mnist-layers", 100, 30, "trlhpo-prior"),
    *(Against(name, at, *_OPTUNA, ("worse",)) for name in TERMINAL for at in (25, 50)),
    *(Against(name, at, *_OPTUNA, ("worse", "tie")) for name in TERMINAL for at in (100, 200)),
    *(
        Against(name, at, *_BASELINES, ("worse", "tie"))
        for name in (*SEQUENCES, *TERMINAL)
        for at in (50, 100, 200)
    ),
    *(Ratio("mnist-layers-foreign", at, ratio, p=0.05) for at, ratio in ((50, 0.8), (100, 0.7), (200, 0.8))),
    *(Rank(HPO_TABLES, at, "tpe") for at in (25, 50, 100)),
)
"""Criteria for the sampler."""


def judge(results: Results, protocol: Sequence[Share]) -> list[Judgement]:
    """Judge the criteria that apply to a protocol.

    A criterion does not hold if rows of the protocol are missing. Criteria at checkpoints beyond the budgets
    of the protocol are left out.

    Args:
        results: All rows.
        protocol: Shares of the protocol.
    """
    judgements = []
    for criterion in CRITERIA:
        problems = criterion.problems if isinstance(criterion, Rank) else (criterion.problem,)
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
    """Return whether all criteria hold, and there is at least one."""
    return bool(judgements) and all(judgement.holds for judgement in judgements)


def _asked(protocol: Sequence[Share], problem: str, at: int) -> dict[str, int]:
    """Return the required number of seeds of each sampler."""
    shares = [share for share in protocol if problem in share.problems and share.budget >= at]
    return {name: share.seeds for share in shares for name in share.samplers}


def _n_seeds(results: Results, problem: str, sampler: str, at: int) -> int:
    cell = results.cell(problem, sampler, at)
    return 0 if cell is None else len(cell.regrets)
