"""Texts of several styles, by the name of the control that learns each: the rows of MEET.

They come from preference pairs (the chosen texts are one style, the rejected ones the other), from
texts with thumbs or ratings, or from one file for each style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles

from .data import Loaded, read_instructions, read_pairs_or_marks
from .place import DataError
from .rows import Instruction, Marked, Preference

Texts = dict[str, list[Instruction]]


def texts_by_control(pairs: Sequence[Preference], good: str = "good", bad: str = "bad") -> Texts:
    """Preference pairs as texts of two controls: one for the chosen, one for the rejected."""
    return {
        good: [Instruction(pair.prompt, pair.chosen) for pair in pairs],
        bad: [Instruction(pair.prompt, pair.rejected) for pair in pairs],
    }


def read_styles(data: str | Path | Mapping[str, str | Path]) -> tuple[Texts, list[str]]:
    """Texts by the name of their control, and what was read, one line for each file.

    Of one file with pairs the controls are `good` and `bad`. So they are of a file with thumbs or
    ratings: thumbs up and down, or the upper and the lower third of the ratings. A mapping gives
    each control a file of its own, with prompt and completion. Raises DataError.
    """
    if isinstance(data, Mapping):
        loaded = {name: read_instructions(file) for name, file in data.items()}
        about = [f"{name}: {data[name]}: {one}" for name, one in loaded.items()]
        return {name: one.rows for name, one in loaded.items()}, about
    loaded = read_pairs_or_marks(data)
    if isinstance(loaded.rows[0], Marked):
        texts = _by_mark(data, loaded)
    else:
        texts = texts_by_control(loaded.rows)
    return texts, [f"{data}: {loaded}"]


def _by_mark(data: str | Path, loaded: Loaded) -> Texts:
    """The texts with the highest and with the lowest marks; those between are dropped."""
    marks = [row.mark for row in loaded.rows]
    low, high = _thirds(marks)
    if low >= high:
        fix = "rate some higher than others"
        raise DataError(f"{data}: all texts have the same mark; {fix}")
    texts: Texts = {"good": [], "bad": []}
    for row in loaded.rows:
        if low < row.mark < high:
            loaded.dropped["a rating in the middle third"] += 1
        else:
            name = "good" if row.mark >= high else "bad"
            texts[name].append(Instruction(row.prompt, row.completion))
    loaded.rows = [row for some in texts.values() for row in some]
    return texts


def _thirds(marks: Sequence[float]) -> tuple[float, float]:
    """The highest mark of the lower third, and the lowest of the upper third."""
    if len(set(marks)) < 3:
        return min(marks), max(marks)
    low, high = quantiles(marks, n=3, method="inclusive")
    return (low, high) if low < high else (min(marks), max(marks))
