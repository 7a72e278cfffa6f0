"""Loss surfaces go exactly through the trained weights and are the same however they are computed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nndoctor.lab import Patient
from nndoctor.lab.directions import direction_to, length, random_directions
from nndoctor.lab.surface import LossSurface, grid, hessian_surface, loss_surface, random_surface, trajectory_surface
from nndoctor.lab.trail import Trail, TrailRecord


@pytest.fixture
def trained() -> tuple[Patient, TrailRecord]:
    """A patient that was followed while it trained."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(96, 4), torch.randint(0, 3, (96,))
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    trail = Trail(model).follow(optimizer)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trail.detach()
    return Patient.of(model, nn.CrossEntropyLoss(), [(inputs[:50], labels[:50]), (inputs[50:], labels[50:])]), trail.record()


def loss_of(patient: Patient) -> float:
    with patient.examined() as subject:
        return subject.evaluate().loss


@pytest.mark.parametrize(("low", "high", "points"), [(-1, 1, 51), (-1, 2, 20), (-0.3, 0.7, 13), (-1e-3, 5, 7)])
def test_every_grid_around_zero_holds_zero(low: float, high: float, points: int) -> None:
    places = grid(low, high, points)
    assert len(places) == points
    assert 0.0 in places
    assert np.allclose(np.diff(places), (high - low) / (points - 1))
    assert abs(places[0] - low) <= (high - low) / (points - 1)


def test_every_filter_of_a_direction_is_as_long_as_the_filter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))
    first, second = random_directions(model, seed=4)
    for direction in (first, second):
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                assert not direction[name].any()
                continue
            assert torch.allclose(direction[name].flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1), rtol=1e-5)
    assert not torch.equal(first["0.weight"], second["0.weight"])
    assert torch.equal(random_directions(model, seed=4)[0]["0.weight"], first["0.weight"])
    assert not torch.equal(random_directions(model, seed=5)[0]["0.weight"], first["0.weight"])
    moved = random_directions(model, seed=4, vectors="elementwise")[0]["3.bias"]
    assert torch.equal(moved.abs(), model[3].bias.abs())  # type: ignore[union-attr]


def test_a_draw_leaves_the_global_generator_alone() -> None:
    model = nn.Linear(3, 3)
    before = torch.get_rng_state()
    random_directions(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_centre_is_the_trained_loss_and_other_points_are_what_the_formula_says(trained: tuple[Patient, TrailRecord]) -> None:
    patient, _ = trained
    surface = random_surface(patient, points=5, seed=2)
    assert surface.losses.shape == (5, 5)
    assert surface.centre == loss_of(patient)
    first, second = random_directions(patient.model, seed=2)
    moved = copy.deepcopy(patient.model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter += surface.xs[4] * first[name] + surface.ys[1] * second[name]
    assert surface.losses[1, 4] == pytest.approx(loss_of(Patient(moved, patient.loss_function, patient.batches)), rel=1e-5)


def test_a_line_has_one_row(trained: tuple[Patient, TrailRecord]) -> None:
    surface = random_surface(trained[0], points=7, one_dimension=True)
    assert surface.ys == (0.0,)
    assert surface.losses.shape == (1, 7)


def test_the_way_ends_in_the_centre_of_its_plane_and_lies_inside_the_grid(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    surface = trajectory_surface(patient, trail, points=9)
    way = surface.trajectory
    assert way is not None
    assert (way.xs[-1], way.ys[-1]) == (0, 0)
    assert len(way.xs) == 61 == len(way.steps)
    assert min(surface.xs) < min(way.xs)
    assert max(surface.ys) > max(way.ys)
    assert way.explained > 0.9
    assert surface.centre == loss_of(patient)


def test_the_loss_at_the_beginning_of_the_way_is_nearly_that_of_the_initial_weights(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    plane = trail.plane()
    start = plane.coordinates[0]
    surface = loss_surface(patient, plane.directions, (float(start[0]),), (float(start[1]),))
    initial = copy.deepcopy(patient.model)
    initial.load_state_dict(trail.weights(0))
    assert surface.losses[0, 0] == pytest.approx(loss_of(Patient(initial, patient.loss_function, patient.batches)), abs=0.02)


def test_random_directions_show_less_of_the_way_than_its_own_plane(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    random = random_surface(patient, points=3, trail=trail).trajectory
    own = trajectory_surface(patient, trail, points=3).trajectory
    assert random is not None
    assert own is not None
    assert random.explained < 0.3 < own.explained


def test_a_way_that_goes_on_is_drawn_relative_to_the_patient(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    plane = trail.plane()
    earlier = copy.deepcopy(patient.model)
    earlier.load_state_dict(trail.weights(30))
    moved = loss_surface(Patient(earlier, patient.loss_function, patient.batches), plane.directions, (0.0,), (0.0,), trail=trail)
    assert moved.trajectory is not None
    assert moved.trajectory.xs[30] == pytest.approx(0, abs=1e-3)
    assert moved.trajectory.xs[-1] == pytest.approx(-plane.coordinates[30, 0], rel=0.01)


def test_two_processes_give_the_same_surface_as_one(trained: tuple[Patient, TrailRecord]) -> None:
    one, two = (random_surface(trained[0], points=5, processes=count) for count in (1, 2))
    assert np.array_equal(one.losses, two.losses)
    assert np.array_equal(one.accuracies, two.accuracies)


def test_what_cannot_be_pickled_is_computed_in_one_process_and_said(trained: tuple[Patient, TrailRecord]) -> None:
    patient, _ = trained
    unpicklable = Patient(patient.model, lambda output, target: nn.functional.cross_entropy(output, target), patient.batches)
    with pytest.warns(UserWarning, match="one process"):
        surface = random_surface(unpicklable, points=3, processes=2)
    assert np.array_equal(surface.losses, random_surface(patient, points=3).losses)


def test_a_killed_surface_goes_on_from_its_finished_rows(trained: tuple[Patient, TrailRecord], tmp_path: Path) -> None:
    patient, _ = trained
    whole = random_surface(patient, points=6, work=tmp_path)
    pieces = next(tmp_path.glob("surface-*/pieces.jsonl"))
    lines = pieces.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    pieces.write_text("".join(lines[:3]))
    told: list[int] = []
    again = random_surface(patient, points=6, work=tmp_path, progress=lambda task, done, total: told.append(done))
    assert np.array_equal(again.losses, whole.losses)
    assert told == [18, 24, 30, 36]


def test_another_seed_does_not_take_the_rows_of_this_one(trained: tuple[Patient, TrailRecord], tmp_path: Path) -> None:
    first, second = (random_surface(trained[0], points=3, seed=seed, work=tmp_path) for seed in (0, 1))
    assert not np.array_equal(first.losses, second.losses)


def test_between_two_minima_the_ends_are_met(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    direction = direction_to(patient, trail.weights(0))
    line = loss_surface(patient, [direction], grid(0, 1, 5))
    initial = copy.deepcopy(patient.model)
    initial.load_state_dict(trail.weights(0))
    assert line.centre == loss_of(patient)
    assert line.losses[0, -1] == pytest.approx(loss_of(Patient(initial, patient.loss_function, patient.batches)), rel=1e-5)
    assert length(direction) == pytest.approx(float(np.linalg.norm(trail.last - trail.first)), rel=1e-5)


def test_recomputed_batchnorm_changes_the_surface_away_from_the_centre(small_patient: Patient) -> None:
    held = random_surface(small_patient, points=3)
    anew = random_surface(small_patient, points=3, recompute_batchnorm=True)
    assert anew.batchnorm_recomputed
    assert not np.allclose(held.losses, anew.losses)


def test_the_model_and_the_generators_are_untouched(trained: tuple[Patient, TrailRecord]) -> None:
    patient, _ = trained
    before, state = copy.deepcopy(patient.model.state_dict()), torch.get_rng_state()
    random_surface(patient, points=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in patient.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_directions_that_do_not_fit_are_refused(trained: tuple[Patient, TrailRecord]) -> None:
    with pytest.raises(ValueError, match="one or two directions"):
        loss_surface(trained[0], [])
    with pytest.raises(ValueError, match="no such parameter"):
        loss_surface(trained[0], [{"nothing": torch.zeros(1)}])
    with pytest.raises(ValueError, match=r"shape \(12, 4\)"):
        loss_surface(trained[0], [{"0.weight": torch.zeros(1)}])


def test_a_surface_is_plain_data(trained: tuple[Patient, TrailRecord]) -> None:
    patient, trail = trained
    surface: LossSurface = trajectory_surface(patient, trail, points=3)
    data = surface.to_dict()
    assert len(data["losses"]) == 3
    assert data["trajectory"]["steps"][-1] == 60
    assert surface.lowest[2] == surface.losses.min()


class Viewing(nn.Module):
    """Calls ``view`` on maps, which maps with channels last do not take."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        logits: torch.Tensor = self.head(maps.view(len(maps), -1))
        return logits


def test_convolutions_give_the_same_loss_in_the_layout_that_is_fast() -> None:
    batch = (torch.randn(9, 2, 8, 8), torch.randint(0, 3, (9,)))
    for model in (Viewing(), nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(144, 3))):
        patient = Patient.of(model, nn.CrossEntropyLoss(), batch)
        assert random_surface(patient, points=3).centre == pytest.approx(loss_of(patient), rel=1e-6)


def test_the_hessian_surface_bends_as_its_eigenvalue_says() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 3) * torch.tensor([3.0, 1.0, 0.2])
    model = nn.Linear(3, 1, bias=False)
    patient = Patient.of(model, nn.MSELoss(), (inputs, torch.randn(64, 1)))
    values = torch.linalg.eigvalsh(2 * inputs.T @ inputs / 64)
    surface = hessian_surface(patient, span=0.5, points=3)
    bend = (surface.losses[1, 0] + surface.losses[1, 2] - 2 * surface.losses[1, 1]) / 0.5**2
    assert bend == pytest.approx(float(values[-1]), rel=1e-3)
    across = (surface.losses[0, 1] + surface.losses[2, 1] - 2 * surface.losses[1, 1]) / 0.5**2
    assert across == pytest.approx(float(values[-2]), rel=1e-3)


SCRIPT = """
import sys, time, torch
from torch import nn
from nndoctor.lab import Patient
from nndoctor.lab.surface import random_surface

def told(task, done, total):
    print(done, flush=True)

if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 300), nn.ReLU(), nn.Linear(300, 3))
    patient = Patient.of(model, nn.CrossEntropyLoss(), [(torch.randn(2000, 20), torch.randint(0, 3, (2000,)))])
    random_surface(patient, points=101, processes=1 + int(sys.argv[1]), work="work", progress=told)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_process_leaves_whole_rows_and_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    script = subprocess.Popen([sys.executable, "script.py", "1"], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert script.stdout is not None
    assert script.stdout.readline() == "0\n"
    assert script.stdout.readline() == "101\n"
    workers = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    script.kill()
    script.wait()
    lines = next(tmp_path.glob("work/surface-*/pieces.jsonl")).read_text().splitlines()
    assert all(len(json.loads(line)[1]) == 101 for line in lines)
    assert len(workers) >= 2
    for _ in range(600):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        threading.Event().wait(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
