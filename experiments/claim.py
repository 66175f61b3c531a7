"""A claim: what its record says of it, and the verdict that follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.stats import FORMATS, Estimate

from .hbat import mean_over_seeds

Number = Callable[[dict], Estimate]  # read from a record

HOLDS, DOES_NOT_HOLD, CANNOT_TELL = "holds", "does not hold", "cannot tell"
LEVEL, POWER = 0.05, 0.8
# An effect below this is not worth having. In other units every effect counts.
WORTH = {"rate": 0.05, "difference": 0.05, "points": 5.0, "difference of points": 5.0}


@dataclass(frozen=True)
class Claim:
    """A claim, and the effect in its record that bears it out if it is above zero.

    `sentence` is what a lesson says of it, with {} for the effect or for another number, `shown`.
    A claim without a sentence stands in the ledger only. `headline`: on fresh seeds, rows and
    prompts, and corrected for the number of headlines.
    """

    id: str
    lesson: str
    claim: str
    source: str  # of the claim: a paper's section, or "ours"
    metric: str
    control: str
    record: str
    number: Number
    link: str
    sentence: str = ""
    shown: Number | None = None
    headline: bool = False

    def effect(self) -> Estimate:
        return self.number(read_results(self.record))

    def said(self) -> str:
        """The sentence with its number, rounded to whole units."""
        number = (self.shown or self.number)(read_results(self.record))
        scale, _, unit = FORMATS.get(number.unit, (1, 0, f" {number.unit}"))
        digits = 0 if number.unit in FORMATS else 1 if number.unit == "words" else 2
        tenths = 10**digits
        value = math.floor(number.value * scale * tenths + 0.5) / tenths + 0.0  # never -0
        unit = " point" if unit == " points" and value == 1 else unit
        return self.sentence.format(f"{value:.{digits}f}{unit}".strip())

    def command(self) -> str:
        return f"python -m alignlib sweep {self.record}"


# --- reading a record -----------------------------------------------------------------------------


def level(metric: str, unit: str = "rate", **params: object) -> Number:
    """A metric of the one cell with these parameters."""
    return lambda record: recorded(record, metric, unit, **params)


def minus(metric: str, cell: dict, other: dict, unit: str = "rate") -> Number:
    """A metric of one cell minus that of another one, paired by the seeds that both have."""
    return lambda record: recorded_difference(record, metric, cell, other, unit, shared_seeds=True)


def mean_minus(metrics: Sequence[str], cell: dict, other: dict) -> Number:
    """The mean of several rates of one cell minus that of another one, paired by seed."""

    def difference(record: dict) -> Estimate:
        parts = [[per_seed(record, name, **c) for name in metrics] for c in (cell, other)]
        seeds = parts[0][0].keys() & parts[1][0].keys()
        found, less = ({s: sum(m[s] for m in part) / len(part) for s in seeds} for part in parts)
        return mean_over_seeds({s: found[s] - less[s] for s in sorted(seeds)}, "difference")

    return difference


def within_a_cell(
    metric: str, less: str | float, unit: str = "difference", **params: object
) -> Number:
    """A metric minus another one of the same training, or minus what chance would give."""

    def difference(record: dict) -> Estimate:
        found = per_seed(record, metric, **params)
        if isinstance(less, str):
            base = per_seed(record, less, **params)
        else:
            base = dict.fromkeys(found, less)
        return mean_over_seeds({seed: found[seed] - base[seed] for seed in found}, unit)

    return difference


# --- verdicts -------------------------------------------------------------------------------------


def verdict(effect: Estimate, p: float | None = None) -> str:
    """holds: the interval is above zero, and for a headline the corrected p below LEVEL.

    does not hold: the interval ends below an effect worth having. Else: cannot tell.
    """
    if effect.low > 0 and (p is None or p < LEVEL):
        return HOLDS
    if effect.high < WORTH.get(effect.unit, 0.0):
        return DOES_NOT_HOLD
    return CANNOT_TELL


def p_value(effect: Estimate) -> float:
    """Of a two-sided t test against zero over seeds."""
    from scipy.stats import t

    error = standard_error(effect)
    if error == 0:
        return float(effect.value == 0)
    return float(2 * t.sf(abs(effect.value) / error, effect.n - 1))


def standard_error(effect: Estimate) -> float:
    """From the longer side of the interval: the other may end where the unit does."""
    from scipy.stats import t

    half = max(effect.high - effect.value, effect.value - effect.low)
    return half / float(t.ppf(1 - LEVEL / 2, effect.n - 1))


def smallest_detectable(effect: Estimate, level: float = LEVEL) -> float | None:
    """The true effect that so many seeds, as far apart as these, find with probability POWER.

    None where the seeds agree exactly, which says nothing of how far apart others would be.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    error, freedom = standard_error(effect), effect.n - 1
    if error == 0:
        return None
    needed = t.ppf(1 - level / 2, freedom)
    missed = lambda size: nct.cdf(needed, freedom, size) - (1 - POWER)  # noqa: E731
    return float(brentq(missed, 0.1, 200)) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def ledger_entries(claims: Sequence[Claim]) -> list[dict[str, object]]:
    """The claims as data/results/ledger.json has them."""
    effects = [claim.effect() for claim in claims]
    headlines = [i for i, claim in enumerate(claims) if claim.headline]
    corrected = dict(zip(headlines, holm([p_value(effects[i]) for i in headlines]), strict=True))
    return [
        _entry(claim, effect, corrected.get(i), LEVEL / (len(headlines) if i in corrected else 1))
        for i, (claim, effect) in enumerate(zip(claims, effects, strict=True))
    ]


def _entry(claim: Claim, effect: Estimate, p: float | None, level: float) -> dict[str, object]:
    about = {
        name: getattr(claim, name)
        for name in ("id", "claim", "source", "lesson", "metric", "control")
    }
    number = {name: round(getattr(effect, name), 6) for name in ("value", "low", "high")}
    smallest = smallest_detectable(effect, level)
    return (
        about
        | {"kind": "headline" if claim.headline else "exploratory", "seeds": list(effect.seeds)}
        | number
        | {"unit": effect.unit, "smallest_detectable": smallest and round(smallest, 6)}
        | ({} if p is None else {"p_corrected": float(f"{p:.3g}")})
        | {"verdict": verdict(effect, p), "command": claim.command(), "evidence": claim.link}
        | ({"sentence": claim.said()} if claim.sentence else {})
    )
