"""The fingerprint of a machine is that of its hardware: the same twice, another one for other hardware, and no name in it."""

from __future__ import annotations

import platform

import pytest
import torch

from nndoctor.probes.machine import machine


def test_a_machine_has_one_fingerprint() -> None:
    assert machine() == machine()
    assert len(machine()["fingerprint"]) == 12


def test_another_number_of_threads_is_another_machine_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine()["fingerprint"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert machine()["fingerprint"] != before


def test_nothing_tells_whose_machine_it_is() -> None:
    assert platform.node() not in str(machine().values()) or not platform.node()
