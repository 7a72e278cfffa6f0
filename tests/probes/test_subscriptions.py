"""Subscribers get what they ask for, of the step, layer and call it belongs to, and the training is not touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor import Bundle, Signal, Subscriber, Subscription
from nndoctor.record import RecordReader
from nndoctor.reports.panel_data import PanelState
from nndoctor.subscribers import EVENTS, TOPICS, Published, Run

Wrap = Callable[..., nndoctor.Doctor]


class Notes(Subscriber):
    """Keeps every bundle."""

    name = "notes"

    def __init__(self, *topics: str, **where: Any) -> None:
        self.subscriptions = (Subscription(topics, **where),)
        self.heard: list[Bundle] = []

    def receive(self, bundle: Bundle) -> Published:
        copied = {topic: value.clone() if isinstance(value, Tensor) else value for topic, value in bundle.values.items()}
        self.heard.append(Bundle(bundle.step, bundle.epoch, bundle.layer, bundle.parameter, bundle.call, bundle.batch, bundle.tag, copied))
        return None

    def of(self, layer: str | None) -> list[Bundle]:
        return [bundle for bundle in self.heard if bundle.layer == layer]


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Wrap]:
    doctors = []

    def make(model: Any, optimizer: Any, *subscribers: Subscriber, strict: bool = True, **options: Any) -> nndoctor.Doctor:
        folder = tmp_path / f"run{len(doctors)}"
        doctors.append(nndoctor.wrap(model, optimizer, run_dir=folder, ui="off", strict=strict, subscribers=subscribers, **options))
        return doctors[-1]

    yield make
    for doctor in doctors:
        doctor.close()


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 4, generator=generator), torch.randint(0, 3, (5,), generator=generator)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 1) -> Tensor:
    x, y = batch(seed)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def loader(batches: int = 3) -> DataLoader[Any]:
    x, y = torch.randn(5 * batches, 4, generator=torch.Generator().manual_seed(2)), torch.arange(5 * batches) % 3
    return DataLoader(TensorDataset(x, y), batch_size=5)


def published(doctor: nndoctor.Doctor, signal: str) -> dict[int, list[float]]:
    """What the record holds of a signal, by step."""
    doctor.diagnosis()
    doctor.close()
    with RecordReader(doctor.run_dir) as reader:
        return {frame.step: frame.values[signal].tolist() for frame in reader.frames() if signal in frame.values}


# ------------------------------------------------------------------ A1 to A4: which layers


def test_a1_depth_says_how_far_down_layers_are_looked_for(wrap: Wrap) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 3))
    found = [Notes("activations", depth=depth) for depth in (-1, 1, 0)]
    optimizer = sgd(model)
    wrap(model, optimizer, *found)
    step(model, optimizer)
    assert [sorted({str(bundle.layer) for bundle in notes.heard}) for notes in found] == [["0.0", "0.1", "1"], ["0", "1"], ["Sequential"]]
    assert [bundle["activations"].shape for bundle in found[1].heard] == [(5, 6), (5, 3)]


def test_a1_a_container_has_all_the_parameters_inside_of_it(wrap: Wrap) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6)), nn.Linear(6, 3))
    notes = Notes("weights", depth=1)
    optimizer = sgd(model)
    wrap(model, optimizer, notes)
    step(model, optimizer)
    assert [(bundle.layer, bundle.parameter) for bundle in notes.heard] == [("0", "0.0.weight"), ("0", "0.1.weight"), ("1", "1.weight")]


def test_a2_layers_have_the_names_of_the_model_each_once(wrap: Wrap) -> None:
    from nndoctor.zoo.models import model_named

    model = model_named("alexnetmini", (1, 28, 28), 10)
    optimizer = sgd(model)
    notes = Notes("activations")
    wrap(model, optimizer, notes)
    optimizer.zero_grad()
    model(torch.randn(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    names = [str(bundle.layer) for bundle in notes.heard]
    assert len(set(names)) == len(names)
    assert set(names) == {name for name, module in model.named_modules() if not list(module.children())}


class Wide(nn.Linear):
    """A subclass."""


@pytest.mark.parametrize(("wanted", "names"), [(nn.Linear, {"0", "2", "3"}), ("Linear", {"0", "2", "3"}), ([Wide], {"3"}), ("[02]", {"0", "2"}), (["ReLU", "3"], {"1", "3"})])
def test_a3_layers_are_chosen_by_class_with_subclasses_and_by_glob(wrap: Wrap, wanted: Any, names: set[str]) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), Wide(6, 3))
    optimizer = sgd(model)
    notes = Notes("activations", layers=wanted)
    wrap(model, optimizer, notes)
    step(model, optimizer)
    assert {bundle.layer for bundle in notes.heard} == names


def test_a3_nine_of_the_leaves_of_vgg_are_convolutions_or_linear(wrap: Wrap) -> None:
    from nndoctor.zoo.models import model_named

    model = model_named("vgg", (3, 32, 32), 10)
    notes = Notes("activations", layers=[nn.Conv2d, nn.Linear])
    optimizer = sgd(model)
    wrap(model, optimizer, notes)
    model(torch.randn(2, 3, 32, 32))
    assert len(notes.heard) == 9


def test_a4_only_the_part_that_is_wrapped_is_reported_and_it_stays_the_same_object(wrap: Wrap) -> None:
    model = perceptron()
    part, optimizer, notes = model[2], sgd(model), Notes("activations")
    wrap(part, optimizer, notes)
    step(model, optimizer)
    assert model[2] is part
    assert {bundle.layer for bundle in notes.heard} == {"Linear"}


# ------------------------------------------------------------------ A5, A6: the model is left alone

ALL = [topic for topic in TOPICS if not topic.startswith("bias")]


@pytest.mark.parametrize("every", [1, 3])
def test_a5_training_with_subscribers_is_bit_identical_and_leaves_nothing_behind(wrap: Wrap, every: int) -> None:
    bare, watched = perceptron(), perceptron()
    optimizers = [sgd(model) for model in (bare, watched)]
    doctor = wrap(watched, optimizers[1], Notes(*ALL, every=every), Notes("biases", "bias_updates"), *(Notes(event) for event in EVENTS))
    for seed in range(70):  # quiet steps begin at 51
        assert torch.equal(step(bare, optimizers[0], seed), step(watched, optimizers[1], seed))
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True))
    state = torch.get_rng_state()
    doctor.close()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in watched.modules())
    assert not optimizers[1]._optimizer_step_pre_hooks
    assert not optimizers[1]._optimizer_step_post_hooks


def test_a5_a_watched_model_can_be_copied_and_saved(wrap: Wrap, tmp_path: Path) -> None:
    model = perceptron()
    optimizer = sgd(model)
    wrap(model, optimizer, Notes("activations", "layer_gradients"))
    step(model, optimizer)
    copied = copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    assert torch.equal(copied(batch()[0]), torch.load(tmp_path / "model.pt", weights_only=False)(batch()[0]))


class Moody(nn.Module):
    """Everything that a stray pass would move."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(x)))


@pytest.mark.parametrize("fails", [False, True])
def test_a6_a_probe_pass_leaves_modes_buffers_generators_and_counts_as_they_were(wrap: Wrap, fails: bool) -> None:
    model = Moody()
    optimizer = sgd(model)
    untagged, tagged, everything = Notes("activations"), Notes("activations", "outputs", tag="noise"), Notes("outputs", tag=None)
    doctor = wrap(model, optimizer, untagged, tagged, everything)
    step(model, optimizer)
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, heard = torch.get_rng_state(), len(untagged.heard)
    try:
        with doctor.probing("noise"):
            assert not model.drop.training
            model(torch.randn(7, 4))
            if fails:
                raise KeyError("in the probe")
    except KeyError:
        assert fails
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert doctor.step == 1
    assert len(untagged.heard) == heard
    assert {(bundle.layer, bundle.tag, bundle.step) for bundle in tagged.heard} == {(name, "noise", 1) for name in ("norm", "drop", "fc")}
    assert [bundle["outputs"].shape[0] for bundle in everything.heard] == [5, 7]
    with doctor.probing():
        model(torch.randn(7, 4))
    assert len(everything.heard) == 2
    step(model, optimizer)
    assert len(untagged.heard) == 2 * heard


# ------------------------------------------------------------------ A7 to A10: messages, sampling, synchronising


def test_a7_negative_steps_and_epochs_are_refused() -> None:
    good: dict[str, Any] = {"step": 0, "epoch": None, "layer": None, "parameter": None, "call": 0, "batch": 0, "tag": "training", "values": {}}
    Bundle(**good)
    for wrong in ({"step": -1}, {"epoch": -1}):
        with pytest.raises(ValueError, match="counted from 0"):
            Bundle(**{**good, **wrong})


def test_a8_messages_of_the_run_have_no_layer_and_those_of_layers_have(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, run, layers = sgd(model), Notes("loss"), Notes("activations")
    wrap(model, optimizer, run, layers)
    step(model, optimizer)
    assert {bundle.layer for bundle in run.heard} == {None}
    assert {bundle.layer for bundle in layers.heard} == {"0", "1", "2"}


@pytest.mark.parametrize(("steps", "every"), [(7, 1), (7, 3), (70, 8), (1, 5)])
def test_a9_every_so_many_steps_are_heard_the_first_one_included(wrap: Wrap, steps: int, every: int) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("activations", every=every)
    wrap(model, optimizer, notes)
    for seed in range(steps):
        step(model, optimizer, seed)
    assert [bundle.step for bundle in notes.of("0")] == list(range(1, steps + 1, every))
    assert len(notes.of("2")) == -(-steps // every)


def test_a9_events_are_counted_by_themselves(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("batch_finished", every=2)
    wrap(model, optimizer, notes)
    for seed in range(5):
        step(model, optimizer, seed)
    assert [bundle.step for bundle in notes.heard] == [1, 3, 5]


def test_a10_everything_of_a_bundle_is_of_the_same_step(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("activations", "layer_gradients", "weights", "weight_gradients", "weight_updates", "inputs", "outputs", "labels", "loss")
    wrap(model, optimizer, notes)
    for seed in range(60):
        notes.heard.clear()
        before = copy.deepcopy(model.state_dict())
        loss = step(model, optimizer, seed)
        first, last = notes.of("0")[0], notes.of("2")[0]
        x, y = batch(seed)
        assert torch.equal(last["inputs"], x)
        assert torch.equal(last["labels"], y)
        assert torch.equal(last["loss"], loss)
        assert torch.equal(last["outputs"], last["activations"])
        assert torch.equal(first["activations"], F.linear(x, before["0.weight"], before["0.bias"]))  # before ReLU wrote into it
        assert torch.equal(last["weights"], before["2.weight"])
        assert torch.equal(last["weight_gradients"], model[2].weight.grad)
        assert torch.equal(last["weight_updates"], model[2].weight.detach() - before["2.weight"])
        one_hot = F.one_hot(y, 3)
        assert torch.allclose(last["layer_gradients"], (last["outputs"].softmax(1) - one_hot) / 5, atol=1e-6)
        assert {bundle.step for bundle in notes.heard} == {seed + 1}


def test_a10_what_never_comes_together_is_not_handed_over(wrap: Wrap) -> None:
    model = perceptron()
    model[0].requires_grad_(False)
    optimizer, notes = sgd(model), Notes("weights", "weight_gradients")
    wrap(model, optimizer, notes)
    for seed in range(3):
        step(model, optimizer, seed)
    assert {bundle.layer for bundle in notes.heard} == {"2"}


def test_a10_a_step_that_a_scaler_leaves_out_is_never_mixed_into_the_next(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("activations", "weight_updates")
    wrap(model, optimizer, notes)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for seed, broken in enumerate((True, False)):
        x, y = batch(seed)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) * (float("inf") if broken else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert [(bundle.step, bundle.call) for bundle in notes.of("2")] == [(1, 0)]


def test_the_loss_is_told_as_it_was_before_a_scaler_multiplied_it(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("loss", "labels")
    wrap(model, optimizer, notes)
    scaler, (x, y) = torch.amp.GradScaler("cpu", init_scale=8.0), batch()
    loss = F.cross_entropy(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert torch.equal(notes.heard[0]["loss"], loss.detach())
    assert torch.equal(notes.heard[0]["labels"], y)


# ------------------------------------------------------------------ A11 to A14: publishing, chaining


class Statistics(Subscriber):
    """Publishes two signals per parameter."""

    subscriptions = (Subscription("weights"),)
    signals = (Signal("weights.low", "param", "1", "Smallest weight."), Signal("weights.high", "param", "1", "Largest weight."))

    def receive(self, bundle: Bundle) -> Published:
        return {"weights.low": bundle["weights"].min(), "weights.high": bundle["weights"].max()}


@nndoctor.metric(topics=("weights.high",), name="weights.high.mean")
def mean_of_highs(value: float) -> float:
    """Mean over all parameters."""
    return value


@nndoctor.metric(topics=("weights.high.mean",))
def twice(value: float) -> float:
    return 2 * value


def test_a11_published_signals_are_recorded_and_can_be_subscribed_to_in_turn(wrap: Wrap) -> None:
    model = perceptron()
    optimizer = sgd(model)
    highs = [float(model[index].weight.detach().max()) for index in (0, 2)]
    doctor = wrap(model, optimizer, Statistics(), mean_of_highs, twice)
    step(model, optimizer)
    folder = doctor.run_dir
    found = published(doctor, "weights.high")
    assert found[1] == [pytest.approx(highs[0]), pytest.approx(float("nan"), nan_ok=True), pytest.approx(highs[1]), pytest.approx(float("nan"), nan_ok=True)]
    with RecordReader(folder) as reader:
        values = next(reader.frames()).values
        assert values["weights.high.mean"] == pytest.approx(sum(highs) / 2)
        assert values["metric.twice"] == pytest.approx(sum(highs))
        assert {signal.name for signal in reader.published} == {"weights.low", "weights.high", "weights.high.mean", "metric.twice"}


def test_the_panel_shows_what_is_published_also_by_a_subscriber_that_comes_later(wrap: Wrap) -> None:
    class Last:
        """A panel that keeps what it was last handed."""

        state: PanelState | None = None

        def due(self) -> bool:
            return True

        def show(self, state: PanelState) -> None:
            self.state = state

        def close(self, final: object) -> None: ...

    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, Statistics())
    shown = doctor._worker.display = Last()
    for seed in range(3):
        step(model, optimizer, seed)
    doctor.subscribe(mean_of_highs)
    for seed in range(3, 6):
        step(model, optimizer, seed)
    doctor._worker._shown = 0.0
    doctor.diagnosis()
    step(model, optimizer, 6)
    doctor.diagnosis()
    assert shown.state is not None
    assert {curve.signal for curve in shown.state.own} == {"weights.low", "weights.high", "weights.high.mean"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Notes("weight"), "no topic 'weight'; did you mean 'weights'"),
        (lambda: Notes("weights.median"), "no topic 'weights.median'"),
        (lambda: Notes("weights", "weights"), "each once"),
        (lambda: Notes("epoch_finished", "weights"), "is an event and is asked for alone"),
        (lambda: Notes("weights", every=0), "every of at least 1"),
    ],
)
def test_a11_an_unknown_or_impossible_topic_is_refused_at_registration(wrap: Wrap, wrong: Callable[[], Subscriber], message: str) -> None:
    model = perceptron()
    with pytest.raises(ValueError, match=message):
        wrap(model, sgd(model), wrong())


def test_a11_a_topic_belongs_to_one_subscription_of_a_subscriber(wrap: Wrap) -> None:
    model, notes = perceptron(), Notes("weights")
    notes.subscriptions = (Subscription("weights"), Subscription(("weights", "biases")))
    with pytest.raises(ValueError, match="a topic belongs to one subscription"):
        wrap(model, sgd(model), notes)


class Undeclared(Statistics):
    signals = ()


class Impossible(Statistics):
    subscriptions = (Subscription("loss"),)

    def receive(self, bundle: Bundle) -> Published:
        return {"weights.low": 1.0}


@pytest.mark.parametrize(("wrong", "why"), [(Undeclared, "which it does not declare"), (Impossible, "belongs to no param")])
def test_a11_what_was_not_declared_cannot_be_published(wrap: Wrap, wrong: type[Subscriber], why: str) -> None:
    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, wrong(), strict=False)
    step(model, optimizer)
    assert [why in failure.error for failure in doctor.diagnosis().probe_failures] == [True]


def test_a11_a_signal_that_means_something_else_already_is_refused(wrap: Wrap) -> None:
    model, wrong = perceptron(), Notes("weights")
    wrong.signals = (Signal("grad.norm", "layer", "1", "Mine."),)
    with pytest.raises(ValueError, match=r"'grad\.norm' is the name of another signal: L2 norm"):
        wrap(model, sgd(model), wrong)


def test_a11_signals_go_silent_with_the_subscriber_that_published_them(wrap: Wrap) -> None:
    class Failing(Statistics):
        def receive(self, bundle: Bundle) -> Published:
            raise RuntimeError("broken")

    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, Failing(), mean_of_highs, strict=False)
    step(model, optimizer)
    assert [(failure.probe, failure.error.partition(" (")[0]) for failure in doctor.diagnosis().probe_failures] == [("Failing", "RuntimeError: broken")]
    assert any("mean_of_highs got no weights.high: who publishes weights.high was dismissed" in note for note in doctor.facts["unseen"])


def test_a12_subscribers_of_two_doctors_know_nothing_of_each_other(wrap: Wrap) -> None:
    one, other = perceptron(), perceptron()
    optimizer = sgd(one)
    first, second = Notes("weights", layers="0"), Notes("weights")
    wrap(one, optimizer, Statistics(), first)
    with pytest.raises(ValueError, match=r"no topic 'weights\.high'"):
        wrap(other, sgd(other), mean_of_highs)
    wrap(other, sgd(other), second)
    step(one, optimizer)
    assert len(first.heard) == 1
    assert second.heard == []


def test_a13_a_function_gets_tensors_step_epoch_and_layer(wrap: Wrap) -> None:
    heard = []

    @nndoctor.metric
    def callback(weights: Tensor, biases: Tensor, step: int, epoch: int | None, layer: str) -> None:
        heard.append((tuple(weights.shape), tuple(biases.shape), step, epoch, layer))

    model = perceptron()
    optimizer = sgd(model)
    wrap(model, optimizer, callback)
    step(model, optimizer)
    assert heard == [((6, 4), (6,), 1, None, "0"), ((3, 6), (3,), 1, None, "2")]


def test_a14_metrics_and_display_never_import_each_other() -> None:
    from tests.test_architecture import MAY_IMPORT

    assert not MAY_IMPORT["subscribers"] & {"probes", "doctor", "reports", "record", "sinks"}
    assert not MAY_IMPORT["metrics"] & {"probes", "doctor", "reports", "record", "sinks"}
    assert not MAY_IMPORT["reports"] & {"metrics", "subscribers", "probes"}


# ------------------------------------------------------------------ the table of topics


def test_topics_come_as_often_as_the_table_says(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, data = sgd(model), loader(3)
    notes = {topic: Notes(topic) for topic in (*TOPICS, *EVENTS)}
    doctor = wrap(model, optimizer, *notes.values())
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, _ in loader(2):
                model(x)
        model.train()
    doctor.close()
    counted = {topic: len(one.heard) for topic, one in notes.items()}
    layers = {"activations": 3, "layer_gradients": 3, **dict.fromkeys((topic for topic in TOPICS if topic.startswith(("weight", "bias"))), 2)}
    assert counted == {
        **{topic: 6 * layers.get(topic, 1) for topic in TOPICS},
        "batch_started": 6, "batch_finished": 6, "epoch_started": 2, "epoch_finished": 2, "training_started": 1, "training_finished": 1,
    }  # fmt: skip


def test_events_come_in_order_and_with_the_right_numbers(wrap: Wrap) -> None:
    told: list[tuple[object, ...]] = []

    class Diary(Subscriber):
        subscriptions = tuple(Subscription(topic) for topic in (*EVENTS, "loss"))

        def receive(self, bundle: Bundle) -> Published:
            topic, value = next(iter(bundle.values.items()))
            told.append((topic, value, bundle.epoch) if topic in EVENTS else (topic, bundle.epoch))
            return None

    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, Diary())
    data = loader(2)
    for _ in range(2):
        for x, y in data:
            step_on(model, optimizer, x, y)
    doctor.close()
    epochs = [
        [("epoch_started", e, e), ("batch_started", 0, e), ("loss", e), ("batch_finished", 0, e), ("batch_started", 1, e), ("loss", e), ("batch_finished", 1, e), ("epoch_finished", e, e)]
        for e in (0, 1)
    ]
    assert told == [("training_started", 0, 0), *epochs[0], *epochs[1], ("training_finished", 4, 1)]


def step_on(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_an_epoch_that_is_broken_off_is_finished_before_the_next_one_starts(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, data, started, finished = sgd(model), loader(4), Notes("epoch_started"), Notes("epoch_finished")
    doctor = wrap(model, optimizer, started, finished, loader=data)
    for _ in range(2):
        for index, (x, y) in enumerate(data):
            step_on(model, optimizer, x, y)
            if index == 1:
                break
    doctor.close()
    assert [bundle["epoch_started"] for bundle in started.heard] == [0, 1]
    assert [(bundle["epoch_finished"], bundle.step) for bundle in finished.heard] == [(0, 2), (1, 4)]


def test_accumulated_batches_are_told_apart_and_give_one_update(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, data = sgd(model), loader(4)
    notes = {topic: Notes(topic) for topic in ("batch_started", "batch_finished", "loss", "weight_updates", "activations")}
    doctor = wrap(model, optimizer, *notes.values())
    for index, (x, y) in enumerate(data):
        F.cross_entropy(model(x), y).backward()
        if index % 2:
            optimizer.step()
            optimizer.zero_grad()
    doctor.close()
    assert [(bundle.step, bundle.batch) for bundle in notes["loss"].heard] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [bundle["batch_finished"] for bundle in notes["batch_finished"].heard] == [0, 1, 2, 3]
    assert [bundle["batch_started"] for bundle in notes["batch_started"].heard] == [0, 1, 2, 3]
    assert [(bundle.step, bundle.layer) for bundle in notes["weight_updates"].heard] == [(1, "0"), (1, "2"), (2, "0"), (2, "2")]
    assert [(bundle.batch, bundle.call) for bundle in notes["activations"].of("0")] == [(0, 0), (1, 1), (0, 0), (1, 1)]


def test_a_subscriber_that_comes_later_hears_from_the_next_step_on(wrap: Wrap) -> None:
    model = perceptron()
    optimizer, notes = sgd(model), Notes("activations", "weight_updates", every=2)
    doctor = wrap(model, optimizer)
    for seed in range(60):
        step(model, optimizer, seed)
    doctor.subscribe(notes, Statistics())
    for seed in range(4):
        step(model, optimizer, seed)
    assert [bundle.step for bundle in notes.of("0")] == [61, 63]
    assert set(published(doctor, "weights.low")) == {61, 62, 63, 64}


# ------------------------------------------------------------------ every model


class Recurrent(nn.Module):
    """Tuple outputs, several weights in one layer, a shared layer that is called again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.cell, self.head = nn.LSTM(2, 6, batch_first=True), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(x.view(len(x), 2, 2))[0][:, -1]
        for _ in range(3):
            h = torch.tanh(self.cell(h))
        return self.head(h)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x[:, None])[:, 0])


@pytest.mark.parametrize("make", [perceptron, Recurrent, Transformer, Moody])
def test_one_metric_works_on_every_model(wrap: Wrap, make: Callable[[], nn.Module]) -> None:
    @nndoctor.metric(unit="1")
    def strength(activations: Tensor, layer_gradients: Tensor) -> Tensor:
        """Mean of |activation * gradient|."""
        return (activations * layer_gradients).abs().mean()

    model = make()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, strength, Statistics())
    for seed in range(3):
        step(model, optimizer, seed)
    doctor.diagnosis()
    with RecordReader(doctor.run_dir) as reader:
        values, targets = next(iter(reader.frames())).values, reader.targets
    called = [name for name, depth in zip(targets.layers, targets.layer_depths, strict=True) if depth >= 0 and not name.startswith("/") and "/" not in name]
    measured = {name for name, value in zip(targets.layers, values["metric.strength"].tolist(), strict=False) if value == value}
    assert measured >= {name for name in called if "self_attn" not in name}
    assert np.isfinite(values["weights.high"]).sum() == sum("bias" not in name for name in targets.params)


def test_calls_of_a_shared_layer_are_told_one_by_one_with_their_own_gradients(wrap: Wrap) -> None:
    model = Recurrent()
    optimizer, notes = sgd(model), Notes("activations", "layer_gradients", layers="cell")
    wrap(model, optimizer, notes)
    step(model, optimizer)
    assert sorted(bundle.call for bundle in notes.heard) == [0, 1, 2]
    assert len({float(bundle["activations"].sum()) for bundle in notes.heard}) == 3


def test_the_parameters_of_an_lstm_are_told_one_by_one(wrap: Wrap) -> None:
    model = Recurrent()
    optimizer, notes = sgd(model), Notes("weights", "weight_updates", layers="lstm")
    wrap(model, optimizer, notes)
    step(model, optimizer)
    assert [bundle.parameter for bundle in notes.heard] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]


def test_evaluation_keeps_its_fused_path(wrap: Wrap) -> None:
    bare, watched = Transformer(), Transformer()
    watched.load_state_dict(bare.state_dict())
    optimizer, notes = sgd(watched), Notes("activations")
    wrap(watched, optimizer, notes)
    with torch.no_grad():
        assert torch.equal(bare.eval()(batch()[0]), watched.eval()(batch()[0]))
    assert notes.heard == []
    step(watched.train(), optimizer)
    assert "encoder.layers.1.linear1" in {bundle.layer for bundle in notes.heard}


def test_gradients_of_checkpointed_layers_are_told(wrap: Wrap) -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.one, self.two, self.reentrant = nn.Linear(4, 6), nn.Linear(6, 3), reentrant

        def forward(self, x: Tensor) -> Tensor:
            return self.two(checkpoint(self.one, x.requires_grad_(), use_reentrant=self.reentrant))

    for reentrant in (False, True):
        model = Checkpointed(reentrant)
        optimizer, notes = sgd(model), Notes("activations", "layer_gradients")
        wrap(model, optimizer, notes)
        step(model, optimizer)
        assert sorted((str(bundle.layer), bundle.call) for bundle in notes.heard) == [("one", 0), ("two", 0)]


def test_two_optimizers_that_take_turns_give_one_update_each(wrap: Wrap) -> None:
    one, two = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizers = [sgd(one), sgd(two)]
    notes = Notes("weight_updates", "weight_gradients")
    doctor = wrap({"one": one, "two": two}, optimizers, notes)
    for _ in range(4):
        for index in (1, 0):
            optimizers[index].zero_grad()
            two(one(batch()[0])).mean().backward()
            optimizers[index].step()
    doctor.close()
    assert [(bundle.step, bundle.layer) for bundle in notes.heard] == [(s, name) for s in range(1, 5) for name in ("two", "one")]


def test_a_closure_that_is_called_several_times_gives_one_update(wrap: Wrap) -> None:
    model = perceptron()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    notes = Notes("weights", "weight_updates", "weight_gradients")
    wrap(model, optimizer, notes)
    x, y = batch()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    before = model[0].weight.detach().clone()
    optimizer.step(closure)
    assert [bundle.layer for bundle in notes.heard] == ["0", "2"]
    assert torch.equal(notes.of("0")[0]["weights"], before)
    assert torch.equal(notes.of("0")[0]["weight_updates"], model[0].weight.detach() - before)


def test_sparse_gradients_come_as_dense_ones(wrap: Wrap) -> None:
    model = nn.EmbeddingBag(10, 3, sparse=True)
    optimizer, notes = torch.optim.SGD(model.parameters(), lr=0.1), Notes("weight_gradients")
    wrap(model, optimizer, notes)
    model(torch.tensor([[1, 2]])).sum().backward()
    optimizer.step()
    assert notes.heard[0]["weight_gradients"].abs().sum(1).nonzero().flatten().tolist() == [1, 2]


# ------------------------------------------------------------------ failures and frames


def test_a_subscriber_that_fails_is_dismissed_and_named_and_the_training_goes_on(wrap: Wrap) -> None:
    @nndoctor.metric
    def broken(activations: Tensor) -> float:
        raise RuntimeError("no idea")

    bare, watched, notes = perceptron(), perceptron(), Notes("activations")
    optimizers = [sgd(model) for model in (bare, watched)]
    doctor = wrap(watched, optimizers[1], broken, notes, strict=False)
    for seed in range(5):
        assert torch.equal(step(bare, optimizers[0], seed), step(watched, optimizers[1], seed))
    failures = doctor.diagnosis().probe_failures
    assert [(failure.probe, failure.error.partition(" (")[0]) for failure in failures] == [("broken", "RuntimeError: no idea")]
    assert len(notes.of("0")) == 5


def test_a_subscriber_that_writes_into_the_training_is_dismissed_and_named(wrap: Wrap) -> None:
    @nndoctor.metric
    def vandal(weights: Tensor) -> None:
        weights.zero_()

    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, vandal, strict=False)
    step(model, optimizer)
    assert "wrote into what it got (weights)" in doctor.diagnosis().probe_failures[0].error


@pytest.mark.parametrize(("value", "why"), [(torch.zeros(2), "one number for each target"), ("many", "is a number, got str")])
def test_what_is_no_number_is_not_published(wrap: Wrap, value: Any, why: str) -> None:
    model = perceptron()
    optimizer = sgd(model)

    @nndoctor.metric
    def odd(weights: Tensor) -> Any:
        return value

    doctor = wrap(model, optimizer, odd, strict=False)
    step(model, optimizer)
    assert why in doctor.diagnosis().probe_failures[0].error


def test_what_is_published_at_the_end_of_an_epoch_counts_to_its_last_step(wrap: Wrap) -> None:
    @nndoctor.metric
    def passes(epoch_finished: int) -> int:
        return epoch_finished + 1

    model = perceptron()
    optimizer, data = sgd(model), loader(30)
    doctor = wrap(model, optimizer, passes)
    for _ in range(3):
        for x, y in data:
            step_on(model, optimizer, x, y)
    assert published(doctor, "metric.passes") == {30: [1.0], 60: [2.0], 90: [3.0]}


def test_a_rule_judges_what_a_subscriber_publishes_live_and_from_the_record(wrap: Wrap, tmp_path: Path) -> None:
    rules = tmp_path / "mine.yaml"
    rules.write_text(
        'version: 1\nrules:\n  - {id: all-alike, severity: warning, scope: layer, when: metric.constant > 0.5, message: "{metric.constant:.1f}"}\n'
    )

    @nndoctor.metric(unit="fraction")
    def constant(activations: Tensor) -> float:
        """Always 1."""
        return 1.0

    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer, constant.on(layers="2"), rules=[rules])
    for seed in range(20):
        step(model, optimizer, seed)
    found = next(finding for finding in doctor.diagnosis().findings if finding.rule == "all-alike")
    assert found.targets == ("2",)
    doctor.close()
    report = doctor.report(tmp_path / "report.html").read_text()
    assert "Metrics of your own" in report
    assert "metric.constant" in report
    assert "Always 1." in report
    from nndoctor.cli.main import main

    assert main(["diagnose", str(doctor.run_dir), "--fail-on", "warning"]) == 1


def test_a_subscriber_gets_the_models_and_the_state_of_the_optimizer(wrap: Wrap) -> None:
    kept: list[Run] = []

    class Curious(Notes):
        def attach(self, run: Run) -> None:
            kept.append(run)

    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    wrap(model, optimizer, Curious("loss"))
    step(model, optimizer)
    run = kept[0]
    assert run.models[""] is model
    state, group = run.optimizer_state("2.weight")
    assert torch.equal(state["exp_avg"], optimizer.state[model[2].weight]["exp_avg"])
    assert group["lr"] == 0.01
    with pytest.raises(KeyError):
        run.optimizer_state("nowhere")


def test_without_subscribers_there_is_no_probe_and_no_hook(wrap: Wrap) -> None:
    model = perceptron()
    optimizer = sgd(model)
    doctor = wrap(model, optimizer)
    for seed in range(55):
        step(model, optimizer, seed)
    assert not any(probe.name == "subscribers" for probe in doctor._board.probes)
    assert "step_ends" not in doctor._board.awake
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_doctor_that_is_switched_off_takes_subscribers_and_tells_them_nothing(wrap: Wrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNDOCTOR", "0")
    model = Moody()
    optimizer, notes = sgd(model), Notes("activations")
    doctor = wrap(model, optimizer, notes)
    doctor.subscribe(notes)
    step(model, optimizer)
    with doctor.probing():
        assert not model.training
    assert model.training
    assert notes.heard == []
