"""Rows with marks (thumbs up and down, ratings) as pairs, or as completions to learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from .rows import Instruction, Marked, Preference

JOINED = "joined with another row into one pair"
ALONE = "no answer to the same prompt with another mark"


def _by_prompt(rows: Sequence[Marked]) -> list[list[Marked]]:
    groups: dict[str, list[Marked]] = {}
    for row in rows:
        groups.setdefault(row.prompt, []).append(row)
    return list(groups.values())


def pairs_of(rows: Sequence[Marked]) -> tuple[list[Preference], Counter[str]]:
    """Pairs of answers to one prompt, and what became of the other rows.

    The best is paired with the worst, the second best with the second worst, and so on, as long as
    their marks differ. One row of each pair is counted as joined, so that all are accounted for.
    """
    pairs, dropped = [], Counter[str]()
    for group in _by_prompt(rows):
        ordered = sorted(group, key=lambda row: -row.mark)
        for good, bad in zip(ordered, reversed(ordered)):
            if good.mark <= bad.mark:
                break
            pairs.append(Preference(good.prompt, good.completion, bad.completion))
            dropped.update([JOINED])
            group = [row for row in group if row is not good and row is not bad]
        dropped.update([ALONE] * len(group))
    return pairs, dropped


def best_of(rows: Sequence[Marked]) -> tuple[list[Instruction], Counter[str]]:
    """The completions that are worth learning, and what became of the other rows.

    Where all marks are thumbs (0 or 1), every thumb up. Else the best completion of each prompt, if
    it is rated no lower than the median of all.
    """
    best, dropped = [], Counter[str]()
    marks = {row.mark for row in rows}
    thumbs, middle = marks <= {0, 1}, median(row.mark for row in rows)
    for group in _by_prompt(rows):
        most = 1.0 if thumbs else max(row.mark for row in group)
        kept = [row for row in group if row.mark == most][: None if thumbs else 1]
        reason = "thumbs down" if thumbs else "a better completion of the same prompt is there"
        dropped.update([reason] * (len(group) - len(kept)))
        if not thumbs and most < middle:
            dropped.update(["the prompt's best completion is rated low"] * len(kept))
        else:
            best += [Instruction(row.prompt, row.completion) for row in kept]
    return best, dropped
