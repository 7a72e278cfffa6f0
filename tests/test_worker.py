"""The doctor's own thread: what stays on the screen when it ends, and what the record knows while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nndoctor.findings import Diagnosis
from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.reports.panel import PanelState
from nndoctor.rules import Judge
from nndoctor.rules.loading import load_text
from nndoctor.signals import Frame, Targets
from nndoctor.worker import Worker

RULES = "version: 1\nname: none\nrules:\n  - {id: huge, severity: error, scope: run, when: loss > 1e9, message: huge}\n"


class OnceDue:
    """A display that has had its redraw: nothing more is due, however much happens."""

    def __init__(self) -> None:
        self.shown: list[PanelState] = []
        self.closed_after = -1

    def due(self) -> bool:
        return not self.shown

    def show(self, state: PanelState) -> None:
        self.shown.append(state)

    def close(self, final: Diagnosis | None) -> None:
        self.closed_after = len(self.shown)


def frames(count: int) -> Iterator[Frame]:
    for step in range(1, count + 1):
        yield Frame(step, float(step), None, {"loss": np.float32([step])})


def worker(display: OnceDue, writer: RecordWriter | None = None) -> Worker:
    def fail(where: str, error: Exception) -> None:
        raise AssertionError(where) from error

    return Worker(Judge(load_text(RULES), Targets()), writer, display, "run", fail)


def test_the_last_picture_is_that_of_the_last_step() -> None:
    display = OnceDue()
    thread = worker(display)
    for frame in frames(40):
        thread.put([frame])
    thread.close("finished")
    assert display.shown[0].step == 1
    last = display.shown[-1]
    assert (last.step, last.curves[0].value) == (40, 40.0)
    assert display.closed_after == len(display.shown)


def test_a_panel_that_was_never_shown_is_not_begun_at_the_end() -> None:
    display = OnceDue()
    worker(display).close("finished")
    assert display.shown == []


def test_the_record_of_a_run_that_goes_on_has_the_lines_of_the_loop(tmp_path: Path) -> None:
    thread = worker(OnceDue(), RecordWriter(tmp_path / "run", RunFacts("run", 1.0, {}), Targets()))
    places = {"backward": [{"file": "train.py", "line": 53, "code": "loss.backward()"}]}
    thread.facts = {"places": places}
    thread.put(list(frames(1)))
    assert thread.drain()
    assert thread.writer is not None
    thread.writer.flush()
    with RecordReader(tmp_path / "run") as reader:
        assert (reader.status, reader.facts.facts["places"]) == ("running", places)
    thread.close("finished")
