"""However long a run, its record stays within its size: the start and the present whole, the past evenly thinned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordReader, RecordWriter, RunFacts, StorageName
from nndoctor.record_thinning import FACT, FIRST_STEPS, ROWS, Stored, Thinning, sentence
from nndoctor.reporting import judge_record
from nndoctor.signals import Frame, Targets

CADENCE = 16
LAYERS = tuple(f"layer{n}" for n in range(200))
TARGETS = Targets(layers=LAYERS, layer_kinds=("Linear",) * 200, layer_depths=tuple(range(200)))


def simulate(limit: int, steps: int) -> tuple[Thinning, dict[int, Stored]]:
    """A record that is a dictionary: quiet frames of 48 bytes, one in 16 of 1000."""
    thinning, kept = Thinning(limit), {}
    for step in range(1, steps + 1):
        size = 1000 if step % CADENCE == 0 else 48
        kept[step] = Stored(step, step, size)
        thinning.wrote(step, size)
        while thinning.due:
            page = sorted(number for number in kept if number > thinning.position)[:ROWS]
            for number in thinning.choose([kept[number] for number in page]):
                del kept[number]
    return thinning, kept


def test_a_run_of_any_length_stays_within_its_size() -> None:
    for steps in (10_000, 30_000):
        thinning, kept = simulate(400_000, steps)
        assert sum(frame.size for frame in kept.values()) <= 400_000
        assert thinning.forgotten == steps - len(kept)


def test_the_first_steps_and_the_newest_are_kept_whole_and_the_middle_evenly() -> None:
    thinning, kept = simulate(800_000, 30_000)
    assert set(range(1, FIRST_STEPS + 1)) <= set(kept)
    full = [step for step, frame in kept.items() if frame.size == 1000]
    newest = full[-60:]
    assert np.diff(newest).tolist() == [CADENCE] * 59
    told = thinning.told()
    middle = [step for step in full if FIRST_STEPS < step < full[-300]]
    gaps = np.diff(middle)
    assert gaps.max() <= 2.5 * told["every"]
    assert gaps.min() >= CADENCE
    assert len(middle) > 30


def test_nothing_is_let_go_of_before_it_has_to_be() -> None:
    thinning, kept = simulate(10_000_000, 5_000)
    assert len(kept) == 5_000
    assert thinning.forgotten == 0
    assert not thinning.due


def test_a_model_too_large_for_the_size_is_not_looked_through_again_and_again() -> None:
    thinning = Thinning(1000)
    rounds = 0
    for step in range(1, 400):
        thinning.wrote(step, 5000)  # one frame is more than all that is allowed
        while thinning.due:
            rounds += 1
            thinning.choose([])
    assert 5 < rounds < 100


def write_long_run(folder: Path, steps: int, storage: StorageName, limit: int) -> None:
    row = np.ones(1, np.float32)
    layer = np.ones(len(LAYERS), np.float32)
    with RecordWriter(folder, RunFacts("long", 1e9, rules=("core",)), TARGETS, storage=storage, limit=limit) as writer:
        for step in range(1, steps + 1):
            values = {"loss": row * (1 + 1 / step), "step.time": row}
            if step % CADENCE == 0:
                values["grad.norm"] = layer
            assert writer.frame(Frame(step, 1e9 + step, None, values))
            if step % 500 == 0:
                writer.flush()
    assert writer.failure is None


def test_a_long_record_is_bounded_on_disk_in_order_and_says_that_it_was_thinned(tmp_path: Path) -> None:
    sizes = []
    for steps in (8_000, 16_000):
        folder = tmp_path / str(steps)
        write_long_run(folder, steps, "sqlite", 600_000)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert max(sizes) < 2 * 600_000
    assert sizes[1] < 1.3 * sizes[0]  # twice the steps
    with RecordReader(folder) as reader:
        steps_kept = [frame.step for frame in reader.frames()]
        assert steps_kept == sorted(set(steps_kept))
        assert steps_kept[-1] == reader.last_step == 16_000
        assert steps_kept[:FIRST_STEPS] == list(range(1, FIRST_STEPS + 1))
        assert len(steps_kept) < 8_000
        told = reader.facts.facts[FACT]
        judged = judge_record(reader)
    assert told["every"] > CADENCE
    assert sentence(told) in judged.diagnosis.facts["unseen"]


def test_a_reader_that_follows_misses_none_of_the_newest_frames(tmp_path: Path) -> None:
    row = np.ones(1, np.float32)
    seen: list[int] = []
    with RecordWriter(tmp_path, RunFacts("long", 1e9), TARGETS, storage="sqlite", limit=400_000) as writer:
        writer.flush()
        with RecordReader(tmp_path) as reader:
            for step in range(1, 8_001):
                writer.frame(Frame(step, 1e9, None, {"loss": row}))
                if step % 400 == 0:
                    writer.flush()
                    seen += [frame.step for frame in reader.frames(reader.position)]
            kept = [frame.step for frame in reader.frames()]
    assert seen == list(range(1, 8_001))
    assert len(kept) < 5_000


def test_a_record_that_cannot_forget_takes_ever_fewer_frames(tmp_path: Path) -> None:
    sizes = []
    for steps in (6_000, 12_000):
        folder = tmp_path / str(steps)
        write_long_run(folder, steps, "segments", 400_000)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert sizes[1] - sizes[0] < 0.75 * 400_000
    with RecordReader(folder) as reader:
        steps_kept = [frame.step for frame in reader.frames()]
        assert reader.facts.facts[FACT]["every"] > CADENCE
    assert steps_kept[:FIRST_STEPS] == list(range(1, FIRST_STEPS + 1))
    assert steps_kept[-1] > 11_500


def test_facts_told_again_and_again_take_no_room_in_a_file_that_only_grows(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, RunFacts("long", 1e9), TARGETS, storage="segments") as writer:
        writer.facts({"not_examined": ["x" * 1000], "overhead": 0.0})
        writer.flush()
        before = sum(path.stat().st_size for path in tmp_path.iterdir())
        for n in range(20):
            writer.facts({"not_examined": ["x" * 1000], "overhead": n / 100})
            writer.flush()
        with RecordReader(tmp_path) as reader:
            assert reader.facts.facts["overhead"] == 0.19
            assert reader.facts.facts["not_examined"] == ["x" * 1000]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) - before < 20 * 200


@pytest.mark.parametrize(("told", "expected"), [({"first_steps": 1000, "every": 64, "quiet_every": 0}, "one measured step in 64"), ({"first_steps": 1000, "every": 0, "quiet_every": 7}, "one quiet step in 7")])
def test_the_sentence_names_what_was_thinned(told: dict[str, int], expected: str) -> None:
    assert expected in sentence(told)
