"""Tables, text, graphs, series and games made by formulas, for the runs that pictures cannot stand for.

Everything depends on the seed given and on nothing else; torch's own generator is left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nndoctor.zoo.data import Split

CATEGORIES = (4, 6, 3)
FLOATS = 6
PAD = 0
"""The token that stands for nothing, in every vocabulary here."""

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ALPHABET = ("_", *sorted(set(" .=+" + "".join(_UNITS))))
"""Characters of :func:`sums_in_words`; the index of each is its token, and the first one pads."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph whose nodes have features and a class.

    Args:
        features: float32 (nodes, features).
        labels: int64 (nodes,).
        propagation: the symmetrically normalised adjacency with self-loops (Kipf & Welling 2017), (nodes, nodes).
        known: bool (nodes,), the nodes whose class may be used in training.
    """

    features: Tensor
    labels: Tensor
    propagation: Tensor
    known: Tensor


def customers(count: int = 4000, *, noise: float = 0.3, share: float = 0.5, seed: int = 0) -> Split:
    """A table of floats and one-hot categories (count, 6 + 13) and whether each customer left (count,), int64.

    Args:
        noise: standard deviation of what the columns do not tell, where that of what they do tell is about 1.
        share: of the customers that left.
    """
    draw = torch.Generator().manual_seed(seed)
    total = count + 1000
    floats = torch.randn(total, FLOATS, generator=draw)  # (total, 6)
    codes = [torch.randint(levels, (total,), generator=draw) for levels in CATEGORIES]  # each (total,)
    one_hot = [torch.nn.functional.one_hot(code, levels).float() for code, levels in zip(codes, CATEGORIES, strict=True)]
    effects = [torch.randn(levels, generator=draw)[code] for code, levels in zip(codes, CATEGORIES, strict=True)]
    told = 0.8 * floats[:, 0] * floats[:, 1] + floats[:, 2].sin() - 0.5 * floats[:, 3].abs() + 0.5 * sum(effects)
    risk = told / told.std() + noise * torch.randn(total, generator=draw)  # (total,)
    labels = (risk > risk.quantile(1 - share)).long()
    columns = torch.cat([floats, *one_hot], dim=1)  # (total, 19)
    return Split(columns[:count], labels[:count], columns[count:], labels[count:])


def house_prices(count: int = 3000, *, noise: float = 0.2, seed: int = 0) -> Split:
    """Eight standardised columns (count, 8) and a price (count, 1) of mean 0 and deviation 1, with some outliers."""
    draw = torch.Generator().manual_seed(seed)
    total = count + 1000
    columns = torch.randn(total, 8, generator=draw)  # (total, 8)
    price = columns[:, 0] + 0.5 * columns[:, 1] * columns[:, 2] + (2 * columns[:, 3]).sin() + 0.3 * columns[:, 4] ** 2
    price = price + noise * torch.randn(total, generator=draw)
    outlier = torch.rand(total, generator=draw) < 0.02
    price = torch.where(outlier, price * 5, price)
    price = ((price - price.mean()) / price.std()).unsqueeze(1)  # (total, 1)
    return Split(columns[:count], price[:count], columns[count:], price[count:])


def sums_in_words(count: int = 4000, *, length: int = 40, seed: int = 0) -> Tensor:
    """Sentences like ``two + five = seven.`` as characters: int64 (count, length), cut to length from a running text."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randint(5, (count * length // 10, 2), generator=draw).tolist()
    text = "".join(f"{_UNITS[a]} + {_UNITS[b]} = {_UNITS[a + b]}. " for a, b in numbers)
    tokens = torch.tensor([ALPHABET.index(character) for character in text[: count * length]])
    return tokens.view(-1, length)[:count]  # (count, length)


def numbers_to_sort(count: int = 4000, *, longest: int = 12, symbols: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sequences of 3 to `longest` symbols and the same ones sorted, padded with `PAD`: two int64 (count, longest)."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, longest + 1, (count, 1), generator=draw)  # (count, 1)
    drawn = torch.randint(1, symbols + 1, (count, longest), generator=draw)  # (count, longest)
    padding = torch.arange(longest) >= lengths  # (count, longest)
    given = drawn.masked_fill(padding, PAD)
    ordered = drawn.masked_fill(padding, symbols + 1).sort(dim=1).values.masked_fill(padding, PAD)
    return given, ordered


def communities(nodes: int = 600, classes: int = 4, *, inside: float = 0.04, outside: float = 0.004, seed: int = 0) -> Graph:
    """A stochastic block model (Holland, Laskey & Leinhardt 1983) with weakly telling node features.

    Args:
        inside, outside: chance of an edge between two nodes of the same and of different classes.
    """
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(nodes) % classes  # (nodes,)
    chance = torch.where(labels.unsqueeze(0) == labels.unsqueeze(1), inside, outside)  # (nodes, nodes)
    upper = (torch.rand(nodes, nodes, generator=draw) < chance).float().triu(1)
    adjacency = upper + upper.T + torch.eye(nodes)
    degree = adjacency.sum(1)  # (nodes,)
    propagation = adjacency / (degree.unsqueeze(0) * degree.unsqueeze(1)).sqrt()
    centres = torch.randn(classes, 16, generator=draw)
    features = 0.5 * centres[labels] + torch.randn(nodes, 16, generator=draw)  # (nodes, 16)
    return Graph(features, labels, propagation, torch.rand(nodes, generator=draw) < 0.3)


def electricity(hours: int = 4000, *, meters: int = 8, seed: int = 0) -> Tensor:
    """Load of several meters over time, with the rhythm of day and week, a drift and noise: (hours, meters), standardised."""
    draw = torch.Generator().manual_seed(seed)
    hour = torch.arange(hours).unsqueeze(1)  # (hours, 1)
    phase = 2 * math.pi * torch.rand(meters, generator=draw)  # (meters,)
    day = (2 * math.pi * hour / 24 + phase).sin()  # (hours, meters)
    week = (2 * math.pi * hour / 168 + phase).cos()
    drift = 0.02 * torch.randn(hours, meters, generator=draw).cumsum(0)
    load = day + 0.5 * week * day + drift + 0.1 * torch.randn(hours, meters, generator=draw)
    return (load - load.mean(0)) / load.std(0)


class CartPoles:
    """Poles to balance on carts, many at once, by the equations of Barto, Sutton & Anderson (1983).

    A state is (position, velocity, angle, angular velocity); an action is 0 (push left) or 1 (push right).
    https://doi.org/10.1109/TSMC.1983.6313077
    """

    GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def __init__(self, count: int, seed: int = 0) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.count = count

    def reset(self) -> Tensor:
        """New upright poles: states (count, 4)."""
        self.states = 0.1 * torch.rand(self.count, 4, generator=self.draw) - 0.05
        return self.states

    def push(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The states after a push each, and which poles still stand: (count, 4), bool (count,)."""
        _, velocity, angle, spin = self.states.unbind(1)  # each (count,)
        force = torch.where(actions == 1, self.FORCE, -self.FORCE)
        mass = self.CART + self.POLE
        pull = (force + self.POLE * self.HALF_LENGTH * spin**2 * angle.sin()) / mass
        turn = (self.GRAVITY * angle.sin() - angle.cos() * pull) / (
            self.HALF_LENGTH * (4 / 3 - self.POLE * angle.cos() ** 2 / mass)
        )
        speed = pull - self.POLE * self.HALF_LENGTH * turn * angle.cos() / mass
        change = torch.stack([velocity, speed, spin, turn], dim=1)  # (count, 4)
        self.states = self.states + self.SECONDS * change
        standing = (self.states[:, 0].abs() < 2.4) & (self.states[:, 2].abs() < 12 * math.pi / 180)
        return self.states, standing


class GridWorld:
    """A square room with a goal in the far corner and pits on the way; each step costs 0.02, the goal pays 1, a pit -1.

    A state is the number of a cell; an action is 0 to 3 (up, down, left, right).
    """

    def __init__(self, size: int = 5, seed: int = 0) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.size = size
        self.cells = size * size
        self.goal = self.cells - 1
        self.pits = {size + 1, 3 * size + 2, 2 * size + 3}

    def reset(self) -> int:
        """A start on any cell that does not end the game."""
        self.cell = self.goal
        while self.cell == self.goal or self.cell in self.pits:
            self.cell = int(torch.randint(self.cells, (1,), generator=self.draw))
        return self.cell

    def move(self, action: int) -> tuple[int, float, bool]:
        """The cell moved to, the reward, and whether the game is over."""
        row, column = divmod(self.cell, self.size)
        rows, columns = ((-1, 0), (1, 0), (0, -1), (0, 1))[action]
        row, column = min(max(row + rows, 0), self.size - 1), min(max(column + columns, 0), self.size - 1)
        self.cell = row * self.size + column
        if self.cell == self.goal:
            return self.cell, 1.0, True
        if self.cell in self.pits:
            return self.cell, -1.0, True
        return self.cell, -0.02, False
