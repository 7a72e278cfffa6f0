"""REINFORCE on a balanced pole: the loss wanders around zero and means nothing, while the agent learns."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import CartPoles
from nndoctor.zoo.trainer import Trained

DISCOUNT = 0.99
LONGEST = 60


def play(policy: nn.Module, poles: CartPoles) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the actions of one game each, and which of them were played: two (moves, count)."""
    states = poles.reset()  # (count, 4)
    standing = torch.ones(poles.count, dtype=torch.bool)  # (count,)
    chosen: list[Tensor] = []
    played: list[Tensor] = []
    while standing.any() and len(chosen) < LONGEST:
        choice = Categorical(logits=policy(states))
        actions = choice.sample()  # type: ignore[no-untyped-call]
        chosen.append(choice.log_prob(actions))  # type: ignore[no-untyped-call]
        played.append(standing)
        states, upright = poles.push(actions)
        standing = standing & upright
    return torch.stack(chosen), torch.stack(played).float()


def returns(played: Tensor) -> Tensor:
    """Discounted reward from each move to the end of its game, standardised over all moves: (moves, count)."""
    total, ahead = torch.zeros_like(played), torch.zeros(played.shape[1])
    for move in reversed(range(len(played))):
        ahead = played[move] * (1 + DISCOUNT * ahead)
        total[move] = ahead
    real = total[played > 0]
    return (total - real.mean()) / (real.std() + 1e-6)


def train(seed: int, attach: Attach, *, steps: int = 100) -> Trained:
    poles = CartPoles(24, seed=seed)
    policy = seeded(seed, partial(Mlp, (4, 64, 2), nn.Tanh))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    doctor = attach(policy, optimizer)
    losses, length = [], 0.0
    for _step in range(steps):
        log_probabilities, played = play(policy, poles)
        loss = -(log_probabilities * returns(played) * played).sum() / played.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        length = 0.9 * length + 0.1 * played.sum(0).mean().item()
        doctor.observe(episode_length=length)
    return Trained(tuple(losses), LONGEST - length)


CASE = Case(
    name="healthy-reinforce",
    diagnosis=None,
    description="REINFORCE on cart-pole: the surrogate loss hovers around zero, batches differ in length",
    healthy=train,
    source="https://doi.org/10.1007/BF00992696",
)
