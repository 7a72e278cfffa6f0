"""A run record in one SQLite file: the normal case, readable by anybody while it is written.

Tables: ``frames(id, step, data)`` with one BLOB row per frame, ``layouts(id, signals)``, ``targets(data)``,
``findings(position, rule, severity, first_step, last_step, data)``, ``facts(key, value)``,
``events(id, step, kind, text)`` and ``run(key, value)``. ``PRAGMA application_id`` tells that it is ours,
``PRAGMA user_version`` which version of the format it has. Everything but the frames is plain text for people with a
SQLite shell.

The file is in WAL mode while the run lasts: a commit is one append to the log without an fsync (synchronous=NORMAL),
which survives the death of the process, though not that of the machine; readers never block the writer. When the run
closes, the log is folded in and the file left in the ordinary mode, so that it can be read from anywhere.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from nndoctor.record_copy import CopyOfRecord
from nndoctor.record_format import (
    FORMAT_VERSION,
    Entry,
    Layout,
    RecordError,
    decode_json,
    decode_layout,
    encode_json,
)
from nndoctor.record_thinning import Stored

FILE_NAME = "record.sqlite"
APPLICATION_ID = 0x4E4E4452  # "NNDR"

_SCHEMA = f"""
BEGIN;
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE targets (id INTEGER PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE layouts (id INTEGER PRIMARY KEY, signals TEXT NOT NULL);
CREATE TABLE findings (
  position INTEGER PRIMARY KEY, rule TEXT, severity TEXT, first_step INTEGER, last_step INTEGER, data TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, step INTEGER, kind TEXT, text TEXT);
CREATE TABLE frames (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, data BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""

_PAGE = 256  # frames read per statement: a statement left open would keep the log from being folded in
_BEYOND = 1 << 60  # an id that no run reaches
_T = TypeVar("_T")


class WalUnavailable(Exception):
    """SQLite cannot keep a write-ahead log here; the caller uses segments instead."""


class SqliteStorage:
    """Writes entries into a new SQLite file; to be used by one thread, the one that made it.

    Raises:
        WalUnavailable: the file system does not carry a write-ahead log.
        sqlite3.Error, OSError: anything else that keeps it from writing.
    """

    forgets = True

    def __init__(self, folder: Path) -> None:
        with open(folder / FILE_NAME, "xb"):  # of two processes that were given one folder, one gets it
            pass
        self._connection = sqlite3.connect(folder / FILE_NAME, timeout=30.0, isolation_level=None)
        try:
            (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise WalUnavailable(f"journal_mode=WAL answered {mode!r}")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    def write(self, batch: Sequence[Entry]) -> None:
        def put() -> None:
            for entry in batch:
                self._put(entry)

        self._together(put)

    def stored(self, after: int, count: int) -> Sequence[Stored]:
        """Frames with a number above `after`, oldest first. Their length is told without reading them."""
        query = "SELECT id, step, length(data) FROM frames WHERE id > ? ORDER BY id LIMIT ?"
        return [Stored(*row) for row in self._connection.execute(query, (after, count))]

    def forget(self, numbers: Sequence[int]) -> None:
        """Drop these frames; their room in the file is taken by the next ones."""
        self._together(lambda: self._connection.executemany("DELETE FROM frames WHERE id = ?", [(n,) for n in numbers]))

    def _together(self, action: Callable[[], object]) -> None:
        """One transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            action()
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _put(self, entry: Entry) -> None:
        execute = self._connection.execute
        if entry.kind == "frame":
            execute("INSERT INTO frames (step, data) VALUES (?, ?)", (entry.step, entry.data))
        elif entry.kind == "layout":
            execute("INSERT INTO layouts (id, signals) VALUES (?, ?)", (entry.step, entry.data.decode()))
        elif entry.kind == "targets":
            execute("INSERT OR REPLACE INTO targets (id, data) VALUES (1, ?)", (entry.data.decode(),))
        elif entry.kind == "event":
            kind, text = decode_json(entry.data)
            execute(
                "INSERT INTO events (step, kind, text) VALUES (?, ?, ?)", (entry.step, _storable(kind), _storable(text))
            )
        elif entry.kind == "findings":
            execute("DELETE FROM findings")
            self._connection.executemany(
                "INSERT INTO findings (rule, severity, first_step, last_step, data) VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        _storable(str(f["rule"])),
                        f["severity"],
                        f["first_step"],
                        f["last_step"],
                        encode_json(f).decode(),
                    )
                    for f in decode_json(entry.data)
                ],
            )
        else:
            self._connection.executemany(
                f"INSERT OR REPLACE INTO {entry.kind} (key, value) VALUES (?, ?)",
                [(_storable(key), encode_json(value).decode()) for key, value in decode_json(entry.data).items()],
            )

    def close(self) -> None:
        """Folds the log into the file. A reader that is just looking keeps it from happening, which is harmless."""
        try:
            self._connection.execute("PRAGMA busy_timeout=1000")
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            self._connection.close()


class SqliteSource:
    """Reads the SQLite file of a run, also while it is written, after kill -9, and as far as it goes when damaged.

    Args:
        path: the file.
        elsewhere: it lies on a network file system, and whoever writes it may do so on another machine.

    Raises:
        RecordError: the file is not a run record, has a newer format, or its first page is lost.
    """

    def __init__(self, path: Path, *, elsewhere: bool = False) -> None:
        self.path = path
        self.problems: list[str] = []
        self._elsewhere = elsewhere
        self._copy: CopyOfRecord | None = None
        self._layouts: dict[int, Layout] = {}
        if path.stat().st_size == 0 and not _log_of(path).exists():
            raise RecordError(f"{path} is empty: the run that made it wrote nothing. Delete the folder or train again.")
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        """The first way of opening the file that works, from the ordinary one to a private copy."""
        ways: tuple[Callable[[], sqlite3.Connection], ...] = (
            self._connect_in_place,
            self._connect_without_log,
            self._connect_to_copy,
            lambda: self._connect_in_place(damaged=True),
            lambda: _connect(self.path, "immutable=1", damaged=True),
        )
        first: sqlite3.Error | None = None
        for way in ways:
            try:
                connection = way()
            except (sqlite3.Error, OSError) as error:
                first = first or (error if isinstance(error, sqlite3.Error) else None)
                continue
            try:
                self._check(connection)
                return connection
            except sqlite3.Error as error:
                first = first or error
                connection.close()
                self._drop_copy()
            except BaseException:
                connection.close()
                self._drop_copy()
                raise
        if "not a database" in str(first):
            raise _foreign(self.path)
        raise RecordError(
            f"{self.path} cannot be read as a run record ({first}): its first page is damaged, or access is denied."
        )

    def _connect_in_place(self, *, damaged: bool = False) -> sqlite3.Connection:
        if self._elsewhere and _log_of(self.path).exists():
            raise sqlite3.OperationalError("its log may be written on another machine")
        return _connect(self.path, "mode=ro", damaged=damaged)

    def _connect_without_log(self) -> sqlite3.Connection:
        """For folders that we may not write to: a log-mode file without a log needs no lock files."""
        if _log_of(self.path).exists():
            raise sqlite3.OperationalError("a write-ahead log is beside the file")
        return _connect(self.path, "immutable=1")

    def _connect_to_copy(self) -> sqlite3.Connection:
        """For folders that we may not write to and that hold the log of a killed run, and for runs on other machines."""
        if not _log_of(self.path).exists():
            raise sqlite3.OperationalError("there is no write-ahead log to replay")
        self._copy = CopyOfRecord(self.path)
        return _connect(self._copy.path, "mode=ro")

    def _look_again(self) -> None:
        """Bring the copy up to date, if there is one. A network that is away leaves it as it is, with a note."""
        if self._copy is None:
            return
        try:
            if self._copy.fetch():
                self._connection.close()
                try:
                    self._copy.take()
                finally:
                    self._connection = _connect(self._copy.path, "mode=ro")
        except OSError as error:
            self._note(f"the record could not be reached for a while ({error.strerror or error})")

    def _check(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if application != APPLICATION_ID:
            if not tables:
                raise RecordError(f"{self.path} is empty: the run that made it was stopped before it wrote anything.")
            raise _foreign(self.path)
        if version > FORMAT_VERSION:
            raise RecordError(
                f"{self.path} was written by a newer nndoctor: its format is version {version}, this one reads up to "
                f"{FORMAT_VERSION}. Upgrade with: pip install -U nndoctor"
            )
        connection.execute("SELECT * FROM run LIMIT 1").fetchone()

    def run(self) -> Mapping[str, Any]:
        return self._pairs("run")

    def facts(self) -> Mapping[str, Any]:
        return self._pairs("facts")

    def targets(self) -> Mapping[str, Any]:
        def read() -> Mapping[str, Any]:
            row = self._connection.execute("SELECT data FROM targets").fetchone()
            return {} if row is None else dict(decode_json(row[0]))

        return self._guarded("the names of layers and parameters", read, {})

    def findings(self) -> Sequence[Mapping[str, Any]]:
        rows = self._rows("findings", "SELECT data FROM findings ORDER BY position")
        return self._guarded("findings", lambda: [decode_json(data) for (data,) in rows], [])

    def events(self) -> Sequence[tuple[int, str, str]]:
        rows = self._rows("events", "SELECT step, kind, text FROM events ORDER BY id")
        return [(int(step or 0), str(kind), str(text)) for step, kind, text in rows]

    def layouts(self) -> Mapping[int, Layout]:
        """Every layout so far. They never change, so only new ones are read."""
        newest = max(self._layouts, default=-1)
        for number, signals in self._rows("layouts", "SELECT id, signals FROM layouts WHERE id > ?", (newest,)):
            with contextlib.suppress(ValueError, TypeError):
                self._layouts[number] = decode_layout(signals)
        return self._layouts

    def frames(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Frames with an id above `after`, oldest first; damaged pages are stepped over."""
        self._look_again()
        query = "SELECT id, data FROM frames WHERE id > ? ORDER BY id LIMIT ?"
        size = _PAGE
        while True:
            try:
                rows = self._connection.execute(query, (after, size)).fetchall()
            except sqlite3.DatabaseError as error:
                if size > 1:
                    size = 1  # the rows before the damage, one by one
                    continue
                self._note(f"frames after number {after} are damaged ({error})")
                after, size = self._past_damage(after), _PAGE
                continue
            if not rows:
                return
            before = after
            for number, data in rows:
                if number > after:
                    after = number
                    yield number, data if isinstance(data, bytes) else b""
            if after == before:  # a garbled page that still passes for one: nothing behind it can be trusted
                self._note(f"frames after number {after} are damaged (their numbers are out of order)")
                return

    def _past_damage(self, after: int) -> int:
        """The smallest number from which frames can be read again: the damage ends somewhere, bisect for it."""

        def readable(number: int) -> bool:
            try:
                self._connection.execute(
                    "SELECT id, data FROM frames WHERE id > ? ORDER BY id LIMIT 1", (number,)
                ).fetchone()
            except sqlite3.DatabaseError:
                return False
            return True

        stride = 1
        while not readable(after + stride):
            if stride >= _BEYOND:
                return _BEYOND
            stride *= 2
        low, high = after + stride // 2, after + stride  # low is unreadable, high is readable
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if readable(middle) else (middle, high)
        return high

    def last_step(self) -> int:
        def read() -> int:
            row = self._connection.execute("SELECT step FROM frames ORDER BY id DESC LIMIT 1").fetchone()
            return 0 if row is None else int(row[0])

        found = self._guarded("the last frame", read, -1)
        return found if found >= 0 else int(self.run().get("last_step", 0))

    def close(self) -> None:
        self._connection.close()
        self._drop_copy()

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def _pairs(self, table: str) -> Mapping[str, Any]:
        pairs: dict[str, Any] = {}
        for key, value in self._rows(table, f"SELECT key, value FROM {table}"):
            with contextlib.suppress(ValueError, TypeError):
                pairs[str(key)] = decode_json(value)
        return pairs

    def _rows(self, what: str, query: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        return self._guarded(what, lambda: self._connection.execute(query, values).fetchall(), [])

    def _guarded(self, what: str, read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            self._look_again()
            return read()
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._note(f"{what} cannot be read ({error})")
            return otherwise

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _connect(path: Path, how: str, *, damaged: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?{how}", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = lambda data: data.decode("utf-8", "replace")  # damaged text must not raise
    if damaged:
        connection.execute("PRAGMA writable_schema=ON")  # lets SQLite read a file shorter than its header says
    return connection


def _foreign(path: Path) -> RecordError:
    return RecordError(
        f"{path} is not a run record of nndoctor: expected the SQLite file that a run writes. "
        "Give a run folder, as listed by: nndoctor ls"
    )


def _storable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 and hence SQLite cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
