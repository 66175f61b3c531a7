"""Rows of Tinytown: every set that a lesson trains or tests on, by the row, the same on every
machine.

Row i of a set depends on the set's settings and i alone, so a longer set begins with
the shorter one. Splits share no prompt, no layout and no pair of things.
"""

from __future__ import annotations

import random

from ..data import QAC, Instruction, Preference, identity_rows
from .answers import CLOSERS, OPENERS, PHRASES, Style, good_answer, parse, render
from .boards import Board
from .draw import Difficulty, sample_board
from .faults import (
    MIXED,
    STRANGER,
    UNSEEN_COMBINATIONS,
    Upstream,
    contradict,
    rewrite,
    spoil,
    style_of,
)
from .instructions import sample_instruction
from .summaries import SUMMARY_FAULTS, sample_bulletin, spoil_summary
from .words import NEVER_CORRECTED, WORLD_VERSION

LEVEL = 2  # the difficulty of the lessons; the curve behind the choice: data/base/README.md
FAULT_RATE = 0.25
AXES = ("tone", "detail", "length")


def row_rng(*key: object) -> random.Random:
    """A generator of its own for every row: strings seed alike on every machine."""
    return random.Random("/".join(map(str, ("tinytown", WORLD_VERSION, *key))))


def corrections(
    n: int,
    split: str = "train",
    which: str | None = None,
    *,
    seed: int = 0,
    rate: float = FAULT_RATE,
    upstream: Upstream = MIXED,
    level: int = LEVEL,
    language: str = "town",
    combinations: bool = False,
    rewrites: bool = False,
) -> list[QAC]:
    """n rows question, upstream's answer, correction; `faults` names what was wrong.

    `which` words they use (draw.words_for): by default `corrected`, in the other language `all`.
    The correction is minimal, or with `rewrites` an equally good answer in other words.
    With `combinations` only answers that hold an unseen combination of faults are drawn.
    """
    which = which or ("corrected" if language == "town" else "all")
    rows, difficulty, i = [], Difficulty.level(level), 0
    while len(rows) < n:
        rng = row_rng("questions", split, which, language, level, seed, i)
        i += 1
        board = sample_board(rng, split, difficulty, which, language)
        style = style_of(rng, upstream)
        good = good_answer(board, style)
        answer, faults = spoil(rng, board, good, rate, upstream, combinations)
        if combinations and not _is_unseen(faults):
            continue
        correction = rewrite(rng, board, style) if rewrites else render(good)
        rows.append(QAC(str(board), render(answer), correction, faults))
    return rows


def _is_unseen(faults: tuple[str, ...]) -> bool:
    return any(set(pair) <= set(faults) for pair in UNSEEN_COMBINATIONS)


def identity(
    n: int, split: str = "train", which: str = "all", *, seed: int = 1, level: int = LEVEL
) -> list[QAC]:
    """n warm-up rows: any question and any answer, and the answer again. Nobody had to correct
    them.

    Every eighth is in the other language, of which no correction is ever trained on.
    """
    town = iter(corrections(n - n // 8, split, which, seed=seed, level=level))
    other = iter(corrections(n // 8, split, seed=seed, level=level, language="other"))
    return identity_rows([next(other if i % 8 == 7 else town) for i in range(n)])


def one_word_off(
    n: int, split: str = "train", which: str = "corrected", *, seed: int = 5
) -> list[QAC]:
    """n rows whose answer contradicts the board in one word and is otherwise sound; the correction
    puts that word right.

    With `which` words "never" corrected, the wrong word and the right one are such words too, and
    no numbers or steps.
    """
    rows, i = [], 0
    while len(rows) < n:
        rng = row_rng("one word off", split, which, seed, i)
        i += 1
        board = sample_board(rng, split, Difficulty.level(LEVEL), which)
        good = good_answer(board, Style.sample(rng))
        if not (spoilt := contradict(rng, board, good)):
            continue
        answer, correction = render(spoilt), render(good)
        differ = {
            w
            for pair in zip(answer.split(), correction.split())
            if len(set(pair)) == 2
            for w in pair
        }
        if which != "never" or differ <= NEVER_CORRECTED:
            rows.append(QAC(str(board), answer, correction, ("contradict",)))
    return rows


def test_sets(n: int, split: str = "test") -> dict[str, list[QAC]]:
    """n rows each, with answers of an upstream that no correction was made for: on words as in
    training (`seen`), on words never corrected (`unseen`), with `combinations` of faults that
    training keeps apart, and in the other `language`.
    """
    settings: dict[str, dict] = {
        "seen": {},
        "unseen": {"which": "never"},
        "combinations": {"combinations": True},
        "language": {"language": "other"},
    }
    return {
        name: corrections(n, split, upstream=STRANGER, **given) for name, given in settings.items()
    }


def preferences(
    n: int,
    split: str = "train",
    which: str = "all",
    *,
    axis: str = "faults",
    task: str = "questions",
    seed: int = 2,
) -> list[Preference]:
    """n pairs that differ along one axis only: `faults` (sound against spoilt), or for questions
    `tone`, `detail`, `length`.
    """
    if (
        task not in ("questions", "summaries")
        or axis not in ("faults", *AXES)
        or (task == "summaries" and axis != "faults")
    ):
        raise ValueError(
            f"no preferences for task {task!r} along {axis!r}: questions go by faults, "
            f"{', '.join(AXES)}; summaries by faults"
        )
    make = _summary_pair if task == "summaries" else _question_pair
    return [
        make(row_rng("preference", task, axis, split, which, seed, i), split, which, axis)
        for i in range(n)
    ]


def _summary_pair(rng: random.Random, split: str, which: str, axis: str) -> Preference:
    bulletin = sample_bulletin(rng, split, which)
    rejected = spoil_summary(rng, bulletin, rng.choice(SUMMARY_FAULTS))
    return Preference(bulletin.prompt, bulletin.reference, rejected)


def _question_pair(rng: random.Random, split: str, which: str, axis: str) -> Preference:
    while True:
        board = sample_board(rng, split, Difficulty.level(LEVEL), which)
        chosen, rejected = pair_along(rng, board, axis)
        if chosen != rejected:
            return Preference(str(board), chosen, rejected)


def pair_along(rng: random.Random, board: Board, axis: str) -> tuple[str, str]:
    """Two answers alike in all but the axis: warm and plain, detailed and bare, wordy and terse,
    sound and spoilt.
    """
    style = Style.sample(rng)
    good = good_answer(board, style)
    if axis == "faults":
        return render(good), render(spoil(rng, board, good, 0.4)[0])
    if axis == "detail":
        return render(detailed(board, style)), render(good)
    if axis == "tone":
        warm, plain = (
            Style(rng.choice(OPENERS), rng.choice(CLOSERS), style.phrase),
            Style("", "", style.phrase),
        )
    else:
        warm, plain = (
            Style(style.opener, style.closer, p)
            for p in (PHRASES.index("wordy"), PHRASES.index("terse"))
        )
    return render(good_answer(board, warm)), render(good_answer(board, plain))


def detailed(board: Board, style: Style) -> list[tuple]:
    """The good answer and all else the board says of the things asked about."""
    good = good_answer(board, style)
    told = {s[1][:2] for s in good if s[0] == "claim"}
    things = dict.fromkeys(a[1] for a in board.asks if a[0] in ("where", "cost", "who"))
    asks = [(k, t) for t in things for k in ("where", "cost", "who")]
    more = [
        ("claim", a + v, style.phrase)
        for a in asks
        if a not in told and a not in board.asks and (v := board.answer(a))
    ]
    end = len(good) - (good[-1][0] == "closer")
    return good[:end] + more + good[end:]


def axis_score(board: Board, answer: str, axis: str) -> float:
    """How far an answer shows an axis, in [0, 1]: the exact judge of `tone`, `detail` and
    `length`.
    """
    sentences, _ = parse(answer)
    kinds = {s[0] for s in sentences}
    if axis == "tone":
        return (("opener" in kinds) + ("closer" in kinds)) / 2
    if axis == "length":
        phrases = [s[-1] for s in sentences if isinstance(s[-1], int)]
        return sum(phrases) / (2 * len(phrases)) if phrases else 0.0
    full = {s[1] for s in detailed(board, Style()) if s[0] == "claim"}
    return len(full & {s[1] for s in sentences if s[0] == "claim"}) / len(full) if full else 1.0


def instructions(
    n: int, split: str = "train", which: str = "all", *, seed: int = 3
) -> list[Instruction]:
    """n plain instructions, each with its one right answer."""
    return [
        Instruction(
            *sample_instruction(row_rng("instruction", split, which, seed, i), split, which)
        )
        for i in range(n)
    ]
