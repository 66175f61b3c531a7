"""Checks of lesson 06: a cosine, the Fisher diagonal, the elastic penalty, PPO's clipped loss."""

from __future__ import annotations

import numpy as np

from . import Check


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


cosine = Check(
    "cosine",
    _cosine,
    [
        (np.array([1.0, 0.0]), np.array([1.0, 1.0])),
        (np.array([2.0, -1.0, 0.5]), np.array([-4.0, 2.0, -1.0])),
        (np.array([3.0, 0.0]), np.array([0.0, 5.0])),
        (np.array([0.1, 0.2, -0.3]), np.array([10.0, -5.0, 2.0])),
    ],
    {
        "this is the dot product: divide it by both norms": lambda a, b: float(np.dot(a, b)),
        "you divided by one norm only: divide by both": lambda a, b: float(
            np.dot(a, b) / np.linalg.norm(a)
        ),
        "this is the angle: return its cosine": lambda a, b: float(
            np.arccos(np.clip(_cosine(a, b), -1, 1))
        ),
        "the sign is lost: keep it, because it says whether the two gradients agree": (
            lambda a, b: abs(_cosine(a, b))
        ),
    },
)


def _squares(gradients: np.ndarray) -> np.ndarray:
    return np.asarray(gradients) ** 2


def _fisher(gradients: np.ndarray) -> np.ndarray:
    return _squares(gradients).mean(0)


_GRADIENTS = np.array([[1.0, -2.0, 0.5], [-1.0, 2.0, 0.5], [3.0, 0.0, -1.0]])  # (rows, weights)
fisher = Check(
    "fisher",
    _fisher,
    [(_GRADIENTS,), (_GRADIENTS[:2],), (2 * _GRADIENTS,)],
    {
        "you averaged before squaring, so opposite gradients cancel: square first": lambda g: (
            np.asarray(g).mean(0) ** 2
        ),
        "you took a square root: leave it out and return the mean of the squares": lambda g: (
            np.sqrt(_fisher(g))
        ),
        "this is the variance: do not subtract the mean gradient": lambda g: np.asarray(g).var(0),
        "you averaged over rows and weights: average over the rows only, for one number per "
        "weight": lambda g: _squares(g).mean(),
        "you summed the squares: take their mean over the rows": lambda g: _squares(g).sum(0),
        "you averaged the gradients: average their squares": lambda g: np.asarray(g).mean(0),
        "you averaged absolute values: average the squares": lambda g: np.abs(g).mean(0),
        "you averaged over weights: average over the rows, axis 0": lambda g: _squares(g).mean(1),
    },
)


def _terms(weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray) -> np.ndarray:
    return np.asarray(importance) * (np.asarray(weights) - anchor) ** 2


def _penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    return float(strength / 2 * _terms(weights, anchor, importance).sum())


penalty = Check(
    "penalty",
    _penalty,
    [
        (np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 3.5]), np.array([9.0, 1.0, 4.0]), 2.0),
        (np.array([0.5, -0.5]), np.array([0.5, -0.5]), np.array([3.0, 3.0]), 10.0),
        (np.array([1.0, 1.0]), np.array([0.0, 3.0]), np.array([2.0, 0.5]), 0.3),
    ],
    {
        "twice as large as it should be: the factor is one half": lambda w, a, i, s: (
            2 * _penalty(w, a, i, s)
        ),
        "the importance is squared too: put it outside the square": (
            lambda w, a, i, s: _penalty(w, a, np.square(i), s)
        ),
        "the penalty pulls to 0: subtract the weights at the start of the stage": (
            lambda w, a, i, s: _penalty(w, np.zeros_like(w), i, s)
        ),
        "all weights count alike: multiply each square by its importance": lambda w, a, i, s: (
            _penalty(w, a, np.ones_like(w), s)
        ),
        "the strength is missing: multiply by it": lambda w, a, i, s: _penalty(w, a, i, 1.0),
        "wrong sign: moving away must increase the penalty": lambda w, a, i, s: (
            -_penalty(w, a, i, s)
        ),
        "this is one number per weight: sum over the weights": lambda w, a, i, s: (
            s / 2 * _terms(w, a, i)
        ),
        "this is the mean over the weights: take the sum": lambda w, a, i, s: (
            _penalty(w, a, i, s) / len(w)
        ),
    },
)


def _clip(ratio: float, clip: float) -> float:
    return float(np.clip(ratio, 1 - clip, 1 + clip))


def _clipped(ratio: float, advantage: float, clip: float) -> float:
    return -min(ratio * advantage, _clip(ratio, clip) * advantage)


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
        "wrong sign: a loss is minimized, and the advantage is to be maximized": lambda r, a, c: (
            -_clipped(r, a, c)
        ),
        "you always clipped, so a step too far in the wrong direction cannot be undone: take the "
        "smaller of the clipped and the unclipped product": lambda r, a, c: -_clip(r, c) * a,
        "you always clipped at 0.2: use `clip`": lambda r, a, c: _clipped(r, a, 0.2),
        "you took the smaller ratio: take the smaller product, which differs if the advantage is "
        "negative": lambda r, a, c: -min(r, _clip(r, c)) * a,
        "you clipped the product: clip the ratio": lambda r, a, c: -min(r * a, _clip(r * a, c)),
        "you never clipped: clip the ratio to [1 - clip, 1 + clip]": lambda r, a, c: -r * a,
        "you took the larger product: take the smaller one, which is more cautious": (
            lambda r, a, c: -max(r * a, _clip(r, c) * a)
        ),
    },
)
