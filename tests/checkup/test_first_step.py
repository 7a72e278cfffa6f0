"""The first step of a script becomes a model, a batch and a loss function: the same loss, also with other outputs and targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.examinations.first_step import FirstStep, examine_first_step
from nndoctor.examinations.patient import Patient
from nndoctor.examinations.rehearsal import loss_for
from nndoctor.probes.functional import active_modes
from nndoctor.zoo.models import Gpt, Mlp

from .subjects import pictures, sentences

INPUTS, LABELS = pictures(16)
TEXT, NEXT = sentences(8)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert active_modes() == [], "a mode was left behind"


def patient_of(model: nn.Module, step: Callable[[nn.Module], Tensor]) -> tuple[Patient, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = FirstStep()
    watch.watch()
    try:
        loss = step(model)
    finally:
        watch.stop()
    return watch.patient(loss, [model], [optimizer], None, 600), loss


def plain(model: nn.Module) -> Tensor:
    return nn.CrossEntropyLoss()(model(INPUTS), LABELS)


def with_decay(model: nn.Module) -> Tensor:
    logits = model(INPUTS)
    decay = sum((p**2).sum() for p in model.parameters())
    return F.cross_entropy(logits / 2, LABELS) * 0.5 + 1e-4 * decay


def flattened(model: nn.Module) -> Tensor:
    logits = model(TEXT).transpose(1, 2)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), NEXT.reshape(-1))


def in_place(model: nn.Module) -> Tensor:
    logits = model(INPUTS)
    weights = torch.ones(len(LABELS))
    weights[LABELS == 3] = 2
    logits = logits.clone()
    logits[:, 0] += 1
    return (F.cross_entropy(logits, LABELS, reduction="none") * weights).mean()


def by_hand(model: nn.Module) -> Tensor:
    chosen = model(INPUTS).log_softmax(dim=1)[torch.arange(len(LABELS)), LABELS]
    return -chosen.sum() / len(LABELS)


STEPS = [(Mlp, plain), (Mlp, with_decay), (lambda: Gpt(12, 24, 16, layers=1), flattened), (Mlp, in_place), (Mlp, by_hand)]


@pytest.mark.parametrize(("make", "step"), STEPS, ids=[step.__name__ for _, step in STEPS])
def test_a_copy_of_the_model_gets_the_scripts_own_loss(make: Any, step: Callable[[nn.Module], Tensor]) -> None:
    patient, loss = patient_of(make(), step)
    assert patient.unknown_loss == ""
    trial = patient.trial()
    again = loss_for(trial, patient.batch)
    assert torch.equal(again, loss)
    gradients = torch.autograd.grad(again, list(trial.parameters().values()))
    expected = torch.autograd.grad(loss, list(patient.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


def test_the_targets_are_found_and_other_ones_give_the_loss_they_should() -> None:
    patient, _ = patient_of(Mlp(), plain)
    assert patient.batch.answers is LABELS
    few = patient.batch.part(2, 5)
    trial = patient.trial()
    assert torch.equal(loss_for(trial, few), F.cross_entropy(trial.model(INPUTS[2:7]), LABELS[2:7]))


def test_targets_that_the_script_flattens_are_found_as_they_were() -> None:
    patient, _ = patient_of(Gpt(12, 24, 16, layers=1), flattened)
    assert patient.batch.answers is NEXT


def test_a_step_in_place_does_not_write_into_the_scripts_tensors_again() -> None:
    counts = torch.zeros(16)

    def counting(model: nn.Module) -> Tensor:
        losses = F.cross_entropy(model(INPUTS), LABELS, reduction="none")
        counts.add_(losses.detach())
        return losses.mean() + 0 * counts.sum()

    patient, _ = patient_of(Mlp(), counting)
    before = counts.clone()
    examine_first_step(patient)
    assert torch.equal(counts, before)


def test_two_calls_before_backward_leave_the_loss_unknown_and_the_rest_is_examined() -> None:
    patient, _ = patient_of(Mlp(), lambda model: (model(INPUTS) - model(INPUTS + 1)).square().mean() + model(INPUTS).mean())
    assert "called 3 times" in patient.unknown_loss
    checkup = examine_first_step(patient)
    assert checkup["samples are independent"].verdict == "passed"
    assert checkup["learning rate"].message == patient.unknown_loss


def test_a_call_without_gradients_is_not_the_training_step() -> None:
    def step(model: nn.Module) -> Tensor:
        with torch.no_grad():
            model(torch.zeros(3, 784))
        return plain(model)

    patient, _ = patient_of(Mlp(), step)
    assert patient.batch.inputs[0][1].shape == INPUTS.shape


def test_under_a_mode_of_the_users_own_nothing_is_pushed_onto_the_stack() -> None:
    stacks = []

    def step(model: nn.Module) -> Tensor:
        with torch.device("cpu"):
            logits = model(INPUTS)
            stacks.append(len(active_modes()))
        stacks.append(len(active_modes()))
        return F.cross_entropy(logits, LABELS)

    patient, _ = patient_of(Mlp(), step)
    assert stacks == [1, 0]
    assert "default device" in patient.unknown_loss


def test_the_autocast_of_the_script_is_used_again() -> None:
    def step(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(INPUTS)
            assert logits.dtype == torch.bfloat16
            return F.cross_entropy(logits, LABELS)

    patient, loss = patient_of(Mlp(), step)
    assert patient.unknown_loss == ""
    assert torch.equal(loss_for(patient.trial(), patient.batch), loss)


def test_a_compiled_model_is_not_warned_of_our_hooks_once_the_first_step_is_over() -> None:
    model = Mlp((64, 16, 4))
    patient_of(model, lambda m: m(torch.randn(8, 64)).square().mean())
    compiled = torch.compile(model, backend="eager", dynamic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(torch.randn(8, 64))
