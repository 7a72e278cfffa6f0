"""The judge fires after `for`, clears after `keep`, names the places, the cause and the remedy, and is deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nndoctor.findings import Finding, Severity
from nndoctor.history import frames_from_series, targets_of_series
from nndoctor.rules import Judge, load_text
from nndoctor.rules.engine import LOUD
from nndoctor.signals import CATALOGUE, Frame, Signal, Targets
from tests.rules.helpers import judged, ruleset

ABC = Targets(layers=("a", "b", "c"), layer_kinds=("Linear",) * 3, layer_depths=(0, 1, 2))


def rule(**fields: Any) -> str:
    lines = {"id": "high", "severity": "error", "when": "loss > 5", **fields}
    return "rules:\n  - " + "\n    ".join(f"{k.rstrip('_')}: {v}" for k, v in lines.items()) + "\n"


def one(judge: Judge, name: str = "high") -> Finding:
    found = [f for f in judge.findings() if f.rule == name]
    assert found, [f.rule for f in judge.findings()]
    return found[0]


def silent(judge: Judge) -> bool:
    return judge.findings() == ()


LOW, HIGH = [1.0], [9.0]


# --- for, keep, clear_when, warmup, every ---


def test_a_rule_fires_when_its_condition_has_held_for_so_many_steps() -> None:
    text = rule(for_="10 steps")
    assert silent(judged(text, {"loss": LOW * 20 + HIGH * 10}))
    found = one(judged(text, {"loss": LOW * 20 + HIGH * 11}))
    assert (found.first_step, found.last_step, found.state) == (31, 31, "firing")


def test_for_begins_anew_when_the_condition_breaks_off() -> None:
    assert silent(judged(rule(for_="10 steps"), {"loss": (HIGH * 10 + LOW) * 5}))


def test_for_counts_steps_and_not_samples() -> None:
    text = rule(scope="layer", when="grad.norm > 5", for_="60 steps")
    sampled = np.full(200, np.nan)
    sampled[[31, 63, 95]] = 9.0
    assert one(judged(text, {"grad.norm": {"a": sampled}})).first_step == 96
    sampled[95] = 1.0
    assert silent(judged(text, {"grad.norm": {"a": sampled}}))


def test_one_sample_does_not_fire_while_none_follows() -> None:
    sampled = [np.nan] * 10 + [9.0] + [np.nan] * 100
    judge = judged(rule(when="val.loss > 5", for_="20 steps"), {"loss": LOW * 111, "val.loss": sampled})
    assert silent(judge)
    assert judge.pending() == 1


def test_the_count_holds_while_the_condition_is_unknown() -> None:
    text = rule(when="loss / lr > 5", for_="10 steps")
    assert one(judged(text, {"loss": HIGH * 30, "lr": [1.0] * 6 + [0.0] * 10 + [1.0] * 14})).first_step == 21


def test_a_finding_clears_and_stays_listed() -> None:
    found = one(judged(rule(), {"loss": LOW * 5 + HIGH * 5 + LOW * 20}))
    assert (found.state, found.first_step, found.last_step) == ("cleared", 6, 10)


def test_keep_holds_a_finding_after_its_condition_is_over() -> None:
    text = rule(keep="10 steps")
    assert one(judged(text, {"loss": HIGH * 5 + LOW * 10})).state == "clearing"
    assert one(judged(text, {"loss": HIGH * 5 + LOW * 11})).state == "cleared"
    assert one(judged(text, {"loss": HIGH * 5 + LOW * 5 + HIGH})).state == "firing"


def test_clear_when_is_a_lower_bar_than_when() -> None:
    text = rule(clear_when="loss < 3")
    assert one(judged(text, {"loss": HIGH * 5 + [4.0] * 50})).state == "firing"
    assert one(judged(text, {"loss": HIGH * 5 + [4.0] * 5 + [2.0]})).state == "cleared"


def test_a_finding_that_comes_back_keeps_its_first_step() -> None:
    found = one(judged(rule(), {"loss": HIGH * 5 + LOW * 5 + HIGH * 5}))
    assert (found.first_step, found.last_step, found.state) == (1, 15, "firing")


def test_nothing_fires_in_the_warmup() -> None:
    text = rule(warmup="20 steps")
    assert silent(judged(text, {"loss": HIGH * 20}))
    assert one(judged(text, {"loss": HIGH * 21})).first_step == 21


def test_every_judges_only_so_often() -> None:
    text = rule(every="10 steps")
    assert silent(judged(text, {"loss": LOW * 2 + HIGH * 3 + LOW * 30}))
    assert one(judged(text, {"loss": LOW * 8 + HIGH * 30})).first_step == 11


@pytest.mark.parametrize(("duration", "fires"), [("2 epochs", 21), ("4 s", 41), ("10%", 31)])
def test_durations_in_epochs_seconds_and_percent(duration: str, fires: int) -> None:
    judge = Judge(ruleset(rule(warmup=duration)), ABC, planned_steps=300)
    for frame in frames_from_series({"loss": HIGH * 60}, ABC, epoch_steps=10, step_seconds=0.1):
        judge.feed(frame)
    assert one(judge).first_step == fires


def test_a_duration_that_cannot_be_told_in_steps_is_said_to_be_the_reason() -> None:
    judge = judged(rule(warmup="5%"), {"loss": HIGH * 60})
    assert silent(judge)
    assert "5% cannot be told in steps" in judge.not_examined()[0].reason


@pytest.mark.parametrize(("policy", "fires"), [("skip", False), ("hold", True), ("fire", True)])
def test_on_missing(policy: str, fires: bool) -> None:
    text = rule(when="loss / lr > 5", for_="10 steps", on_missing=policy)
    judge = judged(text, {"loss": HIGH * 30, "lr": [1.0] * 5 + [0.0] * 25})
    assert silent(judge) is not fires


def test_a_signal_that_vanishes_does_not_clear_its_finding() -> None:
    found = one(judged(rule(when="val.loss > 5"), {"loss": LOW * 50, "val.loss": HIGH * 5}))
    assert (found.state, found.last_step) == ("firing", 5)


# --- places ---


def test_the_layers_of_one_rule_make_one_finding_in_order_of_execution() -> None:
    targets = Targets(layers=("c", "a", "b"), layer_depths=(2, 0, 1))
    text = rule(scope="layer", when="grad.norm > 5", message='"{layers}: {grad.norm:.0f}"')
    found = one(judged(text, {"grad.norm": {"c": [1, 7.0], "a": [1, 8.0], "b": [9.0, 9.0]}}, targets))
    assert found.targets == ("a", "b", "c")
    assert found.first_step == 1
    assert found.message == "a, b, c: 8"


def test_layers_that_recover_leave_the_finding() -> None:
    text = rule(scope="layer", when="grad.norm > 5")
    judge = judged(text, {"grad.norm": {"a": [9.0, 9.0], "b": [9.0, 1.0]}})
    assert one(judge).targets == ("a",)


def test_the_message_counts_the_layers_that_it_does_not_name() -> None:
    text = rule(scope="layer", when="grad.norm > 5", message='"{layer} / {layers}"')
    found = one(judged(text, {"grad.norm": {name: [9.0] for name in "abcdef"}}))
    assert found.message == "a and 5 more / a, b, c and 3 more"


def test_where_names_the_culprits_of_a_rule_of_the_run() -> None:
    text = rule(when="max_layers(grad.norm) > 5", where="grad.norm > 4", message='"{layers}: {grad.norm:.0f}"')
    found = one(judged(text, {"grad.norm": {"a": [1.0], "b": [4.5], "c": [9.0]}}))
    assert found.targets == ("b", "c")
    assert found.message == "b, c: 4"


def test_layers_that_appear_later_are_judged_from_then_on() -> None:
    judge = Judge(
        ruleset(
            rule(
                scope="layer",
                when="grad.norm > 5 and ever(grad.norm > 8) and initial(grad.norm, 1) > 1 and median(grad.norm, 3) > 0",
            )
        ),
        ABC,
    )
    for step in range(1, 6):
        judge.feed(Frame(step, step, None, {"grad.norm": np.array([2.0, 2, 2], np.float32)}))
    judge.grow(Targets(layers=("a", "b", "c", "d"), layer_depths=(0, 1, 2, 3)))
    for step in range(6, 10):
        judge.feed(Frame(step, step, None, {"grad.norm": np.array([2.0, 2, 2, 9], np.float32)}))
    assert one(judge).targets == ("d",)


def test_hostile_layer_names_stay_text() -> None:
    name = "</script>{loss}{0}%s\u202e"
    text = rule(scope="layer", when="grad.norm > 5", message='"{layer} is sick"')
    targets = Targets(layers=(name,), layer_depths=(0,))
    assert one(judged(text, {"grad.norm": {name: [9.0]}}, targets)).message == f"{name} is sick"


def test_an_override_differs_between_layers() -> None:
    text = rule(scope="layer", params="{k: 5}", when="grad.norm > k") + (
        "overrides:\n  - {rules: [high], layers: ['*.head'], params: {k: 30}, reason: spiky}\n"
        "  - {rules: [high], layers: [b], enabled: false, reason: known}\n"
    )
    series = {"grad.norm": {"a": [9.0], "b": [9.0], "x.head": [9.0]}}
    assert one(judged(text, series)).targets == ("a",)


# --- baselines ---


def test_a_lasting_spike_does_not_teach_its_own_baseline() -> None:
    text = rule(when="loss > 3 * median(loss, 50)", for_="5 steps")
    assert one(judged(text, {"loss": LOW * 100 + HIGH * 300})).state == "firing"
    assert one(judged(text, {"loss": LOW * 100 + HIGH * 300 + LOW * 10})).state == "cleared"


def judged_steps(series: dict[str, list[float]]) -> list[int]:
    """The steps at which anything was judged."""
    frames = list(frames_from_series(series))
    judge = Judge(ruleset(rule(when="loss > 0")), targets_of_series(series))
    steps = []
    for frame in frames:
        judge.feed(frame)
        if judge._judged == frame.step:
            steps.append(frame.step)
    return steps


def test_a_loss_that_stands_out_is_judged_at_once_and_others_wait() -> None:
    calm = judged_steps({"loss": [1.0] * 600})
    assert [step for step in calm if step > 100][:2] == [110, 120]
    assert 585 not in calm
    leaping = judged_steps({"loss": [1.0] * 584 + [1.6] + [1.0] * 15})
    assert 585 in leaping
    diverging = judged_steps({"loss": [1.0] * 500 + [1.1**i for i in range(100)]})
    last = 1.0
    for step in (s for s in diverging if s > 500):
        assert 1.1 ** (step - 501) <= 1.1 * LOUD * last  # never more than so much between two looks
        last = 1.1 ** (step - 501)


def test_what_is_measured_anew_and_is_the_same_is_not_judged_anew() -> None:
    series = {"loop.stale_gradients": [0.0] * 40 + [1.0] * 5}
    judge = Judge(ruleset(rule(when="loop.stale_gradients > 0")), targets_of_series(series))
    (watch,) = judge._watches
    due = []
    for frame in frames_from_series(series):
        judge.feed(frame)
        due.append(watch._judged_step)
    assert due[39] == 1
    assert due[40] == 41
    assert due[44] == 45, "a firing rule is judged with each sample"


def test_a_baseline_moves_again_once_the_finding_has_cleared() -> None:
    text = rule(when="loss > 3 * median(loss, 50)")
    judge = judged(text, {"loss": LOW * 100 + HIGH * 20 + LOW * 5 + [2.5] * 100 + [7.0] * 10})
    assert (one(judge).state, one(judge).last_step) == ("cleared", 111)


def test_a_baseline_stands_still_only_for_the_layer_that_fires() -> None:
    text = rule(scope="layer", when="grad.norm > 3 * median(grad.norm, 20)")
    series = {"grad.norm": {"a": LOW * 60 + HIGH * 200, "b": LOW * 60 + [2.0] * 199 + [5.0]}}
    assert one(judged(text, series)).targets == ("a",)


def test_a_trend_is_no_baseline_and_clears_by_itself() -> None:
    text = rule(when="slope_t(loss, 50) > 4")
    assert one(judged(text, {"loss": [*np.linspace(1, 9, 100), *([9.0] * 100)]})).state == "cleared"


# --- evidence, messages, fixes ---


def test_evidence_holds_value_threshold_and_the_curve_around_the_first_step() -> None:
    text = rule(params="{limit: 5}", when="loss > limit and lr > 0", evidence="[grad.total_norm]")
    series = {"loss": LOW * 500 + HIGH * 500, "lr": [0.1] * 1000, "grad.total_norm": [3.0] * 1000}
    found = one(judged(text, series))
    evidence = {e.signal: e for e in found.evidence}
    assert 501 <= found.first_step <= 510
    assert list(evidence) == ["loss", "lr", "grad.total_norm"]
    loss = evidence["loss"]
    assert (loss.value, loss.comparison, loss.threshold, loss.unit, loss.target) == (9.0, ">", 5.0, "loss", None)
    # Quiet steps are judged a few at a time, so the curve may end a few steps before the two hundredth.
    assert loss.steps[0] == found.first_step - 200
    assert found.first_step + 170 <= loss.steps[-1] <= found.first_step + 200
    assert len(loss.values) == loss.steps[-1] - loss.steps[0] + 1
    assert evidence["grad.total_norm"].threshold is None


def test_evidence_of_a_layer_names_it_and_shows_its_own_curve() -> None:
    text = rule(scope="layer", when="5 < median(grad.norm, 10)")
    series = {"grad.norm": {"a": LOW * 30, "b": LOW * 15 + HIGH * 15}}
    first = one(judged(text, series)).evidence[0]
    assert (first.signal, first.target, first.comparison, first.threshold) == ("median(grad.norm, 10)", "b", ">", 5.0)
    assert first.values[-1] == 9.0


def test_evidence_leaves_out_what_is_unknown_and_the_side_of_an_or_that_did_not_hold() -> None:
    found = one(judged(rule(when="loss > 5 or lr > 5 or val.loss > 5"), {"loss": HIGH, "lr": LOW}))
    assert [(e.signal, e.threshold) for e in found.evidence] == [("loss", 5.0), ("lr", None)]


def test_evidence_is_at_most_six() -> None:
    names = ["loss", "lr", "input.mean", "input.std", "input.min", "input.max", "target.mean", "target.std"]
    found = one(judged(rule(when=" and ".join(f"{n} > 0" for n in names)), dict.fromkeys(names, LOW)))
    assert len(found.evidence) == 6


def test_a_fix_is_computed_anew_while_the_finding_is_active_and_stands_once_it_has_cleared() -> None:
    text = rule(
        fixes='[{title: Lower it, set: {lr: "nice(lr / loss)", scheduler: "\'cosine\'", warmup: 100}, confidence: high, safety: safe}]'
    )
    series = {"loss": HIGH * 5 + [90.0] * 20 + LOW * 50, "lr": [0.9] * 75}
    fix = one(judged(text, series)).fixes[0]
    assert dict(fix.set) == {"lr": 0.01, "scheduler": "cosine", "warmup": 100.0}
    assert (fix.title, fix.confidence, fix.safety) == ("Lower it", "high", "safe")


def test_a_fix_whose_value_is_unknown_does_not_guess_it() -> None:
    found = one(judged(rule(fixes='[{title: Lower it, set: {lr: "lr / 10"}}]'), {"loss": HIGH}))
    assert found.fixes[0].set == {}


def test_a_message_without_braces_is_the_title() -> None:
    assert one(judged(rule(title="The loss is high"), {"loss": HIGH})).message == "The loss is high"


def test_a_message_says_unknown_values_with_a_question_mark() -> None:
    found = one(judged(rule(message='"{loss:.1f} {val.loss:.1f} {loss > 1} {{x}}"'), {"loss": HIGH}))
    assert found.message == "9.0 ? yes {x}"


# --- causes and symptoms ---

CHAIN = """
rules:
  - {id: cause, severity: critical, when: lr > 1, fixes: [{title: Lower, set: {lr: 0.1}}]}
  - {id: middle, severity: error, when: loss > 5, fixes: [{title: Other, set: {lr: 0.2}}]}
  - {id: end, severity: error, scope: layer, when: grad.norm > 5}
explain:
  - {cause: cause, symptoms: [middle], on: run, within: 50 steps, lead: 10 steps}
  - {cause: middle, symptoms: [end], on: run, within: 50 steps}
"""


def series_of(length: int, **begins: int) -> dict[str, Any]:
    """Signals at one that jump to nine at a step (and stay there)."""
    names = {"lr": "lr", "loss": "loss", "grad": "grad.norm"}
    values = {names[k]: LOW * (begin - 1) + HIGH * (length - begin + 1) for k, begin in begins.items()}
    return values | ({"grad.norm": {"a": values["grad.norm"]}} if "grad.norm" in values else {})


def causes(judge: Judge) -> dict[str, str | None]:
    return {f.rule: f.explained_by for f in judge.findings()}


def test_a_chain_of_causes_collapses_to_the_topmost_and_only_that_offers_a_fix() -> None:
    judge = judged(CHAIN, series_of(60, lr=10, loss=20, grad=30))
    assert causes(judge) == {"cause": None, "middle": "cause", "end": "cause"}
    assert [f.rule for f in judge.findings() if f.fixes] == ["cause"]
    assert judge.findings()[0].rule == "cause"
    assert [f.rule for f in judge.diagnosis().root_causes] == ["cause"]


def test_without_the_cause_the_symptom_stands_on_its_own() -> None:
    judge = judged(CHAIN, series_of(60, loss=20, grad=30))
    assert causes(judge) == {"middle": None, "end": "middle"}
    assert one(judge, "middle").fixes


def test_a_cause_may_show_a_little_later_than_its_symptom_but_not_much() -> None:
    assert causes(judged(CHAIN, series_of(60, loss=20, lr=30)))["middle"] == "cause"
    assert causes(judged(CHAIN, series_of(60, loss=20, lr=31)))["middle"] is None


def test_a_cause_that_is_over_explains_for_a_while() -> None:
    for begins, expected in ((70, "cause"), (71, None)):
        series = {"lr": LOW * 9 + HIGH * 11 + LOW * 80, "loss": LOW * (begins - 1) + HIGH + LOW * 100}
        assert causes(judged(CHAIN, series))["middle"] == expected


def test_a_symptom_that_outlives_its_cause_stands_on_its_own_again() -> None:
    series = {"lr": LOW * 9 + HIGH * 11 + LOW * 180, "loss": LOW * 14 + HIGH * 186}
    assert causes(judged(CHAIN, {k: v[:70] for k, v in series.items()}))["middle"] == "cause"
    assert causes(judged(CHAIN, series))["middle"] is None


ON_LAYER = """
rules:
  - {id: cause, severity: error, scope: layer, when: act.dead_fraction > 0.5}
  - {id: symptom, severity: error, scope: param, when: param.grad.norm > 5}
explain:
  - {cause: cause, symptoms: [symptom], on: layer}
"""


@pytest.mark.parametrize(("layer", "expected"), [("a", "cause"), ("b", None)])
def test_a_link_on_layers_holds_only_where_the_cause_is(layer: str, expected: str | None) -> None:
    targets = Targets(layers=("a", "b"), layer_depths=(0, 1), params=("a.weight", "b.weight"), param_layers=(0, 1))
    series = {"act.dead_fraction": {layer: LOW}, "param.grad.norm": {"a.weight": HIGH, "b.weight": LOW}}
    assert causes(judged(ON_LAYER, series, targets))["symptom"] == expected


def test_rules_of_one_diagnosis_are_folded_under_the_strongest() -> None:
    text = """
rules:
  - {id: weak, diagnosis: sickness, severity: warning, when: loss > 5}
  - {id: strong, diagnosis: sickness, severity: critical, when: loss > 6}
  - {id: other, severity: warning, when: loss > 7}
"""
    assert causes(judged(text, {"loss": HIGH})) == {"strong": None, "other": None, "weak": "strong"}


def test_a_note_does_not_hide_a_warning() -> None:
    text = CHAIN.replace("id: cause, severity: critical", "id: cause, severity: info")
    assert causes(judged(text, series_of(60, lr=10, loss=20)))["middle"] is None


def test_a_note_is_no_root_cause_of_the_verdict() -> None:
    judge = judged(rule(severity="info"), {"loss": HIGH})
    assert judge.diagnosis().root_causes == ()
    assert judge.diagnosis().verdict.startswith("No problems found")


# --- silenced and switched off ---


def test_a_silenced_finding_is_kept_with_the_reason_and_is_no_root_cause() -> None:
    text = rule() + "overrides: [{rules: [high], suppress: true, reason: we know}]\n"
    judge = judged(text, {"loss": HIGH})
    assert one(judge).suppressed == "we know"
    assert judge.diagnosis().root_causes == ()


def test_silence_may_end() -> None:
    text = rule() + "overrides: [{rules: [high], suppress: true, until: 20 steps, reason: warm-up of the data}]\n"
    assert one(judged(text, {"loss": HIGH * 20})).suppressed
    assert one(judged(text, {"loss": HIGH * 21})).suppressed is None


def test_silence_for_some_layers_leaves_the_others() -> None:
    text = (
        rule(scope="layer", when="grad.norm > 5")
        + "overrides: [{rules: [high], layers: [a], suppress: true, reason: known}]\n"
    )
    assert one(judged(text, {"grad.norm": {"a": HIGH, "b": HIGH}})).targets == ("b",)
    assert one(judged(text, {"grad.norm": {"a": HIGH, "b": LOW}})).suppressed == "known"


# --- not examined ---


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"when": "act.dead_fraction > 1", "scope": "layer"}, "act.dead_fraction was never measured"),
        ({"when": "val.loss > lr"}, "val.loss and lr were never measured"),
        ({"warmup": "50 steps"}, "its warm-up of 50 steps is not over at step 5"),
        ({"when": "mean(loss, 100) > 1"}, "the run is too short"),
    ],
)
def test_what_was_not_examined_says_why(fields: dict[str, str], reason: str) -> None:
    judge = judged(rule(**fields), {"loss": LOW * 5})
    assert reason in judge.not_examined()[0].reason
    assert judge.diagnosis().not_examined == judge.not_examined()


def test_a_rule_with_a_known_verdict_was_examined_even_where_parts_are_unknown() -> None:
    assert judged(rule(when="loss > 5 and val.loss > 5"), {"loss": LOW}).not_examined() == ()


def test_a_rule_that_is_switched_off_is_named_with_the_reason() -> None:
    text = rule() + "overrides: [{rules: [high], enabled: false, reason: too noisy}]\n"
    judge = judged(text, {"loss": HIGH})
    assert silent(judge)
    assert judge.not_examined()[0].reason == "switched off: too noisy"


# --- the judge as a whole ---


def test_the_same_frames_give_the_same_findings_whatever_is_asked_meanwhile() -> None:
    chance = np.random.default_rng(5)
    loss = np.abs(chance.standard_normal(600)).cumsum() % 7
    norms = {name: np.where(chance.random(600) < 0.3, chance.lognormal(0, 2, 600), np.nan) for name in "abc"}
    text = """
record: {my.ratio: 'loss / min(loss, 50)'}
rules:
  - {id: one, severity: error, when: 'my.ratio > 3 and slope(loss, 30) > 0', for: 3 steps, keep: 20 steps, fixes: [{title: x, set: {lr: "nice(ema(loss, 20))"}}]}
  - {id: two, severity: error, scope: layer, when: 'grad.norm > 3 * median(grad.norm, 40)', every: 7 steps, message: "{layers} {grad.norm:.3f}"}
  - {id: three, severity: info, when: 'ever(my.ratio > 5) and held(loss > 0.1, 5)'}
explain: [{cause: one, symptoms: [two], on: run}]
"""
    asked, left_alone = Judge(ruleset(text), ABC), Judge(ruleset(text), ABC)
    for frame in frames_from_series({"loss": loss, "grad.norm": norms}, ABC):
        asked.feed(frame)
        left_alone.feed(frame)
        if frame.step % 3 == 0:
            asked.findings()
            asked.diagnosis()
            asked.history.whole("loss")
    assert asked.findings()
    assert asked.findings() == left_alone.findings()


def test_another_rule_does_not_change_what_a_rule_says() -> None:
    first = "  - {id: one, severity: error, when: 'ever(loss > 8) and median(loss / lr, 9) > 2', every: 10 steps}\n"
    second = "  - {id: two, severity: info, when: 'ever(loss > 8) or median(loss / lr, 9) > 2'}\n"
    series = {"loss": LOW * 13 + HIGH + LOW * 20 + [3.0] * 40, "lr": [1.0] * 74}
    alone, together = judged("rules:\n" + first, series), judged("rules:\n" + first + second, series)
    assert one(alone, "one") == one(together, "one")


def test_dropping_what_no_rule_reads_changes_no_verdict() -> None:
    text, series = rule(when="median(loss, 9) > 5"), {"loss": LOW * 50 + HIGH * 20, "lr": [0.1] * 70, "step.time": [1.0] * 70}
    whole = judged(text, series)
    lean = Judge(ruleset(text), ABC)
    lean.keep_only_what_is_needed(["step.time"])
    for frame in frames_from_series(series, ABC):
        lean.feed(frame)
    assert lean.findings() == whole.findings() != ()
    assert set(lean.history.measured()) == {"loss", "step.time"}


def test_quiet_steps_late_in_a_run_are_judged_together_and_early_ones_at_once() -> None:
    early = one(judged(rule(), {"loss": LOW * 50 + HIGH * 20}))
    late = one(judged(rule(), {"loss": LOW * 303 + HIGH * 20}))
    assert early.first_step == 51
    assert 304 <= late.first_step <= 314


def test_a_frame_that_brings_something_new_is_judged_at_once_however_late() -> None:
    judge = judged(rule(when="lr > 5"), {"loss": LOW * 303})
    judge.feed(Frame(304, 304.0, None, {"lr": np.array([9.0], np.float32)}))
    assert one(judge).first_step == 304


def test_feed_tells_when_findings_changed() -> None:
    judge = Judge(ruleset(rule()), ABC)
    changes = [judge.feed(f) for f in frames_from_series({"loss": LOW * 3 + HIGH * 30 + LOW * 3}, ABC)]
    assert [step for step, changed in enumerate(changes, start=1) if changed] == [4, 34]


def test_a_frame_that_does_not_fit_leaves_the_judge_as_it_was() -> None:
    judge = judged(rule(), {"loss": LOW * 5}, ABC)
    with pytest.raises(ValueError, match="call grow"):
        judge.feed(Frame(6, 6.0, None, {"loss": np.array(HIGH, np.float32), "grad.norm": np.ones(9, np.float32)}))
    assert silent(judge)
    assert judge.history.step == 5


def test_records_are_in_the_history_beside_the_signals() -> None:
    judge = judged("record: {loss.doubled: loss * 2}\n" + rule(), {"loss": LOW * 30})
    assert "loss.doubled" in judge.history.measured()
    assert judge.history.latest("loss.doubled") == [2.0]


def test_signals_of_a_probe_of_the_users_own_can_be_judged() -> None:
    catalogue = CATALOGUE.extended([Signal("my.signal", "layer", "1", "Mine.")])
    loaded = load_text("version: 1\n" + rule(scope="layer", when="my.signal > 5"), catalogue)
    judge = Judge(loaded, ABC, catalogue)
    judge.feed(Frame(1, 1.0, None, {"my.signal": np.array([1, 9, 1], np.float32)}))
    assert one(judge).targets == ("b",)


def test_a_run_without_layers_can_be_judged() -> None:
    text = rule() + "  - {id: layers, severity: error, scope: layer, when: grad.norm > 1}\n"
    judge = judged(text, {"loss": HIGH}, Targets())
    assert [f.rule for f in judge.findings()] == ["high"]


def test_findings_are_ordered_and_the_diagnosis_counts() -> None:
    text = rule() + "  - {id: worse, severity: critical, when: loss > 8}\n"
    diagnosis = judged(text, {"loss": HIGH * 3}, ABC).diagnosis({"model": "net"})
    assert [f.severity for f in diagnosis.findings] == [Severity.CRITICAL, Severity.ERROR]
    assert (diagnosis.steps, diagnosis.rules, diagnosis.layers, diagnosis.facts) == (3, 2, 3, {"model": "net"})
