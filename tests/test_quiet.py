"""Steps on which nothing is measured: noted in a few instructions, worked up in batches, and nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nndoctor
from nndoctor.frames import Stretch
from nndoctor.quiet import Note, Notes, plain_row
from nndoctor.record import RecordReader
from nndoctor.signals import Frame

STEPS = 90


def trained(folder: Path, *, steps: int = STEPS, **special: Any) -> tuple[list[float], list[Frame], nndoctor.Doctor]:
    """The losses of a loop, and the frames recorded of it; only each of the first 50 steps and step 64 are sampled."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99) if special.get("schedule") else None
    losses = []
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=folder, cadence=64, strict=True) as doctor:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 3)).square().mean()
            if step == special.get("broken_at"):
                loss = loss * float("nan")
            loss.backward()
            if special.get("clip"):
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(float(loss.detach()))
            if scheduler is not None:
                scheduler.step()
            if step == special.get("observe_at"):
                doctor.observe(score=0.5)
    reader = RecordReader(folder)
    frames = list(reader.frames())
    reader.close()
    return losses, frames, doctor


def test_every_step_is_recorded_once_and_in_order_with_its_loss(tmp_path: Path) -> None:
    losses, frames, _ = trained(tmp_path / "run")
    assert [frame.step for frame in frames] == list(range(1, STEPS + 1))
    assert [float(frame.values["loss"][0]) for frame in frames] == pytest.approx(losses)
    sampled = [frame.step for frame in frames if "param.grad.norm" in frame.values]
    assert sampled == [*range(1, 51), 64]


def test_times_of_quiet_steps_are_positive_and_in_order(tmp_path: Path) -> None:
    _, frames, _ = trained(tmp_path / "run")
    assert all(float(frame.values["step.time"][0]) > 0 for frame in frames[1:])
    times = [frame.time for frame in frames]
    assert times == sorted(times)


def test_each_change_of_the_rate_and_each_clipping_is_told_on_quiet_steps(tmp_path: Path) -> None:
    _, frames, _ = trained(tmp_path / "run", schedule=True, clip=True)
    quiet = frames[70:]
    assert [float(frame.values["lr"][0]) for frame in quiet] == pytest.approx([0.01 * 0.99 ** (f.step - 1) for f in quiet])
    assert all(float(frame.values["clip.max_norm"][0]) == 0.5 for frame in quiet)


def test_a_broken_loss_ends_the_quiet_steps_and_the_next_step_is_looked_at(tmp_path: Path) -> None:
    _, frames, _ = trained(tmp_path / "run", broken_at=70)
    by_step = {frame.step: frame for frame in frames}
    assert float(by_step[70].values["loss.nonfinite"][0]) == 1
    assert "param.grad.norm" in by_step[71].values
    assert [frame.step for frame in frames] == list(range(1, STEPS + 1))


def test_what_is_observed_comes_after_the_steps_before_it(tmp_path: Path) -> None:
    _, frames, _ = trained(tmp_path / "run", observe_at=75)
    observed = [place for place, frame in enumerate(frames) if "observed.score" in frame.values]
    assert [frames[place].step for place in observed] == [75]
    assert frames[observed[0] - 1].step == 75
    assert frames[observed[0] + 1].step == 76


def test_the_last_quiet_steps_are_there_when_the_doctor_is_asked_or_closed(tmp_path: Path) -> None:
    _, frames, doctor = trained(tmp_path / "run", steps=83)
    assert frames[-1].step == doctor.step == doctor.diagnosis().steps == 83


def test_a_loop_that_stops_stepping_is_told_though_the_steps_were_quiet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", cadence=64, strict=True) as doctor:
        for round_ in range(260):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            if round_ < 70:
                optimizer.step()
    assert [finding.diagnosis for finding in doctor.diagnosis().root_causes] == ["missing-optimizer-step"]


def note(ended: float, own: float) -> Note:
    return Note(ended, 0.1, [], None, None, 0.0, (0, 0), 0, own)


def test_the_typical_own_time_is_that_of_the_median_step() -> None:
    notes = Notes(64, 0.5)
    assert notes.typical_own() == 0.0
    for own in (1e-6, 2e-6, 5e-3):
        notes.add(note(1.0, own))
    assert notes.typical_own() == 2e-6


def test_taken_notes_tell_how_long_each_step_took() -> None:
    notes = Notes(64, 0.5)
    notes.begin(10.0)
    notes.add(note(10.5, 0.0))
    notes.add(note(12.0, 0.0))
    assert not notes.full(10.9)
    assert notes.full(11.1)
    assert [elapsed for _, elapsed, _ in notes.take()] == [0.5, 1.5]
    assert len(notes) == 0


def test_training_in_eval_mode_is_told_from_the_step_on_which_it_begins(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", cadence=64, strict=True) as doctor:
        for step in range(1, STEPS + 1):
            if step == 71:
                model.eval()
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimizer.step()
    reader = RecordReader(tmp_path / "run")
    frames = list(reader.frames())
    reader.close()
    assert [frame.step for frame in frames] == list(range(1, STEPS + 1))
    told = [f.step for f in frames if "loop.eval_mode" in f.values and float(f.values["loop.eval_mode"][0]) > 0.5]
    assert told == list(range(71, STEPS + 1))
    (finding,) = doctor.diagnosis().root_causes
    assert finding.rule == "eval-mode-during-training"
    assert finding.first_step <= 71 + 5


class WithBadSample(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A line to learn; the target of one sample is a thousand times too large."""

    def __init__(self, bad: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(16 * 150, 3, generator=generator)
        self.targets = self.inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(16 * 150, 1, generator=generator)
        self.targets[bad] *= 1000

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.targets[index]


@pytest.mark.parametrize(("number", "cadence"), [(121, 32), (64, 128)], ids=["between sampled steps", "before the first of them"])
def test_a_leap_of_the_loss_on_a_quiet_step_still_names_the_sample_that_did_it(tmp_path: Path, number: int, cadence: int) -> None:
    torch.manual_seed(0)
    bad = 16 * (number - 1) + 5  # the sixth sample of a batch that is neither sampled nor near a sampled step
    loader = torch.utils.data.DataLoader(WithBadSample(bad), batch_size=16)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", cadence=cadence, strict=True) as doctor:
        for inputs, targets in loader:
            optimizer.zero_grad()
            (model(inputs) - targets).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    (incident,) = [i for i in doctor.diagnosis().facts["incidents"] if "loss.spike" in i["signals"]]
    assert (incident["step"], incident["batch"], incident["samples"]) == (number, number, [bad])
    reader = RecordReader(tmp_path / "run")
    frames = list(reader.frames())
    reader.close()
    assert [frame.step for frame in frames] == list(range(1, 151))
    assert float(frames[number - 1].values["batch.target_outlier"][0]) > 100


def test_batches_of_quiet_steps_keep_their_own_losses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(WithBadSample(5), batch_size=16)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    losses = []
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", cadence=64, strict=True) as doctor:
        for number, (inputs, targets) in enumerate(loader, 1):
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            losses.append(loss.item())
            if number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
        doctor.diagnosis()
        assert doctor._batches is not None
        ring = list(doctor._batches.ring)
    assert [step for step, _ in ring] == list(range(1, 76))
    assert [batch.number for _, batches in ring for batch in batches] == list(range(1, 151))
    assert [loss for _, batches in ring for batch in batches for loss in batch.losses] == pytest.approx(losses)


def test_a_plain_step_becomes_a_row_and_any_other_none() -> None:
    plain = note(1.0, 0.0)._replace(losses=[2.5])
    assert plain_row(plain, 0.1, None) == (("step.time", "loss", "loss.nonfinite"), (0.1, 2.5, 0.0))
    clipped = plain._replace(preclip=3.0, max_norm=1)
    names, numbers = plain_row(clipped, 0.1, 0.25) or ((), ())
    assert dict(zip(names, numbers, strict=True)) == {
        "step.time": 0.1, "loss": 2.5, "loss.nonfinite": 0.0, "step.data_wait_fraction": 0.25,
        "grad.total_norm_preclip": 3.0, "clip.max_norm": 1.0,
    }  # fmt: skip
    for other in ([], [1.0, 2.0], [float("nan")], [torch.ones(1)]):
        assert plain_row(plain._replace(losses=other), 0.1, None) is None
    assert plain_row(plain._replace(preclip=torch.ones(1), max_norm=1.0), 0.1, None) is None


def test_a_stretch_gives_the_frames_of_its_steps() -> None:
    stretch = Stretch(("loss", "step.time"))
    stretch.add(7, 100.0, None, (2.0, 0.5))
    stretch.add(8, 101.0, 0.25, (1.0, 0.25))
    assert stretch.time == 100.0
    frames = list(stretch.frames())
    assert [(f.step, f.time, f.epoch) for f in frames] == [(7, 100.0, None), (8, 101.0, 0.25)]
    assert [{k: v.tolist() for k, v in f.values.items()} for f in frames] == [
        {"loss": [2.0], "step.time": [0.5]}, {"loss": [1.0], "step.time": [0.25]},
    ]  # fmt: skip
