"""Texts that are nearly the same, by the sequences of characters that they have in common.

Characters, so that languages without spaces are served too; letters and digits alone count, in one
case. Two texts are near-duplicates if of all their sequences of WIDTH characters MOST are in both
(Jaccard similarity). MinHash finds the candidates (Broder 1997), which are then compared exactly.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

WIDTH = 5  # characters of a sequence
MOST = 0.8  # similarity from which on two texts are as good as the same
BANDS, BAND = 20, 4  # a pair is compared if all hashes of a band agree: nearly always, at MOST
LARGEST = 0.2  # of all texts in one group: more are a template's, not copies
FEW = 10  # texts that may be one group however few there are
_PRIME = (1 << 61) - 1


def near_duplicates(texts: Sequence[str], most: float = MOST) -> list[int]:
    """For each text the number of its group: of the first text that it is nearly the same as.

    Groups of more than a fifth of all texts are split up, so that only identical texts stay
    together: they are one template, filled in differently.
    """
    plain = [_plain(text) for text in texts]
    first_of: dict[str, int] = {}
    group = [first_of.setdefault(text, i) for i, text in enumerate(plain)]
    distinct = list(first_of.values())
    sequences = [_sequences(plain[i]) for i in distinct]
    parent = list(range(len(distinct)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j in _candidates(sequences):
        if root(i) != root(j) and _similarity(sequences[i], sequences[j]) >= most:
            parent[max(root(i), root(j))] = min(root(i), root(j))
    sizes = Counter(root(i) for i in range(len(distinct)))
    largest = max(FEW, LARGEST * len(distinct))
    joined = {
        distinct[i]: distinct[root(i)] if sizes[root(i)] <= largest else distinct[i]
        for i in range(len(distinct))
    }
    return [joined[i] for i in group]


def _plain(text: str) -> str:
    """Letters and digits of a text in one case; of a text without any, what it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def _sequences(text: str) -> set[str]:
    return {text[i : i + WIDTH] for i in range(max(1, len(text) - WIDTH + 1))}


def _similarity(one: set[str], other: set[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _candidates(sequences: Sequence[set[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of texts whose smallest hashes agree in a band."""
    rng = np.random.default_rng(0)
    scale, shift = rng.integers(1, 2**32, (2, BANDS * BAND), dtype=np.uint64)
    buckets: dict[tuple[int, bytes], int] = {}
    for i, some in enumerate(sequences):
        codes = np.array([zlib.crc32(s.encode("utf-8", "replace")) for s in some], np.uint64)
        hashes = (codes[:, None] * scale + shift) % np.uint64(_PRIME)  # (sequences, hashes)
        smallest = hashes.min(0).reshape(BANDS, BAND)
        for band in range(BANDS):
            earlier = buckets.setdefault((band, smallest[band].tobytes()), i)
            if earlier != i:
                yield earlier, i
