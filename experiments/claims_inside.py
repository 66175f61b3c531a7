"""Claims on what an Aligner does inside: lesson 04."""

from __future__ import annotations

from alignlib.course.sweep import per_seed
from alignlib.stats import Estimate

from .claim import Claim, level, within_a_cell
from .hbat import mean_over_seeds

REPORT_04 = "evidence/04_inside.ipynb"


def _other_heads(record: dict) -> Estimate:
    kept = {head: per_seed(record, f"kept_without_3.{head}") for head in range(4)}
    others = {s: sum(kept[head][s] for head in range(3)) / 3 for s in kept[3]}
    return mean_over_seeds({s: others[s] - kept[3][s] for s in others}, "difference")


INSIDE = (
    Claim(
        "inside-surprise",
        "04",
        "While it reads, the Aligner's surprise separates wrong words from right ones.",
        "ours",
        "AUC of the surprise",
        "chance, 0.5",
        "looking",
        within_a_cell("surprise", 0.5, "AUC"),
        f"{REPORT_04}#probe",
        "While it reads, the Aligner's surprise separates wrong words from right ones, with an AUC "
        "of {}. No "
        "probe of its states there does clearly better than chance.",
        level("surprise", ""),
    ),
    Claim(
        "inside-patching",
        "04",
        "The answer's word is fetched in the last layer.",
        "ours",
        "right word written, its state patched in before the last layer",
        "its state patched in after the last layer",
        "looking",
        within_a_cell("patched_at_2", "patched_at_3"),
        f"{REPORT_04}#patching",
        "The answer's word is fetched in the last layer. Patched in before it, the right word is "
        "written in {} of the cases; without the patch, in three of five.",
        level("patched_at_2"),
    ),
    Claim(
        "inside-steering",
        "04",
        "A direction in the states sets how much an Aligner edits.",
        "Aligner: representation control, R squared 0.93",
        "slope of the edit ratio along the direction",
        "the largest slope of twenty differences of unrelated rows",
        "looking",
        within_a_cell("slope", "unrelated_max", "edit ratio"),
        f"{REPORT_04}#steering",
    ),
    Claim(
        "inside-copier",
        "04",
        "Of the last layer's heads, one matters most for keeping good answers.",
        "ours",
        "good answers kept without one of the other three heads, on average",
        "without head 3",
        "looking",
        _other_heads,
        f"{REPORT_04}#heads",
        "Good answers need the head that copies. Without head 3 of the last layer, {} fewer of "
        "them come back unchanged than without one of its other heads.",
    ),
)
