"""Checks of lesson 05: a soft prompt by hand, the labels behind it, what LoRA weighs, and the
dial between two controls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import Check


def _soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    every = np.broadcast_to(control, (len(words), *np.shape(control)))
    return np.concatenate([every, words], axis=1)


def _behind(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.concatenate([words, _soft_prompt(control, words)[:, : len(control)]], axis=1)


def _added(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    words = np.array(words, dtype=float)
    n = min(len(control), words.shape[1])
    words[:, :n] += control[:n]
    return words


def _only_the_first(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    made = _soft_prompt(control, words)
    made[1:, : len(control)] = 0
    return made


soft_prompt = Check(
    "soft_prompt",
    _soft_prompt,
    [
        (np.array([[9.0, 9.0]]), np.array([[[1.0, 2.0], [3.0, 4.0]]])),
        (np.array([[9.0, 8.0], [7.0, 6.0]]), np.arange(12.0).reshape(2, 3, 2)),
    ],
    {
        "the control stands behind the text: words read only what stands before them": _behind,
        "the control is added to the first words: it is to stand before them, as more "
        "words": _added,
        "only the first row gets the control: every row of the batch needs it": _only_the_first,
    },
)


def _labels_behind(n: int, labels: Sequence[int]) -> list[int]:
    return [-100] * n + list(labels)


labels_behind = Check(
    "labels_behind",
    _labels_behind,
    [(2, [-100, -100, 7, 8, 2]), (1, [-100, 5, 2]), (3, [4, 2])],
    {
        "there are fewer labels than inputs: the control's tokens need one "
        "each": lambda n, labels: list(labels),
        "the control's labels stand behind the others: every word is held against another's "
        "label": lambda n, labels: [*labels, *[-100] * n],
        "label 0 is a word like any other: a token without loss has the label "
        "-100": lambda n, labels: [0] * n + list(labels),
        "the text's first words lose their loss: the control adds places, it takes "
        "none": lambda n, labels: [-100] * n + list(labels)[n:],
    },
)


def _lora_share(rank: int, shapes: Sequence[tuple[int, int]], total: int) -> float:
    return sum(rank * (rows + columns) for rows, columns in shapes) / total


def _whole(rank: int, shapes: Sequence[tuple[int, int]], total: int) -> float:
    return sum(rank * rows * columns for rows, columns in shapes) / total


lora_share = Check(
    "lora_share",
    _lora_share,
    [(1, [(4, 4)], 16), (2, [(8, 4), (4, 8)], 1000), (3, [(5, 7)], 350)],
    {
        "that is the whole matrix: LoRA trains two thin ones, of rank columns and of rank "
        "rows": _whole,
        "only one of the two thin matrices is counted": lambda r, shapes, total: (
            sum(r * b for _, b in shapes) / total
        ),
        "that is the number; the share is asked for": lambda r, shapes, total: sum(
            r * (a + b) for a, b in shapes
        ),
        "the rank is missing: each thin matrix has that many columns or "
        "rows": lambda r, shapes, total: sum(a + b for a, b in shapes) / total,
    },
)


def _between(good: np.ndarray, bad: np.ndarray, w: float) -> np.ndarray:
    return w * np.asarray(good) + (1 - w) * np.asarray(bad)


between = Check(
    "between",
    _between,
    [(np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]]), w) for w in (0.0, 0.25, 1.0, 1.5)],
    {
        "at w = 1 it should be the good one, at 0 the bad one: the weights are "
        "exchanged": lambda g, b, w: _between(b, g, w),
        "the bad control is there at full strength however far the dial is "
        "turned": lambda g, b, w: w * np.asarray(g) + np.asarray(b),
        "the dial goes beyond its ends too, at w = 1.5 for one: nothing is to be cut "
        "off": lambda g, b, w: _between(g, b, min(1.0, max(0.0, w))),
    },
)
