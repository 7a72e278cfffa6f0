"""Keras 3 on its torch backend: ``model.fit(..., callbacks=[DoctorCallback()])``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import nndoctor
from nndoctor.integrations.missing import not_installed

try:
    import keras
except ImportError as error:
    raise not_installed("Keras 3", "keras", error) from error

OBSERVED = {"val_loss": "val_loss", "val_accuracy": "accuracy", "val_acc": "accuracy", "val_sparse_categorical_accuracy": "accuracy"}


class KerasOptimizer(torch.optim.Optimizer):
    """What the doctor sees of a Keras optimizer: its parameters and settings, and a ``step`` that Keras' own takes inside.

    Args:
        optimizer: of Keras; its ``apply`` is called through this one until `release`.
        parameters: the torch parameters that it trains.
    """

    def __init__(self, optimizer: Any, parameters: list[torch.nn.Parameter]) -> None:
        self.apply: Callable[[], Any] = lambda: None
        self._keras = optimizer
        super().__init__(parameters, self._settings())
        original = optimizer.apply

        def apply(*args: Any, **kwargs: Any) -> Any:
            self.param_groups[0].update(self._settings())
            self.apply = lambda: original(*args, **kwargs)
            return self.step()

        optimizer.apply = apply

    def _settings(self) -> dict[str, Any]:
        optimizer = self._keras
        rate = optimizer.learning_rate
        rate = rate.value if hasattr(rate, "value") else rate
        settings = {"lr": float(rate) if getattr(rate, "is_cpu", True) else rate}  # never wait for a device
        settings["weight_decay"] = float(getattr(optimizer, "weight_decay", None) or 0.0)
        if hasattr(optimizer, "beta_1"):
            settings["betas"] = (float(optimizer.beta_1), float(optimizer.beta_2))
            settings["eps"] = float(optimizer.epsilon)
        elif hasattr(optimizer, "momentum"):
            settings["momentum"] = float(optimizer.momentum)
        return settings

    def step(self, closure: Any = None) -> Any:
        return self.apply()

    def release(self) -> None:
        """Let Keras' optimizer go."""
        self.apply = lambda: None
        if "apply" in vars(self._keras):
            del self._keras.apply


class DoctorCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Attaches the doctor to ``fit`` and lets go when it ends.

    Keras' accumulation of gradients and its scaling of losses go on inside its optimizers, where nothing can be followed:
    with either of them it warns, and stays away. A rule with ``action: stop`` sets ``model.stop_training``.

    Args:
        report: where to write the report at the end; None: nowhere, ``nndoctor report`` makes it later.
        options: further arguments of :func:`nndoctor.wrap`.

    Attributes:
        doctor: of the present or last ``fit()``; None before the first.

    Raises:
        RuntimeError: Keras runs on another backend.
    """

    def __init__(self, report: str | Path | None = None, **options: Any) -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise RuntimeError(f"expected Keras on torch, got {keras.backend.backend()}: set KERAS_BACKEND=torch before importing it")
        self.doctor: nndoctor.Doctor | None = None
        self._optimizer: KerasOptimizer | None = None
        self._report = report
        self._options = options

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._close()
        optimizer = self.model.optimizer
        if getattr(optimizer, "gradient_accumulation_steps", None) or hasattr(optimizer, "inner_optimizer"):
            warnings.warn("nndoctor does not follow Keras' gradient accumulation and loss scaling: not attached", stacklevel=2)
            return
        kind = type(type(optimizer).__name__, (KerasOptimizer,), {})
        self._optimizer = kind(optimizer, [variable.value for variable in self.model.trainable_variables])
        options: dict[str, Any] = {"name": self.model.name, "on_stop": self._stop, **self._options}
        self.doctor = nndoctor.wrap(self.model, self._optimizer, **options)

    def _stop(self, finding: nndoctor.Finding) -> None:
        self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        observed = {OBSERVED[name]: float(value) for name, value in (logs or {}).items() if name in OBSERVED}
        if self.doctor is not None and observed:
            self.doctor.observe(**observed)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self._close()
        if self.doctor is not None and self._report is not None:
            self.doctor.report(self._report)

    def _close(self) -> None:
        if self.doctor is not None:
            self.doctor.close()
        if self._optimizer is not None:
            self._optimizer.release()
            self._optimizer = None
