"""What every test stands on: one thread, fixed seeds, a folder of its own, a plain environment."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch or numpy start their thread pools: two tests' worth of threads on two cores is slower than one.
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent

# What decides how a terminal is treated; a test that is about one of them sets it itself.
TERMINAL_VARIABLES = ("CI", "GITHUB_ACTIONS", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "TERMINAL_WIDTH")


@pytest.fixture(autouse=True)
def _own_folder_and_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, so that a run folder made by default never lands in the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in (*TERMINAL_VARIABLES, *(key for key in os.environ if key.startswith("NNDOCTOR") and key != "NNDOCTOR_TEST_DATA")):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """The same random numbers in every test, whatever ran before it; torch only where a test imported it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No test sees what another one left in the process: an attached doctor, what was compiled, a hook on all modules.

    The doctor looks at all three. A hook that outlives its doctor is a defect of ours, so it fails the test.
    """
    yield
    if doctors := sys.modules.get("nndoctor.doctor"):
        for doctor in doctors.attached_doctors():
            doctor.close()
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is not None and utils.counters:
        sys.modules["torch"]._dynamo.reset()
        utils.counters.clear()
    if modules := sys.modules.get("torch.nn.modules.module"):
        left = {name: dict(hooks) for name, hooks in vars(modules).items() if name.startswith("_global") and "hooks" in name and hooks}
        assert not left, f"hooks on all modules were left behind: {left}"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_data() -> Path | None:
    """The folder named by NNDOCTOR_TEST_DATA, with data sets that are not shipped; None where it is not set.

    Tests that need it skip with a word on how to get it; nothing that CI relies on may.
    """
    folder = os.environ.get("NNDOCTOR_TEST_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None
