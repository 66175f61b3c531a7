"""Lesson 06's two aims for one model, and the ways to train it: two stages, mixed, in turns, held;
by DPO and by PPO.

The aims are those of `tinytown.oracle`: plain instructions followed to the letter, polite ones
answered as is preferred, warmly and rightly. A perfect policy has both. All methods start from the
same model and get the same rows, TEACH steps on instructions and PREFER on preferences, however
they are arranged.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlib.batching import batches
from alignlib.data import Instruction, Preference
from alignlib.generation import generate
from alignlib.hbat import DPO, PPO, Stage, train_hbat
from alignlib.likelihood import row_nll
from alignlib.models import load_model
from alignlib.ppo import train_ppo
from alignlib.settings import PPOSettings, SFTSettings
from alignlib.tasks import both_styles_model
from alignlib.tinytown.oracle import (
    followed,
    instructions_to_follow,
    manner,
    pairs_to_prefer,
    preference_met,
    reward,
)
from alignlib.tokens import IGNORED, example
from alignlib.train import Penalty, dpo, sft

from . import meet
from .aligner import TINY

TEACH, PREFER, PAIRS = (
    150,
    100,
    16,
)  # steps on instructions, 32 rows each; steps on pairs, so many each
TEACH_RATE = {
    "dpo": 1.5e-4,
    "ppo": 1e-4,
}  # PPO learns from what is said: taught faster, a model may never say anything warm
BETA = 0.5
ROUNDS = 5
ASKED = 300  # new prompts of either kind


# --- rows and marks
# ---------------------------------------------------------------------------------


@cache
def start(task: str, seed: int) -> str:
    """The model that is to learn both aims."""
    return str(both_styles_model(TINY.base, seed)) if task == "manners" else TINY.base


def told(task: str, seed: int) -> tuple[list[Instruction], list[Preference]]:
    """The rows to train on. What is preferred is warmth where one asks politely (`manners`), or,
    as in lesson 05, sound answers (`qa`) or good summaries (`summary`).
    """
    return instructions_to_follow(seed=seed), pairs_to_prefer(
        seed=seed
    ) if task == "manners" else meet.pairs(task, meet.N, seed=seed)


def measured(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str = "manners",
    split: str = "test",
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """On new prompts. Of plain instructions: `instruct`, followed to the letter, `content`,
    right if the manner is taken away, `rouge_l`, and `spilled`, answered warmly at least in
    part. Of preference prompts `preference`: how warmly and rightly, or the judge's mean mark;
    of manners besides `warm` and `right`, either for itself.
    """
    asked = instructions_to_follow(split, n=ASKED)
    pairs = pairs_to_prefer(split, n=ASKED) if task == "manners" else meet.pairs(task, ASKED, split)
    prompts, longest = (
        [r.prompt for r in (*asked, *pairs)],
        [24] * ASKED + [40 if task == "manners" else 100] * ASKED,
    )
    said = generate(
        model, tokenizer, prompts, max_new_tokens=longest, temperature=temperature, seed=seed
    )
    plain, other = said[:ASKED], said[ASKED:]
    scorer = RougeScorer(["rougeL"])
    found = {
        "instruct": followed(asked, plain),
        "content": [manner(text)[0] == r.completion for text, r in zip(plain, asked)],
        "rouge_l": [
            scorer.score(r.completion, text)["rougeL"].fmeasure for text, r in zip(plain, asked)
        ],
        "spilled": [manner(text)[1] > 0 for text in plain],
    }
    if task == "manners":
        found["preference"] = preference_met(pairs, other)
        found["warm"] = [manner(text)[1] for text in other]
        found["right"] = [manner(text)[0] == manner(p.chosen)[0] for text, p in zip(other, pairs)]
    else:
        found["preference"] = meet.scores(task, pairs, other)["overall"]
    return {metric: float(np.mean(scores)) for metric, scores in found.items()}


@contextmanager
def own_cache(seed: int, task: str = "manners") -> Iterator[None]:
    """Stages of recorded runs are not kept: they would be some thousand models. The model that
    they start from is.
    """
    start(task, seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, ALIGNLIB_CACHE=folder),
    ):
        yield


# --- the methods
# ------------------------------------------------------------------------------------


def teach(seed: int, by: str = "dpo") -> SFTSettings:
    return SFTSettings(steps=TEACH, learning_rate=TEACH_RATE[by], seed=seed)


def by_dpo(seed: int, rate: float, pairs: Sequence[Preference]) -> DPO:
    return DPO(SFTSettings(steps=PREFER, batch_size=PAIRS, learning_rate=rate, seed=seed), BETA)


def by_ppo(seed: int, rate: float, pairs: Sequence[Preference]) -> PPO:
    """As many sampled texts as DPO is shown; the reward is what is measured."""
    settings = PPOSettings(
        PREFER,
        batch_size=2 * PAIRS,
        minibatch=2 * PAIRS,
        learning_rate=rate,
        max_new_tokens=24,
        seed=seed,
    )
    return PPO(settings, reward(pairs), "pleased")


LEARNERS: dict[str, Callable[[int, float, Sequence[Preference]], DPO | PPO]] = {
    "dpo": by_dpo,
    "ppo": by_ppo,
}


def mixed(
    base: str,
    instructions: Sequence[Instruction],
    pairs: Sequence[Preference],
    seed: int,
    prefer: DPO | PPO,
    weight: float,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A third of the instructions' steps first; then preferences, to whose loss that of as many
    instructions is added, so many times.
    """
    model, tokenizer = load_model(base)
    rows = [example(tokenizer, r.prompt, r.completion) for r in instructions]
    sampled = isinstance(prefer, PPO)
    sft(
        model,
        tokenizer,
        rows,
        replace(teach(seed, "ppo" if sampled else "dpo"), steps=TEACH - PREFER),
    )
    too = also(model, tokenizer, rows, seed, weight, n=16 if sampled else 32)
    if sampled:
        train_ppo(
            model, tokenizer, [p.prompt for p in pairs], prefer.score, prefer.settings, penalty=too
        )
    else:
        dpo(model, tokenizer, pairs, prefer.settings, beta=prefer.beta, penalty=too)
    return model, tokenizer


def also(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict],
    seed: int,
    weight: float,
    n: int,
) -> Penalty:
    """The loss on n more rows at every step, for the trainer's hook. (PPO takes two steps where
    DPO takes one.)
    """
    order = iter(
        batches([len(r["input_ids"]) for r in rows], SFTSettings(steps=PREFER, seed=seed + 1))
    )

    def loss(policy: PreTrainedModel) -> torch.Tensor:
        picked = [rows[next(order)] for _ in range(n)]
        tokens = sum(label != IGNORED for r in picked for label in r["labels"])
        return weight * row_nll(policy, picked, tokenizer.pad_token_id).sum() / tokens

    return loss


METHODS: dict[str, dict[str, object]] = {  # what `hbat` is given besides
    "two-stage": {"rounds": 1, "strength": 0.0},
    "restarted": {"rounds": ROUNDS, "strength": 0.0, "alternate": False},
    "mixed": {},
    "held": {"rounds": 1},  # EWC without turns
    "in turns": {"rounds": ROUNDS, "strength": 0.0},  # turns without EWC
    "hbat": {"rounds": ROUNDS},
}


def stages(
    method: str,
    seed: int,
    *,
    rate: float,
    by: str = "dpo",
    task: str = "manners",
    teaching: int = 0,
    preferring: int = 0,
    **given: object,
) -> list[Stage]:
    """All stages of a method but `mixed`; by so many steps of either kind, if they are not to be
    as many as usual.
    """
    instructions, pairs = told(task, seed)
    prefer, first = LEARNERS[by](seed, rate, pairs), teach(seed, by)
    if teaching:
        first, prefer = (
            replace(first, steps=teaching),
            replace(prefer, settings=replace(prefer.settings, steps=preferring)),
        )
    return train_hbat(
        start(task, seed),
        instructions,
        pairs,
        first,
        prefer,
        seed=seed,
        progress=False,
        **METHODS[method] | given,
    )


def final_model(
    method: str, seed: int, *, rate: float, by: str = "dpo", task: str = "manners", **given: object
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A method's last model."""
    if method == "mixed":
        instructions, pairs = told(task, seed)
        return mixed(
            start(task, seed), instructions, pairs, seed, LEARNERS[by](seed, rate, pairs), **given
        )
    return load_model(stages(method, seed, rate=rate, by=by, task=task, **given)[-1].folder)
