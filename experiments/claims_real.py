"""What is known of the real model, for notebooks 08 to 10 (`claims.py`)."""

from __future__ import annotations

from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.stats import Estimate

from .claim import Claim, within_a_cell

CARD = "../data/everyday/README.md"
EVERYDAY, STYLES, AIMS = (f"{CARD}#results{of}" for of in ("", "-styles", "-two-objectives"))


def _everyday(metric: str, arm: str = "corrections") -> Estimate:
    return recorded(read_results("everyday"), metric, arm=arm)


def _styles(metric: str, minus: str, unit: str = "difference") -> Estimate:
    return within_a_cell(read_results("everyday_styles"), metric, minus, unit)


def aims(method: str, other: str, objective: str) -> Estimate:
    """A method less another, each with the setting that validation chose."""
    methods = {"method": method}, {"method": other}
    return recorded_difference(read_results("everyday_aims"), f"{objective}_test", *methods)


REAL = (
    Claim(
        "everyday-fixed",
        "08",
        "Over three draws of these data, {} of the faulty test answers are fixed. Of the good "
        "ones, more than nine in ten come back word for word.",
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
        clear=False,
    ),
    Claim(
        "everyday-warmup",
        "08",
        "An identity warm-up at equal steps makes no clear difference to the faults fixed: {}.",
        lambda: recorded_difference(
            read_results("everyday"), "fixed", {"arm": "corrections"}, {"arm": "warm-up"}
        ),
        EVERYDAY,
        clear=False,
    ),
    Claim(
        "everyday-transfer",
        "08",
        "On real answers that nobody here made, it removes {} of the listed rude words that the "
        "annotator removed.",
        lambda: _everyday("polite_removed"),
        EVERYDAY,
    ),
    Claim(
        "styles-asked",
        "09",
        "Asked for *rude*, {} of the answers are rude. Asked for *polite*, none is, and without a "
        "control hardly any.",
        lambda: recorded(read_results("everyday_styles"), "rude/rude"),
        STYLES,
    ),
    Claim(
        "styles-mix",
        "09",
        "In a mix with up to half of *rude*, no answer is rude. With three quarters of it, {} are.",
        lambda: recorded(read_results("everyday_styles"), "rude/mix_0.75"),
        STYLES,
    ),
    Claim(
        "styles-length",
        "09",
        "A control for *brief* answers gets one word: {} fewer than one for *full* answers, which "
        "are no longer than without a control.",
        lambda: _styles("words/full", "words/brief", "words"),
        STYLES,
    ),
    Claim(
        "styles-both",
        "09",
        "Two controls at once do not add up, perhaps because no *full* text held an insult: *rude* "
        "with *full* gives {} fewer rude answers than *rude* alone.",
        lambda: _styles("rude/rude", "rude/rude_and_full"),
        STYLES,
    ),
    Claim(
        "aims-order",
        "10",
        "The order decides. With the same short stages in turns, the model follows {} more "
        "instructions than with all those on instructions first. In the preferences there is no "
        "clear difference.",
        lambda: aims("turns", "restarted", "instructions"),
        AIMS,
    ),
    Claim(
        "aims-two-stage",
        "10",
        "HBAT meets {} more preferences than two stages, each at its best learning rate. How many "
        "instructions two stages follow varies too much between seeds to compare.",
        lambda: aims("hbat", "two_stage", "preference"),
        AIMS,
    ),
    Claim(
        "aims-penalty",
        "10",
        "The penalty makes no clear difference: HBAT follows {} more instructions than turns "
        "without it (three seeds).",
        lambda: aims("hbat", "turns", "instructions"),
        AIMS,
        clear=False,
    ),
    Claim(
        "aims-mixed",
        "10",
        "The mixed loss is simpler. Between it and HBAT there is no clear difference: HBAT meets "
        "{} more preferences (three seeds).",
        lambda: aims("hbat", "mixed", "preference"),
        AIMS,
        clear=False,
    ),
)
