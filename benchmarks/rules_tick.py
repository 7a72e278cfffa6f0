"""What the rules cost: loading, appending a frame, and judging one, for 60 rules over 60 layers.

    python benchmarks/rules_tick.py [--rules 60] [--layers 60] [--steps 600] [--record RUN]

Every made-up frame measures every signal that the rules read, each with a value that was never there before:
the worst case. `--record` judges the frames of a recorded run instead, those of sampled and of other steps apart.
Prints medians and 99th percentiles; `core` is measured with all of its signals.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from nndoctor.history import History
from nndoctor.record import RecordReader
from nndoctor.rules import Judge, Ruleset, load_rulesets, load_text
from nndoctor.signals import CATALOGUE, Frame, Targets

LAYER_RULE = """
  - id: layer-rule-{i}
    severity: error
    scope: layer
    params: {{k: {k}}}
    when: {signal} / median({signal}, {window}) > k and {other} > 1e-9
    for: 30 steps
    clear_when: {signal} < 3 * median({signal}, {window})
    keep: 100 steps
    message: "{{layer}}: {{{signal}:.3g}}"
"""
RUN_RULE = """
  - id: run-rule-{i}
    severity: critical
    params: {{k: {k}}}
    when: median_layers(ema({signal}, {window})) > k and slope_t(loss, {window}) > 4
    for: 20 steps
    fixes:
      - title: Lower it
        set: {{lr: "nice(lr / median_layers(ema({signal}, {window})))"}}
"""
SIGNALS = ("grad.norm", "update.ratio", "weight.norm", "act.std", "act.rms", "act.mean")
WINDOWS = (100, 200, 300)


def ruleset_text(rules: int) -> str:
    """A ruleset of `rules` rules, half over layers and half over the run, over six signals and three windows."""
    parts = ["version: 1\nrules:"]
    for i in range(rules):
        form = LAYER_RULE if i % 2 else RUN_RULE
        signal, other = SIGNALS[i % len(SIGNALS)], SIGNALS[(i + 1) % len(SIGNALS)]
        parts.append(form.format(i=i, k=10 + i, signal=signal, other=other, window=WINDOWS[i // 2 % len(WINDOWS)]))
    return "".join(parts)


def targets_of(layers: int) -> Targets:
    names = tuple(f"blocks.{i}.linear" for i in range(layers))
    params = tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))
    return Targets(
        layers=names,
        layer_kinds=("Linear",) * layers,
        layer_depths=tuple(range(layers)),
        params=params,
        param_layers=tuple(i // 2 for i in range(2 * layers)),
        param_shapes=((8, 8), (8,)) * layers,
        groups=("adam[0]",),
    )


def frames(targets: Targets, names: Sequence[str], steps: int, sick_layers: int = 0) -> list[Frame]:
    """Frames of noise around one; from half of the run on, the first layers are a hundred times as large."""
    chance = np.random.default_rng(0)
    made = []
    for step in range(1, steps + 1):
        values = {}
        for name in names:
            axis = CATALOGUE[name].per
            if CATALOGUE[name].unit in ("0 or 1", "count", "steps"):
                values[name] = np.zeros(targets.size(axis), np.float32)  # nothing wrong with the loop
                continue
            values[name] = (1.0 + 0.1 * chance.standard_normal(targets.size(axis))).astype(np.float32)
            if axis == "layer" and step > steps // 2:
                values[name][:sick_layers] *= 100
        made.append(Frame(step, step * 0.1, None, values))
    return made


def milliseconds(seconds: Sequence[float]) -> str:
    return f"median {np.median(seconds) * 1e3:7.3f} ms   99th percentile {np.percentile(seconds, 99) * 1e3:7.3f} ms"


def time_judge(ruleset: Ruleset, targets: Targets, run: Sequence[Frame]) -> list[float]:
    judge = Judge(ruleset, targets)
    taken = []
    for frame in run:
        begin = time.thread_time()
        judge.feed(frame)
        taken.append(time.thread_time() - begin)
    return taken[len(taken) // 3 :]


def time_record(ruleset: Ruleset, folder: Path) -> None:
    """Judge a recorded run as the live judge does, from a third of it on."""
    record = RecordReader(folder)
    run = list(record.frames())
    taken = time_judge(ruleset, record.targets, run)
    run = run[-len(taken) :]
    layers = {signal.name for signal in CATALOGUE if signal.per in ("layer", "param")}
    sampled = [seconds for seconds, frame in zip(taken, run, strict=True) if layers & frame.values.keys()]
    others = [seconds for seconds, frame in zip(taken, run, strict=True) if not layers & frame.values.keys()]
    print(f"{folder.name}: {len(record.targets.layers)} layers, {len(record.targets.params)} parameters")
    for title, seconds in (("sampled steps", sampled), ("other steps", others)):
        if seconds:
            print(f"tick, {title:<13} {len(seconds):6d}  {milliseconds(seconds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=60)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--record", type=Path, help="judge this run's record with core, and nothing else")
    options = parser.parse_args()
    if options.record:
        time_record(load_rulesets(["core"]), options.record)
        return
    targets = targets_of(options.layers)
    used = ("loss", "lr", *SIGNALS)

    load_text(ruleset_text(2))  # imports and first use
    text, taken = ruleset_text(100), []
    for _ in range(7):
        begin = time.thread_time()
        load_text(text)
        taken.append(time.thread_time() - begin)
    print(f"load 100 rules            median {np.median(taken) * 1e3:7.1f} ms")
    begin = time.thread_time()
    core = load_rulesets(["core"])
    print(f"load core ({len(core)} rules)             {(time.thread_time() - begin) * 1e3:7.1f} ms")

    ruleset = load_text(ruleset_text(options.rules))
    healthy = frames(targets, used, options.steps)
    print(f"tick, healthy run         {milliseconds(time_judge(ruleset, targets, healthy))}")
    sick = frames(targets, used, options.steps, sick_layers=options.layers // 4)
    print(f"tick, a quarter sick      {milliseconds(time_judge(ruleset, targets, sick))}")

    full = frames(targets, CATALOGUE.names(), options.steps)
    print(f"tick, core, all signals   {milliseconds(time_judge(core, targets, full))}")
    run_only = frames(targets, [s.name for s in CATALOGUE if s.per == "run"], options.steps)
    print(f"tick, core, run signals   {milliseconds(time_judge(core, targets, run_only))}")
    history, appended = History(targets), []
    for frame in full:
        begin = time.thread_time()
        history.append(frame)
        appended.append(time.thread_time() - begin)
    mean = np.mean(appended) * 1e3
    print(f"append, {len(CATALOGUE)} signals      {milliseconds(appended)}   mean {mean:.3f} ms")


if __name__ == "__main__":
    main()
