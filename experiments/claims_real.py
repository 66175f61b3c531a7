"""Claims on the real model: notebooks 08 to 10."""

from __future__ import annotations

from .claim import Claim, Number, level, mean_minus, minus, within_a_cell

CARD = "../data/everyday/README.md"
EVERYDAY, STYLES, AIMS = (f"{CARD}#results{of}" for of in ("", "-styles", "-two-objectives"))
CORRECTIONS = {"arm": "corrections"}
TWO, ONE = ({"arm": arm} for arm in ("two controls", "preferred texts only"))


BOTH = ("instructions", "preference")
MEAN = "mean of instructions followed and preferences met"


def aims(method: str, other: str, *objectives: str) -> Number:
    """A method minus another one, each with the setting that validation chose."""
    names = [f"{objective}_test" for objective in objectives]
    return mean_minus(names, {"method": method}, {"method": other})


REAL = (
    Claim(
        "everyday-fixed",
        "08",
        "An Aligner made of a real model learns from its corrections which faults to fix.",
        "Aligner, equation 4",
        "faulty test answers fixed",
        "trained on corrections that were shuffled among the rows",
        "everyday",
        minus("fixed", CORRECTIONS, {"arm": "shuffled"}),
        EVERYDAY,
        "Over three draws of these data, {} of the faulty test answers are fixed. Of the good "
        "ones, more than nine in ten come back word for word. Trained on shuffled corrections, the "
        "same model fixes none.",
        level("fixed", **CORRECTIONS),
    ),
    Claim(
        "everyday-unheard",
        "08",
        "It removes insults that no training row has.",
        "Aligner, table 1",
        "such insults fixed",
        "a rule that deletes the phrases of the training rows, and so cannot fix them",
        "everyday",
        minus("fixed/rude_unheard", CORRECTIONS, {"arm": "rule"}),
        EVERYDAY,
        "Of the insults that no training row has, {} are fixed. A rule that deletes the phrases of "
        "the training rows fixes none of them.",
        level("fixed/rude_unheard", **CORRECTIONS),
    ),
    Claim(
        "everyday-warmup",
        "08",
        "An identity warm-up, at equal steps, fixes more faults.",
        "Aligner, figure 3",
        "faulty test answers fixed",
        "the same steps without a warm-up",
        "everyday",
        minus("fixed", {"arm": "warm-up"}, CORRECTIONS),
        EVERYDAY,
        "An identity warm-up at equal steps makes no clear difference to the faults fixed: {} for "
        "training without it.",
        minus("fixed", CORRECTIONS, {"arm": "warm-up"}),
    ),
    Claim(
        "everyday-transfer",
        "08",
        "It carries over to real answers that nobody here made.",
        "Aligner, table 1",
        "listed rude words removed where the annotator removed them",
        "the answers as they are; in a third of the rows the whole correction is the annotator's",
        "everyday",
        level("polite_removed", **CORRECTIONS),
        EVERYDAY,
        "On real answers that nobody here made, it removes {} of the listed rude words that the "
        "annotator removed.",
    ),
    Claim(
        "styles-asked",
        "09",
        "LoRA controls on a real model are obeyed.",
        "MEET, abstract",
        "rude answers, asked for rude",
        "asked for polite",
        "everyday_styles",
        within_a_cell("rude/rude", "rude/polite"),
        STYLES,
        "Asked for *rude*, {} of the answers are rude. Asked for *polite*, none is, and without a "
        "control hardly any.",
        level("rude/rude"),
    ),
    Claim(
        "styles-mix",
        "09",
        "A mix of two controls is a dial: half of rude gives rude answers to some prompts.",
        "open in MEET",
        "rude answers at half of rude",
        "none of rude",
        "everyday_styles",
        within_a_cell("rude/mix_0.5", "rude/mix_0"),
        STYLES,
        "In a mix with up to half of *rude*, no answer is rude. With three quarters of it, {} are.",
        level("rude/mix_0.75"),
    ),
    Claim(
        "styles-length",
        "09",
        "A second axis, length, has controls of its own.",
        "open in MEET: no non-binary control was run",
        "words of an answer, asked for full",
        "asked for brief",
        "everyday_styles",
        within_a_cell("words/full", "words/brief", "words"),
        STYLES,
        "A control for *brief* answers gets one word: {} fewer than one for *full* answers, which "
        "are no longer than without a control.",
    ),
    Claim(
        "styles-both",
        "09",
        "Rude and full together give at least half as many rude answers as rude alone.",
        "open in MEET",
        "rude answers, asked for rude and full",
        "half of all, as all are when asked for rude alone",
        "everyday_styles",
        within_a_cell("rude/rude_and_full", 0.5),
        STYLES,
        "Two controls at once do not add up, perhaps because no *full* text held an insult: *rude* "
        "with *full* gives {} fewer rude answers than *rude* alone.",
        within_a_cell("rude/rude", "rude/rude_and_full"),
    ),
    Claim(
        "styles-cost",
        "09",
        "A second control costs right answers, compared with fine-tuning on the preferred texts.",
        "open in MEET: no such baseline was run",
        "right answers, fine-tuned on the preferred texts alone",
        "LoRA controls for preferred and rejected texts, the same steps",
        "everyday_controls",
        minus("right", ONE, TWO),
        f"{CARD}#results-cost-of-controls",
        "The second control costs no right answers: with both, {} more answers name the right fact "
        "than after fine-tuning on the polite ones alone, which is no clear difference.",
        minus("right", TWO, ONE),
    ),
    Claim(
        "aims-order",
        "10",
        "Alternating follows more instructions than the same stages in order.",
        "HBAT, abstract",
        "instructions followed",
        "all stages on instructions first",
        "everyday_aims",
        aims("turns", "restarted", "instructions"),
        AIMS,
        "The order decides. With the same short stages in turns, the model follows {} more "
        "instructions than with all those on instructions first. In the preferences there is no "
        "clear difference.",
    ),
    Claim(
        "aims-two-stage",
        "10",
        "HBAT does better than two stages.",
        "HBAT, abstract",
        MEAN,
        "two stages",
        "everyday_aims",
        aims("hbat", "two_stage", *BOTH),
        AIMS,
        "HBAT meets {} more preferences than two stages, each at its best learning rate. How many "
        "instructions two stages follow varies too much between seeds to compare.",
        aims("hbat", "two_stage", "preference"),
    ),
    Claim(
        "aims-turns",
        "10",
        "Alternating, without a penalty, does better than two stages.",
        "HBAT, abstract",
        MEAN,
        "two stages",
        "everyday_aims",
        aims("turns", "two_stage", *BOTH),
        AIMS,
    ),
    Claim(
        "aims-mixed-two-stage",
        "10",
        "The mixed loss does better than two stages.",
        "open in what could be read of HBAT",
        MEAN,
        "two stages",
        "everyday_aims",
        aims("mixed", "two_stage", *BOTH),
        AIMS,
    ),
    Claim(
        "aims-penalty",
        "10",
        "The elastic penalty helps beyond alternating.",
        "HBAT: modified EWC",
        MEAN,
        "the same stages without a penalty",
        "everyday_aims",
        aims("hbat", "turns", *BOTH),
        AIMS,
        "The penalty makes no clear difference: HBAT follows {} more instructions than turns "
        "without it (three seeds).",
        aims("hbat", "turns", "instructions"),
    ),
    Claim(
        "aims-mixed",
        "10",
        "HBAT does better than the mixed loss.",
        "open in what could be read of HBAT",
        MEAN,
        "the mixed loss",
        "everyday_aims",
        aims("hbat", "mixed", *BOTH),
        AIMS,
        "The mixed loss is simpler. Between it and HBAT there is no clear difference: HBAT meets "
        "{} more preferences (three seeds).",
        aims("hbat", "mixed", "preference"),
    ),
)
