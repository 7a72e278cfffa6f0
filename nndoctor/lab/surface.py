"""The loss around trained weights: along one direction or over a plane, with the optimizer's way drawn into it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nndoctor.lab.directions import random_directions, sharpest_directions
from nndoctor.lab.layout import lay_out_for_speed
from nndoctor.lab.patient import Patient, Subject
from nndoctor.lab.points import Weights, current_weights, digest, flat, recompute_norms
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.trail import TrailRecord
from nndoctor.lab.workbook import Workbook

POINTS = 51
MARGIN = 0.3
"""How far beyond the optimizer's way a grid goes, as a share of its extent."""

Row: TypeAlias = list[tuple[float, float | None]]
"""Loss and accuracy of each point in a row of the grid."""


@dataclass(frozen=True)
class Trajectory(Result):
    """The optimizer's way in the plane of a surface.

    Args:
        steps: of the optimizer at each point.
        xs, ys: coordinates; the trained weights are at (0, 0).
        explained: share of the variance of all weights along the way that the plane shows.
        lost: share of the squared distances from its beginning that the record of the way left out.
    """

    steps: tuple[int, ...]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    explained: float
    lost: float


@dataclass(frozen=True)
class LossSurface(Result):
    """Loss and accuracy over a grid through the patient's weights, which are at (0, 0).

    Args:
        kind: what the directions are: ``random``, ``trajectory``, ``hessian``, ``given``.
        xs, ys: grid along the first and the second direction; `ys` is ``(0.0,)`` for a line.
        losses: (len(ys), len(xs)).
        accuracies: the same; NaN where targets are no class labels.
        trajectory: the optimizer's way, where it is known.
        batchnorm_recomputed: whether running statistics were gathered anew at every point.
    """

    kind: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    trajectory: Trajectory | None = None
    batchnorm_recomputed: bool = False

    @property
    def centre(self) -> float:
        """Loss of the patient as it is. Raises ValueError where the grid does not hold 0."""
        return float(self.losses[self.ys.index(0.0), self.xs.index(0.0)])

    @property
    def lowest(self) -> tuple[float, float, float]:
        """x, y and loss of the lowest point of the grid."""
        row, column = np.unravel_index(int(np.nanargmin(self.losses)), self.losses.shape)
        return self.xs[column], self.ys[row], float(self.losses[row, column])


def grid(low: float, high: float, points: int = POINTS) -> tuple[float, ...]:
    """`points` evenly spaced places from about `low` to `high`; 0 is exactly among them where it lies between.

    >>> grid(-1, 2, 4)
    (-1.0, 0.0, 1.0, 2.0)

    Raises:
        ValueError: fewer than two points, or no room between `low` and `high`.
    """
    if points < 2 or not low < high:
        raise ValueError(f"expected low < high and two points or more, got {low}, {high} and {points}")
    step = (high - low) / (points - 1)
    if not low <= 0 <= high:
        return tuple(low + index * step for index in range(points))
    before = round(-low / step)
    return tuple((index - before) * step for index in range(points))


def loss_surface(
    patient: Patient,
    directions: Sequence[Weights],
    xs: Sequence[float] | None = None,
    ys: Sequence[float] | None = None,
    *,
    kind: str = "given",
    trail: TrailRecord | None = None,
    recompute_batchnorm: bool = False,
    processes: int = 1,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> LossSurface:
    """The loss at ``weights + x * directions[0] + y * directions[1]``, over all batches of the patient.

    Args:
        directions: one or two, tensors by parameter name; what is not among them stays.
        xs, ys: the grid, from -1 to 1 by default; see :func:`grid`.
        trail: the optimizer's way, projected into the plane.
        recompute_batchnorm: gather running statistics anew at every point; else they stay those of the trained model.
        processes: rows of the grid are shared among so many; the script that calls needs ``if __name__ == "__main__":``.
        work: keep finished rows there; a killed examination goes on from them.

    Raises:
        ValueError: not one or two directions, or one of them does not fit the model.
    """
    _check(patient, directions)
    across = tuple(grid(-1, 1) if xs is None else xs)
    along = (0.0,) if len(directions) == 1 else tuple(grid(-1, 1) if ys is None else ys)
    workbook = Workbook.of(work, "surface", patient, digest(*directions), across, recompute_batchnorm)
    task = _Task(patient, tuple(directions), across, recompute_batchnorm)
    missing = [y for y in along if repr(y) not in workbook]
    done = len(along) - len(missing)
    progress("loss surface", done * len(across), len(along) * len(across))
    with _workers(task, min(processes, len(missing))) as rows:
        for y, row in rows(missing):
            workbook.put(repr(y), row)
            done += 1
            progress("loss surface", done * len(across), len(along) * len(across))
    values = np.array([workbook.get(repr(y)) for y in along], dtype=np.float64)  # (rows, columns, 2), None is NaN
    way = None if trail is None else _trajectory(patient, trail, directions)
    return LossSurface(kind, across, along, values[..., 0], values[..., 1], way, recompute_batchnorm)


def random_surface(
    patient: Patient,
    *,
    span: float = 1.0,
    points: int = POINTS,
    seed: int = 0,
    one_dimension: bool = False,
    **options: Any,
) -> LossSurface:
    """The surface along filter-normalised random directions, from ``-span`` to `span`.

    Args:
        one_dimension: along the first direction alone.
        options: as for :func:`loss_surface`.
    """
    directions = random_directions(patient.model, 1 if one_dimension else 2, seed=seed)
    axis = grid(-span, span, points)
    return loss_surface(patient, directions, axis, axis, kind="random", **options)


def trajectory_surface(
    patient: Patient, trail: TrailRecord, *, points: int = POINTS, margin: float = MARGIN, **options: Any
) -> LossSurface:
    """The surface in the plane that shows most of the optimizer's way, large enough to hold it.

    Args:
        margin: how far the grid goes beyond the way, as a share of the way's extent.
        options: as for :func:`loss_surface`.
    """
    plane = trail.plane()
    ways = np.concatenate([plane.coordinates, np.zeros((1, 2))])  # (points + 1, 2)
    extent = np.maximum(np.ptp(ways, axis=0), 1e-6 * max(float(np.ptp(ways)), 1e-6))
    low, high = ways.min(axis=0) - margin * extent, ways.max(axis=0) + margin * extent
    axes = [grid(float(low[axis]), float(high[axis]), points) for axis in (0, 1)]
    return loss_surface(patient, plane.directions, *axes, kind="trajectory", trail=trail, **options)


def hessian_surface(
    patient: Patient, *, span: float = 1.0, points: int = POINTS, progress: Progress = silent, **options: Any
) -> LossSurface:
    """The surface along the two sharpest directions: eigenvectors, of length 1, of the Hessian.

    Args:
        options: as for :func:`loss_surface`.
    """
    directions, _ = sharpest_directions(patient, progress=progress)
    axis = grid(-span, span, points)
    return loss_surface(patient, directions, axis, axis, kind="hessian", progress=progress, **options)


@dataclass(frozen=True)
class _Task:
    """All that a worker needs to compute a row."""

    patient: Patient
    directions: tuple[Weights, ...]
    xs: tuple[float, ...]
    recompute: bool


class _Explorer:
    """A copy of the patient that is moved along directions."""

    def __init__(self, task: _Task, subject: Subject, held: ExitStack | None = None) -> None:
        self._task, self._subject, self._held = task, subject, held
        lay_out_for_speed(subject)
        self._parameters = dict(subject.model.named_parameters())
        self._moving = {name for direction in task.directions for name in direction}
        self._centre = {name: self._parameters[name].detach().clone() for name in self._moving}

    def row(self, y: float) -> Row:
        return [self._at(x, y) for x in self._task.xs]

    @torch.no_grad()
    def _at(self, *place: float) -> tuple[float, float | None]:
        for name in self._moving:
            parameter = self._parameters[name]
            parameter.copy_(self._centre[name])
            for direction, along in zip(self._task.directions, place, strict=False):
                if name in direction and along != 0:
                    parameter.add_(direction[name], alpha=along)
        if self._task.recompute:
            recompute_norms(self._subject)
        found = self._subject.evaluate()
        return found.loss, found.accuracy


Rows: TypeAlias = Callable[[Sequence[float]], Iterator[tuple[float, Row]]]


@contextmanager
def _workers(task: _Task, processes: int) -> Iterator[Rows]:
    """A function that computes rows, as they are done, in this process or in several."""
    packed = _packed(task) if processes > 1 else None
    if packed is None:
        with task.patient.examined() as subject:
            explorer = _Explorer(task, subject)
            yield lambda ys: ((y, explorer.row(y)) for y in ys)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(processes, context) as pool:
        place = Path(folder) / "task.pickle"
        place.write_bytes(packed)

        def rows(ys: Sequence[float]) -> Iterator[tuple[float, Row]]:
            waiting = {pool.submit(_row, place, y): y for y in ys}
            for future in as_completed(waiting):
                yield waiting[future], future.result()

        try:
            yield rows
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _packed(task: _Task) -> bytes | None:
    """The task for another process; None, with a warning, where something in it cannot be pickled."""
    try:
        return pickle.dumps(task)
    except Exception as error:  # whatever a user's class raises
        warnings.warn(f"the surface is computed in one process: the patient cannot be pickled ({error})", stacklevel=4)
        return None


def _row(place: Path, y: float) -> Row:
    """A row, in a worker process."""
    return _explorer(place).row(y)


@lru_cache(maxsize=1)
def _explorer(place: Path) -> _Explorer:
    """What a worker process computes its rows with, read once."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task: _Task = pickle.loads(place.read_bytes())
    stack = ExitStack()  # lives as long as the process
    return _Explorer(task, stack.enter_context(task.patient.examined()), stack)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next row forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check(patient: Patient, directions: Sequence[Weights]) -> None:
    if len(directions) not in (1, 2):
        raise ValueError(f"expected one or two directions, got {len(directions)}")
    shapes = {name: parameter.shape for name, parameter in patient.model.named_parameters()}
    for direction in directions:
        for name, tensor in direction.items():
            if shapes.get(name) != tensor.shape:
                known = f"shape {tuple(shapes[name])}" if name in shapes else "no such parameter"
                raise ValueError(f"direction {name!r} has shape {tuple(tensor.shape)}; the model has {known}")


def _trajectory(patient: Patient, trail: TrailRecord, directions: Sequence[Weights]) -> Trajectory:
    """The way relative to the patient's weights, which need not be the way's last point."""
    like = {name: torch.zeros(shape) for name, shape in zip(trail.names, trail.shapes, strict=True)}
    whole = [{**like, **{name: tensor.cpu() for name, tensor in direction.items()}} for direction in directions]
    coordinates, explained = trail.projected(whole)
    here = flat(current_weights(patient.model), trail.names).cpu().numpy()
    if not np.array_equal(here, trail.last):
        across = np.stack([flat(direction, trail.names).double().numpy() for direction in whole])
        off = (trail.last.astype(np.float64) - here) @ across.T
        coordinates = coordinates + np.linalg.lstsq(across @ across.T, off, rcond=None)[0]
    ys = coordinates[:, 1] if len(directions) == 2 else np.zeros(len(coordinates))
    return Trajectory(trail.steps, tuple(coordinates[:, 0].tolist()), tuple(ys.tolist()), explained, trail.lost)
