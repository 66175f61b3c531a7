"""Two dials between instructions and preferences, and what a perfect policy could have of both.

The preference is for warm answers, with an opener and a closer, over plain ones. Plain instructions
(`sets.instructions`) have one right answer, without either, and no preference data.

contradiction  the share of preference prompts on which an instruction demands the plain answer.
               On those nobody can have both; the front bends.
interference   the share of preference prompts that are instructions politely asked ("instruction :
               please reverse : ..."); the rest are boards. Who reads the one word can have both, so
               the front does not bend: methods can help. But what is learned on politely asked ones
               spills over to plain ones, as `sweep forgetting` measures.
"""

from __future__ import annotations

import random

from ..data import Instruction, Preference
from .answers import CLOSERS, OPENERS, Style, good_answer, render
from .draw import Difficulty, sample_board
from .instructions import sample_instruction
from .sets import LEVEL, row_rng


def warm_pairs(n: int, interference: float, split: str = "train", seed: int = 4) -> list[Preference]:
    """n pairs, warm over plain; both answers are right."""
    return [_warm_pair(row_rng("dials", split, seed, i), interference, split) for i in range(n)]


def _warm_pair(rng: random.Random, interference: float, split: str) -> Preference:
    polite = rng.random() < interference
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
    if polite:
        prompt, answer = sample_instruction(rng, split)
        return Preference(prompt.replace("instruction :", "instruction : please"), f"{opener} {answer} {closer}", answer)
    board = sample_board(rng, split, Difficulty.level(LEVEL))
    warm, plain = (render(good_answer(board, Style(o, c))) for o, c in ((opener, closer), ("", "")))
    return Preference(str(board), warm, plain)


def demonstrations(n: int, interference: float, split: str = "train", seed: int = 5) -> list[Instruction]:
    """n preference prompts answered in either manner: from these, beside plain instructions, a model learns that both occur."""
    pairs = warm_pairs(n, interference, split, seed)
    return [Instruction(p.prompt, row_rng("manner", split, seed, i).choice((p.chosen, p.rejected))) for i, p in enumerate(pairs)]


def contradicting(pairs: list[Preference], contradiction: float, seed: int = 6) -> list[Instruction]:
    """Instructions that demand the rejected answer on this share of the pairs' own prompts."""
    return [Instruction(p.prompt, p.rejected) for p in pairs if row_rng("contradiction", seed, p.prompt).random() < contradiction]


def front(asked: list[Instruction], pairs: list[Preference], points: int = 5) -> list[tuple[float, float]]:
    """(instruction score, preference score) of perfect policies, from all for instructions to all for preferences.

    The instruction score is the share of instructions followed to the letter, the preference score the share of
    pairs answered as chosen. A perfect policy gives each prompt without a conflict what is wanted there.
    """
    demanded = {a.prompt: a.completion for a in asked}
    free = len(asked) - sum(p.prompt in demanded for p in pairs)
    scores = []
    for k in range(points):
        yielding = len(pairs) * k // (points - 1)
        said = [p.chosen if i < yielding else demanded.get(p.prompt, p.chosen) for i, p in enumerate(pairs)]
        followed = free + sum(s == demanded.get(p.prompt) for s, p in zip(said, pairs))
        scores.append((followed / len(asked), sum(s == p.chosen for s, p in zip(said, pairs)) / len(pairs)))
    return scores
