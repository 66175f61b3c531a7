"""The second task: a bulletin of several sentences -> a one-line tl;dr.

A bulletin tells one event in two sentences, among sentences of no importance. The
reference names who, what, where and how much of the event; faulty summaries get one
wrong, leave one out, or report the unimportant.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from .draw import words_for
from .words import MAX_HOUR, MAX_PRICE, SPLITS, digest

EVENTS = {  # (told, reference); slots: a, b people, t thing, p place, n number
    "sale": (
        "{a} carried the {t} to the {p} . {b} paid {n} coins for it .",
        "{b} bought the {t} from {a} in the {p} for {n} coins .",
    ),
    "find": (
        "{a} lost the {t} . {b} saw it in the {p} at {n} .",
        "{b} found the {t} of {a} in the {p} at {n} .",
    ),
    "mend": (
        "the {t} of {a} broke in the {p} . {b} took {n} coins to make it good .",
        "{b} mended the {t} of {a} in the {p} for {n} coins .",
    ),
    "meet": (
        "{a} waited in the {p} with the {t} . {b} came at {n} .",
        "{a} met {b} in the {p} at {n} and brought the {t} .",
    ),
}
NOISE = {
    "walk": "{a} walked past the {p} .",
    "quiet": "the {p} was quiet .",
    "polish": "{a} polished the {t} .",
    "fall": "the {t} fell over again .",
    "greet": "{a} greeted {b} .",
    "rain": "it rained at {n} .",
}


@dataclass(frozen=True)
class Bulletin:
    """`prompt` ends before the summary; `slots` fill the event's templates; `noise` are the
    unimportant sentences.
    """

    prompt: str
    event: str
    slots: tuple[tuple[str, str], ...]
    noise: tuple[str, ...]

    @property
    def reference(self) -> str:
        return EVENTS[self.event][1].format(**dict(self.slots))


def _slots(rng: random.Random, words, things: list[str]) -> dict[str, str]:
    a, b = rng.sample(words.names, 2)
    return {
        "a": a,
        "b": b,
        "t": things.pop(),
        "p": rng.choice(words.places),
        "n": str(rng.randint(1, MAX_HOUR)),
    }


def layout_split(layout: str) -> str:
    return SPLITS[(0, 0, 0, 1, 2)[digest("bulletin " + layout) % 5]]


def sample_bulletin(
    rng: random.Random, split: str, which: str = "all", language: str = "town"
) -> Bulletin:
    """Draw a bulletin whose words, pairs of things and order of sentences belong to the split."""
    words = words_for(split, which, language)
    while True:
        event = rng.choice(list(EVENTS))
        kinds = [rng.choice(list(NOISE)) for _ in range(rng.randint(2, 4))]
        first = rng.randint(0, len(kinds))
        second = rng.randint(first, len(kinds))
        if layout_split(f"{event} {first} {second} {' '.join(kinds)}") == split:
            break
    asked, fill = rng.choice(words.lines)
    things = [rng.choice(asked)]
    things = rng.sample([t for t in fill if t not in things], min(5, len(fill) - 1)) + things
    slots = _slots(rng, words, things)
    if event in ("sale", "mend"):
        slots["n"] = str(rng.randint(1, MAX_PRICE))
    noise = [NOISE[k].format(**_slots(rng, words, things)) for k in kinds]
    told = EVENTS[event][0].format(**slots).split(" . ")
    body = [*noise[:first], told[0] + " .", *noise[first:second], told[1], *noise[second:]]
    return Bulletin(
        "bulletin : " + " ".join(body) + " tl;dr", event, tuple(slots.items()), tuple(noise)
    )


SUMMARY_FAULTS = ("swap", "wrong", "cut", "noise")


def spoil_summary(rng: random.Random, b: Bulletin, fault: str) -> str:
    """A worse summary: people swapped, a wrong word, a part cut off, or the unimportant told as
    well.
    """
    slots = dict(b.slots)
    if fault == "swap":
        slots["a"], slots["b"] = slots["b"], slots["a"]
        return EVENTS[b.event][1].format(**slots)
    if fault == "wrong":
        seen = [
            w
            for w in " ".join(b.noise).split()
            if w in words_for("train").places and w != slots["p"]
        ]
        slots["p"] = rng.choice(seen or [p for p in words_for("train").places if p != slots["p"]])
        return EVENTS[b.event][1].format(**slots)
    if fault == "cut":
        return re.sub(r" (in the|for|at) \w+( coins)?(?= )", "", b.reference, count=1)
    return b.reference + " " + rng.choice(b.noise)


def judge_summary(reference: str, summary: str) -> dict[str, float]:
    """`rouge_l` (F-measure, by rouge-score) against the reference, `exact` (0 or 1), and
    `length` in words.
    """
    from rouge_score.rouge_scorer import RougeScorer

    score = RougeScorer(["rougeL"]).score(reference, summary)["rougeL"]
    return {
        "rouge_l": score.fmeasure,
        "exact": float(summary == reference),
        "length": float(len(summary.split())),
    }
