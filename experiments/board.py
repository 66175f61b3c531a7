"""One board for all methods of the course (lesson 07), on one task of Tinytown.

The task has two aims: answer questions without faults, and follow plain instructions. Every method
starts from the base model and trains on what it needs of 1,500 pairs of a better and a worse
answer, and 2,000 instructions. A seed draws rows, prompts and training.

Steps are those of the lessons: 250 of 32 texts for SFT, MEET and the Aligner, 125 of these before
125 of 16 pairs for DPO, 150 of 32 instructions and 100 of 16 pairs for the mixed loss and HBAT, 75
of 32 sampled answers for RLOO, which optimizes the mark `overall` with a penalty for distance of
0.02. The Aligner also reads 2,000 answers without labels in its warm-up. The mixed loss, HBAT and
RLOO choose one of three settings on validation; those of SFT, DPO and MEET were chosen from four in
lesson 05, by the mark alone, and the Aligner and best of n have none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alignlib.aligner import Aligner
from alignlib.data import QAC, Instruction, Preference
from alignlib.hbat import train_hbat
from alignlib.mixed import train_mixed
from alignlib.models import load_model
from alignlib.tinytown.oracle import ANSWER_CUE, followed, instructions_to_follow

from . import meet_methods
from .aligner import WARMUP_SHARE, lesson_rows, stage_settings
from .common import (
    TINY,
    LoadedModel,
    Sampler,
    Texts,
    marks,
    means,
    sampler,
    settings_for,
    train_reward,
    with_suffix,
)
from .meet import KINDS, tuned
from .meet_methods import NUM_PAIRS, under_control
from .two_aims import METHODS as AIM_METHODS
from .two_aims import by_dpo, teaching_settings

CANDIDATES = 8  # of best-of-n
TESTS = 300  # of each aim
RLOO_STEPS, RLOO_PROMPTS, RLOO_SAMPLES = 75, 4, 8  # per step: prompts, and answers to each
REWARD_RATE = 1e-3
TRIALS: dict[str, tuple[dict[str, float], ...]] = {  # those without one have been tuned before
    "mixed": tuple({"rate": rate, "weight": 0.3} for rate in (3e-5, 1e-4, 3e-4)),
    "hbat": tuple({"rate": rate, "strength": 0.1} for rate in (1e-5, 3e-5, 1e-4)),
    "rloo": tuple({"rate": rate} for rate in (1e-4, 3e-4, 1e-3)),
}
TUNED = ("upstream", "sft", "dpo", "meet", "aligner", "best of n")
CELLS = [{"method": method} for method in TUNED]
CELLS += [{"method": method} | trial for method, some in TRIALS.items() for trial in some]


@dataclass(frozen=True)
class Trained:
    """What answers questions, and what follows instructions: often the same model."""

    answer: Sampler
    follow: Sampler


Rows = tuple[list[Preference], list[Instruction]]


def on_the_board(params: dict[str, object], seed: int) -> dict[str, float]:
    """One method: the judge's axes, sampled and greedy, instructions followed, seconds of training.

    Methods with several trials are measured on validation too, to choose by.
    """
    trial = {name: value for name, value in params.items() if name != "method"}
    pairs = meet_methods.pairs("qa", NUM_PAIRS, seed=seed)
    rows = pairs, instructions_to_follow(seed=seed)
    started = time.monotonic()
    trained = TRAIN[str(params["method"])](rows, seed, **trial)
    metrics = {"seconds": time.monotonic() - started}
    for split in ("validation", "test") if trial else ("test",):
        metrics |= with_suffix(_measure(trained, split, seed), f"_{split}")
    return metrics


def _measure(trained: Trained, split: str, seed: int) -> dict[str, float]:
    prompts = [p.prompt for p in meet_methods.pairs("qa", TESTS, split, seed=seed)]
    metrics = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        texts = trained.answer(prompts, temperature, seed)
        metrics |= means(marks(prompts, texts), f"_{name}")
    instructions = instructions_to_follow(split, seed=seed, n=TESTS)
    texts = trained.follow([row.prompt for row in instructions], 0.0, seed)
    return metrics | means({"instructions": followed(instructions, texts)})


def _one(loaded: LoadedModel) -> Trained:
    return Trained(sampler(loaded), sampler(loaded))


def _upstream(rows: Rows, seed: int) -> Trained:
    return _one(load_model(TINY.base))


def _sft(rows: Rows, seed: int) -> Trained:
    return _one(meet_methods.preferred_only(rows[0], seed, **tuned("sft")))


def _dpo(rows: Rows, seed: int) -> Trained:
    answer = meet_methods.with_dpo(rows[0], seed, **tuned("dpo"))
    return Trained(answer, answer)


def _meet(rows: Rows, seed: int) -> Trained:
    meet = meet_methods.train_meet(rows[0], seed, KINDS["meet, lora"], **tuned("meet, lora"))
    return Trained(under_control(meet, "good"), under_control(meet, "good"))


def _aligner(rows: Rows, seed: int) -> Trained:
    """Lesson 02's: the worse answer is corrected into the better one. Instructions bypass it."""
    warmup, settings = stage_settings(WARMUP_SHARE, seed)
    corrections = [QAC(p.prompt.removesuffix(ANSWER_CUE), p.rejected, p.chosen) for p in rows[0]]
    identity = lesson_rows(seed)[1]
    options = {"settings": settings, "warmup": warmup, "progress": False}
    aligner = Aligner.train(TINY.base, corrections, identity, **options)
    upstream = sampler(load_model(TINY.base))

    def answer(prompts: Texts, temperature: float, seed: int) -> list[str]:
        questions = [prompt.removesuffix(ANSWER_CUE) for prompt in prompts]
        answers = upstream(prompts, temperature, seed)
        return aligner.correct(questions, answers, temperature=temperature, seed=seed)

    return Trained(answer, upstream)


def _best_of_n(rows: Rows, seed: int) -> Trained:
    """The best of several sampled answers, by a reward model; greedily there is only one."""
    settings = settings_for(meet_methods.STEPS, REWARD_RATE, seed, batch_size=16)
    reward = train_reward(rows[0], settings)
    upstream = sampler(load_model(TINY.base))

    def answer(prompts: Texts, temperature: float, seed: int) -> list[str]:
        if temperature == 0:
            return upstream(prompts, 0.0, seed)
        sampled = [upstream(prompts, temperature, 100 * seed + i) for i in range(CANDIDATES)]
        best = np.array([reward(prompts, texts) for texts in sampled]).argmax(0)
        return [sampled[k][i] for i, k in enumerate(best)]

    return Trained(answer, upstream)


def _mixed(rows: Rows, seed: int, rate: float, weight: float) -> Trained:
    pairs, instructions = rows
    methods = teaching_settings(seed), by_dpo(seed, rate, pairs)
    given = (TINY.base, instructions, pairs, *methods)
    return _one(train_mixed(*given, weight=weight, progress=False))


def _hbat(rows: Rows, seed: int, rate: float, strength: float) -> Trained:
    pairs, instructions = rows
    methods = teaching_settings(seed), by_dpo(seed, rate, pairs)
    given = (TINY.base, instructions, pairs, *methods)
    options = AIM_METHODS["hbat"] | {"strength": strength, "seed": seed, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        return _one(train_hbat(*given, **options, folder=folder)[-1].load())


def _rloo(rows: Rows, seed: int, rate: float) -> Trained:
    """REINFORCE with the mean of the other answers as baseline, by TRL, on the exact judge."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    model, tokenizer = load_model(TINY.base)

    start = f"{tokenizer.bos_token} "  # TRL leaves it to us

    def judge(prompts: Sequence[str], completions: Sequence[str], **_: object) -> list[float]:
        asked = [prompt.removeprefix(start) for prompt in prompts]
        return marks(asked, completions)["overall"].tolist()

    with tempfile.TemporaryDirectory() as folder:
        settings = RLOOConfig(
            folder,
            max_steps=RLOO_STEPS,
            per_device_train_batch_size=RLOO_PROMPTS * RLOO_SAMPLES,
            num_generations=RLOO_SAMPLES,
            max_completion_length=100,
            learning_rate=rate,
            beta=0.02,
            seed=seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=model.device.type == "cpu",
            bf16=False,
        )
        data = Dataset.from_dict({"prompt": [start + pair.prompt for pair in rows[0]]})
        trainer = RLOOTrainer(
            model, judge, args=settings, train_dataset=data, processing_class=tokenizer
        )
        trainer.train()
    return _one((model.eval(), tokenizer))


TRAIN: dict[str, Callable[..., Trained]] = {
    "upstream": _upstream,
    "sft": _sft,
    "dpo": _dpo,
    "meet": _meet,
    "aligner": _aligner,
    "best of n": _best_of_n,
    "mixed": _mixed,
    "hbat": _hbat,
    "rloo": _rloo,
}
