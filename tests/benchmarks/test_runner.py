"""What the runner writes, and that nothing is lost or run twice."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS
from optuna_trlhpo.benchmarks.harness.workers import quiet
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search import runner
from optuna_trlhpo.benchmarks.search.protocols import PROTOCOLS, Share


@pytest.fixture
def run(toy, tmp_path):
    """Runs random search on the toy, or what is given, and returns the new rows."""

    def call(samplers=("random",), *, seeds=(0,), budget=4, **others):
        return runner.run(["toy"], samplers, seeds=seeds, budget=budget, out=tmp_path, **others)

    return call


def identities(rows):
    return [(row["form"], row["sampler"], row["seed"], row["budget"]) for row in rows]


def test_a_row_tells_the_whole_study(run, toy, tmp_path):
    rows = run()
    assert [(row["problem"], *identity) for row, identity in zip(rows, identities(rows), strict=True)] == [
        ("toy", "progressive", "random", 0, 4),
        ("toy", "terminal", "random", 0, 4),
    ]
    row = rows[1]
    objective = toy.objective("terminal", 0, 4)
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    while not objective.evaluator.exhausted:
        study.optimize(objective, n_trials=1)
    assert row["curve"] == objective.evaluator.curve
    assert (row["trials"], row["hits"]) == (len(study.trials), objective.evaluator.hits)
    assert (row["trainings"], row["trials"] - row["hits"]) == (4, 4)
    assert row["seconds"] >= 0
    assert row["versions"].keys() == {"python", "optuna", "torch", "optuna_trlhpo"}
    assert read_rows(tmp_path / "toy" / "random.jsonl") == rows == read_rows(tmp_path)


def test_what_is_there_is_not_run_again(run):
    assert identities(run(seeds=[0, 1])) == [
        (form, "random", seed, 4) for seed in (0, 1) for form in ("progressive", "terminal")
    ]
    assert run(seeds=[0, 1]) == []
    assert run(seeds=[0, 1], budget=3) == []
    assert identities(run(seeds=[0, 1, 2])) == [("progressive", "random", 2, 4), ("terminal", "random", 2, 4)]
    assert {row["budget"] for row in run(seeds=[1], budget=5)} == {5}
    assert run(seeds=[1], budget=5) == []


def test_a_line_that_was_cut_off_is_run_again(run, tmp_path):
    rows = run(seeds=[0, 1])
    path = tmp_path / "toy" / "random.jsonl"
    text = path.read_text()
    path.write_text(text[:-40])
    assert read_rows(path) == rows[:-1]  # reading alone changes nothing
    assert path.read_text() == text[:-40]
    (again,) = run(seeds=[0, 1])
    assert {**again, "seconds": 0} == {**rows[-1], "seconds": 0}
    assert read_rows(path) == [*rows[:-1], again]


def test_any_other_line_that_is_not_a_row_is_an_error(run, tmp_path):
    run()
    path = tmp_path / "toy" / "random.jsonl"
    for line in ("{}", "nonsense", "[1]"):
        path.write_text(f"{line}\n{path.read_text()}")
        with pytest.raises(ValueError, match=r"random\.jsonl, line 1 is not a row"):
            run()
        path.write_text(path.read_text().partition("\n")[2])


class Broken(RandomSampler):
    """Raises where its seed is even."""

    mended = False
    error: type[BaseException] = ZeroDivisionError

    def __init__(self, seed):
        super().__init__(seed)
        self.seed = seed

    def sample_independent(self, *arguments):
        if self.seed % 2 == 0 and not Broken.mended:
            raise self.error(f"seed {self.seed}")
        return super().sample_independent(*arguments)


def test_a_study_that_fails_is_told_and_tried_again(run, monkeypatch):
    rows = run({"broken": Broken}, seeds=[0, 1])
    assert [row.get("error") for row in rows] == ["ZeroDivisionError: seed 0"] * 2 + [None] * 2
    assert rows[0].keys() == {"problem", "form", "sampler", "seed", "budget", "error"}
    monkeypatch.setattr(Broken, "mended", True)
    assert [(row["seed"], "error" in row) for row in run({"broken": Broken}, seeds=[0, 1])] == [
        (0, False)
    ] * 2


def test_breaking_off_loses_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Broken, "error", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run({"broken": Broken}, seeds=[1, 3, 4, 5])
    assert [row["seed"] for row in read_rows(tmp_path)] == [1, 1, 3, 3]
    monkeypatch.setattr(Broken, "mended", True)
    assert [row["seed"] for row in run({"broken": Broken}, seeds=[1, 3, 4, 5])] == [4, 4, 5, 5]


class Stubborn(RandomSampler):
    def sample_independent(self, *arguments):
        return 3


def test_a_sampler_that_repeats_itself_comes_to_an_end(run):
    rows = run({"stubborn": Stubborn}, budget=2)
    assert len(rows) == 2
    for row in rows:
        assert (row["trainings"], row["trials"], row["hits"]) == (1, 20, 19)
        assert row["curve"] == [[1, 60.0]]


class Budgeted(RandomSampler):
    def __init__(self, seed, budget):
        super().__init__(seed)
        assert budget == 7


def test_a_sampler_that_wants_the_budget_gets_it(run):
    assert ["error" in row for row in run({"budgeted": Budgeted}, budget=7)] == [False, False]


def test_smac_plans_for_the_budget(run, monkeypatch):
    from optuna_trlhpo import baselines

    made = []

    def make(**arguments):
        made.append(arguments)
        return RandomSampler(seed=0)

    monkeypatch.setattr(baselines, "SMACSampler", make)
    run({"smac": SAMPLERS["smac"]}, seeds=(3,), budget=7)
    assert made and all(arguments == {"seed": 3, "n_trials": 7} for arguments in made)


def test_shares_of_a_protocol_are_run_seed_by_seed(toy, tmp_path):
    shares = [
        Share(("toy",), ("random",), seeds=2, budget=3, forms=("terminal",)),
        Share(("toy",), ("tpe",), seeds=1, budget=2),
    ]
    rows = runner.run_protocol(shares, out=tmp_path)
    assert identities(rows) == [
        ("terminal", "random", 0, 3),
        ("progressive", "tpe", 0, 2),
        ("terminal", "tpe", 0, 2),
        ("terminal", "random", 1, 3),
    ]
    assert runner.run_protocol(shares, out=tmp_path) == []
    with pytest.raises(ValueError, match="unknown sampler tpx"):
        runner.run_protocol([Share(("toy",), ("tpx",), 1, 1)], out=tmp_path)
    with pytest.raises(ValueError, match="unknown problem nowhere"):
        runner.run_protocol([Share(("nowhere",), ("tpe",), 1, 1)], out=tmp_path)


def test_protocols_name_what_there_is():
    for share in (share for shares in PROTOCOLS.values() for share in shares):
        assert set(share.problems) <= set(tables.problems())
        assert set(share.samplers) <= set(SAMPLERS) | {"trlhpo-prior"}


def test_what_is_missing_is_said_before_the_first_study(run, tmp_path):
    def absent(*, seed):
        raise ImportError("no such package")

    with pytest.raises(ImportError, match="no such package"):
        run({"random": RandomSampler, "absent": absent})
    with pytest.raises(ValueError, match="unknown sampler tpx; there are trlhpo, .*tpe, "):
        run(["random", "tpx"])
    with pytest.raises(ValueError, match="unknown problem nowhere; there are toy"):
        runner.run(["nowhere"], ["random"], seeds=[0], budget=1, out=tmp_path)
    assert read_rows(tmp_path) == []


@pytest.mark.slow
@pytest.mark.data
def test_processes_find_what_one_finds(data_root, tmp_path):
    def rows(jobs):
        found = runner.run(
            ["macro-progressive"],
            ["random", "tpe-multivariate"],
            seeds=[0, 1],
            budget=12,
            out=tmp_path / str(jobs),
            jobs=jobs,
            data_root=data_root,
        )
        return sorted(json.dumps({**row, "seconds": 0}) for row in found)

    alone = rows(1)
    assert len(alone) == 8
    assert rows(2) == alone


@pytest.mark.parametrize("name", ["random", "tpe", "tpe-multivariate", "tpe-univariate", "nsga2", "trlhpo"])
def test_samplers_take_their_seed(name, toy):
    def digits(seed):
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](seed=seed))
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        return [trial.params["x"] for trial in study.trials]

    assert digits(1) == digits(1) != digits(2)
