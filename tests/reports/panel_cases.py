"""Runs to draw panels of: one healthy, one whose learning rate is too high, names as hostile as they come."""

from __future__ import annotations

import numpy as np

from nndoctor.findings import Diagnosis, Evidence, Finding, Fix, Severity
from nndoctor.history import History
from nndoctor.reports.panel_data import PanelState, panel_state
from nndoctor.signals import Frame, Targets

HOSTILE = ("blocks[/x]", "</script><img src=x onerror=alert(1)>", "evil\x1b[2J\u202ename\nnext", "a" * 300)
LAYERS = (*HOSTILE, *(f"block.{i}.conv" for i in range(8)))
TARGETS = Targets(
    layers=LAYERS,
    layer_kinds=("Conv2d",) * len(LAYERS),
    layer_depths=tuple(range(len(LAYERS))),
    params=tuple(f"{name}.weight" for name in LAYERS),
    param_layers=tuple(range(len(LAYERS))),
    param_shapes=((3, 3),) * len(LAYERS),
)

CAUSE = Finding(
    "learning-rate-too-high",
    "learning-rate-too-high",
    Severity.ERROR,
    "high",
    (),
    220,
    300,
    message="The loss rose by 44% while updates were 2% of the weights.",
    evidence=(Evidence("median(update.ratio, 50)", None, 2e-2, 1e-2, ">"),),
    fixes=(Fix("Lower the learning rate", {"lr": 2e-4}, "high"),),
)
SYMPTOM = Finding(
    "gradient-spike", "gradient-spike", Severity.WARNING, "medium", LAYERS[5:8], 225, 300, explained_by=CAUSE.rule
)
SYMPTOM_OF_SYMPTOM = Finding(
    "loss-rising", "loss-rising", Severity.WARNING, "medium", (), 230, 300, explained_by=SYMPTOM.rule
)
SECOND_CAUSE = Finding(
    "dead-relu",
    "dead-relu",
    Severity.WARNING,
    "medium",
    HOSTILE,
    100,
    300,
    fixes=(Fix("Replace ReLU by LeakyReLU in these layers and use He initialisation"),),
)


def history(steps: int = 300, *, blow_up: bool = False) -> History:
    """Loss, learning rate, gradients and update ratios of `steps` steps; the last quarter explodes if asked to."""
    run = History(TARGETS)
    count = len(LAYERS)
    for step in range(1, steps + 1):
        late = max(0.0, (step - 0.75 * steps) / (0.25 * steps)) if blow_up else 0.0
        gradients = np.full(count, 0.1) * (1 + 50 * late * (np.arange(count) == 6))
        run.append(
            Frame(
                step,
                float(step),
                None,
                {
                    "loss": np.float32([2.0 * 0.999**step + late]),
                    "lr": np.float32([3e-3]),
                    "grad.total_norm": np.float32([1.5 * 10 ** (1.5 * late)]),
                    "grad.norm": gradients.astype(np.float32),
                    "update.ratio": (gradients * 1e-2).astype(np.float32),
                },
            )
        )
    return run


def diagnosis(*findings: Finding, steps: int = 300) -> Diagnosis:
    return Diagnosis(findings, rules=58, steps=steps, layers=len(LAYERS))


def healthy_state() -> PanelState:
    return panel_state(history(), diagnosis(), name="mini-a3f1", planned_steps=1000, steps_per_second=41.23, overhead=0.008)


def sick_state() -> PanelState:
    return panel_state(
        history(blow_up=True),
        diagnosis(CAUSE, SECOND_CAUSE, SYMPTOM, SYMPTOM_OF_SYMPTOM),
        name="mini-a3f1",
        planned_steps=1000,
        steps_per_second=41.23,
        overhead=0.008,
        pending=2,
    )
