"""What attention does: how sharp it is, how large its logits are, and whether it looks where it must not.

Heard are ``scaled_dot_product_attention``, ``nn.MultiheadAttention`` and a softmax over products of queries and
keys, however written; on sampled steps only, and there for a few queries of a few elements of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, follow_fused_paths, in_backward, is_transformed, places
from nndoctor.probes.functional import FunctionMode, compiler_has_run
from nndoctor.probes.loss_nodes import CrossEntropy, cross_entropy_of, leads_to

ELEMENTS = 4
"""Elements of the batch that are looked at; four, so that one of them is likely to be padded."""

QUERIES = 8
LARGEST_LOOK = 1 << 18  # probabilities read of one call
FEWEST_KEYS = 4  # an entropy relative to less says nothing

MASKED_BELOW = -9e3
"""Scores below it were masked: people fill with -inf, -1e9 or the smallest number, rarely with as little as -1e4."""

SHARP = 0.05
"""Relative entropy below which a head counts as collapsed: with 64 keys it looks at 1.2 of them."""

QUIET_STEPS = 3  # sampled steps without attention before the search for it becomes rare
QUIET_EVERY = 16
SHORTEST = 3  # tokens of a sequence that has a next token worth asking for
SHIFTED = 0.99
"""Share of targets equal to the next token from which on they are the inputs shifted by one; it is 1 or far less."""

NOT_CONTENT = ("mask", "label", "target", "position", "type", "length")
"""Parts of keyword names whose tensors are no input to attend to."""

SCORES_MADE_OF = frozenset({"BmmBackward0"})
SCORES_PASS = frozenset(
    f"{name}Backward{i}"
    for i in range(3)
    for name in (
        "MaskedFill", "Add", "Sub", "Mul", "Div", "Where", "View", "UnsafeView", "Expand", "ToCopy", "Clone", "Tanh",
        "Permute", "Transpose", "ReshapeAlias", "Clamp", "ClampMax", "ClampMin", "Unsqueeze", "Squeeze", "Alias",
    )
)  # fmt: skip

NAN = float("nan")


def watched_functions() -> dict[int, str]:
    """The functions of torch that attention is made with, by id."""
    spellings: dict[str, list[tuple[object, str]]] = {
        "attention": [(F, "scaled_dot_product_attention")],
        "multi-head": [(F, "multi_head_attention_forward")],
        "softmax": [(F, "softmax"), (torch, "softmax"), (torch.Tensor, "softmax"), (torch.special, "softmax")],
    }
    return {id(getattr(owner, name)): kind for kind, found in spellings.items() for owner, name in found if hasattr(owner, name)}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one call of attention.

    Args:
        logits: (elements, heads, rows, keys), float32, masked ones at -inf.
        weights: their softmax.
        elements, rows: which elements of the batch and which queries these are.
        batch, queries: how many there were of each.
    """

    logits: torch.Tensor
    weights: torch.Tensor
    elements: slice
    rows: slice
    batch: int
    queries: int

    @property
    def keys(self) -> int:
        return self.logits.shape[-1]


def spread(size: int, most: int) -> slice:
    """At most `most` evenly spaced indices below `size`."""
    every = -(-size // most)
    return slice((every - 1) // 2, size, every)


def chosen(batch: int, heads: int, queries: int, keys: int) -> tuple[slice, slice]:
    """Elements and queries to look at, fewer where attention is large."""
    per_row = max(1, heads * keys)
    most = max(1, min(QUERIES, LARGEST_LOOK // per_row))
    return spread(batch, max(1, min(ELEMENTS, LARGEST_LOOK // (per_row * most)))), spread(queries, most)


def look_at_scores(scores: torch.Tensor, weights: torch.Tensor) -> Look | None:
    """A look at a softmax of the last dimension of (batch, queries, keys) or (batch, heads, queries, keys)."""
    if scores.ndim == 3:
        scores, weights = scores.unsqueeze(1), weights.unsqueeze(1)
    batch, heads, queries, keys = scores.shape
    elements, rows = chosen(batch, heads, queries, keys)
    logits = scores[elements, :, rows].float()
    shown = torch.where(logits > MASKED_BELOW, logits, -torch.inf)
    return Look(shown, weights[elements, :, rows].float(), elements, rows, batch, queries)


def look_at_attention(
    query: torch.Tensor, key: torch.Tensor, value: object = None, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Look | None:  # fmt: skip
    """A look at what ``scaled_dot_product_attention`` with these arguments gives its values."""
    if query.ndim == 3:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
        attn_mask = attn_mask.unsqueeze(1) if attn_mask is not None and attn_mask.ndim == 3 else attn_mask
    if query.ndim != 4 or key.ndim != 4:
        return None
    batch, heads, queries, width = query.shape
    elements, rows = chosen(batch, heads, queries, key.shape[2])
    some_queries = query[elements, :, rows].float()  # (elements, heads, rows, width)
    some_keys = key.expand(batch, *key.shape[1:])[elements].float()  # (elements, key heads, keys, width)
    if some_keys.shape[1] != heads:
        some_keys = some_keys.repeat_interleave(heads // some_keys.shape[1], 1)
    logits = some_queries @ some_keys.transpose(-1, -2) * (1 / math.sqrt(width) if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(_later(rows, key.shape[2], logits.device), -torch.inf)
    if attn_mask is not None:
        logits = _with_mask(logits, attn_mask.expand(batch, heads, queries, key.shape[2]), elements, rows)
    return Look(logits, torch.softmax(logits, -1), elements, rows, batch, queries)


def _later(rows: slice, keys: int, device: torch.device) -> torch.Tensor:
    """True where a key comes later than its query, (rows, keys)."""
    return torch.arange(keys, device=device) > torch.arange(rows.start, rows.stop, rows.step, device=device).unsqueeze(1)


def _with_mask(logits: torch.Tensor, mask: torch.Tensor, elements: slice, rows: slice) -> torch.Tensor:
    """`logits` under a mask of (batch, heads, queries, keys), as ``scaled_dot_product_attention`` reads it."""
    picked = mask[elements, :, rows]
    if picked.dtype == torch.bool:
        return logits.masked_fill(~picked, -torch.inf)
    biased = logits + picked
    return torch.where(biased > MASKED_BELOW, biased, -torch.inf)


def look_at_multi_head(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Look | None:
    """A look at one call of ``multi_head_attention_forward``: queries and keys are projected for a few elements only."""
    names = (
        "query", "key", "value", "embed_dim", "heads", "in_weight", "in_bias", "bias_k", "bias_v", "add_zero_attn",
        "dropout_p", "out_weight", "out_bias", "training", "key_padding_mask", "need_weights", "attn_mask",
        "use_separate_proj_weight", "q_proj_weight", "k_proj_weight",
    )  # fmt: skip
    call = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, heads = call["query"], call["key"], call["heads"]
    if query.ndim != 3 or call.get("bias_k") is not None or call.get("add_zero_attn") or call.get("static_k") is not None:
        return None
    queries, batch, width = query.shape
    elements, rows = chosen(batch, heads, queries, key.shape[0])
    if call.get("use_separate_proj_weight"):
        query_weight, key_weight = call["q_proj_weight"], call["k_proj_weight"]
    else:
        query_weight, key_weight = call["in_weight"][:width], call["in_weight"][width : 2 * width]
    bias = call.get("in_bias")
    some_queries = query[rows, elements].transpose(0, 1)  # (elements, rows, width)
    some_keys = key[:, elements].transpose(0, 1)  # (elements, keys, width)
    projected = F.linear(some_queries, query_weight, None if bias is None else bias[:width])
    against = F.linear(some_keys, key_weight, None if bias is None else bias[width : 2 * width])
    split = (len(some_keys), -1, heads, width // heads)
    logits = projected.reshape(split).transpose(1, 2).float() @ against.reshape(split).permute(0, 2, 3, 1).float()
    logits = logits / math.sqrt(width // heads)  # (elements, heads, rows, keys)
    mask, padding = call.get("attn_mask"), call.get("key_padding_mask")
    if mask is not None:
        whole = mask if mask.ndim == 2 else mask.view(batch, heads, queries, -1)
        whole = ~whole if whole.dtype == torch.bool else whole  # here True means: not allowed
        logits = _with_mask(logits, whole.expand(batch, heads, queries, -1), elements, rows)
    if padding is not None:
        whole = ~padding if padding.dtype == torch.bool else padding
        logits = _with_mask(logits, whole[:, None, None, :].expand(batch, heads, queries, -1), elements, rows)
    return Look(logits, torch.softmax(logits, -1), elements, rows, batch, queries)


def sharpness(look: Look) -> dict[str, torch.Tensor]:
    """Entropy relative to that of looking everywhere, share of collapsed heads, size of the logits; scalars."""
    allowed = look.logits > -torch.inf
    count = allowed.sum(-1).float()  # (elements, heads, rows)
    weights = look.weights
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)
    relative = torch.where(count >= FEWEST_KEYS, entropy / count.log(), NAN)
    of_heads = relative.nanmean((0, 2))  # (heads,)
    known = torch.where(allowed, look.logits, 0.0)
    mean = known.sum(-1, keepdim=True) / count.clamp_min(1).unsqueeze(-1)
    variance = (torch.where(allowed, look.logits - mean, 0.0) ** 2).sum(-1) / count.clamp_min(1)
    return {
        "attention.entropy": of_heads.nanmean(),
        "attention.collapsed_heads": torch.where(of_heads.isnan().all(), NAN, (of_heads < SHARP).float().mean()),
        "attention.logit_max": known.abs().amax(),
        "attention.logit_std": variance.mean().sqrt(),
    }


def later_mass(look: Look) -> torch.Tensor:
    """Probability that each query puts on positions after its own, the largest over heads, (elements, rows)."""
    later = _later(look.rows, look.keys, look.weights.device)
    return (look.weights * later).sum(-1).amax(1)


@dataclass(frozen=True, slots=True)
class Tokens:
    """An integer input (batch, length) of a model, or (length, batch)."""

    values: torch.Tensor
    streams: int
    """How many inputs the model has that attention may look at."""


def tokens_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens | None:
    """The first integer matrix among a model's inputs."""
    named = [("", value) for value in _flat(args)] + [(key, v) for key, value in kwargs.items() for v in _flat((value,))]
    content = [
        value
        for name, value in named
        if value.ndim >= 2 and value.dtype != torch.bool and not any(part in name.lower() for part in NOT_CONTENT)
    ]
    for value in content:
        if value.ndim == 2 and not value.is_floating_point() and not value.is_complex() and min(value.shape) > 0:
            return Tokens(value.detach(), len(content))
    return None


def _flat(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from (inner for inner in value if isinstance(inner, torch.Tensor))


@dataclass(frozen=True, slots=True)
class NextTokens:
    """How a cross entropy's targets relate to the tokens that the model was given, for one reading of their order.

    Args:
        share: of the targets that count, those equal to the token after the position they are asked at; a scalar.
            Positions whose next token is the same as their own do not count.
        counts: (batch, length), True where the loss counts.
    """

    share: torch.Tensor
    counts: torch.Tensor


def next_tokens(tokens: torch.Tensor, loss: CrossEntropy) -> list[NextTokens]:
    """Whether the targets are the inputs shifted by one, by the loop or inside of the model.

    Tokens (batch, length) come as well as (length, batch): one entry for each reading that the shapes allow.
    """
    targets = loss.targets.reshape(-1)
    rows, columns = tokens.shape
    if targets.device != tokens.device:
        return []
    if targets.numel() == rows * columns:
        asked = targets.view(rows, columns)
    elif targets.numel() == rows * (columns - 1):
        asked = F.pad(targets.view(rows, columns - 1), (0, 1), value=loss.ignored)
    else:
        return []
    pairs = ((tokens, asked), (tokens.t(), asked.t()))
    return [_reading(given, wanted, loss.ignored) for given, wanted in pairs if given.shape[1] >= SHORTEST]


def _reading(given: torch.Tensor, asked: torch.Tensor, ignored: int) -> NextTokens:
    counts = asked != ignored  # (batch, length)
    telling = counts[:, :-1] & (given[:, 1:] != given[:, :-1])
    share = ((asked[:, :-1] == given[:, 1:]) & telling).sum() / telling.sum()
    return NextTokens(share, counts)


@dataclass(slots=True)
class Step:
    """What one sampled step has brought so far."""

    looks: list[tuple[int, Look]] = field(default_factory=list)
    running: list[Place] = field(default_factory=list)
    passes: int = 0
    tokens: Tokens | None = None
    readings: list[NextTokens] = field(default_factory=list)


class AttentionProbe:
    """Sharpness, logits and reach of every attention on sampled steps; a few queries of a few elements each.

    Attention inside of compiled code, in kernels of other libraries and in models whose parts are called one by
    one is not seen.
    """

    name = "attention"
    tier = "activations"
    hooks_layers = True
    signals = (
        "attention.entropy", "attention.collapsed_heads", "attention.logit_max", "attention.logit_std",
        "attention.future_mass", "attention.padding_mass", "target.next_token", "input.streams",
    )  # fmt: skip

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._mode = FunctionMode(watched_functions(), self._called)
        self._hooks = self._fused_hooks = HookSet(self._mode.leave)
        self._callers: tuple[Place, ...] = ()
        self._padding: int | None = None
        self._sampled_steps = 0
        self._quiet_steps = 0
        self._listening = False
        self._step = Step()

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        found, _ = places(index)
        self._callers = tuple(place for place in found if place.may_fuse or _may_attend(place.module))
        indices = {m.padding_idx for m in index.layers if isinstance(m, nn.Embedding) and m.padding_idx is not None}
        self._padding = indices.pop() if len(indices) == 1 else None

    def detach(self) -> None:
        self._end_step()
        self._index = None
        self._callers = ()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._end_step()
        if not sampled or self._index is None:
            return
        self._sampled_steps += 1
        if not self._looks_now():
            return
        self._listening = True
        self._hooks, self._fused_hooks = HookSet(self._mode.leave), HookSet(self._mode.leave)
        for place in self._callers:
            if place.fused_in is None:
                self._install_on(place, self._hooks)

    def _install_on(self, place: Place, hooks: HookSet) -> None:
        hooks.before(place, self._module_began)
        hooks.after(place, self._module_ended, always=True)

    def _looks_now(self) -> bool:
        """Not on the very first step: what is compiled there must not be compiled with our mode active."""
        if self._sampled_steps == 1 or compiler_has_run():
            return False
        return self._quiet_steps < QUIET_STEPS or self._sampled_steps % QUIET_EVERY == 0

    def _end_step(self) -> None:
        self._hooks.remove()
        self._fused_hooks.remove()
        self._mode.leave()
        self._listening = False
        self._step = Step()

    def forward_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass with gradients begins: listen to what it calls."""
        if not self._listening or in_backward() or is_transformed():
            return
        if follow_fused_paths(self._callers, self._fused_hooks, True, self._install_on):
            return  # our mode would keep it from its fused path
        if self._step.tokens is None:
            self._step.tokens = tokens_of(args, kwargs)
        self._step.passes += 1
        self._mode.enter()

    def evaluation_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass without gradients begins: it must take the paths that it takes without us."""
        self._fused_hooks.remove()

    def forward_ended(self, root: nn.Module, output: object) -> None:
        self._step.passes = max(0, self._step.passes - 1)
        if not self._step.passes:
            self._mode.leave()

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        """Hold the targets of a cross entropy against the tokens that the model was given."""
        step = self._step
        if not step.looks or step.tokens is None or step.readings or not isinstance(loss, torch.Tensor):
            return
        cross_entropy = cross_entropy_of(loss)
        if cross_entropy is not None:
            step.readings = next_tokens(step.tokens.values, cross_entropy)

    def _module_began(self, place: Place, module: nn.Module, args: Any) -> None:
        self._step.running.append(place)

    def _module_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        running = self._step.running
        while place in running and running.pop() is not place:  # left there by a module that raised
            pass

    def _called(self, kind: str, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._hooks.call(self._attended, kind, result, args, kwargs)

    def _attended(self, kind: str, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._index is None or in_backward() or is_transformed():
            return
        first = args[0] if args else next((kwargs[key] for key in ("query", "input") if key in kwargs), None)
        if not isinstance(first, torch.Tensor) or first.numel() == 0:
            return
        if first.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        with torch.no_grad():
            look = _look(kind, first, result, args, kwargs)
        if look is not None:
            number = self._number(kind)
            self._index.called(number)
            self._step.looks.append((number, look))

    def _number(self, kind: str) -> int:
        """The layer that attends: an nn.MultiheadAttention itself, else ``attention`` in the module that called it."""
        assert self._index is not None
        place = self._step.running[-1] if self._step.running else None
        if kind == "multi-head" and place is not None and place.layer is not None:
            return place.layer
        return self._index.functional_layer(place.name if place is not None else "", "attention")

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        """The step's statistics over all layers, NaN where a layer does not attend.

        Raises:
            Exception: what went wrong while listening.
        """
        step, listened = self._step, self._listening
        failure = self._hooks.failure or self._fused_hooks.failure
        self._end_step()
        if failure is not None:
            raise failure
        if not listened or self._index is None:
            return {}
        self._quiet_steps = 0 if step.looks else self._quiet_steps + 1
        if not step.looks:
            return {}
        size = len(self._index.layers)
        rows: dict[str, dict[int, list[torch.Tensor]]] = {}
        for number, look in step.looks:
            for name, value in {**sharpness(look), **self._reach(look, step)}.items():
                rows.setdefault(name, {}).setdefault(number, []).append(value)
        found: dict[str, Measured] = {name: _by_layer(values, size) for name, values in rows.items()}
        if step.readings:
            shares = torch.stack([reading.share for reading in step.readings])
            found["target.next_token"] = torch.where(shares.isnan(), -1.0, shares).amax()
        if step.tokens is not None:
            found["input.streams"] = float(step.tokens.streams)
        return found

    def _reach(self, look: Look, step: Step) -> dict[str, torch.Tensor]:
        """Probability on later positions and on padding, where positions of the attention are those of the tokens."""
        tokens = step.tokens
        if tokens is None or look.queries != look.keys:
            return {}
        found: dict[str, torch.Tensor] = {}
        for reading in step.readings:
            if reading.counts.shape[1] == look.queries:
                found["attention.future_mass"] = _seen_too_early(look, reading)
                break
        if self._padding is not None and tokens.values.shape == (look.batch, look.keys):
            padded = tokens.values[look.elements] == self._padding  # (elements, keys)
            asks = (~padded[:, look.rows]).float()  # (elements, rows)
            mass = (look.weights * padded[:, None, None, :]).sum(-1).mean(1)  # (elements, rows)
            found["attention.padding_mass"] = (mass * asks).sum() / asks.sum()
        return found


def _seen_too_early(look: Look, reading: NextTokens) -> torch.Tensor:
    """Largest probability on later positions among queries whose next token the loss asks for; NaN if it does not."""
    mass = later_mass(look)  # (elements, rows)
    if reading.counts.shape[0] == look.batch:
        mass = mass * reading.counts[look.elements, look.rows]
    return torch.where(reading.share > SHIFTED, mass.amax(), NAN)


def _may_attend(module: nn.Module) -> bool:
    """Whether a module's own code may attend: those of users, and the few of torch that do."""
    torchs = type(module).__module__.startswith("torch.nn.modules.")
    return not torchs or isinstance(module, nn.MultiheadAttention)


def _look(kind: str, first: torch.Tensor, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Look | None:
    if kind == "attention":
        return look_at_attention(*args, **kwargs)
    if kind == "multi-head":
        return look_at_multi_head(args, kwargs)
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if first.ndim not in (3, 4) or dim not in (-1, first.ndim - 1) or min(first.shape[-2:]) < 2:
        return None
    if not isinstance(result, torch.Tensor) or leads_to(first.grad_fn, SCORES_MADE_OF, SCORES_PASS) is None:
        return None
    return look_at_scores(first, result)


def _by_layer(values: Mapping[int, list[torch.Tensor]], size: int) -> torch.Tensor:
    """The mean of each layer's calls over all layers, NaN where there is none, (size,)."""
    device = next(iter(values.values()))[0].device
    absent = torch.full((), NAN, device=device)
    return torch.stack([torch.stack(values[n]).float().nanmean() if n in values else absent for n in range(size)])
