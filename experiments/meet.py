"""Experiments of lesson 05: MEET and other methods on two tasks, and on bases of other sizes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np

from alignlib.models import load_model
from alignlib.settings import ControlSettings
from alignlib.stats import wins
from alignlib.tinytown.pretrain import Recipe, pretrain_base

from . import meet_methods
from .common import (
    TINY,
    Reward,
    Sampler,
    mean_words,
    means,
    sampler,
    settings_for,
    swap,
    train_reward,
)
from .make_upstreams import WORK
from .meet_methods import pairs, scores

TASKS = ("qa", "summary")
SAMPLED = 1.0  # temperature
TEMPERATURES = {"qa": (0.0, 0.4, 0.8, SAMPLED, 1.2), "summary": (0.0, SAMPLED)}
KINDS = {"meet, prompt": ControlSettings("prompt", 20), "meet, lora": ControlSettings("lora", 8)}
ONE_TOKEN = ControlSettings("prompt", 1)
METHODS: dict[str, Callable[..., Sampler]] = {  # (rows, seed, and a trial; some take a base)
    **{name: partial(meet_methods.with_meet, control) for name, control in KINDS.items()},
    "one token": partial(meet_methods.with_meet, ONE_TOKEN, control_steps=0),
    "hindsight": meet_methods.hindsight,
    "sft": meet_methods.with_sft,
    "dpo": meet_methods.with_dpo,
}
BASELINES: dict[str, Callable[..., Sampler]] = {
    "untouched": lambda rows, seed, base=None: sampler(load_model(base or TINY.base)),
    "sft, half": partial(meet_methods.with_sft, half=True),  # the preferred texts that MEET sees
}

Trial = dict[str, float]
Makers = dict[str, Callable[[], Sampler]]  # by method


def trials(names: tuple[str, str], *settings: tuple[float, float]) -> tuple[Trial, ...]:
    return tuple(dict(zip(names, each, strict=True)) for each in settings)


RATES: tuple[Trial, ...] = tuple({"rate": rate} for rate in (3e-4, 1e-3, 3e-3, 6e-3))
MEET_RATES = ("controls", "rate")  # of the controls, of the model
PROMPT_RATES = trials(MEET_RATES, (5e-2, 1e-3), (5e-2, 3e-3), (1.5e-1, 3e-3), (5e-2, 6e-3))
TRIALS: dict[str, tuple[Trial, ...]] = {  # equally many for each method
    "meet, prompt": PROMPT_RATES,
    "one token": PROMPT_RATES,
    "meet, lora": trials(MEET_RATES, (3e-3, 3e-4), (3e-3, 1e-3), (1e-2, 3e-4), (3e-3, 3e-3)),
    "hindsight": RATES,
    "sft": RATES,
    "dpo": trials(("beta", "rate"), (0.03, 1e-3), (0.1, 1e-3), (0.3, 1e-3), (0.1, 3e-3)),
}
BEST: dict[tuple[str, str], int] = {  # the trial chosen on validation
    ("qa", "meet, prompt"): 0,
    ("qa", "meet, lora"): 0,
    ("qa", "one token"): 1,
    ("qa", "hindsight"): 1,
    ("qa", "sft"): 1,
    ("qa", "dpo"): 1,
    ("summary", "meet, prompt"): 2,
    ("summary", "meet, lora"): 2,
    ("summary", "one token"): 2,
    ("summary", "hindsight"): 2,
    ("summary", "sft"): 3,
    ("summary", "dpo"): 0,
}
BASES = {  # by width
    48: Recipe(hidden=48, layers=2, feed_forward=128, steps=3000),
    80: Recipe(hidden=80, layers=3, feed_forward=208, steps=3000),
}


def tuned(method: str, task: str = "qa") -> Trial:
    return TRIALS[method][BEST[task, method]]


def meet_tuning(params: dict, seed: int) -> dict[str, float]:
    """One trial of one method on validation; the choice is by `overall`."""
    trial = dict(params)
    task, method = trial.pop("task"), trial.pop("method")
    validation = pairs(task, meet_methods.NUM_PROMPTS, "validation")
    complete = METHODS[method](pairs(task, meet_methods.NUM_PAIRS), seed, **trial)
    metrics = {}
    for temperature in (0.0, SAMPLED):
        texts = complete([p.prompt for p in validation], temperature, seed)
        metrics |= means(scores(task, validation, texts), f"_{temperature:g}")
    overall = (metrics["overall_0"] + metrics[f"overall_{SAMPLED:g}"]) / 2
    return metrics | {"overall": overall}


def rivals_of_meet(params: dict, seed: int) -> dict[str, float]:
    """All methods, tuned, on the test of one task; on questions also by other judges."""
    task = params["task"]
    methods = makers((*BASELINES, *METHODS), task, seed)
    if task == "summary":
        return side_by_side(task, methods, seed, TEMPERATURES[task])
    metrics = side_by_side(task, methods, seed, TEMPERATURES[task], other_judges())
    return metrics | judge_habits()


def base_size(params: dict, seed: int) -> dict[str, float]:
    """MEET and simpler methods on questions, from a base of another width, at the usual rates.

    A base that is missing in WORK is pretrained first: record all cells on one machine.
    """
    base = pretrain_base(WORK / f"width-{params['width']}", BASES[params["width"]])
    methods = makers((*BASELINES, *KINDS, "one token", "sft"), "qa", seed, base=base)
    metrics = side_by_side("qa", methods, seed, (0.0, SAMPLED))
    return metrics | {"parameters": load_model(base)[0].num_parameters()}


def makers(methods: Sequence[str], task: str, seed: int, **base: Path) -> Makers:
    """By method: what trains it on a task's pairs, tuned."""
    rows = pairs(task, meet_methods.NUM_PAIRS)
    options = {"untouched": {}, "sft, half": tuned("sft", task)}
    options |= {method: tuned(method, task) for method in methods if method not in options}
    train = BASELINES | METHODS
    return {m: partial(train[m], rows, seed, **options[m], **base) for m in methods}


def side_by_side(
    task: str,
    methods: Makers,
    seed: int,
    temperatures: Sequence[float],
    judges: dict[str, Reward] = {},
) -> dict[str, float]:
    """Scores and words of each method on the test, and the net win of MEET over each.

    Other judges compare the methods at temperature 1 only.
    """
    test = pairs(task, meet_methods.NUM_PROMPTS, "test")
    prompts = [p.prompt for p in test]
    metrics: dict[str, float] = {}
    overall: dict[tuple[str, str], np.ndarray] = {}  # by method, and temperature or judge
    for method, train in methods.items():
        complete = train()
        for temperature in temperatures:
            texts = complete(prompts, temperature, seed)
            judged = scores(task, test, texts)
            metrics |= means(judged, f"_{temperature:g}/{method}")
            metrics[f"words_{temperature:g}/{method}"] = mean_words(texts)
            overall[method, f"{temperature:g}"] = judged["overall"]
            if temperature == SAMPLED:
                overall |= {(method, name): judge(prompts, texts) for name, judge in judges.items()}
    for kind, (method, by) in product(KINDS, overall):
        if method != kind:
            won = wins(overall[method, by], overall[kind, by])
            metrics[f"{kind}_over_{method}_{by}"] = 100 * float(won.mean())
    return metrics


@lru_cache(maxsize=1)
def other_judges() -> dict[str, Reward]:
    """Two reward models and a count of words.

    The models learn from pairs that no method has: two thirds sound against faulty answers, one
    third wordy against terse ones, both sound. Among the latter, the annotator of `fair` prefers
    either, by a coin, and the annotator of `likes length` the wordy one.
    """
    sound = pairs("qa", 2 * meet_methods.NUM_PAIRS // 3, seed=20)
    wordy = pairs("qa", meet_methods.NUM_PAIRS // 3, seed=20, axis="length")
    coin = random.Random(20)
    either = [swap(p) if coin.random() < 0.5 else p for p in wordy]
    settings = settings_for(meet_methods.STEPS, 1e-3, seed=0, batch_size=16)
    return {
        "fair": train_reward(sound + either, settings),
        "likes length": train_reward(sound + wordy, settings),
        "counts words": lambda prompts, texts: np.array([float(len(t.split())) for t in texts]),
    }


def judge_habits() -> dict[str, float]:
    """How often each other judge prefers the better and the wordy text of new pairs."""
    metrics = {}
    for name, axis in (("better", "faults"), ("wordy", "length")):
        rows = pairs("qa", meet_methods.NUM_PROMPTS, "test", seed=20, axis=axis)
        prompts = [p.prompt for p in rows]
        for judge, reward in other_judges().items():
            chosen = reward(prompts, [p.chosen for p in rows])
            rejected = reward(prompts, [p.rejected for p in rows])
            metrics[f"{judge}_prefers_{name}"] = float((chosen > rejected).mean())
    return metrics
