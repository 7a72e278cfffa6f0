"""How long a command takes to answer: processor time of the whole process, median of nine.

python benchmarks/startup.py

Processor time and not the clock, so that it may be measured on a machine with other work.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile

LIMITS = {("--version",): 0.2, ("ls",): 0.4, ("explain", "dead-relu"): 0.4}
"""Command to the seconds that it may take."""


def seconds(arguments: tuple[str, ...], folder: str) -> float:
    """Processor time of one call, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "nndoctor.cli.main", *arguments], cwd=folder, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        for arguments, limit in LIMITS.items():
            seconds(arguments, folder)  # compiles the modules, and keeps the pages of the rules
            found = statistics.median(seconds(arguments, folder) for _ in range(9))
            slow += found > limit
            print(f"nndoctor {' '.join(arguments):<20} {found:.3f} s (limit {limit} s)")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
