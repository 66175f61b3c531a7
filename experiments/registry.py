"""The experiments that are recorded: the cells of each, and what runs one."""

from __future__ import annotations

from alignlib.course.sweep import Sweep
from alignlib.tinytown import sets
from alignlib.tinytown.pretrain import Recipe

from . import QUESTIONS, board, coverage, goodhart
from .aligner import TINY, WARMUP_SHARE, correctable, edit_or_rewrite, learning, warmup, warmup_arms
from .baselines import TRIALS, rivals, tuning
from .gates import forgetting, headroom, steer
from .hbat import FACTORS, aims_met, factors, fronts, overhead, pulls
from .hbat import TRIALS as HBAT_TRIALS
from .headlines import CELLS as HEADLINES
from .headlines import SEEDS as HEADLINE_SEEDS
from .headlines import run_cell as run_headline
from .inside import INSIDE, looking, two_heads
from .meet import BASES, TASKS, base_size, meet_tuning, rivals_of_meet
from .meet import TRIALS as MEET_TRIALS
from .meet_controls import ARMS, FASTER, SIZES, STARTS, several_axes, which_control
from .real_aims import TRIALS as AIM_TRIALS
from .real_aims import TUNED, TUNED_ON, aims_of_a_method
from .real_models import ARMS as REAL_ARMS
from .real_models import real_aligner
from .real_styles import COSTS, cost_of_controls, two_axes
from .upstreams import data_amount, dial, every_upstream, hijacked, instructed
from .uses import rounds, stacking, weak_to_strong

N = TINY.corrections


def hbat_cells(by: str) -> list[dict[str, object]]:
    """Every trial of every method, by DPO or by PPO."""
    trials = [(method, trial) for method, some in HBAT_TRIALS[by].items() for trial in some]
    return [{"method": method, "by": by} | trial for method, trial in trials]


DEFINITIONS = {  # cells, what runs one, its minutes, and seeds if they are not the usual three
    "warmup": (
        [
            {"share": fraction, "corrections": number}
            for number in (N, 400, 4000)
            for fraction in (WARMUP_SHARE, 0.0, 0.02, 0.1, 0.5)
        ],
        warmup,
        1.25,
    ),
    "warmup_arms": (
        [
            {"arm": arm}
            for arm in ("corrected words only", "answers alone", "mixed in", "random words")
        ],
        warmup_arms,
        1.25,
    ),
    "correctable": (
        [
            {"step": step, "share": fraction}
            for step in [*Recipe().checkpoints()[1:-1], Recipe().steps]
            for fraction in (WARMUP_SHARE, 0.0)
        ],
        correctable,
        1.0,
    ),
    "edit_or_rewrite": (
        [{"corrections": kind} for kind in ("edits", "rewrites")],
        edit_or_rewrite,
        1.25,
    ),
    "learning": ([{"steps": steps} for steps in (50, 125, 250, 500)], learning, 1.2),
    "inside": (
        [{"step": step, "share": fraction} for step in INSIDE for fraction in (WARMUP_SHARE, 0.0)],
        two_heads,
        1.3,
    ),
    "looking": ([{}], looking, 2.0),
    "upstreams": ([{"taught": number} for number in (3, 0, 1, 2)], every_upstream, 1.5),
    "dial": (
        [
            {"taught": number, "rate": rate}
            for number in (3, 0)
            for rate in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
        ],
        dial,
        0.1,
    ),
    "data": (
        [{"corrections": number, "wrong": 0.0} for number in (40, 120, 400, N, 4000)]
        + [{"corrections": N, "wrong": fraction} for fraction in (0.25, 0.5)],
        data_amount,
        1.2,
    ),
    "tuning": (
        [{"arm": arm, "rate": rate} for arm, rates in TRIALS.items() for rate in rates],
        tuning,
        1.5,
        (0,),
    ),
    "rivals": (
        [{"arm": arm} for arm in ("untouched", *TRIALS) if arm != "dpo, twice the size"]
        + [{"arm": "comparisons", "n": number} for number in (N, 3 * N)],
        rivals,
        1.7,
    ),
    "weak_to_strong": (
        [
            {"arm": arm}
            for arm in (
                "aligner beside it",
                "sft",
                "sft, own answers",
                "sft, annotator",
                "dpo",
                "dpo, coin flips",
            )
        ],
        weak_to_strong,
        2.0,
    ),
    "rounds": ([{"answers": kind} for kind in ("fresh", "stale")], rounds, 2.0),
    "stacking": ([{}], stacking, 3.0),
    "hijacked": ([{"shown": shown} for shown in (False, True)], hijacked, 1.0),
    "instructed": ([{"told": told} for told in (True, False)], instructed, 1.0),
    "meet_tuning": (
        [
            {"task": task, "method": method} | trial
            for task in TASKS
            for method, trials in MEET_TRIALS.items()
            for trial in trials
        ],
        meet_tuning,
        1.1,
        (0,),
    ),
    "rivals_of_meet": ([{"task": task} for task in TASKS], rivals_of_meet, 12.0, (0, 1, 2, 3, 4)),
    "base_size": ([{"width": width} for width in BASES], base_size, 2.5),  # after pretraining
    "controls": ([*SIZES, *ARMS, *STARTS, *FASTER], which_control, 1.2),
    "several_axes": (
        [{"method": method} for method in ("meet, prompt", "meet, lora", "one token")],
        several_axes,
        1.6,
    ),
    "fronts": (hbat_cells("dpo"), fronts, 0.6, (0, 1, 2, 3, 4)),
    "fronts_ppo": (hbat_cells("ppo"), fronts, 0.7),
    "aims_met": (
        [
            {"task": task, "by": "dpo", "method": method}
            for task in ("manners", *TASKS)
            for method in ("two-stage", "mixed", "hbat")
        ],
        aims_met,
        0.9,
    ),
    "factors": (FACTORS, factors, 0.7),
    "overhead": ([{}], overhead, 5.0),
    "pulls": ([{"method": method} for method in ("restarted", "hbat")], pulls, 1.2),
    "headroom": (
        [{"level": level, "corrections": N} for level in range(5)]
        + [{"level": sets.LEVEL, "corrections": number} for number in (250, 4000)],
        headroom,
        1.0,
    ),
    "steer": ([{"control": control} for control in ("none", "good", "bad")], steer, 0.6),
    "forgetting": (
        [{"interference": dial, "arm": "then"} for dial in (0.0, 0.1, 0.3, 1.0)]
        + [{"interference": 1.0, "arm": "joint"}],
        forgetting,
        0.8,
    ),
    "headlines": (HEADLINES, run_headline, 0.9, HEADLINE_SEEDS),
    "coverage": (
        [{"cell": number} for number in range(len(coverage.CELLS))],
        coverage.again,
        1.1,
        coverage.SEEDS,
    ),
    "board": (board.CELLS, board.on_the_board, 0.6),
    "goodhart": ([{"biased": biased} for biased in (True, False)], goodhart.lab, 5.0),
    "everyday": (
        [{"arm": arm, "model": "smollm2, 4 bits"} for arm in REAL_ARMS],
        real_aligner,
        7.0,
    ),
    "everyday_styles": ([{"model": "smollm2, 4 bits"}], two_axes, 12.0),
    "everyday_controls": (
        [{"arm": arm, "model": "smollm2, 4 bits"} for arm in COSTS],
        cost_of_controls,
        4.0,
    ),
    "everyday_aims_tuning": (
        [{"method": method} | trial for method, some in AIM_TRIALS.items() for trial in some],
        aims_of_a_method,
        6.0,
        (TUNED_ON,),
    ),
    "everyday_aims": (
        [{"method": method} | trial for method, trial in TUNED.items()],
        aims_of_a_method,
        6.0,
    ),
}
EXPERIMENTS = {name: Sweep(QUESTIONS[name], *given) for name, given in DEFINITIONS.items()}
