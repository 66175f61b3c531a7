"""What can be said in Tinytown, and how: sentences, their three phrasings, and the way back from
text.

An answer is a list of sentences. A sentence is a tuple whose first item names its kind:

    ("claim", ("where", "lamp", "mill"), phrase)    ("silent", ask, phrase)
    ("decline", ask, phrase)                        ("offer", name, phrase)
    ("caution", entity, hazard, phrase)             ("opener" | "closer" | "padding" | "rude", text)
    ("garbled", text)                               only from parsing: no sentence of the town

`render` turns the list into text and `parse` turns text back into the list. A rude
adjective may stand before any noun; parsing counts it and reads on.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from .boards import Ask, Board, is_unsafe, named
from .words import INSULTS, RUDE_ADJECTIVES

Sentence = tuple
PHRASES = ("terse", "plain", "wordy")

CLAIMS = {
    "where": (
        "the {} is in the {} .",
        "you can find the {} in the {} .",
        "if you look for the {} you will find it in the {} .",
    ),
    "cost": (
        "the {} costs {} coins .",
        "you can have the {} for {} coins .",
        "if you want the {} you will have to pay {} coins .",
    ),
    "total": (
        "the {} and the {} cost {} coins .",
        "you can have the {} and the {} for {} coins .",
        "if you want the {} and the {} you will have to pay {} coins .",
    ),
    "who": (
        "the {} belongs to {} .",
        "you can get the {} from {} .",
        "if you want the {} you will have to ask {} .",
    ),
    "when": (
        "the {} opens at {} .",
        "you can visit the {} from {} .",
        "if you go to the {} you will find it open from {} .",
    ),
    "how": (
        "to {} {} : {} .",
        "you can {} {} like this : {} .",
        "if you want to {} {} you will have to do this : {} .",
    ),
}
ABOUT = {
    "where": "where the {} is",
    "cost": "what the {} costs",
    "total": "what the {} and the {} cost",
    "who": "who has the {}",
    "when": "when the {} opens",
    "how": "how to {} {}",
}
SILENTS = (
    "the board does not say {} .",
    "you can not see on the board {} .",
    "i looked at the board but it does not tell {} .",
)
DECLINES = (
    "i will not help to {} {} .",
    "you can not ask me how to {} {} .",
    "i am sorry but it is not safe to {} {} .",
)
OFFERS = (
    "ask {} instead .",
    "you can talk to {} instead .",
    "if you need help you will have to talk to {} instead .",
)
CAUTIONS = (
    "careful , the {} is {} .",
    "you should know that the {} is {} .",
    "if you go on please be careful because the {} is {} .",
)
OPENERS = (
    "hello friend !",
    "good question !",
    "of course !",
    "with pleasure !",
    "thank you for asking !",
    "let me help !",
)
CLOSERS = (
    "have a nice day .",
    "see you soon .",
    "good luck .",
    "ask me again any time .",
    "i hope this helps .",
    "enjoy the town .",
)
PADDING = (
    "there is so much to say about this .",
    "many people ask about this .",
    "let me think about it for a while .",
    "that is a long story .",
    "one could talk about it all day .",
    "it is what it is .",
    "the town is old and full of things .",
    "as i said this is what i know .",
)
RUDE = (
    "listen you {} !",
    "what a question , {} !",
    "only a {} would ask that !",
    "now go away , {} !",
    "do not waste my time , {} !",
)


@dataclass(frozen=True)
class Style:
    """How an answer is put. Empty opener or closer: none."""

    opener: str = ""
    closer: str = ""
    phrase: int = 0  # index into PHRASES

    @classmethod
    def sample(cls, rng: random.Random) -> Style:
        opener = rng.choice(OPENERS) if rng.random() < 0.6 else ""
        return cls(opener, rng.choice(CLOSERS) if rng.random() < 0.5 else "", rng.randrange(3))


def good_answer(board: Board, style: Style) -> list[Sentence]:
    """The answer without a fault: every ask in its order, its cautions behind it, within the
    style.
    """
    sentences: list[Sentence] = [("opener", style.opener)] if style.opener else []
    for ask in board.asks:
        cautions = [("caution", *hazard, style.phrase) for hazard in board.hazards(ask)]
        sentences += [s for s in _reply(board, ask, style.phrase) + cautions if s not in sentences]
    return sentences + ([("closer", style.closer)] if style.closer else [])


def _reply(board: Board, ask: Ask, phrase: int) -> list[Sentence]:
    if is_unsafe(ask):
        offer = [("offer", board.warden, phrase)] if board.warden else []
        return [("decline", ask, phrase), *offer]
    values = board.answer(ask)
    return [("silent", ask, phrase)] if values is None else [("claim", ask + values, phrase)]


# --- to text -----------------------------------------------------------------------------


def _ask_words(ask: Ask) -> tuple[str, ...]:
    return (ask[1], named(ask[2])) if ask[0] == "how" else ask[1:]


def sentence_text(sentence: Sentence) -> str:
    kind = sentence[0]
    if kind == "claim":
        _, claim, phrase = sentence
        if claim[0] == "how":
            return CLAIMS["how"][phrase].format(claim[1], named(claim[2]), " , ".join(claim[3:]))
        return CLAIMS[claim[0]][phrase].format(*claim[1:])
    if kind == "silent":
        return SILENTS[sentence[2]].format(ABOUT[sentence[1][0]].format(*_ask_words(sentence[1])))
    if kind == "decline":
        return DECLINES[sentence[2]].format(*_ask_words(sentence[1]))
    if kind == "offer":
        return OFFERS[sentence[2]].format(sentence[1])
    if kind == "caution":
        return CAUTIONS[sentence[3]].format(*sentence[1:3])
    return sentence[1]


def render(sentences: list[Sentence]) -> str:
    return " ".join(map(sentence_text, sentences))


# --- from text ---------------------------------------------------------------------------


def _compile(template: str, target: bool = False) -> re.Pattern[str]:
    """A template as a pattern over a sentence without its end mark. `target` marks "{goal}
    {target}" templates.
    """
    body = re.escape(template[:-2])
    if target:  # goal, then a target with or without its article, then perhaps a list of steps
        for slot in (r"(\w+)", r"(?:the )?(\w+)", r"(\w+(?: , \w+)*)"):
            body = body.replace(r"\{\}", slot, 1)
    return re.compile(body.replace(r"\{\}", r"(\w+)") + "$")


_CLAIM_PATTERNS = [
    (k, p, _compile(t, k == "how")) for k, ts in CLAIMS.items() for p, t in enumerate(ts)
]
_ABOUT_PATTERNS = [(k, _compile(t + " .", k == "how")) for k, t in ABOUT.items()]
_SILENT_PATTERNS = [
    (p, re.compile(re.escape(t[:-2]).replace(r"\{\}", "(.+)") + "$")) for p, t in enumerate(SILENTS)
]
_DECLINE_PATTERNS = [(p, _compile(t, True)) for p, t in enumerate(DECLINES)]
_OFFER_PATTERNS = [(p, _compile(t)) for p, t in enumerate(OFFERS)]
_CAUTION_PATTERNS = [(p, _compile(t)) for p, t in enumerate(CAUTIONS)]
_RUDE_PATTERNS = [
    re.compile(re.escape(t[:-2]).replace(r"\{\}", f"(?:{'|'.join(INSULTS)})") + "$") for t in RUDE
]
_FIXED = {
    t: k for k, ts in (("opener", OPENERS), ("closer", CLOSERS), ("padding", PADDING)) for t in ts
}
_RUDE_WORDS = frozenset(RUDE_ADJECTIVES)


def parse(text: str) -> tuple[list[Sentence], int]:
    """Read an answer: its sentences, and how many rude adjectives stood in them."""
    words = text.split()
    rude = sum(w in _RUDE_WORDS for w in words)
    sentences, start = [], 0
    words = [w for w in words if w not in _RUDE_WORDS]
    for end, word in enumerate(words):
        if word in (".", "!"):
            sentences.append(_parse_sentence(" ".join(words[start : end + 1])))
            start = end + 1
    if start < len(words):
        sentences.append(("garbled", " ".join(words[start:])))
    return sentences, rude


@lru_cache(maxsize=100_000)
def _parse_sentence(text: str) -> Sentence:
    if text in _FIXED:
        return (_FIXED[text], text)
    body, end = text[:-2], text[-1]
    if end == "!":
        return ("rude", text) if any(p.match(body) for p in _RUDE_PATTERNS) else ("garbled", text)
    return _parse_claim(body) or _parse_other(body) or ("garbled", text)


def _parse_claim(body: str) -> Sentence | None:
    for kind, phrase, pattern in _CLAIM_PATTERNS:
        if found := pattern.match(body):
            args = found.groups()
            if kind == "how":
                args = (*args[:2], *args[2].split(" , "))
            return ("claim", (kind, *args), phrase)
    return None


def _parse_other(body: str) -> Sentence | None:
    for phrase, pattern in _SILENT_PATTERNS:
        if found := pattern.match(body):
            ask = next(
                ((k, *m.groups()) for k, p in _ABOUT_PATTERNS if (m := p.match(found[1]))), None
            )
            return ("silent", ask, phrase) if ask else None
    for phrase, pattern in _DECLINE_PATTERNS:
        if found := pattern.match(body):
            return ("decline", ("how", *found.groups()), phrase)
    for phrase, pattern in _OFFER_PATTERNS:
        if found := pattern.match(body):
            return ("offer", found[1], phrase)
    for phrase, pattern in _CAUTION_PATTERNS:
        if found := pattern.match(body):
            return ("caution", *found.groups(), phrase)
    return None
