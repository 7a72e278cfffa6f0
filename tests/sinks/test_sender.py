"""What reaches a sink, how often, in which thread, and what happens when it fails."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor import sinks
from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.signals import Frame
from nndoctor.sinks import sender
from nndoctor.sinks.base import main_values
from nndoctor.sinks.sender import STRIKES, Sender

FINDING = Finding("dead-relu", "dead-relu", Severity.ERROR, "high", ("fc1",), 5, 5, message="fc1 is dead")


class Notebook:
    """A sink that writes down what it is told."""

    name = "notebook"

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.told: list[tuple[str, str]] = []
        self.verdict = ""
        self.threads: set[str] = set()

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        self.threads.add(threading.current_thread().name)
        self.rows.append((step, dict(values)))

    def finding(self, finding: Finding) -> None:
        self.told.append((finding.rule, finding.state))

    def close(self, diagnosis: Diagnosis) -> None:
        self.verdict = diagnosis.verdict


class Broken(Notebook):
    name = "broken"
    calls = 0

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        raise ConnectionError("no route to the tracker")


def frame(step: int, seconds: float, **values: float) -> Frame:
    return Frame(step, seconds, None, {name.replace("__", "."): np.array([value], dtype=np.float32) for name, value in values.items()})


def train(tmp_path: Path, steps: int = 30, **options: Any) -> nndoctor.Doctor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(32, 8)
    with nndoctor.wrap(model, optimizer, run_dir=tmp_path / "run", ui="off", strict=True, **options) as doctor:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), (x.sum(1) > 0).long()).backward()
            optimizer.step()
    doctor.trained = [p.detach().clone() for p in model.parameters()]
    return doctor


def test_values_of_the_run_are_taken_and_those_of_layers_summed_up() -> None:
    values = {"loss": np.array([0.5]), "grad.norm": np.array([1.0, 2.0, 9.0, np.nan]), "act.dead_fraction": np.array([0.1, 0.75]), "act.rms": np.ones(4)}
    assert main_values(Frame(1, 0.0, None, values)) == {"loss": 0.5, "grad.norm.median": 2.0, "act.dead_fraction.max": 0.75}


def test_what_was_measured_nowhere_or_is_not_finite_is_left_out() -> None:
    values = {"loss": np.array([np.inf]), "grad.norm": np.array([np.nan, np.nan]), "lr": np.array([0.1])}
    assert main_values(Frame(1, 0.0, None, values)) == {"lr": 0.1}


def test_curves_are_thinned_to_one_row_in_a_second_and_the_newest_values_count() -> None:
    book, failures = Notebook(), []
    feeding = Sender(lambda where, error: failures.append(where))
    feeding.add([book])
    for step in range(1, 41):
        feeding.frame(frame(step, step * 0.1, loss=float(step)))
    feeding.close(Diagnosis())
    assert [step for step, _ in book.rows] == [1, 11, 21, 31, 40]
    assert book.rows[1] == (11, {"loss": 11.0})
    assert not failures


def test_a_validation_is_sent_at_once() -> None:
    book = Notebook()
    feeding = Sender(lambda where, error: None)
    feeding.add([book])
    feeding.frame(frame(1, 0.0, loss=1.0))
    feeding.frame(frame(1, 0.1, val__loss=2.0))
    feeding.close(Diagnosis())
    assert book.rows == [(1, {"loss": 1.0}), (1, {"val.loss": 2.0})]


def test_a_finding_is_told_when_it_begins_and_when_it_is_over() -> None:
    book = Notebook()
    feeding = Sender(lambda where, error: None)
    feeding.add([book])
    feeding.findings([FINDING])
    feeding.findings([replace(FINDING, last_step=9)])
    feeding.findings([replace(FINDING, state="cleared")])
    feeding.findings([replace(FINDING, suppressed="known")])
    feeding.close(Diagnosis())
    assert book.told == [("dead-relu", "firing"), ("dead-relu", "cleared")]


def test_a_broken_sink_is_reported_once_given_up_and_disturbs_no_other() -> None:
    book, broken = Notebook(), Broken()
    failures: list[str] = []
    feeding = Sender(lambda where, error: failures.append(f"{where}: {error}"))
    feeding.add([broken, book])
    for step in range(1, 11):
        feeding.frame(frame(step, step * 2.0, loss=1.0))
    feeding.close(Diagnosis())
    assert failures == ["sink broken: no route to the tracker"]
    assert broken.calls == STRIKES
    assert len(book.rows) == 10


def test_a_sink_that_hangs_delays_the_end_of_the_run_by_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CLOSE_SECONDS", 0.05)
    release = threading.Event()

    class Hanging(Notebook):
        name = "hanging"

        def signals(self, step: int, values: Mapping[str, float]) -> None:
            release.wait(30)

    failures: list[str] = []
    feeding = Sender(lambda where, error: failures.append(f"{where}: {error}"))
    feeding.add([Hanging()])
    for step in range(1000):
        feeding.frame(frame(step + 1, step * 2.0, loss=1.0))
    feeding.close(Diagnosis())
    release.set()
    assert failures == ["sink hanging: not everything was sent within 0.05 s after the end"]
    assert feeding.dropped > 0


def test_a_run_reaches_the_sink_outside_of_the_training_thread(tmp_path: Path) -> None:
    book = Notebook()
    doctor = train(tmp_path, sinks=[book])
    assert book.threads == {"nndoctor-sinks"}
    assert {"loss", "lr", "grad.total_norm", "update.ratio.median"} <= set(book.rows[0][1])
    assert book.rows[-1][0] == 30
    assert book.verdict == doctor.diagnosis().verdict


def test_a_sinks_failure_stands_in_the_diagnosis_and_the_training_goes_on(tmp_path: Path) -> None:
    doctor = train(tmp_path, sinks=[Broken()])
    assert [failure.probe for failure in doctor.diagnosis().probe_failures] == ["sink broken"]
    assert doctor.step == 30


def test_training_is_bit_identical_with_a_sink(tmp_path: Path) -> None:
    with_sink, without = train(tmp_path / "a", sinks=[Notebook()]), train(tmp_path / "b", sinks="off")
    assert all(torch.equal(a, b) for a, b in zip(with_sink.trained, without.trained, strict=True))


def test_a_tracker_is_found_also_where_its_run_begins_after_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Notebook()
    looked: list[int] = []

    def active(failed: object = None) -> list[Any]:
        looked.append(1)
        return [book] if len(looked) > 1 else []

    monkeypatch.setattr("nndoctor.doctor.active_sinks", active)
    train(tmp_path)
    assert len(looked) == 2
    assert book.rows


def test_nothing_is_looked_for_where_sinks_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nndoctor.doctor.active_sinks", lambda failed: pytest.fail("looked"))
    train(tmp_path, steps=3, sinks="off")


class Point:
    """An entry point of another package."""

    def __init__(self, name: str, load: Any) -> None:
        self.name, self.load = name, load


def test_another_package_can_publish_a_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Notebook()
    published = type("Published", (), {"active": classmethod(lambda cls: book)})
    monkeypatch.setattr(sinks, "FIND_THEMSELVES", ())
    monkeypatch.setattr(sinks, "entry_points", lambda group: [Point("theirs", lambda: published)] if group == "nndoctor.sinks" else [])
    assert sinks.active_sinks() == [book]


def test_a_published_sink_that_cannot_be_loaded_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no module named theirs")

    failures: list[str] = []
    monkeypatch.setattr(sinks, "FIND_THEMSELVES", ())
    monkeypatch.setattr(sinks, "entry_points", lambda group: [Point("theirs", load)])
    assert sinks.active_sinks(lambda where, error: failures.append(f"{where}: {error}")) == []
    assert failures == ["sink theirs: no module named theirs"]


def test_only_the_first_of_several_processes_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(sinks, "entry_points", lambda group: pytest.fail("asked"))
    assert sinks.active_sinks() == []


def test_looking_for_trackers_imports_none() -> None:
    import subprocess
    import sys

    code = "import sys, nndoctor.sinks as s; s.active_sinks(); sys.exit(any(m in sys.modules for m in ('wandb', 'mlflow', 'trackio', 'opentelemetry', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
