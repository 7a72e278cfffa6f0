"""Prometheus: the newest values and the findings that hold now, to be scraped; one series per curve and rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nndoctor.findings import Diagnosis, Finding

LABELS = ("run", "rule", "diagnosis", "severity")


class PrometheusSink:
    """Sets gauges ``nndoctor_<signal>{run}`` and ``nndoctor_finding{run, rule, diagnosis, severity}`` (1 while it holds).

    Args:
        run: label that tells this run from others.
        registry: the ``CollectorRegistry`` that the script exposes; None: the client's default one.
        port: serve the registry there, on this machine only, 0 for a free port; None: the script serves it itself.

    Attributes:
        port: where it is served, None if it is not.

    Several runs of one process may share a registry and a port; their names tell them apart.
    """

    name = "prometheus"

    def __init__(self, run: str = "", *, registry: Any = None, port: int | None = None) -> None:
        self._client = import_module("prometheus_client")
        self._registry = registry if registry is not None else self._client.REGISTRY
        self._run = run
        # Kept with the registry, which takes a name once: the next run of the process goes on with the same ones.
        self._gauges: dict[str, Any] = vars(self._registry).setdefault("_nndoctor_gauges", {})
        self.port = None if port is None else self._serve(port)

    def _serve(self, port: int) -> int:
        served: dict[int, int] = vars(self._registry).setdefault("_nndoctor_ports", {})
        if port not in served:
            server, _ = self._client.start_http_server(port, addr="127.0.0.1", registry=self._registry)
            served[port] = server.server_port
        return served[port]

    def _gauge(self, name: str, help: str, labels: tuple[str, ...]) -> Any:
        if name not in self._gauges:
            self._gauges[name] = self._client.Gauge(name, help, labels, registry=self._registry)
        return self._gauges[name]

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in {**values, "step": float(step)}.items():
            gauge = self._gauge("nndoctor_" + re.sub(r"\W", "_", name), f"nndoctor: {name}", ("run",))
            gauge.labels(self._run).set(value)

    def finding(self, finding: Finding) -> None:
        gauge = self._gauge("nndoctor_finding", "nndoctor: findings that hold now", LABELS)
        labels = gauge.labels(self._run, finding.rule, finding.diagnosis, finding.severity.label)
        labels.set(0.0 if finding.state == "cleared" else 1.0)

    def close(self, diagnosis: Diagnosis) -> None:
        """Nothing to do: a gauge keeps its last value until it is scraped."""
