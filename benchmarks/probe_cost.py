"""What one sampled step costs: thread CPU time of the activation and layer-time probes over that of the bare step.

Sampled and bare steps alternate in one process. The probes' work before and after the step is timed by itself;
what their hooks do inside the step is the difference of the median sampled and bare steps, which a busy
neighbour can move by a few per cent of the step. Divide by the cadence (1 in 32 by default) for the cost of a run.
With `--every-step` sampled steps follow each other, ten in a row: what the probe costs where every step is sampled.

    python benchmarks/probe_cost.py [--steps 200] [--only lenet] [--every-step]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

from workloads import Job, deep, gpt, gpt12, lenet, lstm, resnet18

# glibc returns and re-maps memory between small steps, which makes the same bare loop bimodal.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**28),
    "OMP_NUM_THREADS": "1",
}
WARM_STEPS = 6
LABELLED = ("step ms", "layers", "before us", "inside us", "after us", "of the step", "us per layer", "at 1 in 32")


MODELS: dict[str, Callable[[], Job]] = {"lenet": lenet, "resnet18": resnet18, "gpt": gpt, "gpt12": gpt12, "lstm": lstm, "mlp1000": deep}
SHORT = ("lenet", "lstm")


def measure(build: Callable[[], Job], probe: Any, steps: int, in_a_row: int) -> tuple[float, ...]:
    """The row of one model and probe: bare step, then what the probe adds to a sampled one.

    Args:
        in_a_row: sampled steps that follow each other, and bare ones; the first of either is not counted if there are more.
    """
    import torch

    from nndoctor.discovery import ModelIndex

    torch.manual_seed(0)
    torch.set_num_threads(1)
    job = build()
    training = job.steps()
    index = ModelIndex(job.model)
    probe.attach(index)
    times: dict[str, list[int]] = {"bare": [], "sampled": [], "before": [], "after": []}
    for step in range(WARM_STEPS + steps):
        sampled = step < WARM_STEPS or step // in_a_row % 2 == 0
        begin = thread_time_ns()
        probe.begin_step(step, sampled)
        began = thread_time_ns()
        next(training)
        stepped = thread_time_ns()
        if sampled:
            probe.collect()
        collected = thread_time_ns()
        if step >= WARM_STEPS and (in_a_row == 1 or step % in_a_row):
            times["sampled" if sampled else "bare"].append(stepped - began)
            if sampled:
                times["before"].append(began - begin)
                times["after"].append(collected - stepped)
    probe.detach()
    bare, sampled_step, before, after = (statistics.median(times[name]) / 1e3 for name in ("bare", "sampled", "before", "after"))
    inside = sampled_step - bare
    total = before + inside + after
    return bare / 1e3, len(index.layers), before, inside, after, 100 * total / bare, total / len(index.layers), 100 * total / bare / 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", choices=sorted(MODELS))
    parser.add_argument("--probe", choices=("activations", "times"), action="append", help="one of the two")
    parser.add_argument("--every-step", action="store_true", help="sampled steps that follow each other")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})

    from nndoctor.probes.activations import ActivationProbe
    from nndoctor.probes.layer_times import LayerTimesProbe

    print(f"{'':24s}" + "".join(f"{label:>14s}" for label in LABELLED))
    for name, build in MODELS.items():
        if options.only in (None, name):
            steps = options.steps if name in SHORT else max(options.steps // 5, 40)
            probes = [probe for kind, probe in (("activations", ActivationProbe()), ("times", LayerTimesProbe())) if kind in (options.probe or (kind,))]
            for probe in probes:
                row = measure(build, probe, steps, 10 if options.every_step else 1)
                cells = ("{:14.2f}", "{:14d}", "{:14.0f}", "{:14.0f}", "{:14.0f}", "{:12.2f} %", "{:14.1f}", "{:12.3f} %")
                print(f"{name + ' ' + probe.name:24s}" + "".join(cell.format(value) for cell, value in zip(cells, row, strict=True)), flush=True)


if __name__ == "__main__":
    main()
