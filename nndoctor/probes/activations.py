"""Measures what layers put out: size, spread, non-finite values, dead and saturated units, calls and modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import DROPOUTS, ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, follow_fused_paths, in_backward, is_transformed, places
from nndoctor.probes.functional import (
    Activation,
    FunctionalActivations,
    activation_of,
    compiler_has_run,
    softmax_dimension,
)
from nndoctor.probes.samples import Samples, scattered
from nndoctor.probes.stats import (
    first_floating,
    full_sum,
    plain_tensor,
    saturated_rows,
    saturated_units,
    unit_dimension,
    unit_maximum,
)
from nndoctor.probes.units import UnitWindows

MEASURED_CALLS = 4  # of one layer in one step: with more, the cost would depend on the length of a loop
UNIT_ELEMENTS = 1 << 16  # of a ReLU's output that its units' maxima are taken from in one call
SOFTMAX_ELEMENTS = 1 << 18
QUIET_STEPS = 2  # sampled steps without a functional activation before the search for them becomes rare
QUIET_EVERY = 16
NAN = float("nan")
GOLDEN = 0.6180339887498949  # successive multiples are spread evenly over [0, 1)

CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
CHANNELS_LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
PASSING_ON: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.Identity,
    nn.Flatten,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    *DROPOUTS,
)


@dataclass(frozen=True, slots=True)
class Nature:
    """What a layer's class says about its output."""

    activation: Activation | None = None
    softmax_dim: object = None
    channels_first: bool | None = None
    """True for a convolution or batch normalisation, False for a linear layer, None for what leaves it as it was."""
    batch_norm: bool = False
    mode_matters: bool = False
    passes_on: bool = False
    """It hands on what it got and cannot make anything non-finite itself, so the layer before it gives the alarm."""


def nature_of(module: nn.Module) -> Nature:
    return Nature(
        activation=activation_of(module),
        softmax_dim=1 if isinstance(module, nn.Softmax2d) else getattr(module, "dim", None),
        channels_first=True if isinstance(module, CHANNELS_FIRST) else False if isinstance(module, CHANNELS_LAST) else None,
        batch_norm=isinstance(module, nn.modules.batchnorm._BatchNorm),
        mode_matters=_mode_matters(module),
        passes_on=isinstance(module, PASSING_ON),
    )


def _mode_matters(module: nn.Module) -> bool:
    """Whether train() and eval() make a difference: dropouts that drop, normalisations with running statistics."""
    if isinstance(module, DROPOUTS):
        return bool(getattr(module, "p", 0) > 0)
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None


class ActivationProbe:
    """Statistics of every layer's output on sampled steps, functional activations included.

    Counts what belongs to training: passes with gradients, and what runs without them inside such a pass.
    A sampled step costs one small copy and one sum per layer; nothing is registered on other steps.
    """

    name = "activations"
    tier = "activations"
    hooks_layers = True
    signals = (
        "act.mean",
        "act.std",
        "act.rms",
        "act.max",
        "act.nonfinite",
        "act.first_nonfinite",
        "act.dead_fraction",
        "act.dead_samples",
        "act.saturated_fraction",
        "act.batch_std",
        "layer.calls",
        "layer.eval_in_training",
        "layer.norm_batch",
    )

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._natures: dict[int, Nature] = {}
        self._mode = FunctionalActivations(self._function_called)
        self._hooks = self._fused_hooks = HookSet(self._mode.leave)
        self._samples = Samples()
        self._units = UnitWindows()
        self._trains: dict[int, bool] = {}
        self._trainable: tuple[bool, ...] = ()
        self._former_calls: dict[int, int] = {}
        self._sampled_steps = 0
        self._quiet_steps = 0
        self._functional_seen = False
        self._compiler_met = False
        self._root_seen = False
        self._phase = 0.0
        self._functions = False
        self._step = Step()

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._places, self._hidden = places(index)
        self._natures = {place.layer: nature_of(place.module) for place in self._places if place.layer is not None}

    def detach(self) -> None:
        self._end_step()
        self._samples, self._units = Samples(), UnitWindows()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._end_step()
        if not sampled or self._index is None:
            return
        self._sampled_steps += 1
        self._phase = step * GOLDEN % 1.0
        self._refresh_trainable(self._index)
        self._functions = self._look_for_functions()
        self._hooks, self._fused_hooks = HookSet(self._mode.leave), HookSet(self._mode.leave)
        self._install()

    def collect(self) -> Mapping[str, Measured]:
        """The step's statistics over all layers, NaN for layers that were not measured; {} without a training pass.

        Raises:
            Exception: what went wrong in one of the hooks.
        """
        failure = self._hooks.failure or self._fused_hooks.failure
        try:
            if failure is not None:
                raise failure
            return self._collected(self._index) if self._index is not None and self._step.calls else {}
        finally:
            self._end_step()

    def unseen(self) -> tuple[str, ...]:
        """What this probe cannot measure in these models, one sentence each."""
        notes = list(self._hidden)
        if self._compiler_met:
            notes.append("torch.compile is in use: activation functions called as functions are not looked for")
        if self._sampled_steps and self._index is not None:
            names, depths = self._index.layer_names, self._index.layer_depths
            layers = [place.layer for place in self._places if place.layer is not None]
            never = [names[number] for number in layers if depths[number] < 0]
            if never:
                shown = ", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
                notes.append(f"never called in a training forward pass: {shown}")
            if layers and len(never) < len(layers) and not self._root_seen:
                notes.append("no model was called as a whole: activations called as functions are not seen")
        return tuple(notes)

    # hooks of one sampled step

    def _look_for_functions(self) -> bool:
        """Whether this step looks for functional activations.

        Not the very first: what is compiled there must not be compiled with our mode active.
        """
        self._compiler_met = self._compiler_met or compiler_has_run()
        if self._compiler_met or self._sampled_steps == 1:
            return False
        return self._functional_seen or self._quiet_steps < QUIET_STEPS or self._sampled_steps % QUIET_EVERY == 0

    def _install(self) -> None:
        for place in self._places:
            if place.root:
                self._hooks.before(place, self._root_began)
            if place.fused_in is None:
                self._install_on(place, self._hooks)
            if place.root:
                self._hooks.after(place, self._root_ended, always=True)

    def _install_on(self, place: Place, hooks: HookSet) -> None:
        if self._functions:
            hooks.before(place, self._module_began)
            hooks.after(place, self._module_ended)
        elif place.layer is not None:
            hooks.after(place, self._layer_ended)

    def _end_step(self) -> None:
        if not self._hooks:
            return
        self._hooks.remove()
        self._fused_hooks.remove()
        self._mode.leave()
        self._samples.clear()
        self._units.forget_step()
        self._step = Step()

    def _in_training(self) -> bool:
        """Gradients are recorded, or were when the running pass of a whole model began; repetitions by checkpoints do not count."""
        return (torch.is_grad_enabled() or any(self._step.roots)) and not in_backward() and not is_transformed()

    def _root_began(self, place: Place, module: nn.Module, args: Any) -> None:
        training = self._in_training()
        self._step.roots.append(training)
        fusing = follow_fused_paths(self._places, self._fused_hooks, training, self._install_on)
        if training:
            self._root_seen = True
        if training and self._functions and not fusing:
            self._mode.enter()

    def _root_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        if self._step.roots:
            self._step.roots.pop()
        if not any(self._step.roots):
            self._mode.leave()

    def _module_began(self, place: Place, module: nn.Module, args: Any) -> None:
        if self._in_training():
            self._step.running.append(place)

    def _module_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        running = self._step.running
        if place not in running:
            return
        while running.pop() is not place:  # left there by a module that raised
            pass
        if place.layer is not None:
            self._layer_output(place.layer, module, output)

    def _layer_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        if place.layer is not None and self._in_training():
            self._layer_output(place.layer, module, output)

    def _function_called(self, activation: Activation, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._hooks.call(self._function_output, activation, result, args, kwargs)

    def _function_output(self, activation: Activation, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._index is None or not self._step.running or not self._in_training():
            return
        place = self._step.running[-1]
        if place.layer is not None and self._natures[place.layer].activation is not None:
            return  # nn.ReLU calls F.relu; it is measured as the module
        self._functional_seen = self._step.functional_seen = True
        number = self._index.functional_layer(place.name, activation.name)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None) if activation.softmax else None
        self._natures[number] = Nature(activation=activation, softmax_dim=dim)
        self._measure(number, result)

    # one output

    def _layer_output(self, number: int, module: nn.Module, output: object) -> None:
        nature = self._natures[number]
        if nature.channels_first is not None:
            self._step.channels_first = nature.channels_first
        if nature.mode_matters and torch.is_grad_enabled():
            in_evaluation = self._step.in_evaluation
            in_evaluation[number] = in_evaluation.get(number, True) and not module.training
        with torch._C.DisableTorchFunction():
            self._measure(number, output)
            if nature.batch_norm and (module.training or module.running_mean is None):
                self._step.norm_batch[number] = norm_batch(module, first_floating(output))

    def _measure(self, number: int, output: object) -> None:
        """Take what is needed from one output, in place and at once: the next layer may overwrite it."""
        assert self._index is not None
        calls = self._step.calls.get(number, 0)
        self._step.calls[number] = calls + 1
        if calls == 0:
            self._index.called(number)
        turn = self._turn(number, calls)
        found = first_floating(output) if turn is not None else None
        tensor = plain_tensor(found) if found is not None else None
        if turn is None or tensor is None or (tensor.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        unit_dim = unit_dimension(tensor.ndim, self._step.channels_first)
        sample = self._samples.take(number, turn, tensor, unit_dim, self._phase)
        if sample is not None:
            self._samples.watch(tensor.device, None if self._natures[number].passes_on else full_sum(tensor))
            self._measure_activation(number, tensor, sample, unit_dim)

    def _turn(self, number: int, calls: int) -> int | None:
        """Which of the measured calls this is, None if it is left out: they are spread over as many as there were last time."""
        every = -(-self._former_calls.get(number, 1) // MEASURED_CALLS)
        turn, rest = divmod(calls, every)
        return turn if turn < MEASURED_CALLS and rest == self._sampled_steps % every else None

    def _measure_activation(self, number: int, tensor: torch.Tensor, sample: torch.Tensor, unit_dim: int | None) -> None:
        """Find dead and saturated units."""
        nature = self._natures[number]
        activation = nature.activation
        if activation is None:
            return
        if activation.can_die and unit_dim is not None:
            part = self._part(tensor, UNIT_ELEMENTS)
            positions_are_samples = unit_dim == tensor.ndim - 1
            samples = part.numel() // part.shape[unit_dim] if positions_are_samples else part.shape[0]
            self._units.add(number, unit_maximum(part, unit_dim), samples)
        elif activation.limits is not None:
            self._step.saturated.setdefault(number, []).append(saturated_units(sample, activation.limits))
        elif activation.softmax and tensor.ndim >= 3:  # of two dimensions: a classifier's answer, which may be sure
            dim = softmax_dimension(tensor.ndim, nature.softmax_dim) % tensor.ndim
            if tensor.shape[dim] > 1:
                part = self._part(tensor, SOFTMAX_ELEMENTS) if dim != 0 else tensor
                self._step.saturated.setdefault(number, []).append(saturated_rows(part, dim))

    def _part(self, tensor: torch.Tensor, elements: int) -> torch.Tensor:
        """Equally spaced entries of the batch, other ones in every step, with about that many elements."""
        every = min(-(-tensor.numel() // elements), tensor.shape[0])
        return tensor if every == 1 else tensor[int(self._phase * every) :: every]

    # the end of a step

    def _collected(self, index: ModelIndex) -> dict[str, Measured]:
        step, size = self._step, len(index.layers)
        if self._functions:
            self._quiet_steps = 0 if step.functional_seen else self._quiet_steps + 1
        self._former_calls = dict(step.calls)
        in_evaluation = {number: float(flag and self._serves_training(number)) for number, flag in step.in_evaluation.items()}
        visible = dict.fromkeys((place.layer for place in self._places if place.layer is not None), 0.0)
        found: dict[str, Measured] = {"layer.calls": listed({**visible, **step.calls}, size)}
        if in_evaluation:
            found["layer.eval_in_training"] = listed(in_evaluation, size)
        if step.norm_batch:
            found["layer.norm_batch"] = listed(step.norm_batch, size)
        with torch.no_grad():
            found.update(self._samples.collect(size))
            found.update(self._units.collect(size))
            if step.saturated:
                found["act.saturated_fraction"] = scattered(step.saturated, size)
        return found

    def _refresh_trainable(self, index: ModelIndex) -> None:
        trainable = tuple(param.requires_grad for param in index.params)
        if trainable != self._trainable:
            self._trainable = trainable
            self._trains.clear()

    def _serves_training(self, number: int) -> bool:
        """Whether a dropout or normalisation works for parameters that train; a frozen one in eval mode is on purpose."""
        if number not in self._trains:
            assert self._index is not None
            module = self._index.layers[number]
            own = list(module.parameters(recurse=False)) if module is not None else []
            frozen = bool(own) and not any(param.requires_grad for param in own)
            parent = self._index.layer_names[number].rpartition(".")[0]
            self._trains[number] = not frozen and self._index.serves_trainable(parent)
        return self._trains[number]


@dataclass(slots=True)
class Step:
    """What one sampled step has brought so far, besides samples and unit maxima."""

    calls: dict[int, int] = field(default_factory=dict)
    norm_batch: dict[int, float] = field(default_factory=dict)
    in_evaluation: dict[int, bool] = field(default_factory=dict)
    saturated: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    running: list[Place] = field(default_factory=list)
    roots: list[bool] = field(default_factory=list)
    """For each running pass of a whole model: whether it trains."""
    channels_first: bool | None = None
    functional_seen: bool = False


def norm_batch(module: nn.Module, output: torch.Tensor | None) -> float:
    """Values per channel over which a batch normalisation takes its statistics, over all processes if it synchronises."""
    if output is None or output.ndim < 2 or output.shape[1] == 0:
        return NAN
    processes = 1
    if isinstance(module, nn.SyncBatchNorm) and torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size(module.process_group)
    return float(output.numel() // output.shape[1] * processes)


def listed(values: Mapping[int, float], size: int) -> list[float]:
    """Host values by layer as a list over all layers, NaN where there is none."""
    return [float(values.get(number, NAN)) for number in range(size)]
