"""Accelerate: ``doctor = wrap(accelerator, model, optimizer, loader)`` after ``accelerator.prepare(...)``."""

from __future__ import annotations

from typing import Any

from torch import nn

import nndoctor
from nndoctor.integrations.missing import not_installed
from nndoctor.sinks import Sink, TensorBoardSink, active_sinks

try:
    from accelerate import Accelerator
except ImportError as error:
    raise not_installed("Accelerate", "accelerate", error) from error


def wrap(accelerator: Accelerator, model: nn.Module, optimizer: Any, loader: Any = None, **options: Any) -> nndoctor.Doctor:
    """Attach the doctor to what ``accelerator.prepare`` gave; the loop stays as it is.

    A step is one that the optimizer takes: those that ``accelerator.accumulate`` leaves out, and those that a gradient
    scaler skips, are none. Curves and findings go to the accelerator's trackers. Only the main process has a panel.

    Args:
        model, optimizer, loader: as prepared; the optimizer may be a list or dict of them.
        options: further arguments of :func:`nndoctor.wrap`.

    Raises:
        ValueError: `model` is not one that this accelerator has prepared.
    """
    prepared = getattr(accelerator, "_models", [model])
    if all(model is not known for known in prepared):
        raise ValueError("expected a model that accelerator.prepare() returned; call nndoctor's wrap after prepare")
    main = accelerator.is_main_process
    usual: dict[str, Any] = {"ui": "auto" if main else "off", "sinks": sinks_of(accelerator) if main else "off"}
    return nndoctor.wrap(model, optimizer, loader=loader, **{**usual, **options})


def sinks_of(accelerator: Accelerator) -> list[Sink]:
    """Sinks for the accelerator's trackers, and for those in which a run is under way beside it."""
    found: list[Sink] = active_sinks()
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            found.append(TensorBoardSink(tracker.tracker))
    return found
