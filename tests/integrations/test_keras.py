"""Keras 3 on torch, the real one: the diagnosis is right through it, and the training is its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="pip install -e .[keras]")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from nndoctor.integrations.keras import DoctorCallback  # noqa: E402
from nndoctor.record import RecordReader  # noqa: E402
from nndoctor.signals import Frame  # noqa: E402
from tests.integrations.examples import example, roots  # noqa: E402

INPUTS = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
LABELS = (INPUTS.sum(1) > 0).astype("int64")


def fit(callback: DoctorCallback | None, optimizer: Any = None, epochs: int = 2, **arguments: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.2), keras.layers.Dense(2),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer or keras.optimizers.AdamW(1e-2), loss=loss, metrics=["accuracy"])
    model.fit(INPUTS, LABELS, batch_size=8, epochs=epochs, verbose=0, validation_data=(INPUTS, LABELS), callbacks=[callback] if callback else [], **arguments)
    return model


def doctor_of(tmp_path: Path, **options: Any) -> DoctorCallback:
    return DoctorCallback(run_dir=tmp_path / "run", ui="off", strict=True, **options)


def frames(folder: Path) -> list[Frame]:
    reader = RecordReader(folder)
    found = list(reader.frames())
    reader.close()
    return found


def test_a_healthy_run_is_found_healthy() -> None:
    assert roots(example("keras_classifier")([])) == []


def test_a_learning_rate_that_is_too_high_is_named() -> None:
    diagnosis = example("keras_classifier")(["--lr", "0.3"])
    assert roots(diagnosis) == ["learning-rate-too-high"]
    assert diagnosis.root_causes[0].fixes[0].set["lr"] < 0.1


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_training_is_bit_identical(name: str, tmp_path: Path) -> None:
    bare = fit(None, getattr(keras.optimizers, name)(1e-2))
    random_state = torch.random.get_rng_state()
    watching = doctor_of(tmp_path)
    watched = fit(watching, getattr(keras.optimizers, name)(1e-2))
    assert all(np.array_equal(a, b) for a, b in zip(bare.get_weights(), watched.get_weights(), strict=True))
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert watching.doctor.diagnosis().steps == 16
    assert roots(watching.doctor.diagnosis()) == []
    assert "apply" not in vars(watched.optimizer), "nothing remains"


def test_gradients_updates_and_the_learning_rate_are_keras_own(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(2)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=1, decay_rate=0.9)
    model.compile(optimizer=keras.optimizers.SGD(schedule), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watching = doctor_of(tmp_path)
    model.fit(INPUTS, LABELS, batch_size=8, epochs=1, verbose=0, callbacks=[watching])
    found = frames(watching.doctor.run_dir)[:4]
    assert [float(frame.values["lr"][0]) for frame in found] == pytest.approx([0.1, 0.09, 0.081, 0.0729], rel=1e-5)
    for frame in found:
        expected = frame.values["lr"][0] * frame.values["param.grad.norm"]
        assert np.allclose(frame.values["param.update.norm"], expected, rtol=1e-3), "plain SGD: |dw| = lr |g|"
    assert watching.doctor.facts["optimizer"] == "SGD"


def test_validations_are_observed(tmp_path: Path) -> None:
    watching = doctor_of(tmp_path)
    fit(watching)
    seen = [frame.step for frame in frames(watching.doctor.run_dir) if "val.accuracy" in frame.values]
    assert seen == [8, 16]


def test_a_second_training_gets_a_doctor_of_its_own(tmp_path: Path) -> None:
    watching = DoctorCallback(ui="off", strict=True)
    model = fit(watching, epochs=1)
    first = watching.doctor
    model.fit(INPUTS, LABELS, batch_size=8, verbose=0, callbacks=[watching])
    assert watching.doctor is not first
    assert watching.doctor.diagnosis().steps == 8


def test_a_rule_that_asks_for_it_ends_the_training_in_keras_own_way(tmp_path: Path) -> None:
    rules = tmp_path / "stop.yaml"
    rules.write_text("version: 1\nrules:\n  - {id: enough, severity: info, when: step >= 3, action: stop}\n")
    watching = doctor_of(tmp_path, rules=rules)
    fit(watching, epochs=60)
    assert watching.doctor.diagnosis().steps < 480


def test_accumulation_inside_the_optimizer_is_left_alone_with_a_word(tmp_path: Path) -> None:
    watching = doctor_of(tmp_path)
    with pytest.warns(UserWarning, match="not attached"):
        fit(watching, keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    assert watching.doctor is None
