"""``nndoctor lab path`` and ``nndoctor lab surface``: from a folder of checkpoints to an answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nndoctor.cli.lab_path import middle_of, steps_of
from nndoctor.cli.main import main
from nndoctor.lab.trail import Trail

FACTORIES = """
import torch
from torch import nn
def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(20, 4, generator=generator), torch.randint(0, 3, (20,), generator=generator)) for _ in range(2)]
"""
WHO = ["--model", "landscape_factories:model", "--batches", "landscape_factories:batches"]


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with the checkpoints of steps 0, 20, ... 100, and the trail of the training beside it."""
    (tmp_path / "landscape_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "landscape_factories", raising=False)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs, labels = torch.randn(40, 4), torch.randint(0, 3, (40,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    trail = Trail(model).follow(optimizer)
    for step in range(101):
        if step % 20 == 0:
            torch.save(model.state_dict(), folder / f"step-{step}.pt")
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trail.detach()
    trail.record().save(tmp_path / "trail.npz")
    return str(folder)


@pytest.mark.parametrize(
    ("level", "verdict"),
    [
        ("model", "2 paths; the highest barrier is"),
        ("layer", "4 paths; the highest barrier is"),
        ("parameter", "8 paths; the highest barrier is"),
        ("compare", "as good as the optimizer: "),
        ("critical", "layers are critical (limit 5%)"),
    ],
)
def test_every_level_of_a_path_ends_in_its_verdict_and_a_figure(
    checkpoints: str, level: str, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "path.svg"
    options = ["--points", "5", "--parameters", "2", "--draws", "2", "--figure", str(figure)]
    assert main(["lab", "path", checkpoints, *WHO, "--level", level, *options]) == 0
    assert verdict in capsys.readouterr().out.splitlines()[-1]
    assert "<svg" in figure.read_text()


def test_paths_as_json_are_exact_at_both_ends(checkpoints: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "path", checkpoints, *WHO, "--json", "--points", "3"]) == 0
    linear, quadratic = json.loads(capsys.readouterr().out)["curves"]
    assert (linear["losses"][0], linear["losses"][2]) == (quadratic["losses"][0], quadratic["losses"][2])
    assert linear["losses"][1] != quadratic["losses"][1]


@pytest.mark.parametrize("directions", ["random", "trajectory", "hessian", "line"])
def test_every_kind_of_surface_says_where_it_is_lowest(
    checkpoints: str, directions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "surface.png"
    options = ["--points", "5", "--to", f"{checkpoints}/step-0.pt", "--figure", str(figure)]
    assert main(["lab", "surface", checkpoints, *WHO, "--directions", directions, *options]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "lowest point of the grid" in told[-1]
    assert any("the optimizer's way: 6 points" in line for line in told) == (directions != "line")
    assert figure.stat().st_size > 1000


def test_a_saved_trail_is_drawn_into_the_surface(checkpoints: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--directions", "trajectory", "--trail", str(tmp_path / "trail.npz"), "--points", "3", "--json"]
    assert main(["lab", "surface", f"{checkpoints}/step-100.pt", *WHO, *options]) == 0
    way = json.loads(capsys.readouterr().out)["trajectory"]
    assert len(way["steps"]) == 102
    assert way["explained"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["path", "{folder}/step-0.pt"], "expected the initial and the trained checkpoint, found 1"),
        (["path", "{folder}", "--level", "atom"], "expected model, layer, parameter, compare, critical"),
        (["path", "{folder}", "--level", "layer", "--layer", "nowhere"], "no layer 'nowhere'"),
        (["surface", "{folder}/step-0.pt", "--directions", "trajectory"], "name the optimizer's way with --trail"),
        (["surface", "{folder}", "--directions", "up"], "expected random, trajectory, hessian, line"),
        (["surface", "{folder}", "--directions", "line"], "where the line leads"),
    ],
)
def test_what_the_user_can_mend_is_a_usage_error(
    checkpoints: str, arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", *(word.format(folder=checkpoints) for word in arguments), *WHO]) == 2
    assert what in capsys.readouterr().err.replace("\n", " ")


def test_the_middle_is_the_checkpoint_nearest_to_half_of_the_steps() -> None:
    files = [Path(f"net-step{step}.pt") for step in (0, 10, 80, 110, 200)]
    assert steps_of(files) == [0, 10, 80, 110, 200]
    assert middle_of(steps_of(files)) == 3
    assert steps_of([Path("initial.pt"), Path("trained.pt")]) == [0, 1]


def test_a_result_is_kept_with_the_run_and_shown_in_its_report(
    checkpoints: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nndoctor

    model = nn.Linear(2, 2)
    with nndoctor.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), ui="off", name="examined") as doctor:
        model(torch.ones(3, 2)).sum().backward()
    assert main(["lab", "surface", checkpoints, *WHO, "--points", "3", "--run", "examined"]) == 0
    assert main(["lab", "path", checkpoints, *WHO, "--points", "3", "--level", "critical", "--run", str(doctor.run_dir)]) == 0
    capsys.readouterr()
    assert main(["report", "examined", "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Loss surface, random directions" in page
    assert "layers are critical" in page


def test_a_run_that_is_not_there_is_told_before_anything_is_computed(
    checkpoints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "surface", checkpoints, *WHO, "--points", "100000", "--run", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
