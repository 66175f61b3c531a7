"""Checks of lesson 07: the reward model's loss, best of n, and the Brier score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import Check


def _preference_loss(chosen: np.ndarray, rejected: np.ndarray) -> float:
    difference = np.asarray(chosen, float) - np.asarray(rejected, float)
    return float(np.mean(np.log1p(np.exp(-difference))))


preference_loss = Check(
    "preference_loss",
    _preference_loss,
    [
        (np.array([1.0, 2.0]), np.array([0.0, 3.0])),
        (np.array([0.0]), np.array([0.0])),
        (np.array([-1.0, 0.5, 4.0]), np.array([1.0, 0.5, 1.0])),
    ],
    {
        "it rewards the rejected answer: take chosen minus rejected": (
            lambda chosen, rejected: _preference_loss(rejected, chosen)
        ),
        "that is a log-probability: the loss is its negative": (
            lambda chosen, rejected: -_preference_loss(chosen, rejected)
        ),
        "the loss is a mean over the pairs, not a sum": (
            lambda chosen, rejected: len(chosen) * _preference_loss(chosen, rejected)
        ),
    },
)


def _best_of_n(answers: Sequence[str], rewards: Sequence[float], n: int) -> str:
    return answers[int(np.argmax(rewards[:n]))]


best_of_n = Check(
    "best_of_n",
    _best_of_n,
    [
        (["a", "b", "c", "d"], [0.1, 0.7, 0.2, 0.9], 3),
        (["a", "b", "c", "d"], [0.1, 0.7, 0.2, 0.9], 4),
        (["x", "y"], [2.0, 1.0], 1),
    ],
    {
        "you pick from all answers: look at the first n only": (
            lambda answers, rewards, n: _best_of_n(answers, rewards, len(answers))
        ),
        "that is the answer with the lowest reward": (
            lambda answers, rewards, n: answers[int(np.argmin(rewards[:n]))]
        ),
        "return the answer, not its reward": lambda answers, rewards, n: max(rewards[:n]),
    },
)


def _brier(guesses: Sequence[float], outcomes: Sequence[float]) -> float:
    return float(np.mean((np.asarray(guesses, float) - np.asarray(outcomes, float)) ** 2))


brier = Check(
    "brier",
    _brier,
    [([0.9, 0.2], [1, 0]), ([0.5, 0.5, 0.5], [1, 0, 1]), ([1.0], [0])],
    {
        "square the difference before you take the mean": (
            lambda guesses, outcomes: float(np.mean(np.subtract(guesses, outcomes)))
        ),
        "that is the mean absolute difference: square it instead": (
            lambda guesses, outcomes: float(np.mean(np.abs(np.subtract(guesses, outcomes))))
        ),
        "do not take the square root": lambda g, o: math.sqrt(_brier(g, o)),
        "it is a mean over the guesses, not a sum": lambda g, o: len(g) * _brier(g, o),
    },
)
