"""A discriminator that wins every time: its loss is zero, and the generator has nobody left to learn from."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Discriminator, Generator
from nndoctor.zoo.trainer import Trained


@torch.no_grad()
def difference(generator: Generator, test_images: Tensor) -> float:
    """How far the mean and the spread of each drawn pixel are from those of real ones, on average."""
    drawn = generator(torch.randn(500, generator.noise)).flatten(1)  # (500, 784)
    real = test_images.flatten(1)
    return float((drawn.mean(0) - real.mean(0)).abs().mean() + (drawn.std(0) - real.std(0)).abs().mean())


def train(seed: int, attach: Attach, *, generator_rate: float, discriminator_rate: float, steps: int = 300) -> Trained:
    images = load_images()
    pictures, test_pictures = (part.float() / 127.5 - 1 for part in (images.train_images, images.test_images))
    loader = batches(pictures, images.train_labels, seed=seed)
    generator, discriminator = seeded(seed, Generator), Discriminator()
    painter = torch.optim.Adam(generator.parameters(), lr=generator_rate, betas=(0.5, 0.999))
    judge = torch.optim.Adam(discriminator.parameters(), lr=discriminator_rate, betas=(0.5, 0.999))
    loss_fn = nn.BCEWithLogitsLoss()
    attach({"netG": generator, "netD": discriminator}, [judge, painter], loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < 2 * steps:
        for real, _ in loader:
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)  # (batch, 1)
            fake = generator(torch.randn(len(real), generator.noise))  # (batch, 1, 28, 28)
            judge.zero_grad()
            of_real = loss_fn(discriminator(real), ones)
            of_real.backward()
            of_fake = loss_fn(discriminator(fake.detach()), zeros)
            of_fake.backward()
            judge.step()
            painter.zero_grad()
            fooled = loss_fn(discriminator(fake), ones)
            fooled.backward()
            painter.step()
            losses += [of_real.item() + of_fake.item(), fooled.item()]
            if len(losses) >= 2 * steps:
                break
    return Trained(tuple(losses), difference(generator, test_pictures))


CASE = Case(
    name="mode-collapse-overpowered",
    diagnosis="mode-collapse",
    description="GAN on pictures, discriminator at 5e-3, generator at 1e-5: the one wins, the other stands still",
    sick=partial(train, generator_rate=1e-5, discriminator_rate=5e-3),
    cured=partial(train, generator_rate=2e-4, discriminator_rate=2e-4),
    remedies={"generator_lr": "generator_rate", "discriminator_lr": "discriminator_rate"},
    source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/issues/910",
)
