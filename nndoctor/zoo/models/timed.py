"""The two networks whose layers Imran timed one by one, for 224 x 224 images: each child is one row of the table.

After Imran, *Per-layer time computation of CNN training with TensorFlow*: a row holds a layer with its activation and pooling,
and a hidden linear layer is dropout, linear, batch normalisation, ReLU in this order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

VGG_11_CONVOLUTIONS = (
    (64, True),
    (128, True),
    (256, False),
    (256, True),
    (512, False),
    (512, True),
    (512, False),
    (512, True),
)
"""Channels of each convolution of VGG-11, and whether pooling follows it."""


class TimedAlexNet(nn.Module):
    """AlexNet with the children ``conv1 .. conv5``, ``fc1``, ``fc2`` and ``output``.

    Args:
        widths: channels of the five convolutions; the default is Krizhevsky et al. 2012 on one device, ungrouped.
        hidden: width of ``fc1`` and ``fc2``.
        size: of the images; at least 63.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 224,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        first, second, third, fourth, fifth = widths
        self.conv1 = nn.Sequential(nn.Conv2d(channels, first, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.conv2 = nn.Sequential(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.conv3 = nn.Sequential(nn.Conv2d(second, third, 3, padding=1), nn.ReLU())
        self.conv4 = nn.Sequential(nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU())
        self.conv5 = nn.Sequential(nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten())
        side = (size + 4 - 11) // 4 + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        self.fc1 = _hidden(fifth * side * side, hidden)
        self.fc2 = _hidden(hidden, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv2(self.conv1(images))  # (batch, 256, 13, 13)
        flat = self.conv5(self.conv4(self.conv3(maps)))  # (batch, 9216)
        logits: Tensor = self.output(self.fc2(self.fc1(flat)))  # (batch, classes)
        return logits


class TimedVgg11(nn.Module):
    """VGG-11 with the children ``conv1 .. conv8``, ``fc1``, ``fc2`` and ``output``: eleven rows.

    Args:
        hidden: width of ``fc1`` and ``fc2``.
        size: of the images; a multiple of 32.
    """

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 224, hidden: int = 4096) -> None:
        super().__init__()
        inputs = channels
        for index, (width, pooled) in enumerate(VGG_11_CONVOLUTIONS, start=1):
            layers: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(2))
            if index == len(VGG_11_CONVOLUTIONS):
                layers.append(nn.Flatten())
            setattr(self, f"conv{index}", nn.Sequential(*layers))
            inputs = width
        self.fc1 = _hidden(inputs * (size // 32) ** 2, hidden)
        self.fc2 = _hidden(hidden, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = images
        for layer in self.children():
            out = layer(out)
        return out  # (batch, classes)


def _hidden(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
