"""The run record: nothing acknowledged is lost, nothing it meets stops a training, and damage costs only itself."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndoctor import record, record_segments, record_sqlite
from nndoctor.findings import Evidence, Finding, Fix, Severity
from nndoctor.record import (
    ProcessMark,
    RecordError,
    RecordReader,
    RecordWriter,
    RunFacts,
    StorageName,
    find_run,
    judge_status,
    list_runs,
    new_run_folder,
    storage_for,
)
from nndoctor.signals import Frame, Targets

STORAGES: tuple[StorageName, ...] = ("sqlite", "segments")
HOSTILE = "</script><img src=x onerror=alert(1)>\x00\x1b[31m\u202e[/x]\ud800"
FACTS = RunFacts("lenet", 1_700_000_000.0, {"model": "LeNet", "classes": 10}, ("core",))
TARGETS = Targets(
    layers=("conv1", HOSTILE), layer_kinds=("Conv2d", "ReLU"), layer_depths=(0, 1), params=("conv1.weight",),
    param_layers=(0,), param_shapes=((6, 1, 5, 5),), groups=("adam[0]",),
)  # fmt: skip
FINDING = Finding(
    rule="dead-relu", diagnosis="dead-relu", severity=Severity.ERROR, confidence="high", targets=(HOSTILE,),
    first_step=3, last_step=9, message=HOSTILE,
    evidence=(Evidence("act.dead_fraction", HOSTILE, 0.9, 0.5, ">", "fraction", (1, 2), (0.1, float("nan"))),),
    fixes=(Fix("Lower the rate", {"lr": 1e-4}, "high", "safe"),),
)  # fmt: skip


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> StorageName:
    return request.param


def frame(step: int, **values: float) -> Frame:
    arrays = {"loss": np.float32([step / 10]), "act.mean": np.float32([step, np.nan])}
    arrays |= {name: np.float32([value]) for name, value in values.items()}
    return Frame(step=step, time=1e9 + step, epoch=step / 100, values=arrays)


def write(folder: Path, count: int = 10, storage: StorageName | None = None, **about: object) -> None:
    facts = replace(FACTS, **about)  # type: ignore[arg-type]
    with RecordWriter(folder, facts, TARGETS, storage=storage, capacity=10_000) as writer:
        for step in range(1, count + 1):
            assert writer.frame(frame(step))
    assert writer.failure is None


def same(one: Frame, other: Frame) -> bool:
    return (
        (one.step, one.time, one.epoch) == (other.step, other.time, other.epoch)
        and list(one.values) == list(other.values)
        and all(np.array_equal(one.values[name], other.values[name], equal_nan=True) for name in one.values)
    )


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nndoctor-record"]


# -- what goes in comes out


def test_everything_written_is_read_back(tmp_path: Path, storage: StorageName) -> None:
    frames = [frame(step) for step in range(1, 40)]
    with RecordWriter(tmp_path / "run", FACTS, TARGETS, storage=storage) as writer:
        for each in frames:
            assert writer.frame(each)
        writer.facts({"classes": 11, "loss": "cross entropy"})
        writer.findings([FINDING])
        writer.findings([FINDING, replace(FINDING, rule="loss-rising", explained_by="dead-relu")])
        writer.event(7, "probe failure", HOSTILE)
    with RecordReader(tmp_path / "run") as reader:
        assert reader.facts == replace(FACTS, facts={"model": "LeNet", "classes": 11, "loss": "cross entropy"})
        assert reader.targets == TARGETS
        assert reader.status == "finished"
        assert reader.last_step == 39
        read = list(reader.frames())
        assert len(read) == 39
        assert all(map(same, read, frames))
        assert [f.rule for f in reader.findings()] == ["dead-relu", "loss-rising"]
        assert repr(reader.findings()[0]) == repr(FINDING)  # repr: NaN is not equal to itself
        assert [(e.step, e.kind) for e in reader.events()] == [(7, "probe failure")]
        assert reader.problems == ()


signal_names = st.text(min_size=1, max_size=8)
arrays = st.lists(st.floats(width=32), max_size=5).map(np.float32)
written_frames = st.builds(
    Frame,
    step=st.integers(1, 2**40),
    time=st.floats(0, 4e9),
    epoch=st.none() | st.floats(0, 1e6),
    values=st.dictionaries(signal_names, arrays, max_size=4),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(written_frames, max_size=12))
def test_frames_read_are_the_frames_written(
    tmp_path_factory: pytest.TempPathFactory, storage: StorageName, frames: list[Frame]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RecordWriter(folder, FACTS, TARGETS, storage=storage) as writer:
        for each in frames:
            assert writer.frame(each)
    assert writer.failure is None
    with RecordReader(folder) as reader:
        read = list(reader.frames())
    assert len(read) == len(frames)
    assert all(map(same, read, frames))
    shutil.rmtree(folder)


def test_targets_that_grow_are_seen_by_an_open_reader(tmp_path: Path, storage: StorageName) -> None:
    with RecordWriter(tmp_path, FACTS, Targets(), storage=storage) as writer, RecordReader(tmp_path) as reader:
        assert reader.targets == Targets()
        writer.targets(TARGETS)
        writer.flush()
        assert reader.targets == TARGETS


def test_facts_that_json_does_not_know_are_kept_as_text(tmp_path: Path, storage: StorageName) -> None:
    facts = {"path": Path("a/b"), "numpy": np.float32(0.5), "array": np.arange(3), "set": {2, 1}, "name": HOSTILE}
    write(tmp_path, 0, storage, facts=facts)
    with RecordReader(tmp_path) as reader:
        expected = {"path": "a/b", "numpy": 0.5, "array": [0, 1, 2], "set": [1, 2], "name": HOSTILE}
        assert reader.facts.facts == expected


def test_each_frame_is_one_row_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, 25)
    with sqlite3.connect(tmp_path / "record.sqlite") as connection:
        assert connection.execute("SELECT count(*), typeof(data) FROM frames").fetchone() == (25, "blob")


# -- while it is written


def test_a_reader_follows_a_run_being_written(tmp_path: Path, storage: StorageName) -> None:
    with RecordWriter(tmp_path, FACTS, TARGETS, storage=storage) as writer, RecordReader(tmp_path) as reader:
        assert list(reader.frames()) == []
        for step in range(1, 6):
            writer.frame(frame(step))
        writer.flush()
        assert writer.acknowledged == 5
        assert [f.step for f in reader.frames()] == [1, 2, 3, 4, 5]
        assert reader.position == 5
        for step in range(6, 9):
            writer.frame(frame(step, lr=0.1))  # a signal that was not there before
        writer.flush()
        assert [f.step for f in reader.frames(reader.position)] == [6, 7, 8]
        assert reader.status == "running"
        assert reader.last_step == 8


def test_the_first_frame_is_written_without_being_asked(tmp_path: Path) -> None:
    written = threading.Event()
    original = record_sqlite.SqliteStorage.write

    def write_and_tell(self: record_sqlite.SqliteStorage, batch: list[record.Entry]) -> None:
        original(self, batch)
        if any(entry.kind == "frame" for entry in batch):
            written.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_sqlite.SqliteStorage, "write", write_and_tell)
        with RecordWriter(tmp_path, FACTS, TARGETS) as writer:
            writer.frame(frame(1))
            assert written.wait(3.0)  # well before the next heartbeat


def test_no_thread_and_no_log_remain_after_close(tmp_path: Path) -> None:
    write(tmp_path)
    assert threads() == []
    assert [path.name for path in tmp_path.iterdir()] == ["record.sqlite"]


def test_closing_twice_and_writing_after_close_is_harmless(tmp_path: Path, storage: StorageName) -> None:
    writer = RecordWriter(tmp_path, FACTS, TARGETS, storage=storage)
    writer.close("crashed")
    writer.close("finished")
    assert not writer.frame(frame(1))
    writer.event(1, "note", "late")
    writer.flush()
    with RecordReader(tmp_path) as reader:
        assert reader.status == "crashed"
        assert reader.events() == ()


def test_an_exception_in_the_block_marks_the_run_as_crashed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RecordWriter(tmp_path, FACTS, TARGETS):
        raise KeyboardInterrupt
    with RecordReader(tmp_path) as reader:
        assert reader.status == "crashed"


# -- nothing reaches the training thread


class Stuck:
    """A storage whose disk hangs until `release` is set, and then fails or works."""

    forgets = False

    def __init__(self, error: Exception | None = None) -> None:
        self.release, self.reached, self.error = threading.Event(), threading.Event(), error
        self.first = True

    def write(self, batch: list[record.Entry]) -> None:
        if self.first:
            self.first = False
            return
        self.reached.set()
        assert self.release.wait(20)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        pass


def test_a_full_queue_drops_frames_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    monkeypatch.setattr(record, "_new_storage", lambda *_: stuck)
    writer = RecordWriter(tmp_path, FACTS, TARGETS, capacity=4)
    writer.frame(frame(1))
    assert stuck.reached.wait(10)
    kept = [writer.frame(frame(step)) for step in range(2, 12)]
    assert kept == [True] * 4 + [False] * 6
    assert writer.dropped == 6
    writer.targets(TARGETS)  # names are not lost with frames
    assert writer.dropped == 6
    stuck.release.set()
    writer.close()
    assert writer.acknowledged == 5
    assert writer.failure is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk I/O error")])
def test_a_failing_disk_stops_the_record_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stuck = Stuck(error)
    monkeypatch.setattr(record, "_new_storage", lambda *_: stuck)
    writer = RecordWriter(tmp_path, FACTS, TARGETS)
    stuck.release.set()
    writer.frame(frame(1))
    writer.flush()
    writer._thread.join(10)
    assert writer.failure is not None
    assert str(tmp_path) in writer.failure
    assert str(error.args[-1]) in writer.failure
    assert writer.acknowledged == 0
    assert not writer.frame(frame(2))
    writer.flush()
    writer.close()
    assert threads() == []


def test_a_folder_that_cannot_be_made_is_a_failure_not_an_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = RecordWriter(tmp_path / "file" / "run", FACTS, TARGETS)
    assert writer.failure is not None
    assert "file/run" in writer.failure
    assert not writer.frame(frame(1))
    writer.close()


def test_a_nearly_full_disk_is_left_to_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "ROOM_TO_LEAVE", 1 << 70)
    writer = RecordWriter(tmp_path, FACTS, TARGETS)
    writer.close()
    assert writer.failure is not None
    assert "MiB are free" in writer.failure


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path, storage: StorageName) -> None:
    write(tmp_path, 5, storage)
    writer = RecordWriter(tmp_path, replace(FACTS, name="other"), TARGETS)
    writer.close()
    assert writer.failure is not None
    assert "exists already" in writer.failure
    with RecordReader(tmp_path) as reader:
        assert reader.facts.name == "lenet"
        assert reader.last_step == 5


def test_of_two_processes_that_were_given_one_folder_one_gets_it(
    tmp_path: Path, storage: StorageName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_record_file", lambda folder: None)  # both looked before either had written
    first, second = (RecordWriter(tmp_path, replace(FACTS, name=name), TARGETS, storage=storage) for name in ("first", "second"))
    for writer in (first, second):
        writer.frame(frame(1))
        writer.close()
    monkeypatch.undo()
    assert sorted(bool(writer.failure) for writer in (first, second)) == [False, True]
    failure = first.failure or second.failure
    assert failure is not None
    assert "exists already: each run needs a folder of its own" in failure
    with RecordReader(tmp_path) as reader:
        assert reader.facts.name == ("second" if first.failure else "first")
        assert [f.step for f in reader.frames()] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing_and_breaks_nothing(tmp_path: Path, storage: StorageName) -> None:
    writer = RecordWriter(tmp_path, FACTS, TARGETS, storage=storage)
    writer.frame(frame(1))
    writer.flush()
    child = os.fork()
    if child == 0:
        kept = writer.frame(frame(99))
        writer.flush()
        writer.close("crashed")
        os._exit(1 if kept else 0)
    _, outcome = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(outcome) == 0
    writer.frame(frame(2))
    writer.close()
    with RecordReader(tmp_path) as reader:
        assert [f.step for f in reader.frames()] == [1, 2]
        assert reader.status == "finished"


# -- kill -9

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from nndoctor.record import RecordWriter, RunFacts
from nndoctor.signals import Frame, Targets
writer = RecordWriter(Path(sys.argv[1]), RunFacts("victim", 1.0), Targets(), storage=sys.argv[2])
step = 0
while True:
    for _ in range(7):
        step += 1
        writer.frame(Frame(step, float(step), None, {"loss": np.float32([step])}))
    writer.flush()
    for _ in range(3):
        step += 1
        writer.frame(Frame(step, float(step), None, {"loss": np.float32([step])}))
    print(writer.acknowledged, flush=True)
"""


@pytest.fixture
def killed(tmp_path: Path, storage: StorageName) -> tuple[Path, int]:
    """The folder of a run that was killed in mid-write, and the last step it had acknowledged."""
    folder = tmp_path / "victim"
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), storage], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 500:
        acknowledged = int(process.stdout.readline())
    with RecordReader(folder) as reader:
        assert reader.status == "running"
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    return folder, int(rest[-1]) if rest else acknowledged


def test_kill_9_loses_nothing_that_was_acknowledged(killed: tuple[Path, int]) -> None:
    folder, acknowledged = killed
    with RecordReader(folder) as reader:
        steps = [f.step for f in reader.frames()]
        assert reader.status == "killed"
        assert reader.problems == ()
    assert steps[-1] >= acknowledged
    assert steps == list(range(1, steps[-1] + 1))


def test_a_killed_run_is_read_from_a_folder_that_cannot_be_written(killed: tuple[Path, int], tmp_path: Path) -> None:
    folder, acknowledged = killed
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in folder.iterdir():
        if not path.name.endswith("-shm"):
            shutil.copy(path, moved)
    moved.chmod(0o555)
    try:
        with RecordReader(moved) as reader:
            assert reader.last_step >= acknowledged
            assert len(list(reader.frames())) == reader.last_step
    finally:
        moved.chmod(0o755)


def test_status_is_judged_by_process_on_the_same_machine_and_by_heartbeat_elsewhere() -> None:
    here = ProcessMark(1, "5", "boot pid:[1]")
    mark = {"pid": 42, "started": "77", "machine": "boot pid:[1]"}
    run = {"status": "running", "process": mark, "heartbeat": 1000.0}
    assert judge_status(run, here, lambda pid: "77" if pid == 42 else None, 1e9) == "running"
    assert judge_status(run, here, lambda _: None, 1000.0) == "killed"
    assert judge_status(run, here, lambda _: "78", 1000.0) == "killed"  # the number was given to another process
    elsewhere = replace(here, machine="other")
    assert judge_status(run, elsewhere, lambda _: None, 1030.0) == "running"
    assert judge_status(run, elsewhere, lambda _: "77", 1e9) == "killed"
    assert judge_status({**run, "status": "crashed"}, here, lambda _: "77", 1000.0) == "crashed"


# -- damage


def test_garbage_in_the_middle_costs_only_what_it_hits(tmp_path: Path, storage: StorageName) -> None:
    write(tmp_path, 4000, storage)
    path = next(tmp_path.iterdir())
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 5000] = os.urandom(5000)
    path.write_bytes(damaged)
    with RecordReader(tmp_path) as reader:
        read = list(reader.frames())
        assert len(reader.problems) >= 1
        steps = [f.step for f in read]
        assert all(same(f, frame(f.step)) for f in read)
        assert steps == sorted(set(steps))
        assert 3500 < len(steps) < 4000
        assert steps[0] == 1
        assert steps[-1] == 4000
        assert reader.targets == TARGETS


def test_a_flipped_bit_is_noticed_and_its_frame_left_out(tmp_path: Path, storage: StorageName) -> None:
    write(tmp_path, 5, storage)
    path = next(tmp_path.iterdir())
    data = path.read_bytes()
    needle = np.array([0.3, 3.0], "<f4").tobytes()  # frame 3
    assert data.count(needle) == 1
    path.write_bytes(data.replace(needle, needle[:-1] + b"\x41"))
    with RecordReader(tmp_path) as reader:
        assert [f.step for f in reader.frames()] == [1, 2, 4, 5]
        assert len(reader.problems) == 1


@pytest.mark.parametrize("kept", [0.9, 0.6, 0.4])
def test_a_truncated_record_is_read_as_far_as_it_goes(tmp_path: Path, storage: StorageName, kept: float) -> None:
    write(tmp_path, 3000, storage)
    path = next(tmp_path.iterdir())
    os.truncate(path, int(path.stat().st_size * kept))
    with RecordReader(tmp_path) as reader:
        steps = [f.step for f in reader.frames()]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) > 3000 * (kept - 0.2)
        assert reader.facts.name == "lenet"


@pytest.mark.parametrize("content", [b"", b"hello, this is somebody else's file\n" * 300, os.urandom(20_000)])
def test_a_foreign_file_gets_one_clear_error(tmp_path: Path, storage: StorageName, content: bytes) -> None:
    name = record_sqlite.FILE_NAME if storage == "sqlite" else record_segments.FILE_NAME
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=name):
        RecordReader(tmp_path)


def test_a_foreign_database_gets_one_clear_error(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / record_sqlite.FILE_NAME) as connection:
        connection.execute("CREATE TABLE run (a)")
    with pytest.raises(RecordError, match="not a run record"):
        RecordReader(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path, storage: StorageName) -> None:
    write(tmp_path, 1, storage)
    path = next(tmp_path.iterdir())
    if storage == "sqlite":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        path.write_bytes(path.read_bytes().replace(b"record 1\n", b"record 99\n", 1))
    with pytest.raises(RecordError, match=r"version 99.*Upgrade"):
        RecordReader(tmp_path)


def test_a_record_of_which_the_first_page_is_lost_is_refused_clearly(tmp_path: Path) -> None:
    write(tmp_path, 50)
    path = tmp_path / record_sqlite.FILE_NAME
    path.write_bytes(path.read_bytes()[:100] + os.urandom(4000) + path.read_bytes()[4100:])
    with pytest.raises(RecordError, match="damaged"):
        RecordReader(tmp_path)


def test_a_folder_without_a_record_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"record\.sqlite"):
        RecordReader(tmp_path)
    with pytest.raises(RecordError, match="does not exist"):
        RecordReader(tmp_path / "nowhere")


# -- which storage


def test_network_file_systems_get_segments() -> None:
    mounts = "/dev/vda / ext4 rw 0 0\nserver:/x /mnt/home nfs4 rw 0 0\nme@host: /mnt/my\\040dir fuse.sshfs rw 0 0\n"
    assert storage_for(Path("/tmp/run"), mounts) == "sqlite"
    assert storage_for(Path("/mnt/home/me/run"), mounts) == "segments"
    assert storage_for(Path("/mnt/homestead"), mounts) == "sqlite"
    assert storage_for(Path("/mnt/my dir/run"), mounts) == "segments"
    assert storage_for(Path("/run"), "rubbish\n\n") == "sqlite"


def test_segments_take_over_where_sqlite_refuses_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        (folder / record_sqlite.FILE_NAME).touch()
        raise record_sqlite.WalUnavailable("journal_mode=WAL answered 'delete'")

    monkeypatch.setattr(record_sqlite, "SqliteStorage", refuse)
    write(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == [record_segments.FILE_NAME]
    with RecordReader(tmp_path) as reader:
        assert reader.last_step == 3


# -- finding runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name, started in (("20240101-lenet", 100.0), ("20240102-lenet-wide", 300.0), ("20240103-gpt", 200.0)):
        write(root / name, 2, name=name, started=started)
    (root / "rubbish").mkdir()
    return root


def test_the_newest_run_is_the_one_started_last(runs: Path) -> None:
    assert find_run(None, runs) == runs / "20240102-lenet-wide"


def test_a_run_is_found_by_folder_file_name_or_unique_part(runs: Path, tmp_path: Path) -> None:
    expected = runs / "20240103-gpt"
    assert find_run(str(expected), tmp_path) == expected
    assert find_run(str(expected / "record.sqlite"), tmp_path) == expected
    assert find_run("20240103-gpt", runs) == expected
    assert find_run("gpt", runs) == expected
    assert find_run("20240101-lenet", runs) == runs / "20240101-lenet"


def test_an_ambiguous_or_unknown_run_lists_candidates(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="20240101-lenet, 20240102-lenet-wide"):
        find_run("lenet", runs)
    with pytest.raises(RecordError, match="20240103-gpt"):
        find_run("20240103-gtp", runs)
    with pytest.raises(RecordError, match="no runs in"):
        find_run(None, tmp_path / "none")
    with pytest.raises(RecordError, match="holds no run record"):
        find_run(str(runs / "rubbish"), runs)


def test_the_list_of_runs_names_status_steps_and_worst_finding(runs: Path) -> None:
    with RecordWriter(runs / "sick", replace(FACTS, started=400.0), TARGETS) as writer:
        writer.frame(frame(7))
        writer.findings([FINDING, replace(FINDING, severity=Severity.CRITICAL, suppressed="known")])
    (runs / "broken").mkdir()
    (runs / "broken" / "record.sqlite").write_bytes(b"nonsense" * 100)
    listed = list_runs(runs)
    assert [run.folder.name for run in listed][:2] == ["sick", "20240102-lenet-wide"]
    assert (listed[0].status, listed[0].last_step, listed[0].worst) == ("finished", 7, Severity.ERROR)
    assert listed[-1].folder.name == "broken"
    assert "not a run record" in str(listed[-1].problem)
    assert list_runs(runs / "nowhere") == []


def test_run_folders_are_new_and_named_after_time_and_run(tmp_path: Path) -> None:
    first = new_run_folder("../my net[/x]", 1e9, tmp_path)
    second = new_run_folder("../my net[/x]", 1e9, tmp_path)
    assert first.parent == second.parent == tmp_path
    assert first.name.endswith("-my-net-x")
    assert second.name == first.name + "-2"
