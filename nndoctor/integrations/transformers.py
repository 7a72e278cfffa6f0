"""Hugging Face Transformers: ``Trainer(..., callbacks=[DoctorCallback()])``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nndoctor
from nndoctor.integrations.missing import not_installed

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise not_installed("Transformers", "transformers", error) from error


class DoctorCallback(TrainerCallback):  # type: ignore[misc]
    """Attaches the doctor to each ``train()`` of a ``Trainer`` and lets go when it ends.

    A rule with ``action: stop`` ends the training the Trainer's own way (``control.should_training_stop``).

    Args:
        report: where to write the report at the end; None: nowhere, ``nndoctor report`` makes it later.
        options: further arguments of :func:`nndoctor.wrap`.

    Attributes:
        doctor: of the present or last ``train()``; None before the first.
    """

    def __init__(self, report: str | Path | None = None, **options: Any) -> None:
        self.doctor: nndoctor.Doctor | None = None
        self._report = report
        self._options = options
        self._stopped_by: nndoctor.Finding | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._close()
        self._stopped_by = None
        options: dict[str, Any] = {
            "loader": kwargs.get("train_dataloader"),
            "on_stop": self._stop,
            "ui": "auto" if state.is_world_process_zero else "off",
            **self._options,
        }
        self.doctor = nndoctor.wrap(kwargs["model"], kwargs["optimizer"], **options)

    def _stop(self, finding: nndoctor.Finding) -> None:
        self._stopped_by = finding

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._stopped_by is not None:
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        told = {name: value for name, value in (metrics or {}).items() if isinstance(value, (int, float))}
        observed = {"val_loss": told.get("eval_loss"), "accuracy": told.get("eval_accuracy")}
        if self.doctor is not None and any(value is not None for value in observed.values()):
            self.doctor.observe(**{name: value for name, value in observed.items() if value is not None})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._close()
        if self.doctor is not None and self._report is not None:
            self.doctor.report(self._report)

    def _close(self) -> None:
        if self.doctor is not None:
            self.doctor.close()
