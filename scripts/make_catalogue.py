"""Writes docs/catalogue.md: every root cause there is a name for, with its rules, signals, precision and recall.

    python scripts/make_catalogue.py [--check]

The names come from docs/catalogue.yaml, the rules and their signals from the ruleset ``core``, the figures from the last
run of the clinic. ``--check`` writes nothing and exits with 1 where the page is not what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from nndoctor.rules import Rule, load_rulesets
from nndoctor.rules.clinic import Clinic, Row, shipped_clinic

DOCS = Path(__file__).resolve().parent.parent / "docs"
SOURCE = DOCS / "catalogue.yaml"
PAGE = DOCS / "catalogue.md"

HEADER = """# The catalogue

Every root cause that has a name here, what decides it, and how often that was right. Precision: of the runs of
[the clinic](clinic.md) in which the diagnosis was named, the share in which it had been planted. Recall: of the runs in
which it had been planted, the share in which it was named. A figure without a run behind it is a dash. Signals are those
that the conditions of the rules read; `nndoctor explain RULE` has the rest.
`python scripts/make_catalogue.py` makes this page.
"""


@dataclass(frozen=True)
class Entry:
    """A root cause with a name; the fields are those of docs/catalogue.yaml."""

    name: str
    what: str
    kind: Literal["cause", "symptom", "advice"] = "cause"
    same_as: str = ""
    not_covered: str = ""


def main(arguments: Sequence[str]) -> int:
    page = markdown(entries(), load_rulesets(["core"]).rules, shipped_clinic())
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if current != page:
        print(f"{PAGE.name} is out of date: run python scripts/make_catalogue.py", file=sys.stderr)
    return int(current != page)


def entries() -> dict[str, list[Entry]]:
    """Group to its entries, in the order of the file."""
    groups = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return {group: [Entry(name, **fields) for name, fields in named.items()] for group, named in groups.items()}


def markdown(groups: Mapping[str, Sequence[Entry]], rules: Sequence[Rule], clinic: Clinic) -> str:
    by_diagnosis: dict[str, list[Rule]] = {}
    for rule in rules:
        by_diagnosis.setdefault(rule.diagnosis, []).append(rule)
    every = [entry for found in groups.values() for entry in found]
    covered = [entry for entry in every if entry.name in by_diagnosis or entry.same_as]
    parts = [HEADER, f"{len(covered)} of {len(every)} entries are decided by {len(rules)} rules.\n"]
    for group, found in groups.items():
        parts += [f"## {group}", "", *table(found, by_diagnosis, clinic), ""]
    return "\n".join(parts)


def table(found: Sequence[Entry], rules: Mapping[str, Sequence[Rule]], clinic: Clinic) -> Iterator[str]:
    yield "| diagnosis | what it is | rules | signals | precision | recall |"
    yield "|---|---|---|---|---|---|"
    for entry in found:
        deciding = rules.get(entry.name, ())
        signals = dict.fromkeys(signal for rule in deciding for signal in rule.signals())
        record = clinic.diagnoses.get(entry.name, Row()).all
        cells = (
            f"`{entry.name}`" + (f" *({entry.kind})*" if entry.kind != "cause" else ""),
            entry.what,
            ", ".join(f"`{rule.id}`" for rule in deciding) or reason(entry),
            ", ".join(f"`{signal}`" for signal in signals) or "–",
            figure(record.precision, record.right, record.right + record.wrong),
            figure(record.recall, record.right, record.planted),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reason(entry: Entry) -> str:
    """Why no rule of its own decides an entry."""
    if entry.same_as:
        return f"diagnosed as `{entry.same_as}`"
    return f"not covered: {entry.not_covered}" if entry.not_covered else "no rule yet"


def figure(share: float | None, right: int, of: int) -> str:
    return f"{share:.2f} ({right}/{of})" if share is not None else "–"


def without_reason(groups: Mapping[str, Sequence[Entry]], rules: Sequence[Rule]) -> list[str]:
    """Entries that neither a rule decides nor a reason excuses."""
    decided = {rule.diagnosis for rule in rules}
    every = (entry for found in groups.values() for entry in found)
    return [e.name for e in every if e.name not in decided and not e.same_as and not e.not_covered]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
