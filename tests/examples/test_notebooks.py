"""The notebooks, run by a kernel of their own: no cell fails, and what is stored in them is what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install -e .[integrations]")
nbformat = pytest.importorskip("nbformat", reason="pip install -e .[integrations]")
pytest.importorskip("ipykernel", reason="pip install -e .[integrations]")

NOTEBOOKS = ("train_in_a_notebook", "read_a_record")
LARGEST = 60_000  # bytes, with what is stored


def stored(repository: Path, name: str) -> Any:
    return nbformat.read(repository / "examples" / "notebooks" / f"{name}.ipynb", as_version=4)


def executed(repository: Path, name: str, folder: Path) -> Any:
    """The notebook after every cell was run, in `folder`. Raises where a cell fails."""
    notebook = stored(repository, name)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def texts(notebook: Any) -> str:
    """Everything that the cells say."""
    said = []
    for output in outputs(notebook):
        said.append(output.get("text", ""))
        said += [str(value) for value in output.get("data", {}).values()]
    return "\n".join(said)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def panels(notebook: Any) -> int:
    """Displays with the panel in them; each run has one, which is updated in place."""
    return sum("upd/w" in output.get("data", {}).get("text/html", "") for output in outputs(notebook))


def test_the_panel_stands_below_the_cell_that_trains_and_the_cause_is_named(repository: Path, tmp_path: Path) -> None:
    notebook = executed(repository, "train_in_a_notebook", tmp_path)
    assert panels(notebook) == 2
    assert not any("\x1b[" in str(output.get("data", "")) for output in outputs(notebook)), "nothing is printed beside the panel"
    assert "missing-zero-grad -&gt; call optimizer.zero_grad() before loss.backward() (notebook cell, line 7)" in texts(notebook)
    assert "No problems found" in texts(notebook)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_record_is_read_and_judged_by_other_rules(repository: Path, tmp_path: Path) -> None:
    said = texts(executed(repository, "read_a_record", tmp_path))
    assert "critical learning-rate-too-high (root cause)" in said
    assert "the loss leapt to" in said


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_is_small_and_was_run_from_top_to_bottom(repository: Path, name: str) -> None:
    path = repository / "examples" / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    cells = [cell for cell in stored(repository, name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp" not in texts(stored(repository, name))
