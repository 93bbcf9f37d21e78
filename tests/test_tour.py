"""The notebook runs from its first cell to its last, and what it shows holds no trace of a machine.

python tests/test_tour.py     # runs it and stores what it shows
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "tour.ipynb"


def test_outputs_are_whole() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    text = "".join(output.get("text", "") for output in outputs)
    assert "test accuracy" in text and "60 different configurations in 60 trials" in text and "/" not in text


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    assert "test accuracy" in "".join(
        output.get("text", "") for cell in executed(tmp_path).cells for output in cell.get("outputs", [])
    )
    assert (tmp_path / "digits.onnx").exists()


def executed(folder: Path) -> Any:
    """Return the notebook with new outputs, run in a folder, without warnings and times."""
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        nbformat.write(executed(Path(place)), NOTEBOOK)
