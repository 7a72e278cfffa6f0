"""A table of measurements classified; this script knows nothing of the doctor, which is put around it from outside.

nndoctor run -- examples/tabular.py
nndoctor run -- examples/tabular.py --sick inputs-not-normalised
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SICK = ("inputs-not-normalised", "labels-misaligned", "label-leakage")


def table(source: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (rows, columns) and classes (rows,): of a CSV whose last column is the class, from 0 on; else of scikit-learn.

    scikit-learn brings 569 tumours with 30 measurements each; without it, rows of the same kind are drawn.
    """
    if source is not None:
        rows = np.loadtxt(source, delimiter=",", skiprows=1)
        return rows[:, :-1], rows[:, -1].astype(int)
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        return drawn_table()
    return load_breast_cancer(return_X_y=True)


def drawn_table(rows: int = 569, columns: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of rows whose columns have very different units, from thousandths to thousands."""
    draw = np.random.default_rng(0)
    classes = (draw.random(rows) < 0.63).astype(int)
    hidden = draw.normal(size=(rows, 6)) + 1.5 * classes[:, None]
    values = hidden @ draw.normal(size=(6, columns)) / 2 + draw.normal(size=(rows, columns))
    return (10 + values) * 10.0 ** draw.uniform(-3, 2, columns), classes


@torch.no_grad()
def validate(model: nn.Module, rows: Tensor, classes: Tensor, loss_fn: nn.Module) -> tuple[float, float]:
    """Loss and share of right answers."""
    model.eval()
    scores = model(rows)
    model.train()
    return loss_fn(scores, classes).item(), (scores.argmax(1) == classes).float().mean().item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a CSV of numbers with one line of names; the last column is the class")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    columns, classes = table(options.data)
    order = np.random.default_rng(options.seed).permutation(len(columns))
    columns, classes = columns[order], classes[order]
    held_out = len(columns) // 5

    if options.sick != "inputs-not-normalised":
        mean, deviation = columns[held_out:].mean(0), columns[held_out:].std(0)
        columns = (columns - mean) / deviation
    if options.sick == "label-leakage":
        columns = np.column_stack([columns, 2.0 * classes - 1])  # the answer was left among the questions
    shuffled = np.random.default_rng(1).permutation(len(columns)) if options.sick == "labels-misaligned" else slice(None)

    rows = torch.from_numpy(columns[shuffled]).float()  # (rows, columns)
    labels = torch.from_numpy(classes).long()  # (rows,)
    loader = DataLoader(TensorDataset(rows[held_out:], labels[held_out:]), batch_size=32, shuffle=True, drop_last=True)

    model = nn.Sequential(
        nn.Linear(rows.shape[1], 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, int(labels.max()) + 1)
    )  # fmt: skip
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=1e-4)
    for epoch in range(options.epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
        val_loss, accuracy = validate(model, rows[:held_out], labels[:held_out], loss_fn)
        if epoch % 5 == 4 or epoch == options.epochs - 1:
            print(f"epoch {epoch}: loss {loss.item():.3f}, validation loss {val_loss:.3f}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
