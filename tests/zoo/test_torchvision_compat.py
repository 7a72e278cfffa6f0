"""torchvision imports whether or not its compiled operators fit the installed torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nndoctor.zoo import torchvision_compat
from nndoctor.zoo.torchvision_compat import (
    TorchvisionUnavailable,
    has_compiled_operators,
    import_torchvision,
    require_compiled_operators,
)


def run_fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_datasets_transforms_and_models_work_in_a_fresh_process() -> None:
    done = run_fresh(
        "from nndoctor.zoo.torchvision_compat import import_torchvision\n"
        "import_torchvision()\n"
        "import torch\n"
        "from torchvision import datasets, models, transforms\n"
        "assert datasets.FashionMNIST and transforms.Normalize((0.5,), (0.5,))(torch.ones(1, 2, 2)).max() == 1\n"
        "assert models.resnet18()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)\n"
    )
    assert done.returncode == 0, done.stderr


def test_importing_it_twice_gives_the_same_module() -> None:
    assert import_torchvision() is import_torchvision()


def test_a_module_that_failed_half_way_is_imported_again_with_the_schemas_declared() -> None:
    done = run_fresh(
        "import sys\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError:\n"
        "    pass\n"
        "from nndoctor.zoo.torchvision_compat import import_torchvision\n"
        "assert import_torchvision() is sys.modules['torchvision']\n"
        "import torchvision.ops\n"
    )
    assert done.returncode == 0, done.stderr


def test_needing_the_operators_where_they_are_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_compat, "has_compiled_operators", lambda: False)
    with pytest.raises(TorchvisionUnavailable, match="non-maximum suppression needs torchvision's compiled operators"):
        require_compiled_operators("non-maximum suppression")


def test_needing_the_operators_where_they_are_there_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_compat, "has_compiled_operators", lambda: True)
    require_compiled_operators("non-maximum suppression")


def test_whether_operators_are_there_is_what_torchvision_itself_says() -> None:
    from torchvision.extension import _has_ops

    assert has_compiled_operators() is _has_ops()


def test_a_missing_torchvision_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr(torchvision_compat.importlib, "import_module", missing)
    with pytest.raises(TorchvisionUnavailable, match="pip install torchvision"):
        import_torchvision()


def test_an_error_that_has_nothing_to_do_with_operators_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(torchvision_compat.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="disk on fire"):
        import_torchvision()


def test_it_is_not_installed_along_since_it_pins_the_torch_beside_it() -> None:
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    needed = project.partition("\ndependencies = [")[2].partition("\n]")[0]
    assert '"torch>=' in needed
    assert "torchvision" not in needed
