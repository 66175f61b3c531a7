"""Exercise checks: each says ok or names the mistake, and returns a function that works.

    net_win = check.net_win(net_win)

A check compares an attempt with the reference on a few small cases. If the results differ, it
looks for a common mistake with the same results as the attempt and prints its message. It returns
the attempt if that is correct and the reference if not, so the lesson runs either way. While the
stub is untouched it prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]
UNTOUCHED, OK = "", "ok"
NO_RETURN = "it returns nothing: end it with `return` and the result"


@dataclass(frozen=True)
class Check:
    """An exercise: its reference, its cases, and the message of each common mistake.

    `through` wraps a function before it is run on the cases, where its result alone is not enough.
    """

    name: str
    reference: Function
    cases: Sequence[tuple[Any, ...]]
    mistakes: Mapping[str, Function]
    through: Callable[[Function], Function] = lambda function: function

    def __call__(self, attempt: Function) -> Function:
        """Print the verdict. Returns the attempt if it is correct, else the reference."""
        verdict = self.verdict(attempt)
        if verdict != UNTOUCHED:
            print(f"{self.name}: {verdict}")
        return attempt if verdict == OK else self.reference

    def verdict(self, attempt: Function) -> str:
        """UNTOUCHED, OK, the message of a mistake, or the first case with a wrong result."""
        try:
            results = self._results(attempt)
        except NotImplementedError:
            return UNTOUCHED
        except Exception as error:  # whatever a student's code raises, the student should see
            return f"it stops with {type(error).__name__}: {error}"
        if all(r is None or r is Ellipsis for r in results):
            return UNTOUCHED if _is_empty(attempt) else NO_RETURN
        wanted = self._results(self.reference)
        if all(map(_same, results, wanted)):
            return OK
        for message, mistake in self.mistakes.items():
            if all(map(_same, results, self._results(mistake))):
                return message
        k = next(k for k, (r, w) in enumerate(zip(results, wanted)) if not _same(r, w))
        case = ", ".join(map(repr, self.cases[k]))
        return f"not yet: for {case} it returns {results[k]!r}, but should return {wanted[k]!r}"

    def _results(self, function: Function) -> list[Any]:
        return [self.through(function)(*deepcopy(case)) for case in self.cases]


def _stub(): ...


def _is_empty(function: Function) -> bool:
    """Whether the body compiles to no more than that of a stub."""
    code = getattr(function, "__code__", _stub.__code__)
    return len(code.co_code) <= len(_stub.__code__.co_code)


def _same(a: Any, b: Any) -> bool:
    """Whether two results are equal; numbers and sequences of numbers, up to rounding."""
    try:
        x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    except (TypeError, ValueError):
        a, b = (v.tolist() if isinstance(v, np.ndarray) else v for v in (a, b))
        sequences = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple))
        return list(a) == list(b) if sequences else a == b
    return x.shape == y.shape and bool(np.allclose(x, y, atol=1e-6, equal_nan=True))
