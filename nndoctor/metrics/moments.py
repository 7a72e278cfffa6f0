"""What Adam and kin keep of each weight, read from the optimizer itself, and the rate at which weights really move."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nndoctor.metrics.kinds import KINGMA
from nndoctor.metrics.statistics import unbiased_variance
from nndoctor.signals import Signal
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription, Value

QUANTITIES = {
    "first_moment": "exponential mean of the gradients, m",
    "second_moment": "exponential mean of their squares, v; not centred, so no variance",
    "first_moment_corrected": "m / (1 - beta1^t)",
    "second_moment_corrected": "v / (1 - beta2^t)",
    "effective_rate": "-update / gradient, element by element; infinite and undefined ones left out",
}
STATISTICS = {
    "mean": torch.mean,
    "median": torch.median,
    "variance": unbiased_variance,
    "norm2": torch.linalg.vector_norm,
}


class Adam(Subscriber):
    """Publishes five quantities of every weight by four statistics each, as ``adam.<quantity>.<statistic>``.

    Moments are the optimizer's own after the step, so they are right however seldom they are read. Optimizers that keep
    none (SGD) have effective rates only. Beside the median of those, which are heavy-tailed, stand the rate as one number,
    and how many elements were left out or moved against their gradient.
    """

    name = "adam"
    subscriptions = (Subscription(("weight_gradients", "weight_updates")),)
    signals = (
        *(
            Signal(f"adam.{quantity}.{statistic}", "param", "1", f"{statistic.capitalize()} over the elements of: {formula}.", KINGMA)
            for quantity, formula in QUANTITIES.items()
            for statistic in STATISTICS
        ),
        Signal("adam.effective_rate.overall", "param", "1", "-<update, gradient> / |gradient|^2."),
        Signal("adam.effective_rate.left_out", "param", "fraction", "Share of the elements whose rate is infinite or undefined."),
        Signal("adam.effective_rate.negative", "param", "fraction", "Share of the other elements that moved along their gradient, not against it."),
    )

    def attach(self, run: Run) -> None:
        self._run = run

    def receive(self, bundle: Bundle) -> Published:
        assert bundle.parameter is not None
        gradient, update = bundle["weight_gradients"].float(), bundle["weight_updates"].float()
        found: dict[str, Value] = {}
        for quantity, values in self._moments(bundle.parameter):
            found.update(_statistics(quantity, values.float()))
        found.update(_rates(gradient, update))
        return found

    def _moments(self, parameter: str) -> Iterator[tuple[str, Tensor]]:
        state, group = self._run.optimizer_state(parameter)
        if not {"exp_avg", "exp_avg_sq", "step"} <= state.keys() or "betas" not in group:
            return
        for quantity, key, beta in (("first_moment", "exp_avg", 0), ("second_moment", "exp_avg_sq", 1)):
            values = state[key]
            if values.is_complex():
                return
            yield quantity, values
            yield f"{quantity}_corrected", values / _on(values, 1 - group["betas"][beta] ** state["step"])


def _on(values: Tensor, number: Tensor | float) -> Tensor | float:
    """A number where it can be used with `values`; one that lies on the host waits for nothing."""
    return float(number) if isinstance(number, Tensor) and number.is_cpu else number


def _statistics(quantity: str, values: Tensor) -> dict[str, Value]:
    return {f"adam.{quantity}.{name}": function(values) for name, function in STATISTICS.items()}


def _rates(gradient: Tensor, update: Tensor) -> dict[str, Value]:
    rates = -update / gradient
    known = torch.isfinite(rates)
    count = known.sum()
    values = torch.where(known, rates, torch.nan).flatten()
    mean = values.nanmean()
    squares = (values - mean).square().nansum()
    length = gradient.square().sum()
    return {
        "adam.effective_rate.mean": mean,
        "adam.effective_rate.median": values.nanmedian(),
        "adam.effective_rate.variance": torch.where(count > 1, squares / (count - 1), torch.where(count > 0, 0.0, torch.nan)),
        "adam.effective_rate.norm2": torch.where(count > 0, values.square().nansum().sqrt(), torch.nan),
        "adam.effective_rate.overall": torch.where(length > 0, -(update * gradient).sum() / length, torch.nan),
        "adam.effective_rate.left_out": 1 - count / rates.numel(),
        "adam.effective_rate.negative": torch.where(count > 0, (values < 0).sum() / count, torch.nan),
    }


def adam() -> Subscriber:
    """The twenty quantities of Adam for every weight, from the optimizer's own state; see :class:`Adam`."""
    return Adam()
