"""A gate against making the doctor dearer: its own blocks now, as a share of the step, against a committed reference.

Everything is thread CPU time of one process: what the doctor books for its own blocks over the CPU time of the training
thread without them (quiet steps book the wall time of their median). A neighbour slows both alike, so the ratio hardly
moves; the least of several repeats is taken, what is beyond twice the reference is measured again, and the gate trips only
where no repeat is below it.

    python benchmarks/gate.py            compare (under half a minute; part of the checks before a change lands)
    python benchmarks/gate.py --write    make the present figures the reference
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import thread_time

from workloads import Job, lenet, mlp

REFERENCE = Path(__file__).resolve().parent / "gate.json"
MARGIN = 2.0
CADENCE, SETTLED, STEPS, REPEATS = 32, 64, 128, 3
AGAIN = 6  # more repeats before a workload counts as dearer: noise only adds, so one low figure refutes it
IN_THE_TRAINING_THREAD = ("parameters", "activations", "times", "graph", "data", "contract", "hooks")


def deep_mlp() -> Job:
    return mlp(60, 64)


JOBS: dict[str, Callable[[], Job]] = {"lenet": lenet, "mlp60": deep_mlp}


def own_share(build: Callable[[], Job]) -> float:
    """The doctor's own blocks over the rest of the training thread's CPU time, from step 65 on."""
    import torch

    import nndoctor

    torch.manual_seed(0)
    job = build()
    steps = job.steps()
    with (
        tempfile.TemporaryDirectory() as folder,
        nndoctor.wrap(job.model, job.optimizer, job.loss_fn, ui="off", run_dir=Path(folder) / "run", cadence=CADENCE, sinks="off") as doctor,
    ):
        for _ in range(SETTLED):
            next(steps)
        gc.collect()  # one of the whole process takes 0.2 s, most of it torch's own objects, and falls to whoever allocates next
        before, begun = booked(doctor), thread_time()
        for _ in range(STEPS):
            next(steps)
        own, whole = booked(doctor) - before, thread_time() - begun
    return own / (whole - own)


def booked(doctor) -> float:  # type: ignore[no-untyped-def]
    return sum(doctor.spent.get(tier, 0.0) for tier in IN_THE_TRAINING_THREAD)


def least_share(build: Callable[[], Job], reference: float | None) -> float:
    """The least of several repeats; of more where that is beyond the margin."""
    least = min(own_share(build) for _ in range(REPEATS))
    for _ in range(AGAIN):
        if reference is None or least <= MARGIN * reference:
            break
        least = min(least, own_share(build))
    return least


def compare(found: dict[str, float], reference: dict[str, float], margin: float = MARGIN) -> list[str]:
    """A sentence for each workload that is beyond the margin; a workload without reference is none."""
    return [
        f"{name}: the doctor's own blocks take {100 * share:.2f} % of the step, the reference is {100 * reference[name]:.2f} %"
        for name, share in found.items()
        if name in reference and share > margin * reference[name]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the present figures the reference")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    reference = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {}
    found = {name: least_share(build, None if options.write else reference.get(name)) for name, build in JOBS.items()}
    for name, share in found.items():
        print(f"{name}: own blocks {100 * share:.2f} % of the step (reference {100 * reference.get(name, float('nan')):.2f} %, gate at {MARGIN:g} times that)")
    if options.write:
        REFERENCE.write_text(json.dumps({name: round(share, 5) for name, share in found.items()}, indent=2) + "\n", encoding="utf-8")
        return 0
    dearer = compare(found, reference)
    for sentence in dearer:
        print(f"dearer than before: {sentence}", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
