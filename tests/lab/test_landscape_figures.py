"""Figures of paths and surfaces are written without a display, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nndoctor.lab.figures import save_figure
from nndoctor.lab.impacts import LayerImpact, LayerImpacts
from nndoctor.lab.landscape_figures import STYLES, SurfaceStyle, draw_comparison, draw_impacts, draw_paths, draw_surface
from nndoctor.lab.paths import PathCurve, Paths
from nndoctor.lab.shapes import compared
from nndoctor.lab.surface import LossSurface, Trajectory, grid

pytest.importorskip("matplotlib")


def curve(kind: str, target: str = "model", travelled: float = 1.0, accuracy: float | None = 0.5) -> PathCurve:
    return PathCurve(kind, target, (0.0, 0.5, 1.0), (2.0, 1.0, 0.5), (accuracy,) * 3, travelled, 0.1)  # type: ignore[arg-type]


def bowl(rows: int = 5) -> LossSurface:
    xs = grid(-1, 1, 5)
    ys = (0.0,) if rows == 1 else grid(-1, 1, rows)
    losses = np.add.outer(np.square(ys), np.square(xs))
    losses[0, 0] = np.inf
    way = Trajectory((0, 1), (0.5, 0.0), (0.5, 0.0), 0.9, 0.0)
    return LossSurface("random", xs, ys, losses, np.full(losses.shape, np.nan), way)


@pytest.mark.parametrize("style", STYLES)
def test_a_surface_is_drawn_in_every_style_also_where_a_loss_is_infinite(style: SurfaceStyle, tmp_path: Path) -> None:
    assert save_figure(draw_surface(bowl(), style), tmp_path / "surface.png").read_bytes()[:4] == b"\x89PNG"


def test_a_line_is_drawn_as_svg(tmp_path: Path) -> None:
    assert "<svg" in save_figure(draw_surface(bowl(rows=1)), tmp_path / "line.svg").read_text()


def test_the_target_that_went_farthest_has_the_strongest_line() -> None:
    figure = draw_paths(Paths((curve("linear", "near", 1.0), curve("linear", "far", 3.0), curve("quadratic", "far", 3.0))))
    assert [line.get_alpha() for line in figure.axes[0].lines] == pytest.approx([0.1, 1, 1])
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "-", "--"]
    assert len(figure.axes) == 2
    assert len(draw_paths(Paths((curve("linear", accuracy=None),))).axes) == 1


def test_comparison_and_impacts_are_written_as_pdf(tmp_path: Path) -> None:
    comparison = draw_comparison(compared(curve("real"), curve("linear"), curve("quadratic")))
    assert save_figure(comparison, tmp_path / "a.pdf").read_bytes()[:4] == b"%PDF"
    rows = (LayerImpact("fc1", 1.0, -0.5, 0.1, 1.0, 0.5, True), LayerImpact("fc2", 0.0, 0.0, float("nan"), 1.0, 0.5, False))
    assert save_figure(draw_impacts(LayerImpacts(rows, 0.05)), tmp_path / "b.pdf").stat().st_size > 1000
