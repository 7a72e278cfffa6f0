"""A stream of pictures is not divided among the loader's workers: each of them gives all of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained

WORKERS = 2


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Pictures and classes in a random order; divided among the workers, or not."""

    def __init__(self, inputs: Tensor, targets: Tensor, divided: bool) -> None:
        self.inputs, self.targets, self.divided = inputs, targets, divided

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker is not None and self.divided else (0, 1)
        for index in range(first, len(self.inputs), every):
            yield self.inputs[index], self.targets[index]


def train(seed: int, attach: Attach, *, divided: bool, steps: int = 60) -> Trained:
    data = classification()
    order = torch.randperm(len(data.train_inputs), generator=torch.Generator().manual_seed(seed))
    stream = Stream(data.train_inputs[order], data.train_targets[order], divided)
    loader = DataLoader(stream, batch_size=64, num_workers=WORKERS)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == steps:
            break
    return Trained(tuple(losses), None)


CASE = Case(
    name="duplicated-samples-stream",
    diagnosis="duplicated-samples",
    description="MLP, SGD: an IterableDataset that does not ask get_worker_info, read by two workers",
    sick=partial(train, divided=False),
    cured=partial(train, divided=True),
    source="https://github.com/huggingface/datasets/issues/3423",
)
