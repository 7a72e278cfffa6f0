"""Figures by matplotlib, an optional extra, written as PNG, SVG or PDF; no window and no global state."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nndoctor.lab.curvature import Curvature
    from nndoctor.lab.freezing import FreezingPlan
    from nndoctor.lab.preliminary import Preliminary
    from nndoctor.lab.representation import Representation, SelfSimilarity
    from nndoctor.lab.unhelpful import UnhelpfulLayers


class FiguresUnavailable(Exception):
    """matplotlib is not installed; the text says what to do."""


def new_figure(width: float = 7.0, height: float = 4.5) -> Any:
    """An empty ``matplotlib.figure.Figure`` (inches) that belongs to no window.

    Raises:
        FiguresUnavailable: matplotlib is not installed.
    """
    try:
        return import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    except ModuleNotFoundError as error:
        raise FiguresUnavailable("figures need matplotlib: pip install 'nndoctor[lab]'") from error


def save_figure(figure: Any, path: Path | str) -> Path:
    """Write `figure` as what the suffix of `path` says (.png, .svg, .pdf) and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def draw_curvature(found: Curvature) -> Any:
    """Eigenvalues, density of the spectrum and trace by layer, as far as they were measured."""
    parts = [part for part, there in (("eigenvalues", found.eigen), ("density", found.density), ("layers", found.layers)) if there]
    figure = new_figure(4.5 * max(1, len(parts)), 3.8)
    axes = dict(zip(parts, figure.subplots(1, max(1, len(parts)), squeeze=False)[0], strict=False))
    if found.eigen is not None:
        axes["eigenvalues"].bar(range(1, 1 + len(found.eigen.values)), found.eigen.values, yerr=found.eigen.residuals)
        axes["eigenvalues"].set(title="Leading eigenvalues of the Hessian", xlabel="by magnitude")
    if found.density is not None:
        axes["density"].semilogy(found.density.grid, np.maximum(found.density.density, 1e-6))
        axes["density"].set(title="Density of the spectrum", xlabel="eigenvalue", ylim=(1e-6, None))
    if found.layers:
        names = [layer.name for layer in found.layers]
        values = [layer.trace if layer.trace is not None else layer.eigenvalue or 0.0 for layer in found.layers]
        axes["layers"].barh(names, values, xerr=[layer.trace_error or 0.0 for layer in found.layers])
        axes["layers"].invert_yaxis()
        axes["layers"].set(title="Trace by layer")
    return figure


def draw_unhelpful_layers(found: UnhelpfulLayers) -> Any:
    """Rise of the loss without each layer, with two standard errors; the margin as a line."""
    colours = {"can go": "tab:green", "undecided": "tab:orange", "needed": "tab:gray"}
    effects = found.effects
    figure = new_figure(7.0, 1.2 + 0.24 * len(effects))
    axes = figure.subplots()
    axes.barh(
        [effect.name for effect in effects],
        [effect.difference for effect in effects],
        xerr=[0.0 if np.isnan(effect.error) else 2 * effect.error for effect in effects],
        color=[colours[effect.verdict] for effect in effects],
    )
    axes.axvline(found.margin, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("symlog", linthresh=max(found.margin, 1e-6))
    axes.invert_yaxis()
    axes.set(xlabel="loss without it minus loss with it", title="What each layer is good for")
    return figure


def draw_representation(found: Representation) -> Any:
    """Saturation of each layer, and the similarity of each with each."""
    names = [layer.name for layer in found.layers]
    size = max(4.0, 0.22 * len(names) + 2.0)
    figure = new_figure(2 * size, size)
    left, right = figure.subplots(1, 2)
    left.barh(names, [layer.dimension.saturation for layer in found.layers])
    left.invert_yaxis()
    left.set(title="Saturation", xlim=(0, 1), xlabel=f"share of dimensions that hold {found.share:.0%} of the variance")
    shown = right.imshow(np.asarray(found.similarity), vmin=0, vmax=1, cmap="magma")
    right.set(title="Similarity (debiased linear CKA)", xticks=range(len(names)), yticks=range(len(names)))
    right.set_xticklabels(names, rotation=90)
    right.set_yticklabels(names)
    figure.colorbar(shown, ax=right)
    return figure


def draw_self_similarity(found: SelfSimilarity) -> Any:
    """Similarity of each layer to itself one checkpoint earlier, by measure."""
    figure = new_figure(4.5 * len(found.to_previous), 0.25 * len(found.layers) + 2.5)
    for axes, (measure, rows) in zip(figure.subplots(1, len(found.to_previous), squeeze=False)[0], found.to_previous.items(), strict=True):
        shown = axes.imshow(np.asarray(rows).T, vmin=0, vmax=1, cmap="magma", aspect="auto")
        axes.set(title=measure.upper(), xticks=range(len(rows)), yticks=range(len(found.layers)), xlabel="checkpoint")
        axes.set_xticklabels(found.checkpoints[1:], rotation=90)
        axes.set_yticklabels(found.layers)
    figure.colorbar(shown, ax=axes)
    return figure


def draw_freezing(found: FreezingPlan) -> Any:
    """Similarity of each layer to itself at the earlier weights; those that can be frozen in green."""
    figure = new_figure(6.0, 1.2 + 0.26 * len(found.layers))
    axes = figure.subplots()
    colours = ["tab:green" if layer.name in found.ready else "tab:gray" for layer in found.layers]
    bars = axes.barh([layer.name for layer in found.layers], [layer.similarity for layer in found.layers], color=colours)
    axes.bar_label(bars, ["" if layer.saved is None else f"{-layer.saved:+.0%} backward" for layer in found.layers], fontsize="small", padding=12)
    axes.axvline(found.threshold, color="black", linewidth=0.8, linestyle="--")
    axes.invert_yaxis()
    axes.set(xlabel="similarity to the earlier checkpoint", xlim=(0, 1.3), title="What has stopped changing")
    return figure


def draw_preliminary(found: Preliminary) -> Any:
    """Loss and accuracy by checkpoint, and how far the accuracy varies over random subsets of the test set."""
    points = found.training.points
    figure = new_figure(9.0 if found.stability is not None else 5.0, 3.8)
    panels = figure.subplots(1, 1 if found.stability is None else 2, squeeze=False)[0]
    names = [point.name for point in points]
    measured = points[-1].accuracy is not None
    panels[0].plot(names, [point.accuracy if measured else point.loss for point in points], marker="o")
    panels[0].axvline(names.index(found.training.enough.name), color="tab:green", linestyle="--")
    panels[0].set(title="Accuracy" if measured else "Loss", xlabel="checkpoint; dashed: nothing is gained after it")
    panels[0].tick_params(axis="x", rotation=45)
    if found.stability is not None:
        sizes = [spread.size for spread in found.stability.spreads]
        panels[1].plot(sizes, [100 * spread.deviation for spread in found.stability.spreads], marker="o", label="measured")
        panels[1].plot(sizes, [100 * spread.expected for spread in found.stability.spreads], "--", label="drawing without replacement")
        panels[1].set(title="Deviation of accuracy", xlabel="test samples", ylabel="points", ylim=(0, None))
        panels[1].legend()
    return figure
