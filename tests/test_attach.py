"""`nndoctor run` finds model, optimizer, loss, loaders and validation of scripts that know nothing of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from nndoctor.cli.run import CheckupOptions, RunOptions, run_script
from nndoctor.doctor import attached_doctors
from nndoctor.record import RecordReader

HEAD = """
import sys
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(96, 4); Y = (X.sum(1) > 0).long()
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8); self.second = nn.Linear(8, 2)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))
model = Net()
"""

PLAIN = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            nn.functional.cross_entropy(model(x), y)
print("argv", sys.argv[1:], __name__)
"""

AMP = """
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for epoch in range(2):
    for number, (x, y) in enumerate(loader):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(x), y) / 2
        scaler.scale(loss).backward()
        if number % 2:
            scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
"""

GAN = """
judge = nn.Linear(4, 1); maker = nn.Linear(3, 4)
of_judge = torch.optim.Adam(judge.parameters(), lr=1e-3); of_maker = torch.optim.Adam(maker.parameters(), lr=1e-3)
for x, _ in loader:
    fake = maker(torch.randn(16, 3))
    of_judge.zero_grad(); (judge(fake.detach()).mean() - judge(x).mean()).backward(); of_judge.step()
    of_maker.zero_grad(); (-judge(fake).mean()).backward(); of_maker.step()
"""


def run(tmp_path: Path, body: str, *arguments: str) -> tuple[int, Path]:
    script = tmp_path / "train.py"
    script.write_text(HEAD + body)
    folder = tmp_path / "run"
    code = run_script(["--", str(script), *arguments], RunOptions(ui="off", run_dir=folder))
    return code, folder


def test_a_plain_loop_is_followed_with_names_epochs_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = run(tmp_path, PLAIN, "--lr", "0.1")
    assert code == 0
    captured = capsys.readouterr()
    assert captured.out == "argv ['--lr', '0.1'] __main__\n"
    assert "No problems found in 18 steps" in captured.err.splitlines()[-1]
    assert captured.err.rstrip().endswith(" rules, 2 layers)."), "the call of relu() is no layer of the model"
    reader = RecordReader(folder)
    found = list(reader.frames())
    assert reader.targets.params == ("first.weight", "first.bias", "second.weight", "second.bias")
    assert "/relu" in reader.targets.layers
    assert [f.epoch for f in found if "loss" in f.values][:7] == pytest.approx([n / 6 for n in range(1, 8)])
    assert len([f for f in found if "val.loss" in f.values]) == 3
    assert len([f for f in found if "loss" in f.values]) == 18
    assert reader.facts.facts["loss_found"] == "cross entropy"
    reader.close()


def test_mixed_precision_with_accumulation_shows_true_losses_from_the_first_step(tmp_path: Path) -> None:
    code, folder = run(tmp_path, AMP)
    reader = RecordReader(folder)
    found = list(reader.frames())
    assert code == 0
    assert len(found) == 6
    assert all(float(f.values["loss"][0]) < 1 for f in found)
    assert [float(f.values["loop.backwards"][0]) for f in found] == [2] * 6
    reader.close()


def test_a_gan_is_followed_with_both_networks(tmp_path: Path) -> None:
    code, folder = run(tmp_path, GAN)
    reader = RecordReader(folder)
    assert code == 0
    assert set(reader.targets.params) == {"linear0.weight", "linear0.bias", "linear1.weight", "linear1.bias"}
    assert reader.last_step == 6
    reader.close()


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(7)", 7), ("sys.exit()", 0), ("1 / 0", 1)])
def test_the_exit_code_is_the_scripts_own(
    tmp_path: Path, ending: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, folder = run(tmp_path, PLAIN + ending)
    assert found == code
    reader = RecordReader(folder)
    assert reader.status == ("finished" if code == 0 else "crashed")
    reader.close()
    shown = capsys.readouterr().err
    assert ("ZeroDivisionError" in shown) == (ending == "1 / 0")
    assert "runpy" not in shown


def test_a_script_that_trains_nothing_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = run(tmp_path, "print('done')")
    assert code == 0
    assert "nothing was diagnosed" in capsys.readouterr().err
    assert not folder.exists()


def test_a_missing_script_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(["--", "no_such.py"], RunOptions()) == 2
    assert "no such script: 'no_such.py'" in capsys.readouterr().err


def test_everything_is_put_back(tmp_path: Path) -> None:
    before = (torch.autograd.backward, torch.optim.Optimizer.__init__, torch.nn.functional.cross_entropy)
    run(tmp_path, PLAIN)
    assert before == (torch.autograd.backward, torch.optim.Optimizer.__init__, torch.nn.functional.cross_entropy)
    assert attached_doctors() == ()


COMPILED = """
model = torch.compile(model, backend="aot_eager")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad(); cross_entropy(model(x), y).backward(); optimizer.step()
"""


@pytest.mark.parametrize("checkup", [False, True])
def test_a_compiled_script_is_not_warned_of_our_hooks_and_shows_its_layers_on_eager_steps(tmp_path: Path, checkup: bool) -> None:
    script, folder = tmp_path / "train.py", tmp_path / "run"
    script.write_text(HEAD + COMPILED)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        code = run_script(["--", str(script)], RunOptions(ui="off", run_dir=folder, cadence=1, eager_every=2, checkup=CheckupOptions() if checkup else None))
        # The compiler's own imports add filters for good; ours is taken out again.
        assert not [pattern for _, pattern, *_ in warnings.filters if pattern is not None and "global hooks" in pattern.pattern]
    assert code == 0
    assert not [warning for warning in heard if "global hooks" in str(warning.message)]
    measured = [frame for frame in RecordReader(folder).frames() if "time.forward" in frame.values and frame.values["time.forward"].any()]
    assert measured


def test_zero_in_the_environment_runs_the_script_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNDOCTOR", "0")
    code, folder = run(tmp_path, PLAIN)
    assert code == 0
    assert capsys.readouterr().err == ""
    assert not folder.exists()
