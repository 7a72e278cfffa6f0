"""One step again on copies: the module that makes the first NaN, forward and backward, and the samples that do it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import nndoctor


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class RootOfSquare(nn.Module):
    """Finite everywhere, with no gradient at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.drop = nn.Linear(4, 4, bias=False), nn.Linear(4, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1(x).square().sum(1, keepdim=True).sqrt() * torch.ones(4))
        return self.drop(out) if self.training else out


def pictures(rows: int = 13) -> tuple[Tensor, Tensor]:
    return torch.rand(rows, 4) + 0.5, torch.randint(2, (rows,))


def test_a_finite_step_is_said_to_be_finite() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    found = nndoctor.locate_nonfinite(model, functional.cross_entropy, pictures())
    assert found.finite
    assert "finite" in str(found)


def test_the_module_that_makes_the_first_infinity_and_its_samples_are_named() -> None:
    inputs, target = pictures()
    inputs[4, 1] = inputs[9, 2] = 0.0
    model = nn.Sequential(nn.Identity(), Log(), nn.Linear(4, 2))
    found = nndoctor.locate_nonfinite(model, functional.cross_entropy, (inputs, target))
    assert found.forward == "1"
    assert found.samples == (4, 9)
    assert not found.data
    assert not found.finite


def test_a_gradient_that_is_made_in_backward_is_found_though_the_loss_is_finite() -> None:
    inputs, target = pictures()
    inputs[6] = 0.0
    found = nndoctor.locate_nonfinite(RootOfSquare(), functional.cross_entropy, (inputs, target))
    assert found.loss == found.loss
    assert found.forward is None
    assert (found.backward, found.backward_after) == ("fc1", "fc2")
    assert found.samples == (6,)


def test_a_damaged_sample_and_damaged_weights_are_told_apart() -> None:
    inputs, target = pictures()
    inputs[3, 0] = torch.nan
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    found = nndoctor.locate_nonfinite(model, functional.cross_entropy, (inputs, target))
    assert found.data
    assert found.samples == (3,)
    assert found.weights == ()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.inf
    found = nndoctor.locate_nonfinite(model, functional.cross_entropy, pictures())
    assert found.weights == ("2.weight",)
    assert found.samples == ()


def test_nothing_of_the_callers_changes() -> None:
    model = RootOfSquare().train()
    model.fc1(torch.ones(2, 4)).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradient = model.fc1.weight.grad.clone()  # type: ignore[union-attr]
    inputs, target = pictures()
    kept, state = inputs.clone(), torch.get_rng_state()
    nndoctor.locate_nonfinite(model, functional.cross_entropy, (inputs, target))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.fc1.weight.grad, gradient)  # type: ignore[arg-type]
    assert torch.equal(inputs, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.fc1._forward_hooks


def test_inputs_may_be_several_or_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            out: Tensor = self.fc(left / right)
            return out

    left, target = pictures()
    right = torch.ones(13, 4)
    right[2, 2] = 0.0
    for inputs in ((left, right), {"left": left, "right": right}):
        found = nndoctor.locate_nonfinite(Two(), functional.cross_entropy, (inputs, target))
        assert found.samples == (2,)


def test_a_batch_that_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="expected batch as"):
        nndoctor.locate_nonfinite(nn.Linear(4, 2), functional.cross_entropy, (torch.zeros(2, 4),))
