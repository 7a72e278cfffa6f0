"""Attention is measured alike however it was written, and agrees with the whole attention matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.attention import (
    AttentionProbe,
    chosen,
    look_at_attention,
    look_at_multi_head,
    next_tokens,
    sharpness,
    tokens_of,
)
from nndoctor.probes.loss_nodes import CrossEntropy, cross_entropy_of

BATCH, HEADS, TOKENS, WIDTH = 2, 2, 8, 6  # small enough for every query of every element to be looked at


def measure(model: nn.Module, *inputs: Tensor, loss: Callable[[Any], Tensor] = lambda out: out.sum()) -> dict[str, Any]:
    """What the probe says of one training step, after the first step on which it never looks."""
    probe = AttentionProbe()
    index = ModelIndex(model)
    probe.attach(index)
    measured: Mapping[str, Any] = {}
    for step in (1, 2):
        probe.begin_step(step, True)
        probe.forward_begins(model, inputs, {})
        output = model(*inputs)
        probe.forward_ended(model, output)
        probe.backward_begins(loss(output))
        measured = probe.collect()
    probe.detach()
    assert not torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return {"layers": index.layer_names, **measured}


class Written(nn.Module):
    """Self-attention over embedded tokens with the attention function given; next-token logits."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, HEADS * WIDTH, padding_idx=0)
        self.attend = attend
        self.head = nn.Linear(HEADS * WIDTH, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        split = self.embed(tokens).unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
        mixed = self.attend(split, split, split)
        logits: Tensor = self.head(mixed.transpose(1, 2).flatten(2))
        return logits


def by_hand(query: Tensor, key: Tensor, value: Tensor, causal: bool = False, fill: float = -math.inf) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), fill)
    return F.softmax(scores, dim=-1) @ value


def built_in(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


def by_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(WIDTH)
    return torch.einsum("bhqk,bhkd->bhqd", torch.softmax(scores, -1), value)


TOKEN_IDS = torch.randint(1, 11, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(1))
GIVEN, NEXT = TOKEN_IDS[:, :-1], TOKEN_IDS[:, 1:]


def next_token_loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), NEXT.flatten())


@pytest.mark.parametrize("attend", [by_hand, built_in, by_einsum])
def test_entropy_and_logits_agree_with_the_whole_matrix_however_it_is_written(attend: Callable[..., Tensor]) -> None:
    model = Written(attend)
    measured = measure(model, GIVEN)
    with torch.no_grad():
        split = model.embed(GIVEN).unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
        scores = split @ split.transpose(-1, -2) / math.sqrt(WIDTH)
        weights = scores.softmax(-1)
        entropy = -(weights * weights.log()).sum(-1).mean() / math.log(TOKENS)
    layer = measured["layers"].index("/attention")
    assert measured["attention.entropy"][layer] == pytest.approx(entropy.item(), rel=1e-4)
    assert measured["attention.logit_max"][layer] == pytest.approx(scores.abs().max().item(), rel=1e-4)
    assert measured["attention.logit_std"][layer] == pytest.approx(scores.var(-1, correction=0).mean().sqrt().item(), rel=1e-4)
    assert torch.isnan(measured["attention.entropy"][measured["layers"].index("head")])


@pytest.mark.parametrize(
    ("attend", "leaks"),
    [
        (by_hand, True),
        (built_in, True),
        (lambda q, k, v: by_hand(q, k, v, causal=True), False),
        (lambda q, k, v: by_hand(q, k, v, causal=True, fill=-1e4), False),
        (lambda q, k, v: built_in(q, k, v, causal=True), False),
        (lambda q, k, v: by_hand(1e3 * q, -1e3 * k, v, causal=True, fill=-1e4), True),  # scores outgrow the mask
    ],
)
def test_a_language_model_that_reads_ahead_is_told_from_one_that_does_not(attend: Callable[..., Tensor], leaks: bool) -> None:
    measured = measure(Written(attend), GIVEN, loss=next_token_loss)
    layer = measured["layers"].index("/attention")
    assert float(measured["target.next_token"]) == 1
    assert (float(measured["attention.future_mass"][layer]) > 1e-3) == leaks


def test_looking_ahead_is_not_measured_where_the_loss_does_not_ask_for_the_next_token() -> None:
    same = measure(Written(built_in), GIVEN, loss=lambda out: F.cross_entropy(out.flatten(0, 1), GIVEN.flatten()))
    assert float(same["target.next_token"]) < 0.99
    assert torch.isnan(same["attention.future_mass"]).all()
    assert "attention.future_mass" not in measure(Written(built_in), GIVEN)


def test_queries_whose_loss_is_ignored_may_look_ahead() -> None:
    """A prefix that is read both ways, and is not asked for."""
    prefix = 4

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        allowed = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        allowed[:prefix, :prefix] = True
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)

    targets = NEXT.clone()
    targets[:, : prefix - 1] = -100
    measured = measure(Written(attend), GIVEN, loss=lambda out: F.cross_entropy(out.flatten(0, 1), targets.flatten()))
    assert float(measured["target.next_token"]) == 1
    assert float(measured["attention.future_mass"].nan_to_num(0).max()) == 0


@pytest.mark.parametrize("masked", [True, False])
def test_attention_on_declared_padding_is_measured(masked: bool) -> None:
    tokens = GIVEN.clone()
    tokens[0, 5:] = 0

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = (tokens != 0)[:, None, None, :] if masked else None
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    measured = measure(Written(attend), tokens)
    assert (float(measured["attention.padding_mass"].nan_to_num(0).max()) > 0.05) != masked


@pytest.mark.parametrize("how", ["plain", "boolean", "additive", "padding", "separate"])
def test_multi_head_attention_is_projected_as_the_module_does(how: str) -> None:
    torch.manual_seed(0)
    width = HEADS * WIDTH
    sizes = {"kdim": 5, "vdim": 5} if how == "separate" else {}
    module = nn.MultiheadAttention(width, HEADS, batch_first=False, **sizes)
    nn.init.normal_(module.in_proj_bias)
    query, key = torch.randn(TOKENS, BATCH, width), torch.randn(TOKENS, BATCH, 5 if how == "separate" else width)
    masks: dict[str, Any] = {
        "boolean": {"attn_mask": torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)},
        "additive": {"attn_mask": torch.randn(TOKENS, TOKENS)},
        "padding": {"key_padding_mask": torch.arange(TOKENS).repeat(BATCH, 1) > 5},
    }
    seen: list[Any] = []
    original = F.multi_head_attention_forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(look_at_multi_head(args, kwargs))
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "multi_head_attention_forward", spy)
        _, weights = module(query, key, key, average_attn_weights=False, **masks.get(how, {}))
    torch.testing.assert_close(seen[0].weights, weights)


def test_multi_head_attention_is_named_by_its_module() -> None:
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    measured = measure(layer, torch.randn(BATCH, TOKENS, 12))
    assert measured["layers"][int(measured["attention.entropy"].isnan().logical_not().nonzero())] == "self_attn"


def test_shared_keys_of_grouped_queries_are_repeated() -> None:
    query, key = torch.randn(1, 4, 5, 6), torch.randn(1, 2, 5, 6)
    look = look_at_attention(query, key, key, enable_gqa=True)
    assert look is not None
    expected = (query @ key.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(6)).softmax(-1)
    torch.testing.assert_close(look.weights, expected)


def test_a_head_that_looks_at_one_position_has_collapsed() -> None:
    query = 100 * torch.eye(8).repeat(1, 2, 1, 1)
    query[:, 1] = 0
    look = look_at_attention(query, query)
    assert look is not None
    found = {name: float(value) for name, value in sharpness(look).items()}
    assert found["attention.collapsed_heads"] == 0.5
    assert found["attention.entropy"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    "gate",
    [lambda x: F.softmax(x, dim=-1), lambda x: F.softmax(nn.Linear(6, 6)(x), dim=-1), lambda x: F.softmax(x, dim=1)],
)
def test_a_softmax_that_is_no_attention_is_passed_over(gate: Callable[[Tensor], Tensor]) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(6, 6)

        def forward(self, inputs: Tensor) -> Tensor:
            return gate(self.mix(inputs))

    assert "attention.entropy" not in measure(Gated(), torch.randn(2, 6, 6))


def test_large_attention_is_looked_at_in_few_places() -> None:
    elements, rows = chosen(64, 32, 4096, 4096)
    assert len(range(64)[elements]) * len(range(4096)[rows]) * 32 * 4096 <= 1 << 18
    assert len(range(4096)[rows]) >= 1


@pytest.mark.parametrize("time_first", [True, False])
def test_next_tokens_are_found_in_either_order(time_first: bool) -> None:
    given, wanted = (GIVEN.t(), NEXT.t()) if time_first else (GIVEN, NEXT)
    readings = next_tokens(given, CrossEntropy(torch.empty(0), wanted.reshape(-1), -100))
    assert max(float(reading.share) for reading in readings) == 1


def test_targets_that_the_model_shifts_itself_are_next_tokens() -> None:
    readings = next_tokens(TOKEN_IDS, CrossEntropy(torch.empty(0), TOKEN_IDS[:, 1:].reshape(-1), -100))
    assert float(readings[0].share) == 1


def test_masks_and_labels_are_no_streams() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    found = tokens_of((), {"attention_mask": torch.ones(2, 5), "input_ids": tokens, "labels": tokens})
    assert found is not None
    assert found.values is not None
    assert found.streams == 1
    both = tokens_of((torch.zeros(2, 7, dtype=torch.long), tokens), {})
    assert both is not None
    assert both.streams == 2


@pytest.mark.parametrize("ignored", [-100, 0])
def test_the_cross_entropy_is_found_behind_other_terms(ignored: int) -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    loss = 0.5 * F.cross_entropy(2 * logits, torch.arange(6) % 4, ignore_index=ignored) + logits.square().mean()
    found = cross_entropy_of(loss)
    assert found is not None
    assert found.ignored == ignored
    torch.testing.assert_close(found.log_probabilities, (2 * logits).log_softmax(-1).detach())
