"""The models that the benchmarks train: real layers on data that can be learnt, so that no rule has reason to speak.

Each function builds one job: model, optimizer, loss and batches. Nothing is downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """A model in training: everything that one step touches."""

    model: Any
    optimizer: Any
    loss_fn: Any
    batches: Sequence[tuple[Any, Any]]

    def steps(self) -> Iterator[None]:
        """One training step per item, for ever."""
        for inputs, targets in itertools.cycle(self.batches):
            self.optimizer.zero_grad()
            loss = self.loss_fn(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            yield


def lenet() -> Job:
    import torch

    from nndoctor.zoo.models import LeNet

    model = LeNet()
    images, labels = pictures(64, (1, 28, 28))
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss(), list(zip(images, labels, strict=True)))


def resnet18() -> Job:
    import torch

    from nndoctor.zoo.torchvision_compat import import_torchvision

    import_torchvision()
    from torchvision.models import resnet18 as build

    model = build(num_classes=10)
    images, labels = pictures(32, (3, 32, 32))
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss(), list(zip(images, labels, strict=True)))


def gpt() -> Job:
    """Four layers, the size of a small language model: 3.4 million parameters."""
    return language_model(vocabulary=512, width=256, depth=4, heads=8, context=128, batch=8)


def gpt12() -> Job:
    """Twelve layers of width 512, 38 million parameters: a step on one core takes most of a second."""
    return language_model(vocabulary=512, width=512, depth=12, heads=8, context=128, batch=2)


def gpt12_narrow() -> Job:
    """Twelve narrow layers: as many modules and tensors in a step of a tenth of that, 2.5 million parameters."""
    return language_model(vocabulary=512, width=128, depth=12, heads=4, context=64, batch=4)


def language_model(vocabulary: int, width: int, depth: int, heads: int, context: int, batch: int) -> Job:
    import torch

    model = build_gpt(vocabulary, width, depth, heads, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return Job(model, optimizer, token_loss, chains(vocabulary, context, batch))


def lstm() -> Job:
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm, self.head = nn.Embedding(200, 64), nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 200)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.lstm(self.embedding(tokens))[0])

    model = Model()
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), token_loss, chains(200, 32, 16))


def mlp(layers: int, width: int, batch: int = 32) -> Job:
    """A residual MLP of `layers` linear layers, each with its activation."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.activation = nn.Linear(width, width), nn.Tanh()

        def forward(self, x: Any) -> Any:
            return x + layers**-0.5 * self.activation(self.linear(x))

    model = nn.Sequential(*(Block() for _ in range(layers - 1)), nn.Linear(width, 10))
    inputs, labels = pictures(batch, (width,))
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss(), list(zip(inputs, labels, strict=True)))


def deep() -> Job:
    return mlp(1000, 32)


def many_tensors(tensors: int = 10_000, elements: int = 16) -> Job:
    """One matrix in very many pieces: what depends on their number and on nothing else."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pieces = nn.ParameterList(nn.Parameter(torch.randn(elements) / 20) for _ in range(tensors))
            self.head = nn.Linear(tensors * elements // 64, 10)

        def forward(self, x: Any) -> Any:
            weight = torch.stack(list(self.pieces)).view(64, -1)
            return self.head(torch.relu(x @ weight))

    model = Model()
    inputs, labels = pictures(32, (64,))
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss(), list(zip(inputs, labels, strict=True)))


def embedding_mlp() -> Job:
    """An embedding of 20 000 rows of which a batch touches a few, and a wide MLP behind it."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.EmbeddingBag(20_000, 64), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 10))
    labels = torch.randint(10, (64, 32))
    words = labels[..., None] * 2000 + (2000 * torch.rand(64, 32, 20) ** 2).long()  # each class has words of its own, some of them frequent
    return Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss(), list(zip(words, labels, strict=True)))


def chains(vocabulary: int, context: int, batch: int, batches: int = 64) -> list[tuple[Any, Any]]:
    """Texts in which each token is followed by one of four."""
    import torch

    follows = torch.randint(vocabulary, (vocabulary, 4))
    tokens = torch.randint(vocabulary, (batches, batch, 1))
    for _ in range(context):
        choice = torch.randint(4, (batches, batch, 1))
        tokens = torch.cat([tokens, follows[tokens[..., -1:], choice]], dim=-1)  # (batches, batch, time)
    return [(texts[:, :-1], texts[:, 1:]) for texts in tokens]


def token_loss(logits: Any, targets: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def pictures(batch: int, shape: tuple[int, ...], batches: int = 64) -> tuple[Any, Any]:
    """Noisy copies of ten patterns: learnable, so that no rule has reason to speak. (batches, batch, ...)"""
    import torch

    labels = torch.randint(10, (batches, batch))
    return torch.randn(10, *shape)[labels] + torch.randn(batches, batch, *shape), labels


def build_gpt(vocabulary: int, width: int, depth: int, heads: int, context: int) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.expand, self.gelu, self.contract = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:  # (batch, time, width)
            query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)  # (batch, heads, time, head)
            x = x + self.projection(mixed.transpose(1, 2).flatten(2))
            return x + self.contract(self.gelu(self.expand(self.norm2(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
            return self.head(self.norm(self.blocks(x)))  # (batch, time, vocabulary)

    return Gpt()
