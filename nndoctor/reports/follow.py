"""A run read from its record, as it is now and as it goes on: what ``watch`` shows, without a screen."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nndoctor.findings import Diagnosis, Finding, NotExamined, ProbeFailure, Severity, ordered, taken_for, with_places
from nndoctor.history import History
from nndoctor.packaged import full_catalogue
from nndoctor.record import RecordReader
from nndoctor.reports.panel_data import PanelState, panel_state
from nndoctor.signals import AXES, Targets

PROBE_FAILURE = "probe-failure"
"""Kind of the events that tell of a dismissed probe; their text is ``probe: error``."""

PATIENCE = 0.3
"""Seconds that one look at a record may take; a long record is read in several looks."""

SPEED_WINDOW = 30.0
"""Seconds over which the speed is taken."""


class Follower:
    """Follows the run in `folder`. Reads only what is new; the newest frame wins over a complete past.

    Raises:
        RecordError: there is no run record in `folder`.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = Path(folder)
        self._clock = clock
        self._reader = RecordReader(self.folder)
        self._times: deque[tuple[int, float]] = deque()
        self._catalogue = full_catalogue(self._reader.published)
        self.history = History(Targets(), self._catalogue)
        self.findings: tuple[Finding, ...] = ()
        self.behind = False
        """True while more frames wait to be read."""

    def close(self) -> None:
        self._reader.close()

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read of the record, as far as it was read."""
        return tuple(self._reader.problems)

    def look(self, patience: float | None = PATIENCE) -> PanelState:
        """What the record holds now. With `patience` in seconds, frames beyond it wait for the next look."""
        self._read_frames(patience)
        facts = self._reader.facts
        known = facts.facts
        places = known.get("places")
        found = ordered(self._reader.findings())
        self.findings = tuple(with_places(finding, places) for finding in found) if isinstance(places, Mapping) else found
        rules = _count(known.get("rules_loaded"))
        diagnosis = Diagnosis(
            findings=self.findings,
            not_examined=_not_examined(known.get("not_examined")),
            probe_failures=self._probe_failures(),
            steps=max(self.history.step, self._reader.last_step),
            rules=rules or 0,
            layers=self.history.targets.modules,
            facts={"taken_for": taken_for(known)},
        )
        state = panel_state(
            self.history,
            diagnosis,
            name=facts.name,
            planned_steps=_count(known.get("planned_steps")),
            steps_per_second=self._speed(),
            overhead=self._overhead(known),
            pending=_count(known.get("pending")) or 0,
            status=self._reader.status,
            published=self._reader.published,
        )
        if rules is None:  # what is not recorded is not known: say neither that rules passed nor how many there were
            silent = not any(f.severity > Severity.INFO and f.suppressed is None for f in self.findings)
            verdict = f"No problems found in {diagnosis.steps} step{'s' * (diagnosis.steps != 1)}." if silent else diagnosis.verdict
            state = replace(state, rules_ok=None, not_examined=None, verdict=verdict)
        return state

    def _read_frames(self, patience: float | None) -> None:
        targets = self._reader.targets
        known = self.history.targets
        if targets != known and all(targets.size(axis) >= known.size(axis) for axis in AXES):
            self.history.grow(targets)
        if any(signal.name not in self._catalogue for signal in self._reader.published):
            self.history.catalogue = self._catalogue = full_catalogue(self._reader.published)
        until = None if patience is None else self._clock() + patience
        self.behind = False
        for frame in self._reader.frames(self._reader.position, self._catalogue):
            self.history.append(frame)
            self._times.append((frame.step, frame.time))
            if until is not None and self._clock() > until:
                self.behind = True
                break
        while self._times and self._times[-1][1] - self._times[0][1] > SPEED_WINDOW:
            self._times.popleft()

    def _probe_failures(self) -> tuple[ProbeFailure, ...]:
        failures = (event for event in self._reader.events() if event.kind == PROBE_FAILURE)
        parts = ((event.step, *event.text.partition(": ")) for event in failures)
        return tuple(ProbeFailure(probe, step, error) for step, probe, _, error in parts)

    def _speed(self) -> float | None:
        if len(self._times) < 2:
            return None
        (first, began), (last, ended) = self._times[0], self._times[-1]
        return (last - first) / (ended - began) if ended > began and last > first else None

    def _overhead(self, known: Mapping[str, Any]) -> float | None:
        """As the run says, which says nothing of its first steps; in records without it the doctor's part of the recent step times."""
        if "overhead" in known:
            told = known["overhead"]
            return float(told) if isinstance(told, (int, float)) and not isinstance(told, bool) else None
        if not {"step.doctor", "step.time"} <= set(self.history.measured()):
            return None
        ours, all_of_it = (self.history.tail(name, 64)[1] for name in ("step.doctor", "step.time"))
        total = float(np.nanmean(all_of_it)) if np.isfinite(all_of_it).any() else 0.0
        return float(np.nanmean(ours)) / total if total > 0 and np.isfinite(ours).any() else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _not_examined(value: object) -> tuple[NotExamined, ...]:
    """From ``[{"rule": ..., "reason": ...}, ...]``; empty for anything else."""
    rows = value if isinstance(value, (list, tuple)) else ()
    return tuple(
        NotExamined(str(row["rule"]), str(row.get("reason", "")))
        for row in rows
        if isinstance(row, Mapping) and "rule" in row
    )
