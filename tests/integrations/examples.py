"""The example scripts, loaded by path: they are what the documentation shows, and what the tests run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import nndoctor

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "integrations"


def example(name: str) -> Callable[[Sequence[str]], nndoctor.Diagnosis]:
    """``main`` of ``examples/integrations/<name>.py``."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


def roots(diagnosis: nndoctor.Diagnosis) -> list[str]:
    """Names of the root causes, after making sure that nothing of the doctor's own failed."""
    assert not diagnosis.probe_failures, diagnosis.probe_failures
    return [finding.diagnosis for finding in diagnosis.root_causes]
