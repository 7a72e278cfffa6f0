"""Terms of a loss: told apart, and measured where they meet against gradients computed one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.loss_terms import LossTermsProbe, meetings, summands, term_of, terms_of, unexplained

X = torch.linspace(-1, 1, 6 * 4).reshape(6, 4)
LABELS = torch.arange(6) % 3
REAL = torch.linspace(-1, 1, 6)[:, None]


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classify, self.locate = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.trunk(inputs))
        return self.classify(hidden), self.locate(hidden)


@pytest.fixture
def model() -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads()


def two_terms(model: TwoHeads, weight: float = 1.0) -> Tensor:
    classes, place = model(X)
    return F.cross_entropy(classes, LABELS) + weight * F.mse_loss(place, REAL)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda a, b, c: a + b, 2),
        (lambda a, b, c: a + 0.5 * b - c / 3, 3),
        (lambda a, b, c: (a + b) / 4, 2),
        (lambda a, b, c: sum([a, b, c]), 3),
        (lambda a, b, c: torch.stack([a, b, c]).sum(), 3),
        (lambda a, b, c: a, 1),
        (lambda a, b, c: a * b, 1),
        (lambda a, b, c: a + 1, 1),
    ],
)
def test_summands_are_told_apart(model: TwoHeads, loss: Callable[..., Tensor], expected: int) -> None:
    classes, place = model(X)
    terms = (F.cross_entropy(classes, LABELS), F.mse_loss(place, REAL), model.trunk.weight.square().sum())
    assert len(summands(loss(*terms).grad_fn)) == expected


def test_terms_are_called_what_they_are(model: TwoHeads) -> None:
    classes, place = model(X)
    loss = F.cross_entropy(classes, LABELS) + 2 * F.mse_loss(place, REAL) + 0.1 * model.trunk.weight.square().sum() + place.exp().mean()
    terms = [term_of(node) for node in summands(loss.grad_fn)]
    assert [term.kind for term in terms] == ["cross entropy", "mean squared error", "penalty on weights", "term"]
    assert [term.regularises for term in terms] == [False, False, True, True]


def test_tasks_without_targets_in_sight_are_no_regularisers(model: TwoHeads) -> None:
    classes, place = model(X)
    policy = -(classes.log_softmax(1).gather(1, LABELS[:, None]) * REAL).mean()
    inline = ((place - REAL) ** 2).mean()
    for task in (policy, inline):
        loss = task + 0.1 * model.trunk.weight.square().sum()
        assert [term_of(node).regularises for node in summands(loss.grad_fn)] == [False, True]


def test_what_is_left_unexplained_is_the_loss_over_that_of_a_constant_answer(model: TwoHeads) -> None:
    classes, place = model(X)
    loss = F.cross_entropy(classes, LABELS) + F.mse_loss(place, REAL, reduction="sum")
    found = [float(unexplained(term_of(node))) for node in summands(loss.grad_fn)]
    assert found[0] == pytest.approx(float(F.cross_entropy(classes, LABELS).detach()) / math.log(3))
    assert found[1] == pytest.approx(float(F.mse_loss(place, REAL).detach() / REAL.var(correction=0)))


def measured_gradients(model: nn.Module, loss: Tensor) -> list[float]:
    index, probe = ModelIndex(model), LossTermsProbe()
    probe.attach(index)
    probe.begin_step(1, True)
    probe.backward_begins(loss)
    loss.backward()
    probe.backward_ended()
    measured = probe.collect()
    return [float(v) for v in measured["term.gradient"] if not math.isnan(float(v))]  # type: ignore[union-attr]


def test_gradients_are_measured_where_two_heads_meet_the_trunk(model: TwoHeads) -> None:
    hidden = torch.tanh(model.trunk(X)).detach().requires_grad_()
    alone = [
        torch.autograd.grad(F.cross_entropy(model.classify(hidden), LABELS), hidden)[0].norm(),
        torch.autograd.grad(100 * F.mse_loss(model.locate(hidden), REAL), hidden)[0].norm(),
    ]
    assert measured_gradients(model, two_terms(model, 100)) == pytest.approx([float(norm) for norm in alone])


def test_gradients_of_a_penalty_are_measured_at_the_weights(model: TwoHeads) -> None:
    classes, _ = model(X)
    task = torch.autograd.grad(F.cross_entropy(classes, LABELS), model.classify.weight, retain_graph=True)[0].norm()
    penalty = 2 * 7 * model.classify.weight.detach().norm()
    loss = F.cross_entropy(classes, LABELS) + 7 * model.classify.weight.square().sum()
    assert measured_gradients(model, loss) == pytest.approx([float(task), float(penalty)])


def test_a_penalty_added_weight_by_weight_is_one_term(model: TwoHeads) -> None:
    classes, _ = model(X)
    task = F.cross_entropy(classes, LABELS)
    sizes = [param.abs().sum() for param in model.parameters()]
    for penalty in (sum(sizes), torch.stack(sizes).sum()):
        kinds = [term.kind for term in terms_of((task + 0.1 * penalty).grad_fn)]
        assert kinds == ["cross entropy", "penalty on weights"]


def test_terms_of_separate_nets_do_not_meet() -> None:
    one, other = nn.Linear(4, 3), nn.Linear(4, 1)
    loss = F.cross_entropy(one(X), LABELS) + F.mse_loss(other(X), REAL)
    assert meetings([term_of(node) for node in summands(loss.grad_fn)]) == []


def test_listening_changes_no_gradient_and_leaves_no_hook(model: TwoHeads) -> None:
    expected = torch.autograd.grad(two_terms(model), tuple(model.parameters()))
    loss = two_terms(model)
    measured_gradients(model, loss)
    for param, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(param.grad, gradient)  # type: ignore[arg-type]


def test_a_single_term_costs_no_look(model: TwoHeads) -> None:
    probe = LossTermsProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    probe.backward_begins(F.cross_entropy(model(X)[0], LABELS))
    assert probe.collect() == {"loss.terms": 1.0}
