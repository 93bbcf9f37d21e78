"""The benchmarks' command line, at its smallest, and what it says to wrong arguments."""

import functools
import logging
import subprocess
import sys

import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness import samplers
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.overhead import sampler as overhead
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search import ablation, criteria
from optuna_trlhpo.benchmarks.search.protocols import Share

HELP = """
import contextlib, io, sys
from optuna_trlhpo.benchmarks.__main__ import main

def help_of(*command):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return out.getvalue()

commands = help_of().split("{")[1].split("}")[0].split(",")
for command in commands:
    assert f"benchmarks {command} [-h]" in help_of(command), command
    assert "torch" not in sys.modules, command
print(*commands)
"""


def test_help_is_printed_without_pytorch():
    printed = subprocess.check_output([sys.executable, "-c", HELP], text=True)
    assert {"run", "report", "overhead", "pretrain", "engine-search", "idioms"} <= set(printed.split())


@pytest.mark.slow
def test_overhead_measures_a_restart(capsys):
    main(["overhead", "--restart", "--trials", "12"])
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "12"


def test_overhead_prints_a_row_per_length(capsys, monkeypatch):
    monkeypatch.setattr(overhead, "WINDOW", 2)
    main(["overhead", "--trials", "5", "12"])
    heading, columns, *rows = capsys.readouterr().out.splitlines()
    assert "torch" in heading and "suggestion" in columns
    assert [int(row.split()[0]) for row in rows] == [5, 12]


@pytest.mark.slow
def test_figures_prints_a_row_per_figure(capsys):
    assert main(["figures", "--trials", "4"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert "plotly" in heading and "4 trials" in heading
    names = [row.split()[0] for row in rows]
    assert "plot_attention" in names and names[-1] == "write_report"
    assert all(float(row.split()[1]) >= 0 and row.endswith(" s") for row in rows)


@pytest.mark.slow
def test_run_and_report(toy, tmp_path, capsys):
    command = ["--problems", "t*", "--samplers", "random", "tpe", "--out", str(tmp_path / "rows")]
    assert main(["run", *command, "--seeds", "2", "--budget", "30"]) == 0
    out = capsys.readouterr().out
    assert (
        "optuna" in out and "seeds 0 to 1, 30 trainings" in out and "8 studies run, 0 of them failed" in out
    )
    assert main(["report", "--out", str(tmp_path / "rows"), "--reference", "random"]) == 0
    out = capsys.readouterr().out
    assert "## toy" in out and "Against random" in out


def test_a_failing_study_is_said_in_one_line(toy, tmp_path, capsys, caplog, monkeypatch):
    class Broken(RandomSampler):
        def sample_independent(self, *arguments):
            raise ZeroDivisionError("broken")

    monkeypatch.setitem(samplers.SAMPLERS, "broken", Broken)
    monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)  # to caplog
    assert main(["run", "--out", str(tmp_path), "--samplers", "broken", "--seeds", "1", "--budget", "5"]) == 1
    assert "toy (terminal), broken, seed 0: ZeroDivisionError: broken\n" in capsys.readouterr().out
    assert caplog.text == ""


def test_the_report_ends_with_a_line_per_problem(toy, tmp_path, capsys):
    out = ["--out", str(tmp_path / "rows")]
    assert main(["run", *out, "--samplers", "random", "tpe", "--seeds", "2", "--budget", "5"]) == 0
    capsys.readouterr()
    assert main(["report", *out, "--reference", "tpe"]) == 0
    printed = capsys.readouterr().out
    assert "## toy" in printed and printed.splitlines()[-1].startswith("toy @5 ratio ")
    page = tmp_path / "docs" / "results.md"
    command = ["report", *out, "--reference", "tpe", "--markdown", str(page)]
    assert main(command) == 0
    assert "## toy" in page.read_text() and "toy.svg" not in page.read_text()
    assert capsys.readouterr().out.startswith("toy @5 ratio ")
    assert main([*command, "--figures", str(tmp_path / "docs" / "figures")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("toy @5 ratio ")
    assert "## toy" in page.read_text() and "(figures/toy.svg)" in page.read_text()
    assert (tmp_path / "docs" / "figures" / "toy.svg").exists()


def test_a_protocol_says_what_is_run_and_judged(toy, tmp_path, capsys, monkeypatch):
    shares = (
        Share(("toy",), ("random",), seeds=2, budget=3, forms=("terminal",)),
        Share(("toy",), ("tpe", "nsga2"), seeds=1, budget=2),
    )
    monkeypatch.setattr("optuna_trlhpo.benchmarks.search.protocols.PROTOCOLS", {"short": shares, "full": ()})
    out = ["--out", str(tmp_path)]
    command = ["run", "--protocol", "short", "--samplers", "random", "tpe", *out]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "the short protocol" in printed and "4 studies run" in printed
    assert main(command) == 0
    assert "0 studies run" in capsys.readouterr().out
    assert {(row["sampler"], row["form"], row["seed"], row["budget"]) for row in read_rows(tmp_path)} == {
        ("random", "terminal", 0, 3),
        ("random", "terminal", 1, 3),
        ("tpe", "progressive", 0, 2),
        ("tpe", "terminal", 0, 2),
    }
    judge = ["report", "--protocol", "short", "--reference", "random", *out]
    monkeypatch.setattr(criteria, "CRITERIA", ())
    assert main(judge) == 1  # nothing was judged
    (criterion,) = [criteria.Ratio("toy", 2, 1e9, sampler="random")]
    monkeypatch.setattr(criteria, "CRITERIA", (criterion,))
    assert main(judge) == 1
    assert "not run: nsga2 on toy (0 of 1 seeds)" in capsys.readouterr().out
    assert main(["run", "--protocol", "short", *out]) == 0
    assert main(judge) == 0
    assert "1 of 1 criteria hold" in capsys.readouterr().out
    monkeypatch.setattr(criteria, "CRITERIA", (criteria.Ratio("toy", 2, -1, sampler="random"),))
    assert main(judge) == 1


def test_a_problem_whose_file_is_missing_is_left_out(toy, tmp_path, capsys, monkeypatch):
    def missing():
        raise FileNotFoundError("the file of lost is nowhere")

    there = tables.problems()
    monkeypatch.setattr(tables, "problems", lambda data_root=None: {**there, "lost": missing})
    command = ["run", "--samplers", "random", "--seeds", "1", "--budget", "3", "--out", str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().err.startswith("lost is left out: the file of lost is nowhere")
    assert {row["problem"] for row in read_rows(tmp_path)} == {"toy"}
    for names in (["lost", "toy"], ["lo*"]):  # asked for by name, or nothing else
        assert main([*command, "--problems", *names]) == 2
        assert "the file of lost is nowhere" in capsys.readouterr().err


def test_ablate_ends_with_a_table(toy, tmp_path, capsys, monkeypatch):
    factory = functools.partial(RandomSampler)
    variants = {
        "whole": ablation.Variant("all of it", factory),
        "half": ablation.Variant("half of it", factory),
        "other": ablation.Variant("for another problem", factory, ("macro",)),
    }
    monkeypatch.setattr(ablation, "VARIANTS", variants)
    page = tmp_path / "ablation.md"
    command = [
        "ablate",
        "--problems",
        "toy",
        "--seeds",
        "2",
        "--budget",
        "25",
        "--out",
        str(tmp_path / "rows"),
    ]
    assert main([*command, "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "seeds 0 to 1, 25 trainings" in printed and "4 studies run, 0 of them failed" in printed
    assert page.read_text() in printed
    assert "| half | half of it | 2 | 1.00, tie, p 1.000 |" in page.read_text()
    assert main([*command, "--variants", "half"]) == 0
    assert "0 studies run" in capsys.readouterr().out


def test_a_study_that_failed_is_told(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(toy, "observe", lambda network, rng: 1 / 0)
    command = ["run", "--samplers", "random", "--seeds", "1", "--budget", "2", "--out", str(tmp_path)]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "2 studies run, 2 of them failed" in out
    assert "toy (terminal), random, seed 0: ZeroDivisionError: division by zero" in out
    assert main(["report", "--out", str(tmp_path), "--reference", "random"]) == 0
    assert "2 studies failed" in capsys.readouterr().out


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """No data are where they are looked for; what was read before is forgotten."""
    monkeypatch.delenv(tables.DATA_ROOT_VARIABLE, raising=False)
    folder = tmp_path / "alone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    tables.load.cache_clear()
    yield
    tables.load.cache_clear()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --problems mackro", "unknown problem mackro; there are macro, macro-progressive, "),
        ("run --problems macro mackro", "unknown problem mackro; there are macro, macro-progressive, "),
        ("run --samplers tpx tpe", "unknown sampler tpx; there are trlhpo, "),
        ("run --problems macro --samplers tpx", "unknown sampler tpx; there are trlhpo, "),
        ("run --protocol short --samplers tpx", "unknown sampler tpx; there are trlhpo, "),
        ("run --problems macro --samplers random", "nas-bench-macro_cifar10.json is "),
        ("run --problems macro --samplers random --data-root .", "nas-bench-macro_cifar10.json is "),
        ("report --out nowhere", "no rows in "),
        ("ablate --problems mackro", "unknown problem mackro; there are macro, macro-progressive, "),
        ("ablate --variants hole", "unknown variant hole; there are whole, "),
        ("transfer --problems macro", "unknown problem macro; there are nb201-cifar10, "),
        ("pretrain prior.safetensors --tasks nope", "unknown task nope; there are "),
        ("real --task nope", "unknown task nope; there are mnist, "),
        ("real --samplers tpx", "unknown sampler tpx; there are trlhpo, "),
        ("real --seeds 0", "seeds is 0; it must be at least 1"),
        ("confirm --problems mackro", "unknown problem mackro; there are macro, macro-progressive, "),
        ("confirm --problems macro --samplers tpx", "unknown sampler tpx; there are trlhpo, "),
        ("confirm --problems macro --seeds 0", "seeds is 0; it must be at least 1"),
        ("confirm --problems macro --totals 5", "totals are [5]; each must be more than "),
        ("pareto --samplers tpx", "unknown sampler tpx; there are trlhpo, "),
        ("pareto --seeds -1", "seeds is -1; it must be at least 1"),
        ("engine --images 0", "images is 0; it must be at least 1"),
        ("engine --devices nope", "device is 'nope'; it must be "),
        ("train-less --ways nope", "unknown way nope; there are whole, "),
        ("train-less --networks 0", "networks is 0; it must be at least 1"),
        ("engine-search --arms nope", "unknown arm nope; there are plain, engine"),
        ("engine-search --seeds 0", "seeds is 0; it must be at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(command, message, no_data, capsys):
    """The argument that is wrong, before any file that is missing."""
    name, *_ = command.split()
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"python -m optuna_trlhpo.benchmarks {name}: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --jobs 0", "argument --jobs: 0 is not a positive number"),
        ("overhead --trials 5 0", "argument --trials: 0 is not a positive number"),
        ("figures --trials -1", "argument --trials: -1 is not a positive number"),
        ("train rows.jsonl --networks 0", "argument --networks: 0 is not a positive number"),
        (
            "train rows.jsonl --networks 1 --seed -1",
            "argument --seed: -1 is not a seed; seeds are 0 and more",
        ),
        ("pretrain prior.safetensors --seed -1", "argument --seed: -1 is not a seed; seeds are 0 and more"),
    ],
)
def test_numbers_must_make_sense(command, message, no_data, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    assert message in capsys.readouterr().err


def test_unnamed_problems_without_a_file_are_left_out(no_data, capsys):
    """Of the whole list, where nothing else is wrong."""
    assert main("run --problems macro* --samplers random".split()) == 2
    err = capsys.readouterr().err
    assert "macro is left out: nas-bench-macro_cifar10.json is " in err and "unknown" not in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("real --samplers", "There is no complete study"),
        ("confirm --samplers", "There is no complete study"),
        ("pareto --samplers", "There is no complete study"),
        ("train-less --ways", "There is no reference"),
        ("engine-search --arms", "There is no seed with a complete study of both"),
    ],
)
def test_a_report_alone_needs_no_data(command, message, no_data, capsys):
    assert main(command.split()) == 0
    assert message in capsys.readouterr().out
