"""Rows, and reading them: question-answer-correction, preference pairs, instructions.

Which files are read says `records.py`, which fields a row may have `shapes.py`. A refusal
(DataError) names file, place, field and the fix. Rows that are left out are counted by reason in
`Loaded.dropped`, texts that had to be changed in `Loaded.changed`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .dialogues import Dropped, Record
from .place import DataError, Place
from .ratings import best_of, pairs_of
from .records import Records, data_path, read_records
from .rows import QAC, Instruction, Marked, Preference
from .shapes import CORRECTIONS, INSTRUCTIONS, PREFERENCES, Shape, Shapes, shape_of
from .texts import whole_characters

Row = QAC | Preference | Instruction


@dataclass
class Loaded:
    """The rows of a file, and how many were left out: read == len(rows) + dropped.total()."""

    rows: list[Any]
    read: int
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        dropped = "".join(f", {n} dropped: {reason}" for reason, n in self.dropped.items())
        changed = "".join(f", {n} changed: {reason}" for reason, n in self.changed.items())
        return f"{self.read} rows read, {len(self.rows)} used{dropped}{changed}"


def read_qac(path: str | Path) -> Loaded:
    """Rows question, answer, correction; or pairs (rejected -> answer, chosen -> correction).

    A file, a folder or a data set on the hub (`records.py`). Where answer and correction differ in
    white space alone, the answer counts as good, and the correction is the answer. Raises
    DataError.
    """
    return _read(path, CORRECTIONS, "question, answer, correction", _as_qac)


def read_preferences(path: str | Path) -> Loaded:
    """Rows prompt, chosen, rejected; or rows with thumbs or ratings, put into pairs by prompt.

    A file, a folder or a data set on the hub (`records.py`). Pairs that differ in white space
    alone, and pairs that contradict an earlier one, are left out. Raises DataError.
    """
    return _read(path, PREFERENCES, "prompt, chosen, rejected")


def read_pairs_or_marks(path: str | Path) -> Loaded:
    """Rows prompt, chosen, rejected; or rows with thumbs or ratings, as they are (`Marked`).

    A file, a folder or a data set on the hub (`records.py`). Raises DataError.
    """
    return _read(path, PREFERENCES, "prompt, chosen, rejected", of_marks=None)


def read_instructions(path: str | Path) -> Loaded:
    """Rows prompt, completion; of those with thumbs or ratings the good ones.

    A file, a folder or a data set on the hub (`records.py`). Raises DataError.
    """
    return _read(path, INSTRUCTIONS, "prompt, completion", of_marks=best_of)


def write_rows(path: str | Path, rows: list[Any]) -> None:
    """Write rows as JSON lines; the file appears completely or not at all."""
    path = data_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
    part.write_text(whole_characters("".join(lines)), encoding="utf-8")
    os.replace(part, path)


def from_pairs(pairs: Sequence[Preference]) -> list[QAC]:
    """Preference pairs as rows: rejected -> answer, chosen -> correction.

    Such a correction is an edit only if the two happen to have words in common.
    """
    return [QAC(pair.prompt, pair.rejected, pair.chosen) for pair in pairs]


def from_upstream(
    questions: Sequence[str],
    upstream: Callable[[Sequence[str]], list[str]],
    corrector: Callable[[Sequence[str], Sequence[str]], list[str]],
) -> list[QAC]:
    """An upstream's answers, each corrected by a person, a program or a larger model."""
    answers = upstream(questions)
    corrections = corrector(questions, answers)
    return [QAC(*row) for row in zip(questions, answers, corrections, strict=True)]


def identity_rows(rows: Sequence[QAC]) -> list[QAC]:
    """Rows for the warm-up, whose correction is the answer itself: nobody has to annotate them."""
    return [replace(row, correction=row.answer, faults=()) for row in rows]


def swapped(rows: Sequence[QAC]) -> list[str]:
    """For each row the answer of the next row with another question (its own if there is none).

    The control for whether a model uses the answer.
    """
    n = len(rows)
    answers = []
    for i, row in enumerate(rows):
        following = (rows[(i + k) % n] for k in range(1, n))
        others = (other.answer for other in following if other.question != row.question)
        answers.append(next(others, row.answer))
    return answers


def prompt_of(row: Row) -> str:
    """What a row's completion, answer or pair answers."""
    return row.question if isinstance(row, QAC) else row.prompt


def split_by_prompt(
    rows: Sequence[Any], tests: int, seed: int, prompt_of: Callable[[Any], str] = prompt_of
) -> dict[str, list[Any]]:
    """The rows by split: of the prompts a tenth, at most `tests`, each to validate and to test.

    Prompts that are nearly the same (`similar.py`) count as one, and all rows of one are in one
    split. Raises ValueError for fewer than 3 prompts.
    """
    from .similar import near_duplicates

    texts = list(dict.fromkeys(map(prompt_of, rows)))
    group_of = dict(zip(texts, near_duplicates(texts), strict=True))
    if len(set(group_of.values())) < 3:  # of very few, each stands for itself
        group_of = {text: i for i, text in enumerate(texts)}
    groups = list(dict.fromkeys(group_of.values()))
    if len(groups) < 3:
        need = "at least 3 are needed, one each to train, choose and test on"
        raise ValueError(f"{len(groups)} prompts are too few: {need}")
    rng, rows = random.Random(seed), list(rows)
    rng.shuffle(groups)
    rng.shuffle(rows)
    size = min(max(1, len(groups) // 10), tests)
    split_of = dict.fromkeys(groups, "train")
    split_of |= dict.fromkeys(groups[:size], "test")
    split_of |= dict.fromkeys(groups[size : 2 * size], "validation")
    parts: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[split_of[group_of[prompt_of(row)]]].append(row)
    return parts


LOOKED_AT = 50  # records that tell the shape of a file
Kept = Callable[[Row, Counter[str]], Row]  # a row as it is kept; raises Dropped for one that is not


def _as_pair(row: Row, changed: Counter[str]) -> Row:
    if isinstance(row, Preference) and row.chosen.split() == row.rejected.split():
        raise Dropped("chosen and rejected are the same text")
    return row


def _as_qac(row: QAC | Preference, changed: Counter[str]) -> QAC:
    if isinstance(row, Preference):
        [row] = from_pairs([row])
    if row.answer != row.correction and row.answer.split() == row.correction.split():
        changed["a correction that differs in white space alone: the answer is good"] += 1
        row = replace(row, correction=row.answer)
    return row


def _read(
    path: str | Path,
    shapes: Shapes,
    wanted: str,
    as_kept: Kept = _as_pair,
    of_marks: Callable | None = pairs_of,
) -> Loaded:
    """The rows of a file in one of these shapes; `wanted` names the fields in messages.

    `of_marks` makes rows of those with thumbs or ratings; None: they stay.
    """
    loaded, rows, reasons = Loaded([], 0), [], []
    records, keys, shape = _of_one_shape(read_records(path), shapes, wanted)
    for place, fields in records:
        loaded.read += 1
        _check_row(place, fields, wanted)
        record = Record(fields, place, loaded.changed)
        if missing := [key for key in keys if key not in fields]:
            raise DataError(f"{place}: no field {missing[0]!r}; each row needs {', '.join(keys)}")
        try:
            rows.append(shape(record))
        except Dropped as reason:
            loaded.dropped[str(reason)] += 1
            reasons.append(f"{place}: {reason}")
    if of_marks and any(isinstance(row, Marked) for row in rows):
        rows, dropped = of_marks(rows)
        loaded.dropped.update(dropped)
        reasons += dropped
    _keep(rows, as_kept, loaded)
    if not loaded.rows:
        why = "".join(f" ({reason})" for reason in [*reasons, *loaded.dropped][:1])
        raise DataError(f"{path}: no usable rows{why}; it needs at least one with {wanted}")
    return loaded


def _of_one_shape(
    records: Records, shapes: Shapes, wanted: str
) -> tuple[Records, tuple[str, ...], Shape]:
    """The records, and the keys and the shape that they have, told by the first ones together."""
    first = list(islice(records, LOOKED_AT))
    for place, fields in first:
        _check_row(place, fields, wanted)
    if not first:
        return iter(()), (), shapes[0][1]
    together: dict[str, Any] = {}
    for _, fields in first:
        new = {key: v for key, v in fields.items() if together.get(key) in (None, "")}
        together |= new
    keys, shape = shape_of(Record(together, first[0][0]), shapes, wanted)
    return chain(first, records), keys, shape


def _check_row(place: Place, fields: Any, wanted: str) -> None:
    if not isinstance(fields, dict):
        kind = type(fields).__name__
        fix = f"write each row as {{{wanted}}}"
        raise DataError(f"{place}: a {kind} where a row is expected; {fix}")


def _keep(rows: Sequence[Row], as_kept: Kept, loaded: Loaded) -> None:
    """Put the rows that are kept, each of them once, into `loaded`, and count the others."""
    kept: dict[Row, None] = {}  # as a set that keeps its order
    for row in rows:
        try:
            row = as_kept(row, loaded.changed)
        except Dropped as reason:
            loaded.dropped[str(reason)] += 1
            continue
        if row in kept:
            loaded.dropped["duplicate of an earlier row"] += 1
        elif _reversed(row) in kept:
            loaded.dropped["contradicts an earlier row"] += 1
        else:
            kept[row] = None
    loaded.rows = list(kept)


def _reversed(row: Row) -> Row | None:
    """The row that says the opposite; None for one that has no opposite."""
    if isinstance(row, Preference):
        return Preference(row.prompt, row.rejected, row.chosen)
    if isinstance(row, QAC) and row.answer != row.correction:
        return replace(row, answer=row.correction, correction=row.answer)
    return None
