"""What can be measured: signals, the targets they run over, and one step's measurements.

A leaf module: it imports nothing of ours and no torch, because everything to the right of the
probes (history, rules, record, reports) is built on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:  # a tenth of a second, which commands that only list and explain need not spend
    import numpy as np
    from numpy.typing import NDArray

Axis: TypeAlias = Literal["run", "layer", "param", "group", "rank"]
AXES: tuple[Axis, ...] = ("run", "layer", "param", "group", "rank")

OBSERVED_PREFIX = "observed."
"""Signals under this prefix are whatever the user handed to ``Doctor.observe``; always per run."""


PUBLISHED = "published"
"""Fact of a run under which the signals stand that its subscribers publish, as dicts."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that can be measured.

    Args:
        name: as rules write it, ``thing.statistic``.
        per: what it has a value for: ``run``, ``layer``, ``param``, ``group`` or ``rank``.
        unit: of its values; ``1`` for a plain number.
        help: what it is, in a sentence, with its formula.
        reference: where that comes from.

    Examples:
        >>> CATALOGUE["update.ratio"].per
        'layer'
        >>> Signal("snake.frequency", "layer", "1/s", "Smallest frequency of the layer.").name
        'snake.frequency'
    """

    name: str
    per: Axis
    unit: str
    help: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Targets:
    """The names that the arrays of a frame run over.

    Targets only ever grow at the end: a name keeps its index for the whole run, so the arrays of an
    older frame are prefixes of what a newer one would hold.

    Args:
        layers: module names in registration order, then functional activations (``encoder/relu``).
        layer_kinds: the class of each layer (``Conv2d``), ``relu()`` for a functional call.
        layer_depths: rank of each layer in the first forward pass; -1 where it was never called.
        params: qualified parameter names, tied weights once.
        param_layers: index into ``layers`` of the module that owns each parameter.
        param_shapes: shape of each parameter.
        groups: optimizer parameter groups (``adam[0]``).
    """

    layers: tuple[str, ...] = ()
    layer_kinds: tuple[str, ...] = ()
    layer_depths: tuple[int, ...] = ()
    params: tuple[str, ...] = ()
    param_layers: tuple[int, ...] = ()
    param_shapes: tuple[tuple[int, ...], ...] = ()
    groups: tuple[str, ...] = ()
    ranks: tuple[str, ...] = ("0",)

    def names(self, axis: Axis) -> tuple[str, ...]:
        """The target names along `axis`; the run itself has the one name ``run``."""
        if axis == "run":
            return ("run",)
        return {"layer": self.layers, "param": self.params, "group": self.groups, "rank": self.ranks}[axis]

    def size(self, axis: Axis) -> int:
        return len(self.names(axis))

    @property
    def modules(self) -> int:
        """How many layers are modules of the model, functional calls such as ``relu()`` not counted."""
        return len(self.layers) - sum(kind.endswith("()") for kind in self.layer_kinds)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Targets:
        shapes = tuple(tuple(int(n) for n in shape) for shape in data.get("param_shapes", ()))
        plain = {key: tuple(value) for key, value in data.items() if key != "param_shapes"}
        return Targets(param_shapes=shapes, **plain)


Values: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True, slots=True)
class Frame:
    """What was measured on one step.

    Args:
        step: optimizer steps completed when the frame was closed; the first frame has step 1.
        time: seconds since the epoch (wall clock) at which the step ended.
        epoch: completed passes over the training loader, None where no loader was seen.
        values: signal name to float32 array over the signal's targets, shape (1,) for a run signal.
            Only what was measured is in it; NaN inside an array means that this one target was not
            measured. A measured NaN is told by the ``*.nonfinite`` signals, never by a NaN here.

    Examples:
        >>> import numpy as np
        >>> frame = Frame(12, 1767225600.0, values={"loss": np.array([0.31], dtype=np.float32)})
        >>> "grad.norm" in frame.values  # not measured in this step, which is not the same as 0
        False
    """

    step: int
    time: float
    epoch: float | None = None
    values: Mapping[str, Values] = field(default_factory=dict)


class Catalogue:
    """Every signal that rules may name, by name.

    >>> CATALOGUE["grad.norm"].per
    'layer'
    >>> "observed.bleu" in CATALOGUE
    True
    """

    def __init__(self, signals: Iterable[Signal]) -> None:
        self._signals: dict[str, Signal] = {}
        for signal in signals:
            if signal.name in self._signals:
                raise ValueError(f"signal {signal.name!r} is declared twice in the catalogue")
            self._signals[signal.name] = signal

    def __contains__(self, name: object) -> bool:
        return name in self._signals or (
            isinstance(name, str) and name.startswith(OBSERVED_PREFIX) and len(name) > len(OBSERVED_PREFIX)
        )

    def __getitem__(self, name: str) -> Signal:
        if name in self._signals:
            return self._signals[name]
        if name in self:
            return Signal(name, "run", "as observed", "A value handed to Doctor.observe().")
        raise KeyError(name)

    def __iter__(self) -> Iterator[Signal]:
        return iter(self._signals.values())

    def __len__(self) -> int:
        return len(self._signals)

    def names(self) -> tuple[str, ...]:
        return tuple(self._signals)

    def extended(self, signals: Iterable[Signal]) -> Catalogue:
        """A new catalogue with `signals` added, for probes and metrics that a user brings along.

        One that is declared in here with the very same words needs no second place.
        """
        return Catalogue((*self._signals.values(), *(new for new in signals if self._signals.get(new.name) != new)))


def _signals(per: Axis, *rows: tuple[str, ...]) -> tuple[Signal, ...]:
    return tuple(Signal(row[0], per, *row[1:]) for row in rows)


KINGMA = "Kingma & Ba 2015, Adam: a method for stochastic optimization, algorithm 1"
CS231N = "Stanford CS231n notes, Neural Networks Part 3, ratio of weights:updates"

_LOSS = _signals(
    "run",
    ("loss", "loss", "Mean of the scalars handed to backward() during the step, unscaled under AMP."),
    ("loss.micro_min", "loss", "Smallest of the step's micro-step losses."),
    ("loss.micro_max", "loss", "Largest of the step's micro-step losses."),
    ("loss.nonfinite", "count", "Losses of this step that were NaN or infinite."),
    ("loss.chance", "loss", "Loss of a uniform guess, ln(classes), where the loss is a cross entropy."),
    ("loss.softmax_twice", "0 or 1", "1 if the loss applies (log-)softmax or a sigmoid to the output of a softmax or sigmoid."),
    ("loss.broadcast", "factor", "Elements the loss compares, divided by elements the model predicted; above 1 a shape broadcast."),
    ("loss.reached_fraction", "fraction", "Share of the trainable parameters that the graph of the loss reaches."),
    ("val.loss", "loss", "Validation loss: observed, or seen in forward passes without gradients."),
    ("val.accuracy", "fraction", "Validation accuracy, as observed."),
)

_RATE = _signals(
    "run",
    ("lr", "1", "Learning rate of the first parameter group of the first optimizer."),
    ("lr.initial", "1", "That learning rate at the first step."),
    ("lr.peak", "1", "Largest learning rate so far."),
    ("lr.changes", "count", "How often the learning rate changed between two steps so far."),
    ("lr.adaptive", "0 or 1", "1 for optimizers that divide by a running gradient size (Adam and kin)."),
) + _signals(
    "group",
    ("group.lr", "1", "Learning rate of the parameter group."),
    ("group.weight_decay", "1", "Weight decay of the parameter group."),
    ("group.momentum", "1", "Momentum, or beta1 of Adam and kin."),
    ("group.beta2", "1", "Decay of the second moment.", KINGMA),
    ("group.eps", "1", "Epsilon added to the root of the second moment.", KINGMA),
)

_GRADIENTS = _signals(
    "run",
    ("grad.total_norm", "1", "L2 norm of all gradients as the optimizer sees them (after clipping and unscaling)."),
    ("grad.total_norm_preclip", "1", "L2 norm before clipping, as clip_grad_norm_ returned it."),
    ("clip.max_norm", "1", "Threshold handed to clip_grad_norm_."),
    ("grad.nonfinite_total", "count", "Parameters whose gradient norm is NaN or infinite."),
) + _signals(
    "layer",
    ("grad.norm", "1", "L2 norm of the gradients of the layer's own parameters."),
    ("grad.rms", "1", "Root mean square of the gradients of the layer's own parameters."),
    ("grad.nonfinite", "count", "The layer's own parameters whose gradient norm is NaN or infinite."),
    ("grad.snr", "1", "Gradient signal to noise over steps: mean of param.grad.snr over the layer's own parameters, weighted by size."),
) + _signals(
    "param",
    ("param.grad.norm", "1", "L2 norm of the gradient, exact."),
    ("param.grad.mean", "1", "Mean of the gradient over the sketched elements."),
    ("param.grad.var", "1", "Variance of the gradient: its exact mean square less the squared mean over the sketched elements."),
    ("param.grad.nonfinite", "0 or 1", "1 if the gradient norm is NaN or infinite."),
    ("param.grad.time_var", "1", "Variance of the gradient over steps, E[g^2] - E[g]^2 by exponential means, averaged over the sketched elements."),
    ("param.grad.snr", "1", "Gradient signal to noise over steps, |E[g]| / sqrt(trace Var[g]) on the sketch, freed of the noise in the mean."),
    ("param.grad.cosine", "1", "Cosine of this sampled gradient with the previous sampled one, on the sketch."),
    ("param.has_grad", "0 or 1", "1 if the parameter had a gradient when the optimizer stepped."),
)

_WEIGHTS = _signals(
    "layer",
    ("weight.norm", "1", "L2 norm of the layer's own weights (parameters of two or more dimensions; all where there are none)."),
    ("weight.nonfinite", "count", "The layer's own parameters whose norm is NaN or infinite."),
    ("update.ratio", "1", "Update norm over weight norm, |w_new - w_old| / |w_old|, over the layer's weights of two or more dimensions.", CS231N),
) + _signals(
    "param",
    ("param.weight.norm", "1", "L2 norm of the parameter, estimated on the sketch (exact for small tensors)."),
    ("param.weight.nonfinite", "0 or 1", "1 if the sketched elements of the parameter hold a NaN or an infinity."),
    ("param.weight.std", "1", "Standard deviation of the sketched elements."),
    ("param.weight.gain", "1", "Standard deviation times sqrt(fan_in): about 1 for LeCun, 1.41 for He initialisation.", "He et al. 2015, Delving deep into rectifiers, arXiv 1502.01852"),
    ("param.weight.constant", "0 or 1", "1 if all sketched elements of a weight of two or more dimensions are equal."),
    ("param.weight.default_init", "0 or 1", "1 if the weight looks untrained, as torch's defaults leave it: spread uniformly around zero (max / std = sqrt(3)), an embedding standard normal."),
    ("param.update.norm", "1", "L2 norm of the change this step made, estimated on the sketch."),
    ("param.update.ratio", "1", "Update norm over weight norm, |w_new - w_old| / |w_old|.", CS231N),
    ("param.update.projection", "1", "Effective learning rate -<dw, g> / <g, g> on the sketch.", "cf. the effective learning rate of ikkuna (Diederichsen, Live introspection for neural network training), there element by element"),
    ("param.changed", "0 or 1", "1 if any sketched element changed in this step."),
    ("param.trainable", "0 or 1", "1 if requires_grad is set."),
    ("param.in_optimizer", "0 or 1", "1 if an optimizer that the doctor sees holds the parameter."),
    ("param.reached", "0 or 1", "1 if the graph of the loss reaches the parameter, in this step or an earlier one."),
)

_ADAM = _signals(
    "param",
    ("param.adam.m_norm", "1", "Root mean square of the first moment m on the sketch.", KINGMA),
    ("param.adam.v_mean", "1", "Mean of the second moment v on the sketch.", KINGMA),
    ("param.adam.m_hat_norm", "1", "Root mean square of the bias-corrected first moment m / (1 - beta1^t).", KINGMA),
    ("param.adam.v_hat_mean", "1", "Mean of the bias-corrected second moment v / (1 - beta2^t).", KINGMA),
    ("param.adam.update_rms", "1", "Root mean square of m_hat / (sqrt(v_hat) + eps): the step in units of the learning rate.", KINGMA),
    ("param.adam.eps_fraction", "fraction", "Share of sketched elements with sqrt(v_hat) < 10 eps."),
    ("param.adam.staleness", "1", "Root mean square of g / sqrt(v_hat) on the sketch; well above 1 where the second moment lags.", "Wortsman et al. 2023, Stable and low-precision training for large-scale vision-language models, arXiv 2304.13013"),
)

_ACTIVATIONS = _signals(
    "layer",
    ("act.mean", "1", "Mean of the layer's output over a sub-sample."),
    ("act.std", "1", "Standard deviation of the layer's output over a sub-sample."),
    ("act.rms", "1", "Root mean square of the layer's output over a sub-sample."),
    ("act.max", "1", "Largest magnitude in the layer's output over a sub-sample."),
    ("act.nonfinite", "count", "NaN or infinite elements in the sub-sample of the output (at least 1 if there are any in the sums)."),
    ("act.first_nonfinite", "0 or 1", "1 at the first layer, in order of execution, whose output was not finite."),
    ("act.dead_fraction", "fraction", "Units of a ReLU (channels, features) that were zero for every sample of the recent window.", "Lu et al. 2019, Dying ReLU and initialization, arXiv 1903.06733; per unit over samples, never per element"),
    ("act.dead_samples", "count", "Samples the window behind act.dead_fraction has seen."),
    ("act.saturated_fraction", "fraction", "Units of a sigmoid, tanh or softmax whose outputs were within 2 % of a limit for 95 % of samples.", "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks"),
    ("act.batch_std", "1", "Standard deviation over the batch, averaged over units: 0 where the output ignores the input."),
    ("layer.calls", "count", "Forward calls of the layer in this step."),
    ("layer.eval_in_training", "0 or 1", "1 if a dropout or normalisation layer that serves trainable parameters ran in eval mode in a step that trained."),
    ("layer.norm_batch", "count", "Samples per channel over which a batch normalisation took its statistics."),
    ("time.forward", "s", "Wall time of the layer's own forward work (without its children)."),
    ("time.backward", "s", "Wall time of the layer's own backward work."),
    ("layer.flops", "operations", "Floating point operations of the layer's forward calls in one step, from its kind and shapes; a multiply-add is two."),
    ("layer.bytes", "bytes", "Bytes of what these calls read and return, and of the layer's own parameters."),
    ("layer.elements", "count", "Elements of what these calls read and return."),
    ("layer.steps_in_row", "count", "Operations of these calls that wait for each other: time steps of a recurrent layer, else calls."),
    ("time.recomputed", "s", "Wall time of the layer's forward work that a checkpoint repeated during backward."),
)

_DATA = _signals(
    "run",
    ("input.mean", "1", "Mean of the first floating-point model input over a sub-sample."),
    ("input.std", "1", "Standard deviation of that input."),
    ("input.min", "1", "Minimum of that input."),
    ("input.max", "1", "Maximum of that input."),
    ("input.nonfinite", "count", "NaN or infinite elements in the sub-sample of the input."),
    ("input.feature_spread", "ratio", "Largest over median standard deviation of the features of a two-dimensional input."),
    ("input.offset", "ratio", "|mean| / std, the largest over channels or features that vary."),
    ("input.normalised_by_model", "0 or 1", "1 if the first layer that sees the input is a normalisation layer."),
    ("input.batch_size", "samples", "Length of the first dimension of the model input."),
    ("input.repeated", "steps", "Consecutive observed steps for which the model input was the same batch."),
    ("target.mean", "1", "Mean of the targets (floating point)."),
    ("target.std", "1", "Standard deviation of the targets (floating point)."),
    ("target.min", "1", "Minimum of the targets."),
    ("target.max", "1", "Maximum of the targets."),
    ("target.nonfinite", "count", "NaN or infinite targets in the sub-sample."),
    ("target.classes", "count", "Distinct values of integer targets in this batch."),
    ("target.majority_fraction", "fraction", "Share of the most frequent integer target in this batch."),
    ("target.regression", "0 or 1", "1 if the loss compares floating-point targets by distance (MSE, L1, Huber and kin)."),
    ("loader.batches", "count", "Batches per epoch of the training loader."),
)

_LOOP = _signals(
    "run",
    ("loop.backwards", "count", "backward() calls since the previous step of the same optimizer."),
    ("loop.forwards", "count", "Training forward passes of the model since the previous step."),
    ("loop.stale_gradients", "0 or 1", "1 if the first backward of the step added to gradients that an earlier step had already applied."),
    ("loop.gradients_cleared", "0 or 1", "1 if gradients that backward had computed were gone or zero when the optimizer stepped."),
    ("loop.cleared_between_backwards", "0 or 1", "1 if gradients were cleared between two backward calls of one accumulation window."),
    ("loop.steps_missing", "count", "Rounds of backward and clearing, or of backward alone, since any optimizer stepped."),
    ("loop.unchanged", "0 or 1", "1 if the optimizer stepped with gradients and a learning rate above zero, yet no sketched weight changed."),
    ("loop.eval_mode", "0 or 1", "1 if the model's root module was in eval mode in the forward pass of a training step, and that matters to a layer."),
    ("loop.lr_steps_per_epoch", "count", "Changes of the learning rate during the last full epoch."),
    ("loop.full_batch", "0 or 1", "1 if the training loader has one batch per epoch, or none was seen."),
    ("loop.optimizers", "count", "Optimizers that stepped so far."),
    ("step.skipped", "0 or 1", "1 if the gradient scaler skipped this step."),
    ("step.skipped_total", "count", "Steps that the gradient scaler has skipped so far."),
)

AMP_EXAMPLES = "PyTorch notes, Automatic mixed precision examples"

_SCALING = _signals(
    "run",
    ("amp.half", "0 or 1", "1 if the forward pass ran under float16 autocast."),
    ("amp.scaler", "0 or 1", "1 if a gradient scaler is in use, 0 if the only ones that were used are disabled."),
    ("amp.scale", "1", "Loss scale: scaled loss over loss."),
    ("amp.clipped_scaled", "0 or 1", "1 if gradients were clipped while they carried the loss scale and were unscaled only afterwards.", AMP_EXAMPLES),
    ("amp.stepped_scaled", "0 or 1", "1 if an optimizer stepped on gradients that still carried the loss scale.", AMP_EXAMPLES),
    ("amp.never_scaled", "0 or 1", "1 if gradients were divided by a loss scale that their loss had never been multiplied by."),
    ("amp.updated_early", "0 or 1", "1 if scaler.update() ran between unscale_ and step, so that step divided a second time."),
    ("amp.unscaled_early", "0 or 1", "1 if a scaled backward added to gradients that had been unscaled already."),
    ("amp.refused_step", "0 or 1", "1 if the scaler refused step() because update() had not run since the last one."),
    ("amp.refused_unscale", "0 or 1", "1 if the scaler refused a second unscale_() in one iteration."),
    ("amp.fresh_scalers", "count", "Steps in a row that each used a scaler never seen before."),
    ("amp.skips_in_row", "count", "Steps that the scaler has skipped in a row."),
    ("schedule.before_first_step", "0 or 1", "1 if a learning rate schedule was advanced once before the optimizer's first step."),
    ("schedule.before_step", "count", "Steps in a row between whose backward and update a learning rate schedule was advanced."),
    ("amp.skip_fraction", "fraction", "Share of the last 100 calls of scaler.step that skipped."),
    ("decay.decoupled", "0 or 1", "1 if the optimizers take weight decay off the weights themselves, 0 if they add it to the gradients.", "Loshchilov & Hutter 2019, Decoupled weight decay regularization, https://arxiv.org/abs/1711.05101"),
) + _signals(
    "param",
    ("param.weight_decay", "1", "Weight decay that the parameter is trained with."),
    ("param.gain_or_bias", "0 or 1", "1 for parameters of fewer than two dimensions: biases, gains of normalisation layers."),
    ("param.update.lost", "fraction", "Of a few hundred elements of a bfloat16 or float16 matrix that had a gradient, the share that the step left as they were."),
)

_TIME = _signals(
    "run",
    ("step.time", "s", "Wall time from the end of the previous step to the end of this one."),
    ("step.data_wait", "s", "Part of it spent waiting for the loader."),
    ("step.data_wait_fraction", "fraction", "Data wait over step time."),
    ("step.forward", "s", "Part of it inside training forward passes of the model."),
    ("step.backward", "s", "Part of it inside backward()."),
    ("step.optimizer", "s", "Part of it inside optimizer steps."),
    ("step.loss", "s", "Part of it between the end of the forward pass and the start of backward."),
    ("step.doctor", "s", "Part of it spent in the doctor's own blocks."),
    ("step.evaluation", "s", "Part of it in forward passes without gradients and between them; told on every step that has any."),
    ("step.checkpoint", "s", "Part of it inside torch.save; told on every step that has any."),
    ("step.other", "s", "What is left of the step: logging, transfers, evaluation, zero_grad."),
    ("memory.process", "bytes", "Resident memory of the process."),
    ("compile.graphs", "count", "Pieces of code that torch.compile has compiled since the doctor was attached."),
    ("memory.accelerator", "bytes", "Memory allocated on the accelerator."),
    ("busy.processor", "cores", "Cores that the threads of this process kept busy since it was last looked at: processor time by wall time. Workers of a loader are processes of their own."),
    ("busy.accelerator", "fraction", "Share of the last moments in which something ran on the accelerator, as its driver tells it; every few seconds, needs the package nvidia-ml-py."),
)

_TILES = _signals(
    "run",
    ("tile.span", "s", "Length of the sampled step that its tiles cut up: time.* over layers and groups plus all tile.*, exactly."),
    ("tile.data_wait", "s", "Waiting for the training loader."),
    ("tile.prepare", "s", "From the arrival of a batch to the forward pass, where the model reads it on the device on which it came."),
    ("tile.to_device", "s", "From the arrival of a batch to the forward pass, where it is moved to another device meanwhile (the host's time)."),
    ("tile.zero_grad", "s", "Inside zero_grad."),
    ("tile.forward_other", "s", "Forward work outside of layers: functions between them, containers."),
    ("tile.loss", "s", "From the end of the forward pass to the first layer's backward: the loss, forward and backward."),
    ("tile.backward_other", "s", "Backward work outside of layers."),
    ("tile.recomputed_other", "s", "Forward work outside of layers that a checkpoint repeated during backward."),
    ("tile.clipping", "s", "Norm and scaling of clip_grad_norm_."),
    ("tile.scaler", "s", "Inside unscale_ and step of a gradient scaler, without the optimizer's own step."),
    ("tile.optimizer", "s", "Inside optimizer.step() where the parameter group cannot be told."),
    ("tile.scheduler", "s", "Inside the step of a learning rate schedule."),
    ("tile.evaluation", "s", "Forward passes without gradients, and what lies between them until training goes on."),
    ("tile.checkpoint", "s", "Inside torch.save."),
    ("tile.doctor", "s", "The doctor's own work within the step."),
    ("tile.rest", "s", "Everything else: logging, own loading code, what lies between the parts."),
) + _signals(
    "group",
    ("time.optimizer", "s", "Wall time of optimizer.step() spent on the parameter group."),
)

_IDENTITY = _signals(
    "run",
    ("accumulate.window", "count", "Backward passes per step over batches of their own whose averaged losses add up; 1 without accumulation."),
    ("accumulate.undivided", "0 or 1", "1 if none of these averages is scaled before backward() and the gradients are not rescaled by hand before the step."),
    ("accumulate.unevenness", "ratio", "Largest over smallest number of targets (total class weight) that the cross entropies of one step average over."),
    ("checkpoint.missing", "count", "Parameters of the run that the last loaded checkpoint did not fill."),
    ("checkpoint.unexpected", "count", "Names in that checkpoint which the module does not have."),
    ("checkpoint.renamed", "count", "Parameters it did not fill although it holds their names behind a prefix too many or too few."),
    ("checkpoint.loaded", "count", "Parameters of the run that it did fill."),
    ("eval.train_mode_batches", "count", "Most batches in a row of a loader that does not train which the model saw without gradients in train mode, where that matters to a layer."),
    ("target_network.used", "count", "Networks built like the trained one that run without gradients on another input inside of training steps."),
    ("target_network.shared", "0 or 1", "1 if one of them is a second object with the same weight tensors."),
    ("target_network.changed", "0 or 1", "1 if weights of each of them differ from those it was first seen with."),
    ("target_network.steps", "steps", "Steps since the first of them was seen."),
    ("graph.retained_losses", "count", "Steps, at least two ago, of whose losses an autograd graph is still held (up to 64)."),
    ("graph.retained_outputs", "count", "Steps, at least two ago, of whose outputs of the model an autograd graph is still held (up to 64)."),
    ("optimizer.tensors", "count", "Tensors that the optimizers hold."),
    ("optimizer.stale_tensors", "count", "Of these, tensors that neither the model owns nor the loss reaches, while the loss reaches tensors that no optimizer holds."),
) + _signals(
    "param",
    ("param.not_loaded", "0 or 1", "1 if the last checkpoint loaded into the module held nothing under this name; absent without a checkpoint."),
    ("param.odd_start", "0 or 1", "1 if a weight starts as torch's defaults leave it while most of its counterparts in other blocks had been trained before."),
    ("param.replaced", "0 or 1", "1 if the model no longer owns the tensor that had this name when the doctor was attached."),
) + _signals(
    "layer",
    ("norm.initial_share", "fraction", "Weight of the zero mean and unit variance it began with in a layer's running statistics, (1 - momentum)^passes; 0 where these were learnt before."),
    ("norm.frozen_updating", "0 or 1", "1 if a normalisation layer with learnt statistics, all of whose parameters are frozen, wrote its running statistics in this training step."),
    ("layer.train_in_eval", "0 or 1", "1 if a dropout or batch normalisation layer that serves trainable parameters was in train mode in such a pass."),
    ("layer.cut_off", "0 or 1", "1 for a layer that was called in training, whose parameters an optimizer stepped three times, and that no loss has reached."),
    ("layer.cut_after", "0 or 1", "1 for a layer whose output went on without its gradient, or that ran with gradients disabled inside a pass that trains."),
    ("layer.cut_before", "0 or 1", "1 for a layer that received the output of an earlier one without its gradient."),
    ("layer.unregistered", "0 or 1", "1 for a module in a plain list, dict or attribute whose tensors the loss reaches; absent otherwise."),
    ("layer.unregistered_held", "0 or 1", "1 if an optimizer holds the tensors of such a module all the same."),
)

ZHAI = "Zhai et al. 2023, Stabilizing transformer training by preventing attention entropy collapse, https://arxiv.org/abs/2303.06296"
WORTSMAN = "Wortsman et al. 2023, Small-scale proxies for large-scale transformer training instabilities, https://arxiv.org/abs/2309.14322"

_ATTENTION = _signals(
    "layer",
    ("attention.entropy", "fraction", "Entropy of attention over ln(allowed keys), mean of a few queries and all heads: 1 looks everywhere alike, 0 at one position.", ZHAI),
    ("attention.collapsed_heads", "fraction", "Share of the heads whose relative entropy is below 0.05.", ZHAI),
    ("attention.logit_max", "1", "Largest |q k| scale among the allowed keys of a few queries.", WORTSMAN),
    ("attention.logit_std", "1", "Standard deviation of the attention logits over the allowed keys, root mean square over queries: about 1 at a healthy start."),
    ("attention.future_mass", "fraction", "Largest probability on positions after the query's own, where the loss asks for the next token."),
    ("attention.padding_mass", "fraction", "Mean probability that queries put on keys whose token is the embedding's padding_idx."),
) + _signals(
    "run",
    ("target.next_token", "fraction", "Share of the targets that are the input token after their position (-1 where none tells); 1 for a causal language model."),
    ("input.streams", "count", "Inputs of the model that its attention may look at: one for a decoder, two for encoder and decoder."),
)

BURDA = "Burda et al. 2016, Importance weighted autoencoders, section 5.2, https://arxiv.org/abs/1509.00519"

_LATENT = _signals(
    "run",
    ("latent.divergence", "nats", "Divergence of a variational autoencoder's code from a standard normal, summed over units, mean over the batch: sum(mu^2 + s^2 - 1 - ln s^2) / 2."),
    ("latent.units", "count", "Units of that code."),
    ("latent.active_fraction", "fraction", "Share of its units whose mean varies over the batch by more than 0.01 (variance).", BURDA),
    ("latent.averaged_over", "count", "Elements per sample over which the reconstruction error beside it is averaged; absent where it is summed."),
)

SIMSIAM = "Chen & He 2021, Exploring simple siamese representation learning, section 4.1, https://arxiv.org/abs/2011.10566"

_REPRESENTATION = _signals(
    "run",
    ("representation.spread", "1", "Standard deviation over the batch of L2-normalised embeddings that the loss compares, times the root of their width: 1 if directions are evenly spread, 0 if all are one.", SIMSIAM),
    ("representation.dimensions", "count", "Participation ratio of the covariance of these normalised embeddings, tr(C)^2 / tr(C^2): about how many dimensions they use."),
)

_ADVERSARY = _signals(
    "run",
    ("adversary.variety", "ratio", "Root mean square distance between what the generator drew for one batch, over that between the real samples of the batch."),
    ("adversary.discriminator_loss", "loss", "Loss of the step of the model that judges real from drawn, where it is a binary cross entropy."),
    ("adversary.generator_loss", "loss", "Loss of the step of the model that draws, where it is a binary cross entropy."),
    ("adversary.discriminator_rate", "1", "Learning rate of the optimizer that trains the model that judges."),
    ("adversary.generator_rate", "1", "Learning rate of the optimizer that trains the model that draws."),
)

SWITCH = "Fedus et al. 2021, Switch transformers, section 2.2, https://arxiv.org/abs/2101.03961"

_EXPERTS = _signals(
    "layer",
    ("expert.load", "ratio", "Rows that an expert was given over the last four sampled steps, over its even share: 1 if all get as much."),
) + _signals(
    "run",
    ("expert.count", "count", "Experts of the mixture in which one is given the largest multiple of its even share."),
    ("expert.max_load", "ratio", "That largest multiple; the number of experts if one takes all.", SWITCH),
    ("expert.idle_fraction", "fraction", "Share of the experts of a mixture that were given less than a tenth of their even share."),
)

CONTEXTS: Mapping[str, str] = {
    "classification": "The targets are classes.",
    "segmentation": "The targets are classes of pixels.",
    "regression": "The targets are real numbers that are not the model's own input.",
    "language_model": "The targets are the input's next tokens.",
    "autoencoder": "The targets are the model's own input.",
    "vae": "A code is drawn from a mean and a scale that the model computes, and the loss sees the scale.",
    "contrastive": "The loss holds outputs of the batch against each other: in-batch softmax, pairs, triplets.",
    "self_supervised": "No labels: views of the same samples, or a teacher's answers to them.",
    "gan": "Optimizers of disjoint networks take turns, and the loss of one passes through the other.",
    "rl": "Log-probabilities are weighted with advantages, or chosen values are fitted to those of a target network.",
    "distillation": "A fixed network outside of the model answers to the model's own inputs in every step.",
    "teacher": "A copy of the model without gradients: an averaged teacher, a target network.",
    "frozen": "Some layers do not train.",
    "frozen_eval": "The frozen layers are in eval mode while the rest is in training mode.",
    "lora": "Products of two small matrices train beside frozen layers.",
    "zero_init": "Some weights of branches, heads or adapters were zero at the start.",
    "experts": "Modules that are built alike are given parts of the batch.",
    "sparse_gradients": "Some gradients are sparse tensors.",
    "accumulation": "Gradients of several micro-batches are added up before each optimizer step.",
    "closure": "The optimizer calls back for gradients several times in a step, as L-BFGS does.",
    "several_forwards": "The same model is called more than once for each backward.",
    "full_batch": "Every step sees the whole data.",
    "stateful": "A state that an earlier step returned is handed to the model again.",
    "amp": "A gradient scaler multiplies the loss; it skips steps while its scale settles.",
    "warmup": "The learning rate is in its first rise.",
    "decay": "The learning rate has begun to fall.",
}
"""What a run may be taken for, and how it is told; each is the signal ``context.<kind>``."""


def checked_context(said: Mapping[str, object]) -> dict[str, bool]:
    """What a user said that a run is or is not, by kind.

    Raises:
        ValueError: a kind is unknown, or its value is no yes or no; the message lists the kinds.
    """
    listed = ", ".join(CONTEXTS)
    for kind, value in said.items():
        if kind not in CONTEXTS:
            close = get_close_matches(str(kind), CONTEXTS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"context: there is no kind {kind!r}; {hint}the kinds are {listed}")
        if not isinstance(value, bool):
            raise ValueError(f"context: expected True or False for {kind!r}, got {value!r}")
    return {kind: bool(value) for kind, value in said.items()}


_CONTEXT = _signals("run", *((f"context.{kind}", "0 or 1", help) for kind, help in CONTEXTS.items())) + _signals(
    "run", ("loop.accumulation", "count", "Micro-batches whose gradients are added up for one optimizer step; 1 where none are.")
)

ANOVA = "Fisher 1925, Statistical methods for research workers, intraclass correlations and the analysis of variance"

_SUPERVISION = _signals(
    "run",
    ("labels.seen", "samples", "Targets pooled over about the last 50 looks; the counts fade by 2 % per look."),
    ("labels.classes_seen", "count", "Classes that came at least once since the run began."),
    ("labels.entropy", "loss", "Entropy of the pooled classes, in nats: the cross entropy of the best constant guess."),
    ("labels.majority_fraction", "fraction", "Pooled share of the most frequent class."),
    ("labels.balance_ratio", "ratio", "Pooled count of the most frequent over that of the rarest class that came."),
    ("labels.ignored_classes", "count", "Classes at most a tenth as frequent as the most frequent one, the last 5 samples of which or more were not recognised."),
    ("labels.ignored_samples", "samples", "Samples of those classes in a row, among the batches looked at, that were not recognised."),
    ("labels.weighted", "0 or 1", "1 if the loss has class weights."),
    ("labels.neighbours_equal", "fraction", "Pooled share of samples in a batch whose predecessor has the same class."),
    ("labels.neighbours_expected", "fraction", "That share if the order were random: the sum of the squared class shares."),
    ("labels.one_class_batches", "fraction", "Share of the last 50 or so looks at which the batch held one class only."),
    ("predictions.majority_fraction", "fraction", "Pooled share of the class that is predicted most often."),
    ("labels.looks", "count", "Batches in which inputs were held against targets so far, at most 64."),
    ("labels.association", "fraction", "Variance of the input columns that the targets of a batch explain beyond chance (eta squared or r squared, freed of its mean under permutation), the mean over columns and looks.", ANOVA),
    ("labels.association_t", "1", "That mean over its standard error over looks: about standard normal if targets have nothing to do with inputs.", ANOVA),
    ("labels.best_column_t", "1", "The same of the one input column for which it is largest.", ANOVA),
    ("labels.shifted_z", "1", "Standard errors by which inputs tell the targets of the sample after or before them, in the batch or by index; the largest."),
    ("labels.own_z", "1", "The same for their own targets, counted alike over all looks together."),
    ("labels.determined", "0 or 1", "1 if input columns that were an exact function of the target in every look, at least 5, tell all targets apart."),
    ("labels.determining_columns", "count", "How many input columns were an exact function of the target in every look."),
    ("labels.determining_column", "index", "The first of them, counted over the flattened input."),
)

_BATCHES = _signals(
    "run",
    ("loss.spike", "1", "Robust standard deviations, 1.4826 median |x - median|, of a loss above the median of the last 128; only where it leaps."),
    ("loss.setback", "fraction", "Share of the way from the first losses to that median that the leap takes back."),
    ("loss.excursion", "ratio", "The leap above the median over the largest one of the last 128 losses."),
    ("batch.input_outlier", "ratio", "Largest magnitude in the inputs of a batch whose loss leaps, over that in any other batch looked at whose loss did not."),
    ("batch.target_outlier", "ratio", "The same of its targets."),
    ("batch.seen_in_spike", "fraction", "Share of a batch whose loss leaps that was in the batch of a leap in an earlier pass."),
    ("loader.shuffled", "0 or 1", "1 if the training loader's sampler draws at random, 0 if it goes through the data set in order; torch's samplers only."),
    ("loader.copied", "count", "Batches so far that equalled an earlier batch of the same pass, sample by sample and in order."),
    ("loader.copied_apart", "count", "Those of them that were made of other indices than every remembered batch."),
) + _signals(
    "layer",
    ("layer.batch_as_sequence", "0 or 1", "1 if a recurrent or attention layer works along an axis as long as the batch while its batch axis is not."),
    ("layer.batch_reshaped", "0 or 1", "1 if its input is a mere view of the same sizes in another order, in which the batch moved."),
)

_LOSS_CONTRACT = _signals(
    "run",
    ("loss.single_class", "0 or 1", "1 if a cross entropy has one class only, so that it is 0 whatever the model answers."),
    ("loss.unnormalised", "nats", "Median of |log sum exp| over the rows handed to NLLLoss: 0 for log-probabilities."),
    ("loss.soft_targets_off", "fraction", "Rows of target probabilities with several entries that do not sum to 1, in a cross entropy over them."),
    ("loss.binary_outside", "fraction", "Targets of a binary cross entropy that are below 0 or above 1."),
    ("loss.one_hot_binary", "0 or 1", "1 if the targets of a binary cross entropy over three or more outputs hold exactly one 1 per sample."),
    ("loss.one_hot_distance", "0 or 1", "1 if a distance (MSE and kin) compares three or more outputs with one-hot rows."),
    ("loss.label_for_every_output", "0 or 1", "1 if a distance compares every one of three or more outputs with the same class label."),
    ("loss.label_distance", "0 or 1", "1 if a distance compares one output with integers from the loader that go beyond 0 and 1."),
    ("output.softmax_of_one", "0 or 1", "1 if the model ends in a softmax over a single value, which is always 1."),
    ("output.unreachable", "fraction", "Smallest loss that the range of the last activation allows, over the loss of a constant answer: 0 where nothing is out of reach."),
    ("output.low", "1", "Smallest value that the last activation can return, where it is bounded."),
    ("output.high", "1", "Largest value that the last activation can return, where it is bounded."),
    ("loss.padding_fraction", "fraction", "Positions in a cross entropy that hold an index found in ragged runs at the end of the sequences, 0 where it is ignored."),
    ("loss.padding_index", "index", "That index."),
    ("loss.padded_inputs", "0 or 1", "1 if integers that enter the model end in such runs too."),
)

_STRUCTURE = _signals(
    "layer",
    ("layer.linear_into", "0 to 1", "1 if the next linear layer or convolution follows immediately, 0.5 if that may be meant so (low rank, factors of a convolution, no bias, an embedding before the head), 0 if something bends the values in between."),
    ("layer.passage", "values", "Values per sample that the layer lets through, where everything on its way to the loss passes through it."),
    ("layer.result_unused", "0 or 1", "1 if an activation, dropout or normalisation was called and its result never used, while its input was."),
    ("layer.dropout", "fraction", "Probability with which a dropout between layers sets values to nought, in training mode."),
    ("removal_cost", "loss", "What the loss on held-out batches gains without the layer, plus two standard errors, less what counts as no change; at or below 0 the layer can go. Measured after every epoch where nndoctor.metrics.removal_cost is subscribed.", "Veit, Wilber & Belongie 2016, Residual networks behave like ensembles of relatively shallow networks, arXiv 1605.06431"),
    ("layer.constant_by_shape", "0 or 1", "1 if a normalisation has a single value to normalise, so that it returns its bias."),
) + _signals(
    "run",
    ("model.attends_to_one", "0 or 1", "1 if every attention of the model has one position alone to look at, whose weight is always 1."),
)

_LOSS_OPERATIONS = _signals(
    "layer",
    ("op.edge", "count", "Elements at which an operation of the loss (loss/sqrt, loss/log, ...) has no finite derivative."),
    ("op.slope", "1", "Largest finite derivative of that operation over its elements."),
)

_LOSS_TERMS = _signals(
    "run",
    ("loss.terms", "count", "Summands of the scalar handed to backward()."),
) + _signals(
    "layer",
    ("term.gradient", "1", "L2 norm of the gradient that one term of the loss (loss/term 1 ...) passes to where its graph meets that of other terms."),
    ("term.regularises", "0 or 1", "1 if the term has no targets and looks like no task of its own: a penalty, a divergence from a prior."),
    ("term.unexplained", "fraction", "Value of a term that compares with targets, over that of the best constant answer (variance of the targets, ln classes)."),
)

CATALOGUE = Catalogue((
    *_LOSS,
    *_RATE,
    *_GRADIENTS,
    *_WEIGHTS,
    *_ADAM,
    *_ACTIVATIONS,
    *_ATTENTION,
    *_LATENT,
    *_ADVERSARY,
    *_EXPERTS,
    *_REPRESENTATION,
    *_DATA,
    *_LOOP,
    *_TIME,
    *_TILES,
    *_IDENTITY,
    *_SCALING,
    *_CONTEXT,
    *_SUPERVISION,
    *_BATCHES,
    *_LOSS_CONTRACT,
    *_STRUCTURE,
    *_LOSS_OPERATIONS,
    *_LOSS_TERMS,
))
"""Every signal that the built-in probes measure."""
