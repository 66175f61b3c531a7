"""Rows, and reading them from files: question-answer-correction, preference pairs, instructions.

Accepted: a JSON list or JSON lines, also gzipped, with a byte-order mark, with CRLF or with extra
keys; or a folder saved by `datasets`. A refusal (DataError) names file, line, field and the fix.
Rows that are left out are counted, by reason, in `Loaded.dropped`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .records import DataError, data_path, read_records


@dataclass(frozen=True)
class QAC:
    """One row of an Aligner's data. `faults` (Tinytown only) names what is wrong in the answer."""

    question: str
    answer: str
    correction: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preference:
    """Two completions of a prompt, of which the first is preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Instruction:
    """A prompt with the completion to learn."""

    prompt: str
    completion: str


@dataclass
class Loaded:
    """The rows of a file, and how many were left out: read == len(rows) + dropped.total()."""

    rows: list[Any]
    read: int
    dropped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        dropped = "".join(f", {n} dropped: {reason}" for reason, n in self.dropped.items())
        return f"{self.read} rows read, {len(self.rows)} used{dropped}"


def read_qac(path: str | Path) -> Loaded:
    """Rows question, answer, correction; or pairs (rejected -> answer, chosen -> correction)."""
    return _read(path, _QAC_SHAPES, "question, answer, correction")


def read_preferences(path: str | Path) -> Loaded:
    """Rows prompt, chosen, rejected."""
    return _read(path, _PREFERENCE_SHAPES, "prompt, chosen, rejected")


def read_instructions(path: str | Path) -> Loaded:
    """Rows prompt, completion."""
    return _read(path, _INSTRUCTION_SHAPES, "prompt, completion")


def write_rows(path: str | Path, rows: list[Any]) -> None:
    """Write rows as JSON lines; the file appears completely or not at all."""
    path = data_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
    part.write_text("".join(lines), encoding="utf-8")
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


def split_rows(rows: Sequence[QAC], tests: int, seed: int) -> dict[str, list[QAC]]:
    """The rows by split: of the questions a tenth, at most `tests`, each to validate and to test.

    All rows of a question are in one split. Raises ValueError for fewer than 3 questions.
    """
    questions = list(dict.fromkeys(row.question for row in rows))
    if len(questions) < 3:
        need = "at least 3 are needed, one each to train, choose and test on"
        raise ValueError(f"{len(questions)} questions are too few: {need}")
    rng, rows = random.Random(seed), list(rows)
    rng.shuffle(questions)
    rng.shuffle(rows)
    size = min(max(1, len(questions) // 10), tests)
    split_of = dict.fromkeys(questions, "train")
    split_of |= dict.fromkeys(questions[:size], "test")
    split_of |= dict.fromkeys(questions[size : 2 * size], "validation")
    parts: dict[str, list[QAC]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[split_of[row.question]].append(row)
    return parts


Shape = Callable[[dict[str, Any], "_Place"], Any]  # gives a row, or the reason to drop the record


@dataclass(frozen=True)
class _Place:
    """A record's place in a file, for messages."""

    path: Path
    line: int

    def texts(self, record: dict[str, Any], *keys: str) -> list[str]:
        """The record's texts under these keys. Raises DataError for the first that is none."""
        return [self.text(record, key) for key in keys]

    def text(self, record: dict[str, Any], key: str, empty: bool = False) -> str:
        """The record's text under a key. Raises DataError, with the fix, if it is no text."""
        value = record.get(key)
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            fix = "write it as a JSON string or delete the row"
            raise DataError(f"{self}: field {key!r} is {kind}, not text; {fix}")
        if not empty and not value.strip():
            raise DataError(f"{self}: field {key!r} is empty; fill it or delete the row")
        return value

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


def _official(record: dict[str, Any], at: _Place) -> QAC:
    faults = record.get("faults")
    if not isinstance(faults, list):
        faults = []  # anything else is an extra key of somebody's own
    texts = at.texts(record, "question", "answer", "correction")
    return QAC(*texts, tuple(map(str, faults)))


def _instruction_pair(record: dict[str, Any], at: _Place) -> Preference:
    extra = at.text(record, "input", empty=True) if "input" in record else ""
    prompt = "\n".join(filter(None, (at.text(record, "instruction"), extra)))
    return Preference(prompt, *at.texts(record, "chosen", "rejected"))


def _dialogue_pair(record: dict[str, Any], at: _Place) -> Preference | str:
    """Whole dialogues, as in HH-RLHF: the last turn is the answer, all before it the prompt."""
    dialogues = at.texts(record, "chosen", "rejected")
    turns = [dialogue.rpartition("\n\nAssistant:") for dialogue in dialogues]
    (prompt, mark, chosen), (other, _, rejected) = turns
    if not mark:
        fix = "add a field 'prompt' if these are single answers"
        raise DataError(f"{at}: field 'chosen' has no turn '\\n\\nAssistant:'; {fix}")
    if prompt != other:
        return "chosen and rejected do not answer the same prompt"
    if not chosen.strip() or not rejected.strip():
        return "the last turn is empty"
    return Preference(prompt.strip(), chosen.strip(), rejected.strip())


def _plain_pair(record: dict[str, Any], at: _Place) -> Preference:
    return Preference(*at.texts(record, "prompt", "chosen", "rejected"))


def _plain_instruction(record: dict[str, Any], at: _Place) -> Instruction:
    return Instruction(*at.texts(record, "prompt", "completion"))


def _as_qac(shape: Shape) -> Shape:
    """The same shape, read as a row of an Aligner's data."""

    def pair_as_qac(record: dict[str, Any], at: _Place) -> QAC | str:
        pair = shape(record, at)
        return from_pairs([pair])[0] if isinstance(pair, Preference) else pair

    return pair_as_qac


# A file's shape is the first one whose keys its first record has.
Shapes = dict[tuple[str, ...], Shape]
_PREFERENCE_SHAPES: Shapes = {
    ("prompt", "chosen", "rejected"): _plain_pair,
    ("instruction", "chosen", "rejected"): _instruction_pair,
    ("chosen", "rejected"): _dialogue_pair,
}
_QAC_SHAPES: Shapes = {("question", "answer", "correction"): _official}
_QAC_SHAPES |= {keys: _as_qac(shape) for keys, shape in _PREFERENCE_SHAPES.items()}
_INSTRUCTION_SHAPES: Shapes = {("prompt", "completion"): _plain_instruction}


def _read(path: str | Path, shapes: Shapes, wanted: str) -> Loaded:
    """The rows of a file in one of these shapes; `wanted` names the fields in messages."""
    path = data_path(path)
    rows: dict[Any, None] = {}  # as a set that keeps its order
    read, dropped, keys = 0, Counter[str](), None
    for line, record in read_records(path):
        at = _Place(path, line)
        if not isinstance(record, dict):
            kind = type(record).__name__
            fix = f"write each row as {{{wanted}}}"
            raise DataError(f"{at}: a {kind} where a row is expected; {fix}")
        keys = keys or _keys_of(record, shapes, at, wanted)
        if missing := [key for key in keys if key not in record]:
            raise DataError(f"{at}: no field {missing[0]!r}; each row needs {', '.join(keys)}")
        row = shapes[keys](record, at)
        read += 1
        if isinstance(row, str):
            dropped[row] += 1
        elif row in rows:
            dropped["duplicate of an earlier row"] += 1
        else:
            rows[row] = None
    if not rows:
        raise DataError(f"{path}: no usable rows; it needs at least one with {wanted}")
    return Loaded(list(rows), read, dropped)


def _keys_of(record: dict[str, Any], shapes: Shapes, at: _Place, wanted: str) -> tuple[str, ...]:
    """The keys of the first shape that the record has."""
    for keys in shapes:
        if all(key in record for key in keys):
            return keys
    missing = next(key for key in wanted.split(", ") if key not in record)
    has = f"it has {', '.join(record) or 'none'}"
    raise DataError(f"{at}: no field {missing!r} ({has}); each row needs {wanted}")
