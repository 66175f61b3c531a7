"""Elastic weight consolidation: a penalty that pulls weights back to an anchor, the important ones
harder (arXiv 1612.00796, eq. 3).

    L(theta)  =  L_task(theta)  +  strength / 2  *  sum_i  I_i (theta_i - theta*_i)^2

theta* is the anchor: the weights at the start of a stage. The importance I is here either the
empirical Fisher information, one number per weight, or the mean squared change of a tensor in an
earlier stage, one number per tensor (after HBAT's released code, arXiv 2406.15178). `scale_free`
divides either by its mean; even then a strength that suits one need not suit the other, because
they are spread so differently. Lesson 06 builds this by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from .likelihood import row_nll

# by the name of a parameter: a tensor of its shape, or a scalar for all of its weights
Importance = dict[str, Tensor]
RELEASED = 1e20  # HBAT's released code multiplies each change by 1e10, then squares it


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that are trained, by name."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


class Elastic:
    """The penalty of eq. 3, for the `penalty` argument of the trainers.

    The anchor is the model as it is now, or the `anchor` given. At the anchor the penalty and its
    gradient are 0. Raises ValueError if importance or anchor belong to another model.
    """

    def __init__(
        self,
        model: nn.Module,
        importance: Importance,
        strength: float,
        anchor: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.importance, self.strength = importance, strength
        self.anchor = copy_weights(model) if anchor is None else dict(anchor)
        _check_shapes("importance", importance, model, scalars=True)
        _check_shapes("anchor", self.anchor, model)

    def __call__(self, model: nn.Module) -> Tensor:
        terms = [
            (self.importance[name] * (p - self.anchor[name]) ** 2).sum()
            for name, p in trainable(model).items()
        ]
        return self.strength / 2 * torch.stack(terms).sum()


def _check_shapes(
    what: str, tensors: Mapping[str, Tensor], model: nn.Module, scalars: bool = False
) -> None:
    """Every trained parameter needs a tensor of its shape, or a scalar where those are allowed."""
    parameters = trainable(model)
    for name in parameters.keys() | tensors.keys():
        has = tuple(tensors[name].shape) if name in tensors else "nothing"
        needs = tuple(parameters[name].shape) if name in parameters else "nothing"
        is_scalar = scalars and has == () and name in parameters
        if has != needs and not is_scalar:
            raise ValueError(
                f"the {what} is of another model: it has {has} for {name}, the model {needs}; "
                "make it from the model to be trained"
            )


def empirical_fisher(model: PreTrainedModel, rows: Sequence[dict[str, list[int]]]) -> Importance:
    """Mean over rows (from `tokens.example`) of the squared gradient of log p(completion | prompt).

    The log-probability is that of the whole completion, in fp32. Rows are taken one at a time: the
    square of a batch's mean gradient is smaller, for independent rows by about the batch size. A
    parameter that a row does not use has gradient 0. Raises ValueError without rows, or without a
    parameter that is trained.
    """
    parameters = trainable(model)
    if not rows or not parameters:
        what = "rows" if not rows else "parameters that are trained (requires_grad)"
        raise ValueError(f"no {what} to measure importance on")
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    model.eval()
    for row in rows:
        loss = row_nll(model, [row], pad=0).sum()  # a single row needs no padding
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(total, gradients):
            if gradient is not None:
                total[name] += gradient.float() ** 2 / len(rows)
    return total


def movement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Importance:
    """Mean squared change of each tensor between two copies of the weights: HBAT's importance."""
    return {name: ((after[name] - before[name]).float() ** 2).mean() for name in before}


def saturated(importance: Importance) -> Importance:
    """A softmax over RELEASED times the `movement`, as in HBAT's released code.

    Numbers this large give all weight to one tensor (lesson 06).
    """
    scaled = torch.stack(list(importance.values())).double() * RELEASED
    return dict(zip(importance, torch.softmax(scaled, 0).float()))


def sum_importance(a: Importance, b: Importance) -> Importance:
    """The sum of two importances, by name; a missing name counts as 0."""
    return {name: sum(i[name] for i in (a, b) if name in i) for name in {**a, **b}}


def scale_free(importance: Importance, model: nn.Module) -> Importance:
    """The importance divided by its mean over all weights (unchanged if that is 0)."""
    sizes = {name: p.numel() for name, p in trainable(model).items()}
    total = 0.0
    for name, value in importance.items():
        total += float(value.sum()) if value.dim() else float(value) * sizes[name]
    mean = total / sum(sizes[name] for name in importance)
    return {name: i / mean for name, i in importance.items()} if mean > 0 else dict(importance)


def freeze_most_important(model: nn.Module, importance: Importance, fraction: float) -> None:
    """Stop training this fraction of the tensors, the most important ones (at least one)."""
    parameters = trainable(model)
    most_important = sorted(importance, key=lambda name: -float(importance[name]))
    for name in most_important[: max(1, round(fraction * len(importance)))]:
        parameters[name].requires_grad_(False)


def save_importance(file: Path, by_kind: Mapping[str, Importance]) -> None:
    """Write several importances, each under the name of its kind, to a safetensors file."""
    named = [(kind, name, i[name]) for kind, i in by_kind.items() for name in i]
    save_file({f"{kind}/{name}": value.contiguous() for kind, name, value in named}, file)


def load_importance(file: Path, kind: str, device: torch.device) -> Importance:
    """Read the importance of one kind from a file that `save_importance` wrote."""
    with safe_open(file, "pt", device=str(device)) as tensors:
        names = [key for key in tensors.keys() if key.startswith(f"{kind}/")]
        return {name.removeprefix(f"{kind}/"): tensors.get_tensor(name) for name in names}
