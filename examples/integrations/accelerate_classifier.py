"""A classifier of clothes trained with Accelerate, accumulating gradients, offline; ``--lr 0.3`` or ``--forget-zero-grad`` makes it sick.

python examples/integrations/accelerate_classifier.py --forget-zero-grad
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.integrations.accelerate import wrap
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--forget-zero-grad", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(argv)

    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    data = classification().first(2000)
    pictures = DataLoader(TensorDataset(data.train_inputs, data.train_targets), batch_size=16, shuffle=True)
    model = LeNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    model, optimizer, pictures = accelerator.prepare(model, optimizer, pictures)
    doctor = wrap(accelerator, model, optimizer, pictures, name="accelerate-classifier")
    for _ in range(options.epochs):
        for images, labels in pictures:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(images), labels))
                optimizer.step()
                if not options.forget_zero_grad:
                    optimizer.zero_grad()
    doctor.close()
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
