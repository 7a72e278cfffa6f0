"""The footer's escape sequences, played to an emulated terminal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nndoctor.reports.scroll_region import ScrollRegion, Size, reset_sequence
from tests.reports.emulator import Emulator


class Session:
    """A user printing lines and a footer drawing below them, on one terminal."""

    def __init__(self, columns: int = 40, lines: int = 20) -> None:
        self.terminal = Emulator(columns, lines)
        self.region = ScrollRegion()
        self.printed: list[str] = [""]

    @property
    def size(self) -> Size:
        return Size(self.terminal.columns, self.terminal.lines)

    def write(self, text: str) -> None:
        first, *more = text.split("\n")
        self.printed[-1] += first
        self.printed += more
        self.terminal.feed(text)

    def draw(self, rows: int, label: str = "footer", renew: bool = False) -> str:
        text = self.region.frame([f"{label} {row}" for row in range(rows)], self.size, renew=renew)
        self.terminal.feed(text)
        return text

    def release(self) -> None:
        self.terminal.feed(self.region.release(self.size))

    def expected(self) -> list[str]:
        lines = [line.rstrip() for line in self.printed]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def test_output_scrolls_above_the_footer_into_the_scrollback() -> None:
    session = Session()
    session.draw(3)
    session.write("".join(f"line {i}\n" for i in range(100)))
    assert session.terminal.visible()[-3:] == ["footer 0", "footer 1", "footer 2"]
    assert session.terminal.visible()[15:17] == ["line 99", ""]
    assert session.terminal.history[:2] == ["line 0", "line 1"]
    session.release()
    assert session.terminal.everything() == session.expected()


def test_growing_on_a_full_screen_scrolls_the_output_up_and_loses_nothing() -> None:
    session = Session()
    session.write("".join(f"line {i}\n" for i in range(50)))
    session.draw(2)
    session.draw(8)
    assert session.terminal.visible()[-8:] == [f"footer {i}" for i in range(8)]
    session.draw(2)
    session.write("after\n")
    session.release()
    assert session.terminal.everything() == session.expected()


def test_a_line_begun_before_a_frame_goes_on_where_it_stood() -> None:
    session = Session()
    session.write("\n" * 30 + "epoch 1:")
    session.draw(4)
    session.write(" done\n")
    assert "epoch 1: done" in session.terminal.everything()


def test_only_rows_that_changed_are_drawn() -> None:
    session = Session()
    session.draw(3)
    assert session.region.frame(["footer 0", "footer 1", "footer 2"], session.size) == ""
    changed = session.region.frame(["footer 0", "changed", "footer 2"], session.size)
    assert "changed" in changed
    assert "footer" not in changed
    assert changed.startswith("\x1b[?2026h")
    assert changed.endswith("\x1b[?2026l")


def test_renewing_repairs_a_screen_that_somebody_has_cleared() -> None:
    session = Session()
    session.draw(3)
    session.terminal.feed("\x1b[r\x1b[1;1H\x1b[J")
    session.draw(3, renew=True)
    session.write("".join(f"line {i}\n" for i in range(60)))
    assert session.terminal.visible()[-3:] == ["footer 0", "footer 1", "footer 2"]


def test_renewing_an_intact_footer_moves_nothing() -> None:
    session = Session()
    session.write("".join(f"line {i}\n" for i in range(60)))
    session.draw(3)
    before = (session.terminal.visible(), session.terminal.row, session.terminal.column)
    session.draw(3, renew=True)
    assert (session.terminal.visible(), session.terminal.row, session.terminal.column) == before


def test_a_row_wider_than_the_terminal_does_not_spill_over() -> None:
    session = Session(columns=20)
    session.terminal.feed(session.region.frame(["x" * 50, "second"], session.size))
    assert session.terminal.visible()[-2:] == ["x" * 20, "second"]
    assert session.terminal.modes["7"]


def test_release_gives_back_the_whole_screen() -> None:
    session = Session()
    session.write("hello\n")
    session.draw(4)
    session.release()
    assert (session.terminal.top, session.terminal.bottom) == (0, 19)
    assert session.terminal.everything() == ["hello"]
    assert session.region.release(session.size) == ""


def test_reset_gives_back_a_screen_whose_owner_was_killed() -> None:
    session = Session()
    session.write("hello\n")
    session.draw(4)
    session.terminal.feed(reset_sequence())
    assert (session.terminal.top, session.terminal.bottom) == (0, 19)
    assert session.terminal.everything() == ["hello"]


histories = st.lists(
    st.one_of(
        st.tuples(st.just("lines"), st.integers(1, 30)),
        st.tuples(st.just("part"), st.integers(1, 3)),
        st.tuples(st.just("draw"), st.integers(2, 8)),
        st.tuples(st.just("renew"), st.integers(2, 8)),
        st.tuples(st.just("resize"), st.integers(10, 40)),
        st.tuples(st.just("release"), st.just(0)),
    ),
    max_size=30,
)


@given(histories)
@settings(max_examples=150, deadline=None)
def test_no_line_is_lost_or_garbled_whatever_happens_in_whatever_order(steps: list[tuple[str, int]]) -> None:
    session = Session(lines=24)
    rows = 2
    for count, (what, amount) in enumerate(steps):
        if what == "lines":
            session.write("".join(f"line {count}.{i}\n" for i in range(amount)))
        elif what == "part":
            session.write("part " * amount if len(session.printed[-1]) < 20 else "\n")
        elif what in ("draw", "renew"):
            rows = amount
            session.draw(rows, label=f"footer of {count}", renew=what == "renew")
        elif what == "resize":
            session.terminal.resize(40, amount)
            rows = min(rows, amount // 3)
            session.draw(rows)  # before the user prints again, as the signal handler does
        else:
            session.release()
        if session.region.rows:
            footer = session.terminal.visible()[-session.region.rows :]
            assert all(line.startswith("footer") for line in footer)
    session.release()
    assert session.terminal.everything() == session.expected()
