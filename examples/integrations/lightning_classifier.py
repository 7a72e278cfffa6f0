"""A classifier of clothes trained by Lightning, offline; ``--lr 0.3`` or ``--forget-zero-grad`` makes it sick.

python examples/integrations/lightning_classifier.py --forget-zero-grad
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.integrations.lightning import DoctorCallback
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet


class Classifier(pl.LightningModule):
    def __init__(self, lr: float, forget_zero_grad: bool = False) -> None:
        super().__init__()
        self.net = LeNet()
        self.lr, self.forget_zero_grad = lr, forget_zero_grad

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        scores = self(images)
        self.log_dict({"val_loss": F.cross_entropy(scores, labels), "val_acc": (scores.argmax(1) == labels).float().mean()})

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if not self.forget_zero_grad:
            optimizer.zero_grad()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--forget-zero-grad", action="store_true")
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args(argv)

    pl.seed_everything(0)
    data = classification().first(2000)
    pictures = DataLoader(TensorDataset(data.train_inputs, data.train_targets), batch_size=32, shuffle=True)
    held_out = DataLoader(TensorDataset(data.val_inputs[:500], data.val_targets[:500]), batch_size=250)
    callback = DoctorCallback(name="lightning-classifier")
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=options.steps, accelerator="cpu", callbacks=[callback], default_root_dir=folder,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )
        trainer.fit(Classifier(options.lr, options.forget_zero_grad), pictures, held_out)
    assert callback.doctor is not None
    return callback.doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
