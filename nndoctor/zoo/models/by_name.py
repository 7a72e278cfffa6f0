"""A model by its name, made to fit the images it is to see."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nndoctor.zoo.models.published import AdamConvNet, AlexNetMini, DenseNet4, PathNet, Vgg
from nndoctor.zoo.models.residual import DenseNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from nndoctor.zoo.models.small import LeNet, Mlp
from nndoctor.zoo.models.timed import TimedAlexNet, TimedVgg11


class UnknownModel(ValueError):
    """No model has that name, or it cannot take images of that shape; the message says what is possible."""


def _mlp(channels: int, classes: int, size: int) -> nn.Module:
    return Mlp((channels * size * size, 128, 64, classes))


def _whatever_size(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """For networks that end in global pooling, or that are made for one size."""

    def made(channels: int, classes: int, size: int) -> nn.Module:
        return build(channels=channels, classes=classes)

    return made


MODELS: Mapping[str, tuple[Callable[..., nn.Module], frozenset[int] | int]] = {
    "mlp": (_mlp, 1),
    "lenet": (_whatever_size(LeNet), frozenset({28})),
    "alexnetmini": (AlexNetMini, 6),
    "vgg": (_whatever_size(Vgg), 32),
    "adamconvnet": (AdamConvNet, 8),
    "fullyconnected": (DenseNet4, 1),
    "resnet18": (_whatever_size(ResNet18), 8),
    "resnet34": (_whatever_size(ResNet34), 8),
    "resnet50": (_whatever_size(ResNet50), 8),
    "resnet101": (_whatever_size(ResNet101), 8),
    "resnet152": (_whatever_size(ResNet152), 8),
    "densenet": (_whatever_size(DenseNet), 8),
    "pathnet": (PathNet, 10),
    "alexnet": (TimedAlexNet, 63),
    "vgg11": (TimedVgg11, 32),
}
"""Name to constructor (keywords ``channels``, ``classes``, ``size``) and the sizes it takes: a set, or the smallest."""


def model_named(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """The model called `name` (case, dashes and underscores do not matter) for square images of `shape`.

    Args:
        shape: (channels, height, width) of an image.
        classes: logits per image.

    Raises:
        UnknownModel: there is no such model, or it does not take such images.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in MODELS:
        close = difflib.get_close_matches(key, MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownModel(f"no model is called {name!r}; {hint}there are {', '.join(MODELS)}")
    channels, height, width = shape
    build, sizes = MODELS[key]
    fits = height >= sizes if isinstance(sizes, int) else height in sizes
    if height != width or not fits:
        wanted = f"at least {sizes}" if isinstance(sizes, int) else " or ".join(map(str, sorted(sizes)))
        raise UnknownModel(f"model {name!r} takes square images of {wanted} pixels a side, got {height} x {width}")
    keywords: dict[str, Any] = {"channels": channels, "classes": classes, "size": height}
    return build(**keywords)
