"""YAML with positions: plain data, where each part of it stood in the file, and every mistake at once.

PyYAML only splits the text into events; the data is built here, so no tag, alias or constructor of
YAML ever acts. What a ruleset needs is accepted: mappings, lists, text, numbers, true, false, null.
``yes``, ``no``, ``on``, ``off`` and dates stay text, and ``3e-4`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import yaml

from nndoctor.rules.problems import Problem

MOST_BYTES = 512 * 1024
MOST_NODES = 10_000
MOST_DEPTH = 32

_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\Z")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "~": None, "": None}
_INFINITE = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf")}

Step: TypeAlias = "str | int"
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_LETTERS = tuple("abcdeghijklmopqrsuvwxyzABCDEGHIJKLMOPQRSUVWXYZ")  # no number or word of YAML begins with these
_EMPTY: Mapping[Any, Any] = MappingProxyType({})


def _nothing() -> Mapping[Any, Any]:
    """The parts of a scalar: shared, because two dicts for each would double the time to load."""
    return _EMPTY


@dataclass(slots=True)
class Node:
    """A part of a file: its plain value, and where it stands."""

    value: Any
    line: int  # from 0
    column: int  # from 0
    end: int  # offset in the text at which it ends
    begin: int
    style: str | None = None
    keys: Mapping[Any, Node] = field(default_factory=_nothing)
    children: Mapping[Any, Node] = field(default_factory=_nothing)

    def at(self, path: Sequence[Step], *, key: bool = False) -> Node:
        """The node at `path` (or the key that leads to it), or the closest one above it that exists."""
        node = self
        for depth, step in enumerate(path):
            if step not in node.children:
                break
            if key and depth == len(path) - 1 and step in node.keys:
                return node.keys[step]
            node = node.children[step]
        return node


@dataclass(frozen=True, slots=True)
class Document:
    """A file: its name, text, and content with positions (None where it could not be read)."""

    source: str
    text: str
    root: Node | None
    path: Path | None = None

    def problem(self, message: str, node: Node | None = None, help: str = "", length: int | None = None) -> Problem:
        """A problem at `node`, or with the file as a whole."""
        if node is None:
            return Problem(message, self.source, help=help)
        return self._problem(message, node.line, node.column, length or self._length(node), help)

    def problem_in(self, message: str, node: Node, offset: int, length: int, help: str = "") -> Problem:
        """A problem `offset` characters into the text value of `node`, wherever YAML's quoting and folding put it."""
        line, column = _position(self.text, self._offset_in(node, offset))
        return self._problem(message, line, column, length, help)

    def _problem(self, message: str, line: int, column: int, length: int, help: str) -> Problem:
        lines = self.text.split("\n")
        text = lines[line].rstrip("\r") if line < len(lines) else ""
        return Problem(message, self.source, line + 1, column + 1, length, text, help)

    def _length(self, node: Node) -> int:
        text = self.text[node.begin : node.end]
        return max(1, len(text.split("\n", 1)[0].rstrip()))

    def _offset_in(self, node: Node, offset: int) -> int:
        """Where the character `offset` of a text value stands in the file: the same ink, counted."""
        value = str(node.value)
        ink = sum(not c.isspace() for c in value[:offset])
        at = node.begin
        if node.style in ("'", '"'):
            at += 1
        elif node.style in ("|", ">"):
            at = self.text.find("\n", at) + 1
        for position in range(at, node.end):
            if self.text[position].isspace():
                continue
            if ink == 0:
                return position
            ink -= 1
        return node.begin


def read(path: Path, source: str | None = None) -> tuple[Document, list[Problem]]:
    """The content of a file and what is wrong with it."""
    source = source if source is not None else str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        return Document(source, "", None, path), [Problem(f"cannot read the ruleset: {reason}", source)]
    if len(data) > MOST_BYTES:
        problem = Problem(
            f"the file is larger than {MOST_BYTES // 1024} KB", source, help="split the ruleset into files"
        )
        return Document(source, "", None, path), [problem]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(f"the file is not UTF-8 text (byte {error.start})", source, help="save it as UTF-8")
        return Document(source, "", None, path), [problem]
    document, problems = parse(text, source)
    return Document(source, text, document.root, path), problems


def parse(text: str, source: str = "ruleset") -> tuple[Document, list[Problem]]:
    """The content of `text` and what is wrong with it; the content is None if it could not be read at all."""
    if len(text) > MOST_BYTES:
        document = Document(source, "", None)
        return document, [Problem(f"the file is larger than {MOST_BYTES // 1024} KB", source)]
    document = Document(source, text, None)
    builder = _Builder(document)
    try:
        root = builder.build(text)
    except yaml.YAMLError as error:
        return document, [*builder.problems, _syntax_problem(document, error)]
    except _TooMuch as error:
        return document, [*builder.problems, error.problem]
    return Document(source, text, root), builder.problems


class _TooMuch(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Builder:
    """Builds nodes from YAML's events and collects what is not allowed."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self._nodes = 0
        self._events: Iterator[Any] = iter(())

    def build(self, text: str) -> Node | None:
        self._events = yaml.parse(text, Loader)
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    self._report("a ruleset is one YAML document", event, "remove the second '---'")
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, 0)
                root = root or node
        return root

    def _node(self, event: Any, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _TooMuch(
                self._problem(f"the file has more than {MOST_NODES} parts", event, "split the ruleset into files")
            )
        if depth > MOST_DEPTH:
            raise _TooMuch(self._problem(f"the file is nested more than {MOST_DEPTH} levels deep", event))
        begin, end = event.start_mark, event.end_mark
        if type(event) is yaml.ScalarEvent and event.tag is None:  # nine parts of ten: first, and without detours
            text, style = event.value, event.style
            value = text if style or text[:1] in _LETTERS else _plain(text)
            return Node(value, begin.line, begin.column, end.index, begin.index, style)
        if isinstance(event, yaml.AliasEvent):
            self._report(f"aliases are not allowed: '*{event.anchor}'", event, "write the value out")
            return Node(None, begin.line, begin.column, end.index, begin.index)
        if event.tag is not None and not (event.tag == "!" and isinstance(event, yaml.ScalarEvent)):
            self._report(f"tags are not allowed: '{event.tag}'", event, "write plain text or a number")
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style or event.tag == "!" else _plain(event.value)
            return Node(value, begin.line, begin.column, end.index, begin.index, event.style)
        node = Node(None, begin.line, begin.column, end.index, begin.index)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(node, depth)
        return self._mapping(node, depth)

    def _sequence(self, node: Node, depth: int) -> Node:
        node.value = []
        children: dict[Any, Node] = {}
        node.children = children
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                node.end = _end(event)
                break
            child = self._node(event, depth + 1)
            children[len(node.value)] = child
            node.value.append(child.value)
        return node

    def _mapping(self, node: Node, depth: int) -> Node:
        node.value = {}
        keys: dict[Any, Node] = {}
        children: dict[Any, Node] = {}
        node.keys, node.children = keys, children
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                node.end = _end(event)
                break
            key = self._node(event, depth + 1)
            child = self._node(next(self._events), depth + 1)
            name = self._name(key, keys)
            if name is not None:
                node.value[name], keys[name], children[name] = child.value, key, child
        return node

    def _name(self, key: Node, keys: Mapping[Any, Node]) -> str | None:
        """The key as text; None, and a problem, where it cannot be one."""
        document = self.document
        if isinstance(key.value, (dict, list)) or key.value is None:
            self.problems.append(document.problem("a key must be plain text", key))
            return None
        name = key.value if isinstance(key.value, str) else document.text[key.begin : key.end].strip()
        if name not in keys:
            return name
        first = keys[name].line + 1
        problem = document.problem(f"duplicate key '{name[:60]}', first on line {first}", key, "keep one of them")
        self.problems.append(problem)
        return None

    def _report(self, message: str, event: Any, help: str = "") -> None:
        self.problems.append(self._problem(message, event, help))

    def _problem(self, message: str, event: Any, help: str = "") -> Problem:
        begin, end = event.start_mark, event.end_mark
        node = Node(None, begin.line, begin.column, max(end.index, begin.index + 1), begin.index)
        return self.document.problem(message, node, help)


def _end(event: Any) -> int:
    return int(event.end_mark.index)


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.match(text):
        digits = text.replace("_", "")
        if digits.lstrip("+-").isdigit() and len(digits) < 20:
            return int(digits)
        number = float(digits)
        return number if abs(number) != float("inf") else text  # nobody means infinity by a row of nines
    return _INFINITE.get(text, text)


def _syntax_problem(document: Document, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    if mark is None:
        return Problem(f"cannot read the YAML: {said}", document.source)
    node = Node(None, mark.line, mark.column, mark.index + 1, mark.index)
    return document.problem(
        f"cannot read the YAML: {said}", node, _syntax_help(document.text, mark.line, said), length=1
    )


def _syntax_help(text: str, line: int, said: str) -> str:
    lines = text.split("\n")
    near = lines[line] if line < len(lines) else ""
    if "\t" in near[: len(near) - len(near.lstrip())] or "'\\t'" in said:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in said:
        return "a text that holds ': ' needs quotes around it"
    if re.search(r":\s+[\[{].*[\]}]\s*\S", near) or re.search(r":\s+[{*&!%@`]", near):
        return "a text that begins with one of { [ * & ! % @ ` needs quotes around it"
    if "expected <block end>" in said or "did not find expected" in said:
        return "check the indentation and the brackets of this line and the one above"
    return ""


def _position(text: str, offset: int) -> tuple[int, int]:
    line = text.count("\n", 0, offset)
    return line, offset - (text.rfind("\n", 0, offset) + 1)
