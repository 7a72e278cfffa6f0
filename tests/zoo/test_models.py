"""Every model of the zoo takes what it says and gives what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nndoctor.zoo.models import (
    Autoencoder,
    BagOfPixels,
    BatchNormCnn,
    Discriminator,
    Generator,
    Gpt,
    LeNet,
    LstmClassifier,
    Mlp,
    ResidualBlock,
    ResidualNet,
    RnnClassifier,
    RowTransformer,
)

CLASSIFIERS = (Mlp, LeNet, BatchNormCnn, ResidualNet, LstmClassifier, RnnClassifier, RowTransformer)


@pytest.mark.parametrize("build", CLASSIFIERS, ids=lambda build: build.__name__)
def test_a_classifier_gives_a_logit_per_class_and_trains_every_parameter(build: type[nn.Module]) -> None:
    model = build()
    logits = model(torch.randn(4, 1, 28, 28))
    assert logits.shape == (4, 10)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_an_autoencoder_draws_what_it_was_shown() -> None:
    images = torch.rand(3, 1, 28, 28)
    assert Autoencoder()(images).shape == images.shape


def test_a_gan_pair_fits_together() -> None:
    generator = Generator()
    drawn = generator(torch.randn(5, generator.noise))
    assert drawn.shape == (5, 1, 28, 28)
    assert drawn.abs().max() <= 1
    assert Discriminator()(drawn).shape == (5, 1)


def test_the_gpt_sees_no_later_token() -> None:
    model = Gpt().eval()
    tokens = torch.randint(0, 16, (1, 48))
    changed = tokens.clone()
    changed[0, 30:] = (changed[0, 30:] + 1) % 16
    with torch.no_grad():
        before, after = model(tokens), model(changed)  # (1, 16, 48)
    assert before.shape == (1, 16, 48)
    assert torch.equal(before[..., :30], after[..., :30])
    assert not torch.equal(before[..., 30:], after[..., 30:])


def test_a_residual_block_with_a_zero_branch_starts_as_the_identity() -> None:
    maps = torch.rand(2, 4, 6, 6)
    assert torch.equal(ResidualBlock(4, zero_branch=True)(maps), maps)
    assert not torch.equal(ResidualBlock(4)(maps), maps)


def test_a_bag_of_pixels_has_sparse_gradients() -> None:
    model = BagOfPixels(100)
    model(torch.randint(0, 100, (2, 5))).sum().backward()
    assert model.bag.weight.grad is not None
    assert model.bag.weight.grad.is_sparse


def test_an_mlp_without_hidden_layers_is_one_linear_map() -> None:
    model = Mlp((6, 3))
    assert [type(module) for module in model.children()] == [nn.Linear]
    assert model(torch.zeros(2, 6)).shape == (2, 3)
