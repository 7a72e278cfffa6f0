"""``nndoctor lab experiment``: from names to verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nndoctor.cli.main import main
from nndoctor.zoo.experiments import Experiment, Measured, Plot, Protocol, catalogue
from nndoctor.zoo.experiments.experiment import agreed
from nndoctor.zoo.experiments.images import Images


@pytest.fixture(autouse=True)
def _one_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    protocol = Protocol("counted", "Counts images.", "fashion-mnist-small", lambda seed, images: _counted(seed, images))
    experiment = Experiment(
        "E99", "Counting", "There are 7000 images.", "*A work*, 1.2", "7000 are counted.", protocol,
        lambda runs: agreed([run["images"] == 7000 for run in runs], "counted"), ("images",), Plot("", "images", numbers=("images",)),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "EXPERIMENTS", (experiment,))
    monkeypatch.chdir(tmp_path)


def _counted(seed: int, images: Images) -> Measured:
    return Measured({"images": len(images.train_inputs) + (seed == 9)})


def test_an_experiment_answers_with_its_figures_and_its_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["lab", "experiment", "e99", "--seeds", "0,4"]) == 0
    told = capsys.readouterr().out.strip().splitlines()
    assert told[0] == "E99: There are 7000 images."
    assert "images  7000    7000" in told
    assert told[-1] == "reproduced: counted (2 of 2 seeds meet the criterion)."
    assert len(list((tmp_path / ".nndoctor" / "experiments").glob("counted-fashion-mnist-small-*.json"))) == 2


def test_seeds_that_disagree_are_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "experiment", "E99", "--seeds", "0,9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "open"
    assert [run["numbers"]["images"] for run in found["runs"]] == [7000, 7001]


def test_an_experiment_is_drawn(tmp_path: Path) -> None:
    assert main(["lab", "experiment", "E99", "--seeds", "0", "--figure", "counted.svg"]) == 0
    assert "<svg" in (tmp_path / "counted.svg").read_text()


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert main(["lab", "experiment"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 31
    assert told[7].split()[:3] == ["E8", "The", "first"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["E98"], "did you mean E99?"), (["E99", "--seeds", "a"], "--seeds: expected numbers"), (["E99", "E99", "--figure", "x.svg"], "--figure: expected one")],
)
def test_what_cannot_be_done_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "experiment", *arguments]) == 2
    assert said in capsys.readouterr().err
