"""Eight small experts and a router without a balancing loss: one expert is best at first, and then gets all the work."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.trainer import Trained, trained

EXPERTS, FEATURES, BATCH = 8, 16, 128
CAPACITY = 20
"""Samples of a batch that an expert has room for, 1.25 times its even share; what is beyond is passed over."""


class Mixture(nn.Module):
    """Sends each sample to its best expert; returns predictions (batch, 1) and the balancing loss of Switch transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(FEATURES, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, 1) for _ in range(EXPERTS))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        share = self.router(inputs).softmax(dim=1)  # (batch, experts)
        weight, chosen = share.max(dim=1)  # (batch,)
        mixed = inputs.new_zeros(len(inputs), 1)
        for index, expert in enumerate(self.experts):
            mine = (chosen == index).nonzero().squeeze(1)[:CAPACITY]  # (samples of this expert,)
            if len(mine):
                mixed = mixed.index_add(0, mine, weight[mine].unsqueeze(1) * expert(inputs[mine]))
        used = nn.functional.one_hot(chosen, EXPERTS).float().mean(0)  # (experts,)
        return mixed, EXPERTS * (used * share.mean(0)).sum()


def batch_of(places: Tensor, slopes: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points around eight places far from zero, each with a slope of its own: (batch, features) and (batch, 1)."""
    where = torch.randint(EXPERTS, (BATCH,), generator=draw)
    inputs = places[where] + 0.5 * torch.randn(BATCH, FEATURES, generator=draw)
    return inputs + 2, (inputs * slopes[where]).sum(1, keepdim=True)


def train(seed: int, attach: Attach, *, balance: float, steps: int = 300) -> Trained:
    draw = torch.Generator().manual_seed(seed)
    places, slopes = torch.randn(EXPERTS, FEATURES, generator=draw), torch.randn(EXPERTS, FEATURES, generator=draw) / 4
    model = seeded(seed, Mixture)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    attach(model, optimizer)
    errors: list[float] = []
    for _step in range(steps):
        inputs, targets = batch_of(places, slopes, draw)
        predicted, uneven = model(inputs)
        error = nn.functional.mse_loss(predicted, targets)
        loss = error + balance * uneven
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    return trained(errors)


CASE = Case(
    name="expert-imbalance-regression",
    diagnosis="expert-imbalance",
    description="mixture of eight linear experts, one per sample and room for 20 samples each, without a balancing loss",
    sick=partial(train, balance=0.0),
    cured=partial(train, balance=0.1),
    remedies={"balance_weight": "balance"},
    source="https://arxiv.org/abs/2101.03961",
)
