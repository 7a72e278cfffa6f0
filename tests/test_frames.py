"""From collected values to a frame: nothing is invented, layers are derived by the catalogue's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nndoctor.frames import RAW_LOSSES, pack, unpack
from nndoctor.probes.base import Measured
from nndoctor.signals import Frame, Targets

TARGETS = Targets(
    layers=("fc1", "act", "fc2"),
    layer_kinds=("Linear", "ReLU", "Linear"),
    layer_depths=(0, 1, 2),
    params=("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
    param_layers=(0, 0, 2, 2),
    param_shapes=((3, 2), (3,), (1, 3), (1,)),
)
NAN = float("nan")


def frame(measured: dict[str, Measured]) -> Frame:
    return unpack(pack(3, 1.5, 0.5, TARGETS, measured))


def test_layer_signals_follow_from_the_layers_own_parameters() -> None:
    found = frame(
        {
            "param.grad.norm": torch.tensor([3.0, 4.0, 1.0, NAN]),
            "param.grad.nonfinite": torch.tensor([0.0, 1.0, 0.0, NAN]),
            "param.weight.norm": torch.tensor([2.0, 9.0, 0.0, 5.0]),
            "param.weight.nonfinite": torch.tensor([0.0, 0.0, 1.0, 1.0]),
            "param.update.norm": torch.tensor([0.5, 7.0, 0.3, 0.1]),
            "param.grad.snr": torch.tensor([1.0, 4.0, NAN, 2.0]),
        }
    ).values
    np.testing.assert_allclose(found["grad.norm"], [5.0, NAN, 1.0])
    np.testing.assert_allclose(found["grad.rms"], [5 / 3, NAN, 1 / np.sqrt(3)], rtol=1e-6)
    np.testing.assert_allclose(found["grad.nonfinite"], [1.0, NAN, 0.0])
    np.testing.assert_allclose(found["grad.snr"], [(6 * 1 + 3 * 4) / 9, NAN, 2.0])
    np.testing.assert_allclose(found["weight.norm"], [2.0, NAN, 0.0])  # biases do not count
    np.testing.assert_allclose(found["weight.nonfinite"], [0.0, NAN, 2.0])
    np.testing.assert_allclose(found["update.ratio"], [0.25, NAN, NAN])  # a zero weight has no ratio


def test_a_parameter_that_was_not_measured_is_not_called_broken() -> None:
    found = frame({"param.weight.norm": torch.tensor([1.0, 1.0, NAN, NAN]), "param.weight.nonfinite": torch.tensor([0.0, 0.0, NAN, NAN])})
    np.testing.assert_allclose(found.values["weight.nonfinite"], [0.0, NAN, NAN])


def test_losses_of_micro_steps_are_reduced_and_a_single_one_stands_alone() -> None:
    several = frame({RAW_LOSSES: torch.tensor([1.0, 2.0, 6.0])}).values
    assert {name: float(value[0]) for name, value in several.items()} == {
        "loss": 3.0, "loss.micro_min": 1.0, "loss.micro_max": 6.0, "loss.nonfinite": 0.0,
    }  # fmt: skip
    assert set(frame({RAW_LOSSES: torch.tensor([1.0])}).values) == {"loss", "loss.nonfinite"}


@pytest.mark.parametrize("losses", [[NAN], [1.0, float("inf")]])
def test_a_loss_that_is_not_finite_is_counted_and_never_averaged(losses: list[float]) -> None:
    found = frame({RAW_LOSSES: torch.tensor(losses)}).values
    assert set(found) == {"loss.nonfinite"}
    assert found["loss.nonfinite"][0] == 1


def test_numbers_lists_and_tensors_arrive_as_float32_arrays() -> None:
    found = frame({"lr": 0.1, "group.lr": [0.1, 0.2], "grad.total_norm": torch.tensor([2.0], dtype=torch.float64)})
    assert (found.step, found.time, found.epoch) == (3, 1.5, 0.5)
    assert {name: value.dtype for name, value in found.values.items()} == dict.fromkeys(found.values, np.dtype("float32"))
    assert {name: value.shape for name, value in found.values.items()} == {"lr": (1,), "group.lr": (2,), "grad.total_norm": (1,)}


def test_what_the_user_overwrites_later_does_not_reach_the_frame() -> None:
    a, b = torch.tensor([1.0]), torch.tensor([2.0])
    payload = pack(1, 0.0, None, TARGETS, {"lr": a, "lr.peak": b})
    a.zero_()
    b.zero_()
    assert unpack(payload).values["lr"][0] == 1
