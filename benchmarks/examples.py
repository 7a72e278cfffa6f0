"""The examples as a user would run them: healthy ones have to stay silent, sick ones have to be named first.

    python benchmarks/examples.py [--example NAME ...] [--sick NAME|healthy ...] [--seeds 0 1 2]

One line for each run: what was planted, what was found, and how long it took. The exit code is 1 if any of them is wrong.
The scripts import the doctor themselves, except for the one about a table, which is run by ``nndoctor run``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nndoctor.cli.run import RunOptions, run_script
from nndoctor.findings import Diagnosis
from nndoctor.reporting import view_run

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = ("image_classifier", "char_gpt", "gan", "tabular", "rl_cartpole", "fine_tuning")
UNTOUCHED = ("tabular",)
"""Scripts that know nothing of the doctor."""
HEALTHY = "healthy"


@dataclass(frozen=True)
class Outcome:
    """What was found in one run: root causes above a note, the first one first, what failed in the doctor, seconds."""

    causes: tuple[str, ...]
    failures: tuple[str, ...]
    seconds: float

    def right(self, sick: str) -> bool:
        """Whether nothing was said of a healthy run, or the planted cause first of a sick one."""
        if self.failures:
            return False
        return self.causes[:1] == (() if sick == HEALTHY else (sick,))


def example(name: str) -> ModuleType:
    """``examples/<name>.py``, imported by its path, with its neighbours importable."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def diagnosis(name: str, arguments: Sequence[str]) -> Diagnosis:
    """What the doctor says of ``examples/<name>.py`` called with `arguments`; the run is recorded below the current folder."""
    if name not in UNTOUCHED:
        found: Diagnosis = example(name).main(arguments)
        return found
    folder = Path(tempfile.mkdtemp(dir=".")) / "run"
    code = run_script([str(EXAMPLES / f"{name}.py"), *arguments], RunOptions(ui="off", run_dir=folder))
    assert code == 0, f"{name}.py ended with {code}"
    return view_run(folder).diagnosis


def run(name: str, sick: str, arguments: Sequence[str]) -> Outcome:
    """One run in a folder of its own; what it prints is swallowed, unless it fails."""
    flags = [] if sick == HEALTHY else ["--sick", sick]
    said, before = io.StringIO(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, inside(Path(folder)):
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                found = diagnosis(name, [*flags, *arguments])
        except BaseException:
            print(said.getvalue())
            raise
    causes = tuple(finding.diagnosis for finding in found.root_causes)
    return Outcome(causes, tuple(str(failure) for failure in found.probe_failures), time.perf_counter() - before)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--sick", nargs="*", help="only these; 'healthy' is one of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    wrong = 0
    for name in options.example:
        for sick in (HEALTHY, *example(name).SICK):
            if options.sick and sick not in options.sick:
                continue
            for seed in options.seeds:
                outcome = run(name, sick, ["--seed", str(seed)])
                right = outcome.right(sick)
                wrong += not right
                said = ", ".join((*outcome.causes, *outcome.failures)) or "nothing"
                print(f"{'ok   ' if right else 'WRONG'} {name:16} {sick:32} seed {seed}  {outcome.seconds:5.1f} s  {said}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
