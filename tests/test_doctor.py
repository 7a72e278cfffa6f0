"""Attaching, following steps, letting go: the doctor's promises about the user's training."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.discovery import ModelIndex
from nndoctor.doctor import attached_doctors
from nndoctor.probes.built_in import further_probes
from nndoctor.record import RecordReader
from nndoctor.signals import CATALOGUE, Frame

X = torch.linspace(-2, 2, 48 * 4).reshape(48, 4)
Y = (X.sum(1) > 0).long()


@pytest.fixture
def wrap(tmp_path: Path) -> Callable[..., nndoctor.Doctor]:
    def attach(*args: Any, **kwargs: Any) -> nndoctor.Doctor:
        defaults = {"run_dir": tmp_path / "run", "ui": "off", "strict": True}
        return nndoctor.wrap(*args, **{**defaults, **kwargs})

    yield attach
    for doctor in attached_doctors():
        doctor.close()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor = X, y: torch.Tensor = Y) -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def frames(doctor: nndoctor.Doctor) -> list[Frame]:
    doctor.close()
    reader = RecordReader(doctor.run_dir)
    try:
        return list(reader.frames())
    finally:
        reader.close()


def values(found: list[Frame], name: str) -> list[float]:
    return [float(frame.values[name][0]) for frame in found if name in frame.values]


def hooks_of(model: nn.Module) -> int:
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"))


def test_every_optimizer_step_is_one_frame_with_its_true_loss(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    losses = [float(step(model, optimizer).detach()) for _ in range(7)]
    found = frames(doctor)
    assert [frame.step for frame in found] == list(range(1, 8))
    assert values(found, "loss") == pytest.approx(losses)
    assert values(found, "lr") == pytest.approx([0.1] * 7)


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda model: nn.CrossEntropyLoss()(model(X), Y),
        lambda model: F.nll_loss(model(X).log_softmax(-1), Y),
        lambda model: -(model(X).log_softmax(-1)[torch.arange(48), Y]).mean(),
    ],
    ids=["module", "function", "inline"],
)
def test_the_loss_is_found_however_it_is_written(wrap: Callable[..., nndoctor.Doctor], loss_of: Callable[..., torch.Tensor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    loss = loss_of(model)
    loss.backward()
    optimizer.step()
    assert values(frames(doctor), "loss") == pytest.approx([float(loss.detach())])


def test_a_loss_that_is_not_finite_makes_the_next_step_a_measured_one(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer, cadence=1000)
    for number in range(1, 80):
        step(model, optimizer, X * (float("nan") if number == 70 else 1.0))
    sampled = [frame.step for frame in frames(doctor) if "act.nonfinite" in frame.values]
    assert sampled == [*range(1, 51), 71, 72, 73]


def test_training_may_happen_in_another_thread_than_wrapping(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)

    def train() -> None:
        for _ in range(4):
            step(model, optimizer)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert len(values(frames(doctor), "loss")) == 4


def test_accumulation_is_one_step_of_several_micro_steps(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        for part in range(4):
            F.cross_entropy(model(X[part::4]), Y[part::4]).backward()
        optimizer.step()
    found = frames(doctor)
    assert len(found) == 3
    assert values(found, "loop.backwards") == [4, 4, 4]
    assert values(found, "loss.micro_min")[0] < values(found, "loss")[0] < values(found, "loss.micro_max")[0]


def test_a_closure_optimizer_makes_one_frame_per_step(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    doctor = wrap(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    found = frames(doctor)
    assert [frame.step for frame in found] == [1, 2, 3]
    assert "grad.norm" in found[0].values
    assert values(found, "loop.backwards")[0] > 1


def test_a_step_that_the_gradient_scaler_skips_is_counted(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    doctor = wrap(model, optimizer)
    for number in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y) * (float("inf") if number == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    found = frames(doctor)
    assert values(found, "step.skipped_total")[-1] == 1
    assert values(found, "loss")[0] < 2  # the true loss, not the scaled one


def test_two_optimizers_share_one_frame_per_round(wrap: Callable[..., nndoctor.Doctor]) -> None:
    first, second = net(), net()
    optimizers = [torch.optim.SGD(first.parameters(), lr=0.1), torch.optim.Adam(second.parameters(), lr=0.01)]
    doctor = wrap({"first": first, "second": second}, optimizers)
    for _ in range(4):
        step(first, optimizers[0])
        step(second, optimizers[1])
    found = frames(doctor)
    assert len(found) == 4
    reader = RecordReader(doctor.run_dir)
    assert reader.targets.params[0] == "first.0.weight"
    assert reader.targets.params[-1] == "second.2.bias"
    reader.close()


def test_a_parameter_group_added_in_the_middle_of_the_run_is_followed(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    first = torch.optim.SGD(model[1].parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    doctor = wrap(model, {"first": first, "second": second}, strict=True)
    for step in range(12):
        if step == 6:
            model[0].requires_grad_(True)
            first.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        first.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        first.step()
        second.step()
    doctor.close()
    assert doctor.diagnosis().probe_failures == ()
    reader = RecordReader(doctor.run_dir)
    last = [frame for frame in reader.frames() if "group.lr" in frame.values][-1]
    assert last.values["group.lr"].tolist() == pytest.approx([0.1, 0.3, 0.01])
    reader.close()


def test_one_optimizer_that_steps_more_often_makes_a_frame_each_time(wrap: Callable[..., nndoctor.Doctor]) -> None:
    critic, generator = net(), net()
    often = torch.optim.SGD(critic.parameters(), lr=0.1)
    seldom = torch.optim.SGD(generator.parameters(), lr=0.1)
    doctor = wrap([critic, generator], [often, seldom])
    for _ in range(3):
        for _ in range(5):
            step(critic, often)
        step(generator, seldom)
    assert len(frames(doctor)) in (15, 16)


def test_closing_leaves_no_hook_thread_or_patch(wrap: Callable[..., nndoctor.Doctor]) -> None:
    before = (torch.autograd.backward, DataLoader.__iter__, torch.optim.Optimizer.zero_grad)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    threads = set(threading.enumerate())
    doctor = wrap(model, optimizer)
    step(model, optimizer)
    assert hooks_of(model) > 0
    doctor.close()
    doctor.close()
    assert hooks_of(model) == 0
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert set(threading.enumerate()) == threads
    assert before == (torch.autograd.backward, DataLoader.__iter__, torch.optim.Optimizer.zero_grad)
    assert attached_doctors() == ()


def test_wrapping_twice_gives_the_same_doctor(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    assert wrap(model, optimizer) is doctor
    step(model, optimizer)
    assert len(frames(doctor)) == 1


def test_the_wrapped_model_pickles_copies_and_saves(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrap(model, optimizer)
    step(model, optimizer)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(X), model(X))
    assert list(model.state_dict()) == list(net().state_dict())


def test_a_copy_is_not_followed(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    copy.deepcopy(model)(X)
    step(model, optimizer)
    assert values(frames(doctor), "loop.forwards") == [1]


def test_a_raising_probe_is_dismissed_and_named_and_training_goes_on(
    wrap: Callable[..., nndoctor.Doctor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nndoctor.probes.activations import ActivationProbe

    def fail(self: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(ActivationProbe, "collect", fail)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer, strict=False)
    for _ in range(3):
        step(model, optimizer)
    diagnosis = doctor.diagnosis()
    assert [(f.probe, "planted" in f.error) for f in diagnosis.probe_failures] == [("activations", True)]
    found = frames(doctor)
    assert len(found) == 3
    assert "grad.norm" in found[-1].values


def test_strict_lets_a_probe_raise(wrap: Callable[..., nndoctor.Doctor], monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.probes.parameters import ParameterProbe

    def fail(self: object, optimizer: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(ParameterProbe, "gradients_ready", fail)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrap(model, optimizer)
    with pytest.raises(RuntimeError, match="planted"):
        step(model, optimizer)


def test_zero_in_the_environment_switches_everything_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NNDOCTOR", "0")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndoctor.wrap(model, optimizer, run_dir=tmp_path / "run") as doctor:
        step(model, optimizer)
        doctor.observe(val_loss=1.0)
    with pytest.warns(UserWarning, match="NNDOCTOR=0"):
        doctor.report(tmp_path / "report.html")
    assert hooks_of(model) == 0
    assert doctor.diagnosis().findings == ()
    assert not (tmp_path / "run").exists()


def test_observed_values_become_signals(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    step(model, optimizer)
    doctor.observe(val_loss=0.5, accuracy=torch.tensor(0.75), bleu=12)
    with pytest.raises(TypeError, match="expects a number"):
        doctor.observe(note="hello")
    found = frames(doctor)
    assert values(found, "val.loss") == [0.5]
    assert values(found, "val.accuracy") == [0.75]
    assert values(found, "observed.bleu") == [12.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not a model", None), "expected a torch.nn.Module"),
        ((nn.Linear(2, 2), "not an optimizer"), "expected a torch.optim.Optimizer"),
        ((nn.Linear(2, 2), []), "empty list"),
    ],
)
def test_wrong_arguments_get_one_clear_error(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        nndoctor.wrap(*arguments)


def test_data_wait_and_epochs_come_from_the_loader(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(X, Y), batch_size=12)
    doctor = wrap(model, optimizer)
    for _ in range(2):
        for x, y in loader:
            step(model, optimizer, x, y)
    found = frames(doctor)
    assert [frame.epoch for frame in found] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert values(found, "loader.batches") == [4] * 8
    assert all(v >= 0 for v in values(found, "step.data_wait"))


def test_what_is_measured_is_in_the_catalogue(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    doctor = wrap(model, optimizer)
    for _ in range(10):
        step(model, optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    measured = {name for frame in frames(doctor) for name in frame.values}
    assert measured <= set(CATALOGUE.names())
    missing = {name for name in CATALOGUE.names() if not name.startswith("amp.")} - measured  # those need a scaler
    expected_missing = {
        "val.loss", "val.accuracy", "memory.accelerator", "compile.graphs", "step.data_wait", "step.data_wait_fraction",
        "loader.batches", "target.mean", "target.std", "target.nonfinite", "loop.lr_steps_per_epoch",
        "loss.micro_min", "loss.micro_max", "act.saturated_fraction",
        "time.recomputed", "busy.accelerator", "removal_cost",
    }  # fmt: skip
    of_further_probes = {name for probe in further_probes() for name in probe.signals}  # each has its own tests
    assert missing - of_further_probes <= expected_missing


def test_array_lengths_match_the_targets(wrap: Callable[..., nndoctor.Doctor]) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    doctor = wrap(model, optimizer)
    for _ in range(3):
        step(model, optimizer)
    found = frames(doctor)
    reader = RecordReader(doctor.run_dir)
    for frame in found:
        for name, array in frame.values.items():
            assert array.shape == (reader.targets.size(CATALOGUE[name].per),), name
    reader.close()


def test_a_tied_weight_is_counted_once() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    index = ModelIndex(model)
    assert index.param_names == ["0.weight"]


def test_the_record_survives_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, torch, nndoctor\n"
        "model = torch.nn.Linear(4, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        f"doctor = nndoctor.wrap(model, optimizer, run_dir={str(tmp_path / 'run')!r}, ui='off')\n"
        "for _ in range(40):\n"
        "    optimizer.zero_grad(); model(torch.ones(3, 4)).square().mean().backward(); optimizer.step()\n"
        "doctor.diagnosis(); doctor._worker.writer.flush()\n"
        "print(doctor._worker.writer.acknowledged, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    assert int(done.stdout) == 40
    reader = RecordReader(tmp_path / "run")
    assert reader.last_step == 40
    assert reader.status == "killed"
    assert len(list(reader.frames())) == 40
    reader.close()


def test_a_forgotten_close_happens_at_exit(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, nndoctor\n"
        "model = torch.nn.Linear(4, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        f"nndoctor.wrap(model, optimizer, run_dir={str(tmp_path / 'run')!r}, ui='off')\n"
        "for _ in range(5):\n"
        "    optimizer.zero_grad(); model(torch.ones(3, 4)).square().mean().backward(); optimizer.step()\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NNDOCTOR")}
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env=environment)
    reader = RecordReader(tmp_path / "run")
    assert (reader.status, reader.last_step) == ("finished", 5)
    reader.close()


def test_judging_the_record_gives_the_findings_of_the_live_run(wrap: Callable[..., nndoctor.Doctor]) -> None:
    from nndoctor.reporting import judge_record

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    for _ in range(30):
        F.cross_entropy(model(X), Y).backward()  # the gradients are never cleared
        optimizer.step()
    doctor.close()
    live = doctor.diagnosis()
    assert [f.diagnosis for f in live.root_causes] == ["missing-zero-grad"]
    reader = RecordReader(doctor.run_dir)
    again = judge_record(reader).diagnosis
    assert again.findings == live.findings
    assert again.steps == live.steps == 30
    assert reader.findings() == live.findings
    reader.close()


@pytest.mark.parametrize("suffix", ["html", "json", "md", "txt"])
def test_a_report_is_written_during_and_after_the_run(wrap: Callable[..., nndoctor.Doctor], tmp_path: Path, suffix: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    doctor = wrap(model, optimizer)
    step(model, optimizer)
    during = doctor.report(tmp_path / f"during.{suffix}").read_text()
    doctor.close()
    after = doctor.report(tmp_path / f"after.{suffix}").read_text()
    assert "No problems found" in during
    assert "No problems found" in after


@pytest.mark.parametrize("clears", [True, False])
def test_gradients_that_a_closure_never_clears_are_stale(wrap: Callable[..., nndoctor.Doctor], clears: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    doctor = wrap(model, optimizer)

    def closure() -> torch.Tensor:
        loss = F.cross_entropy(model(X), Y)
        if clears:
            optimizer.zero_grad()  # between forward and backward, as Lightning does it
        loss.backward()
        return loss

    for _ in range(6):
        optimizer.step(closure)
    assert sum(values(frames(doctor), "loop.stale_gradients")) == (0 if clears else 5)


def test_a_wrapper_that_is_an_optimizer_by_its_class_only_is_unwrapped(wrap: Callable[..., nndoctor.Doctor]) -> None:
    class Prepared(torch.optim.Optimizer):
        """As Accelerate makes them: nothing of torch's constructor has run, and `step` has no hooks."""

        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        def step(self, closure: Any = None) -> None:
            self.optimizer.step(closure)

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.optimizer.zero_grad(set_to_none)

    model = net()
    optimizer = Prepared(torch.optim.SGD(model.parameters(), lr=0.1))
    doctor = wrap(model, optimizer)
    for _ in range(3):
        step(model, optimizer)
    assert [frame.step for frame in frames(doctor)] == [1, 2, 3]
