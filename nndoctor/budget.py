"""Decides what is measured on which step, so that the cost stays inside the promise.

Open loop: the cadence of a tier is the smallest power of two at which its own measured cost is within
its share of the step (for the first samples three times the share at one step in 32, the floor for very
short steps); it rises at once and falls only by a factor of four. What a look costs whatever it looks at sets the least
cadence of all; after the first samples none looks more often than at one step in 32 where all together would then cost more
than the budget. A token bucket is the hard stop. Every input is handed in, so tests need no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHARES: Mapping[str, float] = {"parameters": 0.4, "activations": 0.3, "times": 0.15, "graph": 0.1, "data": 0.05}
"""How the budget is split over the tiers of probes."""

FRAME_SHARE = 1.0
"""What one look costs whatever it looks at, its judging included, may take as much again as all tiers together."""

DENSE_STEPS = 50
"""Every step is measured at first, so that early disasters are caught."""

DENSE_LEAST = 10
DENSE_SECONDS = 10.0
"""Of the doctor's own work at most while every step is measured, but for the first ten: looks at a thousand layers take half a
second each, and whoever starts such a training should not wait half a minute longer."""

FLOOR = 8
SLOWEST_BY_DEFAULT = 32
GENEROUS = 3
GENEROUS_SAMPLES = 80
"""So many samples of a tier (at one step in 32 about the first thousand steps) may cost three times its share."""
SLOWEST = 4096
SHORTEST = 1e-4
"""Seconds that no sample stands out by."""


def heard(seconds: float, typical: float, seen: int, least: float = 0.0) -> float:
    """`seconds`, or after ten of its kind at most three times what is typical (`least` is never too much)."""
    return seconds if seen <= 10 else min(seconds, max(3 * typical, least))


@dataclass
class StepTime:
    """A smoothed step time without the doctor's own part."""

    seconds: float | None = None
    steps: int = 0

    def observe(self, seconds: float) -> None:
        """Learn one more; after ten steps a stall counts at most threefold."""
        self.steps += 1
        if self.seconds is None:
            self.seconds = seconds
            return
        self.seconds += max(0.1, 1 / self.steps) * (heard(seconds, self.seconds, self.steps) - self.seconds)


@dataclass
class Cadence:
    """How often one tier is measured.

    Args:
        share: allowed cost as a fraction of the step time.
        step_time: the step time, shared by all tiers.
        fastest, slowest: limits of the cadence in steps, powers of two.
    """

    share: float
    step_time: StepTime
    fastest: int = FLOOR
    slowest: int = SLOWEST
    every: int | None = None
    cost: float | None = None
    samples: int = 0

    def observe_cost(self, seconds: float) -> None:
        """Learn what one sample cost; the first one is warm-up and does not count.

        After ten, one that stands out counts at most threefold: a garbage collection of the whole process, which takes
        0.2 s, falls into somebody's sample now and then, and would thin out that tier for thousands of steps.
        """
        self.samples += 1
        if self.samples == 1:
            return
        if self.cost is None:
            self.cost = seconds
        else:
            self.cost = max(0.0, self.cost + 0.3 * (heard(seconds, self.cost, self.samples, SHORTEST) - self.cost))
        if not self.step_time.seconds:
            return
        every = self.fastest
        while every < self.slowest and not self._affords(every):
            every *= 2
        if self.every is None or every > self.every or every <= self.every // 4:
            self.every = every

    def _affords(self, every: int) -> bool:
        """Whether the cost of a sample, spread over `every` steps, is within the share.

        At first, from one step in 32 on, three times the share will do: very short steps would else hardly
        be looked at, and a short run not at all.
        """
        assert self.cost is not None
        assert self.step_time.seconds is not None
        generous = every >= SLOWEST_BY_DEFAULT and self.samples <= GENEROUS_SAMPLES
        allowance = self.share * (GENEROUS if generous else 1)
        return self.cost <= allowance * self.step_time.seconds * every

    @property
    def affordable(self) -> bool:
        """False if even the slowest cadence costs more than the share."""
        if self.cost is None or not self.step_time.seconds:
            return True
        return self._affords(self.slowest)


@dataclass
class Budget:
    """The sampling plan of a run.

    Args:
        budget: share of the step time that the doctor may cost, 0.01 for one percent.
        cadence: measure every `cadence`-th step instead (reproducible runs); the budget is then not enforced.
        dense: steps at the start that are always measured; fewer where that takes more than ``DENSE_SECONDS``.
    """

    budget: float = 0.01
    cadence: int | None = None
    dense: int = DENSE_STEPS
    tiers: dict[str, Cadence] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    spent_after_dense: float = 0.0
    step_time: StepTime = field(default_factory=StepTime)
    frame: Cadence = field(init=False)
    whole_every: int | None = None
    """Every so many-th step is measured whole, whatever that costs: one on which a compiled model runs eagerly."""
    _dense_spent: float = 0.0
    _next_look: int = 0
    _beyond_promise: bool = False
    """After the first samples: all tiers together would cost more than the budget, so none looks more often than at one step in 32."""

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise ValueError(f"budget is the doctor's share of the step time, above 0 and at most 1; got {self.budget}")
        if self.cadence is not None and self.cadence < 1:
            raise ValueError(f"cadence is a number of steps, 1 or more; got {self.cadence}")
        self.tiers = {name: Cadence(share * self.budget, self.step_time) for name, share in SHARES.items()}
        self.frame = Cadence(FRAME_SHARE * self.budget, self.step_time)

    def sampled(self, tier: str, step: int) -> bool:
        """Whether `tier` is measured on optimizer step number `step` (1 is the first)."""
        if step <= self.dense:
            return True
        every = self.every(tier)
        return step % every == 0 and not self._overdrawn(step)

    def tiers_at(self, step: int) -> frozenset[str]:
        """The tiers that are measured on `step`. Most steps measure nothing, and to know that is cheap."""
        if self.is_whole(step):
            self._next_look = step + 1
            return frozenset(self.tiers)
        if step > self.dense and step < self._next_look:
            return frozenset()
        sampled = frozenset(tier for tier in self.tiers if self.sampled(tier, step))
        # Cadences change only where something was measured, so the next step worth a look is known; where
        # something is measured now, the cadences may change: look again on the following step.
        cadences = {*map(self.every, self.tiers), *filter(None, (self.whole_every,))}
        self._next_look = step + 1 if sampled else min((step // every + 1) * every for every in cadences)
        return sampled

    def is_whole(self, step: int) -> bool:
        """Whether `step` is one of those that are measured whole."""
        return self.whole_every is not None and step % self.whole_every == 0

    @property
    def next_look(self) -> int:
        """The next step on which anything may be measured, as of the last call of `tiers_at`."""
        return self._next_look

    def every(self, tier: str) -> int:
        """The present cadence of `tier` in steps."""
        if self.cadence is not None:
            return self.cadence
        every = self._affordable(tier)
        return SLOWEST_BY_DEFAULT if every < SLOWEST_BY_DEFAULT and self._beyond_promise else every

    def _affordable(self, tier: str) -> int:
        """The cadence that the tier's own share and the cost of a look allow."""
        learnt = self.tiers[tier].every if tier in self.tiers else None
        least = self.frame.every or 1
        if self.frame.samples <= GENEROUS_SAMPLES:
            least = min(least, SLOWEST_BY_DEFAULT)  # a short run of short steps would else hardly be looked at
        return max(SLOWEST_BY_DEFAULT if learnt is None else learnt, least)

    def _would_spend(self) -> float:
        """Share of the step time that all tiers and the looks themselves would cost at the cadences that each can afford."""
        if not self.step_time.seconds:
            return 0.0
        cadences = {name: self._affordable(name) for name in self.tiers}
        spent = sum((tier.cost or 0.0) / cadences[name] for name, tier in self.tiers.items())
        return (spent + (self.frame.cost or 0.0) / min(cadences.values())) / self.step_time.seconds

    def _overdrawn(self, step: int) -> bool:
        """The hard stop: what was spent since the dense phase is beyond four times the budget and a burst."""
        if self.cadence is not None:
            return False
        typical = self.step_time.seconds
        if typical is None:
            return False
        return self.spent_after_dense > 4 * self.budget * self.elapsed + self.budget * 256 * typical

    def step_took(self, step: int, seconds: float, own: float, sampled: bool) -> None:
        """Book one step: wall seconds in all, and the doctor's own part."""
        if step > self.dense:
            self.elapsed += seconds
            self.spent_after_dense += own
        elif self.cadence is None:
            self._dense_spent += own
            if step >= DENSE_LEAST and self._dense_spent > DENSE_SECONDS:
                self.dense = step
        if step > 2 and seconds > own and (not sampled or step <= self.dense):
            self.step_time.observe(seconds - own)

    def tier_cost(self, tier: str, seconds: float) -> None:
        """Book what one sample of `tier` cost in CPU time of the training thread."""
        self.spent[tier] = self.spent.get(tier, 0.0) + seconds
        if tier in self.tiers:
            self.tiers[tier].observe_cost(seconds)

    def frame_cost(self, seconds: float) -> None:
        """Note what a sampled step cost besides its tiers: hooks, contracts, judging. No tier looks more often than that allows."""
        self.frame.observe_cost(seconds)
        self._beyond_promise = self.frame.samples > GENEROUS_SAMPLES and self._would_spend() > self.budget

    def spend(self, tier: str, seconds: float) -> None:
        """Book a cost that no cadence steers (hooks on every step, judging, writing)."""
        self.spent[tier] = self.spent.get(tier, 0.0) + seconds

    def switched_off(self) -> tuple[str, ...]:
        """Tiers that even the slowest cadence cannot afford."""
        return tuple(name for name, cadence in self.tiers.items() if not cadence.affordable)
