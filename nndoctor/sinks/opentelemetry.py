"""OpenTelemetry: curves and findings as gauges of a meter called ``nndoctor``, sent wherever the script's SDK sends."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nndoctor.findings import Diagnosis, Finding


class OpenTelemetrySink:
    """Sets gauges ``nndoctor.<signal>`` and ``nndoctor.finding`` (1 while it holds) with a few attributes each.

    Args:
        provider: a ``MeterProvider``; None: the one that the script has set for the process.
        run: attribute that tells this run from others of the process; none where it is empty.
    """

    name = "opentelemetry"

    def __init__(self, provider: Any = None, run: str = "") -> None:
        metrics = import_module("opentelemetry.metrics")
        self._meter = (provider if provider is not None else metrics.get_meter_provider()).get_meter("nndoctor")
        self._gauges: dict[str, Any] = {}
        self._attributes = {"run": run} if run else {}

    @classmethod
    def active(cls) -> OpenTelemetrySink | None:
        """A sink for the process's meter provider; None where the script has set none of an SDK."""
        if "opentelemetry.metrics" not in sys.modules or "opentelemetry.sdk.metrics" not in sys.modules:
            return None
        provider = sys.modules["opentelemetry.metrics"].get_meter_provider()
        return cls(provider) if isinstance(provider, sys.modules["opentelemetry.sdk.metrics"].MeterProvider) else None

    def _gauge(self, name: str, help: str) -> Any:
        if name not in self._gauges:
            self._gauges[name] = self._meter.create_gauge(f"nndoctor.{name}", description=help)
        return self._gauges[name]

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in {**values, "step": float(step)}.items():
            self._gauge(name, f"nndoctor: {name}").set(value, self._attributes)

    def finding(self, finding: Finding) -> None:
        attributes = {**self._attributes, "rule": finding.rule, "diagnosis": finding.diagnosis, "severity": finding.severity.label}
        holds = 0.0 if finding.state == "cleared" else 1.0
        self._gauge("finding", "nndoctor: findings that hold now").set(holds, attributes)

    def close(self, diagnosis: Diagnosis) -> None:
        """Nothing to do: the reader exports the last values when it is due, or shut down."""
