"""An optimizer of one's own (Lion): every weight moves by the full rate in every step, whatever the gradient's size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import ResidualNet
from nndoctor.zoo.trainer import Trained, fit


class Lion(torch.optim.Optimizer):
    """The sign of a mix of momentum and gradient, with decoupled decay (Chen et al. 2023)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter))
                fast, slow = group["betas"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * momentum.lerp(parameter.grad, 1 - fast).sign())
                momentum.lerp_(parameter.grad, 1 - slow)


def train(seed: int, attach: Attach, *, steps: int = 250) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, ResidualNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = Lion(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-lion",
    diagnosis=None,
    description="residual net under a hand-written Lion: an optimizer that no rule knows by name",
    healthy=train,
    source="https://arxiv.org/abs/2302.06675",
)
