"""A generator's step that hands the critic a detached picture, as the critic's own step should: it never learns."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Discriminator, Generator
from nndoctor.zoo.trainer import Trained


class Adversaries(nn.Module):
    """Both networks in one object, which is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()


@torch.no_grad()
def difference(generator: Generator, pictures: Tensor) -> float:
    """How far the mean of each drawn pixel is from that of real ones, on average."""
    drawn = generator(torch.randn(500, generator.noise)).flatten(1)  # (500, 784)
    return float((drawn.mean(0) - pictures.flatten(1).mean(0)).abs().mean())


def train(seed: int, attach: Attach, *, gradient_path: str, steps: int = 150) -> Trained:
    images = load_images()
    pictures, test_pictures = (part.float() / 127.5 - 1 for part in (images.train_images, images.test_images))
    loader = batches(pictures, images.train_labels, seed=seed)
    both = seeded(seed, Adversaries)
    painter = torch.optim.RMSprop(both.generator.parameters(), lr=2e-4)
    judge = torch.optim.RMSprop(both.discriminator.parameters(), lr=2e-4)
    loss_fn = nn.MSELoss()  # a least-squares GAN
    attach(both, {"generator": painter, "discriminator": judge}, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < 2 * steps:
        for real, _ in loader:
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)  # (batch, 1)
            fake = both.generator(torch.randn(len(real), both.generator.noise))  # (batch, 1, 28, 28)
            painter.zero_grad()
            seen = fake if gradient_path == "connected" else fake.detach()
            fooled = loss_fn(both.discriminator(seen), ones)
            fooled.backward()
            painter.step()
            judge.zero_grad()
            judged = loss_fn(both.discriminator(real), ones) + loss_fn(both.discriminator(fake.detach()), zeros)
            judged.backward()
            judge.step()
            losses += [fooled.item(), judged.item()]
            if len(losses) >= 2 * steps:
                break
    return Trained(tuple(losses), difference(both.generator, test_pictures))


CASE = Case(
    name="detached-generator",
    diagnosis="detached-graph",
    description="least-squares GAN on pictures, RMSprop: the generator's loss is that of a detached picture",
    sick=partial(train, gradient_path="detached"),
    cured=partial(train, gradient_path="connected"),
    place=("generator",),
    remedies={"gradient_path": "gradient_path"},
    source="https://github.com/nikhilsinghmus/image2reverb/issues/37",
)
