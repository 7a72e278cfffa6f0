"""A mixture of experts with one expert per sample: in many a step some expert sees nothing and gets no gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, trained

EXPERTS = 8


class MixtureOfExperts(nn.Module):
    """Sends each sample to its best expert, as in a switch transformer; returns logits and the balancing loss."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, width)
        self.gate = nn.Linear(width, EXPERTS, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)) for _ in range(EXPERTS)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.embed(images.flatten(1)).tanh()  # (batch, width)
        share = self.gate(hidden).softmax(dim=1)  # (batch, experts)
        weight, chosen = share.max(dim=1)  # (batch,)
        mixed = torch.zeros_like(hidden)
        for index, expert in enumerate(self.experts):
            mine = (chosen == index).nonzero().squeeze(1)  # (samples of this expert,)
            if len(mine):
                mixed = mixed.index_add(0, mine, weight[mine].unsqueeze(1) * expert(hidden[mine]))
        used = nn.functional.one_hot(chosen, EXPERTS).float().mean(0)  # (experts,)
        balance = EXPERTS * (used * share.mean(0)).sum()
        return self.head(self.norm(hidden + mixed)), balance


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, MixtureOfExperts)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(2):
        for images, targets in loader:
            logits, balance = model(images)
            loss = loss_fn(logits, targets) + 0.01 * balance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-mixture-of-experts",
    diagnosis=None,
    description="eight experts, one per sample: an expert that sees no sample of a batch gets no gradient",
    healthy=train,
    source="https://arxiv.org/abs/2101.03961",
)
