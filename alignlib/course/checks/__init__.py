"""Exercise checks: each says *not attempted*, *ok*, or names the mistake, and hands back something
that works.

    net_win = check.net_win(net_win)

A check holds an attempt against the reference on small cases. Where the two part it looks whether
the attempt does what a well-known mistake does, and says which. What comes back is the attempt if
it is right, and the reference if not, so that the lesson runs on either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]
NOT_ATTEMPTED, OK = "not attempted: it returns nothing yet", "ok"


@dataclass(frozen=True)
class Check:
    """An exercise's reference, the cases it is tried on, and what to say of an attempt that does as
    a known mistake does.

    `through` makes of a function what is held against the reference, where its result alone does
    not tell enough.
    """

    name: str
    reference: Function
    cases: Sequence[tuple[Any, ...]]
    mistakes: Mapping[str, Function]
    through: Callable[[Function], Function] = lambda function: function

    def __call__(self, attempt: Function) -> Function:
        verdict = self.verdict(attempt)
        print(f"{self.name}: {verdict}")
        return attempt if verdict == OK else self.reference

    def verdict(self, attempt: Function) -> str:
        """`not attempted`, `ok`, the mistake, or the first case that comes out wrong."""
        try:
            results = self._results(attempt)
        except NotImplementedError:
            return NOT_ATTEMPTED
        except Exception as error:  # whatever a student's code may raise is for the student to read
            return f"it stops with {type(error).__name__}: {error}"
        if all(r is None or r is Ellipsis for r in results):
            return NOT_ATTEMPTED
        wanted = self._results(self.reference)
        if all(map(_same, results, wanted)):
            return OK
        for message, mistake in self.mistakes.items():
            if all(map(_same, results, self._results(mistake))):
                return message
        k = next(k for k, (r, w) in enumerate(zip(results, wanted)) if not _same(r, w))
        return (
            f"not yet: for {', '.join(map(repr, self.cases[k]))} it gives {results[k]!r}, "
            f"and should give {wanted[k]!r}"
        )

    def _results(self, function: Function) -> list[Any]:
        return [self.through(function)(*deepcopy(case)) for case in self.cases]


def _same(a: Any, b: Any) -> bool:
    """Equal; numbers, and sequences of them, to within rounding."""
    try:
        x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    except (TypeError, ValueError):
        a, b = (v.tolist() if isinstance(v, np.ndarray) else v for v in (a, b))
        return (
            list(a) == list(b)
            if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple))
            else a == b
        )
    return x.shape == y.shape and bool(np.allclose(x, y, atol=1e-6, equal_nan=True))
