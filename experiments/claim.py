"""A claim: one sentence with one number, read from a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignlib.course.sweep import per_seed
from alignlib.stats import FORMATS, Estimate

from .hbat import mean_over_seeds


@dataclass(frozen=True)
class Claim:
    """A sentence in which {} stands for the number, and where its evidence is.

    The number is above zero with its whole interval, unless the claim is not `clear`.
    """

    id: str
    lesson: str
    sentence: str
    number: Callable[[], Estimate]
    link: str
    clear: bool = True

    def as_dict(self) -> dict[str, object]:
        """The claim as data/claims.json has it; the number in it is rounded to whole units."""
        number = self.number()
        scale, _, unit = FORMATS.get(number.unit, (1, 0, f" {number.unit}"))
        digits = 0 if number.unit in FORMATS else 1 if number.unit == "words" else 2
        text = f"{number.value * scale:.{digits}f}{unit}"
        interval = {"low": number.low, "high": number.high, "unit": number.unit}
        about = {"id": self.id, "lesson": self.lesson, "sentence": self.sentence.format(text)}
        return about | {"number": number.value, **interval, "link": self.link}


def within_a_cell(
    record: dict, metric: str, minus: str, unit: str = "difference", **params: object
) -> Estimate:
    """A metric less another one of the same training, with the t interval over seeds."""
    found, less = (per_seed(record, name, **params) for name in (metric, minus))
    return mean_over_seeds({seed: found[seed] - less[seed] for seed in found}, unit)
