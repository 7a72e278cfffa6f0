"""An encoder over sentences of different lengths that never hears where they end: it attends to the padding."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, fit

WIDTH, LEVELS, PADDING = 32, 16, 0
LONGEST, PADDED_TO = 49, 64


class Reader(nn.Module):
    """Classifies token sequences (batch, length) by the mean over their real tokens."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.tokens = nn.Embedding(LEVELS + 1, WIDTH, padding_idx=PADDING)
        self.positions = nn.Parameter(0.1 * torch.randn(4 * PADDED_TO, WIDTH))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True),
            num_layers=2,
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == PADDING  # (batch, length)
        stream = self.tokens(tokens) + self.positions[: tokens.shape[1]]  # (batch, length, width)
        stream = self.encoder(stream, src_key_padding_mask=padding if self.masked else None)
        real = (~padding).unsqueeze(-1).float()
        logits: Tensor = self.head((stream * real).sum(1) / real.sum(1))  # (batch, classes)
        return logits


def sentences(images: Tensor, padded_to: int, seed: int) -> Tensor:
    """Pictures as up to 49 pixel tokens from 1 on, cut at a random length and padded with 0, (count, padded_to)."""
    small = nn.functional.adaptive_avg_pool2d(images.float(), 7).flatten(1)  # (count, 49)
    tokens = (small * LEVELS / 256).long().clamp_(0, LEVELS - 1) + 1
    lengths = torch.randint(LONGEST // 2, LONGEST + 1, (len(tokens), 1), generator=torch.Generator().manual_seed(seed))
    tokens = torch.where(torch.arange(LONGEST) < lengths, tokens, PADDING)
    return nn.functional.pad(tokens, (0, padded_to - LONGEST), value=PADDING)


@torch.no_grad()
def loss_with_longer_padding(model: Reader) -> float:
    """Validation loss of the same pictures in a batch that happens to be padded further."""
    images = load_images()
    tokens = sentences(images.test_images[:500], 4 * PADDED_TO, seed=1)
    return float(nn.functional.cross_entropy(model(tokens), images.test_labels[:500]))


def train(seed: int, attach: Attach, *, mask: str, steps: int = 200) -> Trained:
    images = load_images()
    loader = batches(sentences(images.train_images, PADDED_TO, seed=0), images.train_labels, seed=seed)
    model = seeded(seed, partial(Reader, mask == "padding"))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, loss_with_longer_padding(model))


CASE = Case(
    name="attention-mask-leak-padding",
    diagnosis="attention-mask-leak",
    description="transformer encoder on padded sentences without src_key_padding_mask; judged at another padded length",
    sick=partial(train, mask="none"),
    cured=partial(train, mask="padding"),
    place=("encoder.layers.0.self_attn", "encoder.layers.1.self_attn"),
    remedies={"padding_mask": "mask"},
    source="https://github.com/huggingface/transformers/pull/16243",
)
