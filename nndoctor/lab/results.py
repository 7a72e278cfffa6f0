"""What examinations of the lab hand back: plain data, which is also JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


class Result:
    """Base of the frozen dataclasses that examinations return; fields called ``vectors`` are not part of its JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, strings, lists and dicts; NaN and infinities are None."""
        assert dataclasses.is_dataclass(self)
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "vectors"}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


def plain(value: Any) -> Any:
    """`value` as JSON knows it: arrays and tensors as lists, dataclasses as dicts, numbers that are none as None."""
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return plain(value.detach().cpu().numpy().tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
