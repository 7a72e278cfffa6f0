"""Updates that half-precision weights lose to rounding, against a comparison of whole tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.precision import MOST_TENSORS, PrecisionProbe


def lost_in_a_step(model: nn.Module, optimizer: torch.optim.Optimizer, probe: PrecisionProbe) -> torch.Tensor | None:
    index = ModelIndex(model)
    probe.attach(index)
    probe.begin_step(1, True)
    optimizer.register_step_pre_hook(lambda o, *_: probe.gradients_ready(o))
    optimizer.register_step_post_hook(lambda o, *_: probe.stepped(o))
    inputs = torch.randn(16, 12).to(next(model.parameters()).dtype)
    model(inputs).float().square().mean().backward()
    optimizer.step()
    found = probe.collect().get("param.update.lost")
    assert found is None or isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_share_of_small_tensors_is_exact(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 4)).to(dtype)
    before = copy.deepcopy(model)
    lost = lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=1e-3), PrecisionProbe())
    assert lost is not None
    for number in (0, 2):
        old, new = list(before.parameters())[number], list(model.parameters())[number]
        assert new.grad is not None
        moves = new.grad != 0
        assert float(lost[number]) == pytest.approx(float(((old == new) & moves).sum() / moves.sum()))
        assert 0 < float(lost[number]) < 1
    assert torch.isnan(lost[[1, 3]]).all()  # biases are not matrices


def test_a_rate_below_the_spacing_loses_nearly_everything_and_a_large_one_nothing() -> None:
    for rate, least, most in ((1e-7, 0.9, 1.0), (1.0, 0.0, 0.1)):
        model = nn.Linear(12, 16).bfloat16()
        lost = lost_in_a_step(model, torch.optim.Adam(model.parameters(), lr=rate), PrecisionProbe())
        assert lost is not None
        assert least <= float(lost[0]) <= most


def test_large_tensors_are_sampled_evenly() -> None:
    model = nn.Linear(12, 4096).bfloat16()
    before = model.weight.detach().clone()
    lost = lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=1.0), PrecisionProbe())
    assert lost is not None
    whole = float((before == model.weight).float().mean())
    assert float(lost[0]) == pytest.approx(whole, abs=0.1)


def test_float32_weights_are_not_measured() -> None:
    model = nn.Linear(12, 16)
    assert lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1), PrecisionProbe()) is None


def test_a_weight_without_gradient_is_not_measured() -> None:
    model = nn.Linear(12, 16).bfloat16()
    with torch.no_grad():
        model.weight.zero_()
        assert model.bias is not None
        model.bias.zero_()
    lost = lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1), PrecisionProbe())
    assert lost is not None
    assert torch.isnan(lost).all()


def test_a_rate_of_zero_is_not_measured() -> None:
    model = nn.Linear(12, 16).bfloat16()
    assert lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=0.0), PrecisionProbe()) is None


def test_of_many_tensors_a_few_are_looked_at() -> None:
    model = nn.Sequential(*(nn.Linear(12, 12) for _ in range(3 * MOST_TENSORS))).bfloat16()
    lost = lost_in_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1), PrecisionProbe())
    assert lost is not None
    assert len(lost) == 6 * MOST_TENSORS
    probed = PrecisionProbe()
    probed.attach(ModelIndex(model))
    probed.gradients_ready(torch.optim.SGD(model.parameters(), lr=0.1))
    assert len(probed._before[0].params) == MOST_TENSORS
