"""Checks of lesson 06: the angle between two gradients, a Fisher diagonal, the elastic penalty,
and PPO's clipped loss.
"""

from __future__ import annotations

import numpy as np

from . import Check


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


cosine = Check(
    "cosine",
    _cosine,
    [
        (np.array(a), np.array(b))
        for a, b in (
            ([1.0, 0.0], [1.0, 1.0]),
            ([2.0, -1.0, 0.5], [-4.0, 2.0, -1.0]),
            ([3.0, 0.0], [0.0, 5.0]),
            ([0.1, 0.2, -0.3], [10.0, -5.0, 2.0]),
        )
    ],
    {
        "that is the product; a cosine is it over both lengths, so that the size of a "
        "gradient does not matter": lambda a, b: float(np.dot(a, b)),
        "only one of the two lengths is divided by": lambda a, b: float(
            np.dot(a, b) / np.linalg.norm(a)
        ),
        "that is the angle itself; the cosine is asked for": lambda a, b: float(
            np.arccos(np.clip(_cosine(a, b), -1, 1))
        ),
        "the sign is lost, and with it whether the two help or hinder each other": lambda a, b: abs(
            _cosine(a, b)
        ),
    },
)

_GRADIENTS = np.array([[1.0, -2.0, 0.5], [-1.0, 2.0, 0.5], [3.0, 0.0, -1.0]])


def _fisher(gradients: np.ndarray) -> np.ndarray:
    return (np.asarray(gradients) ** 2).mean(0)


fisher = Check(
    "fisher",
    _fisher,
    [(_GRADIENTS,), (_GRADIENTS[:2],), (2 * _GRADIENTS,)],
    {
        "averaged first and squared then: rows that pull to opposite sides cancel out, as if "
        "the weight did not matter": lambda g: np.asarray(g).mean(0) ** 2,
        "the root is not asked for: information is quadratic": lambda g: np.sqrt(
            (np.asarray(g) ** 2).mean(0)
        ),
        "that is the variance: the mean gradient is not to be taken off first": lambda g: (
            np.asarray(g).var(0)
        ),
        "one number for each weight is asked for: here weights and rows are averaged "
        "together": lambda g: (np.asarray(g) ** 2).mean(),
        "the squares are summed; it is their mean over the rows": lambda g: (
            np.asarray(g) ** 2
        ).sum(0),
        "the gradients are averaged, not their squares": lambda g: np.asarray(g).mean(0),
        "a gradient's size, not its square: information is quadratic": lambda g: np.abs(g).mean(0),
        "one number for each weight is asked for: the mean is over the rows, the first "
        "axis": lambda g: (np.asarray(g) ** 2).mean(1),
    },
)


def _penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    return float(
        strength / 2 * np.sum(np.asarray(importance) * (np.asarray(weights) - anchor) ** 2)
    )


penalty = Check(
    "penalty",
    _penalty,
    [
        (np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 3.5]), np.array([9.0, 1.0, 4.0]), 2.0),
        (np.array([0.5, -0.5]), np.array([0.5, -0.5]), np.array([3.0, 3.0]), 10.0),
        (np.array([1.0, 1.0]), np.array([0.0, 3.0]), np.array([2.0, 0.5]), 0.3),
    ],
    {
        "twice as much: there is a half in front": lambda w, a, i, s: 2 * _penalty(w, a, i, s),
        "the importance is inside the square: it is to count once": lambda w, a, i, s: _penalty(
            w, a, np.asarray(i) ** 2, s
        ),
        "the weights are held to 0, not to where the stage found them": lambda w, a, i, s: _penalty(
            w, np.zeros_like(w), i, s
        ),
        "all weights are held alike: where is the importance?": lambda w, a, i, s: _penalty(
            w, a, np.ones_like(w), s
        ),
        "where is the strength?": lambda w, a, i, s: _penalty(w, a, i, 1.0),
        "it is to cost something to move away: the sign is the other way "
        "round": lambda w, a, i, s: -_penalty(w, a, i, s),
        "one number is asked for, the sum over all weights": lambda w, a, i, s: (
            s / 2 * np.asarray(i) * (np.asarray(w) - a) ** 2
        ),
        "the mean over the weights; it is the sum": lambda w, a, i, s: (
            _penalty(w, a, i, s) / len(w)
        ),
    },
)


def _clipped(ratio: float, advantage: float, clip: float) -> float:
    return -min(ratio * advantage, float(np.clip(ratio, 1 - clip, 1 + clip)) * advantage)


clipped = Check(
    "clipped",
    _clipped,
    [
        (ratio, advantage, clip)
        for ratio in (0.5, 0.9, 1.1, 1.5)
        for advantage in (1.0, -1.0, 2.0)
        for clip in (0.2, 0.3)
    ],
    {
        "this is to be made small, and the advantage large: the sign is the other way "
        "round": lambda r, a, c: -_clipped(r, a, c),
        "always clipped: a step that has gone too far the wrong way could not be taken "
        "back": lambda r, a, c: -float(np.clip(r, 1 - c, 1 + c)) * a,
        "clipped at 0.2 whatever it is told to": lambda r, a, c: _clipped(r, a, 0.2),
        "the smaller of two ratios; it is the smaller of two products that is asked for, "
        "which for a bad word is another": lambda r, a, c: (
            -min(r, float(np.clip(r, 1 - c, 1 + c))) * a
        ),
        "the product is clipped; it is the ratio that is": lambda r, a, c: (
            -min(r * a, float(np.clip(r * a, 1 - c, 1 + c)))
        ),
        "never clipped": lambda r, a, c: -r * a,
        "the more hopeful of the two; it is to be the more cautious": lambda r, a, c: (
            -max(r * a, float(np.clip(r, 1 - c, 1 + c)) * a)
        ),
    },
)
