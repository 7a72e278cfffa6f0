"""Probes that installed packages publish as entry points; one that cannot be made is named like one that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from nndoctor.discovery import ModelIndex
from nndoctor.packaged import PROBES, Packaged, PackagedError, full_catalogue, packaged
from nndoctor.probes.base import CONTRACT, Measured, Probe
from nndoctor.signals import CATALOGUE, Catalogue
from nndoctor.subscribers import Subscriber

_NEEDED = ("name", "tier", "signals", "attach", "begin_step", "collect", "detach")


class BrokenProbe:
    """Stands for a probe that could not be made: it fails when it is attached, so that the doctor names it."""

    tier = CONTRACT
    signals: tuple[str, ...] = ()

    def __init__(self, name: str, error: PackagedError) -> None:
        self.name, self._error = name, error

    def attach(self, index: ModelIndex) -> None:
        raise self._error

    def begin_step(self, step: int, sampled: bool) -> None: ...

    def collect(self) -> Mapping[str, Measured]:
        return {}

    def detach(self) -> None: ...


class CheckedProbe:
    """A package's probe, of which a signal that nobody declared is refused before it reaches the history."""

    def __init__(self, probe: Probe, catalogue: Catalogue) -> None:
        self._probe, self._catalogue = probe, catalogue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probe, name)

    def collect(self) -> Mapping[str, Measured]:
        measured = self._probe.collect()
        unknown = [name for name in measured if name not in self._catalogue]
        if unknown:
            raise ValueError(f"it measured {unknown[0]!r}, a signal that is declared nowhere")
        return measured


def packaged_probes() -> list[Probe]:
    """A probe for each that an installed package publishes, in order of name."""
    items = packaged(PROBES)
    catalogue = full_catalogue() if items else CATALOGUE
    return [probe for probe in (_made(item, catalogue) for item in items) if probe is not None]


def packaged_subscribers() -> list[Subscriber]:
    """The subscribers that installed packages publish beside their probes; those that cannot be made are told as probes are."""
    found = []
    for item in packaged(PROBES):
        try:
            made = _object(item)
        except PackagedError:
            continue
        if isinstance(made, Subscriber):
            made.name = made.name or item.name
            found.append(made)
    return found


def _object(item: Packaged) -> Any:
    """The probe or subscriber of an entry point: itself, or what its maker makes. Raises PackagedError."""
    maker = item.load()
    if isinstance(maker, Subscriber):
        return maker
    try:
        return maker()
    except Exception as error:
        raise item.error(f"making it failed: {type(error).__name__}: {error}") from error


def _made(item: Packaged, catalogue: Catalogue) -> Probe | None:
    try:
        probe = _object(item)
        if isinstance(probe, Subscriber):
            return None
        missing = [name for name in _NEEDED if not hasattr(probe, name)]
        if missing:
            raise item.error(f"{type(probe).__name__} is no probe: it has no {', '.join(missing)}")
        unknown = [name for name in probe.signals if name not in catalogue]
        if unknown:
            raise item.error(f"its signal {unknown[0]!r} is declared nowhere; publish it as an entry point of nndoctor.signals")
        return cast(Probe, CheckedProbe(probe, catalogue))
    except PackagedError as error:
        return BrokenProbe(item.name, error)
