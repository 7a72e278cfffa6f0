"""From files to a `Ruleset`: find them, merge what extends what, compile and check everything at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from nndoctor.findings import RuleDocs, Severity
from nndoctor.packaged import RULESETS, PackagedError, packaged, packaged_ruleset
from nndoctor.rules.expression import (
    FUNCTIONS,
    Expression,
    ExpressionError,
    Levels,
    Names,
    parse,
    parse_condition,
    parse_number,
)
from nndoctor.rules.folder import SHARED, built_in_rulesets, rulesets_folder
from nndoctor.rules.problems import Problem, RulesetError, did_you_mean
from nndoctor.rules.ruleset import NO_TIME, ONE_STEP, FixRule, Link, Rule, Ruleset, RuleTest, Silence
from nndoctor.rules.schema import DocsModel, ExpectModel, FixModel, OverrideModel, RulesetModel, check
from nndoctor.rules.shorthand import parse_series
from nndoctor.rules.template import Template, parse_template
from nndoctor.rules.yaml import Document, Node, read
from nndoctor.rules.yaml import parse as parse_yaml
from nndoctor.signals import CATALOGUE, Axis, Catalogue

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def load_rulesets(sources: Sequence[str | Path], catalogue: Catalogue = CATALOGUE) -> Ruleset:
    """The ruleset that `sources` make together; a later one extends, and may change, the earlier ones.

    Args:
        sources: ``core`` or another built-in ruleset, a file, a folder of files, or ``package:name``.
        catalogue: the signals that rules may name.

    Raises:
        RulesetError: with every mistake in every file, each with its position and what to do.
    """
    loader = _Loader(catalogue)
    for source in sources:
        loader.add(source, Path.cwd())
    return loader.finish()


def load_text(text: str, catalogue: Catalogue = CATALOGUE, source: str = "ruleset.yaml") -> Ruleset:
    """Like `load_rulesets`, for the text of one file."""
    loader = _Loader(catalogue)
    document, problems = parse_yaml(text, source)
    loader.problems += problems
    if document.root is not None or not problems:
        loader.add_documents([document], Path.cwd())
    return loader.finish()


@dataclass
class _Value:
    """A field of a rule and where it was written."""

    value: Any
    document: Document
    node: Node
    key: Node

    @property
    def origin(self) -> str:
        return f"{self.document.source}:{self.key.line + 1}"


@dataclass
class _Draft:
    """A rule while files that extend each other still add to it."""

    id: str
    document: Document
    node: Node
    fields: dict[str, _Value] = field(default_factory=dict)
    exceptions: dict[str, list[tuple[tuple[str, ...], float]]] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    disabled: str | None = None

    def value(self, name: str, otherwise: Any = None) -> Any:
        return self.fields[name].value if name in self.fields else otherwise

    def source(self) -> str:
        return f"{self.document.source}:{self.node.line + 1}"


@dataclass
class _Record:
    text: str
    document: Document
    node: Node


class _Loader:
    """Collects files, then compiles them; gathers problems instead of stopping at the first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self._drafts: dict[str, _Draft] = {}
        self._records: dict[str, _Record] = {}
        self._renamed: dict[str, str] = {}
        self._overrides: list[tuple[OverrideModel, Document, Node]] = []
        self._links: list[tuple[RulesetModel, int, Document, Node]] = []
        self._tests: list[tuple[RuleTest, Document, Node]] = []
        self._failed_records: set[str] = set()
        self._sources: list[str] = []
        self._loaded: set[Path] = set()
        self._loading: list[Path] = []

    # --- finding files ---

    def add(self, source: str | Path, base: Path, at: tuple[Document, Node] | None = None) -> None:
        """Read a source and what it extends. `at` is where a file asked for it."""
        try:
            path = find_source(source, base)
        except FileNotFoundError as error:
            message, _, help = str(error).partition("; ")
            self.problems.append(
                at[0].problem(message, at[1], help) if at else Problem(message, str(source), help=help)
            )
            return
        if path in self._loading:
            chain = " -> ".join(p.name for p in (*self._loading[self._loading.index(path) :], path))
            message = f"rulesets extend each other in a circle: {chain}"
            self.problems.append(at[0].problem(message, at[1]) if at else Problem(message, str(source)))
            return
        if path in self._loaded:
            return
        self._loaded.add(path)
        self._loading.append(path)
        self._sources.append(str(source))
        documents, files = [], files_in(path)
        for file in files:
            document, problems = read(file, _shown_path(file))
            self.problems += problems
            if document.root is not None or not problems:
                documents.append(document)
        if not files:
            self.problems.append(Problem("the folder holds no .yaml file", str(source)))
        self.add_documents(documents, path if path.is_dir() else path.parent)
        self._loading.pop()

    def add_documents(self, documents: Sequence[Document], base: Path) -> None:
        """Files that belong together: the defaults of one hold for all."""
        unit: list[tuple[RulesetModel, Document]] = []
        for document in documents:
            model, problems = check(document)
            self.problems += problems
            if model is not None:
                unit.append((model, document))
        for model, document in unit:
            self._check_version(model, document)
            for index, source in enumerate(model.extends):
                self.add(source, base, (document, _node(document, "extends", index)))
        seen: dict[str, Document] = {}
        for model, document in unit:
            self._collect(model, document, [m for m, _ in unit], seen)

    def _check_version(self, model: RulesetModel, document: Document) -> None:
        wanted = model.requires.get("nndoctor")
        if wanted is None:
            return
        node = _node(document, "requires", "nndoctor")
        have = str(import_module("nndoctor").__version__)
        try:
            fits = version_fits(have, wanted)
        except ValueError as error:
            self.problems.append(document.problem(str(error), node))
            return
        if not fits:
            help = "update with: pip install -U nndoctor"
            self.problems.append(document.problem(f"the ruleset needs nndoctor {wanted}, this is {have}", node, help))

    # --- merging ---

    def _collect(
        self, model: RulesetModel, document: Document, unit: Sequence[RulesetModel], seen: dict[str, Document]
    ) -> None:
        for name, text in model.record.items():
            self._records[name] = _Record(text, document, _node(document, "record", name))
        own = []
        for index in range(len(model.rules)):
            self._merge_rule(model, index, document, unit, seen)
            own.append(model.rules[index].id)
        for index, override in enumerate(model.overrides):
            self._overrides.append((override, document, _node(document, "overrides", index)))
        for index in range(len(model.explain)):
            self._links.append((model, index, document, _node(document, "explain", index)))
        for index, test in enumerate(model.tests):
            node = _node(document, "tests", index)
            self._tests.append((RuleTest(test, f"{document.source}:{node.line + 1}", tuple(own)), document, node))

    def _merge_rule(
        self,
        model: RulesetModel,
        index: int,
        document: Document,
        unit: Sequence[RulesetModel],
        seen: dict[str, Document],
    ) -> None:
        rule = model.rules[index]
        node = _node(document, "rules", index)
        if rule.id in seen:
            at = node.at(["id"])
            help = f"the other is in {seen[rule.id].source}; give one of them another id"
            self.problems.append(document.problem(f"two rules are called '{rule.id}'", at, help))
            return
        seen[rule.id] = document
        draft = self._drafts.get(rule.id)
        if draft is None:
            draft = self._drafts[rule.id] = _Draft(rule.id, document, node)
            for other in unit:
                self._set(draft, other.defaults.model_fields_set, other.defaults, document, node, given=False)
        if rule.enabled is False:
            draft.disabled = f"switched off in {document.source}"
        elif rule.enabled:
            draft.disabled = None
        for old in rule.renamed_from or ():
            self._renamed[old] = rule.id
        self._set(draft, rule.model_fields_set - {"id", "enabled"}, rule, document, node)

    def _set(
        self, draft: _Draft, names: Iterable[str], model: Any, document: Document, node: Node, given: bool = True
    ) -> None:
        for name in names:
            value = getattr(model, name)
            if value is None:
                continue
            written = "for" if name == "for_" else name
            at, key = (node.children.get(written, node), node.keys.get(written, node)) if given else (node, node)
            before = draft.fields.get(name)
            if before is not None and isinstance(value, dict):
                value = {**before.value, **value}
            elif before is not None and isinstance(value, DocsModel):
                value = before.value.model_copy(update={f: getattr(value, f) for f in value.model_fields_set})
            draft.fields[name] = _Value(value, document, at, key)

    def _apply_overrides(self) -> None:
        for override, document, node in self._overrides:
            for index, pattern in enumerate(override.rules):
                matched = self._matching(pattern)
                if not matched:
                    at = node.at(["rules", index])
                    help = _said_elsewhere(pattern, names_elsewhere()) or did_you_mean(pattern, list(self._drafts))
                    self.problems.append(document.problem(f"override of an unknown rule '{pattern}'", at, help))
                for draft in matched:
                    self._override(draft, override, document, node)

    def _matching(self, pattern: str) -> list[_Draft]:
        pattern = self._renamed.get(pattern, pattern)
        return [draft for id, draft in self._drafts.items() if fnmatchcase(id, pattern)]

    def _override(self, draft: _Draft, override: OverrideModel, document: Document, node: Node) -> None:
        layers = tuple(override.layers or ())
        if override.enabled is False:
            if layers:
                draft.excluded += layers
            else:
                draft.disabled = override.reason
        elif override.enabled:
            draft.disabled = None
        if override.suppress:
            draft.silences.append(Silence(layers, override.until, override.reason))
        for name, value in (override.params or {}).items():
            self._override_param(draft, name, value, layers, document, node)
        timing = {"every", "warmup", "for_", "keep", "on_missing", "severity", "action"} & override.model_fields_set
        if layers and timing:
            first = min(timing)
            at = node.keys.get("for" if first == "for_" else first, node)
            help = "remove 'layers', or change a parameter of the condition instead"
            self.problems.append(document.problem(f"'{at.value}' cannot differ between layers", at, help))
            return
        self._set(draft, timing, override, document, node)

    def _override_param(
        self, draft: _Draft, name: str, value: float, layers: tuple[str, ...], document: Document, node: Node
    ) -> None:
        params = draft.value("params", {})
        at = node.at(["params", name], key=True)
        if name not in params:
            help = did_you_mean(name, list(params)) if params else "the rule has no parameters"
            self.problems.append(document.problem(f"rule '{draft.id}' has no parameter '{name}'", at, help))
        elif not layers:
            before = draft.fields["params"]
            draft.fields["params"] = _Value({**params, name: value}, before.document, before.node, before.key)
        elif draft.value("scope", "run") not in ("layer", "param"):
            help = "only rules with scope: layer or param can differ between layers"
            self.problems.append(document.problem(f"rule '{draft.id}' judges the run as a whole", at, help))
        else:
            draft.exceptions.setdefault(name, []).append((layers, value))

    # --- compiling ---

    def finish(self) -> Ruleset:
        """The compiled ruleset. Raises RulesetError where anything is wrong."""
        self._apply_overrides()
        records = self._compile_records()
        rules = [rule for draft in self._drafts.values() if (rule := self._compile(draft, records)) is not None]
        links = self._compile_links()
        self._check_tests()
        if self.problems:
            raise RulesetError(self.problems)
        return Ruleset(
            _with_links_in_docs(rules, links),
            links,
            records,
            tuple(test for test, _, _ in self._tests),
            tuple(self._sources),
            self.catalogue,
        )

    def _compile_records(self) -> dict[str, Expression]:
        done: dict[str, Expression] = {}
        failed: set[str] = set()

        def compile(name: str, above: tuple[str, ...]) -> None:
            if name in done or name in failed:
                return
            record = self._records[name]
            if name in above:
                chain = " -> ".join((*above[above.index(name) :], name))
                self.problems.append(
                    record.document.problem(f"records need each other in a circle: {chain}", record.node)
                )
                failed.update(above)
                return
            for other in _NAME.findall(record.text[:1000]):
                if other in self._records:
                    compile(other, (*above, name))
            if name in failed:
                return
            expression = self._guard(record, lambda: self._record_expression(name, record, done, failed))
            if expression is None:
                failed.add(name)
            else:
                done[name] = expression

        for name in self._records:
            compile(name, ())
        self._failed_records = failed
        return done

    def _record_expression(
        self, name: str, record: _Record, done: Mapping[str, Expression], failed: set[str]
    ) -> Expression | None:
        if name in self.catalogue or name in FUNCTIONS:
            raise ExpressionError(
                f"'{name}' is a {'signal' if name in self.catalogue else 'function'} already",
                help="choose another name",
            )
        if failed & set(_NAME.findall(record.text)):
            return None  # what is wrong is told where it is wrong
        return parse(record.text, Names(self.catalogue, done))

    def _guard(self, at: _Value | _Record, compile: Callable[[], T], text_node: Node | None = None) -> T | None:
        """What `compile` gives, or None and a problem at the place in the file."""
        try:
            return compile()
        except ExpressionError as error:
            node = text_node or at.node
            unknown = re.fullmatch(r"unknown signal '(.+)'", error.message)
            help = (_said_elsewhere(unknown[1], records_elsewhere(), "record") if unknown else "") or error.help
            self.problems.append(at.document.problem_in(error.message, node, error.offset, error.length, help))
            return None

    def _compile(self, draft: _Draft, records: Mapping[str, Expression]) -> Rule | None:
        before = len(self.problems)
        for needed in ("when", "severity"):
            if needed not in draft.fields:
                help = (
                    "critical, error, warning or info"
                    if needed == "severity"
                    else "write the condition, as in: when: loss > 10"
                )
                self.problems.append(
                    draft.document.problem(
                        f"rule '{draft.id}' has no '{needed}'", draft.node, help, length=len("id: ") + len(draft.id)
                    )
                )
        names = self._names(draft, records)
        if len(self.problems) > before or names is None:
            return None
        scope: Axis = draft.value("scope", "run")
        conditions = {name: self._condition(draft, name, names, scope) for name in ("when", "clear_when")}
        where = self._where(draft, names, scope)
        axes: tuple[Axis, ...] = (scope,) if where is None else (scope, where.axis)
        message = self._message(draft, names, axes)
        evidence = self._evidence(draft, names)
        fixes = self._fixes(draft, names, axes)
        against = self._against(draft, names, scope, axes)
        when = conditions["when"]
        if len(self.problems) > before or when is None:
            return None
        zero = NO_TIME
        docs = _docs(draft)
        return Rule(
            id=draft.id, diagnosis=draft.value("diagnosis", draft.id), title=docs.title,
            severity=Severity.parse(draft.value("severity")), confidence=draft.value("confidence", "medium"),
            scope=scope, when=when, clear_when=conditions["clear_when"], where=where,
            hold=draft.value("for_", zero), keep=draft.value("keep", zero), warmup=draft.value("warmup", zero),
            every=draft.value("every", ONE_STEP), on_missing=draft.value("on_missing", "skip"),
            message=message, evidence=evidence, fixes=fixes, against=against, params=draft.value("params", {}), docs=docs,
            category=draft.value("category", ""), kind=draft.value("kind", "statistic"), stability=draft.value("stability", "stable"),
            action=draft.value("action", "none"),
            excluded=tuple(draft.excluded), silences=tuple(draft.silences), disabled=draft.disabled,
            source=draft.source(),
            texts={n: draft.value(n) for n in ("when", "clear_when", "where", "message") if n in draft.fields},
            origins={("for" if n == "for_" else n): v.origin for n, v in draft.fields.items()},
        )  # fmt: skip

    def _names(self, draft: _Draft, records: Mapping[str, Expression]) -> Names | None:
        params: dict[str, float | Levels] = dict(draft.value("params", {}))
        taken = [name for name in params if name in self.catalogue or name in self._records or name in FUNCTIONS]
        for name in taken:
            at = draft.fields["params"]
            key = at.node.keys.get(name, at.node)
            self.problems.append(
                at.document.problem(
                    f"parameter '{name}' has the name of a signal, record or function", key, "choose another name"
                )
            )
        for name, exceptions in draft.exceptions.items():
            params[name] = Levels(float(draft.value("params")[name]), tuple(exceptions))
        if self._failed_records:
            texts = " ".join(str(draft.value(n, "")) for n in ("when", "clear_when", "where", "message"))
            if self._failed_records & set(_NAME.findall(texts)):
                return None  # the record's own problem is told already
        plain: dict[str, float | Levels] = {
            n: float(v) if isinstance(v, (int, float)) else v for n, v in params.items()
        }
        return None if taken else Names(self.catalogue, records, plain, draft.value("scope", "run"))

    def _condition(self, draft: _Draft, name: str, names: Names, scope: Axis) -> Expression | None:
        at = draft.fields.get(name)
        return None if at is None else self._guard(at, lambda: parse_condition(at.value, names, scope))

    def _where(self, draft: _Draft, names: Names, scope: Axis) -> Expression | None:
        at = draft.fields.get("where")
        if at is None:
            return None

        def compile() -> Expression:
            expression = parse(at.value, names)
            if not expression.condition or expression.axis == "run":
                raise ExpressionError(
                    "expected a condition with one value per layer, parameter or group", expression.offset, expression.length,
                    "'where' names the culprits, as in: grad.norm > 10",
                )  # fmt: skip
            if scope != "run":
                raise ExpressionError(
                    "'where' is for rules with scope: run", help=f"scope is '{scope}': its targets are the culprits"
                )
            return expression

        return self._guard(at, compile)

    def _message(self, draft: _Draft, names: Names, axes: Sequence[Axis]) -> Template:
        at = draft.fields.get("message")
        if at is None:
            return Template((_docs(draft).title,))
        return self._guard(at, lambda: parse_template(at.value, names, axes)) or Template()

    def _evidence(self, draft: _Draft, names: Names) -> tuple[tuple[str, Expression], ...]:
        at = draft.fields.get("evidence")
        found = []
        for index, text in enumerate(at.value if at is not None else ()):
            assert at is not None
            expression = self._guard(at, partial(parse, text, names), at.node.children.get(index))
            if expression is not None:
                found.append((text, expression))
        return tuple(found)

    def _against(
        self, draft: _Draft, names: Names, scope: Axis, axes: Sequence[Axis]
    ) -> tuple[tuple[Expression, Template], ...]:
        at = draft.fields.get("against")
        found = []
        for index, model in enumerate(at.value if at is not None else ()):
            assert at is not None
            node = at.node.children.get(index, at.node)
            condition = self._guard(at, partial(parse_condition, model.when, names, scope), node.at(["when"]))
            message = self._guard(at, partial(parse_template, model.message, names, axes), node.at(["message"]))
            if condition is not None and message is not None:
                found.append((condition, message))
        return tuple(found)

    def _fixes(self, draft: _Draft, names: Names, axes: Sequence[Axis]) -> tuple[FixRule, ...]:
        at = draft.fields.get("fixes")
        fixes = []
        for index, fix in enumerate(at.value if at is not None else ()):
            assert at is not None
            node = at.node.children.get(index, at.node)
            fixes.append(self._fix(at, fix, node, names, axes))
        return tuple(fixes)

    def _fix(self, at: _Value, fix: FixModel, node: Node, names: Names, axes: Sequence[Axis]) -> FixRule:
        values: dict[str, Expression | float | str] = {}
        for key, value in fix.set.items():
            if isinstance(value, bool):
                values[key] = str(value)
            elif isinstance(value, (int, float)):
                values[key] = float(value)
            elif len(value) >= 2 and value[0] == value[-1] == "'":
                values[key] = value[1:-1]
            else:
                expression = self._guard(at, partial(self._fix_value, value, names, axes), node.at(["set", key]))
                values[key] = expression if expression is not None else ""
        title = self._guard(at, lambda: parse_template(fix.title, names, axes), node.at(["title"]))
        return FixRule(title or Template(), values, fix.confidence, fix.safety, fix.call, fix.place)

    def _fix_value(self, text: str, names: Names, axes: Sequence[Axis]) -> Expression:
        try:
            return parse_number(text, names, next((a for a in axes if a != "run"), "run"))
        except ExpressionError as error:
            help = error.help
            if re.fullmatch(r"[\w.]+", text.strip()) and error.message.startswith("unknown"):
                help = f"for plain text write \"'{text.strip()}'\"" + (f"; {help}" if help else "")
            raise ExpressionError(error.message, error.offset, error.length, help) from None

    # --- links and tests ---

    def _compile_links(self) -> tuple[Link, ...]:
        links = []
        for model, index, document, node in self._links:
            explain = model.explain[index]
            causes = self._rules_of(explain.cause, document, node, "cause")
            symptoms = self._rules_of(explain.symptoms, document, node, "symptoms")
            found = [s for s in symptoms if s not in causes]
            self._check_places(explain.on, (*causes, *found), document, node)
            if causes and found:
                source = f"{document.source}:{node.line + 1}"
                links.append(Link(causes, tuple(found), explain.on, explain.within, explain.lead, source))
            elif causes and symptoms:
                self.problems.append(
                    document.problem(f"'{', '.join(explain.cause)}' cannot explain itself", node.at(["symptoms"]))
                )
        self._check_circles(links)
        return tuple(links)

    def _rules_of(self, names: Sequence[str], document: Document, node: Node, key: str) -> tuple[str, ...]:
        """All rules that one or several names of a link mean, each once."""
        several = node.at([key]).children
        found: dict[str, None] = {}
        for at, name in enumerate(names):
            found.update(dict.fromkeys(self._rules_called(name, document, node.at([key, at] if several else [key]))))
        return tuple(found)

    def _check_places(self, on: Axis, names: Iterable[str], document: Document, node: Node) -> None:
        """A link that goes by places needs rules that have some."""
        for name in names if on != "run" else ():
            draft = self._drafts[name]
            if draft.value("scope", "run") == "run" and "where" not in draft.fields:
                message = f"rule '{name}' judges the run as a whole, so the link cannot go by {on}"
                help = "write on: run, or give the rule a 'where'"
                self.problems.append(document.problem(message, node.at(["on"]), help))

    def _rules_called(self, name: str, document: Document, node: Node) -> tuple[str, ...]:
        """The rule of this id, or all rules of this diagnosis, ``kind:...`` or ``category:...``."""
        name = self._renamed.get(name, name)
        if name in self._drafts:
            return (name,)
        field, _, wanted = name.partition(":")
        if wanted and field in ("kind", "category"):
            usual = "statistic" if field == "kind" else ""
            found = tuple(id for id, draft in self._drafts.items() if draft.value(field, usual) == wanted)
            if not found:
                known = sorted({str(draft.value(field, usual)) for draft in self._drafts.values()})
                self.problems.append(document.problem(f"no rule has {field} '{wanted}'", node, f"there are {', '.join(known)}"))
            return found
        found = tuple(id for id, draft in self._drafts.items() if draft.value("diagnosis", id) == name)
        if not found and name not in names_elsewhere():
            known = [*self._drafts, *(draft.value("diagnosis", id) for id, draft in self._drafts.items())]
            self.problems.append(document.problem(f"no rule is called '{name}'", node, did_you_mean(name, known)))
        return found

    def _check_circles(self, links: Sequence[Link]) -> None:
        graph: dict[str, set[str]] = {}
        for link in links:
            for cause in link.causes:
                graph.setdefault(cause, set()).update(link.symptoms)
        circle = _circle(graph)
        if circle is None:
            return
        for (_, _, document, node), link in zip(self._links, links, strict=False):
            if circle[0] in link.causes and circle[1] in link.symptoms:
                message = f"the causes explain each other in a circle: {' -> '.join(circle)}"
                self.problems.append(
                    document.problem(
                        message, node.at(["symptoms"]), "a cause must not be its own symptom; remove one link"
                    )
                )
                return

    def _check_tests(self) -> None:
        for test, document, node in self._tests:
            for index, expect in enumerate(test.model.expect):
                self._check_expectation(expect, document, node.at(["expect", index]))
            for name, values in test.model.series.items():
                if name not in self.catalogue:
                    key = node.at(["series", name], key=True)
                    hint = did_you_mean(name, self.catalogue.names())
                    self.problems.append(document.problem(f"unknown signal '{name}'", key, hint))
                pieces = values if isinstance(values, dict) else {"": values}
                for target, text in pieces.items():
                    at = node.at(["series", name, target] if target else ["series", name])
                    self._guard(_Record(str(text), document, at), partial(parse_series, text))

    def _check_expectation(self, expect: ExpectModel, document: Document, node: Node) -> None:
        for key, name in (("rule", expect.rule), ("explained_by", expect.explained_by)):
            if name is not None and self._renamed.get(name, name) not in self._drafts:
                help = _said_elsewhere(name, names_elsewhere()) or did_you_mean(name, list(self._drafts))
                self.problems.append(document.problem(f"no rule is called '{name}'", node.at([key]), help))
        if expect.rule is None and expect.any is None:
            self.problems.append(document.problem("an expectation needs 'rule' or 'any: never'", node, length=1))


def find_source(source: str | Path, base: Path) -> Path:
    """The file or folder that a source names. Raises FileNotFoundError that says what to write instead."""
    text = str(source)
    built_in = rulesets_folder()
    if re.fullmatch(r"[a-z][a-z0-9-]*", text):
        for path in (built_in / text, built_in / f"{text}.yaml"):
            if path.exists():
                return path.resolve()
    package, colon, name = text.partition(":")
    if colon and re.fullmatch(r"[A-Za-z_]\w*", package) and re.fullmatch(r"[\w.-]+", name) and ".." not in name:
        return _in_package(package, name)
    path = (base / text).expanduser()
    if path.exists():
        return path.resolve()
    published = _published(text)
    if published is not None:
        return published
    names = list(built_in_rulesets()) if built_in.is_dir() else []
    close = did_you_mean(text, [*names, *(item.name for item in packaged(RULESETS))]) if len(text) < 40 else ""
    close = f"{close} Else " if close.startswith("did you mean") else ""
    raise FileNotFoundError(
        f"there is no ruleset '{text}'; {close}expected a built-in one ({', '.join(names) or 'none found'}), "
        f"one that an installed package publishes ({', '.join(item.name for item in packaged(RULESETS)) or 'none here'}), a file, a folder or package:name"
    )


def ruleset_around(source: str, base: Path) -> str:
    """`source`; for a file that lies in a folder ruleset, the folder: its records, defaults and links are the file's too."""
    path = base / source
    inside = path.is_file() and path.suffix in (".yaml", ".yml") and (path.parent / SHARED).is_file()
    return str(Path(source).parent) if inside else source


@lru_cache(maxsize=1)
def names_elsewhere() -> Mapping[str, str]:
    """Rules and diagnoses of the built-in rulesets, and which of these has them; read without judging what they say.

    A link may name them where they are not loaded: there is nothing to explain then, and nothing wrong.
    """
    found: dict[str, str] = {}
    for ruleset, text in _built_in_texts():
        for name in re.findall(r"^ *-? *(?:id|diagnosis): *([a-z0-9-]+) *(?:#.*)?$", text, re.MULTILINE):
            found.setdefault(name, ruleset)
        for name in re.findall(r"^ *- *\{id: *([a-z0-9-]+)", text, re.MULTILINE):
            found.setdefault(name, ruleset)
    return found


@lru_cache(maxsize=1)
def records_elsewhere() -> Mapping[str, str]:
    """The records of the built-in rulesets, and which of these has them."""
    found: dict[str, str] = {}
    for ruleset, text in _built_in_texts():
        for block in re.findall(r"^record:\n((?:[ #].*\n|\n)+)", text, re.MULTILINE):
            for name in re.findall(r"^  ([a-z_][\w.]*):", block, re.MULTILINE):
                found.setdefault(name, ruleset)
    return found


def _built_in_texts() -> Iterator[tuple[str, str]]:
    folder = rulesets_folder()
    for name in sorted(built_in_rulesets(), key=lambda name: name != "core"):
        place = folder / name if (folder / name).is_dir() else folder / f"{name}.yaml"
        for file in files_in(place):
            yield name, file.read_text(encoding="utf-8")


def _said_elsewhere(name: str, elsewhere: Mapping[str, str], kind: str = "rule") -> str:
    """``it is a rule of core: ...`` where a ruleset that is not loaded has it."""
    return f"it is a {kind} of {elsewhere[name]}; write extends: [{elsewhere[name]}]" if name in elsewhere else ""


def _published(name: str) -> Path | None:
    """Where the ruleset lies that an installed package publishes as `name`; None if none does."""
    try:
        place = packaged_ruleset(name)
    except KeyError:
        return None
    except PackagedError as error:
        raise FileNotFoundError(f"{error}; mend or uninstall that package") from error
    path = Path(place) if isinstance(place, (str, os.PathLike)) else None
    if path is None or not path.exists():
        raise FileNotFoundError(f"the package that publishes '{name}' names {place!r}, which is no file or folder; ask its author")
    return path.resolve()


def _in_package(package: str, name: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in (Path(folder) / "rulesets" / name, Path(folder) / "rulesets" / f"{name}.yaml"):
            if path.exists():
                return path.resolve()
    if spec is None:
        raise FileNotFoundError(f"the package '{package}' is not installed; install it, or name a file")
    raise FileNotFoundError(f"the package '{package}' has no rulesets/{name}.yaml; ask its author for the name")


def version_fits(have: str, wanted: str) -> bool:
    """Whether version `have` fulfils ``>=0.3,<1``. Raises ValueError for what is no such list."""
    for part in wanted.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)\s*(\d{1,6}(?:\.\d{1,6}){0,3})\s*", part)
        if match is None:
            raise ValueError(f"expected versions such as '>=0.3' or '>=0.3,<1', got '{wanted[:40]}'")
        ours, theirs = _version(have), _version(match[2])
        fits = {
            ">=": ours >= theirs, "<=": ours <= theirs, "==": ours == theirs,
            "!=": ours != theirs, ">": ours > theirs, "<": ours < theirs,
        }  # fmt: skip
        if not fits[match[1]]:
            return False
    return True


def _version(text: str) -> tuple[int, ...]:
    numbers = [int(n) for n in re.findall(r"\d+", text)[:4]]
    return tuple(numbers + [0] * (4 - len(numbers)))


def files_in(path: Path) -> list[Path]:
    """The files of a ruleset: the file itself, or those of a folder, what they share first."""
    if path.is_file():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file() and p.name != SHARED)
    shared = path / SHARED
    return [shared, *files] if shared.is_file() else files


def _shown_path(path: Path) -> str:
    """The path as the user would type it."""
    for base in (Path.cwd(), rulesets_folder().parent.resolve()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


def _node(document: Document, *path: str | int) -> Node:
    assert document.root is not None
    return document.root.at(path)


def _docs(draft: _Draft) -> RuleDocs:
    docs: DocsModel = draft.value("docs") or DocsModel()
    title = draft.value("title") or draft.id.replace("-", " ").capitalize()
    fixes = tuple(docs.fixes) or tuple(_fix_line(fix) for fix in draft.value("fixes", ()))
    return RuleDocs(
        id=draft.id, diagnosis=draft.value("diagnosis", draft.id), title=title, checks=docs.checks.strip(),
        why=docs.why.strip(), causes=tuple(docs.causes), confirm=docs.confirm.strip(), fixes=fixes,
        known_problems=tuple(docs.known_problems), references=tuple(docs.references),
    )  # fmt: skip


def _fix_line(fix: FixModel) -> str:
    return f"{fix.title} ({fix.safety}{', ' + fix.effect if fix.effect else ''})"


def _with_links_in_docs(rules: Sequence[Rule], links: Sequence[Link]) -> tuple[Rule, ...]:
    explains: dict[str, dict[str, None]] = {}
    explained: dict[str, dict[str, None]] = {}
    for link in links:
        for cause in link.causes:
            for symptom in link.symptoms:
                explains.setdefault(cause, {})[symptom] = None
                explained.setdefault(symptom, {})[cause] = None
    return tuple(
        replace(
            rule,
            docs=replace(
                rule.docs, explains=tuple(explains.get(rule.id, ())), explained_by=tuple(explained.get(rule.id, ()))
            ),
        )
        for rule in rules
    )


def _circle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """A path that comes back to where it began, or None."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(name)
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                stack.append((name, True))
                stack += [(below, False) for below in sorted(graph.get(name, ()))]
    return None
