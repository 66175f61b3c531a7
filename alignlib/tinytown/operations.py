"""The third task: plain instructions with one right answer and no preference data, to measure
forgetting on.
"""

from __future__ import annotations

import random

from .draw import words_for
from .words import MAX_PRICE, SPLITS, digest

OPERATIONS = {
    "repeat": lambda w: w,
    "reverse": lambda w: w[::-1],
    "first": lambda w: w[:1],
    "last": lambda w: w[-1:],
    "second": lambda w: w[1:2],
    "count": lambda w: [str(len(w))],
    "swap": lambda w: [w[-1], *w[1:-1], w[0]],
    "drop": lambda w: w[1:],
}


def _word(rng: random.Random, words, things: list[str], kind: str) -> str:
    if kind == "number":
        return str(rng.randint(1, MAX_PRICE))
    return rng.choice({"thing": things, "place": words.places, "name": words.names}[kind])


def sample_instruction(
    rng: random.Random, split: str, which: str = "all", language: str = "town"
) -> tuple[str, str]:
    """An instruction and its one right answer. Its template (operation and kinds of words)
    belongs to the split.
    """
    words = words_for(split, which, language)
    while True:
        operation = rng.choice(list(OPERATIONS))
        kinds = rng.choices(("thing", "place", "name", "number"), k=rng.randint(4, 6))
        if SPLITS[(0, 0, 0, 1, 2)[digest(f"{operation} {' '.join(kinds)}") % 5]] == split:
            break
    things = list(rng.choice(words.lines)[0])
    listed = [_word(rng, words, things, k) for k in kinds]
    return f"instruction : {operation} : {' '.join(listed)}", " ".join(
        OPERATIONS[operation](listed)
    ) + " ."


def wrong_answer(rng: random.Random, prompt: str) -> str:
    """What another operation would have made of the same words."""
    _, _, rest = prompt.partition(" : ")
    operation, _, listed = rest.partition(" : ")
    words = listed.split()
    others = [
        made for o in OPERATIONS if (made := OPERATIONS[o](words)) != OPERATIONS[operation](words)
    ]
    return " ".join(rng.choice(others)) + " ."
