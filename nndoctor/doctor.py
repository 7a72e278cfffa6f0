"""``wrap`` and ``Doctor``: attach to a training loop, follow its steps, let go again.

The only file that knows all parts. Nothing needs to be called inside the loop: a step is an optimizer
step, seen by the optimizer's own hooks; the loss is the scalar handed to ``backward()``.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from math import isfinite
from pathlib import Path
from time import perf_counter, thread_time
from types import TracebackType
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from nndoctor.budget import Budget
from nndoctor.discovery import (
    DROPOUTS,
    NORMALISATIONS,
    ModelIndex,
    Models,
    Optimizers,
    optimizers_by_name,
    unwrap,
)
from nndoctor.findings import Diagnosis, Finding, ProbeFailure, Severity, StopTraining
from nndoctor.frames import RAW_LOSSES, Payload, Stretch, pack
from nndoctor.interpose import PROCESS, outside_of_compiled_code
from nndoctor.loop_state import LoaderState, Rates, Speed, settings
from nndoctor.packaged import full_catalogue
from nndoctor.passes import ModelPasses
from nndoctor.places import Places
from nndoctor.probe_board import ProbeBoard
from nndoctor.probes.activations import ActivationProbe
from nndoctor.probes.base import CONTRACT, Measured, Probe
from nndoctor.probes.batches import BatchProbe
from nndoctor.probes.built_in import further_probes
from nndoctor.probes.context import ContextProbe
from nndoctor.probes.data import DataProbe
from nndoctor.probes.graph import GraphProbe
from nndoctor.probes.inside import InsideActivationProbe
from nndoctor.probes.layer_times import STAMP_SECONDS, LayerTimesProbe
from nndoctor.probes.loop import BACKWARDS_WITHOUT_STEP, LoopContracts
from nndoctor.probes.machine import Busy
from nndoctor.probes.packaged import packaged_subscribers
from nndoctor.probes.parameters import ParameterProbe
from nndoctor.probes.subscriptions import SubscriberProbe, undisturbed
from nndoctor.quiet import Notes, plain_row
from nndoctor.ranks import own_folder, rank
from nndoctor.record import RecordWriter, RunFacts, new_run_folder
from nndoctor.responses import OnFinding, Responses, Wishes, actions_of, save_checkpoint
from nndoctor.rules import Judge, load_rulesets
from nndoctor.signals import OBSERVED_PREFIX, PUBLISHED, Frame, Targets, checked_context
from nndoctor.sinks import active_sinks
from nndoctor.sinks.base import Sink
from nndoctor.sinks.sender import Sender
from nndoctor.subscribers import Run, Subscriber
from nndoctor.window import Window, at_once, note_clipping, the_scalar, together, worst
from nndoctor.worker import Pace, Worker

STRIKES = 3
"""Failures of the doctor's own event handlers after which it lets go of the training altogether."""

BATCH = 64
BATCH_SECONDS = 0.5
"""Steps on which nothing was sampled travel to the doctor's thread in batches of at most this many or this long."""

MEMORY_SECONDS = 0.05
"""Seconds between two looks at the memory of the process; opening the file costs a tenth of a millisecond."""

MEMORY_STEPS = 10
"""While every step is measured, there is a look at every so many steps however short they are: a slope needs them."""

ONLY_TIMES = frozenset({"times"})

SKIPS_PER_FRAME = 10
"""Steps that a gradient scaler skipped in a row after which a frame is closed: a run that never steps is judged too."""

OBSERVED_NAMES = {"val_loss": "val.loss", "accuracy": "val.accuracy", "val_accuracy": "val.accuracy", "val_acc": "val.accuracy"}

LossFunction: TypeAlias = Callable[..., torch.Tensor] | nn.Module

_attached: WeakSet[Doctor] = WeakSet()
"""Doctors that are attached in this process, so that wrapping a model twice gives the same one."""


def attached_doctors() -> tuple[Doctor, ...]:
    """The doctors that are attached in this process at the moment."""
    return tuple(doctor for doctor in _attached if not doctor.closed)


def wrap(
    model: Models,
    optimizer: Optimizers,
    loss_fn: LossFunction | None = None,
    *,
    loader: object | None = None,
    rules: Sequence[str | Path] | str | Path = ("core",),
    run_dir: str | Path | None = None,
    ui: str = "auto",
    budget: float = 0.01,
    cadence: int | None = None,
    strict: bool = False,
    name: str | None = None,
    context: Mapping[str, bool] | None = None,
    on_finding: OnFinding | None = None,
    on_stop: OnFinding | None = None,
    checkpoint_at: Severity | str | None = None,
    sinks: Sequence[Sink] | Literal["auto", "off"] = "auto",
    subscribers: Sequence[Subscriber] = (),
    compiled_activations: bool = False,
    eager_every: int | None = None,
    time_every_step: bool = False,
) -> Doctor:
    """Attach the doctor to a training loop; nothing else needs to be called inside the loop.

    Args:
        model: the module that is trained, or several as list or dict.
        optimizer: the optimizer whose ``step()`` the loop calls, or several as list or dict.
        loss_fn: the loss, for the facts of the run; the doctor finds the loss value without it.
        loader: the training loader, where it is iterated before ``wrap`` or is no DataLoader.
        rules: rulesets to judge by: ``core``, a path, ``package:name``.
        run_dir: folder of the run record; default ``.nndoctor/runs/<time>-<name>``. In a distributed training it is that
            of the first process; the others take ``run_dir-rank1`` and so on beside it.
        ui: ``auto``, ``footer``, ``lines``, ``notebook`` or ``off``.
        budget: share of the step time that the doctor may cost.
        cadence: measure every `cadence`-th step instead of by budget (reproducible runs).
        strict: let the doctor's own failures raise (for tests); otherwise they are named in the report.
        name: of the run; default the class of the model.
        context: what the run is or is not, where the doctor takes it for something else: ``{"gan": False, "rl": True}``.
        on_finding: called with each finding when it begins, in the doctor's own thread: it may send or write, but must
            leave the model alone.
        on_stop: called at the end of a step with the finding whose rule says ``action: stop``; without it,
            ``nndoctor.StopTraining`` is raised there.
        checkpoint_at: severity from which a finding, when it begins, has models and optimizers saved at the end of a
            step, in the run's folder under ``checkpoints``; the first three only.
        sinks: trackers that get main curves and findings; ``auto``: those in which the script has a run under way.
        subscribers: measurements of your own, or of ``nndoctor.metrics``; see ``nndoctor.Subscriber``.
        compiled_activations: measure activations inside of a model that ``torch.compile`` compiles later, too. What is
            compiled is another graph then, so its rounding may differ from that without the doctor.
        eager_every: let every so many-th step of a compiled model run uncompiled, with layer times and everything else
            that hooks measure. Its rounding and its memory are those of the eager model.
        time_every_step: record the layer times of every step, not of the measured ones alone. That costs up to 5 % of a
            step of 8 ms with 12 layers, less of longer ones, and a kilobyte and a half of the record each.

    Returns:
        The doctor, also a context manager. Wrapping a model that is already wrapped returns its doctor.

    Raises:
        TypeError: `model`, `optimizer` or a subscriber is not what it should be.
        RulesetError: a ruleset has mistakes; all of them are listed.
        ValueError: `budget`, `cadence` or `eager_every` is out of range, `context` names a kind, `checkpoint_at` a severity or a subscriber
            a topic that there is not; they are listed.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model, loss_fn = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), nn.MSELoss()
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> with wrap(model, optimizer, loss_fn, ui="off") as doctor:
        ...     for step in range(20):
        ...         inputs = torch.randn(32, 8)
        ...         loss = loss_fn(model(inputs), inputs.sum(dim=1, keepdim=True).sin())
        ...         loss.backward()
        ...         optimizer.step()  # and nobody clears the gradients
        >>> [finding.diagnosis for finding in doctor.diagnosis().root_causes]
        ['missing-zero-grad']
    """
    index = ModelIndex(model)
    optimizers = optimizers_by_name(optimizer)
    said = checked_context(context or {})
    severity = Severity.parse(checkpoint_at) if isinstance(checkpoint_at, str) else checkpoint_at
    if os.environ.get("NNDOCTOR", "").strip().lower() in {"0", "off", "false", "no"}:
        return Doctor._switched_off(index)
    roots = {id(unwrap(root)) for root in index.roots.values()}
    for doctor in tuple(_attached):
        if doctor._watches(roots):
            for key, extra in optimizers.items():
                doctor._add_optimizer(key, extra)
            doctor.subscribe(*subscribers)
            return doctor
    options = _Options(
        rules=(rules,) if isinstance(rules, (str, Path)) else tuple(rules),
        run_dir=own_folder(Path(run_dir), rank()) if run_dir is not None else None,
        ui=ui,
        budget=Budget(budget, cadence),
        inside=compiled_activations,
        eager_every=_at_least_two(eager_every),
        time_every_step=time_every_step,
        strict=strict,
        name=name or "-".join(type(unwrap(root)).__name__ for root in index.roots.values()).lower(),
        context=said,
        wishes=Wishes(on_finding, on_stop, severity),
        sinks=sinks,
        subscribers=tuple(subscribers),
    )
    return Doctor(index, optimizers, loss_fn, loader, options)


@dataclass(frozen=True)
class _Options:
    rules: tuple[str | Path, ...]
    run_dir: Path | None
    ui: str
    budget: Budget
    inside: bool
    eager_every: int | None
    time_every_step: bool
    strict: bool
    name: str
    context: Mapping[str, bool]
    wishes: Wishes
    sinks: Sequence[Sink] | Literal["auto", "off"]
    subscribers: tuple[Subscriber, ...]


class Doctor:
    """Follows one training run; made by ``wrap``.

    Use it as a context manager, or call ``close`` at the end; without either it closes when the
    interpreter ends.

    Attributes:
        run_dir: folder of the run's record.
        facts: what the run is: model, optimizer, loss, versions, what it was taken for.
        step: optimizer steps so far.
        enabled: False under ``NNDOCTOR=0``; then nothing is measured, and every call does nothing.
        closed: whether the training was let go of.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> with wrap(model, torch.optim.SGD(model.parameters()), ui="off") as doctor:
        ...     doctor.observe(val_loss=0.31, accuracy=0.9)
        ...     doctor.diagnosis().worst is None
        True
    """

    def __init__(
        self,
        index: ModelIndex,
        optimizers: Mapping[str, torch.optim.Optimizer],
        loss_fn: LossFunction | None,
        loader: object | None,
        options: _Options,
    ) -> None:
        self.enabled = True
        self.closed = False
        self.step = 0
        self.strict = options.strict
        self.name = options.name
        self._index = index
        self._loss_fn = loss_fn
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._budget = options.budget
        self._handles: list[RemovableHandle] = []
        self._failures: list[ProbeFailure] = []
        self._strikes = 0
        self._judged = 0.0
        self._thread: int | None = None
        self._process = os.getpid()
        self._scaled: tuple[int, torch.Tensor | float] | None = None
        self._inside: dict[str, float] = {}
        self._loader = LoaderState(loader)
        self._rates = Rates(options.context)
        self._following: dict[int, int] = {}
        self._last_stepped: int | None = None
        self._previous_optimizer: int | None = None
        self._look_closely = False
        self._memory_read = 0.0
        self._busy = Busy()
        self._broken_losses = 0
        self._sampled_before: frozenset[str] = frozenset()
        self._targets: Targets | None = None
        self._speed = Speed()
        self._mode_matters: list[nn.Module] | None = None
        self._skipped_total = 0
        self._pending: list[Payload | Stretch] = []
        self._roots = tuple(index.roots.values())
        self._loud = float("inf")
        """The loss above which a quiet step is no longer one."""
        self._notes = Notes(BATCH, BATCH_SECONDS)
        self._taken_for: list[str] = []

        catalogue = full_catalogue()
        self._subscribed = SubscriberProbe(self._loader, self._publish, self._probe_failed)
        brought, unusable = self._subscribed.acceptable(packaged_subscribers(), catalogue)
        subscribers = (*brought, *options.subscribers)
        published = self._subscribed.check(subscribers, catalogue)
        catalogue = catalogue.extended(published)
        ruleset = load_rulesets(options.rules, catalogue).for_judging()
        started = time.time()
        self.run_dir = options.run_dir if options.run_dir is not None else new_run_folder(self.name, started)
        self._contracts = LoopContracts()
        self._parameters = ParameterProbe()
        self._activations = InsideActivationProbe() if options.inside else ActivationProbe()
        index.looks_inside_compiled = options.inside or options.eager_every is not None
        self._times = LayerTimesProbe()
        self._graph = GraphProbe()
        self._data = DataProbe()
        self._context = ContextProbe(options.context, loader)
        # The times come first and last, so that what the other probes do in between has a tile of its own.
        probes: list[Probe] = [
            self._times.opening, self._parameters, self._activations, self._graph, self._data, self._context, *further_probes(), self._times,
        ]  # fmt: skip
        self._board = ProbeBoard(probes, self._probe_failed)
        self._passes = ModelPasses(
            index, self._board, self._budget, options.eager_every, self._forward_begins, self._forward_ended, following=lambda: self.step + 1
        )
        self._times_every_step = options.time_every_step
        if options.time_every_step:
            self._board.keep_awake(self._times.opening, self._times)
        self._batches = self._board.first(BatchProbe)
        self._places = Places()
        for key, optimizer in optimizers.items():
            self._register(key, optimizer)
        self.facts: dict[str, Any] = self._first_facts(options)
        self.facts[PUBLISHED] = [asdict(signal) for signal in published]
        writer = RecordWriter(
            self.run_dir,
            RunFacts(self.name, started, dict(self.facts), tuple(str(rule) for rule in options.rules)),
            index.targets(),
        )
        display = _choose_display(options.ui)
        self._footer = type(display).__name__ == "FooterDisplay"
        self._worker = Worker(Judge(ruleset, index.targets(), catalogue), writer, display, self.name, self._worker_failed)
        self._worker.facts = self.facts
        self._worker.show_also(published)
        self._responses = Responses(options.wishes, actions_of(ruleset.rules), self._save_checkpoint, self._worker_failed)
        self._look_for_sinks = options.sinks == "auto"
        self._sender = Sender(self._worker_failed)
        self._send_to(() if isinstance(options.sinks, str) else options.sinks)
        self._attach()
        for name, error in unusable:
            self._note_failure(name, error)
        if subscribers:
            self._seat(subscribers)

    @staticmethod
    def _switched_off(index: ModelIndex) -> Doctor:
        """A doctor that does nothing, for ``NNDOCTOR=0``."""
        doctor = object.__new__(Doctor)
        doctor.enabled = False
        doctor.closed = True
        doctor.step = 0
        doctor.facts = {"switched_off": "NNDOCTOR=0 in the environment"}
        doctor.run_dir = Path()
        doctor._roots = tuple(index.roots.values())
        return doctor

    # ------------------------------------------------------------------ what users call

    def observe(self, **values: float | torch.Tensor) -> None:
        """Hand over anything else worth judging: ``val_loss``, ``accuracy``, or a name of your own.

        ``val_loss`` becomes the signal ``val.loss``, ``accuracy`` ``val.accuracy``, any other name
        ``observed.<name>``. A value that is no number is refused with a TypeError in strict mode and
        noted in the report otherwise.

        Raises:
            TypeError: in strict mode, for a value that is no number.
        """
        if not self.enabled or self.closed:
            return
        try:
            frame = Frame(
                max(self.step, 1),
                time.time(),
                self._loader.epoch,
                {OBSERVED_NAMES.get(name, OBSERVED_PREFIX + name): _number(name, value) for name, value in values.items()},
            )
            self._flush()
            self._worker.put([frame])
        except Exception as error:
            self._failed("observe", error)

    def subscribe(self, *subscribers: Subscriber) -> None:
        """Let `subscribers` measure from the next step on; see ``nndoctor.Subscriber``.

        Rules can use what is published by subscribers that ``nndoctor.wrap`` was given.

        Raises:
            TypeError: one of them is no subscriber.
            ValueError: one of them asks for a topic that there is not, or publishes under a name that means something else.
        """
        if not self.enabled or self.closed or not subscribers:
            return
        history = self._worker.judge.history
        published = self._subscribed.check(subscribers, history.catalogue)
        history.catalogue = history.catalogue.extended(published)
        self.facts[PUBLISHED] = [*self.facts[PUBLISHED], *(asdict(signal) for signal in published)]
        if self._worker.writer is not None:
            self._worker.writer.facts({PUBLISHED: self.facts[PUBLISHED]})
        self._worker.show_also(published)
        self._seat(subscribers)

    @property
    def is_probing(self) -> bool:
        """Whether a block of ``probing`` is under way."""
        return self.enabled and self._subscribed.is_probing

    @contextmanager
    def probing(self, tag: str | None = None) -> Iterator[None]:
        """A block in which the models can be run on anything without a trace: in evaluation mode, without gradients.

        Modes of all their parts, buffers and random generators are put back afterwards, also on an error; nothing that
        happens inside counts for the diagnosis. Subscribers with this `tag` hear the passes; without one nobody does.
        """
        with ExitStack() as stack:
            stack.enter_context(undisturbed([unwrap(root) for root in self._roots]))
            if self.enabled and not self.closed:
                stack.enter_context(self._subscribed.probing(tag))
            yield

    def diagnosis(self) -> Diagnosis:
        """What is wrong with the run so far: verdict, findings with causes first, what was not examined."""
        if not self.enabled:
            return Diagnosis(facts=self.facts)
        if self.closed:
            return self._final
        self._flush()
        self._refresh_facts()
        return self._worker.diagnosis()

    def report(self, path: str | Path = "nndoctor-report.html") -> Path:
        """Write the report of the run so far; the suffix of `path` chooses html, json, md or txt.

        Returns:
            The path that was written. Under ``NNDOCTOR=0`` nothing is written, with a warning.

        Raises:
            ValueError: the suffix is none of these.
            OSError: the folder does not exist or cannot be written.
        """
        if not self.enabled:
            warnings.warn(f"{path} was not written: NNDOCTOR=0 switches the doctor off", stacklevel=2)
            return Path(path)
        from nndoctor.reporting import report_run  # heavy, and only wanted now

        if not self.closed:
            self.diagnosis()
            if self._worker.writer is not None:
                self._worker.writer.facts(self._worker.facts)
                self._worker.writer.flush()
        return report_run(self.run_dir, Path(path))

    def close(self, status: Literal["finished", "crashed"] = "finished") -> None:
        """Let go of the training: no hook, attribute or thread of the doctor remains. Safe to call twice."""
        if self.closed or os.getpid() != self._process:
            return
        if self._subscribed in self._board:
            self._guard("closing", self._subscribed.training_ends)
        # A scaler that refuses a call ends the loop before the step that would have told it.
        if self._window.stepped or self._board.has_news:
            self._guard("notes", self._flush)  # the quiet steps before it come first
            self._guard("closing", self._close_frame)
        self._flush()
        self.closed = True
        self._refresh_facts()
        self._detach()
        if self._sender.sinks:
            self._sender.close(self._worker.diagnosis())
        self._final = self._worker.close(status)

    @property
    def verdict_shown(self) -> bool:
        """Whether the panel's last lines told the verdict when the doctor was closed."""
        return self.enabled and self.closed and self._footer

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of CPU time spent so far, by tier of probes and task of the doctor's own thread."""
        if not self.enabled:
            return {}
        return {**self._budget.spent, **self._worker.seconds}

    def __enter__(self) -> Doctor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        meant = (KeyboardInterrupt, SystemExit, StopTraining)
        self.close("crashed" if kind is not None and not issubclass(kind, meant) else "finished")

    def joined_at(
        self, loss: object, loader: object | None, served: int, scaled: tuple[object, object] | None = None
    ) -> None:
        """Take part in a backward that had begun when the doctor was attached, and in the epoch it belongs to.

        Args:
            loss: what was handed to ``backward()``.
            loader, served: the loader in use and how many batches of the epoch it has given.
            scaled: the last loss that a gradient scaler multiplied, before and after.
        """
        if not self.enabled or self.closed:
            return
        if loader is not None:
            self._loader.joined(loader, served)
        if scaled is not None:
            self.loss_scaled(*scaled)
        self._guard("joining", lambda: self.backward_begins(loss))

    # ------------------------------------------------------------------ subscribers

    def _seat(self, subscribers: Sequence[Subscriber]) -> None:
        """Let `subscribers`, which were checked, listen from the next step on."""
        probe = self._subscribed
        if probe not in self._board:
            probe.attach(self._index)
            self._board.add(probe)
        optimizers, models = self._optimizers, self._index.roots
        run = Run(models, optimizers, self.run_dir, self._loss_fn, self.probing, self._index.named_parameters)
        self._guard("subscribers", lambda: probe.subscribe(subscribers, run, self.step))
        self._targets = None  # containers that somebody listens to have become targets

    def _publish(self, measured: Mapping[str, Measured]) -> None:
        """Hand over what was published between two steps; it counts to the one that is done."""
        self._flush()
        self._hand_over(pack(max(self.step, 1), time.time(), self._loader.epoch, self._current_targets(), measured), urgent=True)

    # ------------------------------------------------------------------ findings as they begin

    def _send_to(self, sinks: Sequence[Sink]) -> None:
        """Send to `sinks`, and to those of trackers in which a run is under way, if that was not forbidden."""
        again = self.step > 0  # what failed at the first look was told then
        found = active_sinks(self._worker_failed if not again else _forget) if self._look_for_sinks else ()
        self._sender.add((*sinks, *found))
        if self._sender.sinks:
            self._worker.on_frame = self._sender.frame
        if self._sender.sinks or self._responses.listens:
            self._worker.on_findings = self._findings_changed

    def _findings_changed(self, findings: Sequence[Finding]) -> None:
        """Tell those that want to know; called in the doctor's thread."""
        self._sender.findings(findings)
        self._responses.tell(findings)

    def _save_checkpoint(self, finding: Finding) -> None:
        save_checkpoint(self.run_dir / "checkpoints", finding, self.step, self._index.roots, self._optimizers)

    def _respond(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """What has to be done at the end of a step; the one hook that may raise, if a rule asks for it."""
        if threading.get_ident() == self._thread and not self.closed:
            self._responses.step_ended()

    # ------------------------------------------------------------------ attach and detach

    def _watches(self, roots: set[int]) -> bool:
        return not self.closed and roots == {id(unwrap(root)) for root in self._index.roots.values()}

    def _register(self, key: str, optimizer: torch.optim.Optimizer) -> None:
        self._optimizers[key] = optimizer
        self._context.optimizers = len(self._optimizers)
        self._contracts.register(optimizer)
        self._parameters.register(optimizer)
        self._times.register(key, optimizer)
        self._note_groups()

    def _note_groups(self) -> None:
        """Names the parameter groups of all optimizers, also those added in the middle of the run."""
        for key, optimizer in self._optimizers.items():
            self._index.add_groups(f"{key}[{i}]" for i in range(len(optimizer.param_groups)))

    def _add_optimizer(self, key: str, optimizer: torch.optim.Optimizer) -> None:
        if all(optimizer is not known for known in self._optimizers.values()):
            key = key if key not in self._optimizers else f"{key}{len(self._optimizers)}"
            self._register(key, optimizer)
            self._hook_optimizer(optimizer)

    def _attach(self) -> None:
        for probe in tuple(self._board.probes):
            try:
                probe.attach(self._index)
            except Exception as error:
                self._board.dismiss(probe, error)
        for optimizer in self._optimizers.values():
            self._hook_optimizer(optimizer)
        self._passes.attach(self._compiler_begins)
        PROCESS.add(self)
        _attached.add(self)
        atexit.register(self._at_exit)
        self._window = Window()
        self._begin_window()

    def _hook_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self._handles.append(optimizer.register_step_pre_hook(outside_of_compiled_code(self._before_step)))
        self._handles.append(optimizer.register_step_post_hook(outside_of_compiled_code(self._after_step)))
        if self._responses.touches_training:
            self._handles.append(optimizer.register_step_post_hook(outside_of_compiled_code(self._respond)))

    def _detach(self) -> None:
        PROCESS.remove(self)
        self._passes.detach()
        _attached.discard(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._board.detach()
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        error = getattr(sys, "last_exc", getattr(sys, "last_value", None))
        crashed = error is not None and not isinstance(error, StopTraining)
        self.close("crashed" if crashed else "finished")

    # ------------------------------------------------------------------ failures

    def _failed(self, where: str, error: Exception) -> None:
        """Remember a failure of ours; after three strikes let go of the training altogether."""
        if self.strict:
            raise error
        self._note_failure(where, error)
        self._strikes += 1
        if self._strikes >= STRIKES and not self.closed:
            self._detach()

    def _note_failure(self, where: str, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        self._failures.append(ProbeFailure(where, self.step, f"{type(error).__name__}: {error}{place}"))
        self._worker.probe_failures = tuple(self._failures)
        if self._worker.writer is not None:
            self._worker.writer.event(self.step, "probe-failure", f"{where}: {type(error).__name__}: {error}{place}")

    def _probe_failed(self, name: str, error: Exception) -> None:
        if self.strict:
            raise error
        self._batches = self._board.first(BatchProbe)
        self._note_failure(name, error)

    def _worker_failed(self, where: str, error: Exception) -> None:
        """A failure in the doctor's own thread cannot raise into the training; it is noted."""
        if len(self._failures) < 20:
            self._note_failure(where, error)

    def _guard(self, where: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._failed(where, error)

    # ------------------------------------------------------------------ events of the loop

    def _forward_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        if self._subscribed.is_probing or kwargs is None:  # None: taken off in the middle of this call
            return
        try:
            if not torch.is_grad_enabled():
                self._places.saw("evaluation")
                self._board.tell("evaluation_begins", root, args, kwargs)
                return
            window = self._window
            window.forwards += 1
            self._places.saw("forward")
            window.eval_forward = not root.training
            if not window.sampled:
                self._board.tell("forward_begins", root, args, kwargs)
                return
            begun = perf_counter()
            self._board.tell("forward_begins", root, args, kwargs)
            now = perf_counter()
            window.own += now - begun
            self._inside["forward"] = now
        except Exception as error:
            self._failed("forward hook", error)

    def _forward_ended(self, root: nn.Module, args: object, output: object) -> None:
        if self._subscribed.is_probing:
            return
        try:
            if not torch.is_grad_enabled():
                self._board.tell("evaluation_ended", root, output)
                return
            begun = self._inside.pop("forward", None)
            if begun is not None:
                now = perf_counter()
                self._passes.timed |= self._passes.compiled
                self._window.add("forward", now - begun)
                self._board.tell("forward_ended", root, output)
                self._inside["loss"] = perf_counter()
                self._window.own += self._inside["loss"] - now
            else:
                self._board.tell("forward_ended", root, output)
        except Exception as error:
            self._failed("forward hook", error)

    def backward_begins(self, loss: object) -> None:
        if self._thread is None:
            self._thread = threading.get_ident()  # the thread that trains need not be the one that wrapped
        if threading.get_ident() != self._thread:
            return
        begun = perf_counter()
        window = self._window
        if self._board.quiet:
            if self._stays_quiet(loss):
                window.own += perf_counter() - begun
                return
            self._wake()
        since_forward = self._inside.pop("loss", None)
        if since_forward is not None:
            window.add("loss", begun - since_forward)
        self._places.saw("backward")
        self._contracts.backward_begins()
        window.trained_in_eval = window.eval_forward if window.forwards else self._in_eval_mode()
        scalar = the_scalar(loss)
        if scalar is not None:
            self._note_loss(scalar)
            self._board.tell("backward_begins", scalar)
        self._loader.backward_seen()
        now = perf_counter()
        window.own += now - begun
        self._inside["backward"] = now

    def _note_loss(self, scalar: torch.Tensor) -> None:
        value = self._unscaled(scalar)
        self._window.losses.append(value)
        self._board.tell("loss_read", scalar, value)
        if isinstance(value, float) and not isfinite(value):
            self._broken_losses += 1
            # Where it came from is asked on the next step, whatever the cadence says.
            self._look_closely = self._broken_losses <= 3

    def _stays_quiet(self, loss: object) -> bool:
        """Note a backward on a step on which nothing is measured; False if it has to be followed like any other.

        It is on every step, with cold caches: few lines, few calls.
        """
        contracts = self._contracts
        if contracts.backwards_without_step + 1 >= BACKWARDS_WITHOUT_STEP:
            return False  # steps are missing: that has to be told on the spot
        for root in self._roots:
            if root.training:
                break
        else:
            if self._eval_mode_matters():
                return False  # so has training in eval mode
        scalar = the_scalar(loss)
        value = None if scalar is None else self._unscaled(scalar)
        if isinstance(value, float) and not value <= self._loud:
            return False  # its batch is still at hand
        contracts.backwards_without_step += 1
        self._loader.backward_seen()
        if value is not None:
            self._window.losses.append(value)
            if "backward_begins" in self._board.awake:
                self._board.tell_those_awake("backward_begins", scalar)
        return True

    def _unscaled(self, scalar: torch.Tensor) -> torch.Tensor | float:
        """The loss before the gradient scaler multiplied it; a number where reading it waits for nothing."""
        if self._scaled is not None and self._scaled[0] == id(scalar):
            return self._scaled[1]
        return at_once(scalar)

    def backward_ended(self) -> None:
        if self._board.quiet:
            self._board.tell("backward_ended")
            return
        begun = self._inside.pop("backward", None)
        if begun is None:
            return
        now = perf_counter()
        window = self._window
        window.add("backward", now - begun)
        self._contracts.backward_ended()
        self._board.tell("backward_ended")
        window.own += perf_counter() - now
        if self._contracts.step_is_missing:
            self._close_frame()

    def gradients_zeroed(self, owner: object) -> None:
        if not self._board.quiet:
            self._places.saw("zero_grad")
            self._contracts.gradients_zeroed(owner)
        self._board.tell("gradients_zeroed", owner)

    def clipped(self, total_norm: object, max_norm: object) -> None:
        self._window.preclip = at_once(total_norm) if isinstance(total_norm, torch.Tensor) else total_norm
        self._window.max_norm = at_once(max_norm) if isinstance(max_norm, torch.Tensor) else max_norm
        self._places.saw("clip")
        self._board.tell("clipped", total_norm, max_norm)

    def clipping(self, parameters: object) -> None:
        self._board.tell("clipping", parameters)

    def loss_scaled(self, loss: object, scaled: object) -> None:
        if isinstance(loss, torch.Tensor) and isinstance(scaled, torch.Tensor) and loss.numel() == 1:
            self._scaled = (id(scaled), at_once(loss))
        self._board.tell("loss_scaled", loss, scaled)

    def gradients_unscaled(self, scaler: object, optimizer: object) -> None:
        self._places.saw("unscale")
        self._board.tell("gradients_unscaled", scaler, optimizer)

    def scaler_updated(self, scaler: object) -> None:
        self._places.saw("scaler_update")
        self._board.tell("scaler_updated", scaler)

    def scheduler_stepped(self, scheduler: object) -> None:
        self._places.saw("schedule")
        self._board.tell("scheduler_stepped", scheduler)

    def state_loaded(self, module: object, missing: Sequence[str], unexpected: Sequence[str]) -> None:
        self._places.saw("load_state")
        self._board.tell("state_loaded", module, missing, unexpected)

    def part_begins(self, part: str) -> None:
        self._board.tell("part_begins", part)

    def part_ended(self, part: str) -> None:
        self._board.tell("part_ended", part)

    def batch_planned(self, sampler: object, indices: Sequence[object]) -> None:
        self._board.tell("batch_planned", sampler, indices)

    def scaler_stepping(self, scaler: object, optimizer: object) -> None:
        self._board.tell("scaler_stepping", scaler, optimizer)

    def scaler_refused(self, optimizer: object, call: str) -> None:
        self._board.tell("scaler_refused", optimizer, call)

    def scaler_stepped(self, optimizer: object) -> None:
        """The scaler's step returned; if our hook did not run meanwhile, it skipped the optimizer."""
        self._board.tell("scaler_stepped", optimizer)
        if id(optimizer) in self._window.stepped or id(optimizer) == self._last_stepped:
            self._last_stepped = None
            return
        if isinstance(optimizer, torch.optim.Optimizer) and any(optimizer is o for o in self._optimizers.values()):
            self._contracts.skipped(optimizer)
            self._window.skipped += 1
            self._skipped_total += 1
            self._window.losses.clear()
            if self._window.skipped % SKIPS_PER_FRAME == 0:
                self._close_frame()

    def loader_started(self, loader: object) -> None:
        self._loader.started(loader)
        if loader is not self._loader.training:
            self._passes.watch(True)  # this may be an evaluation
        self._board.tell("loader_started", loader)

    def loader_ended(self, loader: object) -> None:
        self._passes.watch(True)
        self._board.tell("loader_ended", loader)

    def batch_loaded(self, loader: object, batch: object, seconds: float) -> None:
        self._places.saw("loader")
        training = self._loader.loaded(loader)
        self._board.tell("batch_waited", seconds, training)
        self._board.tell("batch_loaded", loader, batch, training)
        self._window.add("data_wait", seconds)

    def observer_failed(self, event: str, error: Exception) -> None:
        self._failed(event, error)

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        try:
            if self._board.quiet:
                self._board.tell("gradients_ready", optimizer)
                return None
            begun = perf_counter()
            if id(optimizer) in self._window.stepped:
                self._close_frame()
            self._last_stepped = None
            self._places.saw("step")
            contract = self._contracts.before_step(optimizer)
            self._window.contract = worst(self._window.contract, contract)
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            changed = None
            if callable(closure):
                changed = self._with_closure(optimizer, closure, args, kwargs)
            else:
                self._gradients_ready(optimizer)
            now = perf_counter()
            self._window.own += now - begun
            self._inside["optimizer"] = now
            return changed
        except Exception as error:
            self._failed("optimizer pre-step hook", error)
            return None

    def _with_closure(
        self,
        optimizer: torch.optim.Optimizer,
        closure: Callable[[], Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Gradients exist only after the closure: look at them each time it returns, the last one counts.

        So does the window of backward calls that the step closes, where forward and backward run in the closure.
        """
        judged = False

        def ready() -> None:
            nonlocal judged
            if not judged and not self._board.quiet:
                judged = True
                self._window.contract = worst(self._window.contract, self._contracts.before_step(optimizer))
            self._gradients_ready(optimizer)

        def observed() -> Any:
            result = closure()
            self._guard("closure", ready)
            return result

        if len(args) > 1:
            return (args[0], observed, *args[2:]), kwargs
        return args, {**kwargs, "closure": observed}

    def _gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        self._window.found_inf = found_inf if isinstance(found_inf, torch.Tensor) else None
        self._board.tell("gradients_ready", optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        try:
            begun = perf_counter()
            if self._board.quiet:
                if self._quiet_step(optimizer, begun):
                    return
                self._wake()
            window = self._window
            entered = self._inside.pop("optimizer", None)
            if entered is not None:
                window.add("optimizer", begun - entered)
            self._contracts.after_step(optimizer)
            self._board.tell("stepped", optimizer)
            self._following_is(optimizer)
            window.stepped.append(id(optimizer))
            window.own += perf_counter() - begun
            self._last_stepped = id(optimizer)
            if self._frame_is_complete(optimizer):
                self._close_frame()
        except Exception as error:
            self._failed("optimizer post-step hook", error)

    def _quiet_step(self, optimizer: torch.optim.Optimizer, now: float) -> bool:
        """Note a step on which nothing is measured; False if something happened that must be told at once."""
        window, loader, batches = self._window, self._loader, self._batches
        if "stepped" in self._board.awake:
            self._board.tell_those_awake("stepped", optimizer)
        if "step_ends" in self._board.awake:
            self._board.tell_those_awake("step_ends", self.step + 1)
        if window.skipped or self._board.news or self._look_closely:
            return False
        notes = self._notes
        notes.add(
            (
                now, optimizer.param_groups[0].get("lr"), window.losses, window.preclip, window.max_norm,
                window.tiles.pop("data_wait", 0.0) if loader.seen else 0.0, loader.position,
                0 if batches is None else batches.loaded, window.own, self._times.take() if self._times_every_step else None,
            )
        )  # fmt: skip
        self.step += 1
        self._last_stepped = id(optimizer)
        self._contracts.backwards_without_step = 0
        window.losses, window.preclip, window.own = [], None, 0.0
        if self._passes.watched and not self._times_every_step:
            self._passes.watch(False)
        if self.step + 1 >= self._budget.next_look:
            self._book_own_work(self._work_up_notes)
            self._open_window(now)
            return True
        if notes.full(now):
            self._book_own_work(self._flush)
        else:
            window.own += perf_counter() - now
        if self._times_every_step:
            self._begin_timed_step()
        return True

    def _begin_timed_step(self) -> None:
        """The next step is quiet as well, but for its times."""
        if self._times in self._board:
            self._board.ask(self._times, self._times.begin_step, self.step + 1, True)

    def _book_own_work(self, work: Callable[[], None]) -> None:
        """Do what is done for many steps at once, and book what it cost."""
        begun = thread_time()
        work()
        self._budget.spend("hooks", thread_time() - begun)

    def _work_up_notes(self) -> None:
        """Make the payloads of the quiet steps that were noted, in the order of the steps."""
        notes = self._notes
        step = self.step - len(notes)
        batches = self._loader.batches
        targets = self._current_targets()
        own = notes.typical_own()
        self._budget.spend("hooks", own * len(notes))
        for note, elapsed, ended in notes.take():
            step += 1
            epoch = self._loader.epoch_at(*note.position, batches)
            if self._batches is not None:
                self._board.ask(self._batches, self._batches.slept, step, note.losses, note.loaded)
            waited = min(1.0, note.waited / elapsed) if elapsed > 0 else 0.0
            story: Mapping[str, Measured] = {}
            if (note.rate != self._rates.last or self._rates.phases.rising) and self._rates.follow(note.rate, epoch, step):
                story = self._rates.story()
            row = None if story else plain_row(note, elapsed, waited if self._loader.seen else None)
            if row is not None:
                last = self._pending[-1] if self._pending else None
                if not isinstance(last, Stretch) or last.names != row[0] or bool(last.stamps) != (note.stamps is not None):
                    self._pending.append(last := Stretch(row[0]))
                last.add(step, ended, epoch, row[1], note.stamps)
            else:
                measured: dict[str, Measured] = {"step.time": elapsed, **story}
                if note.losses:
                    measured[RAW_LOSSES] = together(note.losses)
                note_clipping(measured, note.preclip, note.max_norm)
                if self._loader.seen:
                    measured["step.data_wait_fraction"] = waited
                payload = pack(step, ended, epoch, targets, measured)
                payload.stamps = note.stamps
                self._pending.append(payload)
            inside = 0.0 if note.stamps is None else STAMP_SECONDS * len(note.stamps.times)
            if inside:  # asked for, so that it counts as cost, but does not keep the budget from measuring
                self._budget.spend("times", inside)
            self._budget.step_took(step, elapsed, own, False)
            self._speed.step(elapsed, own + inside, dense=False)
        if self._batches is not None:
            self._loud = self._batches.loud
            self._board.news |= self._batches.news

    def _wake(self) -> None:
        """Leave the quiet steps: the one under way is followed like any other."""
        self._work_up_notes()
        self._board.quiet = False
        if self._times_every_step:
            self._board.sampled = self._window.sampled = ONLY_TIMES
        self._window.begun = self._notes.since
        batches = self._batches
        if batches is not None:
            for value in self._window.losses:  # of the micro-steps before
                self._board.ask(batches, batches.loss_read, None, value)

    def _following_is(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn which optimizer usually steps after which, to close a frame as soon as it is complete."""
        if self._previous_optimizer is not None:
            self._following[self._previous_optimizer] = id(optimizer)
        self._previous_optimizer = id(optimizer)

    def _frame_is_complete(self, optimizer: torch.optim.Optimizer) -> bool:
        if len(self._window.stepped) >= len(self._optimizers):
            return True
        return self._following.get(id(optimizer)) in self._window.stepped

    # ------------------------------------------------------------------ one frame

    def _begin_window(self) -> None:
        """Decide what the next step measures, and let the probes prepare for it."""
        following = self.step + 1
        sampled = frozenset(self._budget.tiers) if self._look_closely else self._budget.tiers_at(following)
        self._look_closely = False
        asleep = not sampled and self._budget.next_look > following and len(self._optimizers) == 1
        if self._times_every_step and not asleep:
            sampled |= ONLY_TIMES
        before, self._window.sampled, self._board.sampled = self._sampled_before, sampled, sampled
        self._board.quiet = False
        if asleep:
            self._board.fall_asleep()
            self._loud = float("inf") if self._batches is None else self._batches.loud
        if not sampled and not before and not self._times_every_step:
            return  # everything sleeps on
        self._sampled_before = sampled
        self._passes.begin_step()
        self._contracts.watch(bool(sampled))
        self._passes.watch(bool(sampled) or self._times_every_step)
        self._board.begin(following, before)

    def _compiler_begins(self) -> None:
        """torch.compile is about to look at a piece of code; that of another thread does not concern the models."""
        if not self._passes.compiled and self._thread in (None, threading.get_ident()):
            self._guard("compiler", self._passes.leave_compiled_code_alone)
        self._passes.compiler_begins()

    def _close_frame(self) -> None:
        """Collect what was measured on this step, hand it to the worker, and begin the next."""
        begun = perf_counter()
        window = self._window
        cpu = thread_time() if window.sampled else None
        booked = self._board.cpu
        before = sum(booked.values())
        self.step += 1
        if self.step == 1:
            self._after_first_step()
        self._board.tell("step_ends", self.step)
        measured = self._collect(window)
        elapsed = begun - window.begun
        if self.step > 1:  # from attaching to the end of the first step is set-up, not a step
            measured.update(window.times(elapsed, loader_seen=self._loader.seen))
        urgent = bool(window.sampled) or window.promise_broken or "lr" in measured or self._board.news
        self._hand_over(pack(self.step, time.time(), self._loader.epoch, self._current_targets(), measured), urgent)
        fresh = self._open_window(begun)
        own = window.own + perf_counter() - begun
        if cpu is not None:
            probes = sum(booked.values()) - before + sum(self._board.cpu.values())
            self._book_sample(booked, window.sampled, hooks=max(0.0, thread_time() - cpu - probes))
        else:
            self._budget.spend("hooks", own)  # wall time: asking for CPU time would cost as much as the rest
        self._budget.step_took(self.step, elapsed, own, bool(window.sampled))
        inside = self._times.hook_seconds if "times" in window.sampled else 0.0
        self._speed.step(elapsed, own + inside, dense=self.step <= self._budget.dense)
        fresh.own = perf_counter() - begun

    def _book_sample(self, booked: Mapping[str, float], sampled: frozenset[str], hooks: float) -> None:
        """Book what a measured step cost, in seconds of CPU time: `booked` by tier, and `hooks` for what no tier did."""
        for tier, seconds in booked.items():
            if tier in sampled:
                self._budget.tier_cost(tier, seconds + (self._times.hook_seconds if tier == "times" else 0.0))
            else:
                self._budget.spend(tier, seconds)
        self._budget.spend("hooks", hooks)
        if sampled == ONLY_TIMES:
            return  # not what a look costs
        judged, self._judged = self._judged, self._worker.seconds["judging"]
        self._budget.frame_cost(hooks + booked.get(CONTRACT, 0.0) + self._judged - judged)

    def _open_window(self, now: float) -> Window:
        """Begin the next step, which began at `now`."""
        self._window = fresh = Window(begun=now)
        self._board.cpu, self._board.news = {}, False
        self._inside.clear()
        self._begin_window()
        self._notes.begin(now)
        return fresh

    def _hand_over(self, payload: Payload, urgent: bool) -> None:
        """Give payloads to the worker in small batches: waking it for every step costs more than its work."""
        self._pending.append(payload)
        if urgent or len(self._pending) >= BATCH or payload.time - self._pending[0].time > BATCH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if len(self._notes):
            self._work_up_notes()
        pending, self._pending = self._pending, []
        if pending:
            self._worker.pace = Pace(self._speed.steps_per_second, self._speed.overhead, self._loader.planned_steps)
            self._worker.put(pending)

    def _collect(self, window: Window) -> dict[str, Measured]:
        """What every step tells; on sampled steps also what the probes found and what seldom changes.

        A broken promise of the loop and a changed learning rate are told on the very step.
        """
        measured: dict[str, Measured] = {}
        if window.losses:
            measured[RAW_LOSSES] = together(window.losses)
        note_clipping(measured, window.preclip, window.max_norm)
        if window.sampled or window.promise_broken or self._contracts.step_is_missing:
            measured.update(self._promises(window))
        rate_changed = self._rates.follow(next(iter(self._optimizers.values())).param_groups[0].get("lr"), self._loader.epoch, self.step)
        if window.sampled or rate_changed:
            self._note_groups()
            measured.update(self._rates.signals(self._optimizers, self._index.groups))
        measured.update(self._board.collect(self._tell_facts))
        if window.sampled:
            measured.update(self._seldom())
        if window.sampled and self._context.facts()["taken_for"] != self._taken_for:
            self._taken_for = self._context.facts()["taken_for"]
            self._refresh_facts()
        if measured.get("loop.unchanged") is not None and (window.skipped or measured.get("lr") == 0):
            del measured["loop.unchanged"]
        return measured

    def _tell_facts(self, told: Mapping[str, Any]) -> None:
        """Let the panel know at once what a probe has just found out."""
        self.facts.update(told)
        self._worker.facts = dict(self.facts)

    def _seldom(self) -> dict[str, Measured]:
        """Signals that change slowly and are not free."""
        found: dict[str, Measured] = {}
        if (graphs := self._passes.graphs) is not None:
            found["compile.graphs"] = graphs
        if self._loader.batches is not None:
            found["loader.batches"] = float(self._loader.batches)
        now = perf_counter()
        if now - self._memory_read > MEMORY_SECONDS or (self.step <= self._budget.dense and self.step % MEMORY_STEPS == 0):
            self._memory_read = now
            memory = _resident_bytes()
            if memory is not None:
                found["memory.process"] = memory
            found |= self._busy.look()
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            found["memory.accelerator"] = float(torch.cuda.memory_allocated())
        return found

    def _promises(self, window: Window) -> dict[str, Measured]:
        """How the loop kept its contract, and what that is held against."""
        signals = window.promises()
        signals.update({
            "loop.steps_missing": float(self._contracts.steps_missing),
            "loop.optimizers": float(len(self._optimizers)),
            "loop.full_batch": float(self._loader.batches in (None, 1)),
            "step.skipped_total": float(self._skipped_total),
        })  # fmt: skip
        if (window.forwards or window.trained_in_eval) and window.losses:
            signals["loop.eval_mode"] = float(window.trained_in_eval and self._eval_mode_matters())
        return signals

    def _after_first_step(self) -> None:
        if self._index.adopt_late_parameters():
            for key, optimizer in self._optimizers.items():
                self._register(key, optimizer)
        self._refresh_facts()
        if not self._sender.sinks:
            self._send_to(())  # the script may have begun its run of a tracker only after it attached us

    def _current_targets(self) -> Targets:
        """The targets, the same object as long as nothing was added."""
        known = self._targets
        index = self._index
        if known is not None and not self._window.sampled and len(known.groups) == len(index.groups):
            return known
        if (
            known is None
            or len(known.layers) != len(index.layer_names)
            or len(known.params) != len(index.param_names)
            or len(known.groups) != len(index.groups)
            or known.layer_depths != tuple(index.layer_depths)
        ):
            self._targets = index.targets()
        assert self._targets is not None
        return self._targets

    def _in_eval_mode(self) -> bool:
        """Whether every model is in eval mode now, for steps whose forward passes nobody watched."""
        return not any(root.training for root in self._roots)

    def _eval_mode_matters(self) -> bool:
        """Whether any dropout or normalisation layer that serves trainable parameters is in the model."""
        if self._mode_matters is None:
            self._mode_matters = [
                module
                for name, module in zip(self._index.layer_names, self._index.layers, strict=True)
                if module is not None and _depends_on_mode(module) and self._index.serves_trainable(name)
            ]
        return any(not module.training for module in self._mode_matters)

    # ------------------------------------------------------------------ facts

    def _first_facts(self, options: _Options) -> dict[str, Any]:
        import nndoctor

        params = self._index.params
        return {
            "model": ", ".join(type(unwrap(root)).__name__ for root in self._index.roots.values()),
            "parameters": sum(p.numel() for p in params),
            "trainable_parameters": sum(p.numel() for p in params if p.requires_grad),
            "layers": len(self._index.layers),
            "optimizer": ", ".join(type(o).__name__ for o in self._optimizers.values()),
            "optimizer_settings": {key: settings(o) for key, o in self._optimizers.items()},
            "loss": _loss_name(self._loss_fn),
            "device": ", ".join(sorted({str(p.device) for p in params})) or "none",
            "seed": torch.initial_seed(),
            "dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in params})) or "none",
            "budget": self._budget.budget,
            "cadence": self._budget.cadence,
            "versions": {
                "nndoctor": nndoctor.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def _refresh_facts(self) -> None:
        if not self.facts.get("loss") and self._graph.kind:
            self.facts["loss"] = self._graph.kind
        if self._graph.kind:
            self.facts["loss_found"] = self._graph.kind
        unseen = list(self._activations.unseen()) if self._activations in self._board else []
        if self._times in self._board:
            unseen.extend(self._times.notes())
        if self._subscribed in self._board:
            unseen.extend(self._subscribed.notes())
        unseen.extend(self._passes.hidden(activations_inside=isinstance(self._activations, InsideActivationProbe)))
        if PROCESS.missing:
            unseen.append(f"this torch lacks {', '.join(PROCESS.missing)}: what they tell was not measured")
        self.facts["unseen"] = unseen
        self.facts["places"] = self._places.facts()
        for probe in tuple(self._board.probes):
            told = getattr(probe, "facts", None)
            if told is not None:
                self._guard(f"facts of {probe.name}", lambda told=told: self.facts.update(told()))  # type: ignore[misc]
        phases = self._rates.phases.told()
        self.facts["taken_for"] = [*self._context.facts()["taken_for"], *([phases] if phases else [])]
        self.facts["overhead"] = self._speed.overhead
        self.facts["overhead_of_the_first_steps"] = self._speed.dense_overhead
        self.facts["cadences"] = {tier: self._budget.every(tier) for tier in self._budget.tiers}
        self.facts["switched_off"] = list(self._budget.switched_off())
        self.facts["dropped_frames"] = self._worker.dropped + (self._worker.writer.dropped if self._worker.writer else 0)
        self.facts["spent_seconds"] = {key: round(value, 4) for key, value in self.spent.items()}
        self._worker.facts = dict(self.facts)


def _at_least_two(eager_every: int | None) -> int | None:
    if eager_every is not None and eager_every < 2:
        raise ValueError(f"eager_every is a number of steps, 2 or more; got {eager_every}")
    return eager_every


def _forget(where: str, error: Exception) -> None:
    """For a failure that has been told before."""


def _depends_on_mode(module: nn.Module) -> bool:
    """Whether `module` computes something else in training mode than in evaluation mode."""
    if isinstance(module, DROPOUTS):
        return float(getattr(module, "p", 0.0)) > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return float(module.dropout) > 0
    return isinstance(module, NORMALISATIONS) and bool(getattr(module, "track_running_stats", False))


def _loss_name(loss_fn: LossFunction | None) -> str:
    if loss_fn is None:
        return ""
    return type(loss_fn).__name__ if isinstance(loss_fn, nn.Module) else getattr(loss_fn, "__name__", "custom")


def _number(name: str, value: object) -> Any:
    import numpy as np

    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().reshape(-1)
        if value.numel() != 1:
            raise TypeError(f"observe({name}=...) expects one number, got a tensor of {value.numel()} elements")
        return value.numpy().astype(np.float32)
    try:
        return np.array([float(value)], dtype=np.float32)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"observe({name}=...) expects a number, got {type(value).__name__}") from None


def _resident_bytes() -> float | None:
    """Resident memory of this process in bytes; None where the system does not tell it cheaply."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _choose_display(ui: str) -> Any:
    terminal = import_module("nndoctor.reports.terminal")
    return terminal.choose_display(ui, sys.stderr, rank())
