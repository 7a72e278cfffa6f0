"""How the doctor's cost grows with depth, width, number of tensors and number of steps: figures and a picture.

Every point trains one small network with the doctor at a fixed cadence and takes the CPU time that it books for its own
blocks in the training thread, per measured and per quiet step. A cost that grows faster than what it is drawn over would
show as a line steeper than the dotted one.

    python benchmarks/growth.py            print the figures
    python benchmarks/growth.py --write    also into docs/images/growth.svg and benchmarks/growth.json (needs matplotlib)
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gate import booked
from tables import machine
from workloads import Job, many_tensors, mlp

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "images" / "growth.svg"
RESULTS = REPOSITORY / "benchmarks" / "growth.json"
DENSE, QUIET, CHUNK = 50, 200, 100
NEVER = 1 << 20  # a cadence at which nothing is measured after the first fifty steps

AXES: Mapping[str, tuple[str, Sequence[int], Callable[[int], Job]]] = {
    "depth": ("layers of an MLP of width 32", (8, 32, 128, 256), lambda n: mlp(n, 32)),
    "width": ("width of an MLP of 16 layers", (32, 128, 512), lambda n: mlp(16, n)),
    "tensors": ("tensors of 16 elements", (64, 256, 1024, 2048), lambda n: many_tensors(n)),
}
STEPS = (100, 400, 1600)


@dataclass(frozen=True)
class Point:
    """CPU time of the doctor's own blocks in the training thread, microseconds per step."""

    size: int
    measured_us: float
    quiet_us: float


def own_time(job: Job, cadence: int, skipped: int, steps: int) -> float:
    """Microseconds of the doctor's own blocks per step, after `skipped` steps: the median over chunks, which a busy moment does not move."""
    import nndoctor

    training = job.steps()
    with (
        tempfile.TemporaryDirectory() as folder,
        nndoctor.wrap(job.model, job.optimizer, ui="off", run_dir=Path(folder) / "run", cadence=cadence, sinks="off") as doctor,
    ):
        for _ in range(skipped):
            next(training)
        costs = []
        for _ in range(-(-steps // CHUNK)):
            doctor.diagnosis()  # what was noted for later is worked up here, or it would fall to another chunk
            before = booked(doctor)
            for _ in range(min(CHUNK, steps)):
                next(training)
            doctor.diagnosis()
            costs.append(1e6 * (booked(doctor) - before) / min(CHUNK, steps))
        return statistics.median(costs)


def point(size: int, build: Callable[[int], Job]) -> Point:
    """Measured steps are those of the dense start, without its first ten; quiet ones what follows when nothing is measured."""
    import torch

    torch.manual_seed(0)
    return Point(size, own_time(build(size), 1, 10, DENSE - 10), own_time(build(size), NEVER, DENSE + 5, QUIET if size <= 64 else 40))


def over_steps() -> list[Point]:
    """The cost per step of runs of different length, all of whose steps are quiet, or one in eight of which is measured."""
    import torch

    found = []
    for steps in STEPS:
        torch.manual_seed(0)
        found.append(Point(steps, own_time(mlp(4, 16, batch=8), 8, DENSE, steps), own_time(mlp(4, 16, batch=8), NEVER, DENSE, steps)))
    return found


def draw(curves: Mapping[str, list[Point]], labels: Mapping[str, str]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nndoctor"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(3.4 * len(curves), 3.2), sharey=True)
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        sizes = [p.size for p in points]
        panel.loglog(sizes, [p.measured_us for p in points], "o-", color="#1f6feb", label="measured step" if name != "steps" else "one step in 8 measured")
        panel.loglog(sizes, [p.quiet_us for p in points], "s-", color="#8250df", label="quiet step")
        panel.loglog(sizes, [points[0].measured_us * size / sizes[0] for size in sizes], ":", color="#6e7781", label="in proportion")
        panel.set_xlabel(labels[name])
        panel.grid(True, which="major", alpha=0.3)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("own CPU time per step, µs")
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=(*AXES, "steps"), action="append", help="one curve; may be repeated, the others stay as they are")
    parser.add_argument("--write", action="store_true", help="docs/images/growth.svg and benchmarks/growth.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    wanted = options.only or (*AXES, "steps")
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["curves"] if RESULTS.exists() else {}
    curves = {name: [Point(**one) for one in points] for name, points in known.items()}
    for name, (label, sizes, build) in AXES.items():
        if name not in wanted:
            continue
        curves[name] = []
        for size in sizes:
            curves[name].append(point(size, build))
            print(f"{size:6d} {label}: {curves[name][-1].measured_us:.0f} µs per measured step, {curves[name][-1].quiet_us:.0f} per quiet one", flush=True)
    if "steps" in wanted:
        curves["steps"] = over_steps()
        for found in curves["steps"]:
            print(f"{found.size:6d} steps: {found.measured_us:.0f} µs per step at one in 8, {found.quiet_us:.0f} with none measured", flush=True)
    if options.write:
        labels = {name: label for name, (label, _, _) in AXES.items()} | {"steps": "steps of the run"}
        ordered = {name: curves[name] for name in labels if name in curves}
        told = {name: [asdict(p) for p in points] for name, points in ordered.items()}
        RESULTS.write_text(json.dumps({"machine": machine(), "curves": told}, indent=2) + "\n", encoding="utf-8")
        draw(ordered, labels)


if __name__ == "__main__":
    main()
