"""What a case of the zoo is: a training run with one planted ailment beside the same run without it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import nn

from nndoctor.findings import Fix
from nndoctor.zoo.trainer import Observer, Trained

Variant: TypeAlias = Literal["sick", "cured", "healthy"]
Remedy: TypeAlias = str | Mapping[str, Any]
"""The keyword of a run that takes the value of a fix (True for a call), or the keywords and values it comes down to."""


class Attach(Protocol):
    """Puts a doctor to a training run, with the arguments of :func:`nndoctor.wrap`; see :func:`alone` for none."""

    def __call__(self, model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> Observer: ...


Train: TypeAlias = Callable[..., Trained]
"""Trains once: ``train(seed, attach)`` builds model, data and optimizer, attaches, and runs the loop; some take ``steps``."""


@dataclass(frozen=True)
class Case:
    """A training run of the zoo, declared by one file in ``zoo/cases``.

    Sick and cured share architecture, data and seed; the one thing named in `description` differs.

    Args:
        name: what ``nndoctor demo`` calls it.
        diagnosis: the catalogue entry that has to be named first for the sick run; None for a healthy one.
        description: what is wrong, in a sentence; for a healthy run, what a naive rule would take for an ailment.
        sick, cured: the two runs of an ailment.
        healthy: the one run of a healthy case.
        place: names of the modules or parameters where the ailment sits; a finding at one of them or below it is
            at the right place. Empty where the ailment has no place of its own.
        remedies: what a fix may set (``lr``) or call (``optimizer.zero_grad()``), each with what that means for the
            sick run, so that the doctor's own remedy can be tried. Empty where the remedy is neither value nor call.
        source: a report of the same mistake in real code.
        onset: the optimizer step at which the ailment begins; a run in which that depends on the seed says it itself.
        tuned: whether rules may be tuned with a view to this case; :func:`all_cases` decides, see :func:`in_halves`.
    """

    name: str
    diagnosis: str | None
    description: str
    sick: Train | None = None
    cured: Train | None = None
    healthy: Train | None = None
    place: tuple[str, ...] = ()
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    source: str = ""
    onset: int = 1
    tuned: bool = True

    def __post_init__(self) -> None:
        runs = {variant for variant in ("sick", "cured", "healthy") if getattr(self, variant) is not None}
        expected = {"healthy"} if self.diagnosis is None else {"sick", "cured"}
        if runs != expected:
            raise ValueError(
                f"case {self.name!r}: expected the runs {', '.join(sorted(expected))} "
                f"for diagnosis {self.diagnosis}, got {', '.join(sorted(runs)) or 'none'}"
            )

    def treated(self, fix: Fix) -> Train | None:
        """The sick run with what `fix` sets and calls instead of its own; None where the case cannot take all of it."""
        wanted: dict[str, float | str | bool] = {**fix.set, **({fix.call: True} if fix.call else {})}
        if self.sick is None or not wanted or not set(wanted) <= set(self.remedies):
            return None
        keywords: dict[str, Any] = {}
        for name, value in wanted.items():
            remedy = self.remedies[name]
            keywords.update({remedy: value} if isinstance(remedy, str) else remedy)
        return partial(self.sick, **keywords)

    def treatment(self, fixes: Iterable[Fix]) -> tuple[Fix, Train] | None:
        """The first of `fixes` that the case can take, and the run treated with it."""
        for fix in fixes:
            train = self.treated(fix)
            if train is not None:
                return fix, train
        return None

    @property
    def variants(self) -> tuple[Variant, ...]:
        return ("healthy",) if self.diagnosis is None else ("sick", "cured")

    def train(self, variant: Variant) -> Train:
        """The run called `variant`. Raises ValueError that lists those the case has."""
        run: Train | None = getattr(self, variant, None) if variant in self.variants else None
        if run is None:
            raise ValueError(f"case {self.name!r} has no {variant!r} run; it has {', '.join(self.variants)}")
        return run


def with_steps(train: Train, steps: int | None) -> Train:
    """The run with `steps` optimizer steps, where its length can be chosen; the run as it is otherwise."""
    if steps is None or "steps" not in signature(train).parameters:
        return train
    return partial(train, steps=steps)


class NoDoctor:
    """Listens to what a loop observes and does nothing with it."""

    def observe(self, **values: float) -> None:
        pass


def alone(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> Observer:
    """Attaches nothing: the run trains by itself."""
    return NoDoctor()


def seeded(seed: int, build: Callable[[], nn.Module]) -> Any:
    """The module that `build` makes with torch's generator set to `seed`, which also seeds the run that follows."""
    torch.manual_seed(seed)
    return build()


class UnknownCase(ValueError):
    """No case has that name; the message lists those there are."""


def all_cases() -> tuple[Case, ...]:
    """Every case of the zoo: the sick ones by diagnosis, then the healthy ones."""
    package = import_module("nndoctor.zoo.cases")
    modules = (import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__))
    found = [case for module in modules for case in vars(module).values() if isinstance(case, Case)]
    cases = in_halves({case.name: case for case in found}.values())
    return tuple(sorted(cases, key=lambda case: (case.diagnosis is None, case.diagnosis or "", case.name)))


def in_halves(cases: Iterable[Case]) -> list[Case]:
    """The cases, each put into the half that rules are tuned on or into the one that they are only judged by.

    A hash of its name decides, unless a rule has been tuned in its sight (:data:`~nndoctor.zoo.halves.SEEN`) or it was
    written blind (:data:`~nndoctor.zoo.halves.BLIND`). A diagnosis with several cases has one in each half: where the
    hash gives all of them to one half, the case with the largest hash goes to the untuned half, or the one with the
    smallest to the tuned half.
    """
    from nndoctor.zoo.halves import BLIND, SEEN

    halved = [
        replace(case, tuned=case.name in SEEN or (case.name not in BLIND and hash_of(case.name) % 2 == 0))
        for case in cases
    ]
    for diagnosis in sorted({case.diagnosis for case in halved if case.diagnosis is not None}):
        kin = sorted((case for case in halved if case.diagnosis == diagnosis), key=lambda case: hash_of(case.name))
        moved = _moved(kin)
        if moved is not None:
            halved[halved.index(moved)] = replace(moved, tuned=not moved.tuned)
    return halved


def _moved(kin: Sequence[Case]) -> Case | None:
    """The one of a diagnosis's cases, in the order of their hashes, that has to change its half."""
    from nndoctor.zoo.halves import BLIND, SEEN

    movable = [case for case in kin if case.name not in SEEN | BLIND]
    if len(kin) < 2 or len({case.tuned for case in kin}) > 1 or not movable:
        return None
    return movable[-1] if kin[0].tuned else movable[0]


def hash_of(name: str) -> int:
    """A number that depends on `name` alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def case_named(name: str) -> Case:
    """The case called `name`; a diagnosis names its first case.

    Raises:
        UnknownCase: with the names there are.
    """
    cases = all_cases()
    for case in cases:
        if case.name == name:
            return case
    for case in cases:
        if case.diagnosis == name:
            return case
    names = [case.name for case in cases]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:8])} and {len(names) - 8} more (nndoctor demo --list)"
    raise UnknownCase(f"no case is called {name!r}; {hint}there are {listed}")
