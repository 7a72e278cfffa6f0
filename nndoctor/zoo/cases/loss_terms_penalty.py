"""A penalty on the weights that is summed, with the factor of one that is averaged: the weights go, nothing is learnt."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate


def train(seed: int, attach: Attach, *, term_weight: float, steps: int = 300) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 64, 32, 1), nn.Tanh))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, targets in loader:
            error = nn.functional.mse_loss(model(inputs), targets)
            penalty = torch.stack([weight.abs().sum() for weight in model.parameters()]).sum()
            loss: Tensor = error + term_weight * penalty
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    left, _ = evaluate(model, nn.MSELoss(), data.val_loader())
    return Trained(tuple(losses), left)


CASE = Case(
    name="loss-terms-penalty",
    diagnosis="loss-term-imbalance",
    description="regression MLP, Adam: an L1 penalty summed over 27 000 weights with the factor 0.5",
    sick=partial(train, term_weight=0.5),
    cured=partial(train, term_weight=1e-5),
    remedies={"term_weight": "term_weight"},
    source="https://github.com/leonardoaraujosantos/DLMatFramework/issues/1",
)
