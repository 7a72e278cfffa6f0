"""Residual and densely connected networks for 32 x 32 images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016), as ResNet-18 and 34 stack them."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        branch = F.relu(self.bn1(self.conv1(maps)))
        branch = self.bn2(self.conv2(branch))
        return F.relu(branch + self.shortcut(maps))  # (batch, width, height / stride, width / stride)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution and a shortcut, as ResNet-50 and deeper stack them; the 3 x 3 takes the stride."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, maps: Tensor) -> Tensor:
        branch = F.relu(self.bn1(self.conv1(maps)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return F.relu(branch + self.shortcut(maps))  # (batch, 4 * width, height / stride, width / stride)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """The identity where the shapes agree, a projection where they do not."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """A residual network with a 3 x 3 stem, four groups of blocks, and global average pooling.

    Args:
        block: what the groups are made of.
        depths: blocks of each group.
        width: channels of the first group; each further group has twice as many.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        depths: Sequence[int] = (2, 2, 2, 2),
        channels: int = 3,
        classes: int = 10,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for group, depth in enumerate(depths):
            blocks: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if group > 0 and index == 0 else 1
                blocks.append(block(inputs, width << group, stride))
                inputs = block.expansion * (width << group)
            setattr(self, f"layer{group + 1}", nn.Sequential(*blocks))
        self.groups = len(depths)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(images)))  # (batch, 64, 32, 32)
        for group in range(1, self.groups + 1):
            maps = getattr(self, f"layer{group}")(maps)
        logits: Tensor = self.linear(self.pool(maps).flatten(1))  # (batch, classes)
        return logits


ResNet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
"""11 173 962 parameters for CIFAR-10."""
ResNet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
"""21 282 122 parameters for CIFAR-10."""
ResNet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
"""23 520 842 parameters for CIFAR-10."""
ResNet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
"""42 512 970 parameters for CIFAR-10."""
ResNet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
"""58 156 618 parameters for CIFAR-10."""


class DenseLayer(nn.Module):
    """``growth`` new maps from all before it, through a bottleneck of ``bottleneck * growth`` (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int, bottleneck: int, recompute: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)
        self.recompute = recompute

    def squeeze(self, *earlier: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu(self.norm1(torch.cat(earlier, dim=1))))  # (batch, bottleneck * growth, h, w)
        return out

    def forward(self, *earlier: Tensor) -> Tensor:
        if self.recompute and any(maps.requires_grad for maps in earlier):
            squeezed = checkpoint(self.squeeze, *earlier, use_reentrant=False)
        else:
            squeezed = self.squeeze(*earlier)
        out: Tensor = self.conv2(F.relu(self.norm2(squeezed)))  # (batch, growth, h, w)
        return out


class DenseBlock(nn.Module):
    """Layers each of which sees the maps of all before it; gives all maps, those it was given included."""

    def __init__(self, depth: int, inputs: int, growth: int, bottleneck: int, recompute: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(inputs + index * growth, growth, bottleneck, recompute) for index in range(depth)
        )

    def forward(self, maps: Tensor) -> Tensor:
        collected = [maps]
        for layer in self.layers:
            collected.append(layer(*collected))
        return torch.cat(collected, dim=1)  # (batch, inputs + depth * growth, h, w)


class DenseNet(nn.Module):
    """DenseNet-BC with growth 12 and three blocks of 16 layers: 769 162 parameters for CIFAR-10.

    Args:
        growth: maps that each layer adds.
        depths: layers of each block.
        compression: share of the maps that a transition keeps.
        initial: maps of the stem.
        bottleneck: width of a layer's 1 x 1 convolution in units of `growth`.
        recompute: compute concatenation, norm and 1 x 1 convolution again in backward, for less memory; the running
            statistics of those norms then move twice per step.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        growth: int = 12,
        depths: Sequence[int] = (16, 16, 16),
        compression: float = 0.5,
        initial: int = 24,
        bottleneck: int = 4,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(channels, initial, 3, padding=1, bias=False))
        width = initial
        for index, depth in enumerate(depths, start=1):
            self.features.add_module(f"block{index}", DenseBlock(depth, width, growth, bottleneck, recompute))
            width += depth * growth
            if index < len(depths):
                kept = int(width * compression)
                self.features.add_module(f"transition{index}", _transition(width, kept))
                width = kept
        self.features.add_module("norm", nn.BatchNorm2d(width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.features(images))  # (batch, width, 8, 8)
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))  # (batch, classes)
        return logits


def _transition(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.AvgPool2d(2))
