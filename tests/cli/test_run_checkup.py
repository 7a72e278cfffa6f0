"""``nndoctor run --checkup``: a table at the first backward, then the run as if nothing had been; or the table alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3), *([nn.Softmax(dim=1)] if "sick" in sys.argv else []))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x = torch.randn(32, 6)
y = x[:, :3].argmax(dim=1)
for step in range(5):
    optimizer.zero_grad()
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    optimizer.step()
print(loss.item(), torch.rand(1).item())
sys.exit(7)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "nndoctor.cli.main", "run", "--ui", "off", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "COLUMNS": "120"}, capture_output=True, text=True, check=False)


def test_the_run_goes_on_untouched_after_the_table(tmp_path: Path) -> None:
    bare, examined = run(tmp_path, "script.py"), run(tmp_path, "--checkup", "--checkup-seconds", "600", "script.py")
    assert examined.stdout == bare.stdout, "the checkup changed the training or its random numbers"
    assert examined.returncode == bare.returncode == 7
    assert "nndoctor checkup · model Sequential" in examined.stderr
    assert "loss cross entropy" in examined.stderr
    assert "No problems found: " in examined.stderr
    assert "run recorded in" in examined.stderr


@pytest.mark.parametrize(("words", "code"), [([], 0), (["sick"], 1)], ids=["healthy", "sick"])
def test_alone_it_ends_the_script_with_a_code_of_its_own(tmp_path: Path, words: list[str], code: int) -> None:
    answer = run(tmp_path, "--checkup-only", "--checkup-json", "out.json", "--", "script.py", *words)
    data = json.loads((tmp_path / "out.json").read_text())
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert data["passed"] is (code == 0)
    assert data["diagnoses"] == ["double-softmax"] * code
    assert not (tmp_path / ".nndoctor").exists()
    assert "Traceback" not in answer.stderr


def test_an_optimizer_of_an_earlier_model_is_found_where_the_doctor_has_nothing_to_attach_to(tmp_path: Path) -> None:
    rebuilt = SCRIPT.replace("x = torch", "model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))\nx = torch", 1)
    (tmp_path / "rebuilt.py").write_text(rebuilt)
    answer = run(tmp_path, "--checkup-only", "rebuilt.py")
    assert answer.returncode == 1, answer.stderr
    assert "optimizer-holds-stale-parameters" in answer.stderr


def test_a_script_that_never_trains_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text("print('nothing to do')\n")
    answer = run(tmp_path, "--checkup-only", "idle.py")
    assert answer.returncode == 2
    assert "nothing was examined" in answer.stderr
