"""How much of the targets the inputs tell: shares of variance with a known null distribution, and no more.

For classes the share is eta squared of a one-way analysis of variance, for numbers the squared correlation.
Where targets were dealt out at random its mean is exactly (classes - 1) / (samples - 1), or
1 / (samples - 1), whatever the distribution of the inputs: the permutation distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

MOST_COLUMNS = 512
MOST_ROWS = 128
MOST_CLASSES = 512
TABLE_ROWS = 4093
TABLE_COLUMNS = 64
MOST_TOKENS = 256

EXACT = 1e-6
"""A column that misses the target by less than this share of its variance is a function of it: float64 rounding
of float32 data leaves 1e-12, a time series sampled a thousand times per period still differs by 1e-5."""


def tensors_in(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists and mappings, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth <= 4:
        children = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
        for child in children:
            yield from tensors_in(child, depth + 1)


def features_of(values: object, samples: int, table: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """The inputs of a batch as columns, float64 (samples, columns); None where they have no rows of samples.

    Real inputs give some of their own elements as columns, tokens the mean of a random vector per token.

    Args:
        table: gives random vectors, (TABLE_ROWS, TABLE_COLUMNS), as :func:`random_table` does; asked for tokens only.
    """
    rows = [t for t in tensors_in(values) if t.dim() and t.shape[0] == samples and t.numel() and t.layout == torch.strided]
    if not rows or samples < 2:
        return None
    share = MOST_COLUMNS // len(rows)
    columns = [
        _some_columns(t, share) if t.is_floating_point() else _bag_of_tokens(t, table())
        for t in rows
        if not t.is_complex()
    ]
    return torch.cat(columns, 1) if columns else None


def _some_columns(tensor: torch.Tensor, most: int) -> torch.Tensor:
    flat = tensor.reshape(tensor.shape[0], -1)
    stride = -(-flat.shape[1] // most)
    return flat[:, :: stride + (stride > 1 and stride % 2 == 0)].double()  # (samples, columns)


def _bag_of_tokens(tensor: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    ids = tensor.reshape(tensor.shape[0], -1)[:, :MOST_TOKENS].long().remainder(TABLE_ROWS)
    return table.to(ids.device, non_blocking=True)[ids].double().mean(1)  # (samples, TABLE_COLUMNS)


def random_table() -> torch.Tensor:
    """Random signs for :func:`features_of`, int8, always the same, drawn from a generator of their own."""
    generator = torch.Generator().manual_seed(20_001)
    return torch.randint(0, 2, (TABLE_ROWS, TABLE_COLUMNS), generator=generator).to(torch.int8) * 2 - 1


def explained_share(
    features: torch.Tensor, target: torch.Tensor, classes: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How much of each column's variance the targets explain.

    Args:
        features: (samples, columns), float64.
        target: class numbers below `classes`, or real numbers where that is None, (samples,).

    Returns:
        The share per column (columns,), NaN where the column does not vary; the mean of that share if targets were
        dealt at random, (); the mean of each column per class (classes, columns), empty for numbers.
    """
    samples = len(features)
    centred = features - features.mean(0)
    total = centred.square().sum(0)
    scale = features.square().sum(0)
    varies = total > 1e-10 * scale
    if classes is None:
        target = target.double() - target.double().mean()
        share = (target @ centred).square() / (total * target.square().sum())
        null = torch.full((), 1.0 / (samples - 1), dtype=torch.float64, device=features.device)
        means = centred.new_empty((0, features.shape[1]))
    else:
        member = torch.zeros(samples, classes, dtype=torch.float64, device=features.device)
        member.scatter_(1, target.unsqueeze(1), 1.0)
        size = member.sum(0)  # (classes,)
        sums = member.T @ centred  # (classes, columns)
        means = sums / size.unsqueeze(1)
        share = torch.nan_to_num(sums.square() / size.unsqueeze(1)).sum(0) / total
        null = ((size > 0).sum() - 1) / (samples - 1)
    return torch.where(varies, share, torch.nan), null, means


def excess(share: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
    """The share freed of what chance gives, 0 on average for targets dealt at random, 1 for an exact function."""
    return (share - null) / (1 - null).clamp_min(1e-9)


def tells_classes_apart(means: torch.Tensor) -> torch.Tensor:
    """Whether one column has another mean for every class that is there: from (classes,) to ()."""
    ordered = torch.where(torch.isnan(means), torch.inf, means).sort().values
    gap = ordered[1:] - ordered[:-1]
    known = torch.isfinite(ordered[1:])
    spread = torch.where(torch.isfinite(ordered), ordered, -torch.inf).amax() - ordered[0]
    return (~known | (gap > 1e-6 * spread)).all() & (spread > 0)
