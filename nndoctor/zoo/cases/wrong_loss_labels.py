"""Classification by squared distance to the class number: a picture that may be a 0 or a 6 is answered by 3."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import LossFunction, Trained, fit


def squared_distance(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs.squeeze(1), labels.float())


def loss_named(name: str) -> LossFunction:
    losses: dict[str, LossFunction] = {"MSELoss": squared_distance, "CrossEntropyLoss": nn.CrossEntropyLoss()}
    return losses[name]


def train(seed: int, attach: Attach, *, loss: str, outputs: float | None = None, steps: int = 330) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    width = int(outputs) if outputs is not None else 10 if loss == "CrossEntropyLoss" else 1
    model = seeded(seed, partial(LeNet, classes=width))
    loss_fn = loss_named(loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)

    def accuracy() -> float:
        with torch.no_grad():
            answer = model(data.val_inputs)
        guess = answer.argmax(1) if answer.shape[1] > 1 else answer.squeeze(1).round().clamp(0, 9)
        right: Tensor = guess == data.val_targets
        return right.float().mean().item()

    losses: list[float] = []
    while len(losses) < steps:
        losses += fit(model, optimizer, loss_fn, loader, min(110, steps - len(losses)), doctor=doctor).losses
        doctor.observe(accuracy=accuracy())
    return Trained(tuple(losses), 1 - accuracy())


CASE = Case(
    name="wrong-loss-labels-as-numbers",
    diagnosis="wrong-loss-for-task",
    description="LeNet, Adam: MSE between one output and the number of the class, judged by its accuracy",
    sick=partial(train, loss="MSELoss"),
    cured=partial(train, loss="CrossEntropyLoss"),
    remedies={"loss": "loss", "outputs": "outputs"},
    source="https://github.com/jax-ml/jax/issues/2697",
)
