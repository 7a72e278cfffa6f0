"""What each command answers, and how it ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from nndoctor.record import RecordReader

from .conftest import HOSTILE, RULES, Command

# -- diagnose


def test_diagnose_ends_in_the_verdict_and_says_by_its_code_how_bad_it_is(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("diagnose")
    assert answer.code == 1
    assert answer.verdict.startswith("2 findings, 2 root causes: layer-is-loud, learning-rate-too-low")


def test_diagnose_of_a_healthy_run_ends_with_zero(nndoctor: Command, healthy: Path) -> None:
    answer = nndoctor("diagnose", "healthy", "--fail-on", "info")
    assert answer.code == 0
    assert answer.verdict == "No problems found in 60 steps (2 rules, 1 layer)."


@pytest.mark.parametrize(("limit", "code"), [("info", 1), ("error", 1), ("critical", 0), ("never", 0)])
def test_fail_on_draws_the_line(nndoctor: Command, sick: Path, limit: str, code: int) -> None:
    assert nndoctor("diagnose", "--fail-on", limit).code == code


def test_diagnose_as_json_carries_steps_and_findings_and_nothing_else(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("diagnose", "sick", "--format", "json")
    data = json.loads(answer.out)
    assert data["steps"] == 60
    assert data["run"] == "20240102-sick"
    assert data["status"] == "finished"
    found = {finding["rule"]: finding for finding in data["findings"]}
    assert found["loss-stays-high"]["fixes"][0]["set"] == {"lr": 0.01}
    assert found["layer-is-loud"]["targets"] == [HOSTILE]
    assert data["problems"] == []


def test_diagnose_with_other_rules_gives_other_findings(nndoctor: Command, sick: Path, here: Path) -> None:
    (here / "lenient.yaml").write_text(RULES.replace("limit: 5", "limit: 50").replace("> 100", "> 1000"))
    assert nndoctor("diagnose", "--rules", "lenient.yaml", "--fail-on", "info").code == 0


def test_a_ruleset_with_mistakes_is_told_with_its_places_and_code_2(nndoctor: Command, sick: Path, here: Path) -> None:
    (here / "bad.yaml").write_text(
        RULES.replace("loss > limit", "loss > limitt").replace("act.rms > 100", "act.rsm > 100")
    )
    answer = nndoctor("diagnose", "--rules", "bad.yaml")
    assert answer.code == 2
    assert answer.out == ""
    assert "bad.yaml:11:" in answer.err
    assert "did you mean 'limit'?" in answer.err
    assert "did you mean 'act.rms'?" in answer.err
    assert "Traceback" not in answer.err
    assert answer.err.rstrip().endswith("2 mistakes in the rules")


def test_a_damaged_record_is_judged_as_far_as_it_goes_and_the_rest_is_told(nndoctor: Command, sick: Path) -> None:
    path = sick / "record.sqlite"
    with RecordReader(sick) as reader:
        needle = list(reader.frames())[30].values["loss"].tobytes()
    data = path.read_bytes()
    at = data.rfind(needle)
    path.write_bytes(data[:at] + b"\x07" + data[at + 1 :])
    answer = nndoctor("diagnose", "--fail-on", "never")
    assert answer.code == 0
    assert "checksum" in answer.err
    assert "layer-is-loud" in answer.out


def test_a_foreign_file_is_one_clear_error(nndoctor: Command, here: Path) -> None:
    folder = here / ".nndoctor/runs/odd"
    folder.mkdir(parents=True)
    (folder / "record.sqlite").write_text("not a database " * 100)
    for command in ("diagnose", "report", "watch"):
        answer = nndoctor(command, "odd", *(["--once"] if command == "watch" else []))
        assert answer.code == 2
        assert answer.out == ""
        assert "not a run record" in answer.err
        assert "Traceback" not in answer.err


def test_an_unknown_run_lists_what_there_is(nndoctor: Command, sick: Path, healthy: Path) -> None:
    answer = nndoctor("diagnose", "20240101-helthy")
    assert answer.code == 2
    assert "did you mean 20240101-healthy" in answer.err


# -- ls


def test_ls_shows_runs_newest_first_with_status_steps_and_worst_finding(
    nndoctor: Command, sick: Path, healthy: Path
) -> None:
    answer = nndoctor("ls")
    lines = answer.out.split("\n")
    assert lines[1].startswith("20240102-sick     finished  60")
    assert lines[1].endswith("warning: learning-rate-too-low")
    assert lines[2].startswith("20240101-healthy  finished  60")
    assert lines[2].endswith("none")
    assert answer.verdict == "2 runs in .nndoctor/runs: 2 finished."
    assert answer.code == 0


def test_ls_as_json_and_of_nothing(nndoctor: Command, here: Path, sick: Path) -> None:
    data = json.loads(nndoctor("ls", "--json").out)
    assert [(run["status"], run["steps"], run["worst"]) for run in data["runs"]] == [("finished", 60, "warning")]
    assert nndoctor("ls", "--root", "elsewhere").out.startswith("No runs in elsewhere")


# -- report and watch


def test_report_is_written_into_the_run_folder_and_named(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("report")
    assert answer.code == 0
    assert answer.out.startswith(f"report: {Path('.nndoctor/runs/20240102-sick/report.html')}\n2 findings")
    assert HOSTILE.replace("\x1b", "") not in (sick / "report.html").read_text()


@pytest.mark.parametrize(("name", "start"), [("out.json", "{"), ("out.md", "# "), ("out.txt", "sick")])
def test_report_takes_its_format_from_the_suffix(
    nndoctor: Command, sick: Path, here: Path, name: str, start: str
) -> None:
    assert nndoctor("report", "-o", name).code == 0
    assert (here / name).read_text().startswith(start)


def test_report_goes_to_stdout_for_a_dash(nndoctor: Command, sick: Path) -> None:
    assert json.loads(nndoctor("report", "-o", "-", "--format", "json").out)["steps"] == 60


def test_report_is_opened_in_the_browser_or_it_is_said_that_there_is_none(
    nndoctor: Command, sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: seen.append(address) or len(seen) == 1)
    assert nndoctor("report").code == 0
    assert not seen, "only when asked"
    assert nndoctor("report", "--open").err == ""
    assert seen == [(sick / "report.html").resolve().as_uri()]
    answer = nndoctor("report", "--open")
    assert "no browser could be started" in answer.err
    assert answer.code == 0


@pytest.mark.parametrize(
    ("environment", "terminal", "desktop"),
    [
        ({"DISPLAY": ":0"}, True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ({}, True, False),
        ({"DISPLAY": ":0"}, False, False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}, True, False),
        ({"DISPLAY": ":99", "CI": "true"}, True, False),
    ],
)
def test_a_report_is_shown_unasked_only_to_somebody_at_a_desktop(
    environment: dict[str, str], terminal: bool, desktop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nndoctor.cli import browser

    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert browser.has_desktop() is desktop


def test_report_into_a_folder_that_is_not_there_is_one_clear_error(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("report", "-o", "nowhere/report.html")
    assert answer.code == 2
    assert "nowhere" in answer.err
    assert answer.out == ""


def test_watch_once_shows_the_run_and_its_verdict(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("watch", "--once")
    assert answer.code == 0
    assert "step 60" in answer.out
    assert "\x1b" not in answer.out
    assert json.loads(nndoctor("watch", "--json").out)["step"] == 60


def test_reset_without_a_terminal_says_so(nndoctor: Command) -> None:
    answer = nndoctor("watch", "--reset")
    assert answer.code == 2
    assert "no terminal" in answer.err


# -- rules and explain


def test_explain_finds_a_rule_by_its_id_its_old_id_and_its_diagnosis(nndoctor: Command, rules: Path) -> None:
    for name in ("loss-stays-high", "loss-too-high", "learning-rate-too-low"):
        answer = nndoctor("explain", name, "--rules", "mine.yaml")
        assert answer.code == 0, answer.err
        assert answer.out.startswith("loss-stays-high: Look at the loss")
        assert "limit = 5" in answer.out
    assert "(called loss-too-high before)" in nndoctor("explain", "loss-too-high", "--rules", "mine.yaml").verdict


def test_explain_knows_the_rules_of_the_newest_run_too(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("explain", "layer-is-loud")
    assert answer.code == 0, answer.err
    assert answer.verdict.startswith("layer-is-loud is defined in ")


def test_a_rule_that_explains_many_lists_them_in_a_paragraph(nndoctor: Command) -> None:
    told = nndoctor("explain", "missing-zero-grad").out.splitlines()
    start = told.index("Explains, where they are found with it")
    block = told[start + 1 : told.index("", start)]
    assert len(block) < 12
    assert "learning-rate-too-high, " in "\n".join(block)


def test_rules_that_could_not_be_judged_are_named_and_where_no_cause_was_found_with_the_reason(
    nndoctor: Command, here: Path, sick: Path, healthy: Path
) -> None:
    blind = '  - {id: val-loss-high, severity: warning, scope: run, when: val.loss > 1, message: "x"}\n'
    (here / "two.yaml").write_text(RULES.replace("rules:\n", f"rules:\n{blind}", 1))
    found, quiet = (nndoctor("diagnose", run, "--rules", "two.yaml").out for run in ("sick", "healthy"))
    assert "1 rule could not be judged, as what it looks at was not there to be measured" in found
    assert "  - val-loss-high" not in found
    assert "1 rule could not be judged\n  - val-loss-high: val.loss was never measured" in quiet


def test_explain_shows_what_the_clinic_found_and_nothing_for_a_rule_it_never_saw(nndoctor: Command, rules: Path) -> None:
    page = nndoctor("explain", "missing-zero-grad").out
    assert "In the clinic (docs/clinic.md)\n  - The rule: named in " in page
    assert "In the clinic" not in nndoctor("explain", "layer-is-loud", "--rules", "mine.yaml").out
    assert "wrongly in" in json.loads(nndoctor("explain", "missing-zero-grad", "--json").out)[0]["clinic"][0]


def test_explain_of_an_unknown_rule_suggests_one(nndoctor: Command) -> None:
    answer = nndoctor("explain", "dead-rellu")
    assert answer.code == 2
    assert "did you mean dead-relu" in answer.err


def test_every_core_rule_has_a_page(nndoctor: Command) -> None:
    listed = json.loads(nndoctor("rules", "list", "--json").out)
    pages = json.loads(nndoctor("explain", "dead-relu", "--json").out)
    assert pages[0]["id"] == "dead-relu"
    assert all(rule["title"] for rule in listed)
    assert len(listed) >= 22


def test_rules_show_gives_the_lines_of_the_file_and_resolved_the_origin_of_each_value(
    nndoctor: Command, rules: Path
) -> None:
    written = nndoctor("rules", "show", "layer-is-loud", "--rules", "mine.yaml").out
    assert written.startswith("  - id: layer-is-loud\n    severity: error\n")
    assert "tests:" not in written
    resolved = nndoctor("rules", "show", "layer-is-loud", "--resolved", "--rules", "mine.yaml").out
    fields = {line.split()[0]: line.split()[1:] for line in resolved.split("\n") if line.strip()}
    assert fields["when"] == ["mine.yaml:19", "act.rms", ">", "100"]
    assert fields["confidence"] == ["default", "medium"]


def test_rules_check_counts_what_it_read(nndoctor: Command, rules: Path) -> None:
    answer = nndoctor("rules", "check", "mine.yaml")
    assert answer.code == 0
    assert answer.verdict.startswith("No mistakes in mine.yaml: 2 rules")
    assert nndoctor("rules", "check", "none.yaml").code == 2


def test_rules_test_passes_and_fails_with_what_happened(nndoctor: Command, rules: Path) -> None:
    assert nndoctor("rules", "test", "mine.yaml").verdict == "1 test in mine.yaml: all passed."
    rules.write_text(RULES.replace("9.0 x50", "1.0 x50"))
    answer = nndoctor("rules", "test", "mine.yaml")
    assert answer.code == 1
    assert answer.out.startswith("FAIL")
    assert answer.verdict == "1 test in mine.yaml: 1 failed."


def test_only_the_tests_of_the_named_file_run(nndoctor: Command, rules: Path) -> None:
    rules.write_text(RULES.replace("name: mine", "name: mine\nextends: [core]"))
    assert nndoctor("rules", "test", "mine.yaml").verdict.startswith("1 test in")


def test_the_schema_is_one_that_editors_read(nndoctor: Command) -> None:
    schema = json.loads(nndoctor("rules", "schema").out)
    assert schema["$schema"].startswith("http://json-schema.org/draft-07")
    assert "grad.norm" in json.dumps(schema)


# -- run, demo, check


def test_run_without_a_script_is_a_usage_error(nndoctor: Command) -> None:
    answer = nndoctor("run")
    assert answer.code == 2
    assert "expected a script" in answer.err


def test_run_passes_the_rest_of_the_line_and_the_settings_on(
    nndoctor: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nndoctor.cli import run as module

    seen: list[tuple[list[str], module.RunOptions]] = []

    def run_script(argv: list[str], options: module.RunOptions) -> int:
        seen.append((argv, options))
        return 7

    monkeypatch.setattr(module, "run_script", run_script)
    monkeypatch.setenv("NNDOCTOR_UI", "lines")
    monkeypatch.setenv("NNDOCTOR_RUN_ROOT", "elsewhere")
    assert (
        nndoctor(
            "run", "--budget", "0.5", "--rules", "core", "--rules", "x.yaml", "train.py", "--ui", "mine", "-x"
        ).code
        == 7
    )
    argv, options = seen[0]
    assert argv[-4:] == ["train.py", "--ui", "mine", "-x"]
    assert (options.ui, options.budget, options.rules) == ("lines", 0.5, ("core", "x.yaml"))
    assert options.run_dir is not None
    assert options.run_dir.parent == Path("elsewhere")
    assert options.run_dir.name.endswith("-train")
    nndoctor("run", "--", "train.py", "--lr", "1")
    assert seen[1][1].context == {}
    assert [word for word in seen[1][0] if word != "--"] == ["train.py", "--lr", "1"]


def test_run_takes_what_the_user_says_of_the_run(nndoctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.cli import run as module

    seen: list[Any] = []
    monkeypatch.setattr(module, "run_script", lambda argv, options: seen.append(options) or 0)
    assert nndoctor("run", "--context", "gan=no", "--context", "full-batch=Yes", "train.py").code == 0
    assert seen[0].context == {"gan": False, "full_batch": True}
    refused = nndoctor("run", "--context", "gann=no", "train.py")
    assert refused.code == 2
    assert "did you mean 'gan'?" in refused.err
    assert "language_model" in refused.err
    assert nndoctor("run", "--context", "gan", "train.py").code == 2
    assert len(seen) == 1


def test_demo_passes_its_options_on(nndoctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.cli import demo as module

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "demo", lambda *given: seen.append(given) or 0)
    assert nndoctor("demo", "dead-relu", "--steps", "5", "--ui", "off", "-o", "x.html").code == 0
    assert nndoctor("demo", "--no-open").code == 0
    assert seen[0] == ("dead-relu", 5, "off", Path("x.html"), False, False, None)
    assert seen[1][-1] is False
    assert nndoctor("demo", "--ui", "fancy").code == 2


def test_check_examines_everything_and_the_doctor_is_well(
    nndoctor: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nndoctor.cli import check as module

    monkeypatch.setattr(module, "SELF_TEST_STEPS", 60)
    answer = nndoctor("check", "--json")
    checks = {item["name"]: item for item in json.loads(answer.out)["checks"]}
    assert {name for name, item in checks.items() if item["outcome"] == "failed"} == set()
    assert {"torch", "rules", "terminal", "disk", "record", "hooks", "cost"} <= set(checks)
    assert answer.code == 0
    assert os.listdir(here) == []


def test_check_names_what_fails(nndoctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.cli import check as module

    monkeypatch.setattr(module, "_self_test", lambda folder: (199, {"loss"}, None))
    monkeypatch.setenv("NNDOCTOR_RULES", "none.yaml")
    answer = nndoctor("check")
    assert answer.code == 1
    assert answer.verdict.endswith("rules, hooks failed.")
