"""What installed packages bring along: rulesets, probes and signals, listed without importing anything of theirs.

A package publishes entry points in the groups ``nndoctor.rulesets``, ``nndoctor.probes`` and ``nndoctor.signals``:

    [project.entry-points."nndoctor.rulesets"]
    acme = "acme_rules:RULESETS"         # a folder or file; or just "acme_rules", whose folder holds ruleset.yaml
    [project.entry-points."nndoctor.probes"]
    acme-routing = "acme_rules.probes:RoutingProbe"    # called without arguments, gives a probe
    [project.entry-points."nndoctor.signals"]
    acme = "acme_rules.signals:SIGNALS"  # a sequence of Signal; import no torch there, rules are checked with it

Whatever fails in there is told with the name of its package, and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nndoctor.signals import CATALOGUE, Catalogue, Signal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

RULESETS, PROBES, SIGNALS = "nndoctor.rulesets", "nndoctor.probes", "nndoctor.signals"
GROUPS = (RULESETS, PROBES, SIGNALS)


class PackagedError(Exception):
    """Something that an installed package brings cannot be used: which, of which package, and why."""


@dataclass(frozen=True, slots=True)
class Packaged:
    """One thing that an installed package brings: its name, whose it is, and where its object lies."""

    name: str
    package: str
    group: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.name} of {self.package}"

    def load(self) -> Any:
        """The object. Raises PackagedError where importing it fails, whatever the reason."""
        try:
            return self.entry.load()
        except Exception as error:
            raise self.error(f"importing {self.entry.value} failed: {type(error).__name__}: {error}") from error

    def error(self, why: str) -> PackagedError:
        return PackagedError(f"{self.group.removeprefix('nndoctor.').removesuffix('s')} {self}: {why}")


def packaged(group: str) -> tuple[Packaged, ...]:
    """What installed packages publish in `group`, by name; nothing of theirs is imported."""
    from importlib.metadata import entry_points  # takes as long to import as all else that a short command needs

    found = []
    for entry in entry_points(group=group):
        owner = entry.dist
        package = f"{owner.name} {owner.version}" if owner is not None else "an unnamed package"
        found.append(Packaged(entry.name, package, group, entry))
    return tuple(sorted(found, key=lambda item: (item.name, item.package)))


def packaged_ruleset(name: str) -> Any:
    """The file or folder of the ruleset that a package publishes as `name`: a path, or the module it lies in.

    Raises:
        KeyError: no package publishes one of that name.
        PackagedError: the package that does cannot be imported, or several do.
    """
    found = [item for item in packaged(RULESETS) if item.name == name]
    if not found:
        raise KeyError(name)
    if len(found) > 1:
        raise found[0].error(f"{' and '.join(item.package for item in found)} both publish it; uninstall one of them")
    place = found[0].load()
    if isinstance(place, ModuleType):
        folders = list(getattr(place, "__path__", ()))
        if not folders:
            raise found[0].error(f"{place.__name__} is a module; expected a package, whose folder holds the rules, or a path")
        return folders[0]
    return place


def packaged_signals() -> tuple[tuple[Signal, ...], tuple[str, ...]]:
    """The signals that installed packages declare, and what was wrong with the rest, one sentence each."""
    signals: dict[str, Signal] = {}
    problems = []
    for item in packaged(SIGNALS):
        try:
            for signal in _signals_of(item):
                if signal.name in CATALOGUE or signal.name in signals:
                    problems.append(str(item.error(f"{signal.name!r} is the name of another signal already")))
                else:
                    signals[signal.name] = signal
        except PackagedError as error:
            problems.append(str(error))
    return tuple(signals.values()), tuple(problems)


def full_catalogue(published: Iterable[Signal] = ()) -> Catalogue:
    """Every signal that rules may name here: the catalogue, what installed packages add to it, what a run's subscribers published."""
    more = {signal.name: signal for signal in (*packaged_signals()[0], *published) if signal.name not in CATALOGUE}
    return CATALOGUE.extended(more.values()) if more else CATALOGUE


def _signals_of(item: Packaged) -> Iterable[Signal]:
    declared = item.load()
    if not isinstance(declared, (list, tuple)) or not all(isinstance(signal, Signal) for signal in declared):
        raise item.error(f"expected a list of nndoctor.Signal at {item.entry.value}, got {type(declared).__name__}")
    return declared
