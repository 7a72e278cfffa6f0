"""Evaluations in train mode are told from the other passes that are made without gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.discovery import ModelIndex
from nndoctor.probes.evaluation import EvaluationProbe


class Loop:
    """A model with dropout and batch normalisation, and what the probe hears of its loop."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.probe = EvaluationProbe()
        self.probe.attach(ModelIndex(self.model))
        self.training, self.validation = object(), object()

    def step(self) -> None:
        self.probe.batch_loaded(self.training, None, True)
        loss = self.model(torch.randn(4, 3)).sum()
        self.probe.backward_begins(loss)
        loss.backward()
        self.optimizer.step()

    def look(self, loader: object | None = None, inputs: torch.Tensor | None = None) -> None:
        """One pass without gradients over a batch of `loader`."""
        if loader is not None:
            self.probe.batch_loaded(loader, None, loader is self.training)
        self.probe.evaluation_begins(self.model, (torch.randn(4, 3) if inputs is None else inputs,), {})


def test_batches_of_another_loader_in_train_mode_are_counted_and_the_layers_named() -> None:
    loop = Loop()
    loop.step()
    for _ in range(3):
        loop.look(loop.validation)
    assert loop.probe.news
    found = loop.probe.collect()
    assert found == {"eval.train_mode_batches": 3, "layer.train_in_eval": [0, 1, 1, 0]}


def in_eval_mode(loop: Loop) -> None:
    loop.model.eval()
    for _ in range(3):
        loop.look(loop.validation)


def over_the_training_loader(loop: Loop) -> None:
    for _ in range(3):
        loop.look(loop.training)


def once_per_step(loop: Loop) -> None:
    for _ in range(3):
        loop.look(loop.validation)
        loop.step()


def monte_carlo(loop: Loop) -> None:
    loop.model.eval()
    loop.model[2].train()
    inputs = torch.randn(4, 3)
    for _ in range(3):
        loop.look(loop.validation, inputs)


def monte_carlo_in_train_mode(loop: Loop) -> None:
    for inputs in (torch.randn(4, 3), torch.randn(4, 3)):
        for _ in range(3):
            loop.look(loop.validation, inputs)


def batch_norm_fitted_anew(loop: Loop) -> None:
    loop.model[1].momentum = None
    for _ in range(3):
        loop.look(loop.validation)


def without_layers_that_care(loop: Loop) -> None:
    loop.model[1].eval()
    loop.model[2].p = 0.0
    for _ in range(3):
        loop.look(loop.validation)


@pytest.mark.parametrize(
    "passes",
    [in_eval_mode, over_the_training_loader, once_per_step, monte_carlo, monte_carlo_in_train_mode, batch_norm_fitted_anew, without_layers_that_care],
)
def test_passes_that_are_meant_are_left_in_peace(passes: Callable[[Loop], None]) -> None:
    loop = Loop()
    loop.step()
    passes(loop)
    assert loop.probe.collect()["eval.train_mode_batches"] == 0


def test_roll_outs_without_a_loader_are_left_in_peace() -> None:
    loop = Loop()
    for _ in range(3):
        loss = loop.model(torch.randn(4, 3)).sum()
        loop.probe.backward_begins(loss)
        loss.backward()
        loop.optimizer.step()
        loop.look()
        loop.look()
    assert loop.probe.collect() == {}


def test_an_evaluation_at_the_end_of_the_script_is_heard_of() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    training, validation = (DataLoader(TensorDataset(torch.randn(240, 3)), batch_size=4) for _ in range(2))
    with nndoctor.wrap(model, optimizer, loader=training, ui="off", strict=True) as doctor:
        for (inputs,) in training:
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            for (inputs,) in validation:
                model(inputs)
    found = doctor.diagnosis().root_causes
    assert [finding.diagnosis for finding in found] == ["train-mode-during-eval"]
    assert found[0].targets == ("2",)
    assert "test_evaluation.py" in found[0].fixes[0].place
