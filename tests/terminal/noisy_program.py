"""A training script's worth of output, from every place that output comes from, under the live panel.

    python noisy_program.py UI PAUSE ROUNDS|FILE

Every line carries its number, so that a test can ask for each of them afterwards. The program runs for so many rounds,
or until FILE exists. The panel is healthy for the first rounds and then grows to its eight rows.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile

from tqdm import tqdm

from nndoctor.findings import Diagnosis, Evidence, Finding, Fix, Severity
from nndoctor.reports.panel_data import Curve, LayerStrip, PanelState, with_diagnosis
from nndoctor.reports.terminal import choose_display

SICK = Diagnosis(
    findings=(
        Finding(
            "learning-rate-too-high", "learning-rate-too-high", Severity.ERROR, "high", (), 40, 90,
            evidence=(Evidence("update.ratio", None, 2e-2, 1e-2, ">"),), fixes=(Fix("Lower it", {"lr": 2e-4}, "high"),),
        ),
        Finding("dead-relu", "dead-relu", Severity.WARNING, "medium", ("blocks[/x]", "fc2"), 41, 90),
        Finding("loss-rising", "loss-rising", Severity.WARNING, "medium", (), 45, 90, explained_by="learning-rate-too-high"),
    ),
    rules=58, steps=90, layers=4,
)  # fmt: skip
HEALTHY = Diagnosis(rules=58, steps=90, layers=4)


def state_at(step: int, rounds: int) -> PanelState:
    loss = tuple(2.3 * 0.98 ** (i / 2) for i in range(max(2, step)))[-96:]
    measured = PanelState(
        name="mini-a3f1",
        step=step,
        planned_steps=rounds,
        steps_per_second=41.2,
        overhead=0.008,
        curves=(
            Curve("loss", "loss", loss[-1], loss, step, f"-{step}%/{step} steps"),
            Curve("lr", "lr", 3e-3, (3e-3,) * 20),
            Curve("grad", "grad.total_norm", 1.0, (1.0, 1.2, 0.9) * 8, step, "1x median"),
            Curve("update_ratio", "update.ratio", 1e-3, (1e-3, 1.1e-3) * 8),
        ),
        layers=LayerStrip("grad.norm", ("blocks[/x]", "fc1", "fc2", "out"), (1.0, 0.5, 0.1, 0.2), (1.0, 0.7, 0.1, 0.3), (0,), 0),
        pending=2,
    )
    return with_diagnosis(measured, replace(SICK if step >= 30 else HEALTHY, steps=step))


def rounds_until(end: str) -> Iterator[int]:
    if end.isdigit():
        yield from range(int(end))
    else:
        yield from takewhile(lambda _: not os.path.exists(end), count())


def main(ui: str, pause: float, end: str) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    libc = ctypes.CDLL(None)
    display = choose_display(ui, None)  # type: ignore[arg-type]
    step = 0
    for step in tqdm(rounds_until(end), mininterval=0.0, ncols=50, desc="bar", leave=True, total=400):
        display.show(state_at(step, 400))
        kind = step % 5
        if kind == 0:
            tqdm.write(f"[{step:04d}] through tqdm.write end")
        elif kind == 1:
            print(f"\n[{step:04d}] printed end")
        elif kind == 2:
            print(file=sys.stderr)
            logging.info("[%04d] logged end", step)
        elif kind == 3:
            sys.stdout.flush()
            os.write(1, f"\n[{step:04d}] written to the descriptor end\n".encode())
        else:
            sys.stdout.flush()
            libc.puts(f"\n[{step:04d}] put by libc end".encode())
            libc.fflush(None)
        if step % 20 == 0:
            os.system(f"echo; echo '<{step:04d}> echoed by a shell end'")
        time.sleep(pause)
    display.close(SICK)
    print(f"program done after {step + 1} rounds")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
