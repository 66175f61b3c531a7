"""Checks of lesson 03: asking each question once, where harm turns into gain, training memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import Check

Upstream = Callable[[list[str]], list[str]]
Ask = Callable[[Upstream, list[str], dict[str, str]], list[str]]


def _ask(upstream: Upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    new = list(dict.fromkeys(q for q in questions if q not in kept))
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


def _crossing(rates: Sequence[float], wins: Sequence[float]) -> float:
    i = _first_win(wins)
    fraction = -wins[i - 1] / (wins[i] - wins[i - 1])
    return rates[i - 1] + fraction * (rates[i] - rates[i - 1])


def _swapped(rates: Sequence[float], wins: Sequence[float]) -> float:
    i = _first_win(wins)
    fraction = wins[i] / (wins[i] - wins[i - 1])
    return rates[i - 1] + fraction * (rates[i] - rates[i - 1])


crossing = Check(
    "crossing",
    _crossing,
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
            lambda r, w: _crossing([r[0], r[-1]], [w[0], w[-1]])
        ),
    },
)


def _bytes_held(trained: float, frozen: float) -> float:
    return 16 * trained + 2 * frozen


bytes_held = Check(
    "bytes_held",
    _bytes_held,
    [(7e9, 0.0), (7e9, 7e9), (1.0, 3.0)],
    {
        "the gradients are missing: add two bytes per trained parameter": lambda t, f: (
            14 * t + 2 * f
        ),
        "four bytes per trained parameter are missing: the copy and both of Adam's averages are "
        "in 32 bits": lambda t, f: 12 * t + 2 * f,
        "the frozen model is missing: add two bytes per parameter": lambda t, f: 16 * t,
        "a frozen model has no gradient, no Adam averages and no copy: count two bytes per "
        "parameter": lambda t, f: 16 * (t + f),
        "these are bits: return bytes": lambda t, f: 8 * _bytes_held(t, f),
    },
)
