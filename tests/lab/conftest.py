"""Small patients whose curvature, ranks and losses are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nndoctor.lab import Patient


@pytest.fixture
def small_patient() -> Patient:
    """A classifier with BatchNorm and dropout, three batches of unequal size."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    batches = [(torch.randn(n, 6), torch.randint(0, 3, (n,))) for n in (16, 16, 4)]
    return Patient.of(model, nn.CrossEntropyLoss(), batches)
