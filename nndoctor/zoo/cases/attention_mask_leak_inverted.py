"""A mask that says which keys are allowed, handed to nn.MultiheadAttention, which reads it as which are forbidden."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import Split, pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

WIDTH, CONTEXT, LEVELS = 32, 48, 16


class Block(nn.Module):
    """Post-norm block around ``nn.MultiheadAttention``, as in the original transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, stream: Tensor, mask: Tensor) -> Tensor:
        mixed, _ = self.attention(stream, stream, stream, attn_mask=mask, need_weights=False)
        stream = self.norm1(stream + mixed)
        out: Tensor = self.norm2(stream + self.mlp(stream))  # (batch, tokens, width)
        return out


class Writer(nn.Module):
    """Logits (batch, levels, tokens) of the next pixel; `mask` is ``causal`` or ``inverted``."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask
        self.tokens = nn.Embedding(LEVELS, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, LEVELS)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        square = torch.ones(length, length, dtype=torch.bool)
        # True forbids. The sick one keeps a position from what came before it.
        mask = square.triu(1) if self.mask == "causal" else square.tril(-1)
        stream = self.tokens(tokens) + self.positions[:length]  # (batch, tokens, width)
        for layer in self.layers:
            stream = layer(stream, mask)
        logits: Tensor = self.head(stream)
        return logits.transpose(1, 2)  # (batch, levels, tokens)


@torch.no_grad()
def loss_when_writing(model: Writer, data: Split) -> float:
    """Mean loss of the next token where what comes later is not there yet."""
    tokens, targets = data.val_inputs[:200], data.val_targets[:200]  # (200, 48)
    ends = range(7, CONTEXT, 8)
    losses = [nn.functional.cross_entropy(model(tokens[:, : end + 1])[..., -1], targets[:, end]) for end in ends]
    return float(torch.stack(losses).mean())


def train(seed: int, attach: Attach, *, mask: str, steps: int = 200) -> Trained:
    data = pixel_tokens()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Writer, mask))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, loss_when_writing(model, data))


CASE = Case(
    name="attention-mask-leak-inverted",
    diagnosis="attention-mask-leak",
    description="nn.MultiheadAttention, its boolean mask the wrong way round: past hidden, future shown",
    sick=partial(train, mask="inverted"),
    cured=partial(train, mask="causal"),
    place=("layers.0.attention", "layers.1.attention"),
    remedies={"attention_mask": "mask"},
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html",
)
