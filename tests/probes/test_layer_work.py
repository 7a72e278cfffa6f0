"""Work is counted from kind and shapes; torch's own counter, which counts the operations that run, has to agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nndoctor.discovery import ModelIndex
from nndoctor.probes.layer_work import LayerWorkProbe, work_of


def counted_by_torch(module: nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return float(counter.get_total_flops())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(7, 5), (3, 4, 7)),
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Conv2d(4, 8, (3, 5), stride=2, padding=1, groups=2), (2, 4, 12, 13)),
        (nn.Conv3d(2, 3, 3), (1, 2, 5, 6, 7)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_flops_are_those_of_torchs_counter(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape)
    assert work_of(module, (x,), module(x)).flops == counted_by_torch(module, x)


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_counts_its_maps_and_both_products(batch_first: bool) -> None:
    module = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    query, key = (torch.randn(3, length, 16) for length in (5, 7))
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    out, _ = module(query, key, key)
    assert work_of(module, (query, key, key), out).flops == counted_by_torch(module, query, key, key)


def test_a_recurrent_layer_does_its_gates_at_every_time_step() -> None:
    module = nn.LSTM(8, 16, num_layers=2, batch_first=True)
    x = torch.randn(4, 10, 8)
    work = work_of(module, (x,), module(x)[0])
    assert work.flops == 4 * 10 * 2 * 4 * 16 * ((8 + 16) + (16 + 16))
    assert work.steps == 10 * 2


def test_bytes_are_what_is_read_and_written_and_the_parameters() -> None:
    module = nn.Linear(7, 5)
    x = torch.randn(3, 7)
    work = work_of(module, (x,), module(x))
    assert work.bytes == 4 * (3 * 7 + 3 * 5 + 7 * 5 + 5)
    assert (work.elements_in, work.elements_out) == (21, 15)


def test_the_work_of_somebody_elses_layer_is_not_known() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x.T

    x = torch.randn(3, 3)
    assert work_of(Own(), (x,), x).flops is None


def looked_at(model: nn.Module, *inputs: torch.Tensor, step: int = 2) -> Mapping[str, Any]:
    probe = LayerWorkProbe()
    probe.attach(ModelIndex(model))
    found: Mapping[str, Any] = {}
    for number in range(1, step + 1):
        probe.begin_step(number, True)
        model(*inputs)
        found = probe.collect()
    probe.detach()
    return found


def test_calls_of_a_shared_layer_add_up() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    found = looked_at(model, torch.randn(2, 4))
    assert found["layer.flops"] == [2 * (2 * 2 * 4 * 4), 8.0]
    assert found["layer.steps_in_row"] == [2.0, 1.0]


def test_a_layer_that_was_not_called_has_no_work() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    assert math.isnan(looked_at(Model(), torch.randn(2, 4))["layer.flops"][1])


def test_shapes_are_looked_at_ever_more_seldom() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    looks = [step for step in range(1, 40) if looked_at(model, torch.randn(2, 4), step=step)]
    assert looks == [2, 3, 4, 8, 16, 32]
    assert not model[0]._forward_hooks


def test_passes_without_gradients_do_not_count_and_shapes_are_facts() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    probe = LayerWorkProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    probe.begin_step(2, True)
    with torch.no_grad():
        model(torch.randn(2, 4))
    assert probe.collect() == {}
    probe.begin_step(3, True)
    model(torch.randn(2, 4))
    assert probe.collect()["layer.flops"] == [2 * 2 * 4 * 3]
    assert probe.facts() == {"layer_shapes": {"0": [[2, 4], [2, 3]]}}
