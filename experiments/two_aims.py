"""The two objectives of lesson 06 and the ways to train one model on both, by DPO and by PPO.

The objectives are those of `tinytown.oracle`: plain instructions followed exactly, polite ones
answered in the preferred style, warm and right. A perfect policy meets both. All methods start from
the same model and get the same rows, TEACH steps on instructions and PREFER on preferences.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from unittest import mock

from rouge_score.rouge_scorer import RougeScorer

from alignlib.data import Instruction, Preference
from alignlib.generation import generate
from alignlib.hbat import DPO, PPO, Stage, train_hbat
from alignlib.mixed import train_mixed
from alignlib.models import load_model
from alignlib.settings import PPOSettings, SFTSettings
from alignlib.tinytown.oracle import (
    followed,
    instructions_to_follow,
    manner,
    pairs_to_prefer,
    preference_met,
    reward,
    right_in_any_style,
)
from alignlib.tinytown.task import ROUNDS, both_styles_model

from . import meet_methods
from .common import TINY, LoadedModel, Texts, means

Scores = dict[str, Sequence[float]]

TEACH, PREFER = 150, 100  # steps on 32 instructions each, steps on pairs
PAIRS = 16  # per step
TEACH_RATE = {"dpo": 1.5e-4, "ppo": 1e-4}  # at a higher rate PPO may never sample a warm answer
BETA = 0.5
NUM_PROMPTS = 300  # new prompts for each objective
METHODS: dict[str, dict[str, object]] = {  # options of `train_hbat`; strength 0: no EWC
    "two-stage": {"rounds": 1, "strength": 0.0},
    "restarted": {"rounds": ROUNDS, "strength": 0.0, "alternate": False},
    "mixed": {},
    "held": {"rounds": 1},
    "in turns": {"rounds": ROUNDS, "strength": 0.0},
    "hbat": {"rounds": ROUNDS},
}


@cache
def start_model(task: str, seed: int) -> str:
    """The folder of the model that all methods start from."""
    return str(both_styles_model(TINY.base, seed)) if task == "manners" else TINY.base


def training_rows(task: str, seed: int) -> tuple[list[Instruction], list[Preference]]:
    """Instructions, and pairs that prefer warmth (`manners`) or lesson 05's better texts."""
    if task == "manners":
        pairs = pairs_to_prefer(seed=seed)
    else:
        pairs = meet_methods.pairs(task, meet_methods.NUM_PAIRS, seed=seed)
    return instructions_to_follow(seed=seed), pairs


def evaluate(
    loaded: LoadedModel,
    task: str = "manners",
    split: str = "test",
    drawn: int | None = None,
    **sampling: float,
) -> dict[str, float]:
    """Metrics of both objectives on new prompts, completed greedily by default.

    Prompts are those of the seed `drawn`, or the same for all models.
    """
    instructions, pairs = test_rows(task, split, drawn)
    prompts = [row.prompt for row in (*instructions, *pairs)]
    limits = [24] * NUM_PROMPTS + [40 if task == "manners" else 100] * NUM_PROMPTS
    completions = generate(*loaded, prompts, max_new_tokens=limits, **sampling)
    plain, preferred = completions[:NUM_PROMPTS], completions[NUM_PROMPTS:]
    return means(_instruction_scores(instructions, plain) | _pair_scores(task, pairs, preferred))


def test_rows(
    task: str, split: str = "test", drawn: int | None = None
) -> tuple[list[Instruction], list[Preference]]:
    """New instructions and pairs, drawn by a seed or the same for all."""
    seed = {} if drawn is None else {"seed": drawn}
    instructions = instructions_to_follow(split, n=NUM_PROMPTS, **seed)
    if task == "manners":
        return instructions, pairs_to_prefer(split, n=NUM_PROMPTS, **seed)
    return instructions, meet_methods.pairs(task, NUM_PROMPTS, split, **seed)


def _instruction_scores(rows: Sequence[Instruction], texts: Texts) -> Scores:
    """Followed exactly, right apart from the style, ROUGE-L, and (`spilled`) answered warmly."""
    rouge = RougeScorer(["rougeL"])
    overlaps = [rouge.score(r.completion, text)["rougeL"] for text, r in zip(texts, rows)]
    return {
        "instruct": followed(rows, texts),
        "content": right_in_any_style(rows, texts),
        "rouge_l": [overlap.fmeasure for overlap in overlaps],
        "spilled": [manner(text)[1] > 0 for text in texts],
    }


def _pair_scores(task: str, pairs: Sequence[Preference], texts: Texts) -> Scores:
    """How far texts meet the preference; for `manners` also how warm, and whether right."""
    if task != "manners":
        return {"preference": meet_methods.scores(task, pairs, texts)["overall"]}
    return {
        "preference": preference_met(pairs, texts),
        "warm": [manner(text)[1] for text in texts],
        "right": [manner(text)[0] == manner(p.chosen)[0] for text, p in zip(texts, pairs)],
    }


@contextmanager
def temporary_cache(seed: int, task: str = "manners") -> Iterator[None]:
    """Stages go to a cache that is deleted at the end; the start model stays in the usual one."""
    start_model(task, seed)
    with tempfile.TemporaryDirectory() as cache_folder:
        with mock.patch.dict(os.environ, ALIGNLIB_CACHE=cache_folder):
            yield


def teaching_settings(seed: int, by: str = "dpo") -> SFTSettings:
    return SFTSettings(steps=TEACH, learning_rate=TEACH_RATE[by], seed=seed)


def by_dpo(seed: int, rate: float, pairs: Sequence[Preference]) -> DPO:
    return DPO(SFTSettings(steps=PREFER, batch_size=PAIRS, learning_rate=rate, seed=seed), BETA)


def by_ppo(seed: int, rate: float, pairs: Sequence[Preference]) -> PPO:
    """As many sampled texts as DPO gets; the reward is the metric `preference`."""
    sizes = {"batch_size": 2 * PAIRS, "minibatch": 2 * PAIRS, "max_new_tokens": 24}
    settings = PPOSettings(PREFER, learning_rate=rate, seed=seed, **sizes)
    return PPO(settings, reward(pairs), "pleased")


LEARNERS = {"dpo": by_dpo, "ppo": by_ppo}


def mixed_model(
    seed: int, *, rate: float, weight: float, by: str = "dpo", task: str = "manners"
) -> LoadedModel:
    """A third of the instructions' steps, then preference loss plus weight x instruction loss."""
    rows = training_rows(task, seed)
    methods = teaching_settings(seed, by), LEARNERS[by](seed, rate, rows[1])
    start = start_model(task, seed)
    return train_mixed(start, *rows, *methods, weight=weight, progress=False)


def train_stages(
    method: str,
    seed: int,
    *,
    rate: float,
    by: str = "dpo",
    task: str = "manners",
    steps: tuple[int, int] | None = None,
    **options: object,
) -> list[Stage]:
    """All stages of a method except `mixed`; `steps` on instructions and preferences, if given."""
    instructions, pairs = training_rows(task, seed)
    teach, prefer = teaching_settings(seed, by), LEARNERS[by](seed, rate, pairs)
    if steps:
        teach = replace(teach, steps=steps[0])
        prefer = replace(prefer, settings=replace(prefer.settings, steps=steps[1]))
    start = start_model(task, seed)
    options = METHODS[method] | options | {"seed": seed, "progress": False}
    return train_hbat(start, instructions, pairs, teach, prefer, **options)


def final_model(method: str, seed: int, **trial: object) -> LoadedModel:
    """The model after all of a method's training."""
    if method == "mixed":
        return mixed_model(seed, **trial)
    return load_model(train_stages(method, seed, **trial)[-1].folder)
