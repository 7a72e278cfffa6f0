"""The clinic's cases through other tools that diagnose training, by small adapters, side by side.

    python benchmarks/peers_diagnosis.py [--peer torchmortem ...] [--case PATTERN ...] [--seed 0] [--write]
    python benchmarks/peers_diagnosis.py --page

Each peer is installed on demand, with what it needs, into a folder of its own below ``build/peers``, and runs in
a process of its own. A peer never says our names, so whatever of its findings could be read as the planted ailment is
counted for it (``READ_AS``). Our own row is read from ``docs/clinic.json``. Without ``--case``, the cases are those of
``SAMPLE``. ``--write`` writes ``docs/peers.json`` and ``docs/peers.md``; ``--page`` makes the page anew from both files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = REPOSITORY / "build" / "peers"
PAGE = REPOSITORY / "docs" / "peers.md"
HEARD = REPOSITORY / "docs" / "peers.json"
OURS = REPOSITORY / "docs" / "clinic.json"
RUN_SECONDS = 1200.0
"""A peer that is not done with a run after this long is counted as silent, and started again for the next one."""

SAMPLE = (
    "adam-epsilon-dominates-tiny-loss", "attention-entropy-collapse-temperature", "attention-logit-growth",
    "attention-mask-leak-inverted", "bad-initialization-transformer", "batchnorm-small-batch", "dead-relu-batchnorm",
    "detached-no-grad", "double-softmax-sigmoid", "dropout-keep-probability-mlp", "gradient-noise-too-high",
    "gradients-cleared-by-model", "inputs-not-normalised", "labels-misaligned-off-by-one",
    "learning-rate-too-high-regression", "loss-shape-broadcast-squeezed", "low-precision-update-loss",
    "missing-nonlinearity-spirals", "nan-or-inf-norm", "optimizer-stale-weight-norm",
    "healthy-adagrad", "healthy-huber", "healthy-mc-dropout", "healthy-noisy-table", "healthy-stateful-series",
    "healthy-table-rmsprop",
)  # fmt: skip
"""Of each ailment that one of the peers has a warning for, the quickest case, and of these the twenty quickest; beside
them the six quickest healthy ones."""

GRADIENTS_TOO_LARGE = {"exploding-gradients", "learning-rate-too-high", "missing-zero-grad", "nan-or-inf", "loss-spike",
                       "inputs-not-normalised", "targets-not-scaled", "bad-initialization", "missing-warmup",
                       "attention-logit-growth", "output-logit-growth", "unstable-loss-op"}  # fmt: skip
GRADIENTS_TOO_SMALL = {"vanishing-gradients", "learning-rate-too-low", "bad-initialization", "saturated-activations",
                       "missing-optimizer-step", "gradients-cleared-before-step", "detached-graph", "dead-relu",
                       "frozen-layer-unintended", "adam-epsilon-dominates", "attention-entropy-collapse"}  # fmt: skip
NOT_CONNECTED = {"unused-parameters", "detached-graph", "parameters-not-in-optimizer", "gradients-cleared-before-step",
                 "optimizer-holds-stale-parameters", "unregistered-module", "frozen-layer-unintended"}  # fmt: skip
STUCK = {"learning-rate-too-low", "underfitting-capacity", "missing-nonlinearity", "lr-schedule-misconfigured",
         "dropout-too-high", "labels-misaligned", "double-softmax", "wrong-loss-for-task", "missing-optimizer-step",
         "gradients-cleared-before-step", "low-precision-update-loss", "gradient-clipping-too-tight",
         "loss-shape-broadcast"}  # fmt: skip

READ_AS: Mapping[str, Mapping[str, set[str]]] = {
    "torchmortem": {
        "Vanishing gradients": GRADIENTS_TOO_SMALL,
        "Gradient stalling": GRADIENTS_TOO_SMALL | NOT_CONNECTED,
        "Exploding gradients": GRADIENTS_TOO_LARGE,
        "Dead units": {"dead-relu"},
        "Activation saturation": {"saturated-activations", "inputs-not-normalised", "bad-initialization"},
        "Update ratio too low": {"learning-rate-too-low", "lr-schedule-misconfigured", "frozen-layer-unintended", "vanishing-gradients",
                                 "parameters-not-in-optimizer", "gradient-clipping-too-tight", "low-precision-update-loss"},
        "Update ratio too high": GRADIENTS_TOO_LARGE,
        "Training divergence": GRADIENTS_TOO_LARGE,
        "Loss plateau": STUCK | GRADIENTS_TOO_SMALL,
        "Rank collapse": {"representation-collapse", "mode-collapse", "underfitting-capacity"},
        "Weight norm explosion": GRADIENTS_TOO_LARGE | {"embedding-norm-growth"},
        "Stagnant weight norms": STUCK | GRADIENTS_TOO_SMALL | NOT_CONNECTED,
        "Inter-layer weight norm imbalance": {"bad-initialization", "embedding-norm-growth"},
        "High gradient noise": {"gradient-noise-too-high", "batchnorm-small-batch"},
    },
    "torchdiag": {
        "EXPLODE": GRADIENTS_TOO_LARGE,
        "VANISH": GRADIENTS_TOO_SMALL,
        "no_grad": NOT_CONNECTED,
        "dead": {"dead-relu"},
    },
    "neural-observatory": {
        "dead_neurons": {"dead-relu"},
        "gradient_health vanishing": GRADIENTS_TOO_SMALL | NOT_CONNECTED,
        "gradient_health exploding": GRADIENTS_TOO_LARGE,
        "gradient_health": GRADIENTS_TOO_LARGE | GRADIENTS_TOO_SMALL,
        "activation_statistics": {"saturated-activations", "dead-relu", "inputs-not-normalised", "bad-initialization"},
        "anomaly_detection": {"nan-or-inf", "inputs-not-normalised", "exploding-gradients", "loss-spike", "unstable-loss-op"},
        "parameter_health": {"learning-rate-too-high", "learning-rate-too-low", "weight-decay-too-high"},
        "attention_health": {"attention-entropy-collapse", "attention-logit-growth", "attention-mask-leak"},
        "embedding_drift": {"embedding-norm-growth"},
        "neural_collapse": {"representation-collapse"},
    },
}  # fmt: skip
PACKAGES = {
    "torchmortem": ("torchmortem==0.1.1", "plotly", "narwhals", "packaging"),
    "torchdiag": ("torchdiag==0.1.0",),
    "neural-observatory": ("neural-observatory==0.5.1",),
    "cockpit": (
        "cockpit-for-pytorch==1.0.2", "backpack-for-pytorch==1.7.1", "unfoldNd", "einops", "json-tricks", "seaborn", "pandas", "pytz",
        "setuptools<81",
    ),
}  # fmt: skip
"""What is installed for each; cockpit does not diagnose, ``benchmarks/peers_overhead.py`` measures what it costs."""


SLOW = {"neural-observatory": "as it looks at everything on every step, a run takes it a minute of processor time and more"}
"""Peers that are usually left out, and why."""


@dataclass(frozen=True)
class Heard:
    """What a tool said of one run.

    Args:
        kinds: what it warned of, the worst first, each once.
        failed: why it said nothing.
    """

    case: str
    variant: str
    expected: str | None
    kinds: tuple[str, ...]
    seconds: float
    failed: str = ""


# ------------------------------------------------------------------ adapters, in the peer's process


class Torchmortem:
    """Attach, a call after each step, and the findings of its report."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        from torchmortem import Autopsy

        self._autopsy = Autopsy(model, optimizer=optimizer)
        self._autopsy.attach()
        self._loss = math.nan

    def backward(self, loss: float) -> None:
        self._loss = loss

    def stepped(self, step: int) -> None:
        self._autopsy.step(loss=self._loss)

    def kinds(self) -> list[str]:
        self._autopsy.detach()
        report = self._autopsy.get_report()
        loud = [f for f in (report.findings if report else ()) if f.severity.name != "INFO"]
        return [_begins(f.title, READ_AS["torchmortem"]) for f in sorted(loud, key=lambda f: -f.severity)]


class Torchdiag:
    """Gradients looked at in steps 1, 10, 50, 100 and then every hundredth; dead units on the last batch."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._model, self._step, self._input = model, 0, None
        self._found: list[str] = []
        self._hook = model.register_forward_pre_hook(self._remember)

    def _remember(self, module: Any, args: Any) -> None:
        self._input = args[0].detach() if args else None

    def backward(self, loss: float) -> None:
        pass

    def stepped(self, step: int) -> None:
        self._step = step
        if step in (1, 10, 50) or step % 100 == 0:
            import torchdiag

            states = [stat["status"] for stat in _quietly(lambda: torchdiag.check_gradients(self._model)).values()]
            self._found += [state for state in ("EXPLODE", "VANISH", "no_grad") if state in states]

    def kinds(self) -> list[str]:
        import torch
        import torchdiag

        self._hook.remove()
        if self._input is not None:
            with torch.random.fork_rng():
                dead = _quietly(lambda: torchdiag.check_dead_neurons(self._model, self._input))
            if any(layer["dead_pct"] > 20 for layer in dead.values()):
                self._found.append("dead")
        return self._found


class NeuralObservatory:
    """Watch, a call before each step, and the warnings of its report."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        from neural_observatory import Observatory

        self._observatory = Observatory(model)
        self._observatory.watch()
        self._observatory.step(step=0)

    def backward(self, loss: float) -> None:
        pass

    def stepped(self, step: int) -> None:
        self._observatory.step(step=step)

    def kinds(self) -> list[str]:
        self._observatory.stop()
        loud = sorted(self._observatory.report().warnings(), key=lambda r: -r.severity)
        return [self._kind(result) for result in loud]

    @staticmethod
    def _kind(result: Any) -> str:
        name = str(result.analyzer_name)
        text = " ".join(result.warnings).lower()
        told = next((word for word in ("vanishing", "exploding") if word in text), "")
        return f"{name} {told}".strip() if name == "gradient_health" else name


ADAPTERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "torchmortem": Torchmortem, "torchdiag": Torchdiag, "neural-observatory": NeuralObservatory,
}  # fmt: skip


def _begins(title: str, kinds: Iterable[str]) -> str:
    return next((kind for kind in kinds if title.startswith(kind)), title)


def _quietly(call: Callable[[], Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return call()


def serve(peer: str) -> None:
    """Run the cases named on standard input, one per line as JSON, and answer each with a line."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # a peer that prints must not garble the answers
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        task = json.loads(line)
        begun = time.perf_counter()
        try:
            kinds, failed = listen(peer, task["case"], task["variant"], task["seed"]), ""
        except Exception as error:  # whatever a peer does to the training is its result
            kinds, failed = [], f"{type(error).__name__}: {error}"[:200]
        print(json.dumps({"kinds": list(dict.fromkeys(kinds)), "failed": failed, "seconds": time.perf_counter() - begun}), file=answers, flush=True)


def listen(peer: str, case: str, variant: Any, seed: int) -> list[str]:
    """Train the run with the peer attached; what it warned of, the worst first."""
    import torch

    from nndoctor.zoo.case import NoDoctor, case_named

    adapters: list[Any] = []
    steps = [0]

    def attach(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> NoDoctor:
        models, optimizers = _all(model), _all(optimizer)
        for position, each in enumerate(models):
            adapters.append(ADAPTERS[peer](each, optimizers[min(position, len(optimizers) - 1)]))

        def stepped(*args: Any) -> None:
            steps[0] += 1
            for adapter in adapters:
                adapter.stepped(steps[0])

        optimizers[-1].register_step_post_hook(stepped)
        return NoDoctor()

    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensors, torch.Tensor) and tensors.numel() == 1:
            for adapter in adapters:
                adapter.backward(float(tensors.detach()))
        return original(tensors, *args, **kwargs)

    torch.autograd.backward = backward
    try:
        case_named(case).train(variant)(seed, attach)
    finally:
        torch.autograd.backward = original
    return [kind for adapter in adapters for kind in adapter.kinds()]


def _all(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, (list, tuple)) else [value]


# ------------------------------------------------------------------ running and judging


def main() -> int:
    options = arguments().parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    from nndoctor.zoo.case import all_cases

    everything = all_cases()
    planted = [case.diagnosis for case in everything if case.diagnosis is not None]
    if options.page:
        told = json.loads(HEARD.read_text(encoding="utf-8"))
        heard = {peer: [Heard(**one) for one in runs] for peer, runs in told["peers"].items()}
        PAGE.write_text(markdown(beside_ours(heard, told["seed"]), told["seed"], planted), encoding="utf-8")
        return 0
    cases = [case for case in everything if any(fnmatch(case.name, pattern) for pattern in options.case or SAMPLE)]
    tasks = [(case.name, variant, case.diagnosis if variant == "sick" else None) for case in cases for variant in case.variants]
    for peer in options.peer:
        install(peer)
    with ThreadPoolExecutor(options.processes) as pool:
        heard = dict(zip(options.peer, pool.map(lambda peer: list(run(peer, tasks, options.seed)), options.peer), strict=True))
    page = markdown(beside_ours(heard, options.seed), options.seed, planted)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
        rows = {peer: ",\n".join(json.dumps(asdict(one)) for one in runs) for peer, runs in heard.items()}
        text = ",\n".join(f"{json.dumps(peer)}: [\n{lines}\n]" for peer, lines in rows.items())
        HEARD.write_text(f'{{"seed": {options.seed},\n"peers": {{\n{text}\n}}}}\n', encoding="utf-8")
    else:
        print(page)
    return 0


def beside_ours(heard: Mapping[str, Sequence[Heard]], seed: int) -> dict[str, Sequence[Heard]]:
    """What the peers heard, behind what the clinic's table says of the same runs where it has them all."""
    runs = next(iter(heard.values()))
    table = json.loads(OURS.read_text(encoding="utf-8"))["runs"] if OURS.exists() else []
    own = {(r["case"], r["variant"]): r for r in table if r["seed"] == seed}
    if any((one.case, one.variant) not in own for one in runs):
        print(f"no row of our own: {OURS} does not have all of these runs", file=sys.stderr)
        return dict(heard)
    return {"nndoctor": [root_causes(one, own[one.case, one.variant]) for one in runs], **heard}


def root_causes(one: Heard, result: Mapping[str, Any]) -> Heard:
    """What we said of the run `one`: the diagnoses of the root causes, the first of them first."""
    roots = [spoken["diagnosis"] for spoken in result.get("spoken", ()) if spoken.get("explained_by") is None]
    return replace(one, kinds=tuple(dict.fromkeys(roots)), seconds=float(result.get("seconds", 0.0)), failed="; ".join(result.get("failures", ())))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", nargs="+", default=list(ADAPTERS), choices=list(ADAPTERS))
    parser.add_argument("--case", nargs="*", help="the cases whose name matches one of these patterns; else those of SAMPLE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the page and what was heard")
    parser.add_argument("--page", action="store_true", help="write the page from what was heard before")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser


def install(peer: str) -> None:
    """The peer and what it needs, without torch and numpy, which it shares with us."""
    folder = FOLDERS / peer
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *PACKAGES[peer]]
        subprocess.run(command, check=True)


def run(peer: str, tasks: Sequence[tuple[str, str, str | None]], seed: int) -> Iterator[Heard]:
    child = None
    for number, (case, variant, expected) in enumerate(tasks, 1):
        child = child or start(peer)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"case": case, "variant": variant, "seed": seed}) + "\n")
        child.stdin.flush()
        with ThreadPoolExecutor(1) as reader:
            answer = reader.submit(child.stdout.readline)
            try:
                line = answer.result(timeout=RUN_SECONDS)
            except TimeoutError:
                line = ""
                child.kill()
        if line:
            said = json.loads(line)
            heard = Heard(case, variant, expected, tuple(said["kinds"]), round(said["seconds"], 1), said["failed"])
        else:
            child = None
            heard = Heard(case, variant, expected, (), RUN_SECONDS, "ended or took too long")
        print(f"{peer} {number}/{len(tasks)} {case} {variant}: {', '.join(heard.kinds) or heard.failed or 'silent'}", file=sys.stderr)
        yield heard
    if child is not None and child.stdin is not None:
        child.stdin.close()
        child.wait()


def start(peer: str) -> subprocess.Popen[str]:
    paths = [str(FOLDERS / peer), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", "NNDOCTOR": "0"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve", peer],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def names_it(peer: str, kind: str, expected: str) -> bool:
    table = READ_AS.get(peer)
    return kind == expected if table is None else expected in table.get(kind, set())


HEADER = """# Beside other tools

Cases of the [clinic](clinic.md) through tools that also promise to say what is wrong with a training run: {sick} sick ones, each beside
its cured run, and {healthy} healthy ones, seed {seed}. Each tool is attached as its own documentation shows, by a small adapter in
`benchmarks/peers_diagnosis.py`, in a process of its own.

None of the others speaks of root causes, so each of their warnings is read in their favour: "exploding gradients" counts as naming a
learning rate that is too high, a missing `zero_grad` or raw inputs alike (`READ_AS` in the script has the whole table). Many of our
cases lie outside of what they were made for: they look at gradients, activations and weights, and a call in the wrong place, a mask or
the pairing of the data leaves no trace there that they could name. The first column says how much of the clinic is within reach of
each. The sample is taken from that part: of each ailment that at least one of them has a warning for the quickest case, and of these
the quickest (`SAMPLE`). What still speaks for us: the cases are ours, and rules of ours were tuned on half of them.

- **in reach**: of all {all} sick cases of the clinic, those for whose ailment the tool has any warning that can be read so.
- **could name**: the same, of the sick runs of the sample.
- **named**: sick runs in which one of its warnings can be read as the planted ailment; **first**: in which its worst one can. A
  warning that appears in the cured run just as well counts here all the same.
- **told apart**: sick runs in which it is named, while the cured run has no warning that can be read so.
- **alarm**: cured and healthy runs in which it warned of anything.
- **failed**: runs that the tool broke or did not end within {limit:.0f} s.

| tool | in reach | sick runs | could name | named | first | told apart | cured and healthy runs | alarm | failed |
|---|---|---|---|---|---|---|---|---|---|
"""


def markdown(heard: Mapping[str, Sequence[Heard]], seed: int, everything: Sequence[str]) -> str:
    """The page.

    Args:
        heard: of each tool, what it said of each run; all of the same runs.
        seed: of the runs.
        everything: what is planted in each sick case of the clinic, whether it was run or not.
    """
    runs = next(iter(heard.values()))
    sick, healthy = (sum(one.variant == variant for one in runs) for variant in ("sick", "healthy"))
    header = HEADER.format(sick=sick, healthy=healthy, seed=seed, all=len(everything), limit=RUN_SECONDS)
    lines = [row(tool, said, everything) for tool, said in heard.items()]
    left_out = [not_run(peer, everything) for peer in ADAPTERS if peer not in heard]
    return "\n".join([header.rstrip("\n"), *lines, "", *left_out, *each_case(heard)]) + "\n"


def not_run(peer: str, everything: Sequence[str]) -> str:
    reach = share(sum(can_name(peer, expected) for expected in everything), everything)
    return f"{peer} is not in this table: {SLOW.get(peer, 'it was not run')} (in reach: {reach}; `--peer {peer}` runs it).\n"


def row(tool: str, runs: Sequence[Heard], everything: Sequence[str]) -> str:
    sick, well = [one for one in runs if one.expected], [one for one in runs if not one.expected]
    cured = {one.case: one for one in runs if one.variant == "cured"}
    apart = [one for one in sick if named(tool, one) and not any(names_it(tool, kind, str(one.expected)) for kind in cured[one.case].kinds)]
    counts = [
        share(sum(can_name(tool, str(one.expected)) for one in sick), sick),
        share(sum(named(tool, one) for one in sick), sick),
        share(sum(bool(one.kinds) and names_it(tool, one.kinds[0], str(one.expected)) for one in sick), sick),
        share(len(apart), sick),
    ]
    alarms, failed = share(sum(bool(one.kinds) for one in well), well), sum(bool(one.failed) for one in runs)
    reach = share(sum(can_name(tool, expected) for expected in everything), everything)
    return f"| {tool} | {reach} | {len(sick)} | {' | '.join(counts)} | {len(well)} | {alarms} | {failed} |"


def each_case(heard: Mapping[str, Sequence[Heard]]) -> Iterator[str]:
    """What every tool said of every run."""
    yield "## Every run"
    yield ""
    yield f"| run | planted | {' | '.join(heard)} |"
    yield "|" + "---|" * (len(heard) + 2)
    for told in zip(*heard.values(), strict=True):
        said = [", ".join(one.kinds) or ("failed" if one.failed else "silent") for one in told]
        yield f"| `{told[0].case}` {told[0].variant} | {told[0].expected or 'nothing'} | {' | '.join(said)} |"


def named(tool: str, one: Heard) -> bool:
    return any(names_it(tool, kind, str(one.expected)) for kind in one.kinds)


def can_name(tool: str, expected: str) -> bool:
    """Whether the tool has any warning that can be read as this ailment."""
    table = READ_AS.get(tool)
    return True if table is None else any(expected in ailments for ailments in table.values())


def share(count: int, of: Sequence[object]) -> str:
    return f"{count} ({count / len(of):.0%})" if of else "–"


if __name__ == "__main__":
    sys.exit(main())
