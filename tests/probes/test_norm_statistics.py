"""The share of the start in running statistics, by the formula and by the statistics themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.norm_statistics import NormStatisticsProbe

X = torch.linspace(-1, 1, 24).reshape(8, 3) + 5


def shares(model: nn.Sequential, passes: int) -> list[float]:
    probe = NormStatisticsProbe()
    probe.attach(ModelIndex(model))
    for _ in range(passes):
        model(X)
    found = probe.collect().get("norm.initial_share", torch.zeros(0))
    assert isinstance(found, torch.Tensor)
    return found.tolist()


@pytest.mark.parametrize("momentum", [0.0, 0.01, 0.1, 0.5])
def test_the_share_is_what_the_variance_still_holds_of_its_start(momentum: float) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum))
    share = shares(model, 7)[0]
    batch = X.var(0)
    kept = (model[0].running_var - batch) / (1 - batch)  # running = share * 1 + (1 - share) * batch
    assert torch.allclose(kept, torch.full((3,), share), atol=1e-4)


def test_cumulative_averages_keep_nothing_of_the_start() -> None:
    assert shares(nn.Sequential(nn.BatchNorm1d(3, momentum=None)), 3) == [0]


def test_statistics_that_were_learnt_before_may_stand_still() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    model(X)
    model[0].momentum = 0.0
    assert shares(model, 5) == [0]


def test_layers_that_never_ran_in_train_mode_tell_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=0.0).eval())
    found = shares(model, 5)
    assert all(value != value for value in found)
