"""The base model's pretraining text: endless, and of every quality, like the internet.

Its words, layouts and pairs of things are those of the training split. It has no corrections.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from .answers import good_answer, render
from .draw import Difficulty, sample_board, words_for
from .faults import Upstream, add_faults, style_of
from .operations import sample_instruction, wrong_answer
from .sets import row_rng
from .summaries import SUMMARY_FAULTS, faulty_summary, sample_bulletin
from .tokenizer import copyable

EARLY_DOCUMENTS = 60_000  # every second one of these is a copy document, later one in eight


def pretraining() -> Iterator[str]:
    """Documents without end: good and faulty answers to all tasks, and copy documents."""
    for i in count():
        rng = row_rng("pretraining", i)
        language = "other" if rng.random() < 0.1 else "town"
        if rng.random() < (0.5 if i < EARLY_DOCUMENTS else 0.125):
            n = rng.randint(4, 40)
            before = rng.randint(0, 30)
            different = rng.randint(1 + n // 4, n)
            yield copy_document(rng, n, before=before, different=different)
        else:
            kind = rng.choices(("questions", "summaries", "instructions"), (6, 1, 1.5))[0]
            yield _DOCUMENTS[kind](rng, language)


def copy_document(
    rng: random.Random,
    words: int,
    split: str = "train",
    before: int = 0,
    different: int | None = None,
) -> str:
    """`before` random words, "say :", a list of `words` random words, "again :", the list again.

    All words are drawn from a few `different` ones (None: all are drawn anew), so that they repeat
    as in sentences. To copy them a model must track its position, since the last word alone does
    not determine the next. The things come from one line.
    """
    things = rng.choice(words_for(split).lines)[1]
    drawn = [
        rng.choice(things) if rng.random() < 0.3 else rng.choice(copyable())
        for _ in range(different or words)
    ]
    listed = drawn if different is None else rng.choices(drawn, k=words)
    return " ".join([*rng.choices(drawn, k=before), "say :", *listed, "again :", *listed])


def _question_document(rng: random.Random, language: str) -> str:
    board = sample_board(rng, "train", Difficulty.level(rng.randrange(5)), "all", language)
    weights = {name: rng.choice((0.3, 1, 2)) for name in ("rude", "contradict", "invent", "pad")}
    upstream = Upstream("pretraining", weights)
    good = good_answer(board, style_of(rng, upstream))
    answer, _ = add_faults(rng, board, good, rng.choice((0, 0.1, 0.25, 0.5)), upstream)
    return f"{board} answer : {render(answer)}"


def _summary_document(rng: random.Random, language: str) -> str:
    bulletin = sample_bulletin(rng, "train", "all", language)
    if rng.random() < 0.5:
        summary = bulletin.reference
    else:
        summary = faulty_summary(rng, bulletin, rng.choice(SUMMARY_FAULTS))
    return f"{bulletin.prompt} answer : {summary}"


def _instruction_document(rng: random.Random, language: str) -> str:
    prompt, answer = sample_instruction(rng, "train", "all", language)
    if rng.random() >= 0.7:
        answer = wrong_answer(rng, prompt)
    return f"{prompt} answer : {answer}"


_DOCUMENTS = {
    "questions": _question_document,
    "summaries": _summary_document,
    "instructions": _instruction_document,
}
