"""What a case of the zoo is: a training run with one planted ailment beside the same run without it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import nn

from nndoctor.zoo.trainer import Observer, Trained

Variant: TypeAlias = Literal["sick", "cured", "healthy"]


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
        remedies: what a fix may set (``lr``) and the keyword of the sick run that it stands for (``rate``), so that
            the doctor's own values can be tried.
        source: a report of the same mistake in real code.
    """

    name: str
    diagnosis: str | None
    description: str
    sick: Train | None = None
    cured: Train | None = None
    healthy: Train | None = None
    place: tuple[str, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        runs = {variant for variant in ("sick", "cured", "healthy") if getattr(self, variant) is not None}
        expected = {"healthy"} if self.diagnosis is None else {"sick", "cured"}
        if runs != expected:
            raise ValueError(
                f"case {self.name!r}: expected the runs {', '.join(sorted(expected))} "
                f"for diagnosis {self.diagnosis}, got {', '.join(sorted(runs)) or 'none'}"
            )

    def treated(self, settings: Mapping[str, float | str]) -> Train | None:
        """The sick run with the values of a fix instead of its own; None where the case cannot take all of them."""
        if self.sick is None or not settings or not set(settings) <= set(self.remedies):
            return None
        return partial(self.sick, **{self.remedies[name]: value for name, value in settings.items()})

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
    cases = [case for module in modules for case in vars(module).values() if isinstance(case, Case)]
    return tuple(sorted(cases, key=lambda case: (case.diagnosis is None, case.diagnosis or "", case.name)))


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
    raise UnknownCase(f"no case is called {name!r}; {hint}there are {', '.join(names)}")
