"""The panel in a real notebook kernel: one output that is updated in place, and the verdict when training has ended."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install -e .[integrations]")
pytest.importorskip("ipykernel", reason="pip install -e .[integrations]")
nbformat = pytest.importorskip("nbformat", reason="pip install -e .[integrations]")

TRAIN = """
import torch, nndoctor
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
doctor = nndoctor.wrap(model, optimizer, run_dir="run", name="note<b>book")
for step in range(40):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(torch.randn(8, 8)), torch.randn(8, 1)).backward()
    optimizer.step()
    if step % 20 == 0:
        print("printed at", step)
"""
CLOSE = "doctor.close()\nprint('closed')"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The two cells as they are after they have run."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (TRAIN, CLOSE)])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "run").is_dir()
    return list(notebook.cells)


def panel_of(cell: Any) -> list[str]:
    """The text of each panel that a cell shows."""
    shown = [output.data["text/html"] for output in cell.outputs if output.output_type == "display_data"]
    assert all("<script" not in page and "<b>" not in page for page in shown)
    return [html.unescape(re.sub(r"<[^>]+>", "", page)) for page in shown]


def test_one_output_is_updated_in_place_and_ends_with_the_verdict(cells: list[Any]) -> None:
    (panel,) = panel_of(cells[0])
    assert "nndoctor · note<b>book · step 40" in panel
    assert "loss" in panel
    assert re.search(r"No problems found in 40 steps \((\d+ of )?\d+ rules, \d layers\)\.", panel)
    assert panel_of(cells[1]) == [], "what the last cell changes stands below the one that trained"


def test_what_the_cell_prints_stays_its_own(cells: list[Any]) -> None:
    printed = "".join(output.text for output in cells[0].outputs if output.output_type == "stream")
    assert "printed at 0\n" in printed
    assert "printed at 20\n" in printed
    assert "\x1b" not in printed
    assert "nndoctor event=" not in printed


def test_the_verdict_is_said_once(cells: list[Any]) -> None:
    everything = str([cell.outputs for cell in cells])
    assert everything.count("No problems found in 40 steps") == everything.count("text/html")


def test_nothing_is_said_on_stderr(cells: list[Any]) -> None:
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    errors = [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert errors == []
