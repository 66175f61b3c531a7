"""What models have answered to the town's questions, as recorded in data/upstreams by `python -m
alignlib upstreams`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from ..data import QAC, from_upstream
from ..profiles import data_folder
from ..upstream import Recorded, UpstreamError
from . import sets
from .annotator import annotate
from .words import digest

TESTS, TRAIN = 400, 1500  # questions of each test set, and of the training split
TAUGHT = ("rude", "inventive", "careless")  # the upstreams that an Aligner may be trained on


def file_of(name: str) -> Path:
    return data_folder() / "upstreams" / f"{name}.json"


def names() -> list[str]:
    """The upstreams that are recorded."""
    return sorted(f.stem for f in file_of("").parent.glob("*.json"))


@lru_cache(maxsize=1)
def asked() -> dict[str, list[str]]:
    """The questions: of the test sets `seen` and `unseen`, and of `train`, which few upstreams
    are asked.
    """
    rows = sets.test_sets(TESTS) | {"train": sets.corrections(TRAIN, seed=500)}
    return {part: [r.question for r in rows[part]] for part in ("seen", "unseen", "train")}


def recorded_answers(name: str) -> Recorded:
    """An upstream by its recorded answers. Raises UpstreamError if there are none, some are
    missing, or they are to another world's questions.
    """
    place, again = file_of(name), f"run `python -m alignlib upstreams {name}`"
    if not place.is_file():
        raise UpstreamError(
            f"no recorded upstream {name!r}; there are {', '.join(names()) or 'none'}"
        )
    try:
        about = json.loads(place.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UpstreamError(
            f"{place}, line {error.lineno}: not JSON ({error.msg}), perhaps cut off; {again}"
        ) from error
    if about["questions"] != digest(repr(asked())):
        raise UpstreamError(f"{place.name} answers other questions than this world asks; {again}")
    for part, said in about["answers"].items():
        if len(said) != len(asked()[part]):
            raise UpstreamError(
                f"{place}: {len(said)} answers to the {len(asked()[part])} questions of "
                f"{part!r}; {again}"
            )
    return Recorded(
        {
            q: a
            for part, said in about["answers"].items()
            for q, a in zip(asked()[part], said, strict=True)
        },
        name,
    )


def answered(name: str, part: str = "seen") -> list[QAC]:
    """Recorded answers to a part of the questions, each with an annotator's correction."""
    return from_upstream(
        asked()[part],
        recorded_answers(name),
        lambda questions, said: list(map(annotate, questions, said)),
    )


def taught(upstreams: int = len(TAUGHT)) -> list[QAC]:
    """Corrections to train on: so many upstreams take turns at the training questions, each of
    which is answered once.
    """
    given = [answered(name, "train") for name in TAUGHT[:upstreams]]
    return [given[i % upstreams][i] for i in range(TRAIN)]
