"""Rules: which spoke, which watched and had nothing to say, which could not be judged and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.view import RunView


def build(view: RunView) -> Mapping[str, Any]:
    spoke = {finding.rule for finding in view.diagnosis.findings}
    missing = {item.rule for item in view.diagnosis.not_examined}
    quiet = [docs for rule, docs in view.rule_docs.items() if rule not in spoke and rule not in missing]
    reasons: dict[str, list[str]] = {}
    for item in view.diagnosis.not_examined:
        reasons.setdefault(item.reason, []).append(item.rule)
    told = sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return {
        "total": view.diagnosis.rules or len(view.rule_docs),
        "spoke": [(rule, view.rule_docs.get(rule)) for rule in dict.fromkeys(f.rule for f in view.diagnosis.findings)],
        "quiet": quiet,
        "reasons": [(reason, [(rule, view.rule_docs.get(rule)) for rule in rules]) for reason, rules in told],
        "missing": len(missing),
    }
