"""The pages that `explain` shows, kept from one call to the next: to read all built-in rules takes most of a second.

Only pages of built-in rulesets are kept, in the user's cache folder, under a key made of every file that they depend on
(names, sizes, times): a changed rule, another version or another installation is another key. Where the folder cannot be
written, nothing is kept and nothing is said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nndoctor
from nndoctor.findings import RuleDocs
from nndoctor.rules.folder import SHARED, built_in_rulesets, rulesets_folder

if TYPE_CHECKING:
    from nndoctor.rules import Rule

_LISTS = ("causes", "fixes", "known_problems", "explains", "explained_by", "references")


@dataclass(frozen=True, slots=True)
class Page:
    """What there is to say about a rule: its docs, how bad and how sure it is, its options, and where it stands."""

    docs: RuleDocs
    severity: str
    confidence: str
    params: Mapping[str, float]
    source: str
    renamed_from: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.docs.id

    @property
    def diagnosis(self) -> str:
        return self.docs.diagnosis


def pages_of(names: Sequence[str]) -> tuple[Page, ...]:
    """A page for each rule of these rulesets, in order.

    Raises:
        RulesetError: a ruleset is missing or has mistakes.
    """
    kept = _cache_file(names) if set(names) <= set(built_in_rulesets()) else None
    found = _read(kept) if kept is not None else None
    if found is not None:
        return found
    made = _made(names)
    if kept is not None:
        _write(kept, made)
    return made


def _made(names: Sequence[str]) -> tuple[Page, ...]:
    from nndoctor.packaged import full_catalogue
    from nndoctor.rules import load_rulesets

    former = dict(_renamed(names))
    return tuple(_page(rule, former.get(rule.id, ())) for rule in load_rulesets(names, full_catalogue()).rules)


def _page(rule: Rule, former: tuple[str, ...]) -> Page:
    return Page(rule.docs, rule.severity.label, rule.confidence, dict(rule.params), rule.source, former)


def _renamed(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The earlier ids of the rules in the files of `names`."""
    from nndoctor.rules.loading import files_in, find_source
    from nndoctor.rules.yaml import read

    for name in names:
        try:
            files = files_in(find_source(name, Path.cwd()))
        except FileNotFoundError:
            continue  # loading tells it, with what to write instead
        for file in files:
            if b"renamed_from" not in file.read_bytes():
                continue
            root = read(file)[0].root
            for rule in root.value.get("rules", ()) if root is not None and isinstance(root.value, dict) else ():
                former = rule.get("renamed_from") or ()
                if former:
                    yield str(rule.get("id")), (former,) if isinstance(former, str) else tuple(former)


def _cache_file(names: Sequence[str]) -> Path | None:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    key = sha256(repr((nndoctor.__version__, tuple(names), os.getcwd(), *_stamps())).encode()).hexdigest()[:24]
    return Path(home) / "nndoctor" / f"pages-{key}.json"


def _stamps() -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each built-in rule file and of the code that reads them."""
    code = Path(__file__).resolve().parent.parent / "rules"
    for folder in (rulesets_folder(), code):
        for place in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and (path / SHARED).is_file())):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
                if entry.is_file():
                    stat = entry.stat()
                    yield entry.path, stat.st_size, stat.st_mtime_ns


def _read(path: Path) -> tuple[Page, ...] | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        return tuple(_from_plain(plain) for plain in json.loads(path.read_text(encoding="utf-8")))
    return None


def _from_plain(plain: dict[str, Any]) -> Page:
    docs: dict[str, Any] = {name: tuple(value) if name in _LISTS else value for name, value in plain.pop("docs").items()}
    return Page(RuleDocs(**docs), **{**plain, "renamed_from": tuple(plain["renamed_from"])})


def _write(path: Path, pages: Sequence[Page]) -> None:
    """Whole or not at all; what was kept under other keys for over a handful of files is removed."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        old = sorted(path.parent.glob("pages-*.json"), key=lambda file: file.stat().st_mtime)
        for file in old[:-8]:
            file.unlink(missing_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.write_text(json.dumps([asdict(page) for page in pages]), encoding="utf-8")
        os.replace(temporary, path)
