"""The checkup as a whole: what it takes, what it does with errors and with too little time, what it hands back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.reports.checkup_table import render
from nndoctor.zoo.models import Mlp

from .subjects import HEALTHY, SICK, pictures


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_model_that_raises_is_one_failure_and_the_rest_not_examined() -> None:
    checkup = nndoctor.checkup(Mlp(), nn.CrossEntropyLoss(), (torch.randn(4, 3), torch.arange(4)))
    assert checkup["it runs"].verdict == "failed"
    assert "mat1 and mat2" in checkup["it runs"].message
    assert {e.verdict for e in checkup.examinations if e.name not in ("it runs", "devices and types")} == {"not examined"}
    assert checkup.exit_code == 1


@pytest.mark.parametrize(
    ("inputs", "told"),
    [(torch.randn(4, 784, dtype=torch.float64), "float64"), (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), "images of integers")],
)
def test_a_type_that_stops_the_model_is_named(inputs: Tensor, told: str) -> None:
    checkup = nndoctor.checkup(Mlp(), nn.CrossEntropyLoss(), (inputs, torch.arange(4)))
    assert told in checkup["devices and types"].message
    assert checkup["devices and types"].verdict == "failed"


def test_not_a_number_among_the_inputs_is_found() -> None:
    images, labels = pictures()
    images[3, 0, 5, 5] = float("nan")
    checkup = nndoctor.checkup(Mlp(), nn.CrossEntropyLoss(), (images, labels))
    assert checkup["devices and types"].diagnosis == "nan-or-inf"
    assert checkup["devices and types"].values["nonfinite"] == 1


def test_without_time_nothing_slow_is_made_and_the_reason_is_given() -> None:
    checkup = nndoctor.checkup(Mlp(), nn.CrossEntropyLoss(), pictures(), seconds=0)
    assert checkup["loss fits output and targets"].verdict == "passed"
    for name in ("one batch can be learnt by heart", "learning rate", "batch size"):
        assert checkup[name].verdict == "not examined"
        assert "were left" in checkup[name].message


class Awkward(nn.Module):
    """Cannot be run in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("train me")
        return self.layer(images.flatten(1))


def test_an_examination_that_raises_is_not_examined_and_the_others_are_made() -> None:
    checkup = nndoctor.checkup(Awkward(), nn.CrossEntropyLoss(), pictures(), seconds=600)
    assert checkup["samples are independent"].verdict == "not examined"
    assert checkup["samples are independent"].message == "RuntimeError: train me"
    assert checkup["one batch can be learnt by heart"].verdict == "passed"
    assert checkup.passed


def test_a_model_that_cannot_be_copied_is_told_and_nothing_is_raised() -> None:
    model = Mlp()
    model.lock = iter([])  # type: ignore[assignment]

    class Stubborn:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies of me")

    model.stubborn = Stubborn()  # type: ignore[assignment]
    checkup = nndoctor.checkup(model, nn.CrossEntropyLoss(), pictures())
    assert "no copies of me" in checkup["it runs"].message


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.layer(torch.cat([left, right], dim=1))


LEFT, RIGHT, CLASSES = torch.randn(24, 2), torch.randn(24, 4), torch.arange(24) % 3


class OwnLoss(TwoInputs):
    def forward(self, left: Tensor, right: Tensor, labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        logits = super().forward(left, right)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(
    ("model", "loss", "batch"),
    [
        (TwoInputs, nn.CrossEntropyLoss(), ((LEFT, RIGHT), CLASSES)),
        (TwoInputs, nn.CrossEntropyLoss(), (LEFT, RIGHT, CLASSES)),
        (TwoInputs, nn.CrossEntropyLoss(), ({"left": LEFT, "right": RIGHT}, CLASSES)),
        (TwoInputs, lambda output, batch: output.square().mean() + 1, {"left": LEFT, "right": RIGHT}),
        (OwnLoss, None, {"left": LEFT, "right": RIGHT, "labels": CLASSES}),
    ],
    ids=["a pair of pairs", "three", "keywords and targets", "keywords", "keywords with labels"],
)
def test_a_batch_may_have_many_forms(model: Any, loss: Any, batch: Any) -> None:
    checkup = nndoctor.checkup(model(), loss, batch)
    assert checkup["it runs"].verdict == "passed", str(checkup)
    assert checkup["samples are independent"].verdict == "passed", str(checkup)


def test_inputs_alone_are_their_own_targets_or_the_loss_takes_the_output_only() -> None:
    images, _ = pictures()
    assert nndoctor.checkup(HEALTHY["autoencoder"]().model, nn.MSELoss(), images)["it runs"].verdict == "passed"
    assert nndoctor.checkup(Mlp(), lambda output: output.square().mean(), images)["it runs"].verdict == "passed"


def test_a_loader_is_read_by_a_pass_of_its_own() -> None:
    images, labels = pictures(64)
    loader: Any = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    checkup = nndoctor.checkup(Mlp(), nn.CrossEntropyLoss(), loader)
    assert checkup.facts["batch"] == "inputs (16, 1, 28, 28)"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: nndoctor.checkup("model", None, torch.ones(2)), "expected a torch.nn.Module, got str"),  # type: ignore[arg-type]
        (lambda: nndoctor.checkup(Mlp(), None, "batch"), "expected \\(inputs, targets\\)"),
        (lambda: nndoctor.checkup(Mlp(), None, torch.ones(2), optimizer=3), "expected a torch.optim.Optimizer"),
    ],
)
def test_what_is_no_model_batch_or_optimizer_is_a_type_error(call: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        call()


def test_json_and_table_carry_every_examination() -> None:
    diagnosis, make = SICK["cnn with a softmax"]
    subject = make()
    checkup = nndoctor.checkup(subject.model, subject.loss, subject.batch, subject.optimizer)
    data = json.loads(json.dumps(checkup.to_dict()))
    table = render(checkup, width=100)
    assert data["diagnoses"] == [diagnosis]
    assert data["passed"] is False
    assert [e["name"] for e in data["examinations"]] == [e.name for e in checkup.examinations]
    flowing = " ".join(table.split())
    assert all(e.name in flowing for e in checkup.examinations)
    assert f"→ {diagnosis}:" in table
    assert " ".join(table.split()).endswith(checkup.verdict)
    assert max(map(len, table.splitlines())) <= 100


def test_the_switch_for_a_strangers_strings_is_on_in_the_table() -> None:
    class Evil(nn.Linear):
        pass

    Evil.__name__ = "Evil\x1b[2J[red]"
    table = render(nndoctor.checkup(Evil(4, 2), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.arange(8) % 2), seconds=0))
    assert "\x1b" not in table
    assert "[red]" in table
