"""The networks of the works this project continues, with exactly their numbers of parameters.

``AlexNetMini``, ``Vgg``, ``AdamConvNet`` and ``DenseNet4`` of Diederichsen, *Live introspection for neural network training*
(its VGG is called VGG-16 and VGG-18 there; by its eight convolutions it is VGG-11 with batch normalisation); ``PathNet`` of
Nemcova, *Neural network training progress visualization*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

VGG_11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class AlexNetMini(nn.Module):
    """Two small convolutions and two linear layers with dropout: 25 682 parameters for CIFAR-10."""

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32) -> None:
        super().__init__()
        side = (size - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.25), nn.Linear(8 * side * side, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)  # (batch, 8, 14, 14)
        logits: Tensor = self.classifier(maps.flatten(1))  # (batch, classes)
        return logits


class Vgg(nn.Module):
    """Eight 3 x 3 convolutions with batch normalisation and one linear layer: 9 231 114 parameters for CIFAR-10.

    Args:
        plan: output channels of each convolution, and ``"pool"`` where the maps are halved; five of them want 32 x 32.
    """

    def __init__(self, channels: int = 3, classes: int = 10, plan: Sequence[int | str] = VGG_11) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for item in plan:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU()]
            width = item
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.features(images))  # (batch, 512, 1, 1)
        logits: Tensor = self.classifier(maps.flatten(1))  # (batch, classes)
        return logits


class AdamConvNet(nn.Module):
    """The convolutional network Adam was introduced with, without dropout: 2 371 266 parameters for CIFAR-10."""

    def __init__(
        self, channels: int = 3, classes: int = 10, size: int = 32, width: int = 64, hidden: int = 1000
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, width), (width, width), (width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
            size = (size + 1) // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(2 * width * size * size, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)  # (batch, 128, 4, 4)
        logits: Tensor = self.classifier(maps.flatten(1))  # (batch, classes)
        return logits


class DenseNet4(nn.Module):
    """Four wide hidden linear layers: 48 311 010 parameters for CIFAR-10.

    Args:
        widths: of the hidden layers.
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, size: int = 32, widths: Sequence[int] = (4000, 4000, 4000, 1000)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = channels * size * size
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)  # (batch, classes)
        return logits


class PathNet(nn.Module):
    """The network whose training paths and loss surface nnvis drew: 81 194 parameters for grey 32 x 32 images.

    Gives log-probabilities, so its loss is the negative log-likelihood (``nn.NLLLoss``).
    """

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 32) -> None:
        super().__init__()
        side = ((size - 2) // 2 - 2) // 2
        self.conv1 = nn.Conv2d(channels, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)  # (batch, 6, 15, 15)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)  # (batch, 16, 6, 6)
        hidden = F.relu(self.fc1(maps.flatten(1)))  # (batch, 120)
        hidden = F.relu(self.fc2(hidden))  # (batch, 84)
        return F.log_softmax(self.fc3(hidden), dim=1)  # (batch, classes)
