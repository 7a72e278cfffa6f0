"""What the doctor says: evidence, fixes, findings, and the diagnosis of a run.

A leaf module of plain records; engine, record and reports pass them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal, TypeAlias

Confidence: TypeAlias = Literal["high", "medium", "low"]
Safety: TypeAlias = Literal["safe", "unsafe", "manual"]
Kind: TypeAlias = Literal["contract", "statistic", "symptom", "advice"]
"""What a rule goes by: a broken promise of the training loop, a statistic with an outcome; or what it tells: a symptom
that normally has a deeper cause, advice."""
State: TypeAlias = Literal["pending", "firing", "clearing", "cleared"]


Action: TypeAlias = Literal["none", "stop", "checkpoint"]
"""What a rule asks for when it fires, besides being told: to end the training, or to keep its state."""


class Severity(IntEnum):
    """How much a finding matters; comparable, the larger the worse.

    Examples:
        >>> Severity.parse("error") > Severity.WARNING
        True
    """

    INFO = 0
    WARNING = 1
    ERROR = 2
    CRITICAL = 3

    @property
    def label(self) -> str:
        """The name as rules and commands write it.

        Examples:
            >>> Severity.CRITICAL.label
            'critical'
        """
        return self.name.lower()

    @staticmethod
    def parse(text: str) -> Severity:
        """The severity called `text`, in small or large letters.

        Raises:
            ValueError: there is none; the four names are listed.
        """
        try:
            return Severity[text.upper()]
        except KeyError:
            raise ValueError(f"unknown severity {text!r}; expected info, warning, error or critical") from None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal that speaks for a finding.

    Args:
        signal: the name or expression, as the rule writes it.
        target: layer, parameter or group it was read at; None for a signal of the run.
        value: its value when the rule fired (the latest while it fires).
        threshold: what it was compared with, None where there is no single one.
        comparison: ``>``, ``<``, ... between value and threshold.
        unit: unit of value and threshold.
        steps, values: the series around the first firing step, at most 200 steps to each side.

    Examples:
        >>> Evidence("update.ratio", "head", 0.31, threshold=0.15, comparison=">").target
        'head'
    """

    signal: str
    target: str | None
    value: float
    threshold: float | None = None
    comparison: str = ""
    unit: str = ""
    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Fix:
    """What to change, and how sure and how safe that is.

    Args:
        title: the change as a sentence.
        set: computed values to set (``{"lr": 2e-4}``).
        confidence, safety: how sure it is to help; whether it is ``safe``, ``unsafe`` on its own, or to be done by hand.
        call: the call that is missing or to be moved (``optimizer.zero_grad()``).
        place: where the call belongs (``before loss.backward() in train.py, line 42``).

    Examples:
        >>> describe_fix(Fix("Lower the learning rate", set={"lr": 2e-4}))
        'set lr=2e-4'
        >>> describe_fix(Fix("Clear the gradients", call="optimizer.zero_grad()", place="before backward"))
        'call optimizer.zero_grad() before backward'
        >>> describe_fix(Fix("Remove the softmax at the end of the model", set={"final_activation": "none"}))
        'Remove the softmax at the end of the model'
    """

    title: str
    set: Mapping[str, float | str] = field(default_factory=dict)
    confidence: Confidence = "medium"
    safety: Safety = "manual"
    call: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's statement about the run, merged over all the targets it fired at.

    Args:
        rule: id of the rule.
        diagnosis: name of the catalogue entry it supports; stable.
        severity, confidence: how bad, how sure.
        targets: module, parameter or group names; empty for a finding of the run as a whole.
        first_step, last_step: first step at which it fired, last step at which it still did.
        state: ``firing``, ``clearing`` or ``cleared``.
        message: one sentence with the numbers in it.
        evidence: the signals it rests on.
        fixes: best first; empty for a symptom, whose cause carries the fix.
        explained_by: id of the rule that is its root cause, None where this is the root cause.
        suppressed: the reason given for silencing it, None where it speaks.
        kind: what the rule goes by.
        against: what speaks against it, a sentence each; each lowers the confidence by one degree.
        ruled_out: diagnoses that could have explained it, were examined and did not hold.
        not_ruled_out: those that could not be examined.
        incident: the batch it came from, where a batch did it: ``step``, ``epoch``, ``batch``, ``size``, ``indices``
            of its samples in the data set and of the culprits among them (``samples``), ``loss``; empty otherwise.

    Examples:
        >>> finding = Finding("dead-relu", "dead-relu", Severity.ERROR, "high", ("relu2",), 140, 400)
        >>> Finding.from_dict(finding.to_dict()) == finding
        True
    """

    rule: str
    diagnosis: str
    severity: Severity
    confidence: Confidence
    targets: tuple[str, ...]
    first_step: int
    last_step: int
    state: State = "firing"
    message: str = ""
    evidence: tuple[Evidence, ...] = ()
    fixes: tuple[Fix, ...] = ()
    explained_by: str | None = None
    suppressed: str | None = None
    kind: Kind = "statistic"
    against: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()
    not_ruled_out: tuple[str, ...] = ()
    incident: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, the severity by its name; ``nndoctor diagnose --json`` shows it."""
        data = asdict(self)
        data["severity"] = self.severity.label
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`to_dict` was made from; fields that are not there have their defaults.

        Raises:
            KeyError: a field without a default is missing.
            ValueError: the severity is none of the four.
        """
        plain = dict(data)
        plain["severity"] = Severity.parse(data["severity"])
        for name in ("targets", "against", "ruled_out", "not_ruled_out"):
            plain[name] = tuple(data.get(name, ()))
        plain["evidence"] = tuple(
            Evidence(**{**e, "steps": tuple(e.get("steps", ())), "values": tuple(e.get("values", ()))})
            for e in data.get("evidence", ())
        )
        plain["fixes"] = tuple(Fix(**f) for f in data.get("fixes", ()))
        return Finding(**plain)


class StopTraining(Exception):
    """Raised at the end of a step because a rule with ``action: stop`` fired; no rule of ``core`` has one.

    Attributes:
        finding: what the rule says, with its remedies.

    Examples:
        >>> finding = Finding("nan-or-inf", "nan-or-inf", Severity.CRITICAL, "high", (), 412, 412, message="the loss is NaN")
        >>> raise StopTraining(finding)
        Traceback (most recent call last):
            ...
        nndoctor.findings.StopTraining: nan-or-inf: the loss is NaN
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.rule}: {finding.message}")
        self.finding = finding


@dataclass(frozen=True, slots=True)
class NotExamined:
    """A rule that could not be judged, and why (``act.dead_fraction was never measured``)."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeFailure:
    """A probe that raised and was dismissed; training went on."""

    probe: str
    step: int
    error: str


def taken_for(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What kind of run it was taken for, in sentences; empty where nothing of the kind is among its facts."""
    said = facts.get("taken_for")
    return tuple(str(sentence) for sentence in said) if isinstance(said, (list, tuple)) else ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything the doctor has to say about one run.

    Args:
        findings: root causes first, worst first; then the symptoms they explain.
        not_examined: rules that could not be judged, and why.
        probe_failures: probes that were dismissed.
        steps: the last step judged.
        rules: how many rules were loaded.
        layers: how many layers the run has: modules of the model, not calls such as ``relu()``.
        facts: what the run was (model, optimizer, loss, versions, what it was taken to be).

    Examples:
        >>> fix = Fix("Lower the learning rate", set={"lr": 1e-3}, confidence="high")
        >>> cause = Finding("learning-rate-too-high", "learning-rate-too-high", Severity.CRITICAL, "high", (), 5, 90, fixes=(fix,))
        >>> symptom = Finding("dead-relu", "dead-relu", Severity.ERROR, "high", ("relu2",), 60, 90, explained_by=cause.rule)
        >>> diagnosis = Diagnosis((cause, symptom), steps=90)
        >>> [finding.rule for finding in diagnosis.root_causes]
        ['learning-rate-too-high']
        >>> diagnosis.verdict
        '2 findings, 1 root cause: learning-rate-too-high -> set lr=0.001 (nndoctor explain learning-rate-too-high)'
    """

    findings: tuple[Finding, ...] = ()
    not_examined: tuple[NotExamined, ...] = ()
    probe_failures: tuple[ProbeFailure, ...] = ()
    steps: int = 0
    rules: int = 0
    layers: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root_causes(self) -> tuple[Finding, ...]:
        """Findings above info that nothing else explains and nobody has silenced."""
        return tuple(
            f
            for f in self.findings
            if f.explained_by is None and f.suppressed is None and f.severity > Severity.INFO
        )

    @property
    def rules_looking(self) -> int:
        """How many rules found something to judge, at one layer at least."""
        judging = {f.rule for f in self.findings if f.state != "cleared"}
        return self.rules - len({item.rule for item in self.not_examined} - judging)

    @property
    def worst(self) -> Severity | None:
        """The worst severity of all findings that are not silenced; None for a clean run."""
        return max((f.severity for f in self.findings if f.suppressed is None), default=None)

    @property
    def verdict(self) -> str:
        """One sentence: how many findings, the root cause, and what to change."""
        return verdict(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; ``nndoctor diagnose --json`` shows it."""
        return {
            "verdict": self.verdict,
            "steps": self.steps,
            "rules": self.rules,
            "layers": self.layers,
            "findings": [f.to_dict() for f in self.findings],
            "not_examined": [asdict(n) for n in self.not_examined],
            "probe_failures": [asdict(p) for p in self.probe_failures],
            "facts": dict(self.facts),
        }


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Root causes first, then symptoms, each in the order in which they deserve to be looked at.

    A broken promise of the loop that harms the training comes before every statistic, whose numbers it makes
    unreliable; then the impact on the outcome (severity), the confidence, and which was first.
    """
    confidence_rank = {"high": 0, "medium": 1, "low": 2}
    return tuple(
        sorted(
            findings,
            key=lambda f: (
                f.suppressed is not None,
                f.explained_by is not None,
                not (f.kind == "contract" and f.severity >= Severity.ERROR),
                -f.severity,
                confidence_rank[f.confidence],
                f.first_step,
                f.rule,
            ),
        )
    )


def format_value(value: float | str) -> str:
    """A number as a person would write it into a script: ``2e-4``, ``0.1``, ``64``."""
    if isinstance(value, str):
        return value
    text = f"{value:.6g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.5e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text


def describe_fix(fix: Fix) -> str:
    """``set lr=2e-4`` or ``call optimizer.zero_grad() before ...``, where the fix says it so; its title otherwise.

    Words that a fix sets, as in ``{"final_activation": "none"}``, are for programs: people are told the title.
    """
    if fix.call:
        return " ".join(part for part in ("call", fix.call, fix.place) if part)
    if not fix.set or any(isinstance(value, str) for value in fix.set.values()):
        return fix.title
    return "set " + ", ".join(f"{key}={format_value(value)}" for key, value in fix.set.items())


def with_places(finding: Finding, places: Mapping[str, Sequence[Mapping[str, Any]]]) -> Finding:
    """The finding with ``before backward`` in its fixes told as a line of the user's script, where that is known.

    Args:
        places: for each call of the loop the lines that make it, as ``file``, ``line`` and ``code``.
    """
    if not any(fix.place for fix in finding.fixes):
        return finding
    return replace(finding, fixes=tuple(replace(fix, place=_placed(fix.place, places)) for fix in finding.fixes))


INCIDENT_BEFORE = 64
"""Steps by which the report of a batch may come late: losses on an accelerator are read in groups."""


def with_incident(finding: Finding, incidents: Sequence[Mapping[str, Any]]) -> Finding:
    """The finding with the batch that it came from, told in its message too, where one of `incidents` is its own.

    Args:
        incidents: what the batches did, each with the ``signals`` it showed in and its ``step``, in order.
    """
    signals = {evidence.signal for evidence in finding.evidence}
    for incident in incidents:
        near = finding.first_step - INCIDENT_BEFORE <= incident["step"] <= finding.last_step
        if near and signals.intersection(incident["signals"]):
            told = {key: value for key, value in incident.items() if key != "signals"}
            return replace(finding, incident=told, message=f"{finding.message}; {describe_incident(told)}")
    return finding


def describe_incident(incident: Mapping[str, Any]) -> str:
    """``batch 37 of epoch 2 (step 412), sample 3141``: where in the data to look."""
    where = f"step {incident['step']}"
    if "micro_step" in incident:
        where += f", micro-step {incident['micro_step']}"
    if "batch" in incident:
        where = f"batch {incident['batch']} of epoch {incident['epoch']} ({where})"
    for key, thing in (("samples", "sample"), ("rows", "row"), ("indices", "made of the sample")):
        if incident.get(key):
            return f"{where}, {_listed(incident[key], thing, incident.get('size', 0) if key == 'indices' else 0)}"
    return where


def _listed(numbers: Sequence[int], thing: str, size: int, most: int = 8) -> str:
    rest = max(len(numbers), size) - min(len(numbers), most)
    shown = ", ".join(str(number) for number in numbers[:most])
    return f"{thing}{'s' * (len(numbers) > 1)} {shown}" + (f" and {rest} more" if rest > 0 else "")


def _placed(place: str, places: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    side, _, call = place.partition(" ")
    lines = places.get(call, ())
    if not lines:
        return place
    told = [f"{line['code']} ({line['file']}, line {line['line']})" if line.get("code") else f"{line['file']}, line {line['line']}" for line in lines]
    return f"{side} {' and '.join(told)}"


def rules_that_looked(diagnosis: Diagnosis) -> str:
    """``129 rules``, or ``101 of 129 rules`` where some found nothing in this run to judge."""
    looking = diagnosis.rules_looking
    return ("" if looking == diagnosis.rules else f"{looking} of ") + counted(diagnosis.rules, "rule")


def counted(number: int, thing: str) -> str:
    """``1 layer``, ``10 000 steps``."""
    return f"{number:,} {thing}{'s' * (number != 1)}".replace(",", " ")


def verdict(diagnosis: Diagnosis) -> str:
    """The one sentence that sums a diagnosis up."""
    loud = [f for f in diagnosis.findings if f.severity > Severity.INFO and f.suppressed is None]
    if not loud:
        seen = f"{rules_that_looked(diagnosis)}, {counted(diagnosis.layers, 'layer')}"
        return f"No problems found in {counted(diagnosis.steps, 'step')} ({seen})."
    roots = diagnosis.root_causes
    names = ", ".join(dict.fromkeys(f.diagnosis for f in roots)) or loud[0].diagnosis
    first = roots[0] if roots else loud[0]
    found = f"{counted(len(loud), 'finding')}, {counted(len(roots), 'root cause')}"
    remedy = f" -> {describe_fix(first.fixes[0])}" if first.fixes else ""
    return f"{found}: {names}{remedy} (nndoctor explain {first.rule})"


@dataclass(frozen=True, slots=True)
class RuleDocs:
    """What a rule's author wrote for people: the same text feeds explain, report and docs site."""

    id: str
    diagnosis: str
    title: str
    checks: str = ""
    why: str = ""
    causes: tuple[str, ...] = ()
    confirm: str = ""
    fixes: tuple[str, ...] = ()
    known_problems: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
