"""The report's numbers, on rows made up so that they can be worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from optuna_trlhpo.benchmarks.harness.samplers import BASELINES, OPTUNA_SAMPLERS
from optuna_trlhpo.benchmarks.search import criteria, curves
from optuna_trlhpo.benchmarks.search.criteria import all_hold, judge
from optuna_trlhpo.benchmarks.search.protocols import PROTOCOLS, SEQUENCES, Share
from optuna_trlhpo.benchmarks.search.report import headlines, markdown, shortfall
from optuna_trlhpo.benchmarks.search.results import (
    AREA,
    Cell,
    Results,
    curve_of,
    friedman,
    holm,
    interval,
    regret_at,
    wilcoxon,
)


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


def cell_of(results, problem, sampler, checkpoint):
    found = results.cell(problem, sampler, checkpoint)
    assert found is not None
    return found


def test_regrets_at_checkpoints_and_area():
    results = Results(
        [
            row("tpe", [[1, 8.0], [26, 2.0], [60, 1.0]], seed=0, budget=100),
            row("tpe", [[1, 4.0], [51, 0.0]], seed=1, budget=50),
        ]
    )
    assert results.checkpoints("toy") == [25, 50, 100, AREA]
    assert cell_of(results, "toy", "tpe", 25).regrets == {0: 8, 1: 4}
    assert cell_of(results, "toy", "tpe", 50).mean == 3
    assert cell_of(results, "toy", "tpe", 100).regrets == {0: 1}  # the other one did not go that far
    assert cell_of(results, "toy", "tpe", AREA).regrets == {0: 5, 1: 4}  # (25 x 8 + 25 x 2) / 50
    assert results.cell("toy", "tpe", 200) is None


def test_the_better_form_counts_at_each_checkpoint():
    results = Results(
        [
            *(row("tpe", [[1, 9.0], [40, 1.0]], seed=s, form="progressive") for s in range(2)),
            *(row("tpe", [[1, 5.0], [40, 4.0]], seed=s, form="terminal") for s in range(2)),
        ]
    )
    assert [cell_of(results, "toy", "tpe", at).form for at in (25, 50)] == ["terminal", "progressive"]
    assert [cell_of(results, "toy", "tpe", at).mean for at in (25, 50)] == [5, 1]
    text = markdown(results)
    assert "| tpe | 2 | 5.000 [5.000, 5.000] (t) | 1.000 [1.000, 1.000] (p) | " in text


def test_the_row_of_the_largest_budget_counts_and_of_equals_the_last():
    error = {"problem": "toy", "form": "terminal", "sampler": "tpe", "seed": 0, "budget": 50, "error": "E: x"}
    rows = [row("tpe", [[1, r]], budget=b) for r, b in ((1.0, 50), (2.0, 60), (3.0, 60), (4.0, 50))]
    results = Results([error, *rows, error])
    assert cell_of(results, "toy", "tpe", 50).regrets == {0: 3}
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


def test_the_signed_rank_test_is_exact():
    rng = np.random.default_rng(0)
    for n in (5, 12, 40):
        values = rng.normal(0.4, 1, size=n)
        cells = (Cell("terminal", dict(enumerate(it))) for it in (values, np.zeros(n)))
        assert wilcoxon(*cells) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    # Differences 1, 1, 1, -2 and 0: ranks 2, 2, 2 and 4. Of 16 choices of signs 12 make the sum of positive
    # ranks at most 6, and 8 at least 6: p is 1. Without the sign, 1 of 16 makes it 10: p is 1/8.
    for last, p in ((-2.0, 1.0), (2.0, 0.125)):
        by_hand = [1.0, 1.0, 1.0, last, 0.0]
        cells = (Cell("terminal", dict(enumerate(it))) for it in (by_hand, [0.0] * 5))
        assert wilcoxon(*cells) == pytest.approx(p)


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
        *constant("trlhpo-paper", [0.1, 0.1, 0.1]),  # ours, and so not counted
        *constant("trlhpo", [1.0], problem="small", budget=7),
        *constant("tpe", [1.0], problem="small", budget=200),
        *constant("tpe", [1.0], problem="without us"),
    ]
    # 6 / 10; the exact p of three differences of one sign is 2 / 2**3; local search is not one of Optuna's.
    assert headlines(Results(rows)) == [
        "toy @50 ratio 0.600 p 0.250 rank 2 of 4",
        "small @7 ratio 1.000 p 1.000 rank 1 of 2",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio"), [(0.0, 0.0, "1.000"), (1.0, 0.0, "inf"), (0.0, 1.0, "0.000")]
)
def test_a_ratio_of_nothing(ours, theirs, ratio):
    lines = headlines(Results([*constant("trlhpo", [ours] * 2), *constant("tpe", [theirs] * 2)]))
    assert lines[0].startswith(f"toy @50 ratio {ratio} p ")


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
    assert friedman(ranks) == pytest.approx(np.exp(-chi2 / 2))  # of two degrees of freedom
    assert "| trlhpo | 1.33 | 1.33 | 1.33 |" in markdown(results)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, size=(400, 2))
    low, high = interval(values)
    half = 1.96 * values.std(axis=0) / 20
    assert np.allclose(low, values.mean(axis=0) - half, atol=0.02)
    assert np.allclose(high, values.mean(axis=0) + half, atol=0.02)
    assert interval(np.full(3, 7.0)).tolist() == pytest.approx([7, 7])


def points(image, color):
    """The corners of a curve, by its colour."""
    (line,) = (it for it in image.iter() if it.tag.endswith("polyline") and it.get("stroke") == color)
    return [tuple(map(float, corner.split(","))) for corner in line.get("points").split()]


def test_a_figure_shows_every_curve(tmp_path):
    results = Results(
        [
            *(row("trlhpo", [[1, 8.0], [26, 2.0]], seed=seed) for seed in range(2)),
            *constant("tpe", [0.0, 0.0], budget=25),
            *constant("a & b", [4.0, 4.0]),
        ]
    )
    (path,) = curves.write_figures(results, tmp_path).values()
    assert path == tmp_path / "toy.svg"
    image = ElementTree.fromstring(path.read_text())
    texts = [it.text for it in image.iter() if it.tag.endswith("text")]
    assert texts[0] == "toy: mean regret in points"
    assert texts[-3:] == ["tpe", "a & b", "trlhpo"]  # areas 0, 4, 5
    assert {"1", "25", "50", "2", "5"} <= set(texts)
    ours = points(image, "#000000")
    # From 8 to 2 after 25 trainings; the width is that of 50.
    (left, high), (_, low), (right, _) = ours[0], ours[-2], ours[-1]
    assert ours == [(left, high), (left, high), ours[2], ours[3], (right, low)]
    assert ours[2][0] == ours[3][0] == pytest.approx(left + (right - left) * 25 / 49, abs=0.1)
    (_, middle), *_ = points(image, "#7f7f7f")
    assert middle == pytest.approx((high + low) / 2, abs=0.1)  # 4 lies midway, for the scale is logarithmic
    theirs = points(image, "#d55e00")
    assert theirs[-1][0] == pytest.approx(left + (right - left) * 24 / 49, abs=0.1)  # up to its own budget
    assert theirs[-1][1] == curves.BOTTOM  # nothing is left of the regret
    assert len([it for it in image.iter() if it.tag.endswith("polygon")]) == 2  # us, and the best of Optuna's
    assert "(figures/toy.svg)" in markdown(results, figures={"toy": "figures/toy.svg"})


SEEDS = 20
FULL = tuple(dataclasses.replace(share, seeds=SEEDS) for share in PROTOCOLS["full"])


def complete_results(ours, *, without=(), seeds=SEEDS):
    """Rows for all criteria; the regret of ``ours`` is 1 and that of all others 4, give or take."""
    problems = {problem for criterion in criteria.CRITERIA for problem in getattr(criterion, "problems", ())}
    problems |= {c.problem for c in criteria.CRITERIA if hasattr(c, "problem")}
    samplers = ("trlhpo", "trlhpo-prior", *OPTUNA_SAMPLERS, *BASELINES)
    return Results(
        row(name, [[1, (1 if name in ours else 4) + seed / 1000]], seed=seed, problem=problem, budget=200)
        for problem, name, seed in itertools.product(sorted(problems), samplers, range(seeds))
        if (name, seed) not in without
    )


def failing(results, protocol=FULL):
    return {it.criterion: it.short for it in judge(results, protocol) if not it.holds}


def test_all_criteria_hold_where_we_lead_everywhere():
    judgements = judge(complete_results(ours=("trlhpo", "trlhpo-prior")), FULL)
    assert [it for it in judgements if not it.holds] == []
    assert len(judgements) == len(criteria.CRITERIA) and all_hold(judgements)
    measured = {it.criterion: it.measured for it in judgements}
    text = "macro-progressive @50: trlhpo at most 0.4 with p below 0.01 of the regret of Optuna's best"
    assert measured[text].startswith("0.252 of random, p ")  # 1.0095 / 4.0095
    text = "mnist-layers @100: trlhpo-prior reaches the regret of Optuna's best within 30 trainings"
    assert measured[text].endswith("reached after 1")
    assert f"{len(judgements)} of {len(judgements)} criteria hold" in shortfall(judgements)


def test_criteria_fail_for_what_is_not_reached():
    # Local search does as well as we: a tie. Nobody of Optuna's is behind us: no criterion of a ratio holds.
    behind = failing(complete_results(ours=("local-search", "trlhpo", *OPTUNA_SAMPLERS)))
    text = "macro-progressive @50: trlhpo at most 0.4 with p below 0.01 of the regret of Optuna's best"
    assert behind[text] == "0.600 too much, p 1.000"
    assert behind["macro @25: each of Optuna's samplers is worse"].startswith(
        "random is tie, p 1.000, ratio 1.000; "
    )
    assert not any("the baselines" in it or "@200: each of" in it or it.startswith("hpo-") for it in behind)
    # A baseline ahead of us, significantly.
    ahead = failing(complete_results(ours=("local-search",)))
    assert ahead["macro @100: each of the baselines is worse or tie"].startswith("local-search is better, p ")
    tpe = failing(complete_results(ours=("tpe",)))
    # Among n samplers tpe has rank 1, and we share those from 2 to n, whose mean is 1 + n / 2.
    n = len({"trlhpo", *OPTUNA_SAMPLERS, *BASELINES})
    assert tpe["hpo-* @100: mean rank no worse than that of tpe"] == f"{n / 2:.2f} too much"


def test_the_prior_must_be_fast(monkeypatch):
    monkeypatch.setattr(
        criteria, "CRITERIA", [it for it in criteria.CRITERIA if isinstance(it, criteria.Within)]
    )
    rows = complete_results(ours=("trlhpo",), without=[("trlhpo-prior", seed) for seed in range(SEEDS)]).rows
    text = "mnist-layers @100: trlhpo-prior reaches the regret of Optuna's best within 30 trainings"
    for reached, short in ((30, None), (31, "1 trainings too many"), (101, "not even after 100")):
        prior = [
            row("trlhpo-prior", [[1, 9.0], [reached, 1.0]], seed=s, problem="mnist-layers", budget=200)
            for s in range(SEEDS)
        ]
        assert failing(Results([*rows, *prior])).get(text) == short


def test_criteria_fail_for_what_was_not_run():
    assert len(failing(Results([]))) == len(criteria.CRITERIA)
    assert not all_hold([])
    missing = failing(complete_results(ours=("trlhpo", "trlhpo-prior"), without=[("gp", 5)]))
    assert missing["macro @25: each of Optuna's samplers is worse"] == "not run: gp on macro (19 of 20 seeds)"
    assert not any("the baselines" in it or it.startswith("hpo-") for it in missing)


def test_a_protocol_judges_what_it_comes_to():
    share = Share(SEQUENCES, ("trlhpo", "tpe", "local-search"), seeds=10, budget=100)
    judgements = judge(complete_results(ours=("trlhpo",), seeds=10), [share])
    assert {it.criterion.split(":")[0] for it in judgements} == {
        f"{problem} @{at}" for problem in SEQUENCES for at in (50, 100)
    }
    # What was run counts, be it of the protocol or not: here all of Optuna's samplers are as good as we.
    level = failing(complete_results(ours=("trlhpo", "gp"), seeds=10), [share])
    assert len(level) == 4 and all("Optuna's best" in it for it in level)
    text = shortfall(judgements)
    assert f"{len(criteria.CRITERIA) - len(judgements)} more are judged by other protocols" in text


def test_what_falls_short_comes_first():
    judgements = [criteria.Judgement("a", "1", ""), criteria.Judgement("b", "2", "3 too much")]
    assert shortfall(judgements).splitlines()[-2:] == ["| b | 2 | 3 too much |", "| a | 1 |  |"]
    assert "1 of 2 criteria hold" in markdown(Results([]), judgements=judgements)
