"""What the lab keeps with a run comes back in its report."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path

from nndoctor.reports import html
from nndoctor.reports.sections import lab
from nndoctor.reports.view import LabResult, Relief, keep_lab_result, lab_results

from . import report_runs as runs

PIXEL = b"\x89PNG\r\n\x1a\n-not-really"


def test_results_come_back_in_the_order_they_were_kept(tmp_path: Path) -> None:
    results = (LabResult("Curvature", ("sharp", "Lower the rate.")), LabResult("Loss surface, random directions", ("A bowl.",), PIXEL, runs.bowl(5)))
    for result in results:
        keep_lab_result(tmp_path, result)
    assert lab_results(tmp_path) == results
    assert sorted(path.name for path in (tmp_path / "lab").iterdir()) == ["001-curvature.json", "002-loss-surface-random-directions.json", "002-loss-surface-random-directions.png"]


def test_files_that_are_none_of_the_labs_are_passed_over(tmp_path: Path) -> None:
    keep_lab_result(tmp_path, LabResult("Curvature", ("flat",)))
    for name, content in (("000.json", "{"), ("zzz.json", "[1]"), ("other.json", '{"title": "x"}')):
        (tmp_path / "lab" / name).write_text(content)
    assert [result.title for result in lab_results(tmp_path)] == ["Curvature"]
    assert lab_results(tmp_path / "nowhere") == ()


def test_the_report_shows_title_verdict_text_and_picture() -> None:
    hostile = runs.HOSTILE[0]
    view = replace(runs.healthy(20, 2), lab=(LabResult("Loss surface", (f"line of {hostile}", "", "A bowl."), PIXEL),))
    built = lab.build(view)
    assert built is not None
    assert built["shown"][0].verdict == "A bowl."
    assert built["shown"][0].lines == (f"line of {hostile}",)
    page = html.render(view)
    assert "Examined in the lab" in page
    assert "data:image/png;base64," in page
    assert hostile not in page
    assert "A bowl." in page
    table = html.render(replace(view, lab=(LabResult("Curvature", ("layer  trace", "fc1    12", "Sharp.")),)))
    assert "layer  trace<br>fc1    12<br>" in table


def test_a_run_that_was_not_examined_has_no_such_section() -> None:
    assert lab.build(runs.healthy(20, 2)) is None


def test_a_surface_is_in_the_page_for_its_script_and_its_picture_for_all_others() -> None:
    view = replace(runs.healthy(20, 2), lab=(LabResult("Curvature", ("flat",)), LabResult("Surface", ("A bowl.",), PIXEL, runs.bowl())))
    built = lab.build(view)
    assert built is not None
    assert [shown.relief for shown in built["shown"]] == [None, 0]
    page = html.render(view)
    assert page.count("data-relief=") == 1
    assert "data:image/png;base64," in page
    packed = page.split('id="nndoctor-data">')[1].split("<")[0]
    (relief,) = json.loads(gzip.decompress(base64.b64decode(packed)))["reliefs"]
    assert relief["heights"][10][10] == -1
    assert relief["heights"][0][0] is None
    assert relief["way"]["xs"] == [0.8, 0.3, 0.0]


def test_a_surface_that_does_not_fit_together_is_passed_over() -> None:
    whole = json.loads(json.dumps(runs.bowl(3).data()))
    assert Relief.read(whole) == runs.bowl(3)
    for damaged in (None, [], {}, {**whole, "xs": [1]}, {**whole, "heights": whole["heights"][1:]}, {**whole, "heights": [["a"] * 3] * 3}, {**whole, "way": {"xs": [1], "ys": []}}):
        assert Relief.read(damaged) is None
