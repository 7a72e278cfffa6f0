"""A page per signal: unit, formula, reference, who measures it, and which rules read it."""

from __future__ import annotations

from collections.abc import Iterator

from nndoctor.signals import OBSERVED_PREFIX, Signal

from .knowledge import Knowledge
from .text import page, prose, reference, section, table

PER = {"run": "the run", "layer": "each layer", "param": "each parameter", "group": "each parameter group", "rank": "each process (rank)"}
SAMPLED = {
    "run": "On every step, where it can be had without cost; see [windows and sampling](../rule-language.md#windows-and-sampling).",
    "layer": "On sampled steps: the first 50, then as many as the [budget](../performance.md) allows.",
    "rank": "By the process of rank 0, from what the others send.",
}
FAMILIES = {
    "loss": "The loss", "val": "Validation", "lr": "Learning rate", "group": "Parameter groups", "grad": "Gradients", "clip": "Clipping",
    "weight": "Weights", "update": "Updates", "param": "Parameters", "act": "Activations", "layer": "Layers", "time": "Time",
    "memory": "Memory", "input": "Inputs", "target": "Targets", "labels": "Labels", "loader": "The loader", "loop": "The loop",
    "step": "The step", "amp": "Mixed precision", "schedule": "Schedules", "decay": "Weight decay", "context": "What the run is taken for",
    "op": "Operations of the loss", "attention": "Attention", "optimizer": "Optimizer state", "compile": "Compilation",
}  # fmt: skip

INTRODUCTION = """Everything that can be measured, and so everything that a rule may name: {count} signals. What was not measured in a step is
absent, never zero. `nndoctor rules try "grad.norm" RUN` draws any of them over a recorded run, `doctor.observe(name=...)` adds
[your own](observed.md)."""

OBSERVED = """Whatever is handed to `doctor.observe(...)` is a signal of the run: `val_loss` becomes [`val.loss`](val.loss.md), `accuracy`
[`val.accuracy`](val.accuracy.md), and any other name `observed.<name>`, with the unit that it has in your script.

```python
doctor.observe(val_loss=0.31, accuracy=0.9, bleu=27.4)  # val.loss, val.accuracy, observed.bleu
```

A rule reads it like any other signal: `when: max(observed.bleu, 200) < 5`."""


def signal_pages(known: Knowledge) -> Iterator[tuple[str, str]]:
    yield "signals/index.md", page("Signals", index(known), "Every signal that a rule may read, with unit and formula.")
    yield "signals/observed.md", page("`observed.*`", [OBSERVED], "Values of your own as signals.")
    for signal in known.signals:
        yield f"signals/{signal.name}.md", page(f"`{signal.name}`", one(signal, known), signal.help)


def index(known: Knowledge) -> Iterator[str]:
    yield INTRODUCTION.format(count=len(known.signals))
    families: dict[str, list[Signal]] = {}
    for signal in known.signals:
        families.setdefault(signal.name.partition(".")[0], []).append(signal)
    for family, found in families.items():
        yield f"## {FAMILIES.get(family, family.capitalize())}"
        yield table(
            ("signal", "for", "unit", "what it is"),
            ((f"[`{s.name}`]({s.name}.md)", PER[s.per], prose(s.unit), prose(s.help)) for s in found),
        )


def one(signal: Signal, known: Knowledge) -> Iterator[str]:
    yield prose(signal.help)
    readers = [rule for rule in known.rules if signal.name in rule.signals()]
    probes = ", ".join(f"`{path}`" for path in known.measured_in.get(signal.name, ()))
    yield table(("", ""), [
        ("one value for", PER[signal.per]),
        ("unit", "a plain number" if signal.unit == "1" else prose(signal.unit)),
        ("measured", SAMPLED.get(signal.per, SAMPLED["layer"])),
        *([("measured in", probes)] if probes else []),
        *([("reference", reference(signal.reference))] if signal.reference else []),
    ])  # fmt: skip
    yield f'```console\n$ nndoctor rules try "{signal.name}" RUN\n```'
    yield from section("Rules that read it", rules_table(readers))
    if not readers:
        yield f"No rule of the built-in rulesets reads it; it is recorded, plotted, and there for [rules of your own](../tutorial-first-rule.md){plotted(signal)}."
    kin = [other for other in known.signals if other is not signal and other.name.rpartition(".")[0] == signal.name.rpartition(".")[0]]
    if "." in signal.name and kin:
        yield "## Related"
        yield ", ".join(f"[`{other.name}`]({other.name}.md)" for other in kin) + "."


def plotted(signal: Signal) -> str:
    return "" if signal.name.startswith(OBSERVED_PREFIX) else f" (`when: {signal.name} > ...`)" if signal.unit != "0 or 1" else f" (`when: {signal.name} == 1`)"


def rules_table(rules: list) -> str:  # type: ignore[type-arg]
    return table(
        ("rule", "diagnosis", "severity", "what it checks"),
        ((f"`{r.id}`", f"[`{r.diagnosis}`](../diagnoses/{r.diagnosis}.md#{r.id})", r.severity.label, prose(r.docs.checks or r.title)) for r in rules),
    )
