"""Each process of a distributed training keeps a record of its own, whichever way it learns its number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nndoctor
from nndoctor.ranks import own_folder, rank


def doctor_in(folder: Path) -> nndoctor.Doctor:
    model = torch.nn.Linear(3, 1)
    return nndoctor.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), ui="off", run_dir=folder)


@pytest.mark.parametrize(("told", "meant"), [("3", 3), ("0", 0), ("", 0), ("none", 0), ("-1", 0)])
def test_the_launcher_tells_the_number(monkeypatch: pytest.MonkeyPatch, told: str, meant: int) -> None:
    monkeypatch.setenv("RANK", told)
    assert rank() == meant


def test_the_process_group_knows_better_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert rank() == 0
    finally:
        torch.distributed.destroy_process_group()
    assert rank() == 3


def test_processes_that_are_given_one_folder_do_not_get_in_each_others_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = []
    for number in ("0", "1", "2"):
        monkeypatch.setenv("RANK", number)
        doctor = doctor_in(tmp_path / "kept")
        doctor.close()
        kept.append(doctor.run_dir)
    assert kept == [tmp_path / "kept", tmp_path / "kept-rank1", tmp_path / "kept-rank2"]
    assert all((folder / "record.sqlite").exists() for folder in kept)


def test_the_first_process_keeps_the_folder_and_the_others_stand_beside_it() -> None:
    assert own_folder(Path("runs/last"), 0) == Path("runs/last")
    assert own_folder(Path("runs/last"), 1) == Path("runs/last-rank1")
