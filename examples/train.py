"""A training script as anybody writes it; it knows nothing of nndoctor but the pictures and the model.

nndoctor run -- examples/train.py --lr 0.1
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    torch.manual_seed(0)
    data = classification()
    model, loss_fn = LeNet(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    for epoch in range(options.epochs):
        model.train()
        for images, labels in data.train_loader(seed=epoch):
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in data.val_loader())
        print(f"epoch {epoch}: loss {loss.item():.3f}, validation accuracy {correct / len(data.val_targets):.3f}")


if __name__ == "__main__":
    main()
