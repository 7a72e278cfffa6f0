"""Models to train and to examine: small ones of the usual kinds, and those of published works, also by name."""

from __future__ import annotations

from nndoctor.zoo.models.by_name import MODELS, UnknownModel, model_named
from nndoctor.zoo.models.published import AdamConvNet, AlexNetMini, DenseNet4, PathNet, Vgg
from nndoctor.zoo.models.residual import DenseNet, ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from nndoctor.zoo.models.small import (
    CLASSES,
    PIXELS,
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
    TransformerBlock,
)
from nndoctor.zoo.models.timed import TimedAlexNet, TimedVgg11

__all__ = [
    "CLASSES",
    "MODELS",
    "PIXELS",
    "AdamConvNet",
    "AlexNetMini",
    "Autoencoder",
    "BagOfPixels",
    "BatchNormCnn",
    "DenseNet",
    "DenseNet4",
    "Discriminator",
    "Generator",
    "Gpt",
    "LeNet",
    "LstmClassifier",
    "Mlp",
    "PathNet",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResidualBlock",
    "ResidualNet",
    "RnnClassifier",
    "RowTransformer",
    "TimedAlexNet",
    "TimedVgg11",
    "TransformerBlock",
    "UnknownModel",
    "Vgg",
    "model_named",
]
