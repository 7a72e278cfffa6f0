"""``nndoctor demo [CASE]``: trains a sick model live, applies the doctor's own fix, and shows both in a report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nndoctor.cli.browser import has_desktop, shown
from nndoctor.cli.output import say_json
from nndoctor.findings import Diagnosis, describe_fix

if TYPE_CHECKING:
    import torch

    from nndoctor.doctor import Doctor
    from nndoctor.reports.view import BeforeAfter
    from nndoctor.zoo.case import Case, Train
    from nndoctor.zoo.trainer import Observer

DEFAULT_CASE = "learning-rate-too-high"
DEFAULT_STEPS = 800
SEED = 0
USAGE_ERROR = 2


class EnoughSteps(Exception):
    """Raised out of the optimizer's step hook once the demo has seen the steps it was asked for."""


@dataclass(frozen=True)
class Second:
    """The run after the first one: how it trains, and what it was given."""

    train: Train
    label: str


def demo(
    case: str | None = None,
    steps: int | None = None,
    ui: str = "auto",
    out: Path | None = None,
    list_cases: bool = False,
    json: bool = False,
    show: bool | None = None,
) -> int:
    """Run the demo and return its exit code.

    Args:
        case: name of a case of the zoo, or a diagnosis; default the learning rate that is too high.
        steps: optimizer steps of each run, 800 for the default case; default what the case asks for.
        ui: of the panel, as in :func:`nndoctor.wrap`.
        out: where the report goes; default ``nndoctor-demo.html``.
        list_cases: print the cases and do nothing else.
        json: print the answer as JSON.
        show: open the report in the browser; None where there is a desktop to show it on.
    """
    if steps is not None and steps < 1:
        return refused(f"--steps: expected at least 1, got {steps}")
    say("loading torch ...")
    from nndoctor.zoo.case import UnknownCase, all_cases, case_named, with_steps

    if list_cases:
        if json:
            say_json([{"name": c.name, "description": c.description, "diagnosis": c.diagnosis} for c in all_cases()])
        else:
            print("\n".join(listed(all_cases())))
        return 0
    try:
        chosen = case_named(case or DEFAULT_CASE)
    except UnknownCase as error:
        return refused(str(error))
    if steps is None and chosen.name == DEFAULT_CASE:
        steps = DEFAULT_STEPS
    say(f"case {chosen.name}: {chosen.description}")
    say("training on 7 000 pictures of Fashion-MNIST (MIT licence), which ship with nndoctor ...")
    first = chosen.variants[0]
    doctor = trained_under_doctor(with_steps(chosen.train(first), steps), steps, ui, f"{chosen.name}-{first}")
    if not doctor.enabled:
        return refused("the doctor is switched off by NNDOCTOR=0 in the environment; unset it to see it work")
    diagnosis = doctor.diagnosis()
    say(final_loss(doctor))
    second = None
    if chosen.diagnosis is not None:
        second = second_run(chosen, diagnosis, steps, ui)
    report = written_report(doctor, out or Path("nndoctor-demo.html"), None if second is None else second[1])
    if json:
        say_json(as_dict(chosen, doctor, report, second))
        return 0
    if has_desktop() if show is None else show:
        say("opening the report" if shown(report) else f"no browser could be started; open {report}")
    print(f"report: {report.resolve()}")
    print(f"record: {doctor.run_dir} (nndoctor report {doctor.run_dir.name})")
    if doctor.verdict_shown:
        say("next: open the report, one file that can be sent to anybody, then nndoctor run -- your_script.py")
    else:
        print(diagnosis.verdict)
    return 0


def as_dict(case: Case, doctor: Doctor, report: Path, second: tuple[Doctor, BeforeAfter] | None) -> dict[str, Any]:
    """The demo for a program: the sick run, and what became of it with the remedy."""
    treated = None
    if second is not None:
        again, comparison = second
        treated = {"record": str(again.run_dir), "remedy": comparison.label, **again.diagnosis().to_dict()}
    return {
        "case": case.name,
        "report": str(report.resolve()),
        "record": str(doctor.run_dir),
        **doctor.diagnosis().to_dict(),
        "treated": treated,
    }


def second_run(case: Case, diagnosis: Diagnosis, steps: int | None, ui: str) -> tuple[Doctor, BeforeAfter]:
    """The case trained again with the doctor's remedy: its doctor, and how the report compares it with the first run."""
    from nndoctor.reporting import view_run
    from nndoctor.reports.view import BeforeAfter
    from nndoctor.zoo.case import with_steps

    second = remedy(case, diagnosis)
    say(f"again, with {second.label} ...")
    doctor = trained_under_doctor(with_steps(second.train, steps), steps, ui, f"{case.name}-treated")
    view = view_run(doctor.run_dir)
    say(final_loss(doctor) + ("" if doctor.verdict_shown else f": {doctor.diagnosis().verdict}"))
    return doctor, BeforeAfter(view.history, view.diagnosis, second.label)


def remedy(case: Case, diagnosis: Diagnosis) -> Second:
    """What to train next: the values and calls of the doctor's best fix where the case can take them, else its cured run."""
    roots = diagnosis.root_causes
    fixes = [fix for finding in roots[:1] for fix in finding.fixes]
    treatment = case.treatment(fixes)
    if treatment is not None:
        fix, treated = treatment
        return Second(treated, f"the doctor's own fix: {describe_fix(fix)}")
    named = bool(roots) and roots[0].diagnosis == case.diagnosis
    if named and fixes:
        return Second(case.train("cured"), f"what the doctor asks for, done by hand: {fixes[0].title}")
    return Second(case.train("cured"), "the planted mistake mended by hand; the doctor did not name it")


def trained_under_doctor(train: Train, steps: int | None, ui: str, name: str) -> Doctor:
    """Trains with the doctor attached, for at most `steps` optimizer steps, and closes it."""
    import nndoctor

    attached: list[Doctor] = []

    def attach(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> Observer:
        doctor = nndoctor.wrap(model, optimizer, loss_fn, loader=loader, ui=ui, name=name)
        attached.append(doctor)
        if steps is not None:
            stop_after(optimizer, steps)
        return doctor

    status: Any = "crashed"
    try:
        train(SEED, attach)
        status = "finished"
    except EnoughSteps:
        status = "finished"
    finally:
        for doctor in attached:
            doctor.close(status)
    return attached[-1]


def stop_after(optimizers: Any, steps: int) -> None:
    """Makes the last of `optimizers` raise EnoughSteps after `steps` steps, for loops of a length of their own."""
    several = list(optimizers.values()) if isinstance(optimizers, dict) else optimizers
    last: torch.optim.Optimizer = several[-1] if isinstance(several, list) else several
    left = steps

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise EnoughSteps

    last.register_step_post_hook(count)


def written_report(doctor: Doctor, path: Path, comparison: BeforeAfter | None) -> Path:
    from nndoctor.reporting import report_run

    return report_run(doctor.run_dir, path, before_after=comparison)


def final_loss(doctor: Doctor) -> str:
    """Mean loss of the last twenty measured steps, in words."""
    from nndoctor.record import RecordReader

    reader = RecordReader(doctor.run_dir)
    try:
        losses = [float(frame.values["loss"][0]) for frame in reader.frames() if "loss" in frame.values][-20:]
    finally:
        reader.close()
    return f"final loss {sum(losses) / len(losses):.3g}" if losses else "no finite loss"


def listed(cases: tuple[Case, ...]) -> list[str]:
    """One line per case: its name and what is wrong with it."""
    width = max(len(case.name) for case in cases)
    return [f"{case.name:<{width}}  {case.description}" for case in cases]


def refused(message: str) -> int:
    print(f"nndoctor demo: {message}", file=sys.stderr)
    return USAGE_ERROR


def say(text: str) -> None:
    print(f"nndoctor demo: {text}", file=sys.stderr, flush=True)
