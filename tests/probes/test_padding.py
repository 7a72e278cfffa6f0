"""Padding is told from other frequent classes by its shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.probes.padding import PaddingProbe, padding_signals, trailing_run

CLASSES, LENGTH = 8, 12


def sentences(pad: int = 0, count: int = 16) -> torch.Tensor:
    """Random tokens, filled up by `pad` after lengths from 3 to 12."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, CLASSES - 1, (count, LENGTH), generator=generator)
    lengths = 3 + torch.arange(count) % (LENGTH - 2)
    return torch.where(torch.arange(LENGTH) < lengths[:, None], tokens, pad)


def logits(positions: int) -> torch.Tensor:
    torch.manual_seed(0)
    return nn.Linear(3, CLASSES)(torch.ones(positions, 3))


def fraction(targets: torch.Tensor, batch: list[torch.Tensor], **options: object) -> float:
    loss = F.cross_entropy(logits(targets.numel()), targets.reshape(-1), **options)  # type: ignore[arg-type]
    return float(padding_signals(loss, batch, batch)["loss.padding_fraction"])  # type: ignore[arg-type]


def test_padding_counts_where_the_loss_does_not_ignore_it() -> None:
    tokens = sentences()
    expected = float((tokens[:, 1:] == 0).float().mean())
    assert fraction(tokens[:, 1:], [tokens]) == pytest.approx(expected)
    assert fraction(tokens[:, 1:], [tokens], ignore_index=0) == 0
    assert fraction(tokens[:, 1:], [tokens], weight=torch.tensor([0.0] + [1.0] * (CLASSES - 1))) == 0


def test_sequences_in_columns_are_recognised_too() -> None:
    tokens = sentences().t().contiguous()
    assert fraction(tokens[1:], [tokens]) > 0.3


def test_labels_that_torch_ignores_by_itself_do_not_count() -> None:
    tokens = sentences(pad=-100)
    assert fraction(tokens, [tokens]) == 0


def test_a_loss_that_is_masked_by_hand_does_not_count() -> None:
    tokens = sentences()
    each = F.cross_entropy(logits(tokens.numel()), tokens.reshape(-1), reduction="none")
    mask = (tokens != 0).reshape(-1)
    for loss in ((each * mask).sum() / mask.sum(), each[mask].mean(), torch.where(mask, each, 0).sum()):
        assert padding_signals(loss, [tokens], [tokens])["loss.padding_fraction"] == 0
    assert float(padding_signals(each.mean(), [tokens], [tokens])["loss.padding_fraction"]) > 0.3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tokens",
    [
        torch.zeros(16, LENGTH, dtype=torch.long),
        torch.where(torch.rand(16, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.9, 0, 3),
        torch.where(torch.arange(LENGTH) < 5, sentences(pad=1), 0),
        torch.randint(0, CLASSES, (16, LENGTH), generator=torch.Generator().manual_seed(2)),
    ],
    ids=["one class", "a frequent class", "runs of one length", "random tokens"],
)
def test_a_frequent_class_without_ragged_runs_is_no_padding(tokens: torch.Tensor) -> None:
    assert not bool(trailing_run(tokens).padding)


def test_the_probe_knows_the_index_and_whether_the_inputs_are_padded() -> None:
    tokens, pictures = sentences(pad=CLASSES - 1), torch.ones(16, 3)
    loss = F.cross_entropy(logits(tokens.numel()), tokens.reshape(-1))
    for inputs, padded in ((tokens, 1.0), (pictures, 0.0)):
        probe = PaddingProbe()
        probe.begin_step(1, True)
        probe.batch_loaded(None, {"pixels": pictures, "labels": tokens}, True)
        probe.forward_begins(None, (), {"inputs": inputs})
        probe.backward_begins(loss)
        measured = probe.collect()
        assert float(measured["loss.padding_index"]) == CLASSES - 1  # type: ignore[arg-type]
        assert float(measured["loss.padded_inputs"]) == padded  # type: ignore[arg-type]
        assert set(measured) <= set(probe.signals)
        assert probe.collect() == {}


def test_losses_over_anything_but_classes_tell_nothing() -> None:
    outputs = nn.Linear(3, 2)(torch.ones(4, 3))
    assert padding_signals(outputs.square().mean(), [sentences()], []) == {}
