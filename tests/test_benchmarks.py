"""The benchmarks' command line, at its smallest."""

from optuna_trlhpo.benchmarks.__main__ import main


def test_overhead_prints_a_row_per_length(capsys):
    main(["overhead", "--trials", "5", "12"])
    heading, columns, *rows = capsys.readouterr().out.splitlines()
    assert "torch" in heading and "suggestion" in columns
    assert [int(row.split()[0]) for row in rows] == [5, 12]
