"""The text that the base model is pretrained on: endless, of every quality, like the internet.

It keeps to the words, layouts and pairs of things of the training split, and holds no corrections.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from .answers import good_answer, render
from .draw import Difficulty, sample_board, words_for
from .faults import Upstream, spoil, style_of
from .instructions import sample_instruction, wrong_answer
from .sets import row_rng
from .summaries import SUMMARY_FAULTS, sample_bulletin, spoil_summary
from .tokenizer import copyable

EARLY_DOCUMENTS = 60_000  # until here every second document is a copy document


def pretraining() -> Iterator[str]:
    """Sound, rude, wrong and unsafe answers mixed; and random words said twice, until copying is
    learned every second document, later one in eight.
    """
    for i in count():
        rng = row_rng("pretraining", i)
        language = "other" if rng.random() < 0.1 else "town"
        if rng.random() < (0.5 if i < EARLY_DOCUMENTS else 0.125):
            n = rng.randint(4, 40)
            yield copy_document(
                rng, n, before=rng.randint(0, 30), different=rng.randint(1 + n // 4, n)
            )
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
    """`before` random words, a mark, `words` random words, a mark, and the latter again.

    They are drawn from a few `different` words (None: from all), so that words recur, as they do in
    sentences: who copies must keep the place, and cannot go by the last word alone. Things come
    from one line.
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
    upstream = Upstream("someone", weights)
    good = good_answer(board, style_of(rng, upstream))
    spoilt, _ = spoil(rng, board, good, rng.choice((0, 0.1, 0.25, 0.5)), upstream)
    return f"{board} answer : {render(spoilt)}"


def _summary_document(rng: random.Random, language: str) -> str:
    bulletin = sample_bulletin(rng, "train", "all", language)
    good = rng.random() < 0.5
    summary = bulletin.reference
    if not good:
        summary = spoil_summary(rng, bulletin, rng.choice(SUMMARY_FAULTS))
    return f"{bulletin.prompt} answer : {summary}"


def _instruction_document(rng: random.Random, language: str) -> str:
    prompt, right = sample_instruction(rng, "train", "all", language)
    return f"{prompt} answer : {right if rng.random() < 0.7 else wrong_answer(rng, prompt)}"


_DOCUMENTS = {
    "questions": _question_document,
    "summaries": _summary_document,
    "instructions": _instruction_document,
}
