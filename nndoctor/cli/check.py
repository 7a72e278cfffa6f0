"""``nndoctor check``: the doctor examines itself: versions, hooks, terminal, disk, rulesets, and what it costs here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import nndoctor
from nndoctor.cli.output import columns, count, plain, say, say_json, say_lines, tell_progress
from nndoctor.cli.settings import load_settings

SELF_TEST_STEPS = 400
"""Enough for the doctor's share, a mean over about a hundred steps, to forget the first fifty, which are all measured."""

OLDEST_TORCH = (2, 6)
LITTLE_DISK = 1 << 30

FAMILIES = {
    "loss": "loss",
    "learning rate": "lr",
    "gradients": "grad.norm",
    "updates": "update.ratio",
    "activations": "act.mean",
    "time of layers": "time.forward",
    "inputs": "input.mean",
}
"""What the self-test must have measured, and the signal that shows it."""

_STYLE = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing examined: ``ok``, ``warning`` (it works, with limits) or ``failed``."""

    name: str
    outcome: Literal["ok", "warning", "failed"]
    text: str


def check(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Examine the doctor itself, here.

    Versions, hooks, terminal, disk and rules; trains a small network for a second. Exits with 1 if something fails.
    """
    checks = list(_examined())
    bad = [item for item in checks if item.outcome == "failed"]
    if json:
        say_json({"checks": [asdict(item) for item in checks], "works": not bad})
    else:
        say_lines(columns([(plain(item.outcome, _STYLE[item.outcome]), item.name, item.text) for item in checks]))
        say()
        verdict = f"{', '.join(item.name for item in bad)} failed" if bad else "the doctor is well"
        say(f"{count(len(checks), 'check')}: {verdict}.")
    raise typer.Exit(1 if bad else 0)


def _examined() -> Iterator[Check]:
    for name, examine in (
        ("versions", _versions),
        ("configuration", _configuration),
        ("rules", _rules),
        ("packages", _packages),
        ("terminal", _terminal),
        ("disk", _disk),
        ("record", _record),
        ("training", _training),
    ):
        tell_progress(f"checking {name} ...")
        yield from _guarded(name, examine)


def _guarded(name: str, examine: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from examine()
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        yield Check(name, "failed", f"{type(error).__name__}: {first_line}")


def _versions() -> Iterator[Check]:
    yield Check("nndoctor", "ok", f"{nndoctor.__version__}, Python {platform.python_version()}, {platform.system()}")
    torch = import_module("torch")
    numbers = tuple(int(part) for part in torch.__version__.split(".")[:2])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    if numbers < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        yield Check("torch", "failed", f"{torch.__version__} is older than {oldest}: pip install -U torch")
    else:
        yield Check("torch", "ok", f"{torch.__version__}, {device}")
    try:
        yield Check("torchvision", "ok", version("torchvision"))
    except PackageNotFoundError:
        yield Check("torchvision", "ok", "not installed: only needed for data sets that do not ship with nndoctor")


def _configuration() -> Iterator[Check]:
    values = load_settings()
    told = [f"{name} from {value.origin}" for name, value in values.items() if value.origin != "default"]
    yield Check("configuration", "ok", ", ".join(told) or "all settings by default")
    if os.environ.get("NNDOCTOR", "").strip().lower() in {"0", "off", "false", "no"}:
        yield Check("switch", "warning", "NNDOCTOR=0 is set: wrap() and `nndoctor run` do nothing")


def _rules() -> Iterator[Check]:
    from nndoctor.packaged import full_catalogue
    from nndoctor.rules import load_rulesets, rulesets_folder

    names = load_settings()["rules"].value
    ruleset = load_rulesets(names, full_catalogue())
    text = f"{count(len(ruleset.rules), 'rule')} in {', '.join(names)}, without mistakes; built-in ones in {rulesets_folder()}"
    yield Check("rules", "ok", text)


def _packages() -> Iterator[Check]:
    """What installed packages bring along: one line for all that works, one for each thing that does not."""
    from nndoctor.packaged import GROUPS, RULESETS, PackagedError, packaged, packaged_ruleset, packaged_signals

    well = []
    for item in (item for group in GROUPS for item in packaged(group)):
        try:
            packaged_ruleset(item.name) if item.group == RULESETS else item.load()
            well.append(f"{item.group.removeprefix('nndoctor.').removesuffix('s')} {item}")
        except PackagedError as error:
            yield Check("package", "warning", str(error))
    for problem in packaged_signals()[1]:
        yield Check("package", "warning", problem)
    yield Check("packages", "ok", ", ".join(well) or "no installed package brings rules, probes or signals")


def _terminal() -> Iterator[Check]:
    from rich.console import Console

    from nndoctor.reports.terminal import choose_display

    console = Console(file=sys.stderr)
    display = choose_display("auto", sys.stderr)
    display.close(None)
    panel = type(display).__name__.removesuffix("Display").lower()
    where = f"{console.width} x {console.height} cells" if console.is_terminal else "stderr is no terminal"
    colours = console.color_system or "no"
    yield Check("terminal", "ok", f"{where}, {colours} colours, {console.encoding}; the panel is: {panel}")


def _disk() -> Iterator[Check]:
    root = Path(load_settings()["run_root"].value)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        yield Check("disk", "failed", f"{there} cannot be written: set run_root to a folder that can")
        return
    outcome: Literal["ok", "warning"] = "ok" if free >= LITTLE_DISK else "warning"
    yield Check("disk", outcome, f"runs are kept in {root}, {free / 1e9:.1f} GB free")


def _record() -> Iterator[Check]:
    """Writes and reads a record on the disk where runs are kept."""
    import numpy as np

    from nndoctor.record import RecordReader, RecordWriter, RunFacts, storage_for
    from nndoctor.signals import Frame, Targets

    root = Path(load_settings()["run_root"].value)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".nndoctor-check-", dir=there) as folder:
        with RecordWriter(Path(folder) / "run", RunFacts("check", 0.0), Targets()) as writer:
            writer.frame(Frame(1, 0.0, None, {"loss": np.ones(1, np.float32)}))
        if writer.failure is not None:
            yield Check("record", "failed", writer.failure)
            return
        with RecordReader(Path(folder) / "run") as reader:
            read = [frame.step for frame in reader.frames()]
            name = "SQLite with a write-ahead log" if any((Path(folder) / "run").glob("*.sqlite")) else "segments"
    reason = " (a network file system)" if storage_for(there) == "segments" else ""
    if read == [1]:
        yield Check("record", "ok", f"written and read back as {name}{reason}")
    else:
        yield Check("record", "failed", f"one frame was written as {name}, {len(read)} were read")


def _training() -> Iterator[Check]:
    """Trains a small network under the doctor and looks at what arrived."""
    if os.environ.get("NNDOCTOR", "").strip().lower() in {"0", "off", "false", "no"}:
        yield Check("hooks", "warning", "not examined: NNDOCTOR=0 switches the doctor off")
        return
    with tempfile.TemporaryDirectory(prefix="nndoctor-check-") as folder:
        steps, measured, overhead = _self_test(Path(folder) / "run")
    missing = [family for family, signal in FAMILIES.items() if signal not in measured]
    if steps != SELF_TEST_STEPS:
        yield Check("hooks", "failed", f"{SELF_TEST_STEPS} steps were trained, {steps} were seen")
    elif missing:
        yield Check("hooks", "failed", f"not measured: {', '.join(missing)}")
    else:
        yield Check("hooks", "ok", f"{steps} steps seen; measured {', '.join(FAMILIES)}: {len(measured)} signals")
    if overhead is None:
        yield Check("cost", "warning", "could not be measured")
    else:
        yield Check("cost", "ok", f"{overhead:.1%} of the step time of a LeNet here, by the doctor's own account")


def _self_test(folder: Path) -> tuple[int, set[str], float | None]:
    """Steps that the doctor saw, signals that reached the record, and the doctor's share of the time of a step."""
    from nndoctor.record import RecordReader

    torch: Any = import_module("torch")
    models: Any = import_module("nndoctor.zoo.models")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = models.LeNet()
    optimizer = torch.optim.Adam(model.parameters())
    loss_function = torch.nn.CrossEntropyLoss()
    images, labels = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
    doctor = nndoctor.wrap(model, optimizer, loss_function, run_dir=folder, ui="off", name="check", rules=("core",))
    for _ in range(SELF_TEST_STEPS):
        optimizer.zero_grad()
        loss_function(model(images), labels).backward()
        optimizer.step()
    doctor.close()
    torch.set_rng_state(state)
    with RecordReader(folder) as reader:
        frames = list(reader.frames())
    measured = {name for frame in frames for name in frame.values}
    return max((frame.step for frame in frames), default=0), measured, doctor.facts.get("overhead")
