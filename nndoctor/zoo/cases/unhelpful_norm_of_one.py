"""A LayerNorm on the wrong dimension normalises single values: all that was learnt before it is wiped out."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.trainer import Trained, evaluate, fit


class NormedMlp(nn.Module):
    """Two layers with a normalisation of the features, or of each of them alone."""

    def __init__(self, inputs: int, normalised: str) -> None:
        super().__init__()
        self.features = nn.Linear(inputs, 64)
        self.norm = nn.LayerNorm(64 if normalised == "features" else 1)
        self.silu = nn.SiLU()
        self.out = nn.Linear(64, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.features(inputs)  # (batch, 64)
        single = self.norm.normalized_shape == (1,)
        hidden = self.norm(hidden.unsqueeze(2)).squeeze(2) if single else self.norm(hidden)  # (batch, 64)
        out: Tensor = self.out(self.silu(hidden))  # (batch, 1)
        return out


def train(seed: int, attach: Attach, *, normalised: str, steps: int = 300) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(NormedMlp, data.train_inputs.shape[1], normalised))
    loss_fn = nn.HuberLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    error, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, error)


CASE = Case(
    name="unhelpful-layer-norm-of-one",
    diagnosis="unhelpful-layer",
    description="regression MLP, RMSprop: nn.LayerNorm(1) behind an unsqueeze",
    sick=partial(train, normalised="each"),
    cured=partial(train, normalised="features"),
    place=("norm",),
    remedies={"normalised": "normalised"},
    source="https://github.com/pytorch/pytorch/issues/108956",
)
