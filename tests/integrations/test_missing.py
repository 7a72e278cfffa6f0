"""Where a framework is not installed, that is said, and how to get it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

FRAMEWORKS = {"transformers": "transformers", "lightning": "lightning.pytorch", "accelerate": "accelerate", "ignite": "ignite.engine", "keras": "keras"}


@pytest.mark.parametrize(("integration", "library"), FRAMEWORKS.items())
def test_a_missing_framework_is_named_with_the_command_that_installs_it(integration: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"nndoctor.integrations.{integration}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    monkeypatch.setitem(sys.modules, library, None)  # what Python has for a module that cannot be imported
    with pytest.raises(ImportError, match=rf"pip install 'nndoctor\[{integration}\]'") as missing:
        importlib.import_module(module)
    assert module in str(missing.value)


def test_the_package_of_integrations_imports_no_framework() -> None:
    code = f"import sys, nndoctor.integrations; sys.exit(any(name.partition('.')[0] in sys.modules for name in {list(FRAMEWORKS.values())}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
