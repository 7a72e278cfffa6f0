"""What the panel knows, and how it looks."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from nndoctor.findings import Diagnosis, Finding, Fix, NotExamined, ProbeFailure
from nndoctor.history import History
from nndoctor.reports.panel import (
    Curve,
    PanelState,
    chart,
    number,
    panel_lines,
    panel_rows,
    panel_state,
    render_panel,
    sparkline,
)
from nndoctor.reports.panel_data import bucketed, finding_lines, with_diagnosis
from nndoctor.signals import CATALOGUE, Frame, Signal, Targets
from tests.reports.panel_cases import (
    CAUSE,
    HOSTILE,
    LAYERS,
    SECOND_CAUSE,
    SYMPTOM,
    TARGETS,
    diagnosis,
    healthy_state,
    history,
    sick_state,
)

SIZES = [(20, 2), (40, 2), (40, 6), (40, 8), (60, 6), (80, 2), (80, 5), (80, 8), (120, 8), (250, 8)]


def plain(state: PanelState, width: int = 80, height: int = 8, *, ascii: bool = False) -> list[str]:
    return [line.plain for line in panel_lines(state, width, height, ascii=ascii)]


# ------------------------------------------------------------------------------------------ the data

OWN = (
    Signal("metric.alignment", "layer", "1", "Cosine."),
    Signal("metric.never", "run", "1", "Not published yet."),
    *(Signal(f"weights.m{number}", "run", "1", "One of many.") for number in range(6)),
)


def own_state(*found: Finding) -> PanelState:
    """A run whose subscribers publish a signal per layer, one of which is never heard, and six of the run."""
    run = History(TARGETS, CATALOGUE.extended(OWN))
    for step in range(1, 41):
        layers = np.linspace(0.0, 1.0, len(LAYERS))
        layers[0] = np.nan
        values = {"loss": [2.0], "metric.alignment": layers * step / 40, **{f"weights.m{number}": [number * step] for number in range(6)}}
        run.append(Frame(step, float(step), None, {name: np.asarray(value, np.float32) for name, value in values.items()}))
    return panel_state(run, diagnosis(*found), name="mini", published=OWN)


def test_what_subscribers_publish_is_shown_by_its_median_and_the_rest_counted() -> None:
    state = own_state()
    assert [curve.signal for curve in state.own] == ["metric.alignment", "weights.m0", "weights.m1", "weights.m2"]
    assert state.own[0].value == pytest.approx(np.linspace(0, 1, len(LAYERS))[1:][(len(LAYERS) - 2) // 2])
    assert len(state.own[0].points) == 40
    assert state.own_more == 4


@pytest.mark.parametrize("width", [40, 80, 200])
def test_metrics_of_ones_own_get_a_line_that_fits(width: int) -> None:
    for state in (own_state(), own_state(CAUSE)):
        rows = [row for row in plain(state, width) if row.startswith(" own ")]
        assert len(rows) == 1
        assert "alignment 0." in rows[0]
        assert rows[0].rstrip().endswith("+4" if width == 200 else f"+{8 - rows[0].count('weights.m') - 1}")
        assert cell_len(rows[0]) <= width


def test_a_value_of_seven_characters_does_not_touch_its_curve() -> None:
    state = replace(sick_state(), curves=tuple(replace(curve, value=1.6e-12) for curve in sick_state().curves))
    rows = "\n".join(plain(state, 80))
    assert "1.6e-12 " in rows
    assert not any(f"1.6e-12{bar}" in rows for bar in "▁▂▃▄▅▆▇█")


def test_a_healthy_panel_has_one_row_more_for_metrics_of_ones_own_and_none_without() -> None:
    assert panel_rows(own_state(), 80) == panel_rows(healthy_state(), 80) + 1
    assert not any(row.startswith(" own") for row in plain(healthy_state()))


def test_a_hostile_name_of_a_metric_is_cleaned() -> None:
    state = replace(own_state(), own=tuple(Curve("own", name, 1.0, (1.0, 2.0)) for name in HOSTILE))
    for width in (40, 120):
        rows = plain(state, width)
        assert all(cell_len(row) <= width for row in rows)
        assert not any(mark in "".join(rows) for mark in ("\x1b", "\u202e", "\n"))



def test_curves_hold_the_newest_value_and_a_remark() -> None:
    state = sick_state()
    loss, grad, update = state.curve("loss"), state.curve("grad"), state.curve("update_ratio")
    assert loss is not None
    assert grad is not None
    assert update is not None
    assert loss.value == pytest.approx(2.0 * 0.999**300 + 1, rel=1e-5)
    assert loss.remark.endswith("%/255 steps")
    assert grad.value == pytest.approx(1.5 * 10**1.5, rel=1e-5)
    assert (grad.remark, grad.alarming) == ("32x median", True)
    assert update.value == pytest.approx(1e-3)
    assert (update.remark, update.alarming) == ("", False)


def test_a_steady_gradient_is_not_alarming() -> None:
    grad = healthy_state().curve("grad")
    assert grad is not None
    assert (grad.remark, grad.alarming) == ("1x median", False)


@pytest.mark.parametrize(("growth", "remark"), [(1.5, "+50%"), (9.0, "+800%"), (31.0, "31x"), (4e25, "4e25x")])
def test_a_loss_that_explodes_is_told_in_times_that_fit(growth: float, remark: str) -> None:
    run = History(TARGETS)
    for step in range(1, 41):
        run.append(Frame(step, 0.0, None, {"loss": np.float32([2.0 if step <= 20 else 2.0 * growth])}))
    loss = panel_state(run, Diagnosis(), name="x").curve("loss")
    assert loss is not None
    assert (loss.remark, loss.alarming) == (f"{remark}/39 steps", True)


def test_a_gradient_that_explodes_is_told_in_times_that_fit() -> None:
    run = History(TARGETS)
    for step in range(1, 41):
        run.append(Frame(step, 0.0, None, {"grad.total_norm": np.float32([1.0 if step < 40 else 2.6e15])}))
    grad = panel_state(run, Diagnosis(), name="x").curve("grad")
    assert grad is not None
    assert (grad.remark, grad.alarming) == ("3e15x median", True)


@pytest.mark.parametrize(("ratio", "alarming"), [(1e-3, False), (2e-4, False), (9e-3, False), (2e-2, True), (1e-6, True)])
def test_update_ratios_far_from_one_in_a_thousand_are_told(ratio: float, alarming: bool) -> None:
    run = History(TARGETS)
    run.append(Frame(1, 0.0, None, {"update.ratio": np.full(len(LAYERS), ratio, np.float32)}))
    curve = panel_state(run, Diagnosis(), name="x").curve("update_ratio")
    assert curve is not None
    assert (curve.alarming, curve.remark) == (alarming, "want 1e-3" if alarming else "")


def test_the_update_ratio_is_the_median_of_the_layers_that_moved() -> None:
    values = np.full(len(LAYERS), np.nan, np.float32)
    values[:5] = [0.0, 1e-3, 2e-3, 8e-3, 0.0]
    run = History(TARGETS)
    run.append(Frame(1, 0.0, None, {"update.ratio": values}))
    curve = panel_state(run, Diagnosis(), name="x").curve("update_ratio")
    assert curve is not None
    assert curve.value == pytest.approx(2e-3)


def test_without_layers_the_ratio_of_the_parameters_is_taken() -> None:
    run = History(TARGETS)
    run.append(Frame(1, 0.0, None, {"param.update.ratio": np.full(len(LAYERS), 2e-3, np.float32)}))
    curve = panel_state(run, Diagnosis(), name="x").curve("update_ratio")
    assert curve is not None
    assert curve.signal == "param.update.ratio"


def test_a_loss_that_is_not_finite_has_no_value_but_is_said() -> None:
    run = history(20)
    run.append(Frame(21, 0.0, None, {"loss.nonfinite": np.float32([1])}))
    state = panel_state(run, Diagnosis(), name="x")
    loss = state.curve("loss")
    assert loss is not None
    assert loss.value is None
    assert loss.nonfinite
    assert "NaN/inf" in "".join(plain(state))


def test_a_run_without_measurements_has_no_curves_and_waits() -> None:
    state = panel_state(History(TARGETS), Diagnosis(rules=58), name="x")
    assert state.curves == ()
    assert state.layers is None
    assert "waiting for the first step" in "".join(plain(state))


def test_symptoms_lie_under_the_root_of_their_chain() -> None:
    state = sick_state()
    assert [cause.rule for cause in state.causes] == ["learning-rate-too-high", "dead-relu"]
    assert [s.rule for s in state.symptoms(state.causes[0])] == ["gradient-spike", "loss-rising"]
    assert state.symptoms(state.causes[1]) == ()


def test_findings_that_explain_each_other_do_not_hang_the_panel() -> None:
    knot = (replace(CAUSE, explained_by=SYMPTOM.rule), SYMPTOM)
    assert len(panel_state(history(), diagnosis(*knot), name="x").findings) == 2


def test_counts_add_up() -> None:
    examined = replace(
        diagnosis(CAUSE, replace(SECOND_CAUSE, suppressed="known"), SYMPTOM),
        not_examined=(NotExamined("a", "never measured"), NotExamined("b", "never measured")),
    )
    state = panel_state(history(), examined, name="x")
    assert (state.rules, state.rules_ok, state.not_examined, state.acknowledged) == (58, 53, 2, 1)


def test_a_cleared_cause_is_told_as_over_and_asks_for_no_rows() -> None:
    state = panel_state(history(), diagnosis(replace(CAUSE, state="cleared")), name="x")
    assert state.causes == ()
    assert panel_rows(state, 80) == 2
    assert any("learning rate too high is over: 220 to 300" in line for line in plain(state))


def test_the_strip_shows_the_signal_that_the_worst_cause_rests_on() -> None:
    strip = sick_state().layers
    assert strip is not None
    assert strip.signal == "update.ratio"
    assert set(strip.sick) >= {5, 6, 7}
    assert strip.worst == 6
    healthy = healthy_state().layers
    assert healthy is not None
    assert (healthy.signal, healthy.sick) == ("grad.norm", ())


def test_a_finding_at_a_parameter_marks_its_layer() -> None:
    state = panel_state(history(), diagnosis(replace(CAUSE, targets=(f"{LAYERS[9]}.weight",))), name="x")
    assert state.layers is not None
    assert state.layers.sick == (9,)
    assert state.findings[0].place_word == "parameters"


def test_layers_without_the_signal_have_no_bar_and_broken_ones_are_worst() -> None:
    values = np.full(len(LAYERS), 0.1, np.float32)
    values[2], values[3] = np.nan, np.inf
    run = History(TARGETS)
    run.append(Frame(1, 0.0, None, {"grad.norm": values}))
    strip = panel_state(run, Diagnosis(), name="x").layers
    assert strip is not None
    assert LAYERS[2] not in strip.names
    assert strip.worst is not None
    assert strip.names[strip.worst] == LAYERS[3]


def test_an_even_network_looks_even_and_a_spread_one_does_not() -> None:
    even = panel_state(history(), diagnosis(), name="x").layers
    uneven = sick_state().layers
    assert even is not None
    assert uneven is not None
    assert len(set(even.levels)) == 1
    assert max(level or 0 for level in uneven.levels) == 1.0


def test_the_state_is_plain_json() -> None:
    assert json.loads(json.dumps(sick_state().to_dict()))["findings"][0]["rule"] == "learning-rate-too-high"


def test_a_later_diagnosis_replaces_the_findings_and_keeps_the_curves() -> None:
    state = with_diagnosis(sick_state(), diagnosis())
    assert state.findings == ()
    assert state.rules_ok == 58
    assert len(state.curves) == 4


def test_buckets_are_means_of_neighbours() -> None:
    assert bucketed([1, 2, 3, 4, 5, 6], 3) == (1.5, 3.5, 5.5)
    assert bucketed([1, 2], 3) == (1, 2)


# --------------------------------------------------------------------------------------- the picture


def test_a_healthy_run_takes_two_rows() -> None:
    state = healthy_state()
    assert panel_rows(state, 80) == 2
    title, body = plain(state, 80, 2)
    assert title.startswith("── nndoctor · mini-a3f1 · step 300/1000 · 41.2 it/s · overhead 0.8% ─")
    assert "✓ loss 1.48" in body
    assert "58 rules ok" in body


def test_what_the_run_is_taken_for_stands_in_the_last_row_where_there_is_room() -> None:
    said = ("a GAN: two optimizers, alternating", "2 forward passes per backward")
    healthy, sick = replace(healthy_state(), taken_for=said), replace(sick_state(), taken_for=said)
    assert "   a GAN   58 rules ok" in plain(healthy, 140, 2)[-1]
    assert "GAN" not in plain(healthy, 60, 2)[-1]
    assert " · a GAN" in plain(sick, 160)[-1]
    assert "GAN" not in plain(sick, 72)[-1]
    state = with_diagnosis(healthy_state(), Diagnosis(facts={"taken_for": list(said)}))
    assert state.taken_for == said


def test_an_ill_run_names_cause_place_remedy_and_symptoms() -> None:
    lines = plain(sick_state())
    assert panel_rows(sick_state(), 80) == 8
    assert " ✖ learning rate too high since step 220   FIX lr=2e-4 (confidence high)" in lines
    assert "   └ explains gradient-spike in 3 layers, loss-rising" in lines
    assert any(line.startswith(" layers") and line.endswith("update.ratio worst block.2.conv") for line in lines)
    assert " ▲ dead relu in blocks[/x] +3 since step 100" in lines
    assert any("54 rules ok · 2 root causes · 2 pending" in line for line in lines)


def test_a_second_cause_is_named_even_where_the_first_has_a_remedy_in_a_row_of_its_own() -> None:
    far = Fix("Clear the gradients", call="optimizer.zero_grad()", place="before loss.backward() (train.py, line 53)", confidence="high")
    state = replace(sick_state(), findings=finding_lines((replace(CAUSE, fixes=(far,)), SECOND_CAUSE, SYMPTOM), TARGETS))
    lines = plain(state, 120)
    assert len(lines) == 8
    assert lines[4].startswith("   FIX call optimizer.zero_grad() before loss.backward() (train.py, line 53)")
    assert lines[6] == " ▲ dead relu in blocks[/x] +3 since step 100"


@pytest.mark.parametrize("name", ["a-name-that-is-too-long-for-the-row", "two words", "x;rm", ""])
def test_what_the_panel_tells_to_type_can_be_typed(name: str) -> None:
    assert plain(replace(sick_state(), name=name), 120)[-1].endswith("more: nndoctor watch")


def test_a_long_remedy_loses_its_aside_first_and_a_call_keeps_its_line() -> None:
    worded = Fix("Remove the softmax at the end of the model (or use NLLLoss with log_softmax, BCELoss with sigmoid)", set={"final": "none"})
    called = Fix("Clear", call="optimizer.zero_grad()", place="before loss.backward() (a_script_with_a_long_name_to_train_it.py, line 53)")
    rows = []
    for fix in (worded, called):
        state = replace(sick_state(), findings=finding_lines((replace(CAUSE, fixes=(fix,)),), TARGETS))
        rows.append(next(line for line in plain(state, 80) if "FIX" in line))
    assert rows[0].endswith("FIX Remove the softmax at the end of the model (confidence medium)")
    assert "line 53)" in rows[1]


def test_a_run_that_goes_on_points_to_watch_and_one_that_has_ended_to_its_report() -> None:
    state = sick_state()
    assert plain(state, 100)[-1].endswith("more: nndoctor watch mini-a3f1")
    assert plain(replace(state, status="killed"), 100)[-1].endswith("more: nndoctor report mini-a3f1")
    assert panel_lines(state, 100, 8, ended=True)[-1].plain.endswith("more: nndoctor report mini-a3f1")


def test_a_layer_whose_name_is_a_number_is_called_a_layer() -> None:
    targets = Targets(layers=("0", "2"), layer_kinds=("Linear",) * 2, layer_depths=(0, 1))
    run = History(targets)
    run.append(Frame(1, 0.0, None, {"loss": np.float32([1]), "grad.norm": np.float32([1, 2])}))
    sick = diagnosis(replace(CAUSE, evidence=()), replace(SYMPTOM, targets=("2",)), replace(SECOND_CAUSE, targets=("0", "2")))
    text = "\n".join(plain(panel_state(run, sick, name="x"), 120))
    assert "gradient-spike in layer 2" in text
    assert "dead relu in layer 0 +1" in text
    assert "grad.norm worst layer" in text


def test_the_cause_outlives_everything_else_when_rows_are_short() -> None:
    two = plain(sick_state(), 80, 2)
    assert two[0].startswith("──")
    assert "✖ learning rate too high since step 220" in two[1]
    assert "FIX lr=2e-4" in two[1]


def test_a_narrow_terminal_gets_the_remedy_on_a_row_of_its_own() -> None:
    lines = plain(sick_state(), 40)
    assert " ✖ learning rate too high since 220" in lines
    assert "   FIX lr=2e-4" in lines


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("ascii", [False, True])
def test_no_row_is_wider_than_the_terminal_and_no_panel_higher(width: int, height: int, ascii: bool) -> None:
    for state in (healthy_state(), sick_state(), PanelState("x"), replace(sick_state(), probe_failures=("activations",) * 9)):
        lines = plain(state, width, height, ascii=ascii)
        assert len(lines) <= height
        assert all(cell_len(line) <= width for line in lines)
        assert not any(character in line for line in lines for character in "\x1b\n\u202e")
        if ascii:
            assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_render_as_text_everywhere(name: str) -> None:
    run = History(Targets(layers=(name, "other"), layer_kinds=("x", "x"), layer_depths=(0, 1)))
    run.append(Frame(1, 0.0, None, {"grad.norm": np.float32([9.0, 1.0]), "loss": np.float32([1.0])}))
    sick = diagnosis(replace(CAUSE, targets=(name,), evidence=(), message=name, diagnosis=name))
    state = panel_state(run, sick, name=name)
    output = Console(file=StringIO(), width=120, force_terminal=True, color_system="truecolor")
    output.print(render_panel(state, 120, 8))
    text = output.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "blocks[/x]" in text or name != "blocks[/x]"


def test_every_severity_has_a_sign_of_its_own_besides_its_colour() -> None:
    lines = "\n".join(plain(sick_state()))
    assert "✖ learning" in lines
    assert "▲ dead" in lines
    assert "✓ 54" in lines
    lines = "\n".join(plain(sick_state(), ascii=True))
    assert "X learning" in lines
    assert "! dead" in lines
    assert "ok 54" in lines


def test_a_dismissed_probe_is_never_hidden() -> None:
    for base in (diagnosis(), diagnosis(CAUSE)):
        failed = replace(base, probe_failures=(ProbeFailure("activations", 3, "ValueError"),))
        state = panel_state(history(), failed, name="x")
        assert any("probe activations dismissed" in line for line in plain(state, 80, panel_rows(state, 80)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.914, "2.91"), (48.21, "48.2"), (1234.5, "1234"), (3e-3, "3.0e-3"), (0, "0"), (0.05, "0.05"), (1e9, "1.0e9"), (-1e-12, "-1.0e-12")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_noise_on_a_flat_loss_does_not_look_like_news() -> None:
    flat = Curve("loss", "loss", 2.0, (2.0, 2.001, 1.999, 2.0))
    falling = Curve("loss", "loss", 1.0, (2.0, 1.6, 1.3, 1.0))
    assert set(sparkline(flat, 4)) <= set("▄▅")
    assert sparkline(falling, 4) == "█▅▃▁"


def test_a_chart_has_its_extremes_at_the_left() -> None:
    rows = chart(Curve("loss", "loss", 1.0, (2.0, 1.5, 1.0)), 20, 3)
    assert rows[0].startswith("       2 █")
    assert rows[2].startswith("       1 ██▁")
