"""Findings that are accepted: marked with the reason everywhere, out of verdicts and exit codes, and taken back."""

from __future__ import annotations

import json
from pathlib import Path

from nndoctor.acknowledged import FILE, Acknowledgement, marked, read_acknowledged
from nndoctor.findings import Finding, Severity

from .conftest import Command


def test_an_accepted_finding_no_longer_counts_and_is_not_erased(nndoctor: Command, sick: Path) -> None:
    assert nndoctor("diagnose", "--fail-on", "warning").code == 1
    answer = nndoctor("ack", "sick", "learning-rate-too-low", "--reason", "a test of the wires")
    assert answer.verdict == "Acknowledged loss-stays-high in 20240102-sick: a test of the wires"
    assert nndoctor("ack", "sick", "layer-is-loud", "--reason", "as built").code == 0
    assert nndoctor("diagnose", "--fail-on", "info").code == 0
    found = {f["rule"]: f["suppressed"] for f in json.loads(nndoctor("diagnose", "--json", "--fail-on", "never").out)["findings"]}
    assert found == {"loss-stays-high": "a test of the wires", "layer-is-loud": "as built"}
    assert nndoctor("ls").out.split("\n")[1].endswith("none")


def test_it_is_listed_and_taken_back(nndoctor: Command, sick: Path) -> None:
    nndoctor("ack", "sick", "layer-is-loud", "--reason", "as built")
    assert "as built" in nndoctor("ack", "sick").out
    assert [item["rule"] for item in json.loads(nndoctor("ack", "sick", "--json").out)["acknowledged"]] == ["layer-is-loud"]
    assert nndoctor("ack", "sick", "layer-is-loud", "--remove").code == 0
    assert nndoctor("ack", "sick").verdict == "0 findings acknowledged in 20240102-sick."
    assert nndoctor("ack", "sick", "layer-is-loud", "--remove").code == 2


def test_a_part_of_the_places_leaves_the_rest_counting_and_says_so(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("ack", "sick", "layer-is-loud", "--reason", "as built", "--layers", "elsewhere*")
    assert "layer-is-loud still counts" in answer.err
    assert nndoctor("diagnose").code == 1


def test_it_needs_a_reason_and_a_finding_that_is_there(nndoctor: Command, sick: Path) -> None:
    assert "say why" in nndoctor("ack", "sick", "layer-is-loud").err
    refused = nndoctor("ack", "sick", "overfitting", "--reason", "because")
    assert refused.code == 2
    assert "it has layer-is-loud, loss-stays-high" in refused.err


def test_a_damaged_list_is_no_list(sick: Path) -> None:
    (sick / FILE).write_text("{not json")
    assert read_acknowledged(sick) == ()


def test_an_acknowledgement_of_layers_covers_a_finding_only_as_a_whole() -> None:
    finding = Finding("r", "r", Severity.ERROR, "high", ("fc1", "fc2"), 1, 2)
    assert marked([finding], [Acknowledgement("r", "why", ("fc*",))])[0].suppressed == "why"
    assert marked([finding], [Acknowledgement("r", "why", ("fc1",))])[0].suppressed is None
    assert marked([finding], [Acknowledgement("other", "why")])[0].suppressed is None
