"""A softmax over the one output of a binary classifier: it answers 1 to everything and has no gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.trainer import Trained, fit

SHOES = (5, 7, 9)


class ShoeDetector(nn.Module):
    """A small convolutional net that returns a probability."""

    def __init__(self, final_activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2)
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(16 * 4 * 4, 1)
        self.out = nn.Softmax(dim=1) if final_activation == "softmax" else nn.Sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu2(self.conv2(self.relu1(self.conv1(images))))  # (batch, 16, 4, 4)
        probability: Tensor = self.out(self.fc(maps.flatten(1)))  # (batch, 1)
        return probability


def train(seed: int, attach: Attach, *, final_activation: str, steps: int = 200) -> Trained:
    data = classification()

    def answers(labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(SHOES)).float().unsqueeze(1)  # (count, 1)

    loader = batches(data.train_inputs, answers(data.train_targets), seed=seed)
    model = seeded(seed, partial(ShoeDetector, final_activation))
    loss_fn = nn.BCELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    with torch.no_grad():
        wrong = ((model(data.val_inputs) > 0.5).float() != answers(data.val_targets)).float().mean().item()
    return Trained(run.losses, wrong)


CASE = Case(
    name="wrong-output-softmax-of-one",
    diagnosis="wrong-output-activation",
    description="CNN, Adam, BCELoss: nn.Softmax over a single output",
    sick=partial(train, final_activation="softmax"),
    cured=partial(train, final_activation="sigmoid"),
    remedies={"final_activation": "final_activation"},
    source="https://github.com/marian-nmt/marian-dev/issues/21",
)
