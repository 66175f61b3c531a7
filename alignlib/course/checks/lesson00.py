"""Checks of lesson 00: the net win, an interval for a rate, and copying accuracy."""

from __future__ import annotations

import math
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


def _wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    p = hits / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def _normal(hits: int, n: int) -> tuple[float, float]:
    p = hits / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def _undivided(hits: int, n: int) -> tuple[float, float]:
    low, high = _wilson(hits, n)
    return low * (1 + 1.96**2 / n), high * (1 + 1.96**2 / n)


wilson = Check(
    "wilson",
    _wilson,
    [(5, 10), (0, 20), (395, 400)],
    {
        "this is the normal interval, which has no width at 0 of 20: use Wilson's": _normal,
        "this is one standard error on each side: for 95 % use z = 1.96": (
            lambda hits, n: _wilson(hits, n, z=1)
        ),
        "the division is missing: divide the centre and the half-width by 1 + z²/n": _undivided,
        "these are percentages: return fractions between 0 and 1": lambda hits, n: tuple(
            100 * x for x in _wilson(hits, n)
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
