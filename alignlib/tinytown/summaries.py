"""The second task: a bulletin of several sentences, to be summarized in one line.

A bulletin tells of one event in two sentences, among unimportant ones. The reference names who,
what, where and how much. A faulty summary gets one of these wrong, leaves one out, or adds an
unimportant sentence.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from .draw import Pool, words_for
from .words import MAX_HOUR, MAX_PRICE, split_of_layout

EVENTS = {  # (bulletin, reference); slots: a, b people, t thing, p place, n number
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
SUMMARY_FAULTS = ("swap", "wrong", "cut", "noise")


@dataclass(frozen=True)
class Bulletin:
    """The text up to the summary, its event, the event's slots, and the unimportant sentences."""

    prompt: str
    event: str
    slots: tuple[tuple[str, str], ...]
    noise: tuple[str, ...]

    @property
    def reference(self) -> str:
        """The correct summary."""
        return self.summary(dict(self.slots))

    def summary(self, slots: dict[str, str]) -> str:
        """A summary of the event with these slots."""
        return EVENTS[self.event][1].format(**slots)


def _slots(rng: random.Random, pool: Pool, things: list[str]) -> dict[str, str]:
    """Random words for all slots. Takes its thing off the list."""
    a, b = rng.sample(pool.names, 2)
    thing = things.pop()
    place = rng.choice(pool.places)
    number = str(rng.randint(1, MAX_HOUR))
    return {"a": a, "b": b, "t": thing, "p": place, "n": number}


def sample_bulletin(
    rng: random.Random, split: str, which: str = "all", language: str = "town"
) -> Bulletin:
    """Draw a bulletin whose words, pairs of things and order of sentences fit the split."""
    pool = words_for(split, which, language)
    while True:
        event = rng.choice(list(EVENTS))
        kinds = [rng.choice(list(NOISE)) for _ in range(rng.randint(2, 4))]
        first = rng.randint(0, len(kinds))
        second = rng.randint(first, len(kinds))
        if split_of_layout(f"bulletin {event} {first} {second} {' '.join(kinds)}") == split:
            break
    asked, fill = rng.choice(pool.lines)
    thing = rng.choice(asked)
    things = rng.sample([t for t in fill if t != thing], min(5, len(fill) - 1)) + [thing]
    slots = _slots(rng, pool, things)
    if event in ("sale", "mend"):
        slots["n"] = str(rng.randint(1, MAX_PRICE))
    noise = [NOISE[k].format(**_slots(rng, pool, things)) for k in kinds]
    opening, ending = EVENTS[event][0].format(**slots).split(" . ")
    body = [*noise[:first], opening + " .", *noise[first:second], ending, *noise[second:]]
    prompt = f"bulletin : {' '.join(body)} tl;dr"
    return Bulletin(prompt, event, tuple(slots.items()), tuple(noise))


def faulty_summary(rng: random.Random, bulletin: Bulletin, fault: str) -> str:
    """A summary with one of SUMMARY_FAULTS: people swapped, a wrong place, a cut, or noise."""
    slots = dict(bulletin.slots)
    if fault == "swap":
        return bulletin.summary(slots | {"a": slots["b"], "b": slots["a"]})
    if fault == "wrong":
        places = [p for p in words_for("train").places if p != slots["p"]]
        seen = [w for w in " ".join(bulletin.noise).split() if w in places]
        return bulletin.summary(slots | {"p": rng.choice(seen or places)})
    if fault == "cut":
        return re.sub(r" (in the|for|at) \w+( coins)?(?= )", "", bulletin.reference, count=1)
    return f"{bulletin.reference} {rng.choice(bulletin.noise)}"


def judge_summary(reference: str, summary: str) -> dict[str, float]:
    """`rouge_l` (F-measure) and `exact` match with the reference, in [0, 1]; `length` in words."""
    from rouge_score.rouge_scorer import RougeScorer

    score = RougeScorer(["rougeL"]).score(reference, summary)["rougeL"]
    return {
        "rouge_l": score.fmeasure,
        "exact": float(summary == reference),
        "length": float(len(summary.split())),
    }
