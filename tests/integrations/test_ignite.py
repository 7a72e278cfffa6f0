"""Ignite's engines, the real ones: the diagnosis is right through them, and the training is their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ignite = pytest.importorskip("ignite.engine", reason="pip install -e .[ignite]")

from nndoctor.integrations.ignite import attach, chosen  # noqa: E402
from nndoctor.record import RecordReader  # noqa: E402
from tests.integrations.examples import example, roots  # noqa: E402

INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
ROWS = TensorDataset(INPUTS, (INPUTS.sum(1) > 0).long())


def train(run_dir: Path | None, *, epochs: int = 2, accumulate: int = 1, fails_at: int | None = None, handled: bool = False, **options: Any) -> tuple[nn.Module, Any]:
    from ignite.metrics import Accuracy, Loss

    torch.manual_seed(0)
    model, loss_fn = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = ignite.create_supervised_trainer(model, optimizer, loss_fn, gradient_accumulation_steps=accumulate)
    evaluator = ignite.create_supervised_evaluator(model, metrics={"loss": Loss(loss_fn), "accuracy": Accuracy()})
    trainer.add_event_handler(ignite.Events.EPOCH_COMPLETED, lambda engine: evaluator.run(DataLoader(ROWS, batch_size=32)))
    if handled:
        trainer.add_event_handler(ignite.Events.EXCEPTION_RAISED, lambda engine, error: None)
    doctor = attach(trainer, model, optimizer, loss_fn, evaluator=evaluator, run_dir=run_dir, ui="off", strict=True, **options) if run_dir else None

    def maybe_fail(engine: Any) -> None:
        if engine.state.iteration == fails_at:
            raise RuntimeError("the disk is full")

    trainer.add_event_handler(ignite.Events.ITERATION_COMPLETED, maybe_fail)
    try:
        trainer.run(DataLoader(ROWS, batch_size=8, shuffle=True), max_epochs=epochs)
    finally:
        if doctor is not None:
            assert doctor.closed
    return model, doctor


def test_a_healthy_run_is_found_healthy() -> None:
    assert roots(example("ignite_classifier")([])) == []


@pytest.mark.parametrize(("flags", "cause"), [(["--lr", "0.3"], "learning-rate-too-high"), (["--forget-zero-grad", "--epochs", "1"], "missing-zero-grad")])
def test_what_is_wrong_is_named(flags: list[str], cause: str) -> None:
    assert roots(example("ignite_classifier")(flags)) == [cause]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 16), (4, 4)])
def test_training_is_bit_identical(accumulate: int, steps: int, tmp_path: Path) -> None:
    bare, _ = train(None, accumulate=accumulate)
    random_state = torch.random.get_rng_state()
    watched, doctor = train(tmp_path / "run", accumulate=accumulate)
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True))
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert doctor.diagnosis().steps == steps
    assert roots(doctor.diagnosis()) == []


def test_what_the_evaluator_measures_is_observed(tmp_path: Path) -> None:
    _, doctor = train(tmp_path / "run")
    reader = RecordReader(doctor.run_dir)
    seen = [frame for frame in reader.frames() if "val.accuracy" in frame.values]
    reader.close()
    assert [frame.step for frame in seen] == [8, 16]
    assert all("val.loss" in frame.values for frame in seen)


def test_metrics_that_are_no_numbers_are_left_out() -> None:
    assert chosen({"nll": torch.tensor(0.5), "accuracy": torch.ones(3), "confusion": "matrix"}) == {"val_loss": 0.5}


def test_a_crash_is_recorded_as_one_and_goes_on_to_the_script(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk is full"):
        train(tmp_path / "run", fails_at=3)
    reader = RecordReader(tmp_path / "run")
    assert reader.status == "crashed"
    reader.close()


def test_an_exception_that_the_script_handles_itself_stays_handled(tmp_path: Path) -> None:
    train(tmp_path / "run", fails_at=3, handled=True)


def test_a_rule_that_asks_for_it_ends_the_training_in_ignites_own_way(tmp_path: Path) -> None:
    rules = tmp_path / "stop.yaml"
    rules.write_text("version: 1\nrules:\n  - {id: enough, severity: info, when: step >= 3, action: stop}\n")
    _, doctor = train(tmp_path / "run", epochs=100, rules=rules)
    assert 3 <= doctor.diagnosis().steps < 800
