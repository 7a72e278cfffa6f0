"""Holds the samples of one step until all layers are done, then computes everybody's statistics at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nndoctor.probes.stats import COLUMNS, SAMPLES, Block, block_statistics, sample_block

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
    quiet: torch.Tensor  # zero, the alarm of outputs that need none
    rows: int = 0
    order: list[Slot] = field(default_factory=list)
    sums: list[torch.Tensor] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """Index tensors for one order of calls on one device; mostly the same order comes again."""

    rows: torch.Tensor | None  # None: the first rows in their own order
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

    def take(
        self, layer: int, call: int, tensor: torch.Tensor, unit_dim: int | None, phase: float
    ) -> torch.Tensor | None:
        """Copy a sample of a layer's output; the tensor itself is not kept.

        Follow it by ``watch`` with a scalar that is not finite if any element of the output is not.

        Returns:
            The copy as (repeats, entries, repeats, units, positions), valid until the next step; None for
            an empty tensor or a scalar.
        """
        slot = self._slots.get((layer, call, tensor.device)) or self._new_slot(layer, call, tensor.device)
        key = (tensor.shape, tensor.stride(), unit_dim)
        if slot.key != key:
            self._plan(slot, key)
        if slot.block is None:
            return None
        if slot.target is None:
            slot.target = slot.board.samples[slot.row].view(slot.block.size)
        slot.target.copy_(slot.block.view(tensor, phase))
        slot.board.order.append(slot)
        slot.board.turns.append(self._turn)
        self._turn += 1
        return slot.target

    def watch(self, device: torch.device, total: torch.Tensor | None) -> None:
        """The alarm of the output taken last on `device`: a float32 scalar, not finite if the output was not; or none."""
        board = self._boards[device]
        board.sums.append(board.quiet if total is None else total)

    def _new_slot(self, layer: int, call: int, device: torch.device) -> Slot:
        board = self._boards.get(device)
        if board is None:
            board = Board(torch.zeros(FIRST_ROWS, SAMPLES, COLUMNS, device=device), torch.zeros((), device=device))
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
        """Choose the elements for a new shape."""
        before = slot.block
        slot.key, slot.block, slot.target = key, sample_block(*key), None
        if before is None or slot.block is None or before.entries != slot.block.entries:
            slot.stamp = self._stamps
            self._stamps += 1

    def clear(self) -> None:
        """Forget what was taken in this step."""
        self._turn = 0
        for board in self._boards.values():
            board.order.clear()
            board.sums.clear()
            board.turns.clear()

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
        count = rows[STATISTICS.index("act.nonfinite")]
        first = (count.cumsum(0) == count).float().mul_(count.clamp(max=1))  # in order of execution
        rows = torch.cat((rows, first.unsqueeze(0)))
        self.clear()
        return dict(zip(STATISTICS, spread(rows, destination.layers, layers, destination.repeated), strict=True))

    def _statistics(self, board: Board) -> torch.Tensor:
        """All statistics but the last of one device's calls, in order of execution, (statistics, calls)."""
        layout = self._layout(board)
        blocks = board.samples[: len(board.order)] if layout.rows is None else board.samples.index_select(0, layout.rows)
        found = block_statistics(blocks, layout.correction)
        sums = torch.stack(board.sums)
        count = found[STATISTICS.index("act.nonfinite")]
        torch.maximum(count, (sums - sums).nan_to_num_(nan=1.0), out=count)
        return found

    def _layout(self, board: Board) -> Layout:
        key = tuple(slot.stamp for slot in board.order)
        if key not in self._layouts:
            if len(self._layouts) >= LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = self._new_layout(board)
        return self._layouts[key]

    def _new_layout(self, board: Board) -> Layout:
        device = board.samples.device
        entries = [slot.block.entries for slot in board.order if slot.block is not None]
        rows = [slot.row for slot in board.order]
        return Layout(
            rows=None if rows == list(range(len(rows))) else on_device(rows, device),
            correction=on_device([(n / (n - 1)) ** 0.5 if n > 1 else float("nan") for n in entries], device),
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
