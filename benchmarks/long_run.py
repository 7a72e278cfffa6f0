"""Ten million steps in minutes: what a run of any length leaves on the disk and in memory.

No training: the frames that a run of 60 layers would bring are made by hand at the default cadence, of the very signals
that a real run of a small network measured, and fed to the record, or to the judge with all rules. The clock in them
is made up too.

    python benchmarks/long_run.py [--steps 10000000] [--layers 60]     the record
    python benchmarks/long_run.py --judge --steps 1000000              the judge and its history as well (slower)
    python benchmarks/long_run.py --write                              the table into docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tables import machine, put_between

from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.signals import CATALOGUE, Frame, Targets, Values

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "long_run.json"
CADENCE, DENSE = 32, 50
STEP_SECONDS = 0.05
TOLD = 20  # lines of the table


@dataclass(frozen=True)
class Stand:
    """What a run holds after so many steps."""

    steps: int
    record_mb: float
    frames: int
    resident_mb: float


def targets_of(layers: int) -> Targets:
    """`layers` layers with a weight and a bias each."""
    names = tuple(f"block.{n}.linear" for n in range(layers))
    params = tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))
    return Targets(
        layers=names, layer_kinds=("Linear",) * layers, layer_depths=tuple(range(layers)), params=params,
        param_layers=tuple(n // 2 for n in range(2 * layers)), param_shapes=((64, 64), (64,)) * layers, groups=("adam[0]",),
    )  # fmt: skip


def measured_signals() -> tuple[str, ...]:
    """The signals in the frames of a short real run at default settings."""
    import torch

    import nndoctor

    with tempfile.TemporaryDirectory() as folder:
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        optimizer = torch.optim.Adam(model.parameters())
        with nndoctor.wrap(model, optimizer, run_dir=Path(folder) / "run", ui="off"):
            for _ in range(60):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(3, (16,))).backward()
                optimizer.step()
        with RecordReader(Path(folder) / "run") as reader:
            names: dict[str, None] = {}
            for frame in reader.frames():
                names.update(dict.fromkeys(name for name in frame.values if name in CATALOGUE))
    return tuple(names)


def frames(steps: int, targets: Targets, signals: tuple[str, ...]) -> Iterator[Frame]:
    """A healthy run: a falling loss, and on measured steps every signal with a little noise about a steady value."""
    random = np.random.default_rng(0)
    level = {name: np.abs(random.standard_normal(targets.size(CATALOGUE[name].per))).astype(np.float32) for name in signals}
    still = {name: values for name, values in level.items() if name not in ("loss", "step.time", "loss.nonfinite")}
    noise = random.standard_normal(1 << 16).astype(np.float32)
    for step in range(1, steps + 1):
        loss = 0.5 + 2 / (1 + step / 1000) + 0.05 * noise[step & 0xFFFF]
        values: dict[str, Values] = {
            "step.time": np.full(1, STEP_SECONDS, np.float32), "loss": np.full(1, loss, np.float32), "loss.nonfinite": np.zeros(1, np.float32),
        }  # fmt: skip
        if step <= DENSE or step % CADENCE == 0:
            factor = np.float32(1 + 0.05 * noise[(step * 7) & 0xFFFF])
            values.update((name, array * factor) for name, array in still.items())
        yield Frame(step, 1e9 + step * STEP_SECONDS, step / 1000, values)


def run(steps: int, layers: int, judge: bool, limit: int | None = None) -> list[Stand]:
    """Feed `steps` frames and look at disk and memory every so often.

    Raises:
        RuntimeError: frames were dropped, or the record failed.
    """
    targets, signals = targets_of(layers), measured_signals()
    feed = judge_of(targets) if judge else None
    stands: list[Stand] = []
    with tempfile.TemporaryDirectory() as folder:
        options = {} if limit is None else {"limit": limit}
        with RecordWriter(Path(folder) / "run", RunFacts("long", time.time(), rules=("core",)), targets, **options) as writer:
            for frame in frames(steps, targets, signals):
                if feed is not None:
                    feed(frame)
                if not writer.frame(frame):
                    raise RuntimeError(writer.failure or "the queue overflowed")
                if frame.step % 500 == 0:
                    writer.flush()
                if frame.step % max(1, steps // TOLD) == 0:
                    stands.append(stand(Path(folder) / "run", frame.step))
                    print(stands[-1], flush=True)
        if writer.failure is not None:
            raise RuntimeError(writer.failure)
        stands[-1] = stand(Path(folder) / "run", steps)
    return stands


def judge_of(targets: Targets):  # type: ignore[no-untyped-def]
    from nndoctor.packaged import full_catalogue
    from nndoctor.reports.panel_data import PANEL_SIGNALS
    from nndoctor.rules import Judge, load_rulesets

    catalogue = full_catalogue()
    judge = Judge(load_rulesets(["core"], catalogue).for_judging(), targets, catalogue)
    judge.keep_only_what_is_needed(PANEL_SIGNALS)
    return judge.feed


def stand(folder: Path, steps: int) -> Stand:
    size = sum(path.stat().st_size for path in folder.iterdir())
    with RecordReader(folder) as reader:
        kept = sum(1 for _ in reader._source.frames(0))
    return Stand(steps, size / 1e6, kept, resident_mb())


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def markdown(stands: list[Stand]) -> str:
    lines = ["| steps | record | frames in it | memory of the process |", "|---|---|---|---|"]
    lines += [f"| {s.steps:,} | {s.record_mb:.0f} MB | {s.frames:,} | {s.resident_mb:.0f} MB |" for s in stands]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--judge", action="store_true", help="judge every frame by all rules as well")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md, the figures into benchmarks/long_run.json")
    options = parser.parse_args()
    stands = run(options.steps, options.layers, options.judge)
    print(markdown(stands))
    if options.write:
        chosen = [s for s in stands if s.steps * 10 // options.steps in (1, 2, 5, 10) and s.steps * 10 % options.steps == 0]
        told = {"machine": machine(), "layers": options.layers, "judged": options.judge, "stands": [asdict(s) for s in stands]}
        RESULTS.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        put_between(DOCUMENT, "long run", markdown(chosen))


if __name__ == "__main__":
    main()
