"""Elastic weight consolidation: weights held to where they were, each as firmly as it matters
(arXiv 1612.00796, eq. 3).

    L(theta)  =  L_task(theta)  +  strength / 2  *  sum_i  I_i (theta_i - theta*_i)^2

theta* is the anchor: the weights as a stage finds them. The importance I comes in two kinds here:
the empirical Fisher information (a number for each weight), and how far each tensor moved in the
stage before (one for each tensor; after HBAT's released code, arXiv 2406.15178). `scale_free`
divides either by its mean; a strength that suits the one need not suit the other even then, since
they are spread so differently. Built by hand in lesson 06.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from .likelihood import row_nll

RELEASED = 1e20  # the square of the 1e10 by which HBAT's released code multiplies a change
Importance = dict[
    str, torch.Tensor
]  # by a parameter's name: a tensor of its shape, or of no dimension, one number for all of it


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights that learn."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


class Elastic:
    """The penalty, for `train`'s hook, anchored at the model as it is now: 0 there, and its
    gradient too.

    Raises ValueError if importance (or an `anchor` given) is of another model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        importance: Importance,
        strength: float,
        anchor: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.importance, self.strength = importance, strength
        self.anchor = copy_weights(model) if anchor is None else dict(anchor)
        learning = trainable(model)
        for what, given in (("importance", importance), ("anchor", self.anchor)):
            for name in learning.keys() | given.keys():
                shapes = [
                    tuple(of[name].shape) if name in of else "nothing" for of in (given, learning)
                ]
                if shapes[0] != shapes[1] and not (
                    what == "importance" and shapes[0] == () and name in learning
                ):
                    raise ValueError(
                        f"the {what} is of another model: it has {shapes[0]} for {name}, the "
                        f"model {shapes[1]}; "
                        "make it from the model that is to be held"
                    )

    def __call__(self, model: torch.nn.Module) -> torch.Tensor:
        terms = [
            (self.importance[name] * (p - self.anchor[name]) ** 2).sum()
            for name, p in trainable(model).items()
        ]
        return self.strength / 2 * torch.stack(terms).sum()


def empirical_fisher(model: PreTrainedModel, rows: Sequence[dict[str, list[int]]]) -> Importance:
    """Mean over rows (from `tokens.example`) of the squared gradient of log p(completion | prompt),
    sequence level, in fp32.

    One row at a time: the square of a batch's mean gradient is another thing. Of independent rows
    it is too small by about the batch's size.
    """
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in trainable(model).items()}
    model.eval()
    for row in rows:
        loss = row_nll(model, [row], pad=0).sum()  # nothing is padded
        for name, gradient in zip(
            total, torch.autograd.grad(loss, list(trainable(model).values()))
        ):
            total[name] += gradient.float() ** 2 / len(rows)
    return total


def movement(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> Importance:
    """Mean squared change of each tensor between two copies of the weights: HBAT's importance."""
    return {name: ((after[name] - before[name]).float() ** 2).mean() for name in before}


def saturated(movement: Importance) -> Importance:
    """As HBAT's released code has it: a softmax over RELEASED times the movement. It gives all
    weight to one tensor (lesson 06).
    """
    share = torch.softmax(torch.stack(list(movement.values())).double() * RELEASED, 0)
    return {name: weight.float() for name, weight in zip(movement, share)}


def sum_importance(a: Importance, b: Importance) -> Importance:
    """The sum, name by name; an empty one counts as zero."""
    return {name: sum(i[name] for i in (a, b) if name in i) for name in a.keys() | b.keys()}


def scale_free(importance: Importance, model: torch.nn.Module) -> Importance:
    """The importance over its mean, all weights alike."""
    total = sum(
        float(i.sum()) if i.dim() else float(i) * trainable(model)[name].numel()
        for name, i in importance.items()
    )
    mean = total / sum(trainable(model)[name].numel() for name in importance)
    return {name: i / mean for name, i in importance.items()} if mean > 0 else dict(importance)
