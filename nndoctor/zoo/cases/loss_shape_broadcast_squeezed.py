"""The prediction is squeezed and the label is not: a Huber loss over every pair of the batch."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, squeezed: bool) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Mlp, (8, 64, 64, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    attach(model, optimizer, loader=loader)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own warning about the very thing
        for _epoch in range(4):
            for columns, prices in loader:
                predicted: Tensor = model(columns)  # (batch, 1)
                if squeezed:
                    predicted = predicted.squeeze(1)  # (batch,)
                loss = nn.functional.smooth_l1_loss(predicted, prices)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
    with torch.no_grad():
        error = nn.functional.smooth_l1_loss(model(data.val_inputs), data.val_targets).item()
    return Trained(tuple(losses), error)


CASE = Case(
    name="loss-shape-broadcast-squeezed",
    diagnosis="loss-shape-broadcast",
    description="regression: the output is squeezed to (32,), the targets stay (32, 1), functional smooth_l1_loss",
    sick=partial(train, squeezed=True),
    cured=partial(train, squeezed=False),
    remedies={"prediction": {"squeezed": False}},
    source="https://github.com/deepset-ai/FARM/issues/229",
)
