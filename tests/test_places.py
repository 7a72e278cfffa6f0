"""Where in the user's script the calls of the loop stand."""

from __future__ import annotations

import torch
from torch import nn

import nndoctor
from nndoctor.findings import Finding, Fix, Severity, describe_fix, with_places
from nndoctor.places import LOOKS, MOST_PLACES, Places


def test_the_line_that_made_the_call_is_named_with_its_text() -> None:
    places = Places()
    places.saw("backward")  # this line
    (place,) = places.all()["backward"]
    assert place.file.endswith("test_places.py")
    assert place.code == 'places.saw("backward")  # this line'
    assert str(place) == f"{place.code} ({place.file}, line {place.line})"


def test_a_call_is_looked_up_a_few_times_only() -> None:
    places = Places()
    for _ in range(LOOKS):
        places.saw("step")
    places.saw("step")  # one line more, and one time too many
    assert len(places.all()["step"]) == 1


def test_at_most_a_few_places_are_kept() -> None:
    places = Places()
    for number in range(LOOKS):
        exec(compile("\n" * number + "places.saw('forward')", f"script_{number}.py", "exec"), {"places": places})
    assert len(places.all()["forward"]) == MOST_PLACES


def test_a_cell_of_a_notebook_is_called_one() -> None:
    places = Places()
    exec(compile("\nplaces.saw('step')", "/tmp/ipykernel_4711/1597091714.py", "exec"), {"places": places})
    (place,) = places.all()["step"]
    assert str(place) == "notebook cell, line 2"


def test_frames_of_libraries_and_of_the_doctor_are_passed_over() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndoctor.wrap(model, optimizer, ui="off") as doctor:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
    found = doctor.diagnosis().facts["places"]
    assert {call: [line["code"] for line in found[call]] for call in ("zero_grad", "backward", "step")} == {
        "zero_grad": ["optimizer.zero_grad()"],
        "backward": ["model(torch.ones(4, 2)).sum().backward()"],
        "step": ["optimizer.step()"],
    }


FINDING = Finding(
    rule="missing-zero-grad", diagnosis="missing-zero-grad", severity=Severity.ERROR, confidence="high", targets=(), first_step=2,
    last_step=3, fixes=(Fix("Clear the gradients", call="optimizer.zero_grad()", place="before backward"),),
)  # fmt: skip


def test_a_remedy_names_the_line_of_the_script() -> None:
    places = {"backward": [{"file": "train.py", "line": 42, "code": "loss.backward()"}]}
    (fix,) = with_places(FINDING, places).fixes
    assert describe_fix(fix) == "call optimizer.zero_grad() before loss.backward() (train.py, line 42)"


def test_a_remedy_whose_line_is_unknown_keeps_the_call() -> None:
    (fix,) = with_places(FINDING, {}).fixes
    assert describe_fix(fix) == "call optimizer.zero_grad() before backward"


def test_a_call_in_the_loop_of_a_framework_has_no_place_in_the_script() -> None:
    places = Places()
    for file in ("/env/site-packages/lightning/loops/fit.py", "/env/site-packages/somebody/helper.py"):
        exec(compile("places.saw(file)", file, "exec"), {"places": places, "file": file})
    assert list(places.all()) == ["/env/site-packages/somebody/helper.py"], "a helper is called from the script's own loop"
