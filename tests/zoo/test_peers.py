"""The table beside other tools counts in their favour, keeps cured runs as the control, and nobody chooses its cases."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nndoctor.rules import load_rulesets
from nndoctor.zoo.case import case_named


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    """``benchmarks/peers_diagnosis.py``, which is no package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "peers_diagnosis.py"
    spec = importlib.util.spec_from_file_location("peers_diagnosis", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers_diagnosis"] = module
    spec.loader.exec_module(module)
    return module


PLANTED = ("dead-relu", "missing-zero-grad-of-a-kind-nobody-knows")


def heard(peers: ModuleType, sick: tuple[str, ...], cured: tuple[str, ...], expected: str = "dead-relu", failed: str = "") -> list[Any]:
    return [
        peers.Heard("dead", "sick", expected, sick, 1.0, failed),
        peers.Heard("dead", "cured", None, cured, 1.0),
        peers.Heard("well", "healthy", None, (), 1.0),
    ]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_sample_holds_one_case_of_each_ailment_that_some_peer_could_name(peers: ModuleType) -> None:
    chosen = [case_named(name) for name in peers.SAMPLE]
    planted = [case.diagnosis for case in chosen if case.diagnosis is not None]
    assert len(set(planted)) == len(planted) == 20
    assert all(any(peers.can_name(tool, ailment) for tool in peers.READ_AS) for ailment in planted)


def test_a_warning_that_can_be_read_as_the_ailment_counts_for_the_tool(peers: ModuleType) -> None:
    row = cells(peers.row("torchmortem", heard(peers, ("Exploding gradients", "Dead units"), ()), PLANTED))
    assert row == ["torchmortem", "1 (50%)", "1", "1 (100%)", "1 (100%)", "0 (0%)", "1 (100%)", "2", "0 (0%)", "0"]


def test_a_warning_that_the_cured_run_has_as_well_tells_nothing_apart(peers: ModuleType) -> None:
    row = cells(peers.row("torchmortem", heard(peers, ("Dead units",), ("Dead units",)), PLANTED))
    assert row[4:7] == ["1 (100%)", "1 (100%)", "0 (0%)"]
    assert row[8] == "1 (50%)"


def test_an_ailment_without_any_matching_warning_is_out_of_reach(peers: ModuleType) -> None:
    row = cells(peers.row("torchdiag", heard(peers, ("EXPLODE",), (), "labels-misaligned", "broke"), PLANTED))
    assert row[3:6] == ["0 (0%)", "0 (0%)", "0 (0%)"]
    assert row[9] == "1"


def test_every_run_of_every_tool_is_listed(peers: ModuleType) -> None:
    page = peers.markdown({"nndoctor": heard(peers, ("dead-relu",), ()), "torchdiag": heard(peers, (), (), failed="broke")}, 0, PLANTED)
    assert "| `dead` sick | dead-relu | dead-relu | failed |" in page
    assert "| `dead` cured | nothing | silent | silent |" in page
    assert "torchmortem is not in this table: it was not run (in reach: 1 (50%)" in page
    assert "torchdiag is not" not in page
    assert "of all 2 sick cases" in page


def test_our_own_row_is_that_of_the_clinic_and_missing_where_the_clinic_lacks_a_run(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = [
        {"rule": "dead-relu", "diagnosis": "dead-relu", "step": 9},
        {"rule": "vanishing-gradients", "diagnosis": "vanishing-gradients", "step": 9, "explained_by": "dead-relu"},
    ]
    runs: list[dict[str, Any]] = [
        {"case": "dead", "variant": "sick", "seed": 0, "spoken": spoken, "seconds": 2.0},
        {"case": "dead", "variant": "cured", "seed": 0},
        {"case": "well", "variant": "healthy", "seed": 0},
    ]
    monkeypatch.setattr(peers, "OURS", tmp_path / "clinic.json")
    told = {"torchdiag": heard(peers, ("dead",), ())}
    assert list(peers.beside_ours(told, 0)) == ["torchdiag"]
    peers.OURS.write_text(json.dumps({"runs": runs}))
    beside = peers.beside_ours(told, 0)
    assert list(beside) == ["nndoctor", "torchdiag"]
    assert [one.kinds for one in beside["nndoctor"]] == [("dead-relu",), (), ()]
    assert list(peers.beside_ours(told, 1)) == ["torchdiag"]


def test_warnings_are_read_as_diagnoses_of_the_catalogue(peers: ModuleType) -> None:
    known = {rule.diagnosis for rule in load_rulesets(["core"]).rules}
    uncovered = {"missing-warmup", "output-logit-growth", "embedding-norm-growth"}  # in the catalogue, without a rule
    for kinds in peers.READ_AS.values():
        for ailments in kinds.values():
            assert ailments <= known | uncovered
