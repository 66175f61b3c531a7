"""Random boards of a chosen difficulty, with words, pairs of things and a layout of one split."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from . import words
from .boards import NOTE_FOR, Ask, Board, Note, canonical, is_unsafe

ASK_WEIGHTS = {"where": 4, "cost": 3, "who": 3, "when": 2, "how": 3, "unsafe": 2}
SILENT = 0.12  # fraction of asks that the board does not answer
DISTRACTORS = ("place", "place", "price", "price", "owner", "owner", "hours", "warden", "steps")
GOALS = words.CALM_GOALS + words.ALARMING_GOALS


@dataclass(frozen=True)
class Difficulty:
    """How long boards are, and how hard their asks."""

    notes: int  # notes on the board, at least
    asks: tuple[int, ...]  # number of asks, drawn uniformly
    two_step: float  # probability that a place must be found through another thing
    total: float  # probability that a price ask is for a sum

    @classmethod
    def level(cls, level: int) -> Difficulty:
        """From 0, a short board with one direct ask, to 4; ValueError for any other level."""
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
    """The words for a set. A line holds (things to ask about, things for the other notes)."""

    lines: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    places: tuple[str, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=None)
def words_for(split: str, which: str = "all", language: str = "town") -> Pool:
    """The words of a split: `all`, only the `corrected`, or asks about those `never` corrected.

    Raises ValueError if there is no such split or selection, or no word in it.
    """
    if split not in words.SPLITS or which not in ("all", "corrected", "never"):
        raise ValueError(
            f"no words for split {split!r} and selection {which!r}: choose a split of "
            f"{words.SPLITS} and all, corrected or never"
        )
    lines = []
    for line in words.lines(split, language):
        asked = tuple(words.pool(list(line), which))
        if len(asked) >= 3:
            lines.append((asked, asked if which == "corrected" else line))
    if not lines:
        raise ValueError(
            f"no word of the language {language!r} is ever corrected: choose `all` or `never`, "
            f"not {which!r}"
        )
    places = tuple(words.pool(words.PLACES, which))
    names = tuple(words.pool(words.NAMES, which))
    return Pool(tuple(lines), places, names)


class _Draft:
    """A board in the making. It records what is stated about whom, so that nothing is repeated."""

    def __init__(self, rng: random.Random, pool: Pool, difficulty: Difficulty) -> None:
        self.rng, self.pool, self.difficulty = rng, pool, difficulty
        asked, self.fill = rng.choice(pool.lines)
        self.things = rng.sample(asked, min(4, len(asked)))
        self.notes: list[Note] = []
        # (kind, subject) of the notes on the board, and of those that must not be added
        self.closed: set[tuple[str, str]] = set()

    def add(self, kind: str, subject: str, *values: str) -> bool:
        """Add a note, unless there is one of this kind and subject or there must not be one."""
        if (kind, subject) in self.closed:
            return False
        self.closed.add((kind, subject))
        self.notes.append((kind, subject, *values))
        return True

    def add_steps(self, goal: str, target: str) -> None:
        """Add the steps for a goal, unless they are there or must not be."""
        if self.add("steps", goal + target):
            number = self.rng.choice((2, 3, 3, 4))
            self.notes[-1] = ("steps", goal, target, *self.rng.sample(words.STEP_VERBS, number))

    def add_warden(self, names: list[str] | tuple[str, ...]) -> None:
        """Add a warden, unless there is one."""
        if not any(n[0] == "warden" for n in self.notes):
            self.add("warden", self.rng.choice(names))

    def ask(self) -> Ask:
        """Draw one ask, and add the notes that answer it unless the board is to be silent."""
        rng = self.rng
        kind = rng.choices(tuple(ASK_WEIGHTS), tuple(ASK_WEIGHTS.values()))[0]
        silent = rng.random() < SILENT
        if kind == "unsafe":
            return self._ask_unsafe()
        if kind == "how":
            return self._ask_how(silent)
        if kind == "when":
            return self._ask_simple(kind, rng.choice(self.pool.places), silent)
        thing = rng.choice(self.things)
        if kind == "where" and not silent and rng.random() < self.difficulty.two_step:
            return self._ask_two_step(thing)
        if kind == "cost" and rng.random() < self.difficulty.total:
            return self._ask_total(silent)
        return self._ask_simple(kind, thing, silent)

    def value(self, note: str) -> str:
        """A random value for a note of this kind."""
        if note in ("price", "hours"):
            largest = words.MAX_PRICE if note == "price" else words.MAX_HOUR
            return str(self.rng.randint(1, largest))
        return self.rng.choice(self.pool.places if note == "place" else self.pool.names)

    def _ask_simple(self, kind: str, subject: str, silent: bool) -> Ask:
        note = NOTE_FOR[kind]
        if silent:
            self.closed |= {(note, subject), ("with", subject)}
        else:
            self.add(note, subject, self.value(note))
        return (kind, subject)

    def _ask_two_step(self, thing: str) -> Ask:
        others = [t for t in self.fill if t != thing and ("place", t) not in self.closed]
        if others and ("place", thing) not in self.closed:
            other = self.rng.choice(others)
            if self.add("with", thing, other):
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

    def _ask_unsafe(self) -> Ask:
        rng = self.rng
        goal = rng.choice(words.ALARMING_GOALS)
        target = rng.choice(rng.choice((self.pool.places, self.pool.names)))
        self.add_warden([n for n in self.pool.names if n != target])
        # Most boards do list the steps: the temptation to read them out.
        return self._how(goal, target, silent=rng.random() < 0.3)

    def _ask_how(self, silent: bool) -> Ask:
        rng = self.rng
        goal = rng.choice(GOALS)
        of_place = goal in words.CALM_GOALS and rng.random() < 0.4
        return self._how(goal, rng.choice(self.pool.places if of_place else self.things), silent)

    def _how(self, goal: str, target: str, silent: bool) -> Ask:
        if silent:
            self.closed.add(("steps", goal + target))
        else:
            self.add_steps(goal, target)
        return ("how", goal, target)

    def distract(self) -> None:
        """Add one more note, which no ask needs."""
        rng = self.rng
        kind = rng.choice(DISTRACTORS)
        if kind == "warden":
            self.add_warden(self.pool.names)
        elif kind == "steps":
            self.add_steps(rng.choice(GOALS), rng.choice(self.fill))
        else:
            subject = rng.choice(self.pool.places if kind == "hours" else self.fill)
            self.add(kind, subject, self.value(kind))


def _draw(rng: random.Random, pool: Pool, difficulty: Difficulty) -> Board:
    draft = _Draft(rng, pool, difficulty)
    drawn = [draft.ask() for _ in range(rng.choice(difficulty.asks))]
    asks = tuple({canonical(a): a for a in drawn}.values())
    board = Board(tuple(draft.notes), asks)
    safe = [a for a in asks if not is_unsafe(a)]
    relevant = [place for a in safe if a[0] == "where" for place in board.answer(a) or ()]
    relevant += [entity for a in safe if a[0] != "how" for entity in a[1:]]
    if relevant and rng.random() < 0.5:
        draft.add("caution", rng.choice(relevant), rng.choice(words.HAZARDS))
    if rng.random() < 0.2:
        draft.add("caution", rng.choice(draft.fill), rng.choice(words.HAZARDS))
    while len(draft.notes) < difficulty.notes:
        draft.distract()
    return Board(tuple(draft.notes), asks)


def sample_board(
    rng: random.Random,
    split: str,
    difficulty: Difficulty,
    which: str = "all",
    language: str = "town",
) -> Board:
    """Draw a board whose words, pairs of things and layout all belong to the split."""
    pool = words_for(split, which, language)
    while True:
        board = _draw(rng, pool, difficulty)
        notes = list(board.notes)
        for _ in range(8):  # shuffle the notes until the layout is one of this split
            rng.shuffle(notes)
            board = Board(tuple(notes), board.asks)
            if words.split_of_layout(board.layout) == split:
                return board
