"""What is said where a framework is not installed."""

from __future__ import annotations


def not_installed(framework: str, extra: str, error: ImportError) -> ImportError:
    """An ImportError that says what is missing and how to get it.

    >>> print(not_installed("Ignite", "ignite", ImportError("No module named 'ignite'")))
    nndoctor.integrations.ignite needs Ignite (No module named 'ignite'); try: pip install 'nndoctor[ignite]'
    """
    return ImportError(
        f"nndoctor.integrations.{extra} needs {framework} ({error}); try: pip install 'nndoctor[{extra}]'",
        name=error.name,
        path=error.path,
    )
