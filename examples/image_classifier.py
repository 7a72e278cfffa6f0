"""A small convolutional network that tells clothes apart, with the doctor wrapped around its loop.

python examples/image_classifier.py
python examples/image_classifier.py --sick missing-zero-grad
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from images import pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor

SICK = ("learning-rate-too-high", "missing-zero-grad", "double-softmax", "eval-mode-during-training")


class Classifier(nn.Module):
    def __init__(self, channels: int, classes: int, softmax: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        )  # fmt: skip
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(32 * 4 * 4, 64)
        self.head = nn.Linear(64, classes)
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).flatten(1)  # (batch, 512)
        scores = self.head(torch.relu(self.hidden(self.drop(features))))  # (batch, classes)
        return scores.softmax(1) if self.softmax else scores


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]], loss_fn: nn.Module) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    model.eval()
    losses, right, count = 0.0, 0, 0
    for images, classes in loader:
        scores = model(images)
        losses += loss_fn(scores, classes).item() * len(images)
        right += int((scores.argmax(1) == classes).sum())
        count += len(images)
    return losses / count, right / count


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="so many pictures to train on")
    parser.add_argument("--data", help="a .npz file, or fashion-mnist, mnist, cifar10 by torchvision")
    parser.add_argument("--report", help="write the report to this HTML file")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    data = pictures(options.data)
    mean, deviation = data.train.mean(), data.train.std()
    training = TensorDataset((data.train[: options.limit] - mean) / deviation, data.train_classes[: options.limit])
    held_out = TensorDataset((data.val - mean) / deviation, data.val_classes)
    train_loader = DataLoader(training, batch_size=64, shuffle=True, drop_last=True)
    val_loader = DataLoader(held_out, batch_size=250)

    model = Classifier(data.train.shape[1], int(data.train_classes.max()) + 1, softmax=options.sick == "double-softmax")
    loss_fn = nn.CrossEntropyLoss()
    lr = 300 * options.lr if options.sick == "learning-rate-too-high" else options.lr
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    with nndoctor.wrap(model, optimizer, loss_fn) as doctor:
        for epoch in range(options.epochs):
            if options.sick != "eval-mode-during-training" or epoch == 0:  # else it stays as validate() left it
                model.train()
            for images, classes in train_loader:
                if options.sick != "missing-zero-grad":
                    optimizer.zero_grad()
                loss = loss_fn(model(images), classes)
                loss.backward()
                optimizer.step()
            val_loss, accuracy = validate(model, val_loader, loss_fn)
            doctor.observe(val_loss=val_loss, accuracy=accuracy)
            print(f"epoch {epoch}: loss {loss.item():.3f}, validation loss {val_loss:.3f}, accuracy {accuracy:.1%}")
        if options.report:
            doctor.report(options.report)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
