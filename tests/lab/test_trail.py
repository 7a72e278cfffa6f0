"""A followed training is kept in a few directions that agree with the principal components of all its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nndoctor.lab.points import flat
from nndoctor.lab.trail import Trail, TrailRecord


def train(model: nn.Module, trail: Trail | None, steps: int = 120) -> np.ndarray:
    """Weights after every step, the first included."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 5, generator=generator)
    targets = inputs[:, :1] * inputs[:, 1:2]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if trail is not None:
        trail.follow(optimizer)
    names = [name for name, _ in model.named_parameters()]

    def now() -> Tensor:
        return flat(dict(model.named_parameters()), names).clone()

    points = [now()]
    for _ in range(steps):
        pick = torch.randint(0, 64, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[pick]), targets[pick]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        points.append(now())
    return torch.stack(points).numpy()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 1))


@pytest.fixture(scope="module")
def run() -> tuple[TrailRecord, np.ndarray]:
    model = net()
    trail = Trail(model, rank=16)
    points = train(model, trail)
    trail.detach()
    return trail.record(), points


def test_the_plane_is_that_of_the_principal_components_of_all_weights(run: tuple[TrailRecord, np.ndarray]) -> None:
    record, points = run
    plane = record.plane()
    centred = points.astype(float) - points.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    explained = lengths**2 / (lengths**2).sum()
    assert plane.explained == pytest.approx(tuple(explained[:2]), rel=1e-3)
    for direction, axis in zip(plane.directions, axes[:2], strict=True):
        assert abs(flat(direction, record.names).numpy() @ axis) == pytest.approx(1, abs=1e-3)
    ours, full = plane.coordinates, (centred @ axes[:2].T) - (centred @ axes[:2].T)[-1]
    assert np.allclose(np.abs(ours), np.abs(full), atol=2e-3 * np.abs(full).max())


def test_the_last_point_is_the_origin_and_the_ends_are_exact(run: tuple[TrailRecord, np.ndarray]) -> None:
    record, points = run
    assert record.plane().coordinates[-1].tolist() == [0, 0]
    assert np.array_equal(flat(record.weights(0), record.names).numpy(), points[0])
    assert np.array_equal(flat(record.weights(-1), record.names).numpy(), points[-1])


def test_points_in_between_are_as_near_as_is_said(run: tuple[TrailRecord, np.ndarray]) -> None:
    record, points = run
    rebuilt = np.stack([flat(record.weights(i), record.names).numpy() for i in range(len(points))])
    missing = ((rebuilt - points)[1:-1] ** 2).sum() / ((points - points[0]) ** 2).sum()
    assert missing <= record.lost * 2 + 1e-9
    assert record.lost < 1e-2


def test_the_size_does_not_grow_with_the_steps() -> None:
    short, long = net(), net()
    trails = [Trail(short, rank=4), Trail(long, rank=4)]
    for model, trail, steps in ((short, trails[0], 40), (long, trails[1], 200)):
        train(model, trail, steps)
        trail.detach()
    parameters = sum(p.numel() for p in long.parameters())
    assert all(trail.size <= (2 * 4 + 5) * 4 * parameters + 8 * 5 * 201 for trail in trails)
    assert trails[1].record().full_size == 201 * 4 * parameters
    assert trails[1].record().size < 7 * 4 * parameters + 8 * 4 * 201


def test_following_changes_nothing() -> None:
    alone, followed = net(), net()
    with_trail = train(followed, Trail(followed))
    assert np.array_equal(train(alone, None), with_trail)


def test_every_third_step_and_the_last_one_are_noted() -> None:
    model = net()
    trail = Trail(model, every=3)
    train(model, trail, 10)
    trail.detach()
    assert trail.steps == [0, 3, 6, 9, 10]


def test_the_way_is_longer_than_the_distance(run: tuple[TrailRecord, np.ndarray]) -> None:
    record, points = run
    sizes = np.cumsum([int(np.prod(shape)) for shape in record.shapes])[:-1]
    moves = np.split(np.diff(points, axis=0), sizes, axis=1)
    assert record.lengths == pytest.approx([np.linalg.norm(move, axis=1).sum() for move in moves], rel=1e-4)
    distances = [np.linalg.norm(part) for part in np.split(points[-1] - points[0], sizes)]
    assert all(length >= distance for length, distance in zip(record.lengths, distances, strict=True))


def test_two_random_directions_explain_far_less_than_the_plane(run: tuple[TrailRecord, np.ndarray]) -> None:
    record, _ = run
    generator = torch.Generator().manual_seed(1)
    random = [{name: torch.randn(shape, generator=generator) for name, shape in zip(record.names, record.shapes, strict=True)} for _ in range(2)]
    _, explained = record.projected(random)
    coordinates, of_plane = record.projected(record.plane().directions)
    assert of_plane == pytest.approx(sum(record.plane().explained), rel=1e-3)
    assert np.allclose(coordinates, record.plane().coordinates, atol=1e-3)
    assert explained < 0.1 * of_plane


def test_a_saved_record_is_read_back(run: tuple[TrailRecord, np.ndarray], tmp_path: Path) -> None:
    record, _ = run
    record.save(tmp_path / "trail.npz")
    again = TrailRecord.load(tmp_path / "trail.npz")
    assert again.names == record.names
    assert again.steps == record.steps
    assert again.lengths == record.lengths
    assert np.array_equal(again.basis, record.basis)
    assert again.plane().explained == record.plane().explained


def test_checkpoints_give_the_same_record_as_following() -> None:
    model = net()
    trail = Trail(model, rank=8)
    points = train(model, trail, 30)
    trail.detach()
    names = trail.names
    shapes = [tuple(p.shape) for p in model.parameters()]
    sizes = [int(np.prod(shape)) for shape in shapes]
    states = [
        {name: piece.view(shape) for name, piece, shape in zip(names, torch.from_numpy(point).split(sizes), shapes, strict=True)}
        for point in points
    ]
    assert TrailRecord.of_checkpoints(model, states, rank=8).plane().explained == trail.record().plane().explained


def test_steps_have_to_come_in_order() -> None:
    trail = Trail(net())
    with pytest.raises(ValueError, match="after 0, got 0"):
        trail.note(0)
