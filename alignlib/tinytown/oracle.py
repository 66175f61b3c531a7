"""Instructions against preferences, which one model could satisfy both.

The preference is for warm answers, with an opener and a closer, over plain ones. Instructions
(`sets.instructions`) have one correct answer, which is plain, and no preference data.

`interference` is the fraction of preference prompts that are polite instructions ("instruction :
please reverse : ..."); the rest are boards. A policy that heeds the word "please" can satisfy both.
But what a model learns on polite instructions carries over to plain ones.

A model that has seen instructions answered in one style only loses its content when it is moved
to the other. So all methods start from a model that was trained on both (`both_styles`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..data import Instruction, Preference
from . import sets
from .answers import CLOSERS, OPENERS, Style, good_answer, render
from .draw import Difficulty, sample_board
from .operations import sample_instruction
from .sets import LEVEL, row_rng

ANSWER_CUE = " answer :"  # between a prompt and its answer


def warm_pairs(
    n: int, interference: float, split: str = "train", seed: int = 4
) -> list[Preference]:
    """n pairs of a warm and a plain answer, both correct; the warm one is chosen."""
    return [_warm_pair(row_rng("dials", split, seed, i), interference, split) for i in range(n)]


def _warm_pair(rng: random.Random, interference: float, split: str) -> Preference:
    polite = rng.random() < interference
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
    if polite:
        prompt, answer = sample_instruction(rng, split)
        prompt = prompt.replace("instruction :", "instruction : please")
        return Preference(prompt, f"{opener} {answer} {closer}", answer)
    board = sample_board(rng, split, Difficulty.level(LEVEL))
    warm, plain = (render(good_answer(board, s)) for s in (Style(opener, closer), Style()))
    return Preference(str(board), warm, plain)


def demonstrations(
    n: int, interference: float, split: str = "train", seed: int = 5
) -> list[Instruction]:
    """n preference prompts, each with its warm or its plain answer at random."""
    rows = []
    for i, pair in enumerate(warm_pairs(n, interference, split, seed)):
        completion = row_rng("manner", split, seed, i).choice((pair.chosen, pair.rejected))
        rows.append(Instruction(pair.prompt, completion))
    return rows


def _with_cue(rows: list) -> list:
    return [replace(r, prompt=r.prompt + ANSWER_CUE) for r in rows]


def instructions_to_follow(split: str = "train", seed: int = 0, n: int = 2000) -> list[Instruction]:
    """n plain instructions, their prompts ending in ANSWER_CUE."""
    return _with_cue(sets.instructions(n, split, seed=seed))


def pairs_to_prefer(
    split: str = "train", seed: int = 0, n: int = 1500, interference: float = 1.0
) -> list[Preference]:
    """n pairs of a warm and a plain answer, their prompts ending in ANSWER_CUE."""
    return _with_cue(warm_pairs(n, interference, split, seed=100 + seed))


def both_styles(seed: int = 0, n: int = 3000, interference: float = 1.0) -> list[Instruction]:
    """n demonstrations to train a model on both styles, their prompts ending in ANSWER_CUE."""
    return _with_cue(demonstrations(n, interference, seed=200 + seed))


def manner(text: str) -> tuple[str, float]:
    """A text without opener and closer, and its warmth: half a point for each of the two."""
    opener = next((o for o in OPENERS if text.startswith(o)), "")
    closer = next((c for c in CLOSERS if text.endswith(c)), "")
    content = text.removeprefix(opener).removesuffix(closer).strip()
    return content, (bool(opener) + bool(closer)) / 2


def preference_met(pairs: Sequence[Preference], texts: Sequence[str]) -> list[float]:
    """The warmth of each text, in [0, 1], or 0 if its content is not that of the chosen answer.

    Warmth alone would be a bad reward: a policy reaches it with courtesies and babble.
    """
    scores = []
    for pair, text in zip(pairs, texts, strict=True):
        content, warmth = manner(text)
        scores.append(warmth if content == manner(pair.chosen)[0] else 0.0)
    return scores


def reward(pairs: Sequence[Preference]) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """`preference_met` as a reward for PPO: of (prompts, texts), the prompts from the pairs."""
    pair_of = {p.prompt: p for p in pairs}
    return lambda prompts, texts: preference_met([pair_of[prompt] for prompt in prompts], texts)


def followed(rows: Sequence[Instruction], texts: Sequence[str]) -> list[bool]:
    """Whether each text is exactly its instruction's completion."""
    return [text == r.completion for text, r in zip(texts, rows, strict=True)]


def right_in_any_style(rows: Sequence[Instruction], texts: Sequence[str]) -> list[bool]:
    """Whether each text is its instruction's completion, with or without opener and closer."""
    return [manner(text)[0] == r.completion for text, r in zip(texts, rows, strict=True)]
