"""Parameter statistics against the formulas on the full tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.parameters import ParameterProbe
from nndoctor.probes.sketch import Sketch, block_view, gather, is_dense, width_for

Optimizer = torch.optim.Optimizer


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> list[dict[str, torch.Tensor]]:
    """Run `steps` sampled steps and return what the probe measured, beside the truth under ``true.*``."""
    probe = ParameterProbe()
    index = ModelIndex(model)
    probe.attach(index)
    found = []
    for step in range(1, steps + 1):
        probe.begin_step(step, True)
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(16, 8, generator=generator)).square().mean().backward()
        before = [p.detach().clone() for p in index.params]
        gradients = [p.grad.clone() if p.grad is not None else None for p in index.params]
        probe.gradients_ready(optimizer)
        optimizer.step()
        probe.stepped(optimizer)
        measured = {name: torch.as_tensor(value).reshape(-1) for name, value in probe.collect().items()}
        measured["true.norm"] = torch.stack([w.norm() for w in before])
        measured["true.update"] = torch.stack([(p.detach() - w).norm() for p, w in zip(index.params, before, strict=True)])
        measured["true.grad"] = torch.stack([torch.tensor(torch.nan) if g is None else g.norm() for g in gradients])
        measured["true.grad_mean"] = torch.stack([torch.tensor(torch.nan) if g is None else g.mean() for g in gradients])
        measured["true.grad_var"] = torch.stack([torch.tensor(torch.nan) if g is None else g.var(correction=0) for g in gradients])
        found.append(measured)
    return found


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=1e-2),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
        lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=1e-3),
    ],
)
def test_small_tensors_are_measured_exactly(make: Callable[..., Optimizer]) -> None:
    model = small()
    for measured in train(model, make(model.parameters()), 3):
        torch.testing.assert_close(measured["param.weight.norm"], measured["true.norm"])
        torch.testing.assert_close(measured["param.update.norm"], measured["true.update"])
        torch.testing.assert_close(measured["param.update.ratio"], measured["true.update"] / measured["true.norm"])
        torch.testing.assert_close(measured["param.grad.norm"], measured["true.grad"])
        torch.testing.assert_close(measured["param.grad.mean"], measured["true.grad_mean"], atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(measured["param.grad.var"], measured["true.grad_var"], atol=1e-10, rtol=1e-3)
        torch.testing.assert_close(measured["grad.total_norm"][0], measured["true.grad"].norm())


def test_plain_gradient_descent_has_its_learning_rate_as_projection() -> None:
    model = small()
    for measured in train(model, torch.optim.SGD(model.parameters(), lr=0.05), 2):
        torch.testing.assert_close(measured["param.update.projection"], torch.full((4,), 0.05), rtol=1e-3, atol=0)


def test_adam_moments_equal_the_optimizers_own_state() -> None:
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.8, 0.95))
    measured = train(model, optimizer, 4)[-1]
    for i, p in enumerate(model.parameters()):
        m, v = optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]
        torch.testing.assert_close(measured["param.adam.m_norm"][i], m.square().mean().sqrt())
        torch.testing.assert_close(measured["param.adam.v_mean"][i], v.mean())
        torch.testing.assert_close(measured["param.adam.m_hat_norm"][i], (m / (1 - 0.8**4)).square().mean().sqrt())
        torch.testing.assert_close(measured["param.adam.v_hat_mean"][i], (v / (1 - 0.95**4)).mean())


def test_large_tensors_are_estimated_within_a_tenth() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 2000), nn.Tanh(), nn.Linear(2000, 50))
    measured = train(model, torch.optim.Adam(model.parameters(), lr=1e-3), 2)[-1]
    ratio = measured["param.update.ratio"] / (measured["true.update"] / measured["true.norm"])
    assert (ratio - 1).abs().max() < 0.1


def test_a_missing_gradient_is_not_a_zero_gradient() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    model.add_module("unused", nn.Identity())
    model[0].register_parameter("idle", nn.Parameter(torch.ones(3, 3)))
    measured = train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)[-1]
    idle = [n for n, _ in enumerate(measured["param.has_grad"]) if measured["param.has_grad"][n] == 0]
    assert len(idle) == 1
    assert measured["param.grad.norm"][idle[0]].isnan()
    assert measured["param.changed"][idle[0]] == 0
    assert measured["loop.unchanged"][0] == 0


def test_an_optimizer_none_of_whose_parameters_has_a_gradient_is_looked_at_beside_one_that_has() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    probe = ParameterProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    model[1](model[0](torch.randn(16, 8)).detach()).square().mean().backward()  # the first layer is cut off
    for part in model:
        optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
        probe.gradients_ready(optimizer)
        optimizer.step()
        probe.stepped(optimizer)
    measured = probe.collect()
    assert list(measured["param.has_grad"]) == [0, 0, 1, 1]
    assert float(torch.as_tensor(measured["grad.nonfinite_total"])) == 0


def test_constant_and_untrained_weights_are_recognised_and_trained_ones_are_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    nn.init.constant_(model[0].weight, 0.3)
    nn.init.normal_(model[2].weight, std=0.1)
    measured = train(model, torch.optim.SGD(model.parameters(), lr=0.0), 1)[-1]
    weights = [0, 2, 4]
    assert measured["param.weight.constant"][weights].tolist() == [1, 0, 0]
    assert measured["param.weight.default_init"][weights].tolist() == [0, 1, 0]
    assert measured["param.weight.constant"][1].isnan()  # a bias may be constant


def test_an_embedding_is_untrained_while_it_is_standard_normal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Embedding(500, 16) for _ in range(4)))
    with torch.no_grad():
        model[1].weight.mul_(0.5)
        model[2].weight.mul_(torch.rand(500, 1).mul(2).exp())  # frequent words have longer vectors
        model[2].weight.div_(model[2].weight.std())
        model[3].weight.copy_(torch.distributions.StudentT(3.0).sample((500, 16)) / 3**0.5)
    model[0].weight.requires_grad_(False)  # and held by no optimizer
    trained = [p for p in model.parameters() if p.requires_grad]
    probe = ParameterProbe()
    probe.attach(ModelIndex(model))
    optimizer = torch.optim.SGD(trained, lr=0.0)
    probe.begin_step(1, True)
    for p in trained:
        p.grad = torch.ones_like(p)
    probe.gradients_ready(optimizer)
    measured = probe.collect()
    assert torch.as_tensor(measured["param.weight.default_init"]).tolist() == [1, 0, 0, 0]


def test_frozen_weights_that_no_optimizer_holds_are_looked_at_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2))
    nn.init.normal_(model[1].weight, std=0.1)
    for layer in model[:2]:
        layer.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    measured = train(model, torch.optim.SGD(trained, lr=0.0), 1)[-1]
    assert measured["param.weight.default_init"][[0, 2, 4]].tolist() == [1, 0, 1]
    assert measured["param.weight.gain"][:4].isnan().all()


def test_signal_to_noise_tells_a_steady_gradient_from_noise() -> None:
    steady, noisy = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    model = nn.ModuleList([steady, noisy])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    probe = ParameterProbe()
    probe.attach(ModelIndex(model))
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        probe.begin_step(step + 1, True)
        steady.weight.grad = torch.ones(8, 8) + 0.1 * torch.randn(8, 8, generator=generator)
        noisy.weight.grad = torch.randn(8, 8, generator=generator)
        probe.gradients_ready(optimizer)
        optimizer.step()
        probe.stepped(optimizer)
        measured = probe.collect()
    snr = torch.as_tensor(measured["param.grad.snr"])
    assert snr[0] > 5
    assert snr[1] < 0.4
    assert torch.as_tensor(measured["param.grad.cosine"])[0] > 0.9


def test_a_nonfinite_gradient_is_counted_and_leaves_the_means_clean() -> None:
    model = nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    probe = ParameterProbe()
    probe.attach(ModelIndex(model))
    for step in range(8):
        probe.begin_step(step + 1, True)
        model.weight.grad = torch.full((4, 8), torch.inf if step == 2 else 1.0 + 0.1 * step)
        probe.gradients_ready(optimizer)
        probe.stepped(optimizer)
        measured = probe.collect()
        assert float(measured["grad.nonfinite_total"]) == (step == 2)  # type: ignore[arg-type]
    assert torch.isfinite(torch.as_tensor(measured["param.grad.time_var"])).all()


def test_weights_that_never_move_are_told_although_gradients_are_there() -> None:
    model = small()
    measured = train(model, torch.optim.SGD(model.parameters(), lr=0.0), 1)[-1]
    assert measured["loop.unchanged"][0] == 1


@pytest.mark.parametrize("shape", [(5,), (64, 16), (1025,), (37, 41), (3, 64, 7, 7)])
def test_a_block_view_stays_inside_its_tensor(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    for phase in (0.0, 0.5, 0.999):
        seen = block_view(tensor, 64, phase).reshape(-1)
        assert seen.numel() == min(64, tensor.numel())
        assert seen.unique().numel() == seen.numel()
        assert seen.max() < tensor.numel()


def test_channels_last_is_dense_and_a_slice_is_not() -> None:
    image = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert is_dense(image)
    assert not is_dense(image[:, :, ::2])


def test_the_sketch_stays_within_one_percent_or_one_mebibyte() -> None:
    for rows, elements in ((10, 60_000), (149, 38_000_000), (62, 11_000_000), (5000, 1_000_000_000)):
        width = width_for(rows, elements, 8)
        assert width % 16 == 0
        assert 4 * rows * width * 8 <= max(1 << 20, elements * 4 // 100) or width == 64


@pytest.mark.parametrize(("sizes", "width"), [([16, 3], 16), ([17, 3], 32), ([5000], 256), ([0, 0], 16)])
def test_no_row_of_the_sketch_is_longer_than_the_longest_tensor(sizes: list[int], width: int) -> None:
    tensors = [torch.arange(float(size)) for size in sizes]
    sketch = Sketch(tensors, 256)
    matrix = sketch.matrix()
    gather(sketch.destinations(matrix), sketch.sources(tensors))
    assert matrix.shape == (len(sizes), width)
    if max(sizes) <= width:
        assert [float(row.sum()) for row in matrix] == [float(tensor.sum()) for tensor in tensors]


def test_phases_come_from_a_private_generator() -> None:
    state = torch.random.get_rng_state()
    Sketch([torch.zeros(5000)], 256).redraw()
    assert torch.equal(state, torch.random.get_rng_state())


def test_looking_at_other_elements_never_shows_as_an_update() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 300), nn.Linear(300, 60))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for measured in train(model, optimizer, 2 * 64 + 2):
        assert measured["param.update.ratio"][2] < 1e-2


def test_a_redraw_moves_far() -> None:
    tensor = torch.arange(16_384.0)
    first = set(block_view(tensor, 64, 0.0).reshape(-1).tolist())
    assert not first & set(block_view(tensor, 64, 0.5).reshape(-1).tolist())
