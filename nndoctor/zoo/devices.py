"""Memory of accelerators, and initial weights as the published experiments set them."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import nn

Unit: TypeAlias = Literal["B", "KiB", "MiB", "GiB"]
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class DeviceMemory(NamedTuple):
    """Memory of one device, as its driver tells it, whichever process uses it."""

    total: float
    used: float
    free: float


def device_memory(device: int | str | None = None, unit: Unit = "MiB") -> DeviceMemory | None:
    """Memory of a CUDA device in `unit`; None where there is none."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(*(amount / _BYTES[unit] for amount in (total, total - free, free)))


@torch.no_grad()
def initialised(model: nn.Module, bias: float = 0.01) -> nn.Module:
    """`model` with Xavier-uniform weights in linear and convolutional layers, and every bias of theirs at `bias`."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
    return model
