"""Q-learning on a grid whose target network is a shallow copy: two objects, one set of weights."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import GridWorld
from nndoctor.zoo.trainer import Trained

DISCOUNT = 0.95
STEPS_PER_COPY = 50


def train(seed: int, attach: Attach, *, deep: bool, steps: int = 200) -> Trained:
    world = GridWorld(seed=seed)
    draw = torch.Generator().manual_seed(seed)
    moves = []
    cell = world.reset()
    for _ in range(600):  # a memory of random walks
        action = int(torch.randint(4, (1,), generator=draw))
        after, reward, over = world.move(action)
        moves.append((cell, action, reward, after, float(over)))
        cell = world.reset() if over else after
    before, actions, rewards, later, ended = (torch.tensor(column) for column in zip(*moves, strict=True))
    states = torch.eye(world.cells)
    agent = seeded(seed, partial(Mlp, (world.cells, 64, 64, 4)))
    target = copy.deepcopy(agent) if deep else copy.copy(agent)
    loss_fn = nn.SmoothL1Loss()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    attach(agent, optimizer, loss_fn)
    losses = []
    for step in range(steps):
        chosen = torch.randint(len(moves), (64,), generator=draw)
        with torch.no_grad():
            best = target(states[later[chosen]]).max(1).values  # (64,)
            goals = rewards[chosen] + DISCOUNT * (1 - ended[chosen]) * best  # (64,)
        values = agent(states[before[chosen]]).gather(1, actions[chosen].unsqueeze(1)).squeeze(1)  # (64,)
        loss = loss_fn(values, goals)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % STEPS_PER_COPY == STEPS_PER_COPY - 1:
            target.load_state_dict(agent.state_dict())
    return Trained(tuple(losses), None)  # on a small grid both may learn


CASE = Case(
    name="target-network-shared",
    diagnosis="target-network-stale",
    description="Q-learning, Adam: the target network is a shallow copy that shares its weights with the agent",
    sick=partial(train, deep=False),
    cured=partial(train, deep=True),
    remedies={"target = copy.deepcopy(model)": "deep"},
    source="https://github.com/datawhalechina/easy-rl/issues/140",
)
