"""What texts consist of: whole characters, and words in languages with and without spaces."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache

# scripts whose words no space divides: Thai, Lao, Burmese, Khmer, kana, Chinese characters
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_PIECE = re.compile(f"[{SPACELESS}]|[^\\s{SPACELESS}]+")
_TOKEN = re.compile(f"^\\s+|(?:{_PIECE.pattern})\\s*")


def whole_characters(text: str) -> str:
    """The text, in which halves of characters, which cannot be written, are replaced."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def filled_in(template: str, texts: dict[str, str]) -> str:
    """The template with these texts at their places, such as `{question}`; braces in them stay."""
    return re.sub("|".join(map(re.escape, texts)), lambda m: texts[m[0]], template)


def is_spaceless(character: str) -> bool:
    """Whether a character belongs to a script that writes no spaces between words."""
    return re.fullmatch(f"[{SPACELESS}]", character) is not None


def pieces(text: str) -> list[str]:
    """What spaces divide; where a script has none, every character."""
    return text.split() if text.isascii() else _PIECE.findall(text)


def spaced_pieces(text: str) -> list[str]:
    """The same with the white space that follows each; together they are the text."""
    return _TOKEN.findall(text)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    pattern = r"\w+(?:['’-]\w+)*" if text.isascii() else _words()
    return re.findall(pattern, text.lower())


@cache
def _words() -> str:
    """A word of any script: letters and digits with the marks that belong to them."""
    codes = range(0x300, sys.maxunicode + 1)
    marks = "".join(chr(c) for c in codes if unicodedata.category(chr(c)).startswith("M"))
    letters = f"(?:[^\\W{SPACELESS}]|[{marks}])+"
    return f"[{SPACELESS}]|{letters}(?:['’-]{letters})*"


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(b) + 1)  # best[j]: of the words of `a` so far and the first j of `b`
    for word in a:
        before = best.copy()
        for j, other in enumerate(b, start=1):
            best[j] = before[j - 1] + 1 if word == other else max(before[j], best[j - 1])
    return best[-1]
