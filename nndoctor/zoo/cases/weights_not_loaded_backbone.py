"""The weights of a backbone are loaded into a model that keeps it as an attribute: only what is called alike fits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


class Classifier(nn.Module):
    """A pre-trained transformer and a head of its own on its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = RowTransformer()
        self.readout = nn.Linear(10, 10)
        nn.init.eye_(self.readout.weight)  # passes the scores on until it has learnt better

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.encoder(images))  # (batch, classes)
        return logits


def pretrained(seed: int) -> dict[str, Tensor]:
    data = classification()
    model = seeded(seed, RowTransformer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    fit(model, optimizer, nn.CrossEntropyLoss(), data.train_loader(seed=seed), 200)
    state: dict[str, Tensor] = model.state_dict()
    return state


def train(seed: int, attach: Attach, *, names: str, steps: int = 80) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed + 1)
    state = pretrained(seed)
    model = seeded(seed + 1, Classifier)
    if names == "match":
        state = {f"encoder.{name}": tensor for name, tensor in state.items()}
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    model.load_state_dict(state, strict=False)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="weights-not-loaded-backbone",
    diagnosis="weights-not-loaded",
    description="transformer: the checkpoint of the encoder is loaded into the model around it, strict is False",
    sick=partial(train, names="as they are"),
    cured=partial(train, names="match"),
    place=("encoder", "readout"),
    remedies={"checkpoint_names": "names"},
    source="https://github.com/pytorch/pytorch/issues/141256",
)
