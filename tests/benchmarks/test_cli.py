"""The benchmarks' command line, at its smallest, and what it says to wrong arguments."""

import pytest

from optuna_trlhpo.benchmarks import report
from optuna_trlhpo.benchmarks.__main__ import main


def test_overhead_prints_a_row_per_length(capsys):
    main(["overhead", "--trials", "5", "12"])
    heading, columns, *rows = capsys.readouterr().out.splitlines()
    assert "torch" in heading and "suggestion" in columns
    assert [int(row.split()[0]) for row in rows] == [5, 12]


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


def test_headline_judges_and_its_verdict_is_the_exit_status(toy, tmp_path, capsys, monkeypatch):
    command = ["run", "--samplers", "random", "--seeds", "1", "--budget", "2", "--out", str(tmp_path)]
    assert main([*command, "--headline"]) == 1
    assert "FAILS  macro-progressive @50: " in capsys.readouterr().out
    judge = ["report", "--out", str(tmp_path), "--reference", "random", "--headline"]
    assert main(judge) == 1
    monkeypatch.setattr(report, "CRITERIA", ())
    assert main(judge) == 0
    capsys.readouterr()
    assert main([*command, "--headline"]) == 0
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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["run", "--problems", "mackro"],
            "run: unknown problem mackro; there are macro, macro-progressive, ",
        ),
        (["run", "--samplers", "tpx", "tpe"], "run: unknown sampler tpx; there are trlhpo, "),
        (["report", "--out", "{empty}"], "report: no rows in "),
        (
            ["run", "--problems", "macro", "--samplers", "random", "--data-root", "{empty}"],
            "run: nas-bench-macro_cifar10.json is ",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(command, message, tmp_path, capsys):
    assert main([word.format(empty=tmp_path) for word in command]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"python -m optuna_trlhpo.benchmarks {message}")
    assert err.count("\n") == 1


def test_numbers_must_be_positive(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--jobs", "0"])
    assert "argument --jobs: 0 is not a positive number" in capsys.readouterr().err
