"""Which units of ReLU layers have stayed silent over a window of recent samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch

from nndoctor.probes.samples import on_device

WINDOW_SAMPLES = 256  # a unit that fires for 1 sample in 50 stays silent through 0.6 % of such windows
WINDOW_STEPS = 8  # small batches: that many sampled steps are enough
LAYOUTS = 3  # a layer whose number of units keeps changing has none that could be dead


@dataclass(slots=True, eq=False)
class Half:
    """What one half of a window has seen."""

    samples: int = 0
    steps: int = 0

    def full(self) -> bool:
        return self.samples >= WINDOW_SAMPLES or self.steps >= WINDOW_STEPS


@dataclass(slots=True, eq=False)
class Span:
    """One layer's slice of the window vectors."""

    start: int
    count: int
    device: torch.device
    layouts: int = 1
    former: Half = field(default_factory=Half)
    present: Half = field(default_factory=Half)
    seen_now: bool = False

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.count)

    def enough(self) -> bool:
        return Half(self.former.samples + self.present.samples, self.former.steps + self.present.steps).full()


@dataclass(slots=True, eq=False)
class Window:
    """The largest output of every unit on one device, in the former and the present half window."""

    former: torch.Tensor
    present: torch.Tensor
    owner: list[int] = field(default_factory=list)  # layer number of each unit
    layers: torch.Tensor | None = None
    shares: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)


class UnitWindows:
    """Largest outputs per unit over two alternating half windows, so that a unit that dies later is found."""

    def __init__(self) -> None:
        self._spans: dict[int, Span] = {}
        self._windows: dict[torch.device, Window] = {}
        self._step: list[tuple[Span, torch.Tensor]] = []

    def add(self, layer: int, maxima: torch.Tensor, samples: int) -> None:
        """Note the largest output of each unit of a layer over `samples` samples; `maxima` is (units,)."""
        span = self._spans.get(layer)
        if span is None or span.count != len(maxima) or span.device != maxima.device:
            if span is not None and span.layouts >= LAYOUTS:
                return
            span = self._new_span(layer, maxima, 1 if span is None else span.layouts + 1)
        self._step.append((span, maxima))
        span.present.samples += samples
        if not span.seen_now:
            span.present.steps += 1
            span.seen_now = True

    def _merge_step(self) -> None:
        """Take this step's maxima into the present half windows: at once where all layers came in their usual order."""
        step, self._step = self._step, []
        window = self._windows[step[0][0].device]
        usual = len(self._windows) == 1 and len(step) == len(self._spans) and sum(s.count for s, _ in step) == len(window.owner)
        if usual and all(former.start < span.start for (former, _), (span, _) in pairwise(step)):
            torch.maximum(window.present, torch.cat([maxima for _, maxima in step]), out=window.present)
            return
        for span, maxima in step:
            present = self._windows[span.device].present[span.slice]
            torch.maximum(present, maxima, out=present)

    def _new_span(self, layer: int, maxima: torch.Tensor, layouts: int) -> Span:
        device, count = maxima.device, len(maxima)
        window = self._windows.get(device)
        if window is None:
            window = self._windows[device] = Window(torch.zeros(0, device=device), torch.zeros(0, device=device))
        if layer in self._spans:
            self._abandon(self._spans[layer])
        span = self._spans[layer] = Span(len(window.owner), count, device, layouts)
        window.owner += [layer] * count
        window.former = torch.cat((window.former, window.former.new_zeros(count)))
        window.present = torch.cat((window.present, window.present.new_zeros(count)))
        window.layers = None
        window.shares.clear()
        return span

    def _abandon(self, span: Span) -> None:
        """Nothing of a former layout counts as dead any more."""
        self._windows[span.device].former[span.slice] = float("inf")

    def collect(self, layers: int) -> dict[str, torch.Tensor | list[float]]:
        """Dead share and window length of each layer seen in this step, NaN for others; then move windows on.

        The share is NaN until the window has seen enough to tell.
        """
        seen = {number: span for number, span in self._spans.items() if span.seen_now}
        if not seen:
            return {}
        self._merge_step()
        nan = float("nan")
        samples = [float(s.former.samples + s.present.samples) if (s := seen.get(i)) else nan for i in range(layers)]
        found: dict[str, torch.Tensor | list[float]] = {"act.dead_samples": samples}
        told = [number for number, span in seen.items() if span.enough()]
        if told:
            found["act.dead_fraction"] = self._dead_fractions(told, layers)
        for span in seen.values():
            span.seen_now = False
            if span.present.full():
                window = self._windows[span.device]
                window.former[span.slice] = window.present[span.slice]
                window.present[span.slice] = 0
                span.former, span.present = span.present, Half()
        return found

    def _dead_fractions(self, told: list[int], layers: int) -> torch.Tensor:
        parts = [self._dead_on(device, told, layers) for device in self._windows]
        if len(parts) == 1:
            return parts[0]
        home = next((part.device for part in parts if part.is_cuda), parts[0].device)
        together = torch.stack([part.to(home, non_blocking=True) for part in parts])  # (devices, layers)
        return torch.where(together.isnan().all(0), float("nan"), together.nansum(0))

    def _dead_on(self, device: torch.device, told: list[int], layers: int) -> torch.Tensor:
        """Share of dead units of the layers in `told` whose units are on `device`, NaN for all others, (layers,)."""
        window = self._windows[device]
        if window.layers is None:
            window.layers = on_device(window.owner, device)
        key = (layers, *told)
        if key not in window.shares:
            window.shares.clear()
            here = {number: self._spans[number].count for number in told if self._spans[number].device == device}
            window.shares[key] = on_device([1 / here[i] if here.get(i) else float("nan") for i in range(layers)], device)
        dead = (torch.maximum(window.former, window.present) <= 0).float()
        return torch.zeros(layers, device=device).index_add_(0, window.layers, dead).mul_(window.shares[key])

    def forget_step(self) -> None:
        """Close a step that was not collected."""
        if self._step:
            self._merge_step()
        for span in self._spans.values():
            span.seen_now = False
