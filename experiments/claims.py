"""What is known, one sentence a claim with one number, read from the records.

`python -m alignlib card` writes data/claims.json, from which the lessons show those about
themselves. A record that changes changes the sentence there, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.profiles import data_folder, profile
from alignlib.stats import FORMATS, Estimate

from .aligner import WARMUP_SHARE
from .meet_controls import BOTH_STEPS

N = profile("tiny").corrections
WITH, WITHOUT = ({"share": share, "corrections": N} for share in (WARMUP_SHARE, 0.0))


@dataclass(frozen=True)
class Claim:
    """A sentence in which {} stands for the number, and where its evidence is."""

    id: str
    lesson: str
    sentence: str
    number: Callable[[], Estimate]
    link: str

    def as_dict(self) -> dict[str, object]:
        """The claim as data/claims.json has it; the number in it is rounded to whole units."""
        number = self.number()
        scale, _, unit = FORMATS.get(number.unit, (1, 0, f" {number.unit}"))
        text = f"{abs(number.value) * scale:.0f}{unit}"
        interval = {"low": number.low, "high": number.high, "unit": number.unit}
        about = {"id": self.id, "lesson": self.lesson, "sentence": self.sentence.format(text)}
        return about | {"number": number.value, **interval, "link": self.link}


def _warmup(metric: str, unit: str = "rate", **params: object) -> Callable[[], Estimate]:
    return lambda: recorded(read_results("warmup"), metric, unit, **params)


def _without_answers() -> Estimate:
    answering = read_results("answering")
    return recorded_difference(
        read_results("warmup"), "fault_free_unseen", WITHOUT, {}, other=answering
    )


def _forgotten() -> Estimate:
    return recorded_difference(read_results("learning"), "copying", {"steps": 50}, {"steps": 500})


def _in_another_language() -> Estimate:
    metric = "net_win_overall_language"
    return recorded_difference(read_results("warmup"), metric, WITH, WITHOUT, "points")


def _meet_arm(arm: str) -> Estimate:
    cells = BOTH_STEPS["prompt"], BOTH_STEPS["prompt"] | {"arm": arm}
    return recorded_difference(read_results("controls"), "sound_1_good", *cells)


def _everyday(metric: str, arm: str = "corrections") -> Estimate:
    return recorded(read_results("everyday"), metric, arm=arm)


EVERYDAY = "../data/everyday/README.md#results"
REPORT_05 = "evidence/05_meet.ipynb"
REPORT_02 = "evidence/02_aligner.ipynb"
CLAIMS = (
    Claim(
        "aligner-unseen",
        "02",
        "On words that no correction ever showed, {} of the answers have no fault after "
        "correction; before it, one in five had none.",
        _warmup("fault_free_unseen", **WITH),
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-warmup",
        "02",
        "Against the same number of steps without it, a warm-up makes no clear difference on known "
        "words. In a language that no correction is in, its net win is {} higher.",
        _in_another_language,
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-reads",
        "02",
        "The Aligner uses the answer. One that is trained to answer without it leaves {} fewer "
        "answers without faults on unseen words.",
        _without_answers,
        f"{REPORT_02}#answering",
    ),
    Claim(
        "aligner-forgets",
        "02",
        "Longer training costs other skills. Between 50 and 500 steps, copying lists of random "
        "words gets worse by {}.",
        _forgotten,
        f"{REPORT_02}#too-long",
    ),
    Claim(
        "meet-lora",
        "05",
        "With LoRA controls, {} of the sampled answers have no fault when *good* is asked for, "
        "and one in ten when *bad* is.",
        lambda: recorded(read_results("controls"), "sound_1_good", **BOTH_STEPS["lora"]),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-step-2",
        "05",
        "A soft prompt needs step 2: with all steps spent on the controls alone, {} fewer answers "
        "have no fault.",
        lambda: _meet_arm("step 1 alone"),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-order",
        "05",
        "The paper's order, controls first, makes no clear difference here: {} against training "
        "controls and model together from the start.",
        lambda: _meet_arm("joint"),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-one-behavior",
        "05",
        "Over a single special token per behavior, LoRA controls have a net win of {}. Plain "
        "fine-tuning on the preferred answers, and DPO, do as well as *good*.",
        lambda: recorded(
            read_results("rivals_of_meet"), "meet, lora_over_one token_1", "points", task="qa"
        ),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "everyday-fixed",
        "08",
        "Over three draws of these data, {} of the faulty test answers are fixed. Of the good "
        "ones, nine in ten come back word for word.",
        lambda: _everyday("fixed"),
        EVERYDAY,
    ),
    Claim(
        "everyday-unheard",
        "08",
        "Of the insults that no training row has, {} are fixed. A rule that deletes the phrases of "
        "the training rows fixes none of them.",
        lambda: _everyday("fixed/rude_unheard"),
        EVERYDAY,
    ),
    Claim(
        "everyday-shuffled",
        "08",
        "Trained on corrections that were shuffled among the rows, it fixes {}.",
        lambda: _everyday("fixed", "shuffled"),
        EVERYDAY,
    ),
    Claim(
        "everyday-warmup",
        "08",
        "An identity warm-up at equal steps makes no clear difference: {} fewer faults fixed.",
        lambda: recorded_difference(
            read_results("everyday"), "fixed", {"arm": "corrections"}, {"arm": "warm-up"}
        ),
        EVERYDAY,
    ),
    Claim(
        "everyday-transfer",
        "08",
        "On real answers that nobody here made, it removes {} of the listed rude words that the "
        "annotator removed.",
        lambda: _everyday("polite_removed"),
        EVERYDAY,
    ),
)


def write_claims() -> Path:
    """Write data/claims.json."""
    file = data_folder() / "claims.json"
    text = json.dumps([claim.as_dict() for claim in CLAIMS], indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    return file
