"""Two in a hundred pictures are of the class that is looked for; the net learns to answer no."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit

SHIRT, COMMON = 6, (0, 2, 3, 4)  # a shirt among t-shirts, pullovers, dresses and coats: hard to tell


def train(seed: int, attach: Attach, *, weight: float, steps: int = 300) -> Trained:
    data = classification()
    common = torch.isin(data.train_targets, torch.tensor(COMMON)).nonzero()[:, 0]
    rare = (data.train_targets == SHIRT).nonzero()[:, 0][: len(common) // 50]
    chosen = torch.cat((common, rare))
    targets = (data.train_targets[chosen] == SHIRT).float()
    loader = batches(data.train_inputs[chosen], targets, seed=seed)
    model = seeded(seed, lambda: nn.Sequential(Mlp((784, 64, 1)), nn.Flatten(0)))
    loss_fn = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight) if weight != 1 else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    model.eval()
    with torch.no_grad():
        held_out = torch.isin(data.val_targets, torch.tensor((SHIRT, *COMMON)))
        scores, truth = model(data.val_inputs[held_out]), (data.val_targets[held_out] == SHIRT).float()
        balanced = functional.binary_cross_entropy_with_logits(scores, truth, pos_weight=(1 - truth).sum() / truth.sum())
    return Trained(run.losses, float(balanced))


CASE = Case(
    name="class-imbalance-binary",
    diagnosis="class-imbalance",
    description="MLP, SGD: one picture in fifty is a shirt, and the net never says so",
    sick=partial(train, weight=1.0),
    cured=partial(train, weight=50.0),
    remedies={"pos_weight": "weight", "class_weight": {}},  # the other one belongs to CrossEntropyLoss
    source="https://www.siua.io/learn/courses/ml-math/04-classification/04-9-class-imbalance",
)
