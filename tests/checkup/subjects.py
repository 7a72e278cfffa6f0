"""Twelve healthy models of the usual kinds with loss and batch, and a broken variant of each; small, on made-up data."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.zoo.models import Autoencoder, BatchNormCnn, Gpt, LstmClassifier, Mlp, ResidualNet, RowTransformer
from nndoctor.zoo.torchvision_compat import import_torchvision


@dataclass
class Subject:
    """What `nndoctor.checkup` is called with."""

    model: nn.Module
    loss: Any
    batch: Any
    optimizer: torch.optim.Optimizer | None = None
    options: dict[str, Any] = field(default_factory=dict)


def adam(model: nn.Module, rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=rate)


def pictures(count: int = 32) -> tuple[Tensor, Tensor]:
    """Standardised pictures (count, 1, 28, 28), each with a bright bar where its class says."""
    labels = torch.arange(count) % 10
    images = torch.randn(count, 1, 28, 28) * 0.5
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 4] += 2
    return (images - images.mean()) / images.std(), labels


def sentences(count: int = 16, length: int = 24, words: int = 12) -> tuple[Tensor, Tensor]:
    """Counting with gaps: tokens (count, length) and the ones that follow."""
    start = torch.randint(0, words, (count, 1))
    stride = torch.randint(1, 4, (count, 1))
    text = (start + stride * torch.arange(length + 1)) % words
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


# ---------------------------------------------------------------- models that the zoo does not have


class UNet(nn.Module):
    """One level down, one up, with the skip connection."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images)
        coarse = self.up(self.bottom(fine))
        return self.head(self.merge(torch.cat([fine, coarse], dim=1)))


class GraphNet(nn.Module):
    """Two rounds of averaging over neighbours, dense adjacency."""

    def __init__(self, features: int = 8, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, classes)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        spread = adjacency / adjacency.sum(dim=1, keepdim=True)
        hidden = torch.relu(self.first(spread @ nodes))
        return self.second(spread @ hidden)


class Vae(nn.Module):
    """Draws its code in both modes, as many do."""

    def __init__(self, code: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 64), nn.ReLU())
        self.mean = nn.Linear(64, code)
        self.log_variance = nn.Linear(64, code)
        self.decoder = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, 784))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(images.flatten(1))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code).view_as(images), mean, log_variance


def vae_loss(output: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
    drawn, mean, log_variance = output
    likelihood = F.binary_cross_entropy_with_logits(drawn, images, reduction="sum") / len(images)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1).mean()
    return likelihood + divergence


class Experts(nn.Module):
    """Each sample goes to the expert its gate likes best; most experts see few samples, or none."""

    def __init__(self, features: int = 10, experts: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, classes)) for _ in range(experts))

    def forward(self, rows: Tensor) -> Tensor:
        share, chosen = self.gate(rows).softmax(dim=1).max(dim=1)
        out = rows.new_zeros(len(rows), 3)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            if bool(mine.any()):
                out[mine] = share[mine, None] * expert(rows[mine])
        return out


class TableNet(nn.Module):
    """Numbers normalised by a BatchNorm, categories embedded."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(6)
        self.category = nn.Embedding(5, 3)
        self.body = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 1))

    def forward(self, numbers: Tensor, category: Tensor) -> Tensor:
        return self.body(torch.cat([self.scale(numbers), self.category(category)], dim=1)).squeeze(1)


def table(count: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.randn(count, 6) * torch.tensor([1.0, 50, 2000, 0.1, 5, 1]) + torch.tensor([0.0, 10, 500, 3, -5, 0])
    category = torch.randint(0, 5, (count,))
    target = numbers[:, 0] + 0.02 * numbers[:, 1] + category
    return numbers, category, (target - target.mean()) / target.std()


# ---------------------------------------------------------------- the healthy ones


def cnn() -> Subject:
    model = BatchNormCnn()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def resnet() -> Subject:
    model = ResidualNet(width=8, zero_branches=True)
    return Subject(model, nn.CrossEntropyLoss(label_smoothing=0.1), pictures(), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))


def lstm() -> Subject:
    model = LstmClassifier(hidden=32)
    return Subject(model, nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10)), pictures(), adam(model))


def transformer_encoder() -> Subject:
    model = RowTransformer(width=16, layers=1)
    return Subject(model, nn.CrossEntropyLoss(), pictures(), torch.optim.AdamW(model.parameters(), lr=1e-3))


def gpt() -> Subject:
    model = Gpt(vocabulary=12, context=24, width=24, layers=1)
    return Subject(model, nn.CrossEntropyLoss(), sentences(), adam(model))


def unet() -> Subject:
    images, _ = pictures(8)
    model = UNet()
    return Subject(model, nn.BCEWithLogitsLoss(), (images, (images > 1).float()), adam(model))


def autoencoder() -> Subject:
    model = Autoencoder()
    return Subject(model, nn.MSELoss(), pictures()[0], adam(model))


def graph_net() -> Subject:
    nodes, adjacency = torch.randn(40, 8), ((torch.rand(40, 40) < 0.1).float() + torch.eye(40)).clamp(max=1)
    model = GraphNet()
    return Subject(model, nn.CrossEntropyLoss(), (nodes, adjacency, torch.arange(40) % 3), adam(model))


def vae() -> Subject:
    images = (pictures()[0] > 1).float()
    model = Vae()
    return Subject(model, vae_loss, images, adam(model))


def mixture_of_experts() -> Subject:
    model = Experts()
    rows = torch.randn(32, 10)
    return Subject(model, nn.CrossEntropyLoss(), (rows, rows[:, :3].argmax(dim=1)), adam(model))


def tabular_mlp() -> Subject:
    model = TableNet()
    return Subject(model, nn.MSELoss(), table(), adam(model))


def hugging_face() -> Subject:
    pytest.importorskip("transformers")
    import_torchvision()  # transformers wants it, and some builds need help
    transformers = importlib.import_module("transformers")
    config = transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    tokens = sentences(8, 16, 30)[0] + 1
    mask = torch.ones_like(tokens)
    mask[::2, 12:] = 0
    tokens[mask == 0] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    return Subject(model, None, {"input_ids": tokens, "attention_mask": mask, "labels": labels}, adam(model))


HEALTHY: dict[str, Callable[[], Subject]] = {
    "cnn": cnn,
    "resnet": resnet,
    "lstm": lstm,
    "transformer encoder": transformer_encoder,
    "gpt": gpt,
    "u-net": unet,
    "autoencoder": autoencoder,
    "graph net": graph_net,
    "vae": vae,
    "mixture of experts": mixture_of_experts,
    "tabular mlp": tabular_mlp,
    "hugging face": hugging_face,
}


# ---------------------------------------------------------------- the broken ones


class SoftmaxCnn(BatchNormCnn):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(dim=1)


def double_softmax() -> Subject:
    model = SoftmaxCnn()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


class ListNet(ResidualNet):
    """Keeps its blocks in a plain list."""

    def __init__(self) -> None:
        super().__init__(width=8)
        blocks = list(self.blocks)
        del self.blocks
        self.blocks = blocks

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.stem(images))
        for block in self.blocks:
            maps = block(maps)
        return self.head(self.pool(maps).flatten(1))


def unregistered_module() -> Subject:
    model = ListNet()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def batch_dimension_mixed() -> Subject:
    """An LSTM that takes the samples for time."""
    model = LstmClassifier(hidden=32)
    model.lstm = nn.LSTM(28, 32)
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


class ViewTransformer(RowTransformer):
    """view() where transpose() was meant: rows of different pictures are mixed."""

    def forward(self, images: Tensor) -> Tensor:
        stream = self.embed(images.squeeze(1)) + self.position
        stream = stream.transpose(0, 1).contiguous().view(len(images), 28, -1)
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream).mean(dim=1))


def view_for_transpose() -> Subject:
    model = ViewTransformer(width=16, layers=1)
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def attention_mask_leak() -> Subject:
    model = Gpt(vocabulary=12, context=24, width=24, layers=1)
    for block in model.blocks:
        block.causal = False
    return Subject(model, nn.CrossEntropyLoss(), sentences(), adam(model))


class DetachedUNet(UNet):
    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images)
        coarse = self.up(self.bottom(fine).detach())
        return self.head(self.merge(torch.cat([fine, coarse], dim=1)))


def detached_graph() -> Subject:
    images, _ = pictures(8)
    model = DetachedUNet()
    return Subject(model, nn.BCEWithLogitsLoss(), (images, (images > 1).float()), adam(model))


def wrong_output_activation() -> Subject:
    model = Autoencoder()
    model.decoder.append(nn.Sigmoid())
    return Subject(model, nn.MSELoss(), pictures()[0], adam(model))


class UnusedGraphNet(GraphNet):
    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(16, 16)


def unused_parameters() -> Subject:
    subject = graph_net()
    model = UnusedGraphNet()
    return Subject(model, subject.loss, subject.batch, adam(model))


class NoisyVae(Vae):
    """F.dropout without the mode: it drops in evaluation as well."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(F.dropout(images, 0.4))


def train_eval_mismatch() -> Subject:
    subject = vae()
    model = NoisyVae()
    return Subject(model, vae_loss, subject.batch, adam(model))


def parameters_not_in_optimizer() -> Subject:
    subject = mixture_of_experts()
    subject.optimizer = adam(subject.model.experts)
    return subject


def loss_shape_broadcast() -> Subject:
    subject = tabular_mlp()
    numbers, category, target = subject.batch
    subject.batch = (numbers, category, target[:, None])
    return subject


def padding_in_loss() -> Subject:
    subject = hugging_face()
    subject.batch["labels"] = subject.batch["input_ids"].clone()
    return subject


def inputs_not_normalised() -> Subject:
    images, labels = pictures()
    model = Mlp()
    return Subject(model, nn.CrossEntropyLoss(), (127 + 80 * images, labels), adam(model))


def targets_not_scaled() -> Subject:
    subject = tabular_mlp()
    numbers, category, target = subject.batch
    subject.batch = (numbers, category, 20_000 + 5_000 * target)
    return subject


def stale_optimizer() -> Subject:
    model = Mlp()
    optimizer = adam(model)
    return Subject(Mlp(), nn.CrossEntropyLoss(), pictures(), optimizer)


def rate_too_high() -> Subject:
    model = Mlp()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model, 1.0))


def constant_weights() -> Subject:
    model = Mlp()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def oversized_weights() -> Subject:
    model = Mlp()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def one_class() -> Subject:
    images, labels = pictures()
    model = Mlp((784, 16, 1))
    return Subject(model, nn.CrossEntropyLoss(), (images, torch.zeros_like(labels)), adam(model))


def nll_of_logits() -> Subject:
    """Logits with a bias towards what is right, as after some training: then the mistake shows below zero."""
    images, labels = pictures()
    model = Mlp((784, 16, 10))
    nn.init.constant_(model.fc2.bias, 1.0)
    return Subject(model, nn.NLLLoss(), (images, labels), adam(model))


class PaddedReader(nn.Module):
    """A transformer over padded tokens that classifies their mean; `masked` says whether it leaves padding out."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.tokens = nn.Embedding(12, 16, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        padded = tokens == 0
        stream = self.layer(self.tokens(tokens), src_key_padding_mask=padded if self.masked else None)
        if self.masked:
            weights = (~padded).float()[..., None]
            return self.head((stream * weights).sum(dim=1) / weights.sum(dim=1))
        return self.head(stream.mean(dim=1))


def padded_reader(masked: bool = True) -> Subject:
    tokens = torch.randint(1, 12, (16, 10))
    labels = tokens[:, 0] % 3
    tokens[::2, 6:] = 0
    model = PaddedReader(masked)
    return Subject(model, nn.CrossEntropyLoss(), (tokens, labels), adam(model))


def unmasked_padding() -> Subject:
    return padded_reader(masked=False)


def unshifted_targets() -> Subject:
    subject = gpt()
    tokens, _ = subject.batch
    subject.batch = (tokens, tokens)
    subject.options = {"causal": True}
    return subject


class Follower(nn.Module):
    """A student that predicts what a teacher says; the teacher follows by averaging, outside of any optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Mlp((784, 32, 16))
        self.teacher = Mlp((784, 32, 16))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            said = self.teacher(images)
        return F.normalize(self.student(images), dim=1), F.normalize(said, dim=1)


def follower() -> Subject:
    """As many samples as the outputs are wide, so that squares are no sign of broadcasting."""
    model = Follower()
    return Subject(model, lambda pair, labels: (2 - 2 * (pair[0] * pair[1]).sum(dim=1)).mean(), pictures(16), adam(model.student))


class Adapted(nn.Module):
    """A frozen model with a low-rank addition that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Mlp((784, 32, 10)).requires_grad_(False)
        self.down = nn.Parameter(0.02 * torch.randn(784, 4))
        self.up = nn.Parameter(torch.zeros(4, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.base(images) + images.flatten(1) @ self.down @ self.up


def low_rank_adapter() -> Subject:
    model = Adapted()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), torch.optim.Adam([model.down, model.up], lr=1e-2))


def second_order() -> Subject:
    model = Mlp((784, 16, 10))
    return Subject(model, nn.CrossEntropyLoss(), pictures(), torch.optim.LBFGS(model.parameters(), lr=0.5))


def batch_statistics_only() -> Subject:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32, track_running_stats=False), nn.ReLU(), nn.Linear(32, 10))
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


def sparse_words() -> Subject:
    tokens = torch.randint(0, 12, (32, 14))
    model = nn.Sequential(nn.EmbeddingBag(12, 16, sparse=True), nn.Linear(16, 5))
    return Subject(model, nn.CrossEntropyLoss(), (tokens, tokens[:, 0] % 5), torch.optim.SGD(model.parameters(), lr=0.1))


def time_first() -> Subject:
    """A recurrent language model whose samples lie along the second dimension, and which says so."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(12, 16)
            self.lstm = nn.LSTM(16, 24)
            self.head = nn.Linear(24, 12)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.lstm(self.words(tokens))[0]).permute(0, 2, 1)

    tokens, following = (t.t().contiguous() for t in sentences())
    model = Recurrent()
    return Subject(model, nn.CrossEntropyLoss(), (tokens, following), adam(model), {"batch_axis": 1})


UNUSUAL: dict[str, Callable[[], Subject]] = {
    "teacher that follows": follower,
    "low-rank adapter": low_rank_adapter,
    "l-bfgs": second_order,
    "batch norm without running statistics": batch_statistics_only,
    "sparse embeddings": sparse_words,
    "time before samples": time_first,
}
"""Healthy as well, and unlike the twelve."""


class BlindMlp(Mlp):
    """Reads a buffer where it should read its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(784))

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(self.mean.expand(len(inputs), -1))


def blind() -> Subject:
    model = BlindMlp()
    return Subject(model, nn.CrossEntropyLoss(), pictures(), adam(model))


SICK: dict[str, tuple[str, Callable[[], Subject]]] = {
    "cnn with a softmax": ("double-softmax", double_softmax),
    "resnet with blocks in a list": ("unregistered-module", unregistered_module),
    "lstm that takes samples for time": ("batch-dimension-mixed", batch_dimension_mixed),
    "transformer with view for transpose": ("batch-dimension-mixed", view_for_transpose),
    "gpt without its mask": ("attention-mask-leak", attention_mask_leak),
    "u-net with a detached bottom": ("detached-graph", detached_graph),
    "autoencoder with a sigmoid": ("wrong-output-activation", wrong_output_activation),
    "graph net with an unused layer": ("unused-parameters", unused_parameters),
    "vae that drops in evaluation": ("train-eval-mismatch", train_eval_mismatch),
    "experts without their gate in the optimizer": ("parameters-not-in-optimizer", parameters_not_in_optimizer),
    "table with targets of another shape": ("loss-shape-broadcast", loss_shape_broadcast),
    "hugging face model with padding in its labels": ("padding-in-loss", padding_in_loss),
    "raw pixels": ("inputs-not-normalised", inputs_not_normalised),
    "prices as targets": ("targets-not-scaled", targets_not_scaled),
    "optimizer of an earlier model": ("optimizer-holds-stale-parameters", stale_optimizer),
    "rate a thousand times too high": ("learning-rate-too-high", rate_too_high),
    "constant weights": ("bad-initialization", constant_weights),
    "weights from a standard normal": ("bad-initialization", oversized_weights),
    "cross entropy over one class": ("wrong-loss-for-task", one_class),
    "nll loss of logits": ("wrong-loss-for-task", nll_of_logits),
    "transformer that sees padding": ("attention-mask-leak", unmasked_padding),
    "language model without a shift": ("label-leakage", unshifted_targets),
}
"""What is broken -> the diagnosis it must get, and the broken model."""
