"""Checks of lesson 04: a fair contrast, the area under the curve, the logit lens, and patching."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from . import Check


def _parts(answer: list[int], correction: list[int]) -> int:
    return next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)


def _contrast(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    k = _parts(answer, correction)
    return question + answer + end + correction[:k], question + correction + end + correction[:k]


def _too_long(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    k = _parts(answer, correction) + 1
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
        "both runs read the same answer and say different words: that is the contrast whose "
        "states differ by what was said": lambda q, a, c, e: (
            q + a + e + c[: _parts(a, c) + 1],
            q + a + e + a[: _parts(a, c) + 1],
        ),
        "the differing word itself has been said: stop before it, that is where the decision "
        "falls": _too_long,
        "nothing has been said yet: the decision falls where the two part, not at the first "
        "word": lambda q, a, c, e: (q + a + e, q + c + e),
        "the two are exchanged: first the run that reads the faulty answer": lambda q, a, c, e: (
            _contrast(q, a, c, e)[::-1]
        ),
        "the mark that ends the prompt is missing": lambda q, a, c, e: _contrast(q, a, c, []),
    },
)


def _auc(wrong: list[float], right: list[float]) -> float:
    return sum((w > r) + 0.5 * (w == r) for w in wrong for r in right) / (len(wrong) * len(right))


auc = Check(
    "auc",
    _auc,
    [([3.0, 1.0, 2.0], [0.0, 1.0]), ([0.0, 0.0], [1.0, 0.0, -1.0]), ([1.0, 2.0, 4.0], [1.0])],
    {
        "upside down: count where the wrong word's score is the higher one": lambda w, r: _auc(
            r, w
        ),
        "a tie counts half": lambda w, r: sum(x > y for x in w for y in r) / (len(w) * len(r)),
        "a tie counts half, not whole": lambda w, r: (
            sum(x >= y for x in w for y in r) / (len(w) * len(r))
        ),
        "compare every wrong word with every right one, not only those in the same "
        "place": lambda w, r: (
            sum((x > y) + 0.5 * (x == y) for x, y in zip(w, r)) / min(len(w), len(r))
        ),
        "that is the number of pairs: divide by how many there are": lambda w, r: (
            _auc(w, r) * len(w) * len(r)
        ),
    },
)


def _softmax(scores: np.ndarray) -> np.ndarray:
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    return chances / chances.sum(-1, keepdims=True)


def _scores(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.asarray(stream) @ np.asarray(words).T


def _overflowing(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        large = np.exp(_scores(stream, words))
        return large / large.sum(-1, keepdims=True)


def _log_softmax(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    scores = _scores(stream, words)
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


_WORDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
lens = Check(
    "lens",
    lambda stream, words: _softmax(_scores(stream, words)),
    [
        (np.array([[0.0, 0.0], [2.0, 1.0]]), _WORDS),
        (np.array([[0.5, -1.0], [1.0, 3.0], [800.0, 0.0]]), _WORDS),
    ],
    {
        "those are scores: a softmax makes probabilities of them": _scores,
        "the softmax goes over the words, not over the layers": lambda s, w: (
            _softmax(_scores(s, w).T).T
        ),
        "e to the 800 is too large for a number: take the largest score off before "
        "np.exp": _overflowing,
        "that is the logarithm: np.exp is missing at the end": _log_softmax,
    },
)


def _patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[:, place] = state
    return output


def _in_place(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output[:, place] = state
    return output


def _added(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    return _patched(output, place, output[:, place] + state)


def _everywhere(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    return state.expand_as(output).clone()


def _in_width(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[..., place] = state[place]
    return output


def _and_what_was_given(patched: Callable) -> Callable:
    def both(output: torch.Tensor, place: int, state: torch.Tensor) -> object:
        made = patched(output, place, state)
        return [made.tolist(), output.tolist()] if isinstance(made, torch.Tensor) else made

    return both


_OUTPUT = torch.arange(12.0).reshape(1, 4, 3)
patched = Check(
    "patched",
    _patched,
    [
        (_OUTPUT, -1, torch.tensor([-1.0, -2.0, -3.0])),
        (_OUTPUT + 1, 2, torch.tensor([5.0, 6.0, 5.0])),
        (_OUTPUT, 0, torch.tensor([0.5, 0.5, 0.5])),
    ],
    {
        "the output that was given has been changed as well: clone it first": _in_place,
        "every position was replaced: only the one at `place` is to come from the other "
        "run": _everywhere,
        "that is always the last position: `place` says which": lambda o, p, s: _patched(o, -1, s),
        "added, not replaced: then both runs' states are in it": _added,
        "that is one number of every state: the places are the second dimension": _in_width,
    },
    through=_and_what_was_given,
)
