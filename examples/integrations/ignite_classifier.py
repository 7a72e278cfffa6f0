"""A classifier of clothes trained by an engine of Ignite, offline; ``--lr 0.3`` or ``--forget-zero-grad`` makes it sick.

python examples/integrations/ignite_classifier.py --lr 0.3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events, create_supervised_evaluator
from ignite.metrics import Accuracy, Loss
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.integrations.ignite import attach
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--forget-zero-grad", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    data = classification().first(2000)
    pictures = DataLoader(TensorDataset(data.train_inputs, data.train_targets), batch_size=32, shuffle=True)
    held_out = DataLoader(TensorDataset(data.val_inputs[:500], data.val_targets[:500]), batch_size=250)
    model, loss_fn = LeNet(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)

    def update(engine: Engine, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        model.train()
        if not options.forget_zero_grad:
            optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(update)
    evaluator = create_supervised_evaluator(model, metrics={"loss": Loss(loss_fn), "accuracy": Accuracy()})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run(held_out))
    doctor = attach(trainer, model, optimizer, loss_fn, evaluator=evaluator, name="ignite-classifier")
    trainer.run(pictures, max_epochs=options.epochs)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
