"""A network that knows five kinds of clothes learns the other five, judged by the profile for fine-tuning.

python examples/fine_tuning.py
python examples/fine_tuning.py --sick weights-not-loaded
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from images import Pictures, pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor

SICK = ("weights-not-loaded", "optimizer-holds-stale-parameters", "frozen-batchnorm-updating")
Loader = DataLoader[tuple[Tensor, ...]]


class Network(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(32 * 4 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # (batch, 5)


def loaders(data: Pictures, known: bool, limit: int | None) -> tuple[Loader, Loader]:
    """Pictures of the first five classes, or of the last five, whose classes are counted from 0 again."""
    mean, deviation = data.train.mean(), data.train.std()
    sets = []
    for images, classes in ((data.train, data.train_classes), (data.val, data.val_classes)):
        chosen = (classes < 5) if known else (classes >= 5)
        sets.append(TensorDataset((images[chosen][:limit] - mean) / deviation, classes[chosen][:limit] % 5))
    return DataLoader(sets[0], batch_size=64, shuffle=True, drop_last=True), DataLoader(sets[1], batch_size=250)


@torch.no_grad()
def validate(model: nn.Module, loader: Loader, loss_fn: nn.Module) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    model.eval()
    losses, right, count = 0.0, 0, 0
    for images, classes in loader:
        scores = model(images)
        losses += loss_fn(scores, classes).item() * len(images)
        right += int((scores.argmax(1) == classes).sum())
        count += len(images)
    return losses / count, right / count


def pretrained(data: Pictures, epochs: int, limit: int | None) -> dict[str, Tensor]:
    """Weights that tell the first five classes apart, as a download would bring them."""
    training, held_out = loaders(data, True, limit)
    model, loss_fn = Network(data.train.shape[1]), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        model.train()
        for images, classes in training:
            optimizer.zero_grad()
            loss_fn(model(images), classes).backward()
            optimizer.step()
    print(f"pre-trained: accuracy {validate(model, held_out, loss_fn)[1]:.1%} on what it knows")
    return model.state_dict()


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="so many pictures to train on")
    parser.add_argument("--data", help="a .npz file, or fashion-mnist, mnist, cifar10 by torchvision")
    parser.add_argument("--report", help="write the report to this HTML file")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    data = pictures(options.data)
    weights = pretrained(data, 3, options.limit)
    training, held_out = loaders(data, False, options.limit)

    model, loss_fn = Network(data.train.shape[1]), nn.CrossEntropyLoss()
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=options.lr)

    with nndoctor.wrap(model, optimizer, loss_fn, rules="fine-tuning") as doctor:
        if options.sick == "weights-not-loaded":  # saved from DataParallel, and strict=False says nothing
            weights = {f"module.{name}": tensor for name, tensor in weights.items()}
        model.load_state_dict(weights, strict=options.sick != "weights-not-loaded")
        if options.sick == "optimizer-holds-stale-parameters":
            model.head = nn.Linear(model.head.in_features, 5)  # a new head for the new classes, after the optimizer was made
        else:
            model.head.reset_parameters()
        for epoch in range(options.epochs):
            model.train()
            if options.sick != "frozen-batchnorm-updating":
                model.backbone.eval()  # what is frozen keeps its statistics, too
            for images, classes in training:
                optimizer.zero_grad()
                loss = loss_fn(model(images), classes)
                loss.backward()
                optimizer.step()
            val_loss, accuracy = validate(model, held_out, loss_fn)
            doctor.observe(val_loss=val_loss, accuracy=accuracy)
            print(f"epoch {epoch}: loss {loss.item():.3f}, validation loss {val_loss:.3f}, accuracy {accuracy:.1%}")
        if options.report:
            doctor.report(options.report)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
