"""The hooks around whole forward passes, and what becomes of hooks where torch.compile is at work.

A graph is guarded on the hooks that were there when it was traced. So all hooks of ours leave right before the compiler
looks at a first piece of code, those inside of the models for good or until a step that runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn
from torch.utils.hooks import RemovableHandle

from nndoctor.budget import Budget
from nndoctor.discovery import ModelIndex, unwrap
from nndoctor.interpose import CompilerWatch, run_eagerly, wrappers_being_called
from nndoctor.probe_board import ProbeBoard
from nndoctor.probes.base import Hook, hooks_beside_compiled_code
from nndoctor.probes.functional import compiled_frames, compiled_graphs


class ModelPasses:
    """Has forward passes of whole models told, and keeps every hook of the doctor's out of compiled code.

    Args:
        index: the models.
        board: the probes that have hooks inside of them.
        budget: which steps are measured whole.
        eager_every: every so many-th step of compiled models runs eagerly; None: none does.
        begins, ended: the hooks of a whole model's forward pass, before with keyword arguments.
        following: the number of the step under way or about to begin.

    Attributes:
        compiled: torch.compile has been at work since the doctor came.
        eager_steps: steps that ran eagerly although the models are compiled.
        timed: a pass was timed since then.
    """

    def __init__(
        self,
        index: ModelIndex,
        board: ProbeBoard,
        budget: Budget,
        eager_every: int | None,
        begins: Callable[..., None],
        ended: Callable[..., None],
        following: Callable[[], int],
    ) -> None:
        self.compiled = False
        self.eager_steps = 0
        self.timed = False
        self._index = index
        self._board = board
        self._budget = budget
        self._eager_every = eager_every
        self._begins = begins
        self._ended = ended
        self._following = following
        self._frames_before, self._graphs_before = compiled_frames(), compiled_graphs()
        self._compiler: CompilerWatch | None = None
        self._compile_again: Callable[[], None] | None = None
        self._handles: list[RemovableHandle] = []
        self._wrappers: dict[int, nn.Module] = {}

    def attach(self, compiler_begins: Callable[[], None]) -> None:
        """Have `compiler_begins` called, which calls ours, right before torch.compile looks at a piece of code."""
        self._compiler = CompilerWatch(compiler_begins)

    def detach(self) -> None:
        """Leave the models and the compiler as they were found."""
        self.end_eager_step()
        if self._compiler is not None:
            self._compiler.stop()
        self._take_off()

    # ------------------------------------------------------------------ passes

    @property
    def watched(self) -> bool:
        """Whether forward passes are told at the moment."""
        return bool(self._handles)

    def watch(self, wanted: bool) -> None:
        """Have the passes told, or no longer."""
        if wanted == bool(self._handles):
            return
        if wanted:
            kind = Hook
            if self.compiled and not self._called_as_wrappers:
                if self._compiler is None or not self._compiler.watches:
                    return  # they could be compiled in
                kind = hooks_beside_compiled_code()
            for root in self._called_roots():
                self._handles.append(root.register_forward_pre_hook(kind(self._begins), with_kwargs=True))
                self._handles.append(root.register_forward_hook(kind(self._ended), always_call=True))
            return
        self._take_off()

    def _take_off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def _called_as_wrappers(self) -> bool:
        """Whether a hook on the models is outside of what is compiled for certain: on the wrapper that torch.compile returns it is."""
        return all(hasattr(root, "_orig_mod") for root in self._called_roots())

    def _called_roots(self) -> Iterator[nn.Module]:
        """The models, those that were compiled after they were given to us by the wrapper that is called in their place."""
        return (self._wrappers.get(id(root), root) for root in self._index.roots.values())

    # ------------------------------------------------------------------ compiled code

    def begin_step(self) -> None:
        """A step begins: find out whether anything was compiled, and whether it runs eagerly."""
        self.end_eager_step()
        if not self.compiled and self._compiled_something:
            self.leave_compiled_code_alone()
        if self.compiled and self._budget.is_whole(self._following()):
            self._begin_eager_step()

    def compiler_begins(self) -> None:
        """torch.compile is about to look at a piece of code: it must not find hooks of ours that go away later."""
        if not self._called_as_wrappers:
            self._take_off()
            for wrapper in wrappers_being_called():
                self._wrappers[id(unwrap(wrapper))] = wrapper

    def leave_compiled_code_alone(self) -> None:
        """torch.compile has compiled something since we attached: take our hooks out of it for good.

        Hooks that come and go would make it compile anew each time. What remains measured is what lies
        outside: parameters, gradients, optimizer, loss, the times of whole passes.
        """
        self.compiled = True
        self._budget.whole_every = self._eager_every
        if self._eager_every is None:
            self._board.leave_layers()
        else:
            self._board.rest_layers(self._following())

    def _begin_eager_step(self) -> None:
        """Let the models run uncompiled for a step, as was asked for, and look inside."""
        self._compile_again = run_eagerly()
        if self._compile_again is not None:
            self.eager_steps += 1
            self._board.visit_layers()

    def end_eager_step(self) -> None:
        """The step that ran eagerly, if any, is over."""
        if self._compile_again is not None:
            self._board.rest_layers(self._following())
            self._compile_again()
            self._compile_again = None

    @property
    def _compiled_something(self) -> bool:
        return compiled_frames() > self._frames_before

    # ------------------------------------------------------------------ what is told

    @property
    def graphs(self) -> float | None:
        """Graphs compiled since the doctor came; None where nothing was."""
        return float(compiled_graphs() - self._graphs_before) if self.compiled or self._compiled_something else None

    def hidden(self, activations_inside: bool) -> Iterator[str]:
        """What was not measured because the models are compiled, and how it could be.

        Args:
            activations_inside: they are measured in compiled code, too.
        """
        if not self.compiled:
            return
        if self.eager_steps:
            yield (
                f"torch.compile is in use: times of layers and what hooks measure are those of {self.eager_steps} steps that ran "
                "uncompiled (eager_every)"
            )
        elif activations_inside:
            yield "torch.compile is in use: times of layers are not measured; nndoctor.wrap(..., eager_every=500) measures them"
        else:
            yield (
                "torch.compile is in use: activations and times of layers are not measured; nndoctor.wrap(..., "
                "compiled_activations=True) before the first call measures activations, eager_every=500 both, on steps that run uncompiled"
            )
        if not self.timed:
            yield (
                "no forward pass was seen from outside: its time is not measured; torch.compile(model) instead of a "
                "compiled function that calls the model shows it"
            )
