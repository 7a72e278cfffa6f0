"""Every sentence is cut and counted again in pure Python whenever it is asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, fit

PAIRS = len(ALPHABET) ** 2
MOST = 12
"""Of one letter in a sentence, as far as it is told."""


class PairCounts(Dataset[tuple[Tensor, Tensor]]):
    """How often each pair of characters comes in a sentence (PAIRS,), counted anew each time, and how many ``e`` it has."""

    def __init__(self, text: Tensor) -> None:
        self.text = ["".join(ALPHABET[token] for token in row) for row in text.tolist()]

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sentence = self.text[index]
        pairs = [a + b for a in ALPHABET for b in ALPHABET]
        counts = [sum(sentence[i : i + 2] == pair for i in range(len(sentence) - 1)) for pair in pairs[:120]]
        counts += [0] * (PAIRS - len(counts))
        return torch.tensor(counts, dtype=torch.float32), torch.tensor(min(sentence.count("e"), MOST))


def train(seed: int, attach: Attach, *, prepared: bool, steps: int = 120) -> Trained:
    sentences: Any = PairCounts(sums_in_words(640, seed=seed))
    if prepared:  # the same counts, made once
        counts, letters = zip(*(sentences[index] for index in range(len(sentences))), strict=True)
        sentences = TensorDataset(torch.stack(counts), torch.stack(letters))
    loader = DataLoader(sentences, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(seed))
    model = seeded(seed, partial(Mlp, (PAIRS, 128, MOST + 1)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # the same losses, only slower


CASE = Case(
    name="input-bound-words",
    diagnosis="input-bound",
    description="text: pairs of characters are counted in pure Python for every sample, in the main process",
    sick=partial(train, prepared=False),
    cured=partial(train, prepared=True),
    source="https://github.com/batra-mlp-lab/visdial-challenge-starter-pytorch/issues/13",
)
