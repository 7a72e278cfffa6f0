"""A thread that feeds the sinks: a slow or broken tracker costs neither the training nor the diagnosis anything."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from nndoctor.findings import Diagnosis, Finding
from nndoctor.signals import Frame
from nndoctor.sinks.base import Sink, main_values

SEND_SECONDS = 1.0
"""Seconds of training between two values of a curve: the slowest of the trackers takes 4 ms for one (MLflow's files)."""

QUEUE_LENGTH = 256
STRIKES = 3
"""Failures after which a sink is left alone."""

CLOSE_SECONDS = 10.0
"""How long the end of a run waits for what was not sent yet."""

Message: TypeAlias = Callable[[Sink], None]


class Sender:
    """Collects the main curves of a run and hands them to sinks, at most once in `SEND_SECONDS`.

    Args:
        failed: told of what went wrong, as (where, error); each sink's first failure only.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self.sinks: list[Sink] = []
        self.dropped = 0
        self._failed = failed
        self._strikes: dict[int, int] = {}
        self._values: dict[str, float] = {}
        self._step = 0
        self._sent: float | None = None
        self._active: dict[str, Finding] = {}
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE_LENGTH)
        self._thread: threading.Thread | None = None

    def add(self, sinks: Iterable[Sink]) -> None:
        """Send to these, too; what they are told begins here."""
        for sink in sinks:
            if all(type(sink) is not type(known) for known in self.sinks):
                self.sinks.append(sink)
        if self.sinks and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nndoctor-sinks", daemon=True)
            self._thread.start()

    def frame(self, frame: Frame) -> None:
        """Take note of a frame; called in the doctor's thread."""
        values = main_values(frame)
        if not values:
            return
        self._values.update(values)
        self._step = frame.step
        if self._sent is None or frame.time - self._sent >= SEND_SECONDS or "val.loss" in values:
            self._sent = frame.time
            self._send_values()

    def _send_values(self) -> None:
        step, values = self._step, dict(self._values)
        self._values.clear()
        if values:
            self._put(lambda sink: sink.signals(step, values))

    def findings(self, findings: Sequence[Finding]) -> None:
        """Take the present findings; those that began or ended since are sent."""
        active = {f.rule: f for f in findings if f.state in ("firing", "clearing") and f.suppressed is None}
        before, self._active = self._active, active
        changed = [f for rule, f in active.items() if rule not in before]
        changed += [f for f in findings if f.rule in before and f.rule not in active]
        for finding in changed:
            self._put(lambda sink, finding=finding: sink.finding(finding))  # type: ignore[misc]

    def close(self, diagnosis: Diagnosis) -> None:
        """Send what is left and the verdict; what takes longer than `CLOSE_SECONDS` is given up, and told."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._send_values()
        self._put(lambda sink: sink.close(diagnosis))
        self._put(None)
        thread.join(CLOSE_SECONDS)
        if thread.is_alive():
            error = TimeoutError(f"not everything was sent within {CLOSE_SECONDS:g} s after the end")
            self._failed(f"sink {', '.join(sink.name for sink in self.sinks)}", error)

    def _put(self, message: Message | None) -> None:
        try:
            self._queue.put_nowait(message)
        except queue.Full:  # the tracker hangs: the oldest is of least use now
            self.dropped += 1
            try:
                self._queue.get_nowait()
                self._queue.put_nowait(message)
            except (queue.Empty, queue.Full):
                self.dropped += 1

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            for sink in tuple(self.sinks):
                self._deliver(sink, message)

    def _deliver(self, sink: Sink, message: Message) -> None:
        strikes = self._strikes.get(id(sink), 0)
        if strikes >= STRIKES:
            return
        try:
            message(sink)
        except Exception as error:
            self._strikes[id(sink)] = strikes + 1
            if not strikes:
                self._failed(f"sink {sink.name}", error)
