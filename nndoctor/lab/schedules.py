"""Learning rates that follow the ratio of update to weight, after Diederichsen, *Live introspection for neural network training*.

That work prints one rule (its equation 3.8) and lists another. With updates that are proportional to the rate, R = c * lr:

- :class:`RecursiveRatioLR`, the equation, multiplies the *current* rate: it settles at R = target, lr = target / c,
  wherever it started.
- :class:`ListingRatioLR`, the listing, multiplies the *base* rate: lr * mean ratio = base * target holds at every step, so it
  settles at lr = sqrt(base * target / c), R = sqrt(base * target * c). It reaches the target only from base = target / c,
  and two base rates a factor of 10 apart give rates and ratios whose factors multiply to 10, on any landscape.

Use them as any other scheduler, ``scheduler.step()`` after every ``optimizer.step()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

TARGET = 1e-3
"""Updates of a thousandth of the weights (Stanford CS231n notes, Neural Networks Part 3); a rule of thumb, no law."""

NEWEST = 0.9
"""Weight of the newest ratio in the smoothing, as in that work, where it stands on the new value and not on the old one."""

NO_WEIGHT = 1e-12
"""A tensor with a smaller norm has no ratio: zero-initialised weights would give any number."""

NO_RATIO = 1e-9
"""Mean ratios up to this leave the rate alone, as in the listing."""

Target: TypeAlias = float | Callable[[int], float]
"""The wanted ratio, or a function of the number of steps that gives it."""


class RatioMeter:
    """The ratio ``|w_new - w_old| / |w_old|`` of every weight of two or more dimensions, each time an optimizer steps.

    Costs a copy of the weights. Biases and norms are left out, and so is what had no gradient or no weight.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._before: list[tuple[Tensor, Tensor]] = []
        self._latest: Tensor | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._copy),
            optimizer.register_step_post_hook(self._measure),
        ]

    def take(self) -> list[float]:
        """The ratios of the last step, once: empty where there was no step since; waits for the device."""
        latest, self._latest = self._latest, None
        return [] if latest is None else [float(ratio) for ratio in latest.tolist() if math.isfinite(ratio)]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _copy(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        weights = [p for group in optimizer.param_groups for p in group["params"] if p.dim() > 1 and p.grad is not None]
        self._before = [(weight, weight.detach().clone()) for weight in weights]

    @torch.no_grad()
    def _measure(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before, self._before = self._before, []
        if not before:
            return
        home = before[0][0].device
        norms = torch.stack([old.norm().to(home, torch.float64) for _, old in before])  # (tensors,)
        moved = torch.stack([(new.detach() - old).norm().to(home, torch.float64) for new, old in before])  # (tensors,)
        self._latest = torch.where(norms > NO_WEIGHT, moved / norms, torch.nan)


class RatioLR(LRScheduler):
    """What the schedules share: ratios are measured, smoothed and averaged, every tensor counting the same.

    A step of the scheduler without a step of the optimizer since the last one leaves the rates as they are.

    Args:
        optimizer: its rates are set.
        target: wanted ratio.
        newest: weight of the newest ratio in the smoothing; 1 for no smoothing.
        max_factor: largest factor between a rate and its base rate.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, optimizer: Optimizer, target: Target = TARGET, *, newest: float = NEWEST, max_factor: float = 500.0
    ) -> None:
        if not 0 < newest <= 1:
            raise ValueError(f"newest: expected 0 < newest <= 1, got {newest}")
        if max_factor < 1:
            raise ValueError(f"max_factor: expected at least 1, got {max_factor}")
        if not callable(target) and target <= 0:
            raise ValueError(f"target: expected a ratio above 0, got {target}")
        self.target = target
        self.newest = newest
        self.max_factor = max_factor
        self.mean_ratio: float | None = None
        """The smoothed mean ratio that the present rates were made from; None before the first."""
        self._smoothed: list[float] = []
        self._meter = RatioMeter(optimizer)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group for the next step."""
        ratios = self._meter.take()
        if ratios:
            self._smoothed = self._smooth(ratios)
            self.mean_ratio = sum(self._smoothed) / len(self._smoothed)
        if not ratios or self.mean_ratio is None or self.mean_ratio <= NO_RATIO:
            return [float(group["lr"]) for group in self.optimizer.param_groups]
        return self._rates(self.mean_ratio, self._wanted())

    def detach(self) -> None:
        """Stop measuring; the rates stay as they are."""
        self._meter.detach()

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().state_dict().items() if key not in ("_meter", "target")}

    def _wanted(self) -> float:
        return self.target(self.last_epoch) if callable(self.target) else self.target

    def _bounded(self, rate: float, base: float) -> float:
        return min(rate, base * self.max_factor)

    def _smooth(self, ratios: list[float]) -> list[float]:
        raise NotImplementedError

    def _rates(self, ratio: float, target: float) -> list[float | Tensor]:
        raise NotImplementedError


class RecursiveRatioLR(RatioLR):
    """Equation 3.8: ``lr <- lr * target / mean ratio``; the ratio reaches the target from any base rate.

    The ratio of the step before enters with weight ``1 - newest`` as it was measured, so that the first step counts in full.

    Args:
        step_factor: a rate changes by no more than this factor per step, up or down.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        target: Target = TARGET,
        *,
        newest: float = NEWEST,
        step_factor: float = 10.0,
        max_factor: float = 500.0,
    ) -> None:
        if step_factor <= 1:
            raise ValueError(f"step_factor: expected above 1, got {step_factor}")
        self.step_factor = step_factor
        self._previous: list[float] = []
        super().__init__(optimizer, target, newest=newest, max_factor=max_factor)

    def _smooth(self, ratios: list[float]) -> list[float]:
        previous = self._previous if len(self._previous) == len(ratios) else ratios
        self._previous = ratios
        return [self.newest * new + (1 - self.newest) * old for new, old in zip(ratios, previous, strict=True)]

    def _rates(self, ratio: float, target: float) -> list[float | Tensor]:
        factor = min(max(target / ratio, 1 / self.step_factor), self.step_factor)
        rates = (float(group["lr"]) * factor for group in self.optimizer.param_groups)
        return [self._bounded(rate, float(base)) for rate, base in zip(rates, self.base_lrs, strict=True)]


class ListingRatioLR(RatioLR):
    """The listing: ``lr <- base * target / mean ratio``, with an exponential mean that starts at 0.

    It settles at the geometric mean of the base rate and the one that gives the target; see the module's text.
    """

    def _smooth(self, ratios: list[float]) -> list[float]:
        previous = self._smoothed if len(self._smoothed) == len(ratios) else [0.0] * len(ratios)
        return [self.newest * new + (1 - self.newest) * old for new, old in zip(ratios, previous, strict=True)]

    def _rates(self, ratio: float, target: float) -> list[float | Tensor]:
        factor = min(target / ratio, self.max_factor)
        return [float(base) * factor for base in self.base_lrs]


class ExponentialRatioLR(ListingRatioLR):
    """``lr <- base * (target / mean ratio + decay ** epoch) / 2``: half listing, half exponential decay.

    Args:
        decay: of the second half, per epoch.
        steps_per_epoch: scheduler steps in an epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        target: Target = TARGET,
        *,
        steps_per_epoch: int,
        decay: float = 0.98,
        newest: float = NEWEST,
        max_factor: float = 500.0,
    ) -> None:
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch: expected at least 1, got {steps_per_epoch}")
        self.decay = decay
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer, target, newest=newest, max_factor=max_factor)

    def _rates(self, ratio: float, target: float) -> list[float | Tensor]:
        decayed = self.decay ** (self.last_epoch // self.steps_per_epoch)
        factor = 0.5 * min(target / ratio, self.max_factor) + 0.5 * decayed
        return [float(base) * factor for base in self.base_lrs]


def exponential_target(start: float = TARGET, decay: float = 0.98, steps_per_epoch: int = 1) -> Callable[[int], float]:
    """A target ratio that falls by `decay` each epoch, for the `target` of any of the schedules.

    ``decay ** epoch``, and not the product of all powers so far that the work's equation 3.6 comes down to.

    >>> exponential_target(1e-3, 0.5, steps_per_epoch=10)(25)
    0.00025
    """
    return lambda step: start * decay ** (step // steps_per_epoch)


class FixedRatioSGD(Optimizer):
    """``w <- w - ratio * |w| / |g| * g`` for every tensor: each update is that share of its weights, whatever the gradient.

    Tensors without weight or gradient stay where they are.

    Args:
        params: as for any optimizer.
        ratio: of update to weight, per parameter group.
    """

    def __init__(self, params: Iterable[Any], ratio: float = TARGET) -> None:
        if ratio <= 0:
            raise ValueError(f"ratio: expected above 0, got {ratio}")
        super().__init__(params, {"ratio": ratio})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; `closure` computes the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                length = weight.grad.norm()
                share = torch.where(length > 0, group["ratio"] * weight.norm() / length, torch.zeros_like(length))
                weight.sub_(share * weight.grad)
        return loss
