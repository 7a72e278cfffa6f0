"""A graph network under SGD with a rate that fits Adam: three hundred steps later it knows nothing."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_graph import GraphNet
from nndoctor.zoo.synthetic import communities
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, rate: float, steps: int = 300) -> Trained:
    graph = communities(seed=seed)
    model = seeded(seed, lambda: GraphNet(graph.features.shape[1], 4))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    attach(model, optimizer, loss_fn)
    losses = []
    for _step in range(steps):
        optimizer.zero_grad()
        loss = loss_fn(model(graph.features, graph.propagation)[graph.known], graph.labels[graph.known])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="learning-rate-too-low-graph",
    diagnosis="learning-rate-too-low",
    description="GCN on a whole graph, SGD: lr=1e-4 instead of 1",
    sick=partial(train, rate=1e-4),
    cured=partial(train, rate=1.0),
    remedies={"lr": "rate"},
    source="https://github.com/williamleif/graphsage-simple/issues/22",
)
