"""The pure tensor functions against plain torch on whole tensors."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nndoctor.probes.stats import (
    COLUMNS,
    SAMPLES,
    block_statistics,
    first_floating,
    full_sum,
    plain_tensor,
    sample_block,
    saturated_rows,
    saturated_units,
    unit_dimension,
    unit_maximum,
)


def block_of(tensor: torch.Tensor, unit_dim: int | None, phase: float = 0.0) -> torch.Tensor:
    block = sample_block(tensor.shape, tensor.stride(), unit_dim)
    assert block is not None
    return block.view(tensor, phase).reshape(1, SAMPLES, COLUMNS)


def correction(entries: int) -> torch.Tensor:
    return torch.tensor([(entries / (entries - 1)) ** 0.5])


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(shapes, st.floats(0, 0.999), st.randoms(use_true_random=False))
def test_a_block_lies_inside_its_tensor_whatever_shape_order_and_phase(shape: list[int], phase: float, random) -> None:
    storage = torch.arange(float(torch.Size(shape).numel() + 3))
    order = list(range(len(shape)))
    random.shuffle(order)
    tensor = storage[3:].view([shape[i] for i in order]).permute([order.index(i) for i in range(len(shape))])
    unit_dim = random.choice([None, *range(1, len(shape))])
    taken = block_of(tensor, unit_dim, phase)
    assert set(taken.flatten().tolist()) <= set(tensor.flatten().tolist())


@pytest.mark.parametrize(("shape", "unit_dim"), [((16, 64), 1), ((8, 8, 2, 4), 1), ((16, 4, 16), 2), ((4, 2), 1), ((16,), None)])
def test_statistics_of_a_tensor_that_fits_a_block_are_exact(shape: tuple[int, ...], unit_dim: int | None) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 5
    found = block_statistics(block_of(tensor, unit_dim), correction(shape[0]))[:, 0]
    rms = tensor.square().mean().sqrt()
    expected = torch.stack((tensor.mean(), tensor.std(correction=0), rms, tensor.abs().max(), torch.tensor(0.0), tensor.std(0).mean()))
    torch.testing.assert_close(found, expected)


def test_a_sample_of_a_large_tensor_estimates_its_statistics() -> None:
    tensor = torch.randn(64, 96, 28, 28, generator=torch.Generator().manual_seed(2)) * 2 + 1
    mean, std, rms, largest, nonfinite, batch_std = block_statistics(block_of(tensor, 1, 0.37), correction(16))[:, 0].tolist()
    assert (mean, std, rms, batch_std) == (pytest.approx(1, abs=0.3), pytest.approx(2, rel=0.1), pytest.approx(5**0.5, rel=0.1), pytest.approx(2, rel=0.1))
    assert 4 < largest <= float(tensor.abs().max())
    assert nonfinite == 0


def test_successive_phases_visit_different_elements() -> None:
    tensor = torch.arange(64.0 * 100 * 49).view(64, 100, 7, 7)
    first, second = (set(block_of(tensor, 1, phase).flatten().tolist()) for phase in (0.1, 0.7))
    assert first.isdisjoint(second)


def test_batch_std_is_zero_where_the_output_ignores_the_input_and_not_elsewhere() -> None:
    same = torch.randn(1, 32).expand(16, 32)
    assert float(block_statistics(block_of(same, 1), correction(16))[5]) < 1e-6
    assert float(block_statistics(block_of(torch.randn(16, 32), 1), correction(16))[5]) > 0.5


def test_a_constant_far_from_zero_has_no_spread() -> None:
    found = block_statistics(block_of(torch.full((16, 64), 1000.0), 1), correction(16))[:, 0]
    assert found[0] == 1000
    assert found[1] == 0


def test_nonfinite_values_in_a_sample_are_counted() -> None:
    tensor = torch.zeros(16, 64)
    tensor[3, 5], tensor[7, 7], tensor[0, 1] = float("nan"), float("inf"), float("-inf")
    assert block_statistics(block_of(tensor, 1), correction(16))[4, 0] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_single_nonfinite_value_makes_the_full_sum_nonfinite(value: float, dtype: torch.dtype) -> None:
    tensor = torch.full((1000,), 60000.0, dtype=dtype)
    assert full_sum(tensor).isfinite()  # half precision would overflow here
    tensor[123] = value
    assert not full_sum(tensor).isfinite()


@pytest.mark.parametrize("channels_last", [False, True])
def test_unit_maxima_are_those_of_torch_in_both_memory_formats(channels_last: bool) -> None:
    maps = torch.randn(5, 6, 7, 8)
    if channels_last:
        maps = maps.to(memory_format=torch.channels_last)
    assert torch.equal(unit_maximum(maps, 1), maps.amax((0, 2, 3)))
    rows = torch.randn(5, 9, 6)
    assert torch.equal(unit_maximum(rows, 2), rows.amax((0, 1)))


def test_units_are_channels_after_convolutions_and_features_after_linear_layers() -> None:
    assert [unit_dimension(dims, None) for dims in (1, 2, 3, 4)] == [None, 1, 2, 1]
    assert unit_dimension(3, True) == 1
    assert unit_dimension(4, False) == 3


def test_saturated_units_are_those_at_a_limit_for_nearly_all_values() -> None:
    values = torch.rand(1, 16, 1, 4, 8) * 0.9 + 0.05  # (repeats, entries, repeats, units, positions)
    values[:, :, :, 0] = 0.999
    values[:, :, :, 1] = 0.001
    values[:, :8, :, 2] = 1.0  # half of the time is not saturated
    assert saturated_units(values, (0.0, 1.0)) == 0.5
    assert saturated_units(values * 2 - 1, (-1.0, 1.0)) == 0.5


def test_a_softmax_is_saturated_where_it_is_one_hot_and_not_where_it_has_many_small_shares() -> None:
    uniform = torch.full((4, 2, 100, 100), 0.01)
    assert saturated_rows(uniform, -1) == 0
    one_head = uniform.clone()
    one_head[:, 1] = torch.eye(100)
    assert saturated_rows(one_head, -1) == 0.5


@dataclass
class Output:
    ids: torch.Tensor
    loss: torch.Tensor | None
    hidden: list[torch.Tensor]


def test_the_first_floating_tensor_is_found_in_tuples_dicts_and_dataclasses() -> None:
    ids, wanted = torch.arange(3), torch.randn(2)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(2, 3, 4), [3, 2], batch_first=True)
    for output in (wanted, (ids, wanted), {"ids": ids, "x": [wanted]}, Output(ids, None, [wanted]), namedtuple("N", "a b")(ids, wanted)):
        assert first_floating(output) is wanted
    assert first_floating(packed) is packed.data
    assert [first_floating(output) for output in (None, ids, "text", (), {"a": 3})] == [None] * 5


def test_tensors_without_readable_data_are_left_out() -> None:
    assert plain_tensor(torch.randn(2, device="meta")) is None
    assert plain_tensor(torch.randn(2, 2).to_sparse()) is None
    kept = plain_tensor(torch.randn(2, requires_grad=True) * 2)
    assert kept is not None
    assert not kept.requires_grad


@pytest.mark.parametrize("shape", [(), (0, 3), (4, 0)])
def test_scalars_and_empty_tensors_have_no_block(shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape)
    assert sample_block(tensor.shape, tensor.stride(), None) is None
