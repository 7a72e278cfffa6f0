"""Following a record, the pages of the watch screen, and its keys."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nndoctor.acknowledged import acknowledge
from nndoctor.findings import Evidence, Fix, RuleDocs
from nndoctor.record import RecordError, RecordWriter, RunFacts, list_runs
from nndoctor.reports.follow import Follower
from nndoctor.reports.panel_data import finding_lines
from nndoctor.reports.scroll_region import BEGIN
from nndoctor.reports.watch import Callbacks, Viewer, once, parse_keys, snapshot, watch
from nndoctor.reports.watch_views import Place, Scene, press, render
from nndoctor.signals import Frame
from tests.reports.panel_cases import CAUSE, HOSTILE, LAYERS, TARGETS, diagnosis, healthy_state, history, sick_state
from tests.reports.record_cases import frame, sick_run, writer

DOCS = RuleDocs(
    id="learning-rate-too-high",
    diagnosis="learning-rate-too-high",
    title="The learning rate is too high",
    checks="Updates are large against the weights while the loss rises.",
    causes=("copied from another batch size", "no warm-up"),
    fixes=("Divide it by ten.",),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, only read by the tests."""
    folder = tmp_path_factory.mktemp("runs") / "20260101-mini-a3f1"
    sick_run(folder)
    return folder


def sick_scene() -> Scene:
    run = history(blow_up=True)
    found = (CAUSE, replace(CAUSE, rule="other", diagnosis="other", targets=HOSTILE, suppressed="known"))
    return Scene(replace(sick_state(), findings=finding_lines(found, TARGETS)), run, found)


def page(scene: Scene, place: Place, width: int = 80, height: int = 24, *, ascii: bool = False) -> list[str]:
    return [line.plain.rstrip() for line in render(scene, place, width, height, ascii=ascii)]


# ------------------------------------------------------------------------------------ the record


def test_a_snapshot_holds_what_was_measured_and_found(run: Path) -> None:
    state = snapshot(run)
    assert (state.name, state.status, state.step, state.planned_steps) == ("mini-a3f1", "finished", 300, 1000)
    assert state.steps_per_second == pytest.approx(10)
    assert state.overhead == pytest.approx(0.01)
    assert [cause.rule for cause in state.causes] == ["learning-rate-too-high", "dead-relu"]
    assert state.probe_failures == ("activations",)
    assert state.rules_ok == 54


def test_metrics_of_the_runs_own_are_shown_in_the_overview_and_those_of_layers_in_the_table(tmp_path: Path) -> None:
    with writer(tmp_path / "run", published=[{"name": "metric.alignment", "per": "layer", "unit": "1", "help": "Cosine."}]) as record:
        for step in range(1, 20):
            more = {"metric.alignment": np.linspace(0.1, 0.9, len(LAYERS), dtype=np.float32)}
            record.frame(replace(frame(step), values={**frame(step).values, **more}))
    with closing(Follower(tmp_path / "run")) as follower:
        scene = Scene(follower.look(), follower.history)
        for width, height in ((40, 12), (80, 24), (160, 50)):
            shown = "\n".join(page(scene, Place(), width, height))
            assert "alignment 0.464" in shown, shown
        table = page(scene, Place(page="layers"), 120)
        assert "alignment" in table[2]
        assert table[3].split()[-1] in {"0.1", "0.9"} | {f"{value:.3g}" for value in np.linspace(0.1, 0.9, len(LAYERS))}


def test_what_was_not_recorded_is_not_called_healthy(tmp_path: Path) -> None:
    with writer(tmp_path / "run") as record:
        record.frame(frame(1))
    state = snapshot(tmp_path / "run")
    assert state.rules_ok is None
    assert "rules ok" not in once(tmp_path / "run")
    assert state.verdict == "No problems found in 1 step."
    assert state.steps_per_second is None


def test_it_follows_a_run_that_is_being_written(tmp_path: Path) -> None:
    record = writer(tmp_path / "run")
    follower = Follower(tmp_path / "run")
    assert follower.look().step == 0
    record.frame(frame(1))
    record.flush()
    assert follower.look().step == 1
    record.frame(frame(2))
    record.findings((CAUSE,))
    record.flush()
    state = follower.look()
    assert (state.step, state.status, len(state.causes)) == (2, "running", 1)
    record.close()
    assert follower.look().status == "finished"
    follower.close()


def test_a_long_record_is_read_in_several_looks(run: Path) -> None:
    ticks = iter(range(10_000))
    follower = Follower(run, clock=lambda: float(next(ticks)))
    looks = 0
    while follower.look(patience=50).step < 300 or follower.behind:
        looks += 1
        assert looks < 50
    assert looks > 1
    assert follower.history.step == 300
    follower.close()


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        snapshot(tmp_path)


def test_once_is_plain_text_or_json(run: Path) -> None:
    text = once(run)
    assert "✖ learning rate too high since step 220" in text
    assert text.splitlines()[-1].startswith("4 findings, 2 root causes")
    assert "\x1b" not in text
    assert once(run, ascii=True).isascii()
    assert json.loads(once(run, as_json=True))["findings"][0]["fix"] == "lr=2e-4"


def test_without_a_terminal_one_picture_is_printed(run: Path) -> None:
    output = StringIO()
    assert watch(run, console=Console(file=output, width=100)) == 0
    assert "✖ learning rate too high" in output.getvalue()


# -------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("name", ["overview", "findings", "layers", "explain", "runs"])
@pytest.mark.parametrize(("width", "height"), [(20, 6), (40, 14), (60, 18), (80, 24), (120, 40), (250, 60)])
@pytest.mark.parametrize("ascii", [False, True])
def test_every_page_fills_the_screen_exactly(name: str, width: int, height: int, ascii: bool, run: Path) -> None:
    runs = tuple(list_runs(run.parent))
    for scene in (sick_scene(), Scene(healthy_state(), history()), replace(sick_scene(), docs=DOCS, runs=runs, behind=True)):
        lines = page(scene, Place(name), width, height, ascii=ascii)  # type: ignore[arg-type]
        assert len(lines) == height
        assert all(cell_len(line) <= width for line in lines)
        assert not any(character in line for line in lines for character in "\x1b\n\u202e")
        if ascii:
            assert all(line.isascii() for line in lines)


def test_the_overview_names_cause_and_remedy_whatever_the_size() -> None:
    for width, height in ((40, 16), (60, 18), (80, 24), (120, 40)):
        text = "\n".join(page(sick_scene(), Place(), width, height))
        assert "✖ learning rate too high" in text
        assert "FIX lr=2e-4" in text


def test_a_finding_is_shown_with_its_numbers_and_remedy() -> None:
    text = "\n".join(page(sick_scene(), Place("findings")))
    assert ">✖ learning rate too high" in text
    assert "The loss rose by 44%" in text
    assert "median(update.ratio, 50) = 0.02 > 0.01" in text
    assert "Lower the learning rate -> set lr=2e-4 (confidence high, manual)" in text
    other = "\n".join(page(sick_scene(), Place("findings", finding=1)))
    assert "silenced  known" in other
    assert "blocks[/x]" in other


def test_the_sickest_layers_come_first() -> None:
    lines = page(Scene(sick_state(), history(blow_up=True), sick_scene().findings), Place("layers"))
    assert lines[3].startswith(" ✖ block.2.conv")
    assert "gradient" in lines[2]


def test_explain_shows_the_rules_documentation() -> None:
    text = "\n".join(page(replace(sick_scene(), docs=DOCS), Place("explain")))
    assert "The learning rate is too high" in text
    assert "- no warm-up" in text
    assert "nndoctor explain learning-rate-too-high" in "\n".join(page(sick_scene(), Place("explain")))


def test_runs_are_listed_with_status_and_worst_finding(run: Path) -> None:
    scene = replace(sick_scene(), runs=tuple(list_runs(run.parent)))
    assert any("20260101-mini-a3f1" in line and "worst: error" in line for line in page(scene, Place("runs")))


# --------------------------------------------------------------------------------------- the keys


def keys(place: Place, *names: str) -> Place:
    for name in names:
        place, _ = press(place, name, findings=3, runs=2)
    return place


def test_keys_lead_to_pages_and_back() -> None:
    assert keys(Place(), "f").page == "findings"
    assert keys(Place(), "f", "f").page == "overview"
    assert keys(Place(), "f", "down", "enter") == Place("explain", finding=1)
    assert keys(Place(), "f", "down", "esc") == Place(finding=1)
    assert keys(Place(), "l", "down", "down", "up").scroll == 1


def test_the_selection_stays_inside_the_list() -> None:
    assert keys(Place(), "f", "up").finding == 0
    assert keys(Place(), "f", "page-down").finding == 2
    assert press(Place("findings"), "down", findings=0, runs=0)[0].finding == 0


def test_actions() -> None:
    assert press(Place(), "q", findings=0, runs=0)[1] == "quit"
    assert press(Place(), "r", findings=0, runs=0)[1] == "report"
    assert press(Place("runs"), "enter", findings=0, runs=1)[1] == "open"
    assert press(Place("runs"), "enter", findings=0, runs=0)[1] == "none"


def test_a_finding_is_acknowledged_with_a_reason_that_is_typed() -> None:
    asked = keys(Place(), "a")
    assert (asked.page, asked.reason) == ("findings", "")
    typed = keys(asked, *"I like qux", "backspace", "down")
    assert typed.reason == "I like qu", "q is a letter here, and arrows are none"
    assert press(typed, "enter", findings=3, runs=0)[1] == "acknowledge"
    assert keys(typed, "esc").reason is None
    refused, action = press(keys(Place(), "a", "x"), "enter", findings=3, runs=0)
    assert (refused.reason, action) == (None, "none")
    assert "it takes a reason" in refused.note
    assert press(Place(), "a", findings=0, runs=0)[0].reason is None
    assert press(typed, "ctrl-c", findings=3, runs=0)[1] == "quit"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_question_for_the_reason_fits_the_screen(width: int) -> None:
    last = page(sick_scene(), Place("findings", reason="a long reason " * 20), width)[-1]
    assert cell_len(last) <= width
    assert "reason" in last


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("name", ["overview", "findings", "runs"])
def test_the_way_out_is_shown_however_narrow_the_terminal(width: int, name: str) -> None:
    keys_row = page(sick_scene(), Place(name), width)[-1]  # type: ignore[arg-type]
    assert keys_row.endswith("q quit")
    assert keys_row.startswith(" f")


def test_an_accepted_finding_is_told_from_one_that_counts() -> None:
    listed = page(sick_scene(), Place("findings"))[2:4]
    assert "error" in listed[0]
    assert "accepted" in listed[1]


def test_a_typed_line_keeps_capitals_blanks_and_signs() -> None:
    assert parse_keys("It's Ünic\x7f\x1b[A!\r".encode(), text=True) == [*"It's Ünic", "backspace", "!", "enter"]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b", ["esc"]),
        (b"\x1b[5~j", ["page-up", "j"]),
        (b"\x1b[15~x", ["x"]),
        (b"\x1b[1;5Cf", ["f"]),
        (b"F\r", ["f", "enter"]),
        (b"\x0c\x1a", ["ctrl-l", "ctrl-z"]),
        (b"\xff\xc3", []),
        (b"", []),
    ],
)
def test_bytes_become_keys(data: bytes, names: list[str]) -> None:
    assert parse_keys(data) == names


# ------------------------------------------------------------------------------------- the screen


class Script:
    """A keyboard that presses one key at each look."""

    def __init__(self, *keys: str) -> None:
        self.keys = [*keys, "q"]

    def read(self, timeout: float, text: bool = False) -> list[str]:
        return [self.keys.pop(0)]


def test_the_loop_shows_pages_and_leaves_the_verdict(run: Path) -> None:
    output = StringIO()
    console = Console(file=output, width=80, height=24, force_terminal=True)
    written: list[Path] = []

    def report(folder: Path) -> Path:
        written.append(folder)
        return folder / "report.html"

    callbacks = Callbacks(report=report, explain=lambda rule: DOCS)
    assert watch(run, console=console, keyboard=Script("f", "e", "l", "r", "u", "enter"), callbacks=callbacks) == 0
    text = output.getvalue()
    assert written == [run]
    for expected in ("The learning rate is too high", "report written:", "gradient", "20260101-mini-a3f1", "\x1b[?1049l"):
        assert expected in text
    assert "4 findings, 2 root causes" in text.rpartition("\x1b[?1049l")[2]


def test_ctrl_l_draws_all_of_it_again_and_a_look_without_news_draws_nothing(run: Path) -> None:
    written: list[str] = []

    class Output(StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    console = Console(file=Output(), width=80, height=24, force_terminal=True)
    assert watch(run, console=console, keyboard=Script("x", "ctrl-l", "x"), refresh=0.0) == 0
    assert sum(BEGIN in text for text in written) == 2


def test_the_acknowledged_finding_is_told_to_the_callback_and_shown(tmp_path: Path) -> None:
    sick_run(tmp_path / "run")
    told: list[tuple[str, str]] = []

    def accept(folder: Path, rule: str, reason: str) -> None:
        told.append((rule, reason))
        acknowledge(folder, [rule], reason)

    viewer = Viewer(tmp_path / "run", Callbacks(acknowledge=accept))
    for key in ("a", *"on purpose", "enter"):
        assert viewer.press(key)
    assert told == [("learning-rate-too-high", "on purpose")]
    assert "acknowledged: learning-rate-too-high" in viewer.lines(80, 24)[-1].plain
    assert any("silenced" in line.plain and "on purpose" in line.plain for line in page_of(viewer, "learning-rate-too-high"))
    viewer.close()


def page_of(viewer: Viewer, rule: str) -> list[Text]:
    """The page of findings with `rule` selected."""
    position = [finding.rule for finding in viewer.scene.findings].index(rule)
    return render(viewer.scene, Place("findings", finding=position), 80, 40)


def test_a_run_that_is_removed_leaves_its_last_picture_and_a_note(tmp_path: Path) -> None:
    sick_run(tmp_path / "run")
    viewer = Viewer(tmp_path / "run", Callbacks())
    shutil.rmtree(tmp_path / "run")
    viewer.look()
    lines = [line.plain for line in viewer.lines(120, 24)]
    assert "is gone; this is what was read of it" in lines[-1]
    assert any("learning rate too high" in line for line in lines)
    viewer.close()


def test_the_next_run_takes_the_place_of_one_that_has_ended(tmp_path: Path) -> None:
    sick_run(tmp_path / "first")
    viewer = Viewer(tmp_path / "first", Callbacks(), newest=True)
    assert shown(viewer) == "first"
    record = RecordWriter(tmp_path / "second", RunFacts("second", 2000.0, {}), TARGETS)
    record.flush()
    assert shown(viewer) == "second"
    assert "second has begun" in viewer.lines(80, 24)[-1].plain
    viewer._announced_at = -1e9
    viewer.look()
    assert "f findings" in viewer.lines(80, 24)[-1].plain, "after a while the keys are back"
    RecordWriter(tmp_path / "third", RunFacts("third", 3000.0, {}), TARGETS).close()
    assert shown(viewer) == "second", "a run that goes on is not left"
    record.close()
    assert shown(viewer) == "third"
    viewer.close()


def test_a_reader_of_another_page_is_told_of_the_next_run_and_not_moved(tmp_path: Path) -> None:
    sick_run(tmp_path / "first")
    viewer = Viewer(tmp_path / "first", Callbacks(), newest=True)
    viewer.press("f")
    RecordWriter(tmp_path / "second", RunFacts("second", 2000.0, {}), TARGETS).close()
    assert shown(viewer) == "first"
    assert "second has begun: u lists the runs" in viewer.lines(80, 24)[-1].plain
    viewer.close()


@pytest.mark.parametrize("started", [500.0, None])
def test_an_older_run_and_a_folder_without_one_are_not_gone_on_to(started: float | None, tmp_path: Path) -> None:
    sick_run(tmp_path / "first")
    viewer = Viewer(tmp_path / "first", Callbacks(), newest=True)
    if started is None:
        (tmp_path / "second").mkdir()
    else:
        RecordWriter(tmp_path / "second", RunFacts("second", started, {}), TARGETS).close()
    assert shown(viewer) == "first"
    viewer.close()


def test_a_run_that_was_asked_for_by_name_or_chosen_from_the_list_stays(tmp_path: Path) -> None:
    sick_run(tmp_path / "first")
    named, chosen = Viewer(tmp_path / "first", Callbacks()), Viewer(tmp_path / "first", Callbacks(), newest=True)
    chosen.press("u")
    chosen.press("enter")
    RecordWriter(tmp_path / "second", RunFacts("second", 2000.0, {}), TARGETS).close()
    assert (shown(named), shown(chosen)) == ("first", "first")
    named.close()
    chosen.close()


def shown(viewer: Viewer) -> str:
    """The folder of the run on the screen after one more look, however soon after the last."""
    viewer._newer_sought_at = -1e9
    viewer.look()
    return viewer._follower.folder.name


def test_what_the_run_does_not_yet_say_of_its_cost_is_not_worked_out_of_its_dense_first_steps(tmp_path: Path) -> None:
    costs = {"step.time": np.float32([1.0]), "step.doctor": np.float32([0.3])}
    for told, expected in (({"overhead": None}, None), ({"overhead": 0.01}, 0.01), ({}, pytest.approx(0.3))):
        record = writer(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", **told)
        for step in range(1, 10):
            record.frame(Frame(step, float(step), None, costs))
        record.close()
        assert snapshot(record.folder).overhead == expected


def test_a_remedy_in_words_is_said_once() -> None:
    scene = sick_scene()
    worded = replace(CAUSE, fixes=(Fix("Remove the softmax", set={"final_activation": "none"}),))
    text = "\n".join(page(replace(scene, findings=(worded, *scene.findings[1:])), Place("findings"), 100, 40))
    assert text.count("Remove the softmax") == 1
    assert "final_activation" not in text


def test_a_run_that_goes_on_and_one_that_was_killed_have_the_lines_of_the_loop(tmp_path: Path) -> None:
    record = writer(tmp_path / "run", places={"backward": [{"file": "train.py", "line": 53, "code": "loss.backward()"}]})
    record.frame(frame(1))
    record.findings((replace(CAUSE, fixes=(Fix("Clear", call="optimizer.zero_grad()", place="before backward"),)),))
    record.flush()
    assert snapshot(tmp_path / "run").findings[0].fix == "call optimizer.zero_grad() before loss.backward() (train.py, line 53)"
    record.close()


def test_a_value_is_not_followed_by_its_own_name_or_its_only_values() -> None:
    evidence = (Evidence("loss", None, 6449.0, unit="loss"), Evidence("loop.stale_gradients", None, 1.0, unit="0 or 1"), Evidence("step.time", None, 0.2, unit="s"))
    scene = sick_scene()
    lines = page(replace(scene, findings=(replace(CAUSE, evidence=evidence), *scene.findings[1:])), Place("findings"), 100, 40)
    told = [line.split("evidence")[1].strip() for line in lines if line.startswith(" evidence")]
    assert told == ["loss = 6449", "loop.stale_gradients = 1", "step.time = 0.2 s"]


def test_damage_in_a_record_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    sick_run(tmp_path / "run")
    path = tmp_path / "run" / "record.sqlite"
    data = path.read_bytes()
    needle = frame(150).values["loss"].tobytes()
    at = data.rfind(needle)
    assert at > 0
    path.write_bytes(data[:at] + b"\x07" + data[at + 1 :])
    viewer = Viewer(tmp_path / "run", Callbacks())
    while viewer.scene.behind:
        viewer.look()
    lines = [line.plain for line in viewer.lines(120, 24)]
    assert "cannot be read: its checksum does not match" in lines[-1]
    assert any("learning rate too high" in line for line in lines)
    viewer.close()


def test_a_callback_that_fails_is_told_and_ends_nothing(run: Path) -> None:
    def fail(_: object) -> Path:
        raise OSError("disk full")

    viewer = Viewer(run, Callbacks(report=fail, explain=fail))  # type: ignore[arg-type]
    assert viewer.press("r")
    assert "the report could not be written: OSError: disk full" in viewer.lines(80, 24)[-1].plain
    assert viewer.press("e")
    assert any("could not be read" in line.plain for line in viewer.lines(80, 24))
    viewer.close()


def test_hostile_layers_are_text_on_every_page() -> None:
    for name in ("overview", "findings", "layers"):
        text = "\n".join(page(sick_scene(), Place(name, finding=1), 120, 40))  # type: ignore[arg-type]
        assert "\x1b[2J" not in text
    layers = "\n".join(page(sick_scene(), Place("layers"), 120, 40))
    assert "</script><img src=x onerror=alert(1)>" in layers
    assert "blocks[/x]" in layers
    assert len([line for line in layers.splitlines() if line]) == len(LAYERS) + 3


def test_a_healthy_run_says_so() -> None:
    text = "\n".join(page(Scene(healthy_state(), history()), Place()))
    assert "✓ no problems found so far" in text
    assert diagnosis().verdict.startswith("No problems found")
