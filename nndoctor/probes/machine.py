"""What machine a run is on, for times to be compared: only times from like machines say anything about each other. And how busy it is."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, memory, accelerators and threads, with a fingerprint of them; no name or address of the machine."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "accelerators": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
    }
    text = "|".join(str(found[key]) for key in sorted(found))
    return {**found, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:12]}


ACCELERATOR_SECONDS = 5.0
"""Seconds between two questions to the driver, each of which may take a millisecond."""


class Busy:
    """How busy processor and accelerator are between two looks.

    Args:
        wall, processor: clocks in seconds.
    """

    def __init__(self, wall: Callable[[], float] = perf_counter, processor: Callable[[], float] = process_time) -> None:
        self._wall, self._processor = wall, processor
        self._since = wall(), processor()
        self._asked = -ACCELERATOR_SECONDS + self._since[0]
        self._may_ask = torch.cuda.is_available()

    def look(self) -> dict[str, float]:
        """What can be told now, by signal; two clocks, and every few seconds a question to the driver."""
        found: dict[str, float] = {}
        (wall, processor), self._since = self._since, (self._wall(), self._processor())
        passed = self._since[0] - wall
        if passed > 0:
            found["busy.processor"] = (self._since[1] - processor) / passed
        if self._may_ask and self._since[0] - self._asked >= ACCELERATOR_SECONDS and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._asked = self._since[0]
            try:
                found["busy.accelerator"] = torch.cuda.utilization() / 100
            except Exception:  # no package for it, no right to ask, another maker: whatever it is, it will not get better
                self._may_ask = False
        return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def _memory_gb() -> float:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return 0.0
