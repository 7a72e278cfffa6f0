"""Imports torchvision even where its compiled operators do not fit the installed torch.

torchvision's wheels carry C++ operators built for one torch build. Beside another one (a CPU torch with a
CUDA torchvision, a nightly, a distribution's own build) ``import torchvision`` fails with *operator
torchvision::nms does not exist*, although the data sets, transforms and models that most people use are plain
Python. Declaring the schemas of the two operators that torchvision names at import is all it misses.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": f"nms{_NMS}", "qnms": f"qnms{_NMS}"}


class TorchvisionUnavailable(ImportError):
    """torchvision is missing, or lacks what was asked of it; the message says what to install."""


def import_torchvision() -> ModuleType:
    """The torchvision package, importable also when its compiled operators cannot be loaded.

    Data sets, transforms and classification models then work; :func:`has_compiled_operators` tells the
    difference and :func:`require_compiled_operators` raises where it matters.

    Raises:
        TorchvisionUnavailable: torchvision is not installed, or fails for another reason than its operators.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise TorchvisionUnavailable(
            "torchvision is not installed; expected a version that fits "
            f"torch {_version_of('torch')} (pip install torchvision), or use the built-in data set, which needs none"
        ) from error
    except (RuntimeError, AttributeError) as error:
        if "torchvision" not in str(error):
            raise
        return _import_without_operators(error)


def has_compiled_operators() -> bool:
    """True if torchvision's own C++ operators (nms, roi_align, image decoding) were loaded."""
    import_torchvision()
    extension: Any = importlib.import_module("torchvision.extension")
    return bool(extension._has_ops())


def require_compiled_operators(purpose: str) -> None:
    """Raises TorchvisionUnavailable that says why `purpose` cannot work here and what to install."""
    if not has_compiled_operators():
        raise TorchvisionUnavailable(
            f"{purpose} needs torchvision's compiled operators, but those of torchvision {_version_of('torchvision')} "
            f"do not load beside torch {_version_of('torch')}: the two come from different builds. "
            "Install both from the same index (see https://github.com/pytorch/vision#installation)"
        )


def _import_without_operators(cause: Exception) -> ModuleType:
    import torch

    _forget_half_imported()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    try:
        module = importlib.import_module("torchvision")
    except Exception as error:
        _forget_half_imported()
        raise TorchvisionUnavailable(
            f"torchvision {_version_of('torchvision')} cannot be imported beside torch {_version_of('torch')} "
            f"({cause}; without its operators: {error}). Install both from the same index "
            "(see https://github.com/pytorch/vision#installation)"
        ) from error
    # The declarations live as long as the library object, so it has to live as long as the module.
    module._nndoctor_schemas = library  # type: ignore[attr-defined]
    return module


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]


def _version_of(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
