"""The published networks have exactly the parameters that the works count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nndoctor.zoo import models
from nndoctor.zoo.models import MODELS, UnknownModel, model_named

COUNTS = {
    models.AlexNetMini: 25_682,
    models.Vgg: 9_231_114,
    models.AdamConvNet: 2_371_266,
    models.DenseNet4: 48_311_010,
    models.ResNet18: 11_173_962,
    models.ResNet34: 21_282_122,
    models.ResNet50: 23_520_842,
    models.ResNet101: 42_512_970,
    models.ResNet152: 58_156_618,
    models.DenseNet: 769_162,
    models.PathNet: 81_194,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def own(module: nn.Module) -> list[int]:
    """Parameters of each child that has any, in order."""
    return [count(child) for child in module.modules() if not list(child.children()) and count(child)]


@pytest.mark.parametrize(("build", "expected"), COUNTS.items(), ids=lambda value: str(getattr(value, "__name__", value)))
def test_the_defaults_give_the_published_number_of_parameters(build: Callable[[], nn.Module], expected: int) -> None:
    with torch.device("meta"):
        model = build()
    assert count(model) == expected


def test_every_layer_of_the_small_networks_has_the_published_share() -> None:
    assert own(models.AlexNetMini()) == [112, 296, 25_104, 170]
    assert own(models.AdamConvNet()) == [4_864, 102_464, 204_928, 2_049_000, 10_010]
    assert own(models.PathNet()) == [60, 880, 69_240, 10_164, 850]


def test_the_vgg_has_eight_convolutions_with_bias_and_batch_normalisation() -> None:
    with torch.device("meta"):
        model = models.Vgg()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 8 == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(convolution.bias is not None for convolution in convolutions)


def test_the_timed_networks_have_one_child_per_row_of_the_table() -> None:
    with torch.device("meta"):
        alexnet, vgg = models.TimedAlexNet(), models.TimedVgg11()
    assert [name for name, _ in alexnet.named_children()] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "output"]
    assert [name for name, _ in vgg.named_children()] == [*(f"conv{i}" for i in range(1, 9)), "fc1", "fc2", "output"]
    assert [type(layer) for layer in alexnet.fc1] == [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert alexnet(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 10)
    assert vgg(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_name_takes_its_images_and_gives_a_logit_per_class(name: str) -> None:
    size = {"lenet": 28, "alexnet": 64}.get(name, 32)
    with torch.device("meta"):
        model = model_named(name, (1, size, size), classes=7)
        assert model(torch.empty(2, 1, size, size)).shape == (2, 7)


def test_dense_layers_give_the_same_whether_or_not_they_are_computed_again() -> None:
    torch.manual_seed(0)
    plain = models.DenseNet(depths=(2, 2), growth=4)
    thrifty = models.DenseNet(depths=(2, 2), growth=4, recompute=True)
    thrifty.load_state_dict(plain.state_dict())
    images = torch.randn(3, 3, 16, 16)
    for model in (plain, thrifty):
        model(images).square().sum().backward()
    for ours, theirs in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)  # type: ignore[arg-type]


def test_the_path_network_gives_log_probabilities() -> None:
    assert torch.allclose(models.PathNet()(torch.randn(4, 1, 32, 32)).exp().sum(1), torch.ones(4))


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UnknownModel, match="did you mean 'resnet18'"):
        model_named("resnet-8")


def test_images_that_do_not_fit_are_refused_with_what_would() -> None:
    with pytest.raises(UnknownModel, match=r"at least 32 pixels a side, got 28 x 28"):
        model_named("vgg", (1, 28, 28))
