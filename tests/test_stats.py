"""Statistics against values known from elsewhere, and figures that show all of them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.container import BarContainer

from alignlib.plots import bars, curves, new_figure
from alignlib.stats import (
    Estimate,
    bootstrap_mean,
    ceiling,
    net_win,
    over_seeds,
    paired,
    prediction_interval,
    rate,
    share_of_ceiling,
)


def test_wilson_against_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    e = rate([True] * 81 + [False] * 182)
    assert (round(e.low, 4), round(e.high, 4)) == (0.2553, 0.3662)
    e = rate([False] * 20)
    assert (round(e.low, 4), round(e.high, 4)) == (0.0, 0.1611)


@pytest.mark.parametrize("n", [1, 60, 80, 300, 400])
def test_an_interval_holds_its_value_at_the_ends_too(n: int) -> None:
    for hits in ([True] * n, [False] * n):
        e = rate(hits)
        assert e.low <= e.value <= e.high


def test_net_win_is_the_papers_and_antisymmetric() -> None:
    before, after = np.zeros(690), np.zeros(690)
    # 224 wins, 146 losses, 320 ties: 11.3 % in the paper's table
    after[:224], after[224:370] = 1, -1
    assert net_win(before, after).value == pytest.approx(11.304, abs=1e-3)
    assert net_win(after, before).value == -net_win(before, after).value
    assert ceiling(np.array([1, 0.5, 0, 1])) == 50


def test_t_interval_over_seeds_by_hand() -> None:
    e = over_seeds([1.0, 2.0, 3.0], "points")  # mean 2, sd 1, t(2) = 4.3027
    assert (e.value, round(e.low, 3), round(e.high, 3)) == (2.0, -0.484, 4.484)
    low, high = prediction_interval([1.0, 2.0, 3.0])
    assert (round(low, 3), round(high, 3)) == (-2.968, 6.968)


@pytest.mark.parametrize(
    ("unit", "values", "low", "high"),
    [
        ("rate", [0.1, 0.5, 0.9], 0, 1),
        ("difference", [0.65, 0.85, 0.98], None, 1),
        ("difference", [-0.65, -0.85, -0.98], -1, None),
        ("difference", [-0.9, 0.0, 0.9], -1, 1),
        ("points", [65, 85, 98], None, 100),
        ("points", [-90, 0, 90], -100, 100),
        ("words", [-300, 0, 300], None, None),  # no limit is known
        ("difference of points", [110, 130, 150], None, None),
        ("difference of points", [110, 190, 200], None, 200),
    ],
)
def test_an_interval_over_seeds_ends_where_the_unit_does(
    unit: str, values: list[float], low: float | None, high: float | None
) -> None:
    e = over_seeds(values, unit)
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
    assert e.low == pytest.approx(e.value - half if low is None else low)
    assert e.high == pytest.approx(e.value + half if high is None else high)
    assert e.low <= e.value <= e.high


def test_bootstrap_covers_like_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 2000)
    e = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert e.low == pytest.approx(values.mean() - half, abs=0.01)
    assert e.high == pytest.approx(values.mean() + half, abs=0.01)


def test_pairing_is_tighter_than_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=500)
    a, b = hard + 0.1, hard
    assert paired(a, b).high - paired(a, b).low < 1e-9


def test_nothing_gives_no_number() -> None:
    for f in (rate, bootstrap_mean):
        with pytest.raises(ValueError, match="no observations"):
            f([])
    with pytest.raises(ValueError, match="at least 2"):
        over_seeds([1.0])


def test_a_tie_is_a_tie_whatever_the_order_of_the_sum() -> None:
    assert net_win(np.array([0.1 + 0.2, 0.3]), np.array([0.3, 0.1 + 0.2])).value == 0


def test_the_fraction_of_the_ceiling_moves_with_both() -> None:
    before = np.array([0.5] * 50 + [1.0] * 50)
    half = share_of_ceiling(before, np.where(np.arange(100) % 2, 1.0, before))
    assert half.value == 0.5 and half.low < 0.5 < half.high < 0.7
    assert share_of_ceiling(before, before).value == 0


def test_a_difference_of_rates_is_printed_in_points() -> None:
    assert str(paired([1, 1], [0, 1])).startswith("50.0 points")


def test_no_line_of_a_figure_is_dropped_or_looks_like_another() -> None:
    series = {f"line {i}": ([0, 1, 2], [i, i, i]) for i in range(20)}
    measured = {
        name: ([0, 1, 2], [Estimate(y, y - 1, y + 1, 3) for y in ys])
        for name, (_, ys) in series.items()
    }
    for drawn in (series, measured):
        _, [ax] = new_figure("many")
        curves(ax, drawn, "x", "y")
        lines = [container.lines[0] for container in ax.containers] or list(ax.lines)
        assert [line.get_ydata()[0] for line in lines] == list(range(20))
        looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
        assert len(looks) == 20 and len(ax.get_legend().get_texts()) == 20
    with pytest.raises(ValueError, match="21 lines"):
        curves(ax, series | {"one more": ([0], [0])}, "x", "y")


def test_no_group_of_bars_looks_like_another_and_missing_ones_leave_their_place_free() -> None:
    _, [ax] = new_figure("many")
    half = Estimate(0.5, 0.4, 0.7, 3)
    bars(ax, {f"group {i}": {"a": half, "b": None if i else half} for i in range(6)}, "%")
    drawn = [c for c in ax.containers if isinstance(c, BarContainer)]
    assert [len(c) for c in drawn] == [2, 1, 1, 1, 1, 1]
    assert {c[0].get_height() for c in drawn} == {50}
    assert len({(c[0].get_facecolor(), c[0].get_hatch()) for c in drawn}) == 6
    low, high = sorted(drawn[0].errorbar.lines[2][0].get_segments()[0][:, 1])
    assert (low, high) == pytest.approx((40, 70))
