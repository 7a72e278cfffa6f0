"""What ``nndoctor watch`` costs the training that it follows: blocks of steps with watchers and without, taking turns.

One process trains with the doctor attached and records; beside it run watchers, each the real command in a terminal of
its own, which are stopped by a signal for every other block. Measured is processor time of the training process, for the
median step of a block: of the thread that trains, and of all threads, the one that writes the record among them. Training and watchers have a core each, because any program on the
same core evicts a thread's caches and so makes it work more, whatever it looks at; what two cores share is left, which
--elsewhere shows: there the watchers follow a copy of the record, and leave the training's own alone.

    python benchmarks/watch_cost.py                 100 pairs of blocks of 32 steps, one watcher
    python benchmarks/watch_cost.py --watchers 3
    python benchmarks/watch_cost.py --elsewhere     the same watchers, following a copy of the record
    python benchmarks/watch_cost.py --watchers 0    blocks without against blocks without: what the noise alone shows
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from workloads import gpt, lenet

JOBS = {"lenet": lenet, "gpt": gpt}
SETTLED = 1500
"""Steps before the first block: short steps are looked at more closely at first."""


class Spent(NamedTuple):
    """Processor seconds of a block's median step: of the training thread, and of the process as a whole."""

    thread: float
    process: float


def work(job_name: str, folder: str) -> None:
    """The training: answers each number of steps on stdin with what they cost, as one line of JSON."""
    import torch

    import nndoctor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    job = JOBS[job_name]()
    doctor = nndoctor.wrap(job.model, job.optimizer, job.loss_fn, run_dir=folder, ui="off", name="watched")
    steps = job.steps()
    for line in sys.stdin:
        marks = [(time.thread_time(), time.process_time())]
        for _ in range(int(line)):
            next(steps)
            marks.append((time.thread_time(), time.process_time()))
        print(json.dumps([statistics.median(np.diff(column)) for column in zip(*marks, strict=True)]), flush=True)
    doctor.close()


def on_core(number: int) -> list[str]:
    """The beginning of a command that keeps it on one core; empty where there are not as many."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[number])] if number < len(cores) and shutil.which("taskset") else []


@contextmanager
def training(job: str, folder: Path) -> Iterator[Callable[[int], Spent]]:
    """A training process, as a function that lets it take some steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
    command = [*on_core(0), sys.executable, __file__, "--job", job, "--work", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def take(steps: int) -> Spent:
            print(steps, file=process.stdin, flush=True)
            return Spent(*json.loads(process.stdout.readline()))  # type: ignore[union-attr]

        yield take
        process.stdin.close()


@contextmanager
def watcher(folder: Path) -> Iterator[Callable[[bool], None]]:
    """``nndoctor watch`` in a terminal of its own, from its first picture on: a function that lets it go on, or stops it."""
    ours, theirs = pty.openpty()
    drawn = threading.Event()

    def read() -> None:
        with suppress(OSError):  # the terminal is closed
            while os.read(ours, 65536):
                drawn.set()

    process = subprocess.Popen(
        [*on_core(1), sys.executable, "-m", "nndoctor.cli.main", "watch", str(folder)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )  # fmt: skip
    os.close(theirs)
    threading.Thread(target=read, daemon=True).start()
    try:
        if not drawn.wait(60):
            raise SystemExit("the watcher has drawn nothing within a minute")
        yield lambda on: process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        if process.poll() is not None:
            raise SystemExit(f"the watcher ended by itself with exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--job", choices=JOBS, default="lenet")
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument("--steps", type=int, default=32, help="of a block")
    options.add_argument("--watchers", type=int, default=1)
    options.add_argument("--elsewhere", action="store_true", help="watch a copy of the record")
    options.add_argument("--settled", type=int, default=SETTLED, help="steps before the first block")
    options.add_argument("--work", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.work:
        work(given.job, given.work)
        return
    pairs: list[tuple[Spent, Spent]] = []
    with tempfile.TemporaryDirectory() as home, training(given.job, Path(home) / "run") as take:
        take(given.settled)
        followed = Path(home) / "run"
        if given.elsewhere:
            followed = Path(shutil.copytree(followed, Path(home) / "copy"))
        with ExitStack() as beside:
            switches = [beside.enter_context(watcher(followed)) for _ in range(given.watchers)]
            for number in range(given.pairs):
                found = {}
                for watched in (True, False) if number % 2 else (False, True):
                    for switch in switches:
                        switch(watched)
                    found[watched] = take(given.steps)
                pairs.append((found[True], found[False]))
            for switch in switches:
                switch(True)
    print(f"{given.job}, {given.pairs} pairs of blocks of {given.steps} steps, {given.watchers} watcher{'s' * (given.watchers != 1)}{' of a copy' * given.elsewhere}")
    for position, name in enumerate(Spent._fields):
        bare = statistics.median(without[position] for _, without in pairs)
        ratios = [watched[position] / without[position] - 1 for watched, without in pairs]
        low, high = interval(ratios)
        print(f"  {name:<8} {1e3 * bare:8.2f} ms a step; with watchers {statistics.median(ratios):+.2%} [{low:+.2%}, {high:+.2%}]")


if __name__ == "__main__":
    main()
