"""What a training step costs with nndoctor, with torch.profiler, with torchmortem and with cockpit, side by side.

One fresh process for the bare loop and one for each tool, all of which train the same model on the same data. They take
turns in blocks on one pinned core, a block of the bare loop between every two tools, and each block gives one ratio to
the bare block beside it. Every tool is attached as its own documentation shows, and left at its defaults.

    python benchmarks/peers_overhead.py --only lenet            print the table of one workload
    python benchmarks/peers_overhead.py --only lenet --write    and put it into benchmarks/peers_overhead.json and docs/performance.md
    python benchmarks/peers_overhead.py --page                  write the table from what was measured before

torchmortem and cockpit are installed on demand, each into a folder of its own below ``build/peers``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from overhead import DENSE_STEPS, WARM_STEPS, WORKLOADS, Estimate, Worker
from peers_diagnosis import FOLDERS, install
from tables import machine, put_between
from workloads import Job

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "peers_overhead.json"
MEASURED = REPOSITORY / "benchmarks" / "overhead.json"
"""What nndoctor costs by itself, from more blocks and processes than are spent here."""
MAIN = ("lenet", "resnet18", "gpt")
BLOCK = {"lenet": 64, "lstm": 64}
"""Steps of a block before it is rounded up to whole cycles of a tool; 8 where a step is long."""
PATIENCE = 300.0
"""Seconds for the first two steps with a tool; one that takes longer is not measured on this workload."""


# ---------------------------------------------------------------------------------------------------- tools


class Bare:
    """The loop without any tool, and the places at which one can do its work."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def begin(self) -> None:
        """A block of steps begins."""

    def backward(self, step: int, loss: Any, outputs: Any, targets: Any) -> None:
        loss.backward()

    def stepped(self, loss: Any) -> None:
        """The optimizer has stepped."""

    def end(self) -> None:
        """The block ends."""

    def tell(self) -> None:
        """Make what the user reads."""


class Doctor(Bare):
    """nndoctor; `cadence` None is its default, 1 measures everything on every step."""

    def __init__(self, job: Job, cadence: int | None = None) -> None:
        import nndoctor

        super().__init__(job)
        folder = tempfile.mkdtemp(prefix="nndoctor-peers-")
        self._doctor = nndoctor.wrap(job.model, job.optimizer, job.loss_fn, ui="off", run_dir=Path(folder) / "run", cadence=cadence)
        if not self._doctor.enabled:
            raise RuntimeError("the doctor is switched off: this would measure nothing")

    def tell(self) -> None:
        str(self._doctor.diagnosis())


class Profiler(Bare):
    """torch.profiler without a schedule: every operation of every step, until it is stopped."""

    def begin(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=False)
        self._profile.start()

    def end(self) -> None:
        self._profile.stop()

    def tell(self) -> None:
        self._profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=10)


class ScheduledProfiler(Bare):
    """torch.profiler as its recipe for long jobs has it: five steps of rest, one to warm up, three that are recorded.

    The table of the three is made in the course of training, when they are over.
    https://docs.pytorch.org/tutorials/recipes/recipes/profiler_recipe.html
    """

    def __init__(self, job: Job) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        super().__init__(job)
        self._profile = profile(
            activities=[ProfilerActivity.CPU],
            schedule=schedule(wait=5, warmup=1, active=3),
            on_trace_ready=lambda found: found.key_averages().table(sort_by="self_cpu_time_total", row_limit=10),
        )
        self._profile.start()

    def stepped(self, loss: Any) -> None:
        self._profile.step()


class Torchmortem(Bare):
    def __init__(self, job: Job) -> None:
        from torchmortem import Autopsy

        super().__init__(job)
        self._autopsy = Autopsy(job.model, optimizer=job.optimizer)
        self._autopsy.attach()

    def stepped(self, loss: Any) -> None:
        self._autopsy.step(loss=loss.item())

    def tell(self) -> None:
        self._autopsy.detach()
        self._autopsy.get_report()


class Cockpit(Bare):
    """One of cockpit's presets; it asks for the model, the loss and the backward pass to go through BackPACK."""

    def __init__(self, job: Job, preset: str) -> None:
        import torch
        from backpack import extend
        from cockpit import Cockpit as Instruments
        from cockpit.utils.configuration import configuration

        model = extend(job.model, use_converter=True)
        # the mean over all tokens, as BackPACK knows it
        super().__init__(replace(job, model=model, loss_fn=extend(torch.nn.CrossEntropyLoss())))
        self._each_loss = torch.nn.CrossEntropyLoss(reduction="none")
        self._cockpit = Instruments(model.parameters(), quantities=configuration(preset))

    def backward(self, step: int, loss: Any, outputs: Any, targets: Any) -> None:
        losses = self._each_loss(outputs.detach(), targets)
        info = {"batch_size": len(targets), "individual_losses": losses, "loss": loss, "optimizer": self.job.optimizer}
        with self._cockpit(step, info=info):
            loss.backward(create_graph=self._cockpit.create_graph(step))

    def tell(self) -> None:
        self._cockpit.get_output()


@dataclass(frozen=True)
class Setting:
    """A tool as it is set.

    Args:
        tells: what the user has of it afterwards.
        peer: what has to be installed for it, a name of ``peers_diagnosis.PACKAGES``.
        cycle: a block is a multiple of so many steps.
        part: its block is this part of the others', because its steps take so long.
        telling: "once" after the run, "block" after every block that it has recorded.
    """

    title: str
    attach: Callable[[Job], Bare]
    tells: str
    peer: str | None = None
    cycle: int = 1
    part: float = 1.0
    telling: str = "once"


OURS = "nndoctor"
SETTINGS: Mapping[str, Setting] = {
    OURS: Setting("nndoctor", Doctor, "what is wrong, where, since when, why, and what to set; curves and layer times in one HTML page", cycle=32),
    "nndoctor-every": Setting("nndoctor, everything on every step", lambda job: Doctor(job, cadence=1), "the same, to the step"),
    "profiler": Setting(
        "torch.profiler, every step", Profiler, "time and calls of each operation, as table and trace; nothing on learning", telling="block",
    ),
    "profiler-schedule": Setting(
        "torch.profiler, 3 steps of 9", ScheduledProfiler, "the same of a third of the steps; its tables are made while training waits", cycle=9,
    ),
    "torchmortem": Setting("torchmortem", Torchmortem, "findings by thresholds over gradients, activations and weights, in an HTML page", peer="torchmortem"),
    "cockpit-economy": Setting(
        "cockpit, economy", lambda job: Cockpit(job, "economy"), "gauges of gradient noise, step length and distance, drawn; no verdict",
        peer="cockpit", part=1 / 8,
    ),
    "cockpit-full": Setting(
        "cockpit, full", lambda job: Cockpit(job, "full"), "the same with curvature: trace and largest eigenvalue of the Hessian", peer="cockpit", part=1 / 32,
    ),
}  # fmt: skip
"""Cockpit looks at every step by default; its ``track_schedule`` can be told to look seldom."""


# ---------------------------------------------------------------------------------------------------- worker


def training(tool: Bare) -> Iterator[None]:
    """One training step per item, for ever, the same for all tools."""
    job = tool.job
    for step, (inputs, targets) in enumerate(itertools.cycle(job.batches)):
        job.optimizer.zero_grad()
        outputs = job.model(inputs)
        loss = job.loss_fn(outputs, targets)
        tool.backward(step, loss, outputs, targets)
        job.optimizer.step()
        tool.stepped(loss)
        yield


def serve(name: str, setting: str | None) -> None:
    """The measured process: answers a number of steps by what they cost, and ``tell`` by how long telling takes."""
    import warnings

    import torch

    answers, sys.stdout = sys.stdout, sys.stderr  # a tool that prints must not garble the answers
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        job = WORKLOADS[name].build()
        tool = Bare(job) if setting is None else SETTINGS[setting].attach(job)
        steps = training(tool)
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            answer = telling(tool) if line.strip() == "tell" else cost(tool, steps, int(line))
            print(json.dumps(answer), file=answers, flush=True)
    except Exception as error:  # a tool that does not run on a model is a result
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]}), file=answers, flush=True)


def cost(tool: Bare, steps: Iterator[None], count: int) -> dict[str, float]:
    """Seconds per step: wall, and CPU time of the whole process."""
    wall, cpu = time.perf_counter(), time.process_time()
    tool.begin()
    for _ in range(count):
        next(steps)
    tool.end()
    return {"wall": (time.perf_counter() - wall) / count, "cpu": (time.process_time() - cpu) / count}


def telling(tool: Bare) -> dict[str, float]:
    begun = time.process_time()
    tool.tell()
    return {"cpu": time.process_time() - begun}


# ---------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Beside:
    """One tool on one workload. Ratios are to the bare loop; None where it does not run.

    Args:
        telling_ms: CPU time until the user can read, in milliseconds: once, or for each step that was recorded.
        failed: why it does not run.
    """

    setting: str
    blocks: int
    cpu: Estimate | None
    wall: Estimate | None
    telling_ms: float | None
    failed: str = ""


Pairs = list[list[tuple[float, float]]]
"""Of each round, the (CPU, wall) ratios of its blocks."""


def measure(name: str, names: Sequence[str], rounds: int, turns: int, core: int | None) -> list[Beside]:
    pairs: dict[str, Pairs] = {setting: [] for setting in names}
    told: dict[str, list[float]] = {setting: [] for setting in names}
    failed: dict[str, str] = {}
    for turn in range(rounds):
        tools = {setting: process(name, setting, core) for setting in names if setting not in failed}
        bare = process(name, None, core)
        try:
            for setting in list(tools):
                failure = settle(name, setting, tools[setting])
                if failure:
                    failed[setting] = failure
                    tools.pop(setting).kill()
                    print(f"{name}, {setting}: {failure}", file=sys.stderr, flush=True)
            bare.answer()
            bare.steps(WARM_STEPS)
            one_round(name, tools, bare, turns, turn, pairs, told)
        except KeyboardInterrupt:
            print(f"{name}: interrupted in round {turn + 1}; the blocks until now are told", file=sys.stderr, flush=True)
            break
        finally:
            for each in (*tools.values(), bare):
                each.kill()
        print(f"{name}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return [result(setting, pairs, told[setting], failed.get(setting, "")) for setting in names]


def process(name: str, setting: str | None, core: int | None) -> Worker:
    chosen = None if setting is None else SETTINGS[setting]
    paths = [str(FOLDERS / chosen.peer)] if chosen is not None and chosen.peer is not None else []
    paths += [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    command = [str(Path(__file__).resolve()), "--serve", name, *([] if setting is None else ["--setting", setting])]
    # ours has to be on where it is measured, whatever the shell that starts this says
    ours = "1" if setting is not None and setting.startswith(OURS) else "0"
    return Worker(command, core=core, environment={"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NNDOCTOR": ours})


def settle(name: str, setting: str, tool: Worker) -> str:
    """Run the first steps, which cost something else than those that follow; why it cannot, if it cannot."""
    answer = tool.answer()
    if "failed" not in answer:
        try:
            answer = tool.ask("2", PATIENCE)
        except TimeoutError:
            return f"two steps take more than {PATIENCE / 60:.0f} minutes"
    if "failed" not in answer:
        first = WORKLOADS[name].settled if setting == OURS else DENSE_STEPS if setting.startswith(OURS) else 2
        answer = tool.ask(str(first - 2)) if first > 2 else answer
    return str(answer.get("failed", ""))


def block(name: str, setting: Setting) -> int:
    """Steps of a block: whole cycles of the tool."""
    steps = max(1, round(BLOCK.get(name, 8) * setting.part))
    return -(-steps // setting.cycle) * setting.cycle


def one_round(name: str, tools: Mapping[str, Worker], bare: Worker, turns: int, turn: int, pairs: dict[str, Pairs], told: dict[str, list[float]]) -> None:
    """Blocks of all tools in turns, a bare one between every two of them; then each of them tells."""
    for setting in tools:
        pairs[setting].append([])
    plain = BLOCK.get(name, 8)
    for index in range(turns):
        order = list(tools)
        order = order[(turn + index) % len(order) :] + order[: (turn + index) % len(order)]
        for first, second in zip(order[::2], [*order[1::2], None], strict=False):
            costs = {first: take_block(name, first, tools, told)}
            without = bare.steps(plain)
            if second is not None:
                costs[second] = take_block(name, second, tools, told)
            for setting, cost in costs.items():
                pairs[setting][-1].append((cost["cpu"] / without["cpu"], cost["wall"] / without["wall"]))
    for setting, tool in tools.items():
        if SETTINGS[setting].telling == "once":
            told[setting].append(1e3 * tool.ask("tell")["cpu"])


def take_block(name: str, setting: str, tools: Mapping[str, Worker], told: dict[str, list[float]]) -> dict[str, float]:
    steps = block(name, SETTINGS[setting])
    answer = tools[setting].steps(steps)
    if "failed" in answer:
        raise RuntimeError(f"{setting} on {name}: {answer['failed']}")
    if SETTINGS[setting].telling == "block":
        told[setting].append(1e3 * tools[setting].ask("tell")["cpu"] / steps)
    return answer


def result(setting: str, pairs: Mapping[str, Pairs], told: Sequence[float], failed: str) -> Beside:
    own = [blocks for blocks in pairs[setting] if blocks]
    if failed or not own:
        return Beside(setting, 0, None, None, None, failed or "nothing was measured")
    cpu, wall = ([[pair[index] for pair in blocks] for blocks in own] for index in (0, 1))
    return Beside(setting, sum(map(len, own)), Estimate.of(cpu), Estimate.of(wall), statistics.median(told) if told else None)


# ---------------------------------------------------------------------------------------------------- telling


def markdown(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables from what is in the file of results."""
    lines = [
        "| workload | tool | CPU time of a step, bare = 1 | wall time, bare = 1 | adds, nndoctor = 1 | then, until you can read it |",
        "|---|---|---|---|---|---|",
    ]
    for name, told in measured.items():
        ours = added_by_us(name)
        lines += [row(WORKLOADS[name].title, Beside(**{**one, **estimates(one)}), ours) for one in told["tools"]]
    lines += ["", "| tool | what you know afterwards |", "|---|---|"]
    lines += [f"| {setting.title} | {setting.tells} |" for setting in SETTINGS.values()]
    where = "; ".join(
        f"{WORKLOADS[name].title.partition(',')[0]} on {told['date']}, {max(one['blocks'] for one in told['tools'])} blocks from {told['rounds']} fresh sets of processes, "
        f"load {told['load']:.1f}"
        for name, told in measured.items()
    )
    return "\n".join([*lines, "", f"Measured on {next(iter(measured.values()))['machine']} ({where}), medians with 95 % intervals."])


def estimates(one: Mapping[str, Any]) -> dict[str, Estimate | None]:
    return {part: None if one[part] is None else Estimate(*(float(one[part][key]) for key in ("median", "low", "high"))) for part in ("cpu", "wall")}


def row(title: str, one: Beside, ours: float | None = None) -> str:
    setting = SETTINGS[one.setting]
    if one.cpu is None or one.wall is None:
        return f"| {title} | {setting.title} | does not run: {one.failed.partition('. ')[0].replace('|', '/')} | | | |"
    cells = [title, setting.title, factor(one.cpu), factor(one.wall), "1" if one.setting == OURS else multiple(one.cpu, ours), until(one)]
    return f"| {' | '.join(cells)} |"


def factor(estimate: Estimate) -> str:
    digits = 3 if estimate.high < 2 else 2 if estimate.high < 10 else 1
    return f"{estimate.median:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def multiple(cpu: Estimate, ours: float | None) -> str:
    """How many times `ours` a tool adds, from what it does to the CPU time of a step."""
    if ours is None or ours <= 0:
        return "–"
    median, low, high = (max(0.0, value - 1) / ours for value in (cpu.median, cpu.low, cpu.high))
    return f"{median:.0f} [{low:.0f}, {high:.0f}]"


def added_by_us(name: str) -> float | None:
    """What nndoctor adds to a step of that workload: its own blocks or all that its process adds, whichever is more."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))["results"].get(name)
    return None if found is None else max(float(found["own"]["median"]), float(found["cpu"]["median"]))


def until(one: Beside) -> str:
    if one.telling_ms is None or one.setting == "profiler-schedule":
        return "in the step"
    return f"{one.telling_ms:.0f} ms for each recorded step" if SETTINGS[one.setting].telling == "block" else f"{one.telling_ms:.0f} ms"


def summary(tools: Sequence[Beside], rounds: int) -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {"machine": machine(), "date": str(date.today()), "load": load, "rounds": rounds, "tools": [asdict(one) for one in tools]}


def write(measured: Mapping[str, Mapping[str, Any]]) -> None:
    ordered = {name: measured[name] for name in WORKLOADS if name in measured}
    RESULTS.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")
    put_between(DOCUMENT, "peers", markdown(ordered))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(WORKLOADS), action="append", help="one workload; may be repeated")
    parser.add_argument("--tool", choices=list(SETTINGS), nargs="+", default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=4, help="fresh processes so many times (default 4)")
    parser.add_argument("--turns", type=int, default=4, help="blocks of each tool in a round (default 4)")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="core to pin to, -1 for none")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md and benchmarks/peers_overhead.json; other workloads there stay")
    parser.add_argument("--page", action="store_true", help="write the table from what was measured before")
    parser.add_argument("--serve", choices=sorted(WORKLOADS), help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=list(SETTINGS), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.serve:
        serve(options.serve, options.setting)
        return
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if options.page:
        write(known)
        return
    for peer in sorted({SETTINGS[name].peer or "" for name in options.tool} - {""}):
        install(peer)
    measured = {}
    for name in options.only or MAIN:
        tools = measure(name, options.tool, options.rounds, options.turns, None if options.core < 0 else options.core)
        measured[name] = summary(tools, options.rounds)
        if options.write:  # each as soon as it is there
            known |= {name: measured[name]}
            write(known)
    print(markdown(measured))


if __name__ == "__main__":
    main()
