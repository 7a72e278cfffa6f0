"""Axes of batch and sequence: swapped ones and views for transposes are told, sound models are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.discovery import ModelIndex
from nndoctor.probes.batch_axis import BatchAxisProbe

BATCH, WORDS, WIDTH = 8, 5, 6


class Net(nn.Module):
    """A sequence layer between preparations of its input and a head; classifies each sample."""

    def __init__(self, layer: nn.Module, prepare: Callable[[Tensor], Tensor], embed: bool, last: int) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH) if embed else nn.Identity()
        self.layer, self.prepare, self.last = layer, prepare, last
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        made = self.prepare(self.embed(inputs))
        arguments = (made, made, made) if isinstance(self.layer, nn.MultiheadAttention) else (made,)
        states = self.layer(*arguments)[0]
        logits: Tensor = self.head(states if states.dim() == 2 else states.select(self.last, -1))
        return logits


def told(net: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """Axes swapped, and mixed by a view, as told of the sequence layer; NaN where nothing is."""
    probe = BatchAxisProbe()
    index = ModelIndex(net)
    probe.attach(index)
    probe.begin_step(1, True)
    probe.forward_begins(net, (inputs,), {})
    output = net(inputs)
    probe.forward_ended(net, output)
    probe.backward_begins(functional.cross_entropy(output, torch.zeros(BATCH, dtype=torch.long)))
    found = probe.collect()
    assert not any(module._forward_pre_hooks for module in net.modules()), "no hook stays"
    number = index.layer_names.index("layer")
    swapped, reshaped = found["layer.batch_as_sequence"], found["layer.batch_reshaped"]
    return swapped[number], reshaped[number]  # type: ignore[index]


def as_it_is(x: Tensor) -> Tensor:
    return x


def swap(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def swap_and_copy(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()


def view(x: Tensor) -> Tensor:
    return x.reshape(x.shape[1], x.shape[0], x.shape[2])


LAYERS = {
    "lstm": lambda first: nn.LSTM(WIDTH, WIDTH, batch_first=first),
    "gru": lambda first: nn.GRU(WIDTH, WIDTH, batch_first=first),
    "attention": lambda first: nn.MultiheadAttention(WIDTH, 2, batch_first=first),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_read_as_a_sequence_is_told(kind: str) -> None:
    net = Net(LAYERS[kind](False), as_it_is, embed=False, last=1)
    assert told(net, torch.randn(BATCH, WORDS, WIDTH)) == (1, 0)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("first", "prepare"), [(True, as_it_is), (False, swap), (False, swap_and_copy)])
@pytest.mark.parametrize("embed", [False, True])
def test_sound_models_are_not(kind: str, first: bool, prepare: Callable[[Tensor], Tensor], embed: bool) -> None:
    net = Net(LAYERS[kind](first), prepare, embed, last=1 if first else 0)
    assert told(net, torch.randn(BATCH, WORDS, WIDTH)) == (0, 0)


@pytest.mark.parametrize("embed", [False, True])
def test_a_view_that_only_renames_the_axes_is_told(embed: bool) -> None:
    net = Net(LAYERS["gru"](False), view, embed, last=0)
    assert told(net, torch.randn(BATCH, WORDS, WIDTH)) == (0, 1)


def test_rows_without_a_sequence_are_read_as_one_sequence_of_the_batch() -> None:
    net = Net(LAYERS["lstm"](True), as_it_is, embed=False, last=0)
    assert told(net, torch.randn(BATCH, WIDTH))[0] == 1


def test_a_batch_as_long_as_the_sequence_tells_nothing() -> None:
    net = Net(LAYERS["lstm"](False), as_it_is, embed=False, last=1)
    swapped, _ = told(net, torch.randn(BATCH, BATCH, WIDTH))
    assert swapped != swapped
