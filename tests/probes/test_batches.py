"""Which samples each step was trained on: indices matched to batches, leaps and NaN traced to them, copies counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import nndoctor
from nndoctor.findings import Evidence, Finding, Severity, describe_incident, with_incident
from nndoctor.probes.batches import BatchProbe, shuffled
from nndoctor.probes.loss_watch import LateLosses, LossWatch


def table(rows: int = 640, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 6, generator=generator)
    return inputs, (inputs.sum(1) > 0).long()


def train(loader: DataLoader[Any], epochs: int = 1, stop: int | None = None, rate: float = 0.1) -> tuple[nndoctor.Doctor, BatchProbe]:
    """A run over the loader, and the probe that followed it."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    doctor = nndoctor.wrap(model, optimizer, loader=loader, ui="off", strict=True)
    probe = next(p for p in doctor._board.probes if isinstance(p, BatchProbe))
    for _ in range(epochs):
        for number, (inputs, target) in enumerate(loader, 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            if number == stop:
                break
    return doctor, probe


@pytest.fixture
def in_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Numbered(Dataset[tuple[Tensor, Tensor]]):
    """Each sample holds its own index."""

    def __len__(self) -> int:
        return 320

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((6,), float(index)), torch.tensor(index % 2)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("workers", [0, 2])
def test_indices_belong_to_the_batches_that_came_of_them_also_after_a_pass_left_early(workers: int) -> None:
    loader = DataLoader(Numbered(), batch_size=16, shuffle=True, num_workers=workers)
    served: list[list[int]] = []
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    with nndoctor.wrap(model, optimizer, loader=loader, ui="off", strict=True) as doctor:
        probe = next(p for p in doctor._board.probes if isinstance(p, BatchProbe))
        for stop in (3, 20, 20):
            for number, (inputs, target) in enumerate(loader, 1):
                served.append([int(row[0]) for row in inputs])
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), target).backward()
                optimizer.step()
                if number == stop:
                    break
        ring = [(step, batch) for step, batches in probe.ring for batch in batches]
    assert [list(batch.indices or ()) for _, batch in ring] == served
    assert [step for step, _ in ring] == list(range(1, 44))
    assert [(batch.epoch, batch.number) for _, batch in ring][2:5] == [(0, 3), (1, 1), (1, 2)]
    assert all(len(batch.losses) == 1 for _, batch in ring)


@pytest.mark.usefixtures("in_folder")
def test_a_nan_names_its_batch_and_its_sample() -> None:
    inputs, target = table()
    inputs[137, 3] = torch.nan
    doctor, probe = train(DataLoader(TensorDataset(inputs, target), batch_size=32, shuffle=True))
    doctor.close()
    (incident,) = probe.incidents
    assert incident["samples"] == [137]
    assert 137 in incident["indices"]
    finding = next(f for f in doctor.diagnosis().findings if f.rule == "nan-in-inputs")
    assert finding.first_step == finding.incident["step"] == incident["step"]
    assert "sample 137" in finding.message


@pytest.mark.usefixtures("in_folder")
def test_a_batch_in_other_units_is_named_as_the_cause_of_the_leap() -> None:
    inputs, target = table(3200)
    inputs[2500] *= 3000
    target[2500] = 1 - target[2500]
    doctor, probe = train(DataLoader(TensorDataset(inputs, target), batch_size=32, shuffle=False))
    doctor.close()
    first = probe.incidents[0]
    assert first["batch"] == 2500 // 32 + 1
    assert first["samples"] == [2500]
    finding = doctor.diagnosis().root_causes[0]
    assert finding.rule == "bad-batch"
    assert finding.incident["samples"] == [2500]


@pytest.mark.usefixtures("in_folder")
def test_the_true_loss_is_kept_when_a_scaler_multiplies_it() -> None:
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True) as doctor:
        probe = next(p for p in doctor._board.probes if isinstance(p, BatchProbe))
        inputs, target = table(16)
        loss = nn.functional.cross_entropy(model(inputs), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        (_, (batch,)) = probe.ring[0]
    assert batch.losses == [pytest.approx(loss.item())]


class Undivided(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*table(320), strict=True)


class Wrapping(Dataset[tuple[Tensor, Tensor]]):
    """Longer than its data: it begins anew every 32 samples."""

    def __init__(self) -> None:
        self.inputs, self.target = table(32)

    def __len__(self) -> int:
        return 320

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index % 32], self.target[index % 32]


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("make", "copied"),
    [
        (lambda: DataLoader(Undivided(), batch_size=16, num_workers=2), True),
        (lambda: DataLoader(Wrapping(), batch_size=16), True),
        (lambda: DataLoader(Undivided(), batch_size=16), False),
        (lambda: DataLoader(TensorDataset(*table()), batch_size=16, shuffle=True), False),
        (lambda: DataLoader(TensorDataset(torch.zeros(320, 6), table(320)[1]), batch_size=16), False),
    ],
    ids=["undivided stream", "wrapped index", "one worker", "shuffled", "inputs all alike"],
)
def test_copies_within_a_pass_are_told_and_nothing_else(make: Callable[[], DataLoader[Any]], copied: bool) -> None:
    doctor, _ = train(make(), epochs=2)
    doctor.close()
    assert ("duplicated-samples" in [f.rule for f in doctor.diagnosis().findings]) is copied


def test_only_samplers_of_torch_are_said_to_shuffle_or_not() -> None:
    data = TensorDataset(*table())
    assert shuffled(DataLoader(data, batch_size=8, shuffle=True)) is True
    assert shuffled(DataLoader(data, batch_size=8)) is False
    assert shuffled(DataLoader(data, batch_size=8, sampler=WeightedRandomSampler([1.0] * 640, 640))) is True
    assert shuffled(DataLoader(data, batch_size=8, sampler=list(range(640)))) is None
    assert shuffled(DataLoader(data, batch_sampler=[[0, 1], [2, 3]])) is None


def falling(steps: int, noise: float = 0.02) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    wobble = torch.randn(steps, generator=generator) * noise
    return [2.0 * 0.97**step + 0.3 + float(wobble[step]) for step in range(steps)]


def test_a_loss_that_leaps_back_is_seen_and_the_noise_before_it_is_not() -> None:
    watch = LossWatch()
    assert [watch.see(loss) for loss in falling(200)] == [None] * 200
    leap = watch.see(3.0)
    assert leap is not None
    assert leap.deviations > 6
    assert leap.setback > 1
    assert leap.usual == pytest.approx(0.33, abs=0.1)


def test_a_net_that_has_only_just_begun_to_learn_has_something_to_be_thrown_back_from() -> None:
    watch = LossWatch()
    losses = [2.3 - 0.001 * step for step in range(60)] + [2.2 - 0.06 * step for step in range(20)]
    assert [watch.see(loss) for loss in losses] == [None] * 80  # the median of all is still at 90 % of the first
    leap = watch.see(100.0)
    assert leap is not None
    assert leap.setback > 1


def test_a_hard_batch_of_a_converged_net_does_not_leap() -> None:
    watch = LossWatch()
    for loss in falling(300, noise=0.001):
        watch.see(loss)
    assert watch.see(0.9) is None


@pytest.mark.parametrize("losses", [[1.4, 1.3, 1.5] * 60, [0.02, -0.05, 0.01] * 60], ids=["hovers", "around zero"])
def test_losses_without_progress_never_leap(losses: list[float]) -> None:
    watch = LossWatch()
    for loss in losses:
        watch.see(loss)
    assert watch.see(50.0) is None


def test_exponential_tails_do_not_leap() -> None:
    generator = torch.Generator().manual_seed(3)
    tails = -torch.rand(2000, generator=generator).log() * 0.2
    watch = LossWatch()
    leaps = [watch.see(2.0 if step < 5 else 0.5 + float(tails[step])) for step in range(2000)]
    assert [leap for leap in leaps if leap is not None] == []


def test_late_losses_come_in_order_each_once() -> None:
    late: LateLosses[int] = LateLosses()
    found: list[tuple[float, int]] = []
    for number in range(40):
        late.add(torch.tensor(float(number)), number)
        found.extend(late.arrived())
    assert found == [(float(n), n) for n in range(len(found))]
    assert len(found) >= 16


def finding(signal: str, first: int, last: int) -> Finding:
    return Finding("r", "d", Severity.ERROR, "high", (), first, last, message="leapt", evidence=(Evidence(signal, None, 1.0),))


def test_a_finding_gets_the_incident_of_its_own_signal_and_time() -> None:
    incidents = [
        {"signals": ["loss.spike"], "step": 10, "size": 4},
        {"signals": ["loss.nonfinite"], "step": 90, "size": 4},
        {"signals": ["loss.spike"], "step": 95, "epoch": 2, "batch": 5, "size": 4, "indices": [7, 8, 9, 4], "samples": [8]},
    ]
    told = with_incident(finding("loss.spike", 96, 96), incidents)
    assert told.incident["samples"] == [8]
    assert told.message == "leapt; batch 5 of epoch 2 (step 95), sample 8"
    assert "signals" not in told.incident
    assert with_incident(finding("grad.norm", 96, 96), incidents).incident == {}
    assert with_incident(finding("loss.spike", 300, 310), incidents).incident == {}
    assert Finding.from_dict(told.to_dict()).incident == told.incident


@pytest.mark.parametrize(
    ("incident", "said"),
    [
        ({"step": 7, "size": 0}, "step 7"),
        ({"step": 7, "size": 3, "epoch": 1, "batch": 7, "micro_step": 2, "rows": [0, 2]}, "batch 7 of epoch 1 (step 7, micro-step 2), rows 0, 2"),
        (
            {"step": 7, "size": 128, "epoch": 1, "batch": 7, "indices": list(range(64)), "samples": []},
            "batch 7 of epoch 1 (step 7), made of the samples 0, 1, 2, 3, 4, 5, 6, 7 and 120 more",
        ),
    ],
)
def test_incidents_read_as_a_place_in_the_data(incident: dict[str, Any], said: str) -> None:
    assert describe_incident(incident) == said
