"""Small edits, judged exactly: was what is wrong taken out, and the rest left as it was?

The judge is handed the correction that is wanted. It fits rows whose corrections are small edits,
as in `data/everyday`, and your own test rows if theirs are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .data import QAC
from .stats import Estimate, bootstrap_groups
from .texts import longest_common, words_of

KEPT, ADDED = 0.95, 2  # at least so much of the original in order; at most so many words more


def is_fixed(row: QAC, output: str) -> bool:
    """Whether an output takes the fault out of a row's answer and leaves the rest.

    All three hold: no word that the fault brought is left, and none that it took is missing; 95 %
    of the correction's words stand in order; and at most 2 words were added. Where the answer is
    the correction, it must come back word for word.
    """
    if row.answer == row.correction:
        return output.split() == row.answer.split()
    original, found = words_of(row.correction), words_of(output)
    if original == words_of(row.answer):  # the fault is in its case, signs or punctuation
        return output.split() == row.correction.split()
    brought, taken = _brought(row), Counter(original) - Counter(words_of(row.answer))
    if (Counter(found) - Counter(original)) & brought or taken - Counter(found):
        return False
    in_order = longest_common(original, found)
    return in_order >= KEPT * len(original) and len(found) - in_order <= ADDED


def _brought(row: QAC) -> Counter[str]:
    """The words that stand in the answer and not in its correction."""
    return Counter(words_of(row.answer)) - Counter(words_of(row.correction))


def verdict(row: QAC, output: str) -> str:
    """The kind of fault of a row's answer, and whether the output fixes it, in words."""
    yes, no = ("kept", "changed") if row.answer == row.correction else ("fixed", "not fixed")
    return f"{_kind(row)}: {yes if is_fixed(row, output) else no}"


def _kind(row: QAC) -> str:
    return " ".join(row.faults) or ("good" if row.answer == row.correction else "faulty")


def fixed_rates(rows: Sequence[QAC], outputs: Sequence[str]) -> dict[str, Estimate]:
    """The fraction of rows fixed by kind of fault; for `good` answers, of those left unchanged.

    Rows without named faults are `good` or `faulty`. Intervals are over faults: rows whose answers
    have the same words too much are drawn together.
    """
    scored: dict[str, list[tuple[bool, str]]] = {}
    for row, output in zip(rows, outputs, strict=True):
        fault = " ".join(sorted(_brought(row))) or f"{row.question} {row.answer}"
        scored.setdefault(_kind(row), []).append((is_fixed(row, output), fault))
    return {
        kind: bootstrap_groups(np.array([fixed for fixed, _ in some]), [f for _, f in some])
        for kind, some in scored.items()
    }


def overall_rates(rows: Sequence[QAC], outputs: Sequence[str]) -> dict[str, Estimate]:
    """The fraction of `faulty` rows fixed, all kinds of fault together, and of `good` ones kept."""
    return fixed_rates([replace(row, faults=()) for row in rows], outputs)
