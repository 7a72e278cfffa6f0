"""What keeping the run record costs: microseconds per frame for the training thread, bytes per 1000 steps.

    python benchmarks/record_write.py [--steps 4000] [--storage sqlite|segments]

The run that it writes: 60 layers and 60 parameters; every step the run-level signals, every 32nd step all others as
well, and the first 50 steps all of them. The values are random, so nothing about their size is flattered.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.signals import CATALOGUE, Frame, Targets, Values

LAYERS = 60
CADENCE = 32
DENSE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pause", type=float, default=0.001, help="seconds of training between two frames")
    parser.add_argument("--storage", choices=("sqlite", "segments"), default="sqlite")
    options = parser.parse_args()

    names = tuple(f"block.{n}.conv" for n in range(LAYERS))
    targets = Targets(
        layers=names, layer_kinds=("Conv2d",) * LAYERS, layer_depths=tuple(range(LAYERS)),
        params=tuple(f"{name}.weight" for name in names), param_layers=tuple(range(LAYERS)),
        param_shapes=((64, 64, 3, 3),) * LAYERS, groups=("adam[0]",),
    )  # fmt: skip
    small, full = values(targets, ("run", "group")), values(targets, ("run", "group", "layer", "param"))
    frames = [
        Frame(step, time.time(), step / 100, full if step <= DENSE or step % CADENCE == 0 else small)
        for step in range(1, options.steps + 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        producer, written, total = write(run, frames, targets, options)
        bytes_kept = sum(path.stat().st_size for path in run.iterdir())
        begun = time.perf_counter()
        with RecordReader(run) as reader:
            read = sum(1 for _ in reader.frames())
        reading = time.perf_counter() - begun
    sampled = sum(frame.values is full for frame in frames)
    print(f"{options.storage}: {options.steps} frames, {sampled} with all of {count(full)} values, the others {count(small)}")
    print(f"  in the training thread: median {np.median(producer):.1f} us, 99 % below {np.quantile(producer, 0.99):.1f} us")
    print(f"  in the writing thread:  {1e6 * written / options.steps:.1f} us of CPU per frame ({total:.2f} s in all)")
    print(f"  on disk: {bytes_kept / 1e6:.2f} MB, steady state {steady(full, small) / 1e3:.0f} kB of values per 1000 steps")
    print(f"  bytes per value: {bytes_kept / (sampled * count(full) + (options.steps - sampled) * count(small)):.2f}")
    print(f"  read back: {read} frames in {reading:.2f} s")


def write(
    run: Path, frames: list[Frame], targets: Targets, options: argparse.Namespace
) -> tuple[list[float], float, float]:
    """Microseconds of each hand-over, CPU seconds of the writing thread, seconds in all."""
    producer = []
    begun, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    writer = RecordWriter(run, RunFacts("benchmark", time.time()), targets, storage=options.storage)
    for frame in frames:
        at = time.perf_counter()
        kept = writer.frame(frame)
        producer.append((time.perf_counter() - at) * 1e6)
        assert kept, "the queue overflowed: raise --pause"
        time.sleep(options.pause)
    writer.close()
    assert writer.failure is None, writer.failure
    others = (time.process_time() - cpu) - (time.thread_time() - own)
    return producer, others, time.perf_counter() - begun


def values(targets: Targets, axes: tuple[str, ...]) -> dict[str, Values]:
    random = np.random.default_rng(0)
    return {
        signal.name: random.standard_normal(targets.size(signal.per)).astype(np.float32)
        for signal in CATALOGUE
        if signal.per in axes
    }


def count(arrays: dict[str, Values]) -> int:
    return sum(array.size for array in arrays.values())


def steady(full: dict[str, Values], small: dict[str, Values]) -> float:
    return 4 * 1000 * (count(full) + (CADENCE - 1) * count(small)) / CADENCE


if __name__ == "__main__":
    main()
