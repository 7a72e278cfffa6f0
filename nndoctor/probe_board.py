"""The probes of one doctor: who hears which event, what their work costs, who is dismissed because it raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import thread_time
from typing import Any, TypeVar

from nndoctor.probes.base import CONTRACT, EVENTS, Measured, Probe, sleeps

Listener = tuple[Probe, Callable[..., None]]
AnyProbe = TypeVar("AnyProbe", bound=Probe)


class ProbeBoard:
    """Tells the probes of events, measures what that costs, and takes off those that raise.

    Args:
        probes: in the order in which they are told.
        failed: told of what a probe raised, as (its name, the error); it may raise itself, which strict mode does.

    Attributes:
        quiet: nothing is sampled and nobody but those that do not sleep is told.
        sampled: tiers that measure on the step under way.
        cpu: seconds of thread CPU time by tier, of the step under way.
        news: a probe that was told on a quiet step has something to tell.
    """

    def __init__(self, probes: Sequence[Probe], failed: Callable[[str, Exception], None]) -> None:
        self.probes = list(probes)
        self.quiet = False
        self.sampled: frozenset[str] = frozenset()
        self.cpu: dict[str, float] = {}
        self.news = False
        self._failed = failed
        self._listeners: dict[str, list[Listener]] = {}
        self.awake: dict[str, list[Listener]] = {}
        self.contract_probes: list[Probe] = []
        self._active: list[Probe] = []
        self._kept_awake: tuple[Probe, ...] = ()
        self._layers_rest = False
        self._sleepers: tuple[object, ...] = ()
        self.listen()

    def __contains__(self, probe: Probe) -> bool:
        return probe in self.probes

    def first(self, kind: type[AnyProbe]) -> AnyProbe | None:
        """The probe of that class, None once it was dismissed."""
        return next((probe for probe in self.probes if isinstance(probe, kind)), None)

    def add(self, probe: Probe) -> None:
        """Take on one more probe, which is told after all others."""
        self.probes.append(probe)
        self.listen()

    def listen(self) -> None:
        """Find out which probe hears which event, and which of them even on quiet steps."""
        self._listeners, self.awake = {}, {}
        self._active = [p for p in self.probes if not (self._layers_rest and getattr(p, "hooks_layers", False))]
        for event in EVENTS:
            hears = [(probe, method) for probe in self._active if (method := getattr(probe, event, None)) is not None]
            awake = [(probe, method) for probe, method in hears if self._stays_awake(probe, event)]
            if hears:
                self._listeners[event] = hears
            if awake:
                self.awake[event] = awake
        self.contract_probes = [probe for probe in self._active if probe.tier == CONTRACT]
        self._sleepers = self._who_sleeps()

    def keep_awake(self, *probes: Probe) -> None:
        """Tell these of every event of every step, whether their tier is sampled or not."""
        self._kept_awake = probes
        self.listen()

    def _stays_awake(self, probe: Probe, event: str) -> bool:
        return probe in self._kept_awake or (probe.tier == CONTRACT and not sleeps(probe, event))

    def _who_sleeps(self) -> tuple[object, ...]:
        return tuple(getattr(probe, "sleeps", False) for probe in self.contract_probes)

    # ------------------------------------------------------------------ one step

    def begin(self, following: int, before: frozenset[str]) -> None:
        """Let the probes prepare for step number `following`; `before` was sampled on the step that ended."""
        for probe in tuple(self._active):
            wanted = bool(self.sampled) if probe.tier == CONTRACT else probe.tier in self.sampled or probe in self._kept_awake
            if wanted or probe.tier == CONTRACT or probe.tier in before:
                self.measure(probe, partial(probe.begin_step, following, wanted))

    def fall_asleep(self) -> None:
        """Quiet steps begin: some probes only know by now that they can do without them."""
        self.quiet = True
        if self._who_sleeps() != self._sleepers:
            self.listen()

    def tell(self, event: str, *args: object) -> None:
        """Tell the probes: those of the contract tier always, the others on steps on which they are sampled."""
        if self.quiet:
            if event in self.awake:
                self.tell_those_awake(event, *args)
            return
        for probe, hears in self._listeners.get(event, ()):
            if probe.tier == CONTRACT:
                self.ask(probe, hears, *args)
            elif probe.tier in self.sampled:
                self.measure(probe, partial(hears, *args))

    def tell_those_awake(self, event: str, *args: object) -> None:
        """Tell those that do not sleep; their news end the quiet steps."""
        for probe, hears in tuple(self.awake[event]):
            self.ask(probe, hears, *args)
            if getattr(probe, "news", False):
                self.news = True

    def ask(self, probe: Probe, hears: Callable[..., None], *args: object) -> None:
        """Call a method of a probe, unmeasured; dismiss the probe if it raises."""
        try:
            hears(*args)
        except Exception as error:
            self.dismiss(probe, error)

    def measure(self, probe: Probe, action: Callable[[], object]) -> None:
        """Run one action of a probe, book its CPU time to its tier, dismiss it if it raises."""
        if probe not in self.probes:
            return
        begun = thread_time()
        try:
            action()
        except Exception as error:
            self.dismiss(probe, error)
        self.cpu[probe.tier] = self.cpu.get(probe.tier, 0.0) + thread_time() - begun

    def collect(self, tell_facts: Callable[[Mapping[str, Any]], None]) -> dict[str, Measured]:
        """What the sampled tiers have measured, and what contract probes have to tell.

        Args:
            tell_facts: gets at once what a probe with news knows of the run.
        """
        measured: dict[str, Measured] = {}
        for probe in tuple(self._active):
            if probe.tier in self.sampled:
                self.measure(probe, lambda probe=probe: measured.update(probe.collect()))  # type: ignore[misc]
        for probe in self.contract_probes:
            news = getattr(probe, "news", False)
            if self.sampled or news:
                self.news = True
                self.measure(probe, lambda probe=probe: measured.update(probe.collect()))  # type: ignore[misc]
                if news and (told := getattr(probe, "facts", None)) is not None:
                    self.measure(probe, lambda told=told: tell_facts(told()))  # type: ignore[misc]
        return measured

    @property
    def has_news(self) -> bool:
        """Whether any contract probe has something to tell."""
        return any(getattr(probe, "news", False) for probe in self.contract_probes)

    # ------------------------------------------------------------------ leaving

    def dismiss(self, probe: Probe, error: Exception) -> None:
        """A probe raised: it is taken off and named, the training goes on."""
        if probe in self.probes:
            self.probes.remove(probe)
            self.listen()
        self._failed(probe.name, error)
        self._let_go(probe)

    def leave_layers(self) -> None:
        """Take off the probes that have hooks inside of the models."""
        for probe in tuple(self.probes):
            leave = getattr(probe, "leave_layers", None)
            if leave is not None:
                self.ask(probe, leave)
            elif getattr(probe, "hooks_layers", False):
                self._let_go(probe)
                self.probes.remove(probe)
        self.listen()

    def rest_layers(self, following: int) -> None:
        """Take the hooks inside of the models off until ``visit_layers``; step `following` comes next."""
        for probe in tuple(self._active):
            leave = getattr(probe, "leave_layers", None)
            if leave is not None:
                self.ask(probe, leave)
            elif getattr(probe, "hooks_layers", False):
                self.ask(probe, probe.begin_step, following, False)
        self._layers_rest = True
        self.listen()

    def visit_layers(self) -> None:
        """The models run eagerly on the step that begins: what hooks them measures again."""
        self._layers_rest = False
        for probe in tuple(self.probes):
            back = getattr(probe, "return_to_layers", None)
            if back is not None:
                self.ask(probe, back)
        self.listen()

    def detach(self) -> None:
        """Let all of them go."""
        for probe in tuple(self.probes):
            self._let_go(probe)
        self.probes.clear()

    def _let_go(self, probe: Probe) -> None:
        try:
            probe.detach()
        except Exception as error:
            self._failed(f"detaching {probe.name}", error)
