"""Rulesets, probes and signals of an installed package: listed, used, and named where they fail."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import nndoctor
from nndoctor.cli.main import main
from nndoctor.packaged import GROUPS, PROBES, RULESETS, full_catalogue, packaged
from nndoctor.probes.built_in import further_probes
from nndoctor.rules import RulesetError, load_rulesets

FILES = {
    "acme_rules/__init__.py": "",
    "acme_rules/ruleset.yaml": "version: 1\nname: acme\nextends: [core]\n",
    "acme_rules/routing.yaml": """\
version: 1
rules:
  - {id: routing-uneven, severity: warning, scope: run, when: acme.route_share > 0.9, message: "{acme.route_share:.2f}"}
tests:
  - {name: all to one, series: {acme.route_share: 0.95 x10}, expect: [{rule: routing-uneven, fires_in: [1, 10]}]}
""",
    "acme_rules/signals.py": """\
import sys
from nndoctor import Signal
SIGNALS = (Signal("acme.route_share", "run", "fraction", "Largest share of tokens that one expert takes."),)
""",
    "acme_rules/probes.py": """\
class RoutingProbe:
    name, tier, signals = "acme routing", "contract", ("acme.route_share",)
    news = False
    def attach(self, index): self.attached = True
    def begin_step(self, step, sampled): pass
    def collect(self): return {"acme.route_share": 0.95}
    def detach(self): pass
class Undeclared(RoutingProbe):
    name = "acme undeclared"
    def collect(self): return {"acme.never_heard_of": 1.0}
""",
    "acme_rules/metrics.py": """\
import nndoctor
@nndoctor.metric(unit="fraction")
def sparsity(weights):
    return (weights == 0).float().mean()
class Loud(nndoctor.Subscriber):
    subscriptions = (nndoctor.Subscription("no_such_topic"),)
""",
    "acme_rules/broken.py": "raise RuntimeError('built for another version')\n",
}
ENTRY_POINTS = """\
[nndoctor.rulesets]
acme = acme_rules
acme-broken = acme_rules.broken:RULES
acme-nowhere = acme_rules.signals:SIGNALS
[nndoctor.signals]
acme = acme_rules.signals:SIGNALS
[nndoctor.probes]
acme-routing = acme_rules.probes:RoutingProbe
acme-undeclared = acme_rules.probes:Undeclared
acme-sparsity = acme_rules.metrics:sparsity
acme-loud = acme_rules.metrics:Loud
acme-broken = acme_rules.broken:Probe
"""


def wheel(folder: Path) -> Path:
    """A wheel of the package acme-rules, as a build backend would make it."""
    info = "acme_rules-1.2.dist-info"
    files = {
        **FILES,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    path = folder / "acme_rules-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the package into."""
    folder = tmp_path_factory.mktemp("acme")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel(folder))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture
def acme(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_rules"]:
        del sys.modules[name]


@pytest.mark.usefixtures("acme")
def test_what_a_package_publishes_is_listed_without_importing_it() -> None:
    assert {item.name for item in packaged(RULESETS)} >= {"acme", "acme-broken"}
    assert {str(item) for item in packaged(PROBES)} >= {"acme-routing of acme-rules 1.2"}
    assert "acme_rules" not in sys.modules


@pytest.mark.usefixtures("acme")
def test_a_packaged_ruleset_is_loaded_by_its_name_with_its_own_signals() -> None:
    ruleset = load_rulesets(("acme",), full_catalogue())
    assert ruleset.rule("routing-uneven").signals() == ("acme.route_share",)
    assert ruleset.rule("dead-relu")


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(("name", "why"), [("acme-broken", "built for another version"), ("acme-nowhere", "no file or folder")])
def test_a_packaged_ruleset_that_cannot_be_read_is_named_with_its_package(name: str, why: str) -> None:
    with pytest.raises(RulesetError, match=why):
        load_rulesets((name,))


@pytest.mark.usefixtures("acme")
def test_an_unknown_ruleset_lists_those_of_packages() -> None:
    with pytest.raises(RulesetError, match="acme, acme-broken, acme-nowhere"):
        load_rulesets(("acmee",))


@pytest.mark.usefixtures("acme")
def test_rules_of_a_package_are_tested_on_the_command_line_without_torch_in_its_signals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "test", "acme"]) == 0
    assert "1 test in acme: all passed." in capsys.readouterr().out


@pytest.mark.usefixtures("acme")
def test_the_check_of_the_doctor_lists_packages_and_names_the_broken_ones() -> None:
    from nndoctor.cli.check import _packages

    checks = list(_packages())
    assert "ruleset acme of acme-rules 1.2" in checks[-1].text
    assert any(check.outcome == "warning" and "built for another version" in check.text for check in checks)


@pytest.mark.usefixtures("acme")
def test_probes_of_a_package_measure_and_those_that_fail_are_named_and_stop_nothing(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndoctor.wrap(model, optimizer, rules=("acme",), run_dir=tmp_path / "run", ui="off") as doctor:
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
        diagnosis = doctor.diagnosis()
    failures = {failure.probe: failure.error for failure in diagnosis.probe_failures}
    assert "built for another version" in failures["acme-broken"]
    assert "acme.never_heard_of" in failures["acme undeclared"]
    assert "acme routing" not in failures
    assert "routing-uneven" in {finding.rule for finding in diagnosis.findings}
    assert main(["diagnose", str(tmp_path / "run"), "--fail-on", "warning"]) == 1


@pytest.mark.usefixtures("acme")
def test_c2_a_subscriber_of_a_package_measures_and_is_listed_and_a_broken_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nndoctor.record import RecordReader

    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndoctor.wrap(model, optimizer, run_dir=tmp_path / "run", ui="off") as doctor:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    failures = {failure.probe: failure.error for failure in doctor.diagnosis().probe_failures}
    assert "no topic 'no_such_topic'" in failures["acme-loud"]
    with RecordReader(tmp_path / "run") as reader:
        assert [frame.values["metric.sparsity"][0] for frame in reader.frames()] == [0, 0, 0]
    assert main(["metrics"]) == 0
    assert "acme-sparsity of acme-rules 1.2" in capsys.readouterr().out


def test_a_record_with_signals_of_a_package_that_is_not_here_is_judged_without_them(installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    from nndoctor.record import RecordWriter, RunFacts
    from nndoctor.signals import Frame, Targets

    with RecordWriter(tmp_path / "run", RunFacts("x", 1e9, {}, ("core",)), Targets()) as writer:
        for step in range(1, 20):
            writer.frame(Frame(step, 1e9 + step, None, {"loss": np.float32([1.0]), "acme.route_share": np.float32([0.9])}))
    assert main(["diagnose", str(tmp_path / "run")]) == 0
    assert "'acme.route_share' is unknown here" in capsys.readouterr().err
    assert main(["watch", str(tmp_path / "run"), "--once"]) == 0


def test_without_packages_nothing_is_added() -> None:
    if any(packaged(group) for group in GROUPS):
        pytest.skip("a package that publishes something is installed here")
    assert all(type(probe).__module__.startswith("nndoctor.") for probe in further_probes())
