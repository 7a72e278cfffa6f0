"""The way of the optimizer, kept small: a streaming low-rank copy of it instead of all weights after every step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nndoctor.discovery import unwrap
from nndoctor.lab.points import Weights, current_weights, flat, unflat

RANK = 16
"""Directions kept; trajectories are nearly flat (two explain most, see Li et al. 2018, arXiv 1712.09913, section 7)."""


@dataclass(frozen=True)
class Plane:
    """Two principal directions of a trajectory through its last point.

    Args:
        directions: two orthonormal directions, by parameter name.
        coordinates: of each noted point in them, relative to the last one, (points, 2); the last row is exactly 0.
        explained: share of the trajectory's variance along each direction.
    """

    directions: tuple[Weights, Weights]
    coordinates: NDArray[np.float64]
    explained: tuple[float, float]


class Trail:
    """Follows weights through a training and keeps their way in `rank` directions (incremental singular vectors).

    Memory is ``2 * rank + 5`` copies of the trained parameters, on disk ``rank + 2``, however many steps there are. First and last point are
    kept exactly; what the directions leave out of the others is known (:attr:`lost`).

    Args:
        model: its parameters are followed, buffers are not.
        rank: directions to keep.
        every: optimizer steps between two points, for :meth:`follow`.

    Raises:
        ValueError: `rank` or `every` is below 1, or the model has no parameters.
    """

    def __init__(self, model: nn.Module, *, rank: int = RANK, every: int = 1) -> None:
        if rank < 1 or every < 1:
            raise ValueError(f"expected rank and every of at least 1, got {rank} and {every}")
        self._model = model = unwrap(model)
        self.rank, self.every = rank, every
        self.names = tuple(name for name, _ in model.named_parameters())
        if not self.names:
            raise ValueError(f"{type(model).__name__} has no parameters to follow")
        start = self._now()  # (parameters,)
        self._state = _Stream(start, [p.numel() for p in model.parameters()], rank)
        self.steps: list[int] = [0]
        self._seen = 0
        self._handle: RemovableHandle | None = None

    def follow(self, optimizer: Optimizer) -> Trail:
        """Note the weights after every `every`-th step of `optimizer` from now on."""
        self._handle = optimizer.register_step_post_hook(self._stepped)
        return self

    def detach(self) -> None:
        """Follow no longer. A last step that was not due is noted, so that the trail ends where the training did."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            if self._seen > self.steps[-1]:
                self.note(self._seen)

    def note(self, step: int) -> None:
        """Note the weights as they are now, under `step`. Raises ValueError where that is not later than the last one."""
        if step <= self.steps[-1]:
            raise ValueError(f"expected a step after {self.steps[-1]}, got {step}")
        self._state.add(self._now())
        self.steps.append(step)

    def record(self) -> TrailRecord:
        """The trail so far, as plain arrays."""
        shapes = tuple(tuple(p.shape) for p in self._model.parameters())
        return self._state.record(self.names, shapes, self.steps)

    @property
    def size(self) -> int:
        """Bytes that following takes in memory."""
        state = self._state
        held = (state.first, state.previous, state.basis, state.sum, state.coordinates, *state.pending)
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._seen += 1
        if self._seen % self.every == 0:
            self.note(self._seen)

    @torch.no_grad()
    def _now(self) -> Tensor:
        return flat(dict(self._model.named_parameters()), self.names)


@dataclass(frozen=True)
class TrailRecord:
    """The way of an optimizer: points are ``first + coordinates @ basis``.

    Args:
        names, shapes: of the parameters that make up a point.
        steps: optimizer steps at each point.
        first, last: the ends, exactly, (parameters,).
        basis: orthonormal directions, (rank, parameters).
        coordinates: of each point, (points, rank).
        variance: sum of the variances of all parameters over the points.
        lost: share of the squared distances from the first point that the directions leave out.
        lengths: length of the way of each parameter tensor, the sum over its moves.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    basis: NDArray[np.float32]
    coordinates: NDArray[np.float64]
    variance: float
    lost: float
    lengths: tuple[float, ...]

    @property
    def size(self) -> int:
        """Bytes of the arrays; :attr:`full_size` is what all points would take."""
        return sum(array.nbytes for array in (self.first, self.last, self.basis, self.coordinates))

    @property
    def full_size(self) -> int:
        return int(self.first.nbytes) * len(self.steps)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Parameters at the point number `index`: exact for the first and the last, else up to what is :attr:`lost`."""
        count = len(self.steps)
        index = range(count)[index]
        if index in (0, count - 1):
            vector = self.first if index == 0 else self.last
        else:
            vector = self.first + (self.coordinates[index] @ self.basis).astype(np.float32)
        return self._named(torch.from_numpy(vector.copy()))

    def plane(self) -> Plane:
        """The two directions along which the points vary most.

        Raises:
            ValueError: there are fewer than three points, or they do not span a plane.
        """
        if len(self.steps) < 3 or self.coordinates.shape[1] < 2:
            raise ValueError(f"expected three points or more that span a plane, got {len(self.steps)}")
        centred = self.coordinates - self.coordinates.mean(axis=0)  # (points, rank)
        _, lengths, turned = np.linalg.svd(centred, full_matrices=False)
        inside = centred @ turned[:2].T  # (points, 2)
        vectors = torch.from_numpy((turned[:2] @ self.basis).astype(np.float32))  # (2, parameters)
        explained = lengths[:2] ** 2 / (len(self.steps) * self.variance)
        return Plane(
            (self._named(vectors[0]), self._named(vectors[1])),
            inside - inside[-1],
            (float(explained[0]), float(explained[1])),
        )

    def projected(self, directions: Sequence[Weights]) -> tuple[NDArray[np.float64], float]:
        """Least-squares coordinates of every point along `directions`, relative to the last one, (points, directions).

        The second value is the share of the trajectory's variance that they explain.
        """
        across = np.stack([flat(direction, self.names).double().cpu().numpy() for direction in directions])
        gram = across @ across.T  # (directions, directions)
        seen = self.coordinates @ (self.basis.astype(np.float64) @ across.T)  # (points, directions)
        points = np.linalg.lstsq(gram, seen.T, rcond=None)[0].T  # (points, directions)
        centred = points - points.mean(axis=0)
        captured = float(np.einsum("pi,ij,pj->", centred, gram, centred)) / len(points)
        return points - points[-1], captured / self.variance if self.variance else math.nan

    def save(self, path: Path | str) -> None:
        """Write everything to one ``.npz`` file."""
        layout = json.dumps({"names": self.names, "shapes": self.shapes, "lengths": self.lengths})
        arrays = {name: getattr(self, name) for name in ("first", "last", "basis", "coordinates")}
        with open(path, "wb") as file:
            np.savez(file, layout=layout, steps=self.steps, numbers=(self.variance, self.lost), **arrays)

    @classmethod
    def load(cls, path: Path | str) -> TrailRecord:
        """The record that :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as held:
            layout = json.loads(str(held["layout"]))
            variance, lost = map(float, held["numbers"])
            arrays = {name: held[name] for name in ("first", "last", "basis", "coordinates")}
            steps = tuple(map(int, held["steps"]))
        shapes = tuple(tuple(shape) for shape in layout["shapes"])
        return cls(
            tuple(layout["names"]),
            shapes,
            steps,
            variance=variance,
            lost=lost,
            lengths=tuple(layout["lengths"]),
            **arrays,
        )

    @classmethod
    def of_checkpoints(
        cls,
        model: nn.Module,
        checkpoints: Sequence[Mapping[str, Tensor]],
        *,
        steps: Sequence[int] | None = None,
        rank: int = RANK,
    ) -> TrailRecord:
        """The record of a training whose checkpoints were kept; `model` tells which tensors are parameters."""
        if len(checkpoints) < 2:
            raise ValueError(f"expected at least two checkpoints, got {len(checkpoints)}")
        parameters = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
        names = tuple(name for name, _ in parameters)
        device = next(iter(current_weights(model).values())).device
        points = (flat({name: point[name].to(device) for name in names}, names) for point in checkpoints)
        stream = _Stream(next(points), [math.prod(shape) for _, shape in parameters], rank)
        for point in points:
            stream.add(point)
        taken = range(len(checkpoints)) if steps is None else steps
        return stream.record(names, tuple(shape for _, shape in parameters), taken)

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        like = {name: torch.empty(shape, device="meta") for name, shape in zip(self.names, self.shapes, strict=True)}
        return unflat(vector, like, self.names)


class _Stream:
    """Points as they come, relative to the first, in an orthonormal basis that turns so that most of them stays."""

    def __init__(self, first: Tensor, sizes: list[int], rank: int) -> None:
        self.first = first.clone()  # (parameters,)
        self.previous = self.first
        self.rank, self._sizes = rank, sizes
        self.basis = first.new_zeros((0, len(first)))  # (rank so far, parameters)
        self.coordinates = torch.zeros((1, 0), dtype=torch.float64)  # (points, rank so far)
        self.pending: list[Tensor] = []
        self.sum = torch.zeros_like(first)
        self.energy = first.new_zeros((), dtype=torch.float64)
        self.lengths = first.new_zeros(len(sizes), dtype=torch.float64)
        self._count = 1
        self._dropped = 0.0

    def add(self, point: Tensor) -> None:
        move = point - self.previous
        self.lengths += torch.stack([piece.norm() for piece in torch.split(move, self._sizes)]).double()
        away = point - self.first
        self.sum += away
        self.energy += away.square().sum(dtype=torch.float64)
        self.previous = point.clone()
        self.pending.append(away)
        self._count += 1
        if len(self.pending) >= self.rank:
            self.merge()

    def merge(self) -> None:
        """Work the points that wait into the basis; costs about four passes over it."""
        if not self.pending:
            return
        new = torch.stack(self.pending)  # (waiting, parameters)
        self.pending = []
        inside = new @ self.basis.T  # (waiting, rank so far)
        rest = new - inside @ self.basis
        again = rest @ self.basis.T  # a second pass: rounding leaves a part of the basis in the rest
        rest -= again @ self.basis
        inside = (inside + again).double()
        directions, along = _orthonormal(rest)  # (further, parameters), (waiting, further)
        further = directions.shape[0]
        old = torch.nn.functional.pad(self.coordinates, (0, further))
        points = torch.cat([old, torch.cat([inside.cpu(), along.cpu()], dim=1)])  # (points, rank so far + further)
        basis = torch.cat([self.basis, directions])
        if len(basis) > self.rank:
            values, turn = torch.linalg.eigh(points.T @ points)
            self._dropped += float(values[: -self.rank].clamp_min(0).sum())
            turn = turn[:, -self.rank :].flip(1)  # (rank so far + further, rank), the longest first
            points = points @ turn
            basis = turn.T.to(basis) @ basis
        self.basis, self.coordinates = basis, points

    def record(self, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], steps: Sequence[int]) -> TrailRecord:
        self.merge()
        return TrailRecord(
            names=names,
            shapes=shapes,
            steps=tuple(steps),
            first=self.first.cpu().numpy(),
            last=self.previous.cpu().numpy(),
            basis=self.basis.cpu().numpy(),
            coordinates=self.coordinates.numpy(),
            variance=self.variance(),
            lost=self.lost(),
            lengths=tuple(self.lengths.tolist()),
        )

    def variance(self) -> float:
        """Sum over parameters of their variance over the points, exact."""
        mean = self.sum.double() / self._count
        return float(self.energy) / self._count - float(mean.square().sum())

    def lost(self) -> float:
        return self._dropped / float(self.energy) if float(self.energy) else 0.0


def _orthonormal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal directions that span `rows`, and the rows' coordinates in them; next to nothing is left out."""
    gram = (rows @ rows.T).double()  # (rows, rows)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > max(float(values[-1]), 0.0) * 1e-10
    if not bool(kept.any()) or float(values[-1]) <= 0:
        return rows[:0], gram[:, :0]
    lengths = values[kept].sqrt()
    directions = ((vectors[:, kept] / lengths).T.to(rows)) @ rows
    return directions, vectors[:, kept] * lengths
