"""A sketch of many tensors: at most W elements of each, gathered by one call into a small matrix.

Each tensor is seen through one strided view of B equally spaced contiguous blocks with an odd stride
and a random phase; tensors of at most W elements are seen completely, so their statistics are exact.
(Single strided elements align with the structure of kernels and rows and err by up to 100 %.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import torch

BLOCKS = 16
WIDEST = 1024
NARROWEST = 64


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of `tensor` on this rank: a DTensor's shard, any other tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    return cast(torch.Tensor, to_local()) if callable(to_local) else tensor


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one contiguous stretch of storage in some order (channels-last does)."""
    if tensor.layout != torch.strided:
        return False
    if tensor.is_contiguous():
        return True
    expected = 1
    for size, stride in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=lambda pair: pair[1]):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def width_for(rows: int, elements: int, buffers: int) -> int:
    """Columns of the sketch so that `buffers` matrices stay within 1 % of the parameters or 1 MiB.

    Args:
        rows: number of tensors.
        elements: elements of all of them together.
        buffers: float32 matrices that live at the same time.
    """
    allowed = max(1 << 20, elements * 4 // 100)
    width = allowed // max(1, 4 * rows * buffers)
    return int(min(WIDEST, max(NARROWEST, width // BLOCKS * BLOCKS)))


def block_view(tensor: torch.Tensor, width: int, phase: float) -> torch.Tensor:
    """A view of at most `width` elements of a dense `tensor`: shape (1, n) when complete, else (B, width / B).

    Args:
        tensor: strided and dense.
        width: a multiple of 16.
        phase: in [0, 1), where the blocks begin.
    """
    n = tensor.numel()
    tensor = tensor.detach()
    if n <= width:
        return tensor.as_strided((1, n), (n, 1))
    block = width // BLOCKS
    stride = max(block, n // BLOCKS)  # leaves the phase about one stride to move in
    if stride % 2 == 0 and stride > block:
        stride -= 1
    slack = n - (BLOCKS - 1) * stride - block
    return tensor.as_strided((BLOCKS, block), (stride, 1), tensor.storage_offset() + int(phase * slack))


class Sketch:
    """Matrices of shape (rows, width) that the same elements of a fixed list of tensors are copied into.

    Args:
        tensors: the tensors whose shapes set the layout, all on one device.
        width: columns, a multiple of 16; fewer are made where no tensor needs as many.
        seed: of the private generator that draws the phases.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], width: int, seed: int = 0) -> None:
        self.device = tensors[0].device
        self.sizes = [local(t).numel() for t in tensors]
        self.width = width = min(width, -(-max(1, *self.sizes) // BLOCKS) * BLOCKS)  # none is longer than the longest
        self.counts = [min(n, width) for n in self.sizes]
        self._random = random.Random(seed)
        self.phase = self._random.random()
        self.count = torch.tensor([float(max(1, n)) for n in self.counts], device=self.device)  # (rows,)
        self.scale = torch.tensor(
            [n / max(1, c) for n, c in zip(self.sizes, self.counts, strict=True)], device=self.device
        )  # (rows,): a sum over the sketch times this estimates the sum over the tensor
        self.full = all(c == width for c in self.counts)
        columns = torch.arange(width, device=self.device)
        self.mask = columns[None, :] < self.count[:, None]  # (rows, width)

    def redraw(self) -> None:
        """Look at other elements from now on."""
        self.phase = self._random.random()

    def matrix(self) -> torch.Tensor:
        """A zero matrix of shape (rows, width), float32."""
        return torch.zeros(len(self.counts), self.width, device=self.device)

    def destinations(self, matrix: torch.Tensor) -> list[torch.Tensor]:
        """For each row, the view of `matrix` that its elements go to, shaped as ``block_view`` gives them."""
        return [
            matrix[i, :count].view(1, count) if size <= self.width else matrix[i].view(BLOCKS, -1)
            for i, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True))
        ]

    def sources(self, tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Views of the sketched elements; None where a tensor is missing, sparse, not dense or of another size."""
        return [
            block_view(t, self.width, self.phase)
            if t is not None and t.layout == torch.strided and t.numel() == n and n > 0 and is_dense(t)
            else None
            for t, n in zip((None if t is None else local(t) for t in tensors), self.sizes, strict=True)
        ]


def gather(destinations: Sequence[torch.Tensor], sources: Sequence[torch.Tensor | None]) -> None:
    """Copy every source that is there into its destination, in one call per dtype where torch offers it."""
    pairs = [(d, s) for d, s in zip(destinations, sources, strict=True) if s is not None]
    if not pairs:
        return
    into = [d for d, _ in pairs]
    out_of = [s for _, s in pairs]
    copy = getattr(torch, "_foreach_copy_", None)
    if copy is not None:
        copy(into, out_of)
        return
    for destination, source in pairs:
        destination.copy_(source)


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norm of each tensor, shape (len(tensors),), float32, exact, without waiting for the device."""
    dense = [local(t) if t.layout == torch.strided else t.coalesce().values() for t in tensors]
    foreach = getattr(torch, "_foreach_norm", None)
    found = foreach(dense) if foreach is not None else [torch.linalg.vector_norm(t) for t in dense]
    return torch.stack([n.float() for n in found])
