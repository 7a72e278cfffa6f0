"""Training scripts with the progress bars that people use, under the live panel.

    python bars_program.py KIND FOLDER CELL...

KIND is tqdm, nested, rich, lightning or transformers. The script trains once for each CELL (see `enter`), pauses in the
middle of it, and talks to the test by files in FOLDER: it waits for ``CELL.start``, makes ``CELL.paused`` and waits for ``CELL.go``,
the same again three steps later with ``CELL.paused-again`` and ``CELL.go-on`` (a bar is drawn anew when it moves), and
ends with ``CELL.done``. Each line of the program carries its number.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nndoctor.reports.terminal import Display, choose_display
from tests.terminal.noisy_program import SICK, state_at

STEPS, PAUSES = 60, (47, 50)
"""Steps of a training, and those at which it pauses; the panel is ill from step 30 on."""


class Stage:
    """The training of one cell as the test sees it."""

    def __init__(self, folder: Path, cell: str) -> None:
        self.folder, self.cell = folder, cell

    def mark(self, event: str) -> None:
        (self.folder / f"{self.cell}.{event}").touch()

    def wait(self, event: str) -> None:
        while not (self.folder / f"{self.cell}.{event}").exists():
            time.sleep(0.01)

    def pause(self, step: int) -> None:
        if step in PAUSES:
            first = step == PAUSES[0]
            self.mark("paused" if first else "paused-again")
            self.wait("go" if first else "go-on")


def enter(stage: Stage) -> None:
    """Make this process a program of that cell, where one process serves several: what the environment would do."""
    if stage.cell == "dumb":
        os.environ["TERM"] = "dumb"
    elif stage.cell == "no-colour":
        os.environ["NO_COLOR"] = "1"
    elif stage.cell == "latin-1":
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="latin-1", errors="replace")  # type: ignore[union-attr]
    elif stage.cell == "piped":
        file = os.open(stage.folder / "piped.txt", os.O_WRONLY | os.O_CREAT)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)


class Training:
    """Sixty steps whose panel falls ill; the loop of those who write one themselves."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.display: Display = choose_display("auto", sys.stderr)

    def step(self, step: int, write: Callable[[str], object]) -> None:
        if step % 3 == 0:
            write(f"[{step:03d}] line of the program end")
        self.display.show(state_at(step, STEPS))
        self.stage.pause(step)
        time.sleep(0.002)

    def end(self) -> None:
        self.display.close(SICK)


def with_tqdm(stage: Stage) -> None:
    from tqdm import tqdm

    training = Training(stage)
    for step in tqdm(range(STEPS), desc="train", bar_format="{desc} {n_fmt:>2}/{total_fmt} |{bar}|", mininterval=0):
        training.step(step, tqdm.write)
    training.end()


def with_nested_tqdm(stage: Stage) -> None:
    from tqdm import tqdm

    training = Training(stage)
    shape = "{desc} {n_fmt:>2}/{total_fmt} |{bar}|"
    for epoch in tqdm(range(4), desc="epochs", bar_format=shape, mininterval=0):
        for batch in tqdm(range(STEPS // 4), desc=f"epoch {epoch}", bar_format=shape, mininterval=0, leave=False):
            training.step(epoch * STEPS // 4 + batch, tqdm.write)
    training.end()


def with_rich(stage: Stage) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    training = Training(stage)
    with Progress(TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn()) as progress:
        epochs = progress.add_task("epochs", total=4)
        for epoch in range(4):
            batches = progress.add_task(f"epoch {epoch}", total=STEPS // 4)
            for batch in range(STEPS // 4):
                training.step(epoch * STEPS // 4 + batch, print)
                progress.advance(batches)
            progress.advance(epochs)
    training.end()


def with_lightning(stage: Stage) -> None:
    import lightning.pytorch as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from nndoctor.integrations.lightning import DoctorCallback

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.net(rows)  # type: ignore[no-any-return]

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.global_step % 3 == 0:
                self.print(f"[{self.global_step:03d}] line of the program end")
            stage.pause(self.global_step)
            return nn.functional.mse_loss(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    torch.manual_seed(0)
    rows = torch.randn(STEPS * 4, 8)
    pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[DoctorCallback(run_dir=stage.folder / f"run-{stage.cell}", name="bars")], default_root_dir=stage.folder,
    ).fit(Module(), DataLoader(TensorDataset(rows, rows.mean(1, keepdim=True)), batch_size=4))  # fmt: skip


def with_transformers(stage: Stage) -> None:
    import torch
    from torch import nn
    from tqdm import tqdm
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from nndoctor.integrations.transformers import DoctorCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, rows: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": nn.functional.mse_loss(self.net(rows), labels)}

    class Speaking(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, arguments: object, state: object, control: object, **more: object) -> None:
            step = state.global_step  # type: ignore[attr-defined]
            if step % 3 == 0:
                tqdm.write(f"[{step:03d}] line of the program end")
            stage.pause(step)

    torch.manual_seed(0)
    rows = torch.randn(STEPS * 4, 8)
    options = TrainingArguments(
        output_dir=str(stage.folder), num_train_epochs=1, per_device_train_batch_size=4, save_strategy="no",
        logging_steps=20, report_to="none", use_cpu=True,
    )  # fmt: skip
    data = [{"rows": row, "labels": row.mean(0, keepdim=True)} for row in rows]
    doctor = DoctorCallback(run_dir=stage.folder / f"run-{stage.cell}", name="bars")
    Trainer(model=Model(), args=options, train_dataset=data, callbacks=[Speaking(), doctor]).train()


KINDS = {"tqdm": with_tqdm, "nested": with_nested_tqdm, "rich": with_rich, "lightning": with_lightning, "transformers": with_transformers}


def main(kind: str, folder: Path, cells: list[str]) -> None:
    if kind in ("lightning", "transformers"):
        from nndoctor.zoo.torchvision_compat import TorchvisionUnavailable, import_torchvision

        with suppress(TorchvisionUnavailable):
            import_torchvision()  # which both import, and fail where its operators were built for another torch
        __import__(kind)  # takes seconds: before the test starts to wait
    for cell in cells:
        stage = Stage(folder, cell)
        stage.wait("start")
        before, streams = dict(os.environ), [(stream.encoding, stream.errors) for stream in (sys.stdout, sys.stderr)]
        if len(cells) > 1:
            enter(stage)
        KINDS[kind](stage)
        print("program done", flush=True)
        if len(cells) > 1:
            os.environ.clear()
            os.environ.update(before)
            for stream, (encoding, errors) in zip((sys.stdout, sys.stderr), streams, strict=True):
                stream.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]
        stage.mark("done")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
