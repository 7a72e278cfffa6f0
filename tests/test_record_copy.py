"""A run on another machine: read through a network, over which files are shared and memory is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nndoctor import record, record_sqlite
from nndoctor.record import RecordReader
from nndoctor.record_copy import CopyOfRecord

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from nndoctor.record import RecordWriter, RunFacts
from nndoctor.signals import Frame, Targets
writer = RecordWriter(Path(sys.argv[1]), RunFacts("far away", 1.0), Targets(), storage="sqlite", capacity=10_000)
values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)  # 40 KB: a hundred of them fill a log
step = 0
for line in sys.stdin:
    for _ in range(int(line)):
        step += 1
        writer.frame(Frame(step, float(step), None, {"loss": np.float32([step]), "act.mean": values}))
    writer.flush()
    print(step, flush=True)
writer.close()
"""


class OtherMachine:
    """A process that writes a run, and `mirror`: its files as a network would show them. The memory there is a dead picture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mirror = folder / "there", folder / "here"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(self.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.write(3)
        self.mirror.mkdir()
        for name in ("record.sqlite", "record.sqlite-wal"):
            os.link(self.folder / name, self.mirror / name)
        shutil.copy(self.folder / "record.sqlite-shm", self.mirror)

    def write(self, frames: int) -> int:
        """Write so many frames more; the last step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{frames}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()
        for name in ("record.sqlite-wal", "record.sqlite-shm"):
            (self.mirror / name).unlink(missing_ok=True)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def there(tmp_path: Path) -> Iterator[OtherMachine]:
    machine = OtherMachine(tmp_path)
    yield machine
    machine.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(record, "storage_for", lambda folder: "segments")  # what it says of a network file system
    monkeypatch.setattr(record_sqlite, "CopyOfRecord", partial(CopyOfRecord, clock=clock))
    return clock


def test_in_place_such_a_run_stands_still(there: OtherMachine) -> None:
    """Why there is a copy at all."""
    with RecordReader(there.mirror) as reader:
        there.write(5)
        assert reader.last_step == 3


def test_a_run_on_another_machine_is_followed_to_its_end(there: OtherMachine, clock: Clock) -> None:
    memory = (there.mirror / "record.sqlite-shm").read_bytes()
    with RecordReader(there.mirror) as reader:
        steps = [frame.step for frame in reader.frames()]
        for frames in (1, 2, 150, 3, 250, 1):  # the log starts anew twice
            there.write(frames)
            clock.now += 60
            steps += [frame.step for frame in reader.frames(reader.position)]
        assert steps == list(range(1, 411))
        assert reader.status == "running"
        assert (there.mirror / "record.sqlite-shm").read_bytes() == memory, "the memory is the writer's"
        there.close()
        clock.now += 60
        assert reader.status == "finished"
        assert reader.last_step == 410
        assert reader.problems == ()


def test_the_network_is_given_a_rest_between_two_looks(there: OtherMachine, clock: Clock) -> None:
    with RecordReader(there.mirror) as reader:
        there.write(5)
        clock.now += 0.9
        assert reader.last_step == 3
        clock.now += 0.2
        assert reader.last_step == 8


def test_a_network_that_is_away_leaves_what_was_read_and_a_note(there: OtherMachine, clock: Clock) -> None:
    with RecordReader(there.mirror) as reader:
        away = there.mirror.with_name("away")
        there.mirror.rename(away)
        clock.now += 60
        assert reader.last_step == 3
        assert reader.problems == ("the record could not be reached for a while (No such file or directory)",)
        away.rename(there.mirror)
        there.write(5)
        clock.now += 60
        assert reader.last_step == 8


def test_a_copy_that_was_seen_half_written_mends(there: OtherMachine, tmp_path: Path) -> None:
    clock = Clock()
    copy = CopyOfRecord(there.mirror / "record.sqlite", clock)
    log = copy.path.with_name("record.sqlite-wal")
    with open(log, "r+b") as file:  # the last page came as zeros, as network file systems may show what is on its way
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))
    there.write(5)
    clock.now += 60
    assert copy.fetch()
    copy.take()
    assert log.read_bytes() == (there.mirror / "record.sqlite-wal").read_bytes()
    clock.now += 60
    assert not copy.fetch(), "nothing is new"
    copy.close()
