"""A guess before a result: what you expect, and how sure you are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..judges import NOTHING
from ..report import Metrics
from ..stats import Estimate


@dataclass(frozen=True)
class Guess:
    """A statement about a result, and your probability that it is true (None: no guess).

    Raises ValueError if the probability is not between 0 and 1.
    """

    statement: str
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(
                f"a probability is between 0 and 1: write 0.7 for 70 %, not {self.probability}"
            )

    def reveal(self, measured: Estimate | None, above: float, metrics: Metrics) -> str:
        """Whether `measured` is above the threshold, and the Brier score of a guess.

        Without a guess it returns "". Where the interval holds the threshold it says that the
        measurement cannot tell. A guess is added to `guesses.json` in the folder of the metrics.
        """
        if self.probability is None:
            return ""
        if measured is None:
            return NOTHING
        if measured.low <= above <= measured.high:
            return f"{self.statement}: these data cannot tell, it is {measured}."
        holds = measured.value > above
        file = metrics.folder / "guesses.json"
        guesses = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        guesses[self.statement] = {"probability": self.probability, "holds": holds}
        file.write_text(json.dumps(guesses, indent=1), encoding="utf-8")
        outcome = f"{self.statement}: {'yes' if holds else 'no'}, it is {measured}."
        brier = (self.probability - holds) ** 2
        return (
            f"{outcome} Your probability was {100 * self.probability:.0f} %: Brier score "
            f"{brier:.2f} (0 is perfect, 0.25 a coin toss, 1 certain and wrong)."
        )
