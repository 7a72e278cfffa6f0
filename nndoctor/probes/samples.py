"""Holds the samples of one step until all layers are done, then computes everybody's statistics at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nndoctor.probes.stats import COLUMNS, SAMPLES, Block, block_statistics, full_sum, nonfinite_count, sample_block

STATISTICS = ("act.mean", "act.std", "act.rms", "act.max", "act.nonfinite", "act.batch_std", "act.first_nonfinite")
COMBINED = ("mean", "mean", "mean", "amax", "sum", "mean", "amax")
"""How several calls of one layer in one step become one number."""

LAYOUTS_KEPT = 8
FIRST_ROWS = 16


@dataclass(slots=True, eq=False)
class Slot:
    """Where one call of one layer keeps its sample, and how it is taken from an output of the present shape."""

    layer: int
    board: Board
    row: int
    key: tuple[Any, ...] = ()
    block: Block | None = None
    target: torch.Tensor | None = None
    stamp: int = -1


@dataclass(slots=True, eq=False)
class Board:
    """The samples of one step on one device: a row of the buffer per measured call."""

    samples: torch.Tensor  # (rows, SAMPLES, COLUMNS)
    rows: int = 0
    order: list[Slot] = field(default_factory=list)
    sums: list[torch.Tensor] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """Index tensors for one order of calls on one device; mostly the same order comes again."""

    rows: torch.Tensor | None  # None: the first rows in their own order
    columns: torch.Tensor  # (calls,)
    used: torch.Tensor  # (calls, COLUMNS)
    correction: torch.Tensor  # (calls,)


@dataclass(frozen=True, slots=True)
class Destination:
    """Which layer each call belongs to, and the order in which the calls were made."""

    layers: torch.Tensor  # (calls,)
    repeated: bool
    order: torch.Tensor | None


class Samples:
    """A sample of every measured layer output of one step, and their statistics."""

    def __init__(self) -> None:
        self._boards: dict[torch.device, Board] = {}
        self._slots: dict[tuple[int, int, torch.device], Slot] = {}
        self._layouts: dict[tuple[int, ...], Layout] = {}
        self._destinations: dict[tuple[int, ...], Destination] = {}
        self._stamps = 0
        self._turn = 0

    def take(self, layer: int, call: int, tensor: torch.Tensor, unit_dim: int | None, phase: float) -> torch.Tensor | None:
        """Copy a sample of a layer's output; the tensor itself is not kept.

        Returns:
            The copy as (repeats, entries, units, positions), valid until the next step; None for an empty tensor.
        """
        slot = self._slots.get((layer, call, tensor.device)) or self._new_slot(layer, call, tensor.device)
        key = (tensor.shape, tensor.stride(), unit_dim)
        if slot.key != key:
            self._plan(slot, key)
        if slot.block is None:
            return None
        board = slot.board
        if slot.target is None:
            slot.target = self._target(slot)
        slot.target.copy_(slot.block.view(tensor, phase))
        board.sums.append(full_sum(tensor))
        board.order.append(slot)
        board.turns.append(self._turn)
        self._turn += 1
        return slot.target

    def _new_slot(self, layer: int, call: int, device: torch.device) -> Slot:
        board = self._boards.get(device)
        if board is None:
            board = Board(torch.zeros(FIRST_ROWS, SAMPLES, COLUMNS, device=device))
            self._boards[device] = board
        if board.rows == len(board.samples):
            board.samples = torch.cat((board.samples, torch.zeros_like(board.samples)))
            for other in self._slots.values():
                if other.board is board:
                    other.target = None  # a view of the former buffer
        slot = Slot(layer, board, board.rows)
        board.rows += 1
        self._slots[layer, call, device] = slot
        return slot

    def _plan(self, slot: Slot, key: tuple[Any, ...]) -> None:
        """Choose the elements for a new shape; the row is cleared, because fewer columns may be used now."""
        shape, stride, unit_dim = key
        before = slot.block
        slot.key, slot.block, slot.target = key, sample_block(shape, stride, unit_dim), None
        if before is not None and slot.block is not None and slot.block.columns < before.columns:
            slot.board.samples[slot.row].zero_()
        if before is None or slot.block is None or (before.columns, before.entries) != (slot.block.columns, slot.block.entries):
            slot.stamp = self._stamps
            self._stamps += 1

    def _target(self, slot: Slot) -> torch.Tensor:
        assert slot.block is not None
        repeats, entries, units, positions = slot.block.size
        return slot.board.samples.as_strided(
            (repeats, entries, units, positions),
            (entries * COLUMNS, COLUMNS, positions, 1),
            slot.row * SAMPLES * COLUMNS,
        )

    def clear(self) -> None:
        """Forget what was taken in this step."""
        self._turn = 0
        for board in self._boards.values():
            board.order.clear()
            board.sums.clear()
            board.turns.clear()

    def release(self) -> None:
        """Free the buffers."""
        self.__init__()  # type: ignore[misc]

    def collect(self, layers: int) -> dict[str, torch.Tensor]:
        """The statistics of what was taken, each of shape (layers,), NaN for layers that were not; then clear."""
        boards = [board for board in self._boards.values() if board.order]
        if not boards:
            return {}
        home = next((board.samples.device for board in boards if board.samples.is_cuda), boards[0].samples.device)
        parts = [self._statistics(board).to(home, non_blocking=True) for board in boards]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (statistics, calls)
        destination = self._destination(boards, home)
        if destination.order is not None:
            rows = rows.index_select(1, destination.order)
        bad = rows[-1]
        rows[-1] = bad * (bad.cumsum(0) == 1)  # only the first in order of execution
        self.clear()
        return dict(zip(STATISTICS, spread(rows, destination.layers, layers, destination.repeated), strict=True))

    def _statistics(self, board: Board) -> torch.Tensor:
        """All statistics of one device's calls in order, (statistics, calls); the last row tells whether any value was not finite."""
        layout = self._layout(board)
        blocks = board.samples[: len(board.order)] if layout.rows is None else board.samples.index_select(0, layout.rows)
        found = block_statistics(blocks, layout.columns, layout.used, layout.correction)
        sums = torch.stack([total.float() for total in board.sums])
        bad = nonfinite_count(sums.unsqueeze(1))
        count = torch.maximum(found.nonfinite, bad)
        return torch.stack((found.mean, found.std, found.rms, found.maximum, count, found.batch_std, count.clamp(max=1)))

    def _layout(self, board: Board) -> Layout:
        key = tuple(slot.stamp for slot in board.order)
        if key not in self._layouts:
            if len(self._layouts) >= LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = self._new_layout(board)
        return self._layouts[key]

    def _new_layout(self, board: Board) -> Layout:
        device = board.samples.device
        blocks = [slot.block for slot in board.order if slot.block is not None]
        rows = [slot.row for slot in board.order]
        columns = on_device([float(block.columns) for block in blocks], device)
        entries = on_device([float(block.entries) for block in blocks], device)
        return Layout(
            rows=None if rows == list(range(len(rows))) else on_device(rows, device),
            columns=columns,
            used=(torch.arange(COLUMNS, device=device) < columns.unsqueeze(1)).float(),
            correction=torch.where(entries > 1, (entries / (entries - 1)).sqrt(), float("nan")),
        )

    def _destination(self, boards: list[Board], home: torch.device) -> Destination:
        turns = [turn for board in boards for turn in board.turns]
        numbers = [slot.layer for board in boards for slot in board.order]
        order = sorted(range(len(turns)), key=turns.__getitem__)
        key = (*numbers, -1, *order)
        if key not in self._destinations:
            if len(self._destinations) >= LAYOUTS_KEPT:
                self._destinations.clear()
            numbers = [numbers[i] for i in order]
            self._destinations[key] = Destination(
                layers=on_device(numbers, home),
                repeated=len(set(numbers)) < len(numbers),
                order=None if order == list(range(len(order))) else on_device(order, home),
            )
        return self._destinations[key]


def on_device(values: list[Any], device: torch.device) -> torch.Tensor:
    """A small host list as a tensor, copied without waiting for the device."""
    return torch.tensor(values).to(device, non_blocking=True)


def spread(
    rows: torch.Tensor, layers: torch.Tensor, size: int, repeated: bool, combined: Iterable[str] = COMBINED
) -> torch.Tensor:
    """Values of calls as values of layers: (statistics, calls) to (statistics, size), NaN where no call was.

    Args:
        layers: the layer of each call, (calls,).
        repeated: whether a layer can occur twice; then `combined` names how its values become one.
    """
    whole = torch.full((len(rows), size), float("nan"), device=rows.device)
    if not repeated:
        return whole.index_copy_(1, layers, rows)
    for target, values, how in zip(whole, rows, combined, strict=True):
        target.scatter_reduce_(0, layers, values, how, include_self=False)
    return whole


def scattered(values: Mapping[int, list[torch.Tensor]], size: int) -> torch.Tensor:
    """Scalar tensors by layer as one tensor of all layers: the mean of each, NaN where there is none."""
    numbers = [number for number, found in values.items() for _ in found]
    stacked = torch.stack([value for found in values.values() for value in found])
    repeated = len(set(numbers)) < len(numbers)
    return spread(stacked.unsqueeze(0), on_device(numbers, stacked.device), size, repeated, ("mean",))[0]
