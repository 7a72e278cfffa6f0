"""A run record in an append-only file: for network file systems, where SQLite's log is not safe.

``record.frames`` starts with the line ``nndoctor run record 1`` and holds entries, each::

    marker : 4 bytes | length of the data : u32 | crc32 of kind, step and data : u32 | kind : u8 | step : i64 | data

One `os.write` appends a batch. A torn or damaged entry is stepped over by looking for the next marker whose
checksum matches; a torn entry at the end is one that nobody was promised.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from nndoctor.record_format import (
    FORMAT_VERSION,
    KINDS,
    Entry,
    Layout,
    RecordError,
    decode_json,
    decode_layout,
    encode_json,
)
from nndoctor.record_thinning import Stored

FILE_NAME = "record.frames"

_TITLE = b"nndoctor run record "
_MARKER = b"\xf5NN\xd2"  # 0xf5 never occurs in UTF-8, so text cannot look like a marker
_PREFIX = struct.Struct("<4sII")
_HEAD = struct.Struct("<Bq")
_LARGEST = 1 << 28
_CHUNK = 1 << 20


class SegmentStorage:
    """Appends entries to a new file; to be used by one thread. Raises OSError when it cannot write."""

    forgets = False  # room inside of a file is given back by few network file systems

    def __init__(self, folder: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._known: dict[str, dict[str, Any]] = {"run": {}, "facts": {}}
        self._file = os.open(folder / FILE_NAME, flags, 0o644)
        self._append(_TITLE + b"%d\n" % FORMAT_VERSION)

    def write(self, batch: Sequence[Entry]) -> None:
        self._append(b"".join(pack(entry) for entry in map(self._news, batch) if entry is not None))

    def _news(self, entry: Entry) -> Entry | None:
        """Of facts only what changed: they are told every few seconds, and nothing here is ever overwritten."""
        known = self._known.get(entry.kind)
        if known is None:
            return entry
        news = {key: value for key, value in decode_json(entry.data).items() if key not in known or known[key] != value}
        known.update(news)
        return Entry(entry.kind, entry.step, encode_json(news)) if news else None

    def stored(self, after: int, count: int) -> Sequence[Stored]:
        return ()

    def forget(self, numbers: Sequence[int]) -> None:
        raise NotImplementedError("an append-only file keeps what it has")

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)


def pack(entry: Entry) -> bytes:
    """The bytes of one entry as they stand in the file."""
    body = _HEAD.pack(KINDS.index(entry.kind), entry.step) + entry.data
    return _PREFIX.pack(_MARKER, len(entry.data), crc32(body)) + body


class SegmentSource:
    """Reads the file of `SegmentStorage`, also while it is written and as far as it goes when damaged.

    Raises:
        RecordError: the file is not a run record or has a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._run: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._targets: Mapping[str, Any] = {}
        self._findings: Sequence[Mapping[str, Any]] = ()
        self._events: list[tuple[int, str, str]] = []
        self._layouts: dict[int, Layout] = {}
        self._frame_offsets = array("Q")
        self._frame_lengths = array("I")
        self._last_step = 0
        self._file: BinaryIO = path.open("rb")
        try:
            self._end = self._check_title()
        except BaseException:
            self._file.close()
            raise

    def _check_title(self) -> int:
        line = self._file.readline(64)
        if not line:
            raise RecordError(
                f"{self.path} is empty: the run that made it wrote nothing. Delete the folder or train again."
            )
        version = line[len(_TITLE) :].strip()
        if not line.startswith(_TITLE) or not version.isdigit():
            raise RecordError(
                f"{self.path} is not a run record of nndoctor: expected a file that starts with 'nndoctor run record'."
            )
        if int(version) > FORMAT_VERSION:
            raise RecordError(
                f"{self.path} was written by a newer nndoctor: its format is version {int(version)}, this one reads up "
                f"to {FORMAT_VERSION}. Upgrade with: pip install -U nndoctor"
            )
        return len(line)

    def run(self) -> Mapping[str, Any]:
        self._catch_up()
        return self._run

    def facts(self) -> Mapping[str, Any]:
        self._catch_up()
        return self._facts

    def targets(self) -> Mapping[str, Any]:
        self._catch_up()
        return self._targets

    def findings(self) -> Sequence[Mapping[str, Any]]:
        self._catch_up()
        return self._findings

    def events(self) -> Sequence[tuple[int, str, str]]:
        self._catch_up()
        return tuple(self._events)

    def layouts(self) -> Mapping[int, Layout]:
        return self._layouts

    def frames(self, after: int) -> Iterator[tuple[int, bytes]]:
        self._catch_up()
        for number in range(max(after, 0), len(self._frame_offsets)):
            self._file.seek(self._frame_offsets[number])
            yield number + 1, self._file.read(self._frame_lengths[number])

    def last_step(self) -> int:
        self._catch_up()
        return self._last_step

    def close(self) -> None:
        self._file.close()

    def _catch_up(self) -> None:
        """Takes in every entry appended since the last call; a torn one at the end is left for the next call."""
        while True:
            body = self._body_at(self._end)
            if body is None:
                resume = self._next_whole_entry(self._end + 1)
                if resume is None:
                    return
                self._note(f"bytes {self._end} to {resume - 1} are damaged and were skipped")
                self._end = resume
                continue
            start = self._end + _PREFIX.size + _HEAD.size
            self._end += _PREFIX.size + len(body)
            self._accept(body, start)

    def _body_at(self, offset: int) -> bytes | None:
        """Kind, step and data of the entry at `offset`; None if there is no whole, undamaged entry."""
        self._file.seek(offset)
        prefix = self._file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            return None
        marker, length, checksum = _PREFIX.unpack(prefix)
        if marker != _MARKER or length > _LARGEST:
            return None
        body = self._file.read(_HEAD.size + length)
        return body if len(body) == _HEAD.size + length and crc32(body) == checksum else None

    def _next_whole_entry(self, offset: int) -> int | None:
        while True:
            self._file.seek(offset)
            chunk = self._file.read(_CHUNK)
            found = chunk.find(_MARKER)
            if found >= 0:
                if self._body_at(offset + found) is not None:
                    return offset + found
                offset += found + 1
            elif len(chunk) < _CHUNK:
                return None
            else:
                offset += len(chunk) - len(_MARKER) + 1

    def _accept(self, body: bytes, offset: int) -> None:
        code, step = _HEAD.unpack_from(body)
        data = body[_HEAD.size :]
        kind = KINDS[code] if code < len(KINDS) else None
        if kind == "frame":
            self._frame_offsets.append(offset)
            self._frame_lengths.append(len(data))
            self._last_step = step
        elif kind == "layout":
            self._layouts[step] = decode_layout(data)
        elif kind == "run":
            self._run.update(decode_json(data))
        elif kind == "facts":
            self._facts.update(decode_json(data))
        elif kind == "targets":
            self._targets = decode_json(data)
        elif kind == "findings":
            self._findings = decode_json(data)
        elif kind == "event":
            what, text = decode_json(data)
            self._events.append((step, str(what), str(text)))

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
