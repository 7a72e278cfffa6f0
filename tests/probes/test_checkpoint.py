"""What the names of a checkpoint tell, and what random layers among trained ones tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import nndoctor
from nndoctor.attach import AutoAttach
from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.checkpoint import CheckpointProbe, renamed


@pytest.mark.parametrize(
    ("missing", "unexpected", "expected"),
    [
        (["conv.weight"], ["module.conv.weight"], ["conv.weight"]),
        (["encoder.conv.weight"], ["conv.weight"], ["encoder.conv.weight"]),
        (["a.b.weight"], ["model.net.a.b.weight"], ["a.b.weight"]),
        (["head.weight"], ["fc.weight"], []),
        (["head.weight"], [], []),
        (["weight"], ["module.weight"], []),  # a name of one part is nothing to go by
    ],
)
def test_names_behind_another_prefix_are_recognised(missing: list[str], unexpected: list[str], expected: list[str]) -> None:
    assert sorted(renamed(missing, unexpected)) == expected


def measured(model: nn.Module, state: Mapping[str, Any], part: nn.Module | None = None) -> Mapping[str, Measured]:
    probe = CheckpointProbe()
    probe.attach(ModelIndex(model))
    result = (part or model).load_state_dict(state, strict=False)
    probe.state_loaded(part or model, result.missing_keys, result.unexpected_keys)
    assert probe.news
    return probe.collect()


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_prefix_too_many_leaves_every_parameter_unfilled() -> None:
    found = measured(net(), {f"module.{name}": value for name, value in net().state_dict().items()})
    assert [found[f"checkpoint.{name}"] for name in ("missing", "unexpected", "renamed", "loaded")] == [4, 4, 4, 0]
    assert found["param.not_loaded"] == [1, 1, 1, 1]


def test_a_new_head_is_missing_and_not_renamed() -> None:
    state = {name: value for name, value in net().state_dict().items() if name.startswith("0")}
    found = measured(net(), {**state, "fc.weight": torch.zeros(1)})
    assert [found[f"checkpoint.{name}"] for name in ("missing", "unexpected", "renamed", "loaded")] == [2, 1, 0, 2]
    assert found["param.not_loaded"] == [0, 0, 1, 1]


def test_a_checkpoint_of_a_part_tells_of_that_part() -> None:
    model = net()
    found = measured(model, {"weight": torch.zeros(4, 3)}, part=model[0])
    assert found["param.not_loaded"] == [0, 1, 0, 0]


def test_the_state_of_another_network_tells_nothing() -> None:
    probe = CheckpointProbe()
    probe.attach(ModelIndex(net()))
    probe.state_loaded(net(), ("0.weight",), ())
    assert not probe.news
    assert probe.collect() == {}


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))


def odd(model: nn.Module) -> list[float] | None:
    probe = CheckpointProbe()
    probe.attach(ModelIndex(model))
    probe.forward_begins(model, (), {})
    found = probe.collect().get("param.odd_start")
    return found.nan_to_num(-1).tolist() if isinstance(found, torch.Tensor) else None


def test_a_random_block_among_trained_ones_is_odd() -> None:
    torch.manual_seed(0)
    model = Blocks()
    for number in (0, 1, 3):
        nn.init.normal_(model.blocks[number].weight, std=0.2)
    assert odd(model) == [0, -1, 0, -1, 1, -1, 0, -1]


def test_blocks_that_all_start_alike_are_not() -> None:
    torch.manual_seed(0)
    assert odd(Blocks()) == [0, -1, 0, -1, 0, -1, 0, -1]
    assert odd(net()) is None


def test_a_checkpoint_loaded_before_the_doctor_attached_itself_is_heard_of() -> None:
    search = AutoAttach(ui="off")
    search.install()
    try:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.load_state_dict({f"module.{name}": value for name, value in net().state_dict().items()}, strict=False)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        doctor = search.doctor
        assert isinstance(doctor, nndoctor.Doctor)
        found = doctor.diagnosis().root_causes
    finally:
        search.finish()
        if search.doctor is not None:
            search.doctor.close()
    assert "weights-not-loaded" in [finding.diagnosis for finding in found]
