"""A private copy of a run's SQLite file that follows the original: for a run that another machine is writing.

Readers and writer of a write-ahead log find each other's pages through shared memory (``record.sqlite-shm``), and
memory is not shared over a network: read in place, such a run stands still where it was when it was opened, and marks
that the reader leaves in that memory could reach the writer's. So neither is touched here, only copied, and not more
often than the network can bear. (https://www.sqlite.org/wal.html, section 1; https://www.sqlite.org/walformat.html)
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

OFTEN = 1.0
"""Seconds between two looks at the original, at least; a look that took long is followed by ten times as long a pause."""

_HEADER = 32  # bytes at the start of a log; other ones whenever it starts anew, after all of it went into the file
_AGAIN = 256 << 10  # bytes at the end of a log that are read again: they may have been seen half-written
_ATTEMPTS = 3


class CopyOfRecord:
    """The copy at `path`, a SQLite file with its log; whoever reads it closes it before `take`.

    Args:
        original: the SQLite file of the run.
        clock: seconds that only go forward.

    Raises:
        OSError: the original cannot be read.
    """

    def __init__(self, original: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._original, self._clock = original, clock
        self._folder = tempfile.TemporaryDirectory(prefix="nndoctor-")
        self.path = Path(self._folder.name) / original.name
        self._fetched = self.path.with_name("fetched")
        self._header: bytes | None = None
        self._next = 0.0
        began = clock()
        try:
            self._fetch_all()
            self.take()
        except BaseException:
            self.close()
            raise
        self._rest(began)

    def close(self) -> None:
        self._folder.cleanup()

    def fetch(self) -> bool:
        """Whether there is something new to `take`; what was taken before stays as it is.

        Raises:
            OSError: the original cannot be read at the moment.
        """
        if self._clock() < self._next:
            return False
        began = self._clock()
        try:
            if _start_of(_log(self._original)) != self._header:
                self._fetch_all()
                return True
            return self._header is not None and self._fetch_end()
        finally:
            self._rest(began)

    def take(self) -> None:
        """Put what was fetched in the place of the old. Nobody may have the copy open."""
        self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)  # an index of the log as it was
        if self._fetched.exists():
            self._fetched.replace(self.path)
            _log(self.path).unlink(missing_ok=True)
        if _log(self._fetched).exists():
            _log(self._fetched).replace(_log(self.path))

    def _rest(self, began: float) -> None:
        now = self._clock()
        self._next = now + max(OFTEN, 10 * (now - began))

    def _fetch_all(self) -> None:
        """File and log as they were at one moment: what a checkpoint puts into the file meanwhile is in the log as well,
        as long as the log is still the same one afterwards."""
        for _ in range(_ATTEMPTS):
            before = _start_of(_log(self._original))
            shutil.copyfile(self._original, self._fetched)
            _log(self._fetched).unlink(missing_ok=True)
            if before is not None:
                with open(_log(self._original), "rb") as source, open(_log(self._fetched), "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            if _start_of(_log(self._original)) == before == _start_of(_log(self._fetched)):
                self._header = before
                return
        raise OSError(f"{self._original} changes faster than it can be read from here")

    def _fetch_end(self) -> bool:
        """Append to the log's copy what came since; the file itself need not be looked at while the log is the same one."""
        ours = _log(self.path)
        kept = max(ours.stat().st_size - _AGAIN, 0)
        with open(_log(self._original), "rb") as source, open(ours, "rb") as known:
            source.seek(kept)
            known.seek(kept)
            news = source.read()
            if news == known.read():
                return False
        shutil.copyfile(ours, _log(self._fetched))
        with open(_log(self._fetched), "r+b") as target:
            target.truncate(kept)
            target.seek(kept)
            target.write(news)
        return _start_of(_log(self._original)) == self._header  # else the end may be of another log


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _start_of(path: Path) -> bytes | None:
    """The first bytes of a file, opened anew, which is when network file systems look; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(_HEADER)
    except FileNotFoundError:
        return None
