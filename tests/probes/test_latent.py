"""The latent code of a variational autoencoder is found however its divergence was written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from nndoctor.probes.latent import LatentProbe, information, posterior_of

SAMPLES, UNITS = 16, 4
MEAN = torch.linspace(-1, 2, SAMPLES * UNITS).reshape(SAMPLES, UNITS)
SPREAD = torch.linspace(0.2, 1.5, SAMPLES * UNITS).reshape(SAMPLES, UNITS)
DIVERGENCE = float(0.5 * (MEAN**2 + SPREAD**2 - 1 - (SPREAD**2).log()).sum(1).mean())


def parts() -> tuple[Tensor, Tensor, Tensor]:
    """Mean, scale and log-variance as a net's outputs have them: with a graph behind."""
    mean = MEAN.clone().requires_grad_() * 1.0
    log_variance = (2 * SPREAD.log()).requires_grad_() * 1.0
    scale = SPREAD.clone().requires_grad_() * 1.0
    return mean, scale, log_variance


def of_log_scale(mean: Tensor, log_scale: Tensor) -> Tensor:
    return (0.5 * (mean**2 + (2 * log_scale).exp() - 1) - log_scale).sum(1).mean()


WRITTEN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log-variance": lambda m, s, lv: -0.5 * torch.sum(1 + lv - m.pow(2) - lv.exp()) / SAMPLES,
    "log-variance, per sample": lambda m, s, lv: (-0.5 * (1 + lv - m**2 - torch.exp(lv)).sum(1)).mean(),
    "products": lambda m, s, lv: 0.5 * (m * m + lv.exp() - 1 - lv).sum(1).mean(),
    "log-scale": lambda m, s, lv: of_log_scale(m, lv / 2),
    "scale beside log-variance": lambda m, s, lv: 0.5 * (m**2 + (0.5 * lv).exp().pow(2) - lv - 1).sum(1).mean(),
    "scale": lambda m, s, lv: 0.5 * (m**2 + s**2 - 2 * s.log() - 1).sum(1).mean(),
    "logarithm of the square": lambda m, s, lv: 0.5 * (m**2 + s**2 - torch.log(s**2) - 1).sum(1).mean(),
    "distributions": lambda m, s, lv: kl_divergence(Normal(m, s), Normal(torch.zeros(UNITS), torch.ones(UNITS))).sum(1).mean(),
    "independent": lambda m, s, lv: kl_divergence(
        Independent(Normal(m, s), 1), Independent(Normal(torch.zeros(UNITS), torch.ones(UNITS)), 1)
    ).mean(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_the_divergence_is_that_of_the_formula(how: str) -> None:
    mean, scale, log_variance = parts()
    code = mean + torch.randn(SAMPLES, UNITS) * (0.5 * log_variance).exp()
    drawn = torch.sigmoid(code @ torch.ones(UNITS, 9))
    loss = F.mse_loss(drawn, torch.rand(SAMPLES, 9)) + 0.1 * WRITTEN[how](mean, scale, log_variance)
    found = posterior_of(loss)
    assert found is not None
    assert float(torch.as_tensor(information(found)["latent.divergence"])) == pytest.approx(DIVERGENCE, rel=1e-4)
    assert found.averaged_over == 9
    again = posterior_of(loss, found.depth)
    assert again is not None
    assert again.averaged_over == 9


def test_a_summed_reconstruction_is_not_averaged_over_anything() -> None:
    mean, scale, log_variance = parts()
    error = F.binary_cross_entropy_with_logits(mean @ torch.ones(UNITS, 9), torch.rand(SAMPLES, 9), reduction="sum")
    found = posterior_of((error + WRITTEN["log-variance"](mean, scale, log_variance)) / SAMPLES)
    assert found is not None
    assert found.averaged_over is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda m, s, lv: F.mse_loss(m, SPREAD),
        lambda m, s, lv: (m**2).mean() + lv.exp().mean(),  # a penalty, but no logarithm beside
        lambda m, s, lv: F.cross_entropy(m, torch.arange(SAMPLES) % UNITS),
        lambda m, s, lv: (m + torch.randn(SAMPLES, UNITS) * lv.exp()).square().mean(),  # drawn from, not weighed
    ],
)
def test_other_losses_have_no_latent_code(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    assert posterior_of(loss(*parts())) is None


def test_units_that_do_not_vary_with_the_input_are_not_active() -> None:
    mean, scale, log_variance = parts()
    mean = mean * torch.tensor([1.0, 0.0, 0.0, 1.0])
    found = posterior_of(WRITTEN["log-variance"](mean, scale, log_variance))
    assert found is not None
    assert float(torch.as_tensor(information(found)["latent.active_fraction"])) == 0.5


def test_nothing_is_looked_for_on_steps_that_are_not_sampled() -> None:
    probe = LatentProbe()
    probe.begin_step(1, False)
    probe.backward_begins(WRITTEN["products"](*parts()))
    assert probe.collect() == {}
    probe.begin_step(2, True)
    probe.backward_begins(WRITTEN["products"](*parts()))
    assert set(probe.collect()) == {"latent.divergence", "latent.units", "latent.active_fraction"}
