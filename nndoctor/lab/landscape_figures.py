"""Figures of paths and surfaces by matplotlib: curves, contours with the optimizer's way, heat maps, 3-D."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np

from nndoctor.lab.figures import new_figure
from nndoctor.lab.impacts import LayerImpacts
from nndoctor.lab.paths import PathCurve, Paths
from nndoctor.lab.shapes import PathComparison
from nndoctor.lab.surface import LossSurface

SurfaceStyle: TypeAlias = Literal["contour", "heatmap", "3d"]
STYLES: tuple[SurfaceStyle, ...] = ("contour", "heatmap", "3d")

FAINTEST = 0.1
"""Opacity of the target that travelled least; the one that went farthest is opaque."""


def draw_paths(paths: Paths) -> Any:
    """Loss, and accuracy where there is one, over the way of every target; the farther one travelled, the stronger its line."""
    measured = any(value is not None for curve in paths.curves for value in curve.accuracies)
    figure = new_figure(6.0 * (1 + measured), 4.2)
    panels = figure.subplots(1, 1 + measured, squeeze=False)[0]
    opacities = _opacities(paths.curves)
    colours = {target: f"C{index % 10}" for index, target in enumerate(dict.fromkeys(c.target for c in paths.curves))}
    for curve, opacity in zip(paths.curves, opacities, strict=True):
        style = {
            "color": colours[curve.target],
            "linestyle": "--" if curve.kind == "quadratic" else "-",
            "alpha": opacity,
        }
        panels[0].plot(curve.alphas, curve.losses, label=_label(curve), **style)
        if measured:
            panels[1].plot(curve.alphas, [np.nan if a is None else a for a in curve.accuracies], **style)
    panels[0].set(title="Loss", xlabel="from initial (0) to trained (1)")
    if measured:
        panels[1].set(title="Accuracy", xlabel="from initial (0) to trained (1)")
    if len(paths.curves) <= 16:
        panels[0].legend(fontsize="small")
    return figure


def draw_comparison(found: PathComparison) -> Any:
    """Straight, curved and real path over the same axis; the upper axis counts the real one's share of steps."""
    figure = new_figure()
    axes = figure.subplots()
    for curve in (found.linear, found.quadratic, found.real):
        if curve is not None:
            axes.plot(curve.alphas, curve.losses, "--" if curve.kind == "quadratic" else "-", label=curve.kind)
    axes.set(xlabel="way from initial (0) to trained (1) weights", ylabel="loss")
    axes.secondary_xaxis("top").set_xlabel("share of the optimizer's steps (real path)")
    axes.legend()
    return figure


def draw_impacts(found: LayerImpacts) -> Any:
    """Change of the loss when a layer is put back to its initial weights; critical layers in red."""
    figure = new_figure(6.0, 1.2 + 0.3 * len(found.layers))
    axes = figure.subplots()
    rows = found.layers
    errors = [0.0 if np.isnan(row.standard_error) else row.standard_error for row in rows]
    colours = ["tab:red" if row.critical else "tab:blue" for row in rows]
    axes.barh([row.layer for row in rows], [row.loss_change for row in rows], xerr=errors, color=colours)
    axes.invert_yaxis()
    axes.set(title="Loss gained by putting a layer back to its initial weights")
    return figure


def draw_surface(surface: LossSurface, style: SurfaceStyle = "contour") -> Any:
    """The surface as contours, heat map or in 3-D, with a logarithmic colour scale, and the optimizer's way on it."""
    if len(surface.ys) == 1:
        return _line(surface)
    figure = new_figure(6.4, 5.2)
    losses = np.where(
        np.isfinite(surface.losses), surface.losses, np.nanmax(surface.losses[np.isfinite(surface.losses)])
    )
    across, along = np.meshgrid(surface.xs, surface.ys)
    if style == "3d":
        import_module("mpl_toolkits.mplot3d")
        axes = figure.add_subplot(projection="3d")
        heights = np.log10(_positive(losses))
        axes.plot_surface(across, along, heights, cmap="viridis", rcount=100, ccount=100)
        axes.computed_zorder = False  # else the surface hides what lies on it
        for xs, ys, look in _on_it(surface):
            axes.plot(xs, ys, [_height(surface, heights, x, y) for x, y in zip(xs, ys, strict=True)], zorder=10, **look)
        axes.set(title=f"Loss surface ({surface.kind} directions)", xlabel="first direction", ylabel="second direction")
        axes.set_zlabel("log10 loss")
        return figure
    axes = figure.subplots()
    scale = import_module("matplotlib.colors").LogNorm(_positive(losses).min(), _positive(losses).max())
    if style == "heatmap":
        drawn = axes.pcolormesh(across, along, _positive(losses), norm=scale, shading="nearest")
    else:
        levels = np.geomspace(_positive(losses).min(), _positive(losses).max() * 1.0001, 24)
        drawn = axes.contourf(across, along, _positive(losses), levels=levels, norm=scale)
        axes.contour(across, along, _positive(losses), levels=levels, colors="k", linewidths=0.3)
    figure.colorbar(drawn, label="loss", format="%.3g")
    _way(axes, surface)
    axes.set(title=f"Loss surface ({surface.kind} directions)", xlabel="first direction", ylabel="second direction")
    return figure


def _way(axes: Any, surface: LossSurface) -> None:
    axes.plot(0, 0, "r*", markersize=11, label="trained")
    way = surface.trajectory
    if way is not None:
        axes.plot(way.xs, way.ys, "w-", linewidth=1.2, label=f"optimizer ({way.explained:.0%} of its variance)")
        axes.plot(way.xs[0], way.ys[0], "wo", markersize=5)
        axes.legend(fontsize="small", facecolor="0.4")


def _on_it(surface: LossSurface) -> Iterator[tuple[Sequence[float], Sequence[float], dict[str, Any]]]:
    """What is drawn on a surface: the optimizer's way, and the trained weights."""
    if surface.trajectory is not None:
        yield surface.trajectory.xs, surface.trajectory.ys, {"color": "white", "linewidth": 1.2}
    if 0.0 in surface.xs and 0.0 in surface.ys:
        yield (0.0,), (0.0,), {"color": "red", "marker": "*", "markersize": 11}


def _height(surface: LossSurface, heights: Any, x: float, y: float) -> float:
    """Height at the nearest point of the grid."""
    return float(heights[np.abs(np.subtract(surface.ys, y)).argmin(), np.abs(np.subtract(surface.xs, x)).argmin()])


def _line(surface: LossSurface) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(surface.xs, surface.losses[0])
    if 0.0 in surface.xs:
        axes.plot(0, surface.centre, "r*", markersize=11)
    axes.set(title=f"Loss along one direction ({surface.kind})", xlabel="direction", ylabel="loss")
    return figure


def _positive(losses: Any) -> Any:
    """What a logarithmic scale can show: nothing at or below zero."""
    above = losses[losses > 0]
    return np.maximum(losses, above.min() if len(above) else 1e-12)


def _opacities(curves: tuple[PathCurve, ...]) -> list[float]:
    distances = np.array([curve.travelled for curve in curves])
    spread = float(np.ptp(distances))
    shares = (distances - distances.min()) / spread if spread else np.ones(len(distances))
    return [float(FAINTEST + (1 - FAINTEST) * share) for share in shares]


def _label(curve: PathCurve) -> str:
    return f"{curve.target} ({curve.kind}, went {curve.travelled:.3g})"
