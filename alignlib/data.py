"""Rows, and reading them from files: question-answer-correction, preference pairs, instructions.

Accepted: a JSON list, JSON lines, either gzipped, with a byte-order mark, with CRLF, with
extra keys; or a folder saved by `datasets`. Refused rows name file, line, field and the
fix. Nothing is dropped in silence: `Loaded.dropped` counts the rows left out, by reason.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .records import DataError, read_records


@dataclass(frozen=True)
class QAC:
    """One row of an Aligner's data. `faults` (tiny only) names what was wrong with the answer."""

    question: str
    answer: str
    correction: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preference:
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Instruction:
    prompt: str
    completion: str


@dataclass
class Loaded:
    """Rows of a file, and what became of the others. read == len(rows) + sum(dropped.values())."""

    rows: list[Any]
    read: int
    dropped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lost = "".join(f", {n} dropped: {why}" for why, n in self.dropped.items())
        return f"{self.read} rows read, {len(self.rows)} used{lost}"


def read_qac(path: str | Path) -> Loaded:
    """Rows question / answer / correction, or preference pairs read as such (rejected -> answer,
    chosen -> correction).
    """
    return _read(path, _QAC_SHAPES, "question, answer, correction")


def read_preferences(path: str | Path) -> Loaded:
    """Rows prompt / chosen / rejected."""
    return _read(path, _PREFERENCE_SHAPES, "prompt, chosen, rejected")


def read_instructions(path: str | Path) -> Loaded:
    """Rows prompt / completion."""
    return _read(path, _INSTRUCTION_SHAPES, "prompt, completion")


def write_rows(path: str | Path, rows: list[Any]) -> None:
    """JSON lines, one row each; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(
        "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )
    os.replace(part, path)


# --- three ways to Q-A-C rows (lesson 01) -------------------------------------------------------


def from_pairs(pairs: Sequence[Preference]) -> list[QAC]:
    """Preference pairs as rows: rejected -> answer, chosen -> correction. An edit only if the
    two happen to share words.
    """
    return [QAC(p.prompt, p.rejected, p.chosen) for p in pairs]


def from_upstream(
    questions: Sequence[str],
    upstream: Callable[[Sequence[str]], list[str]],
    corrector: Callable[[Sequence[str], Sequence[str]], list[str]],
) -> list[QAC]:
    """An upstream's answers to the questions, each corrected by somebody: a person, a program, a
    larger model.
    """
    answers = upstream(questions)
    return [
        QAC(*row) for row in zip(questions, answers, corrector(questions, answers), strict=True)
    ]


def identity_rows(rows: Sequence[QAC]) -> list[QAC]:
    """The answer again in the correction's place, for a warm-up: nobody has to know which
    answers are good.
    """
    return [replace(r, correction=r.answer, faults=()) for r in rows]


# --- from a record to a row --------------------------------------------------------------------

Shape = Callable[[dict[str, Any], "_Where"], Any]  # gives a row, or the reason to drop the record


@dataclass(frozen=True)
class _Where:
    path: Path
    line: int

    def text(self, record: dict[str, Any], key: str, empty: bool = False) -> str:
        """The record's text under a key, or an error that says where it is and what to do."""
        value = record.get(key)
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            raise DataError(
                f"{self}: field {key!r} is {kind}, not text; write it as a JSON string or "
                "delete the row"
            )
        if not empty and not value.strip():
            raise DataError(f"{self}: field {key!r} is empty; fill it or delete the row")
        return value

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


def _official(record: dict[str, Any], at: _Where) -> QAC:
    faults = record.get("faults")
    named = (
        tuple(map(str, faults)) if isinstance(faults, list) else ()
    )  # anything else is somebody's own extra key
    return QAC(*(at.text(record, k) for k in ("question", "answer", "correction")), named)


def _instruction_pair(record: dict[str, Any], at: _Where) -> Preference:
    extra = at.text(record, "input", empty=True) if "input" in record else ""
    prompt = "\n".join(filter(None, (at.text(record, "instruction"), extra)))
    return Preference(prompt, at.text(record, "chosen"), at.text(record, "rejected"))


def _dialogue_pair(record: dict[str, Any], at: _Where) -> Preference | str:
    """HH-RLHF: whole dialogues. The last turn is the answer, all before it the prompt, which
    both must share.
    """
    turns = [at.text(record, k).rpartition("\n\nAssistant:") for k in ("chosen", "rejected")]
    (prompt, mark, chosen), (other, _, rejected) = turns
    if not mark:
        raise DataError(
            f"{at}: field 'chosen' holds no turn '\\n\\nAssistant:'; add a field 'prompt' if "
            "these are single answers"
        )
    if prompt != other:
        return "chosen and rejected do not answer the same prompt"
    if not chosen.strip() or not rejected.strip():
        return "the last turn is empty"
    return Preference(prompt.strip(), chosen.strip(), rejected.strip())


def _plain_pair(record: dict[str, Any], at: _Where) -> Preference:
    return Preference(*(at.text(record, k) for k in ("prompt", "chosen", "rejected")))


def _plain_instruction(record: dict[str, Any], at: _Where) -> Instruction:
    return Instruction(*(at.text(record, k) for k in ("prompt", "completion")))


def _as_qac(shape: Shape) -> Shape:
    def pair_as_qac(record: dict[str, Any], at: _Where) -> QAC | str:
        pair = shape(record, at)
        return from_pairs([pair])[0] if isinstance(pair, Preference) else pair

    return pair_as_qac


# The first shape whose keys the first record has is the file's.
_PREFERENCE_SHAPES: dict[tuple[str, ...], Shape] = {
    ("prompt", "chosen", "rejected"): _plain_pair,
    ("instruction", "chosen", "rejected"): _instruction_pair,
    ("chosen", "rejected"): _dialogue_pair,
}
_QAC_SHAPES = {("question", "answer", "correction"): _official} | {
    k: _as_qac(s) for k, s in _PREFERENCE_SHAPES.items()
}
_INSTRUCTION_SHAPES: dict[tuple[str, ...], Shape] = {("prompt", "completion"): _plain_instruction}


# --- from a file to rows -----------------------------------------------------------------------


def _read(path: str | Path, shapes: dict[tuple[str, ...], Shape], wanted: str) -> Loaded:
    path = Path(path)
    rows: dict[Any, None] = {}
    read, dropped, shape = 0, Counter[str](), None
    for line, record in read_records(path):
        at = _Where(path, line)
        if not isinstance(record, dict):
            raise DataError(
                f"{at}: a {type(record).__name__} where a row is expected; write each row as "
                f"{{{wanted}}}"
            )
        shape = shape or _shape_of(record, shapes, at, wanted)
        keys = next(k for k, s in shapes.items() if s is shape)
        if missing := [k for k in keys if k not in record]:
            raise DataError(f"{at}: no field {missing[0]!r}; each row needs {', '.join(keys)}")
        row = shape(record, at)
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


def _shape_of(
    record: dict[str, Any], shapes: dict[tuple[str, ...], Shape], at: _Where, wanted: str
) -> Shape:
    for keys, shape in shapes.items():
        if all(k in record for k in keys):
            return shape
    missing = next(k for k in wanted.split(", ") if k not in record)
    raise DataError(
        f"{at}: no field {missing!r} (it has {', '.join(record) or 'none'}); each row needs "
        f"{wanted}"
    )
