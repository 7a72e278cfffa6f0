"""Accelerate, the real one: prepared objects are taken as they are, and the training is its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

accelerate = pytest.importorskip("accelerate", reason="pip install -e .[accelerate]")

from nndoctor.integrations.accelerate import wrap  # noqa: E402
from tests.integrations.examples import example, roots  # noqa: E402

INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
ROWS = TensorDataset(INPUTS, (INPUTS.sum(1) > 0).long())


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    accelerate.state.AcceleratorState._reset_state(True)
    yield
    accelerate.state.AcceleratorState._reset_state(True)


def train(run_dir: Path | None, *, accumulate: int = 1, mixed_precision: str = "no", clip: bool = False, **options: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=mixed_precision, **options)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(ROWS, batch_size=8, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if accelerator.log_with:
        accelerator.init_trackers("test")
    doctor = wrap(accelerator, model, optimizer, loader, run_dir=run_dir, ui="off", strict=True) if run_dir else None
    for _ in range(2):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(x), y))
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
    if doctor is not None:
        doctor.close()
    if accelerator.log_with:
        accelerator.end_training()
    return model, doctor


def test_a_healthy_run_is_found_healthy() -> None:
    assert roots(example("accelerate_classifier")([])) == []


@pytest.mark.parametrize(("flags", "cause"), [(["--lr", "0.3"], "learning-rate-too-high"), (["--forget-zero-grad", "--epochs", "1"], "missing-zero-grad")])
def test_what_is_wrong_is_named(flags: list[str], cause: str) -> None:
    diagnosis = example("accelerate_classifier")(flags)
    assert roots(diagnosis) == [cause]
    if cause == "missing-zero-grad":
        assert "accelerator.backward(" in diagnosis.root_causes[0].fixes[0].place, "the line is the script's own"


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [({}, 16), ({"accumulate": 3}, 6), ({"mixed_precision": "bf16"}, 16), ({"clip": True}, 16)],
    ids=["plain", "accumulation", "bf16", "clipping"],
)
def test_training_is_bit_identical(arguments: dict[str, Any], steps: int, tmp_path: Path) -> None:
    bare, _ = train(None, **arguments)
    random_state = torch.random.get_rng_state()
    accelerate.state.AcceleratorState._reset_state(True)
    watched, doctor = train(tmp_path / "run", **arguments)
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True))
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert doctor.diagnosis().steps == steps, "a step is an optimizer step"
    assert roots(doctor.diagnosis()) == []


def test_a_model_that_was_not_prepared_is_refused() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(2, 1)
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"accelerator\.prepare\(\)"):
        wrap(accelerator, model, optimizer)


def test_the_accelerators_tracker_gets_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install -e .[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", log_with="tensorboard", project_dir=str(tmp_path / "tb"))
    events = EventAccumulator(str(tmp_path / "tb" / "test")).Reload()
    assert "nndoctor/grad.total_norm" in events.Tags()["scalars"]
