"""LoRA: a trained net is frozen and small adapters beside its layers learn, half of which start at exactly zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit

RANK = 4


class Adapted(nn.Module):
    """A frozen linear layer plus a low-rank change of it that starts at zero (Hu et al. 2021)."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.frozen(inputs) + 2.0 * self.up(self.down(inputs))  # (..., out_features)
        return out


def pretrained(seed: int) -> RowTransformer:
    """A transformer that knows the pictures as they are; what follows shows them upside down."""
    data = classification()
    model: RowTransformer = seeded(seed, RowTransformer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    fit(model, optimizer, nn.CrossEntropyLoss(), data.train_loader(seed=seed), 200)
    model.zero_grad()
    return model


def train(seed: int, attach: Attach, *, steps: int = 250) -> Trained:
    data = classification()
    loader = batches(data.train_inputs.flip(2), data.train_targets, seed=seed)
    model = pretrained(seed)
    model.requires_grad_(False)
    for block in model.blocks:
        for name in ("qkv", "up", "down"):
            setattr(block, name, Adapted(getattr(block, name)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-lora",
    diagnosis=None,
    description="LoRA on a frozen transformer: half of what is trained starts at zero, most layers never move",
    healthy=train,
    source="https://arxiv.org/abs/2106.09685",
)
