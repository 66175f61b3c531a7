"""Recorded answers of upstream models to the town's questions, from data/upstreams.

`python -m alignlib upstreams` records them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..data import QAC, from_upstream
from ..profiles import data_folder
from ..upstream import Recorded, UpstreamError
from . import sets
from .annotator import annotate
from .words import digest

TESTS, TRAIN = 400, 1500  # number of questions in each test set, and for training
TAUGHT = ("rude", "inventive", "careless")  # the upstreams that an Aligner may be trained on


def file_of(name: str) -> Path:
    """The file with an upstream's answers."""
    return data_folder() / "upstreams" / f"{name}.json"


def names() -> list[str]:
    """The names of the recorded upstreams, sorted."""
    return sorted(f.stem for f in file_of("").parent.glob("*.json"))


@lru_cache(maxsize=1)
def asked() -> dict[str, list[str]]:
    """The questions: two test sets, `seen` and `unseen`, and `train`, which only TAUGHT answer."""
    rows = sets.test_sets(TESTS) | {"train": sets.corrections(TRAIN, seed=500)}
    return {part: [r.question for r in rows[part]] for part in ("seen", "unseen", "train")}


def recorded_answers(name: str) -> Recorded:
    """A recorded upstream by its name.

    Raises UpstreamError if there is no such record, if it is not JSON, if answers are missing, or
    if it answers other questions than this version of the world asks.
    """
    path = file_of(name)
    again = f"run `python -m alignlib upstreams {name}`"
    if not path.is_file():
        known = ", ".join(names()) or "none"
        raise UpstreamError(f"no recorded upstream {name!r}; there are {known}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg}), perhaps cut off"
        raise UpstreamError(f"{path}, line {error.lineno}: {reason}; {again}") from error
    if record["questions"] != digest(repr(asked())):
        raise UpstreamError(f"{path.name} answers other questions than this world asks; {again}")
    answer_of: dict[str, str] = {}
    for part, answers in record["answers"].items():
        questions = asked()[part]
        if len(answers) != len(questions):
            counts = f"{len(answers)} answers to the {len(questions)} questions of {part!r}"
            raise UpstreamError(f"{path}: {counts}; {again}")
        answer_of.update(zip(questions, answers))
    return Recorded(answer_of, name)


def answered(name: str, part: str = "seen") -> list[QAC]:
    """An upstream's answers to one part of the questions, with the annotator's corrections."""

    def corrector(questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        return list(map(annotate, questions, answers))

    return from_upstream(asked()[part], recorded_answers(name), corrector)


def taught(upstreams: int = len(TAUGHT)) -> list[QAC]:
    """Corrections to train on. This many upstreams answer the training questions in turn."""
    rows = [answered(name, "train") for name in TAUGHT[:upstreams]]
    return [rows[i % upstreams][i] for i in range(TRAIN)]
