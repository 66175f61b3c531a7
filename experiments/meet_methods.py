"""The methods of lesson 05 and the two tasks that they learn.

All methods get the same pairs and the same number of texts: STEPS steps of 32. MEET spends some of
the steps on its controls, with the model frozen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignlib.data import Instruction, Preference
from alignlib.meet import Meet
from alignlib.settings import ControlSettings
from alignlib.styles import texts_by_control
from alignlib.tinytown import sets
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tinytown.summaries import judge_summary
from alignlib.train import dpo

from .common import JUDGE, TINY, LoadedModel, Sampler, fine_tune, sampler, settings_for, swap

Base = str | Path | None  # None: the usual one
Pairs = Sequence[Preference]

NUM_PAIRS, NUM_PROMPTS = 1500, 200  # to train on, to complete
STEPS, CONTROL_STEPS = 250, 75  # in all, and those of them with the model frozen
MISLABELLED = 0.25  # of the training pairs of `summary`
DPO_RATE = 3e-5
BETTER, WORSE = "better", "worse"  # the words of a control that is text


def pairs(
    task: str, n: int, split: str = "train", seed: int = 2, axis: str = "faults"
) -> list[Preference]:
    """Pairs whose prompts end with the cue for the answer.

    The base already summarises well. To leave something to learn, a fraction of the training pairs
    of summaries is swapped.
    """
    source = {"qa": "questions", "summary": "summaries"}[task]
    rows = sets.preferences(n, split, task=source, axis=axis, seed=seed)
    rows = [replace(p, prompt=p.prompt + ANSWER_CUE) for p in rows]
    if task != "summary" or split != "train":
        return rows
    coin = random.Random(seed)
    return [swap(p) if coin.random() < MISLABELLED else p for p in rows]


def scores(task: str, rows: Pairs, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """`overall` in [0, 1], the judge's mean score or ROUGE-L, and `sound`: without a fault."""
    if task == "summary":
        judged = [judge_summary(p.chosen, text) for p, text in zip(rows, texts, strict=True)]
        return {
            "overall": np.array([score["rouge_l"] for score in judged]),
            "sound": np.array([score["exact"] for score in judged]),
        }
    judged = JUDGE.scores([p.prompt.removesuffix(ANSWER_CUE) for p in rows], texts)
    return {"overall": judged["overall"], "sound": judged["fault_free"]}


def train_meet(
    rows: Pairs | dict[str, list[Instruction]],
    seed: int,
    control: ControlSettings,
    controls: float,
    rate: float,
    *,
    control_steps: int | None = None,
    freeze_controls: bool = False,
    base: Base = None,
) -> Meet:
    """MEET on pairs or on texts by control; learning rates of its `controls` and of its model."""
    num_steps = CONTROL_STEPS if control_steps is None else control_steps
    return Meet.train(
        base or TINY.base,
        rows if isinstance(rows, dict) else texts_by_control(rows),
        control=replace(control, seed=seed),
        first=settings_for(num_steps, controls, seed),
        then=settings_for(STEPS - num_steps, rate, seed),
        freeze_controls=freeze_controls,
        progress=False,
    )


def under_control(model: Meet, control: object) -> Sampler:
    """What completes prompts under a control."""
    return lambda prompts, temperature, seed: model.generate(
        prompts, control, max_new_tokens=100, temperature=temperature, seed=seed
    )


def with_meet(control: ControlSettings, rows: Pairs, seed: int, **options: object) -> Sampler:
    return under_control(train_meet(rows, seed, control, **options), "good")


def with_word(prompt: str, word: str) -> str:
    """The prompt with a word before the cue ("... ? better answer :")."""
    return f"{prompt.removesuffix(ANSWER_CUE)} {word}{ANSWER_CUE}"


def chained(rows: Pairs) -> list[tuple[str, str]]:
    """Four rows per pair: each text alone, and each text after the other."""
    chain = []
    for p in rows:
        for word, text, other_word, other in (
            (BETTER, p.chosen, WORSE, p.rejected),
            (WORSE, p.rejected, BETTER, p.chosen),
        ):
            after = f"{with_word(p.prompt, other_word)} {other} {word}{ANSWER_CUE}"
            chain += [(with_word(p.prompt, word), text), (after, text)]
    return chain


def hindsight(rows: Pairs, seed: int, rate: float) -> Sampler:
    """Chain of hindsight (arXiv 2302.02676): controls in words, texts after one another."""
    complete = sampler(fine_tune(TINY.base, chained(rows), settings_for(STEPS, rate, seed)))
    return lambda prompts, temperature, seed: complete(
        [with_word(prompt, BETTER) for prompt in prompts], temperature, seed
    )


def preferred_only(
    rows: Pairs, seed: int, rate: float, half: bool = False, base: Base = None
) -> LoadedModel:
    """A model fine-tuned on the preferred texts, with all or half of the steps."""
    texts = [(p.prompt, p.chosen) for p in rows]
    settings = settings_for(STEPS // 2 if half else STEPS, rate, seed)
    return fine_tune(base or TINY.base, texts, settings)


def with_sft(rows: Pairs, seed: int, rate: float, **options: object) -> Sampler:
    return sampler(preferred_only(rows, seed, rate, **options))


def with_dpo(rows: Pairs, seed: int, beta: float, rate: float) -> Sampler:
    """Half of the steps on the preferred texts, then DPO with half as many pairs per step."""
    loaded = preferred_only(rows, seed, rate, half=True)
    settings = settings_for(STEPS - STEPS // 2, DPO_RATE, seed, batch_size=16)
    dpo(*loaded, rows, settings, beta=beta)
    return sampler(loaded)
