"""Earlier studies, and the table of what they save."""

from __future__ import annotations

import optuna
import pytest

from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.benchmarks.search import transfer
from optuna_trlhpo.benchmarks.search.results import Results
from tests.helpers import value_of


@pytest.fixture
def toy_alone(toy, monkeypatch):
    monkeypatch.setattr(transfer, "EARLIER", {"toy": ("toy", transfer.REVERSED, transfer.SHUFFLED)})
    monkeypatch.setattr(transfer, "N_EARLIER", 6)
    return toy


def test_a_study_of_a_problem_has_its_trainings_and_noise_of_its_own(toy_alone):
    study = transfer.earlier_study("toy", "toy", seed=3)
    assert study.direction.name == "MAXIMIZE"
    values = {trial.params["digit"]: trial.value for trial in study.trials if trial.value is not None}
    assert len(values) == transfer.N_EARLIER
    noise = toy_alone.objective("terminal", 3, 10).evaluator
    assert all(value != noise.train(str(digit)) for digit, value in values.items())


def test_misleading_studies_have_the_same_networks_and_other_values(toy_alone):
    reversed_ = transfer.earlier_study(transfer.REVERSED, "toy", seed=0)
    assert reversed_.direction.name == "MINIMIZE"
    assert reversed_.best_params["digit"] == min(trial.params["digit"] for trial in reversed_.trials)
    shuffled = transfer.earlier_study(transfer.SHUFFLED, "toy", seed=0)
    assert shuffled.direction.name == "MAXIMIZE"
    pairs = list(zip(reversed_.trials, shuffled.trials, strict=True))
    assert [a.params for a, _ in pairs] == [b.params for _, b in pairs]
    assert sorted(value_of(a) for a, _ in pairs) == sorted(value_of(b) for _, b in pairs)
    assert any(a.value != b.value for a, b in pairs)


def test_networks_of_digits_come_with_all_that_they_grew_from():
    study = transfer.earlier_study(transfer.DIGITS, "mnist-layers", seed=0)
    other = transfer.earlier_study(transfer.DIGITS, "mnist-layers", seed=1)
    assert [trial.params for trial in study.trials] != [trial.params for trial in other.trials]
    n_layers = [max(int(name.split("_")[0][5:]) for name in trial.params) for trial in study.trials]
    assert [len(trial.intermediate_values) for trial in study.trials] == n_layers
    assert max(n_layers) > 2 and 40 < len(study.trials) < transfer.N_EARLIER
    assert all(trial.value == max(trial.intermediate_values.values()) for trial in study.trials)
    assert TASKS[transfer.DIGITS].dataset == "digits"


def test_each_problem_is_played_cold_and_behind_every_earlier_study(toy_alone, tmp_path):
    rows = transfer.run(["toy"], seeds=1, budget=3, out=tmp_path)
    assert [row["sampler"] for row in rows] == ["cold", "toy", "reversed", "shuffled"]
    assert {row["form"] for row in rows} == {"progressive"} and not any("error" in row for row in rows)
    assert transfer.run(["toy"], seeds=1, budget=3, out=tmp_path) == []
    with pytest.raises(ValueError, match="unknown problem macro; there are toy"):
        transfer.run(["macro"], seeds=1, budget=3, out=tmp_path)


def test_a_warm_sampler_has_learned_from_the_earlier_study(toy_alone):
    firsts = []
    for seed in range(3):
        study = optuna.create_study(
            direction="maximize", sampler=transfer.warm_sampler("toy", "toy", None, seed=seed)
        )
        study.optimize(toy_alone.objective("terminal", seed, 1), n_trials=1)
        firsts.append(study.best_params["digit"])
    assert min(firsts) >= 7


def row(sampler, regrets, seed):
    curve = [[n, regret] for n, regret in enumerate(regrets, start=1)]
    return {
        **{"problem": "toy", "form": "terminal", "sampler": sampler, "seed": seed, "budget": len(regrets)},
        **{"curve": curve, "unit": "points", "seconds": 2.0, "versions": {"python": "3"}},
    }


def test_the_table_by_hand(toy_alone):
    rows = []
    for seed in range(8):
        more = seed / 10
        rows.append(row("cold", [9 + more, 8 + more, 7 + more, 6 + more], seed))
        rows.append(row("toy", [7 + more, 6 + more, 5 + more, 4 + more], seed))
        rows.append(row("reversed", [9 + more, 9 + more, 8 + more, 8 + more], seed))
    text = transfer.markdown(Results(rows), at=(3, 50))
    # 0 to 0.7 in steps of 0.1: standard deviation sqrt(0.06), standard error 0.087; two Holm-corrected tests.
    assert "| cold | 8 | 7.350 ± 0.087 |" in text
    assert "| toy | 8 | 5.350 ± 0.087 (+2, better, p 0.016) |" in text
    assert "| reversed | 8 | 8.350 ± 0.087 (not within 4, worse, p 0.016) |" in text
