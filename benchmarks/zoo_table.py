"""Runs every case of the zoo under the doctor and writes the table of what it said.

    python benchmarks/zoo_table.py [--seeds 0 1 2] [--case PATTERN ...] [--out docs/zoo.md] [--json results.json]

Exit code 1 if a planted cause was missed or a run without one raised an alarm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nndoctor.zoo.case import Case
    from nndoctor.zoo.runner import CaseResult

Task = tuple[str, str, int]  # case, variant, seed

HEADER = """# The zoo

Every case is a short training run on real data with one planted ailment, beside the same run without it: same model,
same data, same seed. Healthy runs are of kinds that look ill to a naive threshold. The doctor must name the planted
cause first and at the right place, and must say nothing above `info` about cured and healthy runs. The thresholds of
the rules were set with these cases in view: the table shows that the whole pipe works on them, not how often the doctor
is right about runs that it has never seen.
`python benchmarks/zoo_table.py --out docs/zoo.md` makes this page; `nndoctor demo CASE` shows a case live.
"""


def main() -> int:
    options = arguments().parse_args()
    for pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before the workers start and import torch
        os.environ[pool] = "1"
    from nndoctor.zoo.case import all_cases

    patterns = options.case or ["*"]
    cases = [case for case in all_cases() if any(fnmatch(case.name, pattern) for pattern in patterns)]
    tasks = [(case.name, variant, seed) for case in cases for variant in case.variants for seed in options.seeds]
    began = time.perf_counter()
    results = list(run_all(tasks, options.processes))
    seconds = time.perf_counter() - began
    page = markdown(cases, results, options.seeds)
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    else:
        print(page)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    failed = [result for result in results if not result.passed]
    print(f"{len(results) - len(failed)} of {len(results)} runs as they should be, {seconds:.0f} s", file=sys.stderr)
    return 1 if failed else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--case", nargs="*", help="only cases whose name matches one of these patterns")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the page here instead of to standard output")
    parser.add_argument("--json", type=Path, help="write every result here as well")
    return parser


def run_all(tasks: Sequence[Task], processes: int) -> Iterable[CaseResult]:
    """The results in the order of the tasks, reported on standard error as they come."""
    with get_context("spawn").Pool(processes, initializer=one_thread) as pool:
        for count, result in enumerate(pool.imap(run_task, tasks), 1):
            mark = "ok  " if result.passed else "FAIL"
            said = ", ".join(result.false_alarms) if result.expected is None else f"{result.diagnosis} {result.targets}"
            print(
                f"{mark} {count}/{len(tasks)} {result.case} {result.variant} seed {result.seed}: "
                f"{said or 'silent'} ({result.seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
            yield result


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def run_task(task: Task) -> CaseResult:
    from nndoctor.zoo.case import case_named
    from nndoctor.zoo.runner import run_case

    name, variant, seed = task
    return run_case(case_named(name), variant, seed)  # type: ignore[arg-type]


def markdown(cases: Sequence[Case], results: Sequence[CaseResult], seeds: Sequence[int]) -> str:
    """The page: one table of ailments, one of healthy runs, and whatever was not as it should be."""
    of = {
        (case.name, variant): [r for r in results if r.case == case.name and r.variant == variant]
        for case in cases
        for variant in case.variants
    }
    sick = [case for case in cases if case.diagnosis is not None]
    healthy = [case for case in cases if case.diagnosis is None]
    seconds = sum(r.seconds for r in results)
    named = sum(r.root_cause_first for r in results if r.variant == "sick")
    silent = sum(r.passed for r in results if r.variant != "sick")
    lines = [
        HEADER,
        f"{len(cases)} cases, {len(results)} runs over seeds {', '.join(map(str, seeds))}, {seconds:.0f} s of training: "
        f"the planted cause is named first in {named} of {sum(r.variant == 'sick' for r in results)} sick runs, "
        f"and {silent} of {sum(r.variant != 'sick' for r in results)} cured and healthy runs are silent.",
        "",
        "## Ailments",
        "",
        "| case | what is wrong | named first | place | at step | other root causes | cured: silent | score sick → cured |",
        "|---|---|---|---|---|---|---|---|",
        *(sick_row(case, of[case.name, "sick"], of[case.name, "cured"]) for case in sick),
        "",
        "The score is the final loss, or the validation loss where that is what suffers; – where only time or a"
        " contract of the loop is lost.",
        "",
        "## Healthy runs",
        "",
        "| case | what looks ill and is not | silent | alarms |",
        "|---|---|---|---|",
        *(healthy_row(case, of[case.name, "healthy"]) for case in healthy),
        "",
    ]
    return "\n".join(lines)


def sick_row(case: Case, sick: Sequence[CaseResult], cured: Sequence[CaseResult]) -> str:
    steps = [r.steps_to_diagnosis for r in sick if r.steps_to_diagnosis is not None]
    where = [r.place_right for r in sick if r.place_right is not None]
    others = unique(alarm for r in sick for alarm in r.false_alarms)
    alarms = unique(alarm for r in cured for alarm in r.false_alarms)
    cells = (
        f"`{case.name}`" if case.name == case.diagnosis else f"`{case.name}` ({case.diagnosis})",
        case.description,
        share(r.root_cause_first for r in sick) + missed(sick),
        (share(where) if where else "missed") if case.place else "–",
        f"{min(steps)}–{max(steps)}" if steps and min(steps) != max(steps) else f"{steps[0]}" if steps else "never",
        ", ".join(others) or "none",
        share(r.passed for r in cured) + (f": {', '.join(alarms)}" if alarms else ""),
        f"{middle(sick)} → {middle(cured)}",
    )
    return row(cells)


def healthy_row(case: Case, runs: Sequence[CaseResult]) -> str:
    alarms = unique(alarm for r in runs for alarm in r.false_alarms)
    return row((f"`{case.name}`", case.description, share(r.passed for r in runs), ", ".join(alarms) or "none"))


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def share(right: Iterable[bool | None]) -> str:
    flags = list(right)
    return f"{sum(bool(flag) for flag in flags)}/{len(flags)}"


def missed(runs: Sequence[CaseResult]) -> str:
    """What was named instead, where it was something else."""
    instead = unique(r.diagnosis or "nothing" for r in runs if not r.root_cause_first)
    return f" (else {', '.join(instead)})" if instead else ""


def middle(runs: Sequence[CaseResult]) -> str:
    """The median score; the worst of them where the median is no number."""
    scores = sorted((r.score for r in runs if r.score is not None), key=lambda s: math.inf if math.isnan(s) else s)
    return f"{scores[len(scores) // 2]:.3g}" if scores else "–"


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
