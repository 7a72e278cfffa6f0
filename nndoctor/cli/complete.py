"""What the shell offers after the tab key: runs, rules, rulesets. It never fails and never speaks."""

from __future__ import annotations

from contextlib import suppress


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """The recorded runs whose folder or name begins with what was typed, the newest first, each with its status."""
    with suppress(Exception):
        from nndoctor.cli.settings import run_root
        from nndoctor.record import list_runs

        found: dict[str, str] = {}
        for run in list_runs(run_root()):
            for name in (run.folder.name, run.name):
                if name.startswith(incomplete):
                    found.setdefault(name, f"{run.status or 'unreadable'}, {run.last_step} steps")
        return list(found.items())
    return []


def complete_rule(incomplete: str) -> list[tuple[str, str]]:
    """The rules and diagnoses of the built-in rulesets that begin with what was typed."""
    with suppress(Exception):
        from nndoctor.rules.loading import names_elsewhere

        return [(name, f"of {ruleset}") for name, ruleset in sorted(names_elsewhere().items()) if name.startswith(incomplete)]
    return []


def complete_ruleset(incomplete: str) -> list[tuple[str, str]]:
    """The built-in rulesets, those of installed packages, and the YAML files here."""
    with suppress(Exception):
        from pathlib import Path

        from nndoctor.packaged import RULESETS, packaged
        from nndoctor.rules.folder import built_in_rulesets

        found = [(name, "built in") for name in built_in_rulesets()]
        found += [(item.name, f"of {item.package}") for item in packaged(RULESETS)]
        found += [(path.name, "a file here") for path in sorted(Path.cwd().glob("*.yaml"))]
        return [(name, what) for name, what in found if name.startswith(incomplete)]
    return []
