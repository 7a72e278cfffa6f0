"""From what the probes collected to a Frame: one copy from each device, the rest in numpy.

The last file that knows torch. ``pack`` runs in the training thread and waits for nothing; ``unpack``
runs in the doctor's own thread and waits for the copy there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray

from nndoctor.probes.base import Measured
from nndoctor.signals import Frame, Targets, Values
from nndoctor.tiles import Stamps

RAW_LOSSES = "loss.raw"
"""Name under which the micro-step losses of one step travel until ``unpack`` reduces them."""


@dataclass
class Payload:
    """One step's measurements on their way to the host.

    Args:
        numbers: plain Python values.
        copies: for each device, the concatenated float32 values, names and lengths, and the event after
            which a pinned copy may be read (None on the CPU).
    """

    step: int
    time: float
    epoch: float | None
    targets: Targets
    numbers: dict[str, list[float]] = field(default_factory=dict)
    copies: list[tuple[torch.Tensor, list[tuple[str, int]], torch.cuda.Event | None]] = field(default_factory=list)
    stamps: Stamps | None = None
    """Where the step's time went, for the record alone."""


@dataclass
class Stretch:
    """Quiet steps in a row that brought the same few plain numbers, on their way as one table.

    Args:
        names: of the signals, one per column of `rows`.
        steps, times, epochs: of each step.
        rows: (steps, signals).
        stamps: where the time of each step went, for the record alone; empty where that is not wanted of every step.
    """

    names: tuple[str, ...]
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    epochs: list[float | None] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    stamps: list[Stamps] = field(default_factory=list)

    @property
    def time(self) -> float:
        """When the first of its steps ended."""
        return self.times[0]

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, time: float, epoch: float | None, row: tuple[float, ...], stamps: Stamps | None = None) -> None:
        self.steps.append(step)
        self.times.append(time)
        self.epochs.append(epoch)
        self.rows.append(row)
        if stamps is not None:
            self.stamps.append(stamps)

    def frames(self) -> Iterator[Frame]:
        """One frame per step; to make them from one table costs a fifth of making each by itself."""
        table = np.asarray(self.rows, dtype=np.float32)
        for row, step, time, epoch in zip(table, self.steps, self.times, self.epochs, strict=True):
            yield Frame(step, time, epoch, {name: row[i : i + 1] for i, name in enumerate(self.names)})


def pack(
    step: int, time: float, epoch: float | None, targets: Targets, measured: Mapping[str, Measured]
) -> Payload:
    """Start one copy to the host per device and return at once."""
    payload = Payload(step, time, epoch, targets)
    by_device: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, value in measured.items():
        if isinstance(value, torch.Tensor):
            by_device.setdefault(value.device, []).append((name, _flat(value)))
        elif isinstance(value, list):
            payload.numbers[name] = value
        else:
            payload.numbers[name] = [value]
    for device, items in by_device.items():
        # A copy, so that later writes of the user do not show.
        flat = torch.cat([t for _, t in items]) if len(items) > 1 else items[0][1].clone()
        layout = [(name, t.numel()) for name, t in items]
        if device.type == "cuda":
            host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            host.copy_(flat, non_blocking=True)
            event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            payload.copies.append((host, layout, event))
        else:
            payload.copies.append((flat, layout, None))
    return payload


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` as a detached float32 vector; itself where it is one already."""
    if tensor.dim() == 1 and tensor.dtype is torch.float32 and not tensor.requires_grad:
        return tensor
    return tensor.detach().reshape(-1).float()


def unpack(payload: Payload) -> Frame:
    """The frame of a payload, with the values that are derived from others filled in."""
    values: dict[str, Values] = {
        name: np.asarray(numbers, dtype=np.float32) for name, numbers in payload.numbers.items()
    }
    for copy, layout, event in payload.copies:
        if event is not None:
            event.synchronize()
        flat = np.array(copy.cpu().numpy())  # a copy: what is kept of the values must not hold pinned memory
        start = 0
        for name, length in layout:
            values[name] = flat[start : start + length]
            start += length
    _reduce_losses(values)
    if "param.weight.norm" in values or "param.grad.norm" in values:
        _derive_layers(values, payload.targets)
    return Frame(payload.step, payload.time, payload.epoch, values)


def _reduce_losses(values: dict[str, Values]) -> None:
    losses = values.pop(RAW_LOSSES, None)
    if losses is None or losses.size == 0:
        return
    if losses.size == 1 and isfinite(losses[0]):
        values["loss"] = losses
        values["loss.nonfinite"] = np.zeros(1, dtype=np.float32)
        return
    finite = losses[np.isfinite(losses)]
    values["loss.nonfinite"] = np.array([losses.size - finite.size], dtype=np.float32)
    if finite.size < losses.size:
        return
    values["loss"] = np.array([losses.mean(dtype=np.float64)], dtype=np.float32)
    if losses.size > 1:
        values["loss.micro_min"] = np.array([losses.min()], dtype=np.float32)
        values["loss.micro_max"] = np.array([losses.max()], dtype=np.float32)


def _derive_layers(values: dict[str, Values], targets: Targets) -> None:
    """Layer signals from those of the layer's own parameters, with the formulas of the catalogue."""
    owner = np.asarray(targets.param_layers, dtype=np.int64)
    sizes = np.array([np.prod(shape, dtype=np.float64) for shape in targets.param_shapes])
    matrix = np.array([len(shape) > 1 for shape in targets.param_shapes], dtype=bool)

    def known(name: str) -> NDArray[np.float64] | None:
        return values[name].astype(np.float64) if name in values else None

    def total(value: NDArray[np.float64], only: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Sum per layer over its measured parameters, NaN where it has none."""
        use = ~np.isnan(value) if only is None else ~np.isnan(value) & only[: value.size]
        layers = owner[: value.size][use]
        found = np.bincount(layers, weights=value[use], minlength=len(targets.layers))
        return np.where(np.bincount(layers, minlength=len(targets.layers)) > 0, found, np.nan)

    def put(name: str, value: NDArray[np.float64]) -> None:
        values[name] = value.astype(np.float32)

    gradient, snr = known("param.grad.norm"), known("param.grad.snr")
    weight, update = known("param.weight.norm"), known("param.update.norm")
    nonfinite, broken = known("param.grad.nonfinite"), known("param.weight.nonfinite")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if gradient is not None:
            square = total(gradient**2)
            put("grad.norm", np.sqrt(square))
            put("grad.rms", np.sqrt(square / total(np.where(np.isnan(gradient), np.nan, sizes[: gradient.size]))))
        if nonfinite is not None:
            put("grad.nonfinite", total(nonfinite))
        if broken is not None:
            put("weight.nonfinite", total(broken))
        if snr is not None:
            size = np.where(np.isnan(snr), np.nan, sizes[: snr.size])
            put("grad.snr", total(snr * size) / total(size))
        if weight is not None:
            of_matrices = total(weight**2, matrix)
            put("weight.norm", np.sqrt(np.where(np.isnan(of_matrices), total(weight**2), of_matrices)))
            if update is not None:
                ratio = np.sqrt(total(update**2, matrix) / of_matrices)
                put("update.ratio", np.where(of_matrices > 0, ratio, np.nan))
