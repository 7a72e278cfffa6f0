"""Which finding is told first, what speaks against it, and which other explanations were ruled out."""

from __future__ import annotations

from pathlib import Path

import pytest

from nndoctor.findings import Finding
from nndoctor.rules import RulesetError, load_rulesets
from tests.rules.helpers import judged, ruleset

RULES = """
rules:
  - {id: rate, severity: error, confidence: high, when: loss > 5}
  - {id: clearing, severity: error, confidence: medium, kind: contract, when: loop.stale_gradients > 0.5}
  - {id: advice-only, severity: warning, confidence: high, kind: contract, when: loop.stale_gradients > 0.5}
  - {id: shape, severity: error, kind: contract, category: loss, when: loss.broadcast > 1}
explain:
  - {cause: "kind:contract", symptoms: ["kind:statistic"], on: run, within: 1000 steps}
"""


def found(series: dict[str, list[float]], rules: str = RULES) -> dict[str, Finding]:
    return {finding.rule: finding for finding in judged(rules, series).findings()}


def test_a_broken_promise_that_harms_comes_before_surer_statistics_and_one_that_does_not_comes_after() -> None:
    without_links = RULES.partition("explain:")[0]
    assert list(found({"loss": [9.0] * 3, "loop.stale_gradients": [1.0] * 3}, without_links)) == ["clearing", "rate", "advice-only"]


def test_links_may_name_all_rules_of_a_kind() -> None:
    findings = found({"loss": [9.0] * 3, "loop.stale_gradients": [1.0] * 3})
    assert findings["rate"].explained_by == "clearing"
    assert findings["clearing"].explained_by is None


def test_an_unknown_kind_in_a_link_is_refused_with_those_there_are() -> None:
    with pytest.raises(RulesetError, match=r"no rule has kind 'contact'(.|\n)*there are contract, statistic"):
        ruleset(RULES.replace("kind:contract\"", "kind:contact\""))


def test_explanations_that_were_examined_and_did_not_hold_are_ruled_out() -> None:
    rate = found({"loss": [9.0] * 3, "loop.stale_gradients": [0.0] * 3})["rate"]
    assert set(rate.ruled_out) == {"clearing", "advice-only"}
    assert rate.not_ruled_out == ("shape",)  # loss.broadcast was never measured


def test_what_holds_is_not_among_what_is_ruled_out() -> None:
    findings = found({"loss": [9.0] * 3, "loop.stale_gradients": [1.0] * 3, "loss.broadcast": [1.0] * 3})
    assert findings["rate"].ruled_out == ()  # it is a symptom: its cause was found


AGAINST = """
rules:
  - id: rate
    severity: error
    confidence: high
    when: loss > 5
    against:
      - {when: lr < 1e-4, message: "the rate is only {lr:.0e}"}
      - {when: step < 2, message: "too early to be sure"}
"""


@pytest.mark.parametrize(
    ("lr", "confidence", "told"),
    [(0.1, "high", ()), (1e-5, "medium", ("the rate is only 1e-05",))],
)
def test_what_speaks_against_a_finding_is_told_and_lowers_its_confidence(lr: float, confidence: str, told: tuple[str, ...]) -> None:
    rate = found({"loss": [1.0] * 3 + [9.0] * 3, "lr": [lr] * 6}, AGAINST)["rate"]
    assert (rate.confidence, rate.against) == (confidence, told)


def test_two_things_against_it_make_it_a_guess() -> None:
    rate = found({"loss": [9.0], "lr": [1e-5]}, AGAINST)["rate"]
    assert rate.confidence == "low"
    assert Finding.from_dict(rate.to_dict()) == rate


def test_a_mistake_in_what_speaks_against_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("version: 1" + AGAINST.replace("lr < 1e-4", "lrr < 1e-4"), encoding="utf-8")
    with pytest.raises(RulesetError, match=r"unknown(.|\n)*'lrr'(.|\n)*mine\.yaml:8"):
        load_rulesets([file])
