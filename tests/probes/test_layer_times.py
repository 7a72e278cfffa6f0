"""Tiles add up by construction; what is tested here is that each interval gets the right label."""

from __future__ import annotations

import gc
import math
import pickle
import weakref
from collections.abc import Callable
from time import perf_counter_ns

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nndoctor import tiles
from nndoctor.discovery import ModelIndex
from nndoctor.probes import layer_times
from nndoctor.probes.layer_times import LayerTimesProbe, tensors_in
from nndoctor.tiles import (
    BACKWARD,
    FIRST_GROUP,
    FORWARD,
    LAYER_SIGNALS,
    NAMED,
    RECOMPUTED,
    REST,
    Tiles,
    tiles_of,
)


class Clock:
    """A clock that stands still unless moved, so that a test knows every tile to the nanosecond."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (layer_times, tiles):
        monkeypatch.setattr(module, "perf_counter_ns", clock)
    return clock


class Work(torch.autograd.Function):
    """The identity, taking a known time forward and backward."""

    @staticmethod
    def forward(ctx, x, clock, forward, backward):
        ctx.clock, ctx.backward_time = clock, backward
        clock.now += forward
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += ctx.backward_time
        return gradient, None, None, None


class Worker(nn.Module):
    def __init__(self, clock: Clock, forward: int, backward: int) -> None:
        super().__init__()
        self.clock, self.times = clock, (forward, backward)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Work.apply(x, self.clock, *self.times)


def measured(model: nn.Module, body: Callable[[], None]) -> tuple[Tiles, dict[str, tuple[float, float]]]:
    """One sampled step: its tiles, and nanoseconds of forward and backward by layer name."""
    index = ModelIndex(model)
    probe = LayerTimesProbe()
    probe.attach(index)
    probe.begin_step(1, True)
    body()
    found = probe.collect()
    assert probe.tiles is not None
    nothing = [math.nan] * len(index.layers)
    forward, backward = (found.get(name, nothing) for name in LAYER_SIGNALS[:2])
    return probe.tiles, {n: (round(f * 1e9, 3), round(b * 1e9, 3)) for n, f, b in zip(index.layer_names, forward, backward, strict=True)}


def model_layers(model: nn.Module) -> list[str]:
    return list(ModelIndex(model).layer_names)


def total(tiles: Tiles) -> int:
    return sum(sum(part.values()) for part in (tiles.forward, tiles.backward, tiles.recomputed, tiles.groups, tiles.rest))


def test_each_layer_gets_its_own_forward_and_backward_time(clock: Clock) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Worker(clock, 10, 30), Worker(clock, 5, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = Work.apply(self.first(x), clock, 100, 200)  # the block's own work
            return self.second(x)

    model = nn.Sequential(nn.Linear(2, 2), Block(), Worker(clock, 1, 2))

    def body() -> None:
        clock.now += 1000
        out = model(torch.randn(3, 2))
        loss = Work.apply(out, clock, 40, 60).sum()
        loss.backward()
        clock.now += 5000

    tiles, layers = measured(model, body)
    assert layers["1.first"] == (10, 30)
    assert layers["1.second"] == (5, 7)
    assert layers["2"] == (1, 2)
    assert tiles.rest["rest"] == 1000
    assert tiles.rest["forward outside layers"] == 100
    assert tiles.rest["backward outside layers"] == 200
    assert tiles.rest["loss"] == 40 + 60
    assert tiles.span == total(tiles) == 6455


def test_the_end_of_backward_and_the_optimizer_are_told_apart(clock: Clock) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Worker(clock, 1, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    index, probe = ModelIndex(model), LayerTimesProbe()
    probe.attach(index)
    index.add_groups(["sgd[0]"])
    probe.register("sgd", optimizer)
    probe.begin_step(1, True)
    model(torch.randn(3, 2)).sum().backward()
    probe.backward_ended()
    clock.now += 70
    probe.gradients_ready(optimizer)
    clock.now += 300
    probe.stepped(optimizer)
    clock.now += 9
    probe.collect()
    assert probe.tiles is not None
    assert probe.tiles.rest["rest"] == 79
    assert probe.tiles.groups == {0: 300}
    assert probe.tiles.backward == {0: 0, 1: 2}


def test_residual_sums_belong_to_no_layer(clock: Clock) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.relu = Worker(clock, 1, 10), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(Work.apply(x + self.inner(x), clock, 100, 1000))

    model = nn.Sequential(nn.Linear(2, 2), Residual())
    tiles, layers = measured(model, lambda: model(torch.randn(3, 2)).sum().backward())
    assert layers["1.inner"] == (1, 10)
    assert layers["1.relu"] == (0, 0)
    assert tiles.rest["backward outside layers"] == 1000


def test_inplace_shared_and_keyword_modules_and_tuple_and_dict_outputs(clock: Clock) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.relu, self.named = Worker(clock, 2, 20), nn.ReLU(inplace=True), Named()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = self.relu(self.shared(self.shared(x)))
            return {"out": self.named(hidden=x)[0]}

    class Named(nn.Module):
        def forward(self, *, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
            return Work.apply(hidden, clock, 3, 300), None

    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "pair": Pair()})
    tiles, layers = measured(model, lambda: model["pair"](model["stem"](torch.randn(3, 2)))["out"].sum().backward())
    assert layers["pair.shared"] == (4, 40)
    assert layers["pair.named"] == (3, 300)
    assert tiles.span == total(tiles)


def test_frozen_layers_have_no_backward_time(clock: Clock) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Worker(clock, 1, 10), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    _, layers = measured(model, lambda: model(torch.randn(3, 2)).sum().backward())
    assert layers["1"][0] == 1
    assert math.isnan(layers["0"][1])
    assert math.isnan(layers["1"][1])
    assert layers["2"][1] == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_repeated_forward_is_told_apart_from_backward(clock: Clock, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.head = nn.Linear(2, 2), nn.Sequential(Worker(clock, 3, 30), nn.Tanh(), Worker(clock, 5, 50), nn.Tanh()), Worker(clock, 7, 70)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.block, self.stem(x), use_reentrant=reentrant))

    model = Checkpointed()
    tiles, layers = measured(model, lambda: model(torch.randn(3, 2)).sum().backward())
    assert layers["block.0"] == (3, 30)
    assert layers["block.2"] == (5, 50)
    assert layers["head"] == (7, 70)
    assert {model_layers(model)[number]: time for number, time in tiles.recomputed.items()} == {"block.0": 3, "block.2": 5, "block.1": 0, "block.3": 0}
    assert tiles.rest["recomputed outside layers"] == 0
    assert tiles.span == total(tiles)


def test_accumulated_passes_add_up_and_evaluations_are_not_layers(clock: Clock) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Worker(clock, 2, 3))

    def body() -> None:
        for _ in range(4):
            model(torch.randn(3, 2)).sum().backward()
        with torch.no_grad():
            model(torch.randn(3, 2))

    _, layers = measured(model, body)
    assert layers["1"][0] == 8


def test_an_exception_in_a_forward_leaves_the_next_pass_in_order(clock: Clock) -> None:
    class Fails(nn.Module):
        fail = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fail:
                raise ValueError("the user's own error")
            return x

    model = nn.Sequential(nn.Linear(2, 2), Worker(clock, 2, 3), Fails())

    def body() -> None:
        with pytest.raises(ValueError, match="the user's own error"):
            model(torch.randn(3, 2))
        clock.now += 900
        model[2].fail = False
        model(torch.randn(3, 2)).sum().backward()

    tiles, layers = measured(model, body)
    assert layers["1"] == (4, 3)
    assert tiles.rest["loss"] == 900


def test_layers_are_measured_inside_an_optimizer_closure(clock: Clock) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Worker(clock, 2, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    index, probe = ModelIndex(model), LayerTimesProbe()
    probe.attach(index)
    probe.begin_step(1, True)
    probe.gradients_ready(optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(3, 2)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = probe.collect()
    assert found["time.forward"][1] == pytest.approx(2e-9)
    assert found["time.backward"][1] == pytest.approx(3e-9)


def test_recurrent_layers_with_tuple_outputs_are_timed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    model = Model()
    tiles, layers = measured(model, lambda: model(torch.randn(4, 20, 8)).sum().backward())
    assert tiles.span == total(tiles)
    assert layers["lstm"][0] > layers["head"][0] > 0
    assert layers["lstm"][1] > layers["head"][1] > 0


def test_real_tiles_add_up_to_a_span_that_lies_inside_the_measured_time() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    begin = perf_counter_ns()
    tiles, layers = measured(model, lambda: F.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.zeros(8, dtype=torch.long)).backward())
    elapsed = perf_counter_ns() - begin
    assert tiles.span == total(tiles)
    assert 0 < tiles.span <= elapsed
    assert all(forward > 0 for forward, _ in layers.values())
    assert all(backward > 0 for _, backward in layers.values())


def test_without_a_training_pass_no_layer_is_measured() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    index, probe = ModelIndex(model), LayerTimesProbe()
    probe.attach(index)
    probe.begin_step(1, True)
    with torch.no_grad():
        model(torch.randn(1, 2))
    assert not set(probe.collect()) & set(LAYER_SIGNALS)
    probe.begin_step(2, False)
    assert probe.collect() == {}


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_nothing_is_registered_outside_of_sampled_steps_and_models_can_be_saved_inside() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    probe = LayerTimesProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, False)
    assert hooks_on(model) == 0
    probe.begin_step(2, True)
    assert hooks_on(model) > 0
    pickle.loads(pickle.dumps(model))(torch.randn(1, 2))
    probe.collect()
    probe.begin_step(3, False)
    assert hooks_on(model) == 0
    probe.begin_step(4, True)
    probe.detach()
    assert hooks_on(model) == 0


def test_sampled_steps_in_a_row_share_their_hooks_unless_another_hook_came(clock: Clock) -> None:
    inner = Worker(clock, 1, 2)
    model = nn.Sequential(nn.Linear(2, 2), inner)
    probe = LayerTimesProbe()
    probe.attach(ModelIndex(model))

    def step(number: int) -> Tiles:
        probe.begin_step(number, True)
        model(torch.randn(1, 2)).sum().backward()
        probe.collect()
        assert probe.tiles is not None
        return probe.tiles

    first, installed = step(1), next(iter(inner._forward_hooks.values()))
    assert step(2) == first
    assert next(iter(inner._forward_hooks.values())) is installed

    def looks(*_: object) -> None:
        clock.now += 10

    handle = inner.register_forward_hook(looks)
    beside = step(3)
    assert beside.rest["the doctor itself"] == 10
    assert beside.forward == first.forward
    handle.remove()
    assert step(4) == first
    probe.begin_step(5, False)
    assert hooks_on(model) == 0


def test_a_tensor_that_was_changed_in_place_is_followed_anew(clock: Clock) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Worker(clock, 1, 2), Worker(clock, 3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            y += Work.apply(x, clock, 0, 500)
            return self.second(y)

    model = nn.Sequential(nn.Linear(2, 2), Doubled())
    tiles, layers = measured(model, lambda: model(torch.randn(3, 2)).sum().backward())
    assert layers["1.first"] == (1, 2)
    assert layers["1.second"] == (3, 4)
    assert tiles.rest["backward outside layers"] == 500


def test_graphs_are_not_kept_and_a_kept_graph_does_not_report_later() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    index, probe = ModelIndex(model), LayerTimesProbe()
    probe.attach(index)
    probe.begin_step(1, True)
    out = model(torch.randn(1, 2))
    out.sum().backward(retain_graph=True)
    probe.collect()
    former = probe.tiles
    out.sum().backward()
    assert probe.tiles is former
    reference = weakref.ref(out)
    del out
    gc.collect()
    assert reference() is None


def test_an_error_in_a_hook_reaches_collect_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: LayerTimesProbe, node: object, label: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LayerTimesProbe, "claim", broken)
    model = nn.Sequential(nn.Linear(2, 2))
    probe = LayerTimesProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    model(torch.randn(1, 2)).sum().backward()
    with pytest.raises(ZeroDivisionError):
        probe.collect()
    assert hooks_on(model) == 0


def test_intervals_are_added_by_label() -> None:
    layer = 3 * 1
    labels = [REST, layer + FORWARD, layer + BACKWARD, layer + FORWARD, layer + RECOMPUTED, FIRST_GROUP - 2, REST]
    tiles = tiles_of([0, 10, 15, 15, 40, 47, 50], labels)
    assert tiles == Tiles(span=50, forward={1: 5 + 25}, backward={1: 0}, recomputed={1: 7}, groups={2: 3}, rest={"rest": 10})


def test_labels_of_the_rest_and_of_groups_never_meet() -> None:
    assert min(NAMED) > FIRST_GROUP
    assert max(NAMED) < 0


def test_tensors_are_found_in_nested_arguments_but_only_the_first_few() -> None:
    a, b = torch.zeros(1), torch.zeros(2)
    assert {id(t) for t in tensors_in(((a,), {"x": [b, None, "text"]}))} == {id(a), id(b)}
    assert len(list(tensors_in([torch.zeros(1) for _ in range(1000)]))) == layer_times.TENSORS_FOLLOWED
