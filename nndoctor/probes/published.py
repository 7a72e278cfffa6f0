"""What subscribers have published in a step, on its way into the frame."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nndoctor.probes.base import Measured
from nndoctor.signals import Signal
from nndoctor.subscribers import Published, Value

NAN = float("nan")


class Results:
    """Published numbers by signal and target; those of one target in a step are averaged."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, list[Value]]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, signal: str, number: int, value: Value) -> None:
        self._values.setdefault(signal, {}).setdefault(number, []).append(value)

    def mean(self, signal: str, number: int) -> Value | None:
        """The mean for one target so far; None where there is nothing."""
        values = self._values.get(signal, {}).get(number)
        return None if values is None else mean(values)

    def take(self, sizes: Mapping[str, int]) -> dict[str, Measured]:
        """Every signal over as many targets as `sizes` says, NaN where nothing was published; then they are gone."""
        taken, self._values = self._values, {}
        return {
            name: together([mean(found[n]) if n in found else NAN for n in range(sizes[name])])
            for name, found in taken.items()
        }


def mean(values: list[Value]) -> Value:
    if len(values) == 1:
        return values[0]
    if any(isinstance(value, Tensor) for value in values):
        stacked = together(values)
        assert isinstance(stacked, Tensor)
        return stacked.mean()
    return sum(float(value) for value in values) / len(values)


def together(values: list[Value]) -> Measured:
    """Numbers as a list, or as one vector on the device of the first tensor; nothing waits for it."""
    home = next((value for value in values if isinstance(value, Tensor)), None)
    if home is None:
        return [float(value) for value in values]
    rest = home.new_full((), NAN, dtype=torch.float32)
    filled = {
        value: home.new_full((), value, dtype=torch.float32) for value in values if not isinstance(value, Tensor) and value == value
    }
    return torch.stack([
        value.to(home.device, torch.float32) if isinstance(value, Tensor) else filled.get(value, rest) for value in values
    ])  # fmt: skip


def by_signal(published: Published, signals: Mapping[str, Signal]) -> dict[str, Value | dict[str, Value]]:
    """What ``receive`` returned, by signal, as plain numbers where that waits for nothing.

    Raises:
        ValueError: it is of a signal that was not declared, or no single number.
        TypeError: it is no number at all.
    """
    if published is None:
        return {}
    if not isinstance(published, Mapping):
        if len(signals) != 1:
            raise ValueError(f"returned a number, but declares {len(signals)} signals: return a dict of numbers by signal")
        published = {next(iter(signals)): published}
    for name in published:
        if name not in signals:
            raise ValueError(f"published {name!r}, which it does not declare; it declares {', '.join(signals) or 'none'}")
    return {
        name: {target: _number(name, one) for target, one in value.items()} if isinstance(value, Mapping) else _number(name, value)
        for name, value in published.items()
    }


def _number(name: str, value: object) -> Value:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} is one number for each target, got a tensor of shape {tuple(value.shape)}")
        value = value.detach().reshape(())
        return float(value) if value.is_cpu else value.float().clone()
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} is a number, got {type(value).__name__}") from None
