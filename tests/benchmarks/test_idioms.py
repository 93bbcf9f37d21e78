"""The idioms: truth and noise, and how samplers are ranked."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows
from optuna_trlhpo.benchmarks.problems.idioms import IDIOMS, Idiom, Observer
from optuna_trlhpo.benchmarks.search import defaults
from optuna_trlhpo.benchmarks.search.idiom_ranks import ranks_by_seed, report, run, values_of

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'bench')")


def play(
    idiom: Idiom, seed: int, n_trials: int, noise_seed: int | None = None
) -> tuple[optuna.Study, Observer]:
    watch = Observer(seed if noise_seed is None else noise_seed)
    study = optuna.create_study(direction=idiom.direction, sampler=RandomSampler(seed), pruner=idiom.pruner())
    study.optimize(lambda trial: idiom.play(trial, watch), n_trials=n_trials)
    return study, watch


def test_there_are_ten() -> None:
    assert len(IDIOMS) == 10
    assert all(name == idiom.name for name, idiom in IDIOMS.items())


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=list(IDIOMS))
def test_values_depend_on_seed_and_parameters_alone(idiom: Idiom) -> None:
    (one, first), (two, second) = (play(idiom, 2000, 12) for _ in range(2))
    assert [trial.values for trial in one.trials] == [trial.values for trial in two.trials]
    assert first.truths == second.truths and set(first.truths) == set(range(12))
    other, truths = play(idiom, 2000, 4, noise_seed=2001)  # none is pruned before the sixth
    assert [trial.params for trial in other.trials] == [trial.params for trial in one.trials[:4]]
    assert truths.truths == {number: first.truths[number] for number in range(4)}
    values = [[trial.value for trial in study.trials[:4]] for study in (one, other)]
    assert (values[0] == values[1]) == (idiom.name == "quadratic")


@pytest.mark.slow
@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=list(IDIOMS))
def test_there_is_something_to_find(idiom: Idiom) -> None:
    study, watch = play(idiom, 2001, 40)
    truths = np.array(list(watch.truths.values()))
    assert np.isfinite(truths).all() and len(np.unique(truths)) > 20
    sign = 1 if idiom.direction == "maximize" else -1
    best = watch.truths[study.best_trial.number]
    assert sign * best > np.median(sign * truths)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    assert (pruned > 0) == idiom.name.endswith("-epochs")
    assert not any(trial.state == optuna.trial.TrialState.FAIL for trial in study.trials)


def test_half_of_the_images_is_seen_and_the_truth_is_of_all() -> None:
    study = optuna.create_study()
    correct = np.arange(100) % 4 != 0
    halves = []
    for seed in (2000, 2000, 2001):
        watch, trial = Observer(seed), study.ask()
        halves.append(watch.validated(trial, correct))
        assert watch.truths == {trial.number: 0.75}
    assert halves[0] == halves[1] != halves[2]
    assert all(round(50 * half) == pytest.approx(50 * half) for half in halves)


def test_ranks_by_hand() -> None:
    values = {
        "a": {"x": {0: 1.0, 1: 5.0}, "y": {0: 2.0, 1: 4.0}, "z": {0: 3.0, 1: 6.0}},
        "b": {"x": {0: 7.0, 1: 1.0, 2: 0.0}, "y": {0: 7.0, 1: 0.0}, "z": {0: 6.0, 1: 2.0}},
    }
    assert ranks_by_seed(values, ["x", "y", "z"]) == {
        "x": {0: (1 + 2.5) / 2, 1: 2.0},
        "y": {0: (2 + 2.5) / 2, 1: 1.0},
        "z": {0: (3 + 1) / 2, 1: 3.0},
    }
    assert ranks_by_seed(values, ["x", "nobody"]) == {"x": {}, "nobody": {}}


def row(idiom: str, sampler: str, seed: int, curve: list[list[float]]) -> Row:
    return {
        **{"problem": idiom, "form": "study", "sampler": sampler, "seed": seed, "budget": 10},
        **{"curve": curve, "direction": IDIOMS[idiom].direction, "seconds": 1.0, "machine": "here"},
        "versions": {"python": "3"},
    }


def test_large_values_are_good_where_they_are() -> None:
    rows = [row("mlp", "tpe", 0, [[1, 0.5], [6, 0.9]]), row("quadratic", "tpe", 0, [[1, 4.0], [6, 2.0]])]
    assert values_of(rows, 5) == {"mlp": {"tpe": {0: -0.5}}, "quadratic": {"tpe": {0: 4.0}}}
    assert values_of(rows, 10) == {"mlp": {"tpe": {0: -0.9}}, "quadratic": {"tpe": {0: 2.0}}}


def test_the_report_tells_who_is_better() -> None:
    good = [row("mlp", "trlhpo", seed, [[1, 0.5], [8, 0.9 + seed / 500]]) for seed in range(10)]
    bad = [row("mlp", "tpe", seed, [[1, 0.7]]) for seed in range(10)]
    text = report([*good, *bad], trials=10)
    assert "| mlp (+) | 0.909 ± 0.002 | 0.700 ± 0.000 | better than tpe, 0.002 |" in text
    assert "Mean rank over 1 idioms and 10 seeds" in text
    assert "| trlhpo | 2.00 | 1.00 |  | 1.0 |" in text and "| tpe | 1.00 | 2.00 | 0.002 | 1.0 |" in text
    assert "no ranks" in report([*good, row("quadratic", "tpe", 0, [[1, 1.0]])], trials=10)
    assert "no complete study" in report(good, trials=11)


def test_the_curve_is_the_truth_of_the_best_observed(tmp_path) -> None:
    (found,) = run(["cnn-epochs"], ["random"], seeds=[2000], trials=30, out=tmp_path)
    study, watch = play(IDIOMS["cnn-epochs"], 2000, 30)
    assert found["curve"][-1] == [
        study.best_trial.number + 1,
        pytest.approx(watch.truths[study.best_trial.number]),
    ]
    assert found["pruned"] > 0 and found["trials"] == 30
    assert run(["cnn-epochs"], ["random"], seeds=[2000], trials=30, out=tmp_path) == []


def test_the_command(tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    command = ["idioms", "--idioms", "quad*", "boosting", "--samplers", "random", "tpe", "nsga2"]
    options = ["--trials", "14", "--seeds", "2", "--first-seed", "2000", "--out", str(tmp_path / "rows")]
    assert main([*command, *options, "--markdown", str(page)]) == 0
    assert page.read_text() in capsys.readouterr().out
    rows = read_rows(tmp_path / "rows")
    assert len(rows) == 12 and {row["seed"] for row in rows} == {2000, 2001}
    assert "| quadratic (-) |" in page.read_text() and "Friedman's p" in page.read_text()
    assert main(["idioms", "--idioms", "none", *options]) == 2
    assert "unknown idiom none; there are mlp, " in capsys.readouterr().err
    assert defaults.IDIOMS_SEEDS == 20 and defaults.IDIOMS_TRIALS == 50
