"""Checks of lesson 00: a net win, an interval for a rate, and what "copied" means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import Check


def _net_win(before: Sequence[float], after: Sequence[float]) -> float:
    return 100 * float(np.sign(np.subtract(after, before)).mean())


def _ties_left_out(before: Sequence[float], after: Sequence[float]) -> float:
    signs = np.sign(np.subtract(after, before))
    return 100 * float(signs.sum()) / max(1, np.count_nonzero(signs))


net_win = Check(
    "net_win",
    _net_win,
    [([0, 0, 1, 0.5], [1, 1, 0, 0.5]), ([0.2, 0.4], [0.3, 0.9]), ([1, 1, 1], [1, 0, 1])],
    {
        "you left the ties out of the denominator: a method that seldom changes anything "
        "would look decisive": _ties_left_out,
        "wins and losses are exchanged: `after` is the corrected answer, and higher is "
        "better": lambda b, a: _net_win(a, b),
        "that is a fraction: give points of 100": lambda b, a: _net_win(b, a) / 100,
        "you counted the wins alone: losses must be taken off": lambda b, a: (
            100 * float(np.mean(np.greater(a, b)))
        ),
        "you averaged the difference of the marks: a net win counts prompts, however large "
        "the difference": lambda b, a: 100 * float(np.mean(np.subtract(a, b))),
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
        "this is the normal interval: at 0 of 20 it has no width, as if one could be sure": _normal,
        "this is one standard error either way: 95 % takes z = 1.96": lambda hits, n: _wilson(
            hits, n, z=1
        ),
        "centre and width still have to be divided by 1 + z²/n": _undivided,
        "those are percentages: give shares between 0 and 1": lambda hits, n: tuple(
            100 * x for x in _wilson(hits, n)
        ),
    },
)


def _copied(said: Sequence[int], guesses: Sequence[int], start: int) -> float:
    return float(np.mean([guesses[i - 1] == said[i] for i in range(start, len(said))]))


copied = Check(
    "copied",
    _copied,
    [([1, 2, 3, 9, 1, 2, 3], [2, 3, 9, 1, 2, 3, 0], 4), ([5, 6, 9, 5, 6], [9, 0, 5, 5, 5], 3)],
    {
        "off by one: the guess at position i is for the word at i + 1": lambda s, g, k: float(
            np.mean([g[i] == s[i] for i in range(k, len(s))])
        ),
        "you counted the first half too, which nobody can foretell": lambda s, g, k: float(
            np.mean([g[i - 1] == s[i] for i in range(1, len(s))])
        ),
        "you counted the hits: give their share": lambda s, g, k: float(
            sum(g[i - 1] == s[i] for i in range(k, len(s)))
        ),
    },
)
