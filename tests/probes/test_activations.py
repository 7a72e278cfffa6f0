"""The activation probe against plain torch on captured outputs, and that the training does not notice it."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from nndoctor.discovery import ModelIndex
from nndoctor.probes.activations import ActivationProbe
from nndoctor.probes.layer_times import LayerTimesProbe
from nndoctor.probes.samples import MOST_ROWS, Samples
from nndoctor.signals import CATALOGUE


class Session:
    """A model, its probe, and steps that are measured as the doctor would do it."""

    def __init__(self, model: nn.Module | dict[str, nn.Module]) -> None:
        self.index = ModelIndex(model)
        self.probe = ActivationProbe()
        self.probe.attach(self.index)
        self.steps = 0

    @contextmanager
    def sampled(self, sampled: bool = True) -> Iterator[None]:
        self.steps += 1
        self.probe.begin_step(self.steps, sampled)
        yield
        self.found = {name: torch.as_tensor(values) for name, values in self.probe.collect().items()} if sampled else {}

    def run(self, forward: Callable[[], object], times: int = 1) -> dict[str, torch.Tensor]:
        for _ in range(times):
            with self.sampled():
                forward()
        return self.found

    def value(self, signal: str, layer: str) -> float:
        return float(self.found[signal][self.index.layer_names.index(layer)])

    def by_layer(self, signal: str) -> dict[str, float]:
        return {n: v for n, v in zip(self.index.layer_names, self.found[signal].tolist(), strict=True) if not math.isnan(v)}


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called) for m in model.modules())


def small_cnn(inplace: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)
    )


# what is measured


def test_statistics_are_those_of_the_outputs_that_the_layers_handed_on() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 4))
    batch = torch.randn(16, 8)
    first = model[0](batch).detach()
    outputs = {"0": first, "1": first.relu(), "2": model[2](first.relu()).detach()}
    session = Session(model)
    session.run(lambda: model(batch))
    for layer, output in outputs.items():
        expected = {
            "act.mean": output.mean(),
            "act.std": output.std(correction=0),
            "act.rms": output.square().mean().sqrt(),
            "act.max": output.abs().max(),
            "act.batch_std": output.std(0).mean(),
            "act.nonfinite": 0.0,
            "layer.calls": 1.0,
        }
        for signal, value in expected.items():
            assert session.value(signal, layer) == pytest.approx(float(value), rel=1e-5), (signal, layer)


def test_signals_are_in_the_catalogue_and_arrays_cover_all_layers() -> None:
    model = small_cnn()
    session = Session(model)
    found = session.run(lambda: model(torch.randn(40, 1, 8, 8)), 9)
    assert set(ActivationProbe.signals) <= set(CATALOGUE.names())
    assert set(found) <= set(ActivationProbe.signals)
    assert {tuple(values.shape) for values in found.values()} == {(len(session.index.layers),)}
    assert session.index.layer_depths == list(range(7))


def test_a_single_nan_anywhere_is_seen_and_its_first_layer_named() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 28 * 28, 3))
    batch = torch.randn(64, 1, 32, 32)
    session = Session(model)
    session.run(lambda: model(batch))
    assert set(session.by_layer("act.first_nonfinite").values()) == {0.0}

    def poisoned(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[37, 2, 11, 17] = float("nan")
        return output

    handle = model[2].register_forward_hook(poisoned)
    session.run(lambda: model(batch))
    handle.remove()
    assert [name for name, value in session.by_layer("act.first_nonfinite").items() if value] == ["2"]
    assert session.value("act.nonfinite", "1") == 0
    assert session.value("act.nonfinite", "2") >= 1
    assert session.value("act.nonfinite", "4") >= 1
    session.run(lambda: model(batch))
    assert set(session.by_layer("act.nonfinite").values()) == {0.0}


def test_planted_dead_channels_are_found_and_half_zero_units_are_not_dead() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10), nn.ReLU(), nn.Linear(10, 2))
    with torch.no_grad():
        model[0].bias[:3] = -1e6
        model[3].bias[7] = -1e6
        model[3].bias[:7] = 0
    session = Session(model)
    session.run(lambda: model(torch.randn(64, 1, 8, 8)), 3)
    assert "act.dead_fraction" not in session.found, "192 samples are not enough to call a unit dead"
    session.run(lambda: model(torch.randn(64, 1, 8, 8)), 2)
    assert session.value("act.dead_fraction", "1") == pytest.approx(3 / 8)
    assert session.value("act.dead_fraction", "4") == pytest.approx(1 / 10)
    assert session.value("act.dead_samples", "1") == 320
    assert set(session.by_layer("act.dead_fraction")) == {"1", "4"}


def test_dead_channels_are_found_in_outputs_too_large_to_be_read_whole() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model[0].bias[:2] = -1e6
    session = Session(model)
    batch = torch.randn(16, 1, 64, 64)
    session.run(lambda: model(batch), 7)
    assert "act.dead_fraction" not in session.found
    session.run(lambda: model(batch))
    assert session.value("act.dead_fraction", "1") == 0.25
    assert session.value("act.dead_samples", "1") == 8 * 2


def test_a_healthy_layer_with_half_of_its_elements_at_zero_has_no_dead_unit() -> None:
    model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 1))
    session = Session(model)
    session.run(lambda: model(torch.randn(128, 20)), 3)
    assert float((model[:2](torch.randn(128, 20)) == 0).float().mean()) > 0.4
    assert session.value("act.dead_fraction", "1") == 0


def test_units_that_die_later_are_found_and_revived_ones_leave() -> None:
    model = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 1))
    session = Session(model)
    session.run(lambda: model(torch.randn(32, 5)), 30)
    assert session.value("act.dead_fraction", "1") == 0
    bias = model[0].bias.detach().clone()
    with torch.no_grad():
        model[0].bias[:4] = -100
    session.run(lambda: model(torch.randn(32, 5)), 16)
    assert session.value("act.dead_fraction", "1") == pytest.approx(0.4)
    with torch.no_grad():
        model[0].bias.copy_(bias)
    session.run(lambda: model(torch.randn(32, 5)), 2)
    assert session.value("act.dead_fraction", "1") == 0


def test_features_of_a_sequence_are_units_after_linear_layers_and_channels_after_convolutions() -> None:
    linear = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    convolution = nn.Sequential(nn.Conv1d(6, 8, 1), nn.ReLU())
    for model, shape in ((linear, (16, 5, 6)), (convolution, (16, 6, 5))):
        with torch.no_grad():
            model[0].bias[:2] = -1e6
        session = Session(model)
        session.run(lambda model=model, shape=shape: model(torch.randn(shape)), 8)
        assert session.value("act.dead_fraction", "1") == pytest.approx(0.25)


def test_leaky_and_smooth_activations_cannot_die() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 4), nn.GELU())
    with torch.no_grad():
        model[0].bias.fill_(-1e6)
    session = Session(model)
    session.run(lambda: model(torch.randn(256, 4)), 9)
    assert "act.dead_fraction" not in session.found


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Hardtanh(), nn.Hardsigmoid()])
def test_saturated_units_are_counted_and_normal_ones_are_not(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(8, 16), activation)
    with torch.no_grad():
        model[0].weight.mul_(0.2)
    session = Session(model)
    session.run(lambda: model(torch.randn(64, 8)))
    assert session.value("act.saturated_fraction", "1") == 0
    with torch.no_grad():
        model[0].bias[:4] = 50
        model[0].bias[4:8] = -50
    session.run(lambda: model(torch.randn(64, 8)))
    assert session.value("act.saturated_fraction", "1") == 0.5


def test_a_sure_classifier_is_not_a_saturated_softmax_but_one_hot_attention_is() -> None:
    classifier = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    with torch.no_grad():
        classifier[0].weight.mul_(1e3)
    session = Session(classifier)
    session.run(lambda: classifier(torch.randn(32, 4)))
    assert "act.saturated_fraction" not in session.found
    attention = nn.Sequential(nn.Softmax(dim=-1))
    session = Session(attention)
    session.run(lambda: attention(torch.randn(4, 2, 64, 64) * torch.tensor([1e4, 1.0]).view(1, 2, 1, 1)))
    assert session.value("act.saturated_fraction", "0") == 0.5


def test_shared_layers_and_accumulation_are_combined_over_a_bounded_number_of_calls() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    batches = [torch.randn(16, 4) * scale for scale in (1, 2, 3)]
    session = Session(model)
    session.run(lambda: [model(batch) for batch in batches])
    outputs = [model(batch).detach() for batch in batches]
    assert session.value("layer.calls", "0") == 3
    assert session.value("act.max", "0") == pytest.approx(max(float(o.abs().max()) for o in outputs))
    assert session.value("act.mean", "0") == pytest.approx(sum(float(o.mean()) for o in outputs) / 3, abs=1e-6)
    session.run(lambda: [model(torch.randn(16, 4)) for _ in range(50)], 2)
    assert session.value("layer.calls", "0") == 50
    assert len(session.probe._samples._slots) <= 4


def test_outputs_in_tuples_dicts_and_nothing_at_all() -> None:
    class Odd(nn.Module):
        def __init__(self, output: Callable[[torch.Tensor], object]) -> None:
            super().__init__()
            self.output = output

        def forward(self, x: torch.Tensor) -> object:
            return self.output(x)

    model = nn.ModuleDict({"pair": Odd(lambda x: (x.argmax(), x)), "dict": Odd(lambda x: {"logits": x}), "none": Odd(lambda x: None), "scalar": Odd(lambda x: x.sum())})
    x = torch.randn(16, 64)
    session = Session(model)
    session.run(lambda: [layer(x) for layer in model.values()])
    assert set(session.by_layer("act.mean")) == {"pair", "dict"}
    assert session.by_layer("layer.calls") == dict.fromkeys(("pair", "dict", "none", "scalar"), 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_precision_are_measured_in_single_precision(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).to(dtype)
    session = Session(model)
    batch = (torch.randn(16, 64) * 1000).to(dtype)
    session.run(lambda: model(batch), 9)
    assert session.value("act.rms", "0") == pytest.approx(float(model[0](batch).detach().double().square().mean().sqrt()), rel=1e-2)
    assert session.value("act.nonfinite", "0") == 0
    assert session.value("act.dead_fraction", "1") == 0


def test_changing_sequence_lengths_and_last_batches_are_measured_too() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    session = Session(model)
    for size in (64, 33, 16, 7, 1):
        batch = torch.randn(size, 4) + 3
        session.run(lambda batch=batch: model(batch))
        output = model[0](batch).detach()
        assert float(output.min()) <= session.value("act.mean", "0") <= float(output.max())
        assert math.isnan(session.value("act.batch_std", "0")) == (size == 1)


# modes of layers


def test_dropout_left_in_eval_mode_is_told_and_intended_ones_are_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Dropout(0.0), nn.LayerNorm(4))
    batch = torch.randn(16, 4)
    session = Session(model)
    session.run(lambda: model(batch))
    assert session.by_layer("layer.eval_in_training") == {"1": 0.0, "2": 0.0}
    assert session.by_layer("layer.norm_batch") == {"1": 16.0}
    model.eval()
    session.run(lambda: model(batch))
    assert session.by_layer("layer.eval_in_training") == {"1": 1.0, "2": 1.0}
    assert "layer.norm_batch" not in session.found
    model[1].requires_grad_(False)  # a frozen normalisation belongs into eval mode
    session.run(lambda: model(batch))
    assert session.by_layer("layer.eval_in_training") == {"1": 0.0, "2": 1.0}


def test_evaluation_beside_training_is_no_eval_in_training() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def validation_and_step() -> None:
        model.eval()
        model(torch.randn(16, 4))  # somebody forgot no_grad
        model.train()
        model(torch.randn(16, 4))

    session = Session(model)
    session.run(validation_and_step)
    assert session.by_layer("layer.eval_in_training") == {"1": 0.0}


def test_dropout_in_a_frozen_backbone_serves_nothing_that_trains() -> None:
    model = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), "head": nn.Linear(4, 2)})
    model["backbone"].requires_grad_(False).eval()
    session = Session(model)
    session.run(lambda: model["head"](model["backbone"](torch.randn(8, 4))))
    assert session.by_layer("layer.eval_in_training") == {"backbone.1": 0.0}


def test_norm_batch_counts_values_per_channel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    session = Session(model)
    session.run(lambda: model(torch.randn(5, 1, 6, 6)))
    assert session.by_layer("layer.norm_batch") == {"1": 5 * 4 * 4}


def test_passes_without_gradients_do_not_count() -> None:
    model = small_cnn()
    session = Session(model)
    with torch.no_grad():
        assert session.run(lambda: model(torch.randn(4, 1, 8, 8))) == {}
    assert session.index.layer_depths == [-1] * 7
    assert "never called" in session.probe.unseen()[0]


# functional activations


class Functional(nn.Module):
    """Every way of calling an activation function, in one module and one inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.act = nn.ReLU()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.fc(x))
        x = torch.sigmoid(x)
        x = F.gelu(x)
        return self.inner(x)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.fc.bias[:2] = -1e6
            self.fc.bias[2:] = 5.0
        x = F.relu(self.fc(x), inplace=True).tanh()
        return torch.softmax(x, dim=-1)


def test_functional_activations_become_layers_of_the_module_that_calls_them() -> None:
    model = Functional()
    session = Session(model)
    session.run(lambda: model(torch.randn(64, 8)), 6)
    assert session.index.layer_names == ["fc", "act", "inner.fc", "/sigmoid", "/gelu", "inner/relu", "inner/tanh", "inner/softmax"]
    assert session.index.layer_kinds[3:] == ["sigmoid()", "gelu()", "relu()", "tanh()", "softmax()"]
    assert session.value("act.dead_fraction", "inner/relu") == 0.25
    assert session.value("layer.calls", "act") == 1
    assert session.value("act.saturated_fraction", "/sigmoid") == 0
    assert session.value("act.mean", "inner/softmax") == pytest.approx(1 / 8, rel=0.3)
    order = sorted(range(8), key=session.index.layer_depths.__getitem__)
    assert {session.index.layer_names[i] for i in order[:2]} == {"fc", "act"}
    assert len(session.found["act.mean"]) == 8


SPELLINGS: Mapping[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "F.relu": ("relu", F.relu),
    "F.relu inplace": ("relu", lambda x: F.relu(x, inplace=True)),
    "torch.relu": ("relu", torch.relu),
    "torch.relu_": ("relu", lambda x: torch.relu_(x * 1)),
    "x.relu()": ("relu", lambda x: x.relu()),
    "x.relu_()": ("relu", lambda x: (x * 1).relu_()),
    "F.relu6": ("relu6", F.relu6),
    "F.gelu": ("gelu", F.gelu),
    "F.silu": ("silu", F.silu),
    "F.leaky_relu": ("leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
    "torch.sigmoid": ("sigmoid", torch.sigmoid),
    "x.sigmoid()": ("sigmoid", lambda x: x.sigmoid()),
    "torch.tanh": ("tanh", torch.tanh),
    "x.tanh_()": ("tanh", lambda x: (x * 1).tanh_()),
    "F.softmax": ("softmax", lambda x: F.softmax(x, dim=-1)),
    "x.softmax()": ("softmax", lambda x: x.softmax(-1)),
    "torch.softmax": ("softmax", lambda x: torch.softmax(x, 1)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_function_is_seen_once_with_its_result(spelling: str) -> None:
    name, function = SPELLINGS[spelling]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.result = function(self.fc(x))
            return self.result

    model, batch = Model(), torch.randn(16, 64)
    session = Session(model)
    session.run(lambda: model(batch), 2)
    assert session.by_layer("layer.calls") == {"fc": 1.0, f"/{name}": 1.0}
    assert session.value("act.mean", f"/{name}") == pytest.approx(float(model.result.detach().mean()), abs=1e-6)


def test_the_search_for_functions_becomes_rare_where_there_are_none() -> None:
    model = small_cnn()
    session = Session(model)
    looked = []
    for _ in range(20):
        with session.sampled():
            looked.append(session.probe._functions)
            model(torch.randn(4, 1, 8, 8))
    assert looked[0] is False, "what is compiled in the first step must not be compiled with a mode active"
    assert sum(looked) == 3


def test_modes_of_the_user_keep_their_place_also_when_the_model_raises() -> None:
    class Counting(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Counting.seen += 1
            return func(*args, **(kwargs or {}))

    class Failing(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise RuntimeError("the user's own error")

    model = Failing()
    session = Session(model)
    with Counting() as mode:
        session.probe.begin_step(1, True)
        session.probe.begin_step(2, True)
        with pytest.raises(RuntimeError, match="the user's own error"):
            model(torch.randn(4, 8))
        assert _get_current_function_mode_stack() == [mode]
        session.probe.collect()
    assert Counting.seen > 0
    assert _get_current_function_mode_stack() == []


def test_a_mode_that_the_model_leaves_behind_stays_on_the_stack() -> None:
    class Own(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    own = Own()

    class Model(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            own.__enter__()
            return super().forward(x)

    model = Model()
    session = Session(model)
    session.probe.begin_step(1, True)
    session.probe.begin_step(2, True)
    model(torch.randn(4, 8))
    assert _get_current_function_mode_stack() == [own]
    own.__exit__(None, None, None)
    session.probe.collect()


# the training does not notice


class LstmModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, dropout=0.3)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.dropout(self.lstm(x)[0][-1], 0.2, self.training))


class EncoderModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


class CheckpointModel(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.block = nn.Sequential(nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(32, 16))
        self.head = nn.Linear(16, 4)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(checkpoint(self.block, self.stem(x), use_reentrant=self.reentrant)))


MODELS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn with inplace relu": (small_cnn, (8, 1, 8, 8)),
    "lstm": (LstmModel, (5, 8, 8)),
    "transformer encoder": (EncoderModel, (8, 5, 16)),
    "checkpoint": (lambda: CheckpointModel(False), (8, 16)),
    "reentrant checkpoint": (lambda: CheckpointModel(True), (8, 16)),
    "functional": (Functional, (8, 8)),
}


def train(build: Callable[[], nn.Module], shape: tuple[int, ...], probes: Callable[[], list[object]], steps: int = 6) -> tuple[list[torch.Tensor], nn.Module]:
    """Losses, evaluation outputs and gradients of a short training, and the model it ends with."""
    torch.manual_seed(3)
    model = build()
    optimizer = torch.optim.Adam(model.parameters())
    index = ModelIndex(model)
    watching = probes()
    for probe in watching:
        probe.attach(index)
    seen = []
    for step in range(steps):
        for probe in watching:
            probe.begin_step(step + 1, step % 3 != 1)
        model.eval()
        with torch.no_grad():
            seen.append(model(torch.randn(shape)))
        model.train()
        optimizer.zero_grad()
        loss = model(torch.randn(shape)).square().mean()
        loss.backward()
        with torch.no_grad():
            model.eval()
            seen.append(model(torch.randn(shape)))
            model.train()
        optimizer.step()
        for probe in watching:
            if step % 3 != 1:
                assert probe.collect()
        seen += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None), torch.get_rng_state()]
    for probe in watching:
        probe.detach()
    return seen, model


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("name", MODELS)
def test_losses_gradients_evaluations_and_random_state_are_bit_identical(name: str) -> None:
    build, shape = MODELS[name]
    bare, _ = train(build, shape, list)
    watched, model = train(build, shape, lambda: [ActivationProbe(), LayerTimesProbe()])
    assert len(bare) == len(watched)
    assert all(torch.equal(one, other) for one, other in zip(bare, watched, strict=True))
    assert hooks_on(model) == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_counts_once(reentrant: bool) -> None:
    model = CheckpointModel(reentrant)
    session = Session(model)
    session.run(lambda: model(torch.randn(8, 16)).sum().backward(), 2)
    assert set(session.by_layer("layer.calls").values()) == {1.0}
    assert session.by_layer("act.mean").keys() >= {"stem", "block.0", "block.1", "block.3", "head", "/relu"}


def test_nothing_is_registered_on_unsampled_steps_and_after_detach() -> None:
    model = small_cnn()
    session = Session(model)
    session.probe.begin_step(1, False)
    assert hooks_on(model) == 0
    session.probe.begin_step(2, True)
    assert hooks_on(model) > 0
    session.probe.collect()
    assert hooks_on(model) == 0
    session.probe.begin_step(3, True)
    session.probe.begin_step(4, False)
    assert hooks_on(model) == 0
    session.probe.begin_step(5, True)
    session.probe.detach()
    assert hooks_on(model) == 0


def test_the_model_can_be_copied_and_saved_in_the_middle_of_a_sampled_step() -> None:
    model = small_cnn()
    session = Session(model)
    session.probe.begin_step(1, True)
    model(torch.randn(4, 1, 8, 8))
    copied = copy.deepcopy(model)
    pickled = pickle.loads(pickle.dumps(model))
    torch.save(model, io.BytesIO())
    for other in (copied, pickled):
        other(torch.randn(4, 1, 8, 8))
    assert session.probe.collect()["layer.calls"] == [1.0] * 7, "copies do not report"


def test_activations_are_not_kept_alive() -> None:
    import gc
    import weakref

    model = small_cnn()
    session = Session(model)
    references = []
    handle = model[1].register_forward_hook(lambda m, a, out: references.append(weakref.ref(out)))
    session.run(lambda: model(torch.randn(4, 1, 8, 8)))
    handle.remove()
    gc.collect()
    assert [reference() for reference in references] == [None]


def test_an_error_in_a_hook_reaches_collect_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Functional()
    session = Session(model)
    session.run(lambda: model(torch.randn(4, 8)), 2)
    monkeypatch.setattr("nndoctor.probes.activations.first_floating", lambda output: 1 / 0)
    session.probe.begin_step(3, True)
    model(torch.randn(4, 8)).sum().backward()
    with pytest.raises(ZeroDivisionError):
        session.probe.collect()
    assert hooks_on(model) == 0
    assert _get_current_function_mode_stack() == []


def test_vmapped_models_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    session = Session(model)
    with session.sampled():
        torch.func.vmap(lambda x: model(x))(torch.randn(3, 2, 4))
    assert session.found == {}


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_named_and_not_touched() -> None:
    model = small_cnn()
    compiled = torch.compile(model, backend="eager")
    session = Session(compiled)
    session.probe.begin_step(1, True)
    assert hooks_on(model) == 0
    assert session.probe.collect() == {}
    assert session.probe.unseen() == ("the model is compiled: activations and layer times are not measured",)


def test_several_models_keep_their_names() -> None:
    models = {"generator": nn.Sequential(nn.Linear(2, 4)), "critic": nn.Sequential(nn.Linear(4, 1))}
    session = Session(models)
    session.run(lambda: models["critic"](F.relu(models["generator"](torch.randn(8, 2)))))
    assert session.by_layer("layer.calls") == {"generator.0": 1.0, "critic.0": 1.0}


def test_an_evaluation_on_a_sampled_step_finds_no_hook_inside_encoder_layers() -> None:
    model = EncoderModel()
    session = Session(model)
    seen = []
    handle = model.encoder.register_forward_pre_hook(lambda module, args: seen.append(sum(map(hooks_on, module.layers))))
    for _ in range(2):  # the second step looks for functional activations too
        with session.sampled():
            for train in (False, True, False):
                model.train(train)
                with torch.set_grad_enabled(train):
                    model(torch.randn(2, 3, 16))
    handle.remove()
    assert [count > 0 for count in seen] == [False, True, False] * 2
    assert session.value("layer.calls", "encoder.layers.0.linear1") == 1
    assert session.value("layer.calls", "encoder.layers.1/relu") == 1


def test_a_frozen_encoder_in_eval_mode_keeps_its_fused_path() -> None:
    model = EncoderModel()
    model.encoder.requires_grad_(False).eval()
    session = Session(model)
    batch = torch.randn(2, 3, 16)
    bare = model(batch)
    for _ in range(2):
        with session.sampled():
            assert torch.equal(model(batch), bare)
            assert sum(map(hooks_on, model.encoder.layers)) == 0
    assert session.value("layer.calls", "head") == 1


@pytest.mark.parametrize("layers", [40, MOST_ROWS, MOST_ROWS + 1, 2 * MOST_ROWS + 40])
def test_more_layers_than_the_buffer_holds_are_all_measured(layers: int) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))[number % 2] for number in range(layers)))
    session = Session(model)
    session.run(lambda: model(torch.randn(16, 4)))
    batch = torch.randn(8, 4)
    session.run(lambda: model(batch))
    for number in range(layers):
        batch = model[number](batch).detach()
        assert session.value("act.mean", str(number)) == pytest.approx(float(batch.mean()), abs=1e-6)
        assert session.value("act.batch_std", str(number)) == pytest.approx(float(batch.std(0).mean()), rel=1e-4, abs=1e-6)


def test_calls_beyond_the_buffer_in_another_order_keep_their_layers_and_the_first_nan_its_place() -> None:
    parts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2 * MOST_ROWS))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
            for number in order:
                x = parts[number](x)
            return x

    model, batch = Net(), torch.randn(16, 4)
    session = Session(model)
    session.run(lambda: model(batch, range(len(parts))))
    backwards = range(len(parts) - 1, 4, -1)
    with torch.no_grad():
        parts[50].bias[0] = torch.nan
    session.run(lambda: model(batch, backwards))
    for number in backwards:
        batch = parts[number](batch).detach()
        if number > 50:
            assert session.value("act.mean", f"parts.{number}") == pytest.approx(float(batch.mean()), abs=1e-6)
        assert session.value("act.first_nonfinite", f"parts.{number}") == float(number == 50)
    assert math.isnan(session.value("act.mean", "parts.2")), "it was not called"


def test_a_thousand_layers_take_a_quarter_of_a_mebibyte_of_samples() -> None:
    samples = Samples()
    for layer in range(1000):
        taken = samples.take(layer, 0, torch.full((16, 64), float(layer)), 1, 0.0)
        assert taken is not None
        samples.watch(taken.device, None)
        assert taken.untyped_storage().nbytes() <= 1 << 18
    assert samples.collect(1000)["act.mean"].tolist() == list(range(1000))
