"""Weight decay per parameter, and how it is applied."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.decay import DecayProbe


def told(model: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Measured]:
    probe = DecayProbe()
    probe.attach(ModelIndex(model))
    for optimizer in optimizers:
        probe.stepped(optimizer)
    return dict(probe.collect())


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_each_parameter_has_the_decay_of_its_group_and_one_that_no_group_holds_has_none() -> None:
    model = net()
    weights = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() < 2][:-1]
    optimizer = torch.optim.AdamW([{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])
    found: Any = told(model, optimizer)
    assert found["param.weight_decay"][:5] == [0.1, 0.0, 0.0, 0.0, 0.1]
    assert math.isnan(found["param.weight_decay"][5])
    assert found["param.gain_or_bias"] == [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "options", "decoupled"),
    [
        (torch.optim.SGD, {}, 0.0),
        (torch.optim.Adam, {}, 0.0),
        (torch.optim.AdamW, {}, 1.0),
        (torch.optim.NAdam, {"decoupled_weight_decay": True}, 1.0),
    ],
)
def test_how_decay_is_applied_is_read_off_the_optimizer(
    kind: type[torch.optim.Optimizer], options: dict[str, Any], decoupled: float
) -> None:
    model = net()
    optimizer: torch.optim.Optimizer = kind(model.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    assert told(model, optimizer)["decay.decoupled"] == decoupled


def test_a_decay_that_is_changed_is_told_anew() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    probe = DecayProbe()
    probe.attach(ModelIndex(model))
    probe.stepped(optimizer)
    probe.collect()
    optimizer.param_groups[0]["weight_decay"] = 0.2
    found: Any = probe.collect()
    assert found["param.weight_decay"] == [0.2] * 6


def test_an_optimizer_without_decay_tells_nothing() -> None:
    model = net()
    assert told(model, torch.optim.Rprop(model.parameters())) == {}
