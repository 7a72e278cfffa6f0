"""Patients from names and files: factories as ``module:function``, checkpoints as files or folders."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.lab.patient import Patient

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
INSIDE = ("model_state_dict", "state_dict", "model", "module", "net")
"""Where a checkpoint keeps the weights if it holds more than them."""


class SourceError(Exception):
    """A patient cannot be made of what was named; says what was expected and what came."""


def named_object(name: str) -> Any:
    """What ``module:attribute`` names; modules in the current folder are found too.

    Raises:
        SourceError: there is no such thing.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise SourceError(f"expected module:function, got {name!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise SourceError(f"{name}: no module named {error.name!r} in {Path.cwd()} or among the installed ones") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SourceError(f"{name}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return found


def load_patient(
    model: str,
    batches: str,
    *,
    loss: str = "torch.nn.functional:cross_entropy",
    checkpoint: Path | str | None = None,
    max_batches: int | None = None,
    device: str | None = None,
) -> Patient:
    """The patient that factories and a checkpoint make.

    Args:
        model: ``module:function`` that returns the model; called without arguments.
        batches: ``module:function`` that returns a DataLoader or an iterable of batches.
        loss: ``module:function`` called as ``loss(output, targets)``, or a class of torch's such as
            ``torch.nn:MSELoss``; ``none`` where the output of the model holds the loss.
        checkpoint: file with a state dict, or a folder of them, of which the last counts; None: the model as it is made.

    Raises:
        SourceError: one of them cannot be had, or the weights do not fit the model.
    """
    built = named_object(model)()
    if not isinstance(built, nn.Module):
        raise SourceError(f"{model}: expected a torch.nn.Module, got {type(built).__name__}")
    if checkpoint is not None:
        load_weights(built, checkpoint_files(checkpoint)[-1])
    if device is not None:
        built.to(device)
    loss_fn = None if loss == "none" else named_object(loss)
    return Patient.of(built, loss_fn() if isinstance(loss_fn, type) else loss_fn, named_object(batches)(), max_batches=max_batches)


def checkpoint_files(place: Path | str) -> list[Path]:
    """The checkpoints in a folder in the order of the numbers in their names, or the one file itself.

    Raises:
        SourceError: there are none.
    """
    place = Path(place)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise SourceError(f"{place}: no such file or folder")
    found = [path for path in place.iterdir() if path.suffix in SUFFIXES]
    if not found:
        raise SourceError(f"{place}: no checkpoint in it ({', '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: ([int(digits) for digits in re.findall(r"\d+", path.stem)], path.name))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, wherever it is in it; no code in the file is run.

    Raises:
        SourceError: there is none.
    """
    if path.suffix == ".safetensors":
        load_file: Any = import_module("safetensors.torch").load_file
        return dict(load_file(path))
    held: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not any(isinstance(value, Tensor) for value in held.values()):
        raise SourceError(f"{path}: expected a state dict (or one under {', '.join(INSIDE)}), got {type(held).__name__}")
    return {str(name): value for name, value in held.items() if isinstance(value, Tensor)}


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` the weights in `path`; prefixes of DDP and torch.compile are dropped where they are in the way.

    Raises:
        SourceError: names or shapes do not fit.
    """
    weights = read_weights(path)
    wanted = model.state_dict().keys()
    for prefix in ("module.", "_orig_mod.", "model."):
        if not any(name in wanted for name in weights) and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SourceError(f"{path}: {error}") from error
