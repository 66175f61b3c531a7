"""Two dials between instructions and preferences, and what a perfect policy could have of both.

The preference is for warm answers, with an opener and a closer, over plain ones. Plain instructions
(`sets.instructions`) have one right answer, without either, and no preference data.

contradiction  the share of preference prompts on which an instruction demands the plain answer.
               On those nobody can have both; the front bends.
interference   the share of preference prompts that are instructions politely asked ("instruction :
               please reverse : ..."); the rest are boards. Who reads the one word can have both, so
               the front does not bend: methods can help. But what is learned on politely asked ones
               spills over to plain ones, as `sweep forgetting` measures.

A model that has never been shown a warm answer to an instruction, nor a plain one, cannot be
moved from one to the other without losing its thread. So both methods and rivals start from one
that was shown both (`either_manner`), and knows either.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..data import Instruction, Preference
from . import sets
from .answers import CLOSERS, OPENERS, Style, good_answer, render
from .draw import Difficulty, sample_board
from .instructions import sample_instruction
from .sets import LEVEL, row_rng

ANSWER_CUE = " answer :"  # what stands between a prompt and its answer


def warm_pairs(
    n: int, interference: float, split: str = "train", seed: int = 4
) -> list[Preference]:
    """n pairs, warm over plain; both answers are right."""
    return [_warm_pair(row_rng("dials", split, seed, i), interference, split) for i in range(n)]


def _warm_pair(rng: random.Random, interference: float, split: str) -> Preference:
    polite = rng.random() < interference
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
    if polite:
        prompt, answer = sample_instruction(rng, split)
        return Preference(
            prompt.replace("instruction :", "instruction : please"),
            f"{opener} {answer} {closer}",
            answer,
        )
    board = sample_board(rng, split, Difficulty.level(LEVEL))
    warm, plain = (render(good_answer(board, Style(o, c))) for o, c in ((opener, closer), ("", "")))
    return Preference(str(board), warm, plain)


def demonstrations(
    n: int, interference: float, split: str = "train", seed: int = 5
) -> list[Instruction]:
    """n preference prompts answered in either manner: from these, beside plain instructions, a
    model learns that both occur.
    """
    pairs = warm_pairs(n, interference, split, seed)
    return [
        Instruction(p.prompt, row_rng("manner", split, seed, i).choice((p.chosen, p.rejected)))
        for i, p in enumerate(pairs)
    ]


def instructions_to_follow(split: str = "train", seed: int = 0, n: int = 2000) -> list[Instruction]:
    """Plain instructions, ready for their answers."""
    return [
        replace(r, prompt=r.prompt + ANSWER_CUE) for r in sets.instructions(n, split, seed=seed)
    ]


def pairs_to_prefer(
    split: str = "train", seed: int = 0, n: int = 1500, interference: float = 1.0
) -> list[Preference]:
    """Pairs, warm over plain, ready for their answers."""
    return [
        replace(p, prompt=p.prompt + ANSWER_CUE)
        for p in warm_pairs(n, interference, split, seed=100 + seed)
    ]


def both_styles(seed: int = 0, n: int = 3000, interference: float = 1.0) -> list[Instruction]:
    """Demonstrations, ready for their answers: what a model is shown before either aim, so that
    it knows both manners.
    """
    return [
        replace(r, prompt=r.prompt + ANSWER_CUE)
        for r in demonstrations(n, interference, seed=200 + seed)
    ]


def manner(text: str) -> tuple[str, float]:
    """A text without its opener and closer, and how many of the two it has, of 1."""
    opener, closer = (
        next((o for o in OPENERS if text.startswith(o)), ""),
        next((c for c in CLOSERS if text.endswith(c)), ""),
    )
    return text.removeprefix(opener).removesuffix(closer).strip(), (bool(opener) + bool(closer)) / 2


def preference_met(pairs: Sequence[Preference], texts: Sequence[str]) -> list[float]:
    """How far each text is what is preferred: nothing if it does not say what the chosen answer
    says, else half a point for an opener, half for a closer. (Warmth alone can be had by
    babbling: a model that is rewarded for no more than that soon does.)
    """
    said = [(*manner(text), manner(p.chosen)[0]) for p, text in zip(pairs, texts, strict=True)]
    return [warm if words == right else 0.0 for words, warm, right in said]


def reward(pairs: Sequence[Preference]) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """`pleased` as PPO wants it: of (prompts, texts), the prompts being those of the pairs."""
    of = {p.prompt: p for p in pairs}
    return lambda prompts, texts: preference_met([of[prompt] for prompt in prompts], texts)


def followed(rows: Sequence[Instruction], texts: Sequence[str]) -> list[bool]:
    """Which instructions were followed to the letter."""
    return [text == r.completion for text, r in zip(texts, rows, strict=True)]


def contradicting(
    pairs: list[Preference], contradiction: float, seed: int = 6
) -> list[Instruction]:
    """Instructions that demand the rejected answer on this share of the pairs' own prompts."""
    return [
        Instruction(p.prompt, p.rejected)
        for p in pairs
        if row_rng("contradiction", seed, p.prompt).random() < contradiction
    ]


def front(
    asked: list[Instruction], pairs: list[Preference], points: int = 5
) -> list[tuple[float, float]]:
    """(instruction score, preference score) of perfect policies, from all for instructions to all
    for preferences.

    The instruction score is the share of instructions followed to the letter, the preference score
    the share of pairs answered as chosen. A perfect policy gives each prompt without a conflict
    what is wanted there.
    """
    demanded = {a.prompt: a.completion for a in asked}
    free = len(asked) - sum(p.prompt in demanded for p in pairs)
    scores = []
    for k in range(points):
        yielding = len(pairs) * k // (points - 1)
        said = [
            p.chosen if i < yielding else demanded.get(p.prompt, p.chosen)
            for i, p in enumerate(pairs)
        ]
        followed = free + sum(s == demanded.get(p.prompt) for s, p in zip(said, pairs))
        scores.append(
            (followed / len(asked), sum(s == p.chosen for s, p in zip(said, pairs)) / len(pairs))
        )
    return scores
