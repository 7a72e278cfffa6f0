"""What can be said about a tensor from a small sample of it: pure functions, no state, no hooks.

A sample is a block of ``SAMPLES x COLUMNS`` values: rows are entries of the batch, columns are pairs of
a unit (a channel or feature) and a position in it. Blocks of all layers are stacked, so that their
statistics take the same few operations whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch

SAMPLES = 16  # batch entries in a block
COLUMNS = 64  # units x positions; with 16 entries the standard error of a mean is 3 % of the spread
POSITIONS = 2  # positions per unit where there are plenty of units

SATURATED_REACH = 0.02  # "within 2 % of a limit"
SATURATED_SHARE = 0.95  # "for 95 % of samples"


@dataclass(frozen=True, slots=True)
class Block:
    """Which elements of a tensor of one shape are looked at, as a strided view.

    Entries, units and positions are powers of two and repeat until the block is full: repetition
    changes no mean, no spread and no maximum, and so blocks of all layers have one shape.

    Args:
        size: repeats, entries, repeats, units, positions; their product is ``SAMPLES * COLUMNS``.
        stride: elements between neighbours; 0 for the repeats.
        slack: how far the start may move along entries, units and positions without leaving the tensor.
        steps: elements that one such move skips.
    """

    size: tuple[int, int, int, int, int]
    stride: tuple[int, int, int, int, int]
    slack: tuple[int, int, int]
    steps: tuple[int, int, int]

    @property
    def entries(self) -> int:
        return self.size[1]

    def view(self, tensor: torch.Tensor, phase: float) -> torch.Tensor:
        """The block of `tensor`, not copied; `phase` in [0, 1) moves it so that samples differ over time."""
        start = tensor.storage_offset()
        for slack, step in zip(self.slack, self.steps, strict=True):
            start += int(phase * (slack + 1)) * step
        return tensor.as_strided(self.size, self.stride, start)  # (repeats, entries, repeats, units, positions)


def sample_block(shape: Sequence[int], stride: Sequence[int], unit_dim: int | None) -> Block | None:
    """Equally spaced entries, units and positions of a tensor; None for an empty tensor or a scalar.

    Args:
        shape: the tensor's shape; dimension 0 is the batch.
        stride: its strides.
        unit_dim: the dimension of channels or features, None where there is none.
    """
    if not shape or 0 in shape:
        return None
    units, unit_stride = (1, 0) if unit_dim is None else (shape[unit_dim], stride[unit_dim])
    rest = [dim for dim in range(1, len(shape)) if dim != unit_dim]
    places, place_stride, inner = _longest_run([(shape[dim], stride[dim]) for dim in rest])

    entries = min(SAMPLES, _power_of_two(shape[0]))
    taken_units = min(_power_of_two(units), COLUMNS // min(_power_of_two(places), POSITIONS))
    taken_places = min(_power_of_two(places), COLUMNS // taken_units)
    place_step = _step_across(places // taken_places, inner)
    unit_step, entry_step = units // taken_units, shape[0] // entries
    return Block(
        size=(SAMPLES // entries, entries, COLUMNS // (taken_units * taken_places), taken_units, taken_places),
        stride=(0, entry_step * stride[0], 0, unit_step * unit_stride, place_step * place_stride),
        slack=(
            shape[0] - 1 - (entries - 1) * entry_step,
            units - 1 - (taken_units - 1) * unit_step,
            places - 1 - (taken_places - 1) * place_step,
        ),
        steps=(stride[0], unit_stride, place_stride),
    )


def _power_of_two(number: int) -> int:
    """The largest power of two up to `number`."""
    return 1 << (number.bit_length() - 1)


def _longest_run(dims: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Length, stride and innermost length of the largest group of neighbouring dimensions that one stride covers."""
    best, current = (1, 0, 1), (1, 0, 1)
    for length, stride in reversed([pair for pair in dims if pair[0] > 1]):
        joins = current[0] > 1 and stride == current[0] * current[1]
        current = (current[0] * length, current[1], current[2]) if joins else (length, stride, length)
        best = max(best, current)
    return best


def _step_across(step: int, inner: int) -> int:
    """The largest step up to `step` that does not run down one column of an image `inner` wide."""
    while step > 1 and inner > 1 and gcd(step, inner) > 1:
        step -= 1
    return max(step, 1)


def unit_dimension(dims: int, channels_first: bool | None) -> int | None:
    """The dimension that units (channels, features) run along, None for a tensor of less than two dimensions.

    Args:
        dims: number of dimensions.
        channels_first: whether the last parametrised layer put channels before positions (convolutions)
            or last (linear layers); None if there was no such layer yet.
    """
    if dims < 2:
        return None
    if channels_first is None:
        channels_first = dims >= 4
    return 1 if channels_first else dims - 1


def block_statistics(blocks: torch.Tensor, correction: torch.Tensor) -> torch.Tensor:
    """Mean, standard deviation, root mean square, largest magnitude, count of non-finite values, spread
    over the batch: (blocks, SAMPLES, COLUMNS) to (6, blocks).

    Standard deviations over all values are those of the population. The spread over the batch is the
    standard deviation over entries (n - 1), averaged over columns: 0 where values do not depend on the
    entry, NaN where there is one entry.

    Args:
        blocks: (blocks, SAMPLES, COLUMNS).
        correction: sqrt(n / (n - 1)) for n different entries, (blocks,).
    """
    column_means = blocks.mean(1)  # (blocks, columns)
    column_variances = (blocks - column_means.unsqueeze(1)).square_().mean(1)  # (blocks, columns)
    between, mean = torch.var_mean(column_means, 1, correction=0)
    variance = column_variances.mean(1) + between  # (blocks,)
    magnitudes = blocks.abs().flatten(1)
    return torch.stack(
        (
            mean,
            variance.sqrt(),
            torch.addcmul(variance, mean, mean).sqrt_(),
            magnitudes.amax(1),
            (magnitudes - magnitudes).nan_to_num_(nan=1.0).sum(1),  # x - x is 0 or NaN; isfinite() costs four times as much
            column_variances.sqrt_().mean(1).mul_(correction),
        )
    )


def full_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of all elements in single precision or better: not finite if any element is not."""
    return tensor.sum() if tensor.dtype is torch.float32 else tensor.sum(dtype=torch.float32)


def unit_maximum(tensor: torch.Tensor, unit_dim: int) -> torch.Tensor:
    """The largest value of each unit: all dimensions but `unit_dim` are reduced, (units,)."""
    if tensor.stride(unit_dim) == 1:  # channels last in memory: reducing rows is 20 times faster, even after a copy
        return tensor.movedim(unit_dim, -1).flatten(0, -2).amax(0)
    return tensor.amax([dim for dim in range(tensor.ndim) if dim != unit_dim])


def saturated_units(values: torch.Tensor, limits: tuple[float, float]) -> torch.Tensor:
    """Share of units that are within 2 % of a limit for 95 % of their values: a scalar tensor.

    Args:
        values: (repeats, entries, repeats, units, positions).
        limits: the lowest and highest value of the activation function.
    """
    centre, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    reach = half - SATURATED_REACH * max(abs(limits[0]), abs(limits[1]))
    near = ((values - centre).abs_() > reach).float()
    return (near.mean((0, 1, 2, 4)) >= SATURATED_SHARE).float().mean()


def saturated_rows(probabilities: torch.Tensor, dim: int) -> torch.Tensor:
    """Share of heads whose softmax is one-hot within 2 % for 95 % of queries: a scalar tensor.

    Single probabilities near 0 are normal where there are many classes or keys; a softmax passes no
    gradient when one probability is near 1. Dimension 1 of four or more are the heads.

    Args:
        probabilities: output of a softmax along `dim`.
        dim: dimension that sums to one.
    """
    dim %= probabilities.ndim
    one_hot = probabilities.amax(dim, keepdim=True) > 1 - SATURATED_REACH
    if probabilities.ndim < 4 or dim == 1:
        share = one_hot.float().mean()
    else:
        share = one_hot.float().mean([d for d in range(one_hot.ndim) if d != 1])  # (heads,)
    return (share >= SATURATED_SHARE).float().mean()


def first_floating(output: object, depth: int = 3) -> torch.Tensor | None:
    """The first real floating-point tensor in a module's output: itself, or in a tuple, dict or dataclass."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    if depth == 0 or output is None:
        return None
    if isinstance(output, dict):
        inside = list(output.values())
    elif isinstance(output, (tuple, list)):
        inside = list(output)
    elif hasattr(output, "__dataclass_fields__"):
        inside = [getattr(output, name, None) for name in output.__dataclass_fields__]
    else:
        inside = [getattr(output, "data", None)] if isinstance(output, torch.nn.utils.rnn.PackedSequence) else []
    return next((found for found in (first_floating(item, depth - 1) for item in inside) if found is not None), None)


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor | None:
    """The local, dense, detached data of `tensor` for reading; None where it has none (fake, sparse, nested)."""
    if type(tensor) is not torch.Tensor and not isinstance(tensor, torch.nn.Parameter):
        to_local = getattr(tensor, "to_local", None)  # DTensor
        local = to_local() if to_local is not None else tensor.as_subclass(torch.Tensor)
        if type(local) is not torch.Tensor:
            return None
        tensor = local
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        return None
    return tensor.detach()
