"""The pages of ``nndoctor watch`` as rows of text: overview, findings, layers, explanation, runs.

Pure functions of what the record holds (:class:`Scene`) and where the reader is (:class:`Place`). The keys move the
reader (:func:`press`); nothing here touches a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from nndoctor.findings import Finding, RuleDocs, describe_fix, format_value
from nndoctor.history import History
from nndoctor.record import RunSummary
from nndoctor.reports.panel import (
    ASCII,
    NARROW,
    UNICODE,
    Curve,
    PanelRows,
    PanelState,
    chart,
    curve_label,
    curve_value,
    number,
)
from nndoctor.reports.text_safety import clean, safe, to_ascii

Page: TypeAlias = Literal["overview", "findings", "layers", "explain", "runs"]
Action: TypeAlias = Literal["quit", "report", "open", "acknowledge", "none"]

LONGEST_REASON = 200
SHORTEST_REASON = 3

LAYER_COLUMNS = (
    ("grad.norm", "gradient"),
    ("update.ratio", "upd/w"),
    ("weight.norm", "weights"),
    ("act.std", "act std"),
    ("act.dead_fraction", "dead"),
    ("act.saturated_fraction", "saturated"),
)

KEY_NAMES: Sequence[Mapping[str, str]] = (
    {"f": "findings", "l": "layers", "e": "explain", "a": "acknowledge", "u": "runs", "o": "overview", "r": "write report", "q": "quit"},
    {"f": "findings", "l": "layers", "e": "explain", "a": "acknowledge", "u": "runs", "r": "report", "q": "quit"},
    {"f": "findings", "l": "layers", "a": "accept", "u": "runs", "q": "quit"},
    {"f": "found", "l": "layers", "u": "runs", "q": "quit"},
    {"f": "", "l": "", "u": "", "q": "quit"},
)
"""What the last row says, the longest first: the first that fits is shown, and how to leave is always among it."""

PAGE_KEYS: Mapping[str, Page] = {"f": "findings", "l": "layers", "e": "explain", "u": "runs", "o": "overview"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to see.

    Args:
        state: the panel's content.
        history: everything measured.
        findings: the findings with their evidence, in the order of the state's.
        runs: the runs in the same folder, newest first; filled for the page that lists them.
        docs: what is known about the selected finding's rule: its documentation, plain text, or None.
        behind: frames are still being read.
    """

    state: PanelState
    history: History
    findings: tuple[Finding, ...] = ()
    runs: tuple[RunSummary, ...] = ()
    docs: RuleDocs | str | None = None
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where the reader is: the page, the selected finding and run, how far it is scrolled, and a note to read.

    `reason` is what has been typed so far of why a finding is fine; None: nobody is asked.
    """

    page: Page = "overview"
    finding: int = 0
    run: int = 0
    scroll: int = 0
    note: str = ""
    reason: str | None = None


def press(place: Place, key: str, *, findings: int, runs: int) -> tuple[Place, Action]:
    """Where a key leads, and what else it asks for. `findings` and `runs` say how many there are to select from."""
    place = replace(place, note="")
    if key == "ctrl-c" or (key == "q" and place.reason is None):
        return place, "quit"
    if place.reason is not None:
        return _typed(place, place.reason, key)
    if key == "r":
        return place, "report"
    if key == "a":
        if not findings:
            return replace(place, note="nothing has been found, so there is nothing to acknowledge"), "none"
        return replace(place, page="findings", reason=""), "none"
    if key == "esc":
        return Place(finding=place.finding), "none"
    if key in PAGE_KEYS:
        page = PAGE_KEYS[key]
        return replace(place, page="overview" if page == place.page else page, scroll=0), "none"
    if key == "enter":
        if place.page == "runs" and runs:
            return Place(), "open"
        return replace(place, page="explain" if place.page == "findings" else "findings", scroll=0), "none"
    step = {"down": 1, "j": 1, "up": -1, "k": -1, "page-down": 10, "page-up": -10}.get(key, 0)
    if place.page == "findings":
        return replace(place, finding=_within(place.finding + step, findings)), "none"
    if place.page == "runs":
        return replace(place, run=_within(place.run + step, runs)), "none"
    return replace(place, scroll=max(0, place.scroll + step)), "none"


def _typed(place: Place, reason: str, key: str) -> tuple[Place, Action]:
    """One more key of the reason why a finding is fine."""
    if key == "esc":
        return replace(place, reason=None), "none"
    if key == "backspace":
        return replace(place, reason=reason[:-1]), "none"
    if key == "enter":
        if len(reason.strip()) < SHORTEST_REASON:
            return replace(place, reason=None, note="not acknowledged: it takes a reason, for those who read the report later"), "none"
        return place, "acknowledge"
    return replace(place, reason=(reason + key)[:LONGEST_REASON] if len(key) == 1 else reason), "none"


def _within(index: int, count: int) -> int:
    return max(0, min(index, count - 1))


def render(scene: Scene, place: Place, width: int, height: int, *, ascii: bool = False) -> list[Text]:
    """The whole screen: title, page, and the keys in the last row; exactly `height` rows."""
    page = _Page(scene, place, max(20, width), max(4, height), ascii)
    body = {
        "overview": page.overview,
        "findings": page.findings,
        "layers": page.layers,
        "explain": page.explain,
        "runs": page.runs,
    }[place.page]()
    room = page.height - 2
    body = [*body[:room], *[Text("")] * (room - len(body))]
    lines = [page.rows.title(), *body, page.keys()]
    for line in lines:
        line.truncate(width)
    return lines[:height]


@dataclass(frozen=True, slots=True)
class _Page:
    scene: Scene
    place: Place
    width: int
    height: int
    ascii: bool
    rows: PanelRows = field(init=False)

    def __post_init__(self) -> None:
        glyphs = ASCII if self.ascii else UNICODE
        object.__setattr__(self, "rows", PanelRows(self.scene.state, self.width, glyphs, self.ascii))

    # -- pages

    def overview(self) -> list[Text]:
        """Curves as tall as there is room for, the layers, what was found, and the counts."""
        state, rows = self.scene.state, self.rows
        if not state.curves:
            return [Text(""), Text(" Nothing has been measured yet; this page fills by itself.", style="dim")]
        found = [row.text for row in rows.cause_rows()] + [rows.over(f) for f in state.recovered]
        if not found:
            found = [Text(f" {rows.glyphs.good} no problems found so far", style="green")]
        strip = state.layers
        tail = [Text("")]
        if strip is not None and len(strip.names) > 1:
            tail += [rows.layers(strip), Text("")]
        columns = 2 if self.width >= NARROW else 1
        spare = self.height - 3 - len(tail) - min(len(found), 8)

        def tall(curves: Sequence[Curve]) -> int:
            return min(8, spare // max(1, math.ceil(len(curves) / columns)) - 1)

        curves = (*state.curves, *state.own)
        if state.own and tall(curves) < 3:  # a line for what is the run's own, so that the rest may be seen
            tail[1:1] = [rows.own(), Text("")]
            spare, curves = spare - 2, state.curves
        pictures = self.charts(curves, columns, tall(curves)) if tall(curves) >= 2 else rows.curve_rows()
        room = max(1, self.height - 3 - len(tail) - len(pictures))
        if len(found) > room:
            found = [*found[: room - 1], Text(f"   and {len(found) - room + 1} more rows: press f", style="dim")]
        return [*pictures, *tail, *found, rows.status(hint=False)]

    def charts(self, curves: Sequence[Curve], columns: int, tall: int) -> list[Text]:
        lines: list[Text] = []
        share = self.width // columns
        for first in range(0, len(curves), columns):
            block = [self.chart(curve, share - 1, tall) for curve in curves[first : first + columns]]
            for row in range(tall + 1):
                line = Text(no_wrap=True)
                for position, column in enumerate(block):
                    line.append(" " * (position * share - line.cell_len)).append_text(column[row])
                lines.append(line)
        return lines

    def chart(self, curve: Curve, width: int, tall: int) -> list[Text]:
        head = Text(no_wrap=True)
        head.append(f" {curve_label(curve, self.ascii, max(8, width - 12))} ", style="dim")
        head.append(curve_value(curve), style="bold red" if curve.nonfinite else "bold")
        head.append("  " + curve.remark, style="bold yellow" if curve.alarming else "dim")
        head.truncate(width)
        color = "red" if curve.alarming else "cyan"
        rows = chart(curve, width, tall, self.rows.glyphs)
        return [head, *(Text(row[:9], style="dim").append(row[9:], style=color) for row in rows)]

    def findings(self) -> list[Text]:
        """The list with a mark at the selected one, and that one in full below."""
        listed = self.scene.state.findings
        if not listed:
            return [Text(""), Text(f" {self.rows.glyphs.good} nothing has been found so far", style="green")]
        selected = _within(self.place.finding, len(listed))
        room = max(2, min(len(listed), (self.height - 4) // 2))
        first = max(0, min(selected - room // 2, len(listed) - room))
        lines = [Text("")]
        for index in range(first, min(first + room, len(listed))):
            mark = ">" if index == selected else " "
            line = listed[index]
            sign = self.sign(line.severity, line.state, line.suppressed)
            indent = "  " if line.cause is not None else ""
            style = "reverse" if index == selected else ""
            text = Text(f"{mark}{indent}", style=style, no_wrap=True).append_text(sign)
            width = self.width - text.cell_len - 28
            text.append(f" {self.safe(line.title, width):<{max(1, min(40, width))}}")
            weight = line.severity if line.suppressed is None else "accepted"
            text.append(f" {weight:<9}{self.period(line.since, line.until, line.state)}", style="dim")
            lines.append(text)
        if len(listed) > room:
            lines.append(Text(f"   {first + 1} to {first + room} of {len(listed)}", style="dim"))
        return [*lines, Text(self.rows.glyphs.rule * self.width, style="dim"), *self.detail(self.scene.findings[selected])]

    def detail(self, finding: Finding) -> list[Text]:
        """One finding: what, where, since when, by which numbers, and what to do."""
        lines = self.paragraph(finding.message or finding.diagnosis.replace("-", " "), "bold")
        lines += self.labelled("rule", f"{finding.rule} ({finding.severity.label}, confidence {finding.confidence}, {finding.state})")
        if finding.targets:
            lines += self.labelled("where", ", ".join(self.safe(t, 48) for t in finding.targets[:12]) + _more(finding.targets, 12))
        if finding.suppressed is not None:
            lines += self.labelled("silenced", finding.suppressed)
        if finding.explained_by is not None:
            lines += self.labelled("cause", finding.explained_by)
        explained = [f.rule for f in self.scene.findings if f.explained_by == finding.rule]
        if explained:
            lines += self.labelled("explains", ", ".join(explained))
        for evidence in finding.evidence[:6]:
            limit = f" {evidence.comparison} {format_value(evidence.threshold)}" if evidence.threshold is not None else ""
            unit = f" {evidence.unit}" if evidence.unit not in ("", "1", "0 or 1", evidence.signal) else ""
            where = f" at {self.safe(evidence.target, 32)}" if evidence.target else ""
            lines += self.labelled("evidence", f"{evidence.signal} = {number(evidence.value)}{limit}{unit}{where}")
        for fix in finding.fixes:
            values = f" -> {told}" if (told := describe_fix(fix)) != fix.title else ""
            lines += self.labelled("FIX", f"{fix.title}{values} (confidence {fix.confidence}, {fix.safety})", "bold green")
        return lines

    def layers(self) -> list[Text]:
        """The layers as a table, those to look at first on top."""
        history = self.scene.history
        measured = set(history.measured())
        own = [(curve.signal, curve_label(curve, self.ascii, 9)) for curve in self.scene.state.own if history.catalogue[curve.signal].per == "layer"]
        columns = [(name, title) for name, title in (*LAYER_COLUMNS, *own) if name in measured][: max(1, (self.width - 28) // 10)]
        if not columns:
            return [Text(""), Text(" No layer has been measured yet.", style="dim")]
        table = {name: np.asarray(history.latest(name), dtype=float) for name, _ in columns}
        order = layer_order(self.scene.state, history, table)
        names = history.targets.layers
        sick = {names[i] for i in range(len(names))} & self.sick_layers()
        width = max(12, self.width - 10 * len(columns) - 4)
        lines = [Text(""), Text(" " * (width + 3) + "".join(f"{title:>10}" for _, title in columns), style="dim")]
        first = min(self.place.scroll, max(0, len(order) - (self.height - 5)))
        for index in order[first:]:
            ill = names[index] in sick
            line = Text(f" {self.rows.glyphs.error if ill else ' '} ", style="bold red", no_wrap=True)
            line.append(f"{self.safe(names[index], width):<{width}}", style="bold" if ill else "")
            for name, _ in columns:
                value = table[name][index] if index < table[name].size else math.nan
                line.append(f"{self.cell(name, value):>10}", style="" if math.isfinite(value) else "dim")
            lines.append(line)
        return lines

    def cell(self, signal: str, value: float) -> str:
        if math.isnan(value):
            return "-"
        return f"{value:.0%}" if signal.endswith("fraction") else number(value)

    def sick_layers(self) -> set[str]:
        strip = self.scene.state.layers
        named = {strip.names[i] for i in strip.sick} if strip is not None else set()
        return named | {target for f in self.scene.state.findings if f.speaks and f.state != "cleared" for target in f.targets}

    def explain(self) -> list[Text]:
        """The documentation of the selected finding's rule."""
        if not self.scene.findings:
            return [Text(""), Text(" Nothing has been found, so there is nothing to explain.", style="dim")]
        finding = self.scene.findings[_within(self.place.finding, len(self.scene.findings))]
        docs = self.scene.docs
        lines = [Text("")]
        if docs is None:
            lines += self.paragraph(f"Read about this rule with: nndoctor explain {finding.rule}")
        elif isinstance(docs, str):
            lines += [line for part in docs.splitlines() for line in self.paragraph(part)]
        else:
            lines += self.documentation(docs)
        return lines[min(self.place.scroll, max(0, len(lines) - (self.height - 2))) :]

    def documentation(self, docs: RuleDocs) -> list[Text]:
        lines = [*self.paragraph(docs.title, "bold"), *self.paragraph(f"rule {docs.id}", "dim"), Text("")]
        sections: Sequence[tuple[str, str | tuple[str, ...]]] = (
            ("What it checks", docs.checks),
            ("Why it matters", docs.why),
            ("Common causes", docs.causes),
            ("How to confirm", docs.confirm),
            ("What to do", docs.fixes),
            ("Known problems", docs.known_problems),
            ("References", docs.references),
        )
        for title, content in sections:
            if not content:
                continue
            lines.append(Text(f" {title}", style="bold cyan"))
            for item in (content,) if isinstance(content, str) else content:
                bullet = "" if isinstance(content, str) else "- "
                lines += self.paragraph(bullet + item, indent=3)
            lines.append(Text(""))
        return lines

    def runs(self) -> list[Text]:
        """The runs beside this one; enter opens the marked one."""
        runs = self.scene.runs
        if not runs:
            return [Text(""), Text(" No other runs here.", style="dim")]
        selected = _within(self.place.run, len(runs))
        room = self.height - 3
        first = max(0, min(selected - room // 2, len(runs) - room))
        lines = [Text("")]
        for index in range(first, min(first + room, len(runs))):
            run = runs[index]
            width = max(12, self.width - 46)
            text = Text(">" if index == selected else " ", style="reverse" if index == selected else "", no_wrap=True)
            text.append(f" {self.safe(run.folder.name, width):<{width}} ")
            text.append(f"{run.status or 'unreadable':<11}step {run.last_step:<9}", style="dim")
            worst = run.problem or (f"worst: {run.worst.label}" if run.worst is not None else "no findings")
            text.append(self.safe(worst, max(8, self.width - text.cell_len - 1)))
            lines.append(text)
        return lines

    def question(self, reason: str) -> Text:
        """Where the reason is typed; of a long one its end is seen."""
        finding = self.scene.findings[_within(self.place.finding, len(self.scene.findings))]
        hint = "  (enter acknowledges, esc does not)" if self.width >= 100 else ""
        ask = f" why is {self.safe(finding.rule, self.width // 3)} fine? " if self.width >= NARROW else " why? "
        room = max(4, self.width - cell_len(ask) - len(hint) - 2)
        typed = safe(reason, ascii=self.ascii)
        while cell_len(typed) > room:
            typed = typed[1:]
        line = Text(ask, style="bold cyan", no_wrap=True).append(typed, style="bold").append("_", style="bold blink")
        return line.append(hint, style="dim")

    def keys(self) -> Text:
        """The last row: what a key does, or the note of the last action."""
        if self.place.reason is not None:
            return self.question(self.place.reason)
        if self.place.note:
            return Text(f" {self.safe(self.place.note, self.width - 2)}", style="bold cyan", no_wrap=True)
        line = Text(" ", no_wrap=True)
        fitting = (names for names in KEY_NAMES if sum(len(name) + 4 for name in names.values()) - 1 <= self.width)
        for key, name in next(fitting, KEY_NAMES[-1]).items():
            here = PAGE_KEYS.get(key) == self.place.page
            line.append(key, style="bold reverse").append(f" {name}".rstrip(), style="bold" if here else "dim").append("  ")
        if self.scene.behind and line.cell_len + 12 < self.width:
            line.append("reading...", style="yellow")
        return line

    # -- helpers

    def sign(self, severity: str, state: str, suppressed: str | None) -> Text:
        glyphs = self.rows.glyphs
        if state == "cleared" or suppressed is not None:
            return Text(glyphs.good, style="green")
        if severity in ("error", "critical"):
            return Text(glyphs.error, style="bold red")
        return Text(glyphs.warning if severity == "warning" else glyphs.dot, style="yellow" if severity == "warning" else "dim")

    def period(self, since: int, until: int, state: str) -> str:
        return f"{since} to {until}" if state == "cleared" else f"since {since}"

    def safe(self, text: object, width: int) -> str:
        return safe(text, width, ascii=self.ascii)

    def labelled(self, label: str, content: str, style: str = "dim") -> list[Text]:
        lines = self.paragraph(content, indent=11)
        lines[0] = Text(f" {label:<10}", style=style, no_wrap=True).append(lines[0].plain[11:], style="")
        return lines

    def paragraph(self, content: str, style: str = "", indent: int = 1) -> list[Text]:
        """`content` folded at blanks to the width of the page."""
        plain = clean(content)
        words = (to_ascii(plain) if self.ascii else plain).split()
        lines: list[str] = [""]
        room = max(8, self.width - indent - 1)
        for word in words:
            joined = f"{lines[-1]} {word}" if lines[-1] else word
            if cell_len(joined) <= room or not lines[-1]:
                lines[-1] = joined
            else:
                lines.append(word)
        return [Text(" " * indent + line, style=style, no_wrap=True) for line in lines]


def layer_order(state: PanelState, history: History, table: Mapping[str, np.ndarray]) -> list[int]:
    """Layers that were measured: those that findings name first, then by distance from the typical gradient norm."""
    names = history.targets.layers
    first = next(iter(table))
    named = {target for f in state.findings if f.speaks for target in f.targets}
    named |= {state.layers.names[i] for i in state.layers.sick} if state.layers is not None else set()
    sizes = np.full(len(names), np.nan)
    sizes[: table[first].size] = np.abs(table[first])
    with np.errstate(divide="ignore"):
        logs = np.log10(sizes)
    typical = float(np.median(logs[np.isfinite(logs)])) if np.isfinite(logs).any() else 0.0
    measured = np.zeros(len(names), dtype=bool)
    for values in table.values():
        measured[: values.size] |= ~np.isnan(values)

    def rank(index: int) -> tuple[bool, float, int]:
        distance = abs(logs[index] - typical) if not math.isnan(logs[index]) else -1.0
        return names[index] not in named, -distance, index

    return sorted(np.flatnonzero(measured).tolist(), key=rank)


def _more(items: Sequence[object], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


Explainer: TypeAlias = Callable[[str], "RuleDocs | str | None"]
