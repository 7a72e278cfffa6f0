"""What is measured inside a loop is what the formulas say, and belongs to the step it is told for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nndoctor.zoo.measures import (
    Ratio,
    Sample,
    SpectralNorm,
    Statistic,
    Tap,
    checked_topics,
    condition_number,
    layers_at,
    norm,
    variance,
)
from nndoctor.zoo.writers import histogram


class Memory:
    """A writer that keeps everything."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, int]] = []

    def add_data(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def add_histogram(self, name: str, values: Tensor, step: int) -> None:
        self.told.append((name, float(sum(histogram(values)[0])), step))

    def close(self) -> None: ...


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(8, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(3, 1, 4, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(("depth", "names"), [(-1, ["0.0", "0.1", "1"]), (1, ["0", "1"]), (0, ["Sequential"])])
def test_depth_says_where_to_look(depth: int, names: list[str]) -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Linear(1, 1))
    assert list(layers_at(model, depth)) == names


def test_updates_belong_to_the_step_they_are_told_for() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tap = Tap(model, optimizer)
    samples: list[Sample] = []
    tap.listen(samples.append)
    for _ in range(4):
        before = copy.deepcopy(model.state_dict())
        step(model, optimizer)
        sample = samples[-1]
        assert torch.equal(sample.of("weights")["2"], before["2.weight"])
        assert torch.equal(sample.of("weight_updates")["2"], model.state_dict()["2.weight"] - before["2.weight"])
        assert torch.equal(sample.of("bias_updates")["0.0"], model.state_dict()["0.0.bias"] - before["0.0.bias"])
        assert torch.equal(sample.of("weight_gradients")["2"], model[2].weight.grad)
        assert sample.of("activations")["0.0"].shape == sample.of("layer_gradients")["0.0"].shape == (3, 2, 2, 2)
    assert [sample.step for sample in samples] == [0, 1, 2, 3]


def test_every_third_step_is_sampled_and_evaluation_is_not() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tap = Tap(model, optimizer, every=3, kinds=(nn.Linear,))
    samples: list[Sample] = []
    tap.listen(samples.append)
    for _ in range(7):
        step(model, optimizer)
        model.eval()
        model(torch.zeros(1, 1, 4, 4))
        model.train()
    assert [sample.step for sample in samples] == [0, 3, 6]
    assert list(samples[0].of("activations")) == ["2"]
    assert samples[0].of("activations")["2"].shape == (3, 2)


def test_measuring_changes_nothing_and_leaves_no_hook() -> None:
    alone, watched = net(), net()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in (alone, watched)]
    tap = Tap(watched, optimizers[1])
    for _ in range(3):
        state = torch.get_rng_state()
        step(alone, optimizers[0])
        torch.set_rng_state(state)
        step(watched, optimizers[1])
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), watched.parameters(), strict=True))
    tap.detach()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watched.modules())
    assert not optimizers[1]._optimizer_step_post_hooks


def test_a_model_that_is_measured_can_still_be_copied() -> None:
    model = net()
    tap = Tap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    tap.listen(Statistic(open("/dev/null"), "norm2", norm, ("weights",)))  # type: ignore[arg-type]  # noqa: SIM115
    copy.deepcopy(model)


def test_statistics_are_those_of_the_formulas() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert variance(values) == pytest.approx(float(((values - values.mean()) ** 2).sum() / 39), rel=1e-5)
    assert variance(torch.ones(1)) == 0
    assert norm(torch.tensor([-1.0, 1.0]), 3) == pytest.approx(2 ** (1 / 3))
    assert condition_number(torch.diag(torch.tensor([4.0, 2.0]))) == pytest.approx(2)


def test_ratios_are_averaged_and_a_zero_divisor_gives_none() -> None:
    writer = Memory()
    ratio = Ratio(writer, "weight_updates", "weights", average=2)
    for index, (update, weight) in enumerate(((1.0, 2.0), (3.0, 2.0), (5.0, 0.0), (5.0, 2.0))):
        tensors = {"weight_updates": {"fc": torch.tensor([update])}, "weights": {"fc": torch.tensor([weight])}}
        ratio(Sample(index, 0, tensors))
    assert writer.told == [("weight_updates_weights_ratio/fc", 0.5, 0), ("weight_updates_weights_ratio/fc", 1.0, 1), ("weight_updates_weights_ratio/fc", 2.0, 3)]


def test_the_spectral_norm_nears_the_largest_singular_value_from_below() -> None:
    matrix = torch.randn(12, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    largest = float(torch.linalg.svdvals(matrix.flatten(1))[0])
    measure = SpectralNorm(Memory())
    estimates = [measure.estimate("weights", "conv", matrix) for _ in range(20)]
    assert all(estimate <= largest * (1 + 1e-6) for estimate in estimates)
    assert estimates[-1] == pytest.approx(largest, rel=0.01)
    assert estimates[0] < estimates[-1]


def test_the_counts_of_a_histogram_add_up_to_the_elements() -> None:
    assert sum(histogram(torch.randn(1000))[0]) == 1000
    assert sum(histogram(torch.ones(7))[0]) == 7
    assert sum(histogram(torch.tensor([1.0, float("nan"), float("inf")]))[0]) == 1


def test_an_unknown_topic_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no topic is called 'weight'; there are weights, biases"):
        checked_topics(["weight"])
