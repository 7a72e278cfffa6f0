"""The panel for log files: one greppable ``nndoctor key=value ...`` line per change, and one status line a minute.

    nndoctor event=finding run=a3f1 step=8024 severity=error finding=learning-rate-too-high since=8020 fix="lr=2e-4"
    nndoctor event=status run=a3f1 step=8140 planned=50000 loss=2.91 lr=0.003 grad_norm=48.2 rules_ok=55 findings=3

Keys never change their meaning, absent means not known, and values with blanks are quoted as in JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TextIO

from nndoctor.findings import Diagnosis
from nndoctor.reports.bars import bars_are_open, said_by_rich
from nndoctor.reports.panel_data import FindingLine, PanelState, with_diagnosis
from nndoctor.reports.text_safety import clean, to_ascii

STATUS_INTERVAL = 60.0
"""Seconds between two status lines."""

_CURVE_KEYS = {"loss": "loss", "lr": "lr", "grad": "grad_norm", "update_ratio": "update_ratio"}
_NO_KEY = re.compile(r"[^\w.-]")
_BARE = re.compile(r"[^\s\"'=\\]+")


class LinesDisplay:
    """Writes lines to `stream` (stderr by default), each of them complete and on a line of its own."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pid = os.getpid()
        self._state: PanelState | None = None
        self._told: dict[str, FindingLine] = {}
        self._failures: set[str] = set()
        self._status_at = -1e9
        self._closed = False

    def due(self) -> bool:
        """Always: a change of the findings is told when it happens."""
        return not self._closed

    def show(self, state: PanelState) -> None:
        if self._closed or os.getpid() != self._pid:
            return
        self._state = state
        lines = list(self._changes(state))
        if self._clock() - self._status_at >= STATUS_INTERVAL:
            self._status_at = self._clock()
            lines.append(status_line(state))
        self._write(lines)

    def close(self, final: Diagnosis | None) -> None:
        """The last changes and a line with the verdict. Safe to call twice."""
        if self._closed or os.getpid() != self._pid:
            return
        state = self._state
        if final is not None:
            state = with_diagnosis(state or PanelState(name=""), final)
        if state is not None:
            self._write([*self._changes(state), end_line(state)])
        self._closed = True

    def _changes(self, state: PanelState) -> Iterator[str]:
        """A line for each finding that is new, worse, better, explained or over since it was last told."""
        for finding in state.findings:
            before = self._told.get(finding.rule)
            if before is None or _gist(before) != _gist(finding):
                yield finding_line(state, finding)
            self._told[finding.rule] = finding
        for probe in state.probe_failures:
            if probe not in self._failures:
                self._failures.add(probe)
                yield key_values("probe-dismissed", run=state.name, step=state.step, probe=probe)

    def _write(self, lines: list[str]) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        if not lines or stream is None:
            return
        text = "".join(line + "\n" for line in lines)
        if not (getattr(stream, "encoding", None) or "").lower().startswith("utf"):
            text = "".join(to_ascii(line) + "\n" for line in lines)
        with contextlib.suppress(OSError, ValueError):  # a closed or full log must not stop the training
            if said_by_rich(text, stream):
                return
            _flush_shared(stream)
            stream.write(text if at_line_start(stream) else "\n" + text)
            stream.flush()


def status_line(state: PanelState) -> str:
    """The run in numbers."""
    curves = {_CURVE_KEYS[c.key]: "nan" if c.nonfinite else c.value for c in state.curves}
    return key_values(
        "status",
        run=state.name,
        step=state.step,
        planned=state.planned_steps,
        **curves,
        steps_per_second=state.steps_per_second,
        overhead=state.overhead,
        **{f"own.{_NO_KEY.sub('_', curve.signal)}": curve.value for curve in state.own},
        rules_ok=state.rules_ok,
        pending=state.pending,
        findings=sum(f.speaks and f.state != "cleared" for f in state.findings),
        root_causes=len(state.causes),
    )


def finding_line(state: PanelState, finding: FindingLine) -> str:
    """One finding, with its place and its remedy."""
    return key_values(
        "cleared" if finding.state == "cleared" else "acknowledged" if finding.suppressed is not None else "finding",
        run=state.name,
        step=state.step,
        severity=finding.severity,
        finding=finding.rule,
        diagnosis=finding.diagnosis if finding.diagnosis != finding.rule else None,
        since=finding.since,
        confidence=finding.confidence,
        targets=len(finding.targets) or None,
        first_target=finding.targets[0] if finding.targets else None,
        explained_by=finding.cause,
        fix=finding.fix or None,
        message=finding.message or None,
    )


def end_line(state: PanelState) -> str:
    """How the run ended, with the verdict in words."""
    return key_values(
        "end",
        run=state.name or None,
        step=state.step,
        findings=sum(f.speaks for f in state.findings),
        root_causes=len(state.causes) + len(state.recovered),
        verdict=state.verdict,
    )


def key_values(event: str, **values: object) -> str:
    """``nndoctor event=... key=value ...`` without the keys whose value is None.

    >>> key_values("status", step=3, loss=0.25, run="my run", lr=None)
    'nndoctor event=status step=3 loss=0.25 run="my run"'
    """
    pairs = {"event": event, **{key: value for key, value in values.items() if value is not None}}
    return "nndoctor " + " ".join(f"{key}={_plain(value)}" for key, value in pairs.items())


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = clean(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _gist(finding: FindingLine) -> FindingLine:
    """What makes a finding worth telling again: not that it goes on, nor that one more layer has it."""
    state = "cleared" if finding.state == "cleared" else "firing"
    return replace(finding, state=state, since=0, until=0, targets=(), place_word="", message="", fix="", fix_confidence="")


def at_line_start(stream: TextIO) -> bool:
    """Whether the next character stands at the beginning of a line, as far as that can be known.

    A file tells by its last byte. A terminal or a pipe does not; there, a progress bar of tqdm is what leaves a line
    open, and tqdm knows its bars.
    """
    try:
        descriptor = stream.fileno()
        status = os.fstat(descriptor)
    except (OSError, ValueError, AttributeError):
        return not bars_are_open()
    if not stat.S_ISREG(status.st_mode):
        return not bars_are_open()
    if status.st_size == 0:
        return True
    try:
        with open(f"/dev/fd/{descriptor}", "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:
        return not bars_are_open()


def _flush_shared(stream: TextIO) -> None:
    """Let out what the program has printed so far where its stdout goes to the same file, lest we split a line of it."""
    out = sys.stdout
    if out is None or out is stream:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        if os.path.sameopenfile(out.fileno(), stream.fileno()):
            out.flush()
