"""Initial weights as published, and memory of devices where there are some."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nndoctor.zoo.devices import device_memory, initialised


def test_biases_are_small_and_positive_and_weights_within_the_bounds_of_xavier() -> None:
    model = initialised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5, bias=False), nn.Linear(5, 2)))
    assert (model[0].bias == 0.01).all()
    assert (model[3].bias == 0.01).all()
    assert (model[1].bias == 0).all()
    limit = math.sqrt(6 / (3 * 9 + 4 * 9))
    assert 0.5 * limit < model[0].weight.abs().max() <= limit


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_there_is_no_memory_to_tell_of() -> None:
    assert device_memory() is None


def test_used_and_free_memory_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 4 << 30))
    assert device_memory(unit="GiB") == (4.0, 1.0, 3.0)
