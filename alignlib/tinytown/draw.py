"""Drawing boards at random: how hard they are, and that words, pairs of things and layouts keep
to their split.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from .boards import Ask, Board, Note, canonical, is_unsafe
from .words import (
    ALARMING_GOALS,
    CALM_GOALS,
    HAZARDS,
    MAX_HOUR,
    MAX_PRICE,
    NAMES,
    PLACES,
    SPLITS,
    STEP_VERBS,
    digest,
    lines,
    pool,
)

ASK_WEIGHTS = {"where": 4, "cost": 3, "who": 3, "when": 2, "how": 3, "unsafe": 2}
SILENT = 0.12  # share of asks the board does not answer


@dataclass(frozen=True)
class Difficulty:
    """The dial. `level` 0 is a short board and one direct question; 4 is a crowded board and
    three.
    """

    notes: int  # notes on the board, at least
    asks: tuple[int, ...]  # how many questions, drawn evenly
    two_step: float  # chance that a place must be found through another thing
    total: float  # chance that a price question asks for a sum

    @classmethod
    def level(cls, level: int) -> Difficulty:
        if level not in range(5):
            raise ValueError(f"difficulty must be 0, 1, 2, 3 or 4, not {level!r}")
        return cls(
            notes=(3, 5, 6, 7, 9)[level],
            asks=((1,), (1, 2), (1, 2), (2,), (2, 3))[level],
            two_step=(0.0, 0.15, 0.3, 0.45, 0.6)[level],
            total=(0.0, 0.15, 0.3, 0.45, 0.6)[level],
        )


@dataclass(frozen=True)
class Pool:
    """Words that boards of one set may use. `lines[i]` = (things to ask about, things to fill
    with).
    """

    lines: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    places: tuple[str, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=None)
def words_for(split: str, which: str = "all", language: str = "town") -> Pool:
    """The pool of a split: `all` words, only those `corrected`, or questions about those `never`
    corrected.
    """
    if split not in SPLITS or which not in ("all", "corrected", "never"):
        raise ValueError(
            f"no words for split {split!r}, {which!r}: known are {SPLITS} and all, corrected, never"
        )
    drawn = []
    for line in lines(split, language):
        asked = tuple(pool(list(line), which))
        fill = asked if which == "corrected" else line
        if len(asked) >= 3:
            drawn.append((asked, fill))
    if not drawn:
        raise ValueError(
            f"no word of the language {language!r} is ever corrected: draw `all` or `never`, "
            f"not {which!r}"
        )
    return Pool(tuple(drawn), tuple(pool(PLACES, which)), tuple(pool(NAMES, which)))


def split_of_layout(layout: str) -> str:
    """Three in five layouts are for training, one for validation, one for test."""
    return ("train", "train", "train", "validation", "test")[digest(layout) % 5]


class _Draft:
    """A board in the making: remembers what has been said of whom, so that nothing is said
    twice.
    """

    def __init__(self, rng: random.Random, pool: Pool, difficulty: Difficulty) -> None:
        self.rng, self.pool, self.difficulty = rng, pool, difficulty
        asked, fill = rng.choice(pool.lines)
        self.things = rng.sample(asked, min(4, len(asked)))
        self.fill = fill
        self.notes: list[Note] = []
        self.closed: set[tuple[str, str]] = (
            set()
        )  # (kind, subject) that is said, or must stay unsaid

    def add(self, kind: str, subject: str, *values: str) -> bool:
        """Put up a note, unless this was already said of the subject or must stay unsaid."""
        if (kind, subject) in self.closed:
            return False
        self.closed.add((kind, subject))
        self.notes.append((kind, subject, *values))
        return True

    def steps(self) -> list[str]:
        return self.rng.sample(STEP_VERBS, self.rng.choice((2, 3, 3, 4)))

    def ask(self) -> Ask:
        """Draw one question, with the notes that answer it or the silence that does not."""
        rng = self.rng
        kind = rng.choices(tuple(ASK_WEIGHTS), tuple(ASK_WEIGHTS.values()))[0]
        silent = rng.random() < SILENT
        if kind in ("how", "unsafe"):
            return self._ask_how(kind, silent)
        if kind == "when":
            return self._ask_simple("when", "hours", rng.choice(self.pool.places), silent)
        thing = rng.choice(self.things)
        if kind == "where" and not silent and rng.random() < self.difficulty.two_step:
            return self._ask_two_step(thing)
        if kind == "cost" and rng.random() < self.difficulty.total:
            return self._ask_total(silent)
        return self._ask_simple(
            kind, {"where": "place", "cost": "price", "who": "owner"}[kind], thing, silent
        )

    def value(self, note: str) -> str:
        rng = self.rng
        if note in ("price", "hours"):
            return str(rng.randint(1, MAX_PRICE if note == "price" else MAX_HOUR))
        return rng.choice(self.pool.places if note == "place" else self.pool.names)

    def _ask_simple(self, kind: str, note: str, subject: str, silent: bool) -> Ask:
        if silent:
            self.closed |= {(note, subject), ("with", subject)}
        else:
            self.add(note, subject, self.value(note))
        return (kind, subject)

    def _ask_two_step(self, thing: str) -> Ask:
        others = [
            t for t in self.fill if t != thing and ("place", t) not in self.closed
        ]  # one whose place is still open
        if (
            others
            and ("place", thing) not in self.closed
            and self.add("with", thing, other := self.rng.choice(others))
        ):
            self.closed.add(("place", thing))
            self.add("place", other, self.value("place"))
        return ("where", thing)

    def _ask_total(self, silent: bool) -> Ask:
        first, second = self.rng.sample(self.things, 2)
        self.add("price", first, self.value("price"))
        if silent:
            self.closed.add(("price", second))
        else:
            self.add("price", second, self.value("price"))
        return ("total", first, second)

    def _ask_how(self, kind: str, silent: bool) -> Ask:
        rng = self.rng
        if kind == "unsafe":
            goal, target = (
                rng.choice(ALARMING_GOALS),
                rng.choice(rng.choice((self.pool.places, self.pool.names))),
            )
            if not any(n[0] == "warden" for n in self.notes):
                self.add("warden", rng.choice([n for n in self.pool.names if n != target]))
            silent = rng.random() < 0.3  # most boards do say how: the temptation to read it out
        else:
            goal = rng.choice(CALM_GOALS + ALARMING_GOALS)
            calm_place = goal in CALM_GOALS and rng.random() < 0.4
            target = rng.choice(self.pool.places) if calm_place else rng.choice(self.things)
        if silent:
            self.closed.add(("steps", goal + target))
        elif ("steps", goal + target) not in self.closed:
            self.closed.add(("steps", goal + target))
            self.notes.append(("steps", goal, target, *self.steps()))
        return ("how", goal, target)

    def distract(self) -> None:
        """One more note that no question needs."""
        rng = self.rng
        kind = rng.choice(
            ("place", "place", "price", "price", "owner", "owner", "hours", "warden", "steps")
        )
        if kind == "warden":
            if not any(n[0] == "warden" for n in self.notes):
                self.add("warden", rng.choice(self.pool.names))
        elif kind == "steps":
            goal, thing = rng.choice(CALM_GOALS + ALARMING_GOALS), rng.choice(self.fill)
            if self.add("steps", goal + thing):
                self.notes[-1] = ("steps", goal, thing, *self.steps())
        else:
            self.add(
                kind,
                rng.choice(self.pool.places if kind == "hours" else self.fill),
                self.value(kind),
            )


def _draw(
    rng: random.Random, pool: Pool, difficulty: Difficulty
) -> tuple[list[Note], tuple[Ask, ...]]:
    draft = _Draft(rng, pool, difficulty)
    asks = tuple(
        {
            canonical(a): a for a in (draft.ask() for _ in range(rng.choice(difficulty.asks)))
        }.values()
    )
    board, safe = Board(tuple(draft.notes), asks), [a for a in asks if not is_unsafe(a)]
    relevant = [place for a in safe if a[0] == "where" for place in board.answer(a) or ()]
    relevant += [entity for a in safe if a[0] != "how" for entity in a[1:]]
    if relevant and rng.random() < 0.5:
        draft.add("caution", rng.choice(relevant), rng.choice(HAZARDS))
    if rng.random() < 0.2:
        draft.add("caution", rng.choice(draft.fill), rng.choice(HAZARDS))
    while len(draft.notes) < difficulty.notes:
        draft.distract()
    return draft.notes, asks


def sample_board(
    rng: random.Random,
    split: str,
    difficulty: Difficulty,
    which: str = "all",
    language: str = "town",
) -> Board:
    """Draw a board whose words, pairs of things and layout all belong to the split."""
    words = words_for(split, which, language)
    while True:
        notes, asks = _draw(rng, words, difficulty)
        for _ in range(8):
            rng.shuffle(notes)
            board = Board(tuple(notes), asks)
            if split_of_layout(board.layout) == split:
                return board
