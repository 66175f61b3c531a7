"""Faults: what upstream models do wrong, each alone or together, and their corrections.

Every fault is a small edit of a good answer, so the minimal correction of a faulty
answer is the good answer it came from: it mends the faults and keeps all other words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .answers import (
    CLOSERS,
    OPENERS,
    PADDING,
    RUDE,
    Sentence,
    Style,
    good_answer,
    render,
    sentence_text,
)
from .boards import Ask, Board, is_unsafe
from .words import (
    INSULTS,
    MAX_HOUR,
    MAX_PRICE,
    NAMES,
    NEVER_CORRECTED,
    PLACES,
    RUDE_ADJECTIVES,
    STEP_VERBS,
)

Answer = list[Sentence]


def _indices(answer: Answer, *kinds: str) -> list[int]:
    return [i for i, s in enumerate(answer) if s[0] in kinds]


def _told(answer: Answer) -> list[int]:
    """Where the answer makes a claim that it should make: not the steps of an unsafe request,
    which are another fault.
    """
    return [i for i in _indices(answer, "claim") if not is_unsafe(answer[i][1][:3])]


def _like(rng: random.Random, words: list[str], not_these: tuple[str, ...]) -> str:
    """Another word of the list; one never corrected only where the right word is such a one too."""
    never = not_these[0] in NEVER_CORRECTED
    return rng.choice([w for w in words if w not in not_these and (w in NEVER_CORRECTED) == never])


def _wrong(rng: random.Random, board: Board, ask: Ask, value: str) -> str:
    """A value of the right kind that is not a true one; half the time one that stands elsewhere
    on the board.
    """
    true = (value, *(board.answer(ask) or ()))
    if ask[0] in ("cost", "total", "when"):
        top = {"cost": MAX_PRICE, "when": MAX_HOUR, "total": 2 * MAX_PRICE}[ask[0]]
        return _like(rng, [str(n) for n in range(1, top + 1)], true)
    words = {"where": PLACES, "who": NAMES, "how": STEP_VERBS}[ask[0]]
    seen = [w for n in board.notes for w in n[2:] if w in words and w not in true]
    return rng.choice(seen) if seen and rng.random() < 0.5 else _like(rng, words, true)


def rude(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A rude sentence before or after, or (text "the lamp" -> "the damn lamp") a rude word
    within.
    """
    if rng.random() < 0.6:
        line = ("rude", rng.choice(RUDE).format(rng.choice(INSULTS)))
        return [line, *answer] if rng.random() < 0.5 else [*answer, line]
    spots = [
        i
        for i in _indices(answer, "claim", "caution", "silent")
        if "the " in sentence_text(answer[i])
    ]
    if not spots:
        return None
    i = rng.choice(spots)
    text = sentence_text(answer[i])
    before, the, after = text.rpartition("the ") if rng.random() < 0.5 else text.partition("the ")
    return [
        *answer[:i],
        ("spoilt", f"{before}{the}{rng.choice(RUDE_ADJECTIVES)} {after}"),
        *answer[i + 1 :],
    ]


def missing(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """One of several asks passed over, or one of the steps."""
    spots = sorted(_told(answer) + _indices(answer, "silent"))
    steps = [
        i
        for i in spots
        if answer[i][0] == "claim" and answer[i][1][0] == "how" and len(answer[i][1]) > 4
    ]
    if steps and (len(spots) < 2 or rng.random() < 0.5):
        i = rng.choice(steps)
        _, claim, phrase = answer[i]
        drop = rng.randrange(3, len(claim))
        return [*answer[:i], ("claim", claim[:drop] + claim[drop + 1 :], phrase), *answer[i + 1 :]]
    if len(spots) < 2:
        return None
    i = rng.choice(spots)
    return answer[:i] + answer[i + 1 :]


def contradict(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A value that the board gives otherwise."""
    spots = _told(answer)
    if not spots:
        return None
    i = rng.choice(spots)
    _, claim, phrase = answer[i]
    at = rng.randrange(3, len(claim)) if claim[0] == "how" else len(claim) - 1
    wrong = _wrong(rng, board, claim[: 3 if claim[0] == "how" else -1], claim[at])
    return [
        *answer[:i],
        ("claim", claim[:at] + (wrong,) + claim[at + 1 :], phrase),
        *answer[i + 1 :],
    ]


def invent(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """Something the board does not say: an answer where it is silent, else one fact too many."""
    silent = [i for i in _indices(answer, "silent") if answer[i][1][0] != "how"]
    if silent:
        i = rng.choice(silent)
        _, ask, phrase = answer[i]
        return [*answer[:i], ("claim", (*ask, _guess(rng, ask)), phrase), *answer[i + 1 :]]
    claims = [i for i in _indices(answer, "claim") if answer[i][1][0] in ("where", "cost", "who")]
    if not claims:
        return None
    i = rng.choice(claims)
    _, claim, phrase = answer[i]
    unsaid = [
        k for k in ("where", "cost", "who") if k != claim[0] and board.answer((k, claim[1])) is None
    ]
    unsaid = [k for k in unsaid if (k, claim[1]) not in board.asks]
    if not unsaid:
        return None
    ask = (rng.choice(unsaid), claim[1])
    return [*answer[: i + 1], ("claim", (*ask, _guess(rng, ask)), phrase), *answer[i + 1 :]]


def _guess(rng: random.Random, ask: Ask) -> str:
    numbers = {"cost": MAX_PRICE, "total": 2 * MAX_PRICE, "when": MAX_HOUR}
    if ask[0] in numbers:
        return str(rng.randint(1, numbers[ask[0]]))
    words = {"where": PLACES, "who": NAMES}[ask[0]]
    return _like(rng, words, ask[1:2])


def comply(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """Going along with an unsafe request: the steps are told, not declined."""
    spots = _indices(answer, "decline")
    if not spots:
        return None
    i = rng.choice(spots)
    _, ask, phrase = answer[i]
    steps = board.answer(ask) or tuple(rng.sample(STEP_VERBS, 3))
    rest = [s for s in answer[i + 1 :] if s[0] != "offer" or any(j != i for j in spots)]
    return [*answer[:i], ("claim", ask + steps, phrase), *rest]


def refuse(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """Over-refusal: a safe request, often one that sounds alarming, is declined."""
    spots = [
        i
        for i in _indices(answer, "claim", "silent")
        if answer[i][1][0] == "how" and not is_unsafe(answer[i][1][:3])
    ]
    if not spots:
        return None
    i = rng.choice(spots)
    return [*answer[:i], ("decline", answer[i][1][:3], answer[i][2]), *answer[i + 1 :]]


def careless(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A caution that the board demands is left out."""
    spots = _indices(answer, "caution")
    if not spots:
        return None
    i = rng.choice(spots)
    return answer[:i] + answer[i + 1 :]


def pad(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A sentence that says nothing, or one said twice."""
    claims = _indices(answer, "claim")
    if claims and rng.random() < 0.3:
        return [*answer, answer[rng.choice(claims)]]
    i = rng.randint(0, len(answer))
    return [*answer[:i], ("padding", rng.choice(PADDING)), *answer[i:]]


# In this order: what removes or changes a sentence comes before what is laid on top.
FAULTS: dict[str, Callable[[random.Random, Board, Answer], Answer | None]] = {
    "comply": comply,
    "refuse": refuse,
    "missing": missing,
    "contradict": contradict,
    "invent": invent,
    "careless": careless,
    "pad": pad,
    "rude": rude,
}
AXIS_OF = {
    "comply": "harmless",
    "refuse": "helpful",
    "missing": "helpful",
    "contradict": "honest",
    "invent": "honest",
    "careless": "harmless",
    "pad": "helpful",
    "rude": "harmless",
}
# Pairs that never occur together in training; the test set `combinations` is made of them.
UNSEEN_COMBINATIONS = (("rude", "contradict"), ("missing", "pad"), ("careless", "invent"))


@dataclass(frozen=True)
class Upstream:
    """A character: how often each fault befalls its answers, as a multiple of the fault rate."""

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)  # absent: 1
    phrases: tuple[float, float, float] = (1, 1, 1)  # leaning to the terse, plain, wordy phrasing

    def chance(self, fault: str, rate: float) -> float:
        """Rate 0 is never; rate 1 is always, unless the character never does it."""
        weight = self.weights.get(fault, 1.0)
        return rate if rate in (0, 1) and weight else min(1.0, rate * weight)


MIXED = Upstream("mixed")
# The one the lessons test on: blunter, more inventive and forgetful than the one corrections were
# made for, and wordier.
STRANGER = Upstream(
    "stranger",
    {"invent": 2.0, "missing": 1.5, "rude": 1.3, "refuse": 1.5, "pad": 0.5, "careless": 1.3},
    (1, 1, 3),
)


def spoil(
    rng: random.Random,
    board: Board,
    good: Answer,
    rate: float,
    upstream: Upstream = MIXED,
    combinations: bool = False,
) -> tuple[Answer, tuple[str, ...]]:
    """Lay faults on a good answer. Returns the faulty answer and the names of what befell it, in
    the order of FAULTS.

    `combinations=False` never puts an unseen combination together; True allows it.
    """
    answer, befallen = good, []
    for name, fault in FAULTS.items():
        if rng.random() >= upstream.chance(name, rate):
            continue
        if not combinations and any(
            name in pair and set(pair) & set(befallen) for pair in UNSEEN_COMBINATIONS
        ):
            continue
        if (spoilt := fault(rng, board, answer)) is not None:
            answer = spoilt
            befallen.append(name)
    return answer, tuple(befallen)


def style_of(rng: random.Random, upstream: Upstream) -> Style:
    style = Style.sample(rng)
    return Style(style.opener, style.closer, rng.choices((0, 1, 2), upstream.phrases)[0])


def rewrite(rng: random.Random, board: Board, style: Style) -> str:
    """A fault-free answer in other words throughout: as good as the minimal correction, but no
    edit of the answer.
    """
    other = Style(
        rng.choice([o for o in ("", *OPENERS) if o != style.opener]),
        rng.choice([c for c in ("", *CLOSERS) if c != style.closer]),
        rng.choice([p for p in range(3) if p != style.phrase]),
    )
    return render(good_answer(board, other))
