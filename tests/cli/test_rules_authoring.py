"""Writing rules: trying expressions on a record, drafting a file from runs, remarks on it, backtests, the editor's schema."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordWriter, RunFacts
from nndoctor.rules import load_rulesets
from nndoctor.signals import Frame, Targets

from .conftest import RULES, Command


def write_run(folder: Path, losses: list[float], rms: dict[str, list[float]] | None = None) -> Path:
    rms = rms or {}
    targets = Targets(layers=tuple(rms), layer_kinds=("Linear",) * len(rms), layer_depths=tuple(range(len(rms))))
    with RecordWriter(folder, RunFacts(folder.name, 1e9, {}, ("core",)), targets) as writer:
        for step, loss in enumerate(losses, 1):
            values = {"loss": np.float32([loss]), "lr": np.float32([0.1])}
            if rms:
                values["act.rms"] = np.float32([series[step - 1] for series in rms.values()])
            writer.frame(Frame(step, 1e9 + step, step / 10, values))
    assert writer.failure is None
    return folder


@pytest.fixture
def stuck(here: Path) -> Path:
    return write_run(here / ".nndoctor/runs/stuck", [2.3] * 300, {"a": [1.0] * 300, "b": [1.0] * 150 + [9.0] * 150})


@pytest.fixture
def learns(here: Path) -> Path:
    return write_run(here / ".nndoctor/runs/learns", list(np.linspace(2.3, 0.3, 300)), {"a": [1.0] * 300, "b": [1.0] * 300})


# -- try


def test_try_draws_the_course_and_names_its_unit(nndoctor: Command, learns: Path) -> None:
    answer = nndoctor("rules", "try", "loss", "learns")
    assert answer.code == 0
    assert answer.verdict == "300 samples over 300 steps, one value for the run, in loss."
    assert any("\u2800" < character < "\u28ff" for character in answer.out)


def test_try_tells_where_a_condition_holds_and_which_part_of_it_decides(nndoctor: Command, learns: Path) -> None:
    data = json.loads(nndoctor("rules", "try", "loss < 1.3 and step > 200", "learns", "--json").out)
    assert data["held"] == [[201, 300]]
    assert [(part["text"], part["true"]) for part in data["parts"]] == [("loss < 1.3", 150), ("step > 200", 100)]
    answer = nndoctor("rules", "try", "loss < 1.3 and step > 200", "learns")
    assert "held in steps 201 to 300" in answer.out
    assert answer.verdict.startswith("True from step 201 on, in 1 stretch of 100 steps")


def test_try_of_layers_names_those_at_which_it_held(nndoctor: Command, stuck: Path) -> None:
    data = json.loads(nndoctor("rules", "try", "act.rms > 5", "stuck", "--json").out)
    assert (data["held_at"], data["held"]) == (["b"], [[151, 300]])
    assert json.loads(nndoctor("rules", "try", "act.rms", "stuck", "--at", "b", "--json").out)["values"].keys() == {"b"}
    assert "no layer is called 'c'" in nndoctor("rules", "try", "act.rms", "stuck", "--at", "c").err


def test_try_knows_the_records_of_the_rulesets_of_the_run(nndoctor: Command, stuck: Path) -> None:
    assert "True from step 100 on" in nndoctor("rules", "try", "learning.failed", "stuck").verdict


def test_try_points_at_a_mistake_in_the_expression(nndoctor: Command, stuck: Path) -> None:
    answer = nndoctor("rules", "try", "los > 2", "stuck")
    assert answer.code == 2
    assert answer.err == "error: unknown signal or parameter 'los'\n  los > 2\n  ^^^\n  help: did you mean 'loss'?\n"


def test_try_says_what_was_not_measured(nndoctor: Command, stuck: Path) -> None:
    assert nndoctor("rules", "try", "val.loss > 1", "stuck").verdict == "Unknown throughout stuck: val.loss was not measured in it."


def test_try_draws_in_ascii_where_the_terminal_knows_no_other(stuck: Path, here: Path) -> None:
    import sys

    import nndoctor as package

    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(package.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "nndoctor.cli.main", "rules", "try", "act.rms", "stuck"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("wanted", "colours"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({"FORCE_COLOR": "1", "TERM": "dumb"}, False)],
)
def test_try_has_colours_where_rich_would_have_them(
    wanted: dict[str, str], colours: bool, nndoctor: Command, stuck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    assert bool(re.search(r"\x1b\[\d*;?3\d", nndoctor("rules", "try", "loss > 1", "stuck").out)) is colours


# -- new


def test_a_new_rule_is_drafted_with_tests_written_down_from_runs_that_pass(nndoctor: Command, stuck: Path, learns: Path, here: Path) -> None:
    answer = nndoctor("rules", "new", "loss-never-falls", "--when", "min(loss, 100) > 2", "--sick", "stuck", "--healthy", "learns")
    assert (answer.code, answer.err) == (0, "")
    text = (here / "loss-never-falls.yaml").read_text()
    assert "loss: 2.3 x299 2.3 x1" in text
    assert "fires_in" in text
    assert "never: true" in text
    assert nndoctor("rules", "check", "loss-never-falls.yaml").code == 0
    assert nndoctor("rules", "test", "loss-never-falls.yaml").verdict == "2 tests in loss-never-falls.yaml: all passed."
    remarks = json.loads(nndoctor("rules", "lint", "loss-never-falls.yaml", "--json").out)
    assert {remark["code"] for remark in remarks} == {"unfinished", "fix-missing"}


def test_a_new_rule_judges_beside_those_of_core_and_offers_no_remedy_before_it_has_one(nndoctor: Command, stuck: Path, here: Path) -> None:
    answer = nndoctor("rules", "new", "loss-never-falls", "--when", "min(loss, 100) > 2", "--sick", "stuck")
    assert "nndoctor run --rules loss-never-falls.yaml -- train.py" in answer.out
    rules = load_rulesets((here / "loss-never-falls.yaml",)).rules
    assert {"loss-never-falls", "missing-zero-grad"} <= {rule.id for rule in rules}
    told = nndoctor("diagnose", "stuck", "--rules", "loss-never-falls.yaml")
    assert "loss-never-falls" in told.verdict
    assert "TODO" not in told.verdict


def test_a_new_rule_must_not_have_the_name_of_one_of_core(nndoctor: Command, here: Path) -> None:
    answer = nndoctor("rules", "new", "dead-relu")
    assert answer.code == 2
    assert "core has a rule dead-relu already" in answer.err
    assert not (here / "dead-relu.yaml").exists()


def test_a_new_rule_of_layers_writes_down_a_few_of_them(nndoctor: Command, stuck: Path, here: Path) -> None:
    assert nndoctor("rules", "new", "layer-loud", "--when", "act.rms > 5", "--sick", "stuck").code == 0
    text = (here / "layer-loud.yaml").read_text()
    assert "scope: layer" in text
    assert 'message: "{layer}: act.rms is {act.rms:.3g}"' in text
    assert nndoctor("rules", "test", "layer-loud.yaml").code == 0


def test_a_new_rule_without_runs_has_tests_on_both_sides_of_its_limit(nndoctor: Command, here: Path) -> None:
    assert nndoctor("rules", "new", "loss-huge", "--when", "loss > 10", "-o", "x.yaml").code == 0
    text = (here / "x.yaml").read_text()
    assert "loss: 21 x400" in text
    assert "fires_in" in text
    assert nndoctor("rules", "test", "x.yaml").code == 0


def test_a_rule_that_stays_silent_in_its_sick_run_is_told(nndoctor: Command, learns: Path) -> None:
    answer = nndoctor("rules", "new", "loss-huge", "--when", "loss > 10", "--sick", "learns")
    assert "stays silent in learns" in answer.err
    assert "look at it with: nndoctor rules try" in answer.err


def test_a_drafted_test_in_which_the_rule_stays_silent_is_not_taken_for_a_run(nndoctor: Command, here: Path) -> None:
    answer = nndoctor("rules", "new", "loss-plateau", "--when", "slope(loss, 100) > 0")
    assert "stays silent in the drafted test 'beyond the limit'; write a series into it" in answer.err
    assert "nndoctor rules try" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Dead Relu",), "as in dead-relu"),
        (("x", "--when", "loss >"), "cannot read the expression"),
        (("x", "--when", "loss"), "expected a condition"),
        (("x", "--severity", "eror"), "did you mean error?"),
        (("mine",), "mine.yaml exists"),
    ],
)
def test_a_new_rule_that_cannot_be_is_refused_with_advice(nndoctor: Command, rules: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = nndoctor("rules", "new", *arguments)
    assert answer.code == 2
    assert said in answer.err


# -- check, lint


def test_a_file_of_a_folder_ruleset_is_checked_with_what_it_shares(nndoctor: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.rules import rulesets_folder

    monkeypatch.chdir(rulesets_folder().parent)
    answer = nndoctor("rules", "check", str(rulesets_folder() / "core" / "dead-relu.yaml"))
    assert answer.code == 0, answer.err
    tested = nndoctor("rules", "test", str(rulesets_folder() / "core" / "dead-relu.yaml"))
    assert re.search(r"^4 tests in .*: all passed\.", tested.verdict)


def test_a_link_may_name_rules_of_a_ruleset_that_is_not_loaded_but_not_a_name_that_nobody_has(nndoctor: Command, rules: Path) -> None:
    rules.write_text(RULES + "explain:\n  - {cause: layer-is-loud, symptoms: [dead-relu, overfitting], on: run}\n")
    assert nndoctor("rules", "check", "mine.yaml").code == 0
    rules.write_text(RULES + "explain:\n  - {cause: layer-is-loud, symptoms: [dead-relou], on: run}\n")
    assert "no rule is called 'dead-relou'" in nndoctor("rules", "check", "mine.yaml").err


def test_a_record_or_rule_of_core_is_recognised_and_the_line_that_brings_it_is_told(nndoctor: Command, rules: Path) -> None:
    rules.write_text(RULES.replace("loss > limit", "loss > limit and learning.failed") + "overrides: [{rules: [dead-relu], enabled: false, reason: noisy}]\n")
    told = nndoctor("rules", "check", "mine.yaml").err
    assert "it is a record of core; write extends: [core]" in told
    assert "it is a rule of core; write extends: [core]" in told


def test_check_as_json_lists_every_mistake(nndoctor: Command, rules: Path) -> None:
    rules.write_text(RULES.replace("act.rms > 100", "act.rsm > 100"))
    answer = nndoctor("rules", "check", "mine.yaml", "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["problems"][0]["message"] == "unknown signal 'act.rsm'"


def test_lint_remarks_on_each_weakness_once_and_exits_with_1(nndoctor: Command, rules: Path) -> None:
    rules.write_text(RULES.replace("params: {limit: 5}", "params: {limit: 5, other: 3}").replace("id: layer-is-loud", "id: check-loudness"))
    answer = nndoctor("rules", "lint", "mine.yaml", "--json")
    assert answer.code == 1
    found = {(remark["rule"], remark["code"]) for remark in json.loads(answer.out)}
    assert ("loss-stays-high", "parameter-unused") in found
    assert ("loss-stays-high", "silence-untested") in found
    assert ("loss-stays-high", "fires-untested") not in found
    assert ("check-loudness", "named-after-the-cure") in found
    assert {("check-loudness", code) for code in ("docs-missing", "fix-missing", "message-without-value", "one-sample-fires", "number-without-reason", "untitled")} <= found
    ignored = nndoctor("rules", "lint", "mine.yaml", "--ignore", "docs-missing", "--json")
    assert "docs-missing" not in ignored.out
    assert "there is no remark 'nonsense'" in nndoctor("rules", "lint", "mine.yaml", "--ignore", "nonsense").err


# -- backtest


def test_backtest_tells_when_each_rule_fired_and_how_long_before_the_loss_broke(nndoctor: Command, here: Path, learns: Path) -> None:
    write_run(here / ".nndoctor/runs/breaks", [2.0] * 50 + list(np.linspace(2.0, 2.9, 50)) + [9.0] * 50)
    (here / "rise.yaml").write_text('version: 1\nrules: [{id: loss-rises, severity: warning, when: "loss > 2.45", message: "{loss:.2f}"}]\n')
    answer = nndoctor("rules", "backtest", "rise.yaml", "--healthy", "learns", "--json")
    runs = {run["run"]: run for run in json.loads(answer.out)["runs"]}
    assert answer.code == 0
    assert runs["breaks"]["loss_broke"] == 101
    (fired,) = runs["breaks"]["fired"]
    assert 70 < fired["step"] < 85
    assert fired["lead"] == 101 - fired["step"]
    assert runs["learns"] == {**runs["learns"], "healthy": True, "fired": [], "loss_broke": None}
    assert nndoctor("rules", "backtest", "rise.yaml", "--healthy", "learns").verdict == "1 rule over 2 runs: fired in 1; false alarms in 0 of 1 healthy run."


def test_backtest_exits_with_1_on_a_false_alarm(nndoctor: Command, here: Path, learns: Path) -> None:
    (here / "eager.yaml").write_text('version: 1\nrules: [{id: loss-high, severity: warning, when: "loss > 1", message: "{loss:.2f}"}]\n')
    answer = nndoctor("rules", "backtest", "eager.yaml", "learns", "--healthy", "lea*")
    assert answer.code == 1
    assert "FALSE ALARM" in answer.out


# -- the schema, in the server that editors use


def test_the_schema_explains_itself_and_lists_signals_with_their_units(nndoctor: Command) -> None:
    schema = json.loads(nndoctor("rules", "schema").out)
    series = schema["definitions"]["TestModel"]["properties"]["series"]
    assert "grad.norm" in series["propertyNames"]["anyOf"][0]["enum"]
    assert "per layer" in series["properties"]["grad.norm"]["description"]


def language_server() -> str | None:
    """The server of editors for YAML: on the path, or under the folder that NNDOCTOR_NODE_MODULES names."""
    folder = os.environ.get("NNDOCTOR_NODE_MODULES")
    found = shutil.which("yaml-language-server", path=str(Path(folder) / ".bin")) if folder else None
    return found or shutil.which("yaml-language-server")


LANGUAGE_SERVER = language_server()


@pytest.mark.skipif(LANGUAGE_SERVER is None, reason="yaml-language-server is not installed (npm install -g yaml-language-server)")
def test_an_editor_marks_a_wrong_key_and_offers_signals(nndoctor: Command, here: Path) -> None:
    from .language_server import LanguageServer

    (here / "ruleset.schema.json").write_text(nndoctor("rules", "schema").out)
    head = "# yaml-language-server: $schema=./ruleset.schema.json\n"
    with LanguageServer(str(LANGUAGE_SERVER), here) as server:
        assert server.diagnostics("good.yaml", head + RULES) == []
        marked = server.diagnostics("bad.yaml", head + RULES.replace("severity: warning", "severity: wrong").replace("scope: run", "scop: run"))
        assert any("scop" in message for message in marked)
        assert any("severity" in message or "critical" in message for message in marked)
        text = head + "version: 1\ntests:\n  - name: x\n    expect: [{any: never}]\n    series:\n      gr"
        assert "grad.norm" in server.completions("complete.yaml", text)
