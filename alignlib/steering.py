"""Steering an Aligner along a direction in its states: finding one, its range, and what it does
beside directions of chance (lesson 04).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from .aligner import Aligner
from .data import QAC
from .interpret import contrast_states, contrasts, layer_of, states
from .judges import Judge
from .probes import direction
from .report import edit_ratios
from .stats import Estimate, bootstrap_mean
from .tokens import encode

ALPHAS = (0.1, 0.2, 0.4)  # shares of a state's length that a push may have


@contextmanager
def steered(model: PreTrainedModel, layer: int, push: torch.Tensor) -> Iterator[None]:
    """Within, `push` (width,) is added to what the layer hands on at the last position: in
    generation, at every word that is said.
    """

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, -1] += push.to(output)
        return output

    handle = layer_of(model, layer).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def edit_directions(aligner: Aligner, rows: Sequence[QAC], held: Sequence[QAC]) -> torch.Tensor:
    """For each layer's output the direction from about to copy to about to mend, as long as its
    states are on average, (layers, width).

    Of the fair contrast on `rows`; the sign is fixed on the rows `held` out.
    """
    sets = (contrast_states(aligner, contrasts(aligner, given), "said") for given in (rows, held))
    (faulty, sound), (held_faulty, held_sound) = (
        [torch.from_numpy(side[:, 1:]) for side in two] for two in sets
    )
    found = []
    for layer in range(faulty.shape[1]):
        line = direction((faulty - sound)[:, layer])
        sign = torch.sign(((held_faulty - held_sound)[:, layer] @ line).mean())
        found.append(sign * line * faulty[:, layer].norm(dim=-1).mean())
    return torch.stack(found)


def corrected_when_steered(
    aligner: Aligner, rows: Sequence[QAC], layer: int, push: torch.Tensor
) -> tuple[list[str], np.ndarray]:
    """What the Aligner makes of the answers while the layer is pushed, and the edit ratio of
    each, (n,).
    """
    with steered(aligner.model, layer, push):
        said = aligner.correct([r.question for r in rows], [r.answer for r in rows])
    return said, edit_ratios([r.answer for r in rows], said)


def steering_slope(
    aligner: Aligner, rows: Sequence[QAC], layer: int, line: torch.Tensor, alpha: float
) -> Estimate:
    """Edit ratio for each unit of alpha, between minus alpha and alpha; bootstrap over rows."""
    return _slope(
        [corrected_when_steered(aligner, rows, layer, end * line)[1] for end in (-alpha, alpha)],
        alpha,
    )


def _slope(ratios: Sequence[np.ndarray], alpha: float) -> Estimate:
    return bootstrap_mean((ratios[1] - ratios[0]) / (2 * alpha), "edit ratio per alpha")


def steering_range(
    aligner: Aligner, rows: Sequence[QAC], lines: torch.Tensor, judge: Judge
) -> tuple[int, float]:
    """Layer and alpha, chosen on these rows. A layer's range goes as far as corrections at both
    ends are no worse than the answers were (the least alpha, if they always are or no judge can
    tell); of the layers the one with the largest slope.
    """
    least, found = _mark(judge, rows, [r.answer for r in rows]), []
    for layer, line in enumerate(lines):
        for alpha in reversed(ALPHAS):
            said, ratios = zip(
                *[
                    corrected_when_steered(aligner, rows, layer, end * line)
                    for end in (-alpha, alpha)
                ]
            )
            if min(_mark(judge, rows, texts) for texts in said) >= least:
                break
        found.append((_slope(ratios, alpha).value, layer, alpha))
    return max(found)[1:]


def _mark(judge: Judge, rows: Sequence[QAC], said: Sequence[str]) -> float:
    return float(
        judge.scores([r.question for r in rows], said).get("overall", np.array([np.nan])).mean()
    )


def unrelated_differences(
    aligner: Aligner, rows: Sequence[QAC], layer: int, n: int, seed: int
) -> list[torch.Tensor]:
    """n differences between states of two rows that have nothing to do with each other, at the
    end of their prompts: directions along which states do differ, for other reasons.
    """
    ids = [encode(aligner.tokenizer, aligner.prompt(r.question, r.answer)) for r in rows[: 2 * n]]
    ends = states(aligner.model, aligner.tokenizer, ids, [-1] * len(ids))[:, layer + 1]
    order = torch.randperm(len(ends), generator=torch.Generator().manual_seed(seed))
    return [ends[i] - ends[j] for i, j in order[: len(order) // 2 * 2].reshape(-1, 2).tolist()]
