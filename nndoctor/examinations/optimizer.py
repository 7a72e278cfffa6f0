"""Whether the optimizer holds the parameters of this very model, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from nndoctor.examinations.patient import NotExaminable, Outcome, Patient
from nndoctor.findings import Fix


def examine(patient: Patient, grads: Mapping[str, float | None] | None) -> Iterator[Outcome]:
    """A contract between two lists of tensors.

    Args:
        grads: gradient norms, None where the loss does not reach a parameter: a teacher that only follows needs no
            optimizer. None altogether where the model does not run.
    """
    if patient.optimizer is None:
        raise NotExaminable("no optimizer was handed over")
    held = {id(p): p for group in patient.optimizer.param_groups for p in group["params"]}
    own = dict(patient.model.named_parameters())
    if isinstance(patient.loss_function, nn.Module):
        own |= {f"loss.{name}": p for name, p in patient.loss_function.named_parameters()}
    missing = {name: p for name, p in own.items() if p.requires_grad and id(p) not in held}
    known = {id(p) for p in own.values()}
    strangers = [p for key, p in held.items() if key not in known]
    if stale(missing.values(), strangers):
        names = tuple(missing)
        yield Outcome(
            "failed",
            f"the optimizer holds {len(strangers)} tensors that are not the model's, with the shapes of {len(missing)} that it lacks: "
            "the model was rebuilt, copied or moved after the optimizer was made",
            "optimizer-holds-stale-parameters",
            {"strangers": float(len(strangers)), "missing": float(len(missing))},
            names,
            Fix("Make the optimizer after the model has its final parameters", confidence="high"),
        )
        return
    if grads is not None:
        missing = {name: p for name, p in missing.items() if grads.get(name) is not None}
    if missing:
        listed = _listed(tuple(missing))
        yield Outcome(
            "failed",
            f"{len(missing)} of {len(own)} parameters get gradients and are not in the optimizer: {listed}",
            "parameters-not-in-optimizer",
            {"missing": float(len(missing)), "parameters": float(len(own))},
            tuple(missing),
            Fix("Hand these parameters to the optimizer, or freeze them with requires_grad=False", confidence="high"),
        )
        return
    trained = sum(p.requires_grad and id(p) in held for p in own.values())
    more = f"; {len(strangers)} of its tensors belong to no module that was handed over" if strangers else ""
    yield Outcome("passed", f"holds {trained} trainable parameters, none is missing{more}", values={"parameters": float(trained)})


def stale(missing: object, strangers: list[Tensor]) -> bool:
    """Whether the tensors that the optimizer holds are earlier versions of those that it lacks: the shapes pair up."""
    lacking = Counter(tuple(p.shape) for p in missing)  # type: ignore[attr-defined]
    foreign = Counter(tuple(p.shape) for p in strangers)
    return bool(foreign) and all(lacking[shape] >= count for shape, count in foreign.items())


def _listed(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
