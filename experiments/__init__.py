"""The experiments that are recorded: what each asks, its cells, and what runs one."""

from __future__ import annotations

from alignlib.course.sweep import Sweep
from alignlib.tinytown import sets
from alignlib.tinytown.pretrain import Recipe

from .aligner import (
    TINY,
    WARMUP_SHARE,
    answering,
    correctable,
    edit_or_rewrite,
    learning,
    warmup,
    warmup_arms,
)
from .baselines import TRIALS, rivals, tuning
from .gates import forgetting, headroom, steer
from .hbat import FACTORS, aims_met, factors, fronts, overhead, pulls
from .hbat import TRIALS as HBAT_TRIALS
from .inside import INSIDE, looking, two_heads
from .meet import BASES, TASKS, base_size, meet_tuning, rivals_of_meet
from .meet import TRIALS as MEET_TRIALS
from .meet_controls import ARMS, FASTER, SIZES, STARTS, several_axes, which_control
from .upstreams import data_amount, dial, every_upstream, hijacked, instructed
from .uses import labels, rounds, stacking, weak_to_strong

N = TINY.corrections
EXPERIMENTS = {
    "warmup": Sweep(
        "How much identity warm-up, at equal steps?",
        [
            {"share": s, "corrections": n}
            for n in (N, 400, 4000)
            for s in (WARMUP_SHARE, 0.0, 0.02, 0.1, 0.5)
        ],
        warmup,
        1.25,
    ),
    "warmup_arms": Sweep(
        "What else might a warm-up be, at equal steps?",
        [{"arm": a} for a in ("corrected words only", "answers alone", "mixed in", "random words")],
        warmup_arms,
        1.25,
    ),
    "correctable": Sweep(
        "When in its pretraining does a model become correctable?",
        [
            {"step": s, "share": w}
            for s in [*Recipe().checkpoints()[1:-1], Recipe().steps]
            for w in (WARMUP_SHARE, 0.0)
        ],
        correctable,
        1.0,
    ),
    "answering": Sweep(
        "Does an Aligner use the answer, or merely answer well?",
        [{"arm": "answering"}],
        answering,
        1.0,
    ),
    "edit_or_rewrite": Sweep(
        "Minimal edits, or rewrites that are as good?",
        [{"corrections": c} for c in ("edits", "rewrites")],
        edit_or_rewrite,
        1.25,
    ),
    "learning": Sweep(
        "What does an Aligner learn with time, and what does it forget?",
        [{"steps": s} for s in (50, 125, 250, 500)],
        learning,
        1.2,
    ),
    "inside": Sweep(
        "Does a warm-up change the mechanism?",
        [{"step": s, "share": w} for s in INSIDE for w in (WARMUP_SHARE, 0.0)],
        two_heads,
        1.3,
    ),
    "looking": Sweep("Probes, silenced heads and steering, over seeds", [{}], looking, 2.0),
    "upstreams": Sweep(
        "Does one Aligner serve every upstream, and how many must it be taught on?",
        [{"taught": k} for k in (3, 0, 1, 2)],
        every_upstream,
        1.5,
    ),
    "dial": Sweep(
        "From which share of faulty answers does an Aligner do good?",
        [{"taught": k, "rate": r} for k in (3, 0) for r in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)],
        dial,
        0.1,
    ),
    "data": Sweep(
        "How many corrections, and how many wrong ones?",
        [{"corrections": n, "wrong": 0.0} for n in (40, 120, 400, N, 4000)]
        + [{"corrections": N, "wrong": w} for w in (0.25, 0.5)],
        data_amount,
        1.2,
    ),
    "tuning": Sweep(
        "Which learning rate for each method?",
        [{"arm": a, "rate": r} for a, rates in TRIALS.items() for r in rates],
        tuning,
        1.5,
        (0,),
    ),
    "rivals": Sweep(
        "What else could be made of the same corrections?",
        [{"arm": a} for a in ("untouched", *TRIALS) if a != "dpo, twice the size"]
        + [{"arm": "comparisons", "n": n} for n in (N, 3 * N)],
        rivals,
        1.7,
    ),
    "weak_to_strong": Sweep(
        "Can a small Aligner teach a larger model?",
        [
            {"arm": a}
            for a in (
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
    "labels": Sweep(
        "Are an Aligner's labels better on the questions that it learned on?", [{}], labels, 2.5
    ),
    "rounds": Sweep(
        "Does it help to correct anew in each round?",
        [{"answers": a} for a in ("fresh", "stale")],
        rounds,
        2.0,
    ),
    "stacking": Sweep("What does a second pass add, and a third?", [{}], stacking, 3.0),
    "hijacked": Sweep(
        "Can an answer take an Aligner over?", [{"shown": s} for s in (False, True)], hijacked, 1.0
    ),
    "instructed": Sweep(
        "Can an Aligner be told what to aim at?",
        [{"told": t} for t in (True, False)],
        instructed,
        1.0,
    ),
    "meet_tuning": Sweep(
        "Which settings for each method of lesson 05?",
        [
            {"task": t, "method": m} | trial
            for t in TASKS
            for m, trials in MEET_TRIALS.items()
            for trial in trials
        ],
        meet_tuning,
        1.1,
        (0,),
    ),
    "rivals_of_meet": Sweep(
        "MEET, and what else can be made of the same pairs",
        [{"task": t} for t in TASKS],
        rivals_of_meet,
        12.0,
        (0, 1, 2, 3, 4),
    ),
    "base_size": Sweep(
        "Does MEET do better on a larger base?", [{"width": w} for w in BASES], base_size, 2.5
    ),  # and an hour of pretraining
    "controls": Sweep(
        "Which control, in which order, from which start?",
        [*SIZES, *ARMS, *STARTS, *FASTER],
        which_control,
        1.2,
    ),
    "several_axes": Sweep(
        "Can axes be asked for one by one, and together?",
        [{"method": m} for m in ("meet, prompt", "meet, lora", "one token")],
        several_axes,
        1.6,
    ),
    "fronts": Sweep(
        "Both aims by DPO: in two stages, mixed, in turns, held",
        [{"method": m, "by": "dpo"} | t for m, some in HBAT_TRIALS["dpo"].items() for t in some],
        fronts,
        0.6,
        (0, 1, 2, 3, 4),
    ),
    "fronts_ppo": Sweep(
        "And by PPO",
        [{"method": m, "by": "ppo"} | t for m, some in HBAT_TRIALS["ppo"].items() for t in some],
        fronts,
        0.7,
    ),
    "aims_met": Sweep(
        "Both aims as models speak more boldly, and on two more tasks",
        [
            {"task": t, "by": "dpo", "method": m}
            for t in ("manners", *TASKS)
            for m in ("two-stage", "mixed", "hbat")
        ],
        aims_met,
        0.9,
    ),
    "factors": Sweep("Which of HBAT's parts does what?", FACTORS, factors, 0.7),
    "overhead": Sweep("What does holding cost?", [{}], overhead, 5.0),
    "pulls": Sweep(
        "Do the two aims pull in opposite directions?",
        [{"method": m} for m in ("restarted", "hbat")],
        pulls,
        1.2,
    ),
    "headroom": Sweep(
        "Which difficulty and how many corrections leave head room?",
        [{"level": level, "corrections": N} for level in range(5)]
        + [{"level": sets.LEVEL, "corrections": n} for n in (250, 4000)],
        headroom,
        1.0,
    ),
    "steer": Sweep(
        "Does a control steer the frozen base both ways?",
        [{"control": c} for c in ("none", "good", "bad")],
        steer,
        0.6,
    ),
    "forgetting": Sweep(
        "Do preferences make the model forget instructions?",
        [{"interference": i, "arm": "then"} for i in (0.0, 0.1, 0.3, 1.0)]
        + [{"interference": 1.0, "arm": "joint"}],
        forgetting,
        0.8,
    ),
}
