"""A checkup leaves no trace: model, optimizer, modes, hooks and random generators are bit for bit what they were."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import nndoctor
from nndoctor.examinations.untouched import copied

from .subjects import HEALTHY, Subject, pictures

KINDS = ["cnn", "resnet", "vae", "mixture of experts", "tabular mlp", "gpt"]


def leaves(thing: Any) -> Iterator[Any]:
    if isinstance(thing, Tensor):
        yield from (thing.detach().clone(), thing.requires_grad, None if thing.grad is None else thing.grad.clone())
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield key if not isinstance(key, Tensor) else id(key)
            yield from leaves(value)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from leaves(value)
    else:
        yield thing


def everything(subject: Subject) -> list[Any]:
    model, optimizer = subject.model, subject.optimizer
    assert optimizer is not None
    state: list[Any] = [*leaves(list(model.parameters())), *leaves(list(model.buffers()))]
    for module in model.modules():
        hooks = [dict(value) for name, value in vars(module).items() if name.endswith("hooks")]
        state += [module.training, *leaves(hooks), sorted(vars(module))]
    state += [*leaves(dict(optimizer.state)), *leaves(optimizer.param_groups), sorted(vars(optimizer))]
    state += [*leaves(subject.batch), torch.get_rng_state(), pickle.dumps(random.getstate()), pickle.dumps(np.random.get_state())]
    state += [torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_deterministic_algorithms_warn_only_enabled()]
    return state


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


def trained_for_two_steps(subject: Subject) -> Subject:
    """So that there are gradients, optimizer state and running statistics to lose."""
    assert subject.optimizer is not None
    batch = subject.batch
    for _ in range(2):
        output = subject.model(*batch[:-1]) if isinstance(batch, tuple) else subject.model(batch)
        subject.optimizer.zero_grad()
        subject.loss(output, batch[-1] if isinstance(batch, tuple) else batch).backward()
        subject.optimizer.step()
    return subject


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_bit_identical_afterwards(kind: str) -> None:
    torch.manual_seed(0)
    subject = trained_for_two_steps(HEALTHY[kind]())
    seen: list[int] = []
    first = next(iter(subject.model.children()))
    first.register_forward_hook(lambda module, args, output: seen.append(1))
    first.eval()
    next(subject.model.parameters()).requires_grad_(False)
    before = everything(subject)
    nndoctor.checkup(subject.model, subject.loss, subject.batch, subject.optimizer, seconds=600)
    assert same(before, everything(subject))
    assert seen == [], "a hook of the user's ran on a copy"


def test_the_comparison_sees_a_single_changed_bit() -> None:
    torch.manual_seed(0)
    subject = trained_for_two_steps(HEALTHY["cnn"]())
    before = everything(subject)
    with torch.no_grad():
        parameter = next(subject.model.parameters())
        parameter.view(-1)[0] = torch.nextafter(parameter.view(-1)[0], torch.tensor(1e9))
    assert not same(before, everything(subject))


def test_training_after_a_checkup_is_bit_identical_to_training_without() -> None:
    losses = []
    for wanted in (False, True):
        torch.manual_seed(0)
        subject = HEALTHY["tabular mlp"]()
        if wanted:
            nndoctor.checkup(subject.model, subject.loss, subject.batch, subject.optimizer, seconds=600)
        trained_for_two_steps(subject)
        losses.append(everything(subject))
    numbers, others = ([x for x in run if isinstance(x, Tensor)] for run in losses)
    assert all(torch.equal(a, b) for a, b in zip(numbers, others, strict=True))


def test_a_loader_gives_the_same_batches_after_a_checkup() -> None:
    images, labels = pictures(64)
    orders = []
    for wanted in (False, True):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(3)
        data = TensorDataset(images, labels, torch.arange(64))
        sampler = RandomSampler(data, generator=generator)
        loader: Any = DataLoader(data, batch_size=16, sampler=sampler, collate_fn=_pairs)
        model = HEALTHY["cnn"]().model
        if wanted:
            nndoctor.checkup(model, nn.CrossEntropyLoss(), loader, seconds=600)
        orders.append([labels.tolist() for _, labels in loader])
    assert orders[0] == orders[1]


def _pairs(rows: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def test_a_loss_that_reads_the_users_parameters_adds_nothing_to_their_gradients() -> None:
    torch.manual_seed(0)
    model = HEALTHY["cnn"]().model

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, labels) + 1e-4 * sum((p**2).sum() for p in model.parameters())

    checkup = nndoctor.checkup(model, loss, pictures(), seconds=600)
    assert checkup.passed, str(checkup)
    assert all(p.grad is None for p in model.parameters())


def test_a_copy_of_an_optimizer_trains_the_copied_model() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    twin, twin_optimizer = copied(model, optimizer)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in twin_optimizer.param_groups[0]["params"]}
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


class Rememberer(nn.Module):
    """Keeps its last output, with history, as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        self.last = self.layer(images.flatten(1))
        return self.last


def test_a_model_that_keeps_a_tensor_with_history_can_be_examined() -> None:
    torch.manual_seed(0)
    model, batch = Rememberer(), pictures()
    model(batch[0])
    kept = model.last
    checkup = nndoctor.checkup(model, nn.CrossEntropyLoss(), batch)
    assert checkup.passed, str(checkup)
    assert checkup["it runs"].verdict == "passed"
    assert model.last is kept
