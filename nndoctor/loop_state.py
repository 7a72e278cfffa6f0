"""What the doctor knows of a run besides its measurements: hyper-parameters, the loader, the speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nndoctor.probes.base import Measured

ADAPTIVE = frozenset({"Adagrad", "RMSprop", "Adadelta", "Rprop", "Adafactor"})


class Phases:
    """The first rise of a learning rate, and its fall.

    Attributes:
        rising: the rate is in its first rise; over once it falls, or rests for three times as long as between two rises.
        falling: it fell when it last changed.
        warmed: steps of the first rise.
        falls, rises: how often it turned downwards, and upwards again after that.
    """

    def __init__(self) -> None:
        self.rising = self.falling = False
        self.warmed = self.falls = self.rises = 0
        self._changed = 0
        self._pause = 1

    def changes(self, before: float | None, rate: float, step: int) -> None:
        """The rate is another one on `step` than it was before."""
        if before is None:
            self._changed = step
            return
        self._pause = max(self._pause, step - self._changed)
        self._changed = step
        if rate > before:
            self.rises += self.falling
            self.rising = not self.falls
            self.falling = False
        else:
            self.falls += not self.falling
            self.rising, self.falling = False, True
        if self.rising:
            self.warmed = step

    def rests(self, step: int) -> bool:
        """The rate is on `step` what it was; True if that ends the first rise."""
        if not self.rising or step - self._changed <= 3 * self._pause:
            return False
        self.rising = False
        return True

    def told(self) -> str:
        """The phases in words, empty for a rate that stands still."""
        parts = []
        if self.warmed:
            parts.append(f"warm-up, {self.warmed} steps so far" if self.rising else f"warm-up over the first {self.warmed} steps")
        if self.rises:
            parts.append("a rate that falls and rises again")
        elif self.falls:
            parts.append("then decay" if parts else "a learning rate that decays")
        return ", ".join(parts)


class Rates:
    """Learning rates and other hyper-parameters, and how they changed.

    Args:
        said: what the user says of the run; the kinds ``warmup`` and ``decay`` concern the rate.
    """

    def __init__(self, said: Mapping[str, bool] | None = None) -> None:
        self.phases = Phases()
        self._said = {f"context.{kind}": float(value) for kind, value in (said or {}).items() if kind in ("warmup", "decay")}
        self.initial: float | None = None
        self.peak = 0.0
        self.last: float | None = None
        self.changes = 0
        self._epoch = 0
        self._changes_at_epoch = 0
        self._per_epoch: float | None = None

    def follow(self, rate: object, epoch: float | None, step: int) -> bool:
        """Note the learning rate of the first parameter group on `step`; True if it changed or is the first."""
        rate = _plain_number(rate)
        if epoch is not None and int(epoch) > self._epoch:
            self._per_epoch = (self.changes - self._changes_at_epoch) / (int(epoch) - self._epoch)
            self._epoch, self._changes_at_epoch = int(epoch), self.changes
        if rate != rate or rate == self.last:
            return self.phases.rests(step)
        self.phases.changes(self.last, rate, step)
        if self.initial is None:
            self.initial = rate
        else:
            self.changes += 1
        self.last = rate
        self.peak = max(self.peak, rate)
        return True

    def story(self) -> dict[str, Measured]:
        """The learning rate of the first group so far."""
        found: dict[str, Measured] = {}
        if self.last is not None and self.initial is not None:
            found["lr"] = self.last
            found["lr.initial"] = self.initial
            found["lr.peak"] = self.peak
            found["lr.changes"] = float(self.changes)
            found["context.warmup"] = float(self.phases.rising)
            found["context.decay"] = float(self.phases.falling)
            found.update(self._said)
        if self._per_epoch is not None:
            found["loop.lr_steps_per_epoch"] = self._per_epoch
        return found

    def signals(self, optimizers: Mapping[str, torch.optim.Optimizer], names: Sequence[str]) -> dict[str, Measured]:
        """Hyper-parameters of the groups called `names` (``optimizer[0]``), and the story of the first one's rate."""
        present = {f"{key}[{i}]": group for key, o in optimizers.items() for i, group in enumerate(o.param_groups)}
        groups: list[Mapping[str, Any]] = [present.get(name, {}) for name in names]  # a group that is gone has no settings
        found: dict[str, Measured] = {
            "group.lr": [_setting(g, "lr") for g in groups],
            "group.weight_decay": [_setting(g, "weight_decay") for g in groups],
            "group.momentum": [_setting(g, "momentum") if "momentum" in g else _beta(g, 0) for g in groups],
            "group.beta2": [_beta(g, 1) for g in groups],
            "group.eps": [_setting(g, "eps") for g in groups],
            **self.story(),
        }
        first = next(iter(optimizers.values()), None)
        if first is not None:
            adaptive = "betas" in first.param_groups[0] or type(first).__name__ in ADAPTIVE
            found["lr.adaptive"] = float(adaptive)
        return found


def _setting(group: Mapping[str, Any], name: str) -> float:
    return _plain_number(group.get(name))


def _plain_number(value: object) -> float:
    if isinstance(value, torch.Tensor):
        return float(value) if value.device.type == "cpu" else float("nan")  # never wait for a device
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _beta(group: Mapping[str, Any], which: int) -> float:
    betas = group.get("betas")
    return _setting({"beta": betas[which]}, "beta") if isinstance(betas, (tuple, list)) and len(betas) > which else float("nan")


class LoaderState:
    """Which loader feeds the training, how far it is, and how long it kept the loop waiting."""

    def __init__(self, loader: object | None) -> None:
        self.training = loader
        self._last: object | None = None
        self._served = 0
        self._passes = -1 if loader is None else 0
        self._trained = False
        self.seen = loader is not None
        self.planned_steps: int | None = None

    def joined(self, loader: object, served: int) -> None:
        """Start in the middle of an epoch of which `served` batches are gone."""
        self.training, self._served, self._passes, self.seen = loader, served, 0, True

    def started(self, loader: object) -> None:
        if loader is self.training and self._served:
            self._passes += self._trained  # a pass without any backward was an evaluation
            self._served, self._trained = 0, False

    def loaded(self, loader: object) -> bool:
        """Note one batch; True if it came from the training loader, or that one is not known yet."""
        self._last = loader
        self.seen = True
        if loader is self.training:
            self._served += 1
        return self.training is None or loader is self.training

    def backward_seen(self) -> None:
        """The loader in use at the first backward is the training loader."""
        self._trained = True
        if self.training is None and self._last is not None:
            self.training, self._served, self._passes = self._last, 1, 0

    @property
    def batches(self) -> int | None:
        """Batches per epoch; None without a loader of known length."""
        try:
            return len(self.training)  # type: ignore[arg-type]
        except TypeError:
            return None

    @property
    def epoch(self) -> float | None:
        return self.epoch_at(*self.position, self.batches)

    @property
    def position(self) -> tuple[int, int]:
        """Passes over the training loader, and batches served in the present one."""
        return self._passes, self._served

    def epoch_at(self, passes: int, served: int, batches: int | None) -> float | None:
        """The epoch at a position, for a loader of that many batches."""
        if self.training is None or not batches or passes < 0:
            return None
        return passes + served / batches


class Speed:
    """Steps per second over about the last hundred steps, and the doctor's share of the time.

    The first steps, all of which are measured, would hide what the doctor costs from then on; their
    share is kept apart.
    """

    def __init__(self) -> None:
        self.steps_per_second: float | None = None
        self._recent = self._recent_steps = 0.0
        self._elapsed = {True: 0.0, False: 0.0}
        self._own = {True: 0.0, False: 0.0}

    def step(self, elapsed: float, own: float, *, dense: bool) -> None:
        self._recent_steps = 0.99 * self._recent_steps + 1
        self._recent = 0.99 * self._recent + elapsed
        self._elapsed[dense] += elapsed
        self._own[dense] += own
        if self._recent > 0:
            self.steps_per_second = self._recent_steps / self._recent

    def _share(self, dense: bool) -> float | None:
        return self._own[dense] / self._elapsed[dense] if self._elapsed[dense] > 0 else None

    @property
    def overhead(self) -> float | None:
        """Wall time of the doctor's blocks over step time, since the first dense steps ended; None before."""
        return self._share(False)

    @property
    def dense_overhead(self) -> float | None:
        """The same over the first steps, every one of which is measured."""
        return self._share(True)


def settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    plain = (int, float, str, bool)
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in optimizer.param_groups[0].items()
        if key != "params" and isinstance(value, (*plain, tuple))
    }
