"""Messages with values in them: ``{layer}: gradient {grad.spike:.1f}x its own median``, checked at load.

The text between braces is an expression of the rule language or the name of a target; what follows a
colon is one of the few number formats. `str.format` is never used: it would reach into objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nndoctor.findings import format_value
from nndoctor.rules.expression import Expression, ExpressionError, Names, parse

TARGET_WORDS = ("layer", "layers", "param", "params", "group", "groups", "rank", "ranks", "target", "targets")
MOST_CHARACTERS = 1000
_FORMAT = re.compile(r"\+?(\d{1,2})?,?(\.\d{1,2})?[efgdEG%]?\Z")


@dataclass(frozen=True, slots=True)
class Field:
    """A hole in a message: an expression with a number format, or the name of a target."""

    expression: Expression | None
    format: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A message in parts: text, and holes to fill."""

    parts: tuple[str | Field, ...] = ()

    def expressions(self) -> tuple[Expression, ...]:
        return tuple(p.expression for p in self.parts if isinstance(p, Field) and p.expression is not None)

    def fill(self, value: Callable[[Expression], float], targets: Sequence[str]) -> str:
        """The message, with `value` telling what an expression is worth and `targets` where it holds."""
        return "".join(p if isinstance(p, str) else _filled(p, value, targets) for p in self.parts)


def parse_template(text: str, names: Names, axes: Sequence[str]) -> Template:
    """The template that `text` stands for.

    Raises:
        ExpressionError: braces that do not match, an unknown name or format, or a value that is one per
            target along an axis which is not among `axes`.
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the message has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
    parts: list[str | Field] = []
    for piece, offset, is_field in _pieces(text):
        parts.append(_field(piece, offset, names, axes) if is_field else piece)
    return Template(tuple(parts))


def _pieces(text: str) -> Iterator[tuple[str, int, bool]]:
    """Text and holes in turn: (content, offset, whether it is a hole)."""
    at, plain = 0, ""
    while at < len(text):
        character = text[at]
        if text[at : at + 2] in ("{{", "}}"):
            plain += character
            at += 2
        elif character == "{":
            end = text.find("}", at)
            if end < 0:
                raise ExpressionError("'{' is never closed", at, 1, "write '{{' for a plain brace")
            if plain:
                yield plain, at - len(plain), False
                plain = ""
            yield text[at + 1 : end], at + 1, True
            at = end + 1
        elif character == "}":
            raise ExpressionError("'}' without '{'", at, 1, "write '}}' for a plain brace")
        else:
            plain += character
            at += 1
    if plain:
        yield plain, at - len(plain), False


def _field(text: str, offset: int, names: Names, axes: Sequence[str]) -> Field:
    body, colon, form = text.partition(":")
    word = body.strip()
    if word in TARGET_WORDS and not colon and word not in names.params and word not in names.records:
        if not any(axis != "run" for axis in axes):
            raise ExpressionError(
                f"the rule judges the run as a whole: there is no {word} to name", offset, len(body),
                "add 'where:' with the condition that tells the culprits",
            )  # fmt: skip
        return Field(None, word=word)
    if not _FORMAT.match(form) or (colon and not form):
        at = offset + len(body) + 1
        raise ExpressionError(
            f"unknown number format '{form[:20]}'", at, max(1, len(form)), "formats are .2f, .3g, .1e, .0%, d"
        )
    try:
        expression = parse(body, names)
    except ExpressionError as error:
        raise ExpressionError(error.message, error.offset + offset, error.length, error.help) from None
    if expression.axis not in ("run", *axes):
        raise ExpressionError(
            f"the message has one value, this has one per {expression.axis}", offset, len(body),
            f"reduce it, as in median_{expression.axis}s(...)",
        )  # fmt: skip
    return Field(expression, form)


def _filled(part: Field, value: Callable[[Expression], float], targets: Sequence[str]) -> str:
    if part.expression is None:
        return name_some(targets, 3) if part.word.endswith("s") else name_some(targets, 1)
    number = value(part.expression)
    if part.expression.condition:
        return "unknown" if number != number else ("yes" if number else "no")
    return format_number(number, part.format)


def format_number(number: float, form: str = "") -> str:
    """A number in one of the formats of messages; ``?`` where it is unknown."""
    if number != number:
        return "?"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    if not form:
        return format_value(float(f"{number:.4g}"))
    return format(round(number), form) if form.endswith("d") else format(number, form)


def name_some(targets: Sequence[str], most: int) -> str:
    """``a, b and 39 more``."""
    if not targets:
        return "run"
    shown = ", ".join(targets[:most])
    rest = len(targets) - most
    return f"{shown} and {rest} more" if rest > 0 else shown
