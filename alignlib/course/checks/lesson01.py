"""Checks of lesson 01: rows from pairs, what an edit keeps, and near-duplicates."""

from __future__ import annotations

from difflib import SequenceMatcher

from . import Check

Row = tuple[str, str, str]


def _as_row(prompt: str, chosen: str, rejected: str) -> Row:
    return prompt, rejected, chosen


as_row = Check(
    "as_row",
    _as_row,
    [("where is it ?", "in the mill .", "who cares !"), ("how much ?", "3 coins .", "4 coins .")],
    {
        "answer and correction are exchanged: this Aligner would learn to spoil good "
        "answers": lambda p, c, r: (p, c, r),
        "the answer is already the good one: there is nothing left to correct": lambda p, c, r: (
            p,
            c,
            c,
        ),
        "the correction is the bad one again: this Aligner would learn to copy": lambda p, c, r: (
            p,
            r,
            r,
        ),
        "the question holds the answer as well: it must stand apart, or the template will "
        "hold it twice": lambda p, c, r: (f"{p} {r}", r, c),
    },
)


def _longest_common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _kept(answer: str, correction: str) -> float:
    a = answer.split()
    return _longest_common(a, correction.split()) / len(a)


def _by_characters(answer: str, correction: str) -> float:
    return _longest_common(list(answer), list(correction)) / len(answer)


def _by_place(answer: str, correction: str) -> float:
    a = answer.split()
    return sum(x == y for x, y in zip(a, correction.split())) / len(a)


def _whatever_the_order(answer: str, correction: str) -> float:
    a = answer.split()
    return sum(w in correction.split() for w in a) / len(a)


def _first_come(answer: str, correction: str) -> float:
    a, words, found, at = answer.split(), correction.split(), 0, 0
    for w in a:
        if w in words[at:]:
            at, found = words.index(w, at) + 1, found + 1
    return found / len(a)


def _longest_block_first(answer: str, correction: str) -> float:
    a, c = answer.split(), correction.split()
    return sum(
        block.size for block in SequenceMatcher(None, a, c, autojunk=False).get_matching_blocks()
    ) / len(a)


kept = Check(
    "kept",
    _kept,
    [
        ("a b c d", "a x c d"),
        ("a b", "so then a b"),
        ("a b c", "c b a"),
        ("the cat saw the dog", "the dog"),
        ("x a b c", "a b c x"),
        ("d d a b a", "b a c b a"),
    ],
    {
        "you counted words whatever their order: a sentence read backwards would count as "
        "kept": _whatever_the_order,
        "the longest block first, as difflib does: what is longest in common may be made of "
        "smaller pieces": _longest_block_first,
        "first come, first matched: a word found late in the correction shuts out all that "
        "stand before it. Try both ways, keep the better": _first_come,
        "you compared place by place: one word put in at the front would count as a whole "
        "rewrite": _by_place,
        "you divided by the correction's length: the question is how much of the *answer* is "
        "left": lambda a, c: _longest_common(a.split(), c.split()) / len(c.split()),
        "you compared characters: count words": _by_characters,
        "that is the share that went: give the share that stayed": lambda a, c: 1 - _kept(a, c),
    },
)


def _shingles(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _overlap(a: str, b: str, n: int = 3) -> float:
    x, y = set(_shingles(a, n)), set(_shingles(b, n))
    return len(x & y) / max(1, len(x | y))


overlap = Check(
    "overlap",
    _overlap,
    [
        ("a b c d e", "a b c d x"),
        ("c b a c b a", "c b a"),
        ("a b c d", "d c b a"),
        ("a b c a b c", "a b c x a b c"),
    ],
    {
        "you compared single words: any two boards about a lamp would look alike. Take runs "
        "of three": lambda a, b: _overlap(a, b, n=1),
        "you took runs of two words: take three": lambda a, b: _overlap(a, b, n=2),
        "you divided by the first text's runs: then a short text inside a long one is all "
        "shared, and the measure is not symmetric": lambda a, b: (
            len({*_shingles(a, 3)} & {*_shingles(b, 3)}) / len({*_shingles(a, 3)})
        ),
        "runs that occur twice count twice with you: make a set of them": lambda a, b: (
            sum(s in _shingles(b, 3) for s in _shingles(a, 3))
            / (len(_shingles(a, 3)) + len(_shingles(b, 3)))
        ),
        "that is the number they share: divide by how many there are in either": lambda a, b: float(
            len({*_shingles(a, 3)} & {*_shingles(b, 3)})
        ),
    },
)
