"""The headlines of the ledger, on seeds that no setting was chosen on.

A seed draws the training rows, the test prompts and the training. Where a method has several
settings, one rule chooses: the best mean of both aims on the validation prompts of that seed. The
claims are read on the test prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

from alignlib.tinytown import recordings, sets
from alignlib.tinytown.faults import STRANGER

from . import meet_methods
from .aligner import WARMUP_SHARE, compare, evaluate, lesson_rows, train_aligner, without_answers
from .common import TINY, means, sampler, values, with_suffix
from .hbat import Trial, before_preferences, trials
from .meet import KINDS, SAMPLED, tuned
from .meet_methods import preferred_only, train_meet, under_control
from .two_aims import evaluate as evaluate_aims
from .two_aims import final_model, temporary_cache

SEEDS = (20, 21, 22, 23, 24)
FAULT_RATES = (0, 0.02, 0.05, 0.1, 0.2, 0.4)
AIMS: dict[str, tuple[Trial, ...]] = {  # equally many trials, around what seeds 0 to 4 prefer
    "two-stage": trials(4e-5, 6e-5, 8e-5, 1e-4),
    "in turns": trials(1.5e-4, 2e-4, 2.5e-4, 3e-4),
    "mixed": (
        *trials(3e-4, 5e-4, weight=0.03),
        *trials(5e-4, weight=0.1),
        *trials(5e-4, weight=1.0),
    ),
    "hbat": (*trials(1.5e-4, 2e-4, 2.5e-4, strength=0.1), *trials(2e-4, strength=0.03)),
}
CELLS: tuple[dict[str, object], ...] = (
    *({"part": "aligner", "arm": arm} for arm in ("warm-up", "no warm-up", "answers hidden")),
    {"part": "faults"},
    *(
        {"part": "meet", "arm": arm}
        for arm in ("lora", "prompt", "prompt, joint", "preferred texts only")
    ),
    *({"part": "aims", "method": name} | trial for name, some in AIMS.items() for trial in some),
)


def run_cell(params: dict[str, object], seed: int) -> dict[str, float]:
    """One cell of CELLS."""
    return PARTS[str(params["part"])](params, seed)


def _aligner(params: dict, seed: int) -> dict[str, float]:
    """Lesson 02's Aligner, without its warm-up, and without the answers that it corrects."""
    corrections, identity = lesson_rows(seed)
    tests = sets.test_sets(TINY.tests, seed=seed)
    if params["arm"] == "answers hidden":
        blind = train_aligner(0.0, (without_answers(corrections), []), seed)
        return evaluate(blind, tests, blind=True)
    share = WARMUP_SHARE if params["arm"] == "warm-up" else 0.0
    return evaluate(train_aligner(share, (corrections, identity), seed), tests)


def _faults(params: dict, seed: int) -> dict[str, float]:
    """An Aligner trained on three upstreams, on answers with more and more faults."""
    rows = [row for name in recordings.TAUGHT for row in recordings.answered(name, "train")]
    rows = random.Random(seed).sample(rows, TINY.corrections)
    aligner = train_aligner(WARMUP_SHARE, (rows, lesson_rows(seed)[1]), seed)
    metrics = {}
    for rate in FAULT_RATES:
        test = sets.corrections(TINY.tests, "test", rate=rate, upstream=STRANGER, seed=seed)
        comparison = compare(aligner, test)
        found = values(comparison, "before", "net_win")
        metrics[f"faulty/{rate:g}"] = 1 - found["before"]
        metrics[f"net_win/{rate:g}"] = found["net_win"]
    return metrics


def _meet(params: dict, seed: int) -> dict[str, float]:
    """MEET on questions under both of its controls, and fine-tuning on the preferred texts."""
    arm = str(params["arm"])
    rows = meet_methods.pairs("qa", meet_methods.NUM_PAIRS, seed=seed)
    test = meet_methods.pairs("qa", TINY.tests, "test", seed=seed)
    if arm == "preferred texts only":
        complete = {"good": sampler(preferred_only(rows, seed, **tuned("sft")))}
    else:
        kind = arm.partition(",")[0]
        steps = 0 if arm.endswith("joint") else None  # none of them with the model frozen
        settings = tuned(f"meet, {kind}") | {"control_steps": steps}
        meet = train_meet(rows, seed, KINDS[f"meet, {kind}"], **settings)
        complete = {control: under_control(meet, control) for control in ("good", "bad")}
    metrics = {}
    for (control, answer), temperature in product(complete.items(), (0.0, SAMPLED)):
        texts = answer([p.prompt for p in test], temperature, seed)
        scores = meet_methods.scores("qa", test, texts)
        metrics |= means(scores, f"_{temperature:g}_{control}")
    return metrics


def _aims(params: dict, seed: int) -> dict[str, float]:
    """One trial of one method of lesson 06: both aims on validation and on the test."""
    trial = {name: value for name, value in params.items() if name not in ("part", "method")}
    method = str(params["method"])
    with temporary_cache(seed):
        loaded = final_model(method, seed, **trial)
        metrics = {}
        for split in ("validation", "test"):
            metrics |= with_suffix(evaluate_aims(loaded, split=split, drawn=seed), f"_{split}")
        return metrics | before_preferences(method, seed, drawn=seed, **trial)


PARTS: dict[str, Callable[[dict, int], dict[str, float]]] = {
    "aligner": _aligner,
    "faults": _faults,
    "meet": _meet,
    "aims": _aims,
}
