"""Any optimizer of torch by its name."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nndoctor.lab.schedules import FixedRatioSGD


class UnknownOptimizer(ValueError):
    """No optimizer has that name, or it does not take what it was given; the message says what is possible."""


def optimizer_names() -> tuple[str, ...]:
    """Every class of ``torch.optim``, and ``FixedRatioSGD``, whose ``lr`` is the ratio of each update to its weights."""
    found = (kind for kind in vars(torch.optim).values() if inspect.isclass(kind) and issubclass(kind, Optimizer))
    return tuple(sorted({FixedRatioSGD.__name__, *(kind.__name__ for kind in found if kind is not Optimizer)}))


def optimizer_named(name: str, model: nn.Module, **settings: Any) -> Optimizer:
    """The optimizer called `name` (case does not matter) over the parameters of `model` that train.

    Args:
        settings: passed on, such as ``lr``.

    Raises:
        UnknownOptimizer: torch has none of that name, or it does not take a setting.
    """
    known = {each.lower(): each for each in optimizer_names()}
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {known[close[0]]!r}? " if close else ""
        raise UnknownOptimizer(f"no optimizer is called {name!r}; {hint}there are {', '.join(known.values())}")
    build = getattr(torch.optim, known[name.lower()], FixedRatioSGD)
    if build is FixedRatioSGD and "lr" in settings:
        settings["ratio"] = settings.pop("lr")
    try:
        made: Optimizer = build([p for p in model.parameters() if p.requires_grad], **settings)
    except (TypeError, ValueError) as error:
        raise UnknownOptimizer(f"{known[name.lower()]}: {error}") from error
    return made
