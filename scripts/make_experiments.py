"""Writes docs/experiments.md: every claim that was put to the test, what came out, and a figure.

    python scripts/make_experiments.py [--collect WORK] [--check]

``--collect`` first takes the results that ``nndoctor lab experiment all --work WORK`` left there into docs/experiments.json,
with the verdicts that the experiments' own rules give, and draws the figures (NNDOCTOR_TEST_DATA as it was then). ``--check`` writes nothing and exits with 1
where the page or a verdict is not what would be written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nndoctor.zoo.experiments import EXPERIMENTS, Bench, Experiment, Finished, Verdict, judgement

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "experiments.json"
PAGE = DOCS / "experiments.md"
FIGURES = DOCS / "images" / "experiments"

HEADER = """# Experiments

Claims of the works that this project continues, put to the test on small real data. Each is one command, `nndoctor lab experiment E8`; `nndoctor lab experiment list` names
them all. What was finished is kept in the folder `.nndoctor/experiments` (`--work`) seed by seed, so a run that was killed loses one seed at most.

The verdict is computed from the figures by a criterion that, save for four, was fixed before the run: **reproduced** where it holds with every seed, **contradicted** where with none,
**open** where seeds disagree or are too few, and **artefact** where it can be shown that the published effect follows from how it was measured or made, whatever networks do.
Four criteria were changed after a first look at the figures: E5 and E6 no longer depend on the doctor's alarm, which is told beside them (with it E6 would not be reproduced by any seed); E10 is
open where a run learnt nothing, so that its slope says nothing; E27 asks for a rise along the line instead of a bulge above the chord, by which it would be contradicted (17 to 19 %).
At these scales a verdict is about the claim *as it was set up here*: small networks, few images, few steps. Where a claim names CIFAR-10 or MNIST, small parts of these were used; with neither at hand
(`--data FOLDER`, holding `cifar10.npz` and `mnist.npz`, or `NNDOCTOR_TEST_DATA`) the Fashion-MNIST images that ship are taken, and the answer says so.

`python scripts/make_experiments.py` makes this page from `docs/experiments.json`.
"""


def collected(work: Path) -> dict[str, Any]:
    """The results in `work` of all experiments that are finished there, and the verdicts they give."""
    protocols: dict[str, list[dict[str, Any]]] = {}
    for experiment in EXPERIMENTS:
        name = experiment.protocol.name
        found = kept(work, experiment)
        if len(found) > len(protocols.get(name, ())):
            protocols[name] = [each.to_dict() for each in found]
    results = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "protocols": protocols}
    results["verdicts"] = verdicts(results)
    return results


def kept(work: Path, experiment: Experiment) -> tuple[Finished, ...]:
    """Of the seeds that the experiment asks for, those that are finished; nothing is run."""
    bench = Bench(work)
    return tuple(bench.finished(experiment.protocol, seed) for seed in experiment.seeds if bench.place(experiment.protocol, seed).exists())


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{processor}, one thread, torch {torch.__version__}"


def finished(results: Mapping[str, Any], experiment: Experiment) -> tuple[Finished, ...]:
    return tuple(map(Finished.from_dict, results["protocols"].get(experiment.protocol.name, ())))


def verdicts(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By id, what each experiment's rule makes of the results; experiments without any are left out."""
    found = {}
    for experiment in EXPERIMENTS:
        runs = finished(results, experiment)
        if runs:
            judged = judgement(experiment, runs)
            found[experiment.id] = {"verdict": judged.verdict, "reason": judged.reason}
    return found


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    known = verdicts(results)
    counts = Counter(each["verdict"] for each in known.values())
    names: tuple[Verdict, ...] = ("reproduced", "contradicted", "artefact", "open")
    told = ", ".join(f"{counts[name]} {name}" for name in names)
    seconds = sum(run["seconds"] for runs in results["protocols"].values() for run in runs)
    parts = [
        HEADER,
        f"Of {len(known)} claims: {told}. {results['date']}, {results['machine']}, on a machine that was busy with other work; {seconds / 60:.0f} minutes of processor time for all.\n",
        "| | claim | work | seeds | verdict |\n|---|---|---|---|---|",
    ]
    for experiment in EXPERIMENTS:
        if experiment.id in known:
            seeds = len(finished(results, experiment))
            link = f"[{experiment.id}](#{experiment.id.lower()})"
            parts.append(f"| {link} | {experiment.title} | {experiment.source.partition(',')[0]} | {seeds} | {known[experiment.id]['verdict']} |")
    missing = [experiment.id for experiment in EXPERIMENTS if experiment.id not in known]
    if missing:
        parts.append(f"\nThere to be run, without a result on this page: {', '.join(missing)}.")
    text = "\n".join(parts) + "\n"
    for experiment in EXPERIMENTS:
        if experiment.id in known:
            text += "\n" + "\n".join(section(experiment, finished(results, experiment), known[experiment.id]))
    return text


def section(experiment: Experiment, runs: Sequence[Finished], judged: Mapping[str, str]) -> Iterator[str]:
    images = ", ".join(dict.fromkeys(run.images for run in runs))
    yield f"## {experiment.id}\n"
    yield f"**{experiment.title}.** {experiment.claim} ({experiment.source})\n"
    yield f"- *Run:* {experiment.protocol.setup} Images: {images}; {len(runs)} seeds, {statistics.fmean(run.seconds for run in runs):.0f} s each."
    yield f"- *Criterion:* {experiment.criterion}"
    yield f"- ***{judged['verdict'].capitalize()}*:** {judged['reason']}"
    if experiment.note:
        yield f"- {experiment.note}"
    yield ""
    yield f"![{experiment.id}](images/experiments/{experiment.id}.svg)\n"
    yield "| | " + " | ".join(f"seed {run.seed}" for run in runs) + " |"
    yield "|---|" + "---|" * len(runs)
    for name in experiment.shown:
        yield f"| {name} | " + " | ".join(f"{run.measured[name]:.4g}" for run in runs) + " |"
    yield ""


def draw(results: Mapping[str, Any]) -> None:
    """All figures, the same bytes for the same results."""
    import matplotlib

    from nndoctor.zoo.experiments.figures import draw_experiment

    FIGURES.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "nndoctor", "svg.fonttype": "none", "font.family": "sans-serif"}):
        for experiment in EXPERIMENTS:
            runs = finished(results, experiment)
            if runs:
                figure = draw_experiment(experiment, [run.measured for run in runs])
                figure.savefig(FIGURES / f"{experiment.id}.svg", metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="WORK")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.collect is not None:
        results = collected(options.collect)
        RESULTS.write_text(json.dumps(results, separators=(",", ":")).replace('{"seed"', '\n{"seed"') + "\n", encoding="utf-8")
        draw(results)
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = page(results)
    if options.check:
        stale = PAGE.read_text(encoding="utf-8") != text or results["verdicts"] != verdicts(results)
        if stale:
            print("docs/experiments.md is not what the results give: run python scripts/make_experiments.py", file=sys.stderr)
        return int(stale)
    if results["verdicts"] != verdicts(results):
        results["verdicts"] = verdicts(results)
        RESULTS.write_text(json.dumps(results, separators=(",", ":")).replace('{"seed"', '\n{"seed"') + "\n", encoding="utf-8")
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
