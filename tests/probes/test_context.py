"""What a run is taken for: every kind is recognised on a small real loop, and no other kind besides."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.signals import CONTEXTS, checked_context

BATCH, FEATURES, CLASSES, WORDS = 8, 6, 5, 11
Loop = Callable[[Callable[..., nndoctor.Doctor]], None]
LOOPS: dict[str, tuple[frozenset[str], Loop]] = {}


def loop(*kinds: str) -> Callable[[Loop], Loop]:
    """A loop of small size, and what it is: no other kind may be told."""

    def note(run: Loop) -> Loop:
        LOOPS[run.__name__] = frozenset(kinds), run
        return run

    return note


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def points(count: int = 64) -> tuple[Tensor, Tensor]:
    return torch.randn(count, FEATURES), torch.randint(CLASSES, (count,))


def loader(*tensors: Tensor, batch_size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(tensors or points())), batch_size=batch_size, shuffle=True)


def forever(batches: DataLoader[Any], steps: int) -> Any:
    left = steps
    while left:
        for batch in batches:
            yield batch
            left -= 1
            if not left:
                return


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@loop("classification")
def classifier(wrap: Any) -> None:
    model, batches = mlp(FEATURES, 12, CLASSES), loader()
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for inputs, labels in forever(batches, 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))


@loop("classification")
def classifier_with_soft_labels_and_a_custom_loader(wrap: Any) -> None:
    model = nn.Sequential(mlp(FEATURES, 12), nn.LayerNorm(12), nn.Dropout(0.2), nn.Linear(12, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters())
    wrap(model, optimizer)
    for _ in range(12):
        step(optimizer, F.cross_entropy(model(torch.randn(BATCH, FEATURES)), torch.randn(BATCH, CLASSES).softmax(1)))


@loop("classification")
def binary_classifier(wrap: Any) -> None:
    model = mlp(FEATURES, 12, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.binary_cross_entropy_with_logits(model(inputs)[:, 0], (labels > 2).float()))


@loop("classification")
def classifier_with_weighted_samples_written_by_hand(wrap: Any) -> None:
    model = mlp(FEATURES, 12, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, (F.cross_entropy(model(inputs), labels, reduction="none") * torch.rand(len(labels))).mean())


@loop("regression")
def regression(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 2)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        step(optimizer, F.mse_loss(model(inputs), inputs[:, :2].square()))


@loop("regression")
def regression_with_the_loss_inline_and_validation(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 1)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        step(optimizer, ((model(inputs)[:, 0] - inputs.sum(1)) ** 2).mean())
        with torch.no_grad():
            model(inputs)


@loop("regression", "full_batch")
def regression_on_all_the_data(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 2)), torch.optim.Adam(m.parameters())
    inputs, _ = points()
    wrap(model, optimizer)
    for _ in range(12):
        step(optimizer, F.mse_loss(model(inputs), inputs[:, :2].square()))


class Words(nn.Module):
    def __init__(self, classes: int = WORDS) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 12)
        self.rnn = nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(12, classes)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden, state = self.rnn(self.embedding(tokens), state)
        return self.head(hidden), state  # (batch, length, classes)


@loop("language_model")
def language_model(wrap: Any) -> None:
    model, optimizer = (m := Words()), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for (text,) in forever(loader(torch.randint(WORDS, (64, 17))), 12):
        scores, _ = model(text[:, :-1])
        step(optimizer, F.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten()))


@loop("language_model", "stateful")
def language_model_with_carried_state(wrap: Any) -> None:
    model, optimizer = (m := Words()), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    text, state = torch.randint(WORDS, (BATCH, 200)), None
    for start in range(0, 180, 15):
        scores, state = model(text[:, start : start + 15], state)
        step(optimizer, F.cross_entropy(scores.transpose(1, 2), text[:, start + 1 : start + 16]))
        state = state.detach()


@loop("classification")
def tagging_of_sequences(wrap: Any) -> None:
    model, optimizer = (m := Words(CLASSES)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for (text,) in forever(loader(torch.randint(WORDS, (64, 16))), 12):
        step(optimizer, F.cross_entropy(model(text)[0].flatten(0, 1), (text % CLASSES).flatten()))


@loop("segmentation")
def segmentation(wrap: Any) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for (images,) in forever(loader(torch.randn(32, 1, 10, 10)), 12):
        step(optimizer, F.cross_entropy(model(images), (images[:, 0] > 0).long()))


@loop("autoencoder")
def autoencoder(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 3, FEATURES)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        step(optimizer, F.mse_loss(model(inputs), inputs))


@loop("autoencoder")
def autoencoder_of_binary_pictures_whose_targets_come_from_the_loader(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 3, FEATURES)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    pictures = torch.rand(64, FEATURES).round()
    for inputs, targets in forever(loader(pictures, pictures.clone()), 12):
        step(optimizer, F.binary_cross_entropy_with_logits(model(inputs), targets))


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(FEATURES, 12, 8), mlp(4, 12, FEATURES)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(inputs).chunk(2, dim=1)
        return self.decoder(mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)), mean, log_variance


@loop("vae")
def variational_autoencoder(wrap: Any) -> None:
    model, optimizer = (m := Vae()), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        drawn, mean, log_variance = model(inputs)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        step(optimizer, F.mse_loss(drawn, inputs, reduction="sum") / BATCH + divergence)


@loop("vae")
def variational_autoencoder_with_distributions(wrap: Any) -> None:
    encoder, decoder = mlp(FEATURES, 12, 8), mlp(4, 12, FEATURES)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    optimizer = torch.optim.Adam(model.parameters())
    wrap({"encoder": encoder, "decoder": decoder}, optimizer)
    for inputs, _ in forever(loader(), 12):
        mean, scale = encoder(inputs).chunk(2, dim=1)
        code = Normal(mean, F.softplus(scale) + 1e-3)
        divergence = torch.distributions.kl_divergence(code, Normal(0.0, 1.0)).sum(1).mean()
        step(optimizer, F.mse_loss(decoder(code.rsample()), inputs) + divergence)


@loop("contrastive", "self_supervised", "several_forwards")
def two_views_of_each_sample(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 4)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        first = F.normalize(model(inputs + 0.1 * torch.randn_like(inputs)))
        second = F.normalize(model(inputs + 0.1 * torch.randn_like(inputs)))
        step(optimizer, F.cross_entropy(first @ second.T / 0.1, torch.arange(len(inputs))))


@loop("contrastive", "self_supervised")
def two_towers(wrap: Any) -> None:
    texts, images = mlp(FEATURES, 12, 4), mlp(FEATURES, 12, 4)
    scale = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([*texts.parameters(), *images.parameters(), scale])
    wrap({"texts": texts, "images": images}, optimizer)
    for inputs, _ in forever(loader(), 12):
        scores = scale.exp() * F.normalize(texts(inputs)) @ F.normalize(images(inputs.flip(1))).T
        partner = torch.arange(len(inputs))
        step(optimizer, (F.cross_entropy(scores, partner) + F.cross_entropy(scores.T, partner)) / 2)


@loop("contrastive", "several_forwards")
def triplets(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 4)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        step(optimizer, nn.TripletMarginLoss()(model(inputs), model(inputs + 0.1), model(inputs.flip(0))))


@loop("gan", "several_forwards")
def gan(wrap: Any) -> None:
    generator, judge = mlp(3, 12, FEATURES), mlp(FEATURES, 12, 1)
    draw, tell = torch.optim.Adam(generator.parameters()), torch.optim.Adam(judge.parameters())
    wrap({"generator": generator, "judge": judge}, [draw, tell])
    for inputs, _ in forever(loader(), 12):
        ones, zeros = torch.ones(len(inputs), 1), torch.zeros(len(inputs), 1)
        drawn = generator(torch.randn(len(inputs), 3))
        score = F.binary_cross_entropy_with_logits
        step(tell, score(judge(inputs), ones) + score(judge(drawn.detach()), zeros))
        step(draw, score(judge(drawn), ones))


@loop("gan", "several_forwards")
def gan_in_one_module_whose_judge_is_switched_off_for_the_generator(wrap: Any) -> None:
    model = nn.ModuleDict({"generator": mlp(3, 12, FEATURES), "judge": mlp(FEATURES, 12, 1)})
    generator, judge = model["generator"], model["judge"]
    draw, tell = torch.optim.Adam(generator.parameters()), torch.optim.Adam(judge.parameters())
    wrap([generator, judge], [draw, tell])
    for inputs, _ in forever(loader(), 12):
        drawn = generator(torch.randn(len(inputs), 3)).detach()
        step(tell, judge(drawn).mean() - judge(inputs).mean())
        judge.requires_grad_(False)
        step(draw, -judge(generator(torch.randn(len(inputs), 3))).mean())
        judge.requires_grad_(True)


@loop("classification")
def encoder_and_decoder_with_an_optimizer_each(wrap: Any) -> None:
    encoder, decoder = mlp(FEATURES, 12), mlp(12, 12, CLASSES)
    first, second = torch.optim.Adam(encoder.parameters()), torch.optim.Adam(decoder.parameters())
    wrap([encoder, decoder], [first, second])
    for inputs, labels in forever(loader(), 20):
        first.zero_grad()
        second.zero_grad()
        F.cross_entropy(decoder(encoder(inputs).relu()), labels).backward()
        first.step()
        second.step()


class Mixed(nn.Module):
    """Two ways from input to output, and how much of each."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleList([mlp(FEATURES, 12, CLASSES), mlp(FEATURES, 8, CLASSES)])
        self.share = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = self.share.softmax(0)
        return first * self.ways[0](inputs) + second * self.ways[1](inputs)  # type: ignore[no-any-return]


@loop("classification")
def search_for_an_architecture(wrap: Any) -> None:
    model = Mixed()
    weights, shares = torch.optim.Adam(model.ways.parameters()), torch.optim.Adam([model.share])
    wrap(model, [weights, shares])
    for inputs, labels in forever(loader(), 12):
        step(shares, F.cross_entropy(model(inputs), labels))
        step(weights, F.cross_entropy(model(inputs), labels))


@loop("rl", "teacher")
def actor_whose_loss_passes_through_its_critic(wrap: Any) -> None:
    actor, critic = mlp(FEATURES, 12, 2), mlp(FEATURES + 2, 12, 1)
    target = copy.deepcopy(critic)
    act, judge = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())
    wrap({"actor": actor, "critic": critic}, [act, judge])
    for _ in range(12):
        states, moves = torch.randn(32, FEATURES), torch.randn(32, 2)
        with torch.no_grad():
            goal = torch.randn(32, 1) + 0.9 * target(torch.cat([states, actor(states)], 1))
        step(judge, F.mse_loss(critic(torch.cat([states, moves], 1)), goal))
        step(act, -critic(torch.cat([states, actor(states)], 1)).mean())


@loop("rl", "several_forwards")
def policy_gradient(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 3)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for _ in range(12):
        moves, rewards = [], []
        for _ in range(10):
            choice = Categorical(logits=model(torch.randn(FEATURES)))
            action = choice.sample()
            moves.append(choice.log_prob(action))
            rewards.append(float(action))
        gains = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
        gains = (gains - gains.mean()) / (gains.std() + 1e-6)
        step(optimizer, torch.stack([-move * gain for move, gain in zip(moves, gains, strict=True)]).sum())


@loop("rl")
def clipped_policy_gradient_of_continuous_actions(wrap: Any) -> None:
    model = mlp(FEATURES, 12, 2)
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for _ in range(12):
        states = torch.randn(32, FEATURES)
        with torch.no_grad():
            actions = Normal(model(states), 1.0).sample()
            before = Normal(model(states), 1.0).log_prob(actions).sum(1)
        gains = torch.randn(32)
        ratio = (Normal(model(states), 1.0).log_prob(actions).sum(1) - before).exp()
        step(optimizer, -torch.min(ratio * gains, ratio.clamp(0.8, 1.2) * gains).mean())


@loop("rl", "teacher")
def value_learning_with_a_target_network(wrap: Any) -> None:
    model = mlp(FEATURES, 12, 3)
    target = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for _ in range(12):
        states, actions = torch.randn(32, FEATURES), torch.randint(3, (32, 1))
        with torch.no_grad():
            model(states[:1])
            goal = torch.randn(32) + 0.9 * target(states).amax(1)
        step(optimizer, F.smooth_l1_loss(model(states).gather(1, actions).squeeze(1), goal))


@loop("classification", "distillation")
def distillation(wrap: Any) -> None:
    model, teacher = mlp(FEATURES, 12, CLASSES), mlp(FEATURES, 30, CLASSES).eval()
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        with torch.no_grad():
            wanted = teacher(inputs).softmax(1)
        scores = model(inputs)
        step(optimizer, F.cross_entropy(scores, labels) + F.kl_div(scores.log_softmax(1), wanted, reduction="batchmean"))


@loop("classification")
def features_of_a_fixed_network(wrap: Any) -> None:
    model, backbone = mlp(12, 12, CLASSES), mlp(FEATURES, 12).eval()
    optimizer = torch.optim.Adam(model.parameters())
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        with torch.no_grad():
            features = backbone(inputs)
        step(optimizer, F.cross_entropy(model(features), labels))


class Pupil(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student = mlp(FEATURES, 12, 4)
        self.predictor = mlp(4, 8, 4)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(second)
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.lerp_(new, 0.01)
        return 2 - 2 * F.cosine_similarity(self.predictor(self.student(first)), wanted).mean()


@loop("self_supervised", "teacher")
def averaged_teacher(wrap: Any) -> None:
    model = Pupil()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    wrap(model, optimizer)
    for inputs, _ in forever(loader(), 12):
        step(optimizer, model(inputs, inputs + 0.1))


@loop("classification", "frozen", "frozen_eval")
def frozen_backbone_in_eval_mode(wrap: Any) -> None:
    backbone = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU()).requires_grad_(False)
    model = nn.Sequential(backbone, nn.Linear(12, CLASSES))
    optimizer = torch.optim.Adam(model[1].parameters())
    wrap(model, optimizer)
    backbone.eval()
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))


@loop("classification", "frozen")
def last_of_several_equal_blocks(wrap: Any) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 12), *(mlp(12, 12, 12) for _ in range(4)), nn.Linear(12, CLASSES))
    model[:4].requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + self.up(self.down(inputs))  # type: ignore[no-any-return]


@loop("classification", "frozen", "lora", "zero_init")
def adapters(wrap: Any) -> None:
    model = nn.Sequential(Adapted(nn.Linear(FEATURES, 12)), nn.ReLU(), Adapted(nn.Linear(12, CLASSES)))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(FEATURES, 3)
        self.experts = nn.ModuleList(mlp(FEATURES, 8, FEATURES) for _ in range(3))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        weight, chosen = self.gate(inputs).softmax(1).max(1)
        mixed = torch.zeros_like(inputs)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero()[:, 0]
            mixed = mixed.index_add(0, mine, weight[mine, None] * expert(inputs[mine]))
        return self.head(mixed)  # type: ignore[no-any-return]


@loop("classification", "experts")
def experts(wrap: Any) -> None:
    model, optimizer = (m := Experts()), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))


@loop("classification", "sparse_gradients")
def sparse_embedding(wrap: Any) -> None:
    model = nn.Sequential(nn.EmbeddingBag(WORDS, 12, sparse=True), nn.Linear(12, CLASSES))
    words, rest = torch.optim.SparseAdam(list(model[0].parameters())), torch.optim.Adam(model[1].parameters())
    wrap(model, [words, rest])
    for text, labels in forever(loader(torch.randint(WORDS, (64, 7)), torch.randint(CLASSES, (64,))), 20):
        words.zero_grad()
        rest.zero_grad()
        F.cross_entropy(model(text), labels).backward()
        words.step()
        rest.step()


@loop("classification", "accumulation", "amp")
def accumulation_under_a_gradient_scaler(wrap: Any) -> None:
    model = mlp(FEATURES, 12, CLASSES)
    optimizer = torch.optim.Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    wrap(model, optimizer)
    for number, (inputs, labels) in enumerate(forever(loader(), 48)):
        scaler.scale(F.cross_entropy(model(inputs), labels) / 4).backward()
        if number % 4 == 3:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


@loop("classification")
def two_losses_with_a_backward_each(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, CLASSES)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        optimizer.zero_grad()
        scores = model(inputs)
        F.cross_entropy(scores, labels).backward(retain_graph=True)
        (0.1 * scores.square().mean()).backward()
        optimizer.step()


@loop("classification")
def sharpness_aware(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, CLASSES)), torch.optim.SGD(m.parameters(), lr=0.1)
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.zero_grad()
        step(optimizer, F.cross_entropy(model(inputs), labels))


@loop("regression", "closure", "full_batch")
def closure(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, 1)), torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3)
    inputs, _ = points()
    wrap(model, optimizer)

    def again() -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), inputs.sum(1, keepdim=True))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(8):
        optimizer.step(again)  # type: ignore[no-untyped-call]


@loop("classification", "zero_init", "warmup")
def zero_head_during_warm_up(wrap: Any) -> None:
    model = mlp(FEATURES, 12, 12, CLASSES)
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    wrap(model, optimizer)
    for inputs, labels in forever(loader(), 12):
        step(optimizer, F.cross_entropy(model(inputs), labels))
        schedule.step()


@loop("classification", "decay")
def warm_up_then_decay(wrap: Any) -> None:
    model, optimizer = (m := mlp(FEATURES, 12, CLASSES)), torch.optim.Adam(m.parameters())
    wrap(model, optimizer)
    for number, (inputs, labels) in enumerate(forever(loader(), 20)):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(number + 1, 5, 20 - number)
        step(optimizer, F.cross_entropy(model(inputs), labels))


def examined(name: str, folder: Any, context: Mapping[str, bool] | None = None) -> nndoctor.Doctor:
    torch.manual_seed(0)
    made: list[nndoctor.Doctor] = []

    def wrap(model: Any, optimizer: Any) -> None:
        made.append(nndoctor.wrap(model, optimizer, ui="off", strict=True, run_dir=folder / "run", context=context))

    LOOPS[name][1](wrap)
    made[0].close()
    return made[0]


def told(doctor: nndoctor.Doctor) -> dict[str, float]:
    """The newest value of each signal, as a judge reads it from the record."""
    from nndoctor.record import RecordReader

    newest: dict[str, float] = {}
    for frame in RecordReader(doctor.run_dir).frames():
        newest |= {name.removeprefix("context."): float(v[0]) for name, v in frame.values.items() if name.startswith("context.")}
    return newest


@pytest.mark.parametrize("name", LOOPS)
def test_each_loop_is_taken_for_what_it_is_and_nothing_else(name: str, tmp_path: Any) -> None:
    doctor = examined(name, tmp_path)
    found = told(doctor)
    assert {kind for kind, value in found.items() if value} == LOOPS[name][0]
    assert set(found) == set(CONTEXTS)  # after so many steps nothing is left open


def sentences(name: str, folder: Any, context: Mapping[str, bool] | None = None) -> list[str]:
    return list(examined(name, folder, context).diagnosis().facts["taken_for"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gan", ["a GAN: two optimizers, alternating", "2 forward passes per backward"]),
        ("classifier", ["classification into 5 classes"]),
        ("last_of_several_equal_blocks", ["classification into 5 classes", "fine-tuning: 7 of 10 layers frozen"]),
        ("accumulation_under_a_gradient_scaler", [
            "classification into 5 classes", "gradient accumulation over 4 micro-steps", "a gradient scaler: it skips steps while its scale settles",
        ]),
        ("distillation", ["classification into 5 classes", "distillation: a fixed Sequential answers to the same inputs"]),
        ("warm_up_then_decay", ["classification into 5 classes", "warm-up over the first 5 steps, then decay"]),
    ],
)  # fmt: skip
def test_the_facts_say_it_in_sentences(name: str, said: list[str], tmp_path: Any) -> None:
    assert sentences(name, tmp_path) == said


def test_what_the_user_says_counts_instead_of_what_is_found_and_is_said(tmp_path: Any) -> None:
    doctor = examined("gan", tmp_path, {"gan": False, "rl": True})
    assert told(doctor)["gan"] == 0.0
    assert told(doctor)["rl"] == 1.0
    said = doctor.diagnosis().facts["taken_for"]
    assert "you said: not gan" in said
    assert "you said: rl" in said
    assert not any("a GAN" in sentence for sentence in said)


def test_what_the_user_says_of_the_rate_counts_too(tmp_path: Any) -> None:
    assert told(examined("warm_up_then_decay", tmp_path, {"decay": False}))["decay"] == 0.0


def test_an_unknown_kind_is_refused_with_the_kinds_there_are() -> None:
    with pytest.raises(ValueError, match="did you mean 'gan'") as caught:
        checked_context({"gann": True})
    assert all(kind in str(caught.value) for kind in CONTEXTS)
    with pytest.raises(ValueError, match="expected True or False for 'gan', got 'maybe'"):
        checked_context({"gan": "maybe"})
    model = mlp(2, 2)
    with pytest.raises(ValueError, match="there is no kind 'wgan'"):
        nndoctor.wrap(model, torch.optim.SGD(model.parameters()), ui="off", context={"wgan": True})


def test_it_is_known_within_five_steps_and_from_twelve_on_with_several_optimizers(tmp_path: Any) -> None:
    from nndoctor.record import RecordReader

    for name, limit in (("classifier", 5), ("gan", 5), ("encoder_and_decoder_with_an_optimizer_each", 12)):
        doctor = examined(name, tmp_path / name)
        rates = {"context.warmup", "context.decay"}
        frames = [
            frame
            for frame in RecordReader(doctor.run_dir).frames()
            if any(signal.startswith("context.") and signal not in rates for signal in frame.values)
        ]
        assert max(frame.step for frame in frames) <= limit


def test_every_kind_has_a_loop() -> None:
    assert set().union(*(kinds for kinds, _ in LOOPS.values())) == set(CONTEXTS)
