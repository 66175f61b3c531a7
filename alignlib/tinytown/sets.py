"""Rows of Tinytown: every set that a lesson trains or tests on, the same on every machine.

Row i of a set depends only on the set's settings and on i, so a longer set begins with the shorter
one. The splits share no prompt, no layout and no pair of things.
"""

from __future__ import annotations

import random

from ..data import QAC, Instruction, Preference, identity_rows
from .answers import CLOSERS, OPENERS, PHRASES, Sentence, Style, good_answer, parse, render
from .boards import THING_ASKS, Board
from .draw import Difficulty, sample_board
from .faults import MIXED, STRANGER, UNSEEN_COMBINATIONS, Upstream, add_faults, contradict, style_of
from .operations import sample_instruction
from .summaries import SUMMARY_FAULTS, faulty_summary, sample_bulletin
from .words import NEVER_CORRECTED, WORLD_VERSION

LEVEL = 2  # the difficulty of the lessons; data/base/README.md shows why
FAULT_RATE = 0.25
AXES = ("tone", "detail", "length")


def row_rng(*key: object) -> random.Random:
    """The generator of one row. Its seed is a string, which gives the same on every machine."""
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
    """n rows: a question, an upstream's answer with its faults, and the correction.

    `which` selects the words (see `draw.words_for`): by default `corrected`, in the other language
    `all`. The correction is minimal, or with `rewrites` an equally good answer in another style.
    With `combinations` every answer has an unseen combination of faults.
    """
    which = which or ("corrected" if language == "town" else "all")
    difficulty = Difficulty.level(level)
    rows, i = [], 0
    while len(rows) < n:
        rng = row_rng("questions", split, which, language, level, seed, i)
        i += 1
        board = sample_board(rng, split, difficulty, which, language)
        style = style_of(rng, upstream)
        good = good_answer(board, style)
        answer, faults = add_faults(rng, board, good, rate, upstream, combinations)
        if combinations and not any(set(pair) <= set(faults) for pair in UNSEEN_COMBINATIONS):
            continue
        correction = _rewrite(rng, board, style) if rewrites else render(good)
        rows.append(QAC(str(board), render(answer), correction, faults))
    return rows


def _rewrite(rng: random.Random, board: Board, style: Style) -> str:
    """A fault-free answer in a different style throughout, and so not an edit of the answer."""
    opener = rng.choice([o for o in ("", *OPENERS) if o != style.opener])
    closer = rng.choice([c for c in ("", *CLOSERS) if c != style.closer])
    phrase = rng.choice([p for p in range(3) if p != style.phrase])
    return render(good_answer(board, Style(opener, closer, phrase)))


def identity(
    n: int, split: str = "train", which: str = "all", *, seed: int = 1, level: int = LEVEL
) -> list[QAC]:
    """n warm-up rows whose correction is the answer itself. They need no annotator.

    Every eighth is in the other language, in which no correction is ever trained on.
    """
    town = iter(corrections(n - n // 8, split, which, seed=seed, level=level))
    other = iter(corrections(n // 8, split, seed=seed, level=level, language="other"))
    return identity_rows([next(other if i % 8 == 7 else town) for i in range(n)])


def one_word_off(
    n: int, split: str = "train", which: str = "corrected", *, seed: int = 5
) -> list[QAC]:
    """n rows whose answer contradicts the board in one word, which the correction puts right.

    With `which="never"` the wrong word and the right one are never corrected ones, and so neither
    numbers nor steps.
    """
    rows, i = [], 0
    while len(rows) < n:
        rng = row_rng("one word off", split, which, seed, i)
        i += 1
        board = sample_board(rng, split, Difficulty.level(LEVEL), which)
        good = good_answer(board, Style.sample(rng))
        faulty = contradict(rng, board, good)
        if not faulty:
            continue
        answer, correction = render(faulty), render(good)
        pairs = zip(answer.split(), correction.split())
        changed = {word for a, c in pairs if a != c for word in (a, c)}
        if which != "never" or changed <= NEVER_CORRECTED:
            rows.append(QAC(str(board), answer, correction, ("contradict",)))
    return rows


def test_sets(n: int, split: str = "test", seed: int = 0) -> dict[str, list[QAC]]:
    """Four sets of n rows, with answers of an upstream that no training correction is for.

    `seen` has words as in training, `unseen` words never corrected, `combinations` has
    combinations of faults that training does not, and `language` is in the other language.
    """
    settings: dict[str, dict] = {
        "seen": {},
        "unseen": {"which": "never"},
        "combinations": {"combinations": True},
        "language": {"language": "other"},
    }
    return {
        name: corrections(n, split, upstream=STRANGER, seed=seed, **options)
        for name, options in settings.items()
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
    """n pairs that differ along one axis: `faults`, or for questions `tone`, `detail`, `length`.

    Raises ValueError for any other task or axis.
    """
    axes = {"questions": ("faults", *AXES), "summaries": ("faults",)}
    if axis not in axes.get(task, ()):
        raise ValueError(
            f"no preferences for task {task!r} along {axis!r}: choose questions with faults, "
            f"{', '.join(AXES)}, or summaries with faults"
        )
    make = _summary_pair if task == "summaries" else _question_pair
    rngs = (row_rng("preference", task, axis, split, which, seed, i) for i in range(n))
    return [make(rng, split, which, axis) for rng in rngs]


def _summary_pair(rng: random.Random, split: str, which: str, axis: str) -> Preference:
    bulletin = sample_bulletin(rng, split, which)
    rejected = faulty_summary(rng, bulletin, rng.choice(SUMMARY_FAULTS))
    return Preference(bulletin.prompt, bulletin.reference, rejected)


def _question_pair(rng: random.Random, split: str, which: str, axis: str) -> Preference:
    while True:
        board = sample_board(rng, split, Difficulty.level(LEVEL), which)
        chosen, rejected = map(render, _answers_along(rng, board, axis))
        if chosen != rejected:
            return Preference(str(board), chosen, rejected)


def _answers_along(
    rng: random.Random, board: Board, axis: str
) -> tuple[list[Sentence], list[Sentence]]:
    """A chosen and a rejected answer that differ along one axis only."""
    style = Style.sample(rng)
    good = good_answer(board, style)
    if axis == "faults":
        return good, add_faults(rng, board, good, 0.4)[0]
    if axis == "detail":
        return detailed(board, style), good
    if axis == "tone":
        chosen = Style(rng.choice(OPENERS), rng.choice(CLOSERS), style.phrase)
        rejected = Style("", "", style.phrase)
    else:
        chosen = Style(style.opener, style.closer, PHRASES.index("wordy"))
        rejected = Style(style.opener, style.closer, PHRASES.index("terse"))
    return good_answer(board, chosen), good_answer(board, rejected)


def detailed(board: Board, style: Style) -> list[Sentence]:
    """The good answer, and all other facts on the board about the things in its asks."""
    things = dict.fromkeys(a[1] for a in board.asks if a[0] in THING_ASKS)
    asks = [(kind, thing) for thing in things for kind in THING_ASKS]
    facts = [(a, board.answer(a)) for a in asks if a not in board.asks]
    more = [("claim", a + values, style.phrase) for a, values in facts if values]
    good = good_answer(board, Style(style.opener, "", style.phrase))
    return good + more + ([("closer", style.closer)] if style.closer else [])


def axis_score(board: Board, answer: str, axis: str) -> float:
    """The exact score of an answer along `tone`, `detail` or `length`, in [0, 1]."""
    sentences, _ = parse(answer)
    kinds = {s[0] for s in sentences}
    if axis == "tone":
        return (("opener" in kinds) + ("closer" in kinds)) / 2
    if axis == "length":
        phrases = [s[-1] for s in sentences if isinstance(s[-1], int)]
        return sum(phrases) / (2 * len(phrases)) if phrases else 0.0
    wanted = {s[1] for s in detailed(board, Style()) if s[0] == "claim"}
    given = {s[1] for s in sentences if s[0] == "claim"}
    return len(wanted & given) / len(wanted) if wanted else 1.0


def instructions(
    n: int, split: str = "train", which: str = "all", *, seed: int = 3
) -> list[Instruction]:
    """n plain instructions, each with its one correct answer."""
    rngs = (row_rng("instruction", split, which, seed, i) for i in range(n))
    return [Instruction(*sample_instruction(rng, split, which)) for rng in rngs]
