"""Do records repeat? The headline metric of 20 recorded cells on two fresh seeds each.

The cells were listed before any of them was run. Of 40 values about 38 should lie within the 95 %
prediction intervals that the records give for one more seed.
"""

from __future__ import annotations

from collections.abc import Callable

from alignlib.course.sweep import per_seed, read_results
from alignlib.stats import prediction_interval
from alignlib.tinytown.pretrain import Recipe

from .aligner import TINY, WARMUP_SHARE, correctable, edit_or_rewrite, learning, warmup, warmup_arms
from .gates import forgetting
from .hbat import BASELINE, factors, fronts
from .inside import looking
from .meet_controls import BOTH_STEPS, several_axes, which_control
from .upstreams import data_amount, dial, every_upstream, hijacked, instructed

SEEDS = (31, 32)
N = TINY.corrections
CELLS: tuple[tuple[str, Callable, dict[str, object], str], ...] = (  # record, run, cell, metric
    ("warmup", warmup, {"share": WARMUP_SHARE, "corrections": N}, "fault_free_seen"),
    ("warmup", warmup, {"share": 0.0, "corrections": N}, "fault_free_unseen"),
    ("warmup_arms", warmup_arms, {"arm": "corrected words only"}, "kept_unseen"),
    ("edit_or_rewrite", edit_or_rewrite, {"corrections": "rewrites"}, "fault_free_seen"),
    ("edit_or_rewrite", edit_or_rewrite, {"corrections": "edits"}, "kept_seen"),
    ("learning", learning, {"steps": 50}, "fault_free_seen"),
    ("learning", learning, {"steps": 500}, "copying"),
    ("correctable", correctable, {"step": Recipe().steps, "share": 0.2}, "fault_free_unseen"),
    ("upstreams", every_upstream, {"taught": 3}, "net_win_overall/mixed"),
    ("dial", dial, {"taught": 3, "rate": 0.2}, "fault_free"),
    ("data", data_amount, {"corrections": 400, "wrong": 0.0}, "fault_free_seen"),
    ("hijacked", hijacked, {"shown": False}, "taken_over_escaped"),
    ("instructed", instructed, {"told": True}, "obeyed_in_question/more polite"),
    ("looking", looking, {}, "surprise"),
    ("controls", which_control, BOTH_STEPS["prompt"], "sound_1_good"),
    ("controls", which_control, BOTH_STEPS["lora"], "sound_1_good"),
    ("several_axes", several_axes, {"method": "meet, lora"}, "tone/tone+"),
    ("fronts", fronts, {"method": "two-stage", "by": "dpo", "rate": 1e-4}, "preference_test"),
    ("factors", factors, BASELINE, "instruct"),
    ("forgetting", forgetting, {"interference": 1.0, "arm": "then"}, "followed_after"),
)


def again(params: dict[str, object], seed: int) -> dict[str, float]:
    """One of CELLS on a fresh seed."""
    _, run, cell, metric = CELLS[int(params["cell"])]
    return {"value": run(cell, seed)[metric]}


def covered() -> list[tuple[str, str, tuple[float, float], list[float]]]:
    """By cell: its record and metric, the prediction interval, the values on the fresh seeds."""
    fresh, rows = read_results("coverage"), []
    for number, (name, _, cell, metric) in enumerate(CELLS):
        values = list(per_seed(read_results(name), metric, **cell).values())
        new = list(per_seed(fresh, "value", cell=number).values())
        rows.append((name, metric, prediction_interval(values), new))
    return rows
