"""What confirming the leaders is worth, on problems small enough to be checked by hand."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Evaluator
from optuna_trlhpo.benchmarks.search import confirmation
from optuna_trlhpo.benchmarks.search.confirmation import Look, confirmed, leaders, report


class Scripted(RandomSampler):
    """Asks for the digits of a script, one a trial."""

    script = (2, 5, 4, 7, 1, 9, 0, 3)

    def __init__(self, seed):
        super().__init__(seed)

    def sample_independent(self, study, trial, name, distribution):
        return self.script[trial.number % len(self.script)]


@pytest.fixture
def lucky(toy, monkeypatch):
    """The toy without noise, but the first time that network 2 is trained it looks best."""
    times: Counter[str] = Counter()

    def observe(network, rng):
        times[network] += 1
        return 1.0 if network == "2" and times[network] == 1 else toy.true_value(network)

    monkeypatch.setattr(toy, "observe", observe)
    return toy


@pytest.fixture
def run(tmp_path):
    def call(samplers=None, *, seeds=(0,), totals=(6, 8), top=2, repeats=2, **others):
        return confirmation.run(
            ["toy"],
            samplers or {"scripted": Scripted},
            seeds=seeds,
            totals=totals,
            top=top,
            repeats=repeats,
            out=tmp_path,
            **others,
        )

    return call


@pytest.mark.parametrize("form", ["progressive", "terminal"])
def test_both_choices_are_judged_by_the_truth(run, lucky, form):
    (row,) = run(form=form)
    # Of 6 trainings 2 are left for the search: 2 and 5, of which 5 is confirmed. Of 8 it is 4, and 7.
    assert row["regrets"] == [[pytest.approx(70), pytest.approx(40)], [pytest.approx(70), pytest.approx(20)]]
    assert (row["form"], row["trainings"], row["totals"]) == (form, 8, [6, 8])


def test_where_little_is_good_it_is_the_other_way_round(run, toy, monkeypatch):
    monkeypatch.setattr(toy, "direction", "minimize", raising=False)
    monkeypatch.setattr(toy, "optimum", 0.0)
    (row,) = run()
    # The best of 2, 5, 4, 7, 1, 9; then with 0 and 3. Confirmed: the best of 2, 5; of 2, 5, 4, 7.
    assert row["regrets"] == [[pytest.approx(10), pytest.approx(20)], [pytest.approx(0), pytest.approx(20)]]


def test_a_leader_is_the_best_of_its_trial_and_counts_once():
    looks = [
        Look(0, "a", 0.7, 1),
        Look(0, "ab", 0.9, 2),
        Look(0, "abc", 0.8, 3),
        Look(1, "b", 0.9, 4),
        Look(2, "ab", 0.9, 4),
        Look(2, "abd", 0.5, 5),
        Look(3, "c", 0.95, 6),
    ]
    assert leaders(looks, 5) == ["c", "ab", "b"]
    assert leaders(looks, 2) == ["c", "ab"]


def test_repeats_have_noise_of_their_own_and_are_averaged(toy, monkeypatch):
    """Noise far above the differences: the choice is by chance, but by nothing else than these draws."""
    monkeypatch.setattr(toy, "observe", lambda network, rng: float(rng.standard_normal()))
    networks = ["1", "2", "3"]
    chosen = []
    for seed in range(30):
        draws = {
            network: [Evaluator(toy, 1_000_000 * r + seed, 1).train(network) for r in (1, 2, 3)]
            for network in networks
        }
        assert len({value for values in draws.values() for value in values}) == 9
        assert Evaluator(toy, seed, 1).train("1") not in draws["1"]  # what the search saw
        best = max(networks, key=lambda network: sum(draws[network]))
        assert confirmed(toy, networks, seed=seed, repeats=3) == best
        chosen.append(best)
    assert set(chosen) == set(networks)


def test_of_equal_means_the_leader_counts(toy, monkeypatch):
    monkeypatch.setattr(toy, "observe", lambda network, rng: 0.1 + 0.2)
    assert confirmed(toy, ["4", "9"], seed=0, repeats=3) == "4"


def test_what_is_there_is_not_run_again(run, lucky):
    assert [row["seed"] for row in run(seeds=[0, 1])] == [0, 1]
    assert run(seeds=[0, 1]) == []
    assert [row["top"] for row in run(top=1)] == [1]
    assert [row["totals"] for row in run(totals=[7])] == [[7]]


def test_what_is_wrong_is_said_before_the_first_study(run, toy, tmp_path):
    with pytest.raises(ValueError, match=r"totals are \[4, 8\]; each must be more than .*, 4 trainings"):
        run(totals=[4, 8])
    with pytest.raises(ValueError, match="repeats is 0"):
        run(repeats=0)
    with pytest.raises(ValueError, match="unknown sampler tpx"):
        run(["tpx"])
    with pytest.raises(ValueError, match="unknown problem nowhere; there are toy"):
        confirmation.run(["nowhere"], ["random"], seeds=[0], out=tmp_path)
    assert read_rows(tmp_path) == []


def test_the_table_is_what_was_measured():
    def row(sampler, seed, first, second):
        return {
            "problem": "toy",
            "form": "terminal",
            "sampler": sampler,
            "seed": seed,
            "totals": [50, 100],
            "top": 5,
            "repeats": 3,
            "regrets": [first, second],
            "unit": "points",
            "trainings": 100,
            "seconds": 0.1,
            "versions": {"python": "3"},
            "machine": "abacus",
        }

    rows = [row("tpe", seed, [3.0 + seed, 2.0], [1.0, 1.0 + 0.1 * (seed - 1)]) for seed in range(3)]
    rows.append({**rows[0], "totals": [50]})
    text = report(rows, totals=[50, 100], top=5, repeats=3)
    lines = [line for line in text.splitlines() if line.startswith("| tpe")]
    assert lines == [
        # differences -1, -2, -3: p is 2 / 2**3, times 2 for two lines
        "| tpe | terminal | 3 | 50 | 4.000 ± 0.577 | 2.000 ± 0.000 | -2.000 ± 0.577 | 3 / 0 / 0 | 0.500 |",
        "| tpe | terminal | 3 | 100 | 1.000 ± 0.000 | 1.000 ± 0.058 | +0.000 ± 0.058 | 1 / 1 / 1 | 1.000 |",
    ]
    assert "## toy, regret in points" in text and "on abacus; python 3." in text
    assert "after T - 15" in text


def test_the_command_runs_and_reports(toy, tmp_path, capsys):
    arguments = ["--problems", "toy", "--seeds", "2", "--totals", "5", "--top", "2", "--repeats", "2"]
    arguments += ["--out", str(tmp_path)]
    assert main(["confirm", *arguments, "--samplers", "random"]) == 0
    assert "| random | terminal | 2 | 5 |" in capsys.readouterr().out
    assert main(["confirm", *arguments, "--samplers"]) == 0
    assert "| random | terminal | 2 | 5 |" in capsys.readouterr().out
    assert main(["confirm", *arguments, "--top", "0"]) == 2
    assert "top is 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.data
def test_processes_find_what_one_finds(data_root, tmp_path):
    tables.load.cache_clear()

    def rows(jobs):
        found = confirmation.run(
            ["macro"],
            ["random", "tpe"],
            seeds=[0, 1],
            totals=[20],
            out=tmp_path / str(jobs),
            jobs=jobs,
            data_root=data_root,
        )
        return sorted(json.dumps({**row, "seconds": 0}) for row in found)

    alone = rows(1)
    assert len(alone) == 4 and not any("error" in row for row in alone)
    assert rows(2) == alone
