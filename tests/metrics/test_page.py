"""What docs/metrics.md shows runs as it stands there, and its metric is ten lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor.metrics.kinds import KINDS
from nndoctor.record import RecordReader
from nndoctor.subscribers import EVENTS, TOPICS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lstm, self.fc2 = nn.Linear(4, 6), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.lstm(torch.relu(self.fc1(x))[:, None])[0][:, -1])


def test_the_examples_run_as_they_stand_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = Net()
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    names: dict[str, Any] = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "x": x}
    exec(compile(BLOCKS[0], "docs/metrics.md", "exec"), names)
    exec(compile(BLOCKS[1], "docs/metrics.md", "exec"), names)
    doctor: nndoctor.Doctor = names["doctor"]
    doctor.subscribe(names["Drift"]())
    for _ in range(101):
        names["optimizer"].zero_grad()
        F.cross_entropy(model(x), y).backward()
        names["optimizer"].step()
    exec(compile(BLOCKS[2], "docs/metrics.md", "exec"), names)
    doctor.close()
    with RecordReader(doctor.run_dir) as reader:
        frames, params = list(reader.frames()), reader.targets.params
        measured = {frame.step: frame.values["metric.alignment"] for frame in frames if "metric.alignment" in frame.values}
        drift = {frame.step: frame.values["weights.drift"] for frame in frames if "weights.drift" in frame.values}
    assert sorted(measured) == list(range(1, 102, 10))
    assert {name for name, value in zip(params, measured[11].tolist(), strict=True) if value == value} == {"fc1.weight", "fc2.weight"}
    assert {step: round(float(values[0]), 3) > 0 for step, values in drift.items()} == {1: False, 101: True}


def test_the_metric_of_ones_own_is_no_longer_than_the_page_says() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10


def test_the_page_names_every_topic_event_and_kind() -> None:
    for topic in (*TOPICS, *EVENTS):
        assert f"`{topic}`" in PAGE, topic
    for kind in KINDS.values():
        assert kind.name.rpartition("TOPIC.")[2] in PAGE, kind.name
