"""Checks of lesson 03: asking each question once, where harm turns into good, and what a
training holds in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import Check

Ask = Callable[[Callable[[list[str]], list[str]], list[str], dict[str, str]], list[str]]


def _ask(upstream: Callable, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


def _paid_twice(upstream: Callable, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = [q for q in questions if q not in kept]
    kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


def _forgets(upstream: Callable, questions: list[str], kept: dict[str, str]) -> list[str]:
    return _ask(upstream, questions, dict(kept))


def _out_of_order(upstream: Callable, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    known, said = [kept[q] for q in questions if q in kept], upstream(new)
    kept.update(zip(new, said))
    return known + said


def _twice_in_a_row(ask: Ask) -> Callable:
    """What is answered the first time and the second, and all that the upstream was asked for."""

    def run(questions: list[str], kept: dict[str, str]) -> object:
        asked: list[str] = []

        def upstream(some: Sequence[str]) -> list[str]:
            asked.extend(some)
            return [f"it is {q[-3]} ." for q in some]

        first = ask(upstream, questions, kept)
        return (
            [list(first), list(ask(upstream, questions, kept)), sorted(asked)]
            if isinstance(first, (list, tuple))
            else first
        )

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
        "what is kept is asked for again: leave those questions out": lambda u, q, k: u(q),
        "a question that stands there twice is paid for twice": _paid_twice,
        "the new answers are not kept: the next call pays for them again": _forgets,
        "the answers are not in the order of the questions": _out_of_order,
    },
    through=_twice_in_a_row,
)


def _around(rates: Sequence[float], wins: Sequence[float]) -> int:
    return next(i for i, win in enumerate(wins) if win > 0)


def _crossing(rates: Sequence[float], wins: Sequence[float]) -> float:
    i = _around(rates, wins)
    share = -wins[i - 1] / (wins[i] - wins[i - 1])
    return rates[i - 1] + share * (rates[i] - rates[i - 1])


def _exchanged(rates: Sequence[float], wins: Sequence[float]) -> float:
    i = _around(rates, wins)
    share = wins[i] / (wins[i] - wins[i - 1])
    return rates[i - 1] + share * (rates[i] - rates[i - 1])


crossing = Check(
    "crossing",
    _crossing,
    [
        ([0.0, 0.1, 0.2], [-10.0, -2.0, 6.0]),
        ([0.0, 0.5, 1.0], [-5.0, 15.0, 40.0]),
        ([0.1, 0.2, 0.4, 0.8], [-9.0, -8.0, -1.0, 7.0]),
    ],
    {
        "that is the first rate at which it does good: the line to it crosses zero "
        "before": lambda r, w: r[_around(r, w)],
        "that is the last rate at which it does harm: the line from it crosses zero "
        "behind": lambda r, w: r[_around(r, w) - 1],
        "half-way between two rates: the crossing lies nearer to the one whose net win is "
        "nearer to zero": lambda r, w: (r[_around(r, w)] + r[_around(r, w) - 1]) / 2,
        "the two ends are exchanged: a small loss before the crossing means that it is "
        "near": _exchanged,
        "that is where the straight line from the first point to the last crosses: take the "
        "two points around zero": lambda r, w: _crossing([r[0], r[-1]], [w[0], w[-1]]),
    },
)


def _bytes_held(trained: float, frozen: float) -> float:
    return 16 * trained + 2 * frozen


bytes_held = Check(
    "bytes_held",
    _bytes_held,
    [(7e9, 0.0), (7e9, 7e9), (1.0, 3.0)],
    {
        "the gradients are missing: two bytes for each trained parameter": lambda t, f: (
            14 * t + 2 * f
        ),
        "four bytes a trained parameter are missing: three numbers are in 32 bits, the copy "
        "and Adam's two averages": lambda t, f: 12 * t + 2 * f,
        "a frozen model is held too, in two bytes a parameter": lambda t, f: 16 * t,
        "a frozen model has no gradient, no Adam and no second copy": lambda t, f: 16 * (t + f),
        "bytes, not bits": lambda t, f: 8 * (16 * t + 2 * f),
    },
)
