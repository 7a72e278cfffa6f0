"""Where measured numbers go: TensorBoard, figures, or lines of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from nndoctor.metrics.histograms import counted

HISTOGRAMS_KEPT = 10


class WriterUnavailable(Exception):
    """A package that a writer needs is not installed; the message says which."""


class Writer(Protocol):
    """What takes numbers and histograms as they come."""

    def add_data(self, name: str, value: float, step: int) -> None: ...

    def add_histogram(self, name: str, values: Tensor, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardWriter:
    """Event files for TensorBoard; `name` is ``topic/layer``."""

    def __init__(self, folder: Path) -> None:
        try:
            self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
        except ImportError as error:
            raise WriterUnavailable("tb needs tensorboard: pip install 'nndoctor[tensorboard]'") from error

    def add_data(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def add_histogram(self, name: str, values: Tensor, step: int) -> None:
        self._writer.add_histogram(name, values, step, bins="auto")

    def close(self) -> None:
        self._writer.close()


class JsonWriter:
    """One line of JSON for each number, ``[name, step, value]``, in ``metrics.jsonl``; histograms as counts and edges."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115  # closed by close()

    def add_data(self, name: str, value: float, step: int) -> None:
        self._file.write(json.dumps([name, step, value]) + "\n")

    def add_histogram(self, name: str, values: Tensor, step: int) -> None:
        counts, edges = counted(values)
        self._file.write(json.dumps([name, step, {"counts": counts, "edges": edges}]) + "\n")

    def close(self) -> None:
        self._file.close()


class FigureWriter:
    """Draws one PNG for each topic when it is closed, a line for every layer; histograms of the last ten steps."""

    def __init__(self, folder: Path) -> None:
        try:
            self._figure: Any = import_module("matplotlib.figure").Figure
        except ImportError as error:
            raise WriterUnavailable("mpl needs matplotlib: pip install 'nndoctor[lab]'") from error
        self._folder = folder
        self._series: dict[str, dict[str, list[tuple[int, float]]]] = {}
        self._histograms: dict[str, list[tuple[int, list[int], list[float]]]] = {}

    def add_data(self, name: str, value: float, step: int) -> None:
        topic, _, layer = name.partition("/")
        self._series.setdefault(topic, {}).setdefault(layer, []).append((step, value))

    def add_histogram(self, name: str, values: Tensor, step: int) -> None:
        kept = self._histograms.setdefault(name, [])
        kept.append((step, *counted(values)))
        del kept[:-HISTOGRAMS_KEPT]

    def close(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for topic, layers in self._series.items():
            figure = self._figure(figsize=(7, 4.5), layout="constrained")
            axes = figure.subplots()
            for layer, points in layers.items():
                axes.plot(*zip(*points, strict=True), label=layer or None)
            axes.set(title=topic, xlabel="step")
            if any(layers):
                axes.legend(fontsize="small")
            figure.savefig(self._folder / f"{_file_name(topic)}.png", dpi=120)
        for name, kept in self._histograms.items():
            figure = self._figure(figsize=(7, 4.5), layout="constrained")
            axes = figure.subplots()
            for step, counts, edges in kept:
                axes.stairs(counts, edges, label=f"step {step}")
            axes.set(title=name)
            axes.legend(fontsize="small")
            figure.savefig(self._folder / f"{_file_name(name)}.png", dpi=120)


WRITERS: Mapping[str, Callable[[Path], Writer]] = {"tb": TensorBoardWriter, "mpl": FigureWriter, "jsonl": JsonWriter}


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The series in ``metrics.jsonl``: (step, value) by name, histograms left out."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        name, step, value = json.loads(line)
        if not isinstance(value, dict):
            series.setdefault(name, []).append((step, value))
    return series


def _file_name(topic: str) -> str:
    return re.sub(r"[^\w.-]+", "-", topic)
