"""Which units of ReLU layers have stayed silent over a window of recent samples."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    owner: list[int] = field(default_factory=list)  # layer number of each unit, -1 where abandoned
    layers: torch.Tensor | None = None
    counts: torch.Tensor | None = None


class UnitWindows:
    """Largest outputs per unit over two alternating half windows, so that a unit that dies later is found."""

    def __init__(self) -> None:
        self._spans: dict[int, Span] = {}
        self._windows: dict[torch.device, Window] = {}

    def add(self, layer: int, maxima: torch.Tensor, samples: int) -> None:
        """Note the largest output of each unit of a layer over `samples` samples; `maxima` is (units,)."""
        span = self._spans.get(layer)
        if span is None or span.count != len(maxima) or span.device != maxima.device:
            if span is not None and span.layouts >= LAYOUTS:
                return
            span = self._new_span(layer, maxima, 1 if span is None else span.layouts + 1)
        present = self._windows[span.device].present[span.slice]
        torch.maximum(present, maxima, out=present)
        span.present.samples += samples
        if not span.seen_now:
            span.present.steps += 1
            span.seen_now = True

    def _new_span(self, layer: int, maxima: torch.Tensor, layouts: int) -> Span:
        device, count = maxima.device, len(maxima)
        window = self._windows.get(device)
        if window is None:
            window = self._windows[device] = Window(torch.zeros(0, device=device), torch.zeros(0, device=device))
        if layer in self._spans:
            window.owner = [-1 if owner == layer else owner for owner in window.owner]
        span = self._spans[layer] = Span(len(window.owner), count, device, layouts)
        window.owner += [layer] * count
        window.former = torch.cat((window.former, window.former.new_zeros(count)))
        window.present = torch.cat((window.present, window.present.new_zeros(count)))
        window.layers = window.counts = None
        return span

    def collect(self, layers: int) -> dict[str, torch.Tensor | list[float]]:
        """Dead share and window length of each layer seen in this step, NaN for others; then move windows on.

        The share is NaN until the window has seen enough to tell.
        """
        seen = {number: span for number, span in self._spans.items() if span.seen_now}
        if not seen:
            return {}
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
        parts = [self._dead_on(window, layers) for window in self._windows.values()]
        home = next((part.device for part in parts if part.is_cuda), parts[0].device)
        total = parts[0].to(home, non_blocking=True)
        for part in parts[1:]:
            total = total + part.to(home, non_blocking=True)
        numbers = on_device(told, home)
        whole = torch.full((layers,), float("nan"), device=home)
        return whole.index_copy_(0, numbers, total.index_select(0, numbers))

    def _dead_on(self, window: Window, layers: int) -> torch.Tensor:
        """Share of dead units of each layer whose units are on one device, 0 for all others, (layers,)."""
        if window.layers is None or window.counts is None or len(window.counts) != layers + 1:
            window.layers = on_device(window.owner, window.former.device).remainder_(layers + 1)  # -1: one past the last
            window.counts = torch.bincount(window.layers, minlength=layers + 1).clamp(min=1).float()
        dead = (torch.maximum(window.former, window.present) <= 0).float()
        sums = torch.zeros(layers + 1, device=dead.device).index_add_(0, window.layers, dead)
        return (sums / window.counts)[:layers]

    def forget_step(self) -> None:
        """Close a step that was not collected."""
        for span in self._spans.values():
            span.seen_now = False
