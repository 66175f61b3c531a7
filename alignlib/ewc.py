"""Elastic weight consolidation: a penalty that pulls weights back to an anchor, the important ones
harder (arXiv 1612.00796, eq. 3).

    L(theta)  =  L_task(theta)  +  strength / 2  *  sum_i  I_i (theta_i - theta*_i)^2

theta* is the anchor: the weights at the start of a stage. The importance I is here either the
empirical Fisher information, one number per weight, or the mean squared change of a tensor in an
earlier stage, one number per tensor (after HBAT's released code, arXiv 2406.15178). `scale_free`
divides either by its mean; even then a strength that suits one need not suit the other, because
they are spread so differently. Lesson 06 builds this by hand.

With LoRA, theta is the change s B A that the two factors make of a matrix, not the factors: the
same change has many pairs of factors. The change itself is never built: the sums need only
products of rank r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from .likelihood import row_nll

# by the name of a weight: a tensor of its shape, or a scalar for all of its entries
Importance = dict[str, Tensor]
RELEASED = 1e20  # HBAT's released code multiplies each change by 1e10, then squares it


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by the name that they have in the model without wrappers."""
    return {_plain(name): p for name, p in model.named_parameters() if p.requires_grad}


def _plain(name: str) -> str:
    """A parameter's or module's name without what DDP and torch.compile put into it."""
    return name.removeprefix("module.").replace("_orig_mod.", "")


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that are trained, by name."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


@contextmanager
def exchanged(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, the trained parameters have these values (`copy_weights`), such as a reference's."""
    own = {name: p.data for name, p in trainable(model).items()}
    try:
        for name, parameter in trainable(model).items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in trainable(model).items():
            parameter.data = own[name]


@dataclass(frozen=True)
class Tensors:
    """A parameter that is trained itself; `name` is its own."""

    name: str
    parameter: nn.Parameter

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape)

    def squared(self, anchor: Mapping[str, Tensor], importance: Tensor | float) -> Tensor:
        """Importance times the squared distance from the anchor, summed; a scalar."""
        return (importance * (self.parameter - anchor[self.name]) ** 2).sum()

    def pull(self, anchor: Mapping[str, Tensor], importance: Tensor, factor: float) -> Tensor:
        """Add `factor` / 2 times the gradient of `squared` to the parameter's. Return `squared`."""
        distance = self.parameter - anchor[self.name]
        _gradient(self.parameter).addcmul_(distance, importance, value=factor)
        if importance.dim():
            return (importance * distance.square_()).sum()
        # one number for all entries: row by row, as a sum of so many in fp32 loses digits
        return importance * torch.linalg.vector_norm(distance, dim=-1).square().sum()

    def freeze(self) -> None:
        self.parameter.requires_grad_(False)


@dataclass(frozen=True)
class Product:
    """The change s B A of a matrix by LoRA; `name` is the path of its layer."""

    name: str
    names: tuple[str, str]  # of the factors B (rows, rank) and A (rank, columns)
    b: nn.Parameter
    a: nn.Parameter
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.b.shape[0], self.a.shape[1])

    def _parts(self, anchor: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """u (rows, 2 rank) and v (2 rank, columns) with u v = B A - B* A*.

        B A - B* A* = (B - B*) A + B* (A - A*): small differences of large products cancel nothing.
        """
        b, a = (anchor[name] for name in self.names)
        return torch.cat([self.b - b, b], 1), torch.cat([self.a, self.a - a], 0)

    def squared(self, anchor: Mapping[str, Tensor], importance: Tensor | float) -> Tensor:
        """Importance times the squared distance from the anchor, summed; a scalar."""
        return importance * self.scale**2 * _squared_product(*self._parts(anchor))

    def pull(self, anchor: Mapping[str, Tensor], importance: Tensor, factor: float) -> Tensor:
        """Add `factor` / 2 times the gradient of `squared` to both factors'. Return `squared`."""
        (u, v), square = self._parts(anchor), self.scale**2
        _gradient(self.b).addcmul_(u @ (v @ self.a.T), importance, value=factor * square)
        _gradient(self.a).addcmul_((self.b.T @ u) @ v, importance, value=factor * square)
        return importance * square * _squared_product(u, v)

    def freeze(self) -> None:
        self.b.requires_grad_(False)
        self.a.requires_grad_(False)


def _squared_product(u: Tensor, v: Tensor) -> Tensor:
    """The squared entries of u v, summed; the product is not built."""
    return ((u.T @ u) * (v @ v.T)).sum()


def _gradient(parameter: nn.Parameter) -> Tensor:
    """The parameter's gradient, to be added to; 0 if it has none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


Weight = Tensors | Product


def trained_weights(model: nn.Module) -> dict[str, Weight]:
    """What is trained, by name: LoRA's factors as the change that they make, others as they are."""
    parameters, found = trainable(model), {}
    scales = _lora_scales(model)
    for name, parameter in parameters.items():
        layer, factor, adapter = name.partition(".lora_B.")
        if factor:
            names = name, f"{layer}.lora_A.{adapter}"
            scale = scales[layer][adapter.removesuffix(".weight")]
            found[layer] = Product(layer, names, parameter, parameters[names[1]], scale)
        elif ".lora_A." not in name:
            found[name] = Tensors(name, parameter)
    return found


def _lora_scales(model: nn.Module) -> dict[str, dict[str, float]]:
    """By the path of a LoRA layer, then by adapter: the factor s of B A."""
    modules = model.named_modules()
    return {_plain(name): m.scaling for name, m in modules if hasattr(m, "lora_A")}


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
        self.weights = trained_weights(model)
        _check_shapes("importance", importance, self.weights, scalars=True)
        _check_shapes("anchor", self.anchor, trainable(model))

    def __call__(self, model: nn.Module | None = None) -> Tensor:
        """The penalty of the model that it was made for, a scalar through which gradients flow."""
        terms = [w.squared(self.anchor, self.importance[n]) for n, w in self.weights.items()]
        return self.strength / 2 * torch.stack(terms).sum()

    @torch.no_grad()
    def add_gradient(self, scale: float = 1.0) -> Tensor:
        """Add `scale` times the gradient to that of each weight, in closed form; the penalty.

        Nothing is kept for a backward pass: the gradient is strength * I_i (theta_i - theta*_i).
        """
        factor, anchor = scale * self.strength, self.anchor
        terms = [w.pull(anchor, self.importance[n], factor) for n, w in self.weights.items()]
        return self.strength / 2 * torch.stack(terms).sum()


def _check_shapes(
    what: str,
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, nn.Parameter | Weight],
    scalars: bool = False,
) -> None:
    """Every trained weight needs a tensor of its shape, or a scalar where those are allowed."""
    for name in weights.keys() | tensors.keys():
        has = tuple(tensors[name].shape) if name in tensors else "nothing"
        needs = tuple(weights[name].shape) if name in weights else "nothing"
        is_scalar = scalars and has == () and name in weights
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


@torch.no_grad()
def movement(model: nn.Module, before: Mapping[str, Tensor]) -> Importance:
    """Mean squared change of each weight since `before` (`copy_weights`): HBAT's importance."""
    weights = trained_weights(model)
    return {n: w.squared(before, 1.0).float() / math.prod(w.shape) for n, w in weights.items()}


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
    """The importance divided by its mean over all entries (unchanged if that is 0)."""
    sizes = {name: math.prod(w.shape) for name, w in trained_weights(model).items()}
    total = 0.0
    for name, value in importance.items():
        total += float(value.sum()) if value.dim() else float(value) * sizes[name]
    mean = total / sum(sizes[name] for name in importance)
    return {name: i / mean for name, i in importance.items()} if mean > 0 else dict(importance)


def freeze_most_important(model: nn.Module, importance: Importance, fraction: float) -> None:
    """Stop training this fraction of the weights, the most important ones (at least one)."""
    weights = trained_weights(model)
    most_important = sorted(importance, key=lambda name: -float(importance[name]))
    for name in most_important[: max(1, round(fraction * len(importance)))]:
        weights[name].freeze()


def save_importance(file: Path, by_kind: Mapping[str, Importance]) -> None:
    """Write several importances, each under the name of its kind, to a safetensors file."""
    named = [(kind, name, i[name]) for kind, i in by_kind.items() for name in i]
    save_file({f"{kind}/{name}": value.contiguous() for kind, name, value in named}, file)


def load_importance(file: Path, kind: str, device: torch.device) -> Importance:
    """Read the importance of one kind from a file that `save_importance` wrote."""
    with safe_open(file, "pt", device=str(device)) as tensors:
        names = [key for key in tensors.keys() if key.startswith(f"{kind}/")]
        return {name.removeprefix(f"{kind}/"): tensors.get_tensor(name) for name in names}
