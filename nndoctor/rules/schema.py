"""What a ruleset file may hold: the models that every file is checked against, and their JSON Schema."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from nndoctor.findings import Action, Confidence, Kind, Safety
from nndoctor.rules.problems import Problem, did_you_mean
from nndoctor.rules.yaml import Document
from nndoctor.signals import Axis, Catalogue

Unit: TypeAlias = Literal["steps", "epochs", "s", "%"]
OnMissing: TypeAlias = Literal["skip", "hold", "fire"]
SeverityName: TypeAlias = Literal["critical", "error", "warning", "info"]
Stability: TypeAlias = Literal["stable", "preview", "deprecated"]

_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([A-Za-z%µ]*)\s*\Z")
_UNITS: dict[str, Unit] = {
    "step": "steps", "steps": "steps", "epoch": "epochs", "epochs": "epochs", "s": "s", "%": "%",
}  # fmt: skip
_DURATION_FORMS = "30 steps, 2 epochs, 30 s or 5% (of the planned steps)"


@dataclass(frozen=True, slots=True)
class Duration:
    """An amount of training: steps, epochs, seconds, or percent of the planned steps.

    >>> Duration.parse("30 steps")
    Duration(amount=30.0, unit='steps')
    """

    amount: float
    unit: Unit = "steps"

    @staticmethod
    def parse(value: object) -> Duration:
        """Raises ValueError that names the forms."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(
                f"expected a duration with its unit, got {value:g}; write {value:g} steps, or {_DURATION_FORMS}"
            )
        match = _DURATION.match(value) if isinstance(value, str) and len(value) < 40 else None
        if match is None:
            raise ValueError(f"expected a duration such as {_DURATION_FORMS}, got {_shown(value)}")
        unit = _UNITS.get(match[2])
        if unit is None:
            raise ValueError(
                f"unknown unit '{match[2]}' in the duration '{str(value).strip()}'; write {_DURATION_FORMS}"
            )
        amount = float(match[1])
        if amount > 1e9:
            raise ValueError(f"the duration '{str(value).strip()}' is longer than any run")
        return Duration(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:g}{'' if self.unit == '%' else ' '}{self.unit}"


DurationField = Annotated[
    Duration,
    BeforeValidator(Duration.parse),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d*)?\s*(steps?|epochs?|s|%)\s*$", "examples": ["30 steps", "2 epochs", "30 s", "5%"]}),
]  # fmt: skip


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Texts = Annotated[
    list[str],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Formula = Annotated[str, BeforeValidator(_as_text), WithJsonSchema({"type": ["string", "number"]})]
PlaceText = Annotated[str, Field(pattern=r"^((before|after|at) [a-z_]+)?$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80)]
ParamName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=40)]
RecordName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$", max_length=80)]
Params = dict[ParamName, float]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FixModel(Model):
    """One way to remedy the cause; `set` maps what to change to a number, a formula, or 'text' in single quotes."""

    title: str
    set: dict[str, float | bool | str] = {}
    confidence: Confidence = "medium"
    safety: Safety = "manual"
    effect: str = ""
    call: str = ""
    """The call that is missing or in the wrong place: ``optimizer.zero_grad()``."""
    place: PlaceText = ""
    """Where it belongs, seen from a call that the loop makes: ``before backward``, ``after step``."""


class AgainstModel(Model):
    """What speaks against the finding, though its condition holds: it is told, and lowers the confidence."""

    when: Formula
    message: Annotated[str, Field(min_length=3)]


class DocsModel(Model):
    """What `nndoctor explain` and the report say about the rule."""

    checks: str = ""
    why: str = ""
    causes: Texts = []
    confirm: str = ""
    fixes: Texts = []
    known_problems: Texts = []
    options: Texts = []
    references: Texts = []


class TimingModel(Model):
    every: DurationField | None = None
    warmup: DurationField | None = None
    for_: DurationField | None = Field(default=None, alias="for")
    keep: DurationField | None = None
    on_missing: OnMissing | None = None


class RuleModel(TimingModel):
    """A rule, or the fields of it that an extending file changes."""

    id: Identifier
    title: str | None = None
    diagnosis: Identifier | None = None
    category: Identifier | None = None
    kind: Kind | None = None
    """A broken promise of the loop, a statistic with an outcome, a symptom that normally has a cause, or advice."""
    severity: SeverityName | None = None
    confidence: Confidence | None = None
    scope: Axis | None = None
    params: Params | None = None
    when: Formula | None = None
    clear_when: Formula | None = None
    where: Formula | None = None
    evidence: Texts | None = None
    message: str | None = None
    fixes: list[FixModel] | None = None
    against: list[AgainstModel] | None = None
    docs: DocsModel | None = None
    enabled: bool | None = None
    stability: Stability | None = None
    action: Action | None = None
    """What is done when it fires, besides telling it: ``stop`` ends the training, ``checkpoint`` saves its state."""
    renamed_from: Texts | None = None


class ExplainModel(Model):
    """One cause explains these symptoms; ids of rules, or names of diagnoses for all their rules."""

    cause: Texts
    symptoms: Texts
    on: Axis
    within: DurationField = Duration(200)
    lead: DurationField = Duration(0)
    reason: str = ""


class OverrideModel(TimingModel):
    """A change to rules of an extended ruleset, with the reason for it."""

    rules: Texts
    reason: Annotated[str, Field(min_length=3)]
    layers: Texts | None = None
    params: Params | None = None
    severity: SeverityName | None = None
    enabled: bool | None = None
    suppress: bool | None = None
    action: Action | None = None
    until: DurationField | None = None


class ExpectModel(Model):
    """What a test expects of one rule, or of any."""

    rule: str | None = None
    any: Literal["never"] | None = None
    never: Literal[True] | None = None
    fires_in: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    layers: Texts | None = None
    targets: Texts | None = None
    root: bool | None = None
    explained_by: str | None = None
    fix: dict[str, float | bool | str] | None = None
    state: Literal["firing", "clearing", "cleared"] | None = None
    severity: SeverityName | None = None
    message: str | None = None
    not_examined: Literal[True] | None = None


class TestModel(Model):
    """A written-down run, and what the rules must say about it."""

    __test__ = False  # for pytest: this is no test class

    name: str
    series: dict[str, float | str | dict[str, float | str]]
    expect: Annotated[list[ExpectModel], Field(min_length=1)]
    layers: list[str] | None = None
    params: list[str] | None = None
    groups: list[str] | None = None
    epoch_steps: int | None = None
    planned_steps: int | None = None
    step_seconds: float = 0.1
    sampled: int | None = Field(default=None, ge=1)
    rules: Literal["file", "all"] = "file"


class RulesetModel(Model):
    """A ruleset file."""

    version: Literal[1]
    name: str | None = None
    description: str = ""
    extends: Texts = []
    requires: dict[Literal["nndoctor"], str] = {}
    defaults: TimingModel = TimingModel()
    record: dict[RecordName, Formula] = {}
    rules: list[RuleModel] = []
    explain: list[ExplainModel] = []
    overrides: list[OverrideModel] = []
    tests: list[TestModel] = []


def check(document: Document) -> tuple[RulesetModel | None, list[Problem]]:
    """The model of a document, or every way in which it is not one, each with its position."""
    if document.root is None:
        return None, [Problem("the file is empty", document.source, help="a ruleset begins with: version: 1")]
    if not isinstance(document.root.value, dict):
        return None, [document.problem("expected a mapping with 'version' and 'rules'", document.root)]
    try:
        return RulesetModel.model_validate(document.root.value), []
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=True)
        return _mended(document.root.value, errors), _problems(document, errors)


def _mended(value: Any, errors: Iterable[Any]) -> RulesetModel | None:
    """The model with something harmless in place of what is wrong, so that other mistakes are found in the same run.

    It is never judged by: a ruleset with problems is refused.
    """
    mended = copy.deepcopy(value)
    for error in errors:
        place = mended
        path = [key for key in error["loc"] if isinstance(key, (str, int))]
        while len(path) > 1 and isinstance(place, (dict, list)):
            key = path.pop(0)
            if isinstance(place, dict) and key not in place:
                continue  # the name of a form that pydantic tried, not a key of the file
            place = place[key]  # type: ignore[index]
        if not isinstance(place, dict) or not path or path[0] not in place:
            continue
        if path[0] == "severity":
            place["severity"] = "error"
        elif error["type"].startswith("float"):
            place[path[0]] = 1.0
        else:
            del place[path[0]]
    try:
        return RulesetModel.model_validate(mended)
    except (ValidationError, TypeError, KeyError, IndexError):
        return None


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The JSON Schema (draft-07, which YAML editors read) of ruleset files, the signals' names in it."""
    schema = RulesetModel.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs", {})
    names = list(catalogue.names())
    formula = {"type": ["string", "number"], "description": "An expression over signals: " + ", ".join(names)}
    for field_name in ("when", "clear_when", "where"):
        definitions["RuleModel"]["properties"][field_name] = formula
    entry = {"anyOf": [{"enum": names}, {"type": "string"}]}
    definitions["RuleModel"]["properties"]["evidence"] = {"anyOf": [entry, {"type": "array", "items": entry}]}
    series = definitions["TestModel"]["properties"]["series"]
    series["propertyNames"] = {"anyOf": [{"enum": names}, {"pattern": r"^observed\..+"}]}
    # as properties with their help, so that an editor shows it beside the name
    series["properties"] = {s.name: {"description": f"{s.help} Unit {s.unit}, per {s.per}.", **series["additionalProperties"]} for s in catalogue}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "nndoctor ruleset",
        **{key: value for key, value in schema.items() if key != "title"},
        "definitions": definitions,
    }


_MODELS: dict[str, type[Model]] = {
    "rules": RuleModel, "explain": ExplainModel, "overrides": OverrideModel, "tests": TestModel,
    "fixes": FixModel, "against": AgainstModel, "docs": DocsModel, "defaults": TimingModel, "expect": ExpectModel,
}  # fmt: skip


def _problems(document: Document, errors: Iterable[Any]) -> list[Problem]:
    """One problem per place: a value that fits none of several forms is one mistake, not one for each form."""
    assert document.root is not None
    found: dict[tuple[int, int, str], Problem] = {}
    for error in errors:
        problem = _problem(document, error)
        kind = error["type"] if error["type"] == "missing" else ""
        found.setdefault((problem.line, problem.column, kind and problem.message), problem)
    return list(found.values())


def _problem(document: Document, error: Any) -> Problem:
    assert document.root is not None
    path, kind = list(error["loc"]), error["type"]
    node = document.root.at(path)
    model = _model_at(path)
    known = [field.alias or name for name, field in model.model_fields.items()]
    if kind == "extra_forbidden":
        key = document.root.at(path, key=True)
        if ")" in str(path[-1]):
            help = "a text with a comma needs quotes around it between { and }"
            return document.problem(f"unknown key '{_cut(path[-1])}'", key, help)
        help = did_you_mean(str(path[-1]), known, quantity=f"expected one of: {', '.join(known)}")
        return document.problem(f"unknown key '{_cut(path[-1])}'", key, help, length=len(str(path[-1])))
    if kind == "missing":
        what = path[-1]
        help = "say why, for those who read it later" if what == "reason" else _missing_help(path)
        return document.problem(f"'{what}' is missing", node, help, length=1)
    if kind == "literal_error":
        return _wrong_choice(document, error, node)
    if kind == "value_error":
        message, _, help = str(error["ctx"]["error"]).partition("; ")
        return document.problem(message, node, help)
    if path and path[-1] == "[key]":
        key = document.root.at(path[:-1], key=True)
        help = "a text with a comma needs quotes around it between { and }" if ")" in str(path[-2]) else ""
        return document.problem(f"'{_cut(path[-2])}' is no name: lower-case letters, digits and '_'", key, help)
    if kind == "string_pattern_mismatch":
        help = (
            "write it in kebab-case, named after the disease, as in dead-relu"
            if path[-1] in ("id", "diagnosis")
            else ""
        )
        return document.problem(f"'{_cut(error['input'])}' is no valid name", node, help)
    message, help = _wrong_type(error)
    return document.problem(f"{'.'.join(str(p) for p in path[-1:])}: {message}", node, help)


def _missing_help(path: list[Any]) -> str:
    examples = {
        "version": "begin the file with: version: 1",
        "on": "say what the link goes by: run, layer, param, group or rank",
        "id": "name the disease, as in: id: dead-relu",
        "expect": "add what must happen, as in: expect: [{any: never}]",
    }
    return examples.get(str(path[-1]), "")


def _wrong_choice(document: Document, error: Any, node: Any) -> Problem:
    expected = error["ctx"]["expected"]
    choices = re.findall(r"'([^']*)'", expected)
    got = error["input"]
    if error["loc"][-1] == "version":
        return document.problem(
            f"unknown version {_shown(got)} of the rule language", node, "this nndoctor reads: version: 1"
        )
    help = did_you_mean(got, choices) if isinstance(got, str) and choices else f"expected {expected}"
    name = error["loc"][-1]
    return document.problem(f"{name}: unknown value {_shown(got)}", node, help)


_TYPES = {
    "string_type": "text", "float_type": "a number", "int_type": "a whole number", "bool_type": "true or false",
    "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "model_attributes_type": "a mapping", "too_short": "more entries", "too_long": "fewer entries",
    "string_too_short": "a longer text", "greater_than_equal": "a larger number",
}  # fmt: skip


def _wrong_type(error: Any) -> tuple[str, str]:
    expected = _TYPES.get(error["type"])
    got = _shown(error["input"])
    if expected is None:
        return f"{error['msg'].lower()}, got {got}", ""
    help = "put it in quotes" if expected == "text" and isinstance(error["input"], (int, float)) else ""
    if expected == "a number" and isinstance(error["input"], str):
        help = "write a plain number, such as 10 or 3e-4"
    return f"expected {expected}, got {got}", help


def _model_at(path: list[Any]) -> type[Model]:
    for step in reversed(path[:-1]):
        if step in _MODELS:
            return _MODELS[step]
    return RulesetModel


def _cut(value: object, length: int = 60) -> str:
    text = str(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"'{_cut(value)}'" if isinstance(value, str) else _cut(value)
