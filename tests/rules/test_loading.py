"""A ruleset that is wrong is refused with position, cause and help for every mistake; a right one is merged as told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from nndoctor.rules import Ruleset, RulesetError, load_rulesets, load_text, rulesets_folder
from nndoctor.rules import yaml as positions
from nndoctor.rules.loading import version_fits
from nndoctor.rules.problems import Problem
from nndoctor.rules.schema import Duration, json_schema
from nndoctor.signals import CATALOGUE

GOOD = """\
version: 1
rules:
  - id: loss-high
    severity: error
    params: {limit: 10}
    when: loss > limit
    for: 30 steps
"""


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(RulesetError) as caught:
        load_text(text, source="my.yaml")
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, [str(p) for p in found]
    return found[0]


def rule(**fields: str) -> str:
    lines = {"id": "a-rule", "severity": "error", "when": "loss > 1", **fields}
    return "version: 1\nrules:\n  - " + "\n    ".join(f"{k}: {v}" for k, v in lines.items() if v) + "\n"


# --- the ten ways to break a ruleset, each with position, cause and help ---

BROKEN = {
    "syntax": (rule(message="a: b: c"), 6, 15, "mapping values are not allowed", "needs quotes"),
    "unknown signal": (rule(when="act.dead_frac > 1"), 5, 11, "unknown signal 'act.dead_frac'", "'act.dead_fraction'"),
    "wrong scope": (rule(when="grad.norm > 1"), 5, 11, "scope is 'run' but the condition has one value per layer", "wrap it in any_layer(...)"),
    "duplicate key": (rule() + "    severity: info\n", 6, 5, "duplicate key 'severity', first on line 4", "keep one"),
    "alias": (rule(message="*boom"), 6, 14, "aliases are not allowed: '*boom'", "write the value out"),
    "unknown function": (rule(when="loss > 2 * medain(loss, 50)"), 5, 22, "unknown function 'medain'", "did you mean 'median'?"),
    "type error": (rule(when="loss and lr > 1"), 5, 11, "'and' needs a condition, got a number", "loss == 1"),
    "bad unit": (rule(for_="").replace("when: loss > 1", "when: loss > 1\n    for: 30 minuets"), 6, 10, "unknown unit 'minuets'", "30 steps"),
    "cycle in explain": (
        "version: 1\nrules:\n  - {id: a, severity: info, when: loss > 1}\n  - {id: b, severity: info, when: loss > 2}\n"
        "explain:\n  - {cause: a, symptoms: [b], on: run}\n  - {cause: b, symptoms: [a], on: run}\n",
        6, 26, "explain each other in a circle: a -> b -> a", "remove one link",
    ),
    "missing reason": (GOOD + "overrides:\n  - rules: [loss-high]\n    params: {limit: 3}\n", 9, 5, "'reason' is missing", "say why"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_ruleset_is_told_with_position_cause_and_help(name: str) -> None:
    text, line, column, message, help = BROKEN[name]
    problem = only(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert help in problem.help
    shown = problem.render()
    assert f"--> my.yaml:{line}:{column}" in shown
    assert text.splitlines()[line - 1] in shown


def test_the_rendering_points_at_the_mistake_with_carets() -> None:
    text = "version: 1\nrules:\n  - id: a-rule\n    severity: error\n    when: >\n      grad.total_norm >\n      2 * medain(loss, 200)\n"
    assert only(text).render() == (
        "error: unknown function 'medain'\n"
        "  --> my.yaml:7:11\n"
        "    |\n"
        "  7 |       2 * medain(loss, 200)\n"
        "    |           ^^^^^^\n"
        "    = help: did you mean 'median'?"
    )


@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"', ">-\n      {}", "|\n\n      {}"])
def test_positions_hold_in_every_way_to_write_text(form: str) -> None:
    text = rule(when=form.format("loss >  medain(loss, 50)"))
    problem = only(text)
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith("medain")


def test_all_mistakes_of_a_file_come_at_once() -> None:
    text = """\
version: 1
nmae: x
defaults: {evry: 3 steps}
rules:
  - id: Bad_Name
    severity: fatal
    scop: run
    when: 3 + [1]
    warmup: soon
explain:
  - {cause: a, symptoms: [b]}
"""
    found = problems(text)
    told = "\n".join(str(p) for p in found)
    for expected in ("'nmae'", "'evry'", "'Bad_Name'", "'fatal'", "'scop'", "soon", "'on' is missing"):
        assert expected in told, told
    assert "did you mean 'name'?" in told
    assert "did you mean 'scope'?" in told


def test_all_mistakes_in_expressions_come_at_once() -> None:
    text = rule(when="losss > 1", message='"{lrr}"', clear_when="loss >")
    assert {p.line for p in problems(text)} == {5, 6, 7}


MISTAKES = [
    (rule(severity=""), "rule 'a-rule' has no 'severity'", "critical, error, warning or info"),
    (rule(when=""), "rule 'a-rule' has no 'when'", "write the condition"),
    (rule(severity="errror"), "severity: unknown value 'errror'", "did you mean 'error'?"),
    (rule(id="DeadRelu"), "'DeadRelu' is no valid name", "kebab-case"),
    (rule(warmup="30"), "expected a duration with its unit, got 30", "30 steps"),
    (rule(params="{k: ten}"), "k: expected a number, got 'ten'", "plain number"),
    (rule(params="{loss: 3}"), "parameter 'loss' has the name of a signal", "choose another name"),
    (rule(message="'{loss'"), "'{' is never closed", "{{"),
    (rule(message="'{loss:>99999999}'"), "unknown number format", "formats are"),
    (rule(message="'{loss.__class__}'"), "unknown signal", ""),
    (rule(message="'{grad.norm}'"), "the message has one value, this has one per layer", "median_layers"),
    (rule(message="'{layer} is sick'"), "there is no layer to name", "where"),
    (
        GOOD
        + "  - {id: b, severity: info, scope: layer, when: grad.norm > 1}\nexplain: [{cause: loss-high, symptoms: [b], on: layer}]\n",
        "the link cannot go by layer",
        "on: run",
    ),
    (rule(where="loss > 1"), "expected a condition with one value per layer", "names the culprits"),
    (rule(fixes="[{title: x, set: {lr: adam}}]"), "unknown signal or parameter 'adam'", "\"'adam'\""),
    (rule(evidence="[los]"), "unknown signal or parameter 'los'", "'loss'"),
    (rule(on_missing="panic"), "on_missing: unknown value 'panic'", "skip"),
    (rule() + "version: 2\n", "duplicate key 'version'", ""),
    (
        "version: 1\nrules:\n  - {id: a, severity: info, when: min(loss, 50) > 1}\n",
        "unknown key '50) > 1'",
        "needs quotes",
    ),
    ("version: 2\nrules: []\n", "unknown version 2", "version: 1"),
    ("rules: []\n", "'version' is missing", "version: 1"),
    ("", "the file is empty", "version: 1"),
    ("- 1\n- 2\n", "expected a mapping", ""),
    ("version: 1\n---\nversion: 1\n", "one YAML document", ""),
    ("version: 1\nrecord: {a.b: b.c, b.c: a.b}\n", "circle: a.b -> b.c -> a.b", ""),
    ("version: 1\nrecord: {loss: lr}\n", "'loss' is a signal already", ""),
    ("version: 1\nrequires: {nndoctor: '>=99'}\n", "needs nndoctor >=99", "pip install"),
    ("version: 1\nrequires: {nndoctor: newest}\n", "expected versions such as", ""),
    ("version: 1\nextends: [nowhere]\n", "there is no ruleset 'nowhere'", "core"),
    (
        GOOD + "overrides: [{rules: [loss-hihg], enabled: false, reason: noisy}]\n",
        "override of an unknown rule 'loss-hihg'",
        "'loss-high'",
    ),
    (
        GOOD + "overrides: [{rules: [loss-high], params: {limt: 3}, reason: noisy}]\n",
        "rule 'loss-high' has no parameter 'limt'",
        "'limit'",
    ),
    (
        GOOD + "overrides: [{rules: [loss-high], layers: [a], params: {limit: 3}, reason: noisy}]\n",
        "judges the run as a whole",
        "scope: layer",
    ),
    (
        GOOD + "explain: [{cause: loss-hihg, symptoms: [loss-high], on: run}]\n",
        "no rule is called 'loss-hihg'",
        "'loss-high'",
    ),
    (GOOD + "explain: [{cause: loss-high, symptoms: [loss-high], on: run}]\n", "cannot explain itself", ""),
    (
        GOOD + "tests: [{name: x, series: {loss: 1 x5 oops}, expect: [{any: never}]}]\n",
        "cannot read the series at 'oops'",
        "forms are",
    ),
    (GOOD + "tests: [{name: x, series: {lss: 1}, expect: [{any: never}]}]\n", "unknown signal 'lss'", "'loss'"),
    (GOOD + "tests: [{name: x, series: {loss: 1}, expect: [{rule: other}]}]\n", "no rule is called 'other'", ""),
    (GOOD + "tests: [{name: x, series: {loss: 1}, expect: [{root: true}]}]\n", "needs 'rule' or 'any: never'", ""),
    (GOOD + "  - {id: loss-high, severity: info, when: loss > 2}\n", "two rules are called 'loss-high'", "another id"),
]


@pytest.mark.parametrize(("text", "message", "help"), MISTAKES, ids=[m[1][:40] for m in MISTAKES])
def test_each_mistake_has_its_own_words(text: str, message: str, help: str) -> None:
    found = problems(text)
    match = [p for p in found if message in p.message]
    assert match, [str(p) for p in found]
    assert help in match[0].help


def test_a_mistake_in_a_record_is_told_once_and_not_for_every_rule_that_uses_it() -> None:
    problem = only(
        "version: 1\nrecord: {my.ratio: losss / lr}\nrules:\n  - {id: a, severity: info, when: my.ratio > 1}\n"
    )
    assert (problem.line, problem.column) == (2, 20)


# --- hostile files ---

HOSTILE = {
    "alias bomb": "version: 1\na: &a [x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)),
    "python object": "version: 1\nname: !!python/object/apply:os.system ['echo pwned > /tmp/nndoctor_pwned']\n",
    "python name": "version: 1\nname: !!python/name:os.system\n",
    "python module": "!!python/module:os\n",
    "own tag": "version: !evil 1\n",
    "binary tag": "version: 1\nname: !!binary aGVsbG8=\n",
    "set tag": "version: !!set {a, b}\n",
    "merge key": "version: 1\n<<: {name: x}\n",
    "recursive alias": "&a [*a]\n",
    "deep list": "version: 1\nrules: " + "[" * 400 + "]" * 400 + "\n",
    "deep map": "version: 1\nname: " + "{a: " * 400 + "1" + "}" * 400 + "\n",
    "deep indentation": "\n".join(" " * i + "a:" for i in range(300)) + " 1\n",
    "many nodes": "version: 1\nname: [" + "1," * 30_000 + "]\n",
    "large file": "version: 1\nname: " + "x" * 600_000 + "\n",
    "long expression": rule(when="loss > 1" + " and loss > 1" * 5000),
    "long message": rule(message="'" + "{loss}" * 5000 + "'"),
    "huge number": rule(params="{k: " + "9" * 5000 + "}"),
    "control characters": "version: 1\nname: \"\\x00\\x1b[2J\"\nrules: 3\n",
    "raw control character": "version: 1\nname: \x1b[2J\n",
    "null byte": "version: 1\0\n",
    "bidi in an expression": rule(when="loss > 1 \u202e"),
    "format attack": rule(message="'{loss.__init__.__globals__}'"),
    "format width attack": rule(message="'{loss:99999999999f}'"),
    "format index attack": rule(message="'{0}{1[a]}{loss!r}'"),
    "code in a fix": rule(fixes="[{title: x, set: {lr: \"__import__('os')\"}}]"),
    "code in a record": "version: 1\nrecord: {x: \"open('/etc/passwd')\"}\n",
    "code in a condition": rule(when="\"().__class__.__mro__\""),
    "key that is a list": "version: 1\n? [a, b]\n: 1\n",
    "key that is null": "version: 1\n~: 1\n",
    "tab": "version: 1\nrules:\n\t- id: a\n",
    "unclosed": "version: 1\nrules: [{\n",
    "path traversal": "version: 1\nextends: ['os:../../etc/passwd']\n",
    "a test that is too long": GOOD + "tests: [{name: x, series: {loss: 1 x9999999}, expect: [{any: never}]}]\n",
    "wildcards": GOOD + "overrides: [{rules: ['" + "*a" * 60 + "'], enabled: false, reason: why not}]\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once_and_nothing_of_it_runs(name: str) -> None:
    load_text(GOOD)  # imports are not the file's doing
    taken = []
    for _ in range(3):  # the best of three: processor time, but shared caches
        begin = time.process_time()
        with pytest.raises(RulesetError) as caught:
            load_text(HOSTILE[name])
        taken.append(time.process_time() - begin)
    assert min(taken) < 1.0  # it must not hang; the figure of interest is in the tens of milliseconds
    assert caught.value.problems
    assert not Path("/tmp/nndoctor_pwned").exists()
    for problem in caught.value.problems[:20]:
        shown = problem.render()
        assert len(shown) < 2000
        assert all(c.isprintable() or c == "\n" for c in shown), shown


def test_a_file_that_cannot_be_read_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00version")
    for source in (tmp_path / "missing.yaml", binary):
        with pytest.raises(RulesetError) as caught:
            load_rulesets([source])
        assert len(caught.value.problems) == 1


# --- reading YAML ---


def test_words_and_numbers_are_read_as_people_mean_them() -> None:
    document, found = positions.parse(
        "[yes, no, on, off, true, false, null, 3e-4, 1E3, 1_000, .5, 2026-01-01, 12:30, 0x1f, '3', -.inf, 1.]"
    )
    assert not found
    assert document.root is not None
    assert document.root.value == [
        "yes", "no", "on", "off", True, False, None, 3e-4, 1e3, 1000, 0.5, "2026-01-01", "12:30", "0x1f", "3", float("-inf"), 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "duration"),
    [("30 steps", Duration(30)), ("1 step", Duration(1)), ("2 epochs", Duration(2, "epochs")), ("0.5 s", Duration(0.5, "s")), ("5%", Duration(5, "%"))],
)  # fmt: skip
def test_durations_have_units(text: str, duration: Duration) -> None:
    assert Duration.parse(text) == duration
    assert Duration.parse(str(duration)) == duration


# --- merging ---


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_an_extending_file_changes_a_rule_field_by_field(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=GOOD + "    evidence: [loss, lr]\n    docs: {why: because, checks: the loss}\n",
        mine="version: 1\nextends: [base.yaml]\nrules:\n  - {id: loss-high, severity: info, evidence: [lr], params: {other: 1}, docs: {why: mine}}\n",
    )
    found = load_rulesets([tmp_path / "mine.yaml"]).rule("loss-high")
    assert found.severity.label == "info"
    assert [name for name, _ in found.evidence] == ["lr"]
    assert found.params == {"limit": 10, "other": 1}
    assert (found.docs.why, found.docs.checks) == ("mine", "the loss")
    assert found.hold == Duration(30)
    assert found.origins["severity"].endswith("mine.yaml:4")
    assert found.origins["when"].endswith("base.yaml:6")


def test_rulesets_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, a="version: 1\nextends: [b.yaml]\n", b="version: 1\nextends: [a.yaml]\n")
    with pytest.raises(RulesetError, match=r"in a circle: a.yaml -> b.yaml -> a.yaml"):
        load_rulesets([tmp_path / "a.yaml"])


def test_a_folder_is_one_ruleset_and_its_defaults_hold_for_all_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        ruleset="version: 1\ndefaults: {every: 7 steps, warmup: 3 steps}\nrecord: {my.loss: loss * 2}\n",
        one=GOOD,
        two="version: 1\nrules:\n  - {id: second, severity: info, when: my.loss > 3, warmup: 9 steps}\n",
    )
    loaded = load_rulesets([tmp_path])
    assert [r.id for r in loaded.rules] == ["loss-high", "second"]
    assert [str(r.every) for r in loaded.rules] == ["7 steps", "7 steps"]
    assert [str(r.warmup) for r in loaded.rules] == ["3 steps", "9 steps"]


def test_a_later_source_extends_the_earlier(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=GOOD,
        mine="version: 1\noverrides: [{rules: ['loss-*'], severity: info, params: {limit: 99}, reason: we know}]\n",
    )
    found = load_rulesets([tmp_path / "base.yaml", tmp_path / "mine.yaml"]).rule("loss-high")
    assert (found.severity.label, found.params) == ("info", {"limit": 99})
    with pytest.raises(RulesetError, match="override of an unknown rule"):
        load_rulesets([tmp_path / "mine.yaml"])


def test_a_rule_can_be_switched_off_with_a_reason(tmp_path: Path) -> None:
    loaded = load_text(GOOD + "overrides: [{rules: [loss-high], enabled: false, reason: too noisy here}]\n")
    assert loaded.rule("loss-high").disabled == "too noisy here"


def test_a_renamed_rule_is_still_found_under_its_old_name() -> None:
    text = (
        GOOD
        + "    renamed_from: loss-too-high\noverrides: [{rules: [loss-too-high], severity: info, reason: old name}]\n"
    )
    assert load_text(text).rule("loss-high").severity.label == "info"


def test_a_link_may_name_a_diagnosis_for_all_its_rules() -> None:
    text = GOOD + (
        "  - {id: a, diagnosis: sickness, severity: info, when: loss > 1}\n  - {id: b, diagnosis: sickness, severity: info, when: loss > 2}\n"
        "explain: [{cause: loss-high, symptoms: sickness, on: run, within: 5 steps}]\n"
    )
    loaded = load_text(text)
    assert loaded.explain[0].symptoms == ("a", "b")
    assert loaded.rule("loss-high").docs.explains == ("a", "b")
    assert loaded.rule("a").docs.explained_by == ("loss-high",)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (">=0.3", True),
        (">=0.3.1, <1", True),
        ("<0.3", False),
        ("==0.3.1", True),
        ("!=0.3.1", False),
        (">0.3.1", False),
        ("<=1", True),
    ],
)
def test_required_versions(wanted: str, fits: bool) -> None:
    assert version_fits("0.3.1", wanted) is fits


# --- what is shipped ---


def test_core_loads_and_its_rules_read_only_what_can_be_measured() -> None:
    core: Ruleset = load_rulesets(["core"])
    assert rulesets_folder().joinpath("core").is_dir()
    assert len(core) > 0
    for found in core.rules:
        assert all(name in CATALOGUE for name in found.signals())


def test_the_json_schema_names_signals_and_rejects_unknown_keys() -> None:
    schema = json_schema(CATALOGUE)
    text = json.dumps(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in text
    assert '"grad.norm"' in text
    definition = schema["definitions"]["RuleModel"]
    assert definition["additionalProperties"] is False
    assert "for" in definition["properties"]
    assert "for_" not in definition["properties"]


def test_a_wrong_value_does_not_hide_the_mistakes_in_the_formulas() -> None:
    text = """version: 1
rules:
  - id: one
    severity: warnng
    params: {k: ten}
    when: loss > medain(loss, 100)
  - {id: two, severity: info, when: los > 3, colour: red}
"""
    with pytest.raises(RulesetError) as caught:
        load_text(text)
    told = "\n".join(problem.message for problem in caught.value.problems)
    for word in ("warnng", "ten", "medain", "'los'", "colour"):
        assert word in told, word
