"""Statistics: the 95 % interval of every number that a lesson prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

Z95 = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations
# by unit: how a value is printed (factor, digits, sign), and its lowest and highest possible value
FORMATS = {
    "rate": (100, 1, " %"),
    "difference": (100, 1, " points"),
    "points": (1, 1, " points"),
    "difference of points": (1, 1, " points"),
}
LIMITS = {
    "rate": (0.0, 1.0),
    "difference": (-1.0, 1.0),
    "points": (-100.0, 100.0),
    "difference of points": (-200.0, 200.0),
}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, as `metrics.json` has it.

    `unit`: "points" (-100..100, net wins), "rate" (0..1), "difference" of two rates (-1..1),
    "difference of points" of two net wins (-200..200), or another named unit. `source`: "live"
    (measured now) or "recorded" (read from data/results).
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = "rate"
    source: str = "live"
    seeds: tuple[int, ...] = ()

    def __str__(self) -> str:
        scale, digits, sign = FORMATS.get(self.unit, (1, 3, f" {self.unit}"))
        value, low, high = (f"{x * scale:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value}{sign} [{low}, {high}]"

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON can hold them."""
        return asdict(self) | {"seeds": list(self.seeds)}

    def seeded(self, *seeds: int) -> Estimate:
        """The same with these training seeds."""
        return replace(self, seeds=seeds)


def rate(hits: Sequence[bool] | np.ndarray) -> Estimate:
    """A fraction with its Wilson score interval. Raises ValueError without observations.

    At 0 of n the upper end is about 3.8 / n (the rule of three, 3 / n, is one-sided).
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
    """A mean over prompts with its percentile bootstrap interval.

    For a difference, pass paired differences. Raises ValueError without observations.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no observations")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, n, (draws, n))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), n, unit)


def bootstrap_groups(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[object],
    unit: str = "rate",
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A mean with a bootstrap interval over groups: values of one group are drawn together.

    For values that share their cause, such as rows with the same phrase. `n` counts the groups.
    """
    values = np.asarray(values, dtype=float)
    _, group_of = np.unique(np.array([str(g) for g in groups]), return_inverse=True)  # (n,)
    sums, sizes = np.bincount(group_of, values), np.bincount(group_of)
    picked = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picked].sum(1) / sizes[picked].sum(1)  # (draws,)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(sums), unit)


def wins(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 for a win, -1 for a loss, 0 for a tie, (n,)."""
    difference = np.asarray(after) - np.asarray(before)
    return np.sign(np.round(difference, 9))  # sums in another order differ in the last digits


def net_win(before: np.ndarray, after: np.ndarray) -> Estimate:
    """100 * (wins - losses) / prompts of `after` over `before`, in points (2402.02416, eq. 5)."""
    return bootstrap_mean(100 * wins(before, after), "points")


def ceiling(before: np.ndarray) -> float:
    """The net win of a perfect corrector, in points: it wins wherever the score is below 1."""
    return 100 * float((np.asarray(before) < 1).mean())


def share_of_ceiling(
    before: np.ndarray, after: np.ndarray, draws: int = 2000, seed: int = 0
) -> Estimate:
    """The net win divided by a perfect corrector's; 1 is perfect, and it may be negative.

    The bootstrap draws prompts, and so both net wins at once.
    """
    won, winnable = wins(before, after), np.asarray(before) < 1
    n = len(won)
    picked = np.random.default_rng(seed).integers(0, n, (draws, n))
    fractions = won[picked].sum(1) / np.maximum(1, winnable[picked].sum(1))  # (draws,)
    low, high = np.percentile(fractions, [2.5, 97.5])
    value = float(won.sum() / winnable.sum())
    return Estimate(value, float(low), float(high), n, "of the ceiling")


def paired(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, unit: str = "difference"
) -> Estimate:
    """Mean of a - b on the same prompts, with its paired bootstrap interval."""
    return bootstrap_mean(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), unit)


def over_seeds(values: Sequence[float], unit: str = "rate", seeds: Sequence[int] = ()) -> Estimate:
    """Mean over training seeds with a t interval: the units are seeds, not prompts.

    The interval ends where the unit does: no rate exceeds 1, no net win 100 points.
    Raises ValueError for fewer than 2 values.
    """
    v = np.asarray(values, dtype=float)
    if len(v) < 2:
        raise ValueError("an interval over seeds needs at least 2 of them")
    mean, half = float(v.mean()), _t_deviation(v) / math.sqrt(len(v))
    lowest, highest = LIMITS.get(unit, (-math.inf, math.inf))
    low, high = max(lowest, mean - half), min(highest, mean + half)
    return Estimate(mean, low, high, len(v), unit, seeds=tuple(seeds))


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more seed falls with probability 95 %, given these (t)."""
    v = np.asarray(values, dtype=float)
    mean, half = float(v.mean()), _t_deviation(v) * math.sqrt(1 + 1 / len(v))
    return mean - half, mean + half


def crossing(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Where the line through points in order of `xs` first passes zero from below.

    Raises ValueError if it does not.
    """
    for i in range(1, len(xs)):
        if ys[i - 1] <= 0 < ys[i]:
            return xs[i - 1] - ys[i - 1] * (xs[i] - xs[i - 1]) / (ys[i] - ys[i - 1])
    raise ValueError(f"the values {[float(y) for y in ys]} never pass zero from below")


def _t_deviation(v: np.ndarray) -> float:
    """The standard deviation times the t quantile of a 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1))
