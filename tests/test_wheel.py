"""The wheel carries everything that a user needs offline, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LIMIT = 8 * 1024**2  # bytes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> zipfile.ZipFile:
    """The wheel of this checkout, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repository)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_module_and_data_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile, repository: Path) -> None:
    present = set(wheel.namelist())
    files = [path for path in (repository / "nndoctor").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = [name for path in files if (name := path.relative_to(repository).as_posix()) not in present]
    assert not missing


def test_the_rulesets_and_their_record_in_the_clinic_are_in_the_wheel(wheel: zipfile.ZipFile, repository: Path) -> None:
    rules = sorted(p.relative_to(repository / "rulesets").as_posix() for p in (repository / "rulesets").rglob("*") if p.is_file())
    packed = sorted(name.removeprefix("nndoctor/_rulesets/") for name in wheel.namelist() if name.startswith("nndoctor/_rulesets/"))
    assert any(name.startswith("core/") for name in rules)
    assert "clinic.json" in rules
    assert packed == rules


@pytest.mark.parametrize("folder", ["nndoctor/zoo/assets/", "nndoctor/reports/templates/", "nndoctor/reports/assets/"])
def test_data_templates_and_assets_are_in_the_wheel(wheel: zipfile.ZipFile, folder: str) -> None:
    assert any(name.startswith(folder) and not name.endswith(".py") for name in wheel.namelist())


def test_the_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "nndoctor/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_is_declared(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "nndoctor = nndoctor.cli.main:main" in wheel.read(name).decode()


def test_the_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    size = Path(str(wheel.filename)).stat().st_size
    heaviest = sorted(wheel.infolist(), key=lambda info: -info.compress_size)[:3]
    assert size < LIMIT, f"{size / 1e6:.1f} MB; heaviest: " + ", ".join(f"{i.filename} {i.compress_size / 1e6:.1f} MB" for i in heaviest)


def test_nothing_but_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    outside = [name for name in wheel.namelist() if not name.startswith(("nndoctor/", "nndoctor-"))]
    assert not outside
