"""Deep Q-learning: the targets move, so the loss rises as the agent finds rewards; a copied net never gets gradients."""

from __future__ import annotations

import copy
from collections import deque
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import GridWorld
from nndoctor.zoo.trainer import Trained

DISCOUNT = 0.95
STEPS_PER_COPY = 50
BATCH = 64

Transition = tuple[int, int, float, int, bool]  # cell, action, reward, next cell, over


def as_tensors(transitions: list[Transition], cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One-hot states (batch, cells), actions, rewards, one-hot next states (batch, cells), over; the rest (batch,)."""
    before, actions, rewards, after, over = zip(*transitions, strict=True)
    one_hot = torch.eye(cells)
    return (
        one_hot[list(before)],
        torch.tensor(actions),
        torch.tensor(rewards),
        one_hot[list(after)],
        torch.tensor(over).float(),
    )


def train(seed: int, attach: Attach, *, steps: int = 600) -> Trained:
    world = GridWorld(seed=seed)
    agent = seeded(seed, partial(Mlp, (world.cells, 64, 64, 4)))
    target = copy.deepcopy(agent).requires_grad_(False)
    loss_fn = nn.SmoothL1Loss()
    optimizer = torch.optim.RMSprop(agent.parameters(), lr=5e-4)
    draw = torch.Generator().manual_seed(seed)
    attach(agent, optimizer, loss_fn)
    memory: deque[Transition] = deque(maxlen=5000)
    losses: list[float] = []
    rewards: list[float] = []
    cell = world.reset()
    while len(losses) < steps:
        curious = torch.rand(1, generator=draw).item() < max(0.1, 1 - len(losses) / 300)
        with torch.no_grad():
            best = int(agent(torch.eye(world.cells)[cell : cell + 1]).argmax())
        action = int(torch.randint(4, (1,), generator=draw)) if curious else best
        after, reward, over = world.move(action)
        memory.append((cell, action, reward, after, over))
        rewards.append(reward)
        cell = world.reset() if over else after
        if len(memory) < 200:
            continue
        chosen = torch.randint(len(memory), (BATCH,), generator=draw).tolist()
        states, actions, gains, next_states, ended = as_tensors([memory[i] for i in chosen], world.cells)
        with torch.no_grad():
            goal = gains + DISCOUNT * (1 - ended) * target(next_states).max(1).values  # (batch,)
        value = agent(states).gather(1, actions.unsqueeze(1)).squeeze(1)  # (batch,)
        loss = loss_fn(value, goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % STEPS_PER_COPY == 0:
            target.load_state_dict(agent.state_dict())
    return Trained(tuple(losses), -sum(rewards[-200:]) / 200)


CASE = Case(
    name="healthy-dqn",
    diagnosis=None,
    description="DQN with replay and a target net copied every 50 steps: the loss rises while the agent learns",
    healthy=train,
    source="https://doi.org/10.1038/nature14236",
)
