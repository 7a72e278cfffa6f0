"""Who may import whom: the pipe runs in one direction, and torch stops at the frame."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nndoctor"

# module or folder -> what of ours it may import, and "torch" where it may import torch
PUBLIC = {"nndoctor", "ranks", "packaged", "acknowledged", "examinations", "checkup_results", "signals", "findings", "history", "record", "rules", "reports", "reporting", "doctor", "attach", "lab", "zoo", "integrations", "sinks", "metrics", "subscribers"}
MAY_IMPORT = {
    "__init__": {"locate", "subscribers", "doctor", "examinations", "checkup_results", "findings", "signals"},
    "signals": set(),
    "findings": set(),
    "checkup_results": {"findings"},
    "packaged": {"signals"},
    "acknowledged": {"findings"},
    "history": {"signals"},
    "record": {"record", "acknowledged", "signals", "findings"},
    "rules": {"rules", "packaged", "signals", "history", "findings"},
    "reports": {"reports", "packaged", "checkup_results", "findings", "signals", "history", "record"},
    "budget": set(),
    "discovery": {"signals", "torch"},
    "interpose": {"torch"},
    "places": set(),
    "ranks": set(),
    "locate": {"torch"},
    "sinks": {"sinks", "signals", "findings", "ranks"},
    "responses": {"findings", "torch"},
    "tiles": {"signals"},
    "quiet": {"tiles", "torch"},
    "subscribers": {"signals", "torch"},
    "metrics": {"metrics", "subscribers", "signals", "lab", "torch"},
    "probes": {"probes", "packaged", "subscribers", "signals", "discovery", "interpose", "tiles", "torch"},
    "frames": {"probes", "signals", "tiles", "torch"},
    "loop_state": {"probes", "torch"},
    "window": {"probes", "torch"},
    "probe_board": {"probes"},
    "passes": {"probes", "probe_board", "budget", "discovery", "interpose", "torch"},
    "examinations": {"examinations", "checkup_results", "findings", "probes", "discovery", "torch"},
    "lab": {"lab", "examinations", "signals", "discovery", "torch"},
    "worker": {"frames", "rules", "reports", "record", "findings", "signals", "tiles"},
    "reporting": {"packaged", "acknowledged", "rules", "reports", "record", "history", "findings", "signals"},
    "doctor": {"nndoctor", "packaged", "worker", "reporting", "probes", "rules", "reports", "signals", "findings", "history", "record", "discovery", "interpose", "frames", "loop_state", "places", "passes", "quiet", "window", "probe_board", "subscribers", "budget", "ranks", "responses", "sinks", "torch"},
    "attach": {"doctor", "subscribers", "examinations", "checkup_results", "discovery", "interpose", "probes", "torch"},
    "cli": {"cli", *PUBLIC},
    "__main__": {"cli"},
    "integrations": {*PUBLIC, "torch"},
    "zoo": {*PUBLIC, "torch"},
}
TORCH_FREE = ("nndoctor", "nndoctor.packaged", "nndoctor.checkup_results", "nndoctor.signals", "nndoctor.findings", "nndoctor.history", "nndoctor.record", "nndoctor.rules", "nndoctor.reports", "nndoctor.reporting", "nndoctor.cli.main")


def part_of(path: Path) -> str:
    """The row of the table that a file belongs to: its folder, or its own name (``record_sqlite`` is of ``record``)."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else row_of(inside.stem)


def row_of(name: str) -> str:
    family = name.partition("_")[0]
    return family if family in MAY_IMPORT else name


def nodes_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, lazy imports inside functions included, except what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from nodes_at_run_time(child)


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports; ``from a import b`` counts as ``a.b``."""
    package = ("nndoctor", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = ".".join((*package[: len(package) - node.level + 1], *([node.module] if node.module else []))) if node.level else node.module
            yield from ((node.lineno, f"{home}.{alias.name}") for alias in node.names)


def part_imported(name: str) -> str | None:
    """The row of the table that an imported name belongs to, ``torch``, or None for anybody else's."""
    parts = name.split(".")
    if parts[0] in ("torch", "torchvision"):
        return "torch"
    if parts[0] != "nndoctor":
        return None
    if len(parts) == 1:
        return "nndoctor"
    home = PACKAGE / parts[1]
    is_module = home.is_dir() or home.with_suffix(".py").is_file()
    return row_of(parts[1]) if is_module else "nndoctor"


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_rulesets" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_the_table_allows(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{path.name} has no row in MAY_IMPORT: say there what it may import"
    for line, name in imported_names(path):
        imported = part_imported(name)
        allowed = imported is None or imported in MAY_IMPORT[part]
        assert allowed, f"{path}:{line}: {part} must not import {imported} ({name})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_part_reaches_for_the_private_names_of_another(path: Path) -> None:
    for line, name in imported_names(path):
        private = any(piece.startswith("_") and not piece.startswith("__") for piece in name.split(".")[1:])
        ours_elsewhere = name.startswith("nndoctor.") and part_imported(name) != part_of(path)
        assert not (private and ours_elsewhere), f"{path}:{line}: {name} is private to its own part"


def test_the_table_itself_has_no_knot() -> None:
    below = {"signals": 0, "findings": 0, "checkup_results": 1, "packaged": 1, "acknowledged": 1, "interpose": 0, "budget": 0, "places": 0, "ranks": 0, "tiles": 1, "quiet": 2, "responses": 1, "sinks": 2, "discovery": 1, "subscribers": 1, "metrics": 5, "history": 1, "record": 2, "probes": 2, "examinations": 3, "lab": 4, "frames": 3, "loop_state": 3, "window": 3, "probe_board": 3, "passes": 4, "rules": 2, "reports": 3, "worker": 4, "reporting": 4, "doctor": 5, "attach": 6}
    for part, level in below.items():
        upward = {other for other in MAY_IMPORT[part] - {part} if below.get(other, -1) >= level}
        assert not upward, f"{part} may import {upward}, which is not below it"


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_it_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"import {module} imports torch"


def test_the_test_sees_a_forbidden_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "rules").mkdir()
    (tmp_path / "probes").mkdir()
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch.nn\ndef f():\n    from ..probes import stats\n    import torch\n"
    (tmp_path / "rules" / "engine.py").write_text(source)
    found = [part_imported(name) for _, name in imported_names(tmp_path / "rules" / "engine.py")]
    assert found == [None, "probes", "torch"]
    assert not {"probes", "torch"} & MAY_IMPORT["rules"]
