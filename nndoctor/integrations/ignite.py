"""Ignite: ``doctor = attach(trainer, model, optimizer)`` before ``trainer.run(...)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

import nndoctor
from nndoctor.integrations.missing import not_installed

try:
    from ignite.engine import Engine, Events
except ImportError as error:
    raise not_installed("Ignite", "ignite", error) from error

OBSERVED = {"loss": "val_loss", "nll": "val_loss", "val_loss": "val_loss", "accuracy": "accuracy", "acc": "accuracy", "val_accuracy": "accuracy"}
"""Metrics of the evaluator that are handed on, by their names there."""


def attach(
    trainer: Engine, model: nn.Module, optimizer: Any, loss_fn: Any = None, *, evaluator: Engine | None = None, **options: Any
) -> nndoctor.Doctor:
    """Attach the doctor to what `trainer` trains, until its run ends or fails.

    A rule with ``action: stop`` ends the run Ignite's own way (``trainer.terminate()``).

    Args:
        model, optimizer, loss_fn: as for :func:`nndoctor.wrap`.
        evaluator: engine whose metrics ``loss`` (or ``nll``) and ``accuracy`` are observed each time it has run.
        options: further arguments of :func:`nndoctor.wrap`.
    """
    doctor = nndoctor.wrap(model, optimizer, loss_fn, **{"on_stop": lambda finding: trainer.terminate(), **options})

    def observe(engine: Engine) -> None:
        observed = chosen(engine.state.metrics)
        if observed:
            doctor.observe(**observed)

    def failed(engine: Engine, error: BaseException) -> None:
        doctor.close("finished" if isinstance(error, KeyboardInterrupt) else "crashed")
        handlers = getattr(engine, "_event_handlers", {}).get(Events.EXCEPTION_RAISED, ())
        if len(handlers) <= 1:
            raise error  # a handler of this event stands for the engine's own raising; the script's own decide themselves

    if evaluator is not None:
        evaluator.add_event_handler(Events.COMPLETED, observe)
    trainer.add_event_handler(Events.COMPLETED, lambda engine: doctor.close())
    trainer.add_event_handler(Events.EXCEPTION_RAISED, failed)
    return doctor


def chosen(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that the doctor knows what to do with, as plain numbers under its names."""
    found = {}
    for name, value in metrics.items():
        if name.lower() in OBSERVED and getattr(value, "numel", lambda: 1)() == 1:
            found[OBSERVED[name.lower()]] = float(value)
    return found
