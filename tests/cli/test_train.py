"""``nndoctor train``: every option is heard and has its effect."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from nndoctor.cli.main import main
from nndoctor.record import RecordReader, find_run
from nndoctor.zoo.training import Trainer, TrainOptions
from nndoctor.zoo.writers import read_metrics

SHORT = ["-m", "mlp", "-b", "1000", "-e", "1", "--ui", "none", "--log-dir", "runs", "-v", "jsonl"]


def trained(*arguments: str) -> dict[str, list[tuple[int, float]]]:
    """The series that ``nndoctor train`` writes with these options; later ones count."""
    assert main(["train", *SHORT, *arguments]) == 0
    return read_metrics(Path("runs"))


@pytest.mark.parametrize(
    ("option", "series"),
    [
        (["--variance", "activations"], "activations.variance/fc1"),
        (["--norm", "weight_gradients"], "weight_gradients.norm2/fc2.weight"),
        (["--ratio", "weight_updates,weights"], "weight_updates.per.weights/fc3.weight"),
        (["--spectral-norm", "weights"], "weights.spectral_norm/fc1.weight"),
        (["--train-accuracy"], "train_accuracy"),
        (["--test-accuracy"], "test_accuracy"),
        (["--hessian"], "hessian_eigenvalue"),
        (["--exponential-decay", "0.5"], "learning_rate"),
        (["--schedule", "listing"], "learning_rate"),
    ],
)
def test_a_measurement_that_is_asked_for_is_written(option: list[str], series: str) -> None:
    assert series in trained(*option)
    Path("runs/metrics.jsonl").unlink()
    assert series not in trained()


def test_layers_are_compared_with_themselves_an_epoch_ago() -> None:
    similarity = {name: points for name, points in trained("--svcca", "-e", "2").items() if name.startswith("self_similarity/")}
    assert set(similarity) == {"self_similarity/fc1", "self_similarity/fc2", "self_similarity/fc3"}
    assert all(0 <= value <= 1 + 1e-6 for points in similarity.values() for _, value in points)


def test_histograms_are_drawn_by_matplotlib() -> None:
    pytest.importorskip("matplotlib")
    assert main(["train", *SHORT, "-v", "mpl", "--histogram", "weights", "-e", "1"]) == 0
    assert Path("runs/weights-fc1.weight.png").stat().st_size > 1000
    assert Path("runs/loss.png").exists()


def test_tensorboard_gets_event_files_or_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        importlib.import_module("tensorboard")
    except ModuleNotFoundError:
        assert main(["train", *SHORT, "-v", "tb"]) == 2
        assert "nndoctor[tensorboard]" in capsys.readouterr().err
        return
    assert main(["train", *SHORT, "-v", "tb"]) == 0
    assert list(Path("runs").glob("events.out.tfevents*"))


def test_subsampling_holds_for_every_measurement() -> None:
    series = trained("-s", "3", "--norm", "weights", "--variance", "weights", "--spectral-norm", "weights", "--ratio", "weight_updates,weights", "--train-accuracy")
    per_step = [points for name, points in series.items() if name != "test_loss"]
    assert len(per_step) >= 14
    assert all([step for step, _ in points] == [0, 3, 6] for points in per_step)


def test_ratio_average_smooths() -> None:
    def values(average: str) -> list[float]:
        Path("runs/metrics.jsonl").unlink(missing_ok=True)
        return [value for _, value in trained("-a", average, "--ratio", "weight_updates,weights")["weight_updates.per.weights/fc1.weight"]]

    raw, smooth = values("1"), values("100")
    assert smooth == pytest.approx([sum(raw[: index + 1]) / (index + 1) for index in range(len(raw))])


def test_model_optimizer_rate_seed_and_epochs_have_their_effect() -> None:
    trainer = Trainer(TrainOptions(model="alexnetmini", optimizer="sgd", learning_rate=0.3, batch_size=512, seed=5, doctor=None))
    assert type(trainer.model).__name__ == "AlexNetMini"
    assert trainer.optimizer.param_groups[0]["lr"] == 0.3
    assert trainer.batches_per_epoch == 7000 // 512
    assert len(trained("-e", "2")["test_loss"]) == 2


def test_a_run_with_the_same_seed_is_the_same() -> None:
    def losses() -> list[float]:
        trainer = Trainer(TrainOptions(model="mlp", batch_size=500, seed=3, doctor=None))
        return [trainer.train_batch().loss for _ in range(4)]

    assert losses() == losses()


def test_depth_decides_which_layers_are_looked_at() -> None:
    series = trained("-m", "alexnetmini", "--depth", "1", "--norm", "activations", "-s", "100")
    assert {name for name in series if "/" in name} == {"activations.norm2/features", "activations.norm2/classifier"}


def test_any_metric_can_be_asked_for_by_name() -> None:
    series = trained("--metric", "weights.mean:layers=fc1,every=3", "--metric", "adam")
    assert [step for step, _ in series["weights.mean/fc1.weight"]] == [0, 3, 6]
    assert "weights.mean/fc2.weight" not in series
    assert len(series["adam.second_moment.median/fc3.weight"]) == 7


def test_measurements_are_recorded_even_where_nobody_judges() -> None:
    from nndoctor.record import RecordReader

    trained("--norm", "weights")
    folder = next(path for path in Path("runs").iterdir() if path.is_dir())
    with RecordReader(folder) as reader:
        assert len([frame for frame in reader.frames() if "weights.norm2" in frame.values]) == 7


def test_small_images_are_enlarged_for_models_that_need_it() -> None:
    trainer = Trainer(TrainOptions(model="vgg", doctor=None))
    assert trainer.data.shape == (1, 32, 32)
    assert Trainer(TrainOptions(model="pathnet", size=32, doctor=None)).data.shape == (1, 32, 32)


def test_the_doctor_is_there_and_has_the_last_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--ui", "off", "-l", "0.001", "-V"]) == 0
    captured = capsys.readouterr()
    told = captured.out.splitlines()
    assert told[0].startswith("epoch 1: test loss ")
    assert "7 steps" in told[-1] or "finding" in told[-1]
    assert "mlp: 109386 parameters" in captured.err.replace("\n", " ")


def test_the_test_set_is_looked_at_without_a_trace() -> None:
    trainer = Trainer(TrainOptions(model="alexnetmini", doctor=None))
    trainer.model.train()
    before = torch.get_rng_state()
    trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in trainer.model.modules())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-m", "resnet8"], "no model is called 'resnet8'"),
        (["-d", "imagenet"], "no data set is called 'imagenet'"),
        (["-o", "adamm"], "no optimizer is called 'adamm'"),
        (["--norm", "weight"], "no topic is called 'weight'"),
        (["--ratio", "weights"], "two topics with a comma"),
        (["-b", "100000"], "larger than the 7000 training samples"),
        (["--schedule", "cosine"], "expected recursive, listing, exponential-ratio"),
        (["-v", "paper"], "expected tb, mpl, jsonl"),
    ],
)
def test_what_the_user_can_mend_is_a_usage_error(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--ui", "none", *arguments]) == 2
    assert what in " ".join(capsys.readouterr().err.split())



@pytest.mark.parametrize("kind", ["recursive", "exponential-ratio"])
def test_a_ratio_schedule_sets_the_rate_after_every_step(kind: str) -> None:
    rates = [rate for _, rate in trained("--schedule", kind, "-o", "sgd")["learning_rate"]]
    assert len(rates) == 7
    assert len(set(rates)) == 7


def test_checkpoints_of_a_training_can_be_examined_in_the_lab(capsys: pytest.CaptureFixture[str]) -> None:
    trained("-e", "2", "-o", "fixedratiosgd", "--checkpoints", "kept")
    assert sorted(path.name for path in Path("kept").iterdir()) == ["step-0.pt", "step-14.pt", "step-7.pt"]
    capsys.readouterr()
    who = ["--model", "nndoctor.zoo.models:Mlp", "--batches", "nndoctor.zoo.datasets:shipped_batches"]
    assert main(["lab", "path", "kept", *who, "--points", "3", "--max-batches", "1"]) == 0
    assert "2 paths; the highest barrier is" in capsys.readouterr().out


def test_the_way_of_a_training_can_be_drawn_in_the_lab(capsys: pytest.CaptureFixture[str]) -> None:
    trained("--trail", "way.npz", "--checkpoints", "kept")
    who = ["--model", "nndoctor.zoo.models:Mlp", "--batches", "nndoctor.zoo.datasets:shipped_batches", "--max-batches", "1"]
    options = ["--directions", "trajectory", "--trail", "way.npz", "--points", "3"]
    assert main(["lab", "surface", "kept/step-7.pt", *who, *options]) == 0
    assert "the optimizer's way: 8 points" in capsys.readouterr().out


def test_options_come_from_a_file_and_the_command_line_counts_more(tmp_path: Path) -> None:
    config = tmp_path / "vgg.toml"
    config.write_text('model = "mlp"\nbatch-size = 1000\nepochs = 1\noptimizer = "SGD"\nmomentum = 0.9\nlearning-rate = 0.5\nui = "off"\nnorm = ["weights"]\nlog-dir = "kept"\nvisualisation = "jsonl"\n')
    assert main(["train", "--config", str(config), "-l", "0.02"]) == 0
    assert "weights.norm2/fc1.weight" in read_metrics(tmp_path / "kept"), "paths are relative to the file"
    with RecordReader(find_run(None, Path(".nndoctor/runs"))) as reader:
        settings = reader.facts.facts["settings"]
        group = reader.facts.facts["optimizer_settings"]
    assert (settings["model"], settings["batch_size"], settings["momentum"], settings["learning_rate"]) == ("mlp", 1000, 0.9, 0.02)
    assert "log_dir" not in settings
    assert "0.9" in str(group)


@pytest.mark.parametrize(("text", "what"), [("modl = 1", "did you mean 'model'?"), ("= 3", "is not valid TOML"), (None, "no such file")])
def test_a_file_of_options_that_is_wrong_says_where(text: str | None, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "wrong.toml"
    if text is not None:
        config.write_text(text)
    assert main(["train", "--config", str(config)]) == 2
    assert what in capsys.readouterr().err


def test_repetitions_differ_in_their_seed_and_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--repetitions", "2", "--checkpoints", "kept", "--threads", "1"]) == 0
    assert "Test accuracy over 2 repetitions: " in capsys.readouterr().out.splitlines()[-1]
    first, second = (read_metrics(Path("runs") / f"repetition-{number}")["loss"] for number in (1, 2))
    assert len(first) == len(second)
    assert first != second
    assert sorted(path.name for path in Path("kept").iterdir()) == ["repetition-1", "repetition-2"]


def test_momentum_is_refused_where_the_optimizer_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "-o", "Adagrad", "--momentum", "0.9"]) == 2
    assert "momentum" in capsys.readouterr().err
