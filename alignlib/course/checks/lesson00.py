"""Checks of lesson 00: a mark by hand, the net win, and copying accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import Check


def _net_win(before: Sequence[float], after: Sequence[float]) -> float:
    return 100 * float(np.sign(np.subtract(after, before)).mean())


def _without_ties(before: Sequence[float], after: Sequence[float]) -> float:
    signs = np.sign(np.subtract(after, before))
    return 100 * float(signs.sum()) / max(1, np.count_nonzero(signs))


net_win = Check(
    "net_win",
    _net_win,
    [([0, 0, 1, 0.5], [1, 1, 0, 0.5]), ([0.2, 0.4], [0.3, 0.9]), ([1, 1, 1], [1, 0, 1])],
    {
        "the ties are missing from the denominator: divide by all prompts, or a method that "
        "rarely changes anything looks decisive": _without_ties,
        "wins and losses are swapped: a prompt is won if the score in `after` is higher": (
            lambda b, a: _net_win(a, b)
        ),
        "this is a fraction: multiply it by 100": lambda b, a: _net_win(b, a) / 100,
        "you counted only the wins: subtract the losses": lambda b, a: (
            100 * float(np.mean(np.greater(a, b)))
        ),
        "you averaged the differences of the scores: count prompts, however large the "
        "difference": lambda b, a: 100 * float(np.mean(np.subtract(a, b))),
    },
)


def _helpful(asked: int, answered: int, sentences: int, idle: int) -> float:
    return answered / asked * (sentences - idle) / sentences


helpful = Check(
    "helpful",
    _helpful,
    [(2, 1, 4, 1), (1, 1, 3, 0), (3, 2, 5, 2)],
    {
        "idle sentences do not count yet: multiply by the fraction of sentences with a purpose": (
            lambda asked, answered, sentences, idle: answered / asked
        ),
        "this is the fraction of idle sentences: take those with a purpose": (
            lambda asked, answered, sentences, idle: answered / asked * idle / sentences
        ),
        "you took the mean of the two fractions: multiply them": (
            lambda a, b, c, d: (b / a + (c - d) / c) / 2
        ),
    },
)


def _copied(tokens: Sequence[int], predictions: Sequence[int], start: int) -> float:
    positions = range(start, len(tokens))
    return float(np.mean([predictions[i - 1] == tokens[i] for i in positions]))


copied = Check(
    "copied",
    _copied,
    [([1, 2, 3, 9, 1, 2, 3], [2, 3, 9, 1, 2, 3, 0], 4), ([5, 6, 9, 5, 6], [9, 0, 5, 5, 5], 3)],
    {
        "off by one: the prediction at position i is for the token at i + 1": lambda t, p, k: float(
            np.mean([p[i] == t[i] for i in range(k, len(t))])
        ),
        "you counted the first list too, which cannot be predicted: begin at `start`": (
            lambda t, p, k: _copied(t, p, 1)
        ),
        "this is the number of correct predictions: return their fraction": lambda t, p, k: (
            _copied(t, p, k) * (len(t) - k)
        ),
    },
)
