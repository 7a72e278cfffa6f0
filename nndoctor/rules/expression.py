"""The expressions of rules: parsed from text, names resolved, types checked; nothing is ever executed.

The text is parsed with Python's own grammar, and of that tree only what is listed here is accepted:
numbers, names, our functions, arithmetic, comparison and logic. The result is a tree of `Expression`
which knows for each part whether it is a number or a condition, and what it has one value for: the
run, or every layer, parameter, group or rank.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, TypeAlias

from nndoctor.rules import functions
from nndoctor.rules.problems import did_you_mean
from nndoctor.signals import OBSERVED_PREFIX, Axis, Catalogue

MOST_CHARACTERS = 500
MOST_NODES = 100
MOST_PARTS = 1000  # with the records that it names written out
LONGEST_WINDOW = 100_000

Operation: TypeAlias = Literal[
    "number", "levels", "signal", "clock", "record", "arithmetic", "compare", "and", "or", "not", "negate", "scalar",
    "isfinite", "known", "default", "window", "initial", "ever", "held", "over", "depth_slope", "first_layer",
    "last_layer", "of_layer", "to_param",
]  # fmt: skip

_ALLOWED = re.compile(r"[A-Za-z0-9_.+\-*/()<>=!,\s]*\Z")
_INSTEAD = {
    "&": "write 'and'",
    "|": "write 'or'",
    "^": "write '**' for a power",
    "'": "expressions hold no text; only numbers, names and functions",
    '"': "expressions hold no text; only numbers, names and functions",
    "[": "there is no indexing; take one value of many with max_layers(...), first_layer(...) and the like",
    "%": "write a share as a number: 5 % is 0.05",
    "#": "comments belong outside of the expression",
    ":": "a format such as {loss:.2f} is only for messages",
    "{": "braces are only for messages",
}
_PLURALS: dict[str, Axis] = {"layers": "layer", "params": "param", "groups": "group", "ranks": "rank"}


def _reducer_names() -> dict[str, tuple[str, Axis]]:
    """``any_layer``, ``median_params``, ... to the reducer and the axis that it takes away."""
    names: dict[str, tuple[str, Axis]] = {}
    for plural, axis in _PLURALS.items():
        for reducer in functions.REDUCERS:
            names[f"{reducer}_{axis if reducer == 'any' else plural}"] = (reducer, axis)
    return names


REDUCERS = _reducer_names()
_SIGNATURES: dict[str, str] = {
    **{name: f"{name}(x, steps)" for name in functions.WINDOWS},
    "quantile": "quantile(x, steps, fraction)",
    "initial": "initial(x, samples)",
    "ever": "ever(condition)",
    "held": "held(condition, steps)",
    "known": "known(x)",
    "default": "default(x, otherwise)",
    "isfinite": "isfinite(x)",
    "depth_slope": "depth_slope(x)",
    "first_layer": "first_layer(x)",
    "last_layer": "last_layer(x)",
    "of_layer": "of_layer(x)",
    "to_param": "to_param(x)",
    "abs": "abs(x)",
    "log10": "log10(x)",
    "sqrt": "sqrt(x)",
    "nice": "nice(x)",
    "clip": "clip(x, low, high)",
    "min2": "min2(a, b)",
    "max2": "max2(a, b)",
    **{
        name: f"{name}({'condition' if reducer in functions.OF_CONDITIONS else 'x'}{', fraction' * (reducer == 'quantile')})"
        for name, (reducer, _) in REDUCERS.items()
    },
}
FUNCTIONS: tuple[str, ...] = tuple(_SIGNATURES)
"""Every function that expressions may call."""

_WORDS = ("and", "or", "not", "True", "False")
_CLOCKS = ("step", "epoch")
_CONSTANTS = {"pi": math.pi}
BUILT_INS: tuple[str, ...] = (*_CLOCKS, *_CONSTANTS, "true", "false")


class ExpressionError(Exception):
    """A mistake in an expression: what is wrong, at which characters, and what to do."""

    def __init__(self, message: str, offset: int = 0, length: int = 1, help: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.length, self.help = message, offset, max(1, length), help


@dataclass(frozen=True, slots=True)
class Levels:
    """A parameter of a rule that differs between targets: (name patterns, value), the last match wins."""

    base: float
    exceptions: tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression.

    Args:
        operation: what it does with its arguments.
        name: signal, function, operator or clock.
        arguments: the parts.
        axis: what it has one value for.
        condition: whether it is true, false or unknown rather than a number.
        number: the value of a constant, the steps of a window, the samples of ``initial``.
        fraction: of a quantile.
        levels: values of a parameter that differs between targets.
        key: the same for expressions that compute the same.
        span: offset and length of where it stands in the text.
        size: number of its parts, records written out.
    """

    operation: Operation
    name: str
    arguments: tuple[Expression, ...] = field(default=(), compare=False, repr=False)
    axis: Axis = "run"
    condition: bool = False
    number: float = 0.0
    fraction: float = 0.5
    levels: Levels | None = None
    key: str = ""
    span: tuple[int, int] = field(default=(0, 1), compare=False, repr=False)
    size: int = field(default=1, compare=False, repr=False)

    @property
    def offset(self) -> int:
        return self.span[0]

    @property
    def length(self) -> int:
        return self.span[1]

    def walk(self) -> Iterator[Expression]:
        """Itself and every part of it."""
        yield self
        for argument in self.arguments:
            yield from argument.walk()

    def signals(self) -> tuple[str, ...]:
        """The signals it reads, in order of appearance."""
        return tuple(dict.fromkeys(e.name for e in self.walk() if e.operation == "signal"))

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Names:
    """What the names in an expression may mean.

    Args:
        catalogue: the signals.
        records: the named expressions of the ruleset.
        params: the parameters of the rule.
        scope: the axis along which parameters with exceptions differ.
    """

    catalogue: Catalogue
    records: Mapping[str, Expression] = field(default_factory=dict)
    params: Mapping[str, float | Levels] = field(default_factory=dict)
    scope: Axis = "run"

    def all(self) -> list[str]:
        return [*self.params, *self.records, *self.catalogue.names(), *BUILT_INS]


def parse(text: str, names: Names) -> Expression:
    """The checked expression that `text` stands for. Raises ExpressionError with the position of the mistake."""
    return _Reader(names).read(_syntax(text))


def parse_condition(text: str, names: Names, scope: Axis) -> Expression:
    """Like `parse`, for a condition that must be judged once per target of `scope`."""
    expression = parse(text, names)
    if not expression.condition:
        bare = expression.operation == "signal"
        hint = f"compare it: '{text.strip()} {'== 1' if bare else '> ...'}'" if len(text) < 60 else "compare it"
        raise ExpressionError("expected a condition, got a number", expression.offset, expression.length, hint)
    check_axis(expression, scope)
    return expression


def parse_number(text: str, names: Names, scope: Axis) -> Expression:
    """Like `parse`, for a number that has one value, or one per target of `scope`."""
    expression = parse(text, names)
    if expression.condition:
        raise ExpressionError("expected a number, got a condition", expression.offset, expression.length)
    check_axis(expression, scope)
    return expression


def check_axis(expression: Expression, scope: Axis) -> None:
    if expression.axis in ("run", scope):
        return
    axis = expression.axis
    wrapper = f"any_{axis}(...)" if expression.condition else f"max_{axis}s(...)"
    raise ExpressionError(
        f"scope is '{scope}' but the {'condition' if expression.condition else 'value'} has one value per {axis}",
        expression.offset,
        expression.length,
        _conversion(axis, scope) or f"wrap it in {wrapper}",
    )


def _conversion(axis: Axis, wanted: Axis) -> str:
    if (axis, wanted) == ("param", "layer"):
        return "wrap it in of_layer(...), the largest of each layer's parameters"
    if (axis, wanted) == ("layer", "param"):
        return "wrap it in to_param(...), the value of the layer that owns the parameter"
    return ""


def _syntax(text: str) -> ast.expr:
    """The syntax tree of `text`, refused early where it is too long or has characters that no expression needs."""
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
    if not _ALLOWED.match(text):
        at = next(i for i, c in enumerate(text) if not _ALLOWED.match(c))
        raise ExpressionError(f"unexpected character {text[at]!r}", at, 1, _INSTEAD.get(text[at], ""))
    if not text.strip():
        raise ExpressionError("the expression is empty", help="write a condition such as: loss > 10")
    flat = re.sub(r"\s", " ", text)
    lead = len(flat) - len(flat.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(flat.strip(), mode="eval").body
    except SyntaxError as error:
        end = max(len(text.rstrip()) - 1, 0)  # where Python tells no place, it expected something more
        at = min(error.offset - 1 + lead, end) if error.offset else end
        raise ExpressionError(f"cannot read the expression: {error.msg}", at, 1, _syntax_help(text)) from None
    except (ValueError, MemoryError, RecursionError, OverflowError):
        raise ExpressionError(
            "cannot read the expression: it is nested too deeply or holds too long a number"
        ) from None
    nodes = sum(
        not isinstance(node, (ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context))
        for node in ast.walk(tree)
    )
    if nodes > MOST_NODES:
        raise ExpressionError(
            f"the expression has {nodes} parts; at most {MOST_NODES} are allowed", help="name parts of it under record:"
        )
    if lead:
        for node in ast.walk(tree):
            if isinstance(node, ast.expr):
                node.col_offset += lead
                node.end_col_offset = (node.end_col_offset or 0) + lead
    return tree


def _syntax_help(text: str) -> str:
    words = [word for word in re.findall(r"[A-Za-z_]\w*", text) if keyword.iskeyword(word) and word not in _WORDS]
    if words:
        return f"'{words[0]}' is a reserved word; choose another name for it"
    if re.search(r"[^<>=!]=[^=]", text):
        return "write '==' to compare"
    if text.count("(") != text.count(")"):
        return "the brackets do not match"
    if re.search(r"!(?!=)", text):
        return "write 'not'"
    left_open = re.search(r"(<=?|>=?|[=!]=|[-+*/,]|\b(?:and|or|not))\s*$", text)
    if left_open:
        return f"something is missing after '{left_open[1]}'"
    return ""


_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


class _Reader:
    """Turns a syntax tree into a checked expression."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def read(self, node: ast.expr) -> Expression:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._name(node)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.BoolOp):
            return self._logic(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise _error(
            node, f"{type(node).__name__.lower()} is not part of the language", "see the reference of rule expressions"
        )

    def _constant(self, node: ast.Constant) -> Expression:
        if isinstance(node.value, bool):
            return _number(float(node.value), node, condition=True)
        if not isinstance(node.value, (int, float)):
            raise _error(node, f"only numbers are allowed, got {type(node.value).__name__}")
        try:
            return _number(float(node.value), node)
        except OverflowError:
            raise _error(node, "the number is too large") from None

    def _name(self, node: ast.expr) -> Expression:
        name = _dotted(node)
        names = self.names
        if name in names.params:
            value = names.params[name]
            if not isinstance(value, Levels):
                return _number(value, node)
            key = f"levels:{names.scope}:{value.base!r}:{value.exceptions!r}"
            return Expression("levels", name, (), names.scope, levels=value, key=key, span=_span(node))
        if name in names.records:
            inner = names.records[name]
            return Expression(
                "record", name, (inner,), inner.axis, inner.condition, key=inner.key, span=_span(node), size=inner.size
            )
        if name in names.catalogue:
            return Expression("signal", name, (), names.catalogue[name].per, key=name, span=_span(node))
        if name in _CLOCKS:
            return Expression("clock", name, (), key=name, span=_span(node))
        if name in _CONSTANTS:
            return _number(_CONSTANTS[name], node)
        if name in ("true", "false"):
            return _number(float(name == "true"), node, condition=True)
        raise self._unknown(node, name)

    def _unknown(self, node: ast.expr, name: str) -> ExpressionError:
        if name in FUNCTIONS:
            return _error(node, f"'{name}' is a function", f"call it: {_SIGNATURES[name]}")
        below = [known for known in self.names.catalogue.names() if known.startswith(f"{name}.")]
        if below:
            return _error(node, f"unknown signal '{name}'", f"there are {', '.join(below[:6])}")
        kind = "signal" if "." in name else "signal or parameter"
        hint = did_you_mean(name, self.names.all())
        return _error(
            node, f"unknown {kind} '{name}'", hint or f"measured by you? then it is called '{OBSERVED_PREFIX}...'"
        )

    def _unary(self, node: ast.UnaryOp) -> Expression:
        value = self.read(node.operand)
        if isinstance(node.op, ast.Not):
            self._need(value, condition=True, what="'not'")
            return _make("not", "not", (value,), value.axis, node, condition=True)
        if isinstance(node.op, ast.USub):
            self._need(value, condition=False, what="'-'")
            if value.operation == "number":
                return _number(-value.number, node)
            return _make("negate", "-", (value,), value.axis, node)
        raise _error(node, "only '-' and 'not' may stand before a value")

    def _arithmetic(self, node: ast.BinOp) -> Expression:
        symbol = _ARITHMETIC.get(type(node.op))
        if symbol is None:
            raise _error(node, "only + - * / ** are allowed")
        left, right = self.read(node.left), self.read(node.right)
        for side in (left, right):
            self._need(side, condition=False, what=f"'{symbol}'")
        axis = self._common((left, right), node)
        if left.operation == right.operation == "number":
            return _number(functions.ARITHMETIC[symbol](left.number, right.number), node)
        return _make("arithmetic", symbol, (left, right), axis, node)

    def _comparison(self, node: ast.Compare) -> Expression:
        values = [self.read(part) for part in (node.left, *node.comparators)]
        for value in values:
            self._need(value, condition=False, what="a comparison")
        parts = []
        for left, right, comparator in zip(values, values[1:], node.ops, strict=False):
            symbol = _COMPARE.get(type(comparator))
            if symbol is None:
                raise _error(node, "only > >= < <= == != compare")
            axis = self._common((left, right), node)
            parts.append(_make("compare", symbol, (left, right), axis, node, condition=True))
        if len(parts) == 1:
            return parts[0]
        return _make("and", "and", tuple(parts), self._common(parts, node), node, condition=True)

    def _logic(self, node: ast.BoolOp) -> Expression:
        word: Literal["and", "or"] = "and" if isinstance(node.op, ast.And) else "or"
        values = [self.read(part) for part in node.values]
        for value in values:
            self._need(value, condition=True, what=f"'{word}'")
        return _make(word, word, tuple(values), self._common(values, node), node, condition=True)

    def _call(self, node: ast.Call) -> Expression:
        if not isinstance(node.func, (ast.Name, ast.Attribute)):
            raise _error(node.func, "only our functions can be called")
        name = _dotted(node.func)
        if name not in _SIGNATURES:
            known = name in self.names.catalogue or name in self.names.params or name in self.names.records
            if known:
                raise _error(node.func, f"'{name}' is no function", "write '*' to multiply")
            hint = did_you_mean(
                name, FUNCTIONS, quantity="see the list of functions in the reference of rule expressions"
            )
            raise _error(node.func, f"unknown function '{name}'", hint)
        if node.keywords:
            raise _error(node, "arguments have no names", f"write {_SIGNATURES[name]}")
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            raise _error(node, "'*' is not allowed before an argument", f"write {_SIGNATURES[name]}")
        arguments = [self.read(argument) for argument in node.args]
        expected = _SIGNATURES[name].count(",") + 1
        if len(arguments) != expected:
            plural = "s" * (expected != 1)
            hint = f"write {_SIGNATURES[name]}"
            if name in ("min", "max") and len(arguments) == 1:
                hint += f", or {name}_layers(x) for the {name} over layers"
            raise _error(node, f"{name} takes {expected} argument{plural}, got {len(arguments)}", hint)
        return self._apply(name, arguments, node)

    def _apply(self, name: str, arguments: list[Expression], node: ast.Call) -> Expression:
        first = arguments[0]
        if name in REDUCERS:
            return self._over(name, arguments, node)
        if name in functions.WINDOWS:
            return self._window(name, arguments, node)
        if name in functions.SCALARS:
            for argument in arguments:
                self._need(argument, condition=False, what=name)
            if all(argument.operation == "number" for argument in arguments):
                return _number(functions.SCALARS[name][1](*(a.number for a in arguments)), node)
            return _make("scalar", name, tuple(arguments), self._common(arguments, node), node)
        if name == "known":
            return _make("known", name, (first,), first.axis, node, condition=True)
        if name == "isfinite":
            self._need(first, condition=False, what=name)
            return _make("isfinite", name, (first,), first.axis, node, condition=True)
        if name == "default":
            self._need(arguments[1], condition=first.condition, what="the second argument of default")
            return _make(
                "default", name, tuple(arguments), self._common(arguments, node), node, condition=first.condition
            )
        if name == "initial":
            self._need(first, condition=False, what=name)
            samples = self._whole_number(arguments[1], "samples", 1, 1000)
            return _make("initial", name, (first,), first.axis, node, number=samples)
        if name == "ever":
            self._need(first, condition=True, what=name)
            return _make("ever", name, (first,), first.axis, node, condition=True)
        if name == "held":
            self._need(first, condition=True, what=name)
            steps = self._whole_number(arguments[1], "window", 2, LONGEST_WINDOW)
            return _make("held", name, (first,), first.axis, node, condition=True, number=steps)
        return self._between_axes(name, first, node)

    def _between_axes(self, name: str, value: Expression, node: ast.Call) -> Expression:
        if name == "of_layer":
            self._axis(value, "param", name)
            return _make("of_layer", name, (value,), "layer", node, condition=value.condition)
        self._axis(value, "layer", name)
        if name == "to_param":
            return _make("to_param", name, (value,), "param", node, condition=value.condition)
        if name == "depth_slope":
            self._need(value, condition=False, what=name)
            return _make("depth_slope", name, (value,), "run", node)
        operation: Operation = "first_layer" if name == "first_layer" else "last_layer"
        return _make(operation, name, (value,), "run", node, condition=value.condition)

    def _over(self, name: str, arguments: list[Expression], node: ast.Call) -> Expression:
        reducer, axis = REDUCERS[name]
        self._axis(arguments[0], axis, name)
        self._need(arguments[0], condition=reducer in functions.OF_CONDITIONS, what=name)
        fraction = self._fraction(arguments[1]) if reducer == "quantile" else 0.5
        return _make("over", name, (arguments[0],), "run", node, condition=reducer in ("any", "all"), fraction=fraction)

    def _window(self, name: str, arguments: list[Expression], node: ast.Call) -> Expression:
        series = arguments[0]
        if series.operation == "number":
            raise _error(node, f"{name} needs a signal, got a constant")
        if name not in ("mean", "count"):
            self._need(series, condition=False, what=name)
        steps = self._whole_number(arguments[1], "window", 2, LONGEST_WINDOW, name)
        fraction = self._fraction(arguments[2]) if name == "quantile" else 0.5
        return _make("window", name, (series,), series.axis, node, number=steps, fraction=fraction)

    def _whole_number(self, value: Expression, what: str, least: int, most: int, function: str = "") -> float:
        number = value.number
        if value.operation == "number" and not value.condition and least <= number <= most and number == int(number):
            return number
        got = f"{number:g}" if value.operation == "number" else "a value that is only known during the run"
        unit = " steps" if what == "window" else ""
        hint = f"for the {'larger' if function == 'max' else 'smaller'} of two values write {function}2(a, b)"
        raise ExpressionError(
            f"expected a {what} of {least} to {most}{unit}, a whole number or a parameter of the rule; got {got}",
            value.offset, value.length, hint if function in ("min", "max") else "",
        )  # fmt: skip

    def _fraction(self, value: Expression) -> float:
        if value.operation == "number" and 0.0 <= value.number <= 1.0:
            return value.number
        raise ExpressionError("expected a fraction from 0 to 1, as a number", value.offset, value.length)

    def _need(self, value: Expression, *, condition: bool, what: str) -> None:
        if value.condition == condition:
            return
        if condition:
            hint = (
                f"compare it, as in {value.name} == 1" if value.operation == "signal" else "compare it with something"
            )
            message = f"{what} needs a condition, got a number"
        else:
            hint, message = "", f"{what} needs a number, got a condition"
        raise ExpressionError(message, value.offset, value.length, hint)

    def _axis(self, value: Expression, axis: Axis, name: str) -> None:
        if value.axis == axis:
            return
        have = "one value for the run" if value.axis == "run" else f"one value per {value.axis}"
        hint = _conversion(value.axis, axis)
        if not hint and value.axis != "run" and name in REDUCERS:
            reducer = REDUCERS[name][0]
            hint = f"use {next(n for n, (r, a) in REDUCERS.items() if (r, a) == (reducer, value.axis))}(...)"
        raise ExpressionError(f"{name} needs one value per {axis}, got {have}", value.offset, value.length, hint)

    def _common(self, values: Sequence[Expression], node: ast.expr) -> Axis:
        axis: Axis = "run"
        for value in values:
            if value.axis == "run" or value.axis == axis:
                continue
            if axis != "run":
                hint = (
                    _conversion(value.axis, axis)
                    or _conversion(axis, value.axis)
                    or f"reduce one of them, as with max_{axis}s(...)"
                )
                raise _error(node, f"one side has a value per {axis}, the other a value per {value.axis}", hint)
            axis = value.axis
        return axis


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    if not isinstance(at, ast.Name):
        raise _error(node, "a '.' may only stand inside a name")
    return ".".join([at.id, *reversed(parts)])


def _span(node: ast.expr) -> tuple[int, int]:
    """Offset and length in the text."""
    return node.col_offset, max(1, (node.end_col_offset or node.col_offset + 1) - node.col_offset)


def _error(node: ast.expr, message: str, help: str = "") -> ExpressionError:
    return ExpressionError(message, *_span(node), help)


def _number(value: float, node: ast.expr, condition: bool = False) -> Expression:
    return Expression(
        "number", "", condition=condition, number=value, key=f"{value!r}{'?' * condition}", span=_span(node)
    )


def _digest(text: str) -> str:
    """A short name for a long one: written out, the names of nested expressions grow with the square of their size."""
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _make(
    operation: Operation,
    name: str,
    arguments: tuple[Expression, ...],
    axis: Axis,
    node: ast.expr,
    *,
    condition: bool = False,
    number: float = 0.0,
    fraction: float = 0.5,
) -> Expression:
    size = 1 + sum(argument.size for argument in arguments)
    if size > MOST_PARTS:
        raise _error(node, f"with its records written out the expression has more than {MOST_PARTS} parts")
    inner = ",".join(argument.key for argument in arguments)
    extra = f";{number!r};{fraction!r}" if operation in ("window", "initial", "held", "over") else ""
    return Expression(
        operation, name, arguments, axis, condition, number, fraction,
        key=_digest(f"{operation}:{name}({inner}{extra})"), span=_span(node), size=size,
    )  # fmt: skip
