"""Targets against inputs: what is found, and what chance alone does not make it say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.probes.association import explained_share, features_of, random_table, tells_classes_apart
from nndoctor.probes.supervision import SupervisionProbe, supervision_of


class Dealt:
    """Knows the indices of the batch at hand."""

    indices: Sequence[int] | None = None


def seen(batches: Sequence[tuple[Tensor, Tensor]], indices: Sequence[Sequence[int]] | None = None) -> dict[str, float]:
    """What the probe says after a step on each of the batches."""
    dealt = Dealt()
    probe = SupervisionProbe(dealt)
    told: dict[str, float] = {}
    for step, (inputs, target) in enumerate(batches, 1):
        dealt.indices = indices[step - 1] if indices is not None else None
        classes = 3 if not target.is_floating_point() else 1
        net = nn.Linear(inputs.flatten(1).shape[1], classes)
        probe.begin_step(step, True)
        probe.forward_begins(None, (inputs,), {})
        out = net(inputs.flatten(1).float())
        probe.backward_begins(functional.cross_entropy(out, target) if classes > 1 else functional.mse_loss(out[:, 0], target))
        told.update({name: float(value) for name, value in probe.collect().items()})  # type: ignore[arg-type]
    return told


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(count: int = 40, size: int = 32, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches of three classes whose inputs differ a little in their mean."""
    made = generator(seed)
    centres = torch.randn(3, 10, generator=made)
    found = []
    for _ in range(count):
        target = torch.randint(3, (size,), generator=made)
        found.append((0.7 * centres[target] + torch.randn(size, 10, generator=made), target))
    return found


def test_the_share_of_variance_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    inputs, target = clusters(1, 60)[0]
    share, _, _ = explained_share(inputs.double(), target, 3)
    f = stats.f_oneway(*(inputs[target == c].double().numpy() for c in range(3))).statistic
    assert share.numpy() == pytest.approx(2 * f / (2 * f + 57))
    numbers = torch.randn(60, generator=generator(3))
    share, null, _ = explained_share(inputs.double(), numbers, None)
    r = [np.corrcoef(column, numbers.numpy())[0, 1] for column in inputs.double().numpy().T]
    assert share.numpy() == pytest.approx(np.square(r), rel=1e-4)
    assert float(null) == pytest.approx(1 / 59)


def test_the_mean_share_of_dealt_targets_is_the_null() -> None:
    made = generator(5)
    inputs = torch.randn(40, 6, generator=made, dtype=torch.float64).exp()  # skewed on purpose
    target = torch.arange(40) % 3
    shares = [explained_share(inputs, target[torch.randperm(40, generator=made)], 3)[0].mean() for _ in range(800)]
    assert float(torch.stack(shares).mean()) == pytest.approx(2 / 39, rel=0.05)


def test_targets_that_belong_to_their_inputs_are_associated_and_shuffled_ones_are_not() -> None:
    batches = clusters()
    assert seen(batches)["labels.association_t"] > 20
    made = generator(7)
    shuffled = [(x, y[torch.randperm(len(y), generator=made)]) for x, y in batches]
    told = seen(shuffled)
    assert abs(told["labels.association_t"]) < 3
    assert told["labels.best_column_t"] < 5
    assert told["labels.looks"] == 40


def test_tokens_are_associated_with_their_targets() -> None:
    made = generator(2)
    liking = torch.softmax(torch.randn(3, 50, generator=made), 1)
    batches = []
    for _ in range(20):
        target = torch.randint(3, (32,), generator=made)
        batches.append((torch.multinomial(liking[target], 12, replacement=True, generator=made), target))
    assert seen(batches)["labels.association_t"] > 10


def test_targets_off_by_one_in_the_data_set_are_found_by_index() -> None:
    made = generator(11)
    inputs = torch.randn(1500, 8, generator=made)
    target = (inputs @ torch.randn(8, generator=made)).roll(1)
    order = torch.randperm(1500, generator=made).split(32)[:40]
    told = seen([(inputs[i], target[i]) for i in order], [i.tolist() for i in order])
    assert told["labels.shifted_z"] > 8
    assert told["labels.own_z"] < 3


def test_targets_rolled_within_the_batch_are_found_without_indices() -> None:
    batches = [(x, y.roll(1)) for x, y in clusters(seed=4)]
    told = seen(batches)
    assert told["labels.shifted_z"] > 8
    assert told["labels.own_z"] < 3


@pytest.mark.parametrize("seed", range(4))
def test_of_one_class_alone_nothing_is_told(seed: int) -> None:
    inputs = torch.randn(40, 32, 10, generator=generator(seed))
    told = seen([(x, torch.ones(32, dtype=torch.long)) for x in inputs])
    assert told["labels.shifted_z"] == told["labels.own_z"] == 0


@pytest.mark.parametrize(
    "leak",
    [lambda y: y.float() * 2.5 - 1, lambda y: functional.one_hot(y, 3).float(), lambda y: torch.tensor([4.0, -1.0, 0.5])[y]],
    ids=["scaled", "one-hot", "recoded"],
)
def test_a_column_made_of_the_target_determines_it(leak: Callable[[Tensor], Tensor]) -> None:
    batches = [(torch.cat((x, leak(y).reshape(len(y), -1)), 1), y) for x, y in clusters(6)]
    told = seen(batches)
    assert told["labels.determined"] == 1
    assert told["labels.determining_column"] == 10


@pytest.mark.parametrize("by_name", [True, False], ids=["labels=", "second argument"])
def test_targets_handed_to_a_model_that_computes_its_own_loss_are_no_leak(by_name: bool) -> None:
    probe = SupervisionProbe(Dealt())
    told: dict[str, float] = {}
    for step, (inputs, target) in enumerate(clusters(20), 1):
        probe.begin_step(step, True)
        handed = target.clone() if by_name else target
        probe.forward_begins(None, (inputs,) if by_name else (inputs, handed), {"labels": handed} if by_name else {})
        probe.backward_begins(functional.cross_entropy(nn.Linear(10, 3)(inputs), target.view(-1)))
        told.update({name: float(value) for name, value in probe.collect().items()})  # type: ignore[arg-type]
    assert told["labels.determined"] == 0.0
    assert told["labels.determining_columns"] == 0.0


def test_a_linear_copy_of_a_real_target_determines_it_and_a_noisy_one_does_not() -> None:
    made = generator(13)
    batches = []
    for _ in range(6):
        inputs = torch.randn(32, 5, generator=made)
        batches.append((inputs, 3 * inputs[:, 2] + 1))
    assert seen(batches)["labels.determining_column"] == 2
    assert seen(batches)["labels.determined"] == 1
    noisy = [(x, y + 0.01 * torch.randn(32, generator=made)) for x, y in batches]
    assert seen(noisy)["labels.determined"] == 0


def test_a_column_that_is_the_same_for_several_classes_determines_nothing() -> None:
    batches = [(torch.cat((x, (y == 1).float()[:, None]), 1), y) for x, y in clusters(6)]
    told = seen(batches)
    assert told["labels.determining_columns"] == 1
    assert told["labels.determined"] == 0


def test_a_rare_column_that_fits_by_chance_determines_nothing() -> None:
    batches = []
    for number, (x, y) in enumerate(clusters(8)):
        rare = torch.zeros(len(y), 1)
        rare[number] = 1.0
        batches.append((torch.cat((x, rare), 1), y))
    assert seen(batches)["labels.determined"] == 0


def test_a_lonely_column_is_no_leak() -> None:
    batches = [(y[:, None].float(), y) for _, y in clusters(6)]
    assert "labels.determined" not in seen(batches)


@pytest.mark.parametrize("kind", ["tokens", "several targets", "custom"])
def test_what_has_not_one_target_per_sample_is_left_alone(kind: str) -> None:
    scores = torch.randn(4, 3, 5, requires_grad=True)
    if kind == "tokens":
        loss = functional.cross_entropy(scores, torch.randint(3, (4, 5)))
    elif kind == "several targets":
        loss = functional.mse_loss(scores, torch.randn(4, 3, 5))
    else:
        loss = scores.exp().mean()
    assert supervision_of(loss) is None


@pytest.mark.parametrize("weighted", [False, True])
def test_classes_predictions_and_weights_are_read_off_the_loss(weighted: bool) -> None:
    scores = torch.randn(8, 3, requires_grad=True)
    target = torch.randint(3, (8,))
    found = supervision_of(functional.cross_entropy(scores, target, weight=torch.ones(3) if weighted else None) / 4)
    assert found is not None
    assert found.classes == 3
    assert found.predicted is not None
    assert found.target.tolist() == target.tolist()
    assert found.predicted.tolist() == scores.argmax(1).tolist()
    assert found.weighted is weighted
    logits = torch.randn(8, 1, requires_grad=True)
    truth = torch.randint(2, (8, 1)).float()
    found = supervision_of(functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=torch.tensor(3.0) if weighted else None))
    assert found is not None
    assert found.predicted is not None
    assert found.target.tolist() == truth[:, 0].long().tolist()
    assert found.predicted.tolist() == (logits[:, 0] > 0).long().tolist()
    assert found.weighted is weighted


def test_inputs_without_rows_of_samples_have_no_features() -> None:
    assert features_of((torch.randn(5, 4),), 8, random_table) is None


def test_classes_with_one_mean_in_common_are_not_told_apart() -> None:
    nan = float("nan")
    assert bool(tells_classes_apart(torch.tensor([1.0, 3.0, nan, 2.0])))
    assert not bool(tells_classes_apart(torch.tensor([1.0, 3.0, nan, 1.0])))
