"""The work of a model that never ran is that of one that did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.examinations.layer_work import count_work
from nndoctor.probes.layer_work import LayerWorkProbe


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(50, 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)), torch.randn(2, 3, 8, 8)),
        (Tokens(), torch.randint(50, (4, 7))),
    ],
    ids=["cnn", "lstm"],
)
def test_shapes_alone_tell_the_work(model: nn.Module, inputs: torch.Tensor) -> None:
    probe = LayerWorkProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    probe.begin_step(2, True)
    model(inputs)
    measured = probe.collect()
    probe.detach()
    counted = count_work(model, [inputs.shape], integers=not inputs.is_floating_point())
    assert [sum(work.flops or 0.0 for work in one.work) for one in counted] == measured["layer.flops"]
    assert [sum(work.bytes for work in one.work) for one in counted] == measured["layer.bytes"]
    assert [one.first for one in counted] == [True, *[False] * (len(counted) - 1)]


def test_the_model_is_not_touched() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    count_work(model, [(2, 4)])
    assert next(model.parameters()).device.type == "cpu"
    assert not model[0]._forward_hooks


def test_inputs_that_do_not_fit_are_told_in_torchs_own_words() -> None:
    with pytest.raises(RuntimeError):
        count_work(nn.Linear(4, 3), [(2, 5)])
