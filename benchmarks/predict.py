"""How well are training times predicted for networks that were not recorded?

Trains small networks of several architectures, widths, depths and batch sizes, recorded like any run, leaves out one architecture
after the other with all of its batch sizes, learns from the rest, and compares.

The stamps are read from the CPU clock of the training thread: with one thread on an idle machine that is wall time, and on a
machine that others use as well it is the part of it that they cannot move.

    python benchmarks/predict.py                  train (a few minutes), then tell
    python benchmarks/predict.py --runs FOLDER    keep the records there, or use those that are there
    python benchmarks/predict.py --write          also into docs/layer-times.md
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from times_against_profiler import listening

from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.reports.times_model import Observed, Prediction, error_factor, learn, observe, truth
from nndoctor.signals import Frame

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "layer-times.md"
BEGIN, END = "<!-- prediction: begin -->", "<!-- prediction: end -->"
STEPS = 14  # each of which is measured by layers


# ---------------------------------------------------------------------------------------------------- networks


def mlp(*widths: int) -> Any:
    from torch import nn

    pairs = zip((256, *widths), (*widths, 10), strict=True)
    parts = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    return nn.Sequential(*parts), (256,), None


def cnn(*channels: int, size: int = 16, norm: bool = False) -> Any:
    from torch import nn

    parts: list[Any] = []
    for a, b in zip((3, *channels), channels, strict=False):
        parts += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]
    side = size // 2 ** len(channels)
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels[-1] * side * side, 10)), (3, size, size), None


def residual(width: int, blocks: int) -> Any:
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
            self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu2(x + self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x))))))

    stem = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *(Block() for _ in range(blocks)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)), (3, 16, 16), None


def lstm(width: int, length: int, layers: int = 1) -> Any:
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(200, 64), nn.Linear(width, 10)
            self.lstm = nn.LSTM(64, width, layers, batch_first=True)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.lstm(self.embedding(tokens))[0][:, -1])

    return Model(), (length,), 200


def transformer(width: int, depth: int, length: int) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.expand, self.gelu, self.contract = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.contract(self.gelu(self.expand(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(200, width), nn.Parameter(torch.zeros(length, width))
            self.blocks, self.head = nn.Sequential(*(Block() for _ in range(depth))), nn.Linear(width, 10)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.blocks(self.token(tokens) + self.position).mean(1))

    return Model(), (length,), 200


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "mlp-narrow": partial(mlp, 128, 128),
    "mlp-wide": partial(mlp, 512, 512),
    "mlp-deep": partial(mlp, 256, 256, 256, 256, 256),
    "mlp-bottleneck": partial(mlp, 1024, 64, 1024),
    "cnn-small": partial(cnn, 8, 16),
    "cnn-large": partial(cnn, 32, 64),
    "cnn-three": partial(cnn, 16, 32, 64, norm=True),
    "cnn-pictures": partial(cnn, 16, 32, size=32, norm=True),
    "residual-narrow": partial(residual, 16, 3),
    "residual-wide": partial(residual, 32, 2),
    "residual-middle": partial(residual, 24, 4),
    "lstm-short": partial(lstm, 96, 16),
    "lstm-long": partial(lstm, 96, 48),
    "lstm-wide": partial(lstm, 192, 24),
    "transformer-narrow": partial(transformer, 64, 2, 32),
    "transformer-wide": partial(transformer, 128, 2, 32),
    "transformer-deep": partial(transformer, 96, 4, 24),
}
BATCHES = (16, 48)


def train(name: str, batch: int, folder: Path) -> None:
    """Record one network by the probes of layer times and work alone; its run is called by the architecture."""
    import torch

    from nndoctor.discovery import ModelIndex
    from nndoctor.probes import layer_times
    from nndoctor.probes.layer_work import LayerWorkProbe

    layer_times.perf_counter_ns = time.thread_time_ns
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, shape, vocabulary = ARCHITECTURES[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs = torch.randn(4, batch, *shape) if vocabulary is None else torch.randint(vocabulary, (4, batch, *shape))
    targets = torch.randint(10, (4, batch))
    index = ModelIndex(model)
    index.add_groups(["adam[0]"])
    times, work = layer_times.LayerTimesProbe(), LayerWorkProbe()
    times.register("adam", optimizer)
    for probe in (work, times):
        probe.attach(index)
    facts = RunFacts(name, time.time(), times.facts(), ())
    with listening(times, optimizer), RecordWriter(folder, facts, index.targets()) as writer:
        for step in range(1, STEPS + 1):
            for probe in (work, times):
                probe.begin_step(step, True)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[step % 4]), targets[step % 4]).backward()
            optimizer.step()
            measured = {**times.collect(), **work.collect(), "input.batch_size": float(batch)}
            values = {signal: np.atleast_1d(np.float32(value)) for signal, value in measured.items()}
            writer.targets(index.targets())
            writer.frame(Frame(step, time.time(), None, values))


def record_all(root: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
    subprocess.run([sys.executable, __file__, "--train", str(root)], check=True, env=environment)


# ---------------------------------------------------------------------------------------------------- telling


def left_out(observed: Sequence[Observed]) -> list[tuple[Observed, Prediction]]:
    """Every network predicted by a model that has not seen its architecture, with the interval that all the others ask for."""
    pairs = []
    for name in sorted({one.network.name for one in observed}):
        model = learn([one for one in observed if one.network.name != name], validate=False)
        pairs += [(one, model.predict(one.network, extrapolate=True)) for one in observed if one.network.name == name]
    return [(one, _with_interval(one, predicted, pairs)) for one, predicted in pairs]


def _with_interval(one: Observed, predicted: Prediction, pairs: Sequence[tuple[Observed, Prediction]]) -> Prediction:
    others = [math.log(guess.step / truth(other)) for other, guess in pairs if other.network.name != one.network.name]
    factor = error_factor(others) * (1 + predicted.extrapolated_share)
    return replace(predicted, low=predicted.step / factor, high=predicted.step * factor)


def layer_errors(pairs: Sequence[tuple[Observed, Prediction]]) -> list[float]:
    """Relative errors of all layers with a hundredth of the step and more."""
    errors = []
    for one, predicted in pairs:
        for forward, backward, guess in zip(one.forward, one.backward, predicted.layers, strict=True):
            measured = forward + (0.0 if math.isnan(backward) else backward)
            if measured > 0.01 * truth(one):
                errors.append(abs((guess[0] + (0.0 if math.isnan(backward) else guess[1])) / measured - 1))
    return errors


def markdown(pairs: Sequence[tuple[Observed, Prediction]]) -> str:
    lines = ["| left out | networks | measured step | predicted | error | extrapolated |", "|---|---|---|---|---|---|"]
    for name in ARCHITECTURES:
        own = [(one, predicted) for one, predicted in pairs if one.network.name == name]
        measured = ", ".join(f"{1e3 * truth(one):.2f}" for one, _ in own)
        guessed = ", ".join(f"{1e3 * predicted.step:.2f}" for _, predicted in own)
        errors = ", ".join(f"{100 * (predicted.step / truth(one) - 1):+.0f} %" for one, predicted in own)
        beyond = max(predicted.extrapolated_share for _, predicted in own)
        lines.append(f"| {name} | {len(own)} | {measured} ms | {guessed} ms | {errors} | {100 * beyond:.0f} % |")
    steps = [abs(predicted.step / truth(one) - 1) for one, predicted in pairs]
    inside = [predicted.low <= truth(one) <= predicted.high for one, predicted in pairs]
    layers = layer_errors(pairs)
    within = [error for error, (_, predicted) in zip(steps, pairs, strict=True) if predicted.extrapolated_share <= 0.1]
    processor = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return "\n".join([
        *lines,
        "",
        f"Mean absolute error of the step {100 * sum(steps) / len(steps):.1f} % ({100 * sum(within) / max(1, len(within)):.1f} % over the {len(within)} of {len(steps)} networks "
        f"that are no extrapolation), of a layer {100 * sum(layers) / len(layers):.1f} % (median {100 * sorted(layers)[len(layers) // 2]:.1f} %, {len(layers)} layers); "
        f"{sum(inside)} of {len(inside)} steps within the 90 % interval. {date.today()}, {processor}, one thread.",
    ])


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, help="folder of the records; what is there is not recorded again")
    parser.add_argument("--write", action="store_true", help="the table into docs/layer-times.md")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        for name in ARCHITECTURES:
            for batch in BATCHES:
                if not (options.train / f"{name}-{batch}").exists():
                    train(name, batch, options.train / f"{name}-{batch}")
        return 0
    root = options.runs or Path(tempfile.mkdtemp(prefix="nndoctor-predict-"))
    record_all(root)
    observed = []
    for folder in sorted(root.iterdir()):
        with RecordReader(folder) as reader:
            one = observe(reader)
        if one is not None:
            observed.append(one)
    table = markdown(left_out(observed))
    print(table, flush=True)
    if options.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
