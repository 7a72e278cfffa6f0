"""How far the statistics from sketches are from those of all elements: the same formulas on both, on the same steps.

Two probes watch the same training: one as it is, one that is shown every element of every tensor. Only tensors that
are larger than the sketch are compared, the others are complete in both. Errors are relative where a statistic has a
natural zero; of those that have none (a mean around zero, a cosine, a share) the difference itself counts.

    python benchmarks/sketch_accuracy.py                    print the table
    python benchmarks/sketch_accuracy.py --only lenet       one model
    python benchmarks/sketch_accuracy.py --write            also into docs/performance.md and benchmarks/sketch_accuracy.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tables import machine, put_between
from workloads import Job, embedding_mlp, gpt, lenet, lstm, resnet18

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "sketch_accuracy.json"

JOBS: Mapping[str, Callable[[], Job]] = {"LeNet": lenet, "ResNet-18": resnet18, "GPT": gpt, "LSTM": lstm, "embedding MLP": embedding_mlp}
WARM_STEPS = 10  # the means over steps need five
PHASES = 4  # the sketch looks at other elements after every 64 samples; its error is that of the elements it happens to see

RELATIVE, IN_DEVIATIONS, ABSOLUTE = "relative", "of the standard deviation", "absolute"
STATISTICS: Mapping[str, str] = {
    "param.weight.norm": RELATIVE,
    "param.weight.std": RELATIVE,
    "param.weight.gain": RELATIVE,
    "param.grad.mean": IN_DEVIATIONS,
    "param.grad.var": RELATIVE,
    "param.grad.time_var": RELATIVE,
    "param.grad.snr": RELATIVE,
    "param.grad.cosine": ABSOLUTE,
    "param.update.norm": RELATIVE,
    "param.update.ratio": RELATIVE,
    "param.update.projection": RELATIVE,
    "param.adam.m_norm": RELATIVE,
    "param.adam.v_mean": RELATIVE,
    "param.adam.m_hat_norm": RELATIVE,
    "param.adam.v_hat_mean": RELATIVE,
    "param.adam.update_rms": RELATIVE,
    "param.adam.eps_fraction": ABSOLUTE,
    "param.adam.staleness": RELATIVE,
}


@dataclass(frozen=True)
class Error:
    """Of one statistic of one model, over tensors and steps: median, nine in ten, largest."""

    median: float
    p90: float
    largest: float
    values: int

    @staticmethod
    def of(errors: Sequence[float]) -> Error:
        data = np.asarray(errors)
        return Error(float(np.median(data)), float(np.quantile(data, 0.9)), float(data.max()), len(data))


def complete_probe() -> Any:
    """A probe of parameters whose sketch holds every element, one sketch per tensor."""
    from nndoctor.probes import parameters

    class Complete(parameters.ParameterProbe):
        def _rows_of(self, optimizer: Any) -> list[Any]:
            assert self._index is not None
            if id(optimizer) not in self._rows:
                held = [p for group in optimizer.param_groups for p in group["params"]]
                with every_element():
                    self._rows[id(optimizer)] = [parameters._build_rows(self._index, [p])[0] for p in held]
            return self._rows[id(optimizer)]

    return Complete()


@contextmanager
def every_element() -> Iterator[None]:
    """Sketches that are built meanwhile are as wide as their widest tensor."""
    from nndoctor.probes import parameters

    usual = parameters.width_for
    parameters.width_for = lambda rows, elements, buffers: max(elements, 16)
    try:
        yield
    finally:
        parameters.width_for = usual


def compare(job: Job, phases: int = PHASES) -> dict[str, Error]:
    """The errors of every statistic on tensors larger than the sketch."""
    from nndoctor.discovery import ModelIndex
    from nndoctor.probes.parameters import ParameterProbe

    index = ModelIndex(job.model)
    probes = (ParameterProbe(), complete_probe())
    for probe in probes:
        probe.attach(index)
    handles = [
        job.optimizer.register_step_pre_hook(lambda o, *_: [probe.gradients_ready(o) for probe in probes] and None),
        job.optimizer.register_step_post_hook(lambda o, *_: [probe.stepped(o) for probe in probes] and None),
    ]
    errors: dict[str, list[float]] = defaultdict(list)
    steps = job.steps()
    for _ in range(phases):
        for step in range(2 * WARM_STEPS):
            for probe in probes:
                probe.begin_step(step, True)
            next(steps)
            sketched, exact = ({name: np.asarray(value) for name, value in probe.collect().items()} for probe in probes)
            if step >= WARM_STEPS:
                (rows,) = probes[0]._rows[id(job.optimizer)]
                large = np.array([n > rows.sketch.width for n in rows.sketch.sizes])
                for name, kind in STATISTICS.items():
                    if name in sketched and name in exact:
                        errors[name].extend(differences(kind, sketched[name][large], exact[name][large], exact["param.grad.var"][large]))
        for probe in probes:
            probe._redraw()
    for handle in handles:
        handle.remove()
    return {name: Error.of(found) for name, found in errors.items() if found}


def differences(kind: str, sketched: Any, exact: Any, variance: Any) -> list[float]:
    """The error of each tensor for which there is an exact value; a sketch that finds none where there is one errs by 100 %."""
    known = np.isfinite(exact)
    if kind == RELATIVE:
        known &= exact != 0
    difference = np.abs(sketched - exact)
    if kind == RELATIVE:
        difference = difference / np.where(exact == 0, 1, np.abs(exact))
    elif kind == IN_DEVIATIONS:
        difference = difference / np.sqrt(np.maximum(variance, 1e-38))
    return [float(x) for x in np.nan_to_num(difference[known], nan=1.0)]


def markdown(results: Mapping[str, Mapping[str, Error]]) -> str:
    lines = ["| statistic | error | " + " | ".join(results) + " |", "|---|---|" + "---|" * len(results)]
    for name, kind in STATISTICS.items():
        cells = [cell(errors.get(name), kind) for errors in results.values()]
        lines.append(f"| `{name}` | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(error: Error | None, kind: str) -> str:
    if error is None:
        return "–"
    if kind == ABSOLUTE:
        return f"{error.p90:.3f}, {error.largest:.3f}"
    return f"{100 * error.p90:.1f} %, {100 * error.largest:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=JOBS, action="append", help="one model; may be repeated")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md, everything into benchmarks/sketch_accuracy.json")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write does not take --only: the table is written whole")
    import torch

    torch.set_num_threads(1)
    results = {}
    for name in options.only or JOBS:
        torch.manual_seed(0)
        results[name] = compare(JOBS[name]())
        print(f"{name}: done", flush=True)
    table = markdown(results)
    print(table)
    if options.write:
        kept = {model: {name: asdict(error) for name, error in errors.items()} for model, errors in results.items()}
        RESULTS.write_text(json.dumps({"machine": machine(), "results": kept}, indent=2) + "\n", encoding="utf-8")
        put_between(DOCUMENT, "accuracy", table)


if __name__ == "__main__":
    main()
