"""Small models of the usual kinds, for 28 x 28 grey images unless they say otherwise.

Written the way people write them: named submodules, no cleverness, shapes beside the lines that change them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

PIXELS = 28 * 28
CLASSES = 10


class Mlp(nn.Module):
    """Fully connected layers ``fc1 .. fcN`` with an activation ``act1 .. act(N-1)`` between them."""

    def __init__(
        self,
        widths: Sequence[int] = (PIXELS, 128, 64, CLASSES),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.depth = len(widths) - 1
        for index in range(1, self.depth + 1):
            setattr(self, f"fc{index}", nn.Linear(widths[index - 1], widths[index]))
            if index < self.depth:
                setattr(self, f"act{index}", activation())

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.flatten(1)  # (batch, features)
        for index in range(1, self.depth):
            hidden = getattr(self, f"act{index}")(getattr(self, f"fc{index}")(hidden))  # (batch, width)
        logits: Tensor = getattr(self, f"fc{self.depth}")(hidden)  # (batch, classes)
        return logits


class LeNet(nn.Module):
    """Two convolutions and three linear layers (LeCun et al. 1998), with ReLU and max pooling."""

    def __init__(self, channels: int = 1, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool1(self.relu1(self.conv1(images)))  # (batch, 6, 14, 14)
        maps = self.pool2(self.relu2(self.conv2(maps)))  # (batch, 16, 5, 5)
        hidden = self.relu3(self.fc1(maps.flatten(1)))  # (batch, 120)
        hidden = self.relu4(self.fc2(hidden))  # (batch, 84)
        logits: Tensor = self.fc3(hidden)  # (batch, classes)
        return logits


class BatchNormCnn(nn.Module):
    """Three convolution blocks with batch normalisation, dropout before the classifier."""

    def __init__(self, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.block1 = _conv_block(1, width)
        self.block2 = _conv_block(width, 2 * width)
        self.block3 = _conv_block(2 * width, 4 * width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width * 3 * 3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.block1(images)  # (batch, width, 14, 14)
        maps = self.block2(maps)  # (batch, 2 * width, 7, 7)
        maps = self.block3(maps)  # (batch, 4 * width, 3, 3)
        logits: Tensor = self.head(self.dropout(maps.flatten(1)))  # (batch, classes)
        return logits


def _conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class ResidualBlock(nn.Module):
    """``relu(x + bn2(conv2(relu(bn1(conv1(x))))))`` (He et al. 2016); with `zero_branch` it starts as the identity."""

    def __init__(self, width: int, zero_branch: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        if zero_branch:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, maps: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(maps)))  # (batch, width, height, width)
        branch = self.bn2(self.conv2(branch))
        out: Tensor = self.relu2(maps + branch)
        return out


class ResidualNet(nn.Module):
    """A strided stem, three residual blocks, global average pooling."""

    def __init__(self, width: int = 12, zero_branches: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(ResidualBlock(width, zero_branches) for _ in range(3)))
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(self.relu(self.stem(images)))  # (batch, width, 14, 14)
        logits: Tensor = self.head(self.pool(maps).flatten(1))  # (batch, classes)
        return logits


class LstmClassifier(nn.Module):
    """Reads an image row by row and classifies from the last hidden state."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.squeeze(1)  # (batch, 28 rows, 28 pixels)
        states, _ = self.lstm(rows)  # (batch, 28 rows, hidden)
        logits: Tensor = self.head(states[:, -1])  # (batch, classes)
        return logits


class RnnClassifier(nn.Module):
    """A plain recurrent net over pixel groups; `gain` scales the identity its recurrent weights start from."""

    def __init__(self, hidden: int = 48, pixels: int = 14, gain: float = 1.0) -> None:
        super().__init__()
        self.pixels = pixels
        self.rnn = nn.RNN(pixels, hidden, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)
        with torch.no_grad():
            dict(self.rnn.named_parameters())["weight_hh_l0"].copy_(gain * torch.eye(hidden))

    def forward(self, images: Tensor) -> Tensor:
        groups = images.reshape(len(images), -1, self.pixels)  # (batch, 784 / pixels, pixels)
        states, _ = self.rnn(groups)  # (batch, 784 / pixels, hidden)
        logits: Tensor = self.head(states[:, -1])  # (batch, classes)
        return logits


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and a two-layer MLP, each added to the residual stream."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attend(self.norm1(stream))  # (batch, tokens, width)
        out: Tensor = stream + self.down(self.gelu(self.up(self.norm2(stream))))  # (batch, tokens, width)
        return out

    def attend(self, stream: Tensor) -> Tensor:
        batch, tokens, width = stream.shape
        split = self.qkv(stream).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # 3 x (batch, heads, tokens, width / heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (batch, tokens, width)
        return out


class RowTransformer(nn.Module):
    """A transformer encoder that takes the 28 rows of an image as tokens and classifies their mean."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(28, width)
        self.position = nn.Parameter(0.02 * torch.randn(28, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.embed(images.squeeze(1)) + self.position  # (batch, 28, width)
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream).mean(dim=1))  # (batch, classes)
        return logits


class Gpt(nn.Module):
    """A small decoder-only transformer over tokens; logits of the next token at every position."""

    def __init__(
        self, vocabulary: int = 16, context: int = 48, width: int = 32, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, causal=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        where = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.tokens(tokens) + self.positions(where)  # (batch, tokens, width)
        for block in self.blocks:
            stream = block(stream)  # (batch, tokens, width)
        logits: Tensor = self.head(self.norm(stream))  # (batch, tokens, vocabulary)
        return logits.transpose(1, 2)  # (batch, vocabulary, tokens), as cross_entropy wants it


class Autoencoder(nn.Module):
    """Squeezes an image through `code` numbers and draws it again."""

    def __init__(self, code: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, code))
        self.decoder = nn.Sequential(nn.Linear(code, 128), nn.ReLU(), nn.Linear(128, PIXELS))

    def forward(self, images: Tensor) -> Tensor:
        code = self.encoder(images.flatten(1))  # (batch, code)
        drawn: Tensor = self.decoder(code)  # (batch, 784)
        return drawn.view_as(images)  # (batch, 1, 28, 28)


class Generator(nn.Module):
    """Draws images in [-1, 1] from noise (batch, noise)."""

    def __init__(self, noise: int = 32) -> None:
        super().__init__()
        self.noise = noise
        self.body = nn.Sequential(
            nn.Linear(noise, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, PIXELS),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        drawn: Tensor = self.body(noise)  # (batch, 784)
        return drawn.view(-1, 1, 28, 28)  # (batch, 1, 28, 28)


class Discriminator(nn.Module):
    """How real an image looks, as a logit (batch, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(PIXELS, 128), nn.LeakyReLU(0.2), nn.Linear(128, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images.flatten(1))  # (batch, 1)
        return logits


class BagOfPixels(nn.Module):
    """Classifies an image by the embeddings of its brightest pixels, with sparse gradients."""

    def __init__(self, tokens: int, width: int = 32) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(tokens, width, mode="mean", sparse=True)
        self.hidden = nn.Linear(width, 64)
        self.relu = nn.ReLU()
        self.head = nn.Linear(64, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = self.bag(tokens)  # (batch, width)
        logits: Tensor = self.head(self.relu(self.hidden(pooled)))  # (batch, classes)
        return logits
