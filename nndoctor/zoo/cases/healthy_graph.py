"""A graph network on one graph: the same full batch in every step, and most of its nodes outside the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.synthetic import communities
from nndoctor.zoo.trainer import Trained, trained


class GraphNet(nn.Module):
    """Two graph convolutions with dropout (Kipf & Welling 2017)."""

    def __init__(self, features: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Linear(features, width)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.5)
        self.conv2 = nn.Linear(width, classes)

    def forward(self, features: Tensor, propagation: Tensor) -> Tensor:
        hidden = self.dropout(self.relu(propagation @ self.conv1(features)))  # (nodes, width)
        logits: Tensor = propagation @ self.conv2(hidden)  # (nodes, classes)
        return logits


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    graph = communities(seed=seed)
    model = seeded(seed, lambda: GraphNet(graph.features.shape[1], 4))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-3)
    doctor = attach(model, optimizer, loss_fn)
    losses = []
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = loss_fn(model(graph.features, graph.propagation)[graph.known], graph.labels[graph.known])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0:
            model.eval()
            with torch.no_grad():
                logits = model(graph.features, graph.propagation)[~graph.known]
            doctor.observe(val_loss=loss_fn(logits, graph.labels[~graph.known]).item())
    return trained(losses)


CASE = Case(
    name="healthy-graph",
    diagnosis=None,
    description="GCN on a graph of 600 nodes: every step sees the same full batch, the loss takes 30 % of its rows",
    healthy=train,
    source="https://arxiv.org/abs/1609.02907",
)
