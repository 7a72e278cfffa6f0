"""Transformers' Trainer, the real one: the diagnosis is right through it, and the training is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install -e .[transformers]")
transformers = pytest.importorskip("transformers", reason="pip install -e .[transformers]")

from nndoctor.integrations.transformers import DoctorCallback  # noqa: E402
from nndoctor.record import RecordReader  # noqa: E402
from nndoctor.signals import Frame  # noqa: E402
from tests.integrations.examples import example, roots  # noqa: E402


def sequences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    steps = torch.randint(1, 3, (count, 12), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": tokens, "labels": tokens} for tokens in steps.cumsum(1) % 24]


def trainer(tmp_path: Path, callback: DoctorCallback | None, **arguments: Any) -> Any:
    transformers.set_seed(0)
    shape = {"vocab_size": 24, "n_positions": 12, "n_embd": 16, "n_layer": 1, "n_head": 2, "loss_type": "ForCausalLM"}
    settings = {
        "learning_rate": 2e-3, "max_steps": 12, "per_device_train_batch_size": 8, "save_strategy": "no", "use_cpu": True,
        "logging_strategy": "no", "report_to": "none", "disable_tqdm": True, **arguments,
    }  # fmt: skip
    return transformers.Trainer(
        model=transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)),
        args=transformers.TrainingArguments(output_dir=str(tmp_path / "out"), **settings),
        train_dataset=sequences(96, 0),
        eval_dataset=sequences(32, 1),
        callbacks=[callback] if callback is not None else [],
    )


def callback(tmp_path: Path, **options: Any) -> DoctorCallback:
    return DoctorCallback(run_dir=tmp_path / "run", ui="off", strict=True, **options)


def frames(folder: Path) -> list[Frame]:
    reader = RecordReader(folder)
    found = list(reader.frames())
    reader.close()
    return found


def test_a_healthy_run_is_found_healthy() -> None:
    diagnosis = example("transformers_trainer")([])
    assert roots(diagnosis) == []
    assert diagnosis.steps == 80


def test_a_learning_rate_that_is_too_high_is_named() -> None:
    diagnosis = example("transformers_trainer")(["--lr", "1"])
    assert roots(diagnosis)[0] == "learning-rate-too-high"
    assert diagnosis.root_causes[0].fixes[0].set["lr"] < 0.1


def test_a_text_classifier_is_not_told_that_its_labels_are_inputs(tmp_path: Path) -> None:
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=12
    )
    tokens = torch.randint(2, 24, (256, 12), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": t, "attention_mask": torch.ones_like(t), "labels": (t % 2 == 0).sum().gt(6).long()} for t in tokens]
    watching = callback(tmp_path)
    run = trainer(tmp_path, watching, max_steps=60)
    run = transformers.Trainer(transformers.BertForSequenceClassification(config), run.args, train_dataset=rows, callbacks=[watching])
    run.train()
    assert roots(watching.doctor.diagnosis()) == []


@pytest.mark.parametrize("variant", ["plain", "accumulation", "bf16", "checkpointing"])
def test_training_is_bit_identical(variant: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "plain": {"eval_strategy": "steps", "eval_steps": 5},
        "accumulation": {"gradient_accumulation_steps": 3},
        "bf16": {"bf16": True},
        "checkpointing": {"gradient_checkpointing": True},
    }[variant]
    states = []
    for watching in (None, callback(tmp_path)):
        run = trainer(tmp_path, watching, **arguments)
        run.train()
        states.append(({name: value.clone() for name, value in run.model.state_dict().items()}, torch.random.get_rng_state()))
        if watching is not None:
            assert watching.doctor.diagnosis().steps == 12, "a step is an optimizer step"
            assert watching.doctor.closed
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert torch.equal(states[0][1], states[1][1])


def test_evaluations_are_observed_and_are_no_training_steps(tmp_path: Path) -> None:
    watching = callback(tmp_path)
    run = trainer(tmp_path, watching, eval_strategy="steps", eval_steps=4)
    run.train()
    expected = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    seen = [float(f.values["val.loss"][0]) for f in frames(watching.doctor.run_dir) if "val.loss" in f.values]
    assert expected
    for value in expected:
        assert any(value == pytest.approx(other, rel=1e-4) for other in seen)
    assert watching.doctor.diagnosis().steps == 12


def test_a_run_that_is_resumed_is_followed_from_there(tmp_path: Path) -> None:
    run = trainer(tmp_path, None, save_strategy="steps", save_steps=6, max_steps=6)
    run.train()
    watching = callback(tmp_path)
    run = trainer(tmp_path, watching, max_steps=10)
    run.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    assert watching.doctor.diagnosis().steps == 4
    assert roots(watching.doctor.diagnosis()) == []


def test_a_second_training_gets_a_doctor_of_its_own(tmp_path: Path) -> None:
    watching = DoctorCallback(ui="off", strict=True)
    run = trainer(tmp_path, watching, max_steps=3)
    run.train()
    first = watching.doctor
    run.train()
    assert watching.doctor is not first
    assert first.closed
    assert watching.doctor.closed


def test_a_rule_that_asks_for_it_ends_the_training_in_the_trainers_own_way(tmp_path: Path) -> None:
    rules = tmp_path / "stop.yaml"
    rules.write_text("version: 1\nrules:\n  - {id: enough, severity: info, when: step >= 3, action: stop}\n")
    run = trainer(tmp_path, callback(tmp_path, rules=rules), max_steps=500)
    run.train()
    assert 3 <= run.state.global_step < 500


def test_the_report_is_written_at_the_end(tmp_path: Path) -> None:
    trainer(tmp_path, callback(tmp_path, report=tmp_path / "report.md"), max_steps=3).train()
    assert "No problems found" in (tmp_path / "report.md").read_text(encoding="utf-8")
