"""Checks of lesson 04: a fair contrast, the area under the curve, the logit lens, and patching."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from . import Check

Ids = list[int]


def _first_difference(answer: Ids, correction: Ids) -> int:
    return next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)


def _contrast(
    question: Ids, answer: Ids, correction: Ids, end: Ids, more: int = 0
) -> tuple[Ids, Ids]:
    k = _first_difference(answer, correction) + more
    return question + answer + end + correction[:k], question + correction + end + correction[:k]


contrast_by_hand = Check(
    "contrast_by_hand",
    _contrast,
    [
        ([1, 2], [5, 6, 7, 8], [5, 6, 9, 8], [3]),
        ([1], [5, 6], [7, 6], [3, 4]),
        ([1, 1], [4, 4, 5], [4, 6, 5], [2]),
    ],
    {
        "both inputs have the same answer and differ in what is written after it: let them differ "
        "in the answer only": lambda q, a, c, e: (
            _contrast(q, a, c, e, more=1)[0],
            q + a + e + a[: _first_difference(a, c) + 1],
        ),
        "the token that differs is already written: stop before it, where the model decides": (
            lambda q, a, c, e: _contrast(q, a, c, e, more=1)
        ),
        "nothing is written yet: add the correction up to the first difference, where the model "
        "decides": lambda q, a, c, e: (q + a + e, q + c + e),
        "the two are swapped: the input with the faulty answer comes first": lambda q, a, c, e: (
            _contrast(q, a, c, e)[::-1]
        ),
        "the end of the prompt is missing: put `end` after the answer": lambda q, a, c, e: (
            _contrast(q, a, c, [])
        ),
    },
)


def _auc(wrong: list[float], right: list[float], tie: float = 0.5) -> float:
    wins = sum((w > r) + tie * (w == r) for w in wrong for r in right)
    return wins / (len(wrong) * len(right))


def _same_position(wrong: list[float], right: list[float]) -> float:
    wins = sum((w > r) + 0.5 * (w == r) for w, r in zip(wrong, right))
    return wins / min(len(wrong), len(right))


auc = Check(
    "auc",
    _auc,
    [([3.0, 1.0, 2.0], [0.0, 1.0]), ([0.0, 0.0], [1.0, 0.0, -1.0]), ([1.0, 2.0, 4.0], [1.0])],
    {
        "upside down: count the pairs in which the wrong word has the higher score": (
            lambda w, r: _auc(r, w)
        ),
        "a tie counts 0 here: count it as one half": lambda w, r: _auc(w, r, tie=0),
        "a tie counts 1 here: count it as one half": lambda w, r: _auc(w, r, tie=1),
        "you compared words in the same position only: compare every wrong word with every right "
        "one": _same_position,
        "this is the number of pairs: divide by the number of all pairs": lambda w, r: (
            _auc(w, r) * len(w) * len(r)
        ),
    },
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _logits(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.asarray(stream) @ np.asarray(words).T


def _overflowing(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        exponentials = np.exp(_logits(stream, words))
        return exponentials / exponentials.sum(-1, keepdims=True)


def _log_softmax(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    logits = _logits(stream, words)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


_WORDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
lens = Check(
    "lens",
    lambda stream, words: _softmax(_logits(stream, words)),
    [
        (np.array([[0.0, 0.0], [2.0, 1.0]]), _WORDS),
        (np.array([[0.5, -1.0], [1.0, 3.0], [800.0, 0.0]]), _WORDS),
    ],
    {
        "these are logits: apply a softmax to get probabilities": _logits,
        "the softmax is over the layers: take it over the words, the last axis": lambda s, w: (
            _softmax(_logits(s, w).T).T
        ),
        "np.exp(800) overflows: subtract each row's largest logit before np.exp": _overflowing,
        "these are log-probabilities: np.exp is missing at the end": _log_softmax,
    },
)


def _patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[:, place] = state
    return output


def _in_place(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output[:, place] = state
    return output


def _wrong_dimension(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[..., place] = state[place]
    return output


def _with_input(patched: Callable) -> Callable:
    """The result, and what has become of the output that was passed in."""

    def both(output: torch.Tensor, place: int, state: torch.Tensor) -> object:
        result = patched(output, place, state)
        return [result.tolist(), output.tolist()] if isinstance(result, torch.Tensor) else result

    return both


_OUTPUT = torch.arange(12.0).reshape(1, 4, 3)  # (batch, time, width)
patched = Check(
    "patched",
    _patched,
    [
        (_OUTPUT, -1, torch.tensor([-1.0, -2.0, -3.0])),
        (_OUTPUT + 1, 2, torch.tensor([5.0, 6.0, 5.0])),
        (_OUTPUT, 0, torch.tensor([0.5, 0.5, 0.5])),
    ],
    {
        "you changed the output that was passed in: clone it first": _in_place,
        "you replaced all positions: replace the one at `place`": (
            lambda o, p, s: s.expand_as(o).clone()
        ),
        "you always replaced the last position: replace the one at `place`": lambda o, p, s: (
            _patched(o, -1, s)
        ),
        "you added the state to the other run's: replace it, do not add": (
            lambda o, p, s: _patched(o, p, o[:, p] + s)
        ),
        "you replaced one number in every state: positions are the second dimension": (
            _wrong_dimension
        ),
    },
    through=_with_input,
)
