"""Recorded runs and rulesets that the commands work on; no model and no torch in any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nndoctor.cli.main import main
from nndoctor.findings import Finding, Severity
from nndoctor.record import RecordWriter, RunFacts
from nndoctor.signals import Frame, Targets

HOSTILE = "</script><img src=x onerror=alert(1)>[/x]\x1b[31m"

RULES = """\
version: 1
name: mine
rules:
  - id: loss-stays-high
    renamed_from: [loss-too-high]
    diagnosis: learning-rate-too-low
    title: Look at the loss
    severity: warning
    scope: run
    params: {limit: 5}
    when: loss > limit
    message: "loss is {loss:.3g}"
    fixes:
      - title: Raise the learning rate
        set: {lr: "nice(lr * 10)"}
  - id: layer-is-loud
    severity: error
    scope: layer
    when: act.rms > 100
    message: "{layer} is loud"
tests:
  - name: a high loss is named
    series: {loss: 9.0 x50}
    expect:
      - {rule: loss-stays-high, fires_in: [1, 50]}
"""


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def verdict(self) -> str:
        return self.out.rstrip("\n").rpartition("\n")[2]


Command = Callable[..., Answer]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    for name in ("RUN_ROOT", "RULES", "UI", "BUDGET", "CADENCE", "FAIL_ON", "DEBUG"):
        monkeypatch.delenv(f"NNDOCTOR_{name}", raising=False)
    return tmp_path


@pytest.fixture
def nndoctor(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: ``nndoctor("ls", "--json")``."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def rules(here: Path) -> Path:
    path = here / "mine.yaml"
    path.write_text(RULES)
    return path


def record(
    folder: Path, *, loss: float = 2.0, steps: int = 60, name: str = "lenet", started: float = 1e9, rules: Path
) -> Path:
    """A finished run of `steps` steps whose loss is always `loss` and whose one layer has a hostile name."""
    finding = Finding("loss-stays-high", "learning-rate-too-low", Severity.WARNING, "high", (), 1, steps)
    targets = Targets(layers=(HOSTILE,), layer_kinds=("Linear",), layer_depths=(0,))
    with RecordWriter(folder, RunFacts(name, started, {"model": HOSTILE}, (str(rules),)), targets) as writer:
        for step in range(1, steps + 1):
            values = {"loss": np.float32([loss]), "lr": np.float32([0.001]), "act.rms": np.float32([loss * 20])}
            writer.frame(Frame(step, started + step, step / 10, values))
        if loss > 5:
            writer.findings([finding])
    assert writer.failure is None
    return folder


@pytest.fixture
def healthy(here: Path, rules: Path) -> Path:
    return record(here / ".nndoctor/runs/20240101-healthy", rules=rules)


@pytest.fixture
def sick(here: Path, rules: Path) -> Path:
    return record(here / ".nndoctor/runs/20240102-sick", loss=9.0, name=f"sick {HOSTILE}", started=2e9, rules=rules)
