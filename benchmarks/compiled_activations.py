"""What `compiled_activations=True` does to compiled code: whether its bits stay the same, and what its steps cost.

Each model is compiled twice by inductor, bare and with the doctor's operator behind every layer, and both are trained on
the same data in turns. First a few steps whose losses are compared to the last bit; then blocks of steps on which nothing
is sampled, by thread CPU time.

    python benchmarks/compiled_activations.py           print the table (minutes: it compiles)
    python benchmarks/compiled_activations.py --write   also into docs/performance.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import torch
import torch._dynamo
from tables import put_between
from torch import nn

import nndoctor
from nndoctor.probes.inside import hand_over, operator

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
COMPARED, BLOCKS, BLOCK = 12, 15, 10


class Block(nn.Module):
    """A part of a transformer with attention called as a function."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.before, self.after = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.attend(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed(self.after(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block(width, 4) for _ in range(2)), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 32)):
            stages += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(x).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Row:
    """What the operator did to one model."""

    title: str
    same_losses: bool
    graphs: int
    breaks: int
    layers: int
    milliseconds: float
    ratio: float


class Training:
    """One compiled model in training; the same seed makes the same one."""

    def __init__(self, make: Callable[[], nn.Module], inputs: torch.Tensor, half: bool, folder: str | None) -> None:
        torch.manual_seed(0)
        self.model, self.inputs, self.half = make(), inputs, half
        self.targets = torch.arange(len(inputs)) % 10
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.doctor: Any = None
        if folder is not None:
            self.doctor = nndoctor.wrap(
                self.model, self.optimizer, run_dir=Path(folder) / "run", ui="off", cadence=1 << 20, compiled_activations=True
            )
        self.fast: Any = torch.compile(self.model, fullgraph=True)

    def step(self) -> float:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = nn.functional.cross_entropy(self.fast(self.inputs).float(), self.targets)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def block(self) -> float:
        begun = thread_time()
        for _ in range(BLOCK):
            self.step()
        return (thread_time() - begun) / BLOCK


def examine(title: str, make: Callable[[], nn.Module], inputs: torch.Tensor, half: bool) -> Row:
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    with tempfile.TemporaryDirectory() as folder:
        bare = Training(make, inputs, half, None)
        expected = [bare.step() for _ in range(COMPARED)]
        alone = counters["stats"]["unique_graphs"]
        torch._dynamo.reset()
        seen = Training(make, inputs, half, folder)
        found = [seen.step() for _ in range(COMPARED)]
        graphs = counters["stats"]["unique_graphs"] - 2 * alone
        torch._dynamo.reset()  # both anew, so that both find the same in the compiler's cache
        for _ in range(52):
            bare.step(), seen.step()
        pairs = [(bare.block(), seen.block()) for _ in range(BLOCKS)]
        seen.doctor.close()
    return Row(
        title=title,
        same_losses=expected == found,
        graphs=graphs,
        breaks=sum(counters["graph_break"].values()),
        layers=sum(1 for module in bare.model.modules() if not any(module.children())),
        milliseconds=1e3 * median(first for first, _ in pairs),
        ratio=median(second / first for first, second in pairs) - 1,
    )


def call_cost() -> float:
    """Microseconds of one call of the operator whose receiver does not listen."""
    operator()
    look, seen, sink = torch.ops.nndoctor.look.default, torch.randn(8, 8), torch.zeros(1)
    hand_over(seen, sink, -1, 0)
    costs = []
    for _ in range(9):
        begun = thread_time()
        for _ in range(5000):
            look(seen, sink, -1, 0)
        costs.append((thread_time() - begun) / 5000 * 1e6)
    return median(costs)


def markdown(rows: Sequence[Row], cost: float) -> str:
    lines = [
        f"One call of the operator on a step that is not sampled: {cost:.1f} µs.",
        "",
        "| model, compiled by inductor | layers | losses of 12 steps | graphs added | graph breaks | bare step | CPU time of a step that is not sampled |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = "same bits" if row.same_losses else "**differ**"
        lines.append(f"| {row.title} | {row.layers} | {same} | {row.graphs} | {row.breaks} | {row.milliseconds:.2f} ms | {row.ratio:+.1%} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, words = torch.randn(32, 3, 32, 32), torch.randn(8, 64, 128)
    rows = []
    for title, make, inputs in (("convolutions", Convolutions, images), ("transformer", Transformer, words)):
        for half in (False, True):
            rows.append(examine(f"{title}, {'bfloat16' if half else 'float32'}", make, inputs, half))
            print(rows[-1], file=sys.stderr, flush=True)
    told = markdown(rows, call_cost())
    print(told)
    if options.write:
        put_between(DOCUMENT, "compiled activations", told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
