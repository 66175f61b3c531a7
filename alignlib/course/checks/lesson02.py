"""Checks of lesson 02: the loss mask, the loss behind it, and identity rows."""

from __future__ import annotations

from collections.abc import Sequence

from . import Check

IGNORED = -100
Row = tuple[str, str, str]


def _labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    return [IGNORED] * len(prompt) + correction + [eos]


labels = Check(
    "labels",
    _labels,
    [([5, 6, 7], [8, 9], 2), ([5], [4, 4, 4], 2)],
    {
        "the prompt carries loss too: the Aligner would spend most of it on learning to write "
        "questions and faults": lambda p, c, e: [*p, *c, e],
        "the end mark is missing: the Aligner would never learn to stop": lambda p, c, e: (
            [IGNORED] * len(p) + c
        ),
        "the end mark carries no loss: the Aligner would never learn to stop": lambda p, c, e: (
            [IGNORED] * len(p) + c + [IGNORED]
        ),
        "off by one: the correction's first word carries no loss": lambda p, c, e: (
            [IGNORED] * (len(p) + 1) + c[1:] + [e]
        ),
        "off by one: the prompt's last word carries loss": lambda p, c, e: (
            [IGNORED] * (len(p) - 1) + p[-1:] + c + [e]
        ),
        "the masked part is cut out: labels must stay as long as the text, or they stand "
        "beside other words": lambda p, c, e: [*c, e],
    },
)


def _masked_loss(logprobs: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    counted = [-logprobs[i - 1][t] for i, t in enumerate(targets) if i and t != IGNORED]
    return sum(counted) / len(counted)


def _not_shifted(logprobs: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    counted = [-logprobs[i][t] for i, t in enumerate(targets) if t != IGNORED]
    return sum(counted) / len(counted)


_SURE = [
    [-0.1, -2.5, -4.0],
    [-3.0, -0.2, -2.0],
    [-1.5, -1.0, -0.9],
    [-0.3, -1.8, -2.4],
    [-2.0, -0.4, -1.7],
]

masked_loss = Check(
    "masked_loss",
    _masked_loss,
    [(_SURE, [IGNORED, IGNORED, 1, 2, 0]), (_SURE[:3], [IGNORED, 2, 0])],
    {
        "not shifted: what the model says at position i is its guess for the word at i + "
        "1": _not_shifted,
        "you divided by all positions, the prompt's too: long prompts would make the loss "
        "look small": lambda p, t: _masked_loss(p, t) * sum(x != IGNORED for x in t) / len(t),
        "that is the sum: divide by the number of words that carry loss": lambda p, t: (
            _masked_loss(p, t) * sum(x != IGNORED for x in t)
        ),
        "the sign: a loss is the *negative* log-probability": lambda p, t: -_masked_loss(p, t),
    },
)


def _identity_rows(rows: list[Row]) -> list[Row]:
    return [(q, a, a) for q, a, _ in rows]


identity_rows = Check(
    "identity_rows",
    _identity_rows,
    [([("q 1", "bad", "good"), ("q 2", "fine", "fine")],), ([("q 3", "worse", "better")],)],
    {
        "you copied the correction: that is an answer nobody gave, and needs the annotator "
        "after all": lambda rows: [(q, c, c) for q, a, c in rows],
        "those are the corrections as they were: the third text must be the answer "
        "again": lambda rows: list(rows),
        "you kept only the answers that were good: identity rows cost nothing because nobody "
        "has to know which are": lambda rows: [(q, a, a) for q, a, c in rows if a == c],
        "the answer is missing: an identity row still has a question, an answer and the "
        "answer again": lambda rows: [(q, a) for q, a, _ in rows],
    },
)
