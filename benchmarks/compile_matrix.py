"""What of the doctor works where torch.compile is used, and what that costs the compiled code: nothing, or this says so.

Every case is trained bare and with the doctor, in this order of events; graph breaks and graphs compiled are counted by
torch itself, and the losses of both are compared to the last bit. Families of signals count as measured if they are in
the frames of the second half of the run, when the compiled code has long been running.

    python benchmarks/compile_matrix.py                    print the table
    python benchmarks/compile_matrix.py --backend inductor    the real compiler (minutes)
    python benchmarks/compile_matrix.py --write            also into docs/performance.md and benchmarks/compile_matrix.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from tables import machine, put_between
from torch import nn
from torch.utils.checkpoint import checkpoint

import nndoctor
from nndoctor.record import RecordReader

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "compile_matrix.json"
STEPS, CADENCE, BATCHES = 48, 4, 4

FAMILIES: Mapping[str, Sequence[str]] = {
    "loss": ("loss",),
    "gradients": ("grad.norm", "param.grad.norm"),
    "weights and updates": ("weight.norm", "update.ratio"),
    "optimizer state": ("param.adam.m_norm",),
    "contracts of the loop": ("loop.backwards", "loop.stale_gradients"),
    "times of passes": ("step.forward", "step.backward", "step.optimizer"),
    "activations": ("act.std",),
    "tiles of the loop": ("tile.span", "tile.backward_other"),
    "layer times": ("time.forward",),
}


@dataclass(frozen=True)
class Case:
    """One way to compile.

    Args:
        first: ``wrap`` before ``compile``, or the other way round with the wrapper or the model inside given to ``wrap``.
        model: compile options, None where the model runs eagerly.
        step: whether ``optimizer.step`` is compiled too.
        checkpointing: None, or ``use_reentrant``.
        lengths: batch sizes, in turn.
        settings: of ``nndoctor.wrap``.
    """

    title: str
    first: str = "compile"
    model: Mapping[str, Any] | None = None
    step: bool = False
    checkpointing: bool | None = None
    lengths: Sequence[int] = (32,)
    settings: Mapping[str, Any] = field(default_factory=dict)


INSIDE: Mapping[str, Any] = {"compiled_activations": True}

CASES = (
    Case("no compilation", first="wrap"),
    Case("wrapped, then compiled", first="wrap", model={}),
    Case("compiled, then wrapped", model={}),
    Case("compiled, the inner model wrapped", first="inner", model={}),
    Case("`model.compile()`, then wrapped", first="in place", model={}),
    Case("fullgraph, wrapped first", first="wrap", model={"fullgraph": True}),
    Case("fullgraph, compiled first", model={"fullgraph": True}),
    Case("dynamic, batches of several sizes", model={"dynamic": True, "fullgraph": True}, lengths=(32, 24, 40, 16)),
    Case("compiled model and optimizer step", model={"fullgraph": True}, step=True),
    Case("compiled optimizer step only", first="wrap", step=True),
    Case("checkpointing inside, not reentrant", model={"fullgraph": True}, checkpointing=False),
    Case("checkpointing inside, reentrant", model={}, checkpointing=True),
    Case("`compiled_activations`, wrapped first", first="wrap", model={"fullgraph": True}, settings=INSIDE),
    Case("`compiled_activations`, compiled first", model={"fullgraph": True}, settings=INSIDE),
    Case("`compiled_activations`, `model.compile()`", first="in place", model={"fullgraph": True}, settings=INSIDE),
    Case(
        "`compiled_activations`, dynamic", first="wrap", model={"dynamic": True, "fullgraph": True}, lengths=(32, 24, 40, 16), settings=INSIDE
    ),
    Case("`compiled_activations`, compiled step", first="wrap", model={"fullgraph": True}, step=True, settings=INSIDE),
    Case("`compiled_activations`, checkpointing", first="wrap", model={"fullgraph": True}, checkpointing=False, settings=INSIDE),
    Case("`compiled_activations`, reentrant", first="wrap", model={}, checkpointing=True, settings=INSIDE),
    Case("`eager_every=8`, wrapped first", first="wrap", model={"fullgraph": True}, settings={"eager_every": 8}),
    Case("`eager_every=8`, compiled first", model={"fullgraph": True}, settings={"eager_every": 8}),
    Case("`eager_every=8`, compiled step", model={"fullgraph": True}, step=True, settings={"eager_every": 8}),
    Case("both", model={"fullgraph": True}, settings={**INSIDE, "eager_every": 8}),
)


@dataclass(frozen=True)
class Outcome:
    """What a case showed; breaks and graphs are those beyond the bare run's."""

    title: str
    breaks: int
    graphs: int
    same_losses: bool
    measured: Sequence[str]
    listed: Sequence[str]
    failures: Sequence[str]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in FAMILIES if name not in self.measured)


class Net(nn.Module):
    def __init__(self, checkpointing: bool | None) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU())
        self.checkpointing = checkpointing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = self.block(x) if self.checkpointing is None else checkpoint(self.block, x, use_reentrant=self.checkpointing)
        return self.head(x)  # type: ignore[no-any-return]


def prepared(case: Case, backend: str, attach: Callable[[Any, Any], Any]) -> tuple[Any, Callable[[], Any], Any, Any]:
    """Model to call, step to call, optimizer and doctor of a case."""
    model = Net(case.checkpointing)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    fast: Any = model
    doctor = attach(model, optimizer) if case.first == "wrap" else None
    if case.model is not None and case.first == "in place":
        model.compile(backend=backend, **case.model)
    elif case.model is not None:
        fast = torch.compile(model, backend=backend, **case.model)
    step: Callable[[], Any] = optimizer.step
    if case.step:
        step = torch.compile(optimizer.step, backend=backend)
    if doctor is None:
        doctor = attach(model if case.first in ("inner", "in place") else fast, optimizer)
    return fast, step, optimizer, doctor


def train(case: Case, backend: str, attach: Callable[[Any, Any], Any]) -> tuple[list[float], int, int, Any]:
    """Losses, graph breaks, graphs compiled and the doctor of one run."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model, step, optimizer, doctor = prepared(case, backend, attach)
    batches = [(torch.randn(n, 8), torch.randint(3, (n,))) for n in (case.lengths * BATCHES)[:BATCHES]]
    losses = []
    for number in range(STEPS):
        inputs, targets = batches[number % BATCHES]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        step()
        losses.append(float(loss.detach()))
    counters = torch._dynamo.utils.counters
    return losses, sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"], doctor


def examine(case: Case, backend: str = "aot_eager") -> Outcome:
    """Train the case bare and with the doctor."""
    losses, breaks, graphs, _ = train(case, backend, lambda model, optimizer: None)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        found, with_breaks, with_graphs, doctor = train(
            case,
            backend,
            lambda model, optimizer: nndoctor.wrap(model, optimizer, run_dir=run, ui="off", cadence=CADENCE, **case.settings),
        )
        doctor.close()
        with RecordReader(run) as reader:
            late = {name for frame in reader.frames() if frame.step > STEPS // 2 for name in frame.values}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return Outcome(
        title=case.title,
        breaks=with_breaks - breaks,
        graphs=with_graphs - graphs,
        same_losses=found == losses,
        measured=[family for family, signals in FAMILIES.items() if late.issuperset(signals)],
        listed=list(doctor.facts["unseen"]),
        failures=[f"{f.probe}: {f.error}" for f in doctor.diagnosis().probe_failures],
    )


def markdown(outcomes: Sequence[Outcome]) -> str:
    lines = ["| case | graph breaks added | graphs added | losses | measured all the time | not measured, and listed as such |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        measured = "everything" if not outcome.missing else ", ".join(outcome.measured)
        missing = ", ".join(outcome.missing) or "–"
        same = "same bits" if outcome.same_losses else "**differ**"
        lines.append(f"| {outcome.title} | {outcome.breaks} | {outcome.graphs} | {same} | {measured} | {missing} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="aot_eager", help="of torch.compile; aot_eager compiles graphs without generating code")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md, the rest into benchmarks/compile_matrix.json")
    options = parser.parse_args()
    outcomes = []
    for case in CASES:
        outcomes.append(examine(case, options.backend))
        print(outcomes[-1], file=sys.stderr, flush=True)
    print(markdown(outcomes))
    if options.write:
        told = {"machine": machine(), "backend": options.backend, "cases": [asdict(outcome) for outcome in outcomes]}
        RESULTS.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        put_between(DOCUMENT, "compile matrix", markdown(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
