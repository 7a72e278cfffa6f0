"""Where the time of a step goes, as an icicle: the step on top, its parts below, in them modules and layers by their names.

Only the step without the doctor is divided: the doctor works on measured steps and hardly on all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from nndoctor.history import History
from nndoctor.reports.charts import Floats, duration
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import network_order

WARM_UP = 20
"""First steps that are left out where enough others were measured: caches and allocators warm up in them."""

NARROW = 0.002
"""A share of the step below which neighbours are drawn as one: two CSS pixels of a wide page."""

ROWS = 6
"""Rows at most: the step, its parts, and four levels of modules."""

ROW = 24
"""Height of a row, CSS pixels."""

WIDE = 980
"""Width of the drawing in a wide window, CSS pixels; a script fits the names to the real one."""

CHARACTER = 7.0
"""Width of a character of its text, CSS pixels."""


@dataclass(frozen=True, slots=True)
class Node:
    """Some seconds of a step and what they are made of, in the order in which it runs."""

    name: str
    tone: str
    seconds: float
    whole: str = ""
    """The whole name of a layer or module, where `name` is its end."""
    children: tuple[Node, ...] = field(default=())


class Block(NamedTuple):
    """A node as it is drawn: `left` and `width` as shares of the step, `row` from the top."""

    node: Node
    left: float
    width: float
    row: int


def time_tree(history: History) -> Node | None:
    """The mean measured step as a tree; None where the parts of a step were not measured."""
    if "tile.span" not in history.measured():
        return None
    parts = tuple(part for part in _parts(history) if part.seconds > 0)
    if not parts:
        return None
    return Node("step", "t-step", sum(part.seconds for part in parts), "a step without the doctor", parts)


def _parts(history: History) -> Iterator[Node]:
    def single(*names: str) -> float:
        return sum(float(np.nansum(mean_times(history, name))) for name in names)

    def leaves(tone: str, named: Sequence[tuple[str, str]]) -> tuple[Node, ...]:
        return tuple(Node(label, tone, single(signal)) for signal, label in named)

    yield _part("data", "t-data", leaves("t-data", (
        ("tile.data_wait", "waiting for the loader"), ("tile.prepare", "preparing"), ("tile.to_device", "to the device"),
    )))  # fmt: skip
    yield _part("forward", "t-forward", (*module_tree(history, "time.forward", "t-forward"), *leaves("t-forward", (("tile.forward_other", "between layers"),))))
    yield Node("loss", "t-loss", single("tile.loss"))
    yield _part("backward", "t-backward", (
        *module_tree(history, "time.backward", "t-backward"),
        *((_part("recomputed", "t-backward", (*module_tree(history, "time.recomputed", "t-backward"), *leaves("t-backward", (("tile.recomputed_other", "between layers"),)))),)),
        *leaves("t-backward", (("tile.backward_other", "between layers"),)),
    ))  # fmt: skip
    groups = mean_times(history, "time.optimizer")
    yield _part("optimizer", "t-optimizer", (
        *(Node(name, "t-optimizer", seconds) for name, seconds in zip(history.targets.groups, np.nan_to_num(groups).tolist(), strict=False)),
        *leaves("t-optimizer", (
            ("tile.optimizer", "step"), ("tile.zero_grad", "zero_grad"), ("tile.clipping", "clipping"), ("tile.scaler", "gradient scaler"),
            ("tile.scheduler", "scheduler"),
        )),
    ))  # fmt: skip
    yield Node("evaluation", "t-loss", single("tile.evaluation"))
    yield Node("checkpoint", "t-loss", single("tile.checkpoint"))
    yield Node("everything else", "t-other", single("tile.rest"))


def _part(name: str, tone: str, children: Iterable[Node]) -> Node:
    held = tuple(child for child in children if child.seconds > 0)
    return Node(name, tone, sum(child.seconds for child in held), children=held)


def mean_times(history: History, name: str) -> Floats:
    """Mean seconds of every target of a signal, without the warm-up; means of parts add up, medians do not."""
    if name not in history.measured():
        return np.zeros(0)
    steps, values = history.tail(name)
    late = steps > WARM_UP
    kept = values[late].astype(float) if late.sum() >= WARM_UP else values.astype(float)  # (k, targets)
    count = np.isfinite(kept).sum(axis=0)
    return np.where(count > 0, np.nansum(np.where(np.isfinite(kept), kept, np.nan), axis=0) / np.maximum(count, 1), np.nan)


# -- layers by the parts of their names ------------------------------------------------------------------------------


def module_tree(history: History, signal: str, tone: str) -> tuple[Node, ...]:
    """The layers with their times, under the modules that their dotted names tell, in the order of the forward pass."""
    times = mean_times(history, signal)
    names = history.targets.layers
    timed = [(names[i], float(times[i])) for i in network_order(history.targets) if i < len(times) and times[i] > 0]
    return tuple(_grouped([(tuple(name.split(".")), seconds) for name, seconds in timed], tone, ()))


def _grouped(rows: Sequence[tuple[tuple[str, ...], float]], tone: str, above: tuple[str, ...]) -> Iterator[Node]:
    by_first: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for path, seconds in rows:
        by_first.setdefault(path[0], []).append((path[1:], seconds))
    for first, inner in by_first.items():
        path = (*above, first)
        own = sum(seconds for rest, seconds in inner if not rest)
        children = list(_grouped([(rest, seconds) for rest, seconds in inner if rest], tone, path))
        if own and children:
            children.insert(0, Node("itself", tone, own, ".".join(path)))
        whole = ".".join(path)
        if len(children) == 1:  # a module with a single child is no level of its own
            only = children[0]
            yield replace(only, name=f"{first}.{only.name}")
        else:
            yield Node(first, tone, own + sum(c.seconds for c in children if c.name != "itself"), whole, tuple(children))


# -- drawing ---------------------------------------------------------------------------------------------------------


def blocks(root: Node, rows: int = ROWS) -> list[Block]:
    """Every node that is wide enough to be seen, neighbours that are not drawn as one, in order."""
    total = root.seconds or 1.0
    found = [Block(root, 0.0, 1.0, 0)]

    def place(parent: Node, left: float, row: int) -> None:
        if row >= rows:
            return
        for child in _merged(parent.children, total):
            width = child.seconds / total
            found.append(Block(child, left, width, row))
            place(child, left, row + 1)
            left += width

    place(root, 0.0, 1)
    return found


def _merged(children: Sequence[Node], total: float) -> Iterator[Node]:
    """`children` in order, runs of narrow ones as one node; a run that stays narrow is still a node."""
    run: list[Node] = []
    for child in (*children, None):
        if child is not None and child.seconds / total < NARROW:
            run.append(child)
            continue
        if run:
            seconds = sum(node.seconds for node in run)
            yield run[0] if len(run) == 1 else Node(f"{len(run)} smaller", run[0].tone, seconds, ", ".join(node.whole or node.name for node in run[:8]))
            run = []
        if child is not None:
            yield child


def drawn(root: Node) -> Markup:
    """The icicle as SVG that fills its width; a script may zoom into it by the numbers in ``data-block``."""
    found = blocks(root)
    height = (max(block.row for block in found) + 1) * ROW
    out = [f'<svg class="icicle" width="100%" height="{height}" role="img" aria-label="{escape(summary(root))}">']
    for block in found:
        told = f"{block.node.whole or block.node.name}: {duration(block.node.seconds)}, {percent(block.width)} of the step"
        out.append(
            f'<g class="block {block.node.tone}" data-block="{block.left:.6g} {block.width:.6g} {block.row}" data-name="{escape(clean(block.node.name))}">'
            f"<title>{escape(clean(told))}</title>"
            f'<rect x="{100 * block.left:.4g}%" y="{block.row * ROW}" width="{100 * block.width:.4g}%" height="{ROW - 1}"/>'
            f'<svg x="{100 * block.left:.4g}%" y="{block.row * ROW}" width="{100 * block.width:.4g}%" height="{ROW - 1}">'
            f'<text x="6" y="16">{escape(fitted(clean(block.node.name), block.width * WIDE))}</text></svg></g>'
        )
    return Markup("".join([*out, "</svg>"]))


def fitted(name: str, width: float) -> str:
    """What of `name` has room in `width` CSS pixels: all, its beginning, or nothing.

    >>> fitted("forward", 100), fitted("forward", 45), fitted("forward", 20)
    ('forward', 'forw…', '')
    """
    room = int((width - 10) / CHARACTER)
    return name if room >= len(name) else f"{name[: room - 1]}…" if room >= 3 else ""


def percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"


def summary(root: Node) -> str:
    """The parts of the step in words, the largest first."""
    parts = sorted(root.children, key=lambda node: -node.seconds)
    said = ", ".join(f"{node.name} {percent(node.seconds / root.seconds)}" for node in parts)
    return f"A step without the doctor takes {duration(root.seconds)} where it was measured in parts: {said}."
