"""Curves and findings in the tracker that you look at anyway, all of them offline; ``--lr 5`` makes the training sick.

python examples/integrations/trackers.py mlflow --lr 5
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor.sinks import AimSink, OpenTelemetrySink, PrometheusSink, Sink, TensorBoardSink
from nndoctor.zoo.data import classification

Sinks = Sequence[Sink] | Literal["auto"]
"""What ``wrap`` is told: ``auto`` where the doctor finds the run by itself."""


@contextmanager
def with_tensorboard(folder: Path) -> Iterator[Sinks]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        yield [TensorBoardSink(writer)]
    print(f"tensorboard --logdir {folder}")


@contextmanager
def with_wandb(folder: Path) -> Iterator[Sinks]:
    import wandb

    with wandb.init(project="nndoctor-example", dir=str(folder), mode="offline") as run:
        yield "auto"
    print(f"wandb sync {Path(run.dir).parent}")


@contextmanager
def with_mlflow(folder: Path) -> Iterator[Sinks]:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri((folder.resolve() / "mlruns").as_uri())
    with mlflow.start_run():
        yield "auto"
    print(f"mlflow ui --backend-store-uri {folder / 'mlruns'}")


@contextmanager
def with_trackio(folder: Path) -> Iterator[Sinks]:
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    import trackio

    trackio.init(project="nndoctor-example", embed=False, auto_log_gpu=False)
    yield "auto"
    trackio.finish()
    print("trackio show --project nndoctor-example")


@contextmanager
def with_aim(folder: Path) -> Iterator[Sinks]:
    import aim

    run = aim.Run(repo=str(folder), system_tracking_interval=None)
    yield [AimSink(run)]
    run.close()
    print(f"aim up --repo {folder}")


@contextmanager
def with_prometheus(folder: Path) -> Iterator[Sinks]:
    from prometheus_client import CollectorRegistry, write_to_textfile

    registry = CollectorRegistry()  # a long run would rather be asked: PrometheusSink(port=9464)
    yield [PrometheusSink("example", registry=registry)]
    write_to_textfile(str(folder / "metrics.prom"), registry)
    print(f"cat {folder / 'metrics.prom'}")


@contextmanager
def with_opentelemetry(folder: Path) -> Iterator[Sinks]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(out=file))])
        yield [OpenTelemetrySink(provider)]  # one that is set by set_meter_provider is found by itself
        provider.shutdown()
    print(f"cat {folder / 'metrics.jsonl'}")


TRACKERS: dict[str, Callable[[Path], AbstractContextManager[Sinks]]] = {
    "tensorboard": with_tensorboard,
    "wandb": with_wandb,
    "mlflow": with_mlflow,
    "trackio": with_trackio,
    "aim": with_aim,
    "prometheus": with_prometheus,
    "opentelemetry": with_opentelemetry,
}


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=TRACKERS)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="of the tracker's files; its name by default")
    options = parser.parse_args(argv)

    folder = options.folder or Path(options.tracker)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    with TRACKERS[options.tracker](folder) as sinks, nndoctor.wrap(model, optimizer, sinks=sinks) as doctor:
        for _, (images, classes) in zip(range(options.steps), classification().train_loader(), strict=False):
            optimizer.zero_grad()
            F.cross_entropy(model(images), classes).backward()
            optimizer.step()
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
