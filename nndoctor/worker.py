"""The doctor's own thread: turns payloads into frames, judges them, records them, shows them.

The training thread only puts payloads into a bounded queue. When the queue is full, a payload is
dropped and counted: the training never waits for the doctor.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

from nndoctor.findings import Diagnosis, Finding, ProbeFailure
from nndoctor.frames import Payload, Stretch, unpack
from nndoctor.record import RecordWriter
from nndoctor.reports.panel import PanelState, panel_state
from nndoctor.reports.panel_data import OWN_SHOWN, PANEL_SIGNALS
from nndoctor.rules import Judge
from nndoctor.signals import Frame, Signal, Targets
from nndoctor.tiles import Stamps, signals_of_many

QUEUE_LENGTH = 1024
SHOW_INTERVAL = 0.5
"""Seconds between two redraws of the panel; it looks no more often than twice a second."""

NOTE_INTERVAL = 5.0
"""Seconds between two notes for those who watch: each costs a millisecond or two."""


class Display(Protocol):
    def due(self) -> bool: ...

    def show(self, state: PanelState) -> None: ...

    def close(self, final: Diagnosis | None) -> None: ...


@dataclass(frozen=True)
class Pace:
    """What the panel says about speed and cost, handed over by the training thread."""

    steps_per_second: float | None = None
    overhead: float | None = None
    planned_steps: int | None = None


Step: TypeAlias = Payload | Stretch | Frame
Work: TypeAlias = Sequence[Step] | Callable[[], None] | None


class Worker:
    """Judges, records and shows, in a daemon thread of its own.

    Args:
        judge: the engine; only this thread feeds it.
        writer: the record, None to keep none.
        display: where the panel goes.
        name: of the run, for the panel.
        failed: told of an exception in this thread as (where, error).
    """

    def __init__(
        self,
        judge: Judge,
        writer: RecordWriter | None,
        display: Display,
        name: str,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.judge = judge
        judge.keep_only_what_is_needed(PANEL_SIGNALS)  # the record has the rest
        self.writer = writer
        self.display = display
        self.name = name
        self.dropped = 0
        self.pace = Pace()
        self.seconds: dict[str, float] = {"judging": 0.0, "writing": 0.0, "showing": 0.0}
        self.facts: Mapping[str, Any] = {}
        self.probe_failures: Sequence[ProbeFailure] = ()
        self.on_findings: Callable[[Sequence[Finding]], None] | None = None
        self.on_frame: Callable[[Frame], None] | None = None
        self._published: tuple[Signal, ...] = ()
        self._failed = failed
        self._queue: queue.Queue[Work] = queue.Queue(QUEUE_LENGTH)
        self._shown = self._noted = 0.0
        self._targets: Targets = judge.history.targets
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="nndoctor", daemon=True)
        self._thread.start()

    def put(self, steps: Sequence[Step]) -> bool:
        """Hand over some steps; False if the queue was full and they were dropped."""
        try:
            self._queue.put_nowait(steps)
        except queue.Full:
            self.dropped += sum(len(step) if isinstance(step, Stretch) else 1 for step in steps)
            return False
        return True

    def show_also(self, published: Sequence[Signal]) -> None:
        """Let the panel show the first few signals that subscribers of the run publish."""
        with suppress(queue.Full):  # the panel lacks a line; a training must not wait for that
            self._queue.put_nowait(lambda: self._keep(published))

    def _keep(self, published: Sequence[Signal]) -> None:
        self._published = (*self._published, *published)
        for signal in self._published[:OWN_SHOWN]:
            self.judge.history.series(signal.name)

    def drain(self, timeout: float = 60.0) -> bool:
        """Wait until everything handed over so far is judged and written; False after `timeout` seconds."""
        if not self._thread.is_alive():
            return True
        done = threading.Event()
        try:
            self._queue.put(done.set, timeout=timeout)
        except queue.Full:
            return False
        return done.wait(timeout)

    def diagnosis(self) -> Diagnosis:
        """The present diagnosis, after everything handed over so far."""
        self.drain()
        with self._lock:
            return self.judge.diagnosis(self.facts, self.probe_failures)

    def close(self, status: Literal["finished", "crashed"]) -> Diagnosis:
        """Judge and write what is left, end the thread, close record and panel."""
        self.drain()
        self._queue.put(None)
        self._thread.join(timeout=60.0)
        diagnosis = self.judge.diagnosis(self.facts, self.probe_failures)
        if self.writer is not None:
            self.writer.facts({**self.facts, **self._state_of_judging()})
            self.writer.findings(diagnosis.findings)
            self.writer.close(status)
        if self._shown:  # the picture that stays is that of the last step, not of up to a redraw before it
            try:
                self.display.show(self._state(diagnosis))
            except Exception as error:
                self._failed("showing", error)
        self.display.close(diagnosis)
        return diagnosis

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            if callable(work):
                work()
                continue
            try:
                with self._lock:
                    self._take(work)
            except Exception as error:
                self._failed("judging", error)

    def _take(self, steps: Sequence[Step]) -> None:
        """Judge, record and show some steps; one that cannot be judged does not keep the others from it."""
        begun = time.thread_time()
        changed = False
        news: list[Frame | Targets] = []
        for step in steps:
            try:
                changed |= self._judge(step, news)
            except Exception as error:
                self._failed("judging", error)
        judged = time.thread_time()
        if self.writer is not None:
            for thing in news:
                if isinstance(thing, Frame):
                    self.writer.frame(thing)
                else:
                    self.writer.targets(thing)
            if changed:
                self.writer.findings(self.judge.findings())
        written = time.thread_time()
        self._tell_others(news, changed)
        self._note()
        self._show(changed)
        self.seconds["judging"] += judged - begun
        self.seconds["writing"] += written - judged
        self.seconds["showing"] += time.thread_time() - written

    def _tell_others(self, news: Sequence[Frame | Targets], changed: bool) -> None:
        """Tell sinks and callbacks; what fails there is noted, and the judging goes on."""
        try:
            if changed and self.on_findings is not None:
                self.on_findings(self.judge.diagnosis(self.facts).findings)
            if self.on_frame is not None:
                for thing in news:
                    if isinstance(thing, Frame):
                        self.on_frame(thing)
        except Exception as error:
            self._failed("telling others", error)

    def _judge(self, step: Step, news: list[Frame | Targets]) -> bool:
        """Judge one step or stretch and add to `news` what is to be recorded of it; True if a finding changed."""
        if isinstance(step, Payload):
            if step.targets is not self._targets:
                self._targets = step.targets
                self.judge.grow(step.targets)
                news.append(step.targets)
            stamps: Sequence[Stamps] = () if step.stamps is None else (step.stamps,)
            step = unpack(step)
        else:
            stamps = step.stamps if isinstance(step, Stretch) else ()
        changed = False
        first = len(news)
        for frame in step.frames() if isinstance(step, Stretch) else (step,):
            changed |= self.judge.feed(frame)
            news.append(frame)
        if stamps:
            self._add_times(news, first, stamps)
        return changed

    def _add_times(self, news: list[Frame | Targets], first: int, stamps: Sequence[Stamps]) -> None:
        """Let the record have where the time of these steps went: the rules judge the sampled steps, as they always do."""
        times = signals_of_many(stamps, len(self._targets.layers), len(self._targets.groups))
        for number, more in enumerate(times, start=first):
            frame = news[number]
            assert isinstance(frame, Frame)
            news[number] = Frame(frame.step, frame.time, frame.epoch, {**frame.values, **more})

    def _note(self) -> None:
        """Record what ``watch`` cannot read off the frames, every few seconds."""
        now = time.monotonic()
        if self.writer is not None and now - self._noted > NOTE_INTERVAL:
            self._noted = now
            self.writer.facts(self._state_of_judging())

    def _state_of_judging(self) -> dict[str, Any]:
        return {
            "rules_loaded": len(self.judge.ruleset.rules),
            "pending": self.judge.pending(),
            "not_examined": [asdict(rule) for rule in self.judge.not_examined()],
            "overhead": self.pace.overhead,
            "planned_steps": self.pace.planned_steps,
            "taken_for": list(self.facts.get("taken_for", ())),
            "places": dict(self.facts.get("places", {})),  # a run that is killed has its lines, too
        }

    def _show(self, changed: bool) -> None:
        now = time.monotonic()
        if not self.display.due() or (now - self._shown < SHOW_INTERVAL and not changed):
            return
        self._shown = now
        self.display.show(self._state(self.judge.diagnosis(self.facts, self.probe_failures)))

    def _state(self, diagnosis: Diagnosis) -> PanelState:
        """What the panel shows, as of now."""
        return panel_state(
            self.judge.history,
            diagnosis,
            name=self.name,
            planned_steps=self.pace.planned_steps,
            steps_per_second=self.pace.steps_per_second,
            overhead=self.pace.overhead,
            pending=self.judge.pending(),
            status="running",
            published=self._published,
        )
