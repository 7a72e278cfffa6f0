"""What a report is made from: one frozen view of a run, put together from its record and its diagnosis."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nndoctor.findings import Diagnosis, Finding, RuleDocs, Severity
from nndoctor.history import History
from nndoctor.reports.windows import RawWindow
from nndoctor.signals import PUBLISHED, Signal, Targets

if TYPE_CHECKING:
    from nndoctor.record import RecordReader

PRIVATE_FACTS = frozenset(
    {"host", "hostname", "user", "username", "argv", "command", "cwd", "path", "script", "executable", "run_dir", "folder", "environment", "env"}
)
"""Facts that tell where and by whom a run was made; a report is shown to others, so they stay out."""


class BeforeAfter(NamedTuple):
    """The same training again with a remedy applied: what was measured, what was found, what was changed."""

    history: History
    diagnosis: Diagnosis
    label: str


class Note(NamedTuple):
    """Something that happened to the run at a step: a crash, a dismissed probe, a user's remark."""

    step: int
    kind: str
    text: str


class Relief(NamedTuple):
    """A surface over a plane, to be looked at from all sides.

    Args:
        xs, ys: the grid, in ascending order, of two places or more each.
        heights: log10 of the loss at each place, by rows (len(ys), len(xs)); None where it is not finite.
        way: xs and ys of the optimizer's way; None where it is not known.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    heights: tuple[tuple[float | None, ...], ...]
    way: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, as the script of the report reads it."""
        way = None if self.way is None else dict(zip(("xs", "ys"), self.way, strict=True))
        return {"xs": self.xs, "ys": self.ys, "heights": self.heights, "way": way, "unit": "loss"}

    @classmethod
    def read(cls, held: Any) -> Relief | None:
        """What :meth:`data` gave; None where it is something else."""
        try:
            xs, ys = _numbers(held["xs"]), _numbers(held["ys"])
            heights = tuple(tuple(None if value is None else float(value) for value in row) for row in held["heights"])
            way = None if held["way"] is None else (_numbers(held["way"]["xs"]), _numbers(held["way"]["ys"]))
        except (KeyError, TypeError, ValueError):
            return None
        fits = len(heights) == len(ys) > 1 and all(len(row) == len(xs) > 1 for row in heights)
        fits = fits and any(value is not None for row in heights for value in row)
        return cls(xs, ys, heights, way) if fits and (way is None or len(way[0]) == len(way[1])) else None


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


class LabResult(NamedTuple):
    """What an examination of the lab said of the run's model: a title, lines for people, a picture (PNG) if it was drawn, and a surface if it is one."""

    title: str
    lines: tuple[str, ...]
    picture: bytes | None = None
    relief: Relief | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """Everything a report reads, and nothing else.

    Args:
        name: what the run is called.
        facts: what the run was (model, optimizer, loss, versions); may hold anything JSON can.
        status: ``running``, ``finished``, ``crashed`` or ``killed``.
        targets: the names of layers, parameters and groups.
        history: what was measured.
        diagnosis: what was found.
        rule_docs: documentation of every rule that was loaded, by rule id.
        before_after: the run repeated with a remedy; None where none was tried.
        notes: events of the record, oldest first.
        problems: what could not be read from the record.
        lab: examinations of the lab that were kept with the run, oldest first.
        windows: every sample around the beginning of root causes, where `history` holds the run in buckets.
        published: the signals that subscribers of the run publish.
    """

    name: str
    facts: Mapping[str, Any]
    status: str
    targets: Targets
    history: History
    diagnosis: Diagnosis
    rule_docs: Mapping[str, RuleDocs] = field(default_factory=dict)
    before_after: BeforeAfter | None = None
    notes: tuple[Note, ...] = ()
    problems: tuple[str, ...] = ()
    lab: tuple[LabResult, ...] = ()
    windows: tuple[RawWindow, ...] = ()
    published: tuple[Signal, ...] = ()

    def symptoms_of(self, finding: Finding) -> tuple[Finding, ...]:
        """The findings that `finding` explains, also through one another; worst first."""
        reached = {finding.rule}
        grown = True
        while grown:
            more = {f.rule for f in self.diagnosis.findings if f.explained_by in reached} - reached
            grown = bool(more)
            reached |= more
        return tuple(
            f for f in self.diagnosis.findings if f is not finding and f.explained_by in reached and f.rule != finding.rule
        )


def network_order(targets: Targets) -> list[int]:
    """Indices of the layers in the order of the forward pass; those never called come last."""
    depths = targets.layer_depths

    def place(index: int) -> tuple[bool, int, int]:
        depth = depths[index] if index < len(depths) else -1
        return depth < 0, depth, index

    return sorted(range(len(targets.layers)), key=place)


def public_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`facts` without hosts, users, paths and command lines, at any depth, and without the declarations of signals."""
    kept: dict[str, Any] = {}
    for key, value in facts.items():
        if str(key).lower() in PRIVATE_FACTS or key == PUBLISHED:
            continue
        kept[str(key)] = public_facts(value) if isinstance(value, Mapping) else value
    return kept


def build_view(
    reader: RecordReader,
    diagnosis: Diagnosis,
    history: History,
    rule_docs: Mapping[str, RuleDocs],
    before_after: BeforeAfter | tuple[History, Diagnosis, str] | None = None,
    lab: tuple[LabResult, ...] = (),
    windows: tuple[RawWindow, ...] = (),
) -> RunView:
    """The view of a recorded run.

    Args:
        reader: its record; only facts, status, events, published signals and reading problems are taken from it.
        diagnosis, history: what the rules said about it and what it measured.
        rule_docs: documentation of the loaded rules, by rule id.
        before_after: history, diagnosis and label of a repetition with the remedy applied.
        lab: see :func:`lab_results`.
        windows: see :func:`nndoctor.reports.windows.raw_windows`.
    """
    return RunView(
        name=reader.facts.name,
        facts=public_facts({"started": reader.facts.started, **reader.facts.facts, **diagnosis.facts}),
        status=reader.status,
        targets=history.targets,
        history=history,
        diagnosis=diagnosis,
        rule_docs=dict(rule_docs),
        before_after=None if before_after is None else BeforeAfter(*before_after),
        notes=tuple(Note(event.step, event.kind, event.text) for event in reader.events()),
        problems=tuple(str(problem) for problem in reader.problems),
        lab=lab,
        windows=windows,
        published=reader.published,
    )


LAB_FOLDER = "lab"
"""In a run's folder: what ``nndoctor lab ... --run`` has kept of its model, ``<name>.json`` and ``<name>.png``."""


def keep_lab_result(folder: Path, result: LabResult) -> Path:
    """Keep `result` with the run in `folder`, after those that are there; returns its file."""
    home = folder / LAB_FOLDER
    home.mkdir(exist_ok=True)
    slug = "-".join(re.findall(r"[a-z0-9]+", result.title.lower()))
    place = home / f"{1 + len(list(home.glob('*.json'))):03d}-{slug}.json"
    if result.picture is not None:
        place.with_suffix(".png").write_bytes(result.picture)
    held = {"title": result.title, "lines": result.lines, "relief": None if result.relief is None else result.relief.data()}
    place.write_text(json.dumps(held), encoding="utf-8")
    return place


def lab_results(folder: Path) -> tuple[LabResult, ...]:
    """What the lab has kept with the run in `folder`; files that are none of its own are passed over."""
    found = []
    for place in sorted((folder / LAB_FOLDER).glob("*.json")):
        try:
            held = json.loads(place.read_text(encoding="utf-8"))
            title, lines = str(held["title"]), tuple(str(line) for line in held["lines"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        picture = place.with_suffix(".png")
        found.append(LabResult(title, lines, picture.read_bytes() if picture.is_file() else None, Relief.read(held.get("relief"))))
    return tuple(found)


_SPELLING = {"nan": "NaN", "relu": "ReLU", "lr": "LR", "adam": "Adam", "sgd": "SGD", "bn": "BN", "nan-or-inf": "NaN or infinity"}


def spelled(identifier: str) -> str:
    """The name of a diagnosis or rule as a heading.

    >>> spelled("learning-rate-too-high"), spelled("dead-relu")
    ('Learning rate too high', 'Dead ReLU')
    """
    if identifier in _SPELLING:
        return _SPELLING[identifier]
    words = " ".join(_SPELLING.get(word, word) for word in identifier.replace("_", "-").split("-"))
    return words[:1].upper() + words[1:]


class Grade(NamedTuple):
    """A letter for the whole run, a word for it, and the severity it is coloured by."""

    letter: str
    word: str
    tone: str


def grade(diagnosis: Diagnosis) -> Grade:
    """A for a clean run, C for warnings (B where none of them is sure), D for errors, E for critical ones."""
    speaking = [f for f in diagnosis.findings if f.suppressed is None and f.severity > Severity.INFO]
    now = [f for f in speaking if f.state != "cleared"]
    if diagnosis.steps == 0:
        return Grade("–", "not examined", "none")
    if not speaking:
        return Grade("A", "healthy", "ok")
    if not now:
        return Grade("B", "recovered", "ok")
    worst = max(f.severity for f in now)
    if worst is Severity.WARNING:
        sure = any(f.confidence != "low" for f in now)
        return Grade("C", "needs attention", "warning") if sure else Grade("B", "worth a look", "warning")
    return Grade("E", "critical", "critical") if worst is Severity.CRITICAL else Grade("D", "ill", "error")


_CURRENT_VALUE = {
    "lr": ("group.lr", "lr"),
    "learning_rate": ("group.lr", "lr"),
    "max_lr": ("lr.peak",),
    "weight_decay": ("group.weight_decay",),
    "momentum": ("group.momentum",),
    "beta1": ("group.momentum",),
    "beta2": ("group.beta2",),
    "eps": ("group.eps",),
    "max_norm": ("clip.max_norm",),
    "clip_grad_norm": ("clip.max_norm",),
    "batch_size": ("input.batch_size",),
}


def current_value(history: History, setting: str) -> float | None:
    """What `setting` of a fix was at the end of the run; None where that was not measured or differs by group."""
    for name in _CURRENT_VALUE.get(setting, ()):
        latest = history.latest(name)
        if latest is None:
            continue
        known = {float(value) for value in latest if value == value}
        if len(known) == 1:
            return known.pop()
    return None
