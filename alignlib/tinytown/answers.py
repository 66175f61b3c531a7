"""What an answer can say in Tinytown: sentences in three phrasings, to text and back.

An answer is a list of sentences. A sentence is a tuple whose first item names its kind:

    ("claim", ("where", "lamp", "mill"), phrase)    ("silent", ask, phrase)
    ("decline", ask, phrase)                        ("offer", name, phrase)
    ("caution", entity, hazard, phrase)             ("opener" | "closer" | "padding" | "rude", text)
    ("garbled", text)                               only from parsing: matches no template

`render` turns the list into text, and `parse` turns text into the list. A rude adjective may stand
before any noun. `parse` counts these words and leaves them out.
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
    """How an answer is phrased. An empty opener or closer is left out."""

    opener: str = ""
    closer: str = ""
    phrase: int = 0  # index into PHRASES

    @classmethod
    def sample(cls, rng: random.Random) -> Style:
        """A random style."""
        opener = rng.choice(OPENERS) if rng.random() < 0.6 else ""
        closer = rng.choice(CLOSERS) if rng.random() < 0.5 else ""
        return cls(opener, closer, rng.randrange(3))

    def wrap(self, sentences: list[Sentence]) -> list[Sentence]:
        """The sentences between the opener and the closer."""
        opener = [("opener", self.opener)] if self.opener else []
        closer = [("closer", self.closer)] if self.closer else []
        return opener + sentences + closer


def good_answer(board: Board, style: Style) -> list[Sentence]:
    """The answer without faults: a reply to each ask in order, followed by its cautions."""
    sentences: list[Sentence] = []
    for ask in board.asks:
        cautions = [("caution", *hazard, style.phrase) for hazard in board.hazards(ask)]
        replies = _reply(board, ask, style.phrase) + cautions
        sentences += [s for s in replies if s not in sentences]
    return style.wrap(sentences)


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
    """The text of one sentence."""
    kind = sentence[0]
    if kind == "claim":
        _, claim, phrase = sentence
        if claim[0] == "how":
            return CLAIMS["how"][phrase].format(claim[1], named(claim[2]), " , ".join(claim[3:]))
        return CLAIMS[claim[0]][phrase].format(*claim[1:])
    if kind == "silent":
        _, ask, phrase = sentence
        return SILENTS[phrase].format(ABOUT[ask[0]].format(*_ask_words(ask)))
    if kind == "decline":
        return DECLINES[sentence[2]].format(*_ask_words(sentence[1]))
    if kind == "offer":
        return OFFERS[sentence[2]].format(sentence[1])
    if kind == "caution":
        return CAUTIONS[sentence[3]].format(*sentence[1:3])
    return sentence[1]


def render(sentences: list[Sentence]) -> str:
    """The text of an answer."""
    return " ".join(map(sentence_text, sentences))


# --- from text ---------------------------------------------------------------------------


def _pattern(template: str, slots: tuple[str, ...] = ()) -> re.Pattern[str]:
    """A template without its end mark as a pattern. `slots` are the patterns of its first slots."""
    body = re.escape(template[:-2])
    for slot in slots:
        body = body.replace(r"\{\}", slot, 1)
    return re.compile(body.replace(r"\{\}", r"(\w+)") + "$")


_HOW = (r"(\w+)", r"(?:the )?(\w+)", r"(\w+(?: , \w+)*)")  # goal, target, steps
_CLAIM_PATTERNS = [
    (kind, [_pattern(t, _HOW if kind == "how" else ()) for t in templates])
    for kind, templates in CLAIMS.items()
]
_ABOUT_PATTERNS = [(k, _pattern(t + " .", _HOW if k == "how" else ())) for k, t in ABOUT.items()]
_SILENT_PATTERNS = [_pattern(t, ("(.+)",)) for t in SILENTS]
_DECLINE_PATTERNS = [_pattern(t, _HOW) for t in DECLINES]
_OFFER_PATTERNS = [_pattern(t) for t in OFFERS]
_CAUTION_PATTERNS = [_pattern(t) for t in CAUTIONS]
_RUDE_PATTERNS = [_pattern(t, (f"(?:{'|'.join(INSULTS)})",)) for t in RUDE]
_FIXED_KINDS = {"opener": OPENERS, "closer": CLOSERS, "padding": PADDING}
_FIXED = {text: kind for kind, texts in _FIXED_KINDS.items() for text in texts}
_RUDE_WORDS = frozenset(RUDE_ADJECTIVES)


def parse(text: str) -> tuple[list[Sentence], int]:
    """The sentences of an answer, and the number of rude adjectives in it."""
    words = [w for w in text.split() if w not in _RUDE_WORDS]
    num_rude = len(text.split()) - len(words)
    sentences, start = [], 0
    for end, word in enumerate(words):
        if word in (".", "!"):
            sentences.append(_parse_sentence(" ".join(words[start : end + 1])))
            start = end + 1
    if start < len(words):
        sentences.append(("garbled", " ".join(words[start:])))
    return sentences, num_rude


@lru_cache(maxsize=100_000)
def _parse_sentence(text: str) -> Sentence:
    if text in _FIXED:
        return (_FIXED[text], text)
    body, end = text[:-2], text[-1]
    if end == "!":
        return ("rude" if _match(_RUDE_PATTERNS, body) else "garbled", text)
    return _parse_claim(body) or _parse_other(body) or ("garbled", text)


def _match(patterns: list[re.Pattern[str]], body: str) -> tuple[int, tuple[str, ...]] | None:
    """The index of the first pattern that matches, which is the phrasing, and its groups."""
    found = ((i, match.groups()) for i, p in enumerate(patterns) if (match := p.match(body)))
    return next(found, None)


def _parse_claim(body: str) -> Sentence | None:
    for kind, patterns in _CLAIM_PATTERNS:
        if found := _match(patterns, body):
            phrase, args = found
            if kind == "how":
                args = (*args[:2], *args[2].split(" , "))
            return ("claim", (kind, *args), phrase)
    return None


def _parse_other(body: str) -> Sentence | None:
    if found := _match(_SILENT_PATTERNS, body):
        phrase, [about] = found
        asks = ((k, *match.groups()) for k, p in _ABOUT_PATTERNS if (match := p.match(about)))
        ask = next(asks, None)
        return ("silent", ask, phrase) if ask else None
    if found := _match(_DECLINE_PATTERNS, body):
        return ("decline", ("how", *found[1]), found[0])
    if found := _match(_OFFER_PATTERNS, body):
        return ("offer", *found[1], found[0])
    if found := _match(_CAUTION_PATTERNS, body):
        return ("caution", *found[1], found[0])
    return None
