"""Every metric is what its formula says, and lands in the record under its name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nndoctor
from nndoctor import Bundle, Subscriber, metrics
from nndoctor.cli.main import main
from nndoctor.metrics.accuracy import accuracy, right_answers
from nndoctor.metrics.histograms import counted, read_histograms
from nndoctor.metrics.kinds import KINDS
from nndoctor.metrics.matrices import condition
from nndoctor.metrics.moments import QUANTITIES, STATISTICS
from nndoctor.metrics.names import named, parsed, parsed_all
from nndoctor.record import RecordReader

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(3)), torch.arange(12) % 3


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


Series = dict[str, dict[int, list[float]]]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Series]:
    """Train for some steps with subscribers; what the record holds, by signal and step."""

    def run(*subscribers: Subscriber, steps: int = 3, model: nn.Module | None = None, after: Callable[[nn.Module], Any] = id, **options: Any) -> Series:
        model = net() if model is None else model
        make = options.pop("optimizer", lambda p: torch.optim.SGD(p, lr=0.1))
        optimizer = make(model.parameters())
        with nndoctor.wrap(model, optimizer, F.cross_entropy, run_dir=tmp_path / "run", ui="off", strict=True, subscribers=subscribers, **options) as doctor:
            for _ in range(steps):
                optimizer.zero_grad()
                F.cross_entropy(model(X), Y).backward()
                optimizer.step()
                after(model)
        with RecordReader(doctor.run_dir) as reader:
            found: Series = {}
            for frame in reader.frames():
                for name, values in frame.values.items():
                    found.setdefault(name, {})[frame.step] = values.tolist()
            return found

    return run


def alone(subscriber: Subscriber, **values: Any) -> Any:
    """What a subscriber answers to one bundle, outside of any run."""
    subscriber.attach(None)  # type: ignore[arg-type]  # these keep nothing of it
    return subscriber.receive(Bundle(1, None, "fc", "fc.weight", 0, 0, "training", values))


def test_b1_the_mean_is_that_of_the_elements(train: Callable[..., Series]) -> None:
    first = net()
    found = train(metrics.mean("weights"), steps=1)
    assert found["weights.mean"][1][0] == pytest.approx(float(first[0].weight.detach().mean()), rel=1e-5)
    assert found["weights.mean"][1][2] == pytest.approx(float(first[2].weight.detach().mean()), rel=1e-5)


def test_b2_the_variance_is_unbiased_and_zero_for_one_element() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert float(alone(metrics.variance("weights"), weights=values)) == pytest.approx(float(((values - values.mean()) ** 2).sum() / 39), rel=1e-5)
    assert float(alone(metrics.variance("weights"), weights=torch.ones(1))) == 0


def test_b3_the_sum_is_that_of_the_elements() -> None:
    assert float(alone(metrics.total("biases"), biases=torch.tensor([1.0, 2.0, -5.0]))) == -2


@pytest.mark.parametrize(("p", "expected", "name"), [(3, 2 ** (1 / 3), "norm3"), (2, 2**0.5, "norm2"), (1, 2, "norm1"), (float("inf"), 1, "norminf"), (1.5, 2 ** (1 / 1.5), "norm1_5")])
def test_b4_the_p_norm_takes_magnitudes(p: float, expected: float, name: str) -> None:
    subscriber = metrics.norm("weights", p)
    assert subscriber.signals[0].name == f"weights.{name}"
    assert float(alone(subscriber, weights=torch.tensor([-1.0, 1.0]))) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.norm("weights", 0.5)


def test_b5_a_ratio_is_averaged_and_absent_over_zero() -> None:
    subscriber = metrics.ratio("weight_updates", "weights", average=2)
    subscriber.attach(None)  # type: ignore[arg-type]
    found = [
        float(subscriber.receive(Bundle(step, None, "fc", "fc.weight", 0, 0, "training", {"weight_updates": torch.tensor([update]), "weights": torch.tensor([weight])})))  # type: ignore[arg-type]
        for step, (update, weight) in enumerate(((1.0, 2.0), (3.0, 2.0), (5.0, 0.0), (0.0, 0.0), (5.0, 2.0)))
    ]
    assert found == [0.5, 1.0, pytest.approx(float("nan"), nan_ok=True), pytest.approx(float("nan"), nan_ok=True), pytest.approx(2.5)]


def test_b5_the_ratio_of_any_two_topics_can_be_taken(train: Callable[..., Series]) -> None:
    found = train(metrics.ratio("layer_gradients", "activations"), metrics.ratio("weight_updates", "weight_gradients"))
    assert found["layer_gradients.per.activations"][1][0] > 0
    assert found["weight_updates.per.weight_gradients"][2][0] == pytest.approx(0.1, rel=1e-5)


def test_b6_the_counts_of_a_histogram_add_up_to_the_elements(train: Callable[..., Series], tmp_path: Path) -> None:
    train(metrics.histogram("weights").on(every=2, layers="2"), steps=3)
    found = list(read_histograms(tmp_path / "run"))
    assert [(one.name, one.step, sum(one.counts), len(one.edges)) for one in found] == [("weights/2.weight", 1, 18, 51), ("weights/2.weight", 3, 18, 51)]
    assert sum(counted(torch.tensor([1.0, float("nan"), float("inf")]))[0]) == 1


def test_b7_the_spectral_norm_nears_the_largest_singular_value_from_below() -> None:
    matrix = torch.randn(12, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    largest = float(torch.linalg.svdvals(matrix.flatten(1))[0])
    subscriber = metrics.spectral_norm()
    subscriber.attach(None)  # type: ignore[arg-type]
    bundle = Bundle(1, None, "conv", "conv.weight", 0, 0, "training", {"weights": matrix})
    estimates = [float(subscriber.receive(bundle)) for _ in range(20)]  # type: ignore[arg-type]
    assert all(estimate <= largest * (1 + 1e-6) for estimate in estimates)
    assert estimates[-1] == pytest.approx(largest, rel=0.01)
    assert estimates[0] < estimates[-1]


def test_b8_the_condition_number_is_the_ratio_of_the_ends() -> None:
    assert float(condition(torch.diag(torch.tensor([4.0, 2.0])))) == pytest.approx(2)
    assert float(condition(torch.zeros(2, 2) + 1)) > 1e6
    assert alone(metrics.condition_number(), weights=torch.ones(3)) is None


class Answers(nn.Module):
    """Answers as it is told."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(x[:, 0].long(), 3).float()


def test_b9_test_accuracy_counts_every_sample_the_same() -> None:
    batches = [(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])), (torch.tensor([[2.0]]), torch.tensor([0]))]
    assert accuracy(Answers(), batches) == pytest.approx(2 / 3)


def test_b9_test_accuracy_is_taken_every_so_many_batches_without_a_trace(train: Callable[..., Series]) -> None:
    bare, watched = net(), net()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 5, shuffle=True)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(bare(X), Y).backward()
        optimizer.step()
    random = torch.get_rng_state()
    found = train(metrics.test_accuracy(data, every=2), model=watched, steps=5)
    assert sorted(found["test_accuracy"]) == [1, 3, 5]
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert watched.training


def test_b10_train_accuracy_is_that_of_the_batch(train: Callable[..., Series]) -> None:
    expected: list[float] = []
    model = net()

    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model
            self.count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            out = self.inner(x)
            expected.append(float((out.argmax(1) == Y).float().mean()))
            return out

    passes = Passes()
    found = train(metrics.train_accuracy(), model=passes, steps=4)
    assert [value[0] for value in found["train_accuracy"].values()] == pytest.approx(expected)
    assert passes.count == 4, "no pass of its own"


@pytest.mark.parametrize(
    ("outputs", "labels", "right"),
    [
        (torch.eye(3), torch.tensor([0, 1, 1]), (2, 3)),
        (torch.eye(3)[None], torch.tensor([[0, 1, 1]]), (2, 3)),
        (torch.eye(3)[None].permute(0, 2, 1), torch.tensor([[0, -100, 1]]), (1, 2)),
    ],
)
def test_b10_answers_are_counted_for_classes_and_for_sequences_of_them(outputs: Tensor, labels: Tensor, right: tuple[int, int]) -> None:
    found = right_answers(outputs, labels)
    assert found is not None
    assert tuple(int(number) for number in found) == right


def test_b10_a_regression_has_no_accuracy() -> None:
    assert right_answers(torch.zeros(3, 1), torch.zeros(3, 1)) is None


def test_b11_the_loss_is_the_one_that_was_trained_on(train: Callable[..., Series]) -> None:
    found = train(metrics.mean("loss"), steps=3)
    assert [v[0] for v in found["loss.mean"].values()] == pytest.approx([v[0] for v in found["loss"].values()])


def test_b12_the_mean_over_layers_is_that_of_the_messages_of_a_step(train: Callable[..., Series]) -> None:
    found = train(metrics.norm("weights"), metrics.over_layers("weights.norm2"))
    assert found["weights.norm2.over_layers"][2][0] == pytest.approx(float(np.nanmean(found["weights.norm2"][2])), rel=1e-6)


def test_b12_without_messages_there_is_no_mean_and_no_crash(train: Callable[..., Series]) -> None:
    found = train(metrics.norm("weights").on(layers="nowhere"), metrics.over_layers("weights.norm2"))
    assert "weights.norm2.over_layers" not in found


def test_b13_the_hessian_is_examined_after_every_epoch(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 6)
    similar, sharp = metrics.self_similarity((X, Y)), metrics.hessian_eigenvalue((X, Y))
    with nndoctor.wrap(model, optimizer, F.cross_entropy, run_dir=tmp_path / "run", ui="off", strict=True, subscribers=[sharp, similar]):
        for _ in range(3):
            for x, y in data:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    parameters = dict(model.named_parameters())
    names = list(parameters)

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [parameters[name].numel() for name in names])
        given = {name: part.view_as(parameters[name]) for name, part in zip(names, parts, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, given, X), Y)

    flat = torch.cat([parameters[name].detach().flatten() for name in names])
    values = torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))
    with RecordReader(tmp_path / "run") as reader:
        frames = list(reader.frames())
        sharpness = {frame.step: float(frame.values["hessian_eigenvalue"][0]) for frame in frames if "hessian_eigenvalue" in frame.values}
        similarity = {frame.step: frame.values["self_similarity"].tolist() for frame in frames if "self_similarity" in frame.values}
    assert sorted(sharpness) == [2, 4, 6]
    assert sharpness[6] == pytest.approx(float(values[values.abs().argmax()]), rel=1e-3)
    assert sorted(similarity) == [4, 6], "b14: nothing to compare the first epoch with"
    assert all(0.9 < value <= 1 + 1e-6 for value in (similarity[4][0], similarity[4][2]))


def test_a_rule_names_the_layer_that_the_loss_does_not_need(tmp_path: Path) -> None:
    rules = tmp_path / "mine.yaml"
    rules.write_text(
        'version: 1\nrules:\n  - {id: can-go, severity: warning, scope: layer, when: removal_cost <= 0, message: "{layers} can go"}\n'
    )
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 3))  # the one in the middle hands on what it gets
    with torch.no_grad():
        for layer, size in ((model[0], 1.0), (model[1], 1.0), (model[2], 4.0)):
            layer.weight.copy_(size * torch.eye(*layer.weight.shape))  # type: ignore[operator, union-attr]
            layer.bias.zero_()  # type: ignore[operator, union-attr]
    labels = torch.arange(24) % 3
    inputs = torch.eye(3)[labels] + 0.1 * torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), 12)
    cost = metrics.removal_cost((inputs, labels))
    doctor = nndoctor.wrap(model, optimizer, F.cross_entropy, run_dir=tmp_path / "run", ui="off", strict=True, subscribers=[cost], rules=[rules])
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    doctor.close()
    (found,) = doctor.diagnosis().findings
    assert found.rule == "can-go"
    assert found.targets == ("1",)


def test_b15_adam_is_told_as_the_optimizer_keeps_it_at_every_step(train: Callable[..., Series]) -> None:
    kept: list[dict[str, Tensor]] = []
    made: list[torch.optim.Adam] = []

    def adam(parameters: Iterator[nn.Parameter]) -> torch.optim.Adam:
        listed = list(parameters)
        made.append(torch.optim.Adam([{"params": listed[:1], "lr": 0.01}, {"params": listed[1:], "lr": 0.1, "betas": (0.8, 0.99)}]))
        return made[0]

    def remember(model: nn.Module) -> None:
        kept.append({name: value.clone() for name, value in made[0].state[model[2].weight].items()})  # type: ignore[index]

    found = train(metrics.adam(), optimizer=adam, after=remember, steps=60)
    number = 2  # parameters: 0.weight, 0.bias, 2.weight, 2.bias
    for step, state in enumerate(kept, 1):
        m, v = state["exp_avg"], state["exp_avg_sq"]
        quantities = {
            "first_moment": m, "second_moment": v, "first_moment_corrected": m / (1 - 0.8**step), "second_moment_corrected": v / (1 - 0.99**step),
        }  # fmt: skip
        for quantity, values in quantities.items():
            for statistic, function in STATISTICS.items():
                told = found[f"adam.{quantity}.{statistic}"][step][number]
                assert told == pytest.approx(float(function(values)), rel=1e-4, abs=1e-7), (quantity, statistic, step)
    assert len([name for name in found if name.startswith("adam.") and name.rpartition(".")[2] in STATISTICS]) == len(QUANTITIES) * len(STATISTICS) == 20


def test_b15_adam_is_right_however_seldom_it_is_read(train: Callable[..., Series]) -> None:
    made: list[torch.optim.Adam] = []

    def adam(parameters: Iterator[nn.Parameter]) -> torch.optim.Adam:
        made.append(torch.optim.Adam(parameters, lr=0.01))
        return made[0]

    kept: list[float] = []
    found = train(metrics.adam().on(every=40), optimizer=adam, steps=41, after=lambda model: kept.append(float(made[0].state[model[0].weight]["exp_avg_sq"].mean())))
    assert sorted(found["adam.second_moment.mean"]) == [1, 41]
    assert found["adam.second_moment.mean"][41][0] == pytest.approx(kept[40], rel=1e-5)


def test_b15_the_first_step_of_adam_has_the_length_of_the_rate(train: Callable[..., Series]) -> None:
    found = train(metrics.adam(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01, eps=0), steps=1)
    model = net()
    F.cross_entropy(model(X), Y).backward()
    gradient = model[0].weight.grad
    assert gradient is not None
    assert found["adam.effective_rate.mean"][1][0] == pytest.approx(float((0.01 / gradient.abs()).mean()), rel=1e-3)


def test_b15_the_effective_rate_of_sgd_is_its_rate_for_every_element(train: Callable[..., Series]) -> None:
    found = train(metrics.adam(), optimizer=lambda p: torch.optim.SGD(p, lr=0.25), steps=2)
    assert found["adam.effective_rate.median"][2][0] == pytest.approx(0.25, rel=1e-3)
    assert found["adam.effective_rate.overall"][2][0] == pytest.approx(0.25, rel=1e-5)
    assert found["adam.effective_rate.negative"][2][0] == 0
    assert "adam.first_moment.mean" not in found


def test_b15_a_layer_without_gradient_has_no_rate() -> None:
    from nndoctor.metrics.moments import _rates

    told = {name: float(value) for name, value in _rates(torch.zeros(3), torch.zeros(3)).items()}
    assert told.pop("adam.effective_rate.left_out") == 1
    assert all(value != value for value in told.values())


def test_b16_the_rate_that_follows_the_ratio_is_recorded(train: Callable[..., Series]) -> None:
    from nndoctor.lab.schedules import RecursiveRatioLR

    schedules: list[Any] = []

    def make(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        schedules.append(RecursiveRatioLR(optimizer))
        return optimizer

    found = train(metrics.ratio("weight_updates", "weights"), optimizer=make, after=lambda _: schedules[0].step(), steps=8)
    assert len({rate[0] for rate in found["lr"].values()}) > 2


def test_b17_a_record_is_read_back_to_the_same_series_with_units(train: Callable[..., Series], tmp_path: Path) -> None:
    told: dict[int, float] = {}

    @nndoctor.metric(unit="rad", help="An angle.")
    def angle(weights: Tensor, step: int, layer: str) -> float:
        if layer == "0":
            told[step] = float(weights[0, 0])
        return float(weights[0, 0])

    found = train(angle, steps=60)
    assert {step: values[0] for step, values in found["metric.angle"].items()} == pytest.approx(told)
    with RecordReader(tmp_path / "run") as reader:
        assert [(signal.name, signal.per, signal.unit, signal.help) for signal in reader.published] == [("metric.angle", "param", "rad", "An angle.")]


# ------------------------------------------------------------------ by name


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("weights.mean", "weights.mean"),
        ("activations.norm3:layers=block*,every=10", "activations.norm3"),
        ("weight_updates.per.weights:average=5", "weight_updates.per.weights"),
        ("weights.mean.over_layers", "weights.mean.over_layers"),
        ("train_accuracy", "train_accuracy"),
    ],
)
def test_metrics_are_found_by_name(text: str, signal: str) -> None:
    assert parsed(text).signals[0].name == signal


def test_options_say_where_and_how_often() -> None:
    asked = parsed("weights.mean:layers=block*|Conv2d,every=10,depth=1").subscriptions[0]
    assert (asked.layers, asked.every, asked.depth) == (("block*", "Conv2d"), 10, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights.meen", "did you mean 'weights.mean'"),
        ("test_accuracy", "needs a loader of the test set"),
        ("weights.mean:every=often", "every: expected a whole number"),
        ("weights.mean:where=here", "expected layers=GLOB"),
        ("nowhere:metric", "No module named 'nowhere'"),
        ("json:dumps", "expected a nndoctor.Subscriber, got function"),
        ("weights.mean:every=0", "every of at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed_all([text])


def test_a_subscriber_of_ones_own_is_found_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metrics_here.py").write_text("import nndoctor\n@nndoctor.metric\ndef one(weights):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert parsed("my_metrics_here:one:every=5").subscriptions[0].every == 5


def test_every_kind_that_a_name_suffices_for_can_be_made() -> None:
    for kind in KINDS.values():
        if not kind.needs:
            assert named(kind.name.replace("TOPIC", "weights", 1).replace("TOPIC", "biases").replace("normP", "norm2").replace("SIGNAL", "weights.mean"))


def test_the_list_has_every_kind_with_unit_and_formula_and_imports_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess

    assert main(["metrics"]) == 0
    told = capsys.readouterr().out
    assert all(kind.name in told and kind.formula in told for kind in KINDS.values())
    assert main(["metrics", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["metrics"]) == len(KINDS)
    code = "import sys; from nndoctor.cli.main import main; main(['metrics']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


SCRIPT = """\
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(6):
    x = torch.randn(8, 4)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
    optimizer.step()
"""


def test_a_script_that_knows_nothing_is_measured_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, folder = tmp_path / "train.py", tmp_path / "run"
    script.write_text(SCRIPT)
    assert main(["run", "--ui", "off", "--run-dir", str(folder), "--metric", "weights.norm2:layers=0,every=2", "--metric", "train_accuracy", "--", str(script)]) == 0
    with RecordReader(folder) as reader:
        frames = list(reader.frames())
    assert [frame.step for frame in frames if "weights.norm2" in frame.values] == [1, 3, 5]
    assert sum("train_accuracy" in frame.values for frame in frames) >= 5
    assert main(["run", "--metric", "weights.meen", "--", str(script)]) == 2
    assert "--metric weights.meen: there is no metric 'weights.meen'" in capsys.readouterr().err.replace("\n", " ")
