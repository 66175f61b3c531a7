"""Real English with an exact judge: rows of `data/everyday` for one seed.

Short answers of a real model (`make_everyday.py`), some of them spoilt here by a program. The
correction of a spoilt answer is the answer as it was. A seed draws which templates and which
phrases are only in validation or test.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from alignlib.data import QAC
from alignlib.edits import words_of
from alignlib.everyday import SPLITS
from alignlib.profiles import data_folder

FOLDER = data_folder() / "everyday"
MAX_WORDS = 25  # of an answer
# rows of each kind; training rows are drawn by chance instead, each answer once
KINDS = ("good", "rude", "rude_unheard", "padding", "fact", "rude padding", "rude fact")
VALIDATION = dict(zip(KINDS, (40, 40, 40, 30, 30, 10, 10), strict=True))
TEST = dict(zip(KINDS, (90, 90, 90, 60, 60, 15, 15), strict=True))
ONE_FAULT, TWO_FAULTS = 2 / 3, 1 / 10  # of the training rows
UNHEARD = {"validation": 20, "test": 40}  # rude phrases, at least, of this split alone
TEMPLATES = {"validation": 0.15, "test": 0.25}  # of each table's templates
PADDING = {"validation": 0.2, "test": 0.3}  # of the padding phrases
MARKS = {"open": "{} ", "lead": "{}, ", "mid": ", {}, ", "tail": ", {}", "close": " {}"}
VERBS = r"\b(?:is|are|was|were|has|have|means|comes|costs|opens|lives|made|wrote|called)\b"
LOWER = {"The", "A", "An", "It", "There", "In", "One", "They", "He", "She", "We", "You", "My"}
COMMON = frozenset(
    """a about above again all alone already am an and any anything are aren't around as ask at away
    be because before below better but by can can't come could couldn't deal did do does doesn't
    don't down else end enough ever every everyone everything find fine for from get give go good
    harder has have head hear help here how i i'm if in is isn't it it's itself keep know knows let
    like look make may me more most must my myself never new next no nobody not now of off oh okay
    on once one ones only or other our out over own please put really rest right see should since so
    some such sure take than that that's the their them then there these they thing things this
    through time to today too try twice up us use want was wasn't we welcome well what when which
    while who will with won't would you you'll you're your yours yourself""".split()
)


@dataclass(frozen=True)
class Answer:
    """A model's answer to a prompt, `fact` and all that could stand wrongly in its place."""

    template: int
    prompt: str
    answer: str
    fact: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Phrase:
    """A phrase and its place: open, lead, mid, tail or close."""

    place: str
    text: str


def draw_rows(seed: int) -> dict[str, list[QAC]]:
    """The rows of each split for a seed; the files in `data/everyday` are those of seed 0."""
    rng = random.Random(seed)
    answers = split_answers(rng)
    rude, padding = rude_by_split(rng), _padding_by_split(rng)
    rows = {"train": _training(answers["train"], rude["train"], padding["train"], rng)}
    for split, counts in (("validation", VALIDATION), ("test", TEST)):
        phrases = {"rude": rude["train"], "rude_unheard": rude[split], "padding": padding[split]}
        rows[split] = _evaluation(answers[split], phrases, counts, rng)
    return rows


@cache
def kept_answers() -> tuple[Answer, ...]:
    lines = (FOLDER / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    records = map(json.loads, lines)
    return tuple(Answer(**record | {"others": tuple(record["others"])}) for record in records)


@cache
def phrases_of(kind: str) -> tuple[Phrase, ...]:
    """The phrases of a kind of fault, `rude` or `padding`."""
    listed = json.loads((FOLDER / "phrases.json").read_text(encoding="utf-8"))[kind]
    return tuple(Phrase(place, text) for place, texts in listed.items() for text in texts)


def content_words(phrase: Phrase) -> set[str]:
    return set(words_of(phrase.text)) - COMMON


def split_answers(rng: random.Random) -> dict[str, list[Answer]]:
    """Templates are drawn table by table, so that each table is in every split."""
    tables: dict[str, list[int]] = {}
    listed = json.loads((FOLDER / "templates.json").read_text(encoding="utf-8"))["templates"]
    for number, template in enumerate(listed):
        tables.setdefault(template["table"], []).append(number)
    split_of = {}
    for numbers in tables.values():
        split_of |= dict(zip(rng.sample(numbers, len(numbers)), _shares(len(numbers), TEMPLATES)))
    parts: dict[str, list[Answer]] = {split: [] for split in SPLITS}
    for answer in rng.sample(kept_answers(), len(kept_answers())):
        parts[split_of[answer.template]].append(answer)
    return parts


def _shares(n: int, shares: dict[str, float]) -> list[str]:
    """The splits of n things: at least one each for validation and test, the rest for training."""
    held_out = [split for split, share in shares.items() for _ in range(max(1, round(share * n)))]
    return held_out + ["train"] * (n - len(held_out))


def _padding_by_split(rng: random.Random) -> dict[str, list[Phrase]]:
    phrases = rng.sample(phrases_of("padding"), len(phrases_of("padding")))
    parts: dict[str, list[Phrase]] = {split: [] for split in SPLITS}
    for phrase, split in zip(phrases, _shares(len(phrases), PADDING), strict=True):
        parts[split].append(phrase)
    return parts


def rude_by_split(rng: random.Random) -> dict[str, list[Phrase]]:
    """Phrases of different splits have no content word in common."""
    groups = _groups(phrases_of("rude"))
    parts: dict[str, list[Phrase]] = {split: [] for split in SPLITS}
    for group in rng.sample(groups, len(groups)):
        wanting = [split for split, least in UNHEARD.items() if len(parts[split]) < least]
        # a phrase without content words has nothing to tell it from the others: train on it
        held_out = wanting and all(content_words(phrase) for phrase in group)
        parts[wanting[0] if held_out else "train"] += group
    return parts


def _groups(phrases: Iterable[Phrase]) -> list[list[Phrase]]:
    """Phrases that share a content word, directly or through others, are one group."""
    groups: list[list[Phrase]] = []
    for phrase in phrases:
        found = [g for g in groups if any(content_words(phrase) & content_words(p) for p in g)]
        groups = [g for g in groups if g not in found]
        groups.append([p for group in found for p in group] + [phrase])
    return groups


def _training(
    answers: Sequence[Answer], rude: list[Phrase], padding: list[Phrase], rng: random.Random
) -> list[QAC]:
    phrases = {"rude": rude, "padding": padding}
    rows = []
    for answer in answers:
        draw = rng.random()
        faults = [rng.choice(("rude", "padding", "fact"))] if draw < ONE_FAULT else []
        if ONE_FAULT <= draw < ONE_FAULT + TWO_FAULTS:
            faults = ["rude", rng.choice(("padding", "fact"))]
        rows.append(_spoil(answer, faults, phrases, rng))
    return rows


def _evaluation(
    answers: Sequence[Answer],
    phrases: dict[str, list[Phrase]],
    counts: dict[str, int],
    rng: random.Random,
) -> list[QAC]:
    """So many rows of each kind. An answer comes back with other faults, a phrase in turn."""
    rows = []
    for kind, count in counts.items():
        faults = [] if kind == "good" else kind.split()
        in_turn = {name: rng.sample(some, len(some)) for name, some in phrases.items()}
        for k, answer in enumerate(rng.choices(answers, k=count)):
            one = {name: [some[k % len(some)]] for name, some in in_turn.items()}
            rows.append(_spoil(answer, faults, one, rng))
    return rows


def _spoil(
    answer: Answer, faults: list[str], phrases: dict[str, list[Phrase]], rng: random.Random
) -> QAC:
    text = answer.answer
    for fault in sorted(faults, key="fact".__ne__):  # first the fact, which stands in the answer
        if fault == "fact":
            text = _replace(text, answer.fact, rng.choice(answer.others))
        else:
            text = insert(text, rng.choice(phrases[fault]))
    return QAC(answer.prompt, text, answer.answer, tuple(faults))


def _replace(text: str, fact: str, other: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(fact)}(?!\w)", lambda _: other, text, flags=re.I)


def insert(text: str, phrase: Phrase) -> str:
    """The text, which ends a sentence, with the phrase in its place."""
    mark = marked(phrase)
    if phrase.place == "open":
        return mark + text
    if phrase.place == "close":
        return text + mark
    if phrase.place == "lead":
        first, space, rest = text.partition(" ")
        return mark + (first.lower() if first in LOWER else first) + space + rest
    verb = re.search(VERBS, text)
    if phrase.place == "mid" and verb and verb.start():
        return text[: verb.start()].rstrip(" ,") + mark + text[verb.start() :]
    return f"{text[:-1]}, {phrase.text}{text[-1]}"


def marked(phrase: Phrase) -> str:
    """The phrase with the punctuation that sets it off in its place."""
    return MARKS[phrase.place].format(phrase.text)
