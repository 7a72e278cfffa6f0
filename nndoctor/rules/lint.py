"""What is right in a ruleset but not good yet: missing docs and tests, numbers without a reason, names of cures.

`check` asks whether a file can be loaded; this asks whether a stranger would trust its rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndoctor.findings import Severity
from nndoctor.rules.ruleset import Rule, Ruleset
from nndoctor.rules.yaml import Document, Node, read

_SECTIONS = ("checks", "why", "causes", "confirm", "known_problems", "references")
_CURES = re.compile(r"(?:check|no|fix|use|add|avoid|lower|raise|reduce|increase|set|enable|disable|test|rule)-")
_PLAIN_NUMBERS = frozenset({"0", "1", "0.5", "2"})

CODES = {
    "unfinished": "what is marked TODO has not been written yet",
    "docs-missing": "every section of docs is what `nndoctor explain` and the report have to say",
    "fires-untested": "a test in which the rule fires shows that it can",
    "silence-untested": "a test close to it in which it stays silent shows where it ends",
    "fix-missing": "a finding without a remedy leaves its reader alone",
    "message-without-value": "a message with its numbers can be believed and compared",
    "one-sample-fires": "one noisy sample is enough to fire; say for how long it must hold",
    "number-without-reason": "the next reader must know where a threshold comes from",
    "parameter-unused": "a parameter that nothing reads misleads who overrides it",
    "record-unused": "a record that nothing reads is computed for nothing, unless it is plotted on purpose",
    "reference-without-link": "a reference that can be opened can be checked",
    "named-after-the-cure": "an id names the disease, so that silencing it reads as English",
    "untitled": "the title is what the report offers as remedy where there is no fix",
}
"""Code of each remark to the reason behind it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that could be better: its code, where, of which rule (empty: the file), and what to do."""

    code: str
    source: str
    rule: str
    message: str


def lint(ruleset: Ruleset, files: Sequence[Path]) -> list[Remark]:
    """Remarks on the rules that stand in `files`, in their order.

    Args:
        ruleset: loaded without mistakes, these files among what it was loaded from.
    """
    rules = {rule.id: rule for rule in ruleset.rules}
    remarks: list[Remark] = []
    everything = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for file in files:
        document = read(file, _shown(file))[0]
        if document.root is None or not isinstance(document.root.value, dict):
            continue
        text = file.read_text(encoding="utf-8")
        for number, line in enumerate(text.split("\n"), 1):
            if "TODO" in line:
                remarks.append(Remark("unfinished", f"{document.source}:{number}", "", line.strip()[:80]))
        for index, raw in enumerate(document.root.value.get("rules") or ()):
            node = document.root.at(["rules", index])
            rule = rules.get(str(raw.get("id")))
            if rule is not None and rule.disabled is None and "when" in raw:
                remarks += _of_rule(rule, raw, node, document, text, ruleset)
        remarks += _of_records(document, everything)
    return remarks


def _of_rule(
    rule: Rule, raw: dict[str, Any], node: Node, document: Document, text: str, ruleset: Ruleset
) -> Iterator[Remark]:
    where = f"{document.source}:{node.line + 1}"

    def remark(code: str, message: str) -> Remark:
        return Remark(code, where, rule.id, message)

    if _CURES.match(rule.id):
        yield remark("named-after-the-cure", f"{rule.id!r} names a cure or an act; name what is wrong, as in dead-relu")
    if "title" not in raw:
        yield remark("untitled", "say under 'title' what to do, in a few words")
    missing = [name for name in _SECTIONS if not getattr(rule.docs, name)]
    if missing:
        yield remark("docs-missing", f"write docs: {', '.join(missing)}")
    for reference in rule.docs.references:
        if "http" not in reference:
            yield remark("reference-without-link", f"add its address: {reference[:60]!r}")
    yield from _of_behaviour(rule, raw, remark)
    yield from _of_numbers(rule, raw, _block(text, node.line), remark)
    yield from _of_tests(rule, ruleset, remark)


def _of_behaviour(rule: Rule, raw: dict[str, Any], remark: Any) -> Iterator[Remark]:
    speaks = rule.severity > Severity.INFO
    if speaks and not rule.fixes and rule.kind not in ("symptom", "advice"):
        yield remark("fix-missing", "add fixes: what to change, and where it can be computed, to which value")
    if speaks and rule.kind == "statistic" and not any(True for _ in rule.message.expressions()):
        yield remark("message-without-value", "put the value that decided into the message: {loss:.3g}")
    remembers = {"window", "held", "initial", "ever"}
    operations = {part.operation for part in rule.when.walk()}
    if speaks and rule.kind == "statistic" and rule.hold.amount == 0 and not operations & remembers:
        yield remark("one-sample-fires", "add for: 20 steps, or compare a median(..., 30)")


def _of_numbers(rule: Rule, raw: dict[str, Any], block: str, remark: Any) -> Iterator[Remark]:
    numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])", str(raw.get("when", "")))
    telling = [number for number in numbers if number not in _PLAIN_NUMBERS] + list(rule.params)
    if telling and rule.kind == "statistic" and "#" not in block:
        yield remark("number-without-reason", f"say in a comment where it comes from: {', '.join(dict.fromkeys(telling[:4]))}")
    plain = re.sub(r"#.*", "", block)
    for name in raw.get("params") or {}:
        if len(re.findall(rf"\b{re.escape(name)}\b", plain)) < 2:
            yield remark("parameter-unused", f"nothing reads the parameter {name!r}")


def _of_tests(rule: Rule, ruleset: Ruleset, remark: Any) -> Iterator[Remark]:
    fires = silent = False
    for test in ruleset.tests:
        for expect in test.model.expect:
            named = expect.rule == rule.id
            fires |= named and not expect.never and not expect.not_examined
            silent |= named and bool(expect.never)
            silent |= expect.any == "never" and (rule.id in test.rules or test.model.rules == "all")
    if not fires:
        yield remark("fires-untested", f"add a test: expect: [{{rule: {rule.id}, fires_in: [first, last]}}]")
    if not silent:
        yield remark("silence-untested", f"add a test: expect: [{{rule: {rule.id}, never: true}}]")


def _of_records(document: Document, everything: str) -> Iterator[Remark]:
    assert document.root is not None
    for name in document.root.value.get("record") or {}:
        if len(re.findall(rf"(?<![\w.]){re.escape(name)}(?![\w.])", everything)) < 2:
            node = document.root.at(["record", name])
            yield Remark("record-unused", f"{document.source}:{node.line + 1}", "", f"nothing reads the record {name!r}")


def _block(text: str, line: int) -> str:
    """The lines of the list entry that begins at `line`, and comments right above it."""
    lines = text.split("\n")
    indent = len(lines[line]) - len(lines[line].lstrip())
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    last = line + 1
    while last < len(lines) and (not lines[last].strip() or len(lines[last]) - len(lines[last].lstrip()) > indent):
        last += 1
    return "\n".join(lines[first:last])


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
