"""Parameters of every kind that people train: sparse, tied, frozen, in half precision, channels last, fused, updated in backward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nndoctor
from nndoctor.record import RecordReader
from nndoctor.signals import Targets

Build = Callable[[], tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x).mean(1))  # type: ignore[no-any-return]


def sparse() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    model = nn.Sequential(nn.EmbeddingBag(40, 8, sparse=True))
    return model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randint(40, (6, 3))


def tied() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    model = Tied()
    return model, torch.optim.Adam(model.parameters()), torch.randint(12, (6, 3))


def bf16() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12)).to(torch.bfloat16)
    return model, torch.optim.SGD(model.parameters(), lr=0.5), torch.randn(6, 8, dtype=torch.bfloat16)


def channels_last() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 6)).to(memory_format=torch.channels_last)
    return model, torch.optim.Adam(model.parameters()), torch.randn(6, 3, 6, 6).to(memory_format=torch.channels_last)


def with_adam(**options: Any) -> Build:
    def build() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12))
        return model, torch.optim.AdamW(model.parameters(), **options), torch.randn(6, 8)

    return build


KINDS: dict[str, Build] = {
    "sparse": sparse, "tied": tied, "bf16": bf16, "channels last": channels_last,
    "fused": with_adam(fused=True), "foreach": with_adam(foreach=True), "one by one": with_adam(foreach=False),
}  # fmt: skip


def run(build: Build, folder: Path) -> tuple[list[dict[str, np.ndarray]], Targets, list[dict[str, float]]]:
    """The frames of six steps, the targets, and for each step the true gradient and update norms by parameter."""
    torch.manual_seed(0)
    model, optimizer, inputs = build()
    truth = []
    with nndoctor.wrap(model, optimizer, run_dir=folder, ui="off", strict=True, cadence=1):
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs).float(), torch.arange(6)).backward()
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            gradients = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            true = {f"{name} gradient": float(g.float().norm()) for name, g in gradients.items()}
            true |= {f"{name} update": float((p.detach().float() - before[name].float()).norm()) for name, p in model.named_parameters()}
            truth.append(true)
    with RecordReader(folder) as reader:
        return [dict(frame.values) for frame in reader.frames()], reader.targets, truth


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_updates_of_every_kind_are_those_of_the_tensors_themselves(kind: str, tmp_path: Path) -> None:
    frames, targets, truth = run(KINDS[kind], tmp_path / "run")
    assert len(frames) == 6
    error = 5e-3 if kind == "bf16" else 1e-3  # a norm in half precision is rounded to it
    for values, true in zip(frames, truth, strict=True):
        for number, name in enumerate(targets.params):
            assert values["param.grad.norm"][number] == pytest.approx(true[f"{name} gradient"], rel=error)
            if "param.update.norm" in values:
                assert values["param.update.norm"][number] == pytest.approx(true[f"{name} update"], rel=error, abs=1e-7)
    assert any("param.update.norm" in values for values in frames) or kind == "sparse"


def test_a_tied_weight_is_one_parameter(tmp_path: Path) -> None:
    _, targets, _ = run(tied, tmp_path / "run")
    assert len(targets.params) == 1


def stepping(optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor], None]:
    def step(param: torch.Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_an_optimizer_that_runs_in_backward_leaves_the_training_alone_and_the_doctor_whole(tmp_path: Path) -> None:
    def train(watched: bool) -> tuple[list[float], Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        optimizers = {name: torch.optim.SGD([p], lr=0.1) for name, p in model.named_parameters()}
        for name, p in model.named_parameters():
            p.register_post_accumulate_grad_hook(stepping(optimizers[name]))
        doctor = nndoctor.wrap(model, optimizers, run_dir=tmp_path / "run", ui="off", strict=True) if watched else None
        inputs, losses = torch.randn(12, 8), []
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(inputs), torch.arange(12) % 3)
            loss.backward()
            losses.append(float(loss.detach()))
        return losses, doctor

    losses, doctor = train(True)
    doctor.close()
    assert losses == train(False)[0]
    assert doctor.diagnosis().probe_failures == ()
    with RecordReader(tmp_path / "run") as reader:
        frames = [frame for frame in reader.frames() if "param.update.norm" in frame.values]
    assert frames
    assert np.isfinite(frames[-1].values["param.update.norm"]).any()
