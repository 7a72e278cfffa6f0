"""Settings and where each comes from: command line > ``NNDOCTOR_*`` > nearest file > default.

The nearest file is ``nndoctor.toml``, or a ``pyproject.toml`` with a table ``[tool.nndoctor]``, in the current folder or
the closest folder above it. Paths in a file are relative to that file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from nndoctor.cli.output import UsageError

UI_CHOICES = ("auto", "footer", "lines", "notebook", "off")
NEVER = "never"
FAIL_ON_CHOICES = ("info", "warning", "error", "critical", NEVER)


@dataclass(frozen=True)
class Setting:
    """One setting: how it is called in a file, its default, how a value is read, and what it is for."""

    name: str
    default: Any
    read: Callable[[Any], Any]
    expected: str
    help: str

    @property
    def variable(self) -> str:
        return f"NNDOCTOR_{self.name.upper()}"


@dataclass(frozen=True)
class Value:
    """The value of a setting and where it comes from: ``default``, a variable of the environment, or a file."""

    value: Any
    origin: str


def _names(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError
    names = tuple(item.strip() for item in items if item.strip())
    if not names:
        raise ValueError
    return names


def _share(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 < number <= 1:
        raise ValueError
    return number


def _every(value: Any) -> int | None:
    if value is None or value == "":
        return None
    number = int(value)
    if isinstance(value, bool) or number < 1 or number != float(value):
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return read


SETTINGS = (
    Setting("run_root", ".nndoctor/runs", _text, "a folder", "where runs are recorded and looked for"),
    Setting("rules", ("core",), _names, "a ruleset or a list of rulesets", "rulesets that `run` judges by"),
    Setting("ui", "auto", _one_of(*UI_CHOICES), "one of " + ", ".join(UI_CHOICES), "the panel of `run` and `demo`"),
    Setting("budget", 0.01, _share, "a share above 0 and up to 1", "share of the step time that the doctor may cost"),
    Setting("cadence", None, _every, "a whole number of steps", "measure every so many steps instead of by budget"),
    Setting(
        "fail_on", "error", _one_of(*FAIL_ON_CHOICES), "one of " + ", ".join(FAIL_ON_CHOICES), "severity at which `diagnose` exits with 1"
    ),
)  # fmt: skip


def load_settings(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Every setting as it is in `folder` (default: the current one), without the command line.

    Raises:
        UsageError: a file or a variable holds something else than expected; all mistakes of a source at once.
    """
    folder = Path.cwd() if folder is None else folder
    environment = os.environ if environment is None else environment
    values = {setting.name: Value(setting.default, "default") for setting in SETTINGS}
    found = nearest_file(folder)
    if found is not None:
        path, table = found
        values |= _checked(table, str(path), path.parent)
    for setting in SETTINGS:
        text = environment.get(setting.variable)
        if text:
            values |= _checked({setting.name: text}, setting.variable, None)
    return values


def setting(name: str) -> Any:
    """The value of one setting, without the command line. Raises UsageError as `load_settings`."""
    return load_settings()[name].value


def run_root() -> Path:
    return Path(setting("run_root"))


def nearest_file(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The closest file at or above `folder` that configures nndoctor, and its table."""
    for place in (folder, *folder.parents):
        own = place / "nndoctor.toml"
        if own.is_file():
            return own, read_toml(own)
        shared = place / "pyproject.toml"
        if shared.is_file() and b"tool.nndoctor" in shared.read_bytes():
            table = read_toml(shared).get("tool", {}).get("nndoctor")
            if table is not None:
                return shared, table
    return None


def read_toml(path: Path) -> Mapping[str, Any]:
    """The tables of a TOML file. Raises UsageError where it is not valid."""
    toml = _toml_reader(path)
    try:
        data: Mapping[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    return data


def _toml_reader(path: Path) -> Any:
    for name in ("tomllib", "tomli"):  # Python 3.10 brings none of its own
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UsageError(f"{path}: reading it with Python 3.10 needs a package: pip install tomli")


def _checked(table: Mapping[str, Any], origin: str, base: Path | None) -> dict[str, Value]:
    """The values in `table`; paths in them relative to `base`."""
    known = {setting.name: setting for setting in SETTINGS}
    values: dict[str, Value] = {}
    problems: list[str] = []
    for key, given in table.items():
        name = key.replace("-", "_")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            help = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            problems.append(f"unknown setting {key!r}; {help}")
            continue
        try:
            values[name] = Value(_placed(name, known[name].read(given), base), origin)
        except (ValueError, TypeError):
            problems.append(f"{key}: expected {known[name].expected}, got {given!r}")
    if problems:
        raise UsageError("\n".join(f"{origin}: {problem}" for problem in problems))
    return values


def _placed(name: str, value: Any, base: Path | None) -> Any:
    if base is None or base == Path.cwd():
        return value
    if name == "run_root":
        return str(base / value)
    if name == "rules":
        return tuple(str(base / item) if (base / item).exists() and item != "core" else item for item in value)
    return value
