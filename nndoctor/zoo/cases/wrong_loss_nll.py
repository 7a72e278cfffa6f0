"""NLLLoss on raw scores: the loss goes to minus infinity, because nothing holds the other classes down."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LstmClassifier
from nndoctor.zoo.trainer import LossFunction, Trained, evaluate, fit


def loss_named(name: str) -> LossFunction:
    losses: dict[str, LossFunction] = {"NLLLoss": nn.NLLLoss(), "CrossEntropyLoss": nn.CrossEntropyLoss()}
    return losses[name]


def train(seed: int, attach: Attach, *, loss: str, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LstmClassifier)
    loss_fn = loss_named(loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)
    _, accuracy = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, 1 - accuracy)


CASE = Case(
    name="wrong-loss-nll-of-scores",
    diagnosis="wrong-loss-for-task",
    description="LSTM, Adam: NLLLoss on the raw outputs, no log_softmax",
    sick=partial(train, loss="NLLLoss"),
    cured=partial(train, loss="CrossEntropyLoss"),
    remedies={"loss": "loss"},
    source="https://codestudyblog.com/8ten8/80409021901.html",
)
