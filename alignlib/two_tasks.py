"""Programs that judge `data/everyday`'s two tasks: reply with one word, open warmly.

Both can be had from one model: prompts that end with ONE_WORD ask for a single word, the others are
answered in a sentence after WARM.
"""

from __future__ import annotations

from collections.abc import Sequence

from .edits import words_of
from .rows import Instruction, Preference

ONE_WORD = "Reply with one word."
WARM = "Sure, I'd be happy to help!"
SPARE = 3  # words that a warm answer may have beyond twice those of the row's


def one_word(texts: Sequence[str]) -> list[bool]:
    """Whether each text is a single word."""
    return [len(words_of(text)) == 1 for text in texts]


def right_word(rows: Sequence[Instruction], texts: Sequence[str]) -> list[bool]:
    """Whether each text is the word of its row and nothing else."""
    return [words_of(row.completion) == words_of(t) for row, t in zip(rows, texts, strict=True)]


def warm(texts: Sequence[str]) -> list[bool]:
    """Whether each text opens with WARM."""
    return [text.startswith(WARM) for text in texts]


def warmly_answered(rows: Sequence[Preference], texts: Sequence[str]) -> list[bool]:
    """Whether each text opens with WARM, once, and then answers as the row's plain answer does.

    At least half of that answer's words are there, and it is not more than twice as long: a model
    that has learned only to be warm says the opening again and again.
    """
    return [_is_warm_answer(row, text) for row, text in zip(rows, texts, strict=True)]


def _is_warm_answer(row: Preference, text: str) -> bool:
    opening, there, rest = text.partition(WARM)
    wanted, said = words_of(row.rejected), words_of(rest)
    held = sum(word in said for word in wanted)
    once = there and not opening and WARM not in rest
    return bool(once) and 2 * held >= len(wanted) and len(said) <= 2 * len(wanted) + SPARE
