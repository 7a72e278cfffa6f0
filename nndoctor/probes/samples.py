"""Holds samples of the layers of one step and computes their statistics many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nndoctor.probes.stats import COLUMNS, SAMPLES, Block, block_statistics, sample_block

STATISTICS = ("act.mean", "act.std", "act.rms", "act.max", "act.nonfinite", "act.batch_std", "act.first_nonfinite")
COMBINED = ("mean", "mean", "mean", "amax", "sum", "mean", "amax")
"""How several calls of one layer in one step become one number."""

LAYOUTS_KEPT = 32
FIRST_ROWS = 16
MOST_ROWS = 64
"""Samples held at a time, a quarter of a MiB of them: a step with more calls is worked up in turns as long as that."""


@dataclass(slots=True, eq=False)
class Slot:
    """Where one call of one layer kept its sample last, and how it is taken from an output of the present shape."""

    board: Board
    row: int = -1
    key: tuple[Any, ...] = ()
    block: Block | None = None
    target: torch.Tensor | None = None


@dataclass(slots=True, eq=False)
class Board:
    """The samples of one step on one device: a row of the buffer per measured call, up to ``MOST_ROWS`` at a time."""

    samples: torch.Tensor  # (rows, SAMPLES, COLUMNS)
    quiet: torch.Tensor  # zero, the alarm of outputs that need none
    held: list[Slot] = field(default_factory=list)
    """Whose samples the rows hold now."""
    sums: list[torch.Tensor] = field(default_factory=list)
    done: list[torch.Tensor] = field(default_factory=list)
    """What is known of the calls before those, (statistics, calls) each."""
    layers: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)


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
        self._corrections: dict[tuple[Any, ...], torch.Tensor] = {}
        self._destinations: dict[tuple[int, ...], Destination] = {}
        self._turn = 0

    def take(
        self, layer: int, call: int, tensor: torch.Tensor, unit_dim: int | None, phase: float
    ) -> torch.Tensor | None:
        """Copy a sample of a layer's output; the tensor itself is not kept.

        Follow it by ``watch`` with a scalar that is not finite if any element of the output is not.

        Returns:
            The copy as (repeats, entries, repeats, units, positions), valid until the next call; None for
            an empty tensor or a scalar.
        """
        slot = self._slots.get((layer, call, tensor.device)) or self._new_slot(layer, call, tensor.device)
        key = (tensor.shape, tensor.stride(), unit_dim)
        if slot.key != key:
            self._plan(slot, key)
        if slot.block is None:
            return None
        board = slot.board
        if len(board.held) == MOST_ROWS:
            self._work_up(board)
        row = len(board.held)
        if row == len(board.samples):
            self._grow(board)
        if slot.target is None or slot.row != row:
            slot.row, slot.target = row, board.samples[row].view(slot.block.size)
        slot.target.copy_(slot.block.view(tensor, phase))
        board.held.append(slot)
        board.layers.append(layer)
        board.turns.append(self._turn)
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
        slot = self._slots[layer, call, device] = Slot(board)
        return slot

    def _grow(self, board: Board) -> None:
        board.samples = torch.cat((board.samples, torch.zeros_like(board.samples)))
        for slot in self._slots.values():
            if slot.board is board:
                slot.target = None  # a view of the former buffer

    def _plan(self, slot: Slot, key: tuple[Any, ...]) -> None:
        """Choose the elements for a new shape."""
        slot.key, slot.block, slot.target = key, sample_block(*key), None

    def clear(self) -> None:
        """Forget what was taken in this step."""
        self._turn = 0
        for board in self._boards.values():
            for taken in (board.held, board.sums, board.done, board.layers, board.turns):
                taken.clear()

    def collect(self, layers: int) -> dict[str, torch.Tensor]:
        """The statistics of what was taken, each of shape (layers,), NaN for layers that were not; then clear."""
        boards = [board for board in self._boards.values() if board.layers]
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
        self._work_up(board)
        return board.done[0] if len(board.done) == 1 else torch.cat(board.done, 1)

    def _work_up(self, board: Board) -> None:
        """Make statistics of the samples held, whose rows are then free."""
        if not board.held:
            return
        found = block_statistics(board.samples[: len(board.held)], self._correction(board))
        sums = torch.stack(board.sums)
        count = found[STATISTICS.index("act.nonfinite")]
        torch.maximum(count, (sums - sums).nan_to_num_(nan=1.0), out=count)
        board.done.append(found)
        board.held.clear()
        board.sums.clear()

    def _correction(self, board: Board) -> torch.Tensor:
        """sqrt(n / (n - 1)) for the n batch entries of each sample held, (calls,); mostly the same ones come again."""
        entries = tuple(slot.block.entries for slot in board.held if slot.block is not None)
        key = (board.samples.device, entries)
        if key not in self._corrections:
            if len(self._corrections) >= LAYOUTS_KEPT:
                self._corrections.clear()
            values = [(n / (n - 1)) ** 0.5 if n > 1 else float("nan") for n in entries]
            self._corrections[key] = on_device(values, board.samples.device)
        return self._corrections[key]

    def _destination(self, boards: list[Board], home: torch.device) -> Destination:
        turns = [turn for board in boards for turn in board.turns]
        numbers = [layer for board in boards for layer in board.layers]
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
