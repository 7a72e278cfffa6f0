"""Do the layer times agree with torch.profiler? Both look at the same steps, and every layer is compared.

The profiler says how long each operation took; an operation belongs to the layer in whose forward pass it ran, a node of the
backward pass to the layer whose operation made it (torch numbers both alike). The layer times come from stamps at the borders of
layers instead. So the two know the layers by different means, and only the clock is the same.

    python benchmarks/times_against_profiler.py                 all models
    python benchmarks/times_against_profiler.py --only lenet --show 10   and the ten largest layers of one
    python benchmarks/times_against_profiler.py --write         also into docs/layer-times.md; models that are not run again stay
    python benchmarks/times_against_profiler.py --coverage      instead: which part of the step has a name, without the profiler;
                                                                --write puts it into docs/performance.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tables import machine, put_between
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from workloads import Job, deep, gpt, gpt12, lenet, lstm, many_tensors, resnet18

from nndoctor import tiles
from nndoctor.discovery import ModelIndex
from nndoctor.interpose import PROCESS
from nndoctor.probes import layer_times
from nndoctor.probes.layer_times import LayerTimesProbe
from nndoctor.tiles import NANOSECONDS, Tiles

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "layer-times.md"
OVERVIEW = DOCUMENT.with_name("performance.md")
RANGE = "layer "
NODE = "autograd::engine::evaluate_function: "
WARM_STEPS, STEPS = 3, 11

# A layer agrees if the two differ by at most this; layers below a hundredth of the step are too short for either.
RELATIVE, ABSOLUTE, SMALLEST = 0.10, 20e-6, 0.01

Pass = dict[str, float]


JOBS = {"lenet": lenet, "resnet18": resnet18, "gpt": gpt, "gpt12": gpt12, "lstm": lstm, "mlp1000": deep, "tensors": many_tensors}


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


@dataclass(frozen=True)
class Covered:
    """Medians over steps, without the profiler. Shares are of the step without the doctor's own work."""

    span: float  # seconds of the training thread's CPU time
    layers: float  # forward, backward, recomputed and the optimizer's groups
    named: float  # and the named parts of the loop
    missing: int  # nanoseconds between the sum of all tiles and the step; at most, over all steps


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


def attached(job: Job) -> tuple[LayerTimesProbe, ModelIndex]:
    index = ModelIndex(job.model)
    probe = LayerTimesProbe()
    probe.attach(index)
    probe.register("optimizer", job.optimizer)
    index.add_groups(f"optimizer[{i}]" for i in range(len(job.optimizer.param_groups)))
    return probe, index


@contextmanager
def processor_clock() -> Iterator[None]:
    """Stamps are read from the CPU clock of the training thread: with one thread, wall time on a machine that nobody else uses."""
    wall = tiles.perf_counter_ns
    layer_times.perf_counter_ns = tiles.perf_counter_ns = time.thread_time_ns
    try:
        yield
    finally:
        layer_times.perf_counter_ns = tiles.perf_counter_ns = wall


def cover(job: Job, warm: int = WARM_STEPS, count: int = 5) -> Covered:
    """Which part of a step has a name."""
    probe, _ = attached(job)
    steps = job.steps()
    seen: list[tuple[float, float, float]] = []
    missing = 0
    with listening(probe, job.optimizer), processor_clock():
        for number in range(1, warm + count + 1):
            probe.begin_step(number, True)
            next(steps)
            probe.collect()
            tiles = probe.tiles
            assert tiles is not None
            inside = sum(sum(part.values()) for part in (tiles.forward, tiles.backward, tiles.recomputed, tiles.groups))
            missing = max(missing, abs(tiles.span - inside - sum(tiles.rest.values())))
            work = tiles.span - tiles.rest.get("the doctor itself", 0)
            if number > warm:
                seen.append((work / NANOSECONDS, inside / work, 1 - tiles.rest.get("rest", 0) / work))
    span, layers, named = (statistics.median(values) for values in zip(*seen, strict=True))
    return Covered(span, layers, named, missing)


def compare(job: Job) -> tuple[list[Compared], float, float]:
    """Every layer's times by both means (median over steps, and median difference), the median step in seconds and its named share."""
    probe, index = attached(job)
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


def row(name: str, rows: list[Compared], span: float, named: float) -> str:
    large = [one for one in rows if one.share >= SMALLEST]
    compared = large or rows  # of very many small layers none has a hundredth of the step
    differences = [abs(one.stamps / one.profiler - 1) if one.profiler else 1.0 for one in compared]
    worst = max(compared, key=lambda one: abs(one.stamps - one.profiler))
    return (
        f"| {name} | {len(compared)}{'' if large else ' (none has 1 %)'} | {sum(one.agrees for one in compared)} | {100 * statistics.median(differences):.1f} % "
        f"| {1e6 * abs(worst.stamps - worst.profiler):.0f} µs of {1e6 * worst.profiler:.0f} µs ({worst.layer}, {worst.phase}) "
        f"| {1e3 * span:.1f} ms | {100 * named:.1f} % | {date.today()} |"
    )


def markdown(rows: Mapping[str, str]) -> str:
    lines = [
        "| model | layers compared | agree | median difference | largest difference | step | named | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    processor = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return "\n".join([*lines, *rows.values(), "", f"{processor}, one thread, torch {torch.__version__}."])


def coverage_row(name: str, c: Covered) -> str:
    return f"| {name} | {1e3 * c.span:.1f} ms | {100 * c.layers:.1f} % | {100 * c.named:.1f} % | {c.missing} ns | {date.today()} |"


def coverage_table(rows: Mapping[str, str]) -> str:
    lines = [
        "| model | step | layers and optimizer | with the named parts of the loop | sum of the tiles less the step | measured |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *rows.values(), "", f"{machine()}."])


def with_known(rows: Mapping[str, str], page: Path, mark: str) -> dict[str, str]:
    """The rows, and of models without one those that stand on the page."""
    text = page.read_text(encoding="utf-8").partition(f"<!-- {mark}: begin -->")[2].partition(f"<!-- {mark}: end -->")[0]
    known = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    return {name: (known | rows)[name] for name in JOBS if name in rows or name in known}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def tell_coverage(names: Sequence[str], write: bool) -> None:
    rows = {}
    for name in names:
        torch.manual_seed(0)
        rows[name] = coverage_row(name, cover(JOBS[name]()))
        print(rows[name], flush=True)
    if write:
        put_between(OVERVIEW, "coverage", coverage_table(with_known(rows, OVERVIEW, "coverage")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--show", type=int, default=0, metavar="N", help="the N largest layers of each model")
    parser.add_argument("--write", action="store_true", help="the table into the page")
    parser.add_argument("--coverage", action="store_true", help="which part of the step has a name, without the profiler")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.coverage:
        tell_coverage(options.only, options.write)
        return 0
    rows = {}
    for name in options.only:
        torch.manual_seed(0)
        compared, span, named = compare(JOBS[name]())
        rows[name] = row(name, compared, span, named)
        print(rows[name], flush=True)
        for one in compared[: options.show]:
            mark = "" if one.agrees else "  differs"
            print(f"{name}: {one.layer} {one.phase}: stamps {1e6 * one.stamps:.0f} µs, profiler {1e6 * one.profiler:.0f} µs{mark}")
    if options.write:
        put_between(DOCUMENT, "agreement", markdown(with_known(rows, DOCUMENT, "agreement")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
