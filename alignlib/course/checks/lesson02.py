"""Checks of lesson 02: labels with the loss mask, the masked loss, and the break-even point."""

from __future__ import annotations

from collections.abc import Sequence

from . import Check

IGNORED = -100


def _labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    return [IGNORED] * len(prompt) + correction + [eos]


labels = Check(
    "labels",
    _labels,
    [([5, 6, 7], [8, 9], 2), ([5], [4, 4, 4], 2)],
    {
        "the prompt has loss too, so the Aligner would mostly learn to write questions and faults: "
        "label it -100": lambda p, c, e: [*p, *c, e],
        "the EOS token is missing, so the Aligner would never learn to stop: append it": (
            lambda p, c, e: [IGNORED] * len(p) + c
        ),
        "the EOS token has no loss, so the Aligner would never learn to stop: label it with its "
        "id": lambda p, c, e: [IGNORED] * len(p) + c + [IGNORED],
        "off by one: the correction's first token has no loss; mask the prompt only": (
            lambda p, c, e: [IGNORED] * (len(p) + 1) + c[1:] + [e]
        ),
        "off by one: the prompt's last token has loss; mask the whole prompt": lambda p, c, e: (
            [IGNORED] * (len(p) - 1) + p[-1:] + c + [e]
        ),
        "the masked part is missing, so labels and tokens do not line up: keep one label of -100 "
        "for each token of the prompt": lambda p, c, e: [*c, e],
    },
)


def _masked_loss(logprobs: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    losses = [-logprobs[i - 1][t] for i, t in enumerate(targets) if i and t != IGNORED]
    return sum(losses) / len(losses)


def _not_shifted(logprobs: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    losses = [-logprobs[i][t] for i, t in enumerate(targets) if t != IGNORED]
    return sum(losses) / len(losses)


def _summed_loss(logprobs: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    return _masked_loss(logprobs, targets) * sum(t != IGNORED for t in targets)


_LOGPROBS = [
    [-0.1, -2.5, -4.0],
    [-3.0, -0.2, -2.0],
    [-1.5, -1.0, -0.9],
    [-0.3, -1.8, -2.4],
    [-2.0, -0.4, -1.7],
]

masked_loss = Check(
    "masked_loss",
    _masked_loss,
    [(_LOGPROBS, [IGNORED, IGNORED, 1, 2, 0]), (_LOGPROBS[:3], [IGNORED, 2, 0])],
    {
        "not shifted: the log-probabilities at position i are for the token at i + 1": _not_shifted,
        "you divided by all positions, so a long prompt makes the loss look small: divide by the "
        "number of tokens with loss": lambda p, t: _summed_loss(p, t) / len(t),
        "this is the sum: divide by the number of tokens with loss": _summed_loss,
        "wrong sign: a loss is the *negative* log-probability": lambda p, t: -_masked_loss(p, t),
    },
)


def _break_even(fixed: float, spoilt: float) -> float:
    return fixed / (fixed + spoilt)


break_even = Check(
    "break_even",
    _break_even,
    [(0.6, 0.2), (0.5, 0.1), (0.3, 0.3), (0.9, 0.05)],
    {
        "this is the fraction of *faulty* answers: return that of the good ones": (
            lambda fixed, spoilt: spoilt / (fixed + spoilt)
        ),
        "this is a ratio, not a fraction: solve (1 - p) * fixed = p * spoilt for p": (
            lambda fixed, spoilt: fixed / spoilt
        ),
        "this is by how much more it fixes than it spoils if half of the answers are good: solve "
        "(1 - p) * fixed = p * spoilt for p": lambda fixed, spoilt: (fixed - spoilt) / 2,
    },
)
