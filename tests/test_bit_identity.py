"""Training with the doctor is bit-identical to training without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor import metrics
from nndoctor.subscribers import EVENTS

STEPS = 12
Attach = Callable[..., Any]


@dataclass
class Trace:
    """Everything that must not depend on the doctor."""

    losses: list[torch.Tensor]
    states: list[dict[str, torch.Tensor]]
    random_state: torch.Tensor
    gradients: list[torch.Tensor | None]


class Everything(nndoctor.Subscriber):
    """Listens to every tensor and event, by itself and together."""

    subscriptions = (
        nndoctor.Subscription(("activations", "layer_gradients", "weights", "weight_gradients", "weight_updates", "inputs", "outputs", "labels", "loss")),
        *(nndoctor.Subscription(topic) for topic in ("biases", *EVENTS)),
    )
    signals = (nndoctor.Signal("test.everything", "run", "1", "How many numbers there were."),)

    def receive(self, bundle: nndoctor.Bundle) -> float:
        return float(sum(torch.as_tensor(value).numel() for value in bundle.values.values()))


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.features(x)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(x.flatten(1, 2))
        return self.head(torch.tanh(out[:, -1]))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x.flatten(1, 2)).mean(1))


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(STEPS):
        yield torch.randn(6, 1, 8, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)


def trace_of(models: list[nn.Module], losses: list[torch.Tensor]) -> Trace:
    return Trace(
        [loss.detach().clone() for loss in losses],
        [{k: v.clone() for k, v in m.state_dict().items()} for m in models],
        torch.random.get_rng_state(),
        [None if p.grad is None else p.grad.clone() for m in models for p in m.parameters()],
    )


def train_classifier(make: type[nn.Module], variant: str, attach: Attach) -> Trace:
    torch.manual_seed(1)
    model = make()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if variant == "lbfgs":
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    scaler = torch.amp.GradScaler("cpu", enabled=variant == "amp")
    losses = []
    with attach(model, optimizer, F.cross_entropy):
        for number, (x, y) in enumerate(batches()):
            if variant == "lbfgs":

                def closure() -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(x), y)  # noqa: B023
                    loss.backward()
                    return loss

                losses.append(optimizer.step(closure))
                continue
            with torch.autocast("cpu", torch.bfloat16, enabled=variant == "amp"):
                loss = F.cross_entropy(model(x), y)
            losses.append(loss)
            scaler.scale(loss).backward()
            if variant == "accumulate" and number % 3 != 2:
                continue
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return trace_of([model], losses)


def train_gan(attach: Attach) -> Trace:
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 64))
    judge = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), lr=1e-3),
        "judge": torch.optim.Adam(judge.parameters(), lr=1e-3),
    }
    losses = []
    with attach({"generator": generator, "judge": judge}, optimizers, None):
        for x, _ in batches():
            fake = generator(torch.randn(6, 4))
            optimizers["judge"].zero_grad()
            loss = F.softplus(-judge(x.flatten(1))).mean() + F.softplus(judge(fake.detach())).mean()
            loss.backward()
            optimizers["judge"].step()
            losses.append(loss)
            optimizers["generator"].zero_grad()
            loss = F.softplus(-judge(fake)).mean()
            loss.backward()
            optimizers["generator"].step()
            losses.append(loss)
    return trace_of([generator, judge], losses)


def assert_identical(bare: Trace, watched: Trace) -> None:
    for a, b in zip(bare.losses, watched.losses, strict=True):
        assert torch.equal(a, b)
    for first, second in zip(bare.states, watched.states, strict=True):
        assert list(first) == list(second)
        for name in first:
            assert torch.equal(first[name], second[name]), name
    assert torch.equal(bare.random_state, watched.random_state)
    for a, b in zip(bare.gradients, watched.gradients, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a, b)


def without(*args: object, **kwargs: object) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@pytest.fixture
def watched(tmp_path: Path) -> Attach:
    """Attach with every probe and a subscriber to everything on every step, and let failures raise."""

    def attach(*args: Any, **kwargs: Any) -> nndoctor.Doctor:
        return nndoctor.wrap(*args, run_dir=tmp_path / "run", ui="off", cadence=1, strict=True, subscribers=[Everything(), metrics.adam()], **kwargs)

    return attach


@pytest.mark.parametrize("variant", ["plain", "amp", "accumulate", "lbfgs"])
@pytest.mark.parametrize("make", [ConvNet, Recurrent, Attention])
def test_training_is_bit_identical(make: type[nn.Module], variant: str, watched: Attach) -> None:
    assert_identical(train_classifier(make, variant, without), train_classifier(make, variant, watched))


def test_a_gan_with_two_optimizers_is_bit_identical(watched: Attach) -> None:
    assert_identical(train_gan(without), train_gan(watched))


def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_identical(train_classifier(ConvNet, "plain", without), train_classifier(ConvNet, "accumulate", without))
