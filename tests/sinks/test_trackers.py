"""The trackers themselves, offline: what a sick run leaves in each of them, and what it leaves alone."""

from __future__ import annotations

import json
import struct
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor import sinks
from nndoctor.sinks import sender
from tests.integrations.examples import example, roots

STEPS = 120


@pytest.fixture(autouse=True)
def _every_row_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's run is over before a second has passed."""
    monkeypatch.setattr(sender, "SEND_SECONDS", 0.0)


def train(tmp_path: Path, *, each_step: Callable[[int, float], None] = lambda step, loss: None, **options: Any) -> nndoctor.Doctor:
    """A run whose learning rate is far too high."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    inputs = torch.randn(256, 8)
    targets = (inputs.sum(1) > 0).long()
    with nndoctor.wrap(model, optimizer, run_dir=tmp_path / "run", ui="off", strict=True, **options) as doctor:
        for step in range(STEPS):
            rows = slice(step * 16 % 256, step * 16 % 256 + 16)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            each_step(step, loss.item())
    diagnosis = doctor.diagnosis()
    assert not diagnosis.probe_failures, diagnosis.probe_failures
    assert "learning-rate-too-high" in diagnosis.verdict
    return doctor


# --- TensorBoard


def test_tensorboard_gets_curves_findings_and_verdict(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install -e .[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "tb")) as writer:
        train(tmp_path, sinks=[sinks.TensorBoardSink(writer)], each_step=lambda step, loss: writer.add_scalar("mine", loss, step))
        writer.add_scalar("mine", 0.0, STEPS)  # still open
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert {"mine", "nndoctor/loss", "nndoctor/grad.total_norm", "nndoctor/update.ratio.median"} <= set(events.Tags()["scalars"])
    assert events.Scalars("nndoctor/loss")[-1].step == STEPS
    texts = b" ".join(event.tensor_proto.string_val[0] for event in events.Tensors("nndoctor/findings/text_summary"))
    assert b"learning-rate-too-high" in texts
    assert b"learning-rate-too-high" in events.Tensors("nndoctor/verdict/text_summary")[0].tensor_proto.string_val[0]


# --- Weights & Biases


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    library = pytest.importorskip("wandb", reason="pip install -e .[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield library
    library.finish()


def records_of(log: bytes) -> Iterator[bytes]:
    """The records of W&B's file: LevelDB's log format (blocks of 32 KiB) behind a header of seven bytes."""
    at, record = 7, b""
    while at + 7 <= len(log):
        left = 32768 - at % 32768
        _, length, kind = struct.unpack_from("<IHB", log, at)
        if left < 7 or kind == 0:  # the end of a block is padded
            at += left
            continue
        part = log[at + 7 : at + 7 + length]
        at += 7 + length
        record = part if kind in (1, 2) else record + part  # whole, first | middle, last
        if kind in (1, 4):
            yield record


def logged(wandb: Any, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the history and titles of the alerts in the file of an offline run."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows: list[dict[str, Any]] = []
    alerts: list[str] = []
    for data in records_of(path.read_bytes()):
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(data)
        if entry.WhichOneof("record_type") == "history":
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item})
        elif entry.WhichOneof("record_type") == "alert":
            alerts.append(entry.alert.title)
    return rows, alerts


def test_wandb_is_found_and_no_row_of_the_script_is_lost(wandb: Any, tmp_path: Path) -> None:
    run = wandb.init(project="test", dir=str(tmp_path))
    train(tmp_path, each_step=lambda step, loss: run.log({"mine": loss}, step=step))
    assert wandb.run is run, "the run is the script's to end"
    assert "learning-rate-too-high" in run.summary["nndoctor/verdict"]
    run.finish()
    deadline = time.monotonic() + 30
    rows, alerts = logged(wandb, tmp_path)
    while sum("mine" in row for row in rows) < STEPS and time.monotonic() < deadline:  # W&B's own process may still write
        time.sleep(0.2)
        rows, alerts = logged(wandb, tmp_path)
    assert [row["_step"] for row in rows if "mine" in row] == list(range(STEPS)), "W&B's own step is the script's"
    ours = [row for row in rows if "nndoctor/loss" in row]
    assert ours
    assert {"nndoctor/step", "nndoctor/grad.total_norm"} <= set(ours[0])
    assert any(title.startswith("learning-rate-too-high") for title in alerts)


def test_a_wandb_run_that_the_script_has_finished_is_left_alone(wandb: Any, tmp_path: Path) -> None:
    run = wandb.init(project="test", dir=str(tmp_path))
    train(tmp_path, each_step=lambda step, loss: run.finish() if step == 20 else None)


def test_without_a_run_of_wandb_there_is_no_sink(wandb: Any) -> None:
    assert not any(isinstance(sink, sinks.WandbSink) for sink in sinks.active_sinks())


# --- MLflow


def test_mlflow_is_found_and_its_run_stays_the_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="pip install -e .[mlflow]")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        monkeypatch.setattr(sender, "SEND_SECONDS", 0.05)
        train(tmp_path, each_step=lambda step, loss: mlflow.log_metric("mine", loss, step=step) if step % 40 == 0 else None)
        assert mlflow.active_run().info.run_id == run.info.run_id
    client = mlflow.MlflowClient()
    kept = client.get_run(run.info.run_id)
    assert kept.info.status == "FINISHED"
    assert {"mine", "nndoctor/loss", "nndoctor/grad.total_norm"} <= set(kept.data.metrics)
    assert client.get_metric_history(run.info.run_id, "nndoctor/loss")[-1].step == STEPS
    assert "learning-rate-too-high" in kept.data.tags["nndoctor.verdict"]
    assert "set lr=" in kept.data.tags["nndoctor.learning-rate-too-high"]


# --- Trackio


def test_trackio_is_found_and_its_own_count_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    try:
        import trackio
    except ImportError as reason:
        pytest.skip(f"pip install -e .[trackio]: {reason}")
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    trackio.init(project="nndoctor-test", name="run", embed=False, auto_log_gpu=False)
    said: list[str] = []
    run = trackio.context_vars.current_run.get()
    rows: list[dict[str, Any]] = []
    log, alert = run.log, run.alert
    monkeypatch.setattr(run, "log", lambda metrics, step=None: (rows.append({**metrics, "_step": step}), log(metrics, step=step))[1])
    monkeypatch.setattr(run, "alert", lambda title, *args, **kwargs: (said.append(title), alert(title, *args, **kwargs))[1])
    train(tmp_path, each_step=lambda step, loss: trackio.log({"mine": loss}))
    assert run._next_step == STEPS, "its steps are the script's"
    assert any("nndoctor/loss" in row for row in rows)
    assert any(title.startswith("learning-rate-too-high") for title in said)
    trackio.finish()


def test_trackio_rows_wait_for_the_scripts_first_row_or_the_end() -> None:
    class Run:
        _next_step = 0
        logged: ClassVar[list[tuple[float, int]]] = []

        def log(self, metrics: dict[str, Any], step: int) -> None:
            self.logged.append((metrics["nndoctor/step"], step))

    run = Run()
    sink = sinks.TrackioSink(run)
    sink.signals(1, {"loss": 2.0})
    assert not run.logged, "a row now would move the script's count on"
    run._next_step = 5
    sink.signals(2, {"loss": 1.0})
    assert run.logged == [(1, 4), (2, 4)]
    run._next_step = 0
    sink.signals(3, {"loss": 0.5})
    sink.close(nndoctor.Diagnosis())
    assert run.logged[-1] == (3, 0)


# --- Aim


def test_aim_gets_curves_and_findings(tmp_path: Path) -> None:
    aim = pytest.importorskip("aim", reason="pip install -e .[aim]")
    run = aim.Run(repo=str(tmp_path), system_tracking_interval=None, capture_terminal_logs=False)
    train(tmp_path, sinks=[sinks.AimSink(run)])
    assert "learning-rate-too-high" in run["nndoctor_verdict"]
    run.track(1.0, name="loss", step=STEPS)  # still open, and a curve of the same name is not ours
    run.close()
    kept = aim.Run(run.hash, repo=str(tmp_path), system_tracking_interval=None, capture_terminal_logs=False)
    curves = {metric.name: metric for metric in kept.metrics() if metric.context.to_dict() == {"source": "nndoctor"}}
    assert {"loss", "grad.total_norm", "update.ratio.median"} <= set(curves)
    assert len(curves["loss"].values.values_list()) > 1
    assert "learning-rate-too-high" in kept["nndoctor_learning-rate-too-high"]
    assert "set lr=" in kept["nndoctor_verdict"]
    kept.close()


# --- Prometheus


def test_prometheus_serves_curves_and_the_findings_that_hold(tmp_path: Path) -> None:
    client = pytest.importorskip("prometheus_client", reason="pip install -e .[prometheus]")
    registry = client.CollectorRegistry()
    train(tmp_path, sinks=[sinks.PrometheusSink("mine", registry=registry)])
    text = client.generate_latest(registry).decode()
    assert f'nndoctor_step{{run="mine"}} {STEPS}.0' in text
    assert 'nndoctor_grad_total_norm{run="mine"}' in text
    labels = {"run": "mine", "rule": "learning-rate-too-high", "diagnosis": "learning-rate-too-high", "severity": "critical"}
    assert registry.get_sample_value("nndoctor_finding", labels) == 1.0


def test_prometheus_takes_the_next_run_of_the_process_on_the_same_port() -> None:
    client = pytest.importorskip("prometheus_client", reason="pip install -e .[prometheus]")
    registry = client.CollectorRegistry()
    first, second = (sinks.PrometheusSink(run, registry=registry, port=0) for run in ("first", "second"))
    first.signals(7, {"loss": 0.5})
    second.signals(3, {"loss": 2.0})
    assert first.port == second.port
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{first.port}/metrics") as answer:  # never leaves the machine
        lines = answer.read().decode().splitlines()
    assert 'nndoctor_loss{run="first"} 0.5' in lines
    assert 'nndoctor_loss{run="second"} 2.0' in lines
    assert sum(line.startswith("# TYPE nndoctor_loss ") for line in lines) == 1


# --- OpenTelemetry


def test_opentelemetry_is_found_by_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics", reason="pip install -e .[opentelemetry]")
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    assert not any(isinstance(sink, sinks.OpenTelemetrySink) for sink in sinks.active_sinks()), "nobody has set one yet"
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)  # a process can set one only once
    train(tmp_path)
    found = {m.name: m for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert {"nndoctor.loss", "nndoctor.step", "nndoctor.finding"} <= set(found)
    assert any(point.attributes["rule"] == "learning-rate-too-high" and point.value == 1.0 for point in found["nndoctor.finding"].data.data_points)
    provider.shutdown()


def test_opentelemetry_tells_runs_of_one_process_apart_by_their_names() -> None:
    pytest.importorskip("opentelemetry.sdk.metrics", reason="pip install -e .[opentelemetry]")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    sinks.OpenTelemetrySink(provider, run="first").signals(7, {"loss": 0.5})
    sinks.OpenTelemetrySink(provider, run="second").signals(3, {"loss": 2.0})
    found = [m for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == "nndoctor.loss"]
    points = [point for metric in found for point in metric.data.data_points]
    assert sorted((point.attributes["run"], point.value) for point in points) == [("first", 0.5), ("second", 2.0)]
    provider.shutdown()


# --- the example script


@pytest.mark.parametrize(
    ("tracker", "library"),
    [
        ("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio"), ("aim", "aim"),
        ("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry.sdk"),
    ],
)  # fmt: skip
def test_the_example_leaves_curves_and_the_finding_in_each_tracker_offline(
    tracker: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    module = pytest.importorskip(library, reason=f"pip install -e .[{tracker}]")
    assert module is not None
    if tracker == "trackio":  # reads the variable when it is first imported, and hands it to modules of its own
        for name, part in list(sys.modules.items()):
            if name.startswith("trackio.") and hasattr(part, "TRACKIO_DIR"):
                monkeypatch.setattr(part, "TRACKIO_DIR", tmp_path / "trackio")
    found = example("trackers")([tracker, "--lr", "5", "--steps", "60", "--folder", str(tmp_path / tracker)])
    assert roots(found) == ["learning-rate-too-high"]
    written = b"".join(path.read_bytes() for path in sorted((tmp_path / tracker).rglob("*")) if path.is_file())
    assert b"nndoctor" in written
    assert b"learning-rate-too-high" in written
