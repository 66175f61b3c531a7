"""Statistics: every number a lesson prints has an interval, and this file is where it comes
from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, as `metrics.json` holds it.

    `unit`: "points" (-100..100, net wins), "rate" (0..1), "difference" of two rates (-1..1), or
    another named unit. `source`: "live" (measured now) or "recorded" (read from data/results).
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = "rate"
    source: str = "live"
    seeds: tuple[int, ...] = ()

    def __str__(self) -> str:
        known = {
            "rate": (100, 1, " %"),
            "difference": (100, 1, " points"),
            "points": (1, 1, " points"),
        }
        scale, digits, sign = known.get(self.unit, (1, 3, f" {self.unit}"))
        v, lo, hi = (x * scale for x in (self.value, self.low, self.high))
        return f"{v:.{digits}f}{sign} [{lo:.{digits}f}, {hi:.{digits}f}]"

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"seeds": list(self.seeds)}

    def seeded(self, *seeds: int) -> Estimate:
        return replace(self, seeds=seeds)


def rate(hits: Sequence[bool] | np.ndarray) -> Estimate:
    """A share with its Wilson score interval; at 0 of n the upper end is about 3.8 / n (rule of
    three: 3 / n, one-sided).
    """
    hits = np.asarray(hits, dtype=float)
    n = len(hits)
    if n == 0:
        raise ValueError("a rate of no observations")
    p = float(hits.mean())
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, unit: str = "rate", draws: int = 2000, seed: int = 0
) -> Estimate:
    """A mean over prompts with its percentile bootstrap interval. For a difference, pass paired
    differences.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no observations")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, n, (draws, n))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), n, unit)


def wins(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 for a win, -1 for a loss, 0 for a tie, also where equal marks were reached by other
    sums.
    """
    return np.sign(np.round(np.asarray(after) - np.asarray(before), 9))


def net_win(before: np.ndarray, after: np.ndarray) -> Estimate:
    """(wins - losses) / all prompts * 100, in points, of `after` over `before` on the same
    prompts (2402.02416, eq. 5).
    """
    return bootstrap_mean(100 * wins(before, after), "points")


def ceiling(before: np.ndarray) -> float:
    """The net win of a perfect corrector, in points: it wins wherever the mark is below 1 and
    ties elsewhere.
    """
    return 100 * float((np.asarray(before) < 1).mean())


def share_of_ceiling(
    before: np.ndarray, after: np.ndarray, draws: int = 2000, seed: int = 0
) -> Estimate:
    """The net win over a perfect corrector's, with a bootstrap over prompts of both together. 1
    is perfect; it may be negative.
    """
    won, room = wins(before, after), np.asarray(before) < 1
    picked = np.random.default_rng(seed).integers(0, len(won), (draws, len(won)))
    low, high = np.percentile(won[picked].sum(1) / np.maximum(1, room[picked].sum(1)), [2.5, 97.5])
    return Estimate(
        float(won.sum() / room.sum()), float(low), float(high), len(won), "of the ceiling"
    )


def paired(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, unit: str = "difference"
) -> Estimate:
    """Mean of a - b on the same prompts, with its paired bootstrap interval."""
    return bootstrap_mean(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), unit)


def over_seeds(values: Sequence[float], unit: str = "rate", seeds: Sequence[int] = ()) -> Estimate:
    """Mean over training seeds with a t interval: seeds are the units, not prompts. Needs at
    least 2. That of a rate ends at 0 and 1.
    """
    from scipy.stats import t

    v = np.asarray(values, dtype=float)
    if len(v) < 2:
        raise ValueError("an interval over seeds needs at least 2 of them")
    half = float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
    low, high = float(v.mean()) - half, float(v.mean()) + half
    if unit == "rate":
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(float(v.mean()), low, high, len(v), unit, seeds=tuple(seeds))


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more seed would fall 95 times in 100, given these (t)."""
    from scipy.stats import t

    v = np.asarray(values, dtype=float)
    half = float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1) * math.sqrt(1 + 1 / len(v)))
    return float(v.mean()) - half, float(v.mean()) + half


def smallest_difference(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """The smallest mean of a - b on these prompts that a paired test would see 4 times in 5,
    given how far the pairs spread.
    """
    spread = (np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).std(ddof=1)
    return (Z95 + 0.8416) * float(spread) / math.sqrt(len(a))
