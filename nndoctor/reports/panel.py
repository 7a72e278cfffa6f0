"""The live panel: two quiet rows while a run is healthy, up to eight that name cause, place and remedy when it is not.

Data first (:func:`panel_state`, in ``panel_data``), pictures second (:func:`render_panel`)::

    -- nndoctor . resnet50-a3f1 . step 8140/50000 . 412 it/s . overhead 0.8% --------
     loss 2.91  ▂▂▁▁▁▁▁▂▃▅▇█ +44%/300 steps   lr     3.0e-3 ▇▇▇▇▇▇▇▇▇▇▇▇
     grad 48.2  ▁▁▁▁▁▁▁▁▂▄▇█ 31x median       upd/w  2.0e-2 ▁▁▁▁▂▅██ want 1e-3
     layers     ▁▁▂▁▁▁▃▇█▇▇▆▂▁▁▁▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ worst blk.7.q_proj
     ✖ learning rate too high since step 8020 FIX lr=2.0e-4 (confidence high)
       └ explains layer-gradient-spike in 41 layers, loss-rising
     ✓ 55 rules ok . 2 pending . 1 acknowledged    more: nndoctor watch a3f1

A sign or a word always says what a colour says. Names come from user code, so they are cleaned and never read as markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from nndoctor.reports.panel_data import (
    Curve,
    FindingLine,
    LayerStrip,
    PanelState,
    bucketed,
    panel_state,
)
from nndoctor.reports.text_safety import safe, shorten

__all__ = ["Curve", "FindingLine", "LayerStrip", "PanelState", "panel_lines", "panel_rows", "panel_state", "render_panel"]

MIN_ROWS, MAX_ROWS = 2, 8
NARROW = 72
"""Below this many columns a row holds one curve, and a remedy gets a row of its own."""

BRIEF_ORDER = ("loss", "grad", "update_ratio", "lr")
CURVE_LABELS = {"loss": "loss", "lr": "lr", "grad": "grad", "update_ratio": "upd/w"}
OWN_PREFIX = "metric."
"""What the name of a metric made from a function begins with; where room is short it goes without saying."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of a panel, in Unicode or in ASCII."""

    rule: str
    dot: str
    good: str
    warning: str
    error: str
    branch: str
    bars: str
    broken: str


UNICODE = Glyphs("─", "·", "✓", "▲", "✖", "└", "▁▂▃▄▅▆▇█", "!")
ASCII = Glyphs("-", ".", "ok", "!", "X", "`-", "_.-:=+*#", "!")


def render_panel(state: PanelState, width: int, height: int, ascii: bool = False) -> Group:
    """The panel as a rich renderable of at most `height` rows (two to eight are used) and `width` columns."""
    return Group(*panel_lines(state, width, height, ascii=ascii))


def panel_lines(state: PanelState, width: int, height: int, *, ascii: bool = False, ended: bool = False) -> list[Text]:
    """The rows of the panel, none wider than `width`: as many of the most important ones as fit into `height`.

    The last picture of a run that has `ended` points to its report, any other to ``watch``.
    """
    kinds = PanelRows(state, width, ASCII if ascii else UNICODE, ascii, ended)
    rows = kinds.full() if state.causes or (height >= 5 and state.curves) else kinds.compact()
    chosen = sorted(range(len(rows)), key=lambda i: rows[i].rank)[: max(0, min(height, MAX_ROWS))]
    lines = [rows[i].text for i in sorted(chosen)]
    for line in lines:
        line.truncate(max(0, width))
    return lines


def panel_rows(state: PanelState, width: int) -> int:
    """How many rows the panel would like: 2 while healthy, up to 8 when ill."""
    kinds = PanelRows(state, width, UNICODE, False)
    return min(MAX_ROWS, max(MIN_ROWS, len(kinds.full() if state.causes else kinds.compact())))


class Row(NamedTuple):
    rank: int  # the smaller, the later it is given up when rows are short
    text: Text


@dataclass(frozen=True, slots=True)
class PanelRows:
    """One state on its way to rows: each method makes one kind of row."""

    state: PanelState
    width: int
    glyphs: Glyphs
    ascii: bool
    ended: bool = False

    def compact(self) -> list[Row]:
        """A healthy run in two rows; more for metrics of the run's own, and if a probe of ours has failed."""
        extra = [Row(3, self.own())] if self.state.own else []
        extra += [Row(2, self.dismissed())] if self.state.probe_failures else []
        return [Row(0, self.title()), Row(1, self.healthy()), *extra]

    def full(self) -> list[Row]:
        """Every row the state has, from top to bottom."""
        title = Row(0, self.title())
        curves = self.curve_rows()
        rows = [title]
        rows += [Row(rank, text) for rank, text in zip((4, 6), curves, strict=False)]
        if self.state.layers is not None and len(self.state.layers.names) > 1:
            rows.append(Row(7, self.layers(self.state.layers)))
        rows += [Row(8, self.own())] if self.state.own else []
        rows += self.cause_rows()
        rows += [Row(8, self.over(finding)) for finding in self.state.recovered[:2]]
        rows.append(Row(3, self.status()))
        return rows

    # -- the title, and the whole story of a healthy run in one row

    def title(self) -> Text:
        """``── nndoctor · name · step 8140/50000 · 412 it/s · overhead 0.8% ────``"""
        state, g = self.state, self.glyphs
        step = f"step {state.step}" + (f"/{state.planned_steps}" if state.planned_steps and self.width >= 50 else "")
        parts = ["nndoctor", "", step]
        if state.status != "running":
            parts.append(state.status)
        extras = []
        if state.steps_per_second is not None:
            extras.append(f"{number(state.steps_per_second)} it/s")
        if state.overhead is not None:
            extras.append(f"overhead {state.overhead:.1%}")
        separator = f" {g.dot} "
        for extra in extras:
            if len(separator.join([*parts, extra])) + 20 <= self.width:
                parts.append(extra)
        taken = len(separator.join(parts)) + 4
        if self.width < taken + 8 and state.status != "running":  # how it ended matters more than who says it
            parts[0], taken = "", taken - len(parts[0]) - len(separator)
        parts[1] = self.safe(state.name, max(8, min(40, self.width - taken)))
        line = Text(no_wrap=True)
        line.append(g.rule * 2 + " ", style="dim")
        shown = [(part, ("bold", "bold cyan")[i] if i < 2 else "") for i, part in enumerate(parts) if part]
        for position, (part, style) in enumerate(shown):
            line.append(separator if position else "", style="dim")
            line.append(part, style=style)
        line.append(" ")
        return line.append(g.rule * (self.width - line.cell_len), style="dim")

    def healthy(self) -> Text:
        """``✓ loss 0.412 ▇▅▃▂ -12%/300 steps  grad 0.81  upd/w 1.1e-3  lr 1.0e-3   58 rules ok``"""
        state = self.state
        line = self.line((" " + self.glyphs.good + " ", "bold green"))
        if not state.curves:
            waiting = "nothing measured yet" if state.step else "waiting for the first step"
            return line.append(waiting, style="dim").append(f"   {self.counts(self.width - 32)}", style="dim")
        ranked = sorted(state.curves, key=lambda curve: BRIEF_ORDER.index(curve.key))
        pieces = [self.brief(curve) for curve in ranked]
        room = self.width - line.cell_len - 1
        counts = Text(self.counts(room), style="green")
        shown = [pieces[0]]
        room -= 13 if self.width >= NARROW and ranked[0].points else 0  # the loss is worth a drawing
        for piece in (counts, *pieces[1:]):
            if sum(p.cell_len + 3 for p in (*shown, piece)) - 3 <= room:
                shown.append(piece)
        kind = Text(self.kind(room), style="dim")
        if kind and len(shown) == len(pieces) + 1 and sum(p.cell_len + 3 for p in (*shown, kind)) - 3 <= room:
            shown.append(kind)
        if counts in shown:
            shown.append(shown.pop(shown.index(counts)))
        spare = self.width - line.cell_len - 1 - sum(p.cell_len + 3 for p in shown) + 3
        if spare > 4 and ranked[0].points:
            shown[0] = self.brief(ranked[0], spark=min(48, spare - 1))
        return line.append_text(Text("   ").join(shown))

    def brief(self, curve: Curve, spark: int = 0) -> Text:
        text = self.line((CURVE_LABELS[curve.key] + " ", "dim"), (curve_value(curve), "bold"))
        if spark:
            text.append(" " + sparkline(curve, spark, self.glyphs), style="cyan")
        if curve.remark and (curve.alarming or curve.key == "loss"):
            text.append(" " + curve.remark, style="yellow" if curve.alarming else "dim")
        return text

    # -- curves and layers

    def curve_rows(self) -> list[Text]:
        """Two rows of two curves; where the terminal is narrow, the two that matter most."""
        by_key = {curve.key: curve for curve in self.state.curves}
        order: Sequence[tuple[str, ...]] = (("loss", "lr"), ("grad", "update_ratio"))
        if self.width < NARROW:
            order = (("loss",), ("grad", "update_ratio", "lr"))
        rows = []
        for keys in order:
            present = [by_key[key] for key in keys if key in by_key][: 1 if self.width < NARROW else 2]
            if not present:
                continue
            line = self.curve(present[0], self.column if self.width >= NARROW else self.width)
            if len(present) == 2:
                line.append(" " * (self.column - line.cell_len))
                line.append_text(self.curve(present[1], self.width - self.column))
            rows.append(line)
        return rows

    def curve(self, curve: Curve, width: int) -> Text:
        """``loss  2.91   ▂▂▁▁▂▃▅▇█ +44%/300 steps``"""
        remark = curve.remark
        if width < 26 + len(remark):
            remark = remark.removesuffix(" steps").removesuffix(" median")
        line = self.line((f" {CURVE_LABELS[curve.key]:<6}", "dim"))
        line.append(f"{curve_value(curve):<6} ", style="bold red" if curve.nonfinite else "bold")
        spark = max(0, min(60, width - line.cell_len - max(11, len(remark) + 2)))
        line.append(sparkline(curve, spark, self.glyphs), style="red" if curve.alarming else "cyan")
        if remark:
            line.append(" " + remark, style="bold yellow" if curve.alarming else "dim")
        return line

    def own(self) -> Text:
        """``own  alignment 0.83 ▁▂▃▅   weights.drift 0.12 ▂▃▅█   +2``: as many as fit, the rest counted."""
        curves, wide = self.state.own, self.width >= NARROW
        line = self.line((" own" + " " * (3 if wide else 1), "dim"))
        room = self.width - line.cell_len - 1
        heads = [self.line((curve_label(curve, self.ascii, 28 if wide else 16) + " ", "dim"), (curve_value(curve), "bold")) for curve in curves]
        shown = len(heads)
        while shown > 1 and sum(head.cell_len + 8 for head in heads[:shown]) + 4 > room:
            shown -= 1
        rest = len(heads) - shown + self.state.own_more
        more = f"+{rest}" if rest else ""
        share = (room - len(more) - sum(head.cell_len for head in heads[:shown])) // shown - 4
        for head, curve in zip(heads[:shown], curves, strict=False):
            line.append_text(head)
            if share >= 3 and len(curve.points) > 1:
                line.append(" " + sparkline(curve, min(24, share), self.glyphs), style="cyan")
            line.append("   ")
        line.append(more, style="dim")
        line.rstrip()
        return line

    def layers(self, strip: LayerStrip) -> Text:
        """``layers  ▁▁▂▁▁▁▃▇█▇▇▆▂▁▁ grad.norm worst blk.7.q_proj``"""
        line = self.line((" layers" + " " * (7 if self.width >= NARROW else 1), "dim"))
        room = self.width - line.cell_len - 1
        signal = strip.signal if self.width >= NARROW else ""
        word = "worst" if strip.sick or (strip.worst is not None and strip.levels[strip.worst] is None) else "largest"
        note = Text(no_wrap=True)
        if strip.worst is not None:
            note.append(f" {signal} {word} " if signal else f" {word} ", style="dim")
            name = self.safe(_spoken(strip.names[strip.worst], "layers"), max(6, min(28, room - note.cell_len - min(20, room // 3))))
            note.append(name, style="bold red" if word == "worst" else "")
        count = max(1, min(len(strip.names), room - note.cell_len))
        for level, sick in _merged(strip, count):
            line.append(self.bar(level), style="bold red" if sick or level is None else "cyan")
        return line.append_text(note)

    def bar(self, level: float | None) -> str:
        if level is None:
            return self.glyphs.broken
        return self.glyphs.bars[min(len(self.glyphs.bars) - 1, int(level * len(self.glyphs.bars)))]

    # -- what was found

    def cause_rows(self) -> list[Row]:
        """Each root cause with its remedy, then what it explains."""
        rows: list[Row] = []
        for position, cause in enumerate(self.state.causes):
            rank = 1 if position == 0 else 10 * position
            named = (1, 6)[position] if position < 2 else rank + 5  # a second cause is worth more than the strip of layers
            rows += [Row(named, self.cause(cause))]
            remedy = self.remedy(cause)
            if remedy is not None and not self.joins(rows[-1].text, remedy):
                rows.append(Row(2 if position == 0 else rank + 6, self.line(("   ", "")).append_text(remedy)))
            symptoms = self.state.symptoms(cause)
            if symptoms:
                rows.append(Row(5 if position == 0 else rank + 7, self.explains(symptoms)))
        return rows

    def cause(self, cause: FindingLine) -> Text:
        """``✖ learning rate too high in 41 layers since step 8020``"""
        severe = cause.severity in ("error", "critical")
        style = "bold red" if severe else "bold yellow"
        sign = self.glyphs.error if severe else self.glyphs.warning
        line = self.line((f" {sign} ", style))
        since = f" since {'step ' * (self.width >= NARROW)}{cause.since}"
        room = self.width - line.cell_len - len(since)
        title = self.safe(cause.title, room)
        line.append(title, style=style)
        place = self.place(cause, min(32, room - cell_len(title) - 4))
        line.append(f" in {place}" if place else "")
        return line.append(since, style="dim")

    def over(self, finding: FindingLine) -> Text:
        """``✓ learning rate too high is over: 8020 to 8100``"""
        line = self.line((f" {self.glyphs.good} ", "green"))
        when = f" is over: {finding.since} to {finding.until}"
        line.append(self.safe(finding.title, self.width - line.cell_len - len(when)))
        return line.append(when, style="dim")

    def place(self, finding: FindingLine, width: int) -> str:
        """The one target by name, several as the first one and a count; empty where there is no room for it."""
        if not finding.targets or width < 6:
            return ""
        more = f" +{len(finding.targets) - 1}" if len(finding.targets) > 1 else ""
        return self.safe(_spoken(finding.targets[0], finding.place_word), width - len(more)) + more

    def remedy(self, cause: FindingLine) -> Text | None:
        if not cause.fix:
            return None
        sure = f" (confidence {cause.fix_confidence})" if cause.fix_confidence and self.width >= NARROW else ""
        fix, room = cause.fix, self.width - 8 - len(sure)
        if cell_len(fix) > room and not fix.startswith("call "):  # of a sentence the aside goes first; of a call that is its line
            fix = re.sub(r" \([^()]*\)$", "", fix)
        fix = self.safe(fix, room)
        return self.line(("FIX ", "bold green"), (fix, "bold"), (sure, "dim"))

    def joins(self, cause: Text, remedy: Text) -> bool:
        """Put the remedy to the right of its cause if it fits there."""
        column = max(self.column + 1, cause.cell_len + 3)
        if self.width < NARROW or column + remedy.cell_len >= self.width:
            return False
        cause.append(" " * (column - cause.cell_len)).append_text(remedy)
        return True

    def explains(self, symptoms: Sequence[FindingLine]) -> Text:
        """``└ explains layer-gradient-spike in 41 layers, loss-rising``"""
        line = self.line((f"   {self.glyphs.branch} explains ", "dim"))
        words = []
        for symptom in symptoms:
            count = len(symptom.targets)
            where = f" in {count} {symptom.place_word}" if count > 1 else f" in {self.place(symptom, 24)}" if count else ""
            words.append(self.safe(symptom.diagnosis, 40) + where)
        return line.append(_listed(words, self.width - line.cell_len, self.ascii))

    # -- the last row

    def status(self, hint: bool = True) -> Text:
        """``✓ 55 rules ok · 2 pending · 1 acknowledged    more: nndoctor watch a3f1``"""
        state = self.state
        judged = state.rules_ok is not None or not state.causes
        line = self.line((f" {self.glyphs.good if judged else self.glyphs.dot} ", "green" if judged else "dim"))
        dismissed = self.dismissed() if state.probe_failures else Text()
        line.append(self.counts(self.width - line.cell_len - dismissed.cell_len)).append_text(dismissed)
        kind = self.kind(self.width)
        if kind and line.cell_len + cell_len(kind) + 3 + len("   more: nndoctor report ") + 24 <= self.width:
            line.append(f" {self.glyphs.dot} {kind}", style="dim")
        return self.hinted(line) if hint else line

    def kind(self, width: int) -> str:
        """What the run is taken for, without the details: ``a GAN``."""
        said = self.state.taken_for[:1]
        return self.safe(said[0].partition(":")[0], max(0, min(36, width))) if said else ""

    def hinted(self, line: Text) -> Text:
        """`line` with the way to more at its right, where there is room."""
        command = "report" if self.ended or self.state.status != "running" else "watch"
        typed = re.fullmatch(r"[\w.-]{1,24}", self.state.name) and self.safe(self.state.name, 24) == self.state.name
        hint = f"more: nndoctor {command}" + (f" {self.state.name}" if typed else "")  # without a name it is the newest run
        column = max(self.column + 1, line.cell_len + 3) if self.width >= NARROW else line.cell_len + 3
        if column + cell_len(hint) > self.width:
            column = self.width - cell_len(hint)
        if column >= line.cell_len + 3:
            line.append(" " * (column - line.cell_len)).append(hint, style="dim")
        return line

    def counts(self, width: int) -> str:
        """``55 rules ok · 2 root causes · 2 pending · ...`` as far as it fits into `width`."""
        state, separator = self.state, f" {self.glyphs.dot} "
        loud = sum(f.speaks and f.state != "cleared" for f in state.findings)
        if state.rules_ok is not None:
            words = [f"{state.rules_ok} rules ok"]
        else:
            words = [f"{loud} finding{'s' * (loud != 1)}" if loud else "no findings"]
        if len(state.causes) > 1:
            words.append(f"{len(state.causes)} root causes")
        counted = (
            (state.pending, "pending"),
            (state.acknowledged, "acknowledged"),
            (len(state.recovered), "cleared"),
            (state.not_examined, "not examined"),
        )
        words += [f"{count} {word}" for count, word in counted if count]
        while len(words) > 1 and len(separator.join(words)) > width:
            words.pop()
        return separator.join(words)

    def dismissed(self) -> Text:
        """Our own failure, said and never hidden: ``▲ probe activations dismissed``."""
        names = self.safe(", ".join(self.state.probe_failures), max(8, self.width // 3))
        probes = "" if self.width < NARROW else "probes " if len(self.state.probe_failures) > 1 else "probe "
        return self.line((f" {self.glyphs.warning} {probes}{names} dismissed", "yellow"))

    # -- helpers

    @property
    def column(self) -> int:
        """Where the right half of a wide panel begins."""
        return min(72, max(41, self.width // 2))

    def safe(self, text: str, width: int) -> str:
        return safe(text, width, ascii=self.ascii)

    def line(self, *pieces: tuple[str, str]) -> Text:
        line = Text(no_wrap=True)
        for content, style in pieces:
            line.append(content, style=style)
        return line


# ------------------------------------------------------------------------------- numbers and curves


def number(value: float) -> str:
    """Three significant digits in at most seven characters: ``2.91``, ``48.2``, ``1230``, ``3.0e-3``."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 0.01 <= size < 999.5:
        return f"{value:.3g}" if size >= 0.1 else f"{value:.2g}"
    if 999.5 <= size < 99999.5:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def curve_label(curve: Curve, ascii: bool = False, width: int = 28) -> str:
    """What a curve is called: a word for each of ours, a name of the user's as it is but cleaned, and cut to `width`."""
    own = curve.signal.removeprefix(OWN_PREFIX) or curve.signal
    return CURVE_LABELS.get(curve.key) or safe(own, width, ascii=ascii)


def curve_value(curve: Curve) -> str:
    if curve.nonfinite:
        return "NaN/inf"
    return "-" if curve.value is None else number(curve.value)


def sparkline(curve: Curve, width: int, glyphs: Glyphs = UNICODE) -> str:
    """The curve as bars in at most `width` cells.

    Gradient norm and update ratio are drawn on a log scale, the learning rate from zero, the loss between
    its extremes (but never magnified beyond 5 % of its size, lest noise look like news).
    """
    last = len(glyphs.bars) - 1
    return "".join(glyphs.bars[round(level * last)] for level in curve_levels(curve, width)[0])


def chart(curve: Curve, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[str]:
    """The curve as `height` rows of bars, with its extremes at the left; the same scales as :func:`sparkline`."""
    levels, low, high = curve_levels(curve, max(1, width - 9))
    if not levels:
        return [""] * height
    labels = [""] * height
    labels[0], labels[-1] = number(high), number(low)
    steps = len(glyphs.bars)
    filled = [1 + round(level * (height * steps - 1)) for level in levels]  # in eighths of a row, from the bottom
    rows = []
    for row in range(height):
        below = (height - 1 - row) * steps
        bars = "".join(" " if f <= below else glyphs.bars[min(steps, f - below) - 1] for f in filled)
        rows.append(f"{labels[row]:>8} {bars}")
    return rows


def curve_levels(curve: Curve, width: int) -> tuple[list[float], float, float]:
    """The curve in at most `width` points scaled to 0..1, and the values that 0 and 1 stand for."""
    points = list(bucketed(curve.points, width))
    if not points:
        return [], 0.0, 0.0
    logarithmic = curve.key in ("grad", "update_ratio") and min(points) > 0
    if logarithmic:
        points = [math.log10(point) for point in points]
        low, high, least = min(points), max(points), 0.5
    elif curve.key == "lr":
        low, high, least = min(0.0, *points), max(points), 0.0
    else:
        low, high = min(points), max(points)
        least = 0.05 * max(abs(low), abs(high))
    slack = max(0.0, least - (high - low)) / 2
    low, high = low - slack, high + slack
    scale = 1 / (high - low) if high > low else 0.0
    levels = [(point - low) * scale for point in points]
    return (levels, 10**low, 10**high) if logarithmic else (levels, low, high)


def _spoken(name: str, kind: str) -> str:
    """``layer 3`` for the third layer of a Sequential, whose bare name reads like a count; other names as they are."""
    return f"{kind.removesuffix('s')} {name}" if name.isdigit() and kind != "places" else name


def _merged(strip: LayerStrip, count: int) -> Iterator[tuple[float | None, bool]]:
    """Level and sickness of `count` groups of neighbouring layers; the highest and the sickest of a group speak."""
    total, sick = len(strip.names), set(strip.sick)
    for group in range(count):
        members = range(group * total // count, (group + 1) * total // count)
        levels = [strip.levels[i] for i in members]
        known = [level for level in levels if level is not None]
        yield (max(known) if len(known) == len(levels) else None), not sick.isdisjoint(members)


def _listed(words: Sequence[str], width: int, ascii: bool) -> str:
    """``a, b, c`` as far as it fits, then ``+2``."""
    for shown in range(len(words), 0, -1):
        more = f", +{len(words) - shown}" if shown < len(words) else ""
        text = ", ".join(words[:shown]) + more
        if cell_len(text) <= width:
            return text
    return shorten(words[0], max(0, width), ascii=ascii) if words else ""
