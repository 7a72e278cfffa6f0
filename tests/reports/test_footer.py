"""The footer on an emulated terminal with a hand-turned clock; lines and notebook output beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.text import Text

from nndoctor.reports.footer import FooterDisplay, SignalChain, rows_to_spare
from nndoctor.reports.lines import LinesDisplay, key_values, status_line
from nndoctor.reports.notebook import NotebookDisplay, panel_html
from nndoctor.reports.panel import PanelState
from nndoctor.reports.panel_data import with_diagnosis
from nndoctor.reports.scroll_region import Size
from nndoctor.reports.terminal import NoDisplay, choose_display
from tests.reports.emulator import Emulator
from tests.reports.panel_cases import CAUSE, HOSTILE, SECOND_CAUSE, SYMPTOM, diagnosis, healthy_state, sick_state

HEALTHY, SICK = healthy_state(), sick_state()


class FakeTty:
    """An emulated terminal that counts what is written to it."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.terminal = Emulator(columns, lines)
        self.ascii = False
        self.in_front = True
        self.takes_writes = True
        self.written: list[str] = []

    def size(self) -> Size:
        return Size(self.terminal.columns, self.terminal.lines)

    def write(self, text: str) -> bool:
        if not self.takes_writes:
            return False
        self.written.append(text)
        self.terminal.feed(text)
        return True

    def ansi(self, lines: Sequence[Text], columns: int) -> list[str]:
        return [line.plain for line in lines]

    def foreground(self) -> bool:
        return self.in_front


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.tty, self.clock = FakeTty(columns, lines), Clock()
        self.footer = FooterDisplay(self.tty, clock=self.clock, background=False)

    def show(self, state: PanelState, after: float = 1.0) -> None:
        self.clock.now += after
        self.footer.show(state)
        self.footer.tick()

    @property
    def screen(self) -> list[str]:
        return self.tty.terminal.visible()

    @property
    def region(self) -> tuple[int, int]:
        return self.tty.terminal.top, self.tty.terminal.bottom


# ------------------------------------------------------------------------------------------- footer


def test_a_healthy_run_takes_the_last_two_rows() -> None:
    stage = Stage()
    stage.show(HEALTHY)
    assert stage.region == (0, 21)
    assert stage.screen[22].startswith("── nndoctor")
    assert "58 rules ok" in stage.screen[23]


def test_it_grows_when_the_run_falls_ill_and_shrinks_after_a_while_of_calm() -> None:
    stage = Stage()
    stage.show(HEALTHY)
    stage.show(SICK)
    assert stage.region == (0, 15)
    stage.show(HEALTHY)
    assert stage.region == (0, 15)
    stage.show(HEALTHY, after=6.0)
    assert stage.region == (0, 21)


def test_it_is_drawn_at_most_twice_a_second_however_often_it_is_shown() -> None:
    stage = Stage()
    for step in range(1000):
        stage.show(replace(HEALTHY, step=step), after=0.01)
    assert 15 <= len(stage.tty.written) <= 20


def test_each_drawing_is_one_write_and_the_same_state_is_none() -> None:
    stage = Stage()
    stage.show(SICK)
    assert len(stage.tty.written) == 1
    stage.show(SICK)
    assert len(stage.tty.written) == 1


def test_due_spares_the_caller_states_that_would_not_be_drawn() -> None:
    stage = Stage()
    assert stage.footer.due()
    stage.show(HEALTHY)
    assert not stage.footer.due()
    stage.clock.now += 0.5
    assert stage.footer.due()


def test_it_steps_aside_while_the_terminal_changes_its_size_and_comes_back_at_its_place() -> None:
    stage = Stage()
    stage.show(SICK)
    stage.tty.terminal.resize(60, 18)
    stage.footer.tick()
    assert stage.region == (0, 17)
    assert not any("nndoctor" in line for line in stage.screen)
    stage.show(SICK, after=0.2)
    assert stage.region == (0, 17)
    stage.show(SICK)
    assert stage.region == (0, 11)
    assert stage.screen[12].startswith("── nndoctor")


def test_a_size_that_goes_on_changing_is_waited_for() -> None:
    stage = Stage()
    stage.show(SICK)
    for lines in range(25, 40):
        stage.tty.terminal.resize(80, lines)
        stage.show(SICK, after=0.3)
        assert stage.region == (0, lines - 1)
    stage.show(SICK)
    assert stage.region == (0, 30)
    assert sum("nndoctor ·" in line for line in stage.tty.terminal.everything()) == 1


def test_a_terminal_that_became_tiny_is_left_alone_until_it_grows() -> None:
    stage = Stage()
    stage.show(SICK)
    stage.tty.terminal.resize(80, 5)
    for _ in range(3):
        stage.show(SICK)
    assert stage.region == (0, 4)
    stage.tty.terminal.resize(80, 24)
    for _ in range(3):
        stage.show(SICK)
    assert stage.region == (0, 15)


def test_rows_are_a_third_of_the_terminal_at_most() -> None:
    assert [rows_to_spare(Size(80, lines)) for lines in (5, 6, 16, 18, 24, 60)] == [0, 2, 5, 6, 8, 8]
    assert rows_to_spare(Size(19, 40)) == 0


def test_nothing_is_written_while_another_job_has_the_terminal() -> None:
    stage = Stage()
    stage.tty.in_front = False
    stage.show(SICK)
    assert stage.tty.written == []


def test_a_terminal_that_takes_nothing_does_not_matter_and_is_drawn_anew_when_it_does() -> None:
    stage = Stage()
    stage.show(SICK)
    stage.tty.takes_writes = False
    stage.show(HEALTHY)
    stage.tty.takes_writes = True
    stage.show(replace(HEALTHY, step=301))
    assert any("step 301/1000" in line for line in stage.screen)


def test_after_the_run_the_last_diagnosis_stays_as_ordinary_lines() -> None:
    stage = Stage()
    stage.tty.terminal.feed("epoch 1 done\n")
    stage.show(HEALTHY)
    final = diagnosis(CAUSE)
    stage.footer.close(final)
    stage.footer.close(final)
    assert stage.region == (0, 23)
    text = stage.tty.terminal.everything()
    assert text[0] == "epoch 1 done"
    assert text[-1] == final.verdict[:80] or text[-2] + text[-1] == final.verdict
    assert any("✖ learning rate too high" in line for line in text)
    assert sum("nndoctor ·" in line for line in text) == 1


def test_nothing_happens_after_it_was_closed() -> None:
    stage = Stage()
    stage.footer.close(None)
    stage.show(SICK)
    assert stage.tty.written == [""] or stage.tty.written == []


def test_the_threads_end_with_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
    footer = FooterDisplay(FakeTty())
    footer.show(SICK)
    assert len(set(threading.enumerate()) - before) == 1
    footer.close(diagnosis(CAUSE))
    assert set(threading.enumerate()) == before
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)] == handlers


def test_a_forked_child_never_touches_the_terminal() -> None:
    stage = Stage()
    stage.show(HEALTHY)
    child = os.fork()
    if child == 0:
        before = len(stage.tty.written)
        stage.footer.show(SICK)
        stage.footer.close(None)
        os._exit(0 if len(stage.tty.written) == before else 1)
    assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------------------------------------ signals


def test_a_handler_of_the_user_is_called_after_ours_and_comes_back_at_the_end() -> None:
    order: list[str] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: order.append("theirs"))
    theirs = signal.getsignal(signal.SIGTERM)
    chain = SignalChain(lambda: order.append("ours"), lambda: None)
    try:
        chain.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert order == ["ours", "theirs"]
        chain.remove()
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        chain.remove()
        signal.signal(signal.SIGTERM, former)


def test_ignored_signals_stay_ignored_and_keyboard_interrupts_stay_pythons() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began this in the background
    chain = SignalChain(lambda: None, lambda: None)
    try:
        chain.install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        chain.remove()
        signal.signal(signal.SIGTERM, former)
        signal.signal(signal.SIGINT, interrupt)


def test_a_handler_that_the_user_set_later_is_not_taken_away() -> None:
    former = signal.getsignal(signal.SIGTERM)
    chain = SignalChain(lambda: None, lambda: None)
    try:
        chain.install()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        chain.remove()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_forked_child_has_the_handlers_of_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    chain = SignalChain(lambda: None, lambda: None)
    try:
        chain.install()
        assert signal.getsignal(signal.SIGTERM) is not before
        child = os.fork()
        if child == 0:
            os._exit(0 if signal.getsignal(signal.SIGTERM) is before else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        chain.remove()


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: SignalChain(lambda: None, lambda: None).install())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


# -------------------------------------------------------------------------------------------- lines


def lines_of(*states: PanelState, every: float = 1.0) -> list[str]:
    stream, clock = StringIO(), Clock()
    display = LinesDisplay(stream, clock=clock)
    for state in states:
        display.show(state)
        clock.now += every
    return stream.getvalue().splitlines()


def test_a_finding_is_told_once_and_the_status_once_a_minute() -> None:
    lines = lines_of(*[HEALTHY] * 50, *[SICK] * 100)
    assert sum("event=status" in line for line in lines) == 3
    assert sum("event=finding" in line for line in lines) == 4
    assert all(line.startswith("nndoctor event=") for line in lines)


def test_a_finding_line_holds_place_cause_and_remedy() -> None:
    cause, second, symptom, _ = (line for line in lines_of(SICK) if "event=finding" in line)
    assert "severity=error finding=learning-rate-too-high" in cause
    assert "fix=lr=2e-4" in cause or 'fix="lr=2e-4"' in cause
    assert "since=220" in cause
    assert "targets=4 first_target=blocks[/x]" in second
    assert "explained_by=learning-rate-too-high" in symptom


def test_a_cleared_finding_is_told_but_one_that_goes_on_is_not() -> None:
    later = with_diagnosis(SICK, diagnosis(replace(CAUSE, last_step=900, targets=("fc",)), SECOND_CAUSE, SYMPTOM))
    over = with_diagnosis(SICK, diagnosis(replace(CAUSE, state="cleared"), SECOND_CAUSE, SYMPTOM))
    lines = lines_of(with_diagnosis(SICK, diagnosis(CAUSE, SECOND_CAUSE, SYMPTOM)), later, over)
    assert [line.split()[1] for line in lines] == ["event=finding"] * 3 + ["event=status", "event=cleared"]


def test_the_last_line_is_the_verdict() -> None:
    stream = StringIO()
    display = LinesDisplay(stream, clock=Clock())
    display.close(diagnosis(CAUSE))
    display.close(diagnosis(CAUSE))
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("nndoctor event=end")
    assert 'verdict="1 finding, 1 root cause: learning-rate-too-high -> set lr=2e-4' in last


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_on_its_line(name: str) -> None:
    state = with_diagnosis(SICK, diagnosis(replace(CAUSE, targets=(name,), message=f"bad \x1b[2J\n{name}")))
    for line in lines_of(replace(state, name=name)):
        assert line.startswith("nndoctor event=")
        assert "\x1b" not in line


def test_values_with_blanks_or_quotes_are_quoted_and_absent_ones_are_left_out() -> None:
    assert key_values("x", a="b c", d='say "hi"', e=None, f=1.5, g="") == 'nndoctor event=x a="b c" d="say \\"hi\\"" f=1.5 g=""'
    assert "planned=" not in status_line(replace(HEALTHY, planned_steps=None))


def test_a_closed_stream_stops_nothing() -> None:
    stream = StringIO()
    display = LinesDisplay(stream, clock=Clock())
    stream.close()
    display.show(SICK)
    display.close(None)


def test_a_line_begun_in_a_file_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a", encoding="utf-8") as stream:
        display = LinesDisplay(stream, clock=Clock())
        stream.write("\r 10%|#  | 1/10")
        stream.flush()
        display.show(HEALTHY)
        display.show(SICK)
    lines = path.read_bytes().decode().split("\n")
    assert lines[0] == "\r 10%|#  | 1/10"
    assert lines[1].startswith("nndoctor event=status")
    assert "" not in lines[:-1]


def test_the_same_program_piped_to_a_file_gives_clean_lines(tmp_path: Path, repository: Path) -> None:
    program = repository / "tests" / "terminal" / "noisy_program.py"
    path = tmp_path / "log"
    with path.open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONIOENCODING": "utf-8"}
        subprocess.run([sys.executable, program, "auto", "0", "60"], stdout=log, stderr=log, check=True, env=environment, timeout=60)
    lines = [line.rpartition("\r")[2] for line in path.read_bytes().decode().split("\n")]
    for step in range(60):
        assert sum(line.startswith((f"[{step:04d}] ", f"INFO [{step:04d}] ")) and line.endswith(" end") for line in lines) == 1
    ours = [line for line in lines if "nndoctor" in line]
    assert all(re.match(r"nndoctor event=(status|finding|cleared|end) ", line) for line in ours)
    assert sum("event=finding" in line for line in ours) == 3
    assert "\x1b" not in path.read_text(encoding="utf-8").replace("\x1b[A", "")


# ----------------------------------------------------------------------------------------- notebook


class FakeOutput:
    def __init__(self) -> None:
        self.updates: list[str] = []

    def update(self, html: str) -> None:
        self.updates.append(html)


def test_a_notebook_is_updated_once_a_second_and_keeps_the_verdict() -> None:
    output, clock = FakeOutput(), Clock()
    display = NotebookDisplay(output, clock=clock)
    for _ in range(100):
        display.show(SICK)
        clock.now += 0.1
    assert 9 <= len(output.updates) <= 11
    display.close(diagnosis(CAUSE))
    assert "1 finding, 1 root cause" in output.updates[-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_html_for_notebooks_escapes_names(name: str) -> None:
    html = panel_html(with_diagnosis(SICK, diagnosis(replace(CAUSE, targets=(name,), diagnosis=name))), verdict=name)
    assert "<img" not in html
    assert "<script" not in html
    assert "\x1b" not in html


# ------------------------------------------------------------------------------------------- choice


@pytest.mark.parametrize(
    ("ui", "rank", "kind"),
    [
        ("auto", 0, LinesDisplay),
        ("auto", 1, NoDisplay),
        ("off", 0, NoDisplay),
        ("lines", 3, LinesDisplay),
        ("footer", 0, LinesDisplay),
        ("footer", 1, NoDisplay),
        ("notebook", 0, NotebookDisplay),
    ],
)
def test_without_a_terminal(ui: str, rank: int, kind: type) -> None:
    assert type(choose_display(ui, StringIO(), rank, environ={})) is kind  # type: ignore[arg-type]


def open_terminal(lines: int, columns: int = 80) -> tuple[int, int]:
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return master, slave


@pytest.mark.parametrize(
    ("ui", "lines", "environ", "kind"),
    [
        ("auto", 24, {"TERM": "xterm"}, FooterDisplay),
        ("auto", 16, {"TERM": "xterm"}, FooterDisplay),
        ("auto", 15, {"TERM": "xterm"}, LinesDisplay),
        ("footer", 10, {"TERM": "xterm"}, FooterDisplay),
        ("footer", 5, {"TERM": "xterm"}, LinesDisplay),
        ("auto", 24, {"TERM": "dumb"}, LinesDisplay),
        ("auto", 24, {"TERM": "xterm", "CI": "true"}, LinesDisplay),
        ("auto", 24, {"TERM": "xterm", "CI": "false"}, FooterDisplay),
        ("footer", 24, {"TERM": "xterm", "CI": "true"}, FooterDisplay),
        ("lines", 24, {"TERM": "xterm"}, LinesDisplay),
    ],
)
def test_with_a_terminal(ui: str, lines: int, environ: dict[str, str], kind: type) -> None:
    master, slave = open_terminal(lines)
    with os.fdopen(slave, "w") as stream:
        display = choose_display(ui, stream, environ=environ)  # type: ignore[arg-type]
        try:
            assert type(display) is kind
        finally:
            display.close(None)
    os.close(master)


def test_an_unknown_choice_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown ui 'fancy'; expected one of auto, footer, lines, off, notebook"):
        choose_display("fancy")  # type: ignore[arg-type]
