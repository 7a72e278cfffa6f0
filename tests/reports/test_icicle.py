"""The icicle: its parts add up, modules nest by name, what is narrow is drawn as one, names are text."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from nndoctor.history import History
from nndoctor.reports import icicle
from nndoctor.reports.icicle import Node, blocks, drawn, fitted, summary, time_tree
from nndoctor.signals import Frame, Targets

LAYERS = ("embed", "blocks.0.qkv", "blocks.0.up", "blocks.1.qkv", "head.inner.out")


def history(layers: tuple[str, ...] = LAYERS, steps: int = 60) -> History:
    made = History(Targets(layers=layers, layer_kinds=("Linear",) * len(layers), layer_depths=tuple(range(len(layers))), groups=("adam[0]",)))
    for step in range(1, steps + 1):
        slow = 50.0 if step <= 20 else 1.0
        values = {
            "time.forward": slow * np.arange(1, len(layers) + 1) * 1e-3, "time.backward": slow * np.full(len(layers), 2e-3), "time.optimizer": [slow * 3e-3],
            "tile.span": [1.0], "tile.data_wait": [slow * 5e-3], "tile.forward_other": [slow * 1e-3], "tile.loss": [0.0], "tile.doctor": [9.0], "tile.rest": [slow * 2e-3],
        }  # fmt: skip
        made.append(Frame(step, float(step), None, {name: np.asarray(v, np.float32) for name, v in values.items()}))
    return made


def named(node: Node, name: str) -> Node:
    return next(child for child in node.children if child.name == name)


def test_parts_are_means_without_the_warm_up_and_without_the_doctor() -> None:
    tree = time_tree(history())
    assert tree is not None
    assert {part.name: pytest.approx(part.seconds, rel=1e-5) for part in tree.children} == {
        "data": 5e-3, "forward": 16e-3, "backward": 10e-3, "optimizer": 3e-3, "everything else": 2e-3,
    }  # fmt: skip
    assert tree.seconds == pytest.approx(36e-3, rel=1e-5)


def test_every_node_is_as_long_as_its_children() -> None:
    def check(node: Node) -> None:
        if node.children:
            assert node.seconds == pytest.approx(sum(child.seconds for child in node.children), rel=1e-6)
        for child in node.children:
            check(child)

    tree = time_tree(history((*LAYERS, "blocks", "blocks.1.up.a", "blocks.1.up.b")))
    assert tree is not None
    check(tree)


def test_modules_nest_by_their_names_and_a_single_child_is_no_level() -> None:
    tree = time_tree(history())
    assert tree is not None
    forward = named(tree, "forward")
    assert [child.name for child in forward.children] == ["embed", "blocks", "head.inner.out", "between layers"]
    inner = named(forward, "blocks")
    assert [child.name for child in inner.children] == ["0", "1.qkv"]
    assert [child.whole for child in inner.children[0].children] == ["blocks.0.qkv", "blocks.0.up"]


def test_blocks_fill_their_parent_and_narrow_neighbours_are_one() -> None:
    layers = tuple(f"layer{i}" for i in range(900))
    tree = time_tree(history(layers))
    assert tree is not None
    found = blocks(tree)
    assert len(found) < 600
    assert any(re.fullmatch(r"\d+ smaller", block.node.name) for block in found)
    for row in (1, 2):
        level = [block for block in found if block.row == row]
        assert all(after.left >= before.left + before.width - 1e-9 for before, after in pairwise(level))


def test_no_more_rows_are_drawn_than_fit() -> None:
    tree = time_tree(history(("a.b.c.d.e.f.g.x", "a.b.c.d.e.f.h.x", "a.b.c.d.z", "a.b.y", "q")))
    assert tree is not None
    assert max(block.row for block in blocks(tree)) == icicle.ROWS - 1


def test_hostile_names_are_text() -> None:
    tree = time_tree(history(("</svg><img src=x onerror=alert(1)>", "blocks[/x]", "a\u202eb")))
    assert tree is not None
    text = str(drawn(tree))
    assert "<img" not in text
    assert "\u202e" not in text
    assert "blocks[/x]" in text


def test_the_words_tell_the_largest_part_first() -> None:
    tree = time_tree(history())
    assert tree is not None
    assert summary(tree).startswith("A step without the doctor takes 36\u202fms where it was measured in parts: forward 44.4\u202f%, backward 27.8\u202f%")


def test_without_the_parts_of_a_step_there_is_no_icicle() -> None:
    assert time_tree(History.from_series({"loss": [1.0]})) is None
    assert time_tree(History.from_series({"tile.span": [0.0]})) is None


@pytest.mark.parametrize(("name", "width", "shown"), [("forward", 100, "forward"), ("forward", 46, "forw…"), ("forward", 20, ""), ("a", 40, "a")])
def test_names_are_cut_to_their_blocks(name: str, width: float, shown: str) -> None:
    assert fitted(name, width) == shown
