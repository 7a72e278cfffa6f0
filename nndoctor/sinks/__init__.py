"""Sinks: main curves and findings in the tracker that the user looks at already.

A tracker's library is never imported here: it is used where the script has imported it and has a run under way.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from nndoctor.ranks import rank
from nndoctor.sinks.base import Sink as Sink

if TYPE_CHECKING:
    from nndoctor.sinks.aim import AimSink as AimSink
    from nndoctor.sinks.mlflow import MlflowSink as MlflowSink
    from nndoctor.sinks.opentelemetry import OpenTelemetrySink as OpenTelemetrySink
    from nndoctor.sinks.prometheus import PrometheusSink as PrometheusSink
    from nndoctor.sinks.tensorboard import TensorBoardSink as TensorBoardSink
    from nndoctor.sinks.trackio import TrackioSink as TrackioSink
    from nndoctor.sinks.wandb import WandbSink as WandbSink

_HOME = {
    "AimSink": "nndoctor.sinks.aim",
    "MlflowSink": "nndoctor.sinks.mlflow",
    "OpenTelemetrySink": "nndoctor.sinks.opentelemetry",
    "PrometheusSink": "nndoctor.sinks.prometheus",
    "TensorBoardSink": "nndoctor.sinks.tensorboard",
    "TrackioSink": "nndoctor.sinks.trackio",
    "WandbSink": "nndoctor.sinks.wandb",
}

FIND_THEMSELVES = ("WandbSink", "MlflowSink", "TrackioSink", "OpenTelemetrySink")
"""Sinks of trackers that know which run is active. The others have no such notion: hand them over by ``sinks=[...]``."""

ENTRY_POINTS = "nndoctor.sinks"
"""Group under which other packages publish a class like these, with a class method ``active``."""

__all__ = ["ENTRY_POINTS", "FIND_THEMSELVES", "Sink", "active_sinks", *_HOME]


def active_sinks(failed: Callable[[str, Exception], None] | None = None) -> list[Sink]:
    """A sink for each tracker in which the script has a run under way; none but on the first of several processes.

    Args:
        failed: told of a sink that could not be asked, as (where, error); without it that raises.
    """
    if rank() > 0:
        return []
    found: list[Sink] = []
    ways: list[tuple[str, Callable[[], Any]]] = [(name, lambda name=name: __getattr__(name)) for name in FIND_THEMSELVES]  # type: ignore[misc]
    ways += [(point.name, point.load) for point in entry_points(group=ENTRY_POINTS)]
    for name, load in ways:
        try:
            sink = load().active()
        except Exception as error:
            if failed is None:
                raise
            failed(f"sink {name}", error)
            continue
        if sink is not None:
            found.append(sink)
    return found


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nndoctor.sinks' has no attribute {name!r}")
