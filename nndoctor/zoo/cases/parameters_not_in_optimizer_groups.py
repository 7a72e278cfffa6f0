"""Decay and no-decay groups picked by name, and one layer matches neither."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, all_given: bool, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, RowTransformer)
    loss_fn = nn.CrossEntropyLoss()
    named = dict(model.named_parameters())
    plain = [p for name, p in named.items() if "norm" in name or name.endswith("bias") or name == "position"]
    decayed = [p for name, p in named.items() if name.endswith("weight") and "norm" not in name]
    if not all_given:  # the list was made for a model without blocks.0 and blocks.1
        decayed = [named["embed.weight"], named["head.weight"]]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-3
    )
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="parameters-not-in-optimizer-groups",
    diagnosis="parameters-not-in-optimizer",
    description="transformer: the parameter groups leave out every weight inside the blocks",
    sick=partial(train, all_given=False),
    cured=partial(train, all_given=True),
    place=("blocks",),
    remedies={"optimizer_parameters": {"all_given": True}},
    source="https://github.com/zjunlp/HVPNeT/issues/5",
)
