"""Hostile strings are made safe to show, ordinary ones are left alone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from nndoctor.reports.text_safety import clean, safe, safe_text, shorten, to_ascii


@pytest.mark.parametrize("name", ["encoder.layers.11.q_proj", "blocks[/x]", "</script><img src=x onerror=alert(1)>", "层.1", "naïve"])
def test_ordinary_and_markup_names_are_left_alone(name: str) -> None:
    assert clean(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\x1b[2Jb", "a[2Jb"),
        ("a\u202eb\u2066c\u200bd\ufeff", "abcd"),
        ("one\ntwo\tthree\u2028four", "one two three four"),
        ("bell\x07null\x00del\x7fc1\x9b", "bellnulldelc1"),
        ("half\ud800", "half?"),
        ("z" + "\u0301" * 50, "z" + "\u0301" * 2),
    ],
)
def test_what_a_terminal_would_obey_or_reorder_is_removed(name: str, expected: str) -> None:
    assert clean(name) == expected


@given(st.text())
def test_no_control_or_format_character_survives(text: str) -> None:
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in clean(text))


@given(st.text(), st.integers(0, 30), st.booleans())
def test_a_name_never_takes_more_cells_than_it_was_given(text: str, width: int, ascii: bool) -> None:
    assert cell_len(safe(text, width, ascii=ascii)) <= width


@given(st.text())
def test_ascii_is_ascii(text: str) -> None:
    assert to_ascii(text).isascii()


def test_shortening_keeps_both_ends() -> None:
    assert shorten("encoder.layers.11.attention.q_proj", 20) == "encoder.l…ion.q_proj"
    assert shorten("encoder.layers.11.attention.q_proj", 20, ascii=True) == "encoder.l~ion.q_proj"
    assert shorten("short", 20) == "short"


def test_wide_characters_count_twice() -> None:
    assert shorten("你好你好你好", 5) == "你…好"


def test_rich_reads_no_markup_in_it() -> None:
    assert safe_text("blocks[/x]").plain == "blocks[/x]"
    assert safe_text("[bold]x").spans == []
