"""Sequences of many lengths, padded, masked in the attention and left out of the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import PAD, numbers_to_sort
from nndoctor.zoo.trainer import Trained, fit

SYMBOLS = 9


class Sorter(nn.Module):
    """A transformer encoder that says which symbol belongs at each place: logits (batch, symbols, places)."""

    def __init__(self, longest: int = 12, width: int = 48) -> None:
        super().__init__()
        self.tokens = nn.Embedding(SYMBOLS + 1, width, padding_idx=PAD)
        self.places = nn.Embedding(longest, width)
        layer = nn.TransformerEncoderLayer(width, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, SYMBOLS + 1)

    def forward(self, given: Tensor) -> Tensor:
        stream = self.tokens(given) + self.places(torch.arange(given.shape[1]))  # (batch, places, width)
        stream = self.encoder(stream, src_key_padding_mask=given == PAD)  # (batch, places, width)
        logits: Tensor = self.head(stream)  # (batch, places, symbols)
        return logits.transpose(1, 2)  # (batch, symbols, places), as cross_entropy wants it


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    loader = batches(*numbers_to_sort(seed=seed), seed=seed)
    model = seeded(seed, Sorter)
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-padded-sequences",
    diagnosis=None,
    description="transformer that sorts numbers: a third of every batch is padding, masked and ignored by the loss",
    healthy=train,
)
