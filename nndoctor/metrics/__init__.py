"""Metrics to switch on: subscribers for what people measure in every training.

    nndoctor.wrap(model, optimizer, subscribers=[
        nndoctor.metrics.mean("weights"),
        nndoctor.metrics.ratio("weight_updates", "weights").on(layers="block*", every=10),
        nndoctor.metrics.train_accuracy(),
    ])

Each is a :class:`nndoctor.Subscriber`; ``.on(...)`` says where and how often. ``nndoctor metrics`` lists them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nndoctor.metrics.accuracy import test_accuracy as test_accuracy
    from nndoctor.metrics.accuracy import train_accuracy as train_accuracy
    from nndoctor.metrics.epochs import hessian_eigenvalue as hessian_eigenvalue
    from nndoctor.metrics.epochs import removal_cost as removal_cost
    from nndoctor.metrics.epochs import self_similarity as self_similarity
    from nndoctor.metrics.histograms import histogram as histogram
    from nndoctor.metrics.matrices import condition_number as condition_number
    from nndoctor.metrics.matrices import spectral_norm as spectral_norm
    from nndoctor.metrics.moments import adam as adam
    from nndoctor.metrics.names import named as named
    from nndoctor.metrics.statistics import mean as mean
    from nndoctor.metrics.statistics import norm as norm
    from nndoctor.metrics.statistics import over_layers as over_layers
    from nndoctor.metrics.statistics import ratio as ratio
    from nndoctor.metrics.statistics import total as total
    from nndoctor.metrics.statistics import variance as variance

_HOME = {
    "mean": "statistics",
    "variance": "statistics",
    "total": "statistics",
    "norm": "statistics",
    "ratio": "statistics",
    "over_layers": "statistics",
    "spectral_norm": "matrices",
    "condition_number": "matrices",
    "histogram": "histograms",
    "train_accuracy": "accuracy",
    "test_accuracy": "accuracy",
    "adam": "moments",
    "hessian_eigenvalue": "epochs",
    "self_similarity": "epochs",
    "removal_cost": "epochs",
    "named": "names",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"nndoctor.metrics.{_HOME[name]}"), name)
    raise AttributeError(f"module 'nndoctor.metrics' has no attribute {name!r}")
