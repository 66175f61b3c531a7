"""Two dials between instructions and preferences, and what a perfect policy could have of both.

contradiction  the share of preference prompts for which an instruction demands what the
               preference rejects. On those nobody can have both; the front bends.
interference   the share of preference pairs that reward a manner, warm and wordy, on prompts of
               their own, where plain instructions want few words; the rest set sound answers against
               spoilt ones. Both can be had, so the front does not bend: methods can help. What it
               costs the instructions is measured by `sweep forgetting`.
"""

from __future__ import annotations

from ..data import Instruction, Preference
from .answers import CLOSERS, OPENERS, Style, good_answer, render
from .draw import Difficulty, sample_board
from .sets import LEVEL, instructions, pair_along, row_rng


def contradicting_rows(
    n: int, contradiction: float, interference: float, split: str = "train", seed: int = 4
) -> tuple[list[Instruction], list[Preference]]:
    """n plain instructions and n on the preference prompts; and n preference pairs, under the two dials (each in [0, 1])."""
    asked, pairs = [], []
    for i in range(n):
        rng = row_rng("dials", split, seed, i)
        mannered, chosen, rejected = rng.random() < interference, "", ""
        while chosen == rejected:
            board = sample_board(rng, split, Difficulty.level(LEVEL))
            chosen, rejected = _mannered(rng, board) if mannered else pair_along(rng, board, "faults")
        contradicts = rng.random() < contradiction
        pairs.append(Preference(str(board), chosen, rejected))
        asked.append(Instruction(str(board), rejected if contradicts else chosen))
    return instructions(n, split, seed=seed) + asked, pairs


def _mannered(rng, board) -> tuple[str, str]:
    """Warm and wordy against plain and terse; both without a fault."""
    warm = Style(rng.choice(OPENERS), rng.choice(CLOSERS), 2)
    return render(good_answer(board, warm)), render(good_answer(board, Style("", "", 0)))


def front(asked: list[Instruction], pairs: list[Preference], points: int = 5) -> list[tuple[float, float]]:
    """(instruction score, preference score) of perfect policies, from all for instructions to all for preferences.

    The instruction score is the share of instructions followed to the letter, the preference score the
    share of pairs answered as chosen. A perfect policy follows every instruction that has no pair.
    """
    wanted = {a.prompt: a.completion for a in asked}
    paired = {p.prompt for p in pairs}
    free = sum(a.prompt not in paired for a in asked)
    scores = []
    for k in range(points):
        for_preference = len(pairs) * k // (points - 1)
        answers = [p.chosen if i < for_preference else wanted[p.prompt] for i, p in enumerate(pairs)]
        followed = free + sum(a == wanted[p.prompt] for a, p in zip(answers, pairs))
        preferred = sum(a == p.chosen for a, p in zip(answers, pairs))
        scores.append((followed / len(asked), preferred / len(pairs)))
    return scores
