"""Studies on networks that are really trained: what they cost, what is tested, and what the table says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.harness.studies import latest
from optuna_trlhpo.benchmarks.problems import tasks
from optuna_trlhpo.benchmarks.problems.problem import Evaluator
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.benchmarks.search import real_problem, real_training, runner
from optuna_trlhpo.benchmarks.search.real_problem import RealTraining, tasks_with_test_images
from optuna_trlhpo.benchmarks.search.real_training import refit_errors, report

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'cnn')")

NETWORK = "Conv(8,3,1) > MaxPool(2,2,0)"


@pytest.fixture
def tiny(monkeypatch):
    task = dataclasses.replace(TASKS["digits"], train_size=64, validation_size=32, epochs=4)
    monkeypatch.setitem(tasks.TASKS, "tiny", task)
    real_problem.load_task.cache_clear()
    yield "tiny"
    real_problem.load_task.cache_clear()


@pytest.fixture
def run(tiny, tmp_path):
    """Runs random search on the tiny task, or what is given, and returns the new rows."""

    def call(samplers=("random",), *, seeds=(0,), budget=3, refits=1, **others):
        return real_training.run(
            tiny, samplers, seeds=seeds, budget=budget, refits=refits, out=tmp_path, **others
        )

    return call


def evaluator(seed, budget=10):
    data = TASKS["tiny"].load()
    return Evaluator(RealTraining("tiny", data), seed, budget)


@pytest.mark.parametrize("form", ["progressive", "terminal"])
def test_a_row_tells_the_whole_study(run, tmp_path, form):
    (row,) = run(budget=6, refits=2, form=form)
    assert (row["problem"], row["form"], row["sampler"], row["seed"]) == ("tiny", form, "random", 0)
    assert row["trainings"] == 6 == row["budget"]
    starts, accuracies = zip(*row["curve"], strict=True)
    assert starts[0] == 1 and starts[-1] <= 6 and list(starts) == sorted(set(starts))
    assert list(accuracies) == sorted(set(accuracies))
    # Trained alone, the networks are worth the same: neither order nor sampler has a part in it.
    alone = evaluator(seed=0)
    assert [alone.train(network) for network in reversed(row["incumbents"])] == list(reversed(accuracies))
    found = row["incumbents"][-1]
    again = refit_errors("tiny", found, seed=0, refits=2, data_root="data")
    assert row["test_errors"] == [round(error, 6) for error in again]
    assert row["seconds"] >= 0 and row["training_seconds"] > 0 and row["refit_seconds"] > 0
    assert read_rows(tmp_path / "tiny" / "random.jsonl") == [row]


def test_progressive_studies_train_prefixes_and_pay_once(tiny):
    class Fixed(RandomSampler):
        """Answers the same in every trial."""

        def sample_independent(self, study, trial, name, distribution):
            same = RandomSampler(seed=len(trial.params))
            return same.sample_independent(study, trial, name, distribution)

    problem = RealTraining(tiny, TASKS[tiny].load())
    objective = problem.objective("progressive", seed=0, budget=8)
    measured = runner.measure(objective, Fixed(), budget=2)
    assert measured["hits"] > 0 and measured["trainings"] == len(problem.trained) < 8
    deepest = max(problem.trained, key=len)
    assert all(deepest.startswith(network) for network in problem.trained)


def test_a_training_depends_on_the_study_and_the_network_alone():
    def seed_of(study, *networks):
        problem = RealTraining("digits", data)
        told = Evaluator(problem, study, budget=5)
        for network in networks:
            told.train(network)
        return problem.trained[NETWORK]["seed"]

    data = dataclasses.replace(whole := TASKS["digits"].load(), train_images=whole.train_images[:64])
    data = dataclasses.replace(data, train_labels=data.train_labels[:64])
    assert seed_of(0, NETWORK) == seed_of(0, "Conv(8,3,1)", NETWORK) != seed_of(1, NETWORK)


def test_what_is_there_is_not_run_again(run, tmp_path):
    def told(rows):
        return [(row["seed"], row["budget"], row["refits"]) for row in rows]

    assert told(run(seeds=[0, 1])) == [(0, 3, 1), (1, 3, 1)]
    assert run(seeds=[0, 1]) == []
    assert told(run(seeds=[0], budget=2)) == [(0, 2, 1)]
    assert told(run(seeds=[0], refits=2)) == [(0, 3, 2)]
    path = tmp_path / "tiny" / "random.jsonl"
    path.write_text(path.read_text()[:-20])  # a line that was cut off
    assert told(run(seeds=[0], refits=2)) == [(0, 3, 2)]
    assert len(read_rows(tmp_path)) == 4


def test_a_study_that_fails_is_told_and_tried_again(run, monkeypatch):
    class Broken(RandomSampler):
        mended = False

        def sample_independent(self, *arguments):
            if not Broken.mended:
                raise ZeroDivisionError("broken")
            return super().sample_independent(*arguments)

    (row, other) = run({"broken": Broken, "random": RandomSampler})
    assert row["error"] == "ZeroDivisionError: broken" and "curve" not in row
    assert "error" not in other
    assert "failed: tiny (terminal), broken, seed 0: ZeroDivisionError" in report(
        [row, other], "tiny", budget=3, refits=1
    )
    monkeypatch.setattr(Broken, "mended", True)
    (row,) = run({"broken": Broken, "random": RandomSampler})
    assert row["sampler"] == "broken" and "error" not in row


def test_what_is_wrong_is_said_before_the_first_study(run, tmp_path):
    with pytest.raises(ValueError, match="unknown sampler tpx"):
        run(["random", "tpx"])
    with pytest.raises(ValueError, match="budget is 0; it must be at least 1"):
        run(budget=0)
    with pytest.raises(ValueError, match="unknown task digits-16; there are mnist, mnist-small, digits"):
        real_training.run("digits-16", ["random"], seeds=[0], out=tmp_path)
    with pytest.raises(FileNotFoundError, match="MNIST"):
        real_training.run("mnist", ["random"], seeds=[0], out=tmp_path, data_root=tmp_path)
    assert read_rows(tmp_path) == []


# Test images -------------------------------------------------------------------------------------------


def test_test_images_are_the_tasks_own_and_none_of_them_was_seen():
    task = TASKS["digits"]
    data = task.load()
    images, labels = real_training.load_test_images(task, data, "data")
    assert len(images) == len(labels) == 1797 // 5

    def pixels(standardised):
        whole = (16 * (standardised * data.std[0] + data.mean[0])).round().to(torch.uint8)
        return [image.numpy().tobytes() for image in whole]

    seen = {*pixels(data.train_images), *pixels(data.validation_images)}
    assert len(seen) == task.train_size + task.validation_size
    assert not seen & set(pixels(images))
    exact = 16 * (images * data.std[0] + data.mean[0])
    assert torch.allclose(exact, exact.round(), atol=1e-3) and exact.min() > -0.1 and exact.max() > 15.9


def test_tasks_that_change_their_images_have_no_test_images():
    assert tasks_with_test_images() == ["mnist", "mnist-small", "digits", "mnist-cnn"]
    listed = "mnist, mnist-small, digits, mnist-cnn"
    with pytest.raises(ValueError, match=f"the task has no test images; {listed} have"):
        real_training.load_test_images(TASKS["digits-16"], TASKS["digits"].load(), "data")


def test_test_images_are_read_after_everything_was_trained(run, monkeypatch):
    happened = []

    def noting(module, name):
        function = getattr(module, name)

        def call(*arguments, **others):
            happened.append(name)
            return function(*arguments, **others)

        return call

    for module, name in (
        (real_problem, "train_network"),
        (real_training, "train"),
        (real_training, "load_test_images"),
    ):
        monkeypatch.setattr(module, name, noting(module, name))
    assert "error" not in run(budget=3, refits=2)[0]
    assert happened == ["train_network"] * 3 + ["train"] * 2 + ["load_test_images"]
    assert real_problem.load_task("tiny", "data").test_images is None


def test_refits_learn_from_training_and_validation_images_under_seeds_of_their_own(tiny, monkeypatch):
    fitted = []

    def train(model, images, labels, **settings):
        fitted.append((images, labels, settings["epochs"], settings["generator"].initial_seed()))

    monkeypatch.setattr(real_training, "train", train)
    first = refit_errors(tiny, NETWORK, seed=0, refits=3, data_root="data")
    assert first == refit_errors(tiny, NETWORK, seed=0, refits=3, data_root="data")
    refit_errors(tiny, NETWORK, seed=1, refits=1, data_root="data")
    data = TASKS[tiny].load()
    for images, labels, epochs, _ in fitted:
        assert torch.equal(images, torch.cat([data.train_images, data.validation_images]))
        assert torch.equal(labels, torch.cat([data.train_labels, data.validation_labels]))
        assert epochs == 4
    seeds = [seed for *_, seed in fitted]
    assert seeds[:3] == seeds[3:6] and len(set(seeds)) == 4
    assert len(set(first)) > 1  # nothing was learned, so all is due to the initial weights
    assert all(0.5 < error <= 1 for error in first)


def test_a_refit_learns():
    # All digits, so that a network that was not trained, or saw other labels, would be found out.
    (error,) = refit_errors("digits", "Conv(16,3,1) > MaxPool(2,2,0)", seed=0, refits=1, data_root="data")
    assert error < 0.1


# The table ---------------------------------------------------------------------------------------------


def row_of(sampler, seed, errors, *, accuracy=0.9, form=None, **others):
    return {
        "problem": "mnist",
        "form": form or real_training.default_form(sampler),
        "sampler": sampler,
        "seed": seed,
        "budget": 50,
        "refits": 2,
        "trainings": 50,
        "curve": [[1, 0.5], [20, 0.8], [30, accuracy]],
        "incumbents": ["a", "b", "c"],
        "test_errors": errors,
        "seconds": 3.0,
        "training_seconds": 70.0,
        "versions": {"python": "3"},
        "machine": "abacus",
        **others,
    }


def test_the_table_is_what_was_measured():
    rows = [row_of("trlhpo", seed, [0.01, 0.02], accuracy=0.95) for seed in range(3)]
    rows += [row_of("tpe", seed, [0.02 + 0.01 * seed] * 2, accuracy=0.9 + 0.02 * seed) for seed in range(3)]
    rows += [
        row_of("random", 0, [0.5, 0.5]),
        row_of("random", 0, [0.03, 0.05]),  # the later one counts
        row_of("tpe", 0, [0.9, 0.9], budget=100),  # of another budget
    ]
    text = report(rows, "mnist", budget=50, refits=2)
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        # .          validation errors @25 and @50              test           difference         p
        ["trlhpo", "progressive", "3", "20.000 ± 0.000", "5.000 ± 0.000", "1.500 ± 0.000", "", "", "70", "3"],
        # differences .5, 1.5, 2.5: all of one sign, so p is 2 / 2**3, times 2 for two rivals
        ["tpe", "terminal", "3", "20.000 ± 0.000", "8.000 ± 1.155", "3.000 ± 0.577", "+1.500 ± 0.577"]
        + ["0.500", "70", "3"],
        ["random", "terminal", "1", "20.000", "10.000", "4.000", "+2.500", "1.000", "70", "3"],
    ]
    assert "3 seeds cannot give less than 0.25" in text
    assert "all 12,000 training and validation images" in text
    assert "Seeds 0, 1, 2. One thread per study on abacus; python 3." in text


def test_another_sampler_may_be_the_reference():
    rows = [row_of("trlhpo", 0, [0.01]), row_of("trlhpo-prior", 0, [0.03])]
    text = report(rows, "mnist", budget=50, refits=2, reference="trlhpo-prior")
    (line,) = [line for line in text.splitlines() if line.startswith("| trlhpo |")]
    assert "difference from trlhpo-prior" in text and "-2.000" in line


def test_a_table_without_the_reference_compares_nothing():
    text = report([row_of("tpe", 0, [0.02])], "mnist", budget=50, refits=2)
    assert (
        "Wilcoxon" not in text and "| tpe | terminal | 1 | 20.000 | 10.000 | 2.000 |  |  | 70 | 3 |" in text
    )
    assert report([], "mnist", budget=50) == "There is no complete study of mnist with 50 trainings.\n"


def test_of_several_rows_for_a_study_the_last_whole_one_counts():
    rows = [row_of("tpe", 0, [0.1]), row_of("tpe", 0, [0.2]), {**row_of("tpe", 0, []), "error": "gone"}]
    rows.append({**row_of("tpe", 1, []), "error": "gone"})
    whole, failed = latest(rows, {"budget": 50})
    assert (whole, failed) == ([rows[1]], [rows[3]])
    assert latest(rows, {"budget": 51}) == ([], [])


def test_the_command_runs_and_reports(tiny, tmp_path, capsys):
    arguments = ["--task", tiny, "--seeds", "1", "--budget", "2", "--refits", "1", "--out", str(tmp_path)]
    assert main(["real", *arguments, "--samplers", "random"]) == 0
    assert "| random | terminal | 1 |" in capsys.readouterr().out
    assert main(["real", *arguments, "--samplers"]) == 0
    assert "| random | terminal | 1 |" in capsys.readouterr().out
    assert len(read_rows(tmp_path)) == 1
    assert main(["real", *arguments, "--samplers", "tpx"]) == 2
    assert "unknown sampler tpx" in capsys.readouterr().err
