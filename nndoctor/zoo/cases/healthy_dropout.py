"""Heavy dropout as its inventors used it: the training loss is worse than the validation loss, on purpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class DropoutNet(nn.Module):
    """A fifth of the inputs and half of the hidden units are dropped (Srivastava et al. 2014)."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.drop_in = nn.Dropout(0.2)
        self.fc1 = nn.Linear(PIXELS, width)
        self.relu1 = nn.ReLU()
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(width, width)
        self.relu2 = nn.ReLU()
        self.drop2 = nn.Dropout(0.5)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop1(self.relu1(self.fc1(self.drop_in(images.flatten(1)))))  # (batch, width)
        hidden = self.drop2(self.relu2(self.fc2(hidden)))  # (batch, width)
        logits: Tensor = self.head(hidden)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, DropoutNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)


CASE = Case(
    name="healthy-dropout",
    diagnosis=None,
    description="dropout of 0.2 on the inputs and 0.5 on hidden layers: half of all activations are zero",
    healthy=train,
    source="https://jmlr.org/papers/v15/srivastava14a.html",
)
