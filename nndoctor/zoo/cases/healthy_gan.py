"""A GAN: two optimizers, two losses that hover, parameters that get gradients only every other backward."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Discriminator, Generator
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach) -> Trained:
    images = load_images()
    real_images = images.train_images.float() / 127.5 - 1  # (count, 1, 28, 28) in [-1, 1]
    loader = batches(real_images, images.train_labels, seed=seed)
    generator, discriminator = seeded(seed, Generator), Discriminator()
    loss_fn = nn.BCEWithLogitsLoss()
    draw = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    judge = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    attach(
        {"generator": generator, "discriminator": discriminator},
        {"generator": draw, "discriminator": judge},
        loss_fn,
        loader=loader,
    )
    losses = []
    for _epoch in range(3):
        for real, _ in loader:
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)  # (batch, 1)
            fake = generator(torch.randn(len(real), generator.noise))  # (batch, 1, 28, 28)

            judge.zero_grad()
            judged = loss_fn(discriminator(real), ones) + loss_fn(discriminator(fake.detach()), zeros)
            judged.backward()
            judge.step()

            draw.zero_grad()
            fooled = loss_fn(discriminator(fake), ones)
            fooled.backward()
            draw.step()
            losses += [judged.item(), fooled.item()]
    return Trained(tuple(losses), None)


CASE = Case(
    name="healthy-gan",
    diagnosis=None,
    description="GAN with one Adam each: losses hover, the generator's step leaves gradients on the discriminator",
    healthy=train,
    source="https://arxiv.org/abs/1511.06434",
)
