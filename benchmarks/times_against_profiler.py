"""Do the layer times agree with torch.profiler? Both look at the same steps, and every layer is compared.

The profiler says how long each operation took; an operation belongs to the layer in whose forward pass it ran, a node of the
backward pass to the layer whose operation made it (torch numbers both alike). The layer times come from stamps at the borders of
layers instead. So the two know the layers by different means, and only the clock is the same.

    python benchmarks/times_against_profiler.py                 all models
    python benchmarks/times_against_profiler.py --only lenet --show 10   and the ten largest layers of one
    python benchmarks/times_against_profiler.py --write         also into docs/layer-times.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from workloads import Job, gpt, lenet, lstm, resnet18

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import PROCESS
from nndoctor.probes.layer_times import NANOSECONDS, LayerTimesProbe, Tiles

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "layer-times.md"
BEGIN, END = "<!-- agreement: begin -->", "<!-- agreement: end -->"
RANGE = "layer "
NODE = "autograd::engine::evaluate_function: "
WARM_STEPS, STEPS = 3, 11

# A layer agrees if the two differ by at most this; layers below a hundredth of the step are too short for either.
RELATIVE, ABSOLUTE, SMALLEST = 0.10, 20e-6, 0.01

Pass = dict[str, float]


JOBS = {"lenet": lenet, "resnet18": resnet18, "gpt": gpt, "lstm": lstm}


@dataclass(frozen=True)
class Compared:
    """One layer's forward or backward time in seconds per step, by either means."""

    layer: str
    phase: str
    stamps: float
    profiler: float
    share: float

    @property
    def agrees(self) -> bool:
        return abs(self.stamps - self.profiler) <= max(RELATIVE * self.profiler, ABSOLUTE)


@contextmanager
def listening(probe: LayerTimesProbe, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The probe hears of the loop without a doctor, whose other probes would be in the way."""
    probe.observer_failed = lambda event, error: sys.exit(f"{event}: {error}")  # type: ignore[attr-defined]
    handles = [
        optimizer.register_step_pre_hook(lambda o, *_: probe.gradients_ready(o)),
        optimizer.register_step_post_hook(lambda o, *_: probe.stepped(o)),
    ]
    PROCESS.add(probe)
    try:
        yield
    finally:
        PROCESS.remove(probe)
        for handle in handles:
            handle.remove()


def marked(index: ModelIndex) -> list[Any]:
    """Hooks that mark the forward pass of every layer for the profiler."""
    handles: list[Any] = []
    for name, module in zip(index.layer_names, index.layers, strict=True):
        if module is None:
            continue
        open_ranges: list[Any] = []

        def before(module: nn.Module, args: Any, name: str = name, ranges: list[Any] = open_ranges) -> None:
            ranges.append(record_function(RANGE + name))
            ranges[-1].__enter__()

        def after(module: nn.Module, args: Any, output: Any, ranges: list[Any] = open_ranges) -> None:
            ranges.pop().__exit__(None, None, None)

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after, prepend=True)]
    return handles


def layer_around(event: Any) -> str | None:
    """The layer in whose forward pass an operation ran."""
    while event is not None:
        if event.name.startswith(RANGE):
            return str(event.name[len(RANGE) :])
        event = event.cpu_parent
    return None


def seen_by_profiler(events: Any) -> tuple[Pass, Pass]:
    """Seconds of forward and backward by layer, from the operations of one step."""
    forward: Pass = defaultdict(float)
    backward: Pass = defaultdict(float)
    maker: dict[int, str | None] = {}
    ordered = sorted(events, key=lambda event: event.time_range.start)
    for event in ordered:
        if event.name.startswith((RANGE, NODE)) or event.scope == 1:
            continue
        layer = layer_around(event)
        if event.sequence_nr >= 0:
            maker[event.sequence_nr] = layer  # an operation that makes no node carries the number of the next one that does
        parent = event.cpu_parent
        if layer is not None and parent is not None and parent.name.startswith(RANGE):
            forward[layer] += event.time_range.elapsed_us() / 1e6
    current: str | None = None
    for event in ordered:
        if event.name.startswith(NODE) and event.cpu_parent is None:
            if "AccumulateGrad" not in event.name:  # it has no number of its own, and follows the node that made the gradient
                current = maker.get(event.sequence_nr)
            if current is not None:
                backward[current] += event.time_range.elapsed_us() / 1e6
    return forward, backward


def seen_by_stamps(tiles: Tiles, index: ModelIndex) -> tuple[Pass, Pass]:
    forward, backward = ({index.layer_names[n]: t / NANOSECONDS for n, t in part.items()} for part in (tiles.forward, tiles.backward))
    return forward, backward


def compare(job: Job) -> tuple[list[Compared], float, float]:
    """Every layer's times by both means (median over steps, and median difference), the median step in seconds and its named share."""
    index = ModelIndex(job.model)
    probe = LayerTimesProbe()
    probe.attach(index)
    probe.register("optimizer", job.optimizer)
    index.add_groups(f"optimizer[{i}]" for i in range(len(job.optimizer.param_groups)))
    steps = job.steps()
    samples: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    spans, named = [], []
    with listening(probe, job.optimizer):
        for number in range(1, WARM_STEPS + STEPS + 1):
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                handles = marked(index)
                probe.begin_step(number, True)
                next(steps)
                probe.collect()
                for handle in handles:
                    handle.remove()
            if number <= WARM_STEPS:
                continue
            assert probe.tiles is not None
            work = probe.tiles.span - probe.tiles.rest.get("the doctor itself", 0)  # the profiler's starts and stops are in there
            spans.append(work / NANOSECONDS)
            named.append(1 - probe.tiles.rest.get("rest", 0) / work)
            ours, theirs = seen_by_stamps(probe.tiles, index), seen_by_profiler(profiler.events())
            for phase, mine, other in zip(("forward", "backward"), ours, theirs, strict=True):
                for layer in mine:
                    samples[layer, phase].append((mine[layer], other.get(layer, 0.0)))
    span = statistics.median(spans)
    rows = []
    for (layer, phase), pairs in samples.items():
        other = statistics.median(theirs for _, theirs in pairs)
        # of the differences in one and the same step: what the system takes away between two stamps hits single steps
        mine = other + statistics.median(ours - theirs for ours, theirs in pairs)
        rows.append(Compared(layer, phase, mine, other, max(mine, other) / span))
    return sorted(rows, key=lambda row: -row.share), span, statistics.median(named)


def markdown(results: Mapping[str, tuple[list[Compared], float, float]]) -> str:
    lines = [
        "| model | layers compared | agree | median difference | largest difference | step | named |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (rows, span, named) in results.items():
        large = [row for row in rows if row.share >= SMALLEST]
        differences = [abs(row.stamps / row.profiler - 1) if row.profiler else 1.0 for row in large]
        worst = max(large, key=lambda row: abs(row.stamps - row.profiler))
        lines.append(
            f"| {name} | {len(large)} | {sum(row.agrees for row in large)} | {100 * statistics.median(differences):.1f} % "
            f"| {1e6 * abs(worst.stamps - worst.profiler):.0f} µs of {1e6 * worst.profiler:.0f} µs ({worst.layer}, {worst.phase}) "
            f"| {1e3 * span:.1f} ms | {100 * named:.1f} % |"
        )
    processor = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    lines += ["", f"{date.today()}, {processor}, one thread, torch {torch.__version__}."]
    return "\n".join(lines)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--show", type=int, default=0, metavar="N", help="the N largest layers of each model")
    parser.add_argument("--write", action="store_true", help="the table into docs/layer-times.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in options.only:
        torch.manual_seed(0)
        results[name] = compare(JOBS[name]())
        for row in results[name][0][: options.show]:
            mark = "" if row.agrees else "  differs"
            print(f"{name}: {row.layer} {row.phase}: stamps {1e6 * row.stamps:.0f} µs, profiler {1e6 * row.profiler:.0f} µs{mark}")
    table = markdown(results)
    print(table)
    if options.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
