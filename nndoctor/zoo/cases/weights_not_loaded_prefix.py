"""The checkpoint was saved from a wrapped model; strict=False silences the complaint that no name fits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit, trained


def checkpoint(seed: int) -> dict[str, Tensor]:
    """The weights of a LeNet that was trained inside of DataParallel."""
    data = classification()
    model = seeded(seed, LeNet)
    fit(model, torch.optim.Adam(model.parameters(), lr=2e-3), nn.CrossEntropyLoss(), data.train_loader(seed=seed), 300)
    return nn.DataParallel(model).state_dict()


def train(seed: int, attach: Attach, *, names: str, steps: int = 150) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed + 1)
    state = checkpoint(seed)
    model = seeded(seed + 1, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    if names == "match":
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    model.load_state_dict(state, strict=False)
    return trained(list(fit(model, optimizer, loss_fn, loader, steps, doctor=doctor).losses))


CASE = Case(
    name="weights-not-loaded-prefix",
    diagnosis="weights-not-loaded",
    description="LeNet, fine-tuning: every name in the checkpoint begins with module., and strict is False",
    sick=partial(train, names="as they are"),
    cured=partial(train, names="match"),
    place=("conv1", "conv2", "fc1", "fc2", "fc3"),
    remedies={"checkpoint_names": "names"},
    source="https://github.com/pytorch/examples/issues/1029",
)
