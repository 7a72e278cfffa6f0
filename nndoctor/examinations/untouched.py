"""Keeping the user's objects as they are: copies of models, and random generators that are put back."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from nndoctor.discovery import unwrap

HOOK_TABLES = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where a module keeps its hooks; there is no public way to list them."""


@contextmanager
def generators_kept() -> Iterator[None]:
    """Puts the random generators of torch (all devices in use), numpy and Python back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    processor = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(processor)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def seed_generators(seed: int) -> None:
    """The generators that are in use start at `seed`. A device that nobody has used yet is left asleep.

    ``torch.manual_seed`` would leave a seed waiting for a device that wakes up later, in the user's own run.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if _cuda_in_use():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def copied(model: nn.Module, *others: Any) -> tuple[Any, ...]:
    """Deep copies of `model` and of `others`, which refer to the copy wherever they referred to the model.

    An optimizer among them holds the copy's parameters and the same state. Hooks of the user's stay behind,
    because they act on the user's objects; those that torch itself made (weight normalisation) come along.
    Tensors with history that a module keeps as attributes are copied without it.
    """
    original = unwrap(model)
    memo: dict[int, Any] = {}
    for module in original.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and value.requires_grad and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    memo[id(model)] = twin = copy.deepcopy(original, memo)
    rest = [copy.deepcopy(other, memo) for other in others]
    for other, twin_of_other in zip(others, rest, strict=True):
        if isinstance(other, torch.optim.Optimizer):
            _copy_own_attributes(other, twin_of_other, memo)
    for module in (*twin.modules(), *(m for other in rest if isinstance(other, nn.Module) for m in other.modules())):
        _drop_foreign_hooks(module)
    return (twin, *rest)


def _copy_own_attributes(optimizer: torch.optim.Optimizer, twin: torch.optim.Optimizer, memo: dict[int, Any]) -> None:
    """Optimizers copy what is in their state and leave out what a subclass keeps beside it (L-BFGS its parameters).

    Callables stay behind: a schedule replaces ``step`` of the user's optimizer by one that counts for it.
    """
    for name, value in vars(optimizer).items():
        if name not in vars(twin) and not callable(value) and not name.startswith("_zero_grad"):
            setattr(twin, name, copy.deepcopy(value, memo))


def _drop_foreign_hooks(module: nn.Module) -> None:
    for table in HOOK_TABLES:
        hooks = vars(module).get(table) or {}
        for key in [key for key, hook in hooks.items() if not _is_of_torch(hook)]:
            del hooks[key]


def _is_of_torch(hook: Any) -> bool:
    function = getattr(hook, "func", hook)
    home = getattr(function, "__module__", None) or type(function).__module__
    return str(home).split(".")[0] == "torch"
