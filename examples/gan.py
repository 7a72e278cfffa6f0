"""Two networks against each other: one draws clothes, one tells drawn from real, judged by the profile for such pairs.

python examples/gan.py
python examples/gan.py --sick mode-collapse
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from images import pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor

SICK = ("mode-collapse", "missing-zero-grad")
NOISE = 64


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(NOISE, 64 * 7 * 7)
        self.net = nn.Sequential(
            nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(self.start(noise).view(-1, 64, 7, 7))  # (batch, 1, 28, 28)


class Discriminator(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(64 * 7 * 7, 1),
        )  # fmt: skip


@torch.no_grad()
def distance(generator: Generator, real: Tensor) -> float:
    """How far mean and spread of the drawn pixels are from those of real ones."""
    generator.eval()
    drawn = generator(torch.randn(500, NOISE))  # (500, 1, 28, 28)
    generator.train()
    return float((drawn.mean(0) - real.mean(0)).abs().mean() + (drawn.std(0) - real.std(0)).abs().mean())


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="so many pictures to train on")
    parser.add_argument("--data", help="a .npz file, or fashion-mnist, mnist by torchvision")
    parser.add_argument("--report", help="write the report to this HTML file")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    data = pictures(options.data)
    real_pictures, held_out = 2 * data.train[: options.limit] - 1, 2 * data.val - 1  # from -1 to 1, as tanh draws
    loader = DataLoader(TensorDataset(real_pictures), batch_size=64, shuffle=True, drop_last=True)

    generator, discriminator = Generator(), Discriminator()
    faster, slower = (50, 0.02) if options.sick == "mode-collapse" else (1, 1)
    judge = torch.optim.Adam(discriminator.parameters(), lr=faster * options.lr, betas=(0.5, 0.999))
    painter = torch.optim.Adam(generator.parameters(), lr=slower * options.lr, betas=(0.5, 0.999))
    loss_fn = F.binary_cross_entropy_with_logits

    models = {"generator": generator, "discriminator": discriminator}
    with nndoctor.wrap(models, {"generator": painter, "discriminator": judge}, loss_fn, rules="gan") as doctor:
        for epoch in range(options.epochs):
            for (real,) in loader:
                ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
                drawn = generator(torch.randn(len(real), NOISE))

                if options.sick != "missing-zero-grad":
                    judge.zero_grad()  # without it, what its opponent left there counts as well
                judged = loss_fn(discriminator(real), ones) + loss_fn(discriminator(drawn.detach()), zeros)
                judged.backward()
                judge.step()

                painter.zero_grad()
                fooled = loss_fn(discriminator(drawn), ones)
                fooled.backward()
                painter.step()
            away = distance(generator, held_out)
            print(f"epoch {epoch}: discriminator {judged.item():.3f}, generator {fooled.item():.3f}, distance {away:.3f}")
        if options.report:
            doctor.report(options.report)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
