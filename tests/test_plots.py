"""Figures: what is drawn is what was measured."""

from __future__ import annotations

import re

import numpy as np

from alignlib.plots import curves, new_figure, show_tokens
from alignlib.stats import Estimate
from alignlib.tinytown.tokenizer import build_tokenizer
from alignlib.tokens import IGNORED, example


def test_curves_of_estimates_are_drawn_at_their_values_with_their_intervals() -> None:
    _, [ax] = new_figure("one")
    measured = [Estimate(0.5, 0.4, 0.7, 3), Estimate(0.6, 0.6, 0.8, 3)]
    curves(ax, {"a": ([1, 2], measured), "b": ([1, 2], [0.1, 0.2])}, "steps", "%", 100)
    line, _, [bars] = ax.containers[0].lines
    assert list(np.round(line.get_ydata(), 9)) == [50, 60] and list(
        np.round(ax.lines[-1].get_ydata(), 9)
    ) == [10, 20]
    assert [list(np.round(bar[:, 1], 9)) for bar in bars.get_segments()] == [[40, 70], [60, 80]]
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"a", "b"}


def test_a_rows_tokens_are_shown_and_those_with_loss_are_marked() -> None:
    tokenizer = build_tokenizer()
    row = example(tokenizer, "where is the lamp ?", "the lamp is <b>")
    page = show_tokens(tokenizer, row).data
    marked = re.findall(r'<span style="background[^>]*>(.*?)</span>', page)
    with_loss = [i for i in row["labels"] if i != IGNORED]
    assert len(marked) == len(with_loss) + 1  # and the legend
    assert len(re.findall("<span", page)) == len(row["input_ids"]) + 1
    assert "lamp" in page and "<b>" not in page
