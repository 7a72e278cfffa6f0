"""Runs every case of the zoo under the doctor, treats the sick with its own remedies, and writes what came of it.

    python benchmarks/clinic.py [--seeds 0 1 2] [--case PATTERN ...] [--processes 2] [--write]
    python benchmarks/clinic.py --case PATTERN ... --update
    python benchmarks/clinic.py --fast

``--write`` writes ``docs/clinic.md``, ``docs/clinic.json`` (every run) and ``rulesets/clinic.json`` (what the rules'
pages show). ``--update`` writes them too: the runs of these cases are made anew, those of all others are taken from
``docs/clinic.json``. ``--fast`` is for continuous integration: one seed of as many cases as fit into a minute and a half.
Exit code 1 if a planted cause was missed, a run without one raised an alarm, or a run failed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nndoctor.zoo.case import Case
    from nndoctor.zoo.runner import CaseResult

Task = tuple[str, str, int]  # case, variant, seed

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "clinic.md"
EVERY_RUN = REPOSITORY / "docs" / "clinic.json"
SUMMARY = REPOSITORY / "rulesets" / "clinic.json"

FAST_SECONDS = 100.0
"""Processor seconds of training for ``--fast``: under 90 s on two cores, the start of the workers included."""
UNKNOWN_SECONDS = 5.0
"""What a run is taken to last that ``docs/clinic.json`` does not have yet."""

DIVERGENCES = frozenset({"learning-rate-too-high", "exploding-gradients"})
"""Diagnoses of which a diverging loss is the ailment itself, not what comes of another."""

HEADER = """# The clinic

Every sick case is a short training run with one planted ailment, beside the same run without it: same model, same data,
same seed. Healthy cases are of kinds that look ill to a naive rule. Each run is watched by a doctor with the ruleset
`core` as it ships, and held against what was planted:

- **first**: the first root cause is the planted one. **Among three**: one of the first three is.
- **place**: every layer or parameter that the finding names lies where the ailment was planted, where it has a place.
- **steps**: optimizer steps from the onset of the ailment to the first firing.
- **divergence** in time: the planted ailment was named in the step at the latest in which the loss stood at four times that
  of step 1 or was not finite, in runs that end no better than they began. Under the learning rate and exploding gradients
  divergence is the ailment; under others (a contract named in step 3 to 5, targets in thousands, the losses of a GAN) it is what comes of it.
- **alarm**: any finding above `info` in a healthy or cured run.
- **remedy**: the first fix of the first root cause that is a value or a call is applied by the program that makes this
  page, without a look at the answer; the case counts as cured if the diagnosis is gone and the score has closed 80 % of
  the gap to the cured run (on a logarithmic scale, from ten times the cured score at most).
- **precision** of a rule: of the runs in which it spoke above `info` and nothing else explained it, the share in which
  its diagnosis was planted. **Recall**: of the runs in which its diagnosis was planted, the share in which it spoke for
  it. A diagnosis with several rules needs only one of them to speak, so its own row is the one to read.

## How to read the two halves

Rules may be tuned on one half of the cases; the other half only judges them. A hash of its name decides where a case
belongs, with one case of each diagnosis in each half where there are two, and three honest exceptions
(`nndoctor/zoo/halves.py` has the lists). All cases that existed when the first thresholds were set count as tuned, whatever
their hash says: up to then every rule was made in sight of every case. So does each case whose failure led to a change of
a rule. Cases that were written after the rules that judge them, and run without changing any, count as untuned.

Where a rule and its cases were written together, the half is a matter of the hash alone: their author saw both, and the
untuned figure is worth less than that of the cases written blind, which are marked so below.

`make clinic` makes this page; `nndoctor demo CASE` shows a case live.
"""


# ------------------------------------------------------------------ running


def main() -> int:
    options = arguments().parse_args()
    for pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before the workers start and import torch
        os.environ[pool] = "1"
    from nndoctor.zoo.case import all_cases

    patterns = options.case or ["*"]
    cases = [case for case in all_cases() if any(fnmatch(case.name, pattern) for pattern in patterns)]
    if options.fast:
        cases = quick(cases, seconds_by_case(), FAST_SECONDS)
        options.seeds = options.seeds[:1]
    tasks = [(case.name, variant, seed) for case in cases for variant in case.variants for seed in options.seeds]
    began = time.perf_counter()
    results = list(run_all(tasks, options.processes))
    seconds = time.perf_counter() - began
    if options.update:
        write(all_cases(), merged(results, stored_runs()), options.seeds)
    elif options.write:
        write(cases, results, options.seeds)
    failed = [result for result in results if result.variant != "treated" and not result.passed]
    print(f"{len(results)} runs in {seconds:.0f} s, {len(failed)} not as they should be", file=sys.stderr)
    return 1 if failed else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--case", nargs="*", help="only cases whose name matches one of these patterns")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fast", action="store_true", help="one seed of the quickest cases, under 90 s on two cores")
    parser.add_argument("--write", action="store_true", help="write the page and both JSON files")
    parser.add_argument("--update", action="store_true", help="write them, with the stored runs of all other cases")
    return parser


def stored_runs() -> list[CaseResult]:
    """Every run of ``docs/clinic.json``, without the verdicts."""
    from pydantic import TypeAdapter

    from nndoctor.zoo.runner import CaseResult

    return TypeAdapter(list[CaseResult]).validate_python(json.loads(EVERY_RUN.read_text(encoding="utf-8"))["runs"])


def merged(fresh: Sequence[CaseResult], stored: Sequence[CaseResult]) -> list[CaseResult]:
    """The fresh runs, and the stored ones of cases that were not run now."""
    anew = {result.case for result in fresh}
    return sorted([*fresh, *(result for result in stored if result.case not in anew)], key=lambda result: (result.case, result.seed))


def write(cases: Sequence[Case], results: Sequence[CaseResult], seeds: Sequence[int]) -> None:
    from nndoctor.rules import load_rulesets

    core = load_rulesets(["core"]).rules
    rules = {rule.id: rule.diagnosis for rule in core}
    tally = tallied(cases, results, {rule.id for rule in core if rule.kind == "contract"})
    PAGE.write_text(markdown(cases, tally, rules, seeds), encoding="utf-8")
    runs = ",\n".join(json.dumps(as_json(result)) for result in results)
    EVERY_RUN.write_text(f'{{"seeds": {json.dumps(list(seeds))},\n"runs": [\n{runs}\n]}}\n', encoding="utf-8")
    SUMMARY.write_text(compact(summary(cases, tally, rules, seeds)), encoding="utf-8")


def as_json(result: CaseResult) -> dict[str, Any]:
    """The run as plain values; numbers that JSON has no name for as text."""
    plain = asdict(result)
    for name in ("score", "final_loss", "seconds"):
        value = plain[name]
        plain[name] = None if value is None else float(f"{value:.4g}") if math.isfinite(value) else str(value)
    del plain["verdict"]  # the findings say the same
    return {name: value for name, value in plain.items() if value not in (None, (), "")}


def compact(summary: Mapping[str, Any]) -> str:
    """JSON with one line per rule and diagnosis, so that a change of the table is a readable change of the file."""
    rows = []
    for key, value in summary.items():
        if isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values()):
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items())
            rows.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            rows.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{" + ",\n".join(rows) + "}\n"


def seconds_by_case() -> dict[str, float]:
    """Seconds that all runs of each case took for one seed, by the last full clinic."""
    if not EVERY_RUN.exists():
        return {}
    runs = json.loads(EVERY_RUN.read_text(encoding="utf-8"))["runs"]
    seeds: dict[str, set[int]] = {}
    total: dict[str, float] = {}
    for run in runs:
        seeds.setdefault(run["case"], set()).add(run["seed"])
        total[run["case"]] = total.get(run["case"], 0.0) + float(run["seconds"])
    return {case: total[case] / len(seeds[case]) for case in total}


def quick(cases: Sequence[Case], seconds: Mapping[str, float], budget: float) -> list[Case]:
    """As many cases as fit into the budget: the quickest of each diagnosis, then the quickest healthy ones."""

    def cost(case: Case) -> float:
        return seconds.get(case.name, UNKNOWN_SECONDS * (1 + (case.diagnosis is not None) * 2))

    def within(found: Iterable[Case], limit: float) -> list[Case]:
        chosen: list[Case] = []
        for case in sorted(found, key=lambda case: (cost(case), case.name)):
            if cost(case) <= limit:
                chosen.append(case)
                limit -= cost(case)
        return chosen

    cheapest: dict[str, Case] = {}
    for case in sorted((case for case in cases if case.diagnosis is not None), key=lambda case: (-cost(case), case.name)):
        cheapest[str(case.diagnosis)] = case
    sick = within(cheapest.values(), 0.65 * budget)
    healthy = within((case for case in cases if case.diagnosis is None), budget - sum(map(cost, sick)))
    chosen = {case.name for case in (*sick, *healthy)}
    return [case for case in cases if case.name in chosen]


def run_all(tasks: Sequence[Task], processes: int) -> Iterable[CaseResult]:
    """The results in the order of the tasks, reported on standard error as they come."""
    # No multiprocessing.Pool: its processes are daemons, which may not have children, as loaders with workers do.
    with ProcessPoolExecutor(processes, get_context("spawn"), one_thread) as pool:
        for count, results in enumerate(pool.map(run_task, tasks), 1):
            for result in results:
                print(f"{count}/{len(tasks)} {line(result)}", file=sys.stderr, flush=True)
                yield result


def line(result: CaseResult) -> str:
    mark = "ok  " if result.passed else "FAIL"
    said = ", ".join(result.false_alarms) if result.expected is None else f"{result.diagnosis} {list(result.targets)}"
    text = f"{mark} {result.case} {result.variant} seed {result.seed}: {said or 'silent'}"
    text += f" [{result.remedy}]" if result.remedy else ""
    text += f" failures: {'; '.join(result.failures)}" if result.failures else ""
    return f"{text} ({result.seconds:.1f} s)"


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def run_task(task: Task) -> list[CaseResult]:
    """The run, and the treated one behind a sick one; a run that raises is a result that says so."""
    from nndoctor.zoo.case import case_named
    from nndoctor.zoo.runner import CaseResult, run_case, run_sick

    name, variant, seed = task
    case = case_named(name)
    try:
        if variant == "sick":
            return [result for result in run_sick(case, seed) if result is not None]
        return [run_case(case, variant, seed)]  # type: ignore[arg-type]
    except Exception as error:
        expected = case.diagnosis if variant == "sick" else None
        said = (str(error).splitlines() or [""])[0][:200]
        return [CaseResult(name, variant, seed, expected, failures=(f"{type(error).__name__}: {said}",))]  # type: ignore[arg-type]
    finally:
        forget_compiled_code()
        give_back_memory()


def give_back_memory() -> None:
    """What earlier runs have freed goes back to the system; a leak would fill it for a hundred steps before it showed."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc only
        trim(0)


def forget_compiled_code() -> None:
    """Make the process as good as new: where something was compiled, some probes look less closely.

    torch offers no public way to set the counts back that tell whether it was.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
        sys.modules["torch._dynamo.utils"].counters.clear()


# ------------------------------------------------------------------ counting


@dataclass
class Count:
    """How often something was right, of how often it could have been."""

    right: int = 0
    of: int = 0

    def add(self, right: bool) -> None:
        self.right += right
        self.of += 1

    @property
    def share(self) -> float | None:
        return self.right / self.of if self.of else None

    def __str__(self) -> str:
        return f"{self.right}/{self.of}" if self.of else "–"

    def with_percent(self) -> str:
        return f"{self} ({100 * self.right / self.of:.0f} %)" if self.of else "–"


@dataclass
class Row:
    """Everything that is counted, for a diagnosis, for a half of the cases, or for all of them."""

    first: Count = field(default_factory=Count)
    among_three: Count = field(default_factory=Count)
    spoken: Count = field(default_factory=Count)
    place: Count = field(default_factory=Count)
    healthy: Count = field(default_factory=Count)
    cured: Count = field(default_factory=Count)
    remedy: Count = field(default_factory=Count)
    steps: list[int] = field(default_factory=list)
    loop_steps: list[int] = field(default_factory=list)
    """Of ``steps``, those of runs in which a broken contract decided."""
    in_time: Count = field(default_factory=Count)
    """Diverging runs that were named in the step at the latest in which the loss had doubled twice."""
    in_time_otherwise: Count = field(default_factory=Count)
    """The same where something else than `DIVERGENCES` was planted and made the loss diverge."""
    alarms: int = 0
    wrong: int = 0

    @property
    def precision(self) -> Count:
        """Of the runs in which it was named, those in which it was planted."""
        return Count(self.spoken.right, self.spoken.right + self.wrong)


@dataclass
class Tally:
    """All counts: by half (``tuned``, ``untuned`` and its part ``blind``, ``all``), per diagnosis and rule by half as well."""

    halves: dict[str, Row] = field(default_factory=dict)
    contracts: Collection[str] = ()
    diagnoses: dict[str, dict[str, Row]] = field(default_factory=dict)
    rules: dict[str, dict[str, Row]] = field(default_factory=dict)
    runs: dict[str, dict[str, list[CaseResult]]] = field(default_factory=dict)
    """Case and variant to its runs."""

    def of(self, case: str, variant: str) -> list[CaseResult]:
        return self.runs.get(case, {}).get(variant, [])


def rows(table: dict[str, dict[str, Row]], name: str, half: str) -> tuple[Row, Row]:
    """The rows of `name` to count in: that of the half and that of both."""
    found = table.setdefault(name, {"tuned": Row(), "untuned": Row(), "all": Row()})
    return found[half], found["all"]


def tallied(cases: Sequence[Case], results: Sequence[CaseResult], contracts: Collection[str] = ()) -> Tally:
    """Counts every run once: in the row of its half, of its diagnosis, and of the rules that spoke or should have.

    Args:
        contracts: ids of the rules that decide by a broken contract.
    """
    tally = Tally({"blind": Row(), "untuned": Row(), "tuned": Row(), "all": Row()}, contracts)
    for result in results:
        tally.runs.setdefault(result.case, {}).setdefault(result.variant, []).append(result)
    for case in cases:
        half = "tuned" if case.tuned else "untuned"
        for variant in case.variants:
            for result in tally.of(case.name, variant):
                count_run(tally, half, case, result)
        count_remedies(tally, half, case)
    return tally


def total_rows(tally: Tally, case: Case) -> list[Row]:
    """The rows of the headline that a case counts in: of both halves, its own, and that of the blind ones."""
    return [tally.halves[name] for name in dict.fromkeys(("all", "tuned" if case.tuned else "untuned", half_of(case)))]


def count_run(tally: Tally, half: str, case: Case, result: CaseResult) -> None:
    totals = total_rows(tally, case)
    for row in totals:
        row.alarms += len(result.false_alarms)
        if result.variant == "healthy":
            row.healthy.add(result.passed)
        elif result.variant == "cured":
            row.cured.add(result.passed)
    if result.expected is not None:
        for row in (*totals, *rows(tally.diagnoses, result.expected, half)):
            row.first.add(result.root_cause_first)
            row.among_three.add(result.rank is not None and result.rank <= 3)
            row.spoken.add(result.rank is not None)
            if case.place:
                row.place.add(bool(result.place_right))
            if result.steps_to_diagnosis is not None:
                row.steps.append(result.steps_to_diagnosis)
                if decided_by(result) in tally.contracts:
                    row.loop_steps.append(result.steps_to_diagnosis)
            if result.divergence_in_time is not None:
                count = row.in_time if result.expected in DIVERGENCES else row.in_time_otherwise
                count.add(result.divergence_in_time)
    for diagnosis in dict.fromkeys(spoken.diagnosis for spoken in wrong(result)):
        for row in rows(tally.diagnoses, diagnosis, half):
            row.wrong += 1
    for rule in dict.fromkeys(spoken.rule for spoken in wrong(result)):
        for row in rows(tally.rules, rule, half):
            row.wrong += 1
    for rule in right(result):
        for row in rows(tally.rules, rule, half):
            row.spoken.right += 1


def decided_by(result: CaseResult) -> str | None:
    """The rule that named what was planted; None if no root cause did."""
    return next((finding.rule for finding in result.roots if finding.diagnosis == result.expected), None)


def wrong(result: CaseResult) -> list[Any]:
    """What the doctor said that nothing planted accounts for."""
    spoken = result.spoken if result.expected is None else result.roots
    return [finding for finding in spoken if finding.diagnosis != result.expected]


def right(result: CaseResult) -> list[str]:
    """The rules that spoke for what was planted: as its root cause, or folded under another rule that did."""
    if result.expected is None:
        return []
    roots = {finding.rule for finding in result.roots if finding.diagnosis == result.expected}
    named = (f for f in result.spoken if f.diagnosis == result.expected)
    return list(dict.fromkeys(f.rule for f in named if f.rule in roots or f.explained_by in roots))


def count_remedies(tally: Tally, half: str, case: Case) -> None:
    """Counts the sick runs whose remedy is a value or a call; a fix that was not offered is a cure that failed."""
    if not case.remedies:
        return
    from nndoctor.zoo.runner import cures

    by_seed = {variant: {r.seed: r for r in tally.of(case.name, variant)} for variant in ("sick", "cured", "treated")}
    for seed, sick in by_seed["sick"].items():
        cured, treated = by_seed["cured"].get(seed), by_seed["treated"].get(seed)
        worked = cured is not None and treated is not None and cures(sick, cured, treated)
        for row in (*total_rows(tally, case), *rows(tally.diagnoses, str(case.diagnosis), half)):
            row.remedy.add(worked)


def summary(
    cases: Sequence[Case], tally: Tally, rules: Mapping[str, str], seeds: Sequence[int]
) -> dict[str, Any]:
    """What the rules' pages show: right, of, wrong for each rule and diagnosis, first both halves, then the untuned one."""
    empty = {"tuned": Row(), "untuned": Row(), "all": Row()}

    def of(diagnosis: str, half: str) -> int:
        return tally.diagnoses.get(diagnosis, empty)[half].spoken.of

    found: dict[str, Any] = {
        "seeds": len(seeds),
        "sick": sum(case.diagnosis is not None for case in cases),
        "healthy": sum(case.diagnosis is None for case in cases),
        "rules": {},
        "diagnoses": {},
    }
    for rule, diagnosis in sorted(rules.items()):
        halves = tally.rules.get(rule, empty)
        counts = {h: [halves[h].spoken.right, of(diagnosis, h), halves[h].wrong] for h in ("all", "untuned")}
        found["rules"][rule] = {half: count for half, count in counts.items() if half == "all" or any(count)}
    for diagnosis, halves in sorted(tally.diagnoses.items()):
        counts = {h: [halves[h].spoken.right, halves[h].spoken.of, halves[h].wrong] for h in ("all", "untuned")}
        row: dict[str, Any] = {half: count for half, count in counts.items() if half == "all" or any(count)}
        whole = halves["all"]
        row["first"] = whole.first.right
        if whole.remedy.of:
            row["remedy"] = [whole.remedy.right, whole.remedy.of]
        if whole.steps:
            row["steps"] = [round(median(whole.steps)), max(whole.steps)]
        found["diagnoses"][diagnosis] = row
    return found


# ------------------------------------------------------------------ the page


def markdown(cases: Sequence[Case], tally: Tally, rules: Mapping[str, str], seeds: Sequence[int]) -> str:
    sick = [case for case in cases if case.diagnosis is not None]
    healthy = [case for case in cases if case.diagnosis is None]
    runs = [result for of_case in tally.runs.values() for of_variant in of_case.values() for result in of_variant]
    mishaps = [result for result in runs if result.variant != "treated" and not result.passed]
    parts = [
        HEADER,
        f"{len(sick)} sick and {len(healthy)} healthy cases over seeds {', '.join(map(str, seeds))}: {len(runs)} runs, "
        f"{sum(result.seconds for result in runs):.0f} s of training.\n",
        headline(cases, tally),
        per_diagnosis(tally),
        per_rule(tally, rules),
        per_case(sick, tally),
        per_healthy_case(healthy, tally),
        "## What was not as it should be\n",
        "\n".join(f"- {line(result)}" for result in mishaps) or "Nothing.",
        "",
    ]
    return "\n".join(parts)


def headline(cases: Sequence[Case], tally: Tally) -> str:
    halves = [tally.halves[name] for name in ("blind", "untuned", "tuned", "all")]

    def number(wanted: Callable[[Case], bool]) -> list[str]:
        chosen = [case for case in cases if wanted(case)]
        blind, untuned = sum(half_of(case) == "blind" for case in chosen), sum(not case.tuned for case in chosen)
        return [str(blind), str(untuned), str(len(chosen) - untuned), str(len(chosen))]

    lines = [
        ("sick cases", *number(lambda case: case.diagnosis is not None)),
        ("healthy cases", *number(lambda case: case.diagnosis is None)),
        ("root cause first", *(row.first.with_percent() for row in halves)),
        ("among the first three", *(row.among_three.with_percent() for row in halves)),
        ("place right", *(row.place.with_percent() for row in halves)),
        ("healthy runs without an alarm", *(row.healthy.with_percent() for row in halves)),
        ("cured runs without an alarm", *(row.cured.with_percent() for row in halves)),
        ("wrong findings in all runs", *(str(row.alarms) for row in halves)),
        ("cured by the doctor's own remedy", *(row.remedy.with_percent() for row in halves)),
        ("steps to the diagnosis: median, most", *(extent(row.steps) for row in halves)),
        ("the same for broken contracts", *(extent(row.loop_steps) for row in halves)),
        ("divergence named by the step in which the loss has doubled twice", *(row.in_time.with_percent() for row in halves)),
        ("other ailments under which it diverges, by that step", *(row.in_time_otherwise.with_percent() for row in halves)),
    ]
    return table("## In short", ("", "blind part", "untuned half", "tuned half", "all"), lines)


def per_diagnosis(tally: Tally) -> str:
    lines = []
    for name, halves in sorted(tally.diagnoses.items()):
        row = halves["all"]
        lines.append(
            (
                f"`{name}`",
                percent(row.precision),
                percent(row.spoken),
                percent(halves["untuned"].spoken),
                str(row.first),
                str(row.among_three),
                str(row.place),
                extent(row.steps),
                str(row.remedy),
            )
        )
    head = ("diagnosis", "precision", "recall", "recall, untuned", "first", "among three", "place", "steps", "remedy")
    return table("## Diagnoses", head, lines)


def per_rule(tally: Tally, rules: Mapping[str, str]) -> str:
    nothing = {"tuned": Row(), "untuned": Row(), "all": Row()}
    lines = []
    for rule, diagnosis in sorted(rules.items()):
        halves, planted = tally.rules.get(rule, nothing), tally.diagnoses.get(diagnosis, nothing)
        counts = []
        for half in ("all", "untuned"):
            spoke = halves[half].spoken.right
            counts += [Count(spoke, spoke + halves[half].wrong), Count(spoke, planted[half].spoken.of)]
        shown = [percent(count) for count in counts]
        lines.append((f"`{rule}`", diagnosis if diagnosis != rule else "", *shown))
    head = ("rule", "diagnosis, if of another name", "precision", "recall", "precision, untuned", "recall, untuned")
    return table("## Rules", head, lines)


def per_case(sick: Sequence[Case], tally: Tally) -> str:
    lines = [sick_row(case, tally) for case in sick]
    head = ("case", "half", "what is wrong", "first", "place", "steps", "also named", "cured: silent", "remedy", "score: sick → cured")
    note = "The score is the final loss, or what suffers instead; – where only time or a contract of the loop is lost."
    return table("## Sick cases", head, lines, note)


def sick_row(case: Case, tally: Tally) -> tuple[str, ...]:
    from nndoctor.zoo.runner import cures

    sick, cured, treated = (tally.of(case.name, variant) for variant in ("sick", "cured", "treated"))
    steps = [r.steps_to_diagnosis for r in sick if r.steps_to_diagnosis is not None]
    where = [r.place_right for r in sick]
    others = unique(alarm for r in sick for alarm in r.false_alarms)
    alarms = unique(alarm for r in cured for alarm in r.false_alarms)
    healed = {r.seed: r for r in cured}
    worked = [cures(s, healed[t.seed], t) for t in treated for s in sick if s.seed == t.seed and t.seed in healed]
    remedy = f"{sum(worked)}/{len(sick)}: {treated[0].remedy}" if treated else "not offered"
    source = f" ([report]({case.source}))" if case.source else ""
    return (
        f"`{case.name}`" if case.name == case.diagnosis else f"`{case.name}` ({case.diagnosis})",
        half_of(case),
        case.description + source,
        share(r.root_cause_first for r in sick) + missed(sick),
        share(where) if case.place else "–",
        f"{min(steps)}–{max(steps)}" if steps and min(steps) != max(steps) else f"{steps[0]}" if steps else "never",
        ", ".join(others) or "nothing",
        share(r.passed for r in cured) + (f": {', '.join(alarms)}" if alarms else ""),
        remedy if case.remedies else "–",
        f"{middle(sick)} → {middle(cured)}",
    )


def half_of(case: Case) -> str:
    """``tuned``, ``untuned``, or ``blind`` for an untuned case that was written after its rules."""
    from nndoctor.zoo.halves import BLIND

    return "blind" if case.name in BLIND else "tuned" if case.tuned else "untuned"


def per_healthy_case(healthy: Sequence[Case], tally: Tally) -> str:
    lines = []
    for case in healthy:
        runs = tally.of(case.name, "healthy")
        alarms = unique(alarm for r in runs for alarm in r.false_alarms)
        lines.append((f"`{case.name}`", half_of(case), case.description, share(r.passed for r in runs), ", ".join(alarms) or "none"))
    return table("## Healthy cases", ("case", "half", "what looks ill and is not", "silent", "alarms"), lines)


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], note: str = "") -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join([title, "", cells(head), rule, *map(cells, lines), "", *([note, ""] if note else [])])


def cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def extent(steps: Sequence[int]) -> str:
    return f"{median(steps):.0f}, {max(steps)}" if steps else "–"


def percent(count: Count) -> str:
    return f"{count.share:.2f} ({count})" if count.share is not None else "–"


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
