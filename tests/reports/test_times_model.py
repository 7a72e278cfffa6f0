"""The model of time finds the costs that made the times, says what it does not know, and keeps to its intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.reports.times_model import CannotPredict, LayerWork, Network, Observed, family_of, learn, observe, truth
from nndoctor.signals import Frame, Targets

PER_CALL, PER_FLOP, PER_BYTE = 20e-6, 2e-11, 1e-10  # seconds on a machine of our own making


def linear(name: str, width: int, batch: float, first: bool = False) -> LayerWork:
    return LayerWork(name, "Linear", 2 * batch * width * width, 8 * batch * width, 4 * width * width, 1, first)


def seconds(layer: LayerWork, passes: float) -> float:
    return PER_CALL + passes * (layer.flops * PER_FLOP + (layer.activation_bytes + layer.parameter_bytes) * PER_BYTE)


def network(name: str, widths: tuple[int, ...], batch: float = 32) -> Network:
    layers = tuple(linear(f"fc{n}", width, batch) for n, width in enumerate(widths))
    return Network(name, layers, float(sum(width * width for width in widths)), len(widths), batch)


def observed(name: str, widths: tuple[int, ...], batch: float = 32, machine: str = "here", noise: float = 0.0) -> Observed:
    made = network(name, widths, batch)
    chance = np.random.default_rng(len(name) + int(batch))
    forward = tuple(seconds(layer, 1) * math.exp(noise * chance.standard_normal()) for layer in made.layers)
    backward = tuple(seconds(layer, 2) * math.exp(noise * chance.standard_normal()) for layer in made.layers)
    optimizer, outside = 1e-5 * made.tensors + 1e-9 * made.parameters, 3e-5 * len(widths)
    return Observed(made, forward, backward, optimizer, outside, sum(forward) + sum(backward) + optimizer + outside, machine)


MANY = [
    observed("a", (64, 128, 256)),
    observed("b", (96, 512)),
    observed("c", (128, 128, 384, 64)),
    observed("d", (256, 320, 512), batch=64),
    observed("e", (64, 200, 300), batch=16),
]


def test_a_width_that_was_not_recorded_is_predicted() -> None:
    model = learn(MANY)
    layer = linear("new", 170, 40)
    assert model.layer_seconds(layer, "forward") == pytest.approx(seconds(layer, 1), rel=0.05)
    assert model.layer_seconds(layer, "backward") == pytest.approx(seconds(layer, 2), rel=0.05)


def test_a_whole_network_is_predicted_with_an_interval_around_it() -> None:
    found = learn(MANY).predict(network("new", (100, 220, 410)))
    real = observed("new", (100, 220, 410))
    assert found.step == pytest.approx(truth(real), rel=0.1)
    assert found.low <= found.step <= found.high
    assert found.extrapolated == ()
    assert sum(map(sum, found.layers)) + found.optimizer + found.outside == pytest.approx(found.step)


def test_another_batch_size_is_predicted() -> None:
    model = learn(MANY)
    other = MANY[0].network.with_batch(48)
    assert model.predict(other).step == pytest.approx(truth(observed("a", (64, 128, 256), batch=48)), rel=0.1)
    with pytest.raises(ValueError, match="not known"):
        Network("unknown", (), 0, 0).with_batch(3)


def test_errors_are_those_on_left_out_networks_and_grow_with_the_noise() -> None:
    quiet = learn(MANY)
    loud = learn([observed(one.network.name, tuple(int(math.sqrt(layer.parameter_bytes / 4)) for layer in one.network.layers), one.network.batch, noise=0.5) for one in MANY])
    assert quiet.step_error < 0.1 < loud.step_error
    assert quiet.error < loud.error
    assert quiet.networks == 5


def test_larger_layers_than_any_recorded_are_refused_until_asked_for() -> None:
    model = learn(MANY)
    large = network("huge", (64, 4096))
    with pytest.raises(CannotPredict, match=r"of huge are layers unlike any of the 5 recorded networks: fc1 \(Linear"):
        model.predict(large)
    found = model.predict(large, extrapolate=True)
    assert found.extrapolated == ("fc1",)
    assert found.extrapolated_share > 0.5
    assert found.high / found.step > model.error


def test_a_family_that_was_never_recorded_is_an_extrapolation() -> None:
    strange = Network("strange", (LayerWork("lstm", "LSTM", 1e6, 1e4, 1e4, 10),), 100.0, 1, 32)
    with pytest.raises(CannotPredict, match=r"lstm \(LSTM"):
        learn(MANY).predict(strange)


def test_a_layer_whose_work_is_not_known_is_an_extrapolation() -> None:
    own = Network("own", (LayerWork("mine", "Linear", math.nan, 1e4, 1e4, 1),), 100.0, 1, 32)
    with pytest.raises(CannotPredict, match="mine"):
        learn(MANY).predict(own)


def test_one_network_or_two_machines_are_too_little_and_too_much() -> None:
    with pytest.raises(CannotPredict, match="at least two networks, got 1"):
        learn([MANY[0], observed("a", (64, 128, 256), batch=8)])
    with pytest.raises(CannotPredict, match="2 machines"):
        learn([MANY[0], observed("b", (96, 512), machine="elsewhere")])


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("Conv2d", "convolution"), ("ConvTranspose1d", "convolution"), ("BatchNorm2d", "normalisation"), ("LayerNorm", "normalisation"),
        ("LSTM", "recurrent"), ("MultiheadAttention", "attention"), ("NonDynamicallyQuantizableLinear", "linear"), ("MaxPool2d", "pooling"),
        ("Embedding", "embedding"), ("ReLU", "elementwise"), ("Dropout", "elementwise"),
    ],
)  # fmt: skip
def test_kinds_have_families(kind: str, family: str) -> None:
    assert family_of(kind) == family


def test_a_record_is_read_by_lower_quartiles_and_its_quiet_steps(tmp_path: Path) -> None:
    targets = Targets(
        layers=("fc", "never"), layer_kinds=("Linear", "Linear"), layer_depths=(0, -1),
        params=("fc.weight", "never.weight"), param_layers=(0, 1), param_shapes=((10, 10), (5, 5)), groups=("sgd[0]",),
    )  # fmt: skip
    facts = {"machine": {"fingerprint": "here"}}
    with RecordWriter(tmp_path / "run", RunFacts("net", 1e9, facts, ()), targets) as writer:
        for step in range(1, 81):
            values = {"step.time": [0.5 if step % 7 == 0 else 0.01], "step.data_wait_fraction": [0.2]}
            if step <= 50:
                values |= {"tile.span": [0.03], "time.forward": [0.9 if step == 1 else 0.003, math.nan], "time.backward": [0.004, math.nan]}
                values |= {"time.optimizer": [0.001], "tile.loss": [0.002], "layer.flops": [200.0, math.nan]}
                values |= {"layer.bytes": [480.0, math.nan], "layer.steps_in_row": [1.0, math.nan], "input.batch_size": [1.0]}
            writer.frame(Frame(step, 1e9 + step, None, {name: np.float32(value) for name, value in values.items()}))
    with RecordReader(tmp_path / "run") as reader:
        one = observe(reader)
    assert one is not None
    assert one.network == Network("net", (LayerWork("fc", "Linear", 200.0, 80.0, 400.0, 1.0, first=True),), 125.0, 2, 1.0)
    assert one.forward == (pytest.approx(0.003),)
    assert (one.optimizer, one.outside) == (pytest.approx(0.001), pytest.approx(0.002))
    assert one.step == pytest.approx(0.008)  # without the fifth that was waited for data
    assert one.machine == "here"


def test_a_record_without_layer_times_has_no_network(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "run", RunFacts("net", 1e9, {}, ()), Targets()) as writer:
        writer.frame(Frame(1, 1e9, None, {"loss": np.float32([1.0])}))
    with RecordReader(tmp_path / "run") as reader:
        assert observe(reader) is None
