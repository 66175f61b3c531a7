"""Steering an Aligner along a direction in its states: finding it, its range, and a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from alignlib.aligner import Aligner
from alignlib.data import QAC
from alignlib.interpret import contrast_states, contrasts, layer_of, states
from alignlib.judges import Judge
from alignlib.probes import direction
from alignlib.report import edit_ratios
from alignlib.stats import Estimate, bootstrap_mean

ALPHAS = (0.1, 0.2, 0.4)  # length of a push, as a fraction of a state's length


@contextmanager
def steered(model: PreTrainedModel, layer: int, push: torch.Tensor) -> Iterator[None]:
    """Within, `push` (width,) is added to the layer's output at the last position.

    In generation that is at every new token. Raises ValueError for an unknown layer.
    """

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, -1] += push.to(output)
        return output

    with layer_of(model, layer).register_forward_hook(add):
        yield


def edit_directions(
    aligner: Aligner, rows: Sequence[QAC], validation: Sequence[QAC]
) -> torch.Tensor:
    """For each layer the direction from about to copy to about to edit, (layers, width).

    Its line is found on `rows`, its sign on `validation`; it is as long as a state on average.
    """
    faulty, sound = _layer_outputs(aligner, rows)
    other_faulty, other_sound = _layer_outputs(aligner, validation)
    directions = []
    for layer in range(faulty.shape[1]):
        line = direction((faulty - sound)[:, layer])
        along = (other_faulty - other_sound)[:, layer] @ line  # (n,)
        length = faulty[:, layer].norm(dim=-1).mean()
        directions.append(torch.sign(along.mean()) * line * length)
    return torch.stack(directions)


def _layer_outputs(aligner: Aligner, rows: Sequence[QAC]) -> tuple[torch.Tensor, torch.Tensor]:
    """States where the right word is due, with a faulty and a sound answer: (n, layers, width)."""
    faulty, sound = contrast_states(aligner, contrasts(aligner, rows), "said")
    return torch.from_numpy(faulty[:, 1:]), torch.from_numpy(sound[:, 1:])


def corrected_when_steered(
    aligner: Aligner, rows: Sequence[QAC], layer: int, push: torch.Tensor
) -> tuple[list[str], np.ndarray]:
    """The corrections generated while the layer is steered, and the edit ratio of each, (n,)."""
    answers = [row.answer for row in rows]
    with steered(aligner.model, layer, push):
        corrections = aligner.correct([row.question for row in rows], answers)
    return corrections, edit_ratios(answers, corrections)


def steering_slope(
    aligner: Aligner, rows: Sequence[QAC], layer: int, line: torch.Tensor, alpha: float
) -> Estimate:
    """Edit ratio per unit of alpha, between minus alpha and alpha; bootstrap over rows."""
    _, low = corrected_when_steered(aligner, rows, layer, -alpha * line)
    _, high = corrected_when_steered(aligner, rows, layer, alpha * line)
    return _slope(low, high, alpha)


def _slope(low: np.ndarray, high: np.ndarray, alpha: float) -> Estimate:
    return bootstrap_mean((high - low) / (2 * alpha), "edit ratio per alpha")


def steering_range(
    aligner: Aligner, rows: Sequence[QAC], lines: torch.Tensor, judge: Judge
) -> tuple[int, float]:
    """The layer with the largest slope, and its alpha: the largest that does no harm on these rows.

    That is: corrections at both ends score no lower than the answers. Without such an alpha, or
    without a judge, it is the smallest of ALPHAS.
    """
    least = _mean_score(judge, rows, [row.answer for row in rows])
    found = []
    for layer, line in enumerate(lines):
        for alpha in reversed(ALPHAS):
            low_texts, low = corrected_when_steered(aligner, rows, layer, -alpha * line)
            high_texts, high = corrected_when_steered(aligner, rows, layer, alpha * line)
            if min(_mean_score(judge, rows, texts) for texts in (low_texts, high_texts)) >= least:
                break
        found.append((_slope(low, high, alpha).value, layer, alpha))
    _, layer, alpha = max(found)
    return layer, alpha


def _mean_score(judge: Judge, rows: Sequence[QAC], texts: Sequence[str]) -> float:
    """The mean overall score, or nan without a judge: nan is never at least anything."""
    scores = judge.scores([row.question for row in rows], texts)
    return float(scores["overall"].mean()) if "overall" in scores else float("nan")


def unrelated_differences(
    aligner: Aligner, rows: Sequence[QAC], layer: int, n: int, seed: int
) -> list[torch.Tensor]:
    """The control: n differences (width,) of states at the end of two unrelated rows' prompts.

    Along these states do differ, but for other reasons.
    """
    ids = [aligner.prompt_ids(row.question, row.answer) for row in rows[: 2 * n]]
    ends = states(aligner.model, aligner.tokenizer, ids, [-1] * len(ids))[:, layer + 1]
    order = torch.randperm(len(ends), generator=torch.Generator().manual_seed(seed))
    drawn = order[: len(order) // 2 * 2].reshape(-1, 2).tolist()
    return [ends[i] - ends[j] for i, j in drawn]
