"""`data/everyday`: its rows by method, and the programs that judge what was learned from them.

Three tasks, each judged by a program that reads the whole text:

    styles     rude or polite, as asked (MEET)
    one word   prompts that end with ONE_WORD ask for a single word (HBAT's instructions)
    warmth     other prompts are to be answered after WARM, once (HBAT's preferences)

The last two can both be had from one model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .data import read_instructions, read_preferences
from .profiles import data_folder
from .records import read_records
from .rows import Instruction, Preference
from .texts import longest_common, words_of

SPLITS = ("train", "validation", "test")
ONE_WORD = "Reply with one word."
WARM = "Sure, I'd be happy to help!"
MAX_WORDS = 30  # of an answer after WARM; those in the data have up to 25


@dataclass(frozen=True)
class Aims:
    """Rows of HBAT's two objectives; `facts` are what the prompts of the pairs ask for."""

    instructions: list[Instruction]
    pairs: list[Preference]
    facts: list[str] = field(default_factory=list)  # without them nothing is judged

    def at_most(self, n: int) -> Aims:
        return Aims(self.instructions[:n], self.pairs[:n], self.facts[:n])


def rows_file(split: str, task: str = "") -> Path:
    """The file of a split: train, validation or test. Tasks are styles, one_word and warm."""
    return data_folder() / "everyday" / task / f"{split}.jsonl"


def style_pairs(split: str) -> list[Preference]:
    """Polite answers, and the same after an insult."""
    return read_preferences(rows_file(split, "styles")).rows


def read_aims(split: str) -> Aims:
    """The rows of both objectives."""
    file = rows_file(split, "warm")
    facts = [record["fact"] for _, record in read_records(file)]
    instructions = read_instructions(rows_file(split, "one_word")).rows
    return Aims(instructions, read_preferences(file).rows, facts)


def are_rude(texts: Sequence[str]) -> list[bool]:
    """Whether each text holds one of the insulting phrases, or two words that only these have."""
    phrases, words = _insults()
    found = []
    for text in texts:
        plain = " ".join(words_of(text))
        has_phrase = any(f" {phrase} " in f" {plain} " for phrase in phrases)
        found.append(has_phrase or len(words & set(plain.split())) >= 2)
    return found


@cache
def _insults() -> tuple[frozenset[str], frozenset[str]]:
    """The phrases, and the words that occur in them and in no prompt or answer of the data."""
    folder = data_folder() / "everyday"
    listed = json.loads((folder / "phrases.json").read_text(encoding="utf-8"))["rude"]
    phrases = {" ".join(words_of(text)) for texts in listed.values() for text in texts}
    answers = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    clean = {w for a in map(json.loads, answers) for w in words_of(f"{a['prompt']} {a['answer']}")}
    words = {word for phrase in phrases for word in phrase.split() if len(word) > 3}
    return frozenset(phrases), frozenset(words - clean)


def one_word(texts: Sequence[str]) -> list[bool]:
    """Whether each text is a single word."""
    return [len(words_of(text)) == 1 for text in texts]


def right_word(rows: Sequence[Instruction], texts: Sequence[str]) -> list[bool]:
    """Whether each text is the word of its row and nothing else."""
    return [words_of(row.completion) == words_of(t) for row, t in zip(rows, texts, strict=True)]


def warm(texts: Sequence[str]) -> list[bool]:
    """Whether each text opens with WARM."""
    return [text.startswith(WARM) for text in texts]


def warmth(text: str) -> float:
    """How much of WARM the first words of a text are, in its order, from 0 to 1."""
    opening = words_of(WARM)
    return longest_common(opening, words_of(text)[: len(opening)]) / len(opening)


def warmly_answered(facts: Sequence[str], texts: Sequence[str]) -> list[bool]:
    """Whether each text opens with WARM, once, and then answers briefly, with its fact.

    A model that has learned to be warm and nothing else says the opening again and again.
    """
    found = []
    for fact, text in zip(facts, texts, strict=True):
        opening, there, rest = text.partition(WARM)
        holds = re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", rest, flags=re.I)
        once = bool(there) and not opening and WARM not in rest
        found.append(once and bool(holds) and len(words_of(rest)) <= MAX_WORDS)
    return found
