"""The third task: plain instructions, each with one correct answer and without preference data.

An instruction asks for an operation on a list of words. It serves to measure forgetting.
"""

from __future__ import annotations

import random

from .draw import Pool, words_for
from .words import MAX_PRICE, split_of_layout

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


def _word(rng: random.Random, pool: Pool, things: tuple[str, ...], kind: str) -> str:
    if kind == "number":
        return str(rng.randint(1, MAX_PRICE))
    return rng.choice({"thing": things, "place": pool.places, "name": pool.names}[kind])


def sample_instruction(
    rng: random.Random, split: str, which: str = "all", language: str = "town"
) -> tuple[str, str]:
    """An instruction and its correct answer. Its operation and kinds of words fit the split."""
    pool = words_for(split, which, language)
    while True:
        operation = rng.choice(list(OPERATIONS))
        kinds = rng.choices(("thing", "place", "name", "number"), k=rng.randint(4, 6))
        if split_of_layout(f"{operation} {' '.join(kinds)}") == split:
            break
    things, _ = rng.choice(pool.lines)
    words = [_word(rng, pool, things, kind) for kind in kinds]
    prompt = f"instruction : {operation} : {' '.join(words)}"
    return prompt, f"{' '.join(OPERATIONS[operation](words))} ."


def wrong_answer(rng: random.Random, prompt: str) -> str:
    """The result of another operation on the same words."""
    _, operation, words = prompt.split(" : ")
    results = [other(words.split()) for other in OPERATIONS.values()]
    correct = OPERATIONS[operation](words.split())
    return " ".join(rng.choice([r for r in results if r != correct])) + " ."
