"""The tests inside rulesets fail when they should, and say what was expected and what happened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndoctor.rules import load_text, run_tests
from nndoctor.rules.expression import ExpressionError
from nndoctor.rules.shorthand import parse_series
from nndoctor.rules.template import format_number

RULES = """\
version: 1
rules:
  - {id: cause, severity: critical, when: lr > 1, for: 5 steps, message: "lr is {lr:.1f}", fixes: [{title: Lower, set: {lr: "nice(lr / 100)", on: true}}]}
  - {id: symptom, severity: error, scope: layer, when: grad.norm > 5}
  - {id: note, severity: info, when: loss > 5}
explain:
  - {cause: cause, symptoms: [symptom], on: run}
tests:
  - name: the test
    layers: [a, b]
    series: {lr: 0.1 x10 9 x30, loss: 9, grad.norm: {default: 1 x40, b: 1 x20 9 x20}}
    expect: [EXPECT]
"""


def results(expect: str) -> tuple[str, ...]:
    found = run_tests(load_text(RULES.replace("EXPECT", expect)))
    assert len(found) == 1
    assert found[0].passed == (not found[0].failures)
    return found[0].failures


@pytest.mark.parametrize(
    "expect",
    [
        "{rule: cause, fires_in: [11, 20], root: true, state: firing, severity: critical, message: lr is 9.0}",
        "{rule: cause, fix: {lr: 0.1, on: true}}",
        "{rule: symptom, layers: [b], fires_in: [21, 21], explained_by: cause, root: false}",
        "{rule: note, severity: info}",
    ],
)
def test_what_holds_passes(expect: str) -> None:
    assert results(expect) == ()


@pytest.mark.parametrize(
    ("expect", "expected", "got"),
    [
        ("{rule: cause, fires_in: [1, 9]}", "in steps 1 to 9", "it fired at step 16"),
        (
            "{rule: cause, never: true}",
            "expected cause never to fire",
            "cause (critical): steps 16 to 40, firing, set lr=0.1",
        ),
        ("{rule: cause, root: false}", "not to be a root cause", "it is a root cause"),
        ("{rule: symptom, root: true}", "to be a root cause", "it is explained by cause"),
        ("{rule: symptom, layers: [a]}", "expected symptom at a", "it fired at b"),
        ("{rule: symptom, explained_by: note}", "to be explained by note", "it is explained by cause"),
        ("{rule: cause, fix: {lr: 0.2}}", "to set lr=0.2", "it sets 0.1"),
        ("{rule: cause, state: cleared}", "to be cleared", "it is firing"),
        ("{rule: cause, severity: info}", "to be info", "it is critical"),
        ("{rule: cause, message: nonsense}", "'nonsense' in the message", "lr is 9.0"),
        ("{rule: cause, not_examined: true}", "not to be examined", "it was"),
        ("{any: never}", "expected no finding above info", "cause (critical)"),
    ],
)
def test_what_does_not_hold_fails_with_both_sides(expect: str, expected: str, got: str) -> None:
    failures = results(expect)
    assert expected in failures[0]
    assert got in failures[0].partition("\n")[2]


def test_a_rule_that_never_fires_fails_and_says_so() -> None:
    text = RULES.replace("EXPECT", "{rule: cause}").replace("9 x30", "0.2 x30")
    assert run_tests(load_text(text))[0].failures == ("expected cause to fire\nit never did",)


def test_notes_do_not_break_silence() -> None:
    text = RULES.replace("EXPECT", "{any: never}").replace("9 x30", "0.2 x30").replace("9 x20", "2 x20")
    result = run_tests(load_text(text))[0]
    assert result.passed
    assert [f.rule for f in result.findings] == ["note"]


def test_a_failure_reads_like_a_diff_and_lists_what_fired() -> None:
    result = run_tests(load_text(RULES.replace("EXPECT", "{rule: cause, fires_in: [1, 9]}")))[0]
    assert result.render().splitlines() == [
        "FAIL  ruleset.yaml:9 the test",
        "    - expected cause to fire in steps 1 to 9",
        "    + it fired at step 16",
        "    what fired in 40 steps:",
        "      cause (critical): steps 16 to 40, firing, set lr=0.1; on=True",
        "      note (info): steps 1 to 40, firing",
        "      symptom (error) at b: steps 21 to 40, firing, explained by cause",
    ]


def test_a_test_runs_the_rules_of_its_own_file_and_those_it_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    from nndoctor.rules import load_rulesets

    folder = tmp_path_factory.mktemp("rules")
    (folder / "a.yaml").write_text(
        "version: 1\nrules:\n  - {id: a, severity: error, when: loss > 1}\n"
        "tests:\n  - {name: x, series: {loss: 9 x5}, expect: [{rule: a, root: true}]}\n"
        "  - {name: y, series: {loss: 9 x5}, expect: [{rule: a, explained_by: b}]}\n"
        "  - {name: z, rules: all, series: {loss: 9 x5}, expect: [{rule: a, explained_by: b}]}\n"
    )
    (folder / "b.yaml").write_text(
        "version: 1\nrules:\n  - {id: b, severity: error, when: loss > 2}\nexplain: [{cause: b, symptoms: [a], on: run}]\n"
    )
    assert [r.render() for r in run_tests(load_rulesets([folder]))] == [
        f"ok    {folder}/a.yaml:{n} {name}" for n, name in ((5, "x"), (6, "y"), (7, "z"))
    ]


def test_sampled_layers_are_dense_at_first_and_then_sparse() -> None:
    text = """\
version: 1
rules:
  - {id: many, severity: info, scope: layer, when: "count(grad.norm, 100) > 80", for: 0 steps}
  - {id: few, severity: info, scope: layer, when: "step > 300 and count(grad.norm, 100) < 5"}
tests:
  - {name: dense, layers: [a], series: {loss: 1 x400, grad.norm: 1 x400}, expect: [{rule: many}, {rule: few, never: true}]}
  - {name: sparse, layers: [a], sampled: 32, series: {loss: 1 x400, grad.norm: 1 x400}, expect: [{rule: many, never: true}, {rule: few}]}
"""
    assert [r.failures for r in run_tests(load_text(text))] == [(), ()]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1", [1]),
        ("1 x3", [1, 1, 1]),
        ("1x2,2x2", [1, 1, 2, 2]),
        ("-1.5e-1 x1 inf", [-0.15, np.inf]),
        ("0..4 x5", [0, 1, 2, 3, 4]),
        ("4.0..0.0 x3", [4, 2, 0]),
        ("1...1e2 x3", [1, 10, 100]),
        ("_ x2 3", [np.nan, np.nan, 3]),
        (2.5, [2.5]),
    ],
)
def test_series_in_shorthand(text: str | float, numbers: list[float]) -> None:
    np.testing.assert_allclose(parse_series(text), numbers)


def test_noise_is_the_same_each_time_and_as_large_as_told() -> None:
    values = parse_series("2~0.1 x5000")
    np.testing.assert_array_equal(values, parse_series("2~0.1 x5000"))
    assert values.mean() == pytest.approx(2, abs=0.01)
    assert values.std() == pytest.approx(0.1, rel=0.05)
    assert not np.array_equal(parse_series("1~0.1 x9, 1~0.1 x9")[:9], parse_series("1~0.1 x9, 1~0.1 x9")[9:])


@pytest.mark.parametrize(
    ("text", "offset"), [("", 0), ("1 x5 oops", 5), ("1 y5", 2), ("0...1 x5", 0), ("1 x999999999", 2), ("1 x300000", 0)]
)
def test_what_is_no_series_is_told_with_its_place(text: str, offset: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_series(text)
    assert caught.value.offset == offset


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 5)), min_size=1, max_size=6))
def test_series_repeat_what_they_are_told(pieces: list[tuple[float, int]]) -> None:
    text = ", ".join(f"{value!r} x{times}" for value, times in pieces)
    assert parse_series(text).tolist() == [value for value, times in pieces for _ in range(times)]


@pytest.mark.parametrize(
    ("number", "form", "shown"),
    [(0.12345, "", "0.1235"), (2e-4, "", "2e-4"), (0.98, ".0%", "98%"), (3.6, "d", "4"), (float("nan"), ".1f", "?"), (float("inf"), ".1f", "inf"), (1234.5, ",.1f", "1,234.5")],
)  # fmt: skip
def test_numbers_in_messages(number: float, form: str, shown: str) -> None:
    assert format_number(number, form) == shown
