"""How the two networks of an adversarial pair stand: variety of what the generator draws, and who is ahead.

Which model is which is read off the loop: the discriminator is the model that is called with what another model
put out, and with tensors of the same shape that none put out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured
from nndoctor.probes.data import first_tensor
from nndoctor.probes.forward import HookSet, Place, in_backward, is_transformed, places
from nndoctor.probes.loss_nodes import nodes_of
from nndoctor.probes.nodes import name_of

SAMPLES = 32
"""Samples whose distances are taken."""

FEWEST = 4
ELEMENTS = 1 << 15
"""Elements of these samples that are read; of large pictures every n-th pixel."""

MOST_CALLS = 16  # of models in one round
ROUNDS = 1.5
"""Rounds of both optimizers that are listened to; it may begin between the two."""

EVERY_AT_FIRST, EVERY = 8, 64
"""Rounds between two looks, and after `DENSE` steps of any optimizer. A look costs about 0.3 ms: one percent of 32 steps of a millisecond."""

DENSE = 128
NEAR = 40  # nodes from the end of a loss within which its cross entropy stands
JUDGED_BY = ("BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0", "SoftplusBackward0", "LogSigmoidBackward0")


@dataclass(frozen=True, slots=True)
class Shown:
    """One input of a model.

    Args:
        model: which one.
        at: where the input begins in memory.
        sample: of it, (samples, elements).
        after: steps of the round before it. Real and drawn are only held against each other between two steps:
            what is shown without a known painter in another part may have been drawn before the round began.
    """

    model: int
    at: int
    sample: torch.Tensor
    after: int


@dataclass(slots=True)
class Round:
    """What one round of both optimizers has brought so far."""

    drawn: dict[int, tuple[int, torch.Tensor]] = field(default_factory=dict)
    """Where a model's output begins in memory: which model, and the output, kept so that its place is not used again."""
    shown: list[Shown] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    of_model: dict[int, torch.Tensor] = field(default_factory=dict)
    """Sum of the losses before the step of a model's optimizer."""
    steps: int = 0


def sample_of(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of some samples of a batch, (samples, elements)."""
    every = -(-tensor.shape[0] // SAMPLES)
    flat = tensor.detach()[::every].flatten(1)
    stride = -(-flat.numel() // ELEMENTS)
    stride += stride > 1 and stride % 2 == 0  # an odd stride does not stay in one column of a picture
    return flat[:, ::stride].float().clone()


def variety(samples: torch.Tensor) -> torch.Tensor:
    """Root mean square distance between samples (samples, elements), a scalar."""
    return torch.pdist(samples).square().mean().sqrt()


class AdversaryProbe:
    """Variety of a generator's batches beside that of the real ones, and the losses of both networks, now and then.

    It hears every step and keeps its own time: a collapse comes late, when little is sampled any more.
    """

    name = "adversary"
    tier = CONTRACT
    hooks_layers = True
    signals = (
        "adversary.variety", "adversary.discriminator_loss", "adversary.generator_loss",
        "adversary.discriminator_rate", "adversary.generator_rate",
    )  # fmt: skip

    def __init__(self) -> None:
        self.news = False
        self.sleeps = False
        self._hooks = HookSet(lambda: None)
        self._models: tuple[Place, ...] = ()
        self._roots: dict[int, int] = {}
        self._owners: dict[int, int] = {}
        self._optimizers: set[int] = set()
        self._steps = 0
        self._next = 1
        self._round: Round | None = None
        self._pair: tuple[int, int] | None = None
        self._rates: dict[int, float] = {}

    def attach(self, index: ModelIndex) -> None:
        self._models = tuple(place for place in places(index)[0] if place.root)
        if len(self._models) < 2:
            self.sleeps = True
            return
        self._roots = {id(place.module): number for number, place in enumerate(self._models)}
        for number, place in enumerate(self._models):
            for param in place.module.parameters():
                self._owners.setdefault(id(param), number)

    def detach(self) -> None:
        self._hooks.remove()
        self._round = None
        self._roots.clear()
        self._owners.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        pass

    def _listen(self) -> None:
        """Hear the models' passes until the round is over, those without gradients too: fakes are often drawn so."""
        self._round = Round()
        self._hooks = HookSet(lambda: None)
        for place in self._models:
            self._hooks.before(place, self._is_shown, keywords=True)
            self._hooks.after(place, self._has_drawn)

    @torch.no_grad()
    def _is_shown(self, place: Place, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._round is None or in_backward() or is_transformed():
            return
        tensor = first_tensor((*args, *kwargs.values()))
        if tensor is not None and _can_be_compared(tensor) and len(self._round.shown) < MOST_CALLS:
            seen = Shown(self._roots[id(root)], tensor.data_ptr(), sample_of(tensor), self._round.steps)
            self._round.shown.append(seen)

    def _has_drawn(self, place: Place, root: nn.Module, args: Any, output: Any) -> None:
        if self._round is None or in_backward() or is_transformed():
            return
        tensor = first_tensor(output)
        if tensor is not None and _can_be_compared(tensor) and len(self._round.drawn) < MOST_CALLS:
            self._round.drawn[tensor.data_ptr()] = (self._roots[id(root)], tensor.detach())

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        """Keep the value of a loss that is a cross entropy between real and drawn; others have no zero to reach."""
        if self._round is None or not isinstance(loss, torch.Tensor):
            return
        if any(name_of(node) in JUDGED_BY for node in nodes_of(loss.grad_fn, NEAR)):
            self._round.losses.append(loss.detach().reshape(()).float().clone())

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """The losses since the last step were those of the model that this optimizer trains."""
        if not self._roots:
            return
        self._steps += 1
        self._optimizers.add(id(optimizer))
        if self._round is None:
            if self._steps >= self._next:
                self._listen()
            return
        self._round.steps += 1
        params = optimizer.param_groups[0]["params"] if optimizer.param_groups else []
        owner = self._owners.get(id(params[0])) if params else None
        losses, self._round.losses = self._round.losses, []
        if owner is not None:
            self._rates[owner] = float(optimizer.param_groups[0].get("lr", 0.0))
            if losses and owner not in self._round.of_model:
                self._round.of_model[owner] = torch.stack(losses).sum()
        if self._round.steps >= ROUNDS * max(2, len(self._optimizers)):
            self._next = self._steps + len(self._optimizers) * (EVERY if self._steps > DENSE else EVERY_AT_FIRST)
            self.news = True

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        if not self.news:
            return {}
        self.news = False
        done, self._round = self._round, None
        self._hooks.remove()
        if self._hooks.failure is not None:
            raise self._hooks.failure
        return self._measured(done) if done is not None else {}

    def _measured(self, done: Round) -> dict[str, Measured]:
        found: dict[str, Measured] = {}
        for fake in done.shown:
            painter = done.drawn[fake.at][0] if fake.at in done.drawn else fake.model
            if painter == fake.model:
                continue
            real = [
                other
                for other in done.shown
                if other.model == fake.model and other.after == fake.after and other.at not in done.drawn
                and other.sample.shape[1:] == fake.sample.shape[1:]
            ]  # fmt: skip
            if real:
                self._pair = (fake.model, painter)
                found["adversary.variety"] = variety(fake.sample) / variety(real[0].sample)
                break
        if self._pair is None:
            return found
        for name, who in zip(("discriminator", "generator"), self._pair, strict=True):
            if who in done.of_model:
                found[f"adversary.{name}_loss"] = done.of_model[who]
        rates = [self._rates.get(who, 0.0) for who in self._pair]
        if min(rates) > 0:
            found["adversary.discriminator_rate"], found["adversary.generator_rate"] = rates
        return found


def _can_be_compared(tensor: torch.Tensor) -> bool:
    return tensor.ndim >= 2 and tensor.shape[0] >= FEWEST and tensor.is_floating_point() and tensor.layout == torch.strided
