"""Checks of lesson 05: a soft prompt, its labels, LoRA's parameters, and mixing two controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import Check


def _soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    repeated = np.broadcast_to(control, (len(words), *np.shape(control)))
    return np.concatenate([repeated, words], axis=1)  # (batch, control + time, width)


def _appended(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.concatenate([words, _soft_prompt(control, words)[:, : len(control)]], axis=1)


def _added(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    words = np.array(words, dtype=float)
    n = min(len(control), words.shape[1])
    words[:, :n] += control[:n]
    return words


def _first_row_only(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    result = _soft_prompt(control, words)
    result[1:, : len(control)] = 0
    return result


soft_prompt = Check(
    "soft_prompt",
    _soft_prompt,
    [
        (np.array([[9.0, 9.0]]), np.array([[[1.0, 2.0], [3.0, 4.0]]])),
        (np.array([[9.0, 8.0], [7.0, 6.0]]), np.arange(12.0).reshape(2, 3, 2)),
    ],
    {
        "the control comes after the text, which attends only to what is before it: put it in "
        "front": _appended,
        "you added the control to the first words: put it in front, as more positions": _added,
        "only the first row has the control: repeat it for every row of the batch": _first_row_only,
    },
)


def _labels_with_control(n: int, labels: Sequence[int]) -> list[int]:
    return [-100] * n + list(labels)


labels_with_control = Check(
    "labels_with_control",
    _labels_with_control,
    [(2, [-100, -100, 7, 8, 2]), (1, [-100, 5, 2]), (3, [4, 2])],
    {
        "there are fewer labels than inputs: add one for each token of the control": (
            lambda n, labels: list(labels)
        ),
        "the control's labels are at the end, so each word gets another's label: put them in "
        "front": lambda n, labels: [*labels, *[-100] * n],
        "label 0 is a word like any other: a token without loss has label -100": (
            lambda n, labels: [0] * n + list(labels)
        ),
        "the first words of the text have lost their labels: add labels, do not replace any": (
            lambda n, labels: [-100] * n + list(labels)[n:]
        ),
    },
)


def _lora_share(rank: int, shapes: Sequence[tuple[int, int]], total: int) -> float:
    return sum(rank * (rows + columns) for rows, columns in shapes) / total


lora_share = Check(
    "lora_share",
    _lora_share,
    [(1, [(4, 4)], 16), (2, [(8, 4), (4, 8)], 1000), (3, [(5, 7)], 350)],
    {
        "you counted rows times columns: LoRA trains two thin matrices, one with rows x rank and "
        "one with rank x columns": lambda r, shapes, total: (
            sum(r * a * b for a, b in shapes) / total
        ),
        "you counted only one of the two thin matrices: add rows x rank": lambda r, shapes, total: (
            sum(r * b for _, b in shapes) / total
        ),
        "this is the number of parameters: divide it by the total": lambda r, shapes, total: (
            _lora_share(r, shapes, total) * total
        ),
        "the rank is missing: multiply by it": (
            lambda r, shapes, total: _lora_share(1, shapes, total)
        ),
    },
)


def _between(good: np.ndarray, bad: np.ndarray, w: float) -> np.ndarray:
    return w * np.asarray(good) + (1 - w) * np.asarray(bad)


between = Check(
    "between",
    _between,
    [(np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]]), w) for w in (0.0, 0.25, 1.0, 1.5)],
    {
        "the weights are swapped: w = 1 gives the good control, w = 0 the bad one": (
            lambda g, b, w: _between(b, g, w)
        ),
        "the bad control always has full strength: multiply it by 1 - w": lambda g, b, w: (
            w * np.asarray(g) + np.asarray(b)
        ),
        "you limited w to [0, 1]: leave it as it is, because values such as 1.5 are allowed": (
            lambda g, b, w: _between(g, b, min(1.0, max(0.0, w)))
        ),
    },
)
