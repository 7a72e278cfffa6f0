"""A GPT with hand-written attention that forgets its mask: every position reads the token it has to predict."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import Split, pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

WIDTH, HEADS, CONTEXT, LEVELS = 32, 4, 48, 16


class Attention(nn.Module):
    """Multi-head self-attention written out; without `causal` nothing is masked."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        batch, tokens, width = stream.shape
        split = self.qkv(stream).view(batch, tokens, 3, HEADS, width // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # 3 x (batch, heads, tokens, width / heads)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // HEADS)  # (batch, heads, tokens, tokens)
        if self.causal:
            later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)  # (tokens, tokens)
            scores = scores.masked_fill(later, float("-inf"))
        mixed = scores.softmax(dim=-1) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (batch, tokens, width)
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(causal)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attention(self.norm1(stream))
        out: Tensor = stream + self.mlp(self.norm2(stream))  # (batch, tokens, width)
        return out


class Writer(nn.Module):
    """Logits (batch, tokens, levels) of the next pixel."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(LEVELS, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(Block(causal), Block(causal))
        self.head = nn.Linear(WIDTH, LEVELS)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))  # (batch, tokens, width)
        logits: Tensor = self.head(self.blocks(stream))
        return logits


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def loss_when_writing(model: Writer, data: Split) -> float:
    """Mean loss of the next token where what comes later is not there yet."""
    tokens, targets = data.val_inputs[:200], data.val_targets[:200]  # (200, 48)
    ends = range(7, CONTEXT, 8)
    losses = [nn.functional.cross_entropy(model(tokens[:, : end + 1])[:, -1], targets[:, end]) for end in ends]
    return float(torch.stack(losses).mean())


def train(seed: int, attach: Attach, *, mask: str, steps: int = 200) -> Trained:
    data = pixel_tokens()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Writer, mask == "causal"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    doctor = attach(model, optimizer, next_token_loss, loader=loader)
    run = fit(model, optimizer, next_token_loss, loader, steps, clip=1.0, doctor=doctor)
    return Trained(run.losses, loss_when_writing(model, data))


CASE = Case(
    name="attention-mask-leak-causal",
    diagnosis="attention-mask-leak",
    description="GPT with hand-written attention and no causal mask; judged by its loss when it writes",
    sick=partial(train, mask="none"),
    cured=partial(train, mask="causal"),
    place=("blocks.0.attention/attention", "blocks.1.attention/attention"),
    remedies={"attention_mask": "mask"},
    source="https://github.com/huggingface/transformers/issues/48745",
)
