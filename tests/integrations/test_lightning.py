"""Lightning's Trainer, the real one: the diagnosis is right through it, and the training is its own."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="pip install -e .[lightning]")

from nndoctor.integrations.lightning import DoctorCallback, watched  # noqa: E402
from nndoctor.record import RecordReader  # noqa: E402
from tests.integrations.examples import example, roots  # noqa: E402

INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
ROWS = TensorDataset(INPUTS, (INPUTS.sum(1) > 0).long())


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


class Plain(pl.LightningModule):  # type: ignore[misc, name-defined]
    """Calls a part of itself, as most do, and has no ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.net(batch[0])
        self.log("val/loss", F.cross_entropy(scores, batch[1]))
        self.log("val/acc", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Manual(Plain):
    """Optimizes by hand, with two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.net[0].parameters(), lr=0.05), torch.optim.SGD(self.net[3].parameters(), lr=0.05)]


class Crashing(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 2:
            raise RuntimeError("the disk is full")
        return super().training_step(batch, batch_idx)


def fit(tmp_path: Path, module: Any, callback: DoctorCallback | None, checkpoint: str | None = None, **arguments: Any) -> Any:
    torch.manual_seed(0)
    settings = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": tmp_path, **arguments,
    }  # fmt: skip
    trainer = pl.Trainer(callbacks=[callback] if callback is not None else [], **settings)
    training = DataLoader(ROWS, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(0))
    trainer.fit(module, training, DataLoader(ROWS, batch_size=32), ckpt_path=checkpoint)
    return trainer


def doctor_of(tmp_path: Path, **options: Any) -> DoctorCallback:
    return DoctorCallback(run_dir=tmp_path / "run", ui="off", strict=True, **options)


def test_a_healthy_run_is_found_healthy() -> None:
    assert roots(example("lightning_classifier")([])) == []


@pytest.mark.parametrize(("flags", "cause"), [(["--lr", "0.3"], "learning-rate-too-high"), (["--forget-zero-grad", "--steps", "20"], "missing-zero-grad")])
def test_what_is_wrong_is_named(flags: list[str], cause: str) -> None:
    diagnosis = example("lightning_classifier")(flags)
    assert roots(diagnosis) == [cause]
    assert "fit(" not in diagnosis.root_causes[0].fixes[0].place, "the loop is Lightning's, no line of the script"


@pytest.mark.parametrize(
    "arguments",
    [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}, {"gradient_clip_val": 0.5}, {"val_check_interval": 3}],
    ids=["plain", "accumulation", "bf16", "clipping", "often validated"],
)
@pytest.mark.parametrize("kind", [Plain, Manual])
def test_training_is_bit_identical(kind: type[Plain], arguments: dict[str, Any], tmp_path: Path) -> None:
    if kind is Manual and ("accumulate_grad_batches" in arguments or "gradient_clip_val" in arguments):
        pytest.skip("Lightning leaves both to those who optimize by hand")
    states = []
    for watching in (None, doctor_of(tmp_path)):
        torch.manual_seed(1)
        module = kind()
        fit(tmp_path, module, watching, **arguments)
        states.append(({name: value.clone() for name, value in module.state_dict().items()}, torch.random.get_rng_state()))
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert torch.equal(states[0][1], states[1][1])
    assert watching is not None
    assert watching.doctor.closed
    steps = {3: 6}.get(arguments.get("accumulate_grad_batches", 1), 16)
    assert watching.doctor.diagnosis().steps == steps, "a step is an optimizer step"
    assert roots(watching.doctor.diagnosis()) == []


def test_validations_are_observed_but_not_the_sanity_check(tmp_path: Path) -> None:
    watching = doctor_of(tmp_path)
    fit(tmp_path, Plain(), watching)
    reader = RecordReader(watching.doctor.run_dir)
    seen = [frame for frame in reader.frames() if "val.accuracy" in frame.values]
    reader.close()
    assert [frame.step for frame in seen] == [8, 16]
    assert all("val.loss" in frame.values for frame in seen)


def test_the_parts_are_watched_where_the_module_has_no_forward() -> None:
    module = Plain()
    assert watched(module) == {"net": module.net}
    module.scale = nn.Parameter(torch.ones(1))
    assert watched(module) is module


def test_a_crash_is_recorded_as_one_and_lets_go(tmp_path: Path) -> None:
    watching = doctor_of(tmp_path)
    with pytest.raises(RuntimeError, match="disk is full"):
        fit(tmp_path, Crashing(), watching)
    assert watching.doctor.closed
    reader = RecordReader(watching.doctor.run_dir)
    assert reader.status == "crashed"
    reader.close()


def test_a_rule_that_asks_for_it_ends_the_training_in_lightnings_own_way(tmp_path: Path) -> None:
    rules = tmp_path / "stop.yaml"
    rules.write_text("version: 1\nrules:\n  - {id: enough, severity: info, when: step >= 3, action: stop}\n")
    trainer = fit(tmp_path, Plain(), doctor_of(tmp_path, rules=rules), max_epochs=100)
    assert trainer.global_step < 800


def test_a_run_that_is_resumed_is_followed_from_there(tmp_path: Path) -> None:
    trainer = fit(tmp_path, Plain(), None, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    watching = doctor_of(tmp_path)
    fit(tmp_path, Plain(), watching, checkpoint=str(tmp_path / "half.ckpt"))
    assert watching.doctor.diagnosis().steps == 8
    assert roots(watching.doctor.diagnosis()) == []


def test_the_trainers_logger_gets_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install -e .[tensorboard]")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(tmp_path, Plain(), doctor_of(tmp_path), logger=logger)
    events = EventAccumulator(logger.log_dir).Reload()
    assert "nndoctor/grad.total_norm" in events.Tags()["scalars"]
