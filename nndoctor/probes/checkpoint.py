"""What a checkpoint left out: names that did not match, and layers at their random start among loaded ones.

``load_state_dict(..., strict=False)`` says what did not match and goes on. The names tell a renamed
checkpoint (a prefix too many) from a new head; where the loading itself was not seen, weights as torch's
defaults leave them, between counterparts that were trained before, tell of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, clean_name
from nndoctor.probes.base import CONTRACT, Measured

SAMPLE = 4096
"""Elements of a weight that are looked at, once."""

FEWEST = 64
"""Elements below which the spread of a weight says nothing about how it was made."""


def renamed(missing: Sequence[str], unexpected: Sequence[str]) -> frozenset[str]:
    """Names among `missing` that are there after all, behind a prefix too many or too few.

    >>> sorted(renamed(["conv.weight", "head.bias"], ["module.conv.weight", "fc.bias"]))
    ['conv.weight']
    """
    given = set(unexpected)
    ends = {name.split(".", cut)[-1] for name in given for cut in range(1, name.count(".") + 1) if "." in name.split(".", cut)[-1]}
    found = {name for name in missing if "." in name and name in ends}
    for name in missing:
        parts = name.split(".")
        if any(".".join(parts[cut:]) in given for cut in range(1, len(parts) - 1)):
            found.add(name)
    return frozenset(found)


class CheckpointProbe:
    """Tells which parameters a checkpoint did not reach, and why."""

    name = "checkpoint"
    tier = CONTRACT
    sleeps = True
    signals = ("checkpoint.missing", "checkpoint.unexpected", "checkpoint.renamed", "checkpoint.loaded", "param.not_loaded", "param.odd_start")

    def __init__(self) -> None:
        self.news = False
        self._index: ModelIndex | None = None
        self._not_loaded: dict[int, bool] = {}
        self._counts: tuple[int, int, int, int] | None = None
        self._odd: torch.Tensor | list[float] | None = None
        self._looked = False

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._not_loaded.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        """What was loaded is told once and stays."""

    def state_loaded(self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str]) -> None:
        """Note which parameters of the run's models this checkpoint filled."""
        index = self._index
        if index is None:
            return
        absent = {clean_name(name) for name in missing}
        numbers = {
            index.param_numbers[id(param)]: clean_name(name) in absent
            for name, param in module.named_parameters()
            if id(param) in index.param_numbers
        }
        if not numbers:
            return  # an optimizer's, a metric's or another network's state
        self._not_loaded.update(numbers)
        parameters = {name for name, _ in module.named_parameters()}
        self._counts = (
            sum(numbers.values()),
            len(unexpected),
            len(renamed([name for name in missing if name in parameters], unexpected)),
            len(numbers) - sum(numbers.values()),
        )
        self.news = True
        self._looked = False

    def forward_begins(self, root: object, args: object, kwargs: object) -> None:
        """Look at how the weights start, before the first step changes them."""
        if not self._looked and self._index is not None:
            self._looked = True
            self._odd = _odd_starts(self._index)

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        index = self._index
        if index is None:
            return {}
        measured: dict[str, Measured] = {}
        if self._odd is not None:
            measured["param.odd_start"] = self._odd
            self._odd = None
        if self._counts is not None:
            missing, unexpected, other_name, loaded = self._counts
            measured["checkpoint.missing"] = float(missing)
            measured["checkpoint.unexpected"] = float(unexpected)
            measured["checkpoint.renamed"] = float(other_name)
            measured["checkpoint.loaded"] = float(loaded)
            told = [float(self._not_loaded.get(number, False)) for number in range(len(index.params))]
            measured["param.not_loaded"] = told
        return measured


def _odd_starts(index: ModelIndex) -> torch.Tensor | None:
    """1 for weights as torch's defaults leave them, whose counterparts in other blocks were trained before.

    Counterparts have the same name but for the numbers in it, and the same shape. Returns a tensor of shape
    (params,), NaN where there is no counterpart; None where no weight has one.
    """
    kin: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, (name, param) in enumerate(zip(index.param_names, index.params, strict=True)):
        if param.dim() > 1 and param.numel() >= FEWEST and param.is_floating_point():
            kin[(re.sub(r"\d+", "#", name), tuple(param.shape), param.device)].append(number)
    groups = [numbers for numbers in kin.values() if len(numbers) > 2]
    if not groups:
        return None
    device = index.params[groups[0][0]].device
    odd = torch.full((len(index.params),), torch.nan, device=device)
    with torch.no_grad():
        for numbers in groups:
            default = torch.stack([_looks_default(index.params[n]) for n in numbers]).to(device)  # (kin,)
            few = default.float().mean() < 0.5  # most of them were trained: then the others were meant to be
            odd[torch.tensor(numbers, device=device)] = (default & few).float()
    return odd


def _looks_default(param: torch.Tensor) -> torch.Tensor:
    """Whether a weight is spread uniformly around zero: the largest is sqrt(3) times the standard deviation."""
    flat = param.detach().reshape(-1)
    sample = flat[:: max(1, flat.numel() // SAMPLE)].float()
    mean, std = sample.mean(), sample.std()
    return ((sample.abs().amax() / std.clamp_min(1e-30) - 3**0.5).abs() < 0.06) & (mean.abs() < 0.15 * std)
