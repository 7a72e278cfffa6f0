"""``nndoctor train``: trains a model of the zoo by name, measures what it is asked for, with the doctor at its side."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from nndoctor.cli.output import UsageError, say, tell

VISUALISATIONS = ("tb", "mpl", "jsonl")

Topics = list[str] | None


def topics(flag: str, help: str) -> Any:
    return typer.Option(flag, metavar="TOPIC", help=f"{help} of this topic in every layer; may be repeated.")


def configured(context: typer.Context, file: Path | None) -> Path | None:
    """Takes the options in a file for those that the command line does not give; paths in it are relative to it."""
    if file is None or context.resilient_parsing:
        return None
    from difflib import get_close_matches

    from nndoctor.cli.settings import read_toml

    if not file.is_file():
        raise UsageError(f"--config: no such file: {file}")
    known = {option.name for option in context.command.params} - {"config"}
    given: dict[str, Any] = {}
    for key, value in read_toml(file).items():
        name = str(key).replace("-", "_")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise UsageError(f"{file}: unknown option {key!r}; {f'did you mean {close[0]!r}?' if close else 'see nndoctor train --help'}")
        given[name] = str(file.parent / str(value)) if name in ("log_dir", "checkpoints", "trail") else value
    context.default_map = {**(context.default_map or {}), **given}
    return file


def train(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", is_eager=True, callback=configured,
            help="Options from a TOML file, as model = \"vgg\" or norm = [\"weights\"]; those given here count more.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "-m", "--model", help="alexnetmini, vgg, resnet18, pathnet, ...; see the message for an unknown one."
        ),
    ] = "alexnetmini",
    dataset: Annotated[
        str,
        typer.Option(
            "-d",
            "--dataset",
            help="MNIST, FashionMNIST, CIFAR10, CIFAR100, fashion-mnist-small, ..., or images:FOLDER.",
        ),
    ] = "fashion-mnist-small",
    batch_size: Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Samples in a batch.")] = 128,
    epochs: Annotated[int, typer.Option("-e", "--epochs", min=0, help="Passes over the data.")] = 10,
    optimizer: Annotated[str, typer.Option("-o", "--optimizer", help="Any class of torch.optim.")] = "Adam",
    learning_rate: Annotated[float, typer.Option("-l", "--learning-rate", help="Of the optimizer.")] = 0.01,
    momentum: Annotated[
        float | None, typer.Option("--momentum", help="Of the optimizer.  [default: the optimizer's own]")
    ] = None,
    exponential_decay: Annotated[
        float | None,
        typer.Option("--exponential-decay", metavar="GAMMA", help="Factor on the learning rate after each epoch."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="recursive|listing|exponential-ratio",
            help="Let the learning rate follow the ratio of update to weight.",
        ),
    ] = None,
    ratio_average: Annotated[
        int, typer.Option("-a", "--ratio-average", min=1, help="Measurements that a ratio is averaged over.")
    ] = 10,
    subsample: Annotated[int, typer.Option("-s", "--subsample", min=1, help="Steps between two measurements.")] = 1,
    visualisation: Annotated[
        str | None,
        typer.Option(
            "-v",
            "--visualisation",
            metavar="|".join(VISUALISATIONS),
            help="TensorBoard, figures, or lines of JSON.  [default: tb if it is installed, else jsonl]",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-V", "--verbose", help="Say more: model, layers, what is measured.")
    ] = False,
    spectral_norm: Annotated[Topics, topics("--spectral-norm", "Largest singular value")] = None,
    histogram: Annotated[Topics, topics("--histogram", "Histogram")] = None,
    variance: Annotated[Topics, topics("--variance", "Variance")] = None,
    norm: Annotated[Topics, topics("--norm", "L2 norm")] = None,
    ratio: Annotated[
        Topics,
        typer.Option(
            "--ratio",
            metavar="T1,T2",
            help="Ratio of the norms of two topics, as weight_updates,weights; may be repeated.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME[:layers=GLOB,every=N]", help="Any other metric; see nndoctor metrics; may be repeated."
        ),
    ] = None,
    test_accuracy: Annotated[
        bool, typer.Option("--test-accuracy", help="Accuracy on the test set every 100 batches.")
    ] = False,
    train_accuracy: Annotated[bool, typer.Option("--train-accuracy", help="Accuracy on the batch.")] = False,
    svcca: Annotated[bool, typer.Option("--svcca", help="Similarity of each layer to itself an epoch ago.")] = False,
    hessian: Annotated[
        bool, typer.Option("--hessian", help="Leading eigenvalue of the Hessian after each epoch.")
    ] = False,
    depth: Annotated[
        int,
        typer.Option("--depth", min=-1, help="Levels below the model at which layers are looked at; -1: the leaves."),
    ] = -1,
    log_dir: Annotated[Path, typer.Option("--log-dir", help="Where measurements are written.")] = Path("runs"),
    checkpoints: Annotated[
        Path | None,
        typer.Option("--checkpoints", metavar="FOLDER", help="Keep the initial weights and those after each epoch, for nndoctor lab."),
    ] = None,
    trail: Annotated[
        Path | None,
        typer.Option("--trail", metavar="FILE", help="Keep the way of the weights through all steps, for nndoctor lab surface."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 1234,
    repetitions: Annotated[
        int, typer.Option("--repetitions", min=1, help="Train so often, each with the next seed, into folders of their own.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of the processor.  [default: torch's own]")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, help="Pixels of a side.  [default: as they are, or 32 where the model needs it]"),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch data that are not here.")] = False,
    ui: Annotated[
        str, typer.Option("--ui", help="The doctor's panel: auto, footer, lines, off; or none: no doctor.")
    ] = "auto",
) -> None:
    """Train a model of the zoo, by name, with the doctor attached.

    TOPIC is one of weights, biases, weight_gradients, bias_gradients, weight_updates, bias_updates, activations, layer_gradients.
    """
    from nndoctor.zoo.data import DataUnavailable
    from nndoctor.zoo.training import Trainer, TrainOptions
    from nndoctor.zoo.writers import WriterUnavailable

    options = TrainOptions(
        model=model, dataset=dataset, batch_size=batch_size, epochs=epochs, optimizer=optimizer, learning_rate=learning_rate, momentum=momentum,
        exponential_decay=exponential_decay, schedule=schedule, checkpoints=checkpoints, trail=trail, ratio_average=ratio_average, subsample=subsample, depth=depth,
        variance=tuple(variance or ()), norm=tuple(norm or ()), histogram=tuple(histogram or ()),
        spectral_norm=tuple(spectral_norm or ()), ratio=tuple(pair(text) for text in ratio or ()), metrics=tuple(metric or ()),
        train_accuracy=train_accuracy, test_accuracy=test_accuracy, svcca=svcca, hessian=hessian,
        visualisation=visualisation or ("tb" if find_spec("tensorboard") else "jsonl"), log_dir=log_dir, seed=seed,
        doctor=None if ui == "none" else ui, size=size, download=download, threads=threads,
    )  # fmt: skip
    runs = [options] if repetitions == 1 else [options.repetition(number) for number in range(1, repetitions + 1)]
    accuracies = []
    for number, chosen in enumerate(runs, start=1):
        try:
            trainer = Trainer(chosen)
        except (ValueError, DataUnavailable, WriterUnavailable) as error:
            raise UsageError(str(error)) from error
        if repetitions > 1:
            say(f"repetition {number} of {repetitions}, seed {chosen.seed}")
        accuracies += one_training(trainer, verbose)
    if repetitions > 1 and accuracies:
        say(f"Test accuracy over {repetitions} repetitions: {mean_and_deviation(accuracies)}.")


def one_training(trainer: Any, verbose: bool) -> list[float]:
    """Train to the end and say how it went; returns the last test accuracy, where there was an epoch."""
    options, last = trainer.options, []
    try:
        if verbose:
            describe(trainer)
        for epoch, loss, accuracy in trainer.train():
            say(f"epoch {epoch}: test loss {loss:.4g}, test accuracy {accuracy:.3f}")
            last = [accuracy]
    finally:
        trainer.close()
    if options.doctor is not None and trainer.doctor is not None and trainer.doctor.enabled:
        say(trainer.doctor.diagnosis().verdict)
    else:
        say(f"Trained {options.model} for {options.epochs} epochs; measurements are in {options.log_dir}.")
    return last


def mean_and_deviation(values: list[float]) -> str:
    from statistics import mean, stdev

    return f"{mean(values):.3f} ± {stdev(values):.3f} (standard deviation)" if len(values) > 1 else f"{values[0]:.3f}"


def pair(text: str) -> tuple[str, str]:
    first, comma, second = text.partition(",")
    if not comma or not first.strip() or not second.strip():
        raise UsageError(
            f"--ratio: expected two topics with a comma between them, as weight_updates,weights, got {text!r}"
        )
    return first.strip(), second.strip()


def describe(trainer: Any) -> None:
    """What is trained and measured, on stderr."""
    parameters = sum(p.numel() for p in trainer.model.parameters())
    tell(
        f"{trainer.options.model}: {parameters} parameters, {trainer.data.count} training samples of shape {trainer.data.shape}"
    )
    tell(f"{trainer.batches_per_epoch} batches per epoch; layers: {', '.join(name for name, module in trainer.model.named_modules() if not list(module.children()))}")
