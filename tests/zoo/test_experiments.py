"""Experiments: their rules can give every verdict, finished seeds are not run twice, and the page is what the results give."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.zoo.experiments import (
    EXPERIMENTS,
    Bench,
    Experiment,
    Judgement,
    Measured,
    Plot,
    Protocol,
    UnknownExperiment,
    experiment_named,
    judgement,
)
from nndoctor.zoo.experiments.adam import AdamObserver
from nndoctor.zoo.experiments.convergence import NamedOnly, first_reached
from nndoctor.zoo.experiments.experiment import agreed, curve
from nndoctor.zoo.experiments.figures import draw_experiment, shortened
from nndoctor.zoo.experiments.fitting import fit
from nndoctor.zoo.experiments.images import Images, images_for
from nndoctor.zoo.experiments.ratios import followed, judge_proportional
from nndoctor.zoo.experiments.times import Stepper
from nndoctor.zoo.models import PathNet, TimedAlexNet

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = json.loads((REPOSITORY / "docs" / "experiments.json").read_text(encoding="utf-8"))
LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")
CHILDREN = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "output")


def by_rate(what: str, *values: float) -> dict[str, float]:
    return {f"{what} at {rate}": value for rate, value in zip(("0.01", "0.05", "0.1"), values, strict=True)}


def by_layer(what: str, *values: float) -> dict[str, float]:
    return {what.format(layer): value for layer, value in zip(LAYERS, values, strict=True)}


ABOVE = "steps with the hidden linear layer above every convolution"
SECOND, FIRST = "gap of the second moment (decades)", "gap of the first moment (decades)"
SHARE, TREND = "share below epsilon", "second moment of conv1, last / first quarter"
DENSE = {"accuracy at 0.0005": 0.5, "accuracy at 0.001": 0.51, "accuracy at 0.01": 0.1, "first moment at 0.01, last / first 20 steps": 1e-5}
ADAM = {f"Adam, first 10 steps, at {rate}": 0.5 for rate in ("0.01", "0.05", "0.1")} | {f"SGD, first 10 steps, at {rate}": 0.01 for rate in ("0.01", "0.05", "0.1")}
SCHEDULED = {"listing, 0.5, batch 128": 0.5, "constant, 0.5, batch 128": 0.1, "listing, 0.05, batch 1024": 0.3, "constant, 0.05, batch 1024": 0.2, "listing, 0.05, batch 128": 0.4, "constant, 0.05, batch 128": 0.5}
IDENTITY = {f"largest deviation of the product from 10, {name} gradients": value for name, value in (("listing, real", 1e-15), ("listing, random", 1e-15), ("equation 3.8, real", 0.9))}
FROZEN = {"accuracy, none": 0.5, "accuracy, by similarity": 0.5, "as published is bit-identical to none": 1.0, "layers frozen, as published": 3.0}
BACKWARD = {f"backward / forward of {name}, batch {batch}": 2.0 for name in CHILDREN for batch in (64, 128)}
UNACCOUNTED = {f"unaccounted, batch {batch}": value for batch, value in zip((16, 32, 64, 128, 256), (0.3, 0.2, 0.15, 0.1, 0.1), strict=True)}
SPREADS = {"deviation of accuracy over a tenth of the test set": 0.02, "deviation of accuracy over four fifths of the test set": 0.003}
GAIN = "gain from 15 to 20 epochs (points), decayed rate"
PARAMETER = "largest change of the loss by one parameter of {}"
OUTSIDE = "parabola above the line outside, {}"
SHARPNESS = {"largest eigenvalue, batch 32": 10.0, "largest eigenvalue, batch 512, same epochs": 20.0, "largest eigenvalue, batch 512, same steps": 20.0}

CASES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    # id: measurements with which the criterion holds, and with which it does not; whatever is not named is 1
    "E1": ({ABOVE: 0.8}, {ABOVE: 0.79}),
    "E2": ({SECOND: 1.5, FIRST: 0.6}, {SECOND: 1.5, FIRST: 1.2}),
    "E3": ({"decades between them": 2.1}, {"decades between them": 1.9}),
    "E4": ({SHARE: 0.001, TREND: 0.9}, {SHARE: 0.02, TREND: 0.9}),
    "E5": (DENSE, DENSE | {"accuracy at 0.01": 0.4}),
    "E6": ({"final loss, Adam": 2.3, "final loss, SGD": 1.0}, {"final loss, Adam": 1.2, "final loss, SGD": 1.0}),
    "E7": (by_rate("rank correlation of ratio and step", -0.6, -0.7, -0.8) | by_rate("fall of the ratio", 3, 4, 5), by_rate("rank correlation of ratio and step", 0.6, -0.7, -0.8) | by_rate("fall of the ratio", 3, 4, 5)),
    "E8": (by_rate("first ratio", 0.001, 0.005, 0.01), by_rate("first ratio", 0.001, 0.005, 0.011)),
    "E9": (by_rate("decades from 0.001", 0.1, 0.5, 0.9), by_rate("decades from 0.001", 0.6, 0.5, 0.9)),
    "E10": (ADAM | {"Adam, after step 500, at 0.01": 0.02, "Adam, after step 500, at 0.1": 0.01}, ADAM | {"Adam, after step 500, at 0.01": 0.01, "Adam, after step 500, at 0.1": 0.02}),
    "E11": (by_rate("correlation with the loss decrease", 0.1, -0.2, 0.0), by_rate("correlation with the loss decrease", 0.1, -0.4, 0.0)),
    "E12": (SCHEDULED, SCHEDULED | {"listing, 0.05, batch 1024": 0.1}),
    "E13": ({"accuracy, SGD": 0.5, "accuracy, fixed ratio": 0.4}, {"accuracy, SGD": 0.5, "accuracy, fixed ratio": 0.46}),
    "E14": (IDENTITY | {"largest deviation of the product from 10, listing, random gradients": 0.1, "rates x, listing, real gradients": 5.0}, IDENTITY | {"largest deviation of the product from 10, listing, random gradients": 0.1, "rates x, listing, real gradients": 2.0}),
    "E16": ({"rank correlation of depth and convergence at 0.1": 0.8, "first converged epoch of conv1 at 0.1": 3}, {"rank correlation of depth and convergence at 0.1": math.nan, "first converged epoch of conv1 at 0.1": 3}),
    "E17": (FROZEN | {"layers frozen, as published": 0.0, "mean epoch of freezing, by similarity": 2.0, "mean epoch of freezing, by schedule": 3.0}, FROZEN | {"as published is bit-identical to none": 0.0, "accuracy, by similarity": 0.45}),
    "E18": ({"layers converged at 0.1": 0.9, "layers converged at 0.5": 0.5}, {"layers converged at 0.1": 0.5, "layers converged at 0.5": 0.5}),
    "E19": (BACKWARD | {"backward / forward of output, batch 64": 0.5}, BACKWARD | {"backward / forward of conv1, batch 64": 0.9}),
    "E20": ({"AlexNet: convolutions' share": 0.7}, {"AlexNet: convolutions' share": 0.4}),
    "E21": (UNACCOUNTED, UNACCOUNTED | {"unaccounted, batch 256": 0.2}),
    "E22": (dict.fromkeys(("added by doctor", "added by doctor, every step", "added by torch.profiler"), 2.4), {"added by doctor": 0.02}),
    "E23": (SPREADS | {GAIN: 0.1}, SPREADS | {GAIN: 0.3}),
    "E24": (by_layer("lost by {} at init", 0.3, 0.1, 0.6, 0.1, 0.1) | {"accuracy with fc1 at init": 0.3}, by_layer("lost by {} at init", 0.7, 0.1, 0.6, 0.1, 0.1) | {"accuracy with fc1 at init": 0.3}),
    "E25": ({"conv1 at 0.1: accuracy against the final one": -0.005}, {"conv1 at 0.1: accuracy against the final one": -0.02}),
    "E26": (by_layer(PARAMETER, 0.1, 0.01, 0.009, 0.001, 0.001), by_layer(PARAMETER, 0.1, 0.01, 0.02, 0.001, 0.001)),
    "E27": ({"largest rise along the line (share of the gain)": 0.01}, {"largest rise along the line (share of the gain)": 0.06}),
    "E28": ({"parabola minus real path at 0.5": 0.1, "the parabola meets the real path at": 0.5, "the line meets the real path at": 0.9}, {"parabola minus real path at 0.5": 0.1, "the parabola meets the real path at": 0.9, "the line meets the real path at": 0.9}),
    "E29": ({OUTSIDE.format("parameters"): 0.8, OUTSIDE.format("layers"): 0.9}, {OUTSIDE.format("parameters"): 0.7, OUTSIDE.format("layers"): 0.9}),
    "E30": ({"variance in two principal directions": 0.9, "variance in two random directions": 1e-4}, {"variance in two principal directions": 0.5, "variance in two random directions": 1e-4}),
    "E31": (SHARPNESS, SHARPNESS | {"largest eigenvalue, batch 512, same epochs": 5.0, "largest eigenvalue, batch 512, same steps": 5.0}),
}  # fmt: skip


class _Numbers(dict[str, float]):
    def __missing__(self, name: str) -> float:
        return 1.0


def judged(name: str, *numbers: dict[str, float]) -> Judgement:
    return experiment_named(name).judge([Measured(_Numbers(each)) for each in numbers])


@pytest.mark.parametrize("name", CASES)
def test_a_claim_whose_criterion_holds_with_every_seed_is_reproduced(name: str) -> None:
    holds, _ = CASES[name]
    assert judged(name, holds, holds, holds).verdict == "reproduced"


@pytest.mark.parametrize("name", CASES)
def test_a_claim_whose_criterion_holds_with_no_seed_is_contradicted(name: str) -> None:
    _, fails = CASES[name]
    found = judged(name, fails, fails, fails)
    assert found.verdict == "contradicted"
    assert found.reason.endswith(".")


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"E17", "E24"}))
def test_seeds_that_disagree_leave_a_claim_open(name: str) -> None:
    assert judged(name, *CASES[name], CASES[name][0]).verdict == "open"


def test_without_a_single_seed_nothing_is_decided() -> None:
    assert agreed([], "nothing was run").verdict == "open"


def test_an_identity_that_holds_without_a_landscape_is_an_artefact() -> None:
    assert judged("E14", IDENTITY, IDENTITY).verdict == "artefact"
    other_rule_has_it_too = IDENTITY | {"largest deviation of the product from 10, equation 3.8, real gradients": 1e-15}
    assert judged("E14", other_rule_has_it_too).verdict != "artefact"


@pytest.mark.parametrize(("accuracy", "said"), [(0.5, "does no harm either"), (0.4, "claim is contradicted")])
def test_freezing_that_froze_nothing_is_an_artefact_and_the_real_one_is_told(accuracy: float, said: str) -> None:
    found = judged("E17", *[FROZEN | {"accuracy, by similarity": accuracy}] * 5)
    assert found.verdict == "artefact"
    assert said in found.reason


def test_freezing_is_no_artefact_where_nothing_was_called_frozen() -> None:
    assert judged("E17", FROZEN | {"layers frozen, as published": 0.0}).verdict != "artefact"


def test_paths_that_meet_by_construction_are_an_artefact() -> None:
    meet = {"parabola minus real path at 0.5": 0.0, "the same with random weights half way": 0.0}
    assert judged("E28", meet, meet).verdict == "artefact"


@pytest.mark.parametrize(("gains", "verdict"), [(0.02, "reproduced"), (-0.02, "contradicted"), (0.0, "open")])
def test_decay_is_decided_by_a_paired_test(gains: float, verdict: str) -> None:
    runs = [{"gain by decay": gains + 0.001 * (-1) ** seed} for seed in range(10)]
    assert judged("E15", *runs).verdict == verdict
    assert judged("E15", *runs[:3]).verdict == "open"


def test_a_slope_between_networks_that_learn_nothing_is_open() -> None:
    dead = CASES["E10"][0] | {"final loss at 0.05": 2.3, "final loss at 0.1": 2.3}
    assert judged("E10", dead, dead, dead).verdict == "open"


def test_three_of_five_seeds_decide_about_the_most_sensitive_layer() -> None:
    holds, fails = CASES["E24"]
    assert judged("E24", holds, holds, holds, fails, fails).verdict == "reproduced"
    assert judged("E24", holds, holds, fails, fails, fails).verdict == "contradicted"


def test_there_are_thirty_one_experiments_in_order() -> None:
    assert [each.id for each in EXPERIMENTS] == [f"E{number}" for number in range(1, 32)]
    assert {each.id for each in EXPERIMENTS} == CASES.keys() | {"E15"}
    with pytest.raises(UnknownExperiment, match="did you mean"):
        experiment_named("E331")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.id)
def test_what_is_shown_and_drawn_was_measured(experiment: Experiment) -> None:
    runs = [Measured.from_dict(each) for each in RESULTS["protocols"].get(experiment.protocol.name, ())]
    if not runs:
        pytest.skip("no result is recorded yet")
    wanted = {*experiment.shown, *experiment.plot.numbers}
    assert all(wanted <= run.numbers.keys() for run in runs)
    assert all(any(name.startswith(start) for name in runs[0].curves) for start in experiment.plot.curves)
    assert (REPOSITORY / "docs" / "images" / "experiments" / f"{experiment.id}.svg").exists()


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_experiments", REPOSITORY / "scripts" / "make_experiments.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_verdicts_are_what_the_recorded_figures_give() -> None:
    script = _script()
    assert script.page(RESULTS) == (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8"), "run python scripts/make_experiments.py"
    assert script.verdicts(RESULTS) == RESULTS["verdicts"]


def test_at_least_twenty_four_claims_have_a_verdict_over_three_seeds() -> None:
    decided = [each.id for each in EXPERIMENTS if each.id in RESULTS["verdicts"] and len(RESULTS["protocols"][each.protocol.name]) >= 3]
    assert len(decided) >= 24


@pytest.fixture
def images() -> Images:
    return images_for("fashion-mnist-small").first(256, 250)


def tiny(name: str = "tiny", fails_at: int | None = None) -> tuple[Experiment, list[int]]:
    """The experiment E8 on two steps of 64 images, and the seeds that were really run."""
    ran: list[int] = []

    def run(seed: int, images: Images) -> Measured:
        ran.append(seed)
        if seed == fails_at:
            raise KeyboardInterrupt
        found = {}
        for rate in (0.01, 0.05, 0.1):
            torch.manual_seed(seed)
            model = PathNet(images.channels)
            ratios = followed(model, torch.optim.SGD(model.parameters(), lr=rate), images.first(128, 10), batch_size=64, steps=2, seed=seed)
            found[f"first ratio at {rate:g}"] = ratios.values[0]
        return Measured(found, {"ratio": curve(range(2), ratios.values)})

    protocol = Protocol(name, "Two steps.", "fashion-mnist-small", run)
    return Experiment("E8", "Tiny", "A claim.", "A work", "A criterion.", protocol, judge_proportional, ("first ratio at 0.1",), Plot("step", "ratio", ("ratio",))), ran


def test_an_experiment_runs_from_its_seeds_to_a_verdict(tmp_path: Path) -> None:
    experiment, ran = tiny()
    state = torch.get_rng_state()
    found = Bench(tmp_path).run(experiment)
    assert ran == [0, 1, 2]
    assert judgement(experiment, found).verdict == "reproduced"
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0].measured["first ratio at 0.1"] != found[1].measured["first ratio at 0.1"]


def test_finished_seeds_are_taken_from_disk_with_the_same_figures(tmp_path: Path) -> None:
    experiment, ran = tiny()
    first = Bench(tmp_path).run(experiment, [0, 1])
    again = Bench(tmp_path).run(experiment, [0, 1, 5])
    assert ran == [0, 1, 5]
    assert again[:2] == first


def test_a_run_that_was_stopped_loses_the_seed_it_was_at_alone(tmp_path: Path) -> None:
    broken, _ = tiny(fails_at=1)
    with pytest.raises(KeyboardInterrupt):
        Bench(tmp_path).run(broken)
    experiment, ran = tiny()
    place = Bench(tmp_path).place(experiment.protocol, 1)
    place.with_suffix(".part").write_text('{"seed": 1, "numb')  # killed while writing
    Bench(tmp_path).run(experiment)
    assert ran == [1, 2]


def test_results_of_another_setup_are_not_taken(tmp_path: Path) -> None:
    experiment, ran = tiny()
    Bench(tmp_path).run(experiment, [0])
    other = Protocol("tiny", "Three steps.", "fashion-mnist-small", experiment.protocol.run)
    Bench(tmp_path).finished(other, 0)
    assert ran == [0, 0]


def test_images_that_are_not_at_hand_are_replaced_by_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNDOCTOR_TEST_DATA", raising=False)
    assert images_for("cifar10", tmp_path).name == "fashion-mnist-small"


def test_what_was_measured_survives_json_with_its_gaps() -> None:
    measured = Measured({"a": 1 / 3, "b": math.nan}, {"c": ((0.0, 1.0), (2.0, math.inf))})
    back = Measured.from_dict(json.loads(json.dumps(measured.to_dict())))
    assert back["a"] == 0.33333
    assert math.isnan(back["b"])
    assert back.curves["c"][1][0] == 2.0
    assert math.isnan(back.curves["c"][1][1])


def test_adam_is_read_from_its_own_state(images: Images) -> None:
    torch.manual_seed(0)
    model = PathNet(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = AdamObserver(model, optimizer)
    fit(model, optimizer, images, batch_size=64, steps=1)
    (row,) = [layers["fc1"] for _, layers in seen.rows]
    gradient = model.fc1.weight.grad
    assert gradient is not None
    present = gradient[gradient != 0].abs()
    assert row[0] == pytest.approx(float((1e-3 / present).median()), rel=0.02)  # the first step is the rate, whatever the gradient
    assert row[1] == pytest.approx(float(gradient.square().median()), rel=1e-4)


def test_the_published_freezing_trains_on_and_is_called_frozen(images: Images) -> None:
    model = PathNet(1)
    freezer = NamedOnly(model)
    freezer.freeze("conv1")
    before = model.conv1.weight.detach().clone()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), images, batch_size=64, steps=1)
    assert freezer.frozen == ("conv1",)
    assert not torch.equal(model.conv1.weight, before)


def test_timing_layers_one_by_one_changes_no_weight() -> None:
    inputs, targets, picked = torch.randn(8, 3, 63, 63), torch.randint(0, 10, (8,)), torch.arange(8)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(TimedAlexNet(size=63, widths=(4, 4, 4, 4, 4), hidden=8))
    optimizer = torch.optim.SGD(models[0].parameters(), lr=1e-3, momentum=0.9)
    torch.manual_seed(1)  # dropout
    F.cross_entropy(models[0](inputs), targets).backward()
    optimizer.step()
    torch.manual_seed(1)
    found = Stepper(models[1], inputs, targets).step(picked)
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)
    assert list(found.layers) == list(CHILDREN)
    assert 0 <= found.unaccounted < 1


def test_a_layer_that_never_converges_counts_as_one_epoch_more() -> None:
    assert first_reached([0.5, 0.995, 0.9]) == 2
    assert first_reached([0.5, 0.9]) == 3


def test_figures_are_drawn_of_curves_and_of_numbers() -> None:
    curves = draw_experiment(tiny()[0], [Measured({}, {"ratio": ((0.0, 1.0), (1.0, 2.0))})] * 2)
    assert len(curves.axes[0].lines) == 2
    numbers = draw_experiment(experiment_named("E8"), [Measured(_Numbers(by_rate("first ratio", 1, math.nan, 3)))])
    assert [label.get_text() for label in numbers.axes[0].get_yticklabels()] == ["0.01", "0.05", "0.1"]
    assert shortened(["accuracy with fc1 at init", "accuracy with conv1 at init"]) == ["fc1", "conv1"]


def test_small_networks_learn_in_the_training_loop(images: Images) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    found = fit(model, torch.optim.SGD(model.parameters(), lr=0.01), images, batch_size=64, epochs=5, seed=0)
    assert len(found.losses) == 20
    assert found.final_loss < found.losses[0]
    assert found.accuracy > 0.4
