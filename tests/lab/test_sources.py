"""Patients from names and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nndoctor.lab import SourceError, load_patient
from nndoctor.lab.sources import checkpoint_files, load_weights, named_object

FACTORIES = """
import torch
from torch import nn
def model():
    return nn.Linear(4, 2)
def batches():
    return [(torch.ones(3, 4), torch.tensor([0, 1, 0]))] * 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_factories"


def test_a_patient_is_made_of_factories_and_the_last_checkpoint_of_a_folder(factories: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (2, 10):
        torch.save({"epoch": 1, "model_state_dict": {"weight": torch.full((2, 4), float(step)), "bias": torch.zeros(2)}}, folder / f"step{step}.pt")
    assert [path.name for path in checkpoint_files(folder)] == ["step2.pt", "step10.pt"]
    patient = load_patient(f"{factories}:model", f"{factories}:batches", checkpoint=folder, max_batches=2, loss="torch.nn:CrossEntropyLoss")
    assert torch.equal(patient.model.weight, torch.full((2, 4), 10.0))
    assert len(patient.batches) == 2
    assert isinstance(patient.loss_function, nn.CrossEntropyLoss)


def test_prefixes_of_wrappers_are_dropped(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    torch.save({"module.weight": torch.ones(2, 4), "module.bias": torch.ones(2)}, tmp_path / "a.pt")
    load_weights(model, tmp_path / "a.pt")
    assert torch.equal(model.weight.detach(), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("name", "what"),
    [("model", "expected module:function"), ("no_such_module:f", "no module named 'no_such_module'"), ("torch.nn:Conv7d", "has no 'Conv7d'")],
)
def test_a_name_that_leads_nowhere_says_why(name: str, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        named_object(name)


def test_weights_that_do_not_fit_say_so(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3, 3)}, tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(SourceError, match="Missing key"):
        load_weights(nn.Linear(4, 2), tmp_path / "a.pt")
    with pytest.raises(SourceError, match="expected a state dict"):
        load_weights(nn.Linear(4, 2), tmp_path / "b.pt")
    with pytest.raises(SourceError, match="no such file"):
        checkpoint_files(tmp_path / "nothing")
