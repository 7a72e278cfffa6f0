"""Finds out what kind of run this is, from what the loop calls and what its graphs are made of; no settings.

Looks closely at the first steps, and now and then at a single one later. What was found is the signals ``context.*``
and a few sentences among the facts; what a user says of the run counts instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, unwrap
from nndoctor.probes import model_parts, turns
from nndoctor.probes.attention import SHIFTED, Tokens, next_tokens, tokens_of
from nndoctor.probes.base import CONTRACT, Hook, Measured
from nndoctor.probes.forward import in_backward, is_transformed
from nndoctor.probes.functional import compiler_has_run
from nndoctor.probes.loss_family import LossFamily, family_of
from nndoctor.probes.loss_nodes import cross_entropy_of
from nndoctor.probes.model_parts import Reading
from nndoctor.probes.turns import Turn
from nndoctor.signals import CONTEXTS

DENSE_LOOK = 24
"""Steps at the start that are followed closely; a critic of five steps to one of the generator's is seen four times."""

WALKS = 8
"""Graphs walked in the first steps of a run with one optimizer: its losses are of one or two kinds."""

WALKS_OF_SEVERAL = 40
JUDGED_EVERY = 4
"""After the first dozen steps the closely followed ones bring little that is new."""

WALKS_PER_TURN = 4
PATIENCE = 3  # turns after which what was not seen is not there
PATIENCE_OF_SEVERAL = 12  # the same where several optimizers take turns
LISTENING = (2, 4)
"""Steps on which every module of the process is heard; not the first, on which torch.compile may compile."""

KEPT_OUTPUTS, KEPT_ELEMENTS = 8, 1 << 22
"""Outputs kept for a step, to recognise them among the next step's inputs."""

SAMPLE = 1024
MOST_TURNS = 64


@dataclass(slots=True)
class Evidence:
    """What the steps looked at have shown; grows only."""

    classes: int = 0
    labelled: bool = False
    dense: bool = False
    binary: bool = False
    masks: bool = False
    soft: bool = False
    similarity: bool = False
    correlation: bool = False
    compared: bool = False
    sampled: bool = False
    chosen: bool = False
    distance: bool = False
    reconstruction: bool = False
    """A target is the memory of an input."""

    copied: list[Reading] = field(default_factory=list)
    """Whether targets were equal to inputs of the same size: 1 or 0."""

    repeated: list[Reading] = field(default_factory=list)
    """Whether the first input of a turn was equal to that of the first turn: 1 or 0."""

    losses: int = 0
    """Losses whose graphs were walked to their end."""

    factors: list[Reading] = field(default_factory=list)
    shifted: list[Reading] = field(default_factory=list)
    sparse: bool = False
    stateful: bool = False
    scaled: bool = False
    skipped: int = 0
    experts: bool = False
    features: bool = False
    foreign: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """Modules outside of the models that answer without gradients: steps, and whether built like a model."""

    foreign_names: dict[int, str] = field(default_factory=dict)


class ContextProbe:
    """Tells what a run is taken for: a GAN, fine-tuning, a language model...

    Args:
        said: what the user says of the run, by kind; counts instead of what is found.
        loader: the training loader, where it is known from the start.
    """

    name = "context"
    tier = CONTRACT
    sleeps = True
    signals = (*(f"context.{kind}" for kind in CONTEXTS), "loop.accumulation")

    def __init__(self, said: Mapping[str, bool] | None = None, loader: object | None = None) -> None:
        self.news = False
        self.optimizers = 0
        """How many there are as far as is known; those that have not stepped may yet play."""

        self._said = dict(said or {})
        self._index: ModelIndex | None = None
        self._batches: int | None = _length(loader)
        self._has_loader = loader is not None
        self._looking = True
        self._step = 0
        self._next_look = 2 * DENSE_LOOK
        self._evidence = Evidence()
        self._turn = Turn()
        self._turns: list[Turn] = []
        self._held: dict[int, frozenset[int]] = {}
        self._walks = 0
        self._inputs: list[torch.Tensor] = []
        self._tokens: Tokens | None = None
        self._outputs: dict[int, list[torch.Tensor]] = {}
        self._before: dict[int, list[torch.Tensor]] = {}
        self._started = False
        self._copies: tuple[model_parts.Copy, ...] = ()
        self._zeros: model_parts.Zeros | None = None
        self._siblings: Mapping[int, int] = {}
        self._rows: dict[int, dict[int, int]] = {}
        self._first_params: dict[int, torch.Tensor] = {}
        self._first: torch.Tensor | None = None
        self._answers: list[tuple[nn.Module, tuple[int, ...], list[torch.Tensor]]] = []
        self._known: frozenset[int] = frozenset()
        self._handles: list[Any] = []
        self._depth = 0
        self._failure: Exception | None = None
        self._told: dict[str, float] = {}
        self._sentences: list[str] = []

    # ------------------------------------------------------------------ life

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._stop_listening()
        self._index = None
        self._forget()
        self._outputs, self._before = {}, {}

    def _forget(self) -> None:
        self._inputs, self._tokens = [], None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._stop_listening()
        self._step = step
        late = sampled and step >= self._next_look
        self._looking = sampled and (step <= DENSE_LOOK or late)
        if late:
            self._next_look = 2 * step
            self._turn = Turn()
        if step > DENSE_LOOK:
            self._outputs, self._before = {}, {}
        if self._looking and LISTENING[0] <= step <= LISTENING[1] and not compiler_has_run():
            self._listen()

    # ------------------------------------------------------------------ events

    def forward_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self._looking or in_backward() or is_transformed():
            return
        turn, key = self._turn, id(root)
        turn.forwards[key] = turn.forwards.get(key, 0) + 1
        given = [tensor.detach() for tensor in _tensors((args, kwargs))]
        if not given:
            return
        if turn.given is None:
            turn.given = tuple(given[0].shape)
            self._compare_with_first(given[0])
        self._inputs.extend(given[:KEPT_OUTPUTS])
        self._tokens = self._tokens or tokens_of(args, kwargs)
        carried = {_storage(tensor) for tensor in self._before.get(key, ())} - {0}
        self._evidence.stateful |= any(_storage(tensor) in carried for tensor in given)
        if self._answers:
            ours = {_storage(tensor) for tensor in given} - {0}
            fed = [a for a in self._answers if any(_storage(tensor) in ours for tensor in a[2])]
            self._evidence.features |= bool(fed)
            self._answers = [a for a in self._answers if a not in fed]

    def _compare_with_first(self, given: torch.Tensor) -> None:
        """Whether a turn begins with the same input as the first one."""
        some = _some(given)
        if self._first is None:
            self._first = some.clone()
        elif len(self._evidence.repeated) < PATIENCE:
            first = self._first
            alike = first.shape == some.shape and first.device == some.device
            same = (first == some).all() if alike else torch.zeros((), device=some.device)
            self._evidence.repeated.append(Reading(same))

    def forward_ended(self, root: nn.Module, output: object) -> None:
        if not self._looking or self._step > DENSE_LOOK or in_backward() or is_transformed():
            return
        kept = [tensor.detach() for tensor in _tensors(output) if tensor.numel() <= KEPT_ELEMENTS]
        self._outputs[id(root)] = kept[-KEPT_OUTPUTS:]

    def evaluation_begins(self, root: nn.Module, args: object, kwargs: object) -> None:
        if self._looking:
            self._turn.evaluations[id(root)] = self._turn.evaluations.get(id(root), 0) + 1

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        if self._looking and training:
            self._has_loader = True
            self._turn.batches += 1
            self._batches = _length(loader)

    def loss_scaled(self, loss: object, scaled: object) -> None:
        self._evidence.scaled |= loss is not scaled

    def gradients_zeroed(self, owner: object) -> None:
        self._turn.zeroed = self._turn.backwards > 0

    def backward_begins(self, loss: object) -> None:
        if not self._looking or not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
            return
        turn = self._turn
        turn.cleared |= turn.zeroed
        turn.zeroed = False
        turn.backwards += 1
        if not self._started:
            self._started = True
            self._look_at_models()
        turn.still = frozenset(key for key, first in self._first_params.items() if not first.requires_grad)
        most = WALKS if self.optimizers < 2 else WALKS_OF_SEVERAL
        if turn.backwards > WALKS_PER_TURN or (self._walks >= most and self._step <= DENSE_LOOK):
            turn.leaves = turn.leaves if turn.backwards > 1 else None
            return
        self._walks += 1
        with torch.no_grad():
            family = family_of(loss)
            if family.leaves is None or turn.leaves is None:
                turn.leaves = None
            else:
                turn.leaves |= family.leaves
            self._weigh(loss, family)
        self._forget()

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._looking:
            return
        self._turn.gradients += 1
        if len(self._turns) < PATIENCE:
            self._evidence.sparse |= any(
                p.grad is not None and p.grad.is_sparse for group in optimizer.param_groups for p in group["params"]
            )

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._looking:
            return
        if id(optimizer) not in self._held or self._step > DENSE_LOOK:
            params = [p for group in optimizer.param_groups for p in group["params"]]
            self._held[id(optimizer)] = frozenset(map(id, params))
            self._first_params[id(optimizer)] = params[0]
        turn, self._turn = self._turn, Turn()
        turn.optimizer = id(optimizer)
        self._turns.append(turn)
        self._note_answers(turn)
        if turn.backwards:
            self._before, self._outputs = self._outputs, {}
            self._rows = {}
        if len(self._turns) > MOST_TURNS:
            del self._turns[: -MOST_TURNS // 2]

    def scaler_stepped(self, optimizer: object) -> None:
        if self._looking and self._turn.backwards:  # our hook did not run meanwhile: the step was skipped
            self._evidence.skipped += 1
            self._turn = Turn()

    # ------------------------------------------------------------------ evidence

    def _look_at_models(self) -> None:
        """What has to be seen before the first step."""
        index = self._index
        if index is None:
            return
        self._known = frozenset(id(m) for root in index.roots.values() for m in (*root.modules(), *root.parameters()))
        self._siblings = model_parts.siblings(index)
        if self._step <= 1:
            with torch.no_grad():
                self._copies = model_parts.copies(index)
                self._zeros = model_parts.zeros(index)

    def _weigh(self, loss: torch.Tensor, family: LossFamily) -> None:
        """Add what one loss shows."""
        evidence = self._evidence
        evidence.losses += family.leaves is not None
        evidence.similarity |= family.similarity
        evidence.correlation |= family.correlation
        evidence.compared |= family.compares and family.measures
        evidence.sampled |= family.sampled
        evidence.chosen |= family.chosen
        evidence.soft |= family.soft
        if family.factors and len(evidence.factors) < PATIENCE:
            home = family.factors[0].device
            some = torch.cat([f.reshape(-1)[:SAMPLE].float() for f in family.factors if f.device == home])
            if some.numel():
                graded = ((some != 0) & (some.abs() != 1)).float().mean()
                evidence.factors.append(Reading(torch.stack([some.amin(), some.amax(), graded])))
        self._weigh_targets(loss, family)

    def _weigh_targets(self, loss: torch.Tensor, family: LossFamily) -> None:
        evidence = self._evidence
        for target in (family.distance, family.binary):
            if target is None:
                continue
            if any(_is_same(target, given) for given in self._inputs):
                evidence.reconstruction = True
                continue
            twin = next((g for g in self._inputs if g.numel() == target.numel() and g.device == target.device), None)
            if twin is not None and len(evidence.copied) < PATIENCE:
                evidence.copied.append(Reading((_some(twin) == _some(target)).all()))
            if target is family.distance:
                evidence.distance = True
            else:
                evidence.binary = True
                evidence.masks |= target.dim() == 4 and min(target.shape[-2:]) > 1
        evidence.distance |= family.inline and family.distance is None
        found = cross_entropy_of(loss)
        if found is None:
            return
        scores, targets = found.log_probabilities, found.targets
        evidence.classes = max(evidence.classes, int(scores.shape[1 if scores.dim() > 1 else 0]))
        evidence.labelled = True
        evidence.dense |= targets.dim() == 3 and min(targets.shape[-2:]) > 1
        if self._tokens is not None and len(evidence.shifted) < PATIENCE:
            shares = [reading.share for reading in next_tokens(self._tokens.values, found)]
            if shares:
                evidence.shifted.append(Reading(torch.stack(shares)))

    # ------------------------------------------------------------------ what is called outside of the models

    def _listen(self) -> None:
        hooks = nn.modules.module
        self._depth = 0
        self._handles = [
            hooks.register_module_forward_pre_hook(Hook(self._module_began)),
            hooks.register_module_forward_hook(Hook(self._module_ended), always_call=True),
        ]

    def _stop_listening(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._answers, self._rows = [], {}

    def _module_began(self, module: nn.Module, args: Any) -> None:
        key = id(module)
        home = self._siblings.get(key)
        if home is not None:
            first = next(_tensors(args), None)
            if first is not None and first.dim() > 0 and not in_backward():
                self._rows.setdefault(home, {})[key] = int(first.shape[0])
                self._evidence.experts |= len(set(self._rows[home].values())) > 1
        elif key not in self._known:
            self._depth += 1

    def _module_ended(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in self._known:
            return
        self._depth -= 1
        if self._depth > 0 or not self._started or len(self._answers) >= KEPT_OUTPUTS or is_transformed():
            return
        given = next(_tensors(args), None)
        answers = list(_tensors(output))[:KEPT_OUTPUTS]
        if given is None or not answers or any(answer.requires_grad for answer in answers):
            return
        params = list(module.parameters())
        if params and not any(id(param) in self._known for param in params):
            self._answers.append((module, tuple(given.shape), [answer.detach() for answer in answers]))

    def _note_answers(self, turn: Turn) -> None:
        """Count the networks outside of the models that answered to what the models were given."""
        answers, self._answers = self._answers, []
        index = self._index
        if index is None or turn.given is None or not answers:
            return
        alike = {model_parts.without_names(model_parts.shapes_of(unwrap(root))) for root in index.roots.values()}
        seen = self._evidence.foreign
        for module in {id(module): module for module, shape, _ in answers if shape == turn.given}.values():
            count, _ = seen.get(id(module), (0, False))
            same = model_parts.without_names(model_parts.shapes_of(module)) in alike
            seen[id(module)] = (count + 1, same)
            self._evidence.foreign_names[id(module)] = type(module).__name__

    # ------------------------------------------------------------------ verdicts

    def collect(self) -> Mapping[str, Measured]:
        """What has changed since it was last told; NaN and absent stand for what is not decided."""
        settled = DENSE_LOOK // 2 < self._step < DENSE_LOOK and self._step % JUDGED_EVERY > 0
        if self._looking and self._index is not None and not settled:
            found = {**self._judge(self._index), **self._said}
            self._sentences = list(self._describe(self._index, found))
            told = {f"context.{kind}": float(value) for kind, value in found.items() if value is not None}
            micro = turns.micro_batches(self._turns)
            if micro is not None:
                told["loop.accumulation"] = float(micro)
        else:
            told = {}
        fresh = {name: value for name, value in told.items() if self._told.get(name) != value}
        self._told.update(fresh)
        self.news = False
        return dict(fresh)

    def facts(self) -> dict[str, Any]:
        """The sentences ``taken_for``."""
        return {"taken_for": list(self._sentences)}

    def _judge(self, index: ModelIndex) -> dict[str, bool | None]:
        """What the run is, by kind; None where more has to be seen."""
        evidence, seen = self._evidence, self._turns
        patient = len(seen) >= PATIENCE
        gan, rl = self._plays(), self._acts()
        if gan and rl is None:
            gan = None
        teacher, distilled = self._follows(patient)
        if gan and not self._has_loader and teacher:
            gan, rl = False, True  # an actor and its critic
        if gan:
            rl = False
        settled = patient and evidence.losses > 0 and gan is not None and rl is not None
        contrastive = evidence.similarity or evidence.compared
        other = bool(gan or rl)
        next_token = self._next_token()
        redraws = self._redraws()
        binary = evidence.binary and redraws is False and not evidence.sampled
        labelled = (evidence.labelled or binary) and not other and not evidence.similarity
        dense = evidence.dense or evidence.masks
        views = evidence.similarity or evidence.correlation
        targets = {
            "language_model": next_token if labelled else False,
            "segmentation": labelled and dense and not next_token,
            "classification": (labelled or (evidence.soft and not distilled)) and not dense and not next_token and not other,
            "autoencoder": redraws and not evidence.sampled and not other,
            "vae": evidence.sampled and not other,
            "regression": evidence.distance and not (other or teacher or evidence.sampled or contrastive or redraws is not False),
            "contrastive": contrastive and not rl,
            "self_supervised": (views or bool(teacher)) and not other and not labelled and not evidence.chosen,
        }
        found: dict[str, bool | None] = {"gan": gan, "rl": rl, "teacher": teacher, "distillation": distilled}
        found |= {kind: value if settled else None for kind, value in targets.items()}
        found |= self._judge_model(index, bool(gan), patient)
        found |= self._judge_loop(patient, bool(gan))
        return found

    def _judge_model(self, index: ModelIndex, gan: bool, patient: bool) -> dict[str, bool | None]:
        if not self._turns:
            return {}
        besides = {id(m) for copy in self._copies if self._is_teacher(copy) for m in copy.still.modules()}
        frozen = model_parts.frozen_parts(index, besides)
        adapted = model_parts.adapted_layers(index) if frozen.layers else 0
        zero = self._zeros.found if self._zeros is not None else ()
        part = None if zero is None else 0 < len(zero) <= len(self._zeros.names) / 2 if self._zeros is not None else False
        return {
            "frozen": frozen.layers > 0 and not gan,
            "frozen_eval": frozen.layers > 0 and frozen.in_eval and not gan,
            "lora": adapted > 0,
            "zero_init": part,
            "experts": self._evidence.experts or (False if patient else None),
        }

    def _judge_loop(self, patient: bool, gan: bool) -> dict[str, bool | None]:
        evidence, seen = self._evidence, self._turns
        called_back = turns.is_called_back(seen)
        micro = turns.micro_batches(seen)
        same = self._same_input()
        heard = any(turn.forwards for turn in seen)
        late = False if patient else None
        return {
            "accumulation": False if called_back else None if micro is None else micro > 1 and not gan,
            "closure": called_back or late,
            "several_forwards": (turns.several_forwards(seen) > 1 and not called_back) if patient and heard else None,
            "full_batch": self._batches == 1 if self._batches is not None else same,
            "stateful": evidence.stateful or (late if heard else None),
            "sparse_gradients": evidence.sparse or late,
            "amp": evidence.scaled or late,
        }

    def _plays(self) -> bool | None:
        """Whether optimizers play against each other."""
        if max(len(self._held), self.optimizers) < 2:
            return False if len(self._turns) >= PATIENCE else None
        if turns.take_turns(self._turns, self._held):
            return True
        return False if len(self._turns) >= PATIENCE_OF_SEVERAL else None

    def _acts(self) -> bool | None:
        """Whether the loss is one of reinforcement learning."""
        evidence = self._evidence
        patient = len(self._turns) >= PATIENCE and evidence.losses > 0
        for reading in evidence.factors:
            numbers = reading.numbers
            if numbers is None:
                return None
            low, high, graded = numbers
            episodes = turns.several_forwards(self._turns) > 1 and not self._has_loader
            if graded > 0 and (low < 0 < high or episodes):
                return True
        acting = sum(bool(turn.evaluations) for turn in self._turns) >= len(self._turns) / 2
        if evidence.chosen and not self._has_loader and (acting or any(same for _, same in evidence.foreign.values())):
            return True if patient else None
        return False if patient else None

    def _follows(self, patient: bool) -> tuple[bool | None, bool | None]:
        """Whether there is a copy of the model that does not train, and whether a foreign network answers beside it."""
        regular = {key: same for key, (count, same) in self._evidence.foreign.items() if count >= 2}
        teacher = any(regular.values()) or any(map(self._is_teacher, self._copies))
        distilled = any(not same for same in regular.values())
        enough = patient and self._step > LISTENING[1]
        return (teacher or (False if enough else None)), (distilled or (False if enough else None))

    def _is_teacher(self, copy: model_parts.Copy) -> bool:
        """A copy that nothing trains, and that was equal at the start or is written to all the same."""
        held = frozenset().union(*self._held.values())
        if not held or any(id(param) in held and param.requires_grad for param in copy.still.parameters()):
            return False
        numbers = copy.same.numbers
        return (numbers is not None and numbers[0] == 0) or model_parts.versions(copy.still) != copy.versions

    def _same_input(self) -> bool | None:
        """Whether every turn began with the same input; None before it is known."""
        numbers = [reading.numbers for reading in self._evidence.repeated]
        if any(found == [0.0] for found in numbers):
            return False
        return True if len(numbers) >= PATIENCE - 1 and all(numbers) else None

    def _redraws(self) -> bool | None:
        """Whether the targets are the inputs; None while values are on their way."""
        if self._evidence.reconstruction:
            return True
        numbers = [reading.numbers for reading in self._evidence.copied]
        return None if any(found is None for found in numbers) else bool(numbers) and all(found == [1.0] for found in numbers)

    def _next_token(self) -> bool:
        readings = [reading.numbers for reading in self._evidence.shifted]
        return any(numbers is not None and any(share > SHIFTED for share in numbers) for numbers in readings)

    # ------------------------------------------------------------------ sentences

    def _describe(self, index: ModelIndex, found: Mapping[str, bool | None]) -> Iterator[str]:
        evidence = self._evidence
        frozen = model_parts.frozen_parts(index, {id(m) for c in self._copies if self._is_teacher(c) for m in c.still.modules()})
        micro = turns.micro_batches(self._turns) or 1
        classes = f" into {evidence.classes} classes" if evidence.classes else ""
        answer = ", ".join(name for key, name in evidence.foreign_names.items() if not evidence.foreign[key][1])
        sentences = {
            "gan": f"a GAN: {_spelled(len(self._held))} optimizers, alternating",
            "rl": "reinforcement learning: log-probabilities times advantages" if evidence.factors else "reinforcement learning: values of chosen actions",
            "language_model": "a language model: next-token targets",
            "segmentation": "segmentation: a class for every pixel",
            "classification": f"classification{classes}",
            "vae": "a variational autoencoder: sampled codes, and a loss on their scale",
            "autoencoder": "an autoencoder: the targets are the inputs",
            "regression": "regression: the targets are real numbers",
            "contrastive": "contrastive: outputs of the batch are held against each other",
            "self_supervised": "self-supervised: no labels in the loss",
            "distillation": f"distillation: a fixed {answer or 'network'} answers to the same inputs",
            "teacher": "a copy of the model without gradients: a teacher or target network",
            "lora": f"LoRA: adapters on {model_parts.adapted_layers(index)} frozen layers",
            "frozen": f"fine-tuning: {frozen.layers} of {frozen.of_layers} layers frozen" + (", in eval mode" if found.get("frozen_eval") else ""),
            "zero_init": f"{self._count_zeros()} of the weights start at zero",
            "experts": "experts: each sees a part of the batch",
            "sparse_gradients": "sparse gradients",
            "accumulation": f"gradient accumulation over {micro} micro-steps",
            "closure": "an optimizer that calls back for gradients",
            "several_forwards": f"{turns.several_forwards(self._turns)} forward passes per backward",
            "full_batch": "full-batch training",
            "stateful": "stateful: what one step returned is given to the next",
            "amp": "a gradient scaler: it skips steps while its scale settles",
        }
        for kind, sentence in sentences.items():
            if found.get(kind) and kind not in self._said and not (kind == "frozen" and found.get("lora")):
                yield sentence
        yield from (f"you said: {'' if value else 'not '}{kind.replace('_', ' ')}" for kind, value in self._said.items())

    def _count_zeros(self) -> int:
        return len(self._zeros.found or ()) if self._zeros is not None else 0


def _spelled(number: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(number, str(number))


def _tensors(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    """The strided tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        if _plain(value):
            yield value
    elif depth < 4:
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
        for part in parts:
            yield from _tensors(part, depth + 1)


def _plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and type(tensor) in (torch.Tensor, nn.Parameter)


def _storage(tensor: torch.Tensor) -> int:
    """Where the memory behind a tensor begins, 0 where there is none."""
    return tensor.untyped_storage().data_ptr()


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same memory from their first element to their last."""
    return _plain(one) and one.data_ptr() == other.data_ptr() != 0 and one.numel() == other.numel()


def _some(tensor: torch.Tensor) -> torch.Tensor:
    """Up to a few hundred elements spread over a tensor."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE]


def _length(loader: object) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None
