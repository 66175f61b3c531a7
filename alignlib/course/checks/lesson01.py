"""Checks of lesson 01: rows from preference pairs, what an edit keeps, and near-duplicates."""

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
        "answer and correction are swapped, so this Aligner would learn to make answers worse: "
        "the answer is the rejected text": lambda p, c, r: (p, c, r),
        "the answer is already the chosen text, which leaves nothing to correct: use the rejected "
        "text": lambda p, c, r: (p, c, c),
        "the correction is the rejected text, so this Aligner would learn to copy: use the chosen "
        "text": lambda p, c, r: (p, r, r),
        "the question contains the answer too: leave it out, because the template adds "
        "it": lambda p, c, r: (f"{p} {r}", r, c),
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


def _by_position(answer: str, correction: str) -> float:
    a = answer.split()
    return sum(x == y for x, y in zip(a, correction.split())) / len(a)


def _in_any_order(answer: str, correction: str) -> float:
    a = answer.split()
    return sum(w in correction.split() for w in a) / len(a)


def _greedy(answer: str, correction: str) -> float:
    a, words, found, at = answer.split(), correction.split(), 0, 0
    for w in a:
        if w in words[at:]:
            at, found = words.index(w, at) + 1, found + 1
    return found / len(a)


def _longest_block_first(answer: str, correction: str) -> float:
    a, c = answer.split(), correction.split()
    blocks = SequenceMatcher(None, a, c, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(a)


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
        "you ignored the order, so a sentence read backwards counts as kept: use the longest "
        "common subsequence": _in_any_order,
        "you matched the longest block first, as difflib does: shorter blocks may make up a longer "
        "common subsequence, so try all ways": _longest_block_first,
        "you matched each word as soon as possible, and a late match excludes all words before "
        "it: try with and without it, and keep the better": _greedy,
        "you compared position by position, so one word inserted in front counts as a rewrite: "
        "use the longest common subsequence": _by_position,
        "you divided by the length of the correction: divide by that of the *answer*": (
            lambda a, c: _longest_common(a.split(), c.split()) / len(c.split())
        ),
        "you compared characters: compare words": _by_characters,
        "this is the fraction removed: return the fraction kept": lambda a, c: 1 - _kept(a, c),
    },
)


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _overlap(a: str, b: str, n: int = 3) -> float:
    x, y = set(_runs(a, n)), set(_runs(b, n))
    return len(x & y) / max(1, len(x | y))


def _shared(a: str, b: str) -> int:
    return len(set(_runs(a, 3)) & set(_runs(b, 3)))


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
        "you compared single words, so any two boards about a lamp look alike: compare runs of "
        "three": lambda a, b: _overlap(a, b, n=1),
        "you compared runs of two words: compare runs of three": lambda a, b: _overlap(a, b, n=2),
        "you divided by the runs of the first text, so a short text inside a long one counts as "
        "equal: divide by the runs in either text": lambda a, b: (
            _shared(a, b) / len(set(_runs(a, 3)))
        ),
        "you counted repeated runs more than once: use sets": lambda a, b: (
            sum(run in _runs(b, 3) for run in _runs(a, 3)) / (len(_runs(a, 3)) + len(_runs(b, 3)))
        ),
        "this is the number of shared runs: divide by the number of runs in either text": _shared,
    },
)
