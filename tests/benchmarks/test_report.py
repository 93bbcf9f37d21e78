"""The report's numbers, on rows made up so that they can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from optuna_trlhpo.benchmarks import report
from optuna_trlhpo.benchmarks.report import (
    AREA,
    Results,
    curve_of,
    headlines,
    holm,
    markdown,
    regret_at,
    verdict,
)
from optuna_trlhpo.benchmarks.runner import BASELINES, OPTUNA_SAMPLERS


def row(sampler, curve, *, seed=0, problem="toy", form="terminal", budget=50):
    return {
        **{"problem": problem, "form": form, "sampler": sampler, "seed": seed, "budget": budget},
        **{
            "trainings": budget,
            "curve": curve,
            "trials": budget,
            "hits": 0,
            "seconds": 1.0,
            "unit": "points",
        },
        "versions": {"python": "3"},
    }


def constant(sampler, regrets, **others):
    return [row(sampler, [[1, regret]], seed=seed, **others) for seed, regret in enumerate(regrets)]


def test_a_curve_holds_from_one_change_to_the_next():
    curve = [[1, 8.0], [3, 4.0], [6, 2.0]]
    assert [regret_at(curve, n) for n in (1, 2, 3, 5, 6, 99)] == [8, 8, 4, 4, 2, 2]
    assert np.isnan(regret_at(curve, 0))
    assert curve_of({"curve": curve}, 7).tolist() == [8, 8, 4, 4, 4, 2, 2]
    assert curve_of({"curve": curve}, 4).tolist() == [8, 8, 4, 4]


def test_holm_by_hand():
    # Sorted: .01 x 4 = .04, .015 x 3 = .045, .03 x 2 = .06, .04 x 1 -> not below .06.
    assert holm([0.04, 0.01, 0.03, 0.015]) == pytest.approx([0.06, 0.04, 0.06, 0.045])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_regrets_at_checkpoints_and_area():
    results = Results(
        [
            row("tpe", [[1, 8.0], [26, 2.0], [60, 1.0]], seed=0, budget=100),
            row("tpe", [[1, 4.0], [51, 0.0]], seed=1, budget=50),
        ]
    )
    assert results.checkpoints("toy") == [25, 50, 100, AREA]
    assert results.cell("toy", "tpe", 25).regrets == {0: 8, 1: 4}
    assert results.cell("toy", "tpe", 50).mean == 3
    assert results.cell("toy", "tpe", 100).regrets == {0: 1}  # the other one did not go that far
    assert results.cell("toy", "tpe", AREA).regrets == {0: 5, 1: 4}  # (25 x 8 + 25 x 2) / 50
    assert results.cell("toy", "tpe", 200) is None


def test_the_better_form_counts_at_each_checkpoint():
    results = Results(
        [
            *(row("tpe", [[1, 9.0], [40, 1.0]], seed=s, form="progressive") for s in range(2)),
            *(row("tpe", [[1, 5.0], [40, 4.0]], seed=s, form="terminal") for s in range(2)),
        ]
    )
    assert [results.cell("toy", "tpe", at).form for at in (25, 50)] == ["terminal", "progressive"]
    assert [results.cell("toy", "tpe", at).mean for at in (25, 50)] == [5, 1]
    text = markdown(results)
    assert "| tpe | 2 | 5.000 [5.000, 5.000] (t) | 1.000 [1.000, 1.000] (p) | " in text


def test_the_row_of_the_largest_budget_counts_and_of_equals_the_last():
    error = {"problem": "toy", "form": "terminal", "sampler": "tpe", "seed": 0, "budget": 50, "error": "E: x"}
    rows = [row("tpe", [[1, r]], budget=b) for r, b in ((1.0, 50), (2.0, 60), (3.0, 60), (4.0, 50))]
    results = Results([error, *rows, error])
    assert results.cell("toy", "tpe", 50).regrets == {0: 3}
    assert results.failed == []
    assert Results([error]).failed == [error]
    assert "1 studies failed" in markdown(Results([error]))
    assert "- toy (terminal), tpe, seed 0: E: x" in markdown(Results([error]))


def test_comparisons_are_paired_and_corrected():
    # Of 8 seeds, all differences have one sign: the exact two-sided p is 2 / 2**8.
    ours = [1.0 + seed / 10 for seed in range(8)]
    results = Results(
        [
            *constant("trlhpo", ours),
            *constant("tpe", [regret + 0.1 * (s + 1) for s, regret in enumerate(ours)]),
            *constant("random", ours),
            *constant("gp", [regret - 0.01 * (s + 1) for s, regret in enumerate(ours)]),
        ]
    )
    compared = results.comparisons("toy", 25)
    assert {name: it.word for name, it in compared.items()} == {
        "gp": "better",
        "random": "tie",
        "tpe": "worse",
    }
    assert compared["tpe"].p == compared["gp"].p == pytest.approx(2 / 256)
    assert compared["tpe"].corrected == compared["gp"].corrected == pytest.approx(3 * 2 / 256)
    assert (compared["random"].p, compared["random"].seeds) == (1, 8)
    assert results.comparisons("toy", 25, reference="smac") == {}


def test_only_seeds_that_both_have_are_compared():
    rows = [
        *constant("trlhpo", [1.0] * 7),
        *(row("tpe", [[1, 2.0 + seed]], seed=seed) for seed in range(4, 12)),
    ]
    (compared,) = Results(rows).comparisons("toy", 50).values()
    assert compared.seeds == 3
    assert compared.p == pytest.approx(2 / 2**3)


def test_headlines_compare_with_the_best_of_optuna_s():
    rows = [
        *constant("trlhpo", [1.0, 2.0, 3.0]),
        *constant("tpe", [2.0, 3.0, 5.0]),
        *constant("random", [9.0, 9.0, 9.0]),
        *constant("local-search", [0.5, 0.5, 0.5]),
    ]
    lines = headlines(Results(rows))
    # 6 / 10; the exact p of three differences of one sign is 2 / 2**3; local search is not one of Optuna's.
    assert lines == [f"toy @{at} ratio 0.600 p 0.250 rank 2 of 4" for at in (25, 50)]


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio"), [(0.0, 0.0, "1.000"), (1.0, 0.0, "inf"), (0.0, 1.0, "0.000")]
)
def test_a_ratio_of_nothing(ours, theirs, ratio):
    lines = headlines(Results([*constant("trlhpo", [ours] * 2), *constant("tpe", [theirs] * 2)]))
    assert lines[0].startswith(f"toy @25 ratio {ratio} p ")


def test_ranks_over_problems():
    table = {"trlhpo": (1.0, 1.0, 3.0), "tpe": (2.0, 2.0, 2.0), "random": (3.0, 2.0, 4.0)}
    rows = [
        made
        for name, regrets in table.items()
        for problem, regret in zip("abc", regrets, strict=True)
        for made in constant(name, [regret], problem=problem)
    ]
    rows += constant("gp", [0.1], problem="a")  # not on all problems: not ranked
    results = Results(rows)
    ranks = results.ranks(["a", "b", "c"], 25)
    assert ranks == {"trlhpo": [1, 1, 2], "tpe": [2, 2.5, 1], "random": [3, 2.5, 3]}
    # Friedman with ties: sums of ranks 4, 5.5, 8.5; chi2 = (12 / (3*3*4) * 118.5 - 3*3*4) / (1 - 6 / 72)
    chi2 = (12 / 36 * (4**2 + 5.5**2 + 8.5**2) - 36) / (1 - 6 / 72)
    assert report.friedman(ranks) == pytest.approx(np.exp(-chi2 / 2))  # of two degrees of freedom
    assert "| trlhpo | 1.33 | 1.33 | 1.33 |" in markdown(results)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, size=(400, 2))
    low, high = report.interval(values)
    half = 1.96 * values.std(axis=0) / 20
    assert np.allclose(low, values.mean(axis=0) - half, atol=0.02)
    assert np.allclose(high, values.mean(axis=0) + half, atol=0.02)
    assert report.interval(np.full(3, 7.0)).tolist() == pytest.approx([7, 7])


def test_figures(tmp_path):
    pytest.importorskip("plotly")
    results = Results([*constant("trlhpo", [1.0, 2.0]), *constant("tpe", [0.0, 0.0])])
    drawn = report.figure(results, "toy")
    named = {trace.name: trace for trace in drawn.data if trace.name}
    assert named.keys() == {"trlhpo", "tpe"}
    assert set(named["trlhpo"].y) == {1.5} and len(named["trlhpo"].x) == 50
    assert set(named["tpe"].y) == {0.75}  # 0 has no place on a logarithmic axis
    page = report.write_figures(results, tmp_path)[0].read_text()
    assert "plotly" in page and "toy" in page


def complete_rows(ours):
    """Rows for all criteria; the regret of ``ours`` is 1 and that of all others 4, give or take."""
    problems = {problem for criterion in report.CRITERIA for problem in getattr(criterion, "problems", ())}
    problems |= {c.problem for c in report.CRITERIA if hasattr(c, "problem")}
    samplers = ("trlhpo", "trlhpo-prior", *OPTUNA_SAMPLERS, *BASELINES)
    return [
        row(name, [[1, (1 if name in ours else 4) + seed / 1000]], seed=seed, problem=problem, budget=200)
        for problem, name, seed in itertools.product(sorted(problems), samplers, range(100))
    ]


def test_all_criteria_hold_where_we_lead_everywhere():
    lines = verdict(complete_rows(ours=("trlhpo", "trlhpo-prior")))
    assert [line for line, holds in lines if not holds] == []
    assert len(lines) == len(report.CRITERIA)
    assert any(
        line.startswith("macro-progressive @50: trlhpo at most 0.4 with p below 0.01") for line, _ in lines
    )


def test_criteria_fail_for_what_is_not_reached():
    # Local search does as well as we: a tie. Nobody of Optuna's is behind us: no criterion of a ratio holds.
    behind = verdict(complete_rows(ours=("local-search", "trlhpo", *OPTUNA_SAMPLERS)))
    failing = [line for line, holds in behind if not holds]
    assert any("macro-progressive @50" in line and "1.000" in line for line in failing)
    assert any("macro @25: each of Optuna's samplers is worse: random is tie" in line for line in failing)
    assert not any(
        "the baselines" in line or "@200: each of" in line or line.startswith("hpo-") for line in failing
    )
    # A baseline ahead of us, significantly.
    ahead = verdict(complete_rows(ours=("local-search",)))
    assert any(
        line.startswith("macro @100: each of the baselines is worse or tie: local-search is better")
        for line, holds in ahead
        if not holds
    )
    tpe = verdict(complete_rows(ours=("tpe",)))
    assert not tpe[-1][1] and tpe[-1][0].startswith(
        "hpo-* @25, @50, @100: mean rank no worse than that of tpe"
    )


def test_criteria_fail_for_what_was_not_run():
    assert not any(holds for _, holds in verdict([]))
    rows = [
        it
        for it in complete_rows(ours=("trlhpo", "trlhpo-prior"))
        if (it["sampler"], it["seed"]) != ("gp", 5)
    ]
    lines = dict(verdict(rows))
    (line,) = (line for line in lines if line.startswith("macro @25: each of Optuna's"))
    assert line.endswith("fewer than 100 seeds of gp") and not lines[line]
