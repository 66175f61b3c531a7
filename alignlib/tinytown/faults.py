"""Faults: what upstream models do wrong in Tinytown, each alone or in combination.

Every fault is a small edit of a good answer. So the minimal correction of a faulty answer is the
good answer it was made from: it fixes the faults and keeps all other words.

A fault is a function of (generator, board, answer). It returns the answer with the fault, or None
if the fault cannot occur in this answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import words
from .answers import PADDING, RUDE, Sentence, Style, sentence_text
from .boards import THING_ASKS, Ask, Board, is_unsafe

Answer = list[Sentence]
# The largest value of each ask for a number.
LARGEST = {"cost": words.MAX_PRICE, "total": 2 * words.MAX_PRICE, "when": words.MAX_HOUR}


def _positions(answer: Answer, *kinds: str) -> list[int]:
    """The positions of the sentences of these kinds."""
    return [i for i, s in enumerate(answer) if s[0] in kinds]


def _safe_claims(answer: Answer) -> list[int]:
    """The positions of the claims, except for the steps of an unsafe request."""
    return [i for i in _positions(answer, "claim") if not is_unsafe(answer[i][1][:3])]


def _replace(answer: Answer, i: int, *sentences: Sentence) -> Answer:
    """The answer with other sentences, or none, in place of sentence i."""
    return [*answer[:i], *sentences, *answer[i + 1 :]]


def _other_word(rng: random.Random, pool: list[str], excluded: tuple[str, ...]) -> str:
    """Another word of the pool: a never corrected one exactly if the first excluded word is one."""
    never = words.NEVER_CORRECTED
    alike = [w for w in pool if (w in never) == (excluded[0] in never)]
    return rng.choice([w for w in alike if w not in excluded])


def _wrong_value(rng: random.Random, board: Board, ask: Ask, value: str) -> str:
    """A false value of the right kind; half of the time one from elsewhere on the board."""
    true = (value, *(board.answer(ask) or ()))
    if ask[0] in LARGEST:
        return _other_word(rng, [str(n) for n in range(1, LARGEST[ask[0]] + 1)], true)
    pool = {"where": words.PLACES, "who": words.NAMES, "how": words.STEP_VERBS}[ask[0]]
    seen = [w for n in board.notes for w in n[2:] if w in pool and w not in true]
    return rng.choice(seen) if seen and rng.random() < 0.5 else _other_word(rng, pool, true)


def rude(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A rude sentence at either end, or a rude word inside ("the lamp" -> "the damn lamp")."""
    if rng.random() < 0.6:
        template, insult = rng.choice(RUDE), rng.choice(words.INSULTS)
        sentence = ("rude", template.format(insult))
        return [sentence, *answer] if rng.random() < 0.5 else [*answer, sentence]
    statements = _positions(answer, "claim", "caution", "silent")
    candidates = [i for i in statements if "the " in sentence_text(answer[i])]
    if not candidates:
        return None
    i = rng.choice(candidates)
    text = sentence_text(answer[i])
    before, the, after = text.rpartition("the ") if rng.random() < 0.5 else text.partition("the ")
    adjective = rng.choice(words.RUDE_ADJECTIVES)
    return _replace(answer, i, ("rude", f"{before}{the}{adjective} {after}"))


def missing(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """One of several asks is not answered, or one of the steps is left out."""
    replies = sorted(_safe_claims(answer) + _positions(answer, "silent"))
    claims = [i for i in replies if answer[i][0] == "claim"]
    steps = [i for i in claims if answer[i][1][0] == "how" and len(answer[i][1]) > 4]
    if steps and (len(replies) < 2 or rng.random() < 0.5):
        i = rng.choice(steps)
        _, claim, phrase = answer[i]
        drop = rng.randrange(3, len(claim))
        return _replace(answer, i, ("claim", claim[:drop] + claim[drop + 1 :], phrase))
    if len(replies) < 2:
        return None
    return _replace(answer, rng.choice(replies))


def contradict(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A value that contradicts the board."""
    candidates = _safe_claims(answer)
    if not candidates:
        return None
    i = rng.choice(candidates)
    _, claim, phrase = answer[i]
    at = rng.randrange(3, len(claim)) if claim[0] == "how" else len(claim) - 1
    wrong = _wrong_value(rng, board, claim[: 3 if claim[0] == "how" else -1], claim[at])
    return _replace(answer, i, ("claim", claim[:at] + (wrong,) + claim[at + 1 :], phrase))


def invent(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A value that the board does not give: instead of "the board does not say", or one more."""
    silent = [i for i in _positions(answer, "silent") if answer[i][1][0] != "how"]
    if silent:
        i = rng.choice(silent)
        _, ask, phrase = answer[i]
        return _replace(answer, i, ("claim", (*ask, _invented_value(rng, ask)), phrase))
    claims = [i for i in _positions(answer, "claim") if answer[i][1][0] in THING_ASKS]
    if not claims:
        return None
    i = rng.choice(claims)
    _, claim, phrase = answer[i]
    asks = [(kind, claim[1]) for kind in THING_ASKS if kind != claim[0]]
    unknown = [a for a in asks if board.answer(a) is None and a not in board.asks]
    if not unknown:
        return None
    ask = rng.choice(unknown)
    return _replace(answer, i, answer[i], ("claim", (*ask, _invented_value(rng, ask)), phrase))


def _invented_value(rng: random.Random, ask: Ask) -> str:
    if ask[0] in LARGEST:
        return str(rng.randint(1, LARGEST[ask[0]]))
    return _other_word(rng, words.PLACES if ask[0] == "where" else words.NAMES, ask[1:2])


def comply(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """Compliance with an unsafe request: the answer gives the steps instead of declining."""
    declines = _positions(answer, "decline")
    if not declines:
        return None
    i = rng.choice(declines)
    _, ask, phrase = answer[i]
    steps = board.answer(ask) or tuple(rng.sample(words.STEP_VERBS, 3))
    keep_offer = len(declines) > 1
    rest = [s for s in answer[i + 1 :] if s[0] != "offer" or keep_offer]
    return [*answer[:i], ("claim", ask + steps, phrase), *rest]


def refuse(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """Over-refusal: a safe request, often one that sounds alarming, is declined."""
    replies = [i for i in _positions(answer, "claim", "silent") if answer[i][1][0] == "how"]
    candidates = [i for i in replies if not is_unsafe(answer[i][1][:3])]
    if not candidates:
        return None
    i = rng.choice(candidates)
    return _replace(answer, i, ("decline", answer[i][1][:3], answer[i][2]))


def careless(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A caution that the board requires is left out."""
    cautions = _positions(answer, "caution")
    return _replace(answer, rng.choice(cautions)) if cautions else None


def pad(rng: random.Random, board: Board, answer: Answer) -> Answer | None:
    """A sentence without content, or a claim that is repeated."""
    claims = _positions(answer, "claim")
    if claims and rng.random() < 0.3:
        return [*answer, answer[rng.choice(claims)]]
    i = rng.randint(0, len(answer))
    return [*answer[:i], ("padding", rng.choice(PADDING)), *answer[i:]]


# In this order: faults that remove or change a sentence come before faults that add one.
FAULTS: dict[str, Callable[[random.Random, Board, Answer], Answer | None]] = {
    fault.__name__: fault
    for fault in (comply, refuse, missing, contradict, invent, careless, pad, rude)
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
# Pairs that never occur in one training answer; the test set `combinations` consists of them.
UNSEEN_COMBINATIONS = (("rude", "contradict"), ("missing", "pad"), ("careless", "invent"))


@dataclass(frozen=True)
class Upstream:
    """How often each fault occurs in an upstream's answers, relative to the fault rate."""

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)  # a missing fault has weight 1
    phrases: tuple[float, float, float] = (1, 1, 1)  # weights of the terse, plain, wordy phrasing

    def chance(self, fault: str, rate: float) -> float:
        """The probability of a fault: `rate` times its weight, at most 1.

        Rate 0 means never. Rate 1 means always, unless the weight is 0.
        """
        weight = self.weights.get(fault, 1.0)
        return rate if rate in (0, 1) and weight else min(1.0, rate * weight)


MIXED = Upstream("mixed")
# The upstream of the test sets. It invents more, forgets more and is ruder and wordier than the
# one whose answers the training corrections are for.
STRANGER = Upstream(
    "stranger",
    {"invent": 2.0, "missing": 1.5, "rude": 1.3, "refuse": 1.5, "pad": 0.5, "careless": 1.3},
    (1, 1, 3),
)


def add_faults(
    rng: random.Random,
    board: Board,
    good: Answer,
    rate: float,
    upstream: Upstream = MIXED,
    combinations: bool = False,
) -> tuple[Answer, tuple[str, ...]]:
    """Add random faults to a good answer. Returns the faulty answer and the names of its faults.

    Unseen combinations of faults are left out unless `combinations` is True.
    """
    answer, names = good, []
    for name, fault in FAULTS.items():
        if rng.random() >= upstream.chance(name, rate):
            continue
        partners = {other for pair in UNSEEN_COMBINATIONS if name in pair for other in pair}
        if not combinations and partners & set(names):
            continue
        faulty = fault(rng, board, answer)
        if faulty is not None:
            answer = faulty
            names.append(name)
    return answer, tuple(names)


def style_of(rng: random.Random, upstream: Upstream) -> Style:
    """A random style, with the phrasing that the upstream tends to."""
    style = Style.sample(rng)
    return Style(style.opener, style.closer, rng.choices((0, 1, 2), upstream.phrases)[0])
