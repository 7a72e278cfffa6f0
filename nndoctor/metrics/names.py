"""Metrics by name, as the command line asks for them: ``weights.mean``, ``weight_updates.per.weights``, ``mine:sparsity``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from nndoctor.metrics.accuracy import train_accuracy
from nndoctor.metrics.histograms import histogram
from nndoctor.metrics.kinds import KINDS, TENSORS
from nndoctor.metrics.matrices import condition_number, spectral_norm
from nndoctor.metrics.moments import adam
from nndoctor.metrics.statistics import mean, norm, over_layers, ratio, total, variance
from nndoctor.subscribers import Subscriber

OF_TOPIC = {
    "mean": mean,
    "variance": variance,
    "sum": total,
    "spectral_norm": spectral_norm,
    "condition_number": condition_number,
    "histogram": histogram,
}
OF_RUN = {"train_accuracy": train_accuracy, "adam": adam}


def named(name: str, average: int = 1) -> Subscriber:
    """The metric of that name, or the subscriber ``module:object``.

    Args:
        average: measurements that a ratio is averaged over.

    Raises:
        ValueError: there is no such metric, or it needs something that a name cannot say.
    """
    if ":" in name:
        return _from_module(name)
    if name in OF_RUN:
        return OF_RUN[name]()
    kind = KINDS.get(name)
    if kind is not None and kind.needs:
        raise ValueError(f"{name} needs {kind.needs}: switch it on in Python, as nndoctor.metrics.{name}(...), or by nndoctor train")
    topic, _, statistic = name.partition(".")
    if topic in TENSORS and statistic in OF_TOPIC:
        return OF_TOPIC[statistic](topic)
    order = re.fullmatch(r"norm(\d+(?:_\d+)?|inf)", statistic)
    if topic in TENSORS and order:
        return norm(topic, float(order[1].replace("_", ".")))
    if topic in TENSORS and statistic.startswith("per.") and statistic[4:] in TENSORS:
        return ratio(topic, statistic[4:], average)
    if name.endswith(".over_layers"):
        return over_layers(name.removesuffix(".over_layers"))
    known = [*OF_RUN, *(f"{t}.{s}" for t in TENSORS for s in (*OF_TOPIC, "norm2")), "weight_updates.per.weights"]
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"there is no metric {name!r}; {hint}there are {', '.join(kind.name for kind in KINDS.values())}")


def parsed(text: str) -> Subscriber:
    """The metric that the command line asks for as ``NAME[:layers=GLOB,every=N,depth=N,average=N]``.

    Raises:
        ValueError: something in it reads otherwise.
    """
    name, found, options = text.rpartition(":")
    if not found or "=" not in options:
        name, options = text, ""
    given: dict[str, str] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals or key.strip() not in ("layers", "every", "depth", "average"):
            raise ValueError(f"expected layers=GLOB, every=N, depth=N or average=N, got {option!r}")
        given[key.strip()] = value.strip()
    numbers: dict[str, int] = {}
    for key in ("every", "depth", "average"):
        if key in given:
            try:
                numbers[key] = int(given[key])
            except ValueError:
                raise ValueError(f"{key}: expected a whole number, got {given[key]!r}") from None
    subscriber = named(name, numbers.get("average", 1))
    return subscriber.on(
        layers=given["layers"].split("|") if "layers" in given else None, every=numbers.get("every"), depth=numbers.get("depth")
    )


def parsed_all(texts: Sequence[str]) -> tuple[Subscriber, ...]:
    """All of them; all mistakes at once, as one ValueError."""
    found, problems = [], []
    for text in texts:
        try:
            found.append(parsed(text))
        except ValueError as error:
            problems.append(f"{text}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(found)


def _from_module(name: str) -> Subscriber:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as python -m would
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{error}") from error
    made = found() if isinstance(found, type) and issubclass(found, Subscriber) else found
    if not isinstance(made, Subscriber):
        raise ValueError(f"expected a nndoctor.Subscriber, got {type(made).__name__}")
    return made
