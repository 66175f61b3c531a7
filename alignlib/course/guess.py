"""A guess before the reveal: what you think will come out, and how sure you are. Lesson 07
scores them all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..judges import NOTHING
from ..report import Metrics
from ..stats import Estimate


@dataclass(frozen=True)
class Guess:
    """A statement about a number yet to be measured, and your probability that it holds (None:
    no guess).
    """

    statement: str
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(
                f"a probability lies between 0 and 1: write 0.7 for 70 %, not {self.probability}"
            )

    def reveal(self, measured: Estimate | None, above: float, metrics: Metrics) -> str:
        """Whether `measured` came out above the mark, and the Brier score of the guess; kept in
        `guesses.json` beside the metrics.
        """
        if measured is None:
            return NOTHING
        holds = measured.value > above
        place = metrics.folder / "guesses.json"
        kept = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        kept[self.statement] = {"probability": self.probability, "holds": holds}
        place.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        outcome = f"{self.statement}: {'yes' if holds else 'no'}, it is {measured}."
        if self.probability is None:
            return f"{outcome} You made no guess."
        brier = (self.probability - holds) ** 2
        return (
            f"{outcome} You gave it {100 * self.probability:.0f} %: Brier score "
            f"{brier:.2f} (0 is perfect, 0.25 is a coin, 1 is sure and wrong)."
        )
