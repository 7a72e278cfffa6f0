"""Lightning: ``Trainer(callbacks=[DoctorCallback()])``, of ``lightning`` as of ``pytorch_lightning``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import nn

import nndoctor
from nndoctor.integrations.missing import not_installed
from nndoctor.sinks import MlflowSink, Sink, TensorBoardSink, active_sinks

try:
    if "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:
        from pytorch_lightning import Callback, LightningModule, Trainer
    else:
        from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise not_installed("Lightning", "lightning", error) from error

OBSERVED = {"loss": "val_loss", "acc": "accuracy", "accuracy": "accuracy"}
"""Logged validation values that are handed on, without what stands before the first ``_`` or ``/`` (``val``, ``valid``)."""


class DoctorCallback(Callback):  # type: ignore[misc]
    """Attaches the doctor when ``fit`` has everything in place, and lets go when it ends.

    A rule with ``action: stop`` ends the training Lightning's own way (``trainer.should_stop``). Curves and findings go to
    the trainer's loggers.

    Args:
        report: where to write the report at the end; None: nowhere, ``nndoctor report`` makes it later.
        options: further arguments of :func:`nndoctor.wrap`.

    Attributes:
        doctor: of the present or last ``fit()``; None before the first.
    """

    def __init__(self, report: str | Path | None = None, **options: Any) -> None:
        self.doctor: nndoctor.Doctor | None = None
        self._report = report
        self._options = options
        self._stopped_by: nndoctor.Finding | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        self._stopped_by = None
        options: dict[str, Any] = {
            "loader": trainer.train_dataloader,
            "name": type(pl_module).__name__.lower(),
            "on_stop": self._stop,
            "sinks": sinks_of(trainer),
            "ui": "auto" if trainer.is_global_zero else "off",
            **self._options,
        }
        self.doctor = nndoctor.wrap(watched(pl_module), list(trainer.optimizers), **options)

    def _stop(self, finding: nndoctor.Finding) -> None:
        self._stopped_by = finding

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self._stopped_by is not None:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.doctor is None or trainer.sanity_checking:
            return
        observed = {}
        for name, value in trainer.callback_metrics.items():
            what, _, thing = name.replace("/", "_").partition("_")
            if what in ("val", "valid", "validation") and thing in OBSERVED:
                observed[OBSERVED[thing]] = float(value)
        if observed:
            self.doctor.observe(**observed)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.doctor is not None:
            self.doctor.close("finished" if isinstance(exception, KeyboardInterrupt) else "crashed")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        if self.doctor is not None and self._report is not None and trainer.is_global_zero:
            self.doctor.report(self._report)

    def _close(self) -> None:
        if self.doctor is not None:
            self.doctor.close()


def watched(module: LightningModule) -> nn.Module | dict[str, nn.Module]:
    """The module whose forward pass is the model's: the LightningModule, or its parts where it has no ``forward``."""
    has_forward = type(module).forward is not LightningModule.forward
    if has_forward or any(True for _ in module.parameters(recurse=False)):
        return module  # type: ignore[no-any-return]
    parts = {name: part for name, part in module.named_children() if any(True for _ in part.parameters())}
    return parts or module


def sinks_of(trainer: Trainer) -> list[Sink]:
    """Sinks for the trainer's loggers, and for trackers that are in use beside it; on the first process only."""
    if not trainer.is_global_zero:
        return []
    found: list[Sink] = active_sinks()
    for logger in trainer.loggers:
        kind = type(logger).__name__
        if kind == "TensorBoardLogger":
            found.append(TensorBoardSink(logger.experiment))
        elif kind == "MLFlowLogger":
            found.append(MlflowSink(logger.run_id, logger.experiment))
        elif kind == "WandbLogger" and getattr(logger.experiment, "id", None):
            found.extend(sink for sink in active_sinks() if sink.name == "wandb")  # asking for it has started its run
    return found
