"""What loading a ruleset gives: rules with compiled conditions, links between them, tests, and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nndoctor.findings import Action, Confidence, Kind, RuleDocs, Safety, Severity
from nndoctor.rules.expression import Expression
from nndoctor.rules.schema import Duration, OnMissing, Stability, TestModel
from nndoctor.rules.template import Template
from nndoctor.signals import CATALOGUE, Axis, Catalogue

NO_TIME, ONE_STEP = Duration(0), Duration(1)
NO_MESSAGE, NO_DOCS = Template(), RuleDocs("", "", "")


@dataclass(frozen=True, slots=True)
class FixRule:
    """A remedy: `set` maps what to change to a constant or to an expression of the rule language."""

    title: Template
    set: Mapping[str, Expression | float | str]
    confidence: Confidence
    safety: Safety
    call: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """Findings that somebody has acknowledged: for which targets (empty: all), until when, and why."""

    layers: tuple[str, ...]
    until: Duration | None
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, checked and ready to be judged.

    Args:
        when: the condition; one value for the run, or one per target of `scope`.
        clear_when: when a finding is over; where it is None, when `when` no longer holds.
        where: for a rule of the run, the targets that are to blame.
        against: conditions that speak against the finding, and how to say so.
        hold: how long `when` must hold before the rule fires (``for`` in the file).
        keep: how long a finding stays after the condition is over.
        excluded: patterns of targets that the rule does not judge.
        disabled: why the rule is switched off; None where it is on.
        action: what is done when it fires, besides telling it.
        source: file and line.
        origins: field to file and line that gave its value.
    """

    id: str
    diagnosis: str
    title: str
    severity: Severity
    confidence: Confidence
    scope: Axis
    when: Expression
    clear_when: Expression | None = None
    where: Expression | None = None
    hold: Duration = NO_TIME
    keep: Duration = NO_TIME
    warmup: Duration = NO_TIME
    every: Duration = ONE_STEP
    on_missing: OnMissing = "skip"
    message: Template = NO_MESSAGE
    evidence: tuple[tuple[str, Expression], ...] = ()
    fixes: tuple[FixRule, ...] = ()
    against: tuple[tuple[Expression, Template], ...] = ()
    params: Mapping[str, float] = field(default_factory=dict)
    docs: RuleDocs = NO_DOCS
    category: str = ""
    kind: Kind = "statistic"
    stability: Stability = "stable"
    action: Action = "none"
    excluded: tuple[str, ...] = ()
    silences: tuple[Silence, ...] = ()
    disabled: str | None = None
    source: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def signals(self) -> tuple[str, ...]:
        """The signals that the condition reads."""
        return self.when.signals()


@dataclass(frozen=True, slots=True)
class Link:
    """A cause explains symptoms that appear near it in time, on the same target where `on` names an axis."""

    causes: tuple[str, ...]
    symptoms: tuple[str, ...]
    on: Axis
    within: Duration
    lead: Duration
    source: str = ""


@dataclass(frozen=True, slots=True)
class RuleTest:
    """A written-down run from a ruleset file, and the rules declared in the same file."""

    __test__ = False

    model: TestModel
    source: str
    rules: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.model.name


@dataclass(frozen=True)
class Ruleset:
    """Everything that was loaded, in order of declaration."""

    rules: tuple[Rule, ...] = ()
    explain: tuple[Link, ...] = ()
    records: Mapping[str, Expression] = field(default_factory=dict)
    tests: tuple[RuleTest, ...] = ()
    sources: tuple[str, ...] = ()
    catalogue: Catalogue = CATALOGUE

    def __len__(self) -> int:
        return len(self.rules)

    def rule(self, id: str) -> Rule:
        """The rule called `id`. Raises KeyError."""
        for rule in self.rules:
            if rule.id == id:
                return rule
        raise KeyError(id)

    def only(self, ids: frozenset[str]) -> Ruleset:
        """The same ruleset with these rules alone, and the links between them."""
        kept = tuple(rule for rule in self.rules if rule.id in ids)
        links = tuple(
            replace(
                link,
                causes=tuple(c for c in link.causes if c in ids),
                symptoms=tuple(s for s in link.symptoms if s in ids),
            )
            for link in self.explain
        )
        return replace(self, rules=kept, explain=tuple(link for link in links if link.causes and link.symptoms))

    def for_judging(self) -> Ruleset:
        """The same rules without what only people read: documentation, tests, where each field was written."""
        rules = tuple(
            replace(rule, docs=RuleDocs(rule.id, rule.diagnosis, rule.title, explained_by=rule.docs.explained_by), origins={})
            for rule in self.rules
        )
        return replace(self, rules=rules, tests=())

    def docs(self) -> Mapping[str, RuleDocs]:
        """What each rule's author wrote for people, by id of the rule."""
        return {rule.id: rule.docs for rule in self.rules}
