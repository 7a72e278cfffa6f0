"""``nndoctor lab``: the sub-commands from names and files to an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nndoctor.cli.main import main

FACTORIES = """
import torch
from torch import nn
def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(20, 6, generator=generator), torch.randint(0, 3, (20,), generator=generator)) for _ in range(4)]
"""
WHO = ["--model", "lab_factories:model", "--batches", "lab_factories:batches"]


@pytest.fixture(autouse=True)
def _factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lab_factories", raising=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return str(tmp_path / "weights.pt")


def test_curvature_answers_with_a_verdict_in_its_last_line(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "curvature", checkpoint, *WHO, "--learning-rate", "0.1"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("model        155 parameters, loss ")
    assert any(line.startswith("eigenvalues ") for line in told)
    assert "plain gradient descent is unstable here above a learning rate of" in told[-1]


def test_curvature_as_json_and_as_a_figure(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "figures" / "curvature.svg"
    assert main(["lab", "curvature", checkpoint, *WHO, "--preset", "full", "--json", "--figure", str(figure)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["eigen"]["values"]) == 5
    assert [layer["name"] for layer in data["layers"]] == ["0", "2", "4"]
    assert "<svg" in figure.read_text()


def test_unhelpful_layers_end_in_what_can_go(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "layers.png"
    assert main(["lab", "unhelpful-layers", checkpoint, *WHO, "--figure", str(figure), "--work", str(tmp_path / "work")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["layer", "kind", "verdict", "without", "it", "parameters", "memory", "forward", "step"]
    assert [line.split()[0] for line in told[1:4]] == ["0", "2", "4"]
    assert "can go: " in told[-1] or "are needed" in told[-1]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["lab", "unhelpful-layers", checkpoint, *WHO, "--json", "--work", str(tmp_path / "work")]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {effect["verdict"] for effect in data["effects"]} <= {"can go", "needed", "undecided"}


def test_representation_of_one_checkpoint_and_over_time(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "representation", checkpoint, *WHO, "--layer", "[024]", "--figure", str(tmp_path / "a.svg")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told[1:4]] == [["0", "Linear"], ["2", "Linear"], ["4", "Linear"]]
    assert "least filled is" in told[-1]
    folder = tmp_path / "epochs"
    folder.mkdir()
    weights = torch.load(checkpoint)
    for epoch in (1, 2, 10):
        if epoch == 10:
            weights["4.weight"] = torch.randn(3, 8)
        torch.save({"state_dict": weights}, folder / f"epoch{epoch}.pt")
    assert main(["lab", "representation", str(folder), *WHO, "--over-time", "--figure", str(tmp_path / "b.svg")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told[1:4]] == [["0", "epoch2"], ["2", "epoch2"], ["4", "not"]]
    assert told[-1] == "3 layers over 3 checkpoints: 4 still change."
    assert (tmp_path / "b.svg").exists()


@pytest.fixture
def epochs(checkpoint: str, tmp_path: Path) -> str:
    """A folder of three checkpoints: between the last two only the last layer changes."""
    folder = tmp_path / "kept"
    folder.mkdir()
    weights = torch.load(checkpoint)
    for number in (1, 2, 3):
        if number == 2:
            weights = {name: torch.randn_like(value) for name, value in weights.items()}
        if number == 3:
            weights["4.weight"] = torch.randn(3, 8)
        torch.save(weights, folder / f"epoch{number}.pt")
    return str(folder)


def test_freezing_names_the_layers_that_are_as_they_were(epochs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "freezing.svg"
    assert main(["lab", "freezing", epochs, *WHO, "--figure", str(figure)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[1:4]] == ["0", "2", "4"]
    assert [line.split()[3] for line in told[1:4]] == ["converged", "converged", "changes"]
    assert told[-1].startswith("0, 2 can be frozen, ")
    assert "<svg" in figure.read_text()
    first = str(Path(epochs) / "epoch1.pt")
    assert main(["lab", "freezing", epochs, *WHO, "--earlier", first, "--measure", "cka", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ready"] == []
    assert data["saved"] is None
    assert main(["lab", "freezing", first, *WHO]) == 2
    assert "expected two checkpoints or more" in capsys.readouterr().err


def test_preliminary_tells_when_it_was_enough_and_how_sure_the_test_set_is(epochs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "preliminary.png"
    assert main(["lab", "preliminary", epochs, *WHO, "--figure", str(figure)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[1:4]] == ["epoch1", "epoch2", "epoch3"]
    assert "on 80 samples: smaller differences between models are chance." in told[-1]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["lab", "preliminary", epochs, *WHO, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    best = max(point["accuracy"] for point in data["training"]["points"])
    assert best - data["training"]["enough"]["accuracy"] <= 0.002
    assert [spread["size"] for spread in data["stability"]["spreads"]] == [8, 16, 32, 48, 64]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--model", "nowhere:model", "--batches", "lab_factories:batches"], "no module named 'nowhere'"),
        ([*WHO, "--preset", "luxury"], "expected economy, business, full"),
        (["missing.pt", *WHO], "no such file or folder"),
    ],
    ids=["model", "preset", "checkpoint"],
)
def test_what_the_user_can_mend_is_a_usage_error(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "curvature", *arguments]) == 2
    assert what in capsys.readouterr().err


def test_the_help_of_the_lab_imports_no_torch() -> None:
    code = "import sys; from nndoctor.cli.main import main; main(['lab', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
