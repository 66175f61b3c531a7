"""Checks of lesson 03: asking each question once, the break-even point, hijacking answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...stats import crossing as zero_crossing
from . import Check

Upstream = Callable[[list[str]], list[str]]
Ask = Callable[[Upstream, list[str], dict[str, str]], list[str]]


def _ask(upstream: Upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    if new:
        kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


def _with_duplicates(upstream: Upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = [q for q in questions if q not in kept]
    kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


def _out_of_order(upstream: Upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    known, answers = [kept[q] for q in questions if q in kept], upstream(new)
    kept.update(zip(new, answers))
    return known + answers


def _two_calls(ask: Ask) -> Callable:
    """The answers of two calls, and all questions that reached the upstream."""

    def run(questions: list[str], kept: dict[str, str]) -> object:
        asked: list[str] = []

        def upstream(new: Sequence[str]) -> list[str]:
            asked.extend(new)
            return [f"it is {q[-3]} ." for q in new]

        first = ask(upstream, questions, kept)
        if not isinstance(first, (list, tuple)):
            return first
        return [list(first), list(ask(upstream, questions, kept)), sorted(asked)]

    return run


ask = Check(
    "ask",
    _ask,
    [
        ([f"what is {x} ?" for x in "baca"], {"what is c ?": "it is known ."}),
        (["what is d ?"], {}),
        (["what is e ?"] * 2, {}),
    ],
    {
        "questions with an answer in `kept` are asked again: leave them out": lambda u, q, k: u(q),
        "a question that occurs twice is paid for twice: ask it once": _with_duplicates,
        "new answers are not stored, so the next call pays again: add them to `kept`": (
            lambda u, q, k: _ask(u, q, dict(k))
        ),
        "the answers are not in the order of the questions: look each one up in `kept`": (
            _out_of_order
        ),
    },
    through=_two_calls,
)


def _first_win(wins: Sequence[float]) -> int:
    return next(i for i, win in enumerate(wins) if win > 0)


def _swapped(rates: Sequence[float], wins: Sequence[float]) -> float:
    i = _first_win(wins)
    fraction = wins[i] / (wins[i] - wins[i - 1])
    return rates[i - 1] + fraction * (rates[i] - rates[i - 1])


crossing = Check(
    "crossing",
    zero_crossing,
    [
        ([0.0, 0.1, 0.2], [-10.0, -2.0, 6.0]),
        ([0.0, 0.5, 1.0], [-5.0, 15.0, 40.0]),
        ([0.1, 0.2, 0.4, 0.8], [-9.0, -8.0, -1.0, 7.0]),
    ],
    {
        "this is the first rate with a positive net win: interpolate, the line crosses zero "
        "before it": lambda r, w: r[_first_win(w)],
        "this is the last rate with a negative net win: interpolate, the line crosses zero after "
        "it": lambda r, w: r[_first_win(w) - 1],
        "this is half-way between two rates: interpolate, the crossing is nearer to the net win "
        "that is nearer to zero": lambda r, w: (r[_first_win(w)] + r[_first_win(w) - 1]) / 2,
        "the two ends are swapped: a small loss means that the crossing is close to it": _swapped,
        "this is on the line from the first point to the last: use the two points around zero": (
            lambda r, w: zero_crossing([r[0], r[-1]], [w[0], w[-1]])
        ),
    },
)


def _hijacked(own: Sequence[float], other: Sequence[float]) -> float:
    return sum(b > a for a, b in zip(own, other)) / len(own)


hijacked = Check(
    "hijacked",
    _hijacked,
    [([0.5, 1.0, 0.2, 0.7], [0.9, 0.3, 0.2, 0.8]), ([1.0, 0.0], [0.0, 0.0]), ([0.1], [0.2])],
    {
        "a tie counts as hijacked: the other question must be answered *better*": (
            lambda own, other: sum(b >= a for a, b in zip(own, other)) / len(own)
        ),
        "this is the fraction that answers its own question better: swap the two": (
            lambda own, other: _hijacked(other, own)
        ),
        "this is a number of texts: divide by all of them": lambda own, other: (
            len(own) * _hijacked(own, other)
        ),
    },
)
