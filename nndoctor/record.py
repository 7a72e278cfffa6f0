"""The run record: what was measured and found, kept on disk as the run goes, and read back by anybody at any time.

`RecordWriter` takes frames from the training thread and hands them to a thread of its own, which writes them in small
transactions. The training thread never waits for the disk and never sees an error of the disk. `RecordReader` reads a
record while it is written, after the process was killed, and as far as it goes when it is damaged. The format is told
in `record_format`; two storages keep it, `record_sqlite` (the normal one) and `record_segments` (network file systems).
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from nndoctor import record_segments, record_sqlite
from nndoctor.acknowledged import marked, read_acknowledged
from nndoctor.findings import Finding, Severity
from nndoctor.record_format import (
    Entry,
    Layout,
    RecordError,
    Source,
    Storage,
    decode_frame,
    encode_frame,
    encode_json,
    layout_of,
)
from nndoctor.record_thinning import FACT, LARGEST, ROWS, Thinning
from nndoctor.signals import PUBLISHED, Catalogue, Frame, Signal, Targets

__all__ = [
    "Event",
    "RecordError",
    "RecordReader",
    "RecordWriter",
    "RunFacts",
    "RunSummary",
    "Status",
    "StorageName",
    "find_run",
    "list_runs",
    "new_run_folder",
    "run_folder_name",
    "storage_for",
]

Status: TypeAlias = Literal["running", "finished", "crashed", "killed"]
StorageName: TypeAlias = Literal["sqlite", "segments"]

RUN_ROOT = Path(".nndoctor/runs")

COMMIT_INTERVAL = 0.2
"""Seconds between two transactions; the first frame after a pause is written at once."""

THINNING_SECONDS = 0.05
"""Longest that the writing thread stays away from its queue to thin the past of a long run, between two transactions."""

HEARTBEAT = 5.0
"""Seconds between two signs of life of an idle run."""

SILENT_TOO_LONG = 60.0
"""Seconds without a sign of life after which a run on another machine is taken for dead."""

ROOM_TO_LEAVE = 256 << 20
"""Bytes of disk that the record leaves to the user's checkpoints: it stops before it takes them."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs3", "nfs4", "lustre", "cifs", "smb3", "smbfs", "afs", "ceph", "gpfs", "beegfs", "9p", "glusterfs"}
    | {"orangefs", "pvfs2", "davfs", "davfs2", "ncpfs"}
)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run is.

    Args:
        name: what the user calls it.
        started: seconds since the epoch.
        facts: whatever is worth knowing and fits JSON: model, optimizer, loss, versions.
        rules: the rulesets it is judged by.
    """

    name: str
    started: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the run besides its measurements: a probe that failed, a note, the crash."""

    step: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs. `problem` says why the rest is not known, None for a readable record."""

    folder: Path
    name: str
    status: Status | None
    started: float
    last_step: int
    worst: Severity | None
    findings: tuple[Finding, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """Which process writes a record, told without its host's name.

    `machine` is the boot id and the process namespace of the kernel: process ids mean something only where both are
    the same. Empty strings where the system does not tell.
    """

    pid: int
    started: str
    machine: str


class RecordWriter:
    """Keeps a run in `folder`, which must not hold another run.

    For one producing thread. No method blocks on the disk or raises because of it: a failure is told once by
    `failure`, and from then on nothing is recorded. In a forked child every method does nothing. The arrays of a frame
    must not be changed after it was handed over.

    Args:
        folder: made if it does not exist.
        facts, targets: what is known at the start; both can be added to.
        capacity: entries that may wait for the disk; what comes beyond is dropped and counted.
        storage: ``sqlite`` or ``segments``; by default what the file system of `folder` can carry.
        limit: bytes of frames after which the past of a long run is thinned (`record_thinning`).
    """

    def __init__(
        self,
        folder: Path,
        facts: RunFacts,
        targets: Targets,
        *,
        capacity: int = 1024,
        storage: StorageName | None = None,
        limit: int = LARGEST,
    ) -> None:
        self.folder = Path(folder)
        self.dropped = 0
        self.failure: str | None = None
        self.acknowledged = 0
        """The last step that survives a kill -9."""
        self._capacity = capacity
        self._choice = storage
        self._pid = os.getpid()
        self._queue: deque[_Item] = deque()
        self._in_hand: list[_Item] = []
        self._wake = threading.Event()
        self._idle = False
        self._closing = False
        self._layouts: dict[Layout, int] = {}
        self._thinning = Thinning(limit)
        self._told: Mapping[str, Any] | None = None
        self._beaten = float("-inf")
        self._ready = threading.Event()
        about = {
            "name": facts.name,
            "started": facts.started,
            "rules": list(facts.rules),
            "status": "running",
            "process": _mark_fields(own_process()),
            "heartbeat": time.time(),
        }
        self._queue.extend((("run", about), ("facts", dict(facts.facts)), ("targets", targets)))
        # The connection lives in the thread's own frame, so that a forked child cannot close it by accident.
        self._thread = threading.Thread(target=self._work, name="nndoctor-record", daemon=True)
        self._thread.start()
        self._ready.wait(10.0)  # the file exists when we return; a hanging disk costs ten seconds once

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("finished" if kind is None else "crashed")

    def frame(self, frame: Frame) -> bool:
        """Queues `frame`. False if it was dropped, because the queue is full or recording has stopped."""
        return self._put(("frame", frame), self._capacity)

    def targets(self, targets: Targets) -> None:
        """The targets from the next frame on; they only grow at the end."""
        self._put(("targets", targets), 2 * self._capacity)

    def findings(self, findings: Sequence[Finding]) -> None:
        """The full list of findings as of now; replaces the former."""
        self._put(("findings", tuple(findings)), 2 * self._capacity)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """More facts about the run; a known key gets the new value."""
        self._put(("facts", dict(facts)), 2 * self._capacity)

    def event(self, step: int, kind: str, text: str) -> None:
        self._put(("event", Event(step, kind, text)), 2 * self._capacity)

    def flush(self, timeout: float = 30.0) -> None:
        """Returns when everything queued so far is on disk, recording has failed, or `timeout` seconds are over."""
        if self._is_inert():
            return
        written = threading.Event()
        self._queue.append(("flush", written))
        self._wake.set()
        if self._thread.is_alive():
            written.wait(timeout)

    def close(self, status: Literal["finished", "crashed"] = "finished", timeout: float = 30.0) -> None:
        """Writes what is queued, sets `status`, folds the log into the file and ends the thread. Safe to call twice."""
        if self._is_inert() or self._closing:
            return
        self._queue.append(("run", {"status": status, "ended": time.time()}))
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.failure = self.failure or f"the disk of {self.folder} did not answer for {timeout:g} s"

    def _is_inert(self) -> bool:
        return os.getpid() != self._pid

    def _put(self, item: _Item, limit: int) -> bool:
        if self._is_inert():
            return False
        if self.failure is not None or self._closing:
            return False
        waiting = len(self._queue)
        if waiting >= limit:
            self.dropped += 1
            return False
        self._queue.append(item)
        # Waking the thread at every step would make it fight for the interpreter lock: it looks by itself.
        if self._idle or waiting == self._capacity // 2:
            self._idle = False
            self._wake.set()
        return True

    def _work(self) -> None:
        """The whole life of the writing thread."""
        storage: Storage | None = None
        try:
            storage = _new_storage(self.folder, self._choice)
            self._write_until_closed(storage)
            storage.close()
        except BaseException as error:  # also MemoryError: nothing may escape into the user's training
            self.failure = _describe_failure(error, self.folder)
            if storage is not None:
                with contextlib.suppress(Exception):
                    storage.close()
        finally:
            self._ready.set()
            self._release()

    def _write_until_closed(self, storage: Storage) -> None:
        next_look_at_disk = 0.0
        while True:
            closing = self._closing  # before the queue is emptied: nothing comes after it was set
            items = self._in_hand = self._drain()
            now = time.monotonic()
            if now >= next_look_at_disk:
                _check_room(self.folder)
                next_look_at_disk = now + HEARTBEAT
            self._write(storage, items)
            self._thin(storage)
            self._ready.set()
            if closing:
                return
            if any(kind == "frame" for kind, _ in items):
                self._wake.wait(COMMIT_INTERVAL)
            else:
                self._idle = True
                if not self._queue and not self._closing:
                    self._wake.wait(HEARTBEAT)
                self._idle = False
            self._wake.clear()

    def _drain(self) -> list[_Item]:
        items: list[_Item] = []
        while self._queue:
            items.append(self._queue.popleft())
        return items

    def _write(self, storage: Storage, items: Sequence[_Item]) -> None:
        """One transaction; what is acknowledged afterwards survives the process."""
        steps = [item[1].step for item in items if item[0] == "frame"]
        entries = [entry for item in items for entry in self._entries(item) if storage.forgets or self._takes(entry)]
        if time.monotonic() - self._beaten >= HEARTBEAT or not steps:
            self._beaten = time.monotonic()
            beat = {"heartbeat": time.time(), **({"last_step": steps[-1]} if steps else {})}
            entries.append(Entry("run", 0, encode_json(beat)))
        storage.write(entries)
        if steps:
            self.acknowledged = steps[-1]
        for entry in entries:
            if entry.kind == "frame":
                self._thinning.wrote(entry.step, len(entry.data))
        for item in items:
            if item[0] == "flush":
                item[1].set()

    def _takes(self, entry: Entry) -> bool:
        return entry.kind != "frame" or self._thinning.takes(entry.step, len(entry.data))

    def _thin(self, storage: Storage) -> None:
        """Let go of a few old frames where the record has grown beyond its size, and say so in its facts."""
        thinning = self._thinning
        until = time.monotonic() + THINNING_SECONDS
        while storage.forgets and thinning.due and time.monotonic() < until:
            storage.forget(thinning.choose(storage.stored(thinning.position, ROWS)))
        if thinning.forgotten and thinning.told() != self._told:
            self._told = thinning.told()
            storage.write([Entry("facts", 0, encode_json({FACT: self._told}))])

    def _entries(self, item: _Item) -> Iterator[Entry]:
        kind, value = item
        if kind == "frame":
            layout = layout_of(value)
            number = self._layouts.get(layout)
            if number is None:
                number = self._layouts[layout] = len(self._layouts)
                yield Entry("layout", number, encode_json(layout))
            yield Entry("frame", value.step, encode_frame(value, number))
        elif kind == "targets":
            yield Entry("targets", 0, encode_json(value.to_dict()))
        elif kind == "findings":
            yield Entry("findings", 0, encode_json([finding.to_dict() for finding in value]))
        elif kind == "event":
            yield Entry("event", value.step, encode_json([value.kind, value.text]))
        elif kind in ("facts", "run"):
            yield Entry(kind, 0, encode_json({str(key): fact for key, fact in value.items()}))

    def _release(self) -> None:
        """Lets go of whoever waits in `flush` once nothing will be written any more."""
        for kind, value in (*self._in_hand, *self._drain()):
            if kind == "flush":
                value.set()


_Item: TypeAlias = "tuple[Literal['frame', 'targets', 'findings', 'facts', 'event', 'run', 'flush'], Any]"


class RecordReader:
    """Reads the run in `folder`, at any time and from any process. `problems` lists what could not be read.

    Every property and method looks at the disk anew, so one reader can follow a run that is being written.

    Raises:
        RecordError: there is no run record in `folder`, or it cannot be opened at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.position = 0
        """The number of the last frame that `frames` yielded; hand it to `frames` to go on from there."""
        self._source = _open_source(self.folder)
        self._frame_problems: list[str] = []

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read so far, one sentence each; empty for a sound record."""
        return (*self._source.problems, *self._frame_problems)

    @property
    def facts(self) -> RunFacts:
        run = self._source.run()
        return RunFacts(
            name=str(run.get("name", self.folder.name)),
            started=float(run.get("started", 0.0)),
            facts=dict(self._source.facts()),
            rules=tuple(str(name) for name in run.get("rules", ())),
        )

    @property
    def published(self) -> tuple[Signal, ...]:
        """The signals that subscribers of this run publish, as they declared them."""
        told = self._source.facts().get(PUBLISHED, ())
        names = {known.name for known in fields(Signal)}
        return tuple(Signal(**signal) for signal in told if isinstance(signal, dict) and signal.keys() <= names and "name" in signal)

    @property
    def status(self) -> Status:
        """``running`` while its process lives, ``killed`` if it went away without closing, else as it was closed."""
        return judge_status(self._source.run(), own_process(), process_started, time.time())

    @property
    def targets(self) -> Targets:
        data = self._source.targets()
        try:
            return Targets.from_dict(data)
        except (TypeError, ValueError) as error:
            self._note(f"the names of layers and parameters cannot be read ({error})")
            return Targets()

    @property
    def last_step(self) -> int:
        """The step of the newest frame, 0 before the first."""
        return self._source.last_step()

    def frames(self, after: int = 0, catalogue: Catalogue | None = None) -> Iterator[Frame]:
        """The frames with a number above `after` (the first has number 1), oldest first, until the newest of now.

        With a `catalogue`, signals that it does not know are left out and noted among the problems: the run was
        recorded by a newer version, or with a package that is not installed here.
        """
        layouts = self._source.layouts()
        for number, data in self._source.frames(after):
            try:
                frame = decode_frame(data, layouts)
            except ValueError:
                layouts = self._source.layouts()  # the writer may have added one meanwhile
                try:
                    frame = decode_frame(data, layouts)
                except ValueError as error:
                    self._note(f"frame {number} cannot be read: {error}")
                    self.position = number
                    continue
            self.position = number
            yield frame if catalogue is None else self._known(frame, catalogue)

    def _known(self, frame: Frame, catalogue: Catalogue) -> Frame:
        strange = [name for name in frame.values if name not in catalogue]
        if not strange:
            return frame
        for name in strange:
            self._note(f"the signal {name!r} is unknown here: recorded by a newer version, or by a package that is not installed")
        return replace(frame, values={name: values for name, values in frame.values.items() if name not in strange})

    def findings(self) -> tuple[Finding, ...]:
        """The findings as last written by the run, in their order; those that were acknowledged since are marked."""
        found: list[Finding] = []
        for data in self._source.findings():
            try:
                found.append(Finding.from_dict(data))
            except (TypeError, ValueError, KeyError) as error:
                self._note(f"a finding cannot be read ({error})")
        return marked(found, read_acknowledged(self.folder))

    def events(self) -> tuple[Event, ...]:
        return tuple(Event(step, kind, text) for step, kind, text in self._source.events())

    def close(self) -> None:
        self._source.close()

    def _note(self, problem: str) -> None:
        if problem not in self._frame_problems:
            self._frame_problems.append(problem)


# -- finding runs


NO_RUNS_YET = "train with nndoctor.wrap(...) or `nndoctor run -- train.py` first"


def find_run(run: str | None, root: Path = RUN_ROOT) -> Path:
    """The folder of the run that the user means.

    Args:
        run: None for the newest; otherwise a folder (or the record file in it), the name of a folder in `root`, or
            any part of such a name that only one has, or the name that a run was given (the newest of that name).

    Raises:
        RecordError: no such run, or several; the message lists the candidates.
    """
    if run is None:
        summaries = [summary for summary in list_runs(root) if summary.problem is None]
        if not summaries:
            raise RecordError(f"no runs in {root}: {NO_RUNS_YET}")
        return summaries[0].folder
    if not run:
        raise RecordError(f"expected a run, got an empty name; leave it out for the newest run in {root}")
    given = Path(run)
    folder = given.parent if given.is_file() and given.name in (record_sqlite.FILE_NAME, record_segments.FILE_NAME) else given
    if _record_file(folder) is not None:
        return folder
    names = [path.name for path in _run_folders(root)]
    matches = [name for name in names if name == run] or [name for name in names if run in name]
    if len(matches) == 1:
        return root / matches[0]
    named = [summary.folder for summary in list_runs(root) if summary.name == run]
    if named:
        return named[0]
    if matches:
        raise RecordError(f"{run!r} could be any of {_listed(matches)} in {root}: give more of the name")
    if folder.is_dir() or (root / run).is_dir():
        folder = folder if folder.is_dir() else root / run
        raise RecordError(f"{folder} holds no run record: expected {_expected_files()} in it")
    if folder.is_file():
        raise RecordError(f"{folder} is not a run: expected a run folder, or {_expected_files()} in one")
    close = difflib.get_close_matches(run, names, n=3, cutoff=0.4)
    hint = f"did you mean {_listed(close)}?" if close else f"it has {_listed(names)}" if names else NO_RUNS_YET
    raise RecordError(f"no run {run!r}: not a folder with a run record, nor the name of a run in {root}; {hint}")


def list_runs(root: Path) -> list[RunSummary]:
    """Every run in `root`, the newest first; an unreadable one carries its problem. Empty if there is no `root`."""
    return sorted(
        (_summary(folder) for folder in _run_folders(root)), key=lambda s: (s.started, s.folder.name), reverse=True
    )


def run_folder_name(name: str, started: float) -> str:
    """``<time>-<name>``, the name reduced to what every file system takes."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{plain}"


def new_run_folder(name: str, started: float, root: Path = RUN_ROOT) -> Path:
    """A fresh folder in `root`, made, with the name that `run_folder_name` gives and a number if that is taken."""
    stem = run_folder_name(name, started)
    for attempt in range(1000):
        folder = root / (stem if attempt == 0 else f"{stem}-{attempt + 1}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise RecordError(f"no free name for a run folder: {root / stem} and its 999 successors exist")


def _run_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and _record_file(path) is not None)


def _summary(folder: Path) -> RunSummary:
    try:
        with RecordReader(folder) as reader:
            facts, findings = reader.facts, reader.findings()
            return RunSummary(
                folder=folder,
                name=facts.name,
                status=reader.status,
                started=facts.started,
                last_step=reader.last_step,
                worst=max((f.severity for f in findings if f.suppressed is None), default=None),
                findings=findings,
            )
    except (RecordError, OSError) as error:
        return RunSummary(folder, folder.name, None, 0.0, 0, None, problem=str(error))


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# -- storages


def storage_for(folder: Path, mounts: str | None = None) -> StorageName:
    """``segments`` if `folder` is on a network file system, ``sqlite`` otherwise.

    Args:
        mounts: the text of ``/proc/mounts``; read from there if not given. Where there is none, ``sqlite``.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(errors="replace")
        except OSError:
            return "sqlite"
    where = str(folder.resolve())
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point hides the earlier one
            best, kind = point, fields[2]
    networked = kind in NETWORK_FILE_SYSTEMS or (kind.startswith("fuse.") and kind != "fuse.fuseblk")
    return "segments" if networked else "sqlite"


def _new_storage(folder: Path, choice: StorageName | None) -> Storage:
    folder.mkdir(parents=True, exist_ok=True)
    existing = _record_file(folder)
    if existing is not None:
        raise RecordError(f"{existing} exists already: each run needs a folder of its own")
    try:
        if (choice or storage_for(folder)) == "sqlite":
            try:
                return record_sqlite.SqliteStorage(folder)
            except record_sqlite.WalUnavailable:
                for name in (record_sqlite.FILE_NAME, record_sqlite.FILE_NAME + "-journal"):
                    (folder / name).unlink(missing_ok=True)
        return record_segments.SegmentStorage(folder)
    except FileExistsError as error:
        raise RecordError(f"{_record_file(folder) or folder} exists already: each run needs a folder of its own") from error


def _open_source(folder: Path) -> Source:
    path = _record_file(folder)
    if path is None:
        if not folder.exists():
            raise RecordError(f"{folder} does not exist: expected the folder of a run, as listed by: nndoctor ls")
        raise RecordError(f"{folder} holds no run record: expected {_expected_files()} in it")
    try:
        if path.name == record_sqlite.FILE_NAME:
            return record_sqlite.SqliteSource(path, elsewhere=storage_for(folder) == "segments")
        return record_segments.SegmentSource(path)
    except OSError as error:
        raise RecordError(f"{path} cannot be opened: {error.strerror or error}") from error


def _record_file(folder: Path) -> Path | None:
    for name in (record_sqlite.FILE_NAME, record_segments.FILE_NAME):
        if (folder / name).is_file():
            return folder / name
    return None


def _expected_files() -> str:
    return f"{record_sqlite.FILE_NAME} or {record_segments.FILE_NAME}"


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM_TO_LEAVE:
        raise OSError(f"only {free >> 20} MiB are free on its disk and the run needs them")


def _describe_failure(error: BaseException, folder: Path) -> str:
    if isinstance(error, RecordError):
        return str(error)
    reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, sqlite3.Error):
        reason = f"SQLite says {error}"
    return f"recording to {folder} stopped: {reason or type(error).__name__}"


# -- who writes, and is it alive


def own_process() -> ProcessMark:
    """The mark of this process."""
    return ProcessMark(os.getpid(), process_started(os.getpid()) or "", _machine())


def process_started(pid: int) -> str | None:
    """When process `pid` started, in ticks since the machine's boot; None if there is none or the system won't tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    after_name = stat[stat.rfind(")") + 2 :].split()  # the name may hold spaces and brackets
    if len(after_name) < 20 or after_name[0] in "ZX":  # a zombie has ended; its parent has just not looked yet
        return None
    return after_name[19]


def judge_status(
    run: Mapping[str, Any], here: ProcessMark, started_of: Callable[[int], str | None], now: float
) -> Status:
    """The status of a run from what its record says.

    On the machine that runs it, its process is looked up. From elsewhere, or where the system does not tell, it counts
    as running as long as it gives signs of life.
    """
    stored = run.get("status")
    if stored in ("finished", "crashed"):
        return "finished" if stored == "finished" else "crashed"
    mark = _mark_from(run.get("process"))
    if mark is not None and mark.machine and mark.machine == here.machine and mark.started:
        return "running" if started_of(mark.pid) == mark.started else "killed"
    return "running" if now - float(run.get("heartbeat", 0.0)) < SILENT_TOO_LONG else "killed"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _mark_fields(mark: ProcessMark) -> dict[str, Any]:
    return {"pid": mark.pid, "started": mark.started, "machine": mark.machine}


def _mark_from(data: object) -> ProcessMark | None:
    try:
        return ProcessMark(int(data["pid"]), str(data["started"]), str(data["machine"]))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
