"""Weights, gradients, updates and Adam moments of every parameter tensor, from sketches.

Read at the optimizer's own pre- and post-step hooks: what is seen is what the optimizer saw, after
accumulation, clipping and (where the optimizer unscales itself) gradient scaling. Full tensors are
touched only by one L2 norm of each gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.initial_draw import FEWEST, FrozenWeights, is_embedding, normal_draw, uniform_draw
from nndoctor.probes.sketch import Sketch, gather, local, norms, width_for

MATRICES = 8
"""float32 matrices alive at the worst moment: weights before and after, gradient, previous gradient,
two exponential means, and two Adam moments."""

MEAN_DECAY = 0.9
REDRAW_EVERY = 64
THOROUGH_SAMPLES = 50
THOROUGH_EVERY = 4
"""After this many samples, what changes slowly (spread of the weights, moments) is looked at in every fourth only."""

PRE_SIGNALS = (
    "param.grad.norm",
    "param.grad.mean",
    "param.grad.var",
    "param.grad.nonfinite",
    "param.grad.time_var",
    "param.grad.snr",
    "param.grad.cosine",
    "param.weight.norm",
    "param.weight.nonfinite",
    "param.weight.std",
    "param.weight.gain",
    "param.weight.constant",
    "param.weight.default_init",
)
POST_SIGNALS = (
    "param.update.norm",
    "param.update.ratio",
    "param.update.projection",
    "param.changed",
)
ADAM_SIGNALS = (
    "param.adam.m_norm",
    "param.adam.v_mean",
    "param.adam.m_hat_norm",
    "param.adam.v_hat_mean",
    "param.adam.update_rms",
    "param.adam.eps_fraction",
    "param.adam.staleness",
)
FLAGS = ("param.has_grad", "param.trainable", "param.in_optimizer")


@dataclass
class _Rows:
    """The parameters of one optimizer on one device, and what is remembered of them between samples."""

    numbers: list[int]
    params: list[torch.nn.Parameter]
    sketch: Sketch
    fan_in: torch.Tensor  # (rows,)
    matrix_like: torch.Tensor  # (rows,) bool: two or more dimensions
    embeddings: torch.Tensor  # numbers of the rows that are embeddings
    weights: torch.Tensor  # (rows, width) before the step
    weight_rows: list[torch.Tensor]
    gradient: torch.Tensor | None = None
    previous: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    square: torch.Tensor | None = None
    samples: int = 0
    measured: dict[str, torch.Tensor] = field(default_factory=dict)
    weight_views: list[torch.Tensor | None] | None = None

    def is_everything(self, size: int) -> bool:
        """Whether the rows are all `size` parameters of the run, in order."""
        return len(self.numbers) == size and self.numbers == list(range(size))

    def weights_now(self) -> list[torch.Tensor | None]:
        """Views of the sketched weights; made anew when the phase or a storage changes."""
        if self.weight_views is None:
            self.weight_views = self.sketch.sources(self.params)
        return self.weight_views


class ParameterProbe:
    """Statistics of every parameter of every optimizer; see the ``param.*`` signals of the catalogue."""

    name = "parameters"
    tier = "parameters"
    signals = (*PRE_SIGNALS, *POST_SIGNALS, *ADAM_SIGNALS, *FLAGS, "grad.total_norm", "grad.nonfinite_total", "loop.unchanged")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._frozen: FrozenWeights | None = None
        self._rows: dict[int, list[_Rows]] = {}
        self._layout: dict[int, tuple[int, ...]] = {}
        self._held: dict[int, set[int]] = {}
        self._has_grad: dict[int, float] = {}
        self._sampled = False
        self._samples = 0

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._frozen = FrozenWeights(index)

    def detach(self) -> None:
        self._frozen = None
        self._rows.clear()
        self._layout.clear()
        self._has_grad.clear()
        self._index = None

    def register(self, optimizer: torch.optim.Optimizer) -> None:
        """Note which parameters `optimizer` holds, whether or not it ever steps."""
        self._held[id(optimizer)] = {id(p) for group in optimizer.param_groups for p in group["params"]}

    def begin_step(self, step: int, sampled: bool) -> None:
        self._sampled = sampled
        self._has_grad.clear()
        for rows in (r for group in self._rows.values() for r in group):
            rows.measured = {}
        if sampled:
            self._samples += 1
            if self._samples % REDRAW_EVERY == 0:
                self._redraw()

    def _redraw(self) -> None:
        """Look at other elements from now on; what is remembered of the former ones is worthless then."""
        for rows in (r for group in self._rows.values() for r in group):
            rows.sketch.redraw()
            rows.weight_views = None
            rows.previous = rows.mean = rows.square = None
            rows.samples = 0

    @torch.no_grad()
    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        for rows in self._rows_of(optimizer):
            gradients = [p.grad for p in rows.params]
            for number, gradient in zip(rows.numbers, gradients, strict=True):
                self._has_grad[number] = float(gradient is not None)
            gather(rows.weight_rows, rows.weights_now())
            inverse_scale = _inverse_scale(optimizer)
            weights = _weight_statistics(rows) if self._thorough else _weight_norms(rows)
            rows.measured = {**weights, **_gradient_statistics(rows, gradients, inverse_scale)}

    @torch.no_grad()
    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        for rows in self._rows_of(optimizer):
            if rows.measured and rows.gradient is not None:
                rows.measured.update(_update_statistics(rows))
                if self._thorough:
                    rows.measured.update(_adam_statistics(rows, optimizer))
            rows.gradient = None

    @property
    def _thorough(self) -> bool:
        return self._samples <= THOROUGH_SAMPLES or self._samples % THOROUGH_EVERY == 0

    def collect(self) -> Mapping[str, Measured]:
        assert self._index is not None
        if not self._sampled:
            return {}
        groups = [rows for group in self._rows.values() for rows in group if rows.measured]
        measured: dict[str, Measured] = dict(self._flags())
        total: list[torch.Tensor] = []
        for name in (*PRE_SIGNALS, *POST_SIGNALS, *ADAM_SIGNALS):
            parts = [(rows, rows.measured[name]) for rows in groups if name in rows.measured]
            if parts:
                measured[name] = _scatter(parts, len(self._index.params))
        for rows in groups:
            if "param.grad.norm" in rows.measured:
                total.append(rows.measured["param.grad.norm"])
        if total:
            everything = torch.cat([t.to(total[0].device, non_blocking=True) for t in total])
            known = torch.nan_to_num(everything, nan=0.0, posinf=torch.inf)
            measured["grad.total_norm"] = torch.linalg.vector_norm(known)[None]
            measured["grad.nonfinite_total"] = sum(
                torch.nan_to_num(rows.measured["param.grad.nonfinite"], nan=0.0).sum()
                for rows in groups
                if "param.grad.nonfinite" in rows.measured
            )[None]  # type: ignore[index]
        if self._thorough and self._frozen is not None and groups:
            self._add_frozen(measured, self._frozen)
        unchanged = self._unchanged(groups)
        if unchanged is not None:
            measured["loop.unchanged"] = unchanged
        return measured

    def _add_frozen(self, measured: dict[str, Measured], frozen: FrozenWeights) -> None:
        """Whether weights that no optimizer holds look untrained, beside those of the optimizers' own."""
        assert self._index is not None
        held: set[int] = set().union(*self._held.values())
        name = "param.weight.default_init"
        for numbers, drawn in frozen.drawn(held):
            whole = measured.get(name)
            if not isinstance(whole, torch.Tensor):
                whole = torch.full((len(self._index.params),), torch.nan, device=drawn.device)
            measured[name] = whole.index_copy(0, torch.tensor(numbers, device=whole.device), drawn.to(whole.device, non_blocking=True))

    def _unchanged(self, groups: Sequence[_Rows]) -> torch.Tensor | None:
        """1 if gradients were there and finite but no sketched element of any parameter moved, shape (1,)."""
        parts = [(r.measured["param.changed"], r.measured["param.grad.norm"]) for r in groups if "param.changed" in r.measured]
        if not parts:
            return None
        device = parts[0][0].device
        changed = torch.cat([c.to(device) for c, _ in parts]).nan_to_num(nan=0.0).amax()
        gradient = torch.cat([g.to(device) for _, g in parts]).nan_to_num(nan=0.0, posinf=0.0).amax()
        return ((changed == 0) & (gradient > 0)).float()[None]

    def _flags(self) -> dict[str, list[float]]:
        assert self._index is not None
        held: set[int] = set().union(*self._held.values()) if self._held else set()
        params = self._index.params
        flags = {
            "param.trainable": [float(p.requires_grad) for p in params],
            "param.in_optimizer": [float(id(p) in held) for p in params],
        }
        if self._has_grad:
            flags["param.has_grad"] = [
                self._has_grad.get(i, float(p.grad is not None)) for i, p in enumerate(params)
            ]
        return flags

    def _rows_of(self, optimizer: torch.optim.Optimizer) -> list[_Rows]:
        """The sketches of `optimizer`'s parameters, rebuilt when its parameters or their storages changed."""
        assert self._index is not None
        self.register(optimizer)
        params = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._index.param_numbers]
        layout = tuple(x for p in params for x in (id(p), local(p).data_ptr(), p.numel()))
        key = id(optimizer)
        if self._layout.get(key) != layout:
            self._layout[key] = layout
            self._rows[key] = _build_rows(self._index, params)
        return self._rows[key]


def _build_rows(index: ModelIndex, params: Sequence[torch.nn.Parameter]) -> list[_Rows]:
    devices = dict.fromkeys(p.device for p in params)
    total = sum(p.numel() for p in params)
    built = []
    for device in devices:
        chosen = [p for p in params if p.device == device]
        sketch = Sketch(chosen, width_for(len(params), total, MATRICES))
        weights = sketch.matrix()
        built.append(
            _Rows(
                numbers=[index.param_numbers[id(p)] for p in chosen],
                params=chosen,
                sketch=sketch,
                fan_in=torch.tensor([_fan_in(index, p) for p in chosen], device=device),
                matrix_like=torch.tensor([p.dim() > 1 for p in chosen], device=device),
                embeddings=torch.tensor(
                    [row for row, p in enumerate(chosen) if is_embedding(_layer_of(index, p))], dtype=torch.long, device=device
                ),
                weights=weights,
                weight_rows=sketch.destinations(weights),
            )
        )
    return built


def _fan_in(index: ModelIndex, param: torch.nn.Parameter) -> float:
    """How many inputs each output adds up: one for an embedding, whose input is one row; 1 for a vector."""
    if param.dim() < 2 or not param.shape[0] or is_embedding(_layer_of(index, param)):
        return 1.0
    return float(param[0].numel())


def _layer_of(index: ModelIndex, param: torch.nn.Parameter) -> torch.nn.Module | None:
    return index.layers[index.param_layers[index.param_numbers[id(param)]]]


def _inverse_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """1 / loss scale while a fused optimizer still has to unscale its gradients itself, else None."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale.double().reciprocal().float() if isinstance(scale, torch.Tensor) else None


def _weight_norms(rows: _Rows) -> dict[str, torch.Tensor]:
    square = (rows.weights * rows.weights).sum(1)  # (rows,)
    return {
        "param.weight.norm": (square * rows.sketch.scale).sqrt(),
        "param.weight.nonfinite": (~torch.isfinite(square)).float(),
    }


def _weight_statistics(rows: _Rows) -> dict[str, torch.Tensor]:
    sketch, weights = rows.sketch, rows.weights
    square = (weights * weights).sum(1)  # (rows,)
    mean = weights.sum(1) / sketch.count
    std = (square / sketch.count - mean * mean).clamp_min(0).sqrt()
    largest = weights.abs().amax(1)
    spread = ((weights - weights[:, :1]) * sketch.mask).abs().amax(1)
    missing = torch.full_like(std, torch.nan)
    drawn = uniform_draw(mean, std, largest)
    if len(rows.embeddings):
        drawn[rows.embeddings] = normal_draw(weights[rows.embeddings], sketch.count[rows.embeddings])
    enough = sketch.count >= FEWEST
    return {
        "param.weight.norm": (square * sketch.scale).sqrt(),
        "param.weight.nonfinite": (~torch.isfinite(square)).float(),
        "param.weight.std": std,
        "param.weight.gain": torch.where(rows.matrix_like, std * rows.fan_in.sqrt(), missing),
        "param.weight.constant": torch.where(rows.matrix_like & (sketch.count > 1), (spread == 0).float(), missing),
        "param.weight.default_init": torch.where(rows.matrix_like & enough, drawn.float(), missing),
    }


def _gradient_statistics(
    rows: _Rows, gradients: Sequence[torch.Tensor | None], inverse_scale: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    sketch = rows.sketch
    present = [g for g in gradients if g is not None]
    if not present:
        return {}
    full_norm = norms(present)
    if inverse_scale is not None:
        full_norm = full_norm * inverse_scale.to(full_norm.device)
    gradient = sketch.matrix()
    sources = sketch.sources(gradients)
    gather(sketch.destinations(gradient), sources)
    if inverse_scale is not None:
        gradient *= inverse_scale.to(gradient.device)
    rows.gradient = gradient
    nonfinite = (~torch.isfinite(full_norm)).float()
    mean = gradient.sum(1) / sketch.count
    found = {"param.grad.mean": mean}
    # One non-finite gradient (a skipped AMP step) must not stay in the means over steps.
    found |= _over_steps(rows, torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
    if any(s is None for s in sources):
        sketched = torch.tensor([s is not None for s in sources], device=sketch.device)
        found = {name: torch.where(sketched, value, torch.nan) for name, value in found.items()}
    if len(present) < len(gradients):
        have = torch.tensor([g is not None for g in gradients], device=sketch.device)
        missing = torch.full((len(gradients),), torch.nan, device=sketch.device)
        full_norm, nonfinite = missing.masked_scatter(have, full_norm), missing.masked_scatter(have, nonfinite)
    # The mean square is known of all elements: gradients are so unequal that the sketch would err by half of it.
    mean_square = full_norm * full_norm / (sketch.count * sketch.scale)
    found["param.grad.var"] = (mean_square - found["param.grad.mean"] ** 2).clamp_min(0)
    return {**found, "param.grad.norm": full_norm, "param.grad.nonfinite": nonfinite}


def _over_steps(rows: _Rows, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """Variance over steps, signal to noise, and cosine with the previous sampled gradient, each (rows,).

    The exponential means are debiased as Adam's are; the squared mean still holds var / n_eff of noise,
    which is taken off before the ratio.
    """
    found: dict[str, torch.Tensor] = {}
    if rows.mean is None or rows.square is None:
        rows.mean, rows.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
    rows.samples += 1
    rows.mean.lerp_(gradient, 1 - MEAN_DECAY)
    rows.square.lerp_(gradient * gradient, 1 - MEAN_DECAY)
    if rows.samples >= 5:
        correction = 1 - MEAN_DECAY**rows.samples
        mean_square = (rows.mean * rows.mean).sum(1) / correction**2
        second = rows.square.sum(1) / correction
        # Weights w_i of the debiased mean: n_eff = (sum w)^2 / sum w^2.
        effective = (1 + MEAN_DECAY) / (1 - MEAN_DECAY) * correction / (1 + MEAN_DECAY**rows.samples)
        variance = ((second - mean_square) * (effective / (effective - 1))).clamp_min(0)
        signal = (mean_square - variance / effective).clamp_min(0)
        found["param.grad.time_var"] = variance / rows.sketch.count
        found["param.grad.snr"] = (signal / variance.clamp_min(1e-38)).sqrt()
    if rows.previous is not None:
        dot = (rows.previous * gradient).sum(1)
        sizes = rows.previous.norm(dim=1) * gradient.norm(dim=1)
        found["param.grad.cosine"] = torch.where(sizes > 0, dot / sizes.clamp_min(1e-38), torch.nan)
    rows.previous = gradient
    return found


def _update_statistics(rows: _Rows) -> dict[str, torch.Tensor]:
    sketch = rows.sketch
    assert rows.gradient is not None
    after = sketch.matrix()
    gather(sketch.destinations(after), rows.weights_now())
    change = after.sub_(rows.weights)  # (rows, width)
    norm = ((change * change).sum(1) * sketch.scale).sqrt()
    weight_norm = rows.measured["param.weight.norm"]
    gradient_square = (rows.gradient * rows.gradient).sum(1)
    projection = -(change * rows.gradient).sum(1) / gradient_square
    return {
        "param.update.norm": norm,
        # The ratio means nothing for a tensor that is still zero (zero-initialised heads, biases).
        "param.update.ratio": torch.where(weight_norm > 0, norm / weight_norm, torch.nan),
        "param.update.projection": torch.where(gradient_square > 0, projection, torch.nan),
        "param.changed": (change.abs().amax(1) > 0).float(),
    }


def _adam_statistics(rows: _Rows, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's moments after the step, from the optimizer's own state; empty for optimizers without them."""
    states = [optimizer.state.get(p, {}) for p in rows.params]
    if not any("exp_avg" in s and "exp_avg_sq" in s for s in states):
        return {}
    sketch = rows.sketch
    first, second = sketch.matrix(), sketch.matrix()
    first_sources = sketch.sources([s.get("exp_avg") for s in states])
    second_sources = sketch.sources([s.get("exp_avg_sq") for s in states])
    gather(sketch.destinations(first), first_sources)
    gather(sketch.destinations(second), second_sources)
    settings = _settings_by_parameter(optimizer)
    beta1, beta2, eps = (
        torch.tensor([settings[id(p)][i] for p in rows.params], device=sketch.device) for i in range(3)
    )
    counts = _step_counts(states, sketch.device)
    m_hat = first / (1 - beta1**counts).clamp_min(1e-12)[:, None]
    v_hat = second / (1 - beta2**counts).clamp_min(1e-12)[:, None]
    root = v_hat.sqrt()
    n = sketch.count
    assert rows.gradient is not None
    normalised = rows.gradient / root.clamp_min(1e-30)
    found = {
        "param.adam.m_norm": ((first * first).sum(1) / n).sqrt(),
        "param.adam.v_mean": second.sum(1) / n,
        "param.adam.m_hat_norm": ((m_hat * m_hat).sum(1) / n).sqrt(),
        "param.adam.v_hat_mean": v_hat.sum(1) / n,
        "param.adam.update_rms": (((m_hat / (root + eps[:, None]).clamp_min(1e-30)) ** 2).sum(1) / n).sqrt(),
        "param.adam.eps_fraction": ((root < 10 * eps[:, None]) & sketch.mask).float().sum(1) / n,
        "param.adam.staleness": ((normalised * normalised * (second > 0)).sum(1) / n).sqrt(),
    }
    if all(a is not None and b is not None for a, b in zip(first_sources, second_sources, strict=True)):
        return found
    here = torch.tensor(
        [a is not None and b is not None for a, b in zip(first_sources, second_sources, strict=True)], device=sketch.device
    )
    return {name: torch.where(here, value, torch.nan) for name, value in found.items()}


def _settings_by_parameter(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, float, float]]:
    settings = {}
    for group in optimizer.param_groups:
        betas = group.get("betas", (0.9, 0.999))
        # A captured optimizer may hold betas and eps as tensors; its defaults are plain numbers.
        plain = [float(b) for b in betas[:2] if not isinstance(b, torch.Tensor)]
        beta1, beta2 = plain if len(plain) == 2 else (0.9, 0.999)
        for p in group["params"]:
            settings[id(p)] = (beta1, beta2, float(group.get("eps", 1e-8)))
    return settings


def _step_counts(states: Sequence[Mapping[str, object]], device: torch.device) -> torch.Tensor:
    """Adam's own step counts, shape (rows,), moved without waiting."""
    counts = [s.get("step", 1) for s in states]
    if all(isinstance(c, torch.Tensor) for c in counts):
        return torch.stack([c.detach().float().reshape(()).to(device, non_blocking=True) for c in counts if isinstance(c, torch.Tensor)])
    return torch.tensor([1.0 if isinstance(c, torch.Tensor) else float(c) for c in counts], device=device)  # type: ignore[arg-type]


def _scatter(parts: Sequence[tuple[_Rows, torch.Tensor]], size: int) -> torch.Tensor:
    """Values of several groups of rows as one tensor over all parameters, NaN elsewhere, shape (size,)."""
    if len(parts) == 1 and parts[0][0].is_everything(size):
        return parts[0][1]  # the usual case: one optimizer holds all parameters, in order
    device = parts[0][1].device
    whole = torch.full((size,), torch.nan, device=device)
    for rows, values in parts:
        whole[torch.tensor(rows.numbers, device=device)] = values.to(device, non_blocking=True)
    return whole
