"""What the doctor costs: training steps with it over the same steps without it, at default settings.

Two processes train the same model on the same data, one bare, one with ``nndoctor.wrap``. They take turns in
blocks of steps on one pinned core (the order flips from pair to pair), and each pair of blocks gives one ratio.
Two processes, because the doctor wraps a few functions of torch: in one process the bare blocks would pay for them.
Whole blocks are noisy on a shared machine, so the thread CPU time that the doctor books for its own work is
reported beside the ratio: that is the figure which a neighbour cannot move.

    python benchmarks/overhead.py                      print the table
    python benchmarks/overhead.py --write              also into docs/performance.md and benchmarks/overhead.json; rows of other workloads stay
    python benchmarks/overhead.py --only lenet --control   bare against bare: what the noise alone would show
    python benchmarks/overhead.py --only lstm --only mlp1000   workloads beyond those of the table
    python benchmarks/overhead.py --only lenet --variant every-step   every step measured; layer-times: only these on every step
    python benchmarks/overhead.py --only lenet --variant layer-times --over-default   what these add to a doctor at its defaults
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from workloads import Job, deep, gpt, gpt12, gpt12_narrow, lenet, lstm, many_tensors, resnet18

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "overhead.json"
BEGIN, END = "<!-- overhead: begin -->", "<!-- overhead: end -->"

# glibc returns and re-maps memory between small steps, which makes the same bare loop bimodal (6 or 8 to 15 ms).
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**28),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
DENSE_STEPS = 50  # the doctor measures every one of the first steps
WARM_STEPS = 32  # more steps before the first block, for the cadence to settle
# Fresh processes per round: where the memory of a process happens to lie makes two bare ones differ by up to 4 %.
ROUNDS = 10


# ---------------------------------------------------------------------------------------------------- workloads


@dataclass(frozen=True)
class Workload:
    title: str
    build: Callable[[], Job]
    block: int  # steps; a multiple of the default cadence, so that every block holds as many sampled steps
    settled: int = DENSE_STEPS + WARM_STEPS  # steps before the first block; short steps are looked at more closely at first
    rounds: int = ROUNDS  # fewer where a round takes long


WORKLOADS = {
    "lenet": Workload("LeNet, batch 64, Adam", lenet, 128, settled=1500),
    "resnet18": Workload("ResNet-18, 32x32, batch 32, Adam", resnet18, 32, settled=700, rounds=2),
    "gpt": Workload("GPT, 4 layers, width 256, 8 x 128 tokens, AdamW", gpt, 32, rounds=4),
    "gpt12": Workload("GPT, 12 layers, width 512, 2 x 128 tokens, AdamW", gpt12, 32, rounds=2),
    "gpt12-narrow": Workload("GPT, 12 layers, width 128, 4 x 64 tokens, AdamW", gpt12_narrow, 32, rounds=4),
    "lstm": Workload("LSTM, 16 x 32 tokens, Adam", lstm, 128, settled=1500),
    "mlp1000": Workload("MLP, 1000 layers of width 32, Adam", deep, 32),
    "tensors": Workload("10 000 tensors of 16 elements, Adam", many_tensors, 32),
}
MAIN = ("lenet", "resnet18", "gpt", "gpt12")
"""The rows of the table; the others are measured when they are asked for."""

VARIANTS = ("default", "every-step", "layer-times")


# ---------------------------------------------------------------------------------------------------- worker


def work(name: str, with_doctor: bool, trace: bool, variant: str) -> None:
    """The measured process: answers each number of steps on stdin with what they cost, as one line of JSON."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    job = WORKLOADS[name].build()
    steps = job.steps()
    if trace:
        _attach_to_something_small()
        next(steps)
        tracemalloc.start()
        rules = _rules_bytes()
    # every second step is measured where memory is: what is held of the first looks only is gone after 64 of them
    cadence = 2 if trace else 1 if variant == "every-step" else None
    doctor = _attach(job, cadence=cadence, time_every_step=variant == "layer-times") if with_doctor else None
    for line in sys.stdin:
        spent = _spent(doctor)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            next(steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        own = {tier: seconds - spent.get(tier, 0.0) for tier, seconds in _spent(doctor).items()}
        parameters = sum(p.numel() * p.element_size() for p in job.model.parameters())
        answer = {"wall": wall, "cpu": cpu, "own": own, "parameter_bytes": parameters, "resident_bytes": _resident_bytes()}
        answer["record_bytes"] = _record_bytes(doctor)
        if trace:
            answer |= {"tensor_bytes": _tensor_bytes(), "python_bytes": tracemalloc.get_traced_memory()[0], "rules_bytes": rules}
        print(json.dumps(answer), flush=True)
    if doctor is not None:
        doctor.close()


def _attach(job: Job, **options: Any) -> Any:
    import nndoctor

    folder = tempfile.mkdtemp(prefix="nndoctor-overhead-")
    return nndoctor.wrap(job.model, job.optimizer, job.loss_fn, ui="off", run_dir=Path(folder) / "run", **options)


def _record_bytes(doctor: Any) -> int:
    """What the record has written so far, its log included."""
    return 0 if doctor is None else sum(path.stat().st_size for path in doctor.run_dir.iterdir() if path.is_file())


def _rules_bytes() -> int:
    """What a judge of the rules occupies before it has seen anything: the same for every model."""
    from nndoctor.rules import Judge, load_rulesets
    from nndoctor.signals import Targets

    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    judge = Judge(load_rulesets(["core"]).for_judging(), Targets())
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    del judge
    gc.collect()
    return held


def _attach_to_something_small() -> None:
    """Import and load whatever the first doctor of a process imports and loads, so that it is not counted."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    batches = [(torch.randn(2, 2), torch.randn(2, 2))]
    job = Job(model, torch.optim.Adam(model.parameters()), torch.nn.MSELoss(), batches)
    doctor = _attach(job)
    next(job.steps())
    doctor.close()


def _spent(doctor: Any) -> Mapping[str, float]:
    """Seconds of thread CPU time that the doctor has booked for its own blocks, by tier."""
    return dict(getattr(doctor, "spent", None) or {})


def _tensor_bytes() -> int:
    import torch

    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # issubclass: isinstance asks the lazy proxies among all objects for their class, which imports or warns
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------------------------------------------- measuring


class Worker:
    """One measured process, driven over its stdin."""

    def __init__(self, command: Sequence[str], *, core: int | None, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **WORKER_ENVIRONMENT, **(environment or {})},
        )
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {core})

    def steps(self, count: int) -> dict[str, Any]:
        """Run `count` steps and say what they cost. Raises RuntimeError if the process has died."""
        return self.ask(str(count))

    def ask(self, line: str, seconds: float | None = None) -> dict[str, Any]:
        """Send a line and return the answer; raises like `answer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.answer(seconds)

    def answer(self, seconds: float | None = None) -> dict[str, Any]:
        """The next line it says.

        Raises:
            RuntimeError: the process has died.
            TimeoutError: it has not answered for so many seconds.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"no answer within {seconds:g} s")
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the measured process ended with status {self._process.wait()}; its error is above")
        result: dict[str, Any] = json.loads(answer)
        return result

    def kill(self) -> None:
        """End it without waiting for what it does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def worker(name: str, *, doctor: bool, core: int | None, trace: bool = False, variant: str = "default") -> Worker:
    """A process of this script that trains the workload `name`."""
    flags = ["--worker", name, "--variant", variant, *(["--doctor"] if doctor else []), *(["--trace"] if trace else [])]
    return Worker([__file__, *flags], core=core)


@dataclass(frozen=True)
class Estimate:
    """The median over rounds of the median of their pairs, with its 95 % bootstrap interval.

    Rounds are drawn anew, and pairs within them: the pairs of a round share their processes.
    """

    median: float
    low: float
    high: float

    @staticmethod
    def of(rounds: Sequence[Sequence[float]], resamples: int = 4_000) -> Estimate:
        draw = np.random.default_rng(0)
        data = [np.asarray(pairs) for pairs in rounds]
        medians = np.empty(resamples)
        for index in range(resamples):
            chosen = [data[i] for i in draw.integers(len(data), size=len(data))]
            medians[index] = np.median([np.median(pairs[draw.integers(len(pairs), size=len(pairs))]) for pairs in chosen])
        low, high = np.quantile(medians, [0.025, 0.975])
        return Estimate(float(np.median([np.median(pairs) for pairs in data])), float(low), float(high))


@dataclass(frozen=True)
class Result:
    """What one workload showed; shares are of the bare step."""

    title: str
    pairs: int
    parameters_mb: float
    step_ms: Estimate  # bare
    wall: Estimate  # extra wall time
    cpu: Estimate  # extra CPU time of the whole process, the writer's thread included
    own: Estimate  # thread CPU time that the doctor books for its own blocks
    own_by_tier: Mapping[str, float]
    own_early: float  # the same share from the end of the first 50 steps to the first block
    first_steps: float  # extra wall time of the first 50 steps, each of which is measured
    rounds: int  # pairs of fresh processes
    tensors_kib: float | None  # torch tensors that the doctor holds: what lies on the model's device is among them
    host_kib: float | None  # arrays and Python objects that it holds for this model: samples, and books of the run
    rules_kib: float | None  # and for its rules, whatever the model
    resident_kib: float  # extra resident memory of the process, imported modules included
    record_kb: float | None = None  # that 1000 steps add to the record


def measure(name: str, pairs: int, core: int | None, control: bool, variant: str = "default", over_default: bool = False) -> Result:
    workload = WORKLOADS[name]
    rounds: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
    first: list[float] = []
    early: list[float] = []
    written: list[float] = []
    count = min(workload.rounds, pairs)
    for turn in range(count):
        bare, treated = worker(name, doctor=over_default, core=core), worker(name, doctor=not control, core=core, variant=variant)
        try:
            dense = [each.steps(DENSE_STEPS)["wall"] for each in (bare, treated)]
            first.append(dense[1] / dense[0] - 1)
            settling = [each.steps(workload.settled - DENSE_STEPS) for each in (bare, treated)]
            early.append((sum(settling[1]["own"].values()) - sum(settling[0]["own"].values())) / settling[0]["cpu"])
            rounds.append([])
            for index in range(pairs * turn // count, pairs * (turn + 1) // count):
                order = (bare, treated) if index % 2 else (treated, bare)
                cost = {each: each.steps(workload.block) for each in order}
                rounds[-1].append((cost[bare], cost[treated]))
            measured_steps = workload.block * len(rounds[-1])
            written.append((rounds[-1][-1][1]["record_bytes"] - settling[1]["record_bytes"]) / max(1, measured_steps))
        finally:
            bare.close()
            treated.close()

    def estimate(value: Callable[[dict[str, Any], dict[str, Any]], float]) -> Estimate:
        return Estimate.of([[value(a, b) for a, b in blocks] for blocks in rounds])

    blocks = [pair for blocks in rounds for pair in blocks]
    memory = Memory(None, None, None) if control or over_default else measure_memory(name)
    tiers = sorted({tier for _, b in blocks for tier in b["own"]})
    return Result(
        title=workload.title,
        pairs=len(blocks),
        rounds=count,
        parameters_mb=blocks[0][0]["parameter_bytes"] / 1e6,
        step_ms=estimate(lambda a, b: 1e3 * a["wall"] / workload.block),
        wall=estimate(lambda a, b: b["wall"] / a["wall"] - 1),
        cpu=estimate(lambda a, b: b["cpu"] / a["cpu"] - 1),
        own=estimate(lambda a, b: (sum(b["own"].values()) - sum(a["own"].values())) / a["cpu"]),
        own_by_tier={tier: statistics.median((b["own"].get(tier, 0.0) - a["own"].get(tier, 0.0)) / a["cpu"] for a, b in blocks) for tier in tiers},
        own_early=statistics.median(early),
        first_steps=statistics.median(first),
        tensors_kib=memory.tensors,
        host_kib=memory.host,
        rules_kib=memory.rules,
        resident_kib=statistics.median((b["resident_bytes"] - a["resident_bytes"]) / 1024 for a, b in blocks),
        record_kb=statistics.median(written),
    )


class Memory(NamedTuple):
    """KiB that the doctor holds, by kind; None: not measured."""

    tensors: float | None
    host: float | None
    rules: float | None


def measure_memory(name: str) -> Memory:
    """What the doctor holds after 82 looks in 114 steps, against the same steps without it."""
    answers = []
    for doctor in (False, True):
        process = worker(name, doctor=doctor, core=None, trace=True)
        try:
            answers.append(process.steps(DENSE_STEPS + 2 * WARM_STEPS))
        finally:
            process.close()
    bare, treated = answers
    rules = treated["rules_bytes"]
    host = treated["python_bytes"] - bare["python_bytes"] - rules
    return Memory((treated["tensor_bytes"] - bare["tensor_bytes"]) / 1024, host / 1024, rules / 1024)


# ---------------------------------------------------------------------------------------------------- telling


def share(value: float) -> str:
    return f"{100 * value:+.2f} %"


def interval(estimate: Estimate) -> str:
    return f"{share(estimate.median)} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"


def markdown(results: Mapping[str, Result]) -> str:
    rows = [
        "| workload | bare step | extra wall time | extra CPU time | doctor's own blocks | of the steps before | first 50 steps | memory: tensors + books + rules |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        memory = "-"
        if result.tensors_kib is not None:
            memory = f"{result.tensors_kib:.0f} KiB ({result.tensors_kib * 1024 / result.parameters_mb / 1e4:.2f} % of parameters)"
            memory += f" + {result.host_kib:.0f} KiB + {result.rules_kib:.0f} KiB"
        own = f"{100 * result.own.median:.2f} %" if result.own_by_tier else "not booked"
        cells = [result.title, f"{result.step_ms.median:.2f} ms", interval(result.wall), interval(result.cpu), own]
        early = f"{100 * result.own_early:.2f} %" if result.own_by_tier else "not booked"
        rows.append("| " + " | ".join([*cells, early, share(result.first_steps), memory]) + " |")
    return "\n".join(rows)


def machine() -> str:
    import torch

    return f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}, torch {torch.__version__}"


def known_results() -> dict[str, Result]:
    """What the file of results holds: rows that are not measured anew stay."""
    found = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    estimates = ("step_ms", "wall", "cpu", "own")
    return {name: Result(**{**row, **{part: Estimate(**row[part]) for part in estimates}}) for name, row in found.items()}


def write_results(measured: Mapping[str, Result]) -> None:
    both = {**known_results(), **measured}
    results = {name: both[name] for name in WORKLOADS if name in both}
    RESULTS.write_text(json.dumps({"machine": machine(), "results": {n: asdict(r) for n, r in results.items()}}, indent=2) + "\n")
    text = DOCUMENT.read_text(encoding="utf-8")
    head, found_begin, rest = text.partition(BEGIN)
    _, found_end, tail = rest.partition(END)
    if not (found_begin and found_end):
        raise SystemExit(f"{DOCUMENT}: expected the marks {BEGIN} and {END} around the table")
    pairs = min(result.pairs for result in results.values())
    fresh = min(result.rounds for result in results.values())
    of = f"{pairs} or more paired blocks each from {fresh} or more fresh pairs of processes"
    body = f"{BEGIN}\nMeasured on {machine()}; {of}, medians with 95 % intervals.\n\n{markdown(results)}\n{END}"
    DOCUMENT.write_text(head + body + tail, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(WORKLOADS), action="append", help="one workload; may be repeated")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of blocks for each workload (default 30)")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="core to pin to, -1 for none")
    parser.add_argument("--control", action="store_true", help="bare against bare: the noise of this machine")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and benchmarks/overhead.json")
    parser.add_argument("--variant", choices=VARIANTS, default="default", help="how the doctor is set")
    parser.add_argument("--over-default", action="store_true", help="compared with a doctor at its defaults, not with the bare loop")
    for hidden in ("--doctor", "--trace"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=sorted(WORKLOADS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.doctor, options.trace, options.variant)
        return
    if options.write and (options.control or options.over_default or options.variant != "default"):
        parser.error("--write takes neither --control nor --over-default nor --variant: the table is of the defaults")
    results = {}
    for name in options.only or MAIN:
        print(f"{WORKLOADS[name].title}: {options.pairs} pairs of {WORKLOADS[name].block} steps", file=sys.stderr, flush=True)
        results[name] = measure(name, options.pairs, None if options.core < 0 else options.core, options.control, options.variant, options.over_default)
        if options.write:  # each as soon as it is there
            write_results(results)
    print(markdown(results))
    for result in results.values():
        parts = ", ".join(f"{tier} {100 * part:.2f} %" for tier, part in result.own_by_tier.items())
        print(f"\n{result.title}, own blocks: {parts or 'not booked'}; resident {result.resident_kib / 1024:+.0f} MiB; record {result.record_kb or math.nan:.0f} kB per 1000 steps")


if __name__ == "__main__":
    main()
