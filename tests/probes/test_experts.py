"""Experts are told from layers by the router beside them and by calls that depend on the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.experts import WINDOW, ExpertProbe, mixtures

EXPERTS = 4


class Mixture(nn.Module):
    """Sends row i of its input to the expert that `plan` names."""

    def __init__(self, experts: nn.Module | None = None) -> None:
        super().__init__()
        self.router = nn.Linear(3, EXPERTS)
        self.experts = experts if experts is not None else nn.ModuleList(nn.Linear(3, 3) for _ in range(EXPERTS))
        self.plan = torch.arange(64) % EXPERTS

    def forward(self, rows: Tensor) -> Tensor:
        out = torch.zeros_like(rows)
        for index, expert in enumerate(self.experts.children()):
            mine = (self.plan == index).nonzero().squeeze(1)
            if len(mine):
                out = out.index_add(0, mine, expert(rows[mine]))
        return out


def measure(model: Any, plans: list[Tensor]) -> tuple[list[str], Mapping[str, Any]]:
    probe, index, found = ExpertProbe(), ModelIndex(model), {}
    probe.attach(index)
    for step, plan in enumerate(plans, 1):
        model.plan = plan
        probe.begin_step(step, True)
        model(torch.randn(64, 3))
        found = dict(probe.collect())
    probe.detach()
    assert not any(module._forward_pre_hooks for module in model.modules())
    return index.layer_names, found


def plan(*shares: int) -> Tensor:
    return torch.cat([torch.full((count,), number) for number, count in enumerate(shares)])


def test_loads_are_shares_of_the_even_one_over_the_window() -> None:
    names, found = measure(Mixture(), [plan(32, 32, 0, 0), plan(64, 0, 0, 0), plan(32, 0, 32, 0), plan(64, 0, 0, 0)])
    loads = dict(zip(names, found["expert.load"], strict=True))
    assert loads["experts.0"] == 192 * 4 / 256
    assert loads["experts.1"] == loads["experts.2"] == 0.5
    assert loads["experts.3"] == 0
    assert math.isnan(loads["router"])
    assert found["expert.idle_fraction"] == 0.25
    assert found["expert.max_load"] == 3


def test_a_window_that_is_not_full_says_nothing() -> None:
    assert measure(Mixture(), [plan(32, 32, 0, 0)] * (WINDOW - 1))[1] == {}


def test_members_that_are_all_given_the_same_are_layers() -> None:
    assert measure(Mixture(), [plan(16, 16, 16, 16)] * WINDOW)[1] == {}


def test_a_member_that_is_never_called_beside_even_ones_is_unused_rather_than_idle() -> None:
    assert measure(Mixture(), [plan(32, 32, 0, 0)] * WINDOW)[1] == {}


def test_experts_may_have_names_and_layers_inside() -> None:
    experts = nn.ModuleDict({f"e{i}": nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)) for i in range(EXPERTS)})
    names, found = measure(Mixture(experts), [plan(40, 10, 10, 4)] * WINDOW)
    assert dict(zip(names, found["expert.load"], strict=True))["experts.e0/expert"] == 2.5


def test_lists_without_a_router_or_of_unequal_members_are_no_mixtures() -> None:
    no_router = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(3, 3) for _ in range(4)), "head": nn.Linear(3, 2)})
    assert mixtures(ModelIndex(no_router)) == ()
    assert mixtures(ModelIndex(Mixture(nn.ModuleList(nn.Linear(3, 3 + i) for i in range(4))))) == ()
    assert [mixture.name for mixture in mixtures(ModelIndex(Mixture()))] == ["experts"]


def test_passes_without_gradients_do_not_count() -> None:
    probe, model = ExpertProbe(), Mixture()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    with torch.no_grad():
        model(torch.randn(64, 3))
    assert probe.collect() == {}
