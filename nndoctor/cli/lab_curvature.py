"""``nndoctor lab curvature``: eigenvalues, trace and density of the Hessian, and the noise of the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.lab_options import (
    DEFAULT_LOSS,
    BatchesOption,
    CheckpointArgument,
    DeviceOption,
    FigureOption,
    JsonOption,
    LossOption,
    MaxBatchesOption,
    ModelOption,
    RunOption,
    WorkOption,
    answer,
    at_work,
    patient_from,
)
from nndoctor.cli.output import UsageError, columns, count

if TYPE_CHECKING:
    from nndoctor.lab.curvature import Curvature

MOST_LAYERS = 12
"""Layers that are listed; the rest are in the JSON."""


def curvature(
    checkpoint: CheckpointArgument = None,
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    preset: Annotated[str, typer.Option("--preset", help="economy, business or full.")] = "business",
    eigenvalues: Annotated[int | None, typer.Option("--eigenvalues", min=0, help="How many.  [default: as the preset has]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Gauge a step of gradient descent with it.")
    ] = None,
    double: Annotated[bool, typer.Option("--double", help="Compute in double precision.")] = False,
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    work: WorkOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """How sharply the loss bends at a checkpoint.

    Also how noisy its gradient is: economy looks at the gradient only; business adds the largest eigenvalue and the trace by layer; full adds five
    eigenvalues, their density, and the largest of each layer.
    """
    with at_work() as progress:
        from nndoctor.lab import curvature as lab
        from nndoctor.lab.figures import draw_curvature

        if preset not in lab.PRESETS:
            raise UsageError(f"--preset: expected {', '.join(lab.PRESETS)}, got {preset!r}")
        patient = patient_from(model, batches, loss, checkpoint, max_batches, device)
        found = lab.curvature(
            patient,
            preset,  # type: ignore[arg-type]  # checked above
            eigenvalues=eigenvalues,
            learning_rate=learning_rate,
            double=double,
            work=work,
            progress=progress,
        )
    answer(found, list(told(found)), json=json, figure=figure, draw=draw_curvature, run=run, title="Curvature")


def told(found: Curvature) -> Iterator[Any]:
    """The result for people, line by line; the last one is the verdict."""
    yield from columns(list(_rows(found)))
    if found.layers:
        yield ""
        header = ("layer", "parameters", "trace", "leading eigenvalue")
        strongest = sorted(found.layers, key=lambda layer: -abs(layer.trace or layer.eigenvalue or 0.0))[:MOST_LAYERS]
        rows = [
            (
                layer.name,
                f"{layer.parameters:,}".replace(",", " "),
                "" if layer.trace is None else f"{layer.trace:.4g} ± {layer.trace_error:.2g}",
                "" if layer.eigenvalue is None else f"{layer.eigenvalue:.4g}",
            )
            for layer in strongest
        ]
        yield from columns([header, *rows])
    yield ""
    yield verdict(found)


def _rows(found: Curvature) -> Iterator[tuple[str, str]]:
    yield "model", f"{count(found.parameters, 'parameter')}, loss {found.loss:.4g} on {count(found.samples, 'sample')}"
    if found.noise is not None:
        noise = found.noise
        yield "gradient", f"length {noise.norm:.3g}; noise scale {noise.noise_scale:.3g} ± {noise.error:.2g} samples"
        tests = f"norm {noise.norm_test:.3g}, inner product {noise.inner_product_test:.3g}, orthogonality {noise.orthogonality_test:.3g}"
        yield "tests", f"{tests} (relative deviation of the mean over all samples)"
    if found.step is not None:
        yield "step", f"alpha {found.step.alpha:+.3f} ± {found.step.error:.2g} (-1 start, 0 bottom, 1 as high on the other side)"
    if found.eigen is not None:
        values = ", ".join(f"{value:.4g}" for value in found.eigen.values)
        state = "" if found.eigen.converged else ", not converged"
        worst = max(found.eigen.residuals)
        yield "eigenvalues", f"{values} (largest residual {worst:.1g}{state}; {count(found.eigen.products, 'product')})"
    if found.trace is not None:
        yield "trace", f"{found.trace.value:.4g} ± {found.trace.error:.2g} ({count(found.trace.probes, 'probe')})"
    if found.density is not None:
        yield "density", f"{found.density.negative_share:.1%} of the spectrum is clearly negative"
    if found.rise is not None:
        yield "rise", f"the loss rises by {found.rise.rise:.3g} within {found.rise.radius:g} of the weights"
    for part, reason in found.not_examined:
        yield part, f"not examined: {reason}"


def verdict(found: Curvature) -> str:
    """One sentence: what learning rate and batch size the measurements allow."""
    parts = []
    if found.critical_learning_rate is not None:
        parts.append(f"plain gradient descent is unstable here above a learning rate of {found.critical_learning_rate:.3g}")
    if found.noise is not None and found.noise.error < found.noise.noise_scale:
        parts.append(f"batches far above {found.noise.noise_scale:.2g} samples gain little")
    elif found.noise is not None:
        parts.append("the gradient of these samples is mostly noise")
    return "; ".join(parts) + "." if parts else f"examined in {found.seconds:.1f} s."

